"""Class vectors that came with somebody's trained model."""

from dataclasses import dataclass

from ponder3d.tasks.class_vectors import ClassVectors, ClassVectorsConfig, class_codes
from ponder3d.types import LabelSet


@dataclass(frozen=True)
class KeptVectors(ClassVectorsConfig):
    """Vectors that came with a released model, and are in the checkpoints of its run; fixed codes in their place until
    one of those is read."""

    channels: int = 512
    """Width of a vector."""
    origin: str = "a released model"
    """Where they are from."""

    def build(self, labels: LabelSet) -> ClassVectors:
        """Fixed codes of the same shape."""
        return ClassVectors(class_codes(len(labels), self.channels), f"vectors of {self.origin}")
