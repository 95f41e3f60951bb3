"""A box room of 2 m whose points, rays and classes are known exactly, an encoder that does nothing, small tasks."""

from dataclasses import dataclass

import pytest
import torch
import torch.nn.functional as F

from ponder3d.encoders.encoder import Encoder, EncoderConfig
from ponder3d.encoders.sparse_unet import SparseUNetConfig
from ponder3d.render.fields import FieldConfig
from ponder3d.render.renderer import RenderConfig
from ponder3d.tasks.ponder import PonderConfig
from ponder3d.types import LabelSet, Rays, RayTargets, Scene
from ponder3d.types.scene import INPUT_CHANNELS
from ponder3d.volume.unet3d import ShallowNet3DConfig

LABELS = LabelSet(("floor", "wall", "ceiling"), ((200, 0, 0), (0, 200, 0), (0, 0, 200)))


@dataclass(frozen=True)
class _PassConfig(EncoderConfig):
    inputs: tuple[str, ...] = ("rgb",)
    grid_size: float = 0.1

    def build(self):
        return _Pass(self)


class _Pass(Encoder):
    """The features of a point are its input channels."""

    def __init__(self, config):
        super().__init__()
        self.config = config
        self.out_channels = sum(INPUT_CHANNELS[name] for name in config.inputs)

    def forward(self, batch):
        return batch.points


def box_room(key: int = 1, num: int = 500, rays: int = 48, away: bool = False) -> Scene:
    """The box [-1, 1]^3. Colour is a function of the place; rays start near the middle, or outside and lead away."""
    generator = torch.Generator().manual_seed(key)
    xyz, normal = _on_walls(torch.randn(num, 3, generator=generator))
    directions = F.normalize(torch.randn(rays, 3, generator=generator), dim=1)
    origins = torch.rand(rays, 3, generator=generator) * 0.6 - 0.3
    t = ((directions.sign() - origins) / directions).amin(1)
    ends, end_normal = _on_walls(origins + t[:, None] * directions)
    if away:
        origins = 5 * directions
    return Scene(
        xyz=xyz,
        rgb=xyz / 2 + 0.5,
        normal=normal,
        source=f"box {key}",
        labels=_label(normal),
        rays=Rays(
            origins,
            directions,
            torch.full((rays,), 0.05),
            torch.full((rays,), 20.0),
            torch.zeros(rays, dtype=torch.int64),
        ),
        targets=RayTargets(ends / 2 + 0.5, t, _label(end_normal)),
        key=key,
    )


def _on_walls(xyz):
    """Pushed along the ray from the middle to the nearest wall, and the wall's normal into the room."""
    axis = xyz.abs().argmax(1)
    normal = -F.one_hot(axis, 3) * xyz.sign()
    return (xyz / xyz.abs().amax(1, keepdim=True)).clamp(-1, 1), normal


def _label(normal):
    return 1 - normal[:, 2].round().to(torch.int64)


@pytest.fixture
def room():
    return box_room


@pytest.fixture
def labels() -> LabelSet:
    return LABELS


@pytest.fixture
def pass_config():
    """Configuration of an encoder whose features are its inputs."""
    return _PassConfig


@pytest.fixture
def small_encoder() -> SparseUNetConfig:
    return SparseUNetConfig(grid_size=0.15, stem_channels=8, stem_kernel=3, channels=(8, 12, 12, 8), blocks=(1,) * 4)


@pytest.fixture
def small_ponder(small_encoder) -> PonderConfig:
    return PonderConfig(
        encoder=small_encoder,
        volume_shape=(10, 10, 10),
        volume_net=ShallowNet3DConfig(channels=12, depth=1, out_channels=12),
        field=FieldConfig(hidden=16, geometry_channels=8),
        render=RenderConfig(num_uniform=24, num_importance=8),
        mesh_cell=0.2,
    )
