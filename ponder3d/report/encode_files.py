"""Features for files of points, and for directories of one's own data: ``ponder3d encode``."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from ponder3d.data.dataset import DataError
from ponder3d.data.raw.dataset import RawFrame, RawPoints, RawScene
from ponder3d.data.raw.folder import FAR, FolderConfig
from ponder3d.data.raw.point_files import read_points
from ponder3d.data.raw.rgbd import RGBDConfig, RGBDOptions, is_direction, scene_clouds, upright
from ponder3d.data.rgbd_folder import fuse_cloud
from ponder3d.data.skip_list import SkipList, skip_list_of
from ponder3d.encoders.encoder import Encoder
from ponder3d.encoders.files import load_encoder
from ponder3d.engine.log import Progress
from ponder3d.files import replacing
from ponder3d.geometry.drawing import principal_colours
from ponder3d.geometry.ply import write_ply
from ponder3d.types import Cameras, Views

FUSED_FRAMES = 64
"""Frames of a sequence that make its cloud, evenly over time: at most 5 million pixels at a time."""
FUSED_SIDE = 320
"""Pixels of the longer side of their images."""
HALF = 65504.0
"""The largest number of half precision."""
FUSED_SPACING = 0.02
"""Metres between the points of the cloud."""


@dataclass(frozen=True, eq=False)
class _Input:
    """One cloud to be encoded."""

    name: str
    source: str
    file: Path | None
    """Of points; None: the frames of ``scene`` are fused."""
    scene: RawScene | None = None
    skips: SkipList = SkipList()
    """Of the directory of ``scene``."""


def encode_files(
    encoder: Path | str,
    inputs: Sequence[Path | str],
    out: Path | str,
    up: tuple[float, ...] = (),
    metres_per_unit: float = 1.0,
    normals: bool = True,
    half: bool = False,
    colour: str = "auto",
    options: RGBDOptions | None = None,
    device: torch.device | str = "cpu",
    quiet: bool = False,
    condition: str = "",
    missing: Literal["zeros", "error"] = "zeros",
    estimate_normals: bool = False,
    viewpoint: tuple[float, ...] = (),
) -> list[Path]:
    """Write features of clouds as numbers and as a picture, two files each, whole or not at all.

    ``OUT/NAME.npz`` holds ``xyz`` [N 3] and ``features`` [N C], and ``rgb`` [N 3] uint8 if it is known. Rows and
    coordinates are those of the file; where there are only frames, of a cloud that is fused from them, in metres, z up.
    ``OUT/NAME.ply`` holds the points in the colours of the first three principal components of their features'
    directions, each spread over its 2 to 98 %; its coordinates have single precision, so beyond 10 km they are moved
    towards 0 by whole thousands.

    Args:
        encoder: a file of an encoder, or the directory of a run.
        inputs: files of points (``data.raw.point_files``), directories of one's own data (``data.raw.folder``), and
            directories of posed RGB-D frames. A scene with a cloud and frames is encoded by its cloud. What a
            directory's ``skip.tsv`` names is left out (``data.skip_list``).
        out: directory; it is made.
        up: direction of up in the files' world; empty: z, and for frames alone whatever ``data.raw.rgbd`` finds.
        metres_per_unit: length of the unit of the coordinates.
        normals: whether the encoder sees the normals that a file has.
        half: whether features are written in half precision.
        colour: what the colours are, see ``data.raw.point_files``.
        options: how RGB-D frames are read; root, up, and size of images are set here.
        device: where to encode.
        quiet: show no progress.
        condition: which of the encoder's conditions the clouds are like; see ``Encoder.encode`` for this and the next.
        missing: zeros, or error: what becomes of a cloud without colours, normals, intensities that the encoder reads.
        estimate_normals: take the normals of a cloud without any (or with ``normals`` off) from neighbours.
        viewpoint: in the files' world, where estimated normals point; empty: as ``Encoder.encode`` decides.

    Returns:
        The files, npz and ply of one cloud after the other.

    Raises:
        DataError: an input cannot be read, is not recognised, does not fit the encoder, or two have one name; a file
            would be written over an input. What was encoded before stays.
        ValueError: ``up``, ``metres_per_unit``, ``viewpoint`` or ``device`` is not usable; or
            ``encoders.files.EncoderFileError``.
        OSError: a file cannot be written, or there is no encoder.
    """
    if (up and not is_direction(up)) or not 0 < metres_per_unit < np.inf:
        raise ValueError(f"encode: up must be x y z and metres_per_unit positive, not {up} and {metres_per_unit}")
    if viewpoint and not (len(viewpoint) == 3 and np.isfinite(viewpoint).all()):
        raise ValueError(f"encode: viewpoint must be x y z, not {viewpoint}")
    model = load_encoder(encoder, device)
    out = Path(out)
    clouds = [cloud for path in inputs for cloud in _clouds(Path(path), up, metres_per_unit, options)]
    _check_names(clouds, out)
    turn = upright(np.array(up or (0.0, 0.0, 1.0)))
    choices: dict[str, Any] = {"condition": condition, "missing": missing, "estimate_normals": estimate_normals}
    progress = Progress(len(clouds), label="encode", quiet=quiet or len(clouds) < 2)
    written = []
    for number, cloud in enumerate(clouds):
        if cloud.file is not None:
            points = read_points(cloud.file, colour)
            features = _encode(model, cloud.source, points, turn * metres_per_unit, normals, viewpoint, choices)
        else:
            assert cloud.scene is not None
            points = _fused(cloud.scene, cloud.skips)
            features = _encode(model, cloud.source, points, np.eye(3), normals, (), choices)
        written += _write(out / cloud.name, points, features, half)
        progress.show(number + 1, {"points": float(len(points.xyz))})
    progress.close()
    return written


def _clouds(path: Path, up: tuple[float, ...], metres_per_unit: float, options: RGBDOptions | None) -> Iterator[_Input]:
    if not path.is_dir():
        yield _Input(path.stem, str(path), path)
        return
    own = FolderConfig.recognises(path)
    config = FolderConfig(metres_per_unit=metres_per_unit) if own else RGBDConfig()
    if options is not None:
        shared = ("every", "depth_scale", "invalid_depth", "max_depth", "intrinsics")
        config = replace(config, **{name: getattr(options, name) for name in shared})
    dataset = replace(config, root=str(path), up=up, max_side=FUSED_SIDE).build()
    skips = skip_list_of(path)
    problems = (problem for problem in dataset.problems if skips.scene(problem.scene) is None)
    unusable = next((problem for problem in problems if not problem.frame), None)
    if unusable is not None:
        raise DataError(f"{path}: {unusable}")
    kept = [scene for scene in dataset.scenes if skips.scene(scene.name) is None]
    if not kept:
        raise DataError(f"{path}: {skips.where} leaves out every scene")
    for scene in kept:
        place = Path(scene.source)
        file = place if place.is_file() else next(iter(scene_clouds(place)), None) if own else None
        yield _Input(scene.name, scene.source, file, scene, skips)


def _check_names(clouds: list[_Input], out: Path) -> None:
    if not clouds:
        raise DataError("encode: nothing to encode; name files or directories")
    by_name: dict[str, _Input] = {}
    for cloud in clouds:
        other = by_name.setdefault(cloud.name, cloud)
        if other is not cloud:
            raise DataError(
                f"{cloud.source}: would be written to {cloud.name}.npz, and so would {other.source}; rename one of "
                "them, or write them to two directories"
            )
    ours = {(out / f"{cloud.name}{ending}").resolve() for cloud in clouds for ending in (".npz", ".ply")}
    for cloud in clouds:
        if cloud.file is not None and cloud.file.resolve() in ours:
            raise DataError(f"{cloud.file}: would be written over; choose another directory for the features")


def _encode(
    model: Encoder,
    source: str,
    points: RawPoints,
    turn: np.ndarray,
    normals: bool,
    viewpoint: tuple[float, ...],
    choices: dict[str, Any],
) -> torch.Tensor:
    """Features [N C]; ``turn`` takes the file's coordinates to metres with z up."""
    normal = None
    if normals and points.normal is not None:
        rotation = turn / np.cbrt(np.linalg.det(turn))
        normal = (points.normal @ rotation.T).astype(np.float32)
    try:
        seen_from = np.array(viewpoint) @ turn.T if viewpoint else None
        measured = {"rgb": points.rgb, "normal": normal, "intensity": points.intensity}
        return model.encode(points.xyz @ turn.T, **measured, viewpoint=seen_from, **choices)
    except ValueError as error:
        raise DataError(f"{source}: {error}") from error


def _fused(scene: RawScene, skips: SkipList) -> RawPoints:
    """A cloud from some of the frames of a scene that are not left out."""
    usable = [frame for frame in scene.frames if skips.frame(scene.name, frame) is None]
    if not usable:
        raise DataError(f"{scene.source}: {skips.where} leaves out every frame")
    number = min(FUSED_FRAMES, len(usable))
    names = [usable[i * len(usable) // number] for i in range(number)]
    frames, problems = [], []
    for frame in scene.read_frames(names):
        if not isinstance(frame, RawFrame):
            problems.append(frame)
        elif frame.depth is not None:
            frames.append(frame)
    if not frames:
        why = f"; the first: {problems[0]}" if problems else ""
        raise DataError(f"{scene.source}: none of {number} frames has a depth that can be read{why}")
    views = Views(
        cameras=Cameras(
            torch.from_numpy(np.stack([frame.intrinsics for frame in frames])).to(torch.float32),
            torch.from_numpy(np.stack([frame.world_from_cam for frame in frames])).to(torch.float32),
            (frames[0].rgb.shape[0], frames[0].rgb.shape[1]),
        ),
        rgb=torch.from_numpy(np.stack([frame.rgb for frame in frames])),
        depth=torch.from_numpy(np.stack([frame.depth for frame in frames])),
        labels=None,
        counts=torch.tensor([len(frames)]),
        names=tuple(frame.name for frame in frames),
    )
    cloud = fuse_cloud(views, FUSED_SPACING, scene.source)
    rgb = (cloud.rgb * 255).round().to(torch.uint8).numpy()
    return RawPoints(cloud.xyz.double().numpy(), rgb, cloud.normal.numpy())


def _write(stem: Path, points: RawPoints, features: torch.Tensor, half: bool) -> list[Path]:
    if half and float(features.abs().amax()) > HALF:
        raise DataError(f"{stem.name}: features up to {float(features.abs().amax()):g} do not fit half precision")
    npz, ply = stem.with_name(f"{stem.name}.npz"), stem.with_name(f"{stem.name}.ply")
    small = points.xyz.astype(np.float32)
    xyz = small if (small == points.xyz).all() else points.xyz
    written = features.numpy().astype(np.float16 if half else np.float32)
    with replacing(npz) as file:
        if points.rgb is None:
            np.savez(file, xyz=xyz, features=written)
        else:
            np.savez(file, xyz=xyz, features=written, rgb=points.rgb)
    far = np.abs(points.xyz).max(0) > FAR
    near = points.xyz - np.where(far, np.floor(points.xyz.min(0) / 1000) * 1000, 0)
    write_ply(ply, torch.from_numpy(near.astype(np.float32)), principal_colours(features))
    return [npz, ply]
