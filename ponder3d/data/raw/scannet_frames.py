"""The frames of a ScanNet scene: in its ``.sens`` file, or exported from it into folders."""

from abc import ABC, abstractmethod
from pathlib import Path

import numpy as np

from ponder3d.data.dataset import DataError
from ponder3d.data.raw.sens import SensFile
from ponder3d.data.rgbd_images import Matrices, read_image, read_rgb
from ponder3d.data.rgbd_layouts import read_matrix

_DEPTH_MODES = ("I;16", "I;16B", "I")
_UNITS = 1000.0
"""Of exported depth, per metre."""


class Frames(ABC):
    """Frames of a scene, read one part at a time. To be used in a ``with`` statement."""

    names: tuple[str, ...]
    """In order of time; of a truncated ``.sens`` file, those that its header promises and its size may hold."""

    def __enter__(self) -> "Frames":
        return self

    @abstractmethod
    def __exit__(self, *error: object) -> None: ...

    @abstractmethod
    def pose(self, name: str) -> np.ndarray:
        """[4 4] float64 camera to world, as it is in the file.

        Raises:
            DataError: the file is missing or cut off.
        """

    @abstractmethod
    def colour(self, name: str) -> np.ndarray:
        """[H W 3] uint8.

        Raises:
            DataError: it cannot be read.
        """

    @abstractmethod
    def depth(self, name: str) -> np.ndarray:
        """[H W] float32 metres, 0 where there is none.

        Raises:
            DataError: it cannot be read.
        """

    @abstractmethod
    def matrices(self, name: str) -> Matrices:
        """Intrinsics of colour and depth at the sizes of their images.

        Raises:
            DataError: they cannot be read.
        """


def has_frames(scene: Path) -> bool:
    """Whether the folder of a scene has frames in a form that ``open_frames`` opens."""
    return (scene / f"{scene.name}.sens").is_file() or _are_exported(scene)


def open_frames(scene: Path) -> Frames:
    """The frames in the folder of a scene.

    Raises:
        DataError: there are none, or the header of the ``.sens`` file cannot be used.
    """
    sens = scene / f"{scene.name}.sens"
    if sens.is_file():
        return _SensFrames(sens)
    if _are_exported(scene):
        return _ExportedFrames(scene)
    raise DataError(f"{sens}: no such file, and no folders color, depth and pose of exported frames beside it")


def _are_exported(scene: Path) -> bool:
    return all((scene / part).is_dir() for part in ("color", "depth", "pose"))


class _SensFrames(Frames):
    def __init__(self, path: Path):
        self._sens = SensFile(path)
        self.names = tuple(map(str, range(self._sens.most_frames)))

    def __exit__(self, *error: object) -> None:
        self._sens.__exit__()

    def pose(self, name: str) -> np.ndarray:
        return self._sens.pose(int(name))

    def colour(self, name: str) -> np.ndarray:
        return self._sens.colour(int(name))

    def depth(self, name: str) -> np.ndarray:
        return self._sens.depth(int(name))

    def matrices(self, name: str) -> Matrices:
        return self._sens.header.colour_intrinsics, self._sens.header.depth_intrinsics


class _ExportedFrames(Frames):
    def __init__(self, scene: Path):
        self._scene = scene
        images = [p for p in (scene / "color").iterdir() if p.suffix.lower() in (".jpg", ".jpeg", ".png")]
        self._colour = {p.stem: p for p in images}
        # Numbers of frames have no leading zeros.
        self.names = tuple(sorted(self._colour, key=lambda stem: (int(stem) if stem.isdecimal() else -1, stem)))

    def __exit__(self, *error: object) -> None:
        pass

    def pose(self, name: str) -> np.ndarray:
        return _square(self._scene / "pose" / f"{name}.txt")

    def colour(self, name: str) -> np.ndarray:
        return np.ascontiguousarray(read_rgb(self._colour[name]))

    def depth(self, name: str) -> np.ndarray:
        raw = read_image(self._scene / "depth" / f"{name}.png", _DEPTH_MODES)
        return np.where((raw <= 0) | (raw >= 65535), 0, raw / _UNITS).astype(np.float32)

    def matrices(self, name: str) -> Matrices:
        folder = self._scene / "intrinsic"
        own = folder / f"{name}.txt"
        if own.is_file():
            return _square(own)[:3, :3], None
        colour, depth = folder / "intrinsic_color.txt", folder / "intrinsic_depth.txt"
        if not colour.is_file() and not depth.is_file():
            raise DataError(f"{folder}: neither {colour.name} nor {depth.name} is there")
        found = [_square(path)[:3, :3] if path.is_file() else None for path in (colour, depth)]
        return found[0], found[1]


def _square(path: Path) -> np.ndarray:
    """The 16 numbers of a 4x4 matrix, or the 9 of a 3x3 one."""
    values = read_matrix(path, shape=None)
    side = {9: 3, 16: 4}.get(values.size)
    if side is None:
        raise DataError(f"{path}: {values.size} numbers; expected a 4x4 matrix")
    return values.reshape(side, side)
