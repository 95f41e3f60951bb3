"""The C twins of voxels and keys give what PyTorch gives, to the bit."""

from dataclasses import fields

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ponder3d.geometry import compiled_grid as twin
from ponder3d.geometry import grid as g
from ponder3d.geometry.kernels import kernels

pytestmark = pytest.mark.skipif(not twin.LIBRARY.available, reason="no C compiler")


def both(call):
    """What a call gives compiled and in PyTorch."""
    with kernels("compiled"):
        found = call()
    with kernels("torch"):
        return found, call()


def assert_same(found, expected):
    for field in fields(expected):
        a, b = getattr(found, field.name), getattr(expected, field.name)
        assert a.dtype == b.dtype and torch.equal(a, b), field.name


def clouds() -> dict[str, tuple[torch.Tensor, torch.Tensor, float]]:
    """Points, scenes and the size of a voxel."""
    torch.manual_seed(1)
    near = torch.randn(20, 3)[torch.randint(20, (5000,))] + 0.01 * torch.randn(5000, 3)
    reach = g.MAX_COORDINATE * 0.5
    far = (torch.rand(5000, 3) * 2 - 1) * reach
    on_edges = torch.randint(-50, 50, (5000, 3)) * 0.02
    many = torch.randint(0, 4096, (70_000,))
    return {
        "random": (torch.rand(70_000, 3) * 4 - 2, torch.zeros(70_000, dtype=torch.int64), 0.05),
        "clustered": (near, torch.zeros(5000, dtype=torch.int64), 0.02),
        "on the edges of voxels": (on_edges, torch.zeros(5000, dtype=torch.int64), 0.02),
        "all below zero": (-torch.rand(5000, 3) - 1, torch.zeros(5000, dtype=torch.int64), 0.1),
        "as far as keys reach": (far, torch.arange(5000) % 3, 0.5),
        "more bits than a word has": (far[torch.arange(70_000) % 5000], many, 0.5),
        "scenes out of order": (torch.rand(5000, 3), many[:5000] % 50, 0.1),
        "scenes below zero": (torch.rand(5000, 3), torch.randint(-4096, 4, (5000,)), 0.3),
        "one voxel": (torch.rand(70_000, 3), torch.zeros(70_000, dtype=torch.int64), 2.0),
        "one point": (torch.tensor([[-0.1, 0.0, 0.3]]), torch.tensor([4095]), 0.2),
        "none": (torch.zeros(0, 3), torch.zeros(0, dtype=torch.int64), 0.2),
    }


CLOUDS = clouds()


@pytest.mark.parametrize("name", CLOUDS)
def test_voxels_and_what_is_made_of_them(name):
    xyz, scene, size = CLOUDS[name]
    found, expected = both(lambda: g.voxelize(xyz, scene, size))
    assert_same(found, expected)
    assert torch.equal(found.order, torch.argsort(found.voxel, stable=True))
    share, liked = torch.rand(len(found.keys)), torch.rand(len(xyz)) < 0.3
    for preferred in (None, liked, torch.zeros_like(liked)):
        rows, same = both(lambda preferred=preferred: g.one_per_voxel(found, share, preferred))
        assert torch.equal(rows, same)
        assert torch.equal(found.voxel[rows], torch.arange(len(found.keys)))
    if len(xyz) < 70_000:
        parts, same = both(lambda: list(g.fragments(xyz, scene, size)))
        assert len(parts) == len(same) and all(torch.equal(a, b) for a, b in zip(parts, same, strict=True))


@pytest.mark.parametrize("threads", [2, 3, 64])
@pytest.mark.parametrize("name", ["random", "more bits than a word has", "one voxel"])
def test_the_number_of_threads_changes_nothing(name, threads):
    xyz, scene, size = CLOUDS[name]
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        expected, column = g.voxelize(xyz, scene, size), twin.take(xyz, scene.flip(0))
        torch.set_num_threads(threads)
        assert_same(g.voxelize(xyz, scene, size), expected)
        assert torch.equal(twin.take(xyz, scene.flip(0)), column)
    finally:
        torch.set_num_threads(before)


@given(
    st.lists(
        st.tuples(*[st.integers(-3, 3) | st.integers(-g.MAX_COORDINATE, g.MAX_COORDINATE)] * 3, st.integers(0, 4095)),
        max_size=60,
    )
)
@settings(max_examples=60, deadline=None)
def test_any_cells(cells):
    rows = torch.tensor(cells, dtype=torch.int64).view(-1, 4)
    xyz, scene = (rows[:, :3] + 0.5).to(torch.float32), rows[:, 3]
    found, expected = both(lambda: g.voxelize(xyz, scene, 1.0))
    assert_same(found, expected)
    assert [tuple(row) for row in found.coords.tolist()] == sorted({(s, x, y, z) for x, y, z, s in cells})


@given(st.lists(st.integers(-(2**63), 2**63 - 1) | st.integers(-2, 2), max_size=40))
@settings(max_examples=60, deadline=None)
def test_any_keys(numbers):
    keys = torch.tensor(numbers, dtype=torch.int64)
    found, expected = both(lambda: g.unique_keys(keys)[0])
    assert_same(found, expected)
    assert found.keys.tolist() == sorted(set(numbers))
    unpacked, same = both(lambda: g.unpack_keys(keys))
    assert torch.equal(unpacked, same)


@given(st.lists(st.floats(-500, 500, width=32), min_size=1, max_size=50), st.floats(0.009, 3.0))
@settings(max_examples=60, deadline=None)
def test_quotients_are_rounded_alike(numbers, size):
    at = torch.tensor(numbers)[:, None]
    xyz = torch.cat([at, at * size, at.round() * size], dim=1) if size < 1 else at.expand(-1, 3)
    found, expected = both(lambda: g.voxelize(xyz, torch.zeros(len(xyz), dtype=torch.int64), size))
    assert_same(found, expected)


@pytest.mark.parametrize("which", ["compiled", "torch"])
def test_the_last_cell_and_the_one_after_it(which):
    limit, scene = g.MAX_COORDINATE, torch.tensor([0])
    with kernels(which):
        for cell in (-limit, limit):
            assert g.voxelize(torch.tensor([[0.0, 0.0, cell + 0.5]]), scene, 1.0).coords[0, 3] == cell
        for bad in (-limit - 0.01, limit + 1.0, torch.nan, torch.inf, -torch.inf, 1e30):
            xyz = torch.zeros(1000, 3)
            xyz[700, 1] = bad
            with pytest.raises(ValueError, match=f"not finite or beyond {limit} m from the origin"):
                g.voxelize(xyz, torch.zeros(1000, dtype=torch.int64), 1.0)
        with pytest.raises(ValueError, match="more than 4096 scenes"):
            g.voxelize(torch.zeros(1, 3), torch.tensor([4096]), 1.0)
        assert g.voxelize(torch.zeros(1, 3), torch.tensor([4095]), 1.0).coords.tolist() == [[4095, 0, 0, 0]]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16])
def test_points_of_another_type_are_divided_in_it(dtype):
    """0.3 / 0.1 is 2.999... in double precision, and 3 in single."""
    xyz = torch.tensor([[0.3, 0.7, -0.3]], dtype=torch.float64).to(dtype)
    found, expected = both(lambda: g.voxelize(xyz, torch.tensor([0]), 0.1))
    assert_same(found, expected)
    if dtype == torch.float64:
        assert found.coords.tolist() != g.voxelize(xyz.float(), torch.tensor([0]), 0.1).coords.tolist()


def test_views_and_narrow_integers():
    xyz, scene = torch.randn(3, 900).T, torch.randint(0, 3, (1800,), dtype=torch.int32)[::2]
    found, expected = both(lambda: g.voxelize(xyz, scene, 0.3))
    assert_same(found, expected)
    assert_same(found, g.voxelize(xyz.contiguous(), scene.to(torch.int64), 0.3))
    liked, share = torch.rand(1800)[::2] < 0.5, torch.rand(2 * len(found.keys))[::2]
    rows, same = both(lambda: g.one_per_voxel(found, share, liked))
    assert torch.equal(rows, same)
    keys = torch.arange(20).flip(0)[::3]
    assert_same(*both(lambda: g.unique_keys(keys)[0]))


def test_points_that_need_a_gradient_have_voxels():
    xyz = torch.rand(50, 3, requires_grad=True)
    assert_same(*both(lambda: g.voxelize(xyz, torch.zeros(50, dtype=torch.int64), 0.5)))


def test_one_per_voxel_by_hand():
    xyz = torch.tensor([0.5, 1.5, 0.6, 1.6, 0.7, 1.7, 2.5])[:, None].expand(7, 3)
    voxels = g.voxelize(xyz, torch.zeros(7, dtype=torch.int64), 1.0)
    liked = torch.tensor([False, False, True, False, True, False, False])
    for share, chosen, among_liked in [(0.0, [0, 1, 6], [2, 1, 6]), (0.5, [2, 3, 6], [4, 3, 6])]:
        for which in ("compiled", "torch"):
            with kernels(which):
                assert g.one_per_voxel(voxels, torch.full((3,), share)).tolist() == chosen
                assert g.one_per_voxel(voxels, torch.full((3,), share), liked).tolist() == among_liked
    highest = torch.full((3,), 1 - 2**-24)  # times 3 it rounds to 3
    assert g.one_per_voxel(voxels, highest).tolist() == [4, 5, 6]


def test_without_a_compiler_the_same(no_compiler):
    xyz, scene, size = CLOUDS["clustered"]
    assert not twin.LIBRARY.available
    voxels = g.voxelize(xyz, scene, size)
    assert torch.equal(voxels.order, torch.argsort(voxels.voxel, stable=True))
    assert sum(len(rows) for rows in g.fragments(xyz, scene, size)) == len(voxels.keys) * int(voxels.counts.max())


def test_lengths_and_types_are_checked():
    # Without the types of the annotations, which users' processes do not check.
    pack, take = twin.pack_points.__wrapped__, twin.take.__wrapped__
    with pytest.raises(ValueError, match=r"points of shape \[5, 3\] and scenes of 4"):
        pack(torch.rand(5, 3), torch.zeros(4, dtype=torch.int64), 0.1, 10, 2)
    with pytest.raises(ValueError, match=r"points of shape \[5, 2\]"):
        pack(torch.rand(5, 2), torch.zeros(5, dtype=torch.int64), 0.1, 10, 2)
    for rows in (torch.ones(5, dtype=torch.bool), torch.ones(5)):
        with pytest.raises(IndexError, match="rows must be whole numbers"):
            take(torch.rand(5, 3), rows)
