"""What does ``encode`` cost, and what does a cloud cut into tiles lose?

    python benchmarks/encode.py [--quick] [--voxels 100000 300000 1000000] [--threads 1] [--save]

A generated corridor (walls, floor, ceiling and boxes, textured; about four points a voxel), wider and then longer the
more voxels it has, and a SparseUNet of the paper's configuration with random weights. Its batch norms have seen a small
corridor: with their initial statistics deep levels would hardly count. The first table gives whole clouds, the second
one cloud cut into tiles of at most three quarters of its voxels.

How to read it: each row is a process of its own. ``seconds`` is one call, and points a second follow from it. ``peak``
is how far the memory of the process rises during the call (see ``measure.peak_mb``), the result included. ``tiles`` are
calls of the encoder. ``work`` is the number of voxels that all tiles encode, halos included, over that of the cloud:
what seconds should follow. Differences are the norms of (feature in tiles - feature of the whole cloud), over the mean
norm of a feature: the largest, and the mean over all points. At the exact halo, the reach of the encoder, they are
rounding; what they are at less shows how much of its reach an encoder uses, which weights that were trained may change.
"""

import argparse
import json
import math
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from measure import machine, parser, peak_mb, saved, table
from torch import Tensor

from ponder3d.encoders.encoder import Encoder
from ponder3d.encoders.sparse_unet import SparseUNetConfig
from ponder3d.geometry.grid import voxelize
from ponder3d.types import Batch, Scene

SIZES = (100_000, 300_000, 1_000_000)
CUT_SIZE = 300_000
QUICK_SIZES, QUICK_CUT_SIZE = (25_000, 50_000), 50_000
HALOS: tuple[float | None, ...] = (None, 2.0, 1.0, 0.5)
LENGTH = 24.0
"""Metres of a corridor at ``CUT_SIZE`` voxels: more than three reaches, so that a cut leaves something out."""


@dataclass(frozen=True)
class Cost:
    """What one process measured."""

    points: int
    voxels: int
    seconds: float
    megabytes: float
    encoded: list[int]
    """Points that each call of the encoder got."""


def corridor(voxels: int, length: float, size: float, generator: torch.Generator) -> Scene:
    """A square corridor along x of about so many voxels, four points in each."""
    edge = voxels * size * size / (5.6 * length)  # four sides and, of each, 0.4 again in boxes

    def rand(num: int, columns: int) -> Tensor:
        return torch.rand(num, columns, generator=generator)

    num = round(4 * 4 * edge * length / size**2)
    u, side = rand(num, 2) * torch.tensor([length, edge]), torch.arange(num) % 4
    other = (side % 2) * edge
    xyz = torch.stack([u[:, 0], torch.where(side < 2, other, u[:, 1]), torch.where(side < 2, u[:, 1], other)], dim=1)
    sign = 1 - 2.0 * (side % 2)
    axis = torch.eye(3)[torch.where(side < 2, 1, 2)]
    normal = axis * sign[:, None]
    # Boxes on the floor: pieces of the floor lifted, with random heights.
    lifted = (num * 4) // 10
    place = rand(lifted, 2) * torch.tensor([length, edge])
    piece = (place / (edge / 4)).floor().to(torch.int64)
    height = 0.1 + 0.4 * torch.frac(torch.sin(piece[:, 0] * 12.9898 + piece[:, 1] * 78.233).abs() * 43758.5453)
    boxes = torch.cat([place, (height * edge)[:, None]], dim=1)
    xyz = torch.cat([xyz, boxes])
    normal = torch.cat([normal, torch.tensor([[0.0, 0.0, 1.0]]).expand(lifted, 3)])
    waves = torch.sin(xyz @ torch.tensor([[3.0, 7.0, 1.0], [5.0, 2.0, 4.0], [2.0, 9.0, 6.0]]))
    rgb = (0.5 + 0.3 * waves + 0.1 * (rand(len(xyz), 3) - 0.5)).clamp(0, 1)
    return Scene(xyz, rgb, normal, "corridor")


def length_of(voxels: int) -> float:
    """A corridor whose section grows no further than that of ``CUT_SIZE`` voxels at ``LENGTH``."""
    return LENGTH * max(1.0, voxels / CUT_SIZE)


def scene_of(voxels: int) -> Scene:
    return corridor(voxels, length_of(voxels), SparseUNetConfig().grid_size, torch.Generator().manual_seed(0))


@torch.no_grad()
def paper_encoder(settle_on: Scene) -> Encoder:
    """Random weights; batch statistics of the given scene."""
    torch.manual_seed(0)
    encoder = SparseUNetConfig().build()
    for norm in (m for m in encoder.modules() if isinstance(m, torch.nn.BatchNorm1d)):
        norm.momentum = 1.0
    encoder.train()(Batch.of([settle_on], encoder.config.inputs))
    return encoder.eval()


def encode_cost(voxels: int, max_voxels: int, halo: float | None, file: str) -> Cost:
    """One call in this process; its features go to ``file`` if there is one."""
    encoder = paper_encoder(scene_of(20_000))
    scene = scene_of(voxels)
    size = encoder.config.grid_size
    occupied = len(voxelize(scene.xyz, torch.zeros(len(scene.xyz), dtype=torch.int64), size).keys)
    encoded: list[int] = []
    encoder.register_forward_pre_hook(lambda _, args: encoded.append(len(args[0].points.xyz)))
    seconds, result = 0.0, torch.empty(0)

    def call() -> None:
        nonlocal seconds, result
        start = time.perf_counter()
        result = encoder.encode(scene.xyz, scene.rgb, scene.normal, max_voxels=max_voxels, halo=halo)
        seconds = time.perf_counter() - start

    peak = peak_mb(call)
    if file:
        torch.save(result, file)
    return Cost(len(scene.xyz), occupied, seconds, peak, encoded)


def in_own_process(voxels: int, max_voxels: int, halo: float | None, file: Path | None, threads: int) -> Cost:
    command = [sys.executable, __file__, "--one", str(voxels), str(max_voxels), str(math.nan if halo is None else halo)]
    command += ["--file", str(file or ""), "--threads", str(threads)]
    return Cost(**json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout))


def whole_clouds(sizes: list[int], threads: int) -> None:
    rows = []
    for voxels in sizes:
        cost = in_own_process(voxels, 10**9, None, None, threads)
        rate, kilobytes = cost.points / cost.seconds, 1000 * cost.megabytes / cost.voxels
        rows += [[cost.points, cost.voxels, f"{cost.seconds:.1f}", f"{rate:.0f}", f"{cost.megabytes:.0f}"]]
        rows[-1] += [f"{kilobytes:.2f}", len(cost.encoded)]
    print("\nwhole clouds")
    table(["points", "voxels", "seconds", "points/s", "peak MB", "kB a voxel", "tiles"], rows)


def cut_clouds(voxels: int, threads: int) -> None:
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder) / name for name in ("whole.pt", "tiled.pt")]
        cost = in_own_process(voxels, 10**9, None, files[0], threads)
        whole, budget = torch.load(files[0]), cost.voxels * 3 // 4
        rows += [["not cut", 1, "1.00", f"{cost.seconds:.1f}", f"{cost.megabytes:.0f}", "", ""]]
        for halo in HALOS:
            cost = in_own_process(voxels, budget, halo, files[1], threads)
            error = (torch.load(files[1]) - whole).norm(dim=1) / whole.norm(dim=1).mean()
            work = sum(cost.encoded) / cost.voxels
            rows += [["exact" if halo is None else f"{halo:g} m", len(cost.encoded), f"{work:.2f}"]]
            rows[-1] += [f"{cost.seconds:.1f}", f"{cost.megabytes:.0f}", f"{error.max():.1e}", f"{error.mean():.1e}"]
    print(f"\n{cost.points} points, {cost.voxels} voxels, at most {budget} a tile, {length_of(voxels):.0f} m long")
    table(["halo", "tiles", "work", "seconds", "peak MB", "largest difference", "mean difference"], rows)


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--quick", action="store_true", help="small clouds, under a minute")
    options.add_argument("--voxels", type=int, nargs="+", help="voxels of the whole clouds")
    options.add_argument("--threads", type=int, default=2)
    options.add_argument("--one", nargs=3, metavar=("VOXELS", "MAX", "HALO"), help=argparse.SUPPRESS)
    options.add_argument("--file", default="", help=argparse.SUPPRESS)
    args = options.parse_args()
    torch.set_num_threads(args.threads)
    if args.one:
        halo = float(args.one[2])
        cost = encode_cost(int(args.one[0]), int(args.one[1]), None if math.isnan(halo) else halo, args.file)
        print(json.dumps(vars(cost)))
        return
    with saved(args.save):
        print(machine(args.threads))
        whole_clouds(args.voxels or list(QUICK_SIZES if args.quick else SIZES), args.threads)
        cut_clouds(QUICK_CUT_SIZE if args.quick else CUT_SIZE, args.threads)


if __name__ == "__main__":
    main()
