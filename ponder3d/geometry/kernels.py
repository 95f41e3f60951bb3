"""The one seam between plain PyTorch and faster kernels.

Every fast path has a plain-torch twin, and asks here which of them to run. ``auto`` takes Triton on a CUDA device where
it is installed (the CUDA builds of PyTorch bring it along), compiled C on a CPU with a compiler
(``geometry/compiled.py``), and PyTorch everywhere else.

    with kernels("torch"):
        features = encoder(batch)

An operation asks once, in its forward pass; its backward pass, which autograd may run in another thread, follows.
"""

import contextlib
import functools
import importlib.util
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Literal, get_args

import torch

Kernels = Literal["auto", "torch", "compiled", "triton"]

_choice: ContextVar[Kernels] = ContextVar("ponder3d kernels", default="auto")


@contextlib.contextmanager
def kernels(which: Kernels) -> Iterator[None]:
    """Choose for everything that is called inside, in this thread.

    ``compiled`` and ``triton`` insist, where ``auto`` would make do with PyTorch. Without a GPU, ``triton`` needs
    Triton's interpreter, which is how the kernels are tested.

    Raises:
        ValueError: another name.
    """
    if which not in get_args(Kernels):
        raise ValueError(f"kernels: choose one of {', '.join(get_args(Kernels))}, not {which!r}")
    token = _choice.set(which)
    try:
        yield
    finally:
        _choice.reset(token)


def chosen() -> Kernels:
    """The choice in force."""
    return _choice.get()


def use_triton(device: torch.device) -> bool:
    """Whether an operation on tensors of this device should run its Triton kernel."""
    which = chosen()
    return which == "triton" or (which == "auto" and device.type == "cuda" and _has_triton())


@functools.cache
def _has_triton() -> bool:
    return importlib.util.find_spec("triton") is not None
