"""What does the renderer save against the structure of the released code?

    python benchmarks/render.py [--threads 1] [--repeats 5] [--case small] [--device cuda] [--quick] [--save]

One training step of the render head alone: proposals, field, compositing, losses, gradients of the volume and of all
decoders. Two ways to do it, with the same numbers of rays and samples:

    ours         ``render`` and ``render_losses``: all scenes in one call, the SDF's gradient in closed form, samples of
                 the proposal used again, semantics decoded once per ray, contrast by class counts
    reference    spec 2.8 to 2.11: scene by scene, the SDF's gradient by autograd and its backward by double backward
                 through ``grid_sample``, all samples evaluated anew after the proposal, decoders of two linear layers,
                 semantics decoded per sample, every ray contrasted with every ray

Both compute the same function: our decoders are the products of the reference's linear layers. Losses and gradients are
compared before anything is timed.

Targets: on a CPU at least 5 times as fast with at most 1/4 of the memory, on a GPU 10 times and 1/5.

How to read it: ``speed`` is the reference's time over ours, round by round, median and quartiles; the calls alternate
within one process. ``peak`` is the memory of one step (``measure.peak_mb``), in a process of its own.
It holds the gradient of the volume, which neither can do without: ``volume`` in the table.
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
from torch import Tensor, nn

from ponder3d.render import samplers
from ponder3d.render.fields import FieldConfig, SDFField
from ponder3d.render.losses import RenderLossConfig, render_losses
from ponder3d.render.opacity import NeuS
from ponder3d.render.renderer import RenderConfig, clip_rays, render
from ponder3d.render.weights import alpha_from_sdf, composite, weights_from_alpha
from ponder3d.types import Grid, Rays, RayTargets, RenderOutput, Volume

CLASSES = 20
TARGETS = {"cpu": (5.0, 1 / 4), "cuda": (10.0, 1 / 5)}
LOSSES = RenderLossConfig(temperature=0.01, contrast="rays")


@dataclass(frozen=True)
class Case:
    """Numbers of one step."""

    scenes: int
    rays: int
    """Per scene."""
    samples: RenderConfig
    shape: tuple[int, int, int]
    channels: int
    """Of the volume: half of them geometry, half appearance."""
    hidden: int
    geometry: int
    semantic: int


CASES = {
    "small": Case(2, 384, RenderConfig(20, 12), (32, 32, 16), 32, 64, 16, 32),
    "paper, 2 x 256 rays": Case(2, 256, RenderConfig(96, 36), (64, 64, 32), 128, 128, 64, 512),
    "paper": Case(8, 1280, RenderConfig(96, 36), (128, 128, 32), 128, 128, 64, 512),
}
ON_CPU = ("small", "paper, 2 x 256 rays")
WARM_UP = replace(CASES["small"], scenes=1, rays=4)


class Decoder(nn.Module):
    """The reference's: ``x <- lin_l(x + fc_l(f))``, an activation between, ``x`` empty at first."""

    def __init__(self, in_channels: int, hidden: int, out_channels: int, layers: int):
        super().__init__()
        widths = [hidden] * layers + [out_channels]
        self.fc = nn.ModuleList([nn.Linear(in_channels, hidden) for _ in range(layers)])
        self.lin = nn.ModuleList([nn.Linear(i, o) for i, o in zip(widths[:-1], widths[1:], strict=True)])

    def forward(self, f: Tensor) -> Tensor:
        """All outputs of the last layer."""
        x = torch.zeros((), device=f.device)
        for layer, (fc, lin) in enumerate(zip(self.fc, self.lin, strict=True)):
            x = lin(x + fc(f))
            if layer + 1 < len(self.lin):
                x = F.softplus(x, beta=100.0)
        return x

    def folded(self, layer: int) -> tuple[Tensor, Tensor]:
        """Weight and bias of ``lin_l(fc_l(f))``."""
        fc, lin = self.fc[layer], self.lin[layer]
        return lin.weight @ fc.weight, lin.weight @ fc.bias + lin.bias


class Setting:
    """The inputs of a case, and both fields."""

    def __init__(self, case: Case, device: str):
        torch.manual_seed(0)
        self.case, half, width = case, case.channels // 2, case.hidden
        seen = 3 + half + case.geometry
        self.sdf = Decoder(half, width, 1 + case.geometry, 2)
        self.colour, self.semantic = Decoder(seen + 3, width, 3, 1), Decoder(seen, width, case.semantic, 1)
        self.field: SDFField = FieldConfig(width, geometry_channels=case.geometry).build(case.channels, case.semantic)
        with torch.no_grad():
            self.sdf.lin[-1].bias[0] += 0.1
            self._fold()
        size = torch.tensor([6.0, 5.0, 2.7])
        self.grid = Grid(torch.stack([-size / 2, size / 2]).expand(case.scenes, 2, 3).contiguous(), case.shape)
        num = case.scenes * case.rays
        origins = torch.randn(num, 3) * 0.3
        directions = F.normalize(torch.randn(num, 3), dim=1)
        scene = torch.arange(case.scenes).repeat_interleave(case.rays)
        rays = Rays(origins, directions, torch.full((num,), 0.05), torch.full((num,), 9.0), scene)
        self.rays = clip_rays(rays, self.grid)
        t = self.rays.far * torch.linspace(0.2, 0.95, num)
        self.targets = RayTargets(torch.rand(num, 3), t, torch.arange(num) % (CLASSES + 1) - 1)
        self.classes = F.normalize(torch.randn(CLASSES, case.semantic), dim=1)
        self.feats = torch.randn(case.scenes, *case.shape, case.channels)
        for name in ("grid", "rays", "targets"):
            value = getattr(self, name)
            setattr(self, name, replace(value, **{k: v.to(device) for k, v in vars(value).items() if _is_tensor(v)}))
        self.classes, self.feats = self.classes.to(device), self.feats.to(device).requires_grad_()
        for module in (self.sdf, self.colour, self.semantic, self.field):
            module.to(device)

    def _fold(self) -> None:
        field = self.field
        for layer, ours in enumerate(field.sdf.feature_layers):
            assert isinstance(ours, nn.Linear)
            for own, value in zip((ours.weight, ours.bias), self.sdf.folded(layer), strict=True):
                own.copy_(value)
        field.sdf.hidden_layers[0].weight.copy_(self.sdf.lin[1].weight)  # type: ignore[union-attr]
        for ours, theirs in ((field.colour[0], self.colour), (field.semantic, self.semantic)):
            assert isinstance(ours, nn.Linear)
            for own, value in zip((ours.weight, ours.bias), theirs.folded(0), strict=True):
                own.copy_(value)

    def channels_first(self) -> None:
        """Store the volume as ``grid_sample`` likes it best; gradients come in the same layout."""
        self.feats = self.feats.detach().permute(0, 4, 1, 2, 3).contiguous().requires_grad_()

    def ours(self) -> list[Tensor]:
        """Loss, and the gradient of the volume; those of the decoders are computed too."""
        out = render(self.field, Volume(self.grid, self.feats), self.rays, self.case.samples)
        terms = render_losses(out, self.rays, self.targets, LOSSES, self.classes)
        return self._finish(torch.stack(list(terms.values())).sum(), self.field.parameters())

    def reference(self) -> list[Tensor]:
        """The same, as the released code does it."""
        parts = [self._scene(number) for number in range(self.case.scenes)]
        joined = {
            name: torch.cat([getattr(part, name) for part in parts]) for name in vars(parts[0]) if name != "feature"
        }
        out = RenderOutput(**joined, feature=None)
        terms = render_losses(replace(out, semantic=None), self.rays, self.targets, LOSSES)
        assert out.semantic is not None and self.targets.label is not None and self.targets.t is not None
        label = self.targets.label.masked_fill(~(self.rays.hits & (self.targets.t > 0)), -1)
        direction = out.semantic / (out.semantic.square().sum(1, keepdim=True) + 1e-4).sqrt()
        of_rays = F.pad(self.classes, (0, 0, 0, 1))[label]  # -1 is the last row: zeros
        itself = torch.where(label >= 0, torch.arange(len(label), device=label.device), -100)
        semantic = F.cross_entropy(direction @ of_rays.T / LOSSES.temperature, itself)
        loss = torch.stack(list(terms.values())).sum() + LOSSES.semantic * semantic
        modules = (self.sdf, self.colour, self.semantic)
        return self._finish(loss, [p for module in modules for p in module.parameters()])

    def _scene(self, number: int) -> RenderOutput:
        rows = slice(number * self.case.rays, (number + 1) * self.case.rays)
        origins, directions, near, far = (
            getattr(self.rays, name)[rows] for name in ("origins", "directions", "near", "far")
        )
        inv_std, half, num = self.field.inv_std, self.case.channels // 2, self.case.samples
        with torch.no_grad():
            t = samplers.uniform(near, far, num.num_uniform)
            sdf = self.sdf(self._read(number, origins[:, None] + t[..., None] * directions[:, None])[..., :half])[
                ..., 0
            ]
            weights = weights_from_alpha(alpha_from_sdf(sdf, torch.full_like(inv_std, NeuS().proposal_inv_std)))
            t = torch.cat([t, samplers.importance(t, weights, num.num_importance)], dim=1).sort(dim=1).values
        xyz = (origins[:, None] + t[..., None] * directions[:, None]).requires_grad_()
        f = self._read(number, xyz)
        out = self.sdf(f[..., :half])
        sdf, geometry, appearance = out[..., 0], out[..., 1:], f[..., half:]
        gradient = torch.autograd.grad(sdf.sum(), xyz, create_graph=True)[0]
        normal = gradient / (gradient.square().sum(-1, keepdim=True) + 1e-4).sqrt()
        seen = torch.cat([normal, appearance, geometry], dim=-1)
        colours = torch.sigmoid(self.colour(torch.cat([seen, directions[:, None].expand_as(normal)], dim=-1)))
        weights = weights_from_alpha(alpha_from_sdf(sdf, inv_std))
        opacity = weights.sum(1)
        middle = t + samplers.interval_lengths(t, far) / 2
        return RenderOutput(
            rgb=composite(weights, colours),
            t=composite(weights, middle) + (1 - opacity) * far,
            normal=composite(weights, normal),
            opacity=opacity,
            semantic=composite(weights, self.semantic(seen)),
            feature=None,
            sample_t=t,
            weights=weights,
            sdf=sdf,
            gradient=gradient,
        )

    def _read(self, number: int, xyz: Tensor) -> Tensor:
        lo, hi = self.grid.box[number]
        at = ((xyz - lo) / (hi - lo) * 2 - 1).flip(-1)[None, None]
        volume = self.feats[number : number + 1]
        return F.grid_sample(volume, at, align_corners=False, padding_mode="border")[0, :, 0].permute(1, 2, 0)

    def _finish(self, loss: Tensor, parameters: object) -> list[Tensor]:
        trained = [p for p in parameters if p.requires_grad]  # type: ignore[attr-defined]
        grads = torch.autograd.grad(loss, [self.feats, *trained], allow_unused=True)
        return [loss.detach(), grads[0]]


METHODS: dict[str, Callable[[Setting], list[Tensor]]] = {"ours": Setting.ours, "reference": Setting.reference}


def _is_tensor(value: object) -> bool:
    return isinstance(value, Tensor)


def setting(case: Case, method: str, device: str) -> Setting:
    made = Setting(case, device)
    if method == "reference":
        made.channels_first()
    return made


def check(case: Case, device: str) -> None:
    """Both give one loss and one gradient of the volume."""
    loss, grad = Setting.ours(setting(case, "ours", device))
    try:
        other_loss, other = Setting.reference(setting(case, "reference", device))
    except RuntimeError as error:
        if "grid_sampler_3d_backward" not in str(error):
            raise
        raise SystemExit(
            f"the reference needs the second derivative of grid_sample, which torch {torch.__version__} lacks; "
            "install 2.13 or newer, which has it on a CPU (on a GPU that is not known)"
        ) from error
    errors = (
        float((loss - other_loss).abs() / other_loss),
        float((grad - other.permute(0, 2, 3, 4, 1)).norm() / grad.norm()),
    )
    if not max(errors) < 1e-3:
        raise SystemExit(
            f"ours and the reference differ: loss by {errors[0]:.1e}, gradient of the volume by {errors[1]:.1e}"
        )


def measure_peak(name: str, method: str, device: str) -> None:
    """In a process of its own: print the peak of one step."""
    METHODS[method](setting(WARM_UP, method, device))  # load code and start threads, with hardly any data
    made = setting(CASES[name], method, device)
    print(peak_mb(lambda: METHODS[method](made), device))


def peak_in_own_process(name: str, method: str, threads: int, device: str) -> float:
    command = [sys.executable, __file__, "--peak", name, method, "--threads", str(threads), "--device", device]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def run_case(name: str, threads: int, repeats: int, device: str) -> list[list[object]]:
    case = CASES[name]
    check(replace(case, scenes=min(case.scenes, 2), rays=min(case.rays, 64)), device)
    made = {method: setting(case, method, device) for method in METHODS}
    steps = {method: timed(functools.partial(call, made[method]), device) for method, call in METHODS.items()}
    seconds = alternate(steps, repeats)
    del made, steps
    peaks = {method: peak_in_own_process(name, method, threads, device) for method in METHODS}
    speed = ratio(seconds["reference"], seconds["ours"])
    rays, volume = case.scenes * case.rays, case.scenes * torch.Size(case.shape).numel() * case.channels * 4 / 1e6
    rows: list[list[object]] = []
    for method in METHODS:
        ms = milliseconds(seconds[method])
        rows.append([name, method, f"{ms:.0f}", f"{rays / ms:.1f}", f"{peaks[method]:.0f}", f"{volume:.0f}"])
    fast, small = TARGETS[device]
    share = peaks["ours"] / peaks["reference"]
    met = verdict(speed.median >= fast), verdict(share <= small)
    rows.append(
        [name, "reference / ours", speed, f">= {fast:g}: {met[0]}", f"{1 / share:.1f}", f">= {1 / small:g}: {met[1]}"]
    )
    return rows


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--threads", type=int, default=1)
    options.add_argument("--repeats", type=int, default=5)
    options.add_argument("--case", choices=CASES, help="this one only")
    options.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    options.add_argument("--quick", action="store_true", help="three rounds of the small case: under a minute")
    options.add_argument("--peak", nargs=2, metavar=("CASE", "METHOD"), help=argparse.SUPPRESS)
    args = options.parse_args()
    torch.set_num_threads(args.threads)
    if args.peak:
        measure_peak(*args.peak, args.device)
        return
    repeats = 3 if args.quick else args.repeats
    names = [args.case] if args.case else ["small"] if args.quick else ON_CPU if args.device == "cpu" else CASES
    with saved(args.save):
        print(f"{machine(args.threads)}\n{repeats} rounds, {args.device}")
        rows = [row for name in names for row in run_case(name, args.threads, repeats, args.device)]
        table(["case", "", "ms", "rays a ms", "peak MB", "volume MB"], rows)


if __name__ == "__main__":
    main()
