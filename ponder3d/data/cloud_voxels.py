"""Voxels of a cloud that is made of a recording's depth and poses."""

import torch
from jaxtyping import Float
from torch import Tensor

from ponder3d.data.dataset import DataError
from ponder3d.geometry.grid import Voxels, voxelize


def voxels_of_cloud(xyz: Float[Tensor, "N 3"], spacing: float, where: str) -> Voxels:
    """The voxels of points of one recording, in its world.

    Raises:
        DataError: a point is not finite or out of the voxels' reach, which ``where`` helps to find.
    """
    try:
        return voxelize(xyz, torch.zeros(len(xyz), dtype=torch.int64), spacing)
    except ValueError as error:
        farthest = float(xyz.abs().max())
        raise DataError(
            f"{where}: points of its depth lie up to {farthest:.6g} m from the origin, too far for voxels of "
            f"{spacing:g} m: are the poses in metres? Subtract one place from all poses in map coordinates"
        ) from error
