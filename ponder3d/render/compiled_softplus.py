"""Softplus and its derivative compiled for the CPU (``cpu_softplus.c``), in one pass instead of seven."""

import torch
from jaxtyping import Float
from torch import Tensor

from ponder3d.geometry.compiled import Functions, Library


def softplus(z: Float[Tensor, "*N"], beta: float) -> tuple[Float[Tensor, "*N"], Float[Tensor, "*N"]]:
    """Softplus and its derivative, float32."""
    z = z.contiguous()
    y, s = torch.empty_like(z), torch.empty_like(z)
    LIBRARY.run("softplus", z, y, s, z.numel(), float(beta))
    return y, s


def _is_right(functions: Functions) -> bool:
    z = torch.linspace(-9, 9, 101)
    y, s = torch.empty_like(z), torch.empty_like(z)
    functions.run("softplus", z, y, s, len(z), 2.0)
    right = torch.nn.functional.softplus(z, beta=2.0), torch.sigmoid(2 * z)
    return torch.allclose(y, right[0], atol=1e-6) and torch.allclose(s, right[1], atol=1e-6)


LIBRARY = Library("ponder3d.render", "cpu_softplus.c", _is_right)
