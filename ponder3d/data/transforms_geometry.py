"""Transforms that move a scene, or its points."""

import math
from dataclasses import dataclass, replace

import torch
from torch import Generator

from ponder3d.data.transforms_base import Transform
from ponder3d.geometry.transforms import Similarity, rotation_about, transform_scene
from ponder3d.types import Scene
from ponder3d.types.scene import extent

QUARTER_TURNS = (0.0, math.pi / 2, math.pi, 3 * math.pi / 2)
"""Radians."""


@dataclass(frozen=True)
class Centre(Transform):
    """Move the middle of the bounding box to x = y = 0, and its floor to z = 0 if asked for."""

    floor: bool = True
    """Put the lowest point at z = 0; otherwise heights stay as they are."""

    def __call__(self, scene: Scene, generator: Generator) -> Scene:
        lo, hi = extent(scene.xyz) if scene.bounds is None else scene.bounds
        middle = (lo + hi) / 2
        middle[2] = lo[2] if self.floor else 0.0
        return transform_scene(Similarity(torch.eye(3), -middle), scene)


@dataclass(frozen=True)
class Rotate(Transform):
    """Turn by an angle drawn from +-``max_turn`` about an axis through the origin, with some probability."""

    axis: str = "z"
    """Axis to turn about: ``x``, ``y`` or ``z`` (up)."""
    max_turn: float = math.pi
    """Radians; pi about z, pi/64 about x and y."""
    probability: float = 0.5
    """Probability that a scene is turned at all."""

    def __call__(self, scene: Scene, generator: Generator) -> Scene:
        chance, share = torch.rand(2, generator=generator).tolist()
        if chance >= self.probability:
            return scene
        rotation = rotation_about(self.axis, (2 * share - 1) * self.max_turn)
        return transform_scene(Similarity(rotation, torch.zeros(3)), scene)


@dataclass(frozen=True)
class RotateTo(Transform):
    """Turn by one of some angles about an axis through the origin."""

    axis: str = "z"
    """Axis to turn about: ``x``, ``y`` or ``z`` (up)."""
    turns: tuple[float, ...] = QUARTER_TURNS
    """Radians; one of them is drawn for every scene."""

    def __post_init__(self):
        if not self.turns:
            raise ValueError("RotateTo.turns is empty; name at least one angle")

    def __call__(self, scene: Scene, generator: Generator) -> Scene:
        number = int(torch.randint(len(self.turns), (), generator=generator))
        rotation = rotation_about(self.axis, self.turns[number])
        # cos(pi / 2) is 6e-17, which would move points that lie on the edge of a voxel across it.
        rotation = torch.where(rotation.abs() < 1e-7, 0.0, rotation)
        return transform_scene(Similarity(rotation, torch.zeros(3)), scene)


@dataclass(frozen=True)
class Scale(Transform):
    """Scale by a factor drawn from [``smallest``, ``largest``]."""

    smallest: float = 0.9
    """Smallest factor on all lengths."""
    largest: float = 1.1
    """Largest factor on all lengths."""

    def __call__(self, scene: Scene, generator: Generator) -> Scene:
        factor = self.smallest + float(torch.rand((), generator=generator)) * (self.largest - self.smallest)
        return transform_scene(Similarity(torch.eye(3), torch.zeros(3), factor), scene)


@dataclass(frozen=True)
class Shift(Transform):
    """Move the whole scene by one Gaussian step: PonderV2 does so outdoors, where no box says where the middle is."""

    std: tuple[float, float, float] = (0.5, 0.5, 0.5)
    """Standard deviation along x, y and z, in metres."""

    def __call__(self, scene: Scene, generator: Generator) -> Scene:
        step = torch.randn(3, generator=generator) * torch.tensor(self.std)
        return transform_scene(Similarity(torch.eye(3), step), scene)


@dataclass(frozen=True)
class Flip(Transform):
    """Mirror along horizontal axes, each with some probability."""

    probability: float = 0.5
    """Probability of each of the mirrors; 1 mirrors along all of the axes."""
    axes: str = "xy"
    """Coordinates that change their sign: ``x``, ``y`` or ``xy``. Mirroring both is half a turn about z."""

    def __post_init__(self):
        if self.axes not in ("x", "y", "xy"):
            raise ValueError(f"Flip.axes must be x, y or xy, not {self.axes!r}")

    def __call__(self, scene: Scene, generator: Generator) -> Scene:
        mirrored = torch.rand(len(self.axes), generator=generator) < self.probability
        if not bool(mirrored.any()):
            return scene
        signs = torch.ones(3)
        signs[["xyz".index(axis) for axis in self.axes]] -= 2 * mirrored
        return transform_scene(Similarity(torch.diag(signs), torch.zeros(3)), scene)


@dataclass(frozen=True)
class Jitter(Transform):
    """Add clipped Gaussian noise to the coordinates of each point; cameras stay."""

    std: float = 0.005
    """Standard deviation along each axis, in metres."""
    clip: float = 0.02
    """Largest displacement along each axis, in metres."""

    def __call__(self, scene: Scene, generator: Generator) -> Scene:
        noise = torch.randn(scene.xyz.shape, generator=generator) * self.std
        return replace(scene, xyz=scene.xyz + noise.clamp(-self.clip, self.clip))
