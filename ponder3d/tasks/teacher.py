"""A teacher that follows a student: an exponential moving average of its weights (Tarvainen and Valpola 2017).

The teacher's weights are buffers, not parameters: no optimiser and no data-parallel wrapper looks for their gradients,
checkpoints hold them, and a step that is skipped takes them back along with the running statistics.
"""

from copy import deepcopy
from typing import TypeVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

M = TypeVar("M", bound=nn.Module)


def frozen_copy(module: M) -> M:
    """A copy whose parameters are buffers of the same names."""
    copy = deepcopy(module)
    for part in copy.modules():
        for name, parameter in list(part.named_parameters(recurse=False)):
            delattr(part, name)
            part.register_buffer(name, parameter.detach().clone())
    return copy


@torch.no_grad()
def follow(teacher: nn.Module, student: nn.Module, share: Float[Tensor, ""] | float) -> None:
    """Move the weights of a ``frozen_copy`` towards the student's by a share of the way; 1 makes them equal.

    Running statistics stay the teacher's own: they are of what it has seen. A share on the device makes nothing wait.
    """
    weights = dict(teacher.named_buffers())
    for name, parameter in student.named_parameters():
        if isinstance(share, Tensor):
            weights[name].lerp_(parameter, share.to(parameter.dtype))
        else:
            weights[name].lerp_(parameter, share)


@torch.no_grad()
def become(teacher: nn.Module, student: nn.Module) -> None:
    """Give a ``frozen_copy`` the weights and the running statistics of the student."""
    teacher.load_state_dict(student.state_dict())
