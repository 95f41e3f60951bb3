"""A target without labels: what surrounds the point that a ray ends at.

Masked prediction of a fixed descriptor instead of raw pixels is what MaskFeat (Wei et al. 2022) does with oriented
gradients in images. Here the descriptor is a shape context (Belongie et al. 2002; in 3D: Frome et al. 2004): square
rings around the point, cut into layers by height, and in each cell the area of horizontal and of upright surface. It is
computed from the whole cloud, so a corrupted input has to be completed to render it.
"""

from dataclasses import dataclass, replace
from itertools import pairwise

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Generator, Tensor

from ponder3d.data.transforms import Transform
from ponder3d.types import Scene


@dataclass(frozen=True)
class ContextTarget(Transform):
    """Gives every ray with a measured distance the surroundings of its end point as ``targets.feature``, after the
    channels that are there already.

    Put it after ``GridSample`` and ``PickRays`` and before the transforms that take points away. Scenes need normals.
    """

    cell: float = 0.1
    """Metres; radii and heights are rounded to whole cells."""
    radii: tuple[float, ...] = (0.15, 0.35, 0.65, 1.25)
    """Half widths of the rings' outer edges."""
    heights: tuple[float, ...] = (-1.2, -0.6, -0.3, -0.1, 0.1, 0.3, 0.6, 1.2)
    """Edges of the layers above and below the point."""
    spacing: float = 0.0
    """Metres between the points of the cloud; a point stands for the square of it. 0 takes the encoder's grid size."""
    oriented: bool = True
    """Whether horizontal and upright surface count apart. If not, normals are not needed: a laser gives none."""

    def __post_init__(self):
        if self.spacing < 0:
            raise ValueError(f"ContextTarget.spacing must not be negative, it is {self.spacing}")
        if not self.cell > 0:
            raise ValueError(f"ContextTarget.cell must be positive, not {self.cell:g}")
        rings, layers = _cells(self.radii, self.heights, self.cell)
        if not rings or rings[0] < 0 or not _rises(rings):
            raise ValueError(f"ContextTarget.radii: {self.radii} must rise by at least a cell of {self.cell:g} m each")
        if len(layers) < 2 or not _rises(layers):
            raise ValueError(
                f"ContextTarget.heights: {self.heights} must rise by at least a cell of {self.cell:g} m each"
            )

    @property
    def channels(self) -> int:
        """Width of the target."""
        return (1 + self.oriented) * len(self.radii) * (len(self.heights) - 1)

    def added_features(self) -> int:
        """``channels``."""
        return self.channels

    def on_grid(self, grid_size: float) -> "ContextTarget":
        """For clouds with one point per voxel of the encoder, unless it has been told otherwise."""
        return self if self.spacing else replace(self, spacing=grid_size)

    def __call__(self, scene: Scene, generator: Generator) -> Scene:
        if not self.spacing:
            raise ValueError(
                "ContextTarget.spacing is left to the encoder: set it, or take the transform from an Experiment"
            )
        if scene.rays is None or scene.targets is None or scene.targets.t is None:
            raise ValueError(f"ContextTarget: {scene.source} has no rays with distances; put PickRays before it")
        if scene.normal is None and self.oriented:
            raise ValueError(f"ContextTarget: {scene.source} has no normals; set oriented to False")
        normal = scene.normal if self.oriented else None
        ends = scene.rays.origins + scene.targets.t[:, None] * scene.rays.directions
        density = surroundings(ends, scene.xyz, normal, self.cell, self.radii, self.heights)
        # The root keeps a wall beside the point from drowning the leg of a chair.
        feature = (density * self.spacing**2).sqrt()
        if scene.targets.feature is not None:
            feature = torch.cat([scene.targets.feature, feature], dim=1)
        return replace(scene, targets=replace(scene.targets, feature=feature))


def surroundings(
    query: Float[Tensor, "Q 3"],
    points: Float[Tensor, "N 3"],
    normal: Float[Tensor, "N 3"] | None,
    cell: float,
    radii: tuple[float, ...],
    heights: tuple[float, ...],
) -> Float[Tensor, "Q K"]:
    """Number of points in each part of the surroundings of each query, per square metre of the ring's footprint.

    Columns: (horizontal, upright) x ring x layer; a surface is horizontal if its normal is within 45 degrees of
    vertical; without normals there is one set of columns for all. A ring is what a square of its half width has more
    than the one before. Counted with a summed-volume table: the work per query does not depend on the number of points.
    """
    sides = 1 if normal is None else 2
    if len(points) == 0:
        return query.new_zeros(len(query), sides * len(radii) * (len(heights) - 1))
    lo = points.amin(0) - cell / 2  # a cloud on a lattice of cells then lies at their centres, away from rounding
    index = ((points - lo) / cell).to(torch.int64)
    shape = (index.amax(0) + 1).tolist()
    upright = 0 if normal is None else (normal[:, 2].square() < 0.5).to(torch.int64)
    flat = ((upright * shape[0] + index[:, 0]) * shape[1] + index[:, 1]) * shape[2] + index[:, 2]
    counts = torch.bincount(flat, minlength=sides * shape[0] * shape[1] * shape[2]).view(sides, *shape)
    # table[:, i, j, k]: points with x < i, y < j, z < k.
    table = F.pad(counts.cumsum(1).cumsum(2).cumsum(3), (1, 0, 1, 0, 1, 0))
    centre = torch.floor((query - lo) / cell).to(torch.int64)
    half, edges = (torch.tensor(numbers) for numbers in _cells(radii, heights, cell))
    x, y = (
        torch.stack([c[:, None] - half, c[:, None] + half + 1]).clamp(0, n)
        for c, n in zip(centre.unbind(1)[:2], shape[:2], strict=True)
    )  # [2 Q rings]: lower and upper end
    # The layer that holds the point itself reaches one cell further up: heights count from the centre of its cell.
    z = (centre[:, 2:] + edges + (edges > 0)).clamp(0, shape[2])  # [Q edges]
    below = [
        [table[:, x[i][:, :, None], y[j][:, :, None], z[:, None, :]] for j in (0, 1)] for i in (0, 1)
    ]  # each [sides Q rings edges]
    column = below[1][1] - below[0][1] - below[1][0] + below[0][0]
    squares = torch.diff(column, dim=-1)
    rings = torch.diff(squares, dim=2, prepend=torch.zeros_like(squares[:, :, :1]))
    width = (2 * half + 1) * cell
    footprint = torch.diff(width.square(), prepend=torch.zeros(1))
    density = rings / footprint[:, None]
    return density.permute(1, 0, 2, 3).flatten(1).to(query.dtype)


def _cells(radii: tuple[float, ...], heights: tuple[float, ...], cell: float) -> tuple[list[int], list[int]]:
    """Half widths of the rings and edges of the layers in whole cells."""
    return [int(r / cell) for r in radii], [round(h / cell) for h in heights]


def _rises(numbers: list[int]) -> bool:
    return all(a < b for a, b in pairwise(numbers))
