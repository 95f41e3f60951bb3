"""The contract of a dataset in its publisher's layout.

A ``RawDataset`` lists scenes without reading them; a ``RawScene`` reads its points and streams its frames, so that a
scene of thousands of frames needs the memory of one. Class numbers stay as they are in the files (``raw ids``): one
prepared copy then serves every ``LabelTable`` of the dataset, such as ScanNet's 20 and 200 classes.
"""

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from ponder3d.config import Config
from ponder3d.data.dataset import DataError
from ponder3d.types import LabelSet

T = TypeVar("T")

SCENE_NAME = re.compile(r"[A-Za-z0-9_-]{1,70}\Z")
"""Scenes become keys of tar members, where a dot ends the key and a name has 100 characters."""


@dataclass(frozen=True, order=True)
class Problem:
    """Something that cannot be used, or should not be."""

    scene: str
    frame: str
    """Empty: the whole scene."""
    kind: str
    """One word: ``pose``, ``intrinsics``, ``depth``, ``colour``, ``label``, ``points``, ``file``, ``duplicate``,
    ``overlap``."""
    what: str
    """What is wrong, with the file and the field."""

    def __str__(self) -> str:
        return f"{self.scene}{'/' if self.frame else ''}{self.frame}: {self.kind}: {self.what}"


@dataclass(frozen=True, eq=False)
class RawPoints:
    """The point cloud of a scene, in metres, z up."""

    xyz: np.ndarray
    """[N 3] float32."""
    rgb: np.ndarray | None = None
    """[N 3] uint8."""
    normal: np.ndarray | None = None
    """[N 3] float32, unit."""
    labels: np.ndarray | None = None
    """[N] int32, raw ids."""
    instances: np.ndarray | None = None
    """[N] int32; -1 where there is none."""
    problems: tuple[Problem, ...] = ()
    """What was repaired or left out while the cloud was read, such as a broken line; the rest is usable."""
    intensity: np.ndarray | None = None
    """[N] float32 in [0, 1], of files of single clouds; prepared scenes do not keep it."""

    @property
    def nbytes(self) -> int:
        """Bytes of all columns."""
        columns = (self.xyz, self.rgb, self.normal, self.labels, self.instances, self.intensity)
        return sum(column.nbytes for column in columns if column is not None)


@dataclass(frozen=True, eq=False)
class RawFrame:
    """One posed image with its depth, as one pinhole camera sees both."""

    name: str
    intrinsics: np.ndarray
    """[3 3] float64, for the images as they are here; integer coordinates are pixel centres."""
    world_from_cam: np.ndarray
    """[4 4] float64, OpenCV axes to the world of the points, metres."""
    rgb: np.ndarray
    """[H W 3] uint8."""
    depth: np.ndarray | None = None
    """[H W] float32 plane depth in metres; 0 where there is none."""
    labels: np.ndarray | None = None
    """[H W] int32, raw ids."""
    instances: np.ndarray | None = None
    """[H W] int32; -1 where there is none."""

    @property
    def nbytes(self) -> int:
        """Bytes of all images."""
        return sum(image.nbytes for image in (self.rgb, self.depth, self.labels, self.instances) if image is not None)


@dataclass(frozen=True)
class LabelTable:
    """A choice of classes of a dataset, and which raw ids belong to each."""

    name: str
    """What ``--data.classes`` takes."""
    labels: LabelSet
    rows: tuple[tuple[int, int], ...]
    """(raw id, row in ``labels``), by raw id; a raw id that is not here has no class."""
    benchmark_ids: tuple[int, ...] = ()
    """The number of each class in the files of its benchmark; empty where there is no benchmark."""


class RawScene(ABC):
    """One scene of a dataset in its publisher's layout."""

    name: str
    """Unique in the dataset; matches ``SCENE_NAME``."""
    split: str
    """``train``, ``val`` or ``test``."""
    frames: tuple[str, ...] = ()
    """Names of all frames, in order of time; empty for scenes without images."""
    source: str
    """The file or directory that it is read from, for messages."""
    _kept: dict[str, Any] | None = None
    """See ``keeping``; None outside it."""

    @contextmanager
    def keeping(self) -> Iterator[None]:
        """Within this context the scene keeps what its points and its frames have in common, and reads it once.

        Scenes live as long as their dataset: what was kept is dropped at the end.
        """
        object.__setattr__(self, "_kept", {})  # scenes may be frozen, and this is no part of what they are
        try:
            yield
        finally:
            object.__setattr__(self, "_kept", None)

    def kept(self, name: str, read: Callable[[], T]) -> T:
        """What ``read`` returns; within ``keeping`` it is called once for each name."""
        if self._kept is None:
            return read()
        if name not in self._kept:
            self._kept[name] = read()
        return self._kept[name]

    @abstractmethod
    def read_points(self) -> RawPoints | None:
        """The point cloud; None for a scene that has only frames.

        Raises:
            DataError: it cannot be read.
        """

    @abstractmethod
    def read_frames(self, names: Sequence[str]) -> Iterator[RawFrame | Problem]:
        """Some of the frames, one at a time, in the given order; a ``Problem`` for each that cannot be used.

        Raises:
            DataError: what all frames share cannot be read.
        """


class RawDataset(ABC):
    """A dataset in its publisher's layout."""

    tables: tuple[LabelTable, ...] = ()
    """Choices of classes; the first is the default. Empty for data without labels."""
    known_ids: frozenset[int] | None = None
    """Raw ids that may occur, with or without a class; None: any."""
    depth_units: int = 1000
    """Units per metre that lose nothing of the dataset's depth when it is kept in 16 bits."""
    problems: tuple[Problem, ...] = ()
    """What was found unusable when the dataset was opened, such as a scene without its files."""
    scenes: tuple[RawScene, ...]
    """In the order of their names; listed, not read."""


@dataclass(frozen=True)
class RawDatasetConfig(Config, ABC):
    """Choices of how a dataset is read. A module of this package has one, and the module's name is the dataset's."""

    root: str = ""
    """Directory of the dataset as it was downloaded."""
    every: int = 1
    """Take every n-th frame."""

    @abstractmethod
    def build(self) -> RawDataset:
        """List the scenes.

        Raises:
            DataError: this is no such dataset, or a file that all scenes need is missing or damaged.
        """

    @staticmethod
    @abstractmethod
    def recognises(root: Path) -> bool:
        """Whether a directory looks like this dataset; reads no more than names of files."""

    @staticmethod
    @abstractmethod
    def write_example(root: Path) -> None:
        """Write a tiny dataset in the publisher's layout, of ``example_room.ExampleRoom``s: two scenes at least, one
        of them for training, with every kind of file that is read."""


def checked_scenes(scenes: Sequence[RawScene], root: str) -> tuple[RawScene, ...]:
    """Scenes in the order of their names.

    Raises:
        DataError: there are none, or two have one name, or a name is not usable.
    """
    if not scenes:
        raise DataError(f"{root}: no scenes found")
    ordered = tuple(sorted(scenes, key=lambda scene: scene.name))
    for one, two in zip(ordered, ordered[1:], strict=False):
        if one.name == two.name:
            raise DataError(f"{two.source}: a scene named {two.name} is also in {one.source}; rename one of them")
    for scene in ordered:
        if not SCENE_NAME.match(scene.name):
            raise DataError(
                f"{scene.source}: {scene.name!r} is no name for a scene; use at most 70 letters, digits, _ and -"
            )
    return ordered
