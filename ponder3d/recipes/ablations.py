"""``pretrain_indoor.rooms`` with one thing changed: other renderers, single loss terms, masks, decoders, views, inputs,
and what the released code of PonderV2 does otherwise than its paper.

NeuS, the mask of up to 30 %, a decoder of 2 x 64, six views and the whole cloud are ``pretrain_indoor.rooms`` itself.
Everything else is the same in all of them: encoder, rooms, steps, scenes of a step, rays and samples per scene. What
PonderV2 published was measured on other data at other sizes, and was not run here; only its direction can be compared.
"""

from dataclasses import replace

from ponder3d.data.context import ContextTarget
from ponder3d.data.transforms import DropPoints, PickRays, RemoveBlocks, Transform
from ponder3d.engine.experiment import Experiment
from ponder3d.recipes import pretrain_indoor
from ponder3d.render.losses import RenderLossConfig
from ponder3d.render.opacity import NeuS, OpacityConfig, UniSurf, VolSDF
from ponder3d.render.renderer import RenderConfig
from ponder3d.tasks.class_vectors import FixedCodes
from ponder3d.tasks.ponder import PonderConfig

EXTENT = 6.0
"""Metres of the longest side of a usual room: what a unit of the released code is there."""


def rooms_volsdf() -> Experiment:
    """Rendered as VolSDF does (Yariv et al. 2021), with its error-bounded sampler.

    PonderV2 (table 24, cameras on nuScenes) has NeuS 0.1 NDS ahead of VolSDF, and 0.4 ahead of UniSurf.
    """
    return _opacity(VolSDF(rounds=3, per_round=16))


def rooms_unisurf() -> Experiment:
    """Rendered as UniSurf does (Oechsle et al. 2021); its interval shrinks over the whole run."""
    return _opacity(UniSurf(shrinking=pretrain_indoor.rooms().steps))


def rooms_colour_only() -> Experiment:
    """Nothing but rendered colour, and the eikonal term: images without depth.

    The sharpness is learnt, from 20 per metre on: of a sharp surface that is not there yet colour says nothing.
    """
    base = _colour_and_depth()
    task = _task(base)
    return replace(
        base,
        task=replace(
            task,
            field=replace(task.field, inv_std=20.0, learn_inv_std=True),
            render=_unguided(task.render),
            losses=replace(task.losses, depth=0.0, sdf=0.0, free_space=0.0),
        ),
    )


def rooms_depth_only() -> Experiment:
    """Nothing but distance: rendered, signed near surfaces, and free space in front of them."""
    base = _colour_and_depth()
    return _losses(base, replace(_task(base).losses, colour=0.0))


def rooms_semantic_only() -> Experiment:
    """Nothing but classes (eq. 9) of the 2D labels, half rendered, half where rays end, and the eikonal term."""
    base = pretrain_indoor.rooms()
    task = replace(_without_context(_task(base)), semantics=FixedCodes(32))
    losses = replace(_silent(task.losses), semantic=10.0, temperature=0.05, surface=0.5)
    task = replace(task, losses=losses, render_every=_task(base).render_every)
    return replace(base, task=task, transforms=_no_context(base.transforms))


def rooms_feature_only() -> Experiment:
    """Nothing but the surroundings, half rendered, half where rays end, and the eikonal term."""
    base = pretrain_indoor.rooms()
    losses = _task(base).losses
    return _losses(base, replace(_silent(losses), feature=losses.feature))


def rooms_feature_at_surface() -> Experiment:
    """Nothing but the surroundings, asked where rays end: nothing is rendered.

    What is left is the regression of a hand-made descriptor at points, through the volume: what rendering adds shows
    against it.
    """
    base = rooms_feature_only()
    return _losses(base, replace(_task(base).losses, surface=1.0, eikonal=0.0))


def rooms_no_colour() -> Experiment:
    """All terms but colour: distance and the surroundings."""
    base = pretrain_indoor.rooms()
    return _losses(base, replace(_task(base).losses, colour=0.0))


def rooms_colour_and_depth() -> Experiment:
    """Colour and depth, the terms of the paper, without the surroundings."""
    return _colour_and_depth()


def rooms_mask_0() -> Experiment:
    """Nothing of the cloud is taken away."""
    return _corrupted()


def rooms_mask_15() -> Experiment:
    """15 % of the occupied blocks of half a metre are taken away."""
    return _corrupted(RemoveBlocks(0.15, 0.15))


def rooms_mask_30() -> Experiment:
    """30 % of the occupied blocks of half a metre are taken away.

    PonderV2 (table 21) has its best at 0.3 for images, and takes 0.8 for laser points.
    """
    return _corrupted(RemoveBlocks(0.3, 0.3))


def rooms_mask_60() -> Experiment:
    """60 % of the occupied blocks of half a metre are taken away."""
    return _corrupted(RemoveBlocks(0.6, 0.6))


def rooms_mask_80() -> Experiment:
    """80 % of the occupied blocks of half a metre are taken away."""
    return _corrupted(RemoveBlocks(0.8, 0.8))


def rooms_decoder_linear() -> Experiment:
    """A decoder without a hidden layer: distance and colour are linear in the volume's features.

    In PonderV2 (tables 22 and 23) decoders have to be deep enough, and their width makes little difference.
    """
    return _decoder(sdf_layers=1)


def rooms_decoder_deep() -> Experiment:
    """A decoder of five layers for the distance and three for the colour."""
    return _decoder(sdf_layers=5, colour_layers=3)


def rooms_decoder_narrow() -> Experiment:
    """A decoder 16 wide."""
    return _decoder(hidden=16)


def rooms_decoder_wide() -> Experiment:
    """A decoder 256 wide."""
    return _decoder(hidden=256)


def rooms_views_1() -> Experiment:
    """All rays of a step are of one view per room."""
    return _views(1)


def rooms_views_3() -> Experiment:
    """All rays of a step are of three views per room."""
    return _views(3)


def rooms_views_12() -> Experiment:
    """All rays of a step are of twelve views per room."""
    return _views(12)


def rooms_sparse_50() -> Experiment:
    """Half of the points are dropped one by one, instead of by blocks."""
    return _corrupted(DropPoints(0.5))


def rooms_sparse_80() -> Experiment:
    """80 % of the points are dropped one by one, the corruption of PonderV2 indoors, instead of by blocks."""
    return _corrupted(DropPoints(0.8))


def rooms_released() -> Experiment:
    """The objective of the released code: ``rooms_colour_and_depth`` with all that is done otherwise there.

    Those are the changes of all ``rooms_released_...``, its loss weights, and rays that miss count in the colour term
    (of which rooms seen from inside have none). Not among them: what concerns its text vectors, the ray-wise clip of
    the rendered depth, and the gradient in its opacity, which is 1.1 times too long.
    """
    base = _units(_cube(_stretched(_samples(_released_alpha(_colour_and_depth())))))
    losses = _task(base).losses
    return _losses(base, replace(losses, colour=10.0, depth=1.0, sdf=10.0, free_space=1.0, eikonal=0.01, misses=True))


def rooms_released_alpha() -> Experiment:
    """``rooms_colour_and_depth`` with the opacity of the released code and its sharpness, which is learnt."""
    return _released_alpha(_colour_and_depth())


def rooms_released_samples() -> Experiment:
    """``rooms_colour_and_depth`` with samples spread evenly.

    The released code looks for the surface at the wrong place, and finds it nowhere.
    """
    return _samples(_colour_and_depth())


def rooms_released_cube() -> Experiment:
    """``rooms_colour_and_depth`` with a volume that is as high as the room is long."""
    return _cube(_colour_and_depth())


def rooms_released_frames() -> Experiment:
    """``rooms_colour_and_depth`` with a volume read in another frame than it was filled in."""
    return _stretched(_colour_and_depth())


def rooms_released_units() -> Experiment:
    """``rooms_colour_and_depth`` with distances, truncation and slope in units of the room.

    In a room of 6 m depth weighs as much as before; it is the relation between rooms, and the truncation, that change.
    """
    return _units(_colour_and_depth())


def _task(experiment: Experiment) -> PonderConfig:
    assert isinstance(experiment.task, PonderConfig)
    return experiment.task


def _losses(experiment: Experiment, losses: RenderLossConfig) -> Experiment:
    return replace(experiment, task=replace(_task(experiment), losses=losses))


def _opacity(opacity: OpacityConfig) -> Experiment:
    base = pretrain_indoor.rooms()
    task = _task(base)
    return replace(base, task=replace(task, render=replace(task.render, opacity=opacity)))


def _silent(losses: RenderLossConfig) -> RenderLossConfig:
    """With the eikonal term alone."""
    return replace(losses, colour=0.0, depth=0.0, sdf=0.0, free_space=0.0, semantic=0.0, feature=0.0)


def _without_context(task: PonderConfig) -> PonderConfig:
    losses = replace(task.losses, feature=0.0, surface=0.0)
    return replace(task, feature_channels=0, losses=losses, render_every=1)


def _no_context(transforms: tuple[Transform, ...]) -> tuple[Transform, ...]:
    return tuple(t for t in transforms if not isinstance(t, ContextTarget))


def _colour_and_depth() -> Experiment:
    """Rays that would only have counted where they end are not drawn: as many are rendered as in ``rooms``."""
    base = pretrain_indoor.rooms()
    task = _task(base)
    fewer = tuple(
        replace(t, rays_per_view=t.rays_per_view // task.render_every) if isinstance(t, PickRays) else t
        for t in _no_context(base.transforms)
    )
    return replace(base, task=_without_context(task), transforms=fewer)


def _corrupted(*by: Transform) -> Experiment:
    """With another corruption in place of the blocks."""
    base = pretrain_indoor.rooms()
    at = next(i for i, t in enumerate(base.transforms) if isinstance(t, RemoveBlocks))
    return replace(base, transforms=(*base.transforms[:at], *by, *base.transforms[at + 1 :]))


def _decoder(**fields: int) -> Experiment:
    base = pretrain_indoor.rooms()
    task = _task(base)
    return replace(base, task=replace(task, field=replace(task.field, **fields)))


def _views(num: int) -> Experiment:
    """With as many rays of other numbers of views."""
    base = pretrain_indoor.rooms()
    transforms = tuple(
        replace(t, views=num, rays_per_view=t.views * t.rays_per_view // num) if isinstance(t, PickRays) else t
        for t in base.transforms
    )
    return replace(base, transforms=transforms)


def _unguided(render: RenderConfig) -> RenderConfig:
    """The samples that the measured distance placed are placed by the field, as in evaluation."""
    return replace(render, num_importance=render.num_importance + render.num_guided, num_guided=0)


def _released_alpha(experiment: Experiment) -> Experiment:
    task = _task(experiment)
    # A sharpness of 20 for a room of length 1.
    field = replace(task.field, inv_std=20.0 / EXTENT, learn_inv_std=True)
    return replace(experiment, task=replace(task, field=field, render=replace(task.render, opacity=NeuS("slope"))))


def _samples(experiment: Experiment) -> Experiment:
    task = _task(experiment)
    render = task.render
    num = render.num_uniform + render.num_importance + render.num_guided
    render = replace(render, num_uniform=num, num_importance=0, num_guided=0)
    return replace(experiment, task=replace(task, render=render))


def _cube(experiment: Experiment) -> Experiment:
    return replace(experiment, task=replace(_task(experiment), volume_cube=True))


def _stretched(experiment: Experiment) -> Experiment:
    return replace(experiment, task=replace(_task(experiment), read_stretch=1.1))


def _units(experiment: Experiment) -> Experiment:
    losses = _task(experiment).losses
    in_units = {name: getattr(losses, name) * EXTENT for name in ("depth", "sdf", "free_space")}
    return _losses(experiment, replace(losses, units="extent", truncation=0.05, slope=1 / 1.101, **in_units))
