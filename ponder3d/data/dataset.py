"""The contract of a dataset, and the configuration that builds one."""

import re
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from jaxtyping import Bool, Int
from torch import Generator, Tensor

from ponder3d.config import Config
from ponder3d.types import LabelSet, Scene


class DataError(ValueError):
    """Data that cannot be used. The message names the file, the field and what to do about it."""


def scene_name(source: str) -> str:
    """The name of a scene, as lists of scenes have it and files of it are named: what ``Scene.source`` has after its
    last ``/`` or ``:``; other characters than letters, digits, ``_``, ``-`` and ``.`` are replaced by ``_``.

    Raises:
        DataError: nothing is left of it.
    """
    name = re.sub(r"[^A-Za-z0-9_.-]", "_", re.split(r"[/:\\]", source)[-1]).lstrip(".")
    if not name:
        raise DataError(f"{source!r}: the source of a scene must end with a name, to name it by")
    return name


@dataclass(frozen=True)
class BenchmarkFile:
    """The points that a benchmark wants the classes of, where they are others than those of the scene."""

    path: str
    """Of the file of results, below the directory of all of them."""
    rows: Int[Tensor, " M"]
    """For each point of the benchmark, in its order, the point of the scene whose class it gets."""
    own: Bool[Tensor, " M"]
    """Whether that is the point itself; else it was left out of the scene, and this one is the nearest to it."""


class SceneDataset(ABC):
    """Random access to scenes. ``dataset[i]`` is a pure function of ``i``: nothing random happens but in ``draw``.

    Scenes are in metres, z up, with unit normals; views follow ``types.views``. A scene that cannot be used raises
    ``DataError``. Unusable frames of a usable scene are left out and listed: in ``skipped``, or in ``Scene.skipped`` if
    only reading them shows it. A run tells its user about both.
    """

    labels: LabelSet | None
    """The classes of ``Scene.labels`` and of the views' labels; None for unlabelled data. If there are classes, every
    scene has ``Scene.labels``: -1 for all points of one that nobody has labelled (``no_labels``)."""
    benchmark_ids: tuple[int, ...] = ()
    """The number of each class in the files of its benchmark; empty where there is no benchmark."""
    benchmark: Literal["scannet", "nuscenes"] = "scannet"
    """How the files of its benchmark are made (``data.submission``, ``data.submission_nuscenes``), if it has one."""
    skipped: tuple[str, ...] = ()
    """What was found unusable when the dataset was opened: one line each, with the file and what is wrong with it."""
    conditions: tuple[str, ...] = ()
    """What ``Scene.condition`` may be, where scenes have one."""
    blocks: tuple[int, ...] = ()
    """Numbers of successive draws whose scenes are stored together, for sets that are read from afar: an epoch visits
    ``mix_blocks`` blocks at a time. They sum to ``draws``; empty: any order is as good as another."""
    mix_blocks: int = 1
    """How many blocks are mixed with each other."""

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def __getitem__(self, index: int) -> Scene: ...

    @property
    def draws(self) -> int:
        """Draws of an epoch: one for each scene, unless some are to be seen more often than others."""
        return len(self)

    def drawn(self, epoch: int, place: int) -> int:
        """The number of the scene that is draw ``place``, below ``draws``, of an epoch, before they are shuffled."""
        return place

    def view_names(self, index: int) -> tuple[str, tuple[str, ...]]:
        """The recording that the views of a scene are of (``Scene.recording``, else its ``source``), and the names of
        all that ``self[index]`` and draws may show; those of images that cannot be decoded may be among them.

        By default the scene is read; datasets of many scenes know better.
        """
        scene = self[index]
        return scene.recording or scene.source, () if scene.views is None else scene.views.names

    def benchmark_file(self, index: int, scene: Scene) -> BenchmarkFile | None:
        """What the benchmark wants of a scene; None: the class of each of its points, in their order.

        Args:
            index: of the scene.
            scene: ``self[index]``.
        """
        return None

    def only(self, conditions: tuple[str, ...]) -> "SceneDataset":
        """The scenes of these conditions, for what has to do with them alone; by default all."""
        return self

    def draw(self, index: int, generator: Generator) -> Scene:
        """What training sees of a scene: the scene, or a random part of it where reading all would be a waste, such as
        a few of hundreds of images. A function of ``index`` and the generator only.
        """
        return self[index]


def no_labels(points: int) -> Int[Tensor, " N"]:
    """The labels of points of which no class is known: -1."""
    return torch.full((points,), -1)


class DatasetConfig(Config, ABC):
    """Choices of a dataset."""

    beside_points: ClassVar[tuple[str, ...]] = ()
    """Fields that change neither which scenes there are nor their points: of images, and which classes there are."""

    @abstractmethod
    def build(self) -> SceneDataset:
        """Open the dataset.

        Raises:
            DataError: it is not where it should be or cannot be read.
        """

    def all_images(self) -> "DatasetConfig":
        """The choices under which each image that draws of a scene may show is in ``dataset[i]`` for some ``i``, and
        for as few as can be: for work on images. By default these choices."""
        return self

    @abstractmethod
    def held_out(self) -> "DatasetConfig":
        """The scenes (or frames) that this configuration never trains on, for evaluation."""


@dataclass(frozen=True)
class HeldOut(DatasetConfig):
    """Stands for the ``held_out`` part of an experiment's training data, whatever these are set to."""

    def build(self) -> SceneDataset:
        """Not a dataset by itself; ``Experiment.validation_data`` knows which it is.

        Raises:
            DataError: always.
        """
        raise DataError("HeldOut is a part of other data; ask Experiment.validation_data() for the configuration")

    def held_out(self) -> DatasetConfig:
        """Itself."""
        return self
