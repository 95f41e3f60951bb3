from ponder3d.encoders.voxelnet import VoxelNetConfig
from ponder3d.volume.second3d import Second3DConfig

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
