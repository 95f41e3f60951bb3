import pytest
import torch

from ponder3d.geometry import neighbors
from ponder3d.geometry.neighbors import knn, nearest_within


def brute_force(query, query_scene, points, point_scene, k):
    gap = torch.cdist(query.double(), points.double())
    gap[query_scene[:, None] != point_scene[None]] = torch.inf
    return gap.topk(k, dim=1, largest=False)


@pytest.mark.parametrize("k", [1, 5])
@pytest.mark.parametrize("spread", [1.0, 3.0])
def test_equals_brute_force(k, spread, device):
    points, query = torch.rand(2000, 3), torch.rand(300, 3) * spread - (spread - 1) / 2
    point_scene, query_scene = torch.randint(0, 3, (2000,)).sort().values, torch.randint(0, 3, (300,))
    index, distance = (x.cpu() for x in knn(*(x.to(device) for x in (query, query_scene, points, point_scene)), k))
    expected, expected_index = brute_force(query, query_scene, points, point_scene, k)
    torch.testing.assert_close(distance.double(), expected, atol=1e-6, rtol=1e-5)
    assert torch.equal(index, expected_index)


def test_surfaces_and_lines():
    points = torch.rand(3000, 3)
    points[:, 2] *= 0.01
    points[:1000, 1] = 0
    scene = torch.zeros(3000, dtype=torch.int64)
    index, distance = knn(points, scene, points, scene, 3)
    assert torch.equal(index[:, 0], torch.arange(3000))
    torch.testing.assert_close(
        distance.double(), brute_force(points, scene, points, scene, 3).values, atol=1e-6, rtol=0
    )


@pytest.mark.parametrize("k", [1, 7])
def test_far_from_a_surface(k, monkeypatch):
    """Queries go down the tree, also where they have to be divided; those in the middle of a sphere are compared."""
    monkeypatch.setattr(neighbors, "_PAIRS", 3000)
    ways = []
    for name in ("_nearest", "_compare_all"):
        way = getattr(neighbors, name)
        monkeypatch.setattr(neighbors, name, lambda *given, name=name, way=way: (ways.append(name), way(*given))[1])
    monkeypatch.setattr(neighbors, "_QUERIES", 64)
    points = torch.nn.functional.normalize(torch.randn(4000, 3), dim=1) + torch.tensor([100.0, -50, 2])
    query = torch.cat([torch.randn(150, 3) * 3, torch.randn(150, 3) * 1e-3]) + torch.tensor([100.0, -50, 2])
    point_scene, query_scene = torch.randint(0, 2, (4000,)), torch.randint(0, 2, (300,))
    index, distance = knn(query, query_scene, points, point_scene, k)
    expected, _ = brute_force(query, query_scene, points, point_scene, k)
    torch.testing.assert_close(distance.double(), expected, atol=2e-5, rtol=0)
    assert bool((point_scene[index] == query_scene[:, None]).all())
    gap = (points[index] - query[:, None]).norm(dim=2)
    torch.testing.assert_close(gap, distance, atol=2e-5, rtol=0)
    assert all(len(set(row)) == k for row in index.tolist())
    assert ways.count("_compare_all") > 0 and ways.count("_nearest") > 5


def test_distances_are_those_of_the_coordinates_given():
    """Small ones near the origin are not rounded by a cloud that reaches far from it."""
    points = torch.cat([torch.rand(500, 3) * 1e-3, torch.tensor([[-200.0, -200, -200], [200.0, 200, 200]])])
    zero = torch.zeros(502, dtype=torch.int64)
    _, distance = knn(points[:500] + 1e-4, zero[:500], points, zero, 1)
    expected = brute_force(points[:500] + 1e-4, zero[:500], points, zero, 1).values
    torch.testing.assert_close(distance.double(), expected, atol=1e-9, rtol=1e-5)


@pytest.mark.parametrize("wrong", [torch.nan, -torch.nan, torch.inf])
def test_coordinates_that_are_not_finite(wrong):
    points, zero = torch.rand(50, 3), torch.zeros(50, dtype=torch.int64)
    query = points.clone()
    query[3, 1] = wrong
    for given in ((query, points), (points, query)):
        with pytest.raises(ValueError, match="must be finite"):
            knn(given[0], zero, given[1], zero, 3)


def test_far_away_few_points_are_looked_at(monkeypatch):
    """Comparing with each of the points would be 20 million pairs."""
    looked = []
    nearest = neighbors._nearest
    monkeypatch.setattr(
        neighbors, "_nearest", lambda query, owner, *rest: (looked.append(len(owner)), nearest(query, owner, *rest))[1]
    )
    points = torch.rand(20_000, 3) * torch.tensor([4.0, 4, 0])
    query = torch.rand(1000, 3) * torch.tensor([4.0, 4, 0]) + torch.tensor([0, 0, 1.0])
    zero = torch.zeros(20_000, dtype=torch.int64)
    assert knn(query, zero[:1000], points, zero, 1)[1].amin() >= 1
    assert sum(looked) < 2e6


def test_fewer_than_k():
    points, zero = torch.tensor([[0.0, 0, 0], [1.0, 0, 0]]), torch.zeros(2, dtype=torch.int64)
    index, distance = knn(torch.tensor([[0.2, 0, 0]]), torch.tensor([0]), points, zero, 3)
    assert index.tolist() == [[0, 1, -1]]
    torch.testing.assert_close(distance, torch.tensor([[0.2, 0.8, torch.inf]]))


def test_a_scene_without_points():
    index, distance = knn(torch.zeros(1, 3), torch.tensor([1]), torch.zeros(4, 3), torch.zeros(4, dtype=torch.int64), 2)
    assert index.tolist() == [[-1, -1]]
    assert bool(distance.isinf().all())


def test_nothing_at_all():
    none = torch.zeros(0, dtype=torch.int64)
    assert knn(torch.zeros(0, 3), none, torch.zeros(5, 3), torch.zeros(5, dtype=torch.int64), 2)[0].shape == (0, 2)
    assert knn(torch.zeros(2, 3), torch.zeros(2, dtype=torch.int64), torch.zeros(0, 3), none, 2)[0].tolist() == [
        [-1, -1],
        [-1, -1],
    ]


def test_coincident_points():
    points, scene = torch.zeros(50, 3), torch.zeros(50, dtype=torch.int64)
    _, distance = knn(points[:3], scene[:3], points, scene, 4)
    assert float(distance.max()) == 0


def test_far_from_the_origin():
    points = torch.rand(500, 3) + torch.tensor([3000.0, -2000.0, 50.0])
    scene = torch.zeros(500, dtype=torch.int64)
    index, _ = knn(points, scene, points, scene, 1)
    # float32 holds 0.0002 m at 3 km; a point is its own nearest or ties with one it cannot be told from.
    assert float((points[index[:, 0]] - points).abs().max()) < 5e-4


def test_needs_no_float64(monkeypatch):
    """Apple's GPUs have none."""
    monkeypatch.setattr(torch.Tensor, "double", None)
    points, scene = torch.rand(100, 3), torch.zeros(100, dtype=torch.int64)
    _, distance = knn(points + 50, scene, points, scene, 2)
    torch.testing.assert_close(distance, torch.cdist(points + 50, points).sort().values[:, :2], atol=1e-3, rtol=0)


def zeros(num: int) -> torch.Tensor:
    return torch.zeros(num, dtype=torch.int64)


def test_the_nearest_within_the_distance_by_hand():
    place = torch.tensor([[0.0, 0, 0], [1.0, 0, 0], [0.0, 0, 0], [-0.01, -0.01, -0.01]])
    scene = torch.tensor([0, 0, 1, 0])
    other = torch.tensor([[0.03, 0, 0], [0.0, 0, -0.02], [1.06, 0, 0], [5.0, 5, 5]])
    found, gap = nearest_within(place, scene, other, zeros(4), 0.05)
    assert found.tolist() == [1, -1, -1, 1], "1.06 is too far from 1; scene 1 has no other points"
    torch.testing.assert_close(gap, torch.tensor([0.02, torch.inf, torch.inf, 3**0.5 * 0.01]))


def test_at_the_distance_it_still_counts_and_ties_go_to_the_first():
    place, other = torch.zeros(1, 3), torch.tensor([[0.5, 0, 0], [-0.5, 0, 0], [0.0, 0.5, 0]])
    assert nearest_within(place, zeros(1), other, zeros(3), 0.5)[0].tolist() == [0]
    assert nearest_within(place, zeros(1), other.flip(0), zeros(3), 0.5)[0].tolist() == [0]
    assert nearest_within(place, zeros(1), other, zeros(3), 0.49)[0].tolist() == [-1]


def test_no_other_points():
    found, gap = nearest_within(torch.rand(3, 3), zeros(3), torch.zeros(0, 3), zeros(0), 0.1)
    assert found.tolist() == [-1] * 3 and bool(gap.isinf().all())


@pytest.mark.parametrize("distance", [0.02, 0.1, 0.7, 5.0])
def test_as_exhaustive_search_finds_it(distance):
    generator = torch.Generator().manual_seed(1)
    flat = torch.tensor([3.0, 2.0, 0.2])
    query, points = (
        torch.rand(700, 3, generator=generator) * flat - 1,
        torch.rand(650, 3, generator=generator) * flat - 1,
    )
    given = (query, torch.arange(700) // 350, points, torch.arange(650) // 325)
    found, gap = nearest_within(*given, distance)
    nearest, far = (each[:, 0] for each in knn(*given, k=1))
    near = far <= distance
    assert 0 < int(near.sum()) and torch.equal(found >= 0, near)
    torch.testing.assert_close(gap[near], far[near])
    torch.testing.assert_close(points[found[near]], points[nearest[near]])
