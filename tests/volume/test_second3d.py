from ponder3d.volume.second3d import Second3DConfig


def example() -> Second3DConfig:
    """For the contract of dense networks."""
    return Second3DConfig((6, 8, 10), (1, 2, 4), 1, 7)
