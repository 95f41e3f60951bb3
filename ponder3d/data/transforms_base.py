"""What a transform is, and what transforms are made of."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import replace

import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor

from ponder3d.config import Config
from ponder3d.data.dataset import SceneDataset
from ponder3d.geometry import keyed
from ponder3d.geometry.cameras import select_cameras
from ponder3d.geometry.rows import take
from ponder3d.types import Scene, Views
from ponder3d.types.scene import extent


class Transform(Config, ABC):
    """Turns a scene into a scene; a function of the scene and the generator only."""

    keeps_points = True
    """Whether the points that come out are those that went in, all of them and in their order. Predictions are for
    every point of a scene: transforms that cannot say so are left out then."""

    gives_images = False
    """Whether the scenes that come out have ``images``, which encoders that read images need."""

    gives_depth = False
    """Whether those images have depth, which encoders that learn from it need."""

    @abstractmethod
    def __call__(self, scene: Scene, generator: Generator) -> Scene: ...

    def on_grid(self, grid_size: float) -> "Transform":
        """The transform for clouds of an encoder with this grid size; ``self`` if it leaves nothing open.

        A transform that thins clouds out, or counts on how dense they are, takes the size from here, so that it is
        named once, with the encoder.
        """
        return self

    def conditions_after(self, before: tuple[str, ...]) -> tuple[str, ...]:
        """Conditions of the scenes that come out, given those of the scenes that go in (``Scene.condition``)."""
        return before

    def added_features(self) -> int:
        """Channels that it adds to the rays' target feature (``RayTargets.feature``)."""
        return 0

    def check(self, dataset: SceneDataset) -> None:
        """Whether it goes with a dataset, as far as can be told without reading its scenes; asked before training.

        Raises:
            ValueError: it does not.
        """


def apply(transforms: tuple[Transform, ...], scene: Scene, *key: int) -> Scene:
    """Run transforms in order with randomness that is a function of ``key``, and note the key on the scene."""
    for number, transform in enumerate(transforms):
        # One generator per transform: changing one step does not change what the others draw.
        scene = transform(scene, keyed.generator(*key, number))
    return replace(scene, key=keyed.derive(*key))


def select_points(scene: Scene, rows: Int[Tensor, " K"]) -> Scene:
    """The scene with some of its points, in the given order; everything else stays."""
    return replace(
        scene,
        xyz=take(scene.xyz, rows),
        rgb=None if scene.rgb is None else take(scene.rgb, rows),
        normal=None if scene.normal is None else take(scene.normal, rows),
        labels=None if scene.labels is None else take(scene.labels, rows),
        instances=None if scene.instances is None else take(scene.instances, rows),
        intensity=None if scene.intensity is None else take(scene.intensity, rows),
        time=None if scene.time is None else take(scene.time, rows),
        place=None if scene.place is None else take(scene.place, rows),
    )


def select_views(views: Views, rows: Sequence[int]) -> Views:
    """Some of the views of one scene, in the given order."""
    index = torch.tensor(rows, dtype=torch.int64)
    return Views(
        cameras=select_cameras(views.cameras, index),
        rgb=views.rgb[index],
        depth=None if views.depth is None else views.depth[index],
        labels=None if views.labels is None else views.labels[index],
        counts=torch.tensor([len(index)]),
        instances=None if views.instances is None else views.instances[index],
        names=tuple(views.names[row] for row in rows) if views.names else (),
    )


def whole_bounds(scene: Scene) -> Float[Tensor, "2 3"]:
    """The scene's bounds, taken from its points if nobody has set them."""
    return extent(scene.xyz) if scene.bounds is None else scene.bounds
