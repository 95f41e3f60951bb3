"""Oriented 3D boxes."""

from dataclasses import dataclass

from jaxtyping import Float, Int
from torch import Tensor


@dataclass(frozen=True)
class Boxes:
    """Upright boxes in the world frame. Convention: yaw turns +x towards +y about the world z axis."""

    centre: Float[Tensor, "K 3"]
    """Centre of the box (not of its floor), metres."""
    size: Float[Tensor, "K 3"]
    """Full extents along the box's own x, y and z axes, metres."""
    yaw: Float[Tensor, " K"]
    """Radians."""
    label: Int[Tensor, " K"]
    """Index into the dataset's LabelSet."""
    score: Float[Tensor, " K"] | None = None
    """Confidence of a prediction; None for ground truth."""
    velocity: Float[Tensor, "K 2"] | None = None
    """Velocity in world x and y, metres per second."""
