"""The Triton kernels against the plain functions in float64, and the field's closed form with one and the other."""

import pytest
import torch

from ponder3d.geometry import trilinear, triton_trilinear
from ponder3d.geometry.kernels import kernels
from ponder3d.geometry.trilinear import Corners, corners, factors, read, read_along, sample, sample_derivative, scatter
from ponder3d.render import closed_form
from ponder3d.render.closed_form import DecoderWeights, Positions, decode_with_gradient
from ponder3d.types import Grid, Volume

SHAPES = [(3, 4, 3), (1, 4, 3), (4, 3, 1), (3, 1, 2), (1, 1, 1)]


@pytest.fixture(autouse=True)
def _poisoned():
    """Memory that a kernel has to fill holds NaN until it does."""
    assert torch.are_deterministic_algorithms_enabled() and torch.utils.deterministic.fill_uninitialized_memory


def error(found: torch.Tensor, expected: torch.Tensor) -> float:
    """Relative, of the whole; NaN if any element was not written."""
    found, expected = found.detach().to(torch.float64), expected.detach().to(torch.float64)
    assert found.shape == expected.shape
    return float((found - expected).norm() / expected.norm().clamp(min=1e-12))


def places(
    shape: tuple[int, int, int], num: int, device: torch.device, scenes: int = 2, reach: float = 1.3
) -> tuple[Grid, torch.Tensor, torch.Tensor]:
    """Points in and, for ``reach`` above 1, around the boxes of several scenes."""
    lo = torch.randn(scenes, 3)
    box = torch.stack([lo, lo + torch.rand(scenes, 3) * 3 + 1], dim=1)
    scene = torch.randint(scenes, (num,))
    share = (torch.rand(num, 3) - 0.5) * reach + 0.5
    xyz = box[:, 0][scene] + share * (box[:, 1] - box[:, 0])[scene]
    return Grid(box.to(device), shape), xyz.to(device), scene.to(device)


def triton_corners(shape: tuple[int, int, int], num: int, device: torch.device) -> tuple[Corners, int]:
    """Corners of random points, and the number of rows of the volume of two scenes."""
    with kernels("triton"):
        return corners(*places(shape, num, device)), 2 * shape[0] * shape[1] * shape[2]


def wide(at: Corners) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    return at.index.to(torch.int64), at.weight.to(torch.float64), at.slope.to(torch.float64)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("num", [0, 1, 150])
def test_corners(shape, num, device):
    grid, xyz, scene = places(shape, num, device, scenes=3)
    with kernels("triton"):
        found = corners(grid, xyz, scene)
    with kernels("torch"):
        expected = corners(Grid(grid.box.to(torch.float64), shape), xyz.to(torch.float64), scene)
    assert found.index.dtype == torch.int32 and torch.equal(found.index.to(torch.int64), expected.index)
    assert error(found.weight, expected.weight) < 1e-5 and error(found.slope, expected.slope) < 1e-5


def test_a_position_that_is_no_number_shows_but_stays_within_the_volume(device):
    grid, xyz, scene = places((5, 4, 3), 40, device)
    xyz[::2, 1] = torch.nan
    with kernels("triton"):
        at = corners(grid, xyz, scene)
    assert 0 <= int(at.index.min()) and int(at.index.max()) < 120
    assert bool(at.weight[::2].isnan().all()) and bool(at.weight[1::2].isfinite().all())


def test_a_large_volume_has_an_index_of_64_bits(device, monkeypatch):
    monkeypatch.setattr(triton_trilinear, "_INT32_ROWS", 100)
    at, num_rows = triton_corners((5, 4, 3), 20, device)
    assert at.index.dtype == torch.int64 and num_rows == 120
    weight, values = torch.randn(20, 8, 1, device=device), torch.randn(1, 20, 3, device=device)
    expected = scatter(at.index, weight.to(torch.float64), values.to(torch.float64), num_rows)
    assert error(scatter(at.index, weight, values, num_rows, twin=triton_trilinear), expected) < 1e-5


@pytest.mark.parametrize("channels", [1, 6, 64, 70])
@pytest.mark.parametrize("num", [0, 1, 37])
def test_read(channels, num, device):
    at, num_rows = triton_corners((5, 4, 3), num, device)
    rows = torch.randn(num_rows, channels, device=device)
    index, weight, slope = wide(at)
    found = read(rows, at.index, at.weight, twin=triton_trilinear)
    assert found.dtype == torch.float32 and error(found, read(rows.to(torch.float64), index, weight)) < 1e-5
    seen = (channels + 1) // 2
    g = torch.randn(num, seen, device=device)
    expected = read_along(rows.to(torch.float64), index, slope, g.to(torch.float64))
    assert error(read_along(rows, at.index, at.slope, g, twin=triton_trilinear), expected) < 1e-5


def test_read_of_some_channels_into_a_part_of_something(device):
    """Rows, weights and result may all be views."""
    at, num_rows = triton_corners((4, 3, 3), 21, device)
    rows, out = torch.randn(num_rows, 11, device=device), torch.full((30, 9), 7.0, device=device)
    pairs = torch.randn(21, 8, 2, device=device)
    read(rows[:, 2:7], at.index, pairs[..., 1], twin=triton_trilinear, out=out[4:25, 1:6])
    expected = torch.full_like(out, 7.0, dtype=torch.float64)
    expected[4:25, 1:6] = read(rows[:, 2:7].to(torch.float64), at.index.to(torch.int64), pairs[..., 1])
    assert error(out, expected) < 1e-5
    assert torch.equal(out == 7, expected == 7)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_read_of_other_precisions(dtype, device):
    """Half precision is read as it is and summed in float32."""
    at, num_rows = triton_corners((4, 3, 3), 20, device)
    rows, g = torch.randn(num_rows, 10, device=device).to(dtype), torch.randn(20, 10, device=device).to(dtype)
    index, weight, slope = wide(at)
    found = read(rows, at.index, at.weight, twin=triton_trilinear)
    along = read_along(rows, at.index, at.slope, g, twin=triton_trilinear)
    assert found.dtype == along.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert error(found, read(rows.to(torch.float64), index, weight)) < 1e-5
    assert error(along, read_along(rows.to(torch.float64), index, slope, g.to(torch.float64))) < 1e-5


@pytest.mark.parametrize("num", [0, 1, 150])
def test_factors(num, device):
    at, _ = triton_corners((5, 4, 3), num, device)
    direction = torch.randn(num, 3, device=device)
    _, weight, slope = wide(at)
    expected = factors(weight, slope, direction.to(torch.float64))
    assert error(factors(at.weight, at.slope, direction, twin=triton_trilinear), expected) < 1e-5


def check_scatter(at: Corners, num_rows: int, channels: int, rest: int, dtype=torch.float32, terms: int = 2) -> None:
    num, device = len(at.index), at.index.device
    weight = factors(at.weight, at.slope, torch.randn(num, 3, device=device))[..., :terms]
    values = torch.randn(terms, num, channels, device=device)
    others = torch.randn(num, rest + 2, device=device)[:, 1:-1]
    found = scatter(at.index, weight, values, num_rows, others, dtype, twin=triton_trilinear)
    doubles = (each.to(torch.float64) for each in (weight, values))
    expected = scatter(at.index.to(torch.int64), *doubles, num_rows, others.to(torch.float64))
    assert found.dtype == dtype and error(found, expected) < (1e-5 if dtype == torch.float32 else 1e-2)


@pytest.mark.parametrize("shape", SHAPES)
def test_scatter(shape, device):
    check_scatter(*triton_corners(shape, 30, device), channels=6, rest=3)


@pytest.mark.parametrize("num", [0, 1, 2])
def test_scatter_of_few_points(num, device):
    check_scatter(*triton_corners((2, 3, 2), num, device), channels=3, rest=0)


@pytest.mark.parametrize("channels", [1, 64, 70])
def test_scatter_of_other_numbers_of_channels(channels, device):
    check_scatter(*triton_corners((2, 2, 2), 10, device), channels=channels, rest=0, terms=1)


def test_scatter_into_half_precision(device):
    check_scatter(*triton_corners((2, 2, 3), 20, device), channels=4, rest=2, dtype=torch.bfloat16)


@pytest.mark.parametrize("shape", [(3, 2, 4), (2, 3, 1)])
def test_scatter_of_many_points_in_few_cells(shape, device, monkeypatch):
    """Blocks of points of one cell are summed beforehand; others, at the ends of a cell's points, are not."""
    monkeypatch.setattr(triton_trilinear, "_BLOCK", 8)
    monkeypatch.setattr(triton_trilinear, "_CROWDED", 12)
    monkeypatch.setattr(triton_trilinear, "_ROWS", 8)
    grid, xyz, scene = places(shape, 90, device, reach=1.0)
    xyz[:40], scene[:40] = xyz[0] + 1e-3 * torch.rand(40, 3, device=device), scene[0]
    xyz[50:60], scene[50:60] = xyz[50] + 1e-3 * torch.rand(10, 3, device=device), scene[50]
    with kernels("triton"):
        at = corners(grid, xyz, scene)
    low = at.index[:, 0].sort().values[:88].view(-1, 8)
    whole = low[:, 0] == low[:, -1]
    assert bool(whole.any()) and not bool(whole.all())
    check_scatter(at, 2 * shape[0] * shape[1] * shape[2], channels=5, rest=0)


def decoder(device: torch.device, dtype: torch.dtype, channels: int, position: bool) -> DecoderWeights:
    def weight(*shape: int) -> torch.Tensor:
        return (torch.randn(*shape) / shape[-1] ** 0.5).to(device, dtype).requires_grad_()

    return DecoderWeights(
        feature=[weight(5, channels), weight(4, channels)],
        bias=[weight(5), weight(4)],
        hidden=[weight(4, 5)],
        position=weight(5, 3) if position else None,
    )


def decoded(which, place, rows, weights: DecoderWeights) -> list[torch.Tensor]:
    """Outputs, and gradients of a loss of all of them; the backward pass runs where nothing is chosen any more."""
    grid, xyz, scene = place
    positions = None if weights.position is None else Positions(xyz.sin(), xyz.cos())
    with kernels(which):
        made = decode_with_gradient(rows, corners(grid, xyz, scene), weights, 3.0, positions)
    outputs = list(vars(made).values())
    loss = sum(((each + 0.3).square().sum() for each in outputs), torch.zeros((), device=rows.device))
    return [*outputs, *torch.autograd.grad(loss, [rows, *weights.flat()])]


@pytest.mark.parametrize("channels, seen", [(7, 3), (5, 5)])
def test_decoding_is_the_same_with_both(channels, seen, device, monkeypatch):
    monkeypatch.setattr(closed_form, "CHUNK", 9)
    place = places((3, 2, 3), 16, device)
    rows = torch.randn(36, channels, device=device).requires_grad_()
    weights = decoder(device, torch.float32, seen, position=channels == 7)
    found = decoded("triton", place, rows, weights)
    assert all(torch.equal(a, b) for a, b in zip(found, decoded("triton", place, rows, weights), strict=True))
    grid, xyz, scene = place
    place = Grid(grid.box.to(torch.float64), grid.shape), xyz.to(torch.float64), scene
    doubled = [each.detach().to(torch.float64).requires_grad_() for each in weights.flat()]
    weights = DecoderWeights.from_flat(doubled, 2)
    expected = decoded("torch", place, rows.detach().to(torch.float64).requires_grad_(), weights)
    for a, b in zip(found, expected, strict=True):
        assert a.dtype == torch.float32 and error(a, b) < 1e-5


def test_decoding_of_a_volume_in_half_precision(device):
    """Read as it is: what it holds is exact, and only the gradient of the volume is rounded."""
    place, weights = places((3, 2, 2), 12, device), decoder(device, torch.float32, 3, position=False)
    rows = torch.randn(24, 6, device=device).to(torch.bfloat16).requires_grad_()
    found, expected = (decoded(which, place, rows, weights) for which in ("triton", "torch"))
    for number, (a, b) in enumerate(zip(found, expected, strict=True)):
        assert a.dtype == b.dtype and error(a, b) < (1e-2 if number == 5 else 1e-5)
    assert found[5].dtype == torch.bfloat16  # five outputs, then the gradient of the volume


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_samples_and_their_gradients_are_the_same_with_both(dtype, device, monkeypatch):
    place, feats = places((2, 3, 2), 15, device), torch.randn(2, 2, 3, 2, 5, device=device).to(dtype).requires_grad_()
    g = torch.randn(15, 5, device=device).to(dtype).requires_grad_()
    volume, results = Volume(place[0], feats), {}
    for which in ("triton", "torch"):
        with kernels(which):
            at = corners(*place)
            outputs = [sample(volume, at), sample(volume, at, torch.float32)]
            if dtype == torch.float32:
                outputs.append(sample_derivative(volume, at, g))
        loss = sum((each.to(torch.float32).square().sum() for each in outputs), torch.zeros((), device=device))
        results[which] = [*outputs, *torch.autograd.grad(loss, [feats, g], allow_unused=True)]
    for a, b in zip(results["triton"], results["torch"], strict=True):
        assert (a is None) == (b is None)
        if a is not None:
            assert a.dtype == b.dtype and error(a, b) < (1e-5 if a.dtype == torch.float32 else 2e-2)


def test_the_backward_pass_follows_the_forward_pass(device, monkeypatch):
    calls = []
    monkeypatch.setattr(triton_trilinear, "scatter", lambda *args: calls.append(args) or trilinear.scatter(*args))
    place, feats = places((2, 2, 2), 5, device), torch.randn(2, 2, 2, 2, 3, device=device).requires_grad_()
    with kernels("triton"):
        out = sample(Volume(place[0], feats), corners(*place))
    with kernels("torch"):
        out.sum().backward()
    assert len(calls) == 1
