"""What contrastive pretext tasks share: the InfoNCE loss, and finding a place among the others of its scene."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from ponder3d.geometry.drawing import principal_colours, top_view
from ponder3d.geometry.rows import take
from ponder3d.metrics.retrieval import RetrievalMetric, Retrieved
from ponder3d.tasks.pairs import PairsConfig, mine_pairs, second_view
from ponder3d.tasks.task import Picture, Task
from ponder3d.types import Batch
from ponder3d.volume.convert import sample_at

_NOWHERE = -1e4
"""Score of what is no candidate: far below any cosine divided by a temperature, and finite, unlike its gradient at
minus infinity."""


def info_nce(
    queries: Float[Tensor, "P C"],
    targets: Float[Tensor, "P C"],
    valid: Bool[Tensor, " P"],
    temperature: float,
    owner: Int[Tensor, " P"] | None = None,
) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """Cross-entropy of telling the target of each query from those of all others by its cosine (Oord et al. 2018).

    Args:
        queries: of any length; they are brought to length 1.
        targets: row i is that of query i.
        valid: rows that take part, as queries and as targets.
        temperature: cosines are divided by it.
        owner: rows of one owner show the same thing, and are no candidates for each other's queries.

    Returns:
        The mean over the valid queries, and the share of them whose own target has the highest cosine; 0 without any.
    """
    queries, targets = F.normalize(queries.float(), dim=1), F.normalize(targets.float(), dim=1)
    scores = (queries @ targets.T / temperature).masked_fill(~valid[None], _NOWHERE)
    if owner is not None:
        own_row = torch.eye(len(owner), dtype=torch.bool, device=owner.device)
        scores = scores.masked_fill((owner[:, None] == owner) & ~own_row, _NOWHERE)
    own = (queries * targets).sum(1) / temperature
    num = valid.sum().clamp(min=1)
    loss = ((scores.logsumexp(1) - own) * valid).sum() / num
    with torch.no_grad():
        likeliest = (
            scores.argmax(1) if len(scores) else torch.zeros_like(valid, dtype=torch.int64)
        )  # views may be empty
        right = likeliest == torch.arange(len(scores), device=scores.device)
        return loss, (right & valid).sum() / num


@torch.no_grad()
def most_alike(
    queries: Float[Tensor, "P C"], targets: Float[Tensor, "P C"], scene: Int[Tensor, " P"]
) -> Int[Tensor, " P"]:
    """Row of the target of the same scene with the highest cosine, for each query. Rows of scene -1 find each other."""
    queries, targets = F.normalize(queries.float(), dim=1), F.normalize(targets.float(), dim=1)
    found = [scene.new_zeros(0)]
    if not len(queries):
        return found[0]
    for part, own in zip(queries.split(4096), scene.split(4096), strict=True):
        found.append((part @ targets.T).masked_fill(own[:, None] != scene, _NOWHERE).argmax(1))
    return torch.cat(found)


@dataclass(frozen=True)
class Compared(Retrieved):
    """Places of one view that were looked for in the other, and the features of all points of both."""

    first: Float[Tensor, "N C"]
    """Of the first view's points."""
    second: Float[Tensor, "M C"]
    """Of the second's."""


class TwoViewTask(Task):
    """A task whose features of one place are to be alike in two views; it is measured by finding places again."""

    projection: nn.Module
    pairs: PairsConfig
    radii: tuple[float, ...]
    """Metres; a place counts as found within them."""

    def features(self, batch: Batch) -> Float[Tensor, "N C"]:
        """What the encoder makes of every point of a view."""
        points = batch.points
        return sample_at(self.encoder(batch), points.xyz, points.scene)

    @torch.no_grad()
    def predict(self, batch: Batch) -> Compared:
        """For places of the first view, which of their partners in the second has the most similar feature.

        Raises:
            ValueError: the batch has no second view.
        """
        other = second_view(batch, f"{type(self).__name__}.predict")
        pairs = mine_pairs(batch, self.pairs)
        first, second = (self.projection(self.features(view)).float() for view in (batch, other))
        scene = torch.where(pairs.valid, pairs.scene, -1)
        found = most_alike(take(first, pairs.first), take(second, pairs.second), scene)
        assert other.place is not None
        return Compared(take(other.place, pairs.second), scene, found, first, second)

    def metric(self) -> RetrievalMetric:
        """How often a place is found again, and how often by chance."""
        return RetrievalMetric(self.radii)

    def pictures(self, prediction: Compared, batch: Batch) -> list[Picture]:
        """``features``: both views of the first scene from above, where they were before they were turned, in the
        colours of three principal components of the features: what is alike looks alike."""
        assert batch.pair is not None and batch.place is not None and batch.pair.place is not None
        num, other = int(batch.points.counts[0]), int(batch.pair.points.counts[0])
        feats = torch.cat([prediction.first[:num], prediction.second[:other]]).cpu()
        colours = principal_colours(feats).split([num, other])
        places = (batch.place[:num], batch.pair.place[:other])
        views = [top_view(place, rgb) for place, rgb in zip(places, colours, strict=True)]
        return [Picture("features", torch.cat(views, dim=1))]
