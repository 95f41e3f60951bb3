import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from ponder3d.geometry.grid import fixed_grid
from ponder3d.metrics.rendering import RenderedViews
from ponder3d.render.fields import FieldConfig
from ponder3d.render.losses import RenderLossConfig
from ponder3d.render.opacity import NeuS, UniSurf, VolSDF
from ponder3d.render.renderer import RenderConfig, clip_rays, render
from ponder3d.tasks.class_vectors import FixedCodes
from ponder3d.tasks.heads import DecoupledHeadsConfig, LanguageHeadConfig, LinearHeadConfig
from ponder3d.tasks.masking import BlockMasking
from ponder3d.tasks.ponder import PonderConfig
from ponder3d.types import Batch, Cameras, LabelSet, RayTargets, Scene, Views
from ponder3d.types.labels import IMPOSSIBLE
from ponder3d.volume.convert import sample_at
from ponder3d.volume.unet3d import ShallowNet3DConfig

INPUTS = ("rgb", "normal")


def pack(*scenes: Scene) -> Batch:
    return Batch.of(scenes, INPUTS)


def values(terms) -> dict[str, float]:
    return {name: float(value.detach()) for name, value in terms.items()}


def depth_error(task, batch) -> float:
    return float(task.losses(batch, 0).monitors["depth_error"])


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"masking": BlockMasking(0.5, 0.5), "cell_offsets": False},
        {"field": FieldConfig(hidden=16, geometry_channels=8, use_position=True, shared_volume=True, colour_layers=2)},
        {"render": RenderConfig(16, 4, num_guided=6, opacity=NeuS("slope"))},
        {"render": RenderConfig(16, 4, opacity=VolSDF(rounds=2, per_round=8))},
        {"render": RenderConfig(16, 4, opacity=UniSurf())},
        {"losses": RenderLossConfig(units="extent", truncation=0.05, slope=0.9, misses=True), "read_stretch": 1.1},
        {"semantics": FixedCodes(4), "feature_channels": 5},
        {"points": 1.0},
        {
            "semantics": FixedCodes(4),
            "feature_channels": 5,
            "volume_net": ShallowNet3DConfig(channels=12, depth=1, out_channels=12, bypass="appearance"),
            "field": FieldConfig(hidden=16, geometry_channels=8, heads_see="appearance"),
            "losses": RenderLossConfig(surface=0.5),
        },
    ],
    ids=lambda c: ",".join(c) or "default",
)
def test_every_parameter_learns(room, small_ponder, labels, changes):
    task = replace(small_ponder, **changes).build(labels)
    batch = pack(room(1), room(2))
    if task.config.feature_channels:
        batch = replace(batch, targets=replace(batch.targets, feature=torch.rand(96, 5)))
    out = task.losses(batch, 0)
    expected = {"colour", "eikonal", "depth", "sdf", "free_space"}
    heads = {"semantics": "semantic", "feature_channels": "feature", "points": "ppt"}
    expected |= {term for field, term in heads.items() if field in changes}
    assert set(out.terms) == expected | (
        {"surface_semantic", "surface_feature"} if "field" in changes and "losses" in changes else set()
    )
    assert all(math.isfinite(v) and v > 0 for v in values(out.terms).values())
    assert not any(m.requires_grad for m in out.monitors.values()) and "psnr" in out.monitors
    sum(out.terms.values()).backward()
    for name, parameter in task.named_parameters():
        assert parameter.grad is not None and bool(torch.isfinite(parameter.grad).all()), name
        assert float(parameter.grad.abs().max()) > 0, name


def test_parameters_take_part_whether_a_batch_has_features_or_not(room, small_ponder):
    """Ranks of a parallel run wait for each other's gradients, and only some datasets may have target features."""
    task = replace(small_ponder, feature_channels=5, losses=RenderLossConfig(surface=0.5)).build(None)
    terms = task.losses(pack(room(1), room(2)), 0).terms
    assert float(terms["feature"].detach()) == float(terms["surface_feature"].detach()) == 0
    sum(terms.values()).backward()
    assert all(parameter.grad is not None for parameter in task.parameters())
    assert not bool(task.field.feature.weight.grad.any())


def test_rays_in_between_count_where_they_end_only(room, small_ponder, labels):
    losses = RenderLossConfig(surface=0.5)
    config = replace(small_ponder, semantics=FixedCodes(4), losses=losses)
    task, thin = config.build(labels).eval(), replace(config, render_every=4).build(labels).eval()
    thin.load_state_dict(task.state_dict())
    batch = pack(room(1), room(2))
    all_rays, some = (values(t.losses(batch, 0).terms) for t in (task, thin))
    few = replace(batch, rays=batch.rays.every(4), targets=batch.targets.every(4))
    assert len(few.rays) == 24 and few.rays.scene.tolist() == [0] * 12 + [1] * 12
    rendered = values(task.losses(few, 0).terms)
    for name in all_rays:
        expected = all_rays if name.startswith("surface_") else rendered
        assert some[name] == pytest.approx(expected[name], rel=1e-5), name
    assert some["surface_semantic"] > 0 and some["colour"] != pytest.approx(all_rays["colour"], rel=1e-5)


def test_rays_that_count_in_no_term(small_ponder):
    with pytest.raises(ValueError, match="the rays between count in no term"):
        replace(small_ponder, render_every=2)
    with pytest.raises(ValueError, match="at least 3 cells along each axis"):
        replace(small_ponder, volume_shape=(8, 2, 8))
    with pytest.raises(ValueError, match="render_every must be at least 1"):
        replace(small_ponder, render_every=0)


def test_scenes_are_what_they_are_alone(room, small_ponder):
    task = small_ponder.build(None).eval()
    scenes = [room(1, num=300), room(2, num=700)]
    together, alone = task.volume(pack(*scenes)), [task.volume(pack(s)) for s in scenes]
    torch.testing.assert_close(together.feats, torch.cat([v.feats for v in alone]), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(together.grid.box, torch.cat([v.grid.box for v in alone]))
    batch = pack(*scenes)
    rays = clip_rays(batch.rays, together.grid)
    out = render(task.field, together, rays, task.config.render)
    for number, scene in enumerate(scenes):
        single = render(task.field, alone[number], clip_rays(scene.rays, alone[number].grid), task.config.render)
        for name in ("rgb", "t", "normal", "opacity"):
            part = getattr(out, name)[rays.scene == number]
            torch.testing.assert_close(part, getattr(single, name), atol=1e-4, rtol=1e-4)
    # As many rays in each: the mean over the batch is the mean of the two.
    both = values(task.losses(batch, 0).terms)
    singles = [values(task.losses(pack(s), 0).terms) for s in scenes]
    for name in ("colour", "depth", "eikonal"):
        assert both[name] == pytest.approx((singles[0][name] + singles[1][name]) / 2, rel=1e-3), name


def test_evaluation_draws_nothing(room, small_ponder):
    task = replace(small_ponder, masking=BlockMasking()).build(None)
    batch = pack(room(1))
    rekeyed = replace(batch, keys=batch.keys + 1)
    assert values(task.losses(batch, 0).terms) != values(task.losses(rekeyed, 0).terms)
    task.eval()
    assert values(task.losses(batch, 0).terms) == values(task.losses(rekeyed, 0).terms)


def test_no_rays(room, small_ponder):
    scene = replace(room(1), rays=None, targets=None)
    with pytest.raises(ValueError, match="no rays for box 1; end the transforms with PickRays"):
        small_ponder.build(None).losses(pack(scene), 0)


@pytest.mark.parametrize("scene", [{"away": True}, {"rays": 0}], ids=str)
def test_rays_that_see_nothing_cost_nothing(room, small_ponder, scene):
    task = small_ponder.build(None)
    out = task.losses(pack(room(1, **scene)), 0)
    assert set(values(out.terms).values()) == {0.0}
    sum(out.terms.values()).backward()
    assert all(float(p.grad.abs().max()) == 0 for p in task.parameters() if p.grad is not None)
    # Nothing was measured: NaN says "no value" in the log.
    assert bool(out.monitors["psnr"].isnan()) and bool(out.monitors["inv_std"].isfinite())


def test_rays_that_miss_do_not_dilute_the_others(room, small_ponder, labels):
    task = replace(small_ponder, semantics=FixedCodes(3)).build(labels).eval()
    scene, away = room(1), room(1, away=True)
    rays, targets = scene.rays, scene.targets
    more = replace(
        scene,
        rays=type(rays)(*[torch.cat([getattr(r, n) for r in (rays, away.rays)]) for n in rays.__dataclass_fields__]),
        targets=type(targets)(*[torch.cat([getattr(targets, n)] * 2) for n in ("rgb", "t", "label")]),
    )
    assert values(task.losses(pack(more), 0).terms) == pytest.approx(values(task.losses(pack(scene), 0).terms))


@pytest.mark.parametrize("num", [0, 1])
@pytest.mark.parametrize("alone", [True, False])
def test_scenes_of_no_and_of_one_point(room, small_ponder, num, alone):
    task = small_ponder.build(None)
    scene = room(1)
    tiny = replace(scene, xyz=scene.xyz[:num], rgb=scene.rgb[:num], normal=scene.normal[:num], labels=None)
    out = task.losses(pack(tiny) if alone else pack(tiny, room(2)), 0)
    sum(out.terms.values()).backward()
    assert all(math.isfinite(v) for v in values(out.terms).values())
    assert all(bool(torch.isfinite(p.grad).all()) for p in task.parameters() if p.grad is not None)


def semantic(task, scene, labels) -> float:
    out = task.losses(pack(replace(scene, targets=replace(scene.targets, label=labels))), 0)
    return float(out.terms["semantic"].detach()) if "semantic" in out.terms else math.nan


def test_semantics_are_rendered_with_labels_only(room, small_ponder, labels):
    task = replace(small_ponder, semantics=FixedCodes(3)).build(labels).eval()
    assert math.isnan(semantic(task, room(1), None))
    assert "semantic" not in small_ponder.build(None).losses(pack(room(1)), 0).terms
    with pytest.raises(ValueError, match="the dataset has no labels to render"):
        replace(small_ponder, semantics=FixedCodes(3)).build(None)


def test_class_zero_counts_and_unlabelled_rays_do_not(room, small_ponder, labels):
    task = replace(small_ponder, semantics=FixedCodes(3)).build(labels).eval()
    scene = room(1)
    zeros = torch.zeros(48, dtype=torch.int64)
    assert semantic(task, scene, zeros) > 0 and semantic(task, scene, zeros - 1) == 0
    half = torch.where(torch.arange(48) < 24, scene.targets.label, -1)
    first = replace(
        scene,
        rays=type(scene.rays)(*[getattr(scene.rays, n)[:24] for n in scene.rays.__dataclass_fields__]),
        targets=RayTargets(scene.targets.rgb[:24], scene.targets.t[:24]),
    )
    assert semantic(task, scene, half) == pytest.approx(semantic(task, first, half[:24]), rel=1e-5)


UNION = LabelSet(
    ("floor", "wall", "ceiling", "door"),
    ((200, 0, 0), (0, 200, 0), (0, 0, 200), (9, 9, 9)),
    (("inside", (0, 1, 2)), ("other", (2, 3))),
)


def of(condition: str, scene: Scene) -> Scene:
    """A scene of a dataset, with labels that it can have."""
    if condition == "other":
        made = torch.where(scene.targets.label > 0, 3, 2)
        targets = replace(scene.targets, label=made)
        scene = replace(scene, targets=targets, labels=torch.where(scene.labels > 0, 3, 2))
    return replace(scene, condition=condition)


def test_rendered_classes_are_those_of_the_rays_dataset(room, small_ponder):
    """As many labelled rays in each: the loss over both is the mean of what each has with its own classes alone."""
    for losses in (RenderLossConfig(), RenderLossConfig(surface=1.0)):
        task = replace(small_ponder, semantics=FixedCodes(4), losses=losses).build(UNION).eval()
        scenes = [of("other", room(1)), of("inside", room(2))]
        name = "surface_semantic" if losses.surface else "semantic"
        both = values(task.losses(pack(*scenes), 0).terms)[name]
        each = [values(task.losses(pack(s), 0).terms)[name] for s in scenes]
        assert both == pytest.approx(sum(each) / 2, rel=1e-4) and each[0] > 0
        free = [values(task.losses(pack(replace(s, condition="")), 0).terms)[name] for s in scenes]
        assert all(f > e for f, e in zip(free, each, strict=True)), "more candidates, more loss"
    seen = replace(scenes[0], views=looking())
    scores = task.predict(pack(seen)).semantic
    assert bool((scores[..., :2] == IMPOSSIBLE).all()) and bool((scores[..., 2:].abs() <= 1.001).all())


def test_accuracy_of_rendered_classes(room, small_ponder, labels):
    task = replace(small_ponder, semantics=FixedCodes(3)).build(labels).eval()
    scene = room(1)
    batch = pack(scene)
    rays = clip_rays(batch.rays, task.grid(batch))
    out = render(task.field, task.volume(batch), rays, task.config.render)
    best = (out.semantic @ task.class_vectors.T).argmax(1)
    label = torch.where(torch.arange(48) % 3 == 0, (best + 1) % 3, best)
    label[1::3] = -1
    measured = task.losses(pack(replace(scene, targets=replace(scene.targets, label=label))), 0)
    assert float(measured.monitors["semantic_accuracy"]) == pytest.approx(0.5)
    nothing = task.losses(pack(replace(scene, targets=replace(scene.targets, label=label * 0 - 1))), 0)
    assert bool(nothing.monitors["semantic_accuracy"].isnan())
    assert "semantic_accuracy" not in small_ponder.build(None).losses(batch, 0).monitors


@pytest.mark.parametrize("head", [LanguageHeadConfig(FixedCodes(4)), LinearHeadConfig(), DecoupledHeadsConfig()])
def test_classes_of_the_points_are_in_the_total(room, small_ponder, head):
    """The loss that PPT adds, which the released code computes and leaves out (spec 9.1, number 4)."""
    task = replace(small_ponder, points=0.5, points_head=head).build(UNION)
    batch = pack(of("inside", room(1)), of("other", room(2)))
    out = task.losses(batch, 0)
    with torch.no_grad():
        task.eval()
        features = task.encoder(batch)
        points = batch.points
        feats = sample_at(features, points.xyz, points.scene)
        scores = task.points_head(feats, points.scene, batch.conditions)
        expected = 0.5 * F.cross_entropy(scores, batch.labels)
        assert values(task.losses(batch, 0).terms)["ppt"] == pytest.approx(float(expected), rel=1e-5)
    assert float(out.terms["ppt"].detach()) > 0
    out.terms["ppt"].backward()
    assert all(float(p.grad.abs().max()) > 0 for p in [*task.encoder.parameters(), *task.points_head.parameters()])
    assert all(p.grad is None for p in task.field.parameters())
    # Class 0 counts, unlabelled points do not, and without any labels the term is 0 and trains nothing.
    half = replace(batch, labels=torch.where(torch.arange(1000) < 500, batch.labels * 0, -1))
    first = pack(replace(of("inside", room(1)), labels=torch.zeros(500, dtype=torch.int64)))
    assert values(task.losses(half, 0).terms)["ppt"] == pytest.approx(
        values(task.losses(first, 0).terms)["ppt"], rel=1e-4
    )
    bare = task.losses(replace(batch, labels=None), 0).terms["ppt"]
    task.zero_grad()
    bare.backward()
    assert float(bare.detach()) == 0 and all(float(p.grad.abs().max()) == 0 for p in task.points_head.parameters())
    assert "ppt" not in small_ponder.build(UNION).losses(batch, 0).terms


def test_facts_and_errors_of_points(small_ponder, labels):
    both = replace(small_ponder, semantics=FixedCodes(3), points=1.0).build(labels)
    expected = {
        "class_vectors": "fixed orthonormal codes of 3",
        "points_class_vectors": "fixed orthonormal codes of 64",
    }
    assert both.facts() == expected
    assert small_ponder.build(labels).facts() == {}
    with pytest.raises(ValueError, match="PonderConfig.points: the dataset has no labels of points"):
        replace(small_ponder, points=1.0).build(None)
    with pytest.raises(ValueError, match="points must not be negative, but is -1"):
        replace(small_ponder, points=-1.0)


def test_the_volume_fills_the_scene_along_each_axis(room, small_ponder):
    task = replace(small_ponder, volume_shape=(8, 6, 4), volume_margin=0.25).build(None)
    scene = room(1)
    flat = replace(scene, xyz=scene.xyz * torch.tensor([3.0, 2, 1]))
    bounded = replace(scene, bounds=torch.tensor([[-5.0, 0, 0], [5, 1, 1]]))
    grid = task.grid(pack(flat, bounded))
    assert grid.shape == (8, 6, 4)
    # A cell on either side: 1 m of a scene of 6 x 4 x 2 m in 8 x 6 x 4 cells. Where that is less than the margin, it.
    third = 5 / 3
    expected = [[[-4.0, -3, -2], [4, 3, 2]], [[-5 - third, -0.25, -0.5], [5 + third, 1.25, 1.5]]]
    torch.testing.assert_close(grid.box, torch.tensor(expected))


def test_a_volume_that_is_a_cube(room, small_ponder):
    task = replace(small_ponder, volume_shape=(8, 8, 8), volume_cube=True).build(None)
    flat = replace(room(1), xyz=room(1).xyz * torch.tensor([3.0, 2, 1]))
    # Of 6 x 4 x 2 m: 6 m from its floor at -1 up, around 0 to the sides, and a cell of 1 m on either side.
    torch.testing.assert_close(task.grid(pack(flat)).box, torch.tensor([[[-4.0, -4, -2], [4, 4, 6]]]))
    with pytest.raises(ValueError, match="volume_cube is for volumes around scenes"):
        replace(small_ponder, volume_cube=True, volume_box=(0.0, 0.0, 0.0, 1.0, 1.0, 1.0))


def test_a_volume_that_is_read_as_a_larger_one(room, small_ponder):
    """Features come out around the centre, 1.5 times as far from it as the points that they were made of."""
    task, batch = small_ponder.build(None).eval(), pack(room(1))
    stretched = replace(small_ponder, read_stretch=1.5).build(None).eval()
    stretched.load_state_dict(task.state_dict())
    true, read = task.volume(batch), stretched.volume(batch)
    assert torch.equal(true.feats, read.feats)
    centre = true.grid.box.mean(1)
    torch.testing.assert_close(read.grid.box.mean(1), centre)
    torch.testing.assert_close(read.grid.box[:, 1] - centre, 1.5 * (true.grid.box[:, 1] - centre))
    with pytest.raises(ValueError, match="read_stretch must be above 0, not 0"):
        replace(small_ponder, read_stretch=0.0)


def test_one_box_for_all_scenes(room, small_ponder):
    box = (-2.0, -3.0, -1.0, 2.0, 3.0, 1.5)
    task = replace(small_ponder, volume_box=box).build(None)
    moved = replace(room(2), bounds=torch.tensor([[5.0, 5, 5], [6, 6, 6]]))
    grid = task.grid(pack(room(1), moved))
    assert grid.shape == (10, 10, 10) and torch.equal(grid.box, torch.tensor(box).view(1, 2, 3).expand(2, 2, 3))
    assert grid.is_as(fixed_grid(box, grid.shape, 2)), "an encoder's volume over the same box is not resampled"
    for wrong in ((0.0, 0.0, 0.0, 1.0, 1.0), (0.0, 0.0, 0.0, 1.0, 0.0, 1.0)):
        with pytest.raises(ValueError, match="volume_box: a lower and an upper corner, six numbers"):
            replace(small_ponder, volume_box=wrong)


def test_depth_beyond_the_volume_is_no_error_of_the_field(room, small_ponder):
    task = small_ponder.build(None).eval()
    batch = pack(room(1))
    before = depth_error(task, batch)
    far = batch.targets.t.clone()
    far[::2] = 30.0
    assert depth_error(task, replace(batch, targets=replace(batch.targets, t=far))) < before + 1


def test_no_surface_where_none_is_asked_for(room, small_ponder):
    task = replace(small_ponder, mesh_cell=0.0).build(None).eval()
    batch = pack(replace(room(1), views=looking()))
    out = task.predict(batch)
    metric = task.metric()
    metric.update(out, batch)
    assert out.mesh is None and {"psnr", "depth_error"} <= set(metric.compute())
    assert not any(name.startswith("surface") for name in metric.compute())
    with pytest.raises(ValueError, match="mesh_cell must not be negative"):
        replace(small_ponder, mesh_cell=-1.0)


def test_the_gradient_is_the_slope_of_the_loss(room, small_ponder):
    """Central differences along the gradient, of one network at a time; samples stay where they are."""
    field = FieldConfig(16, geometry_channels=8, inv_std=5.0, use_position=True)
    heavy = RenderLossConfig(eikonal=5.0)  # else the second derivatives would not show
    task = replace(small_ponder, render=RenderConfig(24, 0), field=field, losses=heavy).build(None).eval()
    batch = pack(room(1))
    with torch.no_grad():
        for parameter in task.parameters():  # off the kink of a ReLU at exactly 0, where fresh biases put empty cells
            parameter += 0.05 * torch.randn_like(parameter)

    def total() -> torch.Tensor:
        return sum(task.losses(batch, 0).terms.values())

    def loss_beside(part, direction, step) -> float:
        before = [p.detach().clone() for p in part.parameters()]
        with torch.no_grad():
            for parameter, d in zip(part.parameters(), direction, strict=True):
                parameter += step * d
            loss = float(total())
            for parameter, value in zip(part.parameters(), before, strict=True):
                parameter.copy_(value)
        return loss

    total().backward()
    for part in (task.encoder, task.unet, task.field):
        norm = float(torch.cat([p.grad.flatten() for p in part.parameters()]).norm())
        direction = [p.grad / norm for p in part.parameters()]
        step = 2e-3 / max(1.0, norm)
        slope = (loss_beside(part, direction, step) - loss_beside(part, direction, -step)) / (2 * step)
        assert slope == pytest.approx(norm, rel=0.03), type(part).__name__


def test_rounding_errors_do_not_turn_the_gradient(room, small_ponder):
    """Parameters changed in the seventh digit; far from all points the volume is constant and has no normal."""
    task = replace(small_ponder, volume_shape=(24, 24, 24)).build(None)
    batch = pack(room(1, num=2000, rays=128))

    def gradient() -> torch.Tensor:
        task.zero_grad()
        task.losses(batch, 0).terms["colour"].backward()
        return torch.cat([p.grad.flatten() for p in task.unet.parameters()])

    first = gradient()
    with torch.no_grad():
        for parameter in task.parameters():
            parameter *= 1 + 1e-6 * torch.randn_like(parameter)
    second = gradient()
    assert float(torch.cosine_similarity(first, second, dim=0)) > 0.99


def test_one_scene_is_learned_by_heart(room, small_ponder):
    """The volume reaches half a metre beyond the walls, so that a field without a surface is that far off."""
    task = replace(small_ponder, volume_margin=0.5, field=FieldConfig(32, geometry_channels=8)).build(None)
    others = room(9, rays=300)
    scene, fresh = (
        pack(room(1, num=1000, rays=96)),
        pack(replace(room(1, num=1000), rays=others.rays, targets=others.targets)),
    )
    optimizer = torch.optim.Adam(task.parameters(), lr=1e-2)
    before = depth_error(task, fresh)
    for step in range(60):
        out = task.losses(replace(scene, keys=torch.tensor([step])), step)
        optimizer.zero_grad()
        sum(out.terms.values()).backward()
        optimizer.step()
    assert before > 0.25 and depth_error(task, fresh) < 0.3 * before, "of rays that it was not trained on"


def looking(num: int = 2) -> Views:
    """Views of 8x10 pixels from near the middle of the box along +x."""
    pose = torch.tensor([[0.0, 0, 1, 0.1], [-1, 0, 0, 0], [0, -1, 0, 0], [0, 0, 0, 1]]).repeat(num, 1, 1)
    matrix = torch.tensor([[8.0, 0, 4.5], [0, 8, 3.5], [0, 0, 1]]).repeat(num, 1, 1)
    rgb = torch.randint(0, 255, (num, 8, 10, 3), dtype=torch.uint8)
    return Views(Cameras(matrix, pose, (8, 10)), rgb, torch.full((num, 8, 10), 0.9), None, torch.tensor([num]))


def test_views_are_rendered_and_pictured(room, small_ponder, labels):
    task = replace(small_ponder, semantics=FixedCodes(3)).build(labels).eval()
    batch = pack(replace(room(1), views=looking()))
    out = task.predict(batch)
    assert isinstance(out, RenderedViews) and out.rgb.shape == (2, 8, 10, 3) and out.semantic.shape == (2, 8, 10, 3)
    assert torch.equal(out.rgb[0], out.rgb[1]) and 0 <= float(out.rgb.min()) and float(out.rgb.max()) <= 1
    assert float(out.depth.min()) > 0 and float(out.depth.max()) < 1.1 + task.config.volume_margin
    metric = task.metric()
    metric.update(out, batch)
    assert set(metric.compute()) >= {"psnr", "depth_error", "psnr_mean_colour", "depth_error_median"}
    pictures = task.pictures(out, batch)
    assert [p.name for p in pictures] == ["view-0-truth", "view-0-rendered", "view-1-truth", "view-1-rendered"]
    assert all(p.rgb.shape == (8, 40, 3) for p in pictures)
    assert torch.equal(pictures[0].rgb[:, :10], batch.views.rgb[0])
    assert bool((pictures[0].rgb[:, 30:] == 90).all()), "views without labels: dark grey"
    best = torch.tensor(labels.palette, dtype=torch.uint8)[out.semantic[0].argmax(-1)]
    assert torch.equal(pictures[1].rgb[:, 30:], best)
    classes = torch.randint(-1, 3, (2, 8, 10))
    seen = replace(batch, views=replace(batch.views, labels=classes))
    palette = torch.tensor([*labels.palette, (90, 90, 90)], dtype=torch.uint8)
    assert torch.equal(task.pictures(out, seen)[2].rgb[:, 30:], palette[classes[1]])
    metric.update(out, seen)
    share = (out.semantic.argmax(-1) == classes)[classes >= 0].double().mean()
    assert metric.compute()["semantic_accuracy"] == pytest.approx(float(share)) and "semantic_miou" in metric.compute()
    plain = small_ponder.build(labels).eval()
    assert all(p.rgb.shape == (8, 30, 3) for p in plain.pictures(plain.predict(seen), seen)), "without semantics"


def test_the_size_of_a_chunk_changes_nothing(room, small_ponder):
    task = small_ponder.build(None).eval()
    volume, cameras = task.volume(pack(room(1))), looking().cameras
    whole, parts = task.render_views(volume, cameras), task.render_views(volume, cameras, chunk=7)
    torch.testing.assert_close(whole.depth, parts.depth)
    torch.testing.assert_close(whole.rgb, parts.rgb)


def test_views_are_rendered_with_more_samples_than_training_rays(room, small_ponder):
    """Those that guided samples have in training are importance samples here."""
    task = small_ponder.build(None).eval()
    volume, cameras = task.volume(pack(room(1))), looking().cameras
    plain = task.render_views(volume, cameras)
    task.config = replace(small_ponder, render=RenderConfig(12, 2, 2, evaluation_factor=2))
    torch.testing.assert_close(task.render_views(volume, cameras, chunk=7).depth, plain.depth)
    task.config = replace(small_ponder, render=RenderConfig(24, 8, evaluation_factor=4))
    assert not torch.allclose(task.render_views(volume, cameras).depth, plain.depth)


def test_prediction_needs_one_scene_with_views(room, small_ponder):
    task = small_ponder.build(None).eval()
    seen = replace(room(1), views=looking())
    for batch in (pack(room(1)), pack(seen, seen)):
        with pytest.raises(ValueError, match="needs a batch of one scene with the views"):
            task.predict(batch)


def test_terms_follow_their_weights(room, small_ponder):
    config = replace(small_ponder, losses=RenderLossConfig(colour=0.0, free_space=0.0, eikonal=0.0, depth=2.0))
    task, plain = config.build(None).eval(), small_ponder.build(None).eval()
    plain.load_state_dict(task.state_dict())
    terms, usual = (values(t.losses(pack(room(1)), 0).terms) for t in (task, plain))
    assert set(terms) == {"depth", "sdf"} and terms["depth"] == pytest.approx(2 * usual["depth"])
    colour_only = replace(room(1), targets=replace(room(1).targets, t=None))
    out = plain.losses(pack(colour_only), 0)
    assert set(out.terms) == {"colour", "eikonal"} and "depth_error" not in out.monitors


def test_the_papers_numbers():
    """Section 4 of the paper: 128 x 128 x 32 cells; 96 channels of points with 4 of their place, 128 of the volume."""
    task = PonderConfig().build(None)
    assert task.config.volume_shape == (128, 128, 32)
    assert (task.encoder.out_channels, task.unet.out_channels) == (96, 128)
