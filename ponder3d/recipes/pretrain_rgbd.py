"""Pre-training on a directory of posed RGB-D frames."""

from ponder3d.data.context import ContextTarget
from ponder3d.data.rgbd_folder import RGBDFolderConfig
from ponder3d.data.transforms import Centre, DropModality, Flip, GridSample, PickRays, RemoveBlocks, Rotate, Scale
from ponder3d.engine.experiment import Experiment
from ponder3d.engine.optim import OptimConfig
from ponder3d.recipes.pretrain_indoor import small_encoder
from ponder3d.render.fields import FieldConfig
from ponder3d.render.losses import RenderLossConfig
from ponder3d.render.renderer import RenderConfig
from ponder3d.tasks.ponder import PonderConfig
from ponder3d.volume.unet3d import ShallowNet3DConfig


def folder() -> Experiment:
    """Label-free pre-training on ``--data.root DIR``; every eighth frame is held out and rendered by ``evaluate``.

    Which layouts are read: see ``ponder3d.data.rgbd_folder``.
    """
    encoder = small_encoder()
    context = ContextTarget(spacing=encoder.grid_size)
    return Experiment(
        task=PonderConfig(
            encoder=encoder,
            volume_shape=(48, 48, 24),
            volume_net=ShallowNet3DConfig(channels=32, depth=1, out_channels=32),
            field=FieldConfig(hidden=64, geometry_channels=16, inv_std=100.0, learn_inv_std=False),
            render=RenderConfig(num_uniform=32, num_importance=8, num_guided=8),
            losses=RenderLossConfig(depth=0.3, sdf=3.0, eikonal=0.1, feature=10.0),
            feature_channels=context.channels,
            mesh_cell=0.04,
        ),
        data=RGBDFolderConfig(),
        transforms=(
            Centre(),
            Rotate(),
            Scale(),
            Flip(),
            GridSample(encoder.grid_size),
            PickRays(views=8, rays_per_view=64),
            context,
            RemoveBlocks(smallest=0.0, largest=0.3),
            DropModality(colour=0.1, normal=0.1),
        ),
        validation_transforms=(Centre(), GridSample(encoder.grid_size)),
        optim=OptimConfig(lr=4e-3),
        steps=800,
        batch_size=2,
        validate_every=200,
        validation_scenes=1,
        workers=1,
    )
