"""Two views of a scene, for pretext tasks that compare them."""

from dataclasses import dataclass, replace

import torch
from torch import Generator

from ponder3d.data.dataset import SceneDataset
from ponder3d.data.transforms_base import Transform
from ponder3d.types import Scene


@dataclass(frozen=True)
class TwoViews(Transform):
    """Draws a scene twice: one view is the scene that comes out, the other its ``Scene.pair``.

    Points of both keep their ``Scene.place``, by which the same surface is found in both whatever has turned or moved
    them. What follows among the transforms is done to the first view only. The second has no images and no rays.
    """

    first: tuple[Transform, ...] = ()
    """What is done to the scene, in order."""
    second: tuple[Transform, ...] = ()
    """What is done to its pair; empty: the same as ``first``, with other random numbers."""

    keeps_points = False

    def __post_init__(self):
        # Not fields: they follow from the transforms.
        object.__setattr__(self, "gives_images", any(transform.gives_images for transform in self.first))
        object.__setattr__(self, "gives_depth", any(transform.gives_depth for transform in self.first))

    def __call__(self, scene: Scene, generator: Generator) -> Scene:
        if scene.pair is not None:
            raise ValueError("TwoViews: the scene has a pair already; one TwoViews is enough")
        start = replace(scene, place=scene.xyz if scene.place is None else scene.place)
        # Each view draws from a generator of its own: changing the steps of one leaves the other as it was.
        keys = torch.randint(1 << 62, (2,), generator=generator).tolist()
        views = []
        for key, steps in zip(keys, (self.first, self.second or self.first), strict=True):
            view, own = start, torch.Generator().manual_seed(key)
            for step in steps:
                view = step(view, own)
            views.append(replace(view, key=key))
        return replace(views[0], pair=replace(views[1], views=None, images=None, rays=None, targets=None))

    def conditions_after(self, before: tuple[str, ...]) -> tuple[str, ...]:
        """Those of the first view."""
        for step in self.first:
            before = step.conditions_after(before)
        return before

    def added_features(self) -> int:
        """Those of the first view."""
        return sum(step.added_features() for step in self.first)

    def check(self, dataset: SceneDataset) -> None:
        """Whether the steps of both views go with the dataset."""
        for step in (*self.first, *self.second):
            step.check(dataset)

    def on_grid(self, grid_size: float) -> "TwoViews":
        """With what its transforms leave to the encoder filled in."""
        first, second = (tuple(step.on_grid(grid_size) for step in steps) for steps in (self.first, self.second))
        return replace(self, first=first, second=second)
