"""How well a field renders views that it has never seen."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from ponder3d.geometry.mesh import Mesh, sample_surface, surface_nets
from ponder3d.geometry.tsdf import TSDF, fuse
from ponder3d.metrics.image import depth_l1, psnr, ssim
from ponder3d.metrics.metric import Metric
from ponder3d.metrics.surface import surface_distance
from ponder3d.types import Batch, Grid, Views

_SURFACE_POINTS = 10_000
_TSDF_CELL = 0.04
"""Metres: as fine as consumer depth cameras are accurate at 4 m."""


@dataclass(frozen=True)
class RenderedViews:
    """What a field shows from the cameras of one scene."""

    rgb: Float[Tensor, "V H W 3"]
    depth: Float[Tensor, "V H W"]
    """Plane depth, metres."""
    normal: Float[Tensor, "V H W 3"]
    """World frame."""
    semantic: Float[Tensor, "V H W K"] | None
    """Class scores, if the field renders semantics."""
    mesh: Mesh
    """The zero level of the field."""


class RenderingMetric(Metric[RenderedViews]):
    """Means over views, and over scenes for the surface.

    Beside the figures stand two baselines that know the answer's mean: each view's mean colour (``psnr_mean_colour``)
    and its median depth (``depth_error_median``).
    """

    NAMES = ("psnr", "ssim", "depth_error", "psnr_mean_colour", "depth_error_median")
    SURFACE = ("surface_accuracy", "surface_completeness")

    def __init__(self) -> None:
        self.state = torch.zeros(len(self.NAMES) + len(self.SURFACE) + 3, dtype=torch.float64)

    def update(self, prediction: RenderedViews, batch: Batch) -> None:
        """Add the views of a batch of one scene."""
        views = batch.views
        assert views is not None
        truth = views.rgb.to(torch.float32) / 255
        similarity = (
            ssim(prediction.rgb, truth) if min(views.cameras.size) >= 11 else torch.full((len(truth),), math.nan)
        )
        for view in range(len(truth)):
            flat = truth[view].mean((0, 1)).expand_as(truth[view])
            row = [
                psnr(prediction.rgb[view], truth[view]),
                similarity[view],
                0.0,
                psnr(flat, truth[view]),
                0.0,
                0,
                0,
                1,
                0,
                0,
            ]
            if views.depth is not None and bool((views.depth[view] > 0).any()):
                depth, seen = views.depth[view], views.depth[view] > 0
                row[2] = depth_l1(prediction.depth[view], depth, seen)
                row[4] = depth_l1(depth[seen].median().expand_as(depth), depth, seen)
                row[8] = 1
            self.state += torch.tensor([float(x) for x in row], dtype=torch.float64)
        surface = None if views.depth is None else field_to_tsdf(prediction.mesh, views)
        if surface is not None:
            self.state += torch.tensor([0.0] * 5 + [*surface, 0, 0, 1], dtype=torch.float64)

    def compute(self) -> dict[str, float]:
        """Figures by name; those that no view could give are left out. Depth and surface errors are metres."""
        sums = self.state.tolist()
        views, with_depth, surfaces = sums[-3:]
        counts = [views, views, with_depth, views, with_depth, surfaces, surfaces]
        names = (*self.NAMES, *self.SURFACE)
        return {name: s / n for name, s, n in zip(names, sums[:-3], counts, strict=True) if n and not math.isnan(s)}


def field_to_tsdf(mesh: Mesh, views: Views) -> tuple[float, float] | None:
    """Distances between a field's surface and the TSDF fusion of views' depth, metres.

    Returns:
        Accuracy (field to TSDF, over the part of the field's surface that lies where the views saw) and completeness
        (TSDF to field); None if either surface is empty.
    """
    if len(mesh.faces) == 0:
        return None
    margin = 4 * _TSDF_CELL
    lo, hi = mesh.vertices.amin(0) - margin, mesh.vertices.amax(0) + margin
    shape = ((hi - lo) / _TSDF_CELL).ceil().clamp(2, 400).to(torch.int64).tolist()
    tsdf = fuse(views, Grid(torch.stack([lo, hi])[None], (shape[0], shape[1], shape[2])), truncation=margin)
    truth = tsdf_mesh(tsdf)
    if len(truth.faces) == 0:
        return None
    generator = torch.Generator().manual_seed(0)
    predicted, true = (sample_surface(m, _SURFACE_POINTS, generator) for m in (mesh, truth))
    cell = ((predicted - lo) / (hi - lo) * torch.tensor(shape)).floor().to(torch.int64)
    cell = torch.minimum(cell.clamp(min=0), torch.tensor(shape) - 1)
    observed = (tsdf.weight[tuple(cell.T)] > 0) & (tsdf.sdf[tuple(cell.T)] < margin)
    completeness = surface_distance(predicted, true).completeness
    if not bool(observed.any()):
        return None
    return surface_distance(predicted[observed], true).accuracy, completeness


def tsdf_mesh(tsdf: TSDF) -> Mesh:
    """The surface of a TSDF, where it was observed."""
    lo, hi = tsdf.grid.box[0]
    spacing = (hi - lo) / torch.tensor(tsdf.grid.shape, dtype=lo.dtype)
    return surface_nets(tsdf.sdf, lo + spacing / 2, spacing, tsdf.weight > 0)
