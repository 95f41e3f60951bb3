"""One feature per point, from an encoder that a run has left: python examples/01_encode.py RUN [CLOUD.npy]."""

import sys

import numpy as np

import ponder3d


def main() -> None:
    """Encode [N 3] or [N 6] (with colours 0..255) points; a corner of a room if there is no file."""
    encoder = ponder3d.load(sys.argv[1])
    if len(sys.argv) > 2:
        cloud = np.load(sys.argv[2])
    else:
        rng = np.random.default_rng(0)
        floor = rng.uniform((0, 0, 0), (3, 3, 0.01), (20_000, 3))
        wall = rng.uniform((0, 0, 0), (0.01, 3, 2.5), (20_000, 3))
        cloud = np.concatenate([floor, wall])
    rgb = cloud[:, 3:6].astype(np.uint8) if cloud.shape[1] >= 6 else None
    features = encoder.encode(cloud[:, :3], rgb=rgb)
    print(f"{len(cloud)} points, {features.shape[1]} features each; first row: {features[0, :6].numpy().round(2)} ...")


if __name__ == "__main__":
    main()
