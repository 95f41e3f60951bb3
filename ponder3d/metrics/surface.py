"""Distances between surfaces given as point samples."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from ponder3d.geometry.neighbors import knn


@dataclass(frozen=True)
class SurfaceDistance:
    """How far a surface is from the true one; metres."""

    accuracy: float
    """Mean distance from the predicted surface to the true one."""
    completeness: float
    """Mean distance from the true surface to the predicted one."""
    f_score: float
    """Harmonic mean of the shares of points closer than the threshold, in both directions."""

    @property
    def chamfer(self) -> float:
        """Mean of both directions (Chamfer-L1)."""
        return (self.accuracy + self.completeness) / 2


def surface_distance(
    predicted: Float[Tensor, "N 3"], truth: Float[Tensor, "M 3"], threshold: float = 0.05
) -> SurfaceDistance:
    """Compare two surfaces by points spread evenly over them.

    Raises:
        ValueError: one of them has no points.
    """
    if len(predicted) == 0 or len(truth) == 0:
        raise ValueError("surface_distance: a surface without points")
    there, back = _nearest(predicted, truth), _nearest(truth, predicted)
    precision, recall = (float((d <= threshold).float().mean()) for d in (there, back))
    total = precision + recall
    return SurfaceDistance(float(there.mean()), float(back.mean()), 2 * precision * recall / total if total else 0.0)


def _nearest(query: Float[Tensor, "N 3"], points: Float[Tensor, "M 3"]) -> Float[Tensor, " N"]:
    one_scene = [torch.zeros(len(p), dtype=torch.int64, device=p.device) for p in (query, points)]
    return knn(query, one_scene[0], points, one_scene[1], 1)[1][:, 0]
