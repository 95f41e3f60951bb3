"""VoxelNet, the outdoor encoder of UniPAD: sparse convolutions down to a dense volume over a fixed box.

Zhou and Tuzel 2018 (voxels of a fixed box), Yan et al. 2018 (sparse convolutions down to an eighth of the resolution).
Numbers as in UniPAD's ``MaskSparseEncoderHD``, ``SECOND3D`` and ``SECOND3DFPN``.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from ponder3d.encoders.encoder import Encoder, EncoderConfig, check_inputs
from ponder3d.encoders.norms import PlainNormConfig
from ponder3d.encoders.sparse_blocks import ConvNormReLU, ResidualBlock, norms_of
from ponder3d.geometry.grid import (
    AXIS_BITS,
    MAX_COORDINATE,
    MAX_SCENES,
    cells_from_world,
    check_box,
    fixed_grid,
    key_offset,
    ravel,
    unique_keys,
    unpack_keys,
)
from ponder3d.geometry.rows import sum_rows
from ponder3d.sparse import SparseTensor
from ponder3d.sparse.nn import StridedConv3d, SubmConv3d
from ponder3d.sparse.tensor import MapCache
from ponder3d.types import Batch, Grid, Occupied, Points, Volume
from ponder3d.types.scene import INPUT_CHANNELS
from ponder3d.volume.second3d import Second3DConfig
from ponder3d.volume.unet3d import VolumeNetConfig

Triple = tuple[int, int, int]


@dataclass(frozen=True)
class VoxelNetConfig(EncoderConfig):
    """Choices of a VoxelNet; the defaults are UniPAD's. A voxel is a cell of the volume, divided by 2 per level: with
    three levels and cells of 0.6 x 0.6 x 1.6 m it is 0.075 x 0.075 x 0.2 m."""

    inputs: tuple[str, ...] = ("xyz", "intensity", "time")
    """Point channels, in order."""
    grid_size: float = 0.075
    """Metres; input clouds are thinned to one point per cube of this edge where they are thinned at all."""
    box: tuple[float, float, float, float, float, float] = (-54.0, -54.0, -5.0, 54.0, 54.0, 3.0)
    """Lower x, y, z, upper x, y, z of the volume in metres, in the scenes' frame; points outside are not seen."""
    shape: tuple[int, int, int] = (180, 180, 5)
    """Cells of the volume along x, y and z."""
    channels: tuple[int, ...] = (16, 32, 64, 128)
    """Channels of each level from fine to coarse; from one to the next, voxels double in size."""
    blocks: tuple[int, ...] = (2, 2, 2, 2)
    """Residual blocks of each level."""
    volume_channels: int = 256
    """Channels of the volume that the sparse part ends in."""
    net: VolumeNetConfig = Second3DConfig()
    """The dense network behind it; ``NoNet3DConfig`` ends with the sparse part."""
    norm_eps: float = 1e-3
    """Added to the variance in every batch norm of the sparse part."""
    norm_momentum: float = 0.01
    """Weight of the new statistics."""

    def __post_init__(self):
        check_inputs("VoxelNetConfig", self.inputs)
        check_box("VoxelNetConfig", self.box, self.shape)
        if self.grid_size <= 0:
            raise ValueError("VoxelNetConfig.grid_size must be positive")
        if not self.channels or len(self.channels) != len(self.blocks):
            raise ValueError(
                f"VoxelNetConfig: channels ({len(self.channels)}) and blocks ({len(self.blocks)}) need one entry per "
                "level"
            )
        if max(self.fine_shape) > MAX_COORDINATE:
            raise ValueError(f"VoxelNetConfig: more than {MAX_COORDINATE} voxels along an axis")

    @property
    def fine_shape(self) -> Triple:
        """Voxels of the input along x, y and z."""
        factor = 1 << (len(self.channels) - 1)
        return (self.shape[0] * factor, self.shape[1] * factor, self.shape[2] * factor)

    def build(self) -> "VoxelNet":
        """A freshly initialised encoder."""
        return VoxelNet(self)


class VoxelNet(Encoder):
    """Features of a fixed box as a dense volume.

    Convolutions with stride 2 begin one voxel before the first (padding 1), so that along x and y a cell's features are
    centred half a cell before its middle; the released networks are built like that, and the dense network, whose
    kernels reach farther, learns where things are. Along z the last one begins with the first voxel.
    """

    def __init__(self, config: VoxelNetConfig):
        super().__init__()
        self.config = config
        self.box = config.box
        norms = norms_of(PlainNormConfig(), config.norm_eps, config.norm_momentum)
        in_channels = sum(INPUT_CHANNELS[name] for name in config.inputs)
        widths, last = config.channels, len(config.channels) - 1
        self.stem = ConvNormReLU(SubmConv3d(in_channels, widths[0]), norms)
        self.stages = nn.ModuleList(
            [
                nn.ModuleList([ResidualBlock(width, width, norms) for _ in range(num)])
                for width, num in zip(widths, config.blocks, strict=True)
            ]
        )
        self.down = nn.ModuleList()
        for level in range(1, last + 1):
            x, y, z = (n << (last - level) for n in config.shape)
            # Along z there is a voxel more than the box has, until the last step, without padding, takes it away: 41,
            # 21, 11, 5.
            ends = level == last
            conv = StridedConv3d(
                widths[level - 1], widths[level], 3, 2, (1, 1, 0 if ends else 1), (x, y, z if ends else z + 1)
            )
            self.down.append(ConvNormReLU(conv, norms))
        self.head = ConvNormReLU(SubmConv3d(widths[-1], config.volume_channels, kernel=1), norms)
        self.net = config.net.build(config.volume_channels)
        self.out_channels = self.net.out_channels

    def forward(self, batch: Batch) -> Volume:
        """The volume over the box of each scene; points that share a voxel enter as their mean.

        Raises:
            ValueError: more scenes than voxels have keys for.
        """
        config = self.config
        assert isinstance(config, VoxelNetConfig)
        device = batch.points.xyz.device
        x = self.stem(pool_to_box(batch.points, fixed_grid(config.box, config.fine_shape, len(batch), device)), None)
        for level, stage in enumerate(self.stages):
            if level:
                x = self.down[level - 1](x, None)
            assert isinstance(stage, nn.ModuleList)
            for block in stage:
                x = block(x, None)
        volume = as_volume(self.head(x, None), fixed_grid(config.box, config.shape, len(batch), device))
        return self.net(volume)


def pool_to_box(points: Points, grid: Grid) -> SparseTensor:
    """The mean features of the points in each occupied cell of a grid, cell ``i`` at coordinate ``i``.

    Points outside the box, and those whose coordinates are not finite, are left out. The host waits for a GPU once, for
    the number of occupied cells. Cells need not be cubes: the tensor's ``voxel_size`` is 1, a cell.

    Raises:
        ValueError: more scenes than there are keys for.
    """
    num_scenes = len(grid.box)
    if num_scenes > MAX_SCENES:
        raise ValueError(f"pool_to_box: more than {MAX_SCENES} scenes in a batch")
    found, _ = unique_keys(_keys(points.xyz, points.scene, grid))
    # The last key is of what lies outside: its row is cut off.
    total = sum_rows(points.feats, found.row[:-1], len(found.keys))
    coords, keys = unpack_keys(found.keys[:-1]), found.keys[:-1]
    maps = MapCache()
    maps.add_level(1, coords, keys)
    return SparseTensor(coords, total[:-1] / found.counts[:-1, None], num_scenes, 1, 1.0, maps)


def _keys(xyz: Float[Tensor, "N 3"], scene: Int[Tensor, " N"], grid: Grid) -> Int[Tensor, " N1"]:
    """Key of each point's cell; that of what lies outside is greater than all others, and once more at the end."""
    # Axis by axis: rows of three take PyTorch twice the time.
    cells = torch.floor(cells_from_world(grid, xyz, scene)).unbind(1)
    fits = [(cell >= 0) & (cell < n) for cell, n in zip(cells, grid.shape, strict=True)]  # NaN does not
    half = 1 << (AXIS_BITS - 1)  # the coordinate 0 in a key
    keys = scene
    for cell in cells:
        keys = (keys << AXIS_BITS) + (cell.to(torch.int64) + half)
    beyond = ((len(grid.box) - 1) << 3 * AXIS_BITS) + key_offset(half + grid.shape[0], half, half)
    keys = torch.where(fits[0] & fits[1] & fits[2], keys, beyond)
    return F.pad(keys, (0, 1), value=beyond)


def as_volume(x: SparseTensor, grid: Grid) -> Volume:
    """A sparse tensor whose coordinates are cells of a grid, as a volume that is zero elsewhere."""
    rows = ravel(x.coords[:, 1:], x.coords[:, 0], grid.shape)
    num_cells = len(grid.box) * grid.shape[0] * grid.shape[1] * grid.shape[2]
    whole = x.feats.new_zeros(num_cells, x.feats.shape[1]).index_copy(0, rows, x.feats)
    return Volume(grid, whole.view(len(grid.box), *grid.shape, x.feats.shape[1]), Occupied(rows, x.feats))
