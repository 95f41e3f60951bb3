"""What does a lift of camera features save that never makes the product of features and depth?

    python benchmarks/lift.py [--device cuda] [--threads 1] [--repeats 5] [--quick] [--save]

Lift, splat at UniPAD's size: 6 cameras, maps of 29 x 50 cells (stride 32 of 928 x 1600 pixels), 118 bins of depth, 256
channels, a volume of 180 x 180 x 5 cells; one scene, forward and backward, gradients of features and of probabilities.
Where points lie is computed anew in each step, as an augmented scene needs it. Three ways to do it:

    incidence        ``encoders.image.lift_splat``: a sparse matrix of probabilities times features, rows read where
                     they are, forward and backward
    materialising    every product of feature and probability, then ``index_add``
    by camera        the same for one camera after the other: autograd keeps what it needs of all of them

All of them give the same volume and the same gradients before anything is measured.

Target: beyond the volume and its gradient, which all have, at most a tenth of the memory of the products (0.98 GiB).

How to read it: ``peak`` is how far memory rises in a step (``measure.peak_mb``; on a CPU in a process of its own, on a
GPU including what is there before), ``beyond`` what of it is neither the volume nor its gradient.
"""

import argparse
import functools
import math
import subprocess
import sys
from collections.abc import Callable

import torch
from measure import alternate, machine, milliseconds, parser, peak_mb, ratio, saved, synchronize, table, timed, verdict
from torch import Tensor

from ponder3d.encoders.image.depth import DepthBins
from ponder3d.encoders.image.lift_splat import frustum_rows
from ponder3d.geometry.grid import fixed_grid
from ponder3d.geometry.incidence import scatter_rows
from ponder3d.types import Cameras

SIZE = {"full": (6, (29, 50), 118, 256, (180, 180, 5)), "quick": (6, (8, 13), 30, 64, (60, 60, 5))}
BOX = (-54.0, -54.0, -5.0, 54.0, 54.0, 3.0)
FOCAL = 1266.0


class Setting:
    """Cameras in a ring, and a map with its distribution of depth for each."""

    def __init__(self, size: str, device: str):
        torch.manual_seed(0)
        num, self.map, bins, channels, shape = SIZE[size]
        self.bins, self.stride = DepthBins(1.0, 60.0, bins), 32 if size == "full" else 116
        height, width = 900, 1600
        matrix = torch.tensor([[FOCAL, 0, width / 2], [0, FOCAL, height / 2], [0, 0, 1]])
        poses = torch.stack([_looking(2 * math.pi * n / num) for n in range(num)])
        self.cameras = Cameras(matrix.repeat(num, 1, 1).to(device), poses.to(device), (height, width))
        self.grid = fixed_grid(BOX, shape, 1, device)
        self.num_cells = math.prod(shape)
        pixels = num * math.prod(self.map)
        self.feats = torch.randn(pixels, channels).to(device).requires_grad_()
        self.probability = torch.randn(pixels, bins).softmax(1).to(device).requires_grad_()
        self.volume_mb = self.num_cells * channels * 4 / 1e6
        self.products_mb = pixels * bins * channels * 4 / 1e6

    def rows(self) -> Tensor:
        """Where the points lie."""
        return frustum_rows(self.cameras, self.map, self.stride, self.bins, self.grid)

    def incidence(self) -> Tensor:
        """The library's way."""
        return scatter_rows(self.feats, self.rows(), self.probability, self.num_cells)

    def materialising(self) -> Tensor:
        """All products at once."""
        rows = self.rows().flatten()
        products = (self.feats[:, None] * self.probability[..., None]).flatten(0, 1)
        volume = self.feats.new_zeros(self.num_cells + 1, self.feats.shape[1])
        return volume.index_add(0, torch.where(rows < 0, self.num_cells, rows), products)[:-1]

    def by_camera(self) -> Tensor:
        """Products of a camera at a time."""
        rows = self.rows()
        rows = torch.where(rows < 0, self.num_cells, rows)
        volume = self.feats.new_zeros(self.num_cells + 1, self.feats.shape[1])
        step = math.prod(self.map)
        for part in (slice(n, n + step) for n in range(0, len(rows), step)):
            products = (self.feats[part, None] * self.probability[part, :, None]).flatten(0, 1)
            volume = volume.index_add(0, rows[part].flatten(), products)
        return volume[:-1]

    def step(self, method: str) -> list[Tensor]:
        """The volume, and the gradients of a loss whose gradient is as large as the volume."""
        volume = METHODS[method](self)
        gradient = torch.ones_like(volume)
        return [volume.detach(), *torch.autograd.grad(volume, [self.feats, self.probability], gradient)]


METHODS: dict[str, Callable[[Setting], Tensor]] = {
    "incidence": Setting.incidence,
    "materialising": Setting.materialising,
    "by camera": Setting.by_camera,
}


def _looking(turn: float) -> Tensor:
    """A camera 1.5 m above the ground and 0.8 m from the middle, which looks away from it."""
    c, s = math.cos(turn), math.sin(turn)
    return torch.tensor([[s, 0, c, 0.8 * c], [-c, 0, s, 0.8 * s], [0, -1, 0, -0.3], [0, 0, 0, 1]])


def check(device: str) -> None:
    made = Setting("quick", device)
    expected = made.step("materialising")
    for method in METHODS:
        for a, b in zip(made.step(method), expected, strict=True):
            error = float((a - b).norm() / b.norm())
            if not error < 1e-5:
                raise SystemExit(f"{method} differs from materialising by {error:.1e} of its norm")


def peak(size: str, method: str, device: str, threads: int) -> float:
    if device != "cpu":
        made = Setting(size, device)
        made.step(method)
        synchronize(device)
        return peak_mb(lambda: made.step(method), device)
    command = [sys.executable, __file__, "--peak", size, method, "--threads", str(threads)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def measure_peak(size: str, method: str) -> None:
    """In a process of its own: print the peak of one step."""
    Setting("quick", "cpu").step(method)  # load code and start threads
    made = Setting(size, "cpu")
    print(peak_mb(lambda: made.step(method)))


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--device", default="cpu")
    options.add_argument("--threads", type=int, default=2)
    options.add_argument("--repeats", type=int, default=5)
    options.add_argument("--quick", action="store_true", help="a small map and volume: seconds")
    options.add_argument("--peak", nargs=2, metavar=("SIZE", "METHOD"), help=argparse.SUPPRESS)
    args = options.parse_args()
    torch.set_num_threads(args.threads)
    if args.peak:
        measure_peak(*args.peak)
        return
    size = "quick" if args.quick else "full"
    with saved(args.save):
        made = Setting(size, args.device)
        inside = float((made.rows() >= 0).float().mean())
        print(machine(args.threads))
        print(
            f"{size}: volume {made.volume_mb:.0f} MB, products {made.products_mb:.0f} MB, {inside:.0%} of points inside"
        )
        check(args.device)
        calls = {name: timed(functools.partial(made.step, name), args.device) for name in METHODS}
        seconds = alternate(calls, args.repeats)
        peaks = {name: peak(size, name, args.device, args.threads) for name in METHODS}
        rows: list[list[object]] = []
        for name in METHODS:
            beyond = peaks[name] - 2 * made.volume_mb
            speed = "" if name == "incidence" else ratio(seconds[name], seconds["incidence"])
            rows.append([name, f"{milliseconds(seconds[name]):.0f}", speed, f"{peaks[name]:.0f}", f"{beyond:.0f}"])
        table(["method", "ms", "speed of incidence", "peak MB", "beyond MB"], rows)
        beyond = peaks["incidence"] - 2 * made.volume_mb
        print(f"beyond at most {made.products_mb / 10:.0f} MB: {verdict(beyond <= made.products_mb / 10)}")


if __name__ == "__main__":
    main()
