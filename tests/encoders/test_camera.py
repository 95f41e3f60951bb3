"""The camera encoder as a whole; its parts have tests of their own in ``tests/encoders/image``."""

from dataclasses import replace

import pytest
import torch

from ponder3d.encoders.camera import CameraEncoderConfig
from ponder3d.encoders.image.convnext import ConvNeXtConfig
from ponder3d.encoders.image.depth import DepthBins, SimpleDepth
from ponder3d.encoders.image.lift import BilinearLift, DepthWeightedLift
from ponder3d.encoders.image.lift_splat import LiftSplat
from ponder3d.encoders.image.neck import FPNConfig
from ponder3d.types import Batch, Cameras, Scene, Views

BACKBONE = ConvNeXtConfig(depths=(1, 1, 1, 1), dims=(8, 8, 16, 16), layer_scale=1.0)
BINS = DepthBins(near=0.5, far=8.5, num=16)


def example() -> CameraEncoderConfig:
    return CameraEncoderConfig(
        box=(-4.0, -4.0, -2.0, 4.0, 4.0, 3.0),
        shape=(8, 8, 5),
        backbone=BACKBONE,
        neck=FPNConfig(8),
        lift=LiftSplat(6, BINS, SimpleDepth()),
        convs=1,
    )


def views(num: int, height: int = 40, width: int = 70) -> Views:
    """Cameras at the origin that look along y, one beside the other."""
    pose = torch.tensor([[1.0, 0, 0, 0], [0, 0, 1, 0], [0, -1, 0, 0], [0, 0, 0, 1]]).repeat(num, 1, 1)
    pose[:, 0, 3] = torch.arange(num)
    intrinsics = torch.tensor([[35.0, 0, (width - 1) / 2], [0, 35, (height - 1) / 2], [0, 0, 1]]).repeat(num, 1, 1)
    rgb = torch.randint(0, 256, (num, height, width, 3), dtype=torch.uint8)
    return Views(Cameras(intrinsics, pose, (height, width)), rgb, None, None, torch.tensor([num]))


def scene(num: int = 2, **fields) -> Scene:
    return Scene(torch.rand(5, 3), None, None, "street", images=views(num), **fields)


LIFTS = [LiftSplat(6, BINS, SimpleDepth()), BilinearLift(6), DepthWeightedLift(6, BINS)]


@pytest.mark.parametrize("lift", LIFTS, ids=lambda lift: type(lift).__name__)
def test_the_volume_is_that_of_the_configuration(lift):
    encoder = replace(example(), lift=lift).build()
    volume = encoder(Batch.of([scene(), scene()], ()))
    assert volume.feats.shape == (2, 8, 8, 5, 6)
    assert volume.grid.shape == (8, 8, 5)
    assert torch.equal(volume.grid.box[1], torch.tensor([[-4.0, -4, -2], [4, 4, 3]]))
