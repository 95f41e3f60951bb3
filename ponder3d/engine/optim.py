"""Optimisers, and the learning rate as a function of the step."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from ponder3d.config import Config
from ponder3d.encoders.norms import PromptNorm


@dataclass(frozen=True)
class OptimConfig(Config):
    """Choices of the optimiser and of its schedule."""

    name: Literal["adamw", "sgd"] = "adamw"
    """``sgd`` has Nesterov momentum 0.9 (but see ``one_cycle``)."""
    schedule: Literal["cosine", "one_cycle", "poly"] = "cosine"
    """``cosine`` rises linearly from 0 and falls along half a cosine. ``one_cycle`` (Smith and Topin 2018, as PyTorch
    has it) rises from a tenth of the peak along half a cosine too, while the momentum of ``sgd`` goes from 0.95 to 0.85
    and back. ``poly`` falls as (1 - progress)^0.9, without warm-up."""
    lr: float = 2e-3
    """Peak learning rate."""
    encoder_lr_scale: float = 1.0
    """Factor on the learning rate of the encoder, e.g. below 1 when it is pre-trained."""
    backbone_lr_scale: float = 1.0
    """Further factor on that of the encoder's image backbone, which often comes with weights of ImageNet."""
    weight_decay: float = 0.01
    """Not applied to vectors and scalars (biases, norms, prompts, sharpness)."""
    warmup: float = 0.05
    """Share of the steps over which the rate rises."""
    final: float = 0.01
    """Rate at the end, as a share of the peak."""
    clip: float = 1.0
    """Largest norm of the gradient; 0 does not clip."""

    def __post_init__(self):
        # A negative factor or norm would turn steps round, and what has learnt to be worse is all that would say so.
        for name in ("lr", "encoder_lr_scale", "backbone_lr_scale", "weight_decay", "clip"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"OptimConfig.{name} must be at least 0, it is {getattr(self, name):g}")
        for name in ("warmup", "final"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"OptimConfig.{name} is a share, in [0, 1]; it is {getattr(self, name):g}")

    def build(self, model: nn.Module) -> torch.optim.Optimizer:
        """An optimiser over the trainable parameters; those under ``encoder.``, and of them those of
        an image ``backbone``, may have rates of their own."""
        groups: dict[tuple[float, bool], list[nn.Parameter]] = {}
        stacked = _stacked_vectors(model)
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                path = name.split(".")
                scale = self.encoder_lr_scale if "encoder" in path else 1.0
                scale *= self.backbone_lr_scale if {"encoder", "backbone"} <= set(path) else 1.0
                decays = parameter.ndim > 1 and id(parameter) not in stacked
                groups.setdefault((scale, decays), []).append(parameter)
        params = [
            {
                "params": members,
                "lr_scale": scale,
                "weight_decay": self.weight_decay if decays else 0.0,
            }
            for (scale, decays), members in groups.items()
        ]
        if self.name == "sgd":
            return torch.optim.SGD(params, lr=self.lr, momentum=0.9, nesterov=True, fused=True)
        return torch.optim.AdamW(params, lr=self.lr, fused=True)

    def factor(self, step: int, steps: int) -> float:
        """Share of the peak learning rate at a step in [0, steps)."""
        if self.schedule == "poly":
            return (1 - step / steps) ** 0.9
        if self.schedule == "one_cycle":
            return _between(_CYCLE_START, 1.0, self.final, *self._cycle(step, steps))
        return lr_factor(step, steps, self.warmup, self.final)

    def set(self, optimizer: torch.optim.Optimizer, step: int, steps: int) -> None:
        """Give every group its learning rate, and momentum, of a step in [0, steps)."""
        set_lr(optimizer, self.lr * self.factor(step, steps))
        if self.schedule == "one_cycle" and self.name == "sgd":
            momentum = _between(0.95, 0.85, 0.95, *self._cycle(step, steps))
            for group in optimizer.param_groups:
                group["momentum"] = momentum

    def _cycle(self, step: int, steps: int) -> tuple[float, float]:
        """How far a step is on the way up, and on the way down, each in [0, 1]."""
        top = max(self.warmup * steps - 1, 0.0)
        if step <= top:
            return (step / top if top else 1.0), 0.0
        return 1.0, min((step - top) / max(steps - 1 - top, 1e-9), 1.0)


_CYCLE_START = 0.1
"""Where a cycle's learning rate starts, as a share of its peak (``div_factor`` 10 of PonderV2's recipes)."""


def _between(start: float, top: float, end: float, up: float, down: float) -> float:
    """Along half a cosine from ``start`` to ``top``, and along another to ``end``."""
    if down:
        return end + (top - end) * 0.5 * (1 + math.cos(math.pi * down))
    return top + (start - top) * 0.5 * (1 + math.cos(math.pi * up))


def _stacked_vectors(model: nn.Module) -> set[int]:
    """Ids of the parameters that are one vector per condition, in a matrix."""
    rows = [p for m in model.modules() if isinstance(m, PromptNorm) for p in (m.weight, m.bias)]
    rows += [m.weight for m in model.modules() if isinstance(m, nn.Embedding)]
    return {id(parameter) for parameter in rows}


def lr_factor(step: int, steps: int, warmup: float, final: float) -> float:
    """Share of the peak learning rate at a step in [0, steps)."""
    rising = max(1, round(warmup * steps))
    if step < rising:
        return (step + 1) / rising
    progress = (step - rising) / max(1, steps - rising)
    return final + (1 - final) * 0.5 * (1 + math.cos(math.pi * progress))


def set_lr(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Set the learning rate of every group, times the group's own scale."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group["lr_scale"]


def gradient_norm(parameters: Iterable[nn.Parameter]) -> torch.Tensor:
    """Norm of all gradients together; not finite if any of them is not."""
    grads = [p.grad for p in parameters if p.grad is not None]
    return torch.nn.utils.get_total_norm(grads) if grads else torch.zeros(())


def step_unless(bad: torch.Tensor, optimizer: torch.optim.Optimizer, wrapped: torch.optim.Optimizer) -> None:
    """Step, unless ``bad`` (a flag on the device) is set: then weights and state stay, and the host need not know."""
    for group in optimizer.param_groups:
        for p in group["params"] if group.get("momentum") else ():
            # If a first step is skipped, SGD keeps the memory that it has reserved for the momentum, whatever is in it.
            if p.grad is not None and optimizer.state[p].get("momentum_buffer") is None:
                optimizer.state[p]["momentum_buffer"] = torch.zeros_like(p)
    # What torch's gradient scaler gives to fused optimisers, for the same purpose.
    optimizer.found_inf = bad.to(torch.float32)  # type: ignore[attr-defined]
    wrapped.step()
    del optimizer.found_inf  # type: ignore[attr-defined]
