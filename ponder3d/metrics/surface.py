"""How far a field's surface is from what depth images measured."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Generator, Tensor

from ponder3d.geometry.grid import cells_from_world, ravel
from ponder3d.geometry.mesh import Mesh, face_areas, sample_surface, surface_nets
from ponder3d.geometry.neighbors import knn
from ponder3d.geometry.tsdf import TSDF, fuse
from ponder3d.types import Grid, Views

_TSDF_CELL = 0.04
"""Metres: as fine as consumer depth cameras are accurate at 4 m."""
_SPACING = 0.02
"""Metres between the points that stand for a surface; half of it is what two equal surfaces are apart."""
_MOST_POINTS = 1_000_000
"""A surface of more than 400 m2, as of a field that is all noise, gets points that are further apart."""
_ASKED_POINTS = 10_000
"""Points over which a distance is averaged."""


@dataclass(frozen=True)
class FieldToTSDF:
    """How far a field's surface and the one that depth images measured are from each other; metres."""

    accuracy: float | None
    """Mean distance to the measured surface from the field's, as far as that lies where the views looked: in front of
    what they measured, or at most the truncation behind it. None if no part of it does."""
    completeness: float | None
    """Mean distance from the measured surface to the field's; None if the field has no surface."""


def field_to_tsdf(mesh: Mesh, views: Views, bounds: Float[Tensor, "2 3"]) -> FieldToTSDF | None:
    """Compare a field's surface with the TSDF fusion of views' depth. All on the CPU.

    Args:
        mesh: the field's surface.
        views: views of one scene with depth.
        bounds: lower and upper corner of the scene. What is measured further out than the truncation does not count.

    Returns:
        None if the views measured no surface within the bounds.
    """
    margin = 4 * _TSDF_CELL
    lo, hi = bounds[0] - margin, bounds[1] + margin
    shape = ((hi - lo) / _TSDF_CELL).ceil().clamp(2, 400).to(torch.int64).tolist()
    tsdf = fuse(views, Grid(torch.stack([lo, hi])[None], (shape[0], shape[1], shape[2])), truncation=margin)
    generator = Generator().manual_seed(0)
    measured, surface = (_spread_points(m, generator) for m in (tsdf_mesh(tsdf), mesh))
    if len(measured) == 0:
        return None
    seen = surface[_observed(tsdf, surface)]
    return FieldToTSDF(
        accuracy=mean_distance(seen[:_ASKED_POINTS], measured) if len(seen) else None,
        completeness=mean_distance(measured[:_ASKED_POINTS], surface) if len(surface) else None,
    )


def tsdf_mesh(tsdf: TSDF) -> Mesh:
    """The surface of a TSDF, where it was observed."""
    lo, hi = tsdf.grid.box[0]
    spacing = (hi - lo) / torch.tensor(tsdf.grid.shape, dtype=lo.dtype, device=lo.device)
    return surface_nets(tsdf.sdf, lo + spacing / 2, spacing, tsdf.weight > 0)


def mean_distance(points: Float[Tensor, "N 3"], surface: Float[Tensor, "M 3"]) -> float:
    """Mean distance of points from the nearest of those that stand for a surface; neither may be empty."""
    one_scene = [torch.zeros(len(p), dtype=torch.int64, device=p.device) for p in (points, surface)]
    return float(knn(points, one_scene[0], surface, one_scene[1], 1)[1].mean())


def _spread_points(mesh: Mesh, generator: Generator) -> Float[Tensor, "N 3"]:
    """Points as dense everywhere as ``_SPACING`` says, in random order; none for a mesh without area."""
    area = float(face_areas(mesh).sum())
    num_points = min(round(area / _SPACING**2), _MOST_POINTS)
    return sample_surface(mesh, num_points, generator) if num_points else mesh.vertices[:0]


def _observed(tsdf: TSDF, xyz: Float[Tensor, "N 3"]) -> Bool[Tensor, " N"]:
    """Whether points lie in cells that some view saw."""
    one_scene = torch.zeros(len(xyz), dtype=torch.int64)
    cells = cells_from_world(tsdf.grid, xyz, one_scene).floor().to(torch.int64)
    inside = ((cells >= 0) & (cells < torch.tensor(tsdf.grid.shape))).all(1)
    weight = tsdf.weight.flatten()[ravel(cells * inside[:, None], one_scene, tsdf.grid.shape)]
    return inside & (weight > 0)
