"""How do time and memory of a pre-training step grow with the voxels, and with the rays?

    python benchmarks/growth.py [--threads 1] [--repeats 3]

The task of the recipe ``pretrain_indoor.rooms`` on two generated rooms. First the grid becomes finer, so that the
voxels about double from size to size while rays and volume stay; then the rays double while the voxels stay. Nothing
in a step may grow faster than its input: the exponents should be about 1.

How to read it: each row is one size, in processes of its own. ``ms`` is the CPU time (of all threads, so that waiting
for other jobs does not count; take ``--threads 1``) of the median step: losses, backward, optimiser. The processes of
all sizes take turns, ``--repeats`` times, and the median is over all of them. ``peak`` is how far the memory of such a
process rises during its first step (see ``measure.peak_mb``), gradients and optimiser state included. A step costs
something without any voxel or ray: the row ``none`` has next to none of them. The exponent is the slope of a straight
line through log(cost) over log(size), once for the whole cost and once for what ``none`` does not cost; the latter is
the one that should be 1. It means little for memory while voxels are few: the peak of a step is the larger of what the
encoder and what the renderer needs, and below some size the renderer's hides the encoder's (nan: no growth to fit).
"""

import argparse
import json
import math
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, replace

import torch
from measure import machine, peak_mb, table

from ponder3d.data.loader import Collate
from ponder3d.data.synthetic.rooms import RoomsConfig
from ponder3d.data.transforms import Centre, GridSample, PickRays, apply
from ponder3d.recipes.pretrain_indoor import rooms
from ponder3d.tasks.ponder import PonderConfig

VIEWS = 6
ROOMS = 2


@dataclass(frozen=True)
class Size:
    """One row of a table."""

    grid: float
    """Metres per voxel."""
    rays_per_view: int


VOXELS = [Size(grid, 64) for grid in (0.113, 0.08, 0.0566, 0.04)]
RAYS = [Size(0.08, rays) for rays in (32, 64, 128, 256)]
NO_VOXELS, NO_RAYS = Size(2.0, 64), Size(0.08, 1)
TABLES = {"voxels": [NO_VOXELS, *VOXELS], "rays": [NO_RAYS, *RAYS]}


@dataclass(frozen=True)
class Cost:
    """What one process measured."""

    voxels: int
    rays: int
    megabytes: float
    seconds: list[float]


def data(cache: str) -> RoomsConfig:
    """Rooms from clouds that are dense enough for the finest grid."""
    return RoomsConfig(num_rooms=ROOMS, image_size=(240, 320), cloud_spacing=0.01, max_points=400_000, cache=cache)


def step_cost(size: Size, cache: str, steps: int) -> Cost:
    """Time and peak memory of training steps in this process."""
    experiment = rooms()
    assert isinstance(experiment.task, PonderConfig)
    encoder = replace(experiment.task.encoder, grid_size=size.grid)
    transforms = (Centre(), GridSample(size.grid), PickRays(VIEWS, size.rays_per_view))
    dataset = data(cache).build()
    batch = Collate(encoder.inputs)([apply(transforms, dataset[i], 0, 0, i) for i in range(ROOMS)])
    assert batch.rays is not None
    torch.manual_seed(0)
    task = replace(experiment.task, encoder=encoder).build(dataset.labels)
    optimizer = experiment.optim.build(task)
    task.train()

    def step() -> float:
        start = time.process_time()
        terms = task.losses(batch, 0).terms
        torch.stack(list(terms.values())).sum().backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return time.process_time() - start

    peak = peak_mb(step)
    return Cost(len(batch.points.xyz), len(batch.rays), peak, [step() for _ in range(steps)])


def in_own_process(size: Size, cache: str, threads: int, steps: int) -> Cost:
    command = [sys.executable, __file__, "--size", str(size.grid), str(size.rays_per_view), "--cache", cache]
    command += ["--threads", str(threads), "--steps", str(steps)]
    return Cost(**json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout))


def exponent(sizes: list[int], costs: list[float]) -> float:
    """Slope of log(cost) over log(size)."""
    if min(costs) <= 0:
        return math.nan
    return statistics.linear_regression([math.log(s) for s in sizes], [math.log(c) for c in costs]).slope


def report(what: str, costs: list[list[Cost]]) -> None:
    """Table and exponents; the first row is the fixed cost."""
    numbers = [runs[0].voxels if what == "voxels" else runs[0].rays for runs in costs]
    ms = [1000 * statistics.median(s for run in runs for s in run.seconds) for runs in costs]
    least = [1000 * min(s for run in runs for s in run.seconds) for runs in costs]
    megabytes = [statistics.median(run.megabytes for run in runs) for runs in costs]
    rows = [
        ["none" if i == 0 else "", runs[0].voxels, runs[0].rays, f"{ms[i]:.0f}", f"{least[i]:.0f}"]
        + [f"{megabytes[i]:.0f}"]
        for i, runs in enumerate(costs)
    ]
    print(f"\nmore {what}")
    table(["", "voxels", "rays", "ms", "fastest ms", "peak MB"], rows)
    for name, values in (("time", ms), ("fastest time", least), ("memory", megabytes)):
        whole = exponent(numbers[1:], values[1:])
        rest = exponent([n - numbers[0] for n in numbers[1:]], [v - values[0] for v in values[1:]])
        print(f"exponent of {name}: {whole:.2f}, without the fixed part {rest:.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3, help="processes per size")
    parser.add_argument("--steps", type=int, default=4, help="timed steps per process")
    parser.add_argument("--size", nargs=2, metavar=("GRID", "RAYS"), help=argparse.SUPPRESS)
    parser.add_argument("--cache", help=argparse.SUPPRESS)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if args.size:
        cost = step_cost(Size(float(args.size[0]), int(args.size[1])), args.cache, args.steps)
        print(json.dumps(vars(cost)))
        return
    print(f"{machine(args.threads)}\n{ROOMS} rooms, {args.repeats} processes of {args.steps} steps per size")
    with tempfile.TemporaryDirectory() as cache:
        for index in range(ROOMS):
            data(cache).build()[index]  # made once, read by every process
        for what, sizes in TABLES.items():
            costs: list[list[Cost]] = [[] for _ in sizes]
            for _ in range(args.repeats):
                for runs, size in zip(costs, sizes, strict=True):
                    runs.append(in_own_process(size, cache, args.threads, args.steps))
            report(what, costs)


if __name__ == "__main__":
    main()
