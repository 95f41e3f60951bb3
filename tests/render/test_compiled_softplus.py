"""Softplus in C against PyTorch in float64."""

import pytest
import torch
import torch.nn.functional as F

from ponder3d.render import compiled_softplus
from ponder3d.render.compiled_softplus import softplus

pytestmark = pytest.mark.skipif(not compiled_softplus.LIBRARY.available, reason="no C compiler")


@pytest.mark.parametrize("beta", [1.0, 100.0])
@pytest.mark.parametrize("num", [0, 1, 9, 8192, 20_001])
def test_equals_pytorch(num, beta):
    z = torch.randn(num) * 20 / beta
    y, s = softplus(z, beta)
    exact = z.double()
    # threshold: PyTorch leaves the logarithm out beyond it.
    torch.testing.assert_close(y.double(), F.softplus(exact, beta, threshold=1e9), atol=3e-7 / beta, rtol=3e-7)
    torch.testing.assert_close(s.double(), torch.sigmoid(exact * beta), atol=2e-7, rtol=2e-7)


def test_small_values_keep_their_digits():
    z = torch.linspace(-59, 0, 1000)
    y, s = softplus(z, 1.0)
    torch.testing.assert_close(y.double(), torch.log1p(torch.exp(z.double())), atol=0, rtol=5e-6)
    torch.testing.assert_close(s.double(), torch.sigmoid(z.double()), atol=0, rtol=5e-6)


def test_extremes():
    y, s = softplus(torch.tensor([torch.inf, -torch.inf, torch.nan, 0.0, 1e30, -1e30, 1e-30]), 100.0)
    assert y[0] == torch.inf and s[0] == 1 and s[4] == 1 and y[4] == 1e30
    assert bool(y[2].isnan()) and bool(s[2].isnan())
    tiny = torch.finfo(torch.float32).tiny
    assert all(tiny < float(value) < 1e-25 for value in (y[1], s[1], y[5], s[5]))  # small, and not denormal
    assert s[3] == 0.5 and float(y[3]) == pytest.approx(0.0069314718) and s[6] == 0.5


def test_shapes_and_strides():
    z = torch.randn(6, 10)[:, ::2]
    y, s = softplus(z, 2.0)
    torch.testing.assert_close(y, F.softplus(z, 2.0))
    torch.testing.assert_close(s, torch.sigmoid(2 * z))
