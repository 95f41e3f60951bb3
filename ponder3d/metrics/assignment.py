"""How far two networks agree on what they assign the same places to."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ponder3d.metrics.metric import Metric
from ponder3d.types import Batch


@dataclass(frozen=True)
class Assignment:
    """Places that two networks have seen, each in a view of its own."""

    student: Int[Tensor, " M"]
    """Number of the prototype that each is assigned to."""
    teacher: Int[Tensor, " M"]
    found: Bool[Tensor, " Q"]
    """Of some of them, whether the teacher's embedding that is most like the student's is that of the same place."""
    xyz: Float[Tensor, "M 3"]
    """Metres, before anything turned the scene."""
    scene: Int[Tensor, " M"]


class AssignmentMetric(Metric[Assignment]):
    """Counts over places.

    ``agreement`` is the share with one prototype, ``agreement_chance`` what it would be of places drawn at random from
    the teacher's; ``retrieval`` the share that is found again; ``prototypes_used`` the exponential of the entropy of
    the teacher's prototypes: 1 if all places are the same to it.
    """

    def __init__(self, num_prototypes: int):
        # Places, agreed, looked for, found, and places by the teacher's prototype.
        self.state = torch.zeros(4 + num_prototypes, dtype=torch.float64)

    def update(self, prediction: Assignment, batch: Batch) -> None:
        """Add the places of a batch."""
        student, teacher, found = (x.cpu() for x in (prediction.student, prediction.teacher, prediction.found))
        counts = (len(student), int((student == teacher).sum()), len(found), int(found.sum()))
        self.state[:4] += torch.tensor(counts, dtype=torch.float64)
        self.state[4:] += torch.bincount(teacher, minlength=len(self.state) - 4)

    def compute(self) -> dict[str, float]:
        """The figures; 0 where there was nothing to compare."""
        places, agreed, queries, found = self.state[:4].tolist()
        share = self.state[4:] / max(places, 1.0)
        entropy = -(share * share.clamp(min=1e-300).log()).sum()
        return {
            "agreement": agreed / max(places, 1.0),
            "agreement_chance": float(share.square().sum()),
            "retrieval": found / max(queries, 1.0),
            "prototypes_used": float(entropy.exp()) if places else 0.0,
        }
