import math

import pytest
import torch

from ponder3d.geometry.mesh import Mesh
from ponder3d.metrics.rendering import RenderedViews, RenderingMetric, field_to_tsdf
from ponder3d.types import Batch, Cameras, Scene, Views

NO_MESH = Mesh(torch.zeros(0, 3), torch.zeros(0, 3, dtype=torch.int64))


@pytest.fixture
def few_points(monkeypatch):
    """Points about 1.3 cm from each other on a square of 1.6 m, not half that: ten times faster."""
    monkeypatch.setattr("ponder3d.metrics.rendering._SURFACE_POINTS", 4000)


def facing(depth: torch.Tensor, rgb: torch.Tensor | None = None) -> Views:
    """Cameras at the origin that look along +x, with the given depth."""
    num, height, width = depth.shape
    pose = torch.tensor([[0.0, 0, 1, 0], [-1, 0, 0, 0], [0, -1, 0, 0], [0, 0, 0, 1]]).repeat(num, 1, 1)
    matrix = torch.tensor([[20.0, 0, (width - 1) / 2], [0, 20, (height - 1) / 2], [0, 0, 1]]).repeat(num, 1, 1)
    if rgb is None:
        rgb = torch.zeros(num, height, width, 3, dtype=torch.uint8)
    return Views(Cameras(matrix, pose, (height, width)), rgb, depth, None, torch.tensor([num]))


def batch(views: Views) -> Batch:
    return Batch.of([Scene(torch.zeros(1, 3), None, None, "x", views=views)])


def square(x: float, half: float = 1.0) -> Mesh:
    """A square at distance ``x``, facing the cameras."""
    corners = torch.tensor([[x, -half, -half], [x, -half, half], [x, half, half], [x, half, -half]])
    return Mesh(corners, torch.tensor([[0, 1, 2], [0, 2, 3]]))


def rendered(rgb, depth, mesh=NO_MESH) -> RenderedViews:
    return RenderedViews(rgb, depth, torch.zeros_like(rgb), None, mesh)


def test_figures_and_baselines_by_hand():
    rgb = torch.zeros(1, 4, 4, 3, dtype=torch.uint8)
    rgb[:, :2] = 255  # half white, half black: the mean colour is off by 0.5 everywhere
    depth = torch.zeros(1, 4, 4)  # mostly not measured
    depth[0, 0], depth[0, 1, :2] = 2, 4  # 4 pixels at 2 m, 2 at 4 m
    metric = RenderingMetric()
    metric.update(rendered(rgb.float() / 255 * 0.8, depth + 0.25), batch(facing(depth, rgb)))
    assert metric.compute() == pytest.approx(
        {
            "psnr": -10 * math.log10(0.2**2 / 2),
            "depth_error": 0.25,
            "psnr_mean_colour": -10 * math.log10(0.25),
            "depth_error_median": 2 * 2 / 6,
        },
        rel=1e-5,
    )


def test_a_view_without_depth_counts_for_colour_only():
    depth = torch.full((2, 4, 4), 2.0)
    depth[1] = 0
    metric = RenderingMetric()
    metric.update(rendered(torch.full((2, 4, 4, 3), 0.1), torch.full((2, 4, 4), 2.5)), batch(facing(depth)))
    figures = metric.compute()
    assert figures["depth_error"] == 0.5 and figures["depth_error_median"] == 0
    assert figures["psnr"] == pytest.approx(20, abs=1e-4)


def test_similarity_needs_images_of_eleven_pixels():
    small, large = RenderingMetric(), RenderingMetric()
    for metric, size in ((small, 10), (large, 11)):
        image, depth = torch.zeros(1, size, size, 3), torch.ones(1, size, size)
        metric.update(rendered(image, depth), batch(facing(depth)))
    assert "ssim" not in small.compute() and large.compute()["ssim"] == pytest.approx(1)


def test_nothing_measured_gives_no_figures():
    assert RenderingMetric().compute() == {}


def test_states_added_up_are_one_pass():
    depth = torch.rand(3, 12, 12) + 1
    views = [facing(d[None], torch.randint(0, 255, (1, 12, 12, 3), dtype=torch.uint8)) for d in depth]
    made = [rendered(torch.rand(1, 12, 12, 3), torch.rand(1, 12, 12) + 1) for _ in views]
    whole, merged = RenderingMetric(), RenderingMetric()
    for m, v in zip(made, views, strict=True):
        whole.update(m, batch(v))
        part = RenderingMetric()
        part.update(m, batch(v))
        merged.state = merged.state + part.state
    assert merged.compute() == pytest.approx(whole.compute())


def test_a_surface_behind_the_true_one(few_points):
    """A wall 2 m away; the field puts it at 2.1 m: 10 cm off wherever the cameras look."""
    views = facing(torch.full((1, 41, 41), 2.0))
    for shift in (0.0, 0.1):
        for error in field_to_tsdf(square(2.0 + shift, 0.8), views):
            assert error == pytest.approx(max(shift, 0.015), abs=0.02)


def test_surface_where_nobody_looked_is_not_held_against_the_field(few_points):
    views = facing(torch.full((1, 41, 41), 2.0))  # sees a square of half width 2 m at 2 m
    front = square(2.0, 0.8)
    beyond = square(5.0, 0.8)
    both = Mesh(torch.cat([front.vertices, beyond.vertices]), torch.cat([front.faces, beyond.faces + 4]))
    accuracy, completeness = field_to_tsdf(both, views)
    assert accuracy < 0.03 and completeness < 0.06


def test_no_surface_no_distance(few_points):
    views = facing(torch.full((1, 41, 41), 2.0))
    assert field_to_tsdf(NO_MESH, views) is None
    assert field_to_tsdf(square(-3.0), views) is None, "behind the cameras"
    metric = RenderingMetric()
    metric.update(rendered(torch.zeros(1, 41, 41, 3), torch.ones(1, 41, 41)), batch(views))
    assert "surface_accuracy" not in metric.compute()
    metric.update(rendered(torch.zeros(1, 41, 41, 3), torch.ones(1, 41, 41), square(2.0, 0.8)), batch(views))
    assert metric.compute()["surface_accuracy"] < 0.02, "the mean is over the scenes that have one"
