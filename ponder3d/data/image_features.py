"""Maps of image features: what a 2D model says of every place of an image, as a target to be rendered.

What a model of images knows can be distilled into a 3D encoder without a label (Peng et al. 2023, "OpenScene: 3D Scene
Understanding with Open Vocabularies"). The maps of a dataset's images lie in a directory:

    features.json                what made them (``MapsRecord``); absent where others than ``ponder3d features`` did
    RECORDING/VIEW.npy           [h w C] floats, half precision if we wrote them; see ``map_path`` for the names

A map covers the whole image, as the dataset gives it, at any resolution: the centre of cell ``i`` of ``w`` is where the
image's ``(i + 0.5) W / w - 0.5`` is, as with ``align_corners=False``. Values between are bilinear; beyond the outermost
centres they stay. Where a value is not finite the map says nothing.
"""

import json
import math
import os
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal
from urllib.parse import quote

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from ponder3d.config import Config, from_json, to_json
from ponder3d.data.dataset import DataError, SceneDataset, scene_name
from ponder3d.data.faults import raise_if_of_machine
from ponder3d.data.npy import npy_array, npy_header
from ponder3d.files import replacing, write_whole
from ponder3d.types import Scene

RECORD = "features.json"
_MAX_BYTES = 1 << 29
"""Of a map; 240 x 320 cells of 1,024 channels in half precision are 157 MB."""
_MAX_RECORD = 1 << 26
_HEADER = 1 << 16

Layout = Literal["hwc", "chw"]


@dataclass(frozen=True)
class MapsRecord(Config):
    """What made the maps of a directory, and how its numbers came about."""

    model: str
    """Name of the model: ``module:function``."""
    weights: str
    """SHA-256 of its weights (``encoders.files.weights_digest``)."""
    channels: int
    """C of every map."""
    size: tuple[int, ...] = ()
    """Height and width that images were brought to for the model; empty: as they were."""
    mean: tuple[float, ...] = ()
    """What was subtracted from each colour in [0, 1]; empty: 0."""
    std: tuple[float, ...] = ()
    """What colours were divided by then; empty: 1."""
    grid: tuple[int, ...] = ()
    """Height and width of the grid of the model's tokens; empty: it gave maps."""
    reduced: bool = False
    """Whether ``origin`` and ``axes`` were applied: ``(x - origin) @ axes``."""
    origin: tuple[float, ...] = ()
    """The model's mean feature."""
    axes: tuple[tuple[float, ...], ...] = ()
    """A row for each channel of the model, a column for each of the maps: principal axes of its features, all divided
    by one number so that the mean square of the maps' values is 1."""
    unreadable: tuple[tuple[str, str], ...] = ()
    """Recording and view of the images without a map because they cannot be decoded."""


def read_record(root: Path) -> MapsRecord | None:
    """What made the maps of a directory; None if it has no ``features.json``.

    Raises:
        DataError: the file is there and cannot be understood.
    """
    path = root / RECORD
    if not path.exists():
        return None
    try:
        if path.stat().st_size > _MAX_RECORD:
            raise DataError(f"{path}: more than {_MAX_RECORD} bytes; this is no record of maps")
        record = from_json(MapsRecord, json.loads(path.read_bytes()))
    except DataError:
        raise
    except (OSError, ValueError, RecursionError) as error:
        raise_if_of_machine(error, path)
        raise DataError(f"{path}: cannot be read as the record of maps ({error}); make them anew") from error
    numbers = (record.mean, record.std, record.origin, *record.axes)
    finite = all(math.isfinite(number) for row in numbers for number in row)
    if min((record.channels, *record.size, *record.grid)) < 1 or not finite:
        raise DataError(f"{path}: a number that is not positive, or not finite; make the maps anew")
    widths = {len(row) for row in record.axes}
    if record.reduced and (len(record.axes) != len(record.origin) or widths != {record.channels}):
        raise DataError(f"{path}: the reduction does not go with {record.channels} channels; make the maps anew")
    return record


def write_record(root: Path, record: MapsRecord) -> None:
    """Write ``features.json``, whole or not at all."""
    write_whole(root / RECORD, json.dumps(to_json(record)).encode())


def map_path(root: Path, recording: str, view: str) -> Path:
    """Where the map of a view lies.

    Args:
        root: directory of the maps.
        recording: ``Scene.recording``, or the source of a scene that is all of its recording; its ``scene_name`` is the
            directory.
        view: its name; other characters than letters, digits, ``_``, ``-``, ``.`` and ``~``, and a ``.`` at its start,
            are written ``%XX`` for each byte, so that no two names have one file.

    Raises:
        DataError: the recording or the view has no name, or none that a file can have.
    """
    name = quote(view, safe="", errors="surrogatepass")
    name = "%2E" + name[1:] if name.startswith(".") else name
    if not name or len(name) > 240:
        raise DataError(f"{recording}: a view named {view[:80]!r} cannot name a file; give it 1 to 240 characters")
    return root / scene_name(recording) / f"{name}.npy"


def read_map(path: Path, layout: Layout = "hwc") -> np.ndarray:
    """A map [h w C] of floats in the file's precision; not to be written to.

    Args:
        path: of the file.
        layout: of the file.

    Raises:
        DataError: it is missing, damaged, or no map.
        OSError: storage failed.
    """
    try:
        size = path.stat().st_size
        if size > _MAX_BYTES:
            raise DataError(f"{path}: {size} bytes; a map has at most {_MAX_BYTES}")
        content = path.read_bytes()
    except OSError as error:
        raise_if_of_machine(error, path)
        raise DataError(f"{path}: no such map; make it with ponder3d features") from error
    array = npy_array(content, str(path))
    _check_kind(path, array.shape, array.dtype)
    return np.moveaxis(array, 0, 2) if layout == "chw" else array


def map_shape(path: Path, layout: Layout = "hwc") -> tuple[int, int, int]:
    """Height, width and channels of a map whose file has the length that its header says; nothing else is read.

    Raises:
        DataError: as ``read_map``.
        OSError: storage failed.
    """
    try:
        with path.open("rb") as file:
            shape, _, dtype = npy_header(file)
            start = file.tell()
        _check_kind(path, shape, dtype)
        if start > _HEADER or path.stat().st_size != start + math.prod(shape) * dtype.itemsize:
            raise ValueError(f"{path.stat().st_size} bytes, and its header says {shape} of {dtype}")
    except DataError:
        raise
    except Exception as error:  # numpy parses the header with ast and tokenize, which raise what they like
        raise_if_of_machine(error, path)
        raise DataError(f"{path}: no map, or a damaged one ({type(error).__name__}: {error})") from error
    height, width, channels = (shape[1], shape[2], shape[0]) if layout == "chw" else shape
    return height, width, channels


def _check_kind(path: Path, shape: tuple[int, ...], dtype: np.dtype) -> None:
    if len(shape) != 3 or min(shape) < 1 or dtype.kind != "f" or dtype.itemsize > 8:
        raise DataError(f"{path}: shape {shape} of {dtype}; a map is [h w C] (or [C h w], if so told) of floats")


def write_map(path: Path, values: Float[Tensor, "h w C"]) -> None:
    """Write a map in half precision, whole or not at all.

    Raises:
        DataError: a value is not finite, or too large for half precision.
    """
    half = values.detach().cpu().to(torch.float16)
    if not bool(torch.isfinite(half).all()):
        largest = float(values.abs().max())
        raise DataError(
            f"{path}: features up to {largest:g} do not fit half precision; let the model give smaller ones, or reduce "
            "them to a number of channels, which scales them"
        )
    with replacing(path) as file:
        np.save(file, half.contiguous().numpy(), allow_pickle=False)


def sample_map(values: np.ndarray, uv: Float[Tensor, "R 2"], size: tuple[int, int]) -> Float[Tensor, "R C"]:
    """What a map says at pixels of its image, bilinear.

    Args:
        values: [h w C].
        uv: pixels, integers at their centres.
        size: height and width of the image.

    Returns:
        float32; NaN throughout where one of the cells that take part has a value that is not finite.
    """
    low, share = [], []
    for axis, cells, pixels in ((1, values.shape[0], size[0]), (0, values.shape[1], size[1])):
        place = ((uv[:, axis].double() + 0.5) * (cells / pixels) - 0.5).clamp(0, cells - 1).numpy()
        floor = np.minimum(place.astype(np.int64), max(cells - 2, 0))
        low.append(floor)
        share.append(place - floor)
    total = np.zeros((len(uv), values.shape[2]), dtype=np.float32)
    for down in (0, 1):
        for right in (0, 1):
            weight = np.abs(1 - down - share[0]) * np.abs(1 - right - share[1])
            used = weight > 0  # a cell that has no part may hold anything, and may not exist
            corner = values[low[0][used] + down, low[1][used] + right].astype(np.float32)
            total[used] += corner * weight[used, None].astype(np.float32)
    total[~np.isfinite(total).all(1)] = np.nan
    return torch.from_numpy(total)


def all_views(dataset: SceneDataset) -> Iterator[tuple[str, str]]:
    """Recording and name of every view that draws of a dataset may show, each once.

    Raises:
        DataError: a view has no name, two of a scene have one, or two recordings have one directory.
    """
    seen: dict[str, set[str]] = {}
    whose: dict[str, str] = {}
    for index in range(len(dataset)):
        recording, names = dataset.view_names(index)
        if not names or len(set(names)) != len(names):
            what = "two views have one name" if names else "it has no views, or views without names"
            raise DataError(f"{recording}: {what}; images are told apart by Views.names")
        other = whose.setdefault(scene_name(recording), recording)
        if other != recording:
            raise DataError(
                f"{recording}: its maps would lie in one directory with those of {other}; rename one, or give the maps "
                "of each dataset a directory of their own (Only can name one for each part of a JointConfig)"
            )
        known = seen.setdefault(recording, set())
        for name in names:
            if name not in known:
                known.add(name)
                yield recording, name


@lru_cache(maxsize=8)
def _num_channels(root: Path, layout: Layout, changed: int) -> int:
    record = read_record(root) if changed else None
    if record is not None:
        return record.channels
    for folder in sorted(path for path in root.iterdir() if path.is_dir()):
        first = next(iter(sorted(folder.glob("*.npy"))), None)
        if first is not None:
            return map_shape(first, layout)[2]
    raise DataError(f"{root}: no maps in it; expected RECORDING/VIEW.npy, as ponder3d features writes them")


class FeatureMaps(Config, ABC):
    """Where the features of a ray's pixel come from."""

    @abstractmethod
    def num_channels(self) -> int:
        """Channels of the features; 0: there are none."""

    @abstractmethod
    def check(self, dataset: SceneDataset) -> None:
        """Whether there are features for all images of a dataset, before training begins.

        Raises:
            DataError: an image has none.
        """

    @abstractmethod
    def look_up(self, scene: Scene, uv: Float[Tensor, "R 2"], view: Int[Tensor, " R"]) -> Float[Tensor, "R K"] | None:
        """Features of pixels of a scene's views; rows that are not finite stand for none.

        Raises:
            DataError: they cannot be read.
        """

    def regions(self, scene: Scene, uv: Float[Tensor, "R 2"], view: Int[Tensor, " R"]) -> Int[Tensor, " R"] | None:
        """Which region of the scene's images each pixel lies in, if they are divided; see ``data.superpixels``."""
        return None


@dataclass(frozen=True)
class NoFeatureMaps(FeatureMaps):
    """No features of images."""

    def num_channels(self) -> int:
        """0."""
        return 0

    def check(self, dataset: SceneDataset) -> None:
        """Nothing to be missing."""

    def look_up(self, scene: Scene, uv: Float[Tensor, "R 2"], view: Int[Tensor, " R"]) -> None:
        """None."""


@dataclass(frozen=True)
class MapFolder(FeatureMaps):
    """Maps in a directory: those that ``ponder3d features`` has made, or one's own."""

    root: str = ""
    """The directory; it holds ``RECORDING/VIEW.npy``, see ``ponder3d.data.image_features``."""
    layout: Literal["hwc", "chw"] = "hwc"
    """Order of the axes in the files, height, width and channels."""

    def num_channels(self) -> int:
        """Channels of the maps: those of ``features.json``, or of the first map without one.

        Raises:
            DataError: there is no directory, or nothing in it.
        """
        root = self._root()
        record = root / RECORD
        return _num_channels(root, self.layout, record.stat().st_mtime_ns if record.exists() else 0)

    def check(self, dataset: SceneDataset) -> None:
        """Whether there is a file for every view that draws of the dataset may show; the maps are not read.

        Raises:
            DataError: naming the first that is missing, and how many are.
        """
        root = self._root()
        record = read_record(root)
        excused = set() if record is None else set(record.unreadable)
        there: dict[str, set[str]] = {}
        missing, total = [], 0
        for recording, view in all_views(dataset):
            total += 1
            path = map_path(root, recording, view)
            folder = path.parent.name
            if folder not in there:  # one look at a directory instead of one at each of its files
                there[folder] = set(os.listdir(path.parent)) if path.parent.is_dir() else set()
            if path.name not in there[folder] and (folder, view) not in excused:
                missing.append(path)
        if missing:
            raise DataError(
                f"{missing[0]}: no such map; {len(missing)} of {total} views have none in {root}. Make them with "
                "ponder3d features, or leave the images out with a skip list"
            )

    def look_up(self, scene: Scene, uv: Float[Tensor, "R 2"], view: Int[Tensor, " R"]) -> Float[Tensor, "R K"]:
        """Features of pixels of a scene's views; only the maps of views with a pixel are read.

        Raises:
            DataError: a map is missing, damaged, or has other channels than the others.
        """
        views, root, channels = scene.views, self._root(), self.num_channels()
        assert views is not None
        if not views.names:
            raise DataError(f"{scene.source}: its views have no names to find feature maps by; set Views.names")
        out = torch.full((len(uv), channels), math.nan)
        for row in view.unique().tolist():
            path = map_path(root, scene.recording or scene.source, views.names[row])
            values = read_map(path, self.layout)
            if values.shape[2] != channels:
                raise DataError(
                    f"{path}: {values.shape[2]} channels, and others in {root} have {channels}; make all of them with "
                    "one model, or set the layout"
                )
            mine = view == row
            out[mine] = sample_map(values, uv[mine], views.cameras.size)
        return out

    def _root(self) -> Path:
        if not self.root:
            raise DataError("MapFolder.root is empty: name the directory of the maps that ponder3d features has made")
        root = Path(self.root)
        if not root.is_dir():
            raise DataError(f"{root}: no such directory; make the maps with ponder3d features")
        return root
