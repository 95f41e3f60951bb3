"""The demo: does rendering teach an encoder anything? Generated rooms, two pre-trainings, and the proof downstream.

Every part is a job with its own directory, so an interrupted demo continues where it was.
"""

import statistics
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch

from ponder3d.config import Config, fingerprint, incidental, to_json
from ponder3d.data.synthetic.rooms import RoomsConfig, generate
from ponder3d.data.transforms import Centre, GridSample, LimitLabels, apply
from ponder3d.encoders.files import FILE_NAME, load_encoder
from ponder3d.engine.evaluate import write_json
from ponder3d.engine.experiment import Experiment
from ponder3d.engine.jobs import Job, run_jobs
from ponder3d.engine.log import Progress
from ponder3d.geometry import keyed
from ponder3d.recipes import pretrain_indoor, semseg, smoke
from ponder3d.tasks.linear_probe import LinearProbeConfig, linear_probe
from ponder3d.types import Scene

RESULTS = "results.json"
PRETRAININGS = ("label-free", "semantic")
_FIRST_TRANSFER_ROOM = 500_000
_RENDERED_TEST_ROOMS = 4
"""Rendered at the end. Whole images and surfaces take long, some 6 s a room, so the stages before show one."""
_SMOKE_NUMBERS = {
    "pretrain_rooms": 4,
    "transfer_rooms": 3,
    "test_rooms": 2,
    "labelled_rooms": 2,
    "pretrain_steps": 4,
    "finetune_steps": 3,
    "trials": 2,
}


@dataclass(frozen=True)
class DemoConfig(Config):
    """Generate rooms, pre-train by rendering with and without labels, and measure what it is good for.

    Ten minutes and 4 GiB on two CPU cores. Run it again to continue an interrupted demo.
    """

    out: str = incidental("runs/demo")
    """Directory of the demo; the page is ``report/index.html`` in it."""
    seed: int = 0
    """Other seeds give other rooms, other encoders and other labelled points."""
    pretrain_rooms: int = 64
    """Rooms that are rendered."""
    transfer_rooms: int = 24
    """Other rooms: those of the linear probe, and the first few of them those of fine-tuning."""
    test_rooms: int = 16
    """Rooms on which transfer is measured, never used otherwise."""
    labelled_rooms: int = 8
    """Rooms of fine-tuning."""
    labelled_points: int = 20
    """Labelled points in each of them."""
    pretrain_steps: int = 500
    """Optimiser steps of each of the two pre-trainings."""
    finetune_steps: int = 80
    """Optimiser steps of each fine-tuning, from scratch or not."""
    trials: int = 3
    """Repetitions of every measurement, with other seeds."""
    processes: int = incidental(2)
    """Jobs at a time; each gets an equal share of the threads."""
    smoke: bool = False
    """Everything at a size of seconds, to see that it runs; the numbers of rooms, steps and trials are replaced."""
    quiet: bool = incidental(False)
    """No progress on the terminal."""


def is_demo(folder: Path | str) -> bool:
    """Whether a directory holds a finished demo."""
    return (Path(folder) / RESULTS).is_file()


def run_demo(config: DemoConfig) -> str:
    """Run the demo, or what is left of it.

    Returns:
        The transfer table as text. ``results.json`` in ``config.out`` holds every figure.
    """
    if config.smoke:
        config = replace(config, **_SMOKE_NUMBERS)
    out = Path(config.out)
    pretrain = pretrain_experiments(config)
    rooms = _rooms(config)
    for which, data in (
        ("to pre-train on", pretrain["label-free"].data),
        ("to render unseen", pretrain["label-free"].data.held_out()),
        ("to transfer to", rooms),
        ("to test on", rooms.held_out()),
    ):
        assert isinstance(data, RoomsConfig)
        progress = Progress(data.num_rooms, label=f"rooms {which}", quiet=config.quiet)
        generate(data, config.processes, lambda done, total, show=progress.show: show(done, {}))
        progress.close()
    jobs = [Job(name, out / name, experiment) for name, experiment in pretrain.items()]
    run_jobs(jobs, config.processes, "pre-training", config.quiet)
    figures = run_jobs(_transfer_jobs(config, out), config.processes, "transfer", config.quiet)
    rows = summarise(figures, config.trials)
    record = {
        "config": to_json(config),
        "fingerprint": fingerprint(config),
        "figures": figures,
        "rows": [asdict(row) for row in rows],
        "table": [table_cells(row) for row in rows],
    }
    write_json(out / RESULTS, record)
    return table_text(rows)


def pretrain_experiments(config: DemoConfig) -> dict[str, Experiment]:
    """The two pre-trainings by name."""
    recipes = (
        (smoke.pretrain_indoor_rooms(), smoke.pretrain_indoor_rooms_semantic())
        if config.smoke
        else (pretrain_indoor.rooms(), pretrain_indoor.rooms_semantic())
    )
    experiments = {}
    for name, recipe in zip(PRETRAININGS, recipes, strict=True):
        assert isinstance(recipe.data, RoomsConfig)
        data = replace(
            recipe.data,
            seed=config.seed,
            num_rooms=config.pretrain_rooms,
            num_test_rooms=min(_RENDERED_TEST_ROOMS, config.test_rooms),
            cache=f"{config.out}/rooms",
        )
        experiments[name] = replace(
            recipe,
            data=data,
            steps=config.pretrain_steps,
            validate_every=-(-config.pretrain_steps // 4),
            validation_scenes=1,
            seed=config.seed,
        )
    return experiments


def _segmentation(config: DemoConfig, init: str = "") -> Experiment:
    """From scratch and from a pre-trained encoder, each with the schedule that serves it."""
    if init:
        return smoke.semseg_rooms_finetune() if config.smoke else semseg.rooms_finetune()
    return smoke.semseg_rooms() if config.smoke else semseg.rooms()


def _rooms(config: DemoConfig) -> RoomsConfig:
    """The transfer rooms. Their ``held_out`` are the rooms that transfer is tested on; those that the pre-trainings are
    tested on, by rendering them, are other rooms.
    """
    data = _segmentation(config).data
    assert isinstance(data, RoomsConfig)
    return replace(
        data,
        seed=config.seed,
        first=_FIRST_TRANSFER_ROOM,
        num_rooms=config.transfer_rooms,
        num_test_rooms=config.test_rooms,
        cache=f"{config.out}/rooms",
    )


def _transfer_jobs(config: DemoConfig, out: Path) -> list[Job]:
    encoders = {name: str(out / name / FILE_NAME) for name in PRETRAININGS}
    jobs = []
    for trial in range(config.trials):
        for name, path in {"scratch": "", **encoders}.items():
            experiment = finetune_experiment(config, path, trial)
            jobs.append(Job(f"finetune-{name}-{trial}", out / "transfer" / f"finetune-{name}-{trial}", experiment))
        for name, path in {"random": "", **encoders}.items():
            target = out / "transfer" / f"probe-{name}-{trial}"
            jobs.append(
                Job(
                    f"probe-{name}-{trial}", target, None, probe, (config, path, trial), f"{fingerprint(config)}-{path}"
                )
            )
    return jobs


def finetune_experiment(config: DemoConfig, init: str, trial: int) -> Experiment:
    """Segmentation from few labels; trials differ in the labelled points, the order and the initial weights.

    One point per voxel is scored, as in the linear probe: every point takes ten times as long (3.3 s a room).
    """
    recipe = _segmentation(config, init)
    seed = keyed.derive(config.seed, trial) % 10_000
    transforms = tuple(
        LimitLabels(config.labelled_points, seed) if isinstance(t, LimitLabels) else t for t in recipe.transforms
    )
    return replace(
        recipe,
        data=replace(_rooms(config), num_rooms=config.labelled_rooms),
        transforms=transforms,
        validation_transforms=(Centre(), GridSample()),
        steps=config.finetune_steps,
        seed=seed,
        init=init,
        save_every=config.finetune_steps,
    )


def probe(config: DemoConfig, encoder_file: str, trial: int) -> dict[str, float]:
    """Linear probe of an encoder, or of a freshly initialised one if there is no file."""
    seed = keyed.derive(config.seed, trial) % 10_000
    torch.manual_seed(seed)
    encoder = load_encoder(encoder_file) if encoder_file else _segmentation(config).task.encoder.build()
    data = _rooms(config)
    train, test = (_sampled(rooms, encoder.config.grid_size) for rooms in (data, data.held_out()))
    labels = data.build().labels
    assert labels is not None  # rooms have classes
    return linear_probe(encoder, train, test, labels, LinearProbeConfig(), seed)


def _sampled(data: RoomsConfig, grid_size: float) -> list[Scene]:
    """Rooms as the encoder sees them in evaluation; always the same points."""
    rooms = data.build()
    return [
        apply((Centre(), GridSample(grid_size)), replace(rooms[i], views=None), data.seed, i) for i in range(len(rooms))
    ]


@dataclass(frozen=True)
class TransferRow:
    """What one way of transfer gives from one start; mIoU in percentage points, over the trials."""

    way: str
    start: str
    mean: float
    spread: float
    """Standard deviation."""
    gain: float
    """Mean difference from the first start, trial by trial: a trial gives every start the same labelled points."""
    gain_spread: float


def summarise(figures: dict[str, dict[str, float]], trials: int) -> list[TransferRow]:
    """One row per way of transfer and start; the first start of a way is what the others are compared with."""
    rows = []
    for way, starts in (("probe", ("random", *PRETRAININGS)), ("finetune", ("scratch", *PRETRAININGS))):
        base = [100 * figures[f"{way}-{starts[0]}-{trial}"]["miou"] for trial in range(trials)]
        for start in starts:
            values = [100 * figures[f"{way}-{start}-{trial}"]["miou"] for trial in range(trials)]
            gains = [value - other for value, other in zip(values, base, strict=True)]
            rows.append(TransferRow(way, start, *_mean_and_spread(values), *_mean_and_spread(gains)))
    return rows


def _mean_and_spread(values: list[float]) -> tuple[float, float]:
    return statistics.mean(values), statistics.stdev(values) if len(values) > 1 else 0.0


def table_cells(row: TransferRow) -> tuple[str, str, str, str]:
    """A row of the transfer table: way, start, mIoU and gain; the way is named once, the base has no gain."""
    titles = {"probe": "linear probe, frozen features", "finetune": "fine-tuning, few labels"}
    first = row.start in ("random", "scratch")
    gain = "" if first else f"{row.gain:+.1f} +- {row.gain_spread:.1f}"
    return titles[row.way] if first else "", row.start, f"{row.mean:.1f} +- {row.spread:.1f}", gain


def table_text(rows: list[TransferRow]) -> str:
    """The transfer table for the terminal."""
    cells = [("", "start", "mIoU %", "gain"), *(table_cells(row) for row in rows)]
    return "\n".join(f"{way:<32}{start:<12}{miou:>14}{gain:>14}".rstrip() for way, start, miou, gain in cells)
