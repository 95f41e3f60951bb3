"""Rows of ``docs/numbers.md`` that one command gives again: what was run, what came out, and how near is the same.

A band is what seeds or, where a seed is fixed, other machines and kernels were seen to change; it is no test of
significance.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ponder3d.engine.comparison_table import RESULTS
from ponder3d.engine.evaluate import read_json
from ponder3d.engine.log import read_table


@dataclass(frozen=True)
class Number:
    """A published figure."""

    what: str
    """What it is, with its unit."""
    command: tuple[str, ...]
    """Arguments of ``ponder3d`` but ``--out``; ``DATA`` stands for the directory of the recording."""
    figure: Callable[[Path], float]
    """Reads it from what the command has written."""
    value: float
    band: float
    """How far from it still counts as the same, on either side."""
    where: str = ""
    """The recording that is needed; empty: none."""


def _last(column: str, over: str = "") -> Callable[[Path], float]:
    """A figure of a run's final evaluation, or its ratio to another."""

    def read(run: Path) -> float:
        row = read_table(run / "validation.csv")[-1]
        return float(row[column]) / (float(row[over]) if over else 1.0)

    return read


def _demo(way: str, start: str) -> Callable[[Path], float]:
    def read(folder: Path) -> float:
        record = read_json(folder / "results.json")
        assert record is not None
        return next(row["gain"] for row in record["rows"] if (row["way"], row["start"]) == (way, start))

    return read


def _compared(way: str, method: str) -> Callable[[Path], float]:
    """The gain of a method, points of mIoU.

    Raises:
        ValueError: its cell failed.
    """

    def read(folder: Path) -> float:
        record = read_json(folder / RESULTS)
        assert record is not None
        row = next(row for row in record["rows"] if (row["way"], row["method"]) == (way, method))
        if row["gain"] is None:
            raise ValueError(f"reproduce: {method} was not measured: {row['failed']}")
        return row["gain"]

    return read


_OF_DATA = ("--data.root", "DATA", "--workers", "0", "--validate-every", "0")
_DEMO = ("demo", "--seed", "0")
_SMALL = (
    *("compare", "semseg.rooms_full", "--data.seed", "7", "--data.num-rooms", "24", "--methods", "small=indoor-small"),
    *("--labels", "100%", "--ways", "probe,levels", "--seeds", "1"),
)
_ROOMS = (
    *("compare", "semseg.rooms", "--data.seed", "7", "--data.num-rooms", "12", "--methods", "ponder_distil"),
    *("--labels", "20", "--ways", "probe", "--seeds", "1", "--pretrain-steps", "500", "--withheld", "4"),
)
_PANDASET = (
    *("compare", "semseg_driving.pandaset", "--data.root", "DATA", "--methods", "ponder_pixel", "--labels", "20"),
    *("--ways", "probe", "--seeds", "1", "--pretrain-steps", "400"),
)

NUMBERS: dict[str, Number] = {
    "smoke": Number(
        "PSNR of the smallest pre-training there is, dB",
        ("train", "smoke.pretrain_indoor_rooms"),
        _last("psnr"),
        value=11.35,
        band=0.3,
    ),
    "demo-probe": Number(
        "gain of the linear probe by label-free pre-training, seed 0, points of mIoU",
        _DEMO,
        _demo("probe", "label-free"),
        value=9.3,
        band=2.4,
    ),
    "demo-probe-semantic": Number(
        "gain of the linear probe by rendered semantics, seed 0, points of mIoU",
        _DEMO,
        _demo("probe", "semantic"),
        value=24.9,
        band=4.5,
    ),
    "demo-finetune": Number(
        "gain of fine-tuning by label-free pre-training, seed 0, points of mIoU",
        _DEMO,
        _demo("finetune", "label-free"),
        value=3.0,
        band=2.4,
    ),
    "indoor-small": Number(
        "gain of indoor-small over random weights, probe of all levels, rooms of seed 7, points of mIoU",
        _SMALL,
        _compared("levels", "small"),
        value=13.9,
        band=2.0,
    ),
    "rooms-probe": Number(
        "gain of rendering and self-distillation over random weights, 500 steps, seed 0, points of mIoU",
        _ROOMS,
        _compared("probe", "ponder_distil"),
        value=11.6,
        band=1.5,
    ),
    "pandaset-probe": Number(
        "gain of rendering and pixel contrast over random weights, 400 steps, seed 0, points of mIoU",
        _PANDASET,
        _compared("probe", "ponder_pixel"),
        value=17.1,
        band=3.0,
        where="PandaSet",
    ),
    "7scenes-depth": Number(
        "depth error of held-out views as a share of their median depth's",
        ("train", "pretrain_rgbd.folder", *_OF_DATA, "--steps", "300"),
        _last("depth_error", "depth_error_median"),
        value=0.29,
        band=0.05,
        where="7-Scenes",
    ),
    "pandaset-depth": Number(
        "depth error at the laser's points of held-out frames as a share of the median depth's",
        ("train", "pretrain_driving.pandaset", *_OF_DATA, "--steps", "700"),
        _last("depth_error", "depth_error_median"),
        value=0.154,
        band=0.02,
        where="PandaSet",
    ),
}
