"""Triton through the layers: a convolution and its gradients, chosen as a user chooses them."""

import pytest
import torch

from ponder3d.geometry.kernels import kernels
from ponder3d.sparse import reference, sparse_tensor
from ponder3d.sparse.functional import sparse_conv


@pytest.mark.parametrize("kind", ["subm3", "strided", "inverse"])
def test_a_convolution_and_its_gradients(kind, device):
    coords = torch.unique(torch.randint(0, 7, (150, 4)) % torch.tensor([2, 7, 7, 7]), dim=0).to(device)
    with kernels("triton"):
        x = sparse_tensor(coords, torch.zeros(len(coords), 1, device=device), 2)
        maps = x.maps.subm(1, 3) if kind == "subm3" else x.maps.strided(1, 2, 2, 0)
        maps = maps.transposed() if kind == "inverse" else maps
        feats = torch.randn(maps.forward.num_in, 6, device=device, requires_grad=True)
        weight = torch.randn(len(maps.forward.rows), 6, 5, device=device, requires_grad=True)
        out = sparse_conv(feats, weight, maps)
    grad = torch.randn_like(out)
    out.backward(grad)
    exact = [t.detach().double().requires_grad_() for t in (feats, weight)]
    expected = reference.conv(*exact, maps.forward)
    expected.backward(grad.double())
    pairs = [(out, expected), (feats.grad, exact[0].grad), (weight.grad, exact[1].grad)]
    for value, right in ((v.detach(), r.detach()) for v, r in pairs):
        assert float((value.double() - right).norm() / right.norm()) < 1e-5
