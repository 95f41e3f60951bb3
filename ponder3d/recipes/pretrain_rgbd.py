"""Pre-training on posed RGB-D frames: a directory of them, or scenes that ``ponder3d prepare`` has written."""

from dataclasses import replace

from ponder3d.data.context import ContextTarget
from ponder3d.data.image_features import MapFolder
from ponder3d.data.prepared.dataset import PreparedConfig
from ponder3d.data.rgbd_folder import RGBDFolderConfig
from ponder3d.data.transforms import Centre, DropModality, Flip, GridSample, PickRays, RemoveBlocks, Rotate, Scale
from ponder3d.engine.experiment import Experiment
from ponder3d.engine.image_features import FeatureOptions
from ponder3d.engine.optim import OptimConfig
from ponder3d.recipes.pretrain_indoor import small_ponder
from ponder3d.render.renderer import RenderConfig
from ponder3d.tasks.ponder import PonderConfig


def folder() -> Experiment:
    """Label-free pre-training on ``--data.root DIR``; every eighth frame is held out and rendered by ``evaluate``.

    Which layouts are read: see ``ponder3d.data.rgbd_folder``.
    """
    small = small_ponder()
    task = replace(
        small,
        volume_shape=(48, 48, 24),
        render=RenderConfig(num_uniform=32, num_importance=8, num_guided=8),
        losses=replace(small.losses, feature=10.0),
        mesh_cell=0.04,
    )
    return Experiment(
        task=task,
        data=RGBDFolderConfig(),
        transforms=(
            Centre(),
            Rotate(),
            Scale(),
            Flip(),
            GridSample(),
            PickRays(views=8, rays_per_view=64),
            ContextTarget(),
            RemoveBlocks(smallest=0.0, largest=0.3),
            DropModality(colour=0.1, normal=0.1),
        ),
        validation_transforms=(Centre(), GridSample()),
        optim=OptimConfig(lr=4e-3),
        steps=800,
        batch_size=2,
        validate_every=200,
        validation_scenes=1,
        workers=1,
    )


def folder_features() -> Experiment:
    """As ``folder``, with what a 2D model says of the images as the rendered feature: no labels, any model.

    ``ponder3d features pretrain_rgbd.folder --data.root DIR --out MAPS`` makes maps of 32 channels, which
    ``--data.root DIR --transforms.5.features.root MAPS`` then takes; of others say how many with
    ``--task.feature-channels``.
    """
    return _with_maps(folder())


def prepared_features() -> Experiment:
    """As ``folder_features``, on prepared scenes."""
    return _with_maps(prepared())


def _with_maps(experiment: Experiment) -> Experiment:
    """Rendered features come from maps instead of from the surroundings."""
    task = experiment.task
    assert isinstance(task, PonderConfig)
    transforms = tuple(
        replace(t, features=MapFolder()) if isinstance(t, PickRays) else t
        for t in experiment.transforms
        if not isinstance(t, ContextTarget)
    )
    # Maps have a mean square of 1 (engine.image_features), surroundings one of hundredths.
    losses = replace(task.losses, feature=1.0)
    return replace(
        experiment,
        task=replace(task, feature_channels=FeatureOptions().channels, losses=losses),
        transforms=transforms,
    )


def prepared() -> Experiment:
    """Label-free pre-training on prepared scenes, ``--data.root DIR_OR_URL``; scenes of its ``val`` split are held out.

    Settings of ``folder``, which suit a CPU. Each draw of a scene takes 8 of its images.
    """
    return replace(folder(), data=PreparedConfig(views=8, max_side=320))
