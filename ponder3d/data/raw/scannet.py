"""ScanNet v2 as it is downloaded: ``scans/scene0000_00/...`` and ``scans_test/...``.

========================================== ============================================================================
file of a scene ``S``                      what is taken from it
========================================== ============================================================================
``S_vh_clean_2.ply``                       vertices with colour; normals from its triangles
``S_vh_clean_2.0.010000.segs.json``        segment of each vertex
``S.aggregation.json``                     or ``S_vh_clean.aggregation.json``: objects, as groups of segments
``S.sens``                                 frames; without it ``color/ depth/ pose/ intrinsic/``, as the official
                                           exporter writes them, or with a ``pose/N.txt`` and ``intrinsic/N.txt`` each
``S_2d-label-filt.zip``                    raw id of each pixel, if it is there; so is ``S_2d-instance-filt.zip``
``S.txt``                                  ``axisAlignment``, if asked for
========================================== ============================================================================

Raw ids are those of the column ``id`` of ``scannetv2-labels.combined.tsv``, which lies beside ``scans`` or in
``tasks``; some names have one of their own, see ``scannet_labels.Categories``. Scans of the hidden test have no labels.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ponder3d.data.dataset import DataError
from ponder3d.data.faults import raise_if_of_machine
from ponder3d.data.limited import read_scene_list
from ponder3d.data.raw.align import aligned
from ponder3d.data.raw.checks import pose_problem
from ponder3d.data.raw.dataset import (
    Problem,
    RawDataset,
    RawDatasetConfig,
    RawFrame,
    RawPoints,
    RawScene,
    checked_scenes,
)
from ponder3d.data.raw.mesh_normals import vertex_normals
from ponder3d.data.raw.ply import read_ply
from ponder3d.data.raw.scannet_classes import label_tables, official_split
from ponder3d.data.raw.scannet_example import write_scannet
from ponder3d.data.raw.scannet_frames import Frames, has_frames, open_frames
from ponder3d.data.raw.scannet_labels import Categories, LabelImages, label_points, read_categories
from ponder3d.data.raw.unusable import Unusable, unusable

_SCENE = re.compile(r"scene(\d{4})_\d{2}$")
_TABLE = "scannetv2-labels.combined.tsv"
_SEGS = "_vh_clean_2.0.010000.segs.json"


@dataclass(frozen=True)
class ScanNetConfig(RawDatasetConfig):
    """Choices of how ScanNet v2 is read."""

    root: str = ""
    """The download: the directory with ``scans`` (and ``scans_test``) in it, or ``scans`` itself."""
    every: int = 20
    """Take every n-th frame; the camera takes 30 a second."""
    max_side: int = 640
    """Images are made smaller until their longer side is at most this; 0 keeps the size of depth, which is 640."""
    need_frames: bool = True
    """A scene without frames is left out and listed; otherwise its cloud is read alone, as it is for those who have not
    downloaded the ``.sens`` files."""
    annotations: bool = True
    """Read labels. Otherwise none, and nothing is missed where they were not downloaded."""
    align_axis: bool = False
    """Turn each scene by its ``axisAlignment``, so that walls run along x and y; scenes of the test have none."""
    splits: str = ""
    """Directory of ``scannetv2_train.txt``, ``_val`` and ``_test``, names of scenes; empty: the official lists."""

    def __post_init__(self):
        for name, fits, allowed in (
            ("every", self.every >= 1, "at least 1"),
            ("max_side", self.max_side == 0 or self.max_side >= 8, "0 or at least 8"),
        ):
            if not fits:
                raise ValueError(f"ScanNetConfig.{name} must be {allowed}, it is {getattr(self, name)}")

    def build(self) -> "ScanNet":
        """List the scenes; of the frames only their number is read."""
        if not self.root:
            raise DataError("ScanNetConfig.root is empty: name the directory of the download")
        return ScanNet(self)

    @staticmethod
    def recognises(root: Path) -> bool:
        """Whether there are folders of scenes with a mesh or frames of ScanNet's names."""
        folders = _scene_folders(root) if root.is_dir() else []
        return any((f / f"{f.name}{end}").is_file() for f in folders for end in ("_vh_clean_2.ply", ".sens"))

    @staticmethod
    def write_example(root: Path) -> None:
        """Two scenes to train, one to validate, one of the test; the second has exported frames."""
        write_scannet(root)


class ScanNet(RawDataset):
    """Scenes of ScanNet v2. A scene that lacks its mesh, or its frames or annotations if they are to be read, is a
    problem and no scene."""

    def __init__(self, config: ScanNetConfig):
        root = Path(config.root)
        folders = _scene_folders(root) if root.is_dir() else []
        if not folders:
            raise DataError(f"{root}: no ScanNet here: no folders named scene0000_00 in it, in scans or in scans_test")
        lists = _read_lists(Path(config.splits)) if config.splits else None
        splits = [official_split(int(f.name[5:9])) if lists is None else lists.get(f.name, "") for f in folders]
        categories = None
        if config.annotations and set(splits) - {"", "test"}:
            categories = _find_categories(root)
        if categories is not None:
            self.tables = label_tables(categories.nyu40_of, categories.table_id_of)
            self.known_ids = frozenset({0, *categories.nyu40_of})
        problems, scenes = [], []
        for folder, split in zip(folders, splits, strict=True):
            try:
                scenes.append(_list_scene(folder, split, categories, config))
            except DataError as error:
                problems.append(Problem(folder.name, "", "file", str(error)))
        self.problems = tuple(sorted(problems))
        if not scenes:
            shown = "; ".join(map(str, self.problems[:3]))
            raise DataError(f"{root}: none of {len(folders)} scenes can be used: {shown}")
        self.scenes = checked_scenes(scenes, config.root)


@dataclass(eq=False)
class ScanNetScene(RawScene):
    """One scan."""

    name: str
    split: str
    source: str
    config: ScanNetConfig
    categories: Categories | None
    """None: there are no labels, or they are not read."""
    frames: tuple[str, ...] = ()

    def read_points(self) -> RawPoints:
        """Vertices of the mesh; normals are means of those of the triangles around, by area, and up where there is
        none. Objects of a category that the table lacks are in ``problems``, and their points have no label."""
        ply = read_ply(self._file("_vh_clean_2.ply"))
        xyz = ply.columns("x", "y", "z").astype(np.float64)
        normal = None if ply.faces is None else vertex_normals(xyz, ply.faces)
        turn = self._alignment()
        if turn is not None:
            xyz = xyz @ turn[:3, :3].T + turn[:3, 3]
            normal = None if normal is None else normal @ turn[:3, :3].T
        labels = instances = None
        problems: tuple[Problem, ...] = ()
        if self.categories is not None:
            segs, aggregation = self._file(_SEGS), _aggregation(Path(self.source))
            labels, instances, problems = label_points(self.name, segs, aggregation, self.categories, len(xyz))
        return RawPoints(
            xyz=xyz.astype(np.float32),
            rgb=ply.columns("red", "green", "blue").astype(np.uint8),
            normal=None if normal is None else normal.astype(np.float32),
            labels=labels,
            instances=instances,
            problems=problems,
        )

    def read_frames(self, names: Sequence[str]) -> Iterator[RawFrame | Problem]:
        """Frames as the depth camera sees them."""
        if not names:
            return
        folder = Path(self.source)
        turn = self._alignment()
        labelled = None if self.categories is None else folder
        with (
            open_frames(folder) as frames,
            LabelImages(labelled, "label-filt") as labels,
            LabelImages(labelled, "instance-filt") as instances,
        ):
            for name in names:
                yield self._read_frame(name, frames, labels, instances, turn)

    def _read_frame(
        self, name: str, frames: Frames, labels: LabelImages, instances: LabelImages, turn: np.ndarray | None
    ) -> RawFrame | Problem:
        try:
            with unusable("file"):
                pose = frames.pose(name)
            if wrong := pose_problem(pose):
                raise Unusable("pose", f"{self.source}: frame {name}: {wrong}")
            with unusable("pose"):
                matrices = frames.matrices(name)
            with unusable("colour"):
                rgb = frames.colour(name)
            with unusable("depth"):
                depth = frames.depth(name)
            with unusable("label"):
                label, instance = labels.read(name), instances.read(name)
            for image in (label, instance):
                if image is not None and image.shape not in (rgb.shape[:2], depth.shape):
                    shown = f"labels of {image.shape} for colour of {rgb.shape[:2]}"
                    raise Unusable("label", f"{self.source}: frame {name}: {shown}")
        except Unusable as error:
            return Problem(self.name, name, error.kind, str(error))
        return aligned(
            name=name,
            world_from_cam=pose if turn is None else turn @ pose,
            rgb=rgb,
            depth=depth,
            matrices=matrices,
            max_side=self.config.max_side,
            labels=label,
            instances=None if instance is None else instance - 1,  # 0 is none
        )

    def _file(self, ending: str) -> Path:
        return Path(self.source) / f"{self.name}{ending}"

    def _alignment(self) -> np.ndarray | None:
        """[4 4] that turns the scene, if it is to be turned."""
        if not self.config.align_axis or self.split == "test":
            return None
        path = self._file(".txt")
        try:
            lines = path.read_bytes().decode("latin-1").splitlines()
        except OSError as error:
            raise_if_of_machine(error, path)
            raise DataError(f"{path}: no such file, and align_axis needs its axisAlignment") from error
        found = [line.partition("=")[2] for line in lines if line.partition("=")[0].strip() == "axisAlignment"]
        try:
            turn = np.array([float(word) for word in found[0].split()]).reshape(4, 4)
        except (IndexError, ValueError) as error:
            raise DataError(f"{path}: axisAlignment: expected a line with 16 numbers") from error
        if wrong := pose_problem(turn):
            raise DataError(f"{path}: axisAlignment: {wrong}")
        return turn


def _scene_folders(root: Path) -> list[Path]:
    """Folders of scenes, by name."""
    places = [p for p in (root / "scans", root / "scans_test") if p.is_dir()] or [root]
    return sorted(f for place in places for f in place.iterdir() if _SCENE.match(f.name) and f.is_dir())


def _find_categories(root: Path) -> Categories:
    places = [root / _TABLE, root / "tasks" / _TABLE, root.parent / _TABLE]
    for path in places:
        if path.is_file():
            return read_categories(path)
    raise DataError(
        f"{places[0]}: no such file, and none in tasks; download it (it is among the task data), or do without labels: "
        "annotations false"
    )


def _read_lists(folder: Path) -> dict[str, str]:
    """Split of each scene that the lists of a directory name."""
    split_of: dict[str, str] = {}
    for split in ("train", "val", "test"):
        path = folder / f"scannetv2_{split}.txt"
        if split == "test" and not path.is_file():
            continue
        for name in read_scene_list(path):
            if split_of.setdefault(name, split) != split:
                raise DataError(f"{path}: scene {name} is in the list of {split_of[name]} too")
    return split_of


def _aggregation(scene: Path) -> Path:
    """The official download has the first; for the finer mesh they are the same."""
    first = scene / f"{scene.name}.aggregation.json"
    other = scene / f"{scene.name}_vh_clean.aggregation.json"
    return other if not first.is_file() and other.is_file() else first


def _list_scene(folder: Path, split: str, categories: Categories | None, config: ScanNetConfig) -> ScanNetScene:
    """A scene whose files are there.

    Raises:
        DataError: they are not.
    """
    if not split:
        raise DataError(f"{folder}: in none of the lists of {config.splits}")
    if split == "test":
        categories = None
    needed = [folder / f"{folder.name}_vh_clean_2.ply"]
    if categories is not None:
        needed += [folder / f"{folder.name}{_SEGS}", _aggregation(folder)]
    for path in needed:
        if not path.is_file():
            raise DataError(f"{path}: no such file")
    frames: tuple[str, ...] = ()
    if config.need_frames or has_frames(folder):
        with open_frames(folder) as found:
            frames = found.names[:: config.every]
    if config.need_frames and not frames:
        raise DataError(f"{folder}: no frames; with need_frames false its cloud can be read alone")
    return ScanNetScene(folder.name, split, str(folder), config, categories, frames)
