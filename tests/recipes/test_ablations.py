"""What the ablations change, and that they change nothing else."""

from dataclasses import fields, replace

import pytest

from ponder3d.data.transforms import DropPoints, PickRays, RemoveBlocks
from ponder3d.recipes import ablations, pretrain_indoor
from ponder3d.recipes.catalogue import list_recipes
from ponder3d.render.opacity import NeuS, UniSurf, VolSDF

BASE = pretrain_indoor.rooms()
ALL = {name: make() for name, make in list_recipes().items() if name.startswith("ablations.")}


def changed(first, then) -> set[str]:
    return {f.name for f in fields(first) if getattr(first, f.name) != getattr(then, f.name)}


@pytest.mark.parametrize("name", ALL)
def test_the_budget_is_that_of_the_recipe(name):
    """Same encoder, rooms, steps and optimiser, and as many rays rendered per step, of as many samples."""
    own = ALL[name]
    assert own != BASE and changed(BASE, own) <= {"task", "transforms"}
    assert own.task.encoder == BASE.task.encoder and own.task.volume_net == BASE.task.volume_net
    assert rendered(own) == rendered(BASE) == 384

    def samples(render):
        return render.num_uniform + render.num_importance + render.num_guided

    assert samples(own.task.render) == samples(BASE.task.render)


def rendered(experiment) -> int:
    picks = next(t for t in experiment.transforms if isinstance(t, PickRays))
    assert picks.rays_per_view % experiment.task.render_every == 0
    return picks.views * picks.rays_per_view // experiment.task.render_every


def test_no_two_are_the_same():
    experiments = list(ALL.values())
    assert all(a != b for i, a in enumerate(experiments) for b in experiments[:i])


def test_one_thing_at_a_time():
    for name, kind in (("volsdf", VolSDF), ("unisurf", UniSurf)):
        own = ALL[f"ablations.rooms_{name}"]
        assert changed(BASE.task, own.task) == {"render"} and changed(BASE, own) == {"task"}
        assert changed(BASE.task.render, own.task.render) == {"opacity"} and type(own.task.render.opacity) is kind
    for name in ("linear", "deep", "narrow", "wide"):
        own = ALL[f"ablations.rooms_decoder_{name}"]
        assert changed(BASE.task, own.task) == {"field"} and changed(BASE, own) == {"task"}
    for name in ("mask_0", "mask_60", "sparse_80", "views_1", "views_12"):
        assert changed(BASE, ALL[f"ablations.rooms_{name}"]) == {"transforms"}


def test_masks():
    found = [t for name in (0, 15, 30, 60, 80) for t in ALL[f"ablations.rooms_mask_{name}"].transforms]
    blocks = [t for t in found if isinstance(t, RemoveBlocks)]
    assert [(t.smallest, t.largest) for t in blocks] == [(0.15, 0.15), (0.3, 0.3), (0.6, 0.6), (0.8, 0.8)]
    sparse = ALL["ablations.rooms_sparse_50"].transforms
    assert DropPoints(0.5) in sparse and not any(isinstance(t, RemoveBlocks) for t in sparse)


@pytest.mark.parametrize(
    ("name", "terms"),
    [
        ("colour_only", {"colour", "eikonal"}),
        ("depth_only", {"depth", "sdf", "free_space", "eikonal"}),
        ("semantic_only", {"semantic", "eikonal"}),
        ("feature_only", {"feature", "eikonal"}),
        ("feature_at_surface", {"feature"}),
        ("no_colour", {"depth", "sdf", "free_space", "eikonal", "feature"}),
        ("colour_and_depth", {"colour", "depth", "sdf", "free_space", "eikonal"}),
    ],
)
def test_single_terms(name, terms):
    task = ALL[f"ablations.rooms_{name}"].task
    every = ("colour", "depth", "sdf", "free_space", "eikonal", "feature", "semantic")
    silent = {"semantic"} if type(task.semantics).__name__ == "NoVectors" else set()
    assert {term for term in every if getattr(task.losses, term) > 0} - silent == terms
    assert bool(task.feature_channels) == ("feature" in terms)


def test_what_is_asked_where_rays_end_alone_is_not_rendered():
    assert ALL["ablations.rooms_feature_at_surface"].task.losses.surface == 1
    assert ALL["ablations.rooms_feature_only"].task.losses.surface == 0.5


def test_the_released_objective_is_all_of_its_parts():
    base = ablations.rooms_colour_and_depth()
    whole = ablations.rooms_released().task
    assert whole.volume_cube and whole.read_stretch == 1.1 and whole.render.opacity == NeuS("slope")
    assert whole.render.num_importance == whole.render.num_guided == 0 and whole.field.learn_inv_std
    losses = whole.losses
    assert losses.units == "extent" and losses.truncation == 0.05 and losses.misses and losses.slope < 1
    for part, field in (("alpha", {"field", "render"}), ("samples", {"render"}), ("cube", {"volume_cube"})):
        assert changed(base.task, ALL[f"ablations.rooms_released_{part}"].task) == field
    for part, field in (("frames", {"read_stretch"}), ("units", {"losses"})):
        assert changed(base.task, ALL[f"ablations.rooms_released_{part}"].task) == field
    # In a room of 6 m what the units make of depth is what it was.
    units = ALL["ablations.rooms_released_units"].task.losses
    assert units.depth / ablations.EXTENT == pytest.approx(base.task.losses.depth)
    assert replace(units, depth=0.0) != replace(base.task.losses, depth=0.0)
