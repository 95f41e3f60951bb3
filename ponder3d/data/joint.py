"""Several datasets as one: their scenes side by side, their classes in one vocabulary, each as often as it should be.

Every scene keeps the name of its part as ``Scene.condition``, by which norms and heads tell the datasets apart. A batch
may hold scenes of all of them. The paper trains on ScanNet, S3DIS and Structured3D with shares of 2, 1 and 4.
"""

import colorsys
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from jaxtyping import Int
from torch import Generator, Tensor

from ponder3d.config import Config
from ponder3d.data.dataset import BenchmarkFile, DataError, DatasetConfig, SceneDataset
from ponder3d.types import LabelSet, Scene

_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]*")
"""Names of parts are in names of files, of scenes and of figures."""


@dataclass(frozen=True)
class PartConfig(Config):
    """One of several datasets."""

    name: str
    """The condition that its scenes get (``Scene.condition``)."""
    data: DatasetConfig
    """Its scenes."""
    share: float = 0.0
    """Its part of an epoch's draws, relative to the other parts' (2, 1, 4, say), whatever their sizes. 0 in all parts:
    an epoch has every scene once."""

    def __post_init__(self):
        if not _NAME.fullmatch(self.name):
            raise ValueError(f"PartConfig.name: letters, digits, _, - and . make a name, not {self.name!r}")
        if not 0 <= self.share < math.inf:
            raise ValueError(f"PartConfig.share of {self.name} must be 0 or a positive number, it is {self.share}")


@dataclass(frozen=True)
class JointConfig(DatasetConfig):
    """Several datasets as one."""

    parts: tuple[PartConfig, ...] = ()
    """The datasets, each with a name of its own."""
    vocabulary: Literal["merged", "separate"] = "merged"
    """``merged``: classes of one name are one class, the first part's classes first. ``separate``: each part's classes
    are its own, named ``PART: class``."""

    def __post_init__(self):
        names = [part.name for part in self.parts]
        nested = [part.name for part in self.parts if isinstance(part.data, JointConfig)]
        if nested:  # a scene has one condition, and shares are those of parts
            raise ValueError(f"JointConfig: {nested[0]} is several datasets itself; make each of them a part")
        for number, name in enumerate(names):
            if name in names[:number]:
                raise ValueError(f"JointConfig.parts[{number}].name: {name!r} is parts[{names.index(name)}] already")
        without = [part.name for part in self.parts if part.share == 0]
        if 0 < len(without) < len(names):
            raise ValueError(
                f"JointConfig: {', '.join(without)} has no share, and other parts have; give every part one, or none"
            )
        if self.vocabulary not in ("merged", "separate"):
            raise ValueError(f"JointConfig.vocabulary must be 'merged' or 'separate', it is {self.vocabulary!r}")

    def build(self) -> "Joint":
        """Open all parts.

        Raises:
            DataError: there are none; or one, which is named, is not there, is empty, or has classes that cannot be
                told apart.
        """
        if not self.parts:
            raise DataError("JointConfig.parts is empty: name at least one dataset")
        return Joint(self, [_opened(number, part) for number, part in enumerate(self.parts)])

    def held_out(self) -> "JointConfig":
        """What the parts hold out, every scene once."""
        parts = tuple(replace(part, data=part.data.held_out(), share=0.0) for part in self.parts)
        return replace(self, parts=parts)

    def all_images(self) -> "JointConfig":
        """All images of all parts."""
        return replace(self, parts=tuple(replace(part, data=part.data.all_images()) for part in self.parts))


class Joint(SceneDataset):
    """The scenes of several datasets.

    **Order.** Scene by scene it is one of each part in turn, until a part has no more: the first n are of all parts.

    **An epoch** has every scene at least once. With shares, the part that is largest for its share has each of its
    scenes once, and the others as many draws as their shares say: they are gone through several times, and the next
    epoch goes on where the last one ended. Each draw of a scene is augmented anew.

    **What some parts have and others lack.** If any part has classes, scenes and images without labels get -1
    everywhere; an unlabelled part has no entry in ``labels.subsets``. What lacks colour or normals is packed with zeros
    (``types.scene.point_feats``). Beside others, rays without a measured distance get 0, and those without a target
    feature NaN (``loader.Collate``). Nothing stands for missing rays: every part must have them, or no part. Instances
    and boxes are packed where all scenes of a batch have them.
    """

    def __init__(self, config: JointConfig, parts: Sequence[SceneDataset]):
        self.config, self.parts = config, tuple(parts)
        self.conditions = tuple(part.name for part in config.parts)
        self.skipped = tuple(line for part in parts for line in part.skipped)
        named = list(zip(self.conditions, [part.labels for part in parts], strict=True))
        self.labels, rows = _union(named, config.vocabulary)
        # One entry more than there are classes: -1 reads the last one and stays -1.
        self._rows = [torch.tensor([*row, -1]) for row in rows]
        labelled = [part for part in parts if part.labels is not None]
        self.benchmark_ids = labelled[0].benchmark_ids if len(labelled) == 1 else ()
        self.benchmark = labelled[0].benchmark if len(labelled) == 1 else self.benchmark
        sizes = [len(part) for part in parts]
        self._part, self._row, self._index = _in_turn(sizes)
        self._draws = _draws(sizes, [part.share for part in config.parts])
        self._ends = torch.tensor(self._draws).cumsum(0)
        self.blocks, self.mix_blocks = _blocks(parts, self._draws)

    def __len__(self) -> int:
        return len(self._part)

    @property
    def draws(self) -> int:
        """Draws of an epoch: see the class."""
        return int(self._ends[-1])

    def drawn(self, epoch: int, place: int) -> int:
        """The scene of a draw. Places are part after part."""
        part = int(torch.searchsorted(self._ends, place, right=True))
        place -= int(self._ends[part]) - self._draws[part]
        return int(self._index[part][(epoch * self._draws[part] + place) % len(self._index[part])])

    def __getitem__(self, index: int) -> Scene:
        part, row = self._find(index)
        return self._as_ours(part, self.parts[part][row])

    def draw(self, index: int, generator: Generator) -> Scene:
        """What training sees of a scene, as its part has it."""
        part, row = self._find(index)
        return self._as_ours(part, self.parts[part].draw(row, generator))

    def view_names(self, index: int) -> tuple[str, tuple[str, ...]]:
        """As the part has them; the name of the part stands before the recording."""
        part, row = self._find(index)
        recording, names = self.parts[part].view_names(row)
        return f"{self.conditions[part]}:{recording}", names

    def benchmark_file(self, index: int, scene: Scene) -> BenchmarkFile | None:
        """As the part has it."""
        part, row = self._find(index)
        return self.parts[part].benchmark_file(row, scene)

    def only(self, conditions: tuple[str, ...]) -> "Joint":
        """The parts of these names."""
        chosen = [number for number, name in enumerate(self.conditions) if name in conditions]
        config = replace(self.config, parts=tuple(self.config.parts[number] for number in chosen))
        return Joint(config, [self.parts[number] for number in chosen])

    def _find(self, index: int) -> tuple[int, int]:
        if not 0 <= index < len(self):
            raise IndexError(f"scene {index} of {len(self)}")
        return int(self._part[index]), int(self._row[index])

    def _as_ours(self, part: int, scene: Scene) -> Scene:
        name = self.conditions[part]
        recording = f"{name}:{scene.recording}" if scene.recording else ""
        scene = replace(scene, condition=name, source=f"{name}:{scene.source}", recording=recording)
        if self.labels is None:
            return scene
        rows, views, boxes = self._rows[part], scene.views, scene.boxes
        if views is not None:
            views = replace(views, labels=_mapped(views.labels, rows, views.rgb.shape[:3], torch.int16))
        if boxes is not None:
            boxes = replace(boxes, label=_mapped(boxes.label, rows, boxes.label.shape, torch.int64))
        labels = _mapped(scene.labels, rows, scene.xyz.shape[:1], torch.int64)
        return replace(scene, labels=labels, views=views, boxes=boxes)


def _opened(number: int, part: PartConfig) -> SceneDataset:
    where = f"data.parts[{number}] ({part.name})"
    try:
        data = part.data.build()
    except DataError as error:
        # What a message says of options is of a dataset that stands alone.
        message = str(error).replace("--data.", f"--data.parts.{number}.data.")
        raise DataError(f"{where}: {message}") from error
    if len(data) == 0:
        raise DataError(f"{where}: it has no scenes")
    return data


def _union(
    parts: Sequence[tuple[str, LabelSet | None]], vocabulary: Literal["merged", "separate"]
) -> tuple[LabelSet | None, list[tuple[int, ...]]]:
    """The classes of all parts, and their rows in it for each part's own."""
    if all(labels is None for _, labels in parts):
        return None, [() for _ in parts]
    names: list[str] = []
    palette: list[tuple[int, int, int]] = []
    row_of: dict[str, int] = {}
    rows: list[tuple[int, ...]] = []
    for number, (part, labels) in enumerate(parts):
        own: dict[int, str] = {}
        for name, colour in zip(labels.names, labels.palette, strict=True) if labels is not None else ():
            shown = name if vocabulary == "merged" else f"{part}: {name}"
            same = _same(name) if vocabulary == "merged" else shown
            if same not in row_of:
                row_of[same] = len(names)
                names.append(shown)
                palette.append(colour if colour not in palette else _unused(palette))
            if row_of[same] in own:
                raise DataError(
                    f"data.parts[{number}] ({part}): its classes {own[row_of[same]]!r} and {name!r} would be one; "
                    "choose vocabulary 'separate'"
                )
            own[row_of[same]] = name
        rows.append(tuple(own))
    subsets = tuple((part, row) for (part, labels), row in zip(parts, rows, strict=True) if labels is not None)
    return LabelSet(tuple(names), tuple(palette), subsets), rows


def _same(name: str) -> str:
    """What a class is called, however it is written."""
    return " ".join(name.replace("_", " ").casefold().split())


def _mapped(labels: Tensor | None, rows: Tensor, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
    """Labels as rows of the union; -1 where there is none."""
    if labels is None:
        return torch.full(tuple(shape), -1, dtype=dtype)
    return rows.to(labels.dtype)[labels.clamp(min=-1).to(torch.int64)]


def _in_turn(sizes: Sequence[int]) -> tuple[Int[Tensor, " N"], Int[Tensor, " N"], list[Tensor]]:
    """One scene of each part in turn: part and row of every scene, and the numbers of each part's scenes."""
    part = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))
    row = torch.cat([torch.arange(size) for size in sizes])
    order = (row * len(sizes) + part).argsort()
    number = torch.empty_like(order)
    number[order] = torch.arange(len(order))
    return part[order], row[order], list(number.split(list(sizes)))


def _draws(sizes: Sequence[int], shares: Sequence[float]) -> list[int]:
    """Draws of each part in an epoch: as the shares say, and the least with which no part is cut."""
    if not any(shares):
        return list(sizes)
    most = max(size / share for size, share in zip(sizes, shares, strict=True))
    return [max(size, round(share * most)) for size, share in zip(sizes, shares, strict=True)]


def _blocks(parts: Sequence[SceneDataset], draws: Sequence[int]) -> tuple[tuple[int, ...], int]:
    """Blocks of an epoch's draws, and how many are mixed; each is of one part.

    A part whose scenes may come in any order is cut into blocks of about the others' length, so that whatever is mixed
    has some of it. Where a part begins again within an epoch, up to two files lie in a block.
    """
    stored = [part.blocks for part in parts if part.blocks]
    if not stored:
        return (), 1
    usual = max(1, round(sum(sum(blocks) / len(blocks) for blocks in stored) / len(stored)))
    found = []
    for part, num in zip(parts, draws, strict=True):
        rounds, rest = divmod(num, len(part))
        length = max(1, round(len(part) / len(part.blocks))) if part.blocks else usual
        found.append((part.blocks or _cut(len(part), length)) * rounds + _cut(rest, length))
    total = sum(len(blocks) for blocks in found)
    # As many that each part has as many of its own among them, on average, as it asks for.
    mixed = [math.ceil(part.mix_blocks * total / len(own)) for part, own in zip(parts, found, strict=True)]
    return tuple(length for blocks in found for length in blocks), max(mixed)


def _cut(num: int, length: int) -> tuple[int, ...]:
    whole, rest = divmod(num, length)
    return (length,) * whole + ((rest,) if rest else ())


def _unused(palette: Sequence[tuple[int, int, int]]) -> tuple[int, int, int]:
    """A colour that is none of these: of twelve hues a golden section apart, the one farthest from all."""

    def clearance(colour: tuple[int, int, int]) -> int:
        return min(sum(abs(a - b) for a, b in zip(colour, other, strict=True)) for other in palette)

    start = 0.618 * len(palette)
    shades = [colorsys.hsv_to_rgb((start + 0.618 * number) % 1, 0.55, 0.85) for number in range(12)]
    return max(((round(255 * r), round(255 * g), round(255 * b)) for r, g, b in shades), key=clearance)
