"""From a dataset to batches. Batch k is a pure function of (seed, k): see ``engine.sampler`` for the order."""

import math
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch.utils.data import Dataset

from ponder3d.data.dataset import DataError, SceneDataset
from ponder3d.data.mix import mix_pairs
from ponder3d.data.prepared.storage import StorageError
from ponder3d.data.transforms import SphereCrop, Transform, apply
from ponder3d.geometry import keyed
from ponder3d.types import Batch, RayTargets, Scene, Views


class KeyedScenes(Dataset[Scene]):
    """Scenes by (epoch, place): what happens to a scene depends on (seed, epoch, place) alone.

    A ``ValueError`` of a transform becomes a ``DataError`` that names the scene, and so does a point label that is none
    of the dataset's classes.

    Args:
        dataset: what they are of.
        transforms: are done to them.
        seed: of the draws and the transforms.
        each_once: places are those of the dataset's scenes, not of its draws (``SceneDataset.draws``).
    """

    def __init__(self, dataset: SceneDataset, transforms: tuple[Transform, ...], seed: int, each_once: bool = False):
        self.dataset, self.transforms, self.seed, self.each_once = dataset, transforms, seed, each_once

    def __getitem__(self, draw: tuple[int, int]) -> Scene:
        epoch, place = draw
        index = place if self.each_once else self.dataset.drawn(epoch, place)
        scene = self.dataset.draw(index, keyed.generator(self.seed, epoch, place, 0xD2A3))
        _check_labels(scene, self.dataset)
        try:
            return apply(self.transforms, scene, self.seed, epoch, place)
        except ValueError as error:  # a transform knows what it cannot use, and seldom which scene that is
            raise DataError(str(error) if scene.source in str(error) else f"{scene.source}: {error}") from error

    def __len__(self) -> int:
        return len(self.dataset) if self.each_once else self.dataset.draws


def _check_labels(scene: Scene, dataset: SceneDataset) -> None:
    """Here, on the host, where it costs nothing: on a GPU a label that is no class ends the process."""
    if scene.labels is None or dataset.labels is None or not len(scene.labels):
        return
    most = int(scene.labels.max())
    if most >= len(dataset.labels):
        raise DataError(
            f"{scene.source}: labels: {most} is none of the classes, which are 0 to {len(dataset.labels) - 1}; the "
            "dataset has to give points without a class a negative one"
        )


class Collate:
    """Packs scenes into a batch with the point channels of one encoder.

    Args:
        inputs: point channels.
        max_points: of a batch, 0 for any number. The largest scenes are cropped to one size, so that all fit.
        mix: probability with which a scene at an even place and the next are laid over each other (``data.mix``). They
            are cropped before: the budget holds for what is mixed too.
    """

    def __init__(self, inputs: Sequence[str], max_points: int = 0, mix: float = 0.0):
        self.inputs, self.max_points, self.mix = tuple(inputs), max_points, mix

    def __call__(self, scenes: Sequence[Scene]) -> Batch:
        if self.max_points:
            sizes = [len(s.xyz) for scene in scenes for s in (scene, scene.pair) if s is not None]
            most = _most_per_scene(sizes, self.max_points)
            crop = SphereCrop(max_points=most)
            scenes = [_cropped(scene, crop) for scene in scenes]
        if self.mix:
            scenes = mix_pairs(scenes, self.mix)
        scenes = _alike(scenes)
        try:
            return Batch.of(scenes, self.inputs)
        except ValueError as error:  # these scenes do not go together
            raise DataError(str(error)) from error


def _cropped(scene: Scene, crop: SphereCrop) -> Scene:
    """The scene, and its pair, each cropped."""
    pair = None if scene.pair is None else crop(scene.pair, keyed.generator(scene.pair.key, 0xC0))
    return replace(crop(scene, keyed.generator(scene.key, 0xC0)), pair=pair)


Read = Batch | DataError | StorageError
"""What reading a batch comes to."""


class Batches(Dataset[Read]):
    """The batch of a list of draws; or, if a scene of it cannot be used or read, the error as a value. Raised in a
    loader process, it would reach the user as the text of a traceback."""

    def __init__(self, scenes: KeyedScenes, collate: Collate):
        self.scenes, self.collate = scenes, collate

    def __getitem__(self, draws: list[tuple[int, int]]) -> Read:
        try:
            return self.collate([self.scenes[draw] for draw in draws])
        except DataError as error:
            return DataError(str(error))
        except StorageError as error:
            return StorageError(str(error))


def _alike(scenes: Sequence[Scene]) -> Sequence[Scene]:
    """Scenes of several datasets whose rays have the same targets: where only some have a distance, a class or a
    feature, the others get 0, -1 or NaN, which mean that there is none. So do pixels, where only some images have
    classes.

    Raises:
        DataError: some have rays and others have none, of which nothing would be left; or features of two widths.
    """
    rays = [scene.rays is not None for scene in scenes]
    if any(rays) and not all(rays):
        has, lacks = scenes[rays.index(True)].source, scenes[rays.index(False)].source
        raise DataError(f"{has} has rays and {lacks} has none; scenes of a batch must all have them")
    targets = [scene.targets for scene in scenes if scene.targets is not None]
    measured = any(target.t is not None for target in targets)
    labelled = any(target.label is not None for target in targets)
    widths = {s.targets.feature.shape[1]: s.source for s in scenes if s.targets and s.targets.feature is not None}
    if len(widths) > 1:
        (one, first), (other, second) = list(widths.items())[:2]
        raise DataError(f"{first} has target features of {one} channels and {second} of {other}; give all the same")
    width = next(iter(widths), 0)
    if any(scene.views is not None and scene.views.labels is not None for scene in scenes):
        scenes = [replace(s, views=_with_classes(s.views)) if s.views is not None else s for s in scenes]
    return [
        s if s.targets is None else replace(s, targets=_filled(s.targets, measured, labelled, width)) for s in scenes
    ]


def _with_classes(views: Views) -> Views:
    """Views with labels; -1 where they have none."""
    if views.labels is not None:
        return views
    return replace(views, labels=torch.full(views.rgb.shape[:3], -1, dtype=torch.int16))


def _filled(targets: RayTargets, measured: bool, labelled: bool, width: int) -> RayTargets:
    num = len(targets.rgb)
    if measured and targets.t is None:
        targets = replace(targets, t=torch.zeros(num))
    if labelled and targets.label is None:
        targets = replace(targets, label=torch.full((num,), -1))
    if width and targets.feature is None:
        targets = replace(targets, feature=torch.full((num, width), math.nan))
    return targets


def as_it_is(batch: Read) -> Read:
    """Instead of torch's own conversion."""
    return batch


def _most_per_scene(sizes: Sequence[int], budget: int) -> int:
    """The largest n such that scenes cut to n points are within the budget; at least 1."""
    most, left = budget, budget
    for done, size in enumerate(sorted(sizes)):
        most = left // (len(sizes) - done)
        if size > most:
            break
        left -= size
    else:
        most = budget
    return max(1, most)
