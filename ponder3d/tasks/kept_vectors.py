"""Class vectors that are in a checkpoint: those of a released model, or of a run whose text encoder is elsewhere."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from ponder3d.tasks.class_vectors import ClassVectors, ClassVectorsConfig
from ponder3d.types import LabelSet


@dataclass(frozen=True)
class KeptVectors(ClassVectorsConfig):
    """Vectors that are in the checkpoints of the run; random ones in their place until one of those is read."""

    channels: int = 512
    """Width of a vector."""
    origin: str = "vectors of a released model"
    """What made them."""

    def build(self, labels: LabelSet) -> ClassVectors:
        """Random directions of the same shape."""
        generator = torch.Generator().manual_seed(0)
        return ClassVectors(F.normalize(torch.randn(len(labels), self.channels, generator=generator)), self.origin)


def kept(config: ClassVectorsConfig, vectors: Float[Tensor, "K E"] | None, source: str) -> ClassVectorsConfig:
    """What stands for a choice of vectors once a checkpoint has them, with what made them; the choice itself if not."""
    return config if vectors is None or not source else KeptVectors(vectors.shape[1], source)
