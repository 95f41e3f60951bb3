"""Batch norms of an encoder: one for everything, or prompted by where a scene comes from.

Scans of different datasets differ in density, noise and colour, and what one batch norm makes of them together suits
none. Point Prompt Training (Wu et al. 2024, "Towards Large-scale 3D Representation Learning with Multi-dataset Point
Prompt Training") gives each dataset (condition) its own statistics and scale, and shifts features by a learnt prompt.
There a batch is of one dataset; here every scene has its own condition, and all of a batch are normalised at once.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from ponder3d.config import Config
from ponder3d.sparse import SparseTensor
from ponder3d.sparse.nn import BatchNorm


class NormConfig(Config, ABC):
    """Choices of an encoder's norms."""

    @property
    def conditions(self) -> tuple[str, ...]:
        """Conditions that the norms tell apart; empty if they tell none."""
        return ()

    @abstractmethod
    def build(self, channels: int, eps: float, momentum: float) -> "PlainNorm | PromptNorm":
        """One norm; ``eps`` is added to the variance, ``momentum`` is the weight of the new statistics."""


@dataclass(frozen=True)
class PlainNormConfig(NormConfig):
    """One batch norm for all scenes."""

    def build(self, channels: int, eps: float, momentum: float) -> "PlainNorm":
        """A norm that ignores conditions."""
        return PlainNorm(channels, eps, momentum)


@dataclass(frozen=True)
class PromptNormConfig(NormConfig):
    """Norms that know the condition of each scene: PonderV2's PDNorm (``SpUNet-v1m3``)."""

    names: tuple[str, ...] = ("ScanNet", "S3DIS", "Structured3D")
    """Conditions, in the order of their rows."""
    decouple: bool = True
    """Whether each condition has its own statistics, scale and shift."""
    adaptive: bool = True
    """Whether the prompt of a condition scales and shifts what has been normalised."""
    prompt_channels: int = 256
    """Width of a prompt."""

    def __post_init__(self):
        if not self.names or len(set(self.names)) != len(self.names) or "" in self.names:
            raise ValueError(f"PromptNormConfig.names: one or more different names are needed, not {self.names}")
        if not (self.decouple or self.adaptive):
            raise ValueError("PromptNormConfig: neither decouple nor adaptive makes it a plain norm; use that")
        if self.prompt_channels < 1:
            raise ValueError(f"PromptNormConfig.prompt_channels must be at least 1, not {self.prompt_channels}")

    @property
    def conditions(self) -> tuple[str, ...]:
        """``names``."""
        return self.names

    def build(self, channels: int, eps: float, momentum: float) -> "PromptNorm":
        """A norm with a row per condition."""
        return PromptNorm(channels, eps, momentum, self)


class Prompted:
    """Which condition each scene of a batch has, and the prompts, for all norms of one forward pass.

    Args:
        rows: row of each scene's condition.
        num_conditions: number of rows there are.
        prompts: of each condition, after the activation; None without.
        device: where the features are.
    """

    def __init__(
        self, rows: Sequence[int], num_conditions: int, prompts: Float[Tensor, "K P"] | None, device: torch.device
    ):
        self.num_conditions, self.prompts = num_conditions, prompts
        self.only = rows[0] if len(set(rows)) == 1 else None
        """The row of all scenes, if they share one."""
        self._rows = list(rows)
        self._on_device = torch.tensor(rows, dtype=torch.int64).to(device, non_blocking=True)
        self._ways: dict[int, _Spans | _Members] = {}

    def by_condition(self, x: SparseTensor) -> "_Spans | _Members":
        """How to sum up, and to look up, by the condition of each voxel."""
        if x.stride not in self._ways:
            scene = x.coords[:, 0].contiguous()
            if scene.device.type == "cpu":
                ends = torch.searchsorted(scene, torch.arange(len(self._rows)), right=True).tolist()
                starts = [0, *ends[:-1]]
                spans = [(a, b, k) for a, b, k in zip(starts, ends, self._rows, strict=True) if a < b]
                self._ways[x.stride] = _Spans(spans, self.num_conditions)
            else:  # where rows end is not known here without waiting for the GPU
                self._ways[x.stride] = _Members(self._on_device[scene], self.num_conditions)
        return self._ways[x.stride]


class _Spans:
    """Rows of one scene follow each other: everything is done span by span, on a CPU in a third of the time."""

    def __init__(self, spans: Sequence[tuple[int, int, int]], num_conditions: int):
        self.spans, self.num_conditions = spans, num_conditions

    def counts(self, x: Tensor) -> Float[Tensor, "K 1"]:
        """Rows of each condition."""
        counts = [sum(b - a for a, b, k in self.spans if k == condition) for condition in range(self.num_conditions)]
        return torch.tensor(counts, dtype=x.dtype)[:, None]

    def total(self, x: Tensor) -> Float[Tensor, "K C"]:
        """Sum of the rows of each condition."""
        out = x.new_zeros(self.num_conditions, x.shape[1])
        for a, b, k in self.spans:
            out[k] += x[a:b].sum(0)
        return out

    def squares(self, x: Tensor, mean: Float[Tensor, "K C"]) -> Float[Tensor, "K C"]:
        """Sum of the squared differences from each condition's mean."""
        out = x.new_zeros(self.num_conditions, x.shape[1])
        for a, b, k in self.spans:
            own, var = torch.batch_norm_update_stats(x[a:b], None, None, 0.0)
            out[k] += (b - a) * (var + (own - mean[k]).square())
        return out

    def products(self, x: Tensor, y: Tensor) -> Float[Tensor, "K C"]:
        """Sum of x times y over the rows of each condition."""
        out = x.new_zeros(self.num_conditions, x.shape[1])
        for a, b, k in self.spans:
            out[k] += (x[a:b] * y[a:b]).sum(0)
        return out

    def affine(self, x: Tensor, scale: Float[Tensor, "K C"], shift: Tensor) -> Float[Tensor, "M C"]:
        """Each row times its condition's scale, and a shift ``[K C]`` or ``[M C]``."""
        out = torch.empty_like(x)
        for a, b, k in self.spans:
            torch.addcmul(shift[a:b] if shift.shape == x.shape else shift[k], x[a:b], scale[k], out=out[a:b])
        return out


class _Members:
    """Sums are products with a table that is 1 where a row is of a condition, else 0: no atomics, the same bits every
    time. What a condition has is looked up, not multiplied, as a product may be in TF32."""

    def __init__(self, condition: Int[Tensor, " M"], num_conditions: int):
        self.condition = condition
        self.members = F.one_hot(condition, num_conditions).to(torch.float32)

    def counts(self, x: Tensor) -> Float[Tensor, "K 1"]:
        """Rows of each condition."""
        return self.members.sum(0)[:, None].to(x.dtype)

    def total(self, x: Tensor) -> Float[Tensor, "K C"]:
        """Sum of the rows of each condition."""
        return self.members.to(x.dtype).T @ x

    def squares(self, x: Tensor, mean: Float[Tensor, "K C"]) -> Float[Tensor, "K C"]:
        """Sum of the squared differences from each condition's mean."""
        return self.total((x - mean[self.condition]).square())

    def products(self, x: Tensor, y: Tensor) -> Float[Tensor, "K C"]:
        """Sum of x times y over the rows of each condition."""
        return self.total(x * y)

    def affine(self, x: Tensor, scale: Float[Tensor, "K C"], shift: Tensor) -> Float[Tensor, "M C"]:
        """Each row times its condition's scale, and a shift ``[K C]`` or ``[M C]``."""
        own = shift if shift.shape == x.shape else shift[self.condition]
        return torch.addcmul(own, x, scale[self.condition])


class PlainNorm(BatchNorm):
    """Batch norm over the rows of all scenes."""

    def forward(  # type: ignore[override]
        self, x: SparseTensor, prompted: Prompted | None = None
    ) -> Float[Tensor, "M C"]:
        """Normalised rows."""
        return super().forward(x.feats)


class PromptNorm(nn.Module):
    """Batch norm with statistics, scale and shift by condition.

    ``y = (x - mean_k) / sqrt(var_k + eps) * w_k * (1 + s_k) + b_k * (1 + s_k) + t_k`` for rows of condition k, where
    ``(t_k, s_k)`` is a linear function of k's prompt. A condition with fewer than two rows in a batch is normalised
    with its running statistics, which stay as they are.
    """

    def __init__(self, channels: int, eps: float, momentum: float, config: PromptNormConfig):
        super().__init__()
        self.eps, self.momentum, self.num_conditions = eps, momentum, len(config.names)
        groups = len(config.names) if config.decouple else 1
        self.weight = nn.Parameter(torch.ones(groups, channels))
        self.bias = nn.Parameter(torch.zeros(groups, channels))
        self.register_buffer("running_mean", torch.zeros(groups, channels))
        self.register_buffer("running_var", torch.ones(groups, channels))
        self.modulation = nn.Linear(config.prompt_channels, 2 * channels) if config.adaptive else None
        if self.modulation is not None:
            nn.init.trunc_normal_(self.modulation.weight, std=0.02)
            nn.init.zeros_(self.modulation.bias)
        self.running_mean: Tensor
        self.running_var: Tensor

    def affine(self, prompts: Float[Tensor, "K P"] | None) -> tuple[Float[Tensor, "K C"], Float[Tensor, "K C"]]:
        """What normalised rows of each condition are multiplied by, and what is added; one row if all share it."""
        if self.modulation is None:
            return self.weight, self.bias
        assert prompts is not None
        shift, scale = self.modulation(prompts).chunk(2, dim=1)
        return self.weight * (1 + scale), self.bias * (1 + scale) + shift

    def folded(self, prompts: Float[Tensor, "K P"] | None, condition: int) -> "PlainNorm":
        """The plain norm that does what this one does to rows of a condition, in evaluation mode."""
        scale, shift = self.affine(prompts)
        plain = PlainNorm(scale.shape[1], self.eps, self.momentum)
        values = {"weight": scale, "bias": shift, "running_mean": self.running_mean, "running_var": self.running_var}
        rows = {name: table[min(condition, len(table) - 1)].detach() for name, table in values.items()}
        plain.norm.load_state_dict({**plain.norm.state_dict(), **rows})
        return plain

    def forward(self, x: SparseTensor, prompted: Prompted | None = None) -> Float[Tensor, "M C"]:
        """Normalised rows."""
        assert prompted is not None
        with torch.autocast(x.feats.device.type, enabled=False):
            feats = x.feats.float()
            scale, shift = self.affine(prompted.prompts)
            if prompted.only is not None:
                out = self._of_one(feats, scale, shift, prompted.only)
            else:
                out = self._of_all(feats, scale, shift, prompted.by_condition(x))
        return out.to(x.feats.dtype)

    def _of_one(self, feats: Tensor, scale: Tensor, shift: Tensor, condition: int) -> Tensor:
        group = min(condition, len(self.running_mean) - 1)
        row = min(condition, len(scale) - 1)
        training = self.training and len(feats) > 1
        mean, var = self.running_mean[group], self.running_var[group]
        return F.batch_norm(feats, mean, var, scale[row], shift[row], training, self.momentum, self.eps)

    def _of_all(self, feats: Tensor, scale: Tensor, shift: Tensor, way: _Spans | _Members) -> Tensor:
        scale, shift = (table.expand(self.num_conditions, -1) for table in (scale, shift))
        out, mean, var, counts = _normalised(
            feats, scale, shift, way, self.running_mean, self.running_var, self.eps, self.training
        )
        if not self.training:
            return out
        with torch.no_grad():
            weight = self.momentum * (counts > 1)
            self.running_mean.lerp_(mean, weight)
            self.running_var.lerp_(var * counts / (counts - 1).clamp(min=1), weight)
        return out


class _Normalised(torch.autograd.Function):
    """Normalise rows by group (all conditions together, or each by itself), then scale and shift them by condition.

    Keeps nothing of the rows but themselves: with n rows in a group and g the gradient times the scale, what goes back
    is ``rstd (g - sum(g) / n - y sum(g y) / n)``, which is affine in the rows and in the gradient.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        scale: Tensor,
        shift: Tensor,
        way: _Spans | _Members,
        running_mean: Tensor,
        running_var: Tensor,
        eps: float,
        training: bool,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        groups = len(running_mean)
        counts = _grouped(way.counts(x), groups)
        enough, num = (counts > 1) & training, counts.clamp(min=1)
        mean, var = running_mean, running_var
        if training:
            mean = torch.where(enough, _grouped(way.total(x), groups) / num, mean)
            var = torch.where(enough, _grouped(way.squares(x, mean.expand_as(scale)), groups) / num, var)
        rstd = (var + eps).rsqrt()
        ctx.way = way
        ctx.save_for_backward(x, scale, mean, rstd, enough / num)
        ctx.mark_non_differentiable(mean, var, counts)
        return way.affine(x, scale * rstd, shift - mean * rstd * scale), mean, var, counts

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, *gradients: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        gradient, way = gradients[0].contiguous(), ctx.way
        x, scale, mean, rstd, share = ctx.saved_tensors
        to_shift = way.total(gradient)
        to_scale = (way.products(gradient, x) - mean * to_shift) * rstd
        # Through the statistics, where they were the batch's own.
        level = _grouped(scale * to_shift, len(mean)) * share
        along = _grouped(scale * to_scale, len(mean)) * share * rstd
        rest = way.affine(x, (-rstd * along).expand_as(scale), (rstd * (mean * along - level)).expand_as(scale))
        return way.affine(gradient, scale * rstd, rest), to_scale, to_shift, None, None, None, None, None


def _grouped(table: Float[Tensor, "K C"], groups: int) -> Float[Tensor, "{groups} C"]:
    """Sums of conditions as sums of groups."""
    return table if len(table) == groups else table.sum(0, keepdim=True)


def _normalised(*arguments: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return _Normalised.apply(*arguments)  # type: ignore[return-value]


def rows_of(conditions: Sequence[str], names: Sequence[str]) -> list[int]:
    """Row of each scene's condition.

    Raises:
        ValueError: a scene has none, or one that is not among the names.
    """
    rows = {name: row for row, name in enumerate(names)}
    for condition in conditions:
        if condition not in rows:
            what = f"the condition {condition!r} is unknown" if condition else "the condition of a scene is missing"
            raise ValueError(f"{what}; this encoder knows {', '.join(names)} (transforms.SetCondition names one)")
    return [rows[condition] for condition in conditions]
