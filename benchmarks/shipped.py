"""What an encoder that ships is worth on rooms it never saw, with and without colour: a linear probe of its features,
those of its last level and those of all levels of its decoder (``Encoder.all_levels``).

    python benchmarks/shipped.py [--encoder indoor-small] [--seeds 7 8 9] [--steps 2560] [--out runs/shipped] [--save]

A seed makes 24 labelled and 16 test rooms of 12 classes. Beside the encoder: one with random weights, and the same
network trained with every label of those 24 rooms for ``--steps`` steps of two rooms, which is what the share in the
last column is of. mIoU in percent, one point per voxel, mean and standard deviation over seeds. ``xyz`` has neither
colours nor normals. Interrupted, it goes on where it was.
"""

import statistics
from dataclasses import replace
from pathlib import Path

import torch
from measure import machine, parser, saved, table

from ponder3d.config import fingerprint
from ponder3d.data.synthetic.rooms import RoomsConfig, generate
from ponder3d.data.transforms import Centre, DropModality, GridSample, Transform, apply
from ponder3d.encoders.files import load_encoder, read_card
from ponder3d.engine.experiment import Experiment
from ponder3d.engine.jobs import Job, run_jobs
from ponder3d.recipes import semseg
from ponder3d.tasks.linear_probe import LinearProbeConfig, linear_probe
from ponder3d.types import Scene

LABELLED_ROOMS = 24
GIVEN: dict[str, tuple[Transform, ...]] = {
    "xyz, colour, normals": (),
    "xyz, colour": (DropModality(colour=0.0, normal=1.0),),
    "xyz": (DropModality(colour=1.0, normal=1.0),),
}
STARTS = [(start, levels) for levels in ("last", "all") for start in ("random", "encoder")]


def name_of(start: str, levels: str, given: str, seed: int) -> str:
    return f"{start}-{levels}-{given.replace(', ', '-')}-{seed}"


def supervised(seed: int, steps: int, cache: str) -> Experiment:
    recipe = semseg.rooms_full()
    assert isinstance(recipe.data, RoomsConfig)
    return replace(
        recipe,
        data=replace(recipe.data, num_rooms=LABELLED_ROOMS, seed=seed, cache=cache),
        validation_transforms=(*recipe.validation_transforms, GridSample()),
        steps=steps,
        save_every=steps,
        seed=seed,
    )


def probe(seed: int, given: str, cache: str, encoder_file: str, levels: str) -> dict[str, float]:
    torch.manual_seed(seed)
    recipe = supervised(seed, 1, cache)
    encoder = load_encoder(encoder_file) if encoder_file else recipe.task.encoder.build()
    assert isinstance(recipe.data, RoomsConfig)
    steps = (Centre(), GridSample(encoder.config.grid_size), *GIVEN[given])
    train, test = (sampled(data, steps) for data in (recipe.data, recipe.data.held_out()))
    labels = recipe.data.build().labels
    assert labels is not None
    if levels == "all":
        encoder = encoder.all_levels()
    return linear_probe(encoder, train, test, labels, LinearProbeConfig(), seed)


def sampled(data: RoomsConfig, steps: tuple[Transform, ...]) -> list[Scene]:
    rooms = data.build()
    return [apply(steps, replace(rooms[i], views=None), data.seed, i) for i in range(len(rooms))]


def main() -> None:
    made = parser(__doc__)
    made.add_argument("--encoder", default="indoor-small", help="its name, or a file")
    made.add_argument("--seeds", type=int, nargs="+", default=[7, 8, 9])
    made.add_argument("--steps", type=int, default=2560, help="of training with all labels")
    made.add_argument("--out", type=Path, default=Path("runs/shipped"))
    made.add_argument("--processes", type=int, default=2)
    args = made.parse_args()
    cache, jobs = str(args.out / "rooms"), []
    which = read_card(args.encoder)["sha256"]
    for seed in args.seeds:
        whole = supervised(seed, args.steps, cache)
        assert isinstance(whole.data, RoomsConfig)
        for data in (whole.data, whole.data.held_out()):
            generate(data, args.processes)
        for given in GIVEN:
            for start, levels in STARTS:
                file = args.encoder if start == "encoder" else ""
                name = name_of(start, levels, given, seed)
                key = f"{fingerprint(supervised(seed, 1, cache))}-{file and which}"
                jobs.append(Job(name, args.out / name, None, probe, (seed, given, cache, file, levels), key))
        name = f"supervised-{args.steps}-{seed}"
        jobs.append(Job(name, args.out / name, whole))
    figures = run_jobs(jobs, args.processes, "rooms")
    with saved(args.save):
        print(machine(1))
        trained = [figures[f"supervised-{args.steps}-{seed}"]["miou"] for seed in args.seeds]
        full = statistics.mean(trained)
        rows = []
        for given in GIVEN:
            for start, levels in STARTS:
                names = [name_of(start, levels, given, seed) for seed in args.seeds]
                rows.append((given, start, levels, *cells([figures[name]["miou"] for name in names], full)))
        rows.append(("xyz, colour, normals", "supervised", "last", *cells(trained, full)))
        table(("given", "encoder", "levels", "mIoU %", "of supervised"), rows)


def cells(values: list[float], full: float) -> tuple[str, str]:
    deviation = statistics.stdev(values) if len(values) > 1 else 0.0
    mean = statistics.mean(values)
    return f"{100 * mean:.1f} +- {100 * deviation:.1f}", f"{mean / full:.0%}"


if __name__ == "__main__":
    main()
