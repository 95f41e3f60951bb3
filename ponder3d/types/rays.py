"""Rays, what they should see, and what was rendered along them."""

from dataclasses import dataclass

from jaxtyping import Bool, Float, Int
from torch import Tensor


@dataclass(frozen=True)
class Rays:
    """Rays of all scenes of a batch. ``scene`` travels with each ray, so no loop over scenes is needed."""

    origins: Float[Tensor, "R 3"]
    """World coordinates, metres."""
    directions: Float[Tensor, "R 3"]
    """Unit vectors in the world frame."""
    near: Float[Tensor, " R"]
    """Where sampling starts, metres along the ray."""
    far: Float[Tensor, " R"]
    """Where sampling ends; ``far <= near`` marks a ray that misses the volume and must not count in any loss."""
    scene: Int[Tensor, " R"]
    """Scene index of each ray."""

    @property
    def hits(self) -> Bool[Tensor, " R"]:
        """True for the rays that cross the volume."""
        return self.far > self.near

    def __len__(self) -> int:
        return len(self.origins)

    def every(self, k: int) -> "Rays":
        """Each k-th ray."""
        columns = (self.origins, self.directions, self.near, self.far, self.scene)
        return Rays(*(column[::k].contiguous() for column in columns))


@dataclass(frozen=True)
class RayTargets:
    """What the camera saw along each ray."""

    rgb: Float[Tensor, "R 3"]
    """Colour in [0, 1]."""
    t: Float[Tensor, " R"] | None
    """Distance along the unit ray to the surface in metres; 0 where the depth camera saw nothing."""
    label: Int[Tensor, " R"] | None = None
    """Class; negative where there is none."""
    feature: Float[Tensor, "R K"] | None = None
    """A fixed feature of the place that the ray sees: of a 2D model, or of the geometry around it."""
    group: Int[Tensor, " R"] | None = None
    """Which region of its scene's images the ray sees (``data.superpixels``), numbered in each scene by itself;
    negative: none."""

    def every(self, k: int) -> "RayTargets":
        """The targets of each k-th ray."""
        return RayTargets(
            rgb=self.rgb[::k],
            t=None if self.t is None else self.t[::k],
            label=None if self.label is None else self.label[::k],
            feature=None if self.feature is None else self.feature[::k],
            group=None if self.group is None else self.group[::k],
        )


@dataclass(frozen=True)
class RenderOutput:
    """Rendered quantities per ray, and the samples they were made of."""

    rgb: Float[Tensor, "R 3"]
    t: Float[Tensor, " R"]
    """Expected distance along the ray, metres."""
    normal: Float[Tensor, "R 3"]
    """Weighted mean of the unit SDF gradients; points out of the surface, shorter than 1 where samples disagree."""
    opacity: Float[Tensor, " R"]
    """Sum of the weights, in [0, 1]."""
    semantic: Float[Tensor, "R E"] | None
    """Semantic feature (eq. 9), decoded from the composited features."""
    feature: Float[Tensor, "R K"] | None
    """Rendered counterpart of ``RayTargets.feature``."""
    sample_t: Float[Tensor, "R S"]
    weights: Float[Tensor, "R S"]
    sdf: Float[Tensor, "R S"]
    """Signed distance in metres, positive outside."""
    gradient: Float[Tensor, "R S 3"]
    """Spatial gradient of ``sdf`` in the world frame; length 1 for a true distance."""
