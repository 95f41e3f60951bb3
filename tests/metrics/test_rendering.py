import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from ponder3d.geometry.mesh import Mesh
from ponder3d.metrics.rendering import RenderedViews, RenderingMetric
from ponder3d.types import Batch, Scene, Views
from ponder3d.types.scene import to_device

NO_MESH = Mesh(torch.zeros(0, 3), torch.zeros(0, 3, dtype=torch.int64))
BOUNDS = torch.tensor([[0.0, -0.8, -0.8], [2.0, 0.8, 0.8]])


def batch(views: Views) -> Batch:
    return Batch.of([Scene(torch.zeros(1, 3), None, None, "x", views=views, bounds=BOUNDS)])


def rendered(rgb, depth, mesh=NO_MESH) -> RenderedViews:
    return RenderedViews(rgb, depth, torch.zeros_like(rgb), None, mesh)


def test_figures_and_baselines_by_hand(facing):
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
            "surface_missing": 1,
        },
        rel=1e-5,
    )


def test_a_view_without_depth_counts_for_colour_only(facing):
    depth = torch.full((2, 4, 4), 2.0)
    depth[1] = 0
    metric = RenderingMetric()
    metric.update(rendered(torch.full((2, 4, 4, 3), 0.1), torch.full((2, 4, 4), 2.5)), batch(facing(depth)))
    figures = metric.compute()
    assert figures["depth_error"] == 0.5 and figures["depth_error_median"] == 0
    assert figures["psnr"] == pytest.approx(20, abs=1e-4)


def test_similarity_needs_images_of_eleven_pixels(facing):
    small, large = RenderingMetric(), RenderingMetric()
    for metric, size in ((small, 10), (large, 11)):
        image, depth = torch.zeros(1, size, size, 3), torch.ones(1, size, size)
        metric.update(rendered(image, depth), batch(facing(depth)))
    assert "ssim" not in small.compute() and large.compute()["ssim"] == pytest.approx(1)


def test_rendered_classes_by_hand(facing):
    """Four labelled pixels of two classes, three of them right, in one view of two; unlabelled pixels do not count."""
    depth = torch.ones(2, 4, 4)
    labels = torch.full((2, 4, 4), -1)
    labels[0, 0] = torch.tensor([0, 0, 1, 1])
    best = torch.full((2, 4, 4), 2)
    best[0, 0] = torch.tensor([0, 0, 1, 0])
    image = rendered(torch.zeros(2, 4, 4, 3), depth)
    scored, seen = replace(image, semantic=F.one_hot(best, 3).float()), replace(facing(depth), labels=labels)
    metric = RenderingMetric(3)
    metric.update(scored, batch(seen))
    figures = metric.compute()
    assert figures["semantic_accuracy"] == 3 / 4 and figures["semantic_miou"] == pytest.approx((2 / 3 + 1 / 2) / 2)
    once = metric.state.clone()
    metric.update(scored, batch(seen))
    torch.testing.assert_close(metric.state, 2 * once)
    assert metric.state.ndim == 1, "one tensor"
    for prediction, views in ((image, seen), (scored, facing(depth))):
        without = RenderingMetric(3)
        without.update(prediction, batch(views))
        assert set(without.compute()) == set(figures) - {"semantic_accuracy", "semantic_miou"}
    unlabelled = RenderingMetric(3)
    unlabelled.update(scored, batch(replace(seen, labels=labels - 2)))
    assert "semantic_miou" not in unlabelled.compute()


def test_nothing_measured_gives_no_figures():
    assert RenderingMetric().compute() == {}


def test_states_added_up_are_one_pass(facing):
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


def test_scenes_without_a_surface_are_counted(facing, square):
    metric = RenderingMetric()
    image, depth = torch.zeros(1, 41, 41, 3), torch.full((1, 41, 41), 2.0)
    wall = batch(facing(depth))
    metric.update(rendered(image, depth), wall)
    figures = metric.compute()
    assert figures["surface_missing"] == 1
    assert "surface_accuracy" not in figures and "surface_completeness" not in figures
    metric.update(rendered(image, depth, square(2.0)), wall)
    figures = metric.compute()
    assert figures["surface_missing"] == 0.5
    assert figures["surface_accuracy"] < 0.03, "the mean is over the scenes that have one"


def test_any_device_gives_the_same_figures(device, facing, square):
    depth = torch.full((1, 41, 41), 2.0)
    values = rendered(torch.rand(1, 41, 41, 3), depth + 0.1, square(2.05)), batch(facing(depth))
    figures = []
    for where in (torch.device("cpu"), device):
        metric = RenderingMetric()
        metric.update(*to_device(values, where))
        figures.append(metric.compute())
    assert set(figures[0]) == set(RenderingMetric.NAMES)
    assert figures[1] == pytest.approx(figures[0])
