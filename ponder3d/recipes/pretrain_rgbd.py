"""Pre-training on posed RGB-D frames: a directory of them, or scenes that ``ponder3d prepare`` has written."""

from dataclasses import replace

from ponder3d.data.context import ContextTarget
from ponder3d.data.prepared.dataset import PreparedConfig
from ponder3d.data.rgbd_folder import RGBDFolderConfig
from ponder3d.data.transforms import Centre, DropModality, Flip, GridSample, PickRays, RemoveBlocks, Rotate, Scale
from ponder3d.engine.experiment import Experiment
from ponder3d.engine.optim import OptimConfig
from ponder3d.recipes.pretrain_indoor import small_ponder
from ponder3d.render.renderer import RenderConfig


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


def prepared() -> Experiment:
    """Label-free pre-training on prepared scenes, ``--data.root DIR_OR_URL``; scenes of its ``val`` split are held out.

    Settings of ``folder``, which suit a CPU. Each draw of a scene takes 8 of its images.
    """
    return replace(folder(), data=PreparedConfig(views=8, max_side=320))
