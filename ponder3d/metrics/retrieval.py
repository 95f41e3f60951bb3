"""Whether a feature finds its own place again: what contrastive pretext tasks are measured by."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ponder3d.metrics.metric import Metric
from ponder3d.types import Batch


@dataclass(frozen=True)
class Retrieved:
    """For each of P places, which of the P candidates of its scene was taken for it; candidate i is the right one."""

    place: Float[Tensor, "P 3"]
    """Where the candidates are, metres."""
    scene: Int[Tensor, " P"]
    """Their scenes; negative: the row is empty."""
    found: Int[Tensor, " P"]
    """Row of the candidate that was taken."""


class RetrievalMetric(Metric[Retrieved]):
    """``within_10cm``: share of the places for which a candidate was taken that is at most so far from the right one.

    ``chance_10cm`` stands beside it: that share for a candidate taken at random from the same scene. Both are means
    over places, whichever scene they are of.
    """

    def __init__(self, radii: tuple[float, ...] = (0.1, 0.2)) -> None:
        check_radii("RetrievalMetric", radii)
        self.radii = radii
        # Number of places; per radius how many were found within it, and how many would be by chance.
        self.state = torch.zeros(1 + 2 * len(radii), dtype=torch.float64)

    def update(self, prediction: Retrieved, batch: Batch) -> None:
        """Add the places of some scenes."""
        keep = prediction.scene >= 0
        rows = torch.arange(len(keep), device=keep.device)[keep]
        gap = (prediction.place[prediction.found[rows]] - prediction.place[rows]).norm(dim=1)
        place, scene = prediction.place[rows], prediction.scene[rows]
        shares = [place.new_zeros(0, len(self.radii))]
        for part in torch.arange(len(rows), device=rows.device).split(1024):
            same = scene[part, None] == scene
            apart = torch.cdist(place[part], place, compute_mode="donot_use_mm_for_euclid_dist")
            near = torch.stack([(apart <= radius) & same for radius in self.radii], dim=2)
            shares.append(near.sum(1).to(place.dtype) / same.sum(1, keepdim=True))
        right = torch.stack([(gap <= radius).sum() for radius in self.radii])
        chance = torch.cat(shares).to(torch.float64).sum(0)
        sums = [right.new_full((1,), len(rows), dtype=torch.float64), right.to(torch.float64), chance]
        self.state = self.state + torch.cat(sums).to(self.state.device)

    def compute(self) -> dict[str, float]:
        """The shares by name; 0 before anything was added."""
        shares = (self.state[1:] / self.state[0].clamp(min=1)).tolist()
        names = [f"{round(100 * radius)}cm" for radius in self.radii]
        within = {f"within_{name}": share for name, share in zip(names, shares[: len(names)], strict=True)}
        chance = {f"chance_{name}": share for name, share in zip(names, shares[len(names) :], strict=True)}
        return within | chance


def check_radii(name: str, radii: tuple[float, ...]) -> None:
    """Refuse distances that are none, or that have one name in whole centimetres.

    Raises:
        ValueError: naming ``name``.
    """
    whole = [round(100 * radius) for radius in radii]
    if not whole or min(whole) < 1 or len(set(whole)) < len(whole):
        raise ValueError(f"{name}: radii must be different, of 1 cm or more, and at least one, they are {radii}")
