"""Activation checkpointing: a part of a network keeps its inputs only, and computes again in the backward pass."""

import contextlib
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ponder3d.geometry import kernels


def recomputed(module: nn.Module, call: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """``call(x)``, a function of ``x`` and ``module`` without randomness, with less memory and one more forward pass.

    Result, gradients and buffers are to the bit those of ``call(x)``: running statistics see the batch once.
    """
    if not torch.is_grad_enabled():
        return call(x)
    chosen = kernels.chosen()  # autograd may compute again in another thread, where nothing is chosen

    def contexts() -> tuple[contextlib.AbstractContextManager[None], contextlib.AbstractContextManager[None]]:
        return contextlib.nullcontext(), _again(module, chosen)

    result = checkpoint(call, x, use_reentrant=False, preserve_rng_state=False, context_fn=contexts)
    assert isinstance(result, Tensor)
    return result


@contextlib.contextmanager
def _again(module: nn.Module, chosen: kernels.Kernels) -> Iterator[None]:
    before = [(buffer, buffer.clone()) for buffer in module.buffers()]
    try:
        with kernels.kernels(chosen):
            yield
    finally:  # PyTorch leaves by an exception once it has what it needs
        for buffer, value in before:
            # Past autograd's count of changes: no gradient depends on running statistics in training.
            buffer.data.copy_(value)
