import pytest
import torch

from ponder3d.geometry.kernels import kernels
from ponder3d.geometry.rows import sum_rows, take

COLUMNS = {
    "xyz": torch.randn(50, 3),
    "labels": torch.arange(50),
    "wide": torch.randn(50, 40),
    "bytes": torch.randint(0, 255, (50, 3), dtype=torch.uint8),
    "pairs": torch.randn(50, 2, dtype=torch.float64),
    "no channels": torch.zeros(50, 0),
    "a view": torch.randn(4, 100).T[::2, 1:],
}


@pytest.mark.parametrize("which", ["auto", "torch"])
@pytest.mark.parametrize("name", COLUMNS)
def test_take_is_indexing(name, which):
    x = COLUMNS[name]
    with kernels(which):
        for rows in (torch.randint(50, (70_000,)), torch.tensor([49, 0, 0], dtype=torch.int32), torch.zeros(0).long()):
            found = take(x, rows)
            assert found.dtype == x.dtype and torch.equal(found, x[rows])
    assert take(x[:0], torch.zeros(0).long()).shape == x[:0].shape


@pytest.mark.parametrize("which", ["auto", "torch"])
@pytest.mark.parametrize("row", [-1, 50, 2**40])
@pytest.mark.parametrize("name", ["xyz", "labels"])
def test_a_row_that_is_not_there(name, row, which):
    with kernels(which), pytest.raises(IndexError):
        take(COLUMNS[name], torch.tensor([3, row]))


def test_gradients_pass():
    x = torch.randn(5, 3, requires_grad=True)
    take(x, torch.tensor([1, 1, 4])).sum().backward()
    assert x.grad.tolist() == [[0] * 3, [2] * 3, [0] * 3, [0] * 3, [1] * 3]


def test_rows_are_summed_where_they_go(device):
    x = torch.randn(50, 3)
    row = torch.randint(0, 7, (50,))
    expected = torch.stack([x[row == number].sum(0) for number in range(9)])
    found = sum_rows(x.to(device), row.to(device), 9)
    torch.testing.assert_close(found.cpu(), expected)
    assert found.is_contiguous() and sum_rows(x[:0].to(device), row[:0].to(device), 2).tolist() == [[0, 0, 0]] * 2
