"""Does pre-training on streets pay? LiDAR segmentation of towns never seen, from few labels; rendered depth of cameras.

    python benchmarks/streets.py --seeds 0 1 2 [--out runs/streets-transfer] [--processes 2] [--save]
    python benchmarks/streets.py --part camera --seeds 0 1 2
    python benchmarks/streets.py --part shipped --seeds 0 1 2

``lidar``: encoders of ``pretrain_streets`` (``--recipes``), pre-trained without labels of the transfer towns, then a
linear probe on 24 labelled sweeps and fine-tuning from 20 labelled points in each of 8 sweeps, in ``--trials``.
Beside them a random encoder (probe) and training from scratch by ``semseg_driving.streets``; both with 80 steps and
with four times as many. mIoU in percent over test towns, one point per voxel; mean and standard deviation over the
seeds of the means of their trials; gains are taken trial by trial, from the row without one.

``camera``: ``pretrain_streets.camera``, and the same with an untrained backbone that stays as it is, so that only what
lies behind it learns. Depth error in metres at the laser's points in test towns, and that of each view's median depth.

``shipped``: the linear probe of ``outdoor-small``, of its last level and of all; a minute a seed.

A seed decides towns, order and initial weights. Interrupted, it goes on where it was.
"""

import statistics
from dataclasses import replace
from pathlib import Path

import torch
from measure import machine, parser, saved, table

from ponder3d.config import fingerprint
from ponder3d.data.synthetic.streets import StreetsConfig, generate
from ponder3d.data.transforms import GridSample, LimitLabels, apply
from ponder3d.encoders.files import FILE_NAME, load_encoder
from ponder3d.engine.experiment import Experiment
from ponder3d.engine.jobs import Job, run_jobs
from ponder3d.geometry import keyed
from ponder3d.recipes import pretrain_streets, semseg_driving
from ponder3d.recipes.pretrain_streets import street_range
from ponder3d.tasks.linear_probe import LinearProbeConfig, linear_probe
from ponder3d.types import Scene

PROBED_TOWNS = 24


def seeded(experiment: Experiment, seed: int, cache: str) -> Experiment:
    assert isinstance(experiment.data, StreetsConfig)
    return replace(experiment, data=replace(experiment.data, seed=seed, cache=cache), seed=seed)


def pretraining(recipe: str, seed: int, steps: int, cache: str) -> Experiment:
    experiment = seeded(getattr(pretrain_streets, recipe)(), seed, cache)
    return replace(experiment, steps=steps, validate_every=0, save_every=steps)


def finetuning(seed: int, trial: int, cache: str, init: str = "", longer: int = 1) -> Experiment:
    """Trials differ in the labelled points, the order and the initial weights."""
    recipe = seeded(semseg_driving.streets_finetune() if init else semseg_driving.streets(), seed, cache)
    own = keyed.derive(seed, trial) % 10_000
    limited = tuple(LimitLabels(t.points, own) if isinstance(t, LimitLabels) else t for t in recipe.transforms)
    steps = recipe.steps * longer
    return replace(
        recipe,
        transforms=limited,
        validation_transforms=(*recipe.validation_transforms, GridSample()),
        steps=steps,
        seed=own,
        init=init,
        save_every=steps,
    )


def probe(seed: int, trial: int, cache: str, encoder_file: str, all_levels: bool = False) -> dict[str, float]:
    own = keyed.derive(seed, trial) % 10_000
    torch.manual_seed(own)
    recipe = seeded(semseg_driving.streets(), seed, cache)
    encoder = load_encoder(encoder_file) if encoder_file else recipe.task.encoder.build()
    assert isinstance(recipe.data, StreetsConfig)
    data = replace(recipe.data, num_towns=PROBED_TOWNS)
    train, test = (sampled(towns, encoder.config.grid_size) for towns in (data, data.held_out()))
    labels = data.build().labels
    assert labels is not None
    encoder = encoder.all_levels() if all_levels else encoder
    return linear_probe(encoder, train, test, labels, LinearProbeConfig(), own)


def sampled(data: StreetsConfig, grid_size: float) -> list[Scene]:
    streets = data.build()
    steps = (street_range(), GridSample(grid_size))
    return [apply(steps, streets[i], data.seed, i) for i in range(len(streets))]


def transfers(seed: int, trials: int, out: Path, cache: str, recipes: list[str]) -> list[Job]:
    jobs = []
    starts = {"": "", **{name: str(out / f"{name}-{seed}" / FILE_NAME) for name in recipes}}
    for trial in range(trials):
        for name, file in starts.items():
            which = f"probe-{name or 'random'}-{seed}-{trial}"
            key = f"{fingerprint(semseg_driving.streets())}-{cache}-{file}"
            jobs.append(Job(which, out / which, None, probe, (seed, trial, cache, file), key))
            which = f"finetune-{name or 'scratch'}-{seed}-{trial}"
            jobs.append(Job(which, out / which, finetuning(seed, trial, cache, file)))
            which = f"finetune-{name or 'scratch'}-longer-{seed}-{trial}"
            jobs.append(Job(which, out / which, finetuning(seed, trial, cache, file, longer=4)))
    return jobs


def cell(values: list[float], digits: int = 1) -> str:
    return f"{statistics.mean(values):.{digits}f} +- {statistics.stdev(values) if len(values) > 1 else 0.0:.{digits}f}"


def fill(seed: int, cache: str, processes: int, recipes: list[str], transfer: bool) -> None:
    wanted = [seeded(getattr(pretrain_streets, name)(), seed, cache).data for name in recipes]
    if transfer:
        few = seeded(semseg_driving.streets(), seed, cache).data
        assert isinstance(few, StreetsConfig)
        wanted += [replace(few, num_towns=PROBED_TOWNS), few.held_out()]
    else:
        wanted += [data.held_out() for data in wanted]
    for data in wanted:
        assert isinstance(data, StreetsConfig)
        generate(data, processes)


def lidar(seeds: list[int], num_trials: int, steps: int, out: Path, processes: int, recipes: list[str]) -> None:
    cache = str(out / "towns")
    runs, later = [], []
    for seed in seeds:
        fill(seed, cache, processes, recipes, transfer=True)
        runs += [Job(f"{n}-{seed}", out / f"{n}-{seed}", pretraining(n, seed, steps, cache)) for n in recipes]
        later += transfers(seed, num_trials, out, cache, recipes)
    run_jobs(runs, processes, "pre-training")
    figures = run_jobs(later, processes, "transfer")
    print(machine(1))
    rows = []
    for way, base, starts in (
        ("probe", "random", recipes),
        ("finetune", "scratch", recipes),
        ("finetune", "scratch-longer", [f"{name}-longer" for name in recipes]),
    ):
        trials = {
            start: [[100 * figures[f"{way}-{start}-{s}-{t}"]["miou"] for t in range(num_trials)] for s in seeds]
            for start in (base, *starts)
        }
        rows.append((way, base, cell([statistics.mean(of) for of in trials[base]]), ""))
        for start in starts:
            gains = [
                statistics.mean(a - b for a, b in zip(*pair, strict=True))
                for pair in zip(trials[start], trials[base], strict=True)
            ]
            rows.append((way, start, cell([statistics.mean(of) for of in trials[start]]), cell(gains)))
    table(("", "start", "mIoU %", "gain"), rows)


def camera(seeds: list[int], steps: int, out: Path, processes: int) -> None:
    cache = str(out / "towns")
    jobs = []
    for seed in seeds:
        fill(seed, cache, processes, ["camera"], transfer=False)
        learns = pretraining("camera", seed, steps, cache)
        stays = replace(learns, optim=replace(learns.optim, backbone_lr_scale=0.0))
        for name, experiment in (("camera", learns), ("untrained", stays)):
            jobs.append(Job(f"{name}-{seed}", out / f"{name}-{seed}", replace(experiment, validation_scenes=0)))
    figures = run_jobs(jobs, processes, "pre-training")
    print(machine(1))
    rows = [
        (name, *(cell([figures[f"{name}-{s}"][key] for s in seeds], 2) for key in ("depth_error", "psnr")))
        for name in ("camera", "untrained")
    ]
    known = [figures[f"camera-{s}"] for s in seeds]
    rows.append(
        (
            "median depth, mean colour",
            *(cell([f[k] for f in known], 2) for k in ("depth_error_median", "psnr_mean_colour")),
        )
    )
    table(("", "depth error, m", "PSNR, dB"), rows)


def shipped(seeds: list[int], out: Path, processes: int) -> None:
    cache = str(out / "towns")
    for seed in seeds:
        fill(seed, cache, processes, [], transfer=True)
    print(machine(1))
    rows = []
    for name, file in (("random", ""), ("outdoor-small", "outdoor-small")):
        found = [[100 * probe(s, 0, cache, file, levels)["miou"] for s in seeds] for levels in (False, True)]
        rows.append((name, *map(cell, found)))
    table(("", "last level, mIoU %", "all levels"), rows)


def main() -> None:
    made = parser(__doc__)
    made.add_argument("--part", choices=["lidar", "camera", "shipped"], default="lidar")
    made.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    made.add_argument("--steps", type=int, default=600)
    made.add_argument("--trials", type=int, default=3, help="of --part lidar, each with other labelled points")
    made.add_argument("--recipes", nargs="+", default=["lidar"], help="of pretrain_streets, for --part lidar")
    made.add_argument("--out", type=Path, default=Path("runs/streets-transfer"))
    made.add_argument("--processes", type=int, default=2)
    args = made.parse_args()
    with saved(args.save):
        if args.part == "lidar":
            lidar(args.seeds, args.trials, args.steps, args.out, args.processes, args.recipes)
        elif args.part == "shipped":
            shipped(args.seeds, args.out, args.processes)
        else:
            camera(args.seeds, args.steps, args.out, args.processes)


if __name__ == "__main__":
    main()
