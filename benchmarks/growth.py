"""How do time and memory of a pre-training step grow with the voxels, and with the rays?

    python benchmarks/growth.py [--table voxels rays encoder] [--threads 1] [--repeats 3] [--most 10] [--quick] [--save]

Tables ``voxels`` and ``rays``: the task of the recipe ``pretrain_indoor.rooms`` on two generated rooms. First the grid
becomes finer, so that the voxels about double from size to size while rays and volume stay; then the rays double, up to
16 times, while the voxels stay. Nothing in a step may grow faster than its input: the exponents should be about 1.

Table ``encoder``: a small SparseUNet alone, from points to the gradients of its weights, at 0.1 to 10 million voxels of
2 cm (``--most`` million): one scene of generated rooms side by side. 10 million need about 15 GB and a few minutes.

How to read it: each row is one size, in processes of its own. ``ms`` is the CPU time (of all threads, so that waiting
for other jobs does not count; take ``--threads 1``) of the median step: losses, backward, optimiser. The processes of
all sizes take turns, ``--repeats`` times, and the median is over all of them. ``peak`` is how far the memory of such a
process rises during its first step (see ``measure.peak_mb``), gradients and optimiser state included. A step costs
something without any voxel or ray: the row ``none`` has next to none of them. The exponent is the slope of a straight
line through log(cost) over log(size), once for the whole cost and once for what ``none`` does not cost; the latter is
the one that should be 1. It means little for memory while voxels are few: the peak of a step is the larger of what the
encoder and what the renderer needs, and below some size the renderer's hides the encoder's (nan: no growth to fit).

In the table ``encoder`` a row is one process with two passes; times are those of the second. ``map`` is voxelisation
and the kernel maps of all levels; ``forward`` and ``backward`` are the rest. ``of it system`` is what the kernel takes,
mostly to hand out memory: malloc returns blocks above 32 MB (a million voxels of 8 channels) to it at once and takes
them anew, page by page.
"""

import argparse
import itertools
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from typing import Any
from unittest import mock

import torch
from clouds import room
from measure import machine, parser, peak_mb, saved, table
from torch import Tensor

from ponder3d.data.loader import Collate
from ponder3d.data.synthetic.rooms import RoomsConfig
from ponder3d.data.transforms import Centre, GridSample, PickRays, apply
from ponder3d.encoders.sparse_unet import SparseUNet, SparseUNetConfig, pool_to_voxels
from ponder3d.engine.memory import keep_freed_memory
from ponder3d.geometry.grid import voxelize
from ponder3d.recipes.pretrain_indoor import rooms
from ponder3d.sparse import SparseTensor
from ponder3d.tasks.ponder import PonderConfig
from ponder3d.types import Batch, Points

VIEWS = 6
ROOMS = 2


@dataclass(frozen=True)
class Size:
    """One row of a table."""

    grid: float
    """Metres per voxel."""
    rays_per_view: int


VOXELS = [Size(grid, 64) for grid in (0.113, 0.08, 0.0566, 0.04)]
RAYS = [Size(0.08, rays) for rays in (32, 64, 128, 256, 512)]
NO_VOXELS, NO_RAYS = Size(2.0, 64), Size(0.08, 1)
MILLIONS = (0.1, 0.3, 1.0, 3.0, 10.0)
ENCODER = SparseUNetConfig(
    inputs=("one",),
    grid_size=0.02,
    stem_channels=8,
    stem_kernel=3,
    channels=(16, 24, 32, 32, 32, 24, 16, 8),
    blocks=(1,) * 8,
)
"""Narrow, so that ten million voxels fit: the work per voxel is small, the maps are those of any width."""
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
    arguments = ["--size", str(size.grid), str(size.rays_per_view), "--cache", cache, "--steps", str(steps)]
    return Cost(**_answer(arguments, threads))


def _answer(arguments: list[str], threads: int) -> dict[str, Any]:
    command = [sys.executable, __file__, *arguments, "--threads", str(threads)]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)


@dataclass(frozen=True)
class EncoderCost:
    """What one process measured of the encoder alone; seconds."""

    voxels: int
    map: float
    forward: float
    backward: float
    system: float
    """Of the three together: the kernel's, which hands out fresh memory page by page."""
    megabytes: float


def rooms_in_a_row(num: int, cache: str) -> Tensor:
    """Points at ``num`` voxel centres: a room's surfaces, as often as needed, side by side in a square."""
    xyz = room(spacing=0.01, cache=cache)
    cells = voxelize(xyz, torch.zeros(len(xyz), dtype=torch.int64), ENCODER.grid_size).coords[:, 1:]
    size = cells.amax(0) - cells.amin(0) + 5
    copies = -(-num // len(cells))
    side = math.ceil(copies**0.5)
    number = torch.arange(copies)
    shift = torch.stack([number // side - side // 2, number % side - side // 2, torch.zeros_like(number)], dim=1) * size
    return ((cells + shift[:, None]).view(-1, 3)[:num].float() + 0.5) * ENCODER.grid_size


def encoder_cost(num: int, cache: str) -> EncoderCost:
    """Time and peak memory of the encoder's passes in this process."""
    xyz = rooms_in_a_row(num, cache)
    points = Points(xyz, torch.ones(num, 1), torch.tensor([num]))
    batch = Batch(points, torch.stack([xyz.amin(0), xyz.amax(0)])[None], torch.tensor([0]), ("rooms",))
    torch.manual_seed(0)
    encoder = ENCODER.build()

    def a_pass() -> list[float]:
        times = [time.process_time()]
        voxels = _with_maps(batch, encoder)
        times.append(time.process_time())
        with mock.patch("ponder3d.encoders.sparse_unet.pool_to_voxels", return_value=voxels):
            loss = encoder(batch).feats.square().mean()
        del voxels
        times.append(time.process_time())
        loss.backward()
        times.append(time.process_time())
        return [after - before for before, after in itertools.pairwise(times)]

    peak = peak_mb(a_pass)
    before = os.times().system
    return EncoderCost(num, *a_pass(), system=os.times().system - before, megabytes=peak)


def _with_maps(batch: Batch, encoder: SparseUNet) -> SparseTensor:
    """The voxels of a batch with all maps that the encoder asks for."""
    x = pool_to_voxels(batch, ENCODER.grid_size)
    for level in range(len(encoder.down) + 1):
        x.maps.subm(2**level, 3)
        if level < len(encoder.down):
            x.maps.strided(2**level, 2, 2, 0)
    return x


def report_encoder(costs: list[EncoderCost]) -> None:
    """Table and exponents of the encoder."""
    print("\nencoder alone, ms")
    rows = []
    for cost in costs:
        seconds = cost.map + cost.forward + cost.backward
        times = [f"{1000 * value:.0f}" for value in (cost.map, cost.forward, cost.backward, cost.system)]
        per_voxel = [f"{1e6 * seconds / cost.voxels:.2f}", f"{1e6 * cost.megabytes / cost.voxels:.0f}"]
        rows.append([f"{cost.voxels:,}", *times, f"{cost.megabytes:.0f}", *per_voxel])
    table(["voxels", "map", "forward", "backward", "of it system", "peak MB", "us per voxel", "bytes per voxel"], rows)
    if len(costs) > 1:
        numbers = [cost.voxels for cost in costs]
        for name in ("map", "forward", "backward", "megabytes"):
            print(f"exponent of {name}: {exponent(numbers, [vars(cost)[name] for cost in costs]):.2f}")
        own = [cost.map + cost.forward + cost.backward - cost.system for cost in costs]
        print(f"exponent of time, without the system's: {exponent(numbers, own):.2f}")


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
    options = parser(__doc__)
    options.add_argument("--table", nargs="+", choices=[*TABLES, "encoder"], default=[*TABLES, "encoder"])
    options.add_argument("--threads", type=int, default=1)
    options.add_argument("--repeats", type=int, default=3, help="processes per size")
    options.add_argument("--steps", type=int, default=4, help="timed steps per process")
    options.add_argument("--most", type=float, default=10, help="million voxels of the encoder's largest row")
    options.add_argument("--quick", action="store_true", help="one process for a few small sizes: under a minute")
    options.add_argument("--size", nargs=2, metavar=("GRID", "RAYS"), help=argparse.SUPPRESS)
    options.add_argument("--encoder-size", type=int, help=argparse.SUPPRESS)
    options.add_argument("--cache", help=argparse.SUPPRESS)
    args = options.parse_args()
    torch.set_num_threads(args.threads)
    keep_freed_memory()  # as the commands of ponder3d do
    if args.size:
        cost = step_cost(Size(float(args.size[0]), int(args.size[1])), args.cache, args.steps)
        print(json.dumps(vars(cost)))
    elif args.encoder_size:
        print(json.dumps(vars(encoder_cost(args.encoder_size, args.cache))))
    else:
        with saved(args.save), tempfile.TemporaryDirectory() as cache:
            run(args, cache)


def run(args: argparse.Namespace, cache: str) -> None:
    """Print the tables."""
    repeats, steps, most, every = (1, 2, 0.1, 3) if args.quick else (args.repeats, args.steps, args.most, 1)
    print(f"{machine(args.threads)}\n{ROOMS} rooms, {repeats} processes of {steps} steps per size")
    for index in range(ROOMS):
        data(cache).build()[index]  # made once, read by every process
    for what in args.table:
        if what == "encoder":
            sizes = [round(millions * 1e6) for millions in MILLIONS if millions <= most]
            room(spacing=0.01, cache=cache)
            answers = [["--encoder-size", str(size), "--cache", cache] for size in sizes]
            report_encoder([EncoderCost(**_answer(arguments, args.threads)) for arguments in answers])
            continue
        none, *others = TABLES[what]
        chosen = [none, *others[::every]]
        costs: list[list[Cost]] = [[] for _ in chosen]
        for _ in range(repeats):
            for runs, size in zip(costs, chosen, strict=True):
                runs.append(in_own_process(size, cache, args.threads, steps))
        report(what, costs)


if __name__ == "__main__":
    main()
