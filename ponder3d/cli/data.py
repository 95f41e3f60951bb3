"""Commands about data: ``ponder3d prepare | doctor | shard``."""

import inspect
from dataclasses import dataclass, replace
from itertools import pairwise, takewhile
from pathlib import Path
from typing import Annotated

import tyro

from ponder3d.data.doctor.opening import PREPARED, config_of, kind_of
from ponder3d.data.prepared.manifest import Manifest
from ponder3d.data.prepared.prepare import Estimate, Preparation, Preparing, free_bytes, raw_datasets
from ponder3d.data.prepared.scene_file import PrepareOptions
from ponder3d.data.prepared.shard import pack
from ponder3d.data.raw.dataset import RawDatasetConfig
from ponder3d.data.raw.rgbd import RGBDConfig
from ponder3d.engine.log import Progress
from ponder3d.report.doctor_page import doctor as examine
from ponder3d.report.doctor_page import summary_table

PREPARE_USAGE = """\
usage: ponder3d prepare NAME RAW OUT [options]

Reads a dataset as it was downloaded from RAW and keeps it in OUT, ready to train on. Stopped at whatever instant, the
same command continues. prepare NAME --help lists the options. NAME is one of
"""


@dataclass(frozen=True)
class _PrepareOptions:
    dataset: Annotated[RawDatasetConfig, tyro.conf.arg(name="")]
    options: Annotated[PrepareOptions, tyro.conf.arg(name="")]
    estimate: bool = False
    """Say what it would take, and stop there."""


def prepare(arguments: list[str]) -> int:
    """``ponder3d prepare``."""
    kinds = raw_datasets()
    if not arguments or arguments[0] in ("-h", "--help"):
        width = max(len(name) for name in kinds)
        lines = [f"  {name:<{width}}  {_first_line(kind)}" for name, kind in kinds.items()]
        print(PREPARE_USAGE + "\n" + "\n".join(lines))
        return 0
    name, *rest = arguments
    if name not in kinds:
        raise ValueError(f"prepare: no kind of dataset {name!r}; known are {', '.join(kinds)}")
    places = list(takewhile(lambda word: not word.startswith("-"), rest[:2]))
    raw, out = (*places, "RAW", "OUT")[:2]
    options = tyro.cli(
        _PrepareOptions,
        default=_PrepareOptions(replace(kinds[name](), root=raw), PrepareOptions()),
        args=rest[len(places) :],
        prog=f"ponder3d prepare {name} RAW OUT",
        description=inspect.getdoc(kinds[name]),
    )
    if len(places) < 2:
        raise ValueError(f"usage: ponder3d prepare {name} RAW OUT [options]")
    preparing = Preparing(Preparation(options.dataset, options.options), Path(out))
    needed, free = preparing.estimate(), free_bytes(Path(out))
    print(f"{name} in {raw}: {_told(needed, options.dataset.every)}; {_size(free)} are free at {out}")
    if options.estimate:
        return 0
    if needed.bytes > free:
        raise OSError(f"{out}: too little space; take every n-th frame with a larger --every, or --no-images")
    progress = Progress(len(preparing.scenes), label="scenes")
    try:
        manifest = preparing.run(lambda done, total, figures: progress.show(done, figures))
    finally:
        progress.close()
    _print_summary(manifest, Path(out))
    return 0


@dataclass(frozen=True)
class _DoctorOptions:
    """Look a dataset over, as it was downloaded or prepared: poses, depth, colours, labels, points, copies, damage.

    Prints a table and writes a page with pictures, OUT/index.html, and OUT/skip.tsv, a list of what is not usable: give
    it to prepare with --skip or to train with --data.skip, or have it written where readers look with --apply. Exits
    with 3 if something is not usable.
    """

    out: str = ""
    """Directory of the page; empty: runs/doctor/ and the name of the dataset's directory."""
    kind: str = ""
    """Kind of dataset, as prepare takes it; empty: found out from its files."""
    frames: int = 60
    """Frames of a scene that are looked at, evenly over time; 0 takes all."""
    apply: bool = False
    """Also write the list of what is not usable to DATA/skip.tsv."""


@dataclass(frozen=True)
class _RawDoctorOptions(_DoctorOptions):
    __doc__ = _DoctorOptions.__doc__

    dataset: Annotated[RawDatasetConfig, tyro.conf.arg(name="")] = RGBDConfig()


def doctor(arguments: list[str]) -> int:
    """``ponder3d doctor``."""
    about = inspect.getdoc(_DoctorOptions)
    if not arguments or arguments[0].startswith("-"):
        tyro.cli(_DoctorOptions, args=["--help"], prog="ponder3d doctor DATA", description=about)
    data, *rest = arguments
    rest = [part for word in rest for part in (word.split("=", 1) if word.startswith("--kind=") else [word])]
    asked = next((value for flag, value in pairwise(rest) if flag == "--kind"), "")
    kind = kind_of(data, asked)
    default = _DoctorOptions() if kind == PREPARED else _RawDoctorOptions(dataset=config_of(data, kind))
    options = tyro.cli(type(default), default=default, args=rest, prog=f"ponder3d doctor {data}", description=about)
    config = options.dataset if isinstance(options, _RawDoctorOptions) else None
    name = data.rstrip("/").rpartition("/")[2] if "://" in data else Path(data).resolve().name
    out = options.out or f"runs/doctor/{name or 'data'}"
    shown: list[Progress] = []

    def report(scene: str, number: int, total: int) -> None:
        if not shown:
            shown.append(Progress(total, label="scenes"))
        shown[0].show(number, {})

    try:
        examination, page = examine(data, kind, out, options.frames, options.apply, config, report)
    finally:
        for progress in shown:
            progress.close()
    print(summary_table(examination))
    print(f"\npage: {page}   skip list: {Path(out) / 'skip.tsv'}")
    return 3 if examination.unusable else 0


@dataclass(frozen=True)
class _ShardOptions:
    """Put prepared scenes together in files of a size that storage likes; each is a WebDataset shard."""

    data: Annotated[str, tyro.conf.Positional]
    """What ponder3d prepare has written, or the URL of it."""
    out: Annotated[str, tyro.conf.Positional]
    """Directory for the shards and their manifest."""
    shard_mb: int = 256
    """Millions of bytes of a shard at most; a larger scene has one to itself."""


def shard(arguments: list[str]) -> int:
    """``ponder3d shard``."""
    options = tyro.cli(_ShardOptions, args=arguments, prog="ponder3d shard")
    shown: list[Progress] = []

    def report(done: int, total: int, figures: dict[str, float]) -> None:
        if not shown:
            shown.append(Progress(total, label="scenes"))
        shown[0].show(done, figures)

    try:
        manifest = pack(options.data, Path(options.out), options.shard_mb, report)
    finally:
        for progress in shown:
            progress.close()
    size = sum(size for size, _ in manifest.files.values())
    print(f"{len(manifest.scenes)} scenes in {len(manifest.files)} shards, {_size(size)} in {options.out}")
    return 0


def _print_summary(manifest: Manifest, out: Path) -> None:
    points, frames = (sum(getattr(scene, name) for scene in manifest.scenes) for name in ("points", "frames"))
    splits = {split: sum(s.split == split for s in manifest.scenes) for split in ("train", "val", "test")}
    counted = ", ".join(f"{number} {split}" for split, number in splits.items() if number)
    size = sum(size for size, _ in manifest.files.values())
    print(f"{len(manifest.scenes)} scenes ({counted}), {points:,} points, {frames:,} frames, {_size(size)} in {out}")
    if manifest.problems:
        whole = sum(not problem.frame for problem in manifest.problems)
        print(
            f"{len(manifest.problems)} problems ({whole} of them about whole scenes), all in {out / 'manifest.json'}:"
        )
        for problem in manifest.problems[:5]:
            print(f"  {problem}")


def _told(needed: Estimate, every: int) -> str:
    which = f" (1 of {every})" if every > 1 else ""
    frames = f", {needed.frames:,} frames{which}" if needed.frames else ""
    minutes = needed.seconds / 60
    time = f"{minutes / 60:.1f} h" if minutes > 90 else f"{minutes:.0f} min" if minutes > 1 else "a minute"
    return f"{needed.scenes:,} scenes{frames}; about {_size(needed.bytes)} and {time}"


def _size(number: int) -> str:
    return f"{number / 1e9:.1f} GB" if number > 1e9 else f"{number / 1e6:.0f} MB"


def _first_line(kind: type) -> str:
    return (kind.__doc__ or "").strip().splitlines()[0]
