import math
from dataclasses import replace

import pytest
import torch

from ponder3d.encoders.voxelnet import VoxelNetConfig, pool_to_box
from ponder3d.geometry.grid import fixed_grid
from ponder3d.types import Batch, Points, Scene
from ponder3d.types.scene import to_device
from ponder3d.volume.convert import densify
from ponder3d.volume.second3d import Second3DConfig
from ponder3d.volume.unet3d import NoNet3DConfig

SMALL = VoxelNetConfig(
    inputs=("rgb", "normal", "one"),
    grid_size=0.1,
    box=(-1.2, -1.2, -1.2, 2.4, 2.4, 2.4),
    shape=(9, 9, 3),
    channels=(4, 6, 8),
    blocks=(1, 1, 1),
    volume_channels=8,
    net=Second3DConfig((6, 8), (1, 2), 1, 7),
)


def example() -> VoxelNetConfig:
    """For the contract of encoders."""
    return SMALL


def scene_of(xyz: torch.Tensor) -> Scene:
    return Scene(xyz, None, None, "points")


def volume_of(encoder, *xyz: torch.Tensor):
    return encoder(Batch.of([scene_of(x) for x in xyz], encoder.config.inputs))


def test_the_papers_encoder():
    config = VoxelNetConfig()
    assert config.fine_shape == (1440, 1440, 40)
    encoder = config.build()
    assert encoder.out_channels == 256 and encoder.box == config.box
    limits = [stage.conv.limits for stage in encoder.down]
    assert limits == [(720, 720, 21), (360, 360, 11), (180, 180, 5)]
    assert [stage.conv.padding for stage in encoder.down] == [(1, 1, 1), (1, 1, 1), (1, 1, 0)]
    # Stem 27 x 5 x 16; 2 blocks of 2 convolutions of each width; between them 27 x 16 x 32 ...; 128 x 256 at the end;
    # scale and shift of every norm.
    convs = 27 * (5 * 16 + 4 * (16**2 + 32**2 + 64**2 + 128**2) + 16 * 32 + 32 * 64 + 64 * 128) + 128 * 256
    norms = 2 * (16 + 4 * (16 + 32 + 64 + 128) + 32 + 64 + 128 + 256)
    assert sum(p.numel() for name, p in encoder.named_parameters() if not name.startswith("net.")) == convs + norms
    # Each branch: 9 x 256 x c, 5 of 9 x c x c, a transposed convolution of stride^2 x c x 256; norms.
    branches = sum(
        9 * (256 * c + 5 * c * c) + s * s * c * 256 + 12 * c + 512 for c, s in ((128, 1), (256, 2), (512, 4))
    )
    assert sum(p.numel() for p in encoder.net.parameters()) == branches


def test_voxels_are_means_and_need_not_be_cubes(device):
    grid = fixed_grid((-1.0, 0.0, 0.0, 1.0, 3.0, 4.0), (4, 3, 2), 2, device)  # 0.5 x 1 x 2 m
    xyz = torch.tensor([[-1.0, 0, 0], [-0.51, 0.99, 1.99], [-0.5, 1, 2], [0.99, 2.99, 3.99], [0.25, 1.5, 1.0]])
    points = Points(xyz, torch.tensor([[1.0], [3], [5], [7], [9]]), torch.tensor([4, 1]))
    x = pool_to_box(to_device(points, device), grid)
    assert x.coords.tolist() == [[0, 0, 0, 0], [0, 1, 1, 1], [0, 3, 2, 1], [1, 2, 1, 0]]
    assert x.feats.tolist() == [[2], [5], [7], [9]] and x.num_scenes == 2


def test_points_outside_are_dropped_and_never_wrapped(device):
    """One on each face and beyond it, in the first scene of two and in the last, and coordinates that are none."""
    grid = fixed_grid((-1.0, -1.0, -1.0, 1.0, 1.0, 1.0), (4, 4, 4), 2, device)
    inside = torch.tensor([[-1.0, -1, -1], [0.999, 0.999, 0.999]])
    outside = [[0.0] * 3 for _ in range(12)]
    for axis in range(3):
        for number, value in enumerate((1.0, 1.001, -1.001, 1e30)):
            outside[4 * axis + number][axis] = value
    outside += [[math.nan, 0, 0], [0, math.inf, 0], [0, 0, -math.inf]]
    xyz = torch.cat([inside, torch.tensor(outside)])
    points = Points(xyz.repeat(2, 1), torch.ones(2 * len(xyz), 1), torch.tensor([len(xyz)] * 2))
    x = pool_to_box(to_device(points, device), grid)
    assert x.coords.tolist() == [[0, 0, 0, 0], [0, 3, 3, 3], [1, 0, 0, 0], [1, 3, 3, 3]]
    assert x.feats.tolist() == [[1]] * 4


def test_nothing_outside_changes_a_feature():
    encoder = replace(SMALL, inputs=("one", "intensity")).build().eval()
    inner = torch.rand(200, 3) * 3.6 - 1.2
    outer = torch.cat([inner[:50] + torch.eye(3)[axis] * sign for axis in range(3) for sign in (3.6, -3.6)])
    with torch.no_grad():
        alone = volume_of(encoder, inner).feats
        assert torch.equal(volume_of(encoder, torch.cat([inner, outer])).feats, alone)
        nothing = volume_of(encoder, outer).feats
    assert torch.equal(nothing, volume_of(encoder, inner[:0]).feats), "a scene whose points all lie elsewhere"


def test_the_whole_box_is_covered():
    """Points everywhere occupy every cell of the volume, and its sparse part has nothing beyond."""
    encoder = replace(SMALL, inputs=("one",), net=NoNet3DConfig()).build()
    fine = encoder.config.fine_shape
    at = torch.cartesian_prod(*(torch.arange(n) for n in fine))
    volume = volume_of(encoder, (at + 0.5) / torch.tensor(fine) * 3.6 - 1.2)
    assert volume.feats.shape == (1, 9, 9, 3, 8)
    assert torch.equal(volume.occupied.rows, torch.arange(9 * 9 * 3))


@pytest.mark.parametrize("at", [(6, 2, 1), (1, 7, 0), (4, 4, 2)])
def test_features_are_where_the_points_are(at):
    """Axes are not swapped, mirrored or shifted by more than the half cell of the released networks."""
    encoder = replace(SMALL, inputs=("one",), net=NoNet3DConfig()).build()
    cell = torch.tensor([0.4, 0.4, 1.2])
    xyz = torch.tensor([-1.2] * 3) + (torch.tensor(at) + torch.rand(400, 3)) * cell
    feats = volume_of(encoder, xyz).feats[0].detach().square().sum(-1)
    grid = torch.stack(torch.meshgrid(*map(torch.arange, feats.shape), indexing="ij"), dim=-1)
    reached = grid[feats > 0]
    assert at in [tuple(row) for row in reached.tolist()]
    assert bool(((reached - torch.tensor(at)).abs() <= 1).all())


def test_its_grid_is_known_to_be_that_of_the_task():
    encoder = SMALL.build()
    volume = volume_of(encoder, torch.rand(50, 3))
    assert densify(volume, fixed_grid(SMALL.box, SMALL.shape, 1)) is volume
    other = densify(volume, fixed_grid((*SMALL.box[:5], 2.3), SMALL.shape, 1))
    assert other.feats.shape == volume.feats.shape and other is not volume


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"box": (0.0, 0.0, 0.0, 1.0, 1.0, 0.0)}, "lower < upper"),
        ({"box": (0.0, 0.0, 0.0, 1.0, 1.0, math.inf)}, "lower < upper"),
        ({"shape": (4, 0, 4)}, "cells must be positive"),
        ({"inputs": ()}, "choose from rgb"),
        ({"inputs": ("rgbd",)}, "choose from rgb"),
        ({"grid_size": 0.0}, "grid_size must be positive"),
        ({"blocks": (1, 1)}, "one entry per level"),
        ({"shape": (20000, 4, 4)}, "voxels along an axis"),
    ],
)
def test_bad_choices(changes, message):
    with pytest.raises(ValueError, match=f"VoxelNetConfig.*{message}"):
        replace(SMALL, **changes)
