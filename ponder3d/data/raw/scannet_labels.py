"""ScanNet's annotations: the table of categories, groups of segments, and label images in zip files."""

import json
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ponder3d.data.dataset import DataError
from ponder3d.data.faults import raise_if_of_machine
from ponder3d.data.raw.dataset import Problem
from ponder3d.data.rgbd_images import read_image

_LABEL_MODES = ("L", "P", "I;16", "I;16B", "I")
_MAX_IMAGE = 1 << 26
"""Bytes of a label image in its file; official ones have 10 to 100 KB."""
_MAX_ID = 1 << 16
"""Raw ids are kept in 16 bits; the largest is 1357."""
_FIRST_OWN = 10_000
"""From here on, raw ids are given to names that need one of their own."""
_USED = ("raw_category", "id", "nyu40id")


@dataclass(frozen=True)
class Categories:
    """ScanNet's table of categories: ``scannetv2-labels.combined.tsv``.

    Names that share an id differ in their NYU40 number here and there (385 is ``cabinet door``, a door, and
    ``cabinet doors``, a cabinet), and points have the number of their name. So an id stands for its first name's
    number, and names with another number get a raw id that the table does not have: for each id and other number, in
    order of the two, the next one free from 10000 on. Label images know ids only; theirs is the first name's number.
    """

    path: Path
    id_of: dict[str, int]
    """Raw id by name (column ``raw_category``): that of column ``id``, or one of its own."""
    nyu40_of: dict[int, int]
    """NYU40 number (column ``nyu40id``) by raw id, those that the table does not have among them."""
    table_id_of: dict[int, int]
    """Column ``id`` by raw id that the table does not have."""


def read_categories(path: Path) -> Categories:
    """Read the table of categories: text with tabs, whose first line names the columns.

    Raises:
        DataError: it is missing, lacks a column, or a number in it is none.
    """
    try:
        lines = path.read_bytes().decode("utf-8").splitlines()
    except OSError as error:
        raise_if_of_machine(error, path)
        raise DataError(f"{path}: no such file") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: no text: {error}") from error
    columns = lines[0].split("\t") if lines else []
    for name in _USED:
        if columns.count(name) != 1:
            raise DataError(f"{path}: first line: no column {name}, or two; is it the official table?")
    at = [columns.index(name) for name in _USED]
    found: dict[str, tuple[int, int]] = {}
    nyu40_of: dict[int, int] = {}
    for number, line in enumerate(lines[1:], start=2):
        if not line.strip():
            continue
        cells = line.split("\t")
        if len(cells) <= max(at):  # editors strip the tabs after the last cell that is not empty
            raise DataError(f"{path}: line {number}: {len(cells)} cells; {', '.join(_USED)} need {max(at) + 1}")
        name, raw_id, nyu40 = (cells[place] for place in at)
        pair = _whole(path, number, "id", raw_id, _MAX_ID), _whole(path, number, "nyu40id", nyu40, 41)
        found[name.strip()] = pair
        nyu40_of.setdefault(*pair)
    if not found:
        raise DataError(f"{path}: no categories")
    others = sorted({pair for pair in found.values() if nyu40_of[pair[0]] != pair[1]})
    free = [number for number in range(_FIRST_OWN, _MAX_ID) if number not in nyu40_of][: len(others)]
    if len(free) < len(others):
        raise DataError(f"{path}: {len(others)} other nyu40ids than that of an id's first name; is it the right table?")
    own = dict(zip(others, free, strict=True))
    nyu40_of |= {raw_id: pair[1] for pair, raw_id in own.items()}
    id_of = {name: own.get(pair, pair[0]) for name, pair in found.items()}
    return Categories(path, id_of, nyu40_of, {raw_id: pair[0] for pair, raw_id in own.items()})


def _whole(path: Path, line: int, column: str, text: str, limit: int) -> int:
    text = text.strip()
    if not (text.isascii() and text.isdecimal()) or len(text) > 6 or int(text) >= limit:
        raise DataError(f"{path}: line {line}: {column} is {text[:40]!r}, no whole number below {limit}")
    return int(text)


def read_segments(path: Path) -> np.ndarray:
    """[N] int64: the segment of each vertex, from ``*.segs.json``.

    Raises:
        DataError: it cannot be read as such.
    """
    data = _read_json(path)
    segments = data.get("segIndices") if isinstance(data, dict) else None
    if not _are_whole(segments):
        raise DataError(f"{path}: segIndices: expected a list of whole numbers, one for each vertex")
    return np.array(segments, dtype=np.int64)


@dataclass(frozen=True)
class Group:
    """An annotated object."""

    number: int
    """``objectId``; the number of the instance."""
    category: str
    segments: tuple[int, ...]


def read_groups(path: Path) -> list[Group]:
    """The annotated objects, from ``*.aggregation.json``.

    Raises:
        DataError: it cannot be read as such.
    """
    data = _read_json(path)
    entries = data.get("segGroups") if isinstance(data, dict) else None
    if not isinstance(entries, list):
        raise DataError(f"{path}: segGroups: expected a list of objects")
    groups = []
    for place, entry in enumerate(entries):
        found = entry if isinstance(entry, dict) else {}
        number = found.get("objectId", found.get("id"))
        if not isinstance(number, int) or not _are_whole([number]) or number < 0:
            raise DataError(f"{path}: segGroups[{place}].objectId: {str(number)[:40]} is no number of an object")
        if not isinstance(found.get("label"), str):
            raise DataError(f"{path}: segGroups[{place}].label: no name of a category")
        if not _are_whole(found.get("segments")):
            raise DataError(f"{path}: segGroups[{place}].segments: expected a list of whole numbers")
        groups.append(Group(number, found["label"].strip(), tuple(found["segments"])))
    return groups


def label_points(
    scene: str, segs: Path, aggregation: Path, categories: Categories, num: int
) -> tuple[np.ndarray, np.ndarray, tuple[Problem, ...]]:
    """[N] int32 raw ids (0: none) and [N] int32 instances (-1: none) of a scene's vertices, and what was left out.

    An object of a category that the table lacks is left out: its points have no label and belong to no instance.

    Args:
        scene: its name, for problems.
        segs: ``*.segs.json``.
        aggregation: ``*.aggregation.json``.
        categories: the table.
        num: number of vertices.

    Raises:
        DataError: a file cannot be read, or they do not belong together.
    """
    segments, groups = read_segments(segs), read_groups(aggregation)
    if len(segments) != num:
        raise DataError(f"{segs}: segIndices: {len(segments)} entries for {num} vertices; are they of one scene?")
    label_of: dict[int, int] = {}
    instance_of: dict[int, int] = {}
    problems = []
    for group in groups:
        raw_id = categories.id_of.get(group.category)
        if raw_id is None:
            what = (
                f"{aggregation}: object {group.number} is a {group.category!r}, which {categories.path} does not have; "
                "its points have no label"
            )
            problems.append(Problem(scene, "", "label", what))
            continue
        label_of |= dict.fromkeys(group.segments, raw_id)
        instance_of |= dict.fromkeys(group.segments, group.number)
    there, segment = np.unique(segments, return_inverse=True)
    if label_of and label_of.keys().isdisjoint(there.tolist()):
        raise DataError(f"{aggregation}: segGroups: none of its segments is in {segs}; are they of one scene?")
    labels = np.array([label_of.get(s, 0) for s in there.tolist()], dtype=np.int32)
    instances = np.array([instance_of.get(s, -1) for s in there.tolist()], dtype=np.int32)
    return labels[segment], instances[segment], tuple(problems)


class LabelImages:
    """Label images of a scene: members ``KIND/N.png`` of the zip file ``SCENE_2d-KIND.zip``, or files of a folder
    ``KIND`` beside it, where somebody has unpacked that.

    Use it in a ``with`` statement. Images are read where they are; nothing is unpacked.
    """

    def __init__(self, scene: Path | None, kind: str):
        """Look for the images of a kind, ``label-filt`` or ``instance-filt``; without a scene there are none.

        Raises:
            DataError: the zip file cannot be read, or a member's name leads out of it.
        """
        self._folder = Path(kind) if scene is None else scene / kind
        self._path = Path() if scene is None else scene / f"{scene.name}_2d-{kind}.zip"
        self._zip: zipfile.ZipFile | None = None
        if self._path.is_file():
            try:
                self._zip = zipfile.ZipFile(self._path)
                names = self._zip.namelist()
            except Exception as error:
                self.__exit__()
                raise_if_of_machine(error, self._path)
                raise _damaged(self._path, error) from error
            for name in names:
                if name.startswith("/") or "\\" in name or ".." in name.split("/"):
                    self.__exit__()
                    raise DataError(f"{self._path}: a member named {name!r}, which leads out of it; it is not used")
        self.present = self._zip is not None or (scene is not None and self._folder.is_dir())

    def __enter__(self) -> "LabelImages":
        return self

    def __exit__(self, *error: object) -> None:
        if self._zip is not None:
            self._zip.close()

    def read(self, frame: str) -> np.ndarray | None:
        """[H W] int32 of a frame; None if there are no images at all.

        Raises:
            DataError: this frame's is missing or damaged.
        """
        if not self.present:
            return None
        if self._zip is None:
            return read_image(self._folder / f"{frame}.png", _LABEL_MODES).astype(np.int32)
        member = f"{self._folder.name}/{frame}.png"
        where = f"{self._path}: {member}"
        try:
            info = self._zip.getinfo(member)
        except KeyError as error:
            raise DataError(f"{where}: no such member") from error
        if info.file_size > _MAX_IMAGE:
            raise DataError(f"{where}: an image of {info.file_size} bytes; more than {_MAX_IMAGE} are not read")
        try:
            with self._zip.open(info) as file:
                content = file.read(_MAX_IMAGE + 1)
        except Exception as error:
            raise_if_of_machine(error, self._path)
            raise _damaged(where, error) from error
        return read_image(where, _LABEL_MODES, content).astype(np.int32)


def _damaged(where: Path | str, error: Exception) -> DataError:
    """``zipfile`` raises almost anything on damaged files."""
    return DataError(f"{where}: cannot be read from the zip file ({type(error).__name__}: {error})")


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except OSError as error:
        raise_if_of_machine(error, path)
        raise DataError(f"{path}: no such file") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: cannot be read as JSON ({error})") from error


def _are_whole(values: Any) -> bool:
    """Whether it is a list of integers of 32 bits."""
    return isinstance(values, list) and all(type(v) is int and -(1 << 31) <= v < 1 << 31 for v in values)
