"""Generated streets: towns with traffic, seen by a turning laser and six cameras on a vehicle that drives through;
seeded, endless and fully labelled.

Town number i is a pure function of (seed, i, configuration): the same bits in any process, in any order, with or
without the cache. It is a drive whose key frames are half a second apart, as nuScenes' are.
"""

import functools
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import torch
from torch import Tensor

from ponder3d.config import fingerprint, incidental
from ponder3d.data.dataset import DataError
from ponder3d.data.driving.classes import STREET_LABELS as STREET_LABELS
from ponder3d.data.driving.dataset import DrivingConfig, DrivingDataset
from ponder3d.data.driving.drive import Drive, Shot, Sweep
from ponder3d.data.synthetic.filling import fill
from ponder3d.data.synthetic.street_light import STYLES
from ponder3d.data.synthetic.street_sensors import (
    CAMERAS,
    RANGE_STEP,
    LaserConfig,
    PackedShots,
    PackedSweep,
    Town,
    lenses,
    make_town,
    measure,
    photograph,
)
from ponder3d.geometry.keyed import derive
from ponder3d.types import Boxes, Scene

FIRST_TEST_TOWN = 1_000_000
"""Towns from this index on are for evaluation; training sets start at 0 and end before."""

GENERATOR_VERSION = 1
"""Part of the cache's address; raise it whenever the same configuration gives different streets."""

STEP = 0.5
"""Seconds from one key frame to the next."""


@dataclass(frozen=True)
class StreetsConfig(DrivingConfig):
    """Generated streets. Two sets with one seed and disjoint ranges of indices share no town."""

    image_size: tuple[int, int] = (90, 160)
    """Height and width of the images, which are made in this size."""
    seed: int = 0
    """Other seeds give other towns; town i of a seed is always the same."""
    first: int = 0
    """Index of the first town."""
    num_towns: int = 100
    """Towns in the set, made when they are asked for; each is a drive."""
    num_test_towns: int = 8
    """Towns of the ``held_out`` set."""
    frames: int = 6
    """Key frames per town, half a second apart; each is a scene."""
    sweeps_between: int = 0
    """Revolutions of the laser that are made between two key frames; nuScenes has 9."""
    style: Literal["mixed", "sunny", "overcast", "dusk"] = "mixed"
    """The light of the streets."""
    laser: LaserConfig = LaserConfig()
    """What turns on the vehicle's roof."""
    dense_depth: bool = False
    """Give the views the true depth of every pixel, to the centimetre, instead of the laser's sparse one: for
    evaluation."""
    cache: str = incidental("")
    """Directory in which towns are kept once they are made, about 0.6 MB a key frame; empty for none."""

    def __post_init__(self):
        super().__post_init__()
        for name, least in (
            ("first", 0),
            ("num_towns", 1),
            ("num_test_towns", 1),
            ("frames", 1),
            ("sweeps_between", 0),
        ):
            if getattr(self, name) < least:
                raise ValueError(f"StreetsConfig.{name} must be at least {least}, it is {getattr(self, name)}")
        if len(self.image_size) != 2 or min(self.image_size) < 8:
            raise ValueError(
                f"StreetsConfig.image_size must be (height, width) of at least 8 pixels, it is {self.image_size}"
            )
        if self.style not in STYLES:
            raise ValueError(f"StreetsConfig.style must be one of {', '.join(STYLES)}, it is {self.style!r}")

    def build(self) -> "Streets":
        """Open the dataset; nothing is generated yet."""
        return Streets(self)

    def held_out(self) -> "StreetsConfig":
        """``num_test_towns`` towns from a range of indices that no training set reaches."""
        return replace(self, first=self.first + FIRST_TEST_TOWN, num_towns=self.num_test_towns)


class Street(Drive):
    """The drive through one town."""

    cameras = tuple(CAMERAS)

    def __init__(self, config: StreetsConfig, index: int):
        self.config, self.number = config, config.first + index
        self.name = f"town-{self.number:06d}-seed-{config.seed}"

    def __len__(self) -> int:
        return self.config.frames

    def seconds(self, frame: int) -> float:
        """From the beginning of the drive."""
        return frame * STEP

    def sweep(self, frame: int) -> Sweep:
        """With labels."""
        return self._sweep(frame * (self.config.sweeps_between + 1))

    def earlier(self, frame: int, number: int) -> list[Sweep]:
        """Those between key frames, and those of earlier key frames."""
        last = frame * (self.config.sweeps_between + 1)
        return [self._sweep(tick) for tick in range(last - 1, max(last - 1 - number, -1), -1)]

    def shots(self, frame: int, cameras: Sequence[str]) -> list[Shot]:
        """All exposed at the instant of the key frame."""
        packed = _packed_shots(self.config, self.number, frame)
        lens, order = lenses(packed.pose, self.config.image_size), [self.cameras.index(name) for name in cameras]
        return [
            Shot(
                rgb=torch.from_numpy(packed.rgb[row]),
                intrinsics=torch.from_numpy(lens[name].intrinsics[0]),
                world_from_cam=torch.from_numpy(lens[name].world_from_cam[0]),
                name=shown,
            )
            for row, name, shown in zip(order, cameras, self.shot_names(frame, cameras), strict=True)
        ]

    def shot_names(self, frame: int, cameras: Sequence[str]) -> tuple[str, ...]:
        """Known without making the images."""
        return tuple(f"{name.replace(' ', '-')}-{frame:04d}" for name in cameras)

    def depths(self, frame: int, cameras: Sequence[str]) -> Tensor:
        """[C H W]: plane depth of every pixel in metres, float32; 0 for the sky."""
        packed = _packed_shots(self.config, self.number, frame)
        order = [self.cameras.index(name) for name in cameras]
        return torch.from_numpy(packed.depth[order] * np.float32(0.01))

    def boxes(self, frame: int) -> Boxes:
        """Those that the laser has a point of."""
        packed = _packed_sweep(self.config, self.number, frame * (self.config.sweeps_between + 1))
        rows = torch.from_numpy(packed.boxes)
        return Boxes(
            centre=rows[:, :3],
            size=rows[:, 3:6],
            yaw=rows[:, 6],
            label=torch.from_numpy(packed.box_labels.astype(np.int64)),
            velocity=rows[:, 7:],
        )

    def _sweep(self, tick: int) -> Sweep:
        """A revolution by its number in the drive; those between key frames are not annotated."""
        between = self.config.sweeps_between + 1
        packed = _packed_sweep(self.config, self.number, tick)
        rows = np.flatnonzero(packed.steps)
        ranges = packed.steps[rows] * np.float32(RANGE_STEP)
        labels = torch.from_numpy(packed.labels[rows].astype(np.int64))
        return Sweep(
            xyz=torch.from_numpy(np.ascontiguousarray((self.config.laser.directions[:, rows] * ranges).T)),
            intensity=torch.from_numpy(packed.intensity[rows] * np.float32(1 / 255)),
            world_from_sensor=torch.from_numpy(packed.pose),
            seconds=_seconds(self.config, tick),
            source=f"streets/{self.name}",
            labels=None if tick % between else labels,
        )


class Streets(DrivingDataset):
    """Key frames of generated drives, made when asked for and kept in the cache if there is one."""

    config: StreetsConfig

    def __init__(self, config: StreetsConfig):
        """Args:
        config: which streets.
        """
        super().__init__(config, [Street(config, index) for index in range(config.num_towns)], STREET_LABELS)

    def _read(self, number: int, frame: int) -> Scene:
        scene = super()._read(number, frame)
        if not self.config.dense_depth or scene.views is None:
            return scene
        drive, frames = self._seen(number, frame)
        assert isinstance(drive, Street)
        depth = torch.cat([drive.depths(seen, self._cameras(drive)) for seen in frames])
        return replace(scene, views=replace(scene.views, depth=depth, labels=None))


def generate(config: StreetsConfig, workers: int = 2, progress: Callable[[int, int], None] | None = None) -> None:
    """Fill the cache in several processes. Interrupt it and run it again: finished towns stay.

    A town that is there counts as done; should it be damaged, it is made again when it is read.

    Args:
        config: what to generate; its ``cache`` must be set.
        workers: number of processes, each with one thread. They are spawned, so a script that calls this needs the
            usual ``if __name__ == "__main__":``.
        progress: called with the number of towns done and the number of all towns, at the start and after each town.

    Raises:
        ValueError: no cache directory, or fewer than one worker.
    """
    if not config.cache:
        raise ValueError("generate: StreetsConfig.cache is empty; name a directory")
    if workers < 1:
        raise ValueError(f"generate: workers must be at least 1, it is {workers}")
    missing = [i for i in range(config.num_towns) if not town_path(config, i).exists()]
    fill([(config, config.first + i) for i in missing], config.num_towns, _work, workers, progress)


def town_path(config: StreetsConfig, index: int) -> Path:
    """The cache file of a town. Its folder is named by everything that decides the town's content."""
    folder = f"{fingerprint(_content(config))}-v{GENERATOR_VERSION}"
    return Path(config.cache) / folder / f"town-{config.first + index:06d}.npz"


def make_sweep(config: StreetsConfig, number: int, tick: int) -> PackedSweep:
    """A revolution of the laser; ``number`` counts towns from 0, ``tick`` revolutions from the first key frame."""
    return measure(
        _town(config.seed, number, config.frames, config.style),
        config.laser,
        _seconds(config, tick),
        _rng(config.seed, number, 1, tick),
    )


def make_shots(config: StreetsConfig, number: int, frame: int) -> PackedShots:
    """The images of a key frame; ``number`` counts towns from 0."""
    town = _town(config.seed, number, config.frames, config.style)
    return photograph(town, config.image_size, frame * STEP, _rng(config.seed, number, 2, frame))


def _content(config: StreetsConfig) -> StreetsConfig:
    """What decides the content of towns, all else at its defaults."""
    return StreetsConfig(
        image_size=config.image_size,
        seed=config.seed,
        frames=config.frames,
        sweeps_between=config.sweeps_between,
        style=config.style,
        laser=config.laser,
    )


def _seconds(config: StreetsConfig, tick: int) -> float:
    return tick * STEP / (config.sweeps_between + 1)


def _rng(*numbers: int) -> np.random.Generator:
    """One stream for each stage and instant: how many numbers one of them draws does not change the others."""
    return np.random.Generator(np.random.PCG64(derive(*numbers)))


@functools.lru_cache(maxsize=8)
def _town(seed: int, number: int, frames: int, style: str) -> Town:
    return make_town(_rng(seed, number, 0), (frames - 1) * STEP, style)


@functools.lru_cache(maxsize=64)
def _made_sweep(content: StreetsConfig, number: int, tick: int) -> PackedSweep:
    return make_sweep(content, number, tick)


@functools.lru_cache(maxsize=8)
def _made_shots(content: StreetsConfig, number: int, frame: int) -> PackedShots:
    return make_shots(content, number, frame)


def _packed_sweep(config: StreetsConfig, number: int, tick: int) -> PackedSweep:
    """A revolution from the cache, or made; with a cache the whole town is made then."""
    if not config.cache:
        return _made_sweep(_content(config), number, tick)
    names = [f.name for f in fields(PackedSweep)]
    return PackedSweep(**dict(zip(names, _stored(config, number, [f"sweep-{tick}-{n}" for n in names]), strict=True)))


def _packed_shots(config: StreetsConfig, number: int, frame: int) -> PackedShots:
    if not config.cache:
        return _made_shots(_content(config), number, frame)
    names = [f.name for f in fields(PackedShots)]
    return PackedShots(**dict(zip(names, _stored(config, number, [f"shots-{frame}-{n}" for n in names]), strict=True)))


def _stored(config: StreetsConfig, number: int, names: Sequence[str]) -> list[np.ndarray]:
    """Arrays of a town's cache file, which is made first if it is missing or damaged."""
    path = town_path(config, number - config.first)
    arrays = _load(path, names)
    if arrays is None:
        arrays = _fill(config, number)
        return [arrays[name] for name in names]
    return arrays


def _load(path: Path, names: Sequence[str]) -> list[np.ndarray] | None:
    """Some arrays of a file; None if it is missing or they cannot be read (every array has a checksum)."""
    try:
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as stored:
            return [stored[name] for name in names]
    except Exception:  # damaged bytes raise anything from BadZipFile to MemoryError; the town is made again
        return None


def _work(config: StreetsConfig, number: int) -> None:
    """Make a town for the cache. Returns nothing: 4 MB a town would travel back and stay until all are done."""
    _fill(config, number)


def _fill(config: StreetsConfig, number: int) -> dict[str, np.ndarray]:
    """Make a whole town and put it into the cache."""
    arrays = {}
    for frame in range(config.frames):
        packed = make_shots(config, number, frame)
        arrays.update({f"shots-{frame}-{f.name}": getattr(packed, f.name) for f in fields(packed)})
    for tick in range((config.frames - 1) * (config.sweeps_between + 1) + 1):
        packed = make_sweep(config, number, tick)
        arrays.update({f"sweep-{tick}-{f.name}": getattr(packed, f.name) for f in fields(packed)})
    _save(town_path(config, number - config.first), arrays)
    return arrays


def _save(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """Write under another name and rename: a reader sees a whole town or none."""
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with open(temporary, "wb") as file:
                np.savez(file, **cast(dict[str, Any], arrays))
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise DataError(f"{path}: cannot be written ({error}); set StreetsConfig.cache to a writable folder") from error
