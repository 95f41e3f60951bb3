"""Transforms for scenes of several datasets: which they come from, and what is done to those of some only."""

from dataclasses import dataclass, replace

from torch import Generator

from ponder3d.data.dataset import SceneDataset
from ponder3d.data.transforms_base import Transform
from ponder3d.types import Scene


@dataclass(frozen=True)
class SetCondition(Transform):
    """Say which of several datasets a scene is like, for encoders that were trained on all of them."""

    name: str = ""
    """The condition; one that the encoder knows. Empty: none."""

    def __call__(self, scene: Scene, generator: Generator) -> Scene:
        return replace(scene, condition=self.name)

    def conditions_after(self, before: tuple[str, ...]) -> tuple[str, ...]:
        """The one that it names."""
        return (self.name,) if self.name else ()


@dataclass(frozen=True)
class Only(Transform):
    """Transforms for the scenes of some datasets; those of others stay as they are.

    In the paper's joint training, rooms of Structured3D are cropped to 0.8 of their points and those of S3DIS to 0.6;
    scans of ScanNet to 100,000 points.
    """

    conditions: tuple[str, ...] = ()
    """Conditions of the scenes that are meant."""
    transforms: tuple[Transform, ...] = ()
    """What is done to them, in order."""

    def __post_init__(self):
        # Not a field: it follows from the transforms.
        object.__setattr__(self, "keeps_points", all(transform.keeps_points for transform in self.transforms))

    def __call__(self, scene: Scene, generator: Generator) -> Scene:
        if scene.condition in self.conditions:
            for transform in self.transforms:
                scene = transform(scene, generator)
        return scene

    def conditions_after(self, before: tuple[str, ...]) -> tuple[str, ...]:
        """Those of its scenes as the transforms leave them.

        Raises:
            ValueError: there are no scenes of a condition that is named.
        """
        after: list[str] = []
        for condition in before:
            own = (condition,)
            for transform in self.transforms if condition in self.conditions else ():
                own = transform.conditions_after(own)
            after += own
        strangers = [name for name in self.conditions if name not in before]
        if strangers:
            known = ", ".join(before) or "none"
            raise ValueError(f"Only.conditions: no scene has the condition {strangers[0]!r}; there are {known}")
        return tuple(dict.fromkeys(after))

    def check(self, dataset: SceneDataset) -> None:
        """Whether its transforms go with its scenes."""
        if any(name in self.conditions for name in dataset.conditions):
            for transform in self.transforms:
                transform.check(dataset.only(self.conditions))

    def on_grid(self, grid_size: float) -> "Only":
        """With what its transforms leave to the encoder filled in."""
        return replace(self, transforms=tuple(transform.on_grid(grid_size) for transform in self.transforms))


def steps_of(transforms: tuple[Transform, ...], condition: str) -> tuple[Transform, ...]:
    """What is done to a scene of some condition, in order: in the place of ``Only`` its transforms, if they are meant
    for such a scene."""
    steps: list[Transform] = []
    for transform in transforms:
        own: tuple[Transform, ...] = (transform,)
        if isinstance(transform, Only):
            own = steps_of(transform.transforms, condition) if condition in transform.conditions else ()
        for step in own:
            condition = step.name if isinstance(step, SetCondition) else condition
        steps += own
    return tuple(steps)
