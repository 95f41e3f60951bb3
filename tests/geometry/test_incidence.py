"""Sums over the pairs of a sparse matrix."""

import torch

from ponder3d.geometry.incidence import gather_rows, scatter_rows

INDEX = torch.tensor([[0, 2, -1], [2, 2, 1]])
WEIGHT = torch.tensor([[1.0, 2.0, 5.0], [0.5, 0.25, 3.0]])


def matrix(index: torch.Tensor, weight: torch.Tensor, num: int) -> torch.Tensor:
    """The same as a dense matrix."""
    out = torch.zeros(len(index), num, dtype=weight.dtype)
    for m in range(len(index)):
        for k in range(index.shape[1]):
            if index[m, k] >= 0:
                out[m, index[m, k]] += weight[m, k]
    return out


def test_by_hand(device):
    index, weight = INDEX.to(device), WEIGHT.to(device)
    rows = torch.tensor([[1.0, 10.0], [2.0, 20.0], [4.0, 40.0]], device=device)
    assert gather_rows(rows, index, weight).tolist() == [[9, 90], [9, 90]]
    out = scatter_rows(rows[:2], index, weight, 4)
    assert out.tolist() == [[1, 10], [6, 60], [2 + 1 + 0.5, 20 + 10 + 5], [0, 0]]


def test_equals_the_dense_matrix_with_gradients(device):
    index, weight = torch.randint(-1, 7, (20, 5)), torch.randn(20, 5, dtype=torch.float64)
    for function, num_rows, num_out in ((gather_rows, 7, 20), (scatter_rows, 20, 7)):
        rows, grad = torch.randn(num_rows, 3, dtype=torch.float64), torch.randn(num_out, 3, dtype=torch.float64)
        expected_in = [rows.clone().requires_grad_(), weight.clone().requires_grad_()]
        dense = matrix(index, expected_in[1], 7)
        expected = dense @ expected_in[0] if num_out == 20 else dense.T @ expected_in[0]
        expected.backward(grad)
        found_in = [value.clone().to(device).requires_grad_() for value in (rows, weight)]
        more = (7,) if num_out == 7 else ()
        found = function(found_in[0], index.to(device), found_in[1], *more)
        found.backward(grad.to(device))
        torch.testing.assert_close(found.detach().cpu(), expected.detach())
        for a, b in zip(found_in, expected_in, strict=True):
            torch.testing.assert_close(a.grad.cpu(), b.grad)


def test_gradients_by_differences():
    index = torch.randint(-1, 4, (6, 3))
    weight = torch.rand(6, 3, dtype=torch.float64, requires_grad=True)
    for function, num_rows in ((gather_rows, 4), (lambda r, i, w: scatter_rows(r, i, w, 4), 6)):
        rows = torch.randn(num_rows, 2, dtype=torch.float64, requires_grad=True)
        assert torch.autograd.gradcheck(lambda r, w, f=function: f(r, index, w), (rows, weight))


def test_weights_without_gradient_and_nothing_at_all(device):
    rows = torch.randn(2, 3, device=device, requires_grad=True)
    scatter_rows(rows, INDEX.to(device), WEIGHT.to(device), 4).sum().backward()
    torch.testing.assert_close(rows.grad, torch.tensor([[3.0] * 3, [3.75] * 3], device=device))
    nowhere = torch.full_like(INDEX, -1).to(device)
    assert scatter_rows(rows, nowhere, WEIGHT.to(device), 4).tolist() == [[0.0] * 3] * 4
    assert gather_rows(rows, nowhere, WEIGHT.to(device)).tolist() == [[0.0] * 3] * 2
    assert scatter_rows(rows[:0], nowhere[:0], WEIGHT[:0].to(device), 4).tolist() == [[0.0] * 3] * 4


def test_the_same_bits_every_time(device):
    index = torch.randint(0, 10, (500, 20), device=device)
    rows, weight = torch.randn(500, 8, device=device), torch.rand(500, 20, device=device)
    first = scatter_rows(rows, index, weight, 10)
    assert all(torch.equal(scatter_rows(rows, index, weight, 10), first) for _ in range(3))
