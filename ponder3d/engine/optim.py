"""Optimisers, and the learning rate as a function of the step."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from ponder3d.config import Config


@dataclass(frozen=True)
class OptimConfig(Config):
    """Choices of the optimiser. The schedule warms up linearly and then follows half a cosine down."""

    name: Literal["adamw", "sgd"] = "adamw"
    """``sgd`` has Nesterov momentum 0.9."""
    lr: float = 2e-3
    """Peak learning rate."""
    encoder_lr_scale: float = 1.0
    """Factor on the learning rate of the encoder, e.g. below 1 when it is pre-trained."""
    weight_decay: float = 0.01
    """Not applied to vectors and scalars (biases, norms, sharpness)."""
    warmup: float = 0.05
    """Share of the steps over which the rate rises."""
    final: float = 0.01
    """Rate at the end, as a share of the peak."""
    clip: float = 1.0
    """Largest norm of the gradient; 0 does not clip."""

    def build(self, model: nn.Module) -> torch.optim.Optimizer:
        """An optimiser over the trainable parameters; those under ``encoder.`` form groups of their own."""
        groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                in_encoder = "encoder" in name.split(".")
                groups.setdefault((in_encoder, parameter.ndim > 1), []).append(parameter)
        params = [
            {
                "params": members,
                "lr_scale": self.encoder_lr_scale if in_encoder else 1.0,
                "weight_decay": self.weight_decay if decays else 0.0,
            }
            for (in_encoder, decays), members in groups.items()
        ]
        if self.name == "sgd":
            return torch.optim.SGD(params, lr=self.lr, momentum=0.9, nesterov=True, fused=True)
        return torch.optim.AdamW(params, lr=self.lr, fused=True)


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
