"""Prepared scenes as a dataset: read from a directory, or streamed from any storage that fsspec reads."""

import math
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Generator, Tensor

from ponder3d.config import incidental
from ponder3d.data.dataset import DataError, DatasetConfig, SceneDataset, no_labels
from ponder3d.data.limited import read_scene_list
from ponder3d.data.prepared.cache import Cache
from ponder3d.data.prepared.container import SceneIndex, read_array
from ponder3d.data.prepared.images import read_colour, read_numbers
from ponder3d.data.prepared.manifest import Manifest, SceneEntry
from ponder3d.data.prepared.record import Records
from ponder3d.data.prepared.storage import NotStoredError, Retries, Storage
from ponder3d.data.raw.dataset import LabelTable
from ponder3d.data.rgbd_images import fitted_size, seen_intrinsics
from ponder3d.data.skip_list import FILE_NAME as SKIP_LIST
from ponder3d.data.skip_list import SkipList, parse_skip_list, read_skip_list
from ponder3d.types import Cameras, Scene, Views

_COLUMNS = {"xyz": ("f", (3,)), "rgb": ("u", (3,)), "normal": ("f", (3,)), "labels": ("i", ()), "instances": ("i", ())}
"""Kind of number and width of what is known of each point."""
_FAR = 1e9
_MEMBERS = 100_000
"""Members of the indices that a process keeps, 40 MB: those of 80 scenes of 300 frames, or of 5 of 5,000."""


@dataclass(frozen=True)
class PreparedConfig(DatasetConfig):
    """Choices of prepared scenes."""

    beside_points = ("classes", "views", "max_side")

    root: str = ""
    """What ``ponder3d prepare`` or ``ponder3d shard`` has written: a directory, or a URL such as
    ``s3://bucket/scenes`` or ``https://host/scenes``."""
    split: str = "train"
    """``train``, ``val`` or ``test``."""
    held_out_split: str = "val"
    """The split to evaluate on."""
    fold: str = ""
    """Hold out the scenes whose names begin so, such as ``Area_3`` of S3DIS, and train on all others, whatever split
    they were prepared as; empty: the splits as they are."""
    classes: str = ""
    """Which of the dataset's choices of classes, such as ``scannet200``; empty: the first."""
    views: int = 5
    """Images of a scene: random ones in training, evenly spread ones otherwise. 0 takes none, -1 all."""
    max_side: int = 0
    """Images are made smaller until their longer side is at most this many pixels; 0 keeps them."""
    scenes: str = ""
    """Text file with the names of the scenes to use, one a line, such as a data-efficient benchmark's; empty: all."""
    skip: str = ""
    """Skip list of scenes and frames to leave out, such as the doctor's; empty: ``skip.tsv`` below the root, if any."""
    mix_shards: int = 16
    """Files whose scenes are mixed at a time: an epoch reads them in a new order, so many together. 0 mixes all scenes,
    and so does every number if a file holds one scene."""
    cache_dir: str = incidental("")
    """Directory that keeps what was read; worth it for URLs and network file systems. Empty: none."""
    cache_gb: float = incidental(20.0)
    """Gigabytes that it may hold; several runs may share one."""
    timeout: float = incidental(20.0)
    """Seconds, and one more per megabyte, after which a read from a URL is given up and tried again."""
    keep_in_memory: int = incidental(0)
    """Scenes whose points each loader process keeps."""

    def __post_init__(self):
        for name, fits, allowed in (
            ("views", self.views >= -1, "-1, 0 or a number of images"),
            ("max_side", self.max_side == 0 or self.max_side >= 8, "0 or at least 8"),
            ("mix_shards", self.mix_shards >= 0, "at least 0"),
            ("cache_gb", 0 < self.cache_gb < math.inf, "a positive number"),
            ("timeout", 0 < self.timeout < math.inf, "a positive number"),
            ("keep_in_memory", self.keep_in_memory >= 0, "at least 0"),
        ):
            if not fits:
                raise ValueError(f"PreparedConfig.{name} must be {allowed}, it is {getattr(self, name)}")

    def build(self) -> "PreparedScenes":
        """Read the manifest; scenes are read when they are asked for."""
        if not self.root:
            raise DataError("PreparedConfig.root is empty: name the directory or the URL, e.g. --data.root DIR")
        return PreparedScenes(self)

    def all_images(self) -> "PreparedConfig":
        """All images of each scene, if any are wanted."""
        return replace(self, views=-1 if self.views else 0)

    def held_out(self) -> "PreparedConfig":
        """The scenes of the other split; a list of scenes is one of training scenes."""
        return replace(self, split=self.held_out_split, scenes="")


@dataclass(frozen=True)
class _Points:
    """The points of a scene, with rows of the label set for raw ids."""

    xyz: Tensor
    rgb: Tensor | None
    normal: Tensor | None
    labels: Tensor | None
    instances: Tensor | None


@dataclass(frozen=True)
class _Opened:
    """A scene's index, and what follows from it for every draw."""

    index: SceneIndex
    rows: list[int]
    """Numbers of the usable frames; none where no images are wanted."""
    kinds: tuple[str, ...]
    """The kinds of images that all frames have: a field is there for every draw of the scene or for none."""


class PreparedScenes(SceneDataset):
    """Scenes of one split of a prepared dataset, in the order of its manifest."""

    def __init__(self, config: PreparedConfig):
        self.config = config
        self._storage = Storage(config.root, Retries(timeout=config.timeout))
        cache = Cache(config.cache_dir, int(config.cache_gb * 1e9)) if config.cache_dir else None
        self._records = Records(self._storage, cache)
        manifest = self._records.manifest()
        self._table = _chosen(manifest.tables, config)
        self.labels = None if self._table is None else self._table.labels
        self.benchmark_ids = () if self._table is None else self._table.benchmark_ids
        self._rows = None if self._table is None else _Rows(self._table)
        self._skip = self._skip_list()
        entries, skipped = self._usable(manifest, self._listed(manifest))
        if not entries:
            why = f" ({len(skipped)} are left out, such as {skipped[0]})" if skipped else ""
            splits = sorted({scene.split for scene in manifest.scenes})
            of_fold = f" of fold {config.fold!r}" if config.fold else ""
            raise DataError(
                f"{config.root}: no scene in split {config.split!r}{of_fold}{why}; there are {', '.join(splits)}"
            )
        self._entries, self.skipped = entries, tuple(skipped)
        blocks = _lengths([entry.file for entry in entries])
        if 0 < config.mix_shards < len(blocks) < len(entries):
            self.blocks, self.mix_blocks = blocks, config.mix_shards
        self._opened: dict[str, _Opened] = {}
        self._held = 0
        self._kept: dict[str, _Points] = {}

    def __reduce__(self):
        return type(self), (self.config,)  # what was kept does not move to another process

    def __len__(self) -> int:
        return len(self._entries)

    def __getitem__(self, index: int) -> Scene:
        entry = self._entries[index]
        frames = self._open(entry).rows
        num = _drawn(self.config.views, len(frames))
        return self._scene(entry, [frames[(2 * i + 1) * len(frames) // (2 * num)] for i in range(num)])

    def draw(self, index: int, generator: Generator) -> Scene:
        """A scene with random views of it, in the order of time."""
        entry = self._entries[index]
        frames = self._open(entry).rows
        num = _drawn(self.config.views, len(frames))
        order = torch.randperm(len(frames), generator=generator)[:num].sort().values
        return self._scene(entry, [frames[i] for i in order.tolist()])

    def view_names(self, index: int) -> tuple[str, tuple[str, ...]]:
        """All usable images of a scene; its index is read, and no image."""
        entry = self._entries[index]
        opened = self._open(entry)
        return self._source(entry), tuple(opened.index.frames[row] for row in opened.rows)

    def _source(self, entry: SceneEntry) -> str:
        return f"{self.config.root}:{entry.name}"

    def _skip_list(self) -> SkipList:
        if self.config.skip:
            return read_skip_list(Path(self.config.skip))
        where = self._storage.where(SKIP_LIST)
        try:
            return parse_skip_list(self._storage.read_all(SKIP_LIST).decode(), where)
        except NotStoredError:
            return SkipList()
        except UnicodeDecodeError as error:
            raise DataError(f"{where}: not a text in UTF-8 ({error})") from error

    def _listed(self, manifest: Manifest) -> list[SceneEntry]:
        """The scenes of the split, those that the list names if there is one."""
        config = self.config
        found = {scene.name: scene for scene in manifest.scenes if self._is_ours(scene)}
        if not config.scenes:
            return list(found.values())
        left_out = {problem.scene for problem in manifest.problems}
        names = read_scene_list(Path(config.scenes))
        for name in names:
            if name not in found and name not in left_out:
                raise DataError(f"{config.scenes}: {config.root} has no scene {name} in split {config.split!r}")
        return [scene for name, scene in found.items() if name in set(names)]

    def _is_ours(self, scene: SceneEntry) -> bool:
        config = self.config
        if not config.fold:
            return scene.split == config.split
        return scene.name.startswith(config.fold) == (config.split == config.held_out_split)

    def _usable(self, manifest: Manifest, entries: list[SceneEntry]) -> tuple[list[SceneEntry], list[str]]:
        """The scenes that can be used, and what is left out."""
        want_views = self.config.views != 0 and any(entry.frames for entry in manifest.scenes)
        frames_of: dict[str, dict[str, str]] = {}
        for (scene, frame), reason in self._skip.entries.items():
            frames_of.setdefault(scene, {})[frame] = reason
        usable, skipped = [], []
        for entry in entries:
            reason = self._skip.scene(entry.name)
            if reason is None and not entry.points:
                reason = "it has no points"
            if reason is None and want_views and not entry.frames:
                reason = "it has no images, which other scenes have; --data.views 0 takes points only"
            frames = frames_of.get(entry.name, {})
            if reason is None and want_views and 0 < entry.frames <= len(frames):
                names = self._records.index(entry).frames
                if all(self._skip.frame(entry.name, name) for name in names):
                    reason = f"all of its {len(names)} images are on the skip list; --data.views 0 takes points only"
            if reason is not None:
                skipped.append(f"{self.config.root}:{entry.name}: {reason}")
                continue
            usable.append(entry)
            if want_views:
                skipped += [f"{self.config.root}:{entry.name}/{frame}: {why}" for frame, why in frames.items()]
        known = {scene.name for scene in manifest.scenes} | {problem.scene for problem in manifest.problems}
        if strangers := self._skip.strangers(known):
            skipped.append(
                f"{self._skip.where}: no such scene: {', '.join(strangers[:5])}: is it another dataset's list?"
            )
        return usable, skipped

    def _open(self, entry: SceneEntry) -> _Opened:
        """What is known of a scene; what was used last is kept, as far as ``_MEMBERS`` go."""
        opened = self._opened.pop(entry.name, None)
        if opened is None:
            index = self._records.index(entry)
            numbers = range(len(index.frames) if self.config.views else 0)
            rows = [row for row in numbers if self._skip.frame(entry.name, index.frames[row]) is None]
            opened = _Opened(index, rows, self._kinds(index) if rows else ())
            self._held += len(index.members)
        self._opened[entry.name] = opened
        while self._held > _MEMBERS and len(self._opened) > 1:
            self._held -= len(self._opened.pop(next(iter(self._opened))).index.members)
        return opened

    def _kinds(self, index: SceneIndex) -> tuple[str, ...]:
        optional = ["depth.png", *(["label.png"] if self._rows else []), "instance.png"]
        frames = range(len(index.frames))
        common = (kind for kind in optional if all(f"f{row:06d}.{kind}" in index.members for row in frames))
        return "color.jpg", *common

    def _scene(self, entry: SceneEntry, rows: list[int]) -> Scene:
        opened = self._open(entry)
        index = opened.index
        points = self._kept.get(entry.name)
        names = [] if points else [f"{name}.npy" for name in self._columns(index)]
        if rows:
            names += ["intrinsics.npy", "world_from_cam.npy"]
            names += [f"f{row:06d}.{kind}" for row in rows for kind in opened.kinds]
        members = self._records.members(entry, index, names)
        if points is None:
            points = self._parse_points(entry, index, members)
            if self.config.keep_in_memory:
                while len(self._kept) >= self.config.keep_in_memory:
                    self._kept.pop(next(iter(self._kept)))
                self._kept[entry.name] = points
        return Scene(
            xyz=points.xyz,
            rgb=points.rgb,
            normal=points.normal,
            labels=points.labels,
            instances=points.instances,
            source=self._source(entry),
            views=self._parse_views(entry, opened, rows, members) if rows else None,
        )

    def _columns(self, index: SceneIndex) -> list[str]:
        """What is read of the points."""
        optional = [name for name in _COLUMNS if name != "xyz" and (name != "labels" or self._rows is not None)]
        return ["xyz", *(name for name in optional if f"{name}.npy" in index.members)]

    def _parse_points(self, entry: SceneEntry, index: SceneIndex, members: dict[str, bytes]) -> _Points:
        arrays: dict[str, np.ndarray | None] = dict.fromkeys(_COLUMNS)
        for name in self._columns(index):
            kind, width = _COLUMNS[name]
            where = f"{self._where(entry)}.{name}.npy"
            arrays[name] = _bounded(read_array(members[f"{name}.npy"], where, (index.points, *width), kind), where)
        xyz, rgb, normal, labels, instances = arrays.values()
        assert xyz is not None
        known = None
        if self._rows is not None:
            known = no_labels(index.points) if labels is None else torch.from_numpy(self._rows.of(labels))
        return _Points(
            xyz=_float(xyz),
            rgb=None if rgb is None else torch.from_numpy(rgb).to(torch.float32) / 255,
            normal=None if normal is None else _unit(_float(normal)),
            labels=known,
            instances=None if instances is None else torch.from_numpy(instances).to(torch.int64),
        )

    def _parse_views(self, entry: SceneEntry, opened: _Opened, rows: list[int], members: dict[str, bytes]) -> Views:
        index = opened.index
        old, where = index.size, self._where(entry)
        if old is None:
            raise DataError(f"{where}.index.json: images without a size; prepare it again")
        size = fitted_size(old, self.config.max_side)

        def matrices(name: str, side: int) -> np.ndarray:
            shape = (len(index.frames), side, side)
            array = _bounded(read_array(members[name], f"{where}.{name}", shape, "f"), f"{where}.{name}")
            return array[rows].astype(np.float64)

        def numbers(kind: str) -> np.ndarray | None:
            if kind not in opened.kinds:
                return None
            names = [f"f{row:06d}.{kind}" for row in rows]
            return np.stack([read_numbers(members[name], f"{where}.{name}", old, size) for name in names])

        colours = [f"f{row:06d}.color.jpg" for row in rows]
        depth, labels, instances = (numbers(kind) for kind in ("depth.png", "label.png", "instance.png"))
        intrinsics = [seen_intrinsics((None, matrix), old, old, size) for matrix in matrices("intrinsics.npy", 3)]
        return Views(
            cameras=Cameras(_float(np.stack(intrinsics)), _float(matrices("world_from_cam.npy", 4)), size),
            rgb=torch.from_numpy(np.stack([read_colour(members[n], f"{where}.{n}", old, size) for n in colours])),
            depth=None if depth is None else _float(depth) / index.depth_units,
            labels=None if labels is None or self._rows is None else torch.from_numpy(self._rows.of_image(labels)),
            counts=torch.tensor([len(rows)]),
            instances=None if instances is None else torch.from_numpy(instances.astype(np.int32) - 1),
            names=tuple(index.frames[row] for row in rows),
        )

    def _where(self, entry: SceneEntry) -> str:
        return f"{self._storage.where(entry.file)}: {entry.name}"


class _Rows:
    """From raw ids to rows of a label set; -1 for those without a class."""

    def __init__(self, table: LabelTable):
        pairs = np.array(sorted(table.rows), dtype=np.int64).reshape(-1, 2)
        self.ids, self.rows = pairs[:, 0], pairs[:, 1]
        self.by_id = self.of(np.arange(1 << 16)).astype(np.int16)

    def of(self, ids: np.ndarray) -> np.ndarray:
        """[...] int64, of any integers."""
        if not len(self.ids):
            return np.full(ids.shape, -1, dtype=np.int64)
        place = np.minimum(np.searchsorted(self.ids, ids), len(self.ids) - 1)
        return np.where(self.ids[place] == ids, self.rows[place], -1)

    def of_image(self, ids: np.ndarray) -> np.ndarray:
        """[...] int16, of uint16."""
        return self.by_id[ids]


def _chosen(tables: tuple[LabelTable, ...], config: PreparedConfig) -> LabelTable | None:
    if not config.classes:
        return tables[0] if tables else None
    for table in tables:
        if table.name == config.classes:
            return table
    known = ", ".join(table.name for table in tables) or "none: it has no labels"
    raise DataError(f"{config.root}: no classes {config.classes!r}; there are {known}")


def _drawn(views: int, frames: int) -> int:
    return frames if views < 0 else min(views, frames)


def _lengths(files: list[str]) -> tuple[int, ...]:
    """How many successive scenes lie in one file, file after file."""
    lengths: list[int] = []
    for number, file in enumerate(files):
        if number and file == files[number - 1]:
            lengths[-1] += 1
        else:
            lengths.append(1)
    return tuple(lengths)


def _bounded(array: np.ndarray, where: str) -> np.ndarray:
    """The array, if its numbers are ones of a scene: finite, and far from where float32 ends."""
    with np.errstate(invalid="ignore"):
        if array.dtype.kind == "f" and array.size and not (-_FAR < array.min() and array.max() < _FAR):
            raise DataError(f"{where}: a number that is not finite, or beyond {_FAR:g}; prepare the scene again")
    return array


def _float(array: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(array, dtype=np.float32))


def _unit(normal: Tensor) -> Tensor:
    """Unit again, after what half precision or a file's rounding has left; a zero stays."""
    return normal / normal.norm(dim=1, keepdim=True).clamp_min(1e-12)
