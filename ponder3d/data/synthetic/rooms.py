"""Generated rooms: furnished, lit and filmed by a noisy depth camera; seeded, endless and fully labelled.

Room number i is a pure function of (seed, i, configuration): the same bits in any process, in any order, with or
without the cache. The world frame is metric, z up, with the floor at z = 0 and the origin in the middle of the room.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from ponder3d.config import fingerprint, incidental, later
from ponder3d.data.dataset import DataError, DatasetConfig, SceneDataset
from ponder3d.data.synthetic.filling import fill
from ponder3d.data.synthetic.filming import PackedRoom, film, furnished_room
from ponder3d.data.synthetic.groups import ROOM_TYPES
from ponder3d.data.synthetic.materials import STYLES
from ponder3d.data.synthetic.pieces import DESIGNS, Draw
from ponder3d.data.synthetic.room_classes import GROUPED_LABELS as GROUPED_LABELS
from ponder3d.data.synthetic.room_classes import LABELS_OF
from ponder3d.data.synthetic.room_classes import ROOMS_LABELS as ROOMS_LABELS
from ponder3d.data.synthetic.room_classes import SPACES_LABELS as SPACES_LABELS
from ponder3d.data.synthetic.room_classes import STRUCTURE as STRUCTURE
from ponder3d.data.synthetic.sensor import SensorConfig
from ponder3d.data.synthetic.walk import walk
from ponder3d.geometry.keyed import derive
from ponder3d.types import Boxes, Cameras, Scene, Views

FIRST_TEST_ROOM = 1_000_000
"""Rooms from this index on are for evaluation; training sets start at 0 and end before."""

GENERATOR_VERSION = 1
"""Part of the cache's address; raise it whenever the same configuration gives different rooms."""


@dataclass(frozen=True)
class RoomsConfig(DatasetConfig):
    """Generated rooms. Two sets with one seed and disjoint ranges of indices share no room."""

    seed: int = 0
    """Other seeds give other rooms; room i of a seed is always the same."""
    first: int = 0
    """Index of the first room."""
    num_rooms: int = 1000
    """Rooms in the set, made when they are asked for."""
    num_test_rooms: int = 16
    """Rooms of the ``held_out`` set."""
    num_views: int = 30
    """Images per room, along one walk through it."""
    num_fused_views: int = 20
    """The point cloud comes from the first so many views; the others only supervise."""
    image_size: tuple[int, int] = (120, 160)
    """Height and width."""
    room_types: tuple[str, ...] = ROOM_TYPES
    """Types to draw from."""
    style: Literal["mixed", "warm", "cool", "bright"] = "mixed"
    """Which colours rooms have."""
    designs: Literal["all", "seen", "unseen"] = later("all")
    """How furniture and fixtures are built. ``seen``: of the three or four designs that most kinds have (legs, arm
    rests, backs, ...), one each is kept for the rooms held out, which are then ``unseen`` and have it alone."""
    classes: Literal["all", "grouped", "spaces"] = "all"
    """``all``: the 37 of ``ROOMS_LABELS``. ``grouped``: the 12 of ``GROUPED_LABELS``. ``spaces``: the 11 of
    ``SPACES_LABELS``."""
    cloud_spacing: float = 0.02
    """The cloud has one point per voxel of this side, in metres."""
    max_points: int = 100_000
    """Most points of a room's cloud; of more, a random part is kept."""
    sensor: SensorConfig = SensorConfig()
    """Noise and holes of the camera that films the rooms."""
    cache: str = incidental("")
    """Directory in which rooms are kept once they are made; empty for none."""

    def __post_init__(self):
        for name, least in (
            ("first", 0),
            ("num_rooms", 1),
            ("num_test_rooms", 1),
            ("num_fused_views", 1),
            ("max_points", 1),
        ):
            if getattr(self, name) < least:
                raise ValueError(f"RoomsConfig.{name} must be at least {least}, it is {getattr(self, name)}")
        if self.num_fused_views > self.num_views:
            raise ValueError(
                f"RoomsConfig.num_fused_views is {self.num_fused_views}, more than num_views ({self.num_views})"
            )
        if len(self.image_size) != 2 or min(self.image_size) < 8:
            raise ValueError(
                f"RoomsConfig.image_size must be (height, width) of at least 8 pixels, it is {self.image_size}"
            )
        for name, allowed in (("classes", LABELS_OF), ("style", STYLES), ("designs", DESIGNS)):
            if getattr(self, name) not in allowed:
                raise ValueError(
                    f"RoomsConfig.{name} must be one of {', '.join(allowed)}, it is {getattr(self, name)!r}"
                )
        if not self.cloud_spacing > 0:
            raise ValueError(f"RoomsConfig.cloud_spacing must be positive, it is {self.cloud_spacing}")
        unknown = [kind for kind in self.room_types if kind not in ROOM_TYPES]
        if unknown or not self.room_types:
            raise ValueError(f"RoomsConfig.room_types is {self.room_types}; choose from {', '.join(ROOM_TYPES)}")

    def build(self) -> "Rooms":
        """Open the dataset; nothing is generated yet."""
        return Rooms(self)

    def held_out(self) -> "RoomsConfig":
        """``num_test_rooms`` rooms from a range of indices that no training set reaches; of ``seen`` designs, rooms of
        ``unseen`` ones."""
        designs = "unseen" if self.designs == "seen" else self.designs
        return replace(self, first=self.first + FIRST_TEST_ROOM, num_rooms=self.num_test_rooms, designs=designs)


class Rooms(SceneDataset):
    """Generated rooms by index, made when asked for and kept in the cache if there is one."""

    def __init__(self, config: RoomsConfig):
        self.config = config
        self.labels = LABELS_OF[config.classes][0]

    def __len__(self) -> int:
        return self.config.num_rooms

    def __getitem__(self, index: int) -> Scene:
        """One room.

        Raises:
            IndexError: the index is not in ``range(len(self))``.
        """
        if not 0 <= index < len(self):
            raise IndexError(f"room {index} of {len(self)}")
        return _scene(_packed(self.config, index), self.config, index)

    def view_names(self, index: int) -> tuple[str, tuple[str, ...]]:
        """Known without making the room."""
        return _source(self.config, index), _view_names(self.config.num_views)


def generate(config: RoomsConfig, workers: int = 2, progress: Callable[[int, int], None] | None = None) -> None:
    """Fill the cache in several processes. Interrupt it and run it again: finished rooms stay.

    A room that is there counts as done; should it be damaged, it is made again when it is read.

    Args:
        config: what to generate; its ``cache`` must be set.
        workers: number of processes, each with one thread. They are spawned, so a script that calls this needs the
            usual ``if __name__ == "__main__":``.
        progress: called with the number of rooms done and the number of all rooms, at the start and after each room.

    Raises:
        ValueError: no cache directory, or fewer than one worker.
    """
    if not config.cache:
        raise ValueError("generate: RoomsConfig.cache is empty; name a directory")
    if workers < 1:
        raise ValueError(f"generate: workers must be at least 1, it is {workers}")
    missing = [i for i in range(config.num_rooms) if not room_path(config, i).exists()]
    fill([(config, i) for i in missing], config.num_rooms, _fill, workers, progress)


def room_path(config: RoomsConfig, index: int) -> Path:
    """The cache file of a room. Its folder is named by everything that decides the room's content."""
    content = replace(config, first=0, num_rooms=1, num_test_rooms=1, classes="all")
    return Path(config.cache) / f"{fingerprint(content)}-v{GENERATOR_VERSION}" / f"room-{config.first + index:06d}.npz"


def _fill(config: RoomsConfig, index: int) -> None:
    """Make a room for the cache. Returns nothing: 6 MB a room would travel back and stay until all are done."""
    _packed(config, index)


def _packed(config: RoomsConfig, index: int) -> PackedRoom:
    """A room from the cache, or made and put there."""
    if not config.cache:
        return make_room(config, config.first + index)
    path = room_path(config, index)
    packed = _load(path)
    if packed is None:
        packed = make_room(config, config.first + index)
        _save(path, packed)
    return packed


def _load(path: Path) -> PackedRoom | None:
    """A stored room; None if it is missing or cannot be read (every array has a checksum)."""
    try:
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as stored:
            return PackedRoom(**{f.name: stored[f.name] for f in fields(PackedRoom)})
    except Exception:  # damaged bytes raise anything from BadZipFile to MemoryError; the room is made again
        return None


def _save(path: Path, packed: PackedRoom) -> None:
    """Write under another name and rename: a reader sees a whole room or none."""
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with open(temporary, "wb") as file:
                np.savez(file, **{f.name: getattr(packed, f.name) for f in fields(packed)})
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise DataError(f"{path}: cannot be written ({error}); set RoomsConfig.cache to a writable folder") from error


def _source(config: RoomsConfig, index: int) -> str:
    return f"room {config.first + index} of seed {config.seed}"


def _view_names(number: int) -> tuple[str, ...]:
    return tuple(f"view-{view:02d}" for view in range(number))


def _scene(packed: PackedRoom, config: RoomsConfig, index: int) -> Scene:
    number = config.first + index
    normal = packed.point_normal.astype(np.float32)
    normal /= np.sqrt((normal * normal).sum(1, keepdims=True))
    # One row more than there are classes: -1 stays -1.
    rows = torch.tensor([*LABELS_OF[config.classes][1], -1])
    cameras = Cameras(
        intrinsics=torch.from_numpy(packed.intrinsics),
        world_from_cam=torch.from_numpy(packed.world_from_cam),
        size=config.image_size,
    )
    views = Views(
        cameras=cameras,
        rgb=torch.from_numpy(packed.rgb),
        depth=torch.from_numpy(packed.depth * np.float32(0.001)),
        labels=rows.to(torch.int16)[torch.from_numpy(packed.labels).to(torch.int64)],
        counts=torch.tensor([len(cameras)]),
        instances=torch.from_numpy(packed.instances),
        names=_view_names(len(cameras)),
    )
    boxes = torch.from_numpy(packed.boxes)
    return Scene(
        xyz=torch.from_numpy(packed.xyz * np.float32(0.001)),
        rgb=torch.from_numpy(packed.point_rgb * np.float32(1 / 255)),
        normal=torch.from_numpy(normal),
        source=_source(config, index),
        labels=rows[torch.from_numpy(packed.point_labels).to(torch.int64)],
        instances=torch.from_numpy(packed.point_instances.astype(np.int64)),
        views=views,
        boxes=Boxes(
            boxes[:, :3], boxes[:, 3:6], boxes[:, 6], rows[torch.from_numpy(packed.box_labels).to(torch.int64)]
        ),
        key=derive(config.seed, number),
    )


def make_room(config: RoomsConfig, number: int) -> PackedRoom:
    """Furnish, film and fuse one room; ``number`` counts from 0, not from ``config.first``."""
    # One stream for each stage: how many numbers one of them draws does not change the others.
    rngs = [np.random.Generator(np.random.PCG64(derive(config.seed, number, stage))) for stage in range(4)]
    room = furnished_room(Draw(rngs[0], config.style, config.designs), config.room_types)
    lens = walk(Draw(rngs[1]), room.plan, room.placed, config.num_views, config.image_size)
    return film(
        room, lens, config.sensor, config.num_fused_views, config.cloud_spacing, config.max_points, rngs[2], rngs[3]
    )
