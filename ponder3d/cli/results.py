"""Commands about what encoders and runs give: ``ponder3d encode | info | predict | score``."""

import json
from dataclasses import dataclass
from typing import Annotated, Literal

import tyro

from ponder3d.config import fingerprint
from ponder3d.data.raw.scannet_classes import GROUPS200, LABELS200
from ponder3d.encoders.files import load_encoder
from ponder3d.engine.predict import predict as predict_run
from ponder3d.engine.score import score as score_predictions
from ponder3d.recipes.catalogue import import_own
from ponder3d.report.encode_files import encode_files


def print_figures(figures: dict[str, float]) -> None:
    """One figure a line."""
    width = max((len(name) for name in figures), default=0)
    for name, value in figures.items():
        print(f"{name:<{width}}  {value:.4g}")


@dataclass(frozen=True)
class _EncodeOptions:
    """Features of clouds: OUT/NAME.npz with xyz and features, row by row of the file, and OUT/NAME.ply to look at."""

    encoder: Annotated[str, tyro.conf.Positional]
    """Encoder file, or the directory of a run."""
    inputs: Annotated[tuple[str, ...], tyro.conf.Positional]
    """Files of points (ply, las, laz, npz, npy, txt), and directories of one's own data or of posed RGB-D frames."""
    out: str = "features"
    """Directory for the features."""
    up: tuple[float, ...] = ()
    """Direction of up in the files' world, x y z; empty: z, and for frames alone what the recording suggests."""
    metres_per_unit: float = 1.0
    """Length of the unit of the coordinates."""
    normals: bool = True
    """Whether the encoder sees the normals that a file has."""
    estimate_normals: bool = False
    """Take the normals of a cloud that has none from its neighbouring points."""
    viewpoint: tuple[float, ...] = ()
    """Where estimated normals point, x y z in the files' world; empty: the middle of the cloud, or above it if the
    cloud is longer than 50 m."""
    missing: Literal["zeros", "error"] = "zeros"
    """What becomes of a cloud without colours or normals that the encoder reads: it sees zeros there, or the cloud is
    refused."""
    condition: str = ""
    """Which of the encoder's conditions the clouds are like (ponder3d info lists them); may be left out if there is at
    most one."""
    half: bool = False
    """Write features in half precision."""
    colour: str = "auto"
    """What the colours of files are: auto, or a range as in ponder3d.data.raw.point_files."""
    device: str = "cpu"
    """Where to encode: cpu, or cuda."""


def encode(arguments: list[str]) -> int:
    """``ponder3d encode``."""
    o = tyro.cli(_EncodeOptions, args=arguments, prog="ponder3d encode")
    if not o.inputs:
        raise ValueError("encode: name at least one file or directory")
    for path in encode_files(
        o.encoder,
        o.inputs,
        o.out,
        o.up,
        o.metres_per_unit,
        o.normals,
        o.half,
        o.colour,
        device=o.device,
        condition=o.condition,
        missing=o.missing,
        estimate_normals=o.estimate_normals,
        viewpoint=o.viewpoint,
    ):
        print(path)
    return 0


@dataclass(frozen=True)
class _InfoOptions:
    """What an encoder is: a fact a line."""

    encoder: Annotated[str, tyro.conf.Positional]
    """Encoder file, or the directory of a run."""


def info(arguments: list[str]) -> int:
    """``ponder3d info``."""
    encoder = load_encoder(tyro.cli(_InfoOptions, args=arguments, prog="ponder3d info").encoder)
    reach = "unknown" if encoder.reach is None else f"{encoder.reach:g} m"
    facts = {
        "kind": type(encoder).__name__,
        "parameters": f"{sum(p.numel() for p in encoder.parameters()):,}",
        "inputs": ", ".join([*encoder.config.inputs, *(["images"] if encoder.reads_images else [])]),
        "grid size": f"{encoder.config.grid_size:g} m",
        "conditions": ", ".join(encoder.conditions) or "none",
        "out channels": str(encoder.out_channels),
        "reach": reach,
        "configuration": fingerprint(encoder.config),
    }
    facts |= {
        f"card: {key}": value if isinstance(value, str) else json.dumps(value) for key, value in encoder.card.items()
    }
    width = max(len(name) for name in facts)
    for name, value in facts.items():
        print(f"{name:<{width}}  {value}")
    return 0


@dataclass(frozen=True)
class _PredictOptions:
    """The class of every point of a run's validation scenes, as files; figures too, where there are labels."""

    run: Annotated[str, tyro.conf.Positional]
    """Directory of a run of a segmentation recipe."""
    out: str = ""
    """Directory for the files; empty: predictions in the run."""
    augment: str = ""
    """Sum over a set of augmentations: scannet, scannet200 or s3dis."""
    formats: tuple[str, ...] = ("npz", "ply")
    """Of npz, ply, scannet (the benchmark's files, and a zip of them to submit). Splits of nuScenes always give
    the files of its benchmark too."""
    split: str = ""
    """Another split of the run's validation data, such as test; empty: the one that the run validates on."""
    probabilities: bool = False
    """Keep those of all classes in the npz files."""
    modules: Annotated[tuple[str, ...], tyro.conf.arg(name="import"), tyro.conf.UseAppendAction] = ()
    """Module of your own that the run uses; may be given several times."""


def predict(arguments: list[str]) -> int:
    """``ponder3d predict``."""
    o = tyro.cli(_PredictOptions, args=arguments, prog="ponder3d predict")
    import_all(o.modules)
    print_figures(predict_run(o.run, None, o.augment, o.out or None, o.formats, o.probabilities, split=o.split))
    return 0


@dataclass(frozen=True)
class _ScoreOptions:
    """Figures of saved predictions, over all their points together."""

    paths: Annotated[tuple[str, ...], tyro.conf.Positional]
    """Directories that ponder3d predict has written, or one submission to a benchmark (directory or zip)."""
    truth: str = ""
    """Of a submission: directory of predictions as npz, which hold the labels."""
    six_fold: bool = False
    """The directories hold the six areas of S3DIS, each predicted by a run that has not trained on it."""
    groups: bool = False
    """Add the means of ScanNet200's head, common and tail classes."""


def score(arguments: list[str]) -> int:
    """``ponder3d score``."""
    o = tyro.cli(_ScoreOptions, args=arguments, prog="ponder3d score")
    groups: dict[str, list[str]] = {}
    for name, group in zip(LABELS200.names, GROUPS200, strict=True):
        groups.setdefault(group, []).append(name)
    print_figures(score_predictions(o.paths, o.truth or None, o.six_fold, groups if o.groups else None))
    return 0


def import_all(modules: tuple[str, ...]) -> None:
    """Import what a run is said to need, as reading a run never does by itself.

    Raises:
        ValueError: there is no such module.
    """
    for name in modules:
        if import_own(name) is None:
            raise ValueError(f"--import {name}: no such module in this directory or on Python's path")
