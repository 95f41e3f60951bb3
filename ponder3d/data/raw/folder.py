"""Anybody's own data: points, posed RGB-D frames, or both, one folder or one file a scene.

::

    ROOT/
        labels.json             optional: what the numbers of labels mean
        hall.ply                a scene that is a cloud
        kitchen/                a scene in a folder:
            points.laz              its cloud, and/or
            color/ depth/ pose/ intrinsic/ ...      its frames, in any layout of ponder3d.data.rgbd_folder,
                                    here or in folders below
        ...

or the same below ``ROOT/train``, ``ROOT/val`` and ``ROOT/test``, where there is any of these. Without them about every
8th scene (``val_every``) is for validation; its name alone decides (``rgbd.splits_of``). Scenes are called as their
folder or file, with _ for what is no letter, digit, _ or -; a name may occur once in the whole of ROOT.

Clouds are ``.ply``, ``.las``, ``.laz``, ``.npz`` or ``.npy``; ``ponder3d.data.raw.point_files`` lists the fields that
are read, and how colours are understood. Coordinates are in metres, unless ``metres_per_unit`` says otherwise, and z is
up, unless ``up`` says otherwise. Points and frames of a scene share a world: camera poses are in the units and axes of
the points, whatever the unit of the depth images (``depth_scale``). ``ponder3d doctor`` checks that they fit together.

Coordinates are kept in single precision, which is too coarse far away. A cloud without frames that lies more than 10 km
out (a map projection) is therefore moved towards 0 by whole kilometres; a scene with frames is not used unless
``origin`` says what to subtract.

``labels.json`` is either ``{"0": "wall", "1": "floor", ...}``, a name for each number in the files, or::

    {"names": ["wall", "floor"], "ignore": [-1, 255], "palette": [[200, 60, 60], [60, 200, 60]]}

with ``names`` as a list (numbers count from 0) or as above, numbers that mean "no label" (-1 always does), and a colour
for each class. ``ignore`` and ``palette`` are optional. Numbers of one name are one class. A number that is neither
named nor ignored is a fault. Without the file, labels of points are left out; those of images follow ``label_map.json``
if the scenes have it.
"""

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ponder3d.data.dataset import DataError
from ponder3d.data.faults import raise_if_of_machine
from ponder3d.data.raw.dataset import (
    LabelTable,
    Problem,
    RawDataset,
    RawFrame,
    RawPoints,
    RawScene,
    checked_scenes,
)
from ponder3d.data.raw.example_room import COLOURS, SURFACES, ExampleRoom
from ponder3d.data.raw.las import write_las
from ponder3d.data.raw.point_files import CLOUDS, cloud_files, read_points
from ponder3d.data.raw.rgbd import (
    SPLITS,
    FrameReader,
    RGBDOptions,
    depth_units,
    has_clouds,
    is_direction,
    label_tables,
    open_sequences,
    scene_clouds,
    splits_of,
    table_of,
    unnamed,
    upright,
    write_sequence,
)
from ponder3d.data.rgbd_folder import up_direction
from ponder3d.data.rgbd_layouts import Frame, layout_of, plain_name
from ponder3d.data.rgbd_layouts import Sequence as FrameSequence

LABELS = "labels.json"
FAR = 10_000.0
"""Metres from 0 up to which single precision resolves a millimetre."""
_MAX_JSON = 1 << 24


@dataclass(frozen=True)
class FolderConfig(RGBDOptions):
    """Choices of one's own data."""

    metres_per_unit: float = 1.0
    """Length of the unit of points and poses, e.g. 0.001 for millimetres, 0.3048 for feet."""
    colour: Literal["auto", "0..1", "0..255", "0..65535"] = "auto"
    """What the colours of points are, if their numbers do not tell."""
    origin: tuple[float, ...] = ()
    """x y z that is subtracted from points and poses, in the files' units and axes: for map coordinates."""

    def __post_init__(self):
        super().__post_init__()
        if not 0 < self.metres_per_unit < math.inf:
            raise ValueError(f"FolderConfig.metres_per_unit must be a positive number, it is {self.metres_per_unit}")
        if self.origin and not (is_direction(self.origin) or self.origin == (0.0, 0.0, 0.0)):
            raise ValueError(f"FolderConfig.origin must be x y z, it is {self.origin}")

    def build(self) -> "Folder":
        """List the scenes; files of points and images are not opened."""
        return Folder(self)

    @staticmethod
    def recognises(root: Path) -> bool:
        """A ``labels.json``, or a cloud where the schema has one."""
        return has_clouds(root)

    @staticmethod
    def write_example(root: Path) -> None:
        """A scene of points and frames, of frames alone, and of points alone in each kind of file but LAZ."""
        names = sorted(set(SURFACES))
        ids = np.array([names.index(name) + 1 for name in SURFACES])
        for i, place in enumerate(("train/hall", "train/attic", "train/cellar", "val/shed", "test/barn")):
            room = ExampleRoom(half_width=2.0 + 0.2 * i)
            xyz, surface = room.points()
            rgb, labels = COLOURS[surface], ids[surface]
            path = root / place
            path.parent.mkdir(parents=True, exist_ok=True)
            match path.name:
                case "hall":
                    write_sequence(path, room, "scannet")
                    _write_ply(path / "points.ply", xyz, rgb, labels)
                case "attic":
                    write_sequence(path / "walk", room, "hololens")
                case "cellar":
                    path.mkdir()
                    np.savez(path / "points.npz", xyz=xyz, rgb=rgb, labels=labels, instances=surface)
                case "shed":
                    np.save(path.with_suffix(".npy"), np.column_stack([xyz, rgb, labels]))
                case _:
                    write_las(path.with_suffix(".las"), xyz, rgb, labels)
        (root / LABELS).write_text(json.dumps({str(i + 1): name for i, name in enumerate(names)}))


class Folder(RawDataset):
    """Scenes of a directory that follows the schema of this module."""

    def __init__(self, config: FolderConfig):
        root = config.directory()
        known, table = read_labels_file(root / LABELS) if (root / LABELS).is_file() else (None, None)
        problems: list[Problem] = []
        found = []
        for split, place in _places(root):
            try:
                found.append((split, place, *_open_scene(place, root, config, problems)))
            except DataError as error:
                problems.append(Problem(plain_name(_scene_name(place)), "", "file", str(error)))
        if not found:
            why = f" ({len(problems)} problems, the first: {problems[0]})" if problems else ""
            raise DataError(f"{root}: no scenes found{why}; ponder3d.data.raw.folder says how to lay them out")
        sequences = [sequence for *_, opened in found for sequence in opened]
        if table is not None:
            self.tables = (table,)
        else:
            self.tables = label_tables([(s.folder, s.label_names) for s in sequences])
        ids = frozenset(row[0] for t in self.tables for row in t.rows)
        no_label = unnamed(ids) if ids else None
        self.known_ids = None if known is None else known | {-1, unnamed(ids)}
        found.sort(key=lambda scene: plain_name(_scene_name(scene[1])))
        scenes = []
        undecided = [plain_name(_scene_name(place)) for split, place, *_ in found if not split]
        splits = splits_of(undecided, config.val_every)
        for split, place, cloud, opened in found:
            name = plain_name(_scene_name(place))
            scenes.append(
                _Scene(
                    name,
                    split or splits[name],
                    place,
                    cloud,
                    opened,
                    config,
                    no_label,
                    table is not None,
                )
            )
        self.scenes = checked_scenes(scenes, str(root))
        self.problems = tuple(problems)
        self.depth_units = depth_units(config, [frame for s in sequences for frame in s.frames])


class _Scene(RawScene):
    def __init__(
        self,
        name: str,
        split: str,
        place: Path,
        cloud: Path | None,
        sequences: list[FrameSequence],
        config: FolderConfig,
        no_label: int | None,
        has_names: bool,
    ):
        self.name, self.split, self.source = name, split, str(place)
        self._cloud, self._config, self._has_names = cloud, config, has_names
        if config.up or cloud is not None:
            up = np.array(config.up or (0.0, 0.0, 1.0))
        else:
            up = up_direction(sequences[0], ()).double().numpy()
        self._turn = upright(up)
        self._origin = config.origin or (0.0, 0.0, 0.0)
        frames = list(_named_frames(sequences))[:: config.every]
        self._reader = FrameReader(
            name, dict(frames), config, self._turn, no_label, config.metres_per_unit, self._origin
        )
        self.frames = tuple(self._reader.frames)

    def read_points(self) -> RawPoints | None:
        if self._cloud is None:
            return None
        points = read_points(self._cloud, self._config.colour)
        problems = points.problems
        xyz = (points.xyz - np.array(self._origin)) * self._config.metres_per_unit @ self._turn.T
        far = float(np.abs(xyz).max())
        if far > FAR:
            kilometres = np.where(np.abs(xyz).max(0) > FAR, np.floor(xyz.min(0) / 1000) * 1000, 0)
            if self.frames:
                middle = " ".join(f"{value:.0f}" for value in np.median(points.xyz, axis=0))
                raise DataError(
                    f"{self._cloud}: xyz: points up to {far:.0f} m from 0, where single precision is too coarse; "
                    f"subtract an origin from points and poses, such as {middle}"
                )
            xyz = xyz - kilometres
        labels = points.labels
        if labels is not None and not self._has_names:
            labels = None
            what = f"{self._cloud}: labels are left out, as there is no {LABELS} that names them"
            problems = (*problems, Problem(self.name, "", "label", what))
        normal = points.normal
        return RawPoints(
            xyz=xyz.astype(np.float32),
            rgb=points.rgb,
            normal=None if normal is None else (normal @ self._turn.T).astype(np.float32),
            labels=labels,
            instances=points.instances,
            problems=problems,
        )

    def read_frames(self, names: Sequence[str]) -> Iterator[RawFrame | Problem]:
        return self._reader.read(names)


def read_labels_file(path: Path) -> tuple[frozenset[int], LabelTable]:
    """Numbers that may occur, and the classes, of a ``labels.json``; see the top of this module.

    Raises:
        DataError: it is nothing of the kind.
    """
    try:
        if path.stat().st_size > _MAX_JSON:
            raise ValueError(f"{path.stat().st_size} bytes")
        record = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(record, dict):
            raise ValueError(f"not a {type(record).__name__}")
        plain = "names" not in record
        names = _names(record if plain else record["names"])
        unknown = [] if plain else sorted(set(record) - {"names", "ignore", "palette"})
        if unknown or not names:
            raise ValueError(f"an entry {unknown[0]}" if unknown else "no names")
        ignore = [] if plain else [_whole(value) for value in record.get("ignore", [])]
        colours = [] if plain else [_rgb(colour) for colour in record.get("palette", [])]
        if colours and len(colours) != len(set(names.values())):
            raise ValueError(f"{len(colours)} colours for {len(set(names.values()))} classes")
        both = sorted(set(ignore) & set(names))
        if both:
            raise ValueError(f"{both[0]} has a name and is ignored")
        return frozenset(names) | frozenset(ignore), table_of(names, colours)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise_if_of_machine(error, path)
        raise DataError(
            f'{path}: expected {{"0": "wall", ...}} or {{"names": [...], "ignore": [...], "palette": [...]}} ({error})'
        ) from error


def _names(record: Any) -> dict[int, str]:
    pairs = list(record.items()) if isinstance(record, dict) else list(enumerate(record))
    names = {_whole(int(value)): name for value, name in pairs}
    if len(names) != len(pairs) or not all(isinstance(name, str) and name for name in names.values()):
        raise ValueError("a name that is no text, or a number twice")
    return names


def _whole(value: Any) -> int:
    if type(value) is not int or not -(2**31) <= value < 2**31:
        raise ValueError(f"{value!r} is no number of a label")
    return value


def _rgb(colour: Any) -> tuple[int, int, int]:
    red, green, blue = (_whole(value) for value in colour)
    if not 0 <= min(red, green, blue) <= max(red, green, blue) <= 255:
        raise ValueError(f"a colour {colour}")
    return red, green, blue


def _places(root: Path) -> Iterator[tuple[str, Path]]:
    """Split (empty: not said) and place of all that may be a scene."""
    splits = [split for split in SPLITS if (root / split).is_dir() and not _is_scene(root / split)]
    beside = [path for path in _candidates(root) if path.name not in splits]
    if not splits:
        for path in beside:
            yield "", path
        return
    stray = next((path for path in beside if path.is_file() or _is_scene(path)), None)
    if stray is not None:
        raise DataError(f"{stray}: a scene beside the folders {', '.join(splits)}; move it into one of them")
    for split in splits:
        for path in _candidates(root / split):
            yield split, path


def _candidates(folder: Path) -> list[Path]:
    return cloud_files(folder) + sorted(p for p in folder.iterdir() if p.is_dir() and p.name[0] != ".")


def _is_scene(folder: Path) -> bool:
    return bool(scene_clouds(folder)) or layout_of(folder) is not None


def _scene_name(place: Path) -> str:
    return place.name if place.is_dir() else place.stem


def _open_scene(
    place: Path, root: Path, config: FolderConfig, problems: list[Problem]
) -> tuple[Path | None, list[FrameSequence]]:
    """The cloud and the frames of a place; adds to the problems.

    Raises:
        DataError: it has neither, or two clouds.
    """
    if place.is_file():
        return place, []
    clouds = scene_clouds(place)
    if len(clouds) > 1:
        raise DataError(f"{clouds[1]}: a scene has one cloud, and {clouds[0].name} is there too; remove one of them")
    sequences, wrong = open_sequences(place, root, config, scene=plain_name(place.name))
    problems += wrong
    if not clouds and not sequences:
        endings = "|".join(ending[1:] for ending in CLOUDS)
        raise DataError(f"{place}: no scene: neither points.({endings}) nor usable RGB-D frames there")
    return (clouds or [None])[0], sequences


def _named_frames(sequences: list[FrameSequence]) -> Iterator[tuple[str, Frame]]:
    """Frames of all sequences, named after their sequence too if there are several."""
    for sequence in sequences:
        for frame in sequence.frames:
            name = f"{sequence.name}_{frame.name}" if len(sequences) > 1 else frame.name
            yield name, replace(frame, name=name)


def _write_ply(path: Path, xyz: np.ndarray, rgb: np.ndarray, labels: np.ndarray) -> None:
    rows = np.empty(len(xyz), [("xyz", "<f4", 3), ("rgb", "u1", 3), ("label", "<i4")])
    rows["xyz"], rows["rgb"], rows["label"] = xyz, rgb, labels
    names = [f"float {a}" for a in "xyz"] + [f"uchar {c}" for c in ("red", "green", "blue")] + ["int label"]
    head = ["ply", "format binary_little_endian 1.0", f"element vertex {len(xyz)}", *(f"property {n}" for n in names)]
    path.write_bytes("\n".join([*head, "end_header\n"]).encode() + rows.tobytes())
