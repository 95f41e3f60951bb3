import pytest
import torch

from ponder3d.data.context import ContextTarget, surroundings
from ponder3d.data.transforms import PickRays
from ponder3d.types import Cameras, Rays, RayTargets, Scene, Views

RADII, HEIGHTS = (0.15, 0.35), (-0.3, -0.1, 0.1, 0.3)


def columns(values: torch.Tensor) -> torch.Tensor:
    """[Q, K] as [Q, orientation, ring, layer]."""
    return values.view(len(values), 2, len(RADII), len(HEIGHTS) - 1)


def test_counts_by_hand():
    # A floor of 9 x 9 points, 10 cm apart, at the centres of the cells; one upright point 20 cm above its middle.
    axis = torch.arange(9) * 0.1 + 0.05
    floor = torch.cat([torch.cartesian_prod(axis, axis), torch.full((81, 1), 0.05)], dim=1)
    points = torch.cat([floor, torch.tensor([[0.45, 0.45, 0.25]])])
    normal = torch.tensor([[0.0, 0, 1]]).repeat(82, 1)
    normal[-1] = torch.tensor([1.0, 0, 0])
    found = columns(surroundings(torch.tensor([[0.45, 0.45, 0.05]]), points, normal, 0.1, RADII, HEIGHTS))[0]
    # The inner square is 3 x 3 cells, the outer 7 x 7; both are given per square metre of what they add.
    assert found[0, 0].tolist() == pytest.approx([0, 9 / 0.09, 0])
    assert found[0, 1].tolist() == pytest.approx([0, 40 / 0.40, 0])
    assert found[1, 0].tolist() == pytest.approx([0, 0, 1 / 0.09])
    assert found[1, 1].tolist() == [0, 0, 0]


def test_equals_counting_one_by_one():
    points, query = torch.rand(400, 3) * 2, torch.rand(30, 3) * 2.4 - 0.2
    normal = torch.nn.functional.normalize(torch.randn(400, 3), dim=1)
    found = columns(surroundings(query, points, normal, 0.1, RADII, HEIGHTS))
    lo = points.amin(0) - 0.05
    p, q = (torch.floor((v - lo) / 0.1).to(torch.int64) for v in (points, query))
    for row in range(30):
        away = p - q[row]
        for side, rows in enumerate([normal[:, 2].square() >= 0.5, normal[:, 2].square() < 0.5]):
            inner = away[:, :2].abs().amax(1) <= 1
            outer = (away[:, :2].abs().amax(1) <= 3) & ~inner
            for ring, (member, area) in enumerate([(inner, 0.09), (outer, 0.40)]):
                for layer, (a, b) in enumerate([(-3, -1), (-1, 2), (2, 4)]):
                    count = int((rows & member & (away[:, 2] >= a) & (away[:, 2] < b)).sum())
                    assert float(found[row, side, ring, layer]) == pytest.approx(count / area)


def test_a_quarter_turn_and_a_mirror_change_nothing():
    points = torch.floor(torch.rand(300, 3) * 20) * 0.1 + 0.05
    normal = torch.nn.functional.normalize(torch.randn(300, 3), dim=1)
    query = points[:20]
    turn = torch.tensor([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]])
    before = surroundings(query, points, normal, 0.1, RADII, HEIGHTS)
    after = surroundings(query @ turn.T, points @ turn.T, normal @ turn.T, 0.1, RADII, HEIGHTS)
    torch.testing.assert_close(before, after)


def test_without_normals_all_surface_counts_together():
    points, query = torch.rand(300, 3), torch.rand(10, 3)
    normal = torch.nn.functional.normalize(torch.randn(300, 3), dim=1)
    apart = columns(surroundings(query, points, normal, 0.1, RADII, HEIGHTS))
    together = surroundings(query, points, None, 0.1, RADII, HEIGHTS)
    torch.testing.assert_close(together, apart.sum(1).flatten(1))
    target = ContextTarget(oriented=False)
    assert target.channels == ContextTarget().channels // 2


def test_nothing_around():
    none = torch.zeros(0, 3)
    assert surroundings(torch.rand(3, 3), none, none, 0.1, RADII, HEIGHTS).abs().sum() == 0
    far = surroundings(torch.full((1, 3), 50.0), torch.rand(9, 3), torch.rand(9, 3), 0.1, RADII, HEIGHTS)
    assert float(far.abs().sum()) == 0


def a_scene(normal: bool = True) -> Scene:
    rays = Rays(
        torch.zeros(4, 3), torch.eye(3)[[0, 1, 2, 0]], torch.zeros(4), torch.ones(4), torch.zeros(4, dtype=torch.int64)
    )
    targets = RayTargets(torch.rand(4, 3), torch.tensor([0.5, 0.5, 0.5, 0.0]))
    xyz = torch.rand(200, 3)
    return Scene(
        xyz,
        None,
        torch.nn.functional.normalize(torch.rand(200, 3), dim=1) if normal else None,
        "test",
        rays=rays,
        targets=targets,
    )


def test_target_describes_the_ray_ends():
    transform = ContextTarget(spacing=0.08)
    out = transform(a_scene(), torch.Generator())
    assert out.targets is not None and out.targets.feature is not None
    assert out.targets.feature.shape == (4, transform.channels)
    assert float(out.targets.feature.sum()) > 0


def test_what_is_missing_is_named():
    with pytest.raises(ValueError, match="test has no normals"):
        ContextTarget(spacing=0.08)(a_scene(normal=False), torch.Generator())
    cameras = Cameras(torch.eye(3)[None], torch.eye(4)[None], (4, 4))
    views = Views(cameras, torch.zeros(1, 4, 4, 3, dtype=torch.uint8), None, None, torch.tensor([1]))
    no_depth = PickRays(1, 4)(Scene(torch.rand(9, 3), None, torch.rand(9, 3), "blind", views=views), torch.Generator())
    with pytest.raises(ValueError, match="blind has no rays with distances"):
        ContextTarget(spacing=0.08)(no_depth, torch.Generator())


def test_the_spacing_is_that_of_the_encoder_unless_it_is_given():
    assert ContextTarget().on_grid(0.05) == ContextTarget(spacing=0.05)
    assert ContextTarget(spacing=0.1).on_grid(0.05).spacing == 0.1
    with pytest.raises(ValueError, match=r"ContextTarget\.spacing is left to the encoder"):
        ContextTarget()(a_scene(), torch.Generator())
    with pytest.raises(ValueError, match=r"ContextTarget\.spacing must not be negative"):
        ContextTarget(spacing=-1.0)


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({"cell": 0.0}, "cell must be positive"),
        ({"radii": (0.15, 0.18)}, r"radii: \(0.15, 0.18\) must rise by at least a cell of 0.1 m"),
        ({"radii": (0.35, 0.15)}, "radii"),
        ({"radii": ()}, "radii"),
        ({"heights": (0.0, 0.04)}, "heights"),
        ({"heights": (0.5,)}, "heights"),
    ],
)
def test_rings_and_layers_hold_a_cell(choices, message):
    """Two radii in one cell would leave a ring without footprint, and NaN in the target."""
    with pytest.raises(ValueError, match=message):
        ContextTarget(**choices)
