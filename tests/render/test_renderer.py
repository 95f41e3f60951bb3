"""The renderer against scenes whose image is known: a plane, a sphere, a box, held exactly in a feature volume."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from ponder3d.geometry.tsdf import cell_centres
from ponder3d.render.fields import FieldConfig, SDFField
from ponder3d.render.opacity import NeuS, UniSurf, VolSDF
from ponder3d.render.renderer import RenderConfig, clip_rays, decode_at_ends, render
from ponder3d.render.surface import extract_mesh
from ponder3d.types import Grid, Rays, Volume
from ponder3d.types.scene import to_device

BOX = torch.tensor([[[-1.0, -1, -1], [1, 1, 1]]])
OPACITIES = [NeuS(), NeuS("slope"), VolSDF(), UniSurf()]


def plane(xyz):
    return xyz[:, 2] + 0.37  # a floor at z = -0.37


def sphere(xyz):
    return xyz.norm(dim=1) - 0.6


def cube(xyz):
    q = xyz.abs() - 0.5
    return q.clamp(min=0).norm(dim=1) + q.amax(1).clamp(max=0)


def analytic(sdf, cells=40, inv_std=300.0) -> tuple[SDFField, Volume]:
    """A field whose decoder reads the distance off the first channel and the colour off the others."""
    config = FieldConfig(
        sdf_layers=1, geometry_channels=1, shared_volume=False, inv_std=inv_std, learn_inv_std=False, sdf_bias=0.0
    )
    field = config.build(4, semantic_channels=2, feature_channels=3)
    layer = field.sdf.feature_layers[0]
    colour = field.colour[0]
    with torch.no_grad():
        for parameter in (layer.weight, layer.bias, colour.weight, colour.bias):
            parameter.zero_()
        layer.weight[0, 0] = 1  # geometry channels are the first half: distance, nothing
        # Seen by the colour decoder: normal (3), appearance (2), geometry (1), direction (3).
        colour.weight[0, 3] = colour.weight[1, 4] = 1
    grid = Grid(BOX, (cells, cells, cells))
    centres = cell_centres(grid)
    feats = torch.stack([sdf(centres), torch.zeros(len(centres)), 4 * centres[:, 0], 4 * centres[:, 1]], dim=1)
    return field, Volume(grid, feats.view(1, cells, cells, cells, 4))


def rays_towards(targets, origins, far=20.0) -> Rays:
    num = len(targets)
    directions = F.normalize(targets - origins, dim=1)
    return Rays(
        origins, directions, torch.full((num,), 0.05), torch.full((num,), far), torch.zeros(num, dtype=torch.int64)
    )


def from_around(num=300) -> Rays:
    origins = F.normalize(torch.randn(num, 3), dim=1) * 2.5
    return rays_towards(torch.randn(num, 3) * 0.25, origins)


def first_hit(sdf, rays, steps=4000) -> torch.Tensor:
    """Distance to the first zero crossing by marching in steps of half a millimetre, inf for none."""
    t = torch.linspace(0, 5, steps)
    xyz = rays.origins[:, None] + t[None, :, None] * rays.directions[:, None]
    inside = sdf(xyz.reshape(-1, 3)).view(len(rays), steps) < 0
    hit = torch.where(inside.any(1), t[inside.to(torch.int64).argmax(1)], torch.inf)
    return hit


@pytest.mark.parametrize("opacity", OPACITIES)
@pytest.mark.parametrize("sdf", [plane, sphere, cube])
def test_depth_normal_and_colour(sdf, opacity, device):
    field, volume = analytic(sdf)
    rays = clip_rays(from_around(), volume.grid)
    moved = to_device((volume, rays), device)
    out = to_device(render(field.to(device), *moved, RenderConfig(96, 64, opacity=opacity)), "cpu")
    truth = first_hit(sdf, rays)
    hit = rays.hits & (truth < rays.far) & (truth > rays.near + 0.05)
    assert int(hit.sum()) > 100
    error = (out.t - truth).abs()[hit].detach()
    # Cells are 5 cm, a standard deviation of the surface 6 mm; grazing rays and edges see more of it.
    assert float(error.median()) < 0.01 and float(error.quantile(0.9)) < 0.06
    seen = rays.origins + out.t[:, None].detach() * rays.directions
    point = seen.clone().requires_grad_()
    true_normal = torch.autograd.grad(sdf(point).sum(), point)[0]
    cosine = (F.normalize(out.normal, dim=1) * true_normal).sum(1)[hit].detach()
    assert float(cosine.median()) > 0.99
    expected = torch.sigmoid(4 * seen[:, :2])
    assert float((out.rgb[:, :2] - expected).abs()[hit].median().detach()) < 0.02
    assert float(out.opacity[hit].detach().quantile(0.02)) > 0.9


def test_empty_space_is_transparent():
    field, volume = analytic(lambda xyz: torch.full((len(xyz),), 0.8))
    rays = clip_rays(from_around(50), volume.grid)
    out = render(field, volume, rays, RenderConfig(64, 32))
    hit = rays.hits
    assert float(out.opacity[hit].max().detach()) < 1e-3
    # What nothing stops is seen where the volume ends.
    torch.testing.assert_close(out.t[hit], rays.far[hit], atol=1e-2, rtol=0)


@torch.no_grad()
def test_what_no_surface_stops_is_the_background():
    field, volume = analytic(sphere)
    rays = clip_rays(from_around(), volume.grid)
    black = render(field, volume, rays, RenderConfig())
    field.background = FieldConfig(background=True).build(4).background
    sky = field.background(rays.directions)
    seen = render(field, volume, rays, RenderConfig())
    torch.testing.assert_close(seen.rgb, black.rgb + (1 - black.opacity)[:, None] * sky)
    assert float(black.opacity.min()) < 0.01 and float(black.opacity.max()) > 0.99
    sky_alone = seen.rgb[black.opacity < 0.001]
    assert len(sky_alone) and float((sky_alone - sky[black.opacity < 0.001]).abs().max()) < 0.01


@pytest.mark.parametrize("opacity", OPACITIES)
def test_weights_sum_to_the_opacity_and_samples_are_sorted(opacity, device):
    field, volume = to_device(analytic(sphere), device)
    rays = clip_rays(to_device(from_around(), device), volume.grid)
    out = render(
        field.to(device), volume, rays, RenderConfig(32, 16, opacity=opacity), torch.tensor([7], device=device)
    )
    torch.testing.assert_close(out.weights.sum(1), out.opacity)
    assert float(out.opacity.max().detach()) <= 1 + 1e-5
    assert bool((out.sample_t[:, 1:] >= out.sample_t[:, :-1]).all())


def test_gradient_of_a_distance_has_length_one():
    field, volume = analytic(plane)
    rays = clip_rays(from_around(), volume.grid)
    out = render(field, volume, rays, RenderConfig(32, 16))
    inside = rays.origins[:, None] + out.sample_t[..., None] * rays.directions[:, None]
    inside = (inside.abs() < 0.97).all(-1)  # beyond the outermost cell centres the field is constant
    torch.testing.assert_close(out.gradient[inside].norm(dim=-1), torch.ones(int(inside.sum())), atol=1e-3, rtol=0)


def test_importance_samples_gather_at_the_surface():
    field, volume = analytic(plane)
    rays = clip_rays(from_around(), volume.grid)
    truth = first_hit(plane, rays)
    hit = rays.hits & (truth < rays.far) & (truth > rays.near + 0.1)
    without = render(field, volume, rays, RenderConfig(64, 0)).sample_t
    with_them = render(field, volume, rays, RenderConfig(64, 32)).sample_t

    def close(t):
        return float(((t - truth[:, None]).abs() < 0.05)[hit].float().sum(1).mean())

    assert close(with_them) > close(without) + 20


def test_guided_samples_lie_around_the_measured_distance():
    field, volume = analytic(plane)
    rays = clip_rays(from_around(40), volume.grid)
    guide = torch.where(rays.hits, (rays.near + rays.far) / 2, 0.0)
    guide[:5] = 0  # not measured
    config = RenderConfig(8, 0, num_guided=10, guide_spread=0.1)
    out = render(field, volume, rays, config, torch.tensor([1]), guide)
    assert out.sample_t.shape == (40, 18)
    near_guide = ((out.sample_t - guide[:, None]).abs() <= 0.1 + 1e-5).sum(1)
    assert bool((near_guide[(guide > 0)] >= 10).all())
    # Without a guide (evaluation) the same number of samples is drawn by importance.
    assert render(field, volume, rays, config).sample_t.shape == (40, 18)


@pytest.mark.parametrize("opacity", OPACITIES)
def test_rays_that_miss_are_harmless(opacity):
    field, volume = analytic(sphere)
    away = rays_towards(torch.tensor([[5.0, 5, 5], [0, 0, 0]]), torch.tensor([[3.0, 3, 3], [3, 0, 0]]))
    rays = clip_rays(away, volume.grid)
    assert rays.hits.tolist() == [False, True]
    for parameter in field.parameters():
        parameter.requires_grad_(parameter.is_floating_point())
    out = render(field, volume, rays, RenderConfig(16, 8, opacity=opacity), torch.tensor([1]))
    (out.rgb.sum() + out.t.sum()).backward()
    assert all(bool(torch.isfinite(p.grad).all()) for p in field.parameters() if p.grad is not None)
    assert bool(torch.isfinite(out.t).all()) and float(out.t[0].detach()) < rays.near[0] + 0.01


@pytest.mark.parametrize("opacity", OPACITIES)
def test_no_rays(opacity):
    field, volume = analytic(sphere, cells=4)
    none = torch.zeros(0)
    rays = Rays(torch.zeros(0, 3), torch.zeros(0, 3), none, none, torch.zeros(0, dtype=torch.int64))
    out = render(field, volume, rays, RenderConfig(8, 4, opacity=opacity), torch.tensor([1]))
    assert out.rgb.shape == (0, 3) and out.sample_t.shape == (0, 12)


def two_scenes() -> tuple[SDFField, Volume, Rays]:
    field, first = analytic(sphere)
    second = analytic(plane)[1]
    grid = Grid(torch.cat([BOX, BOX + 3]), first.grid.shape)
    rays = from_around(60)
    scene = (torch.arange(60) >= 30).to(torch.int64)
    rays = replace(rays, origins=rays.origins + 3.0 * scene[:, None], scene=scene)
    return field, Volume(grid, torch.cat([first.feats, second.feats])), rays


@pytest.mark.parametrize("opacity", OPACITIES)
def test_scenes_are_rendered_together_as_they_are_alone(opacity):
    field, volume, rays = two_scenes()
    keys = torch.tensor([11, 22])
    config = RenderConfig(24, 12, opacity=opacity)
    together = render(field, volume, clip_rays(rays, volume.grid), config, keys)
    for scene in (0, 1):
        rows = rays.scene == scene
        alone = Rays(
            rays.origins[rows],
            rays.directions[rows],
            rays.near[rows],
            rays.far[rows],
            torch.zeros(30, dtype=torch.int64),
        )
        part = Volume(Grid(volume.grid.box[scene : scene + 1], volume.grid.shape), volume.feats[scene : scene + 1])
        expected = render(field, part, clip_rays(alone, part.grid), config, keys[scene : scene + 1])
        # The jitter depends on the scene's key and the ray's number in it, not on what else is in the batch.
        torch.testing.assert_close(together.sample_t[rows], expected.sample_t)
        torch.testing.assert_close(together.rgb[rows], expected.rgb, atol=1e-5, rtol=1e-4)


def test_jitter_follows_the_key(device):
    field, volume, rays = to_device(two_scenes(), device)
    field.to(device)
    rays = clip_rays(rays, volume.grid)
    keys = torch.tensor([[1, 0], [1, 0], [2, 0]], device=device)
    a, b, c = (render(field, volume, rays, RenderConfig(8, 4), key).sample_t for key in keys)
    assert torch.equal(a, b) and not torch.equal(a, c)
    fixed = render(field, volume, rays, RenderConfig(8, 4)).sample_t
    assert torch.equal(fixed, render(field, volume, rays, RenderConfig(8, 4)).sample_t)


def test_the_step_of_training_reaches_the_sampler():
    field, volume = analytic(plane)
    rays = clip_rays(from_around(100), volume.grid)
    config, keys = RenderConfig(16, 8, opacity=UniSurf(widest=0.5, narrowest=0.02, shrinking=10)), torch.tensor([3])
    truth = first_hit(plane, rays)
    hit = rays.hits & (truth < rays.far) & (truth > rays.near + 0.1)

    def close(step):
        t = render(field, volume, rays, config, keys, step=step).sample_t
        return float(((t - truth[:, None]).abs() < 0.03)[hit].float().sum(1).mean())

    assert close(0) < 2 and close(10) > 7


@pytest.mark.parametrize("sdf", [sphere, cube])
def test_extracted_surface(sdf, device):
    field, volume = analytic(sdf)
    mesh = to_device(extract_mesh(field.to(device), to_device(volume, device), 0, cell=0.05), "cpu")
    assert float(sdf(mesh.vertices).abs().mean()) < 0.005
    assert mesh.colour is not None
    torch.testing.assert_close(mesh.colour[:, :2], torch.sigmoid(4 * mesh.vertices[:, :2]), atol=0.05, rtol=0)


@pytest.mark.parametrize("numbers", [(1, 4, 0), (8, -1, 0), (8, 4, -1)])
def test_bad_numbers_of_samples(numbers):
    with pytest.raises(ValueError, match="num_uniform must be at least 2"):
        RenderConfig(*numbers)


def test_more_samples_in_evaluation():
    assert RenderConfig(8, 4, 6, evaluation_factor=3).in_evaluation() == RenderConfig(24, 30)
    assert RenderConfig(8, 4, 6).in_evaluation() == RenderConfig(8, 10)
    with pytest.raises(ValueError, match="evaluation_factor must be at least 1"):
        RenderConfig(evaluation_factor=0)


def test_heads_where_rays_end():
    """The feature head reads the appearance, 4 x and 4 y in world metres; a ray's end is held within its interval."""
    field, volume = analytic(plane)
    assert field.feature is not None and field.semantic is not None
    with torch.no_grad():
        for head in (field.feature, field.semantic):
            head.weight.zero_()
            head.bias.zero_()
        field.feature.weight[0, 3] = field.feature.weight[1, 4] = 1
        field.semantic.bias.copy_(torch.tensor([0.5, -1.0]))
    rays = Rays(
        origins=torch.tensor([[-0.5, 0.2, 0.0], [-0.5, 0.2, 0.0]]),
        directions=torch.tensor([[1.0, 0, 0], [0.0, 1, 0]]),
        near=torch.tensor([0.1, 0.1]),
        far=torch.tensor([1.2, 0.5]),
        scene=torch.zeros(2, dtype=torch.int64),
    )
    semantic, feature = decode_at_ends(field, volume, rays, torch.tensor([0.75, 9.0]))
    expected = 4 * torch.tensor([[0.25, 0.2], [-0.5, 0.7]])
    torch.testing.assert_close(feature[:, :2], expected, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(semantic, torch.tensor([[0.5, -1.0]] * 2))
