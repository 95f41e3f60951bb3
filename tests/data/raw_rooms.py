"""A dataset of example rooms that exists in no files: for tests of what is done with datasets."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ponder3d.data.dataset import DataError
from ponder3d.data.raw.dataset import (
    LabelTable,
    Problem,
    RawDataset,
    RawDatasetConfig,
    RawFrame,
    RawPoints,
    RawScene,
    checked_scenes,
)
from ponder3d.data.raw.example_room import COLOURS, SURFACES, ExampleRoom
from ponder3d.types import LabelSet

NAMES = ("wall", "floor", "ceiling", "table")
RAW_IDS = {"wall": 10, "floor": 20, "ceiling": 30, "table": 400}
TABLES = (
    LabelTable(
        "all", LabelSet(NAMES, ((1, 2, 3),) * 4), tuple((RAW_IDS[n], i) for i, n in enumerate(NAMES)), (1, 2, 3, 4)
    ),
    LabelTable("things", LabelSet(("table",), ((9, 9, 9),)), ((400, 0),)),
)


@dataclass(frozen=True)
class RawRoomsConfig(RawDatasetConfig):
    """Rooms that differ in width."""

    num: int = 3
    frames: int = 8
    clouds: bool = True
    """Whether scenes have clouds, or frames only."""
    broken: tuple[int, ...] = ()
    """Scenes that cannot be read."""
    seconds: float = 0.0
    """That reading a frame takes."""

    def build(self) -> "RawRooms":
        return RawRooms(self)

    @staticmethod
    def recognises(root: Path) -> bool:
        return False

    @staticmethod
    def write_example(root: Path) -> None:
        pass


class RawRooms(RawDataset):
    tables = TABLES
    known_ids = frozenset((0, *RAW_IDS.values()))
    depth_units = 4000

    def __init__(self, config: RawRoomsConfig):
        self.scenes = checked_scenes([RawRoom(config, number) for number in range(config.num)], "rooms")


class RawRoom(RawScene):
    """A room; frame 3 has no finite pose."""

    def __init__(self, config: RawRoomsConfig, number: int):
        self.config, self.number = config, number
        self.room = ExampleRoom(half_width=2.0 + 0.1 * number, num_frames=config.frames)
        self.name, self.source = f"room_{number:02d}", f"{config.root or 'rooms'}/room {number}"
        self.split = "val" if number % 3 == 2 else "train"
        self.frames = tuple(f"{10 * i}" for i in range(config.frames))[:: config.every]

    def read_points(self) -> RawPoints | None:
        if self.number in self.config.broken:
            raise DataError(f"{self.source}: the file is cut short")
        if not self.config.clouds:
            return None
        xyz, surface = self.room.points()
        ids = raw_ids(surface)
        return RawPoints(xyz.astype(np.float32), COLOURS[surface], labels=ids, instances=surface.astype(np.int32))

    def read_frames(self, names: Sequence[str]) -> Iterator[RawFrame | Problem]:
        for name in names:
            time.sleep(self.config.seconds)
            number = int(name) // 10
            if number == 3:
                yield Problem(self.name, name, "pose", f"{self.source}, frame {name}: pose is not finite")
                continue
            depth, surface = self.room.trace(number)
            yield RawFrame(
                name,
                self.room.intrinsics,
                self.room.pose(number),
                self.room.colour(number),
                depth.astype(np.float32),
                raw_ids(surface),
                surface.astype(np.int32),
            )


def raw_ids(surface: np.ndarray) -> np.ndarray:
    return np.array([RAW_IDS[name] for name in SURFACES], dtype=np.int32)[surface]
