"""What does the closed-form gradient of the SDF field save against double backward?

    python benchmarks/field.py [--threads 1] [--repeats 7] [--case paper] [--quick] [--save]

One training step of the field alone: signed distance and its spatial gradient at 384 rays x 36 samples in each of two
scenes, a loss of both (eikonal and distance), gradients of the volume and of the decoder. Three ways to do it:

    closed form      ``SDFField.forward``: the gradient is written down; one ordinary backward pass
    grid_sample      ``F.grid_sample`` and the same decoder; ``autograd.grad(create_graph=True)``, then backward
    gather           as grid_sample, with the eight corners gathered by index and weighted (what is left where
                     grid_sample cannot be differentiated twice, as in PyTorch before 2.12)

All three get the volume in the layout that suits them, and agree in loss and gradients before anything is timed.

Targets: at least 3 times as fast, at most half the memory. They are set against grid_sample; gather is judged alike.

How to read it: ``speed`` is the other's time over the closed form's, round by round, median and quartiles; the calls
alternate within one process. ``peak`` is how far the memory of a fresh process rises while it makes one step (see
``measure.peak_mb``). It holds the gradient of the volume, which no method can do without: ``volume`` in the table.
"""

import argparse
import functools
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from measure import alternate, machine, milliseconds, parser, peak_mb, ratio, saved, table, timed, verdict
from torch import Tensor

from ponder3d.geometry.grid import cells_from_world, ravel
from ponder3d.render.fields import FieldConfig, SDFField
from ponder3d.types import Grid, Volume

SCENES, RAYS, SAMPLES = 2, 384, 36
MIN_SPEED, MAX_MEMORY = 3.0, 0.5


@dataclass(frozen=True)
class Case:
    """A field, its volume and the number of rays; the channels are those that the SDF decoder sees."""

    field: FieldConfig
    channels: int
    shape: tuple[int, int, int]
    rays: int = RAYS


SMALL, PAPER = FieldConfig(hidden=64, geometry_channels=16), FieldConfig()
CASES = {
    "small": Case(SMALL, 16, (32, 32, 16)),
    "small, large volume": Case(SMALL, 16, (64, 64, 32)),
    "paper, small volume": Case(PAPER, 64, (32, 32, 16)),
    "paper": Case(PAPER, 64, (64, 64, 32)),
}
WARM_UP = Case(SMALL, 16, (8, 8, 8), rays=4)


class Setting:
    """The inputs of a case. Every decoder sees all channels, so that no method samples what the loss does not use."""

    def __init__(self, case: Case):
        torch.manual_seed(0)
        self.field: SDFField = replace(case.field, shared_volume=True).build(case.channels)
        self.grid = Grid(torch.tensor([[[-3.0, -2.5, 0.0], [3.0, 2.5, 2.7]]] * SCENES), case.shape)
        lo, hi = self.grid.box[:, 0], self.grid.box[:, 1]
        ends = lo[:, None, None] + torch.rand(SCENES, case.rays, 2, 3) * (hi - lo)[:, None, None]
        share = torch.linspace(0, 1, SAMPLES)[:, None]
        self.xyz = (ends[:, :, :1] + share * (ends[:, :, 1:] - ends[:, :, :1])).reshape(-1, 3)
        self.scene = torch.arange(SCENES).repeat_interleave(case.rays * SAMPLES)
        self.feats = torch.randn(SCENES, *case.shape, case.channels).requires_grad_()
        self.inputs = [self.feats, *self.field.sdf.parameters()]

    def channels_first(self) -> None:
        """Store the volume as grid_sample likes it best; gradients come in the same layout."""
        self.feats = self.feats.detach().permute(0, 4, 1, 2, 3).contiguous().requires_grad_()
        self.inputs[0] = self.feats

    def closed_form(self) -> list[Tensor]:
        """Loss and gradients by the library."""
        samples = self.field(Volume(self.grid, self.feats), self.xyz, self.scene)
        return self._finish(samples.sdf, samples.gradient)

    def grid_sample(self) -> list[Tensor]:
        """The same by double backward through ``grid_sample``; call ``channels_first`` before."""
        xyz = self.xyz.clone().requires_grad_()
        lo, hi = self.grid.box[:, 0][self.scene], self.grid.box[:, 1][self.scene]
        at = ((xyz - lo) / (hi - lo) * 2 - 1).flip(-1).view(SCENES, 1, 1, -1, 3)
        f = F.grid_sample(self.feats, at, align_corners=False, padding_mode="border")
        return self._double_backward(f[:, :, 0, 0].transpose(1, 2).flatten(0, 1), xyz)

    def gather(self) -> list[Tensor]:
        """The same by double backward through gathered corners."""
        xyz = self.xyz.clone().requires_grad_()
        shape = torch.tensor(self.grid.shape)
        position = cells_from_world(self.grid, xyz, self.scene) - 0.5
        position = torch.minimum(position.clamp(min=0.0), (shape - 1).float())
        low = torch.minimum(position.detach().floor().long(), shape - 2)
        fraction = position - low
        x, y, z = torch.stack([1 - fraction, fraction], dim=-1).unbind(1)
        weight = (x[:, :, None, None] * y[:, None, :, None] * z[:, None, None, :]).flatten(1)
        corner = torch.cartesian_prod(*[torch.arange(2)] * 3)
        cells = (low[:, None] + corner).flatten(0, 1)
        index = ravel(cells, self.scene.repeat_interleave(8), self.grid.shape)
        rows = self.feats.flatten(0, 3).index_select(0, index).view(-1, 8, self.feats.shape[-1])
        return self._double_backward((rows * weight[..., None]).sum(1), xyz)

    def _double_backward(self, f: Tensor, xyz: Tensor) -> list[Tensor]:
        sdf = self.field.sdf(f, None)[:, 0]
        gradient = torch.autograd.grad(sdf.sum(), xyz, create_graph=True)[0]
        return self._finish(sdf, gradient)

    def _finish(self, sdf: Tensor, gradient: Tensor) -> list[Tensor]:
        loss = sdf.abs().mean() + 0.1 * (gradient.norm(dim=1) - 1).square().mean()
        return [loss.detach(), *torch.autograd.grad(loss, self.inputs, allow_unused=True)]


METHODS: dict[str, Callable[[Setting], list[Tensor]]] = {
    "closed form": Setting.closed_form,
    "grid_sample": Setting.grid_sample,
    "gather": Setting.gather,
}


def setting(case: Case, method: str) -> Setting:
    made = Setting(case)
    if method == "grid_sample":
        made.channels_first()
    return made


def check(case: Case) -> None:
    """All methods give one loss and one set of gradients."""
    expected = Setting.closed_form(Setting(case))
    for name in ("grid_sample", "gather"):
        found = METHODS[name](setting(case, name))
        if name == "grid_sample":
            found[1] = found[1].permute(0, 2, 3, 4, 1)
        for a, b in zip(found, expected, strict=True):
            error = float((a - b).norm() / b.norm())
            if not error < 1e-3:
                raise SystemExit(f"{name} differs from the closed form by {error:.1e} of its norm")


def measure_peak(name: str, method: str) -> None:
    """In a process of its own: print the peak of one step."""
    METHODS[method](setting(WARM_UP, method))  # load code and start threads, with hardly any data
    made = setting(CASES[name], method)
    print(peak_mb(lambda: METHODS[method](made)))


def peak_in_own_process(name: str, method: str, threads: int) -> float:
    command = [sys.executable, __file__, "--peak", name, method, "--threads", str(threads)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def run_case(name: str, threads: int, repeats: int) -> list[list[object]]:
    case = CASES[name]
    check(case)
    steps = {method: timed(functools.partial(call, setting(case, method))) for method, call in METHODS.items()}
    seconds = alternate(steps, repeats)
    peaks = {method: peak_in_own_process(name, method, threads) for method in METHODS}
    speeds = {method: ratio(seconds[method], seconds["closed form"]) for method in METHODS}
    volume = SCENES * torch.Size(case.shape).numel() * case.channels * 4 / 1e6
    rows: list[list[object]] = []
    for method in METHODS:
        share = peaks["closed form"] / peaks[method]
        same = method == "closed form"
        rows.append(
            [name, method, f"{milliseconds(seconds[method]):.0f}", "" if same else speeds[method]]
            + [f"{peaks[method]:.0f}", f"{volume:.0f}", "" if same else f"{share:.2f}"]
        )
    for method in ("grid_sample", "gather"):
        met = verdict(speeds[method].median >= MIN_SPEED), verdict(peaks["closed form"] <= MAX_MEMORY * peaks[method])
        rows.append([name, f"target: {method}", "", f">= 3: {met[0]}", "", "", f"<= 0.5: {met[1]}"])
    return rows


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--threads", type=int, default=2)
    options.add_argument("--repeats", type=int, default=7)
    options.add_argument("--case", choices=CASES, help="this one only")
    options.add_argument("--quick", action="store_true", help="three rounds of the first case: under a minute")
    options.add_argument("--peak", nargs=2, metavar=("CASE", "METHOD"), help=argparse.SUPPRESS)
    args = options.parse_args()
    torch.set_num_threads(args.threads)
    if args.peak:
        measure_peak(*args.peak)
        return
    names = [args.case] if args.case else [*CASES]
    names, repeats = (names[:1], 3) if args.quick else (names, args.repeats)
    with saved(args.save):
        print(f"{machine(args.threads)}\n{SCENES} scenes x {RAYS} rays x {SAMPLES} samples, {repeats} rounds")
        rows: list[list[object]] = []
        for name in names:
            rows += run_case(name, args.threads, repeats)
        head = ["case", "method", "ms", "speed of closed form", "peak MB", "volume MB", "memory, closed form / this"]
        table(head, rows)


if __name__ == "__main__":
    main()
