"""An empty box room whose images are known exactly, and its recording in every layout that is read."""

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

# Tests import ``fuzzing`` through a fixture: ponder3d must not be imported before jaxtyping's hook is in place.
sys.path.insert(0, str(Path(__file__).parent))

LO, HI = np.array([-2.0, -1.5, 0.0]), np.array([2.0, 1.5, 2.5])
COLOURS = np.array([[200, 40, 40], [40, 200, 40], [40, 40, 200], [200, 200, 40], [40, 200, 200], [200, 40, 200]])
"""Of the walls at low x, y, z (the floor), then at high x, y, z (the ceiling)."""


def pinhole(height: int, width: int, focal: float) -> np.ndarray:
    return np.array([[focal, 0, (width - 1) / 2], [0, focal, (height - 1) / 2], [0, 0, 1]])


def wall_of(xyz: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The nearest wall of each point, and the distance to it."""
    gap = np.abs(np.concatenate([xyz - LO, xyz - HI], axis=-1))
    return gap.argmin(-1), gap.min(-1)


@dataclass
class Recording:
    """A turn on the spot in the box room. Cameras look 0.3 rad down; z is up in the room."""

    num: int = 8
    size: tuple[int, int] = (12, 16)
    colour_size: tuple[int, int] = (12, 16)
    matrix: np.ndarray = field(default_factory=lambda: pinhole(12, 16, 10.0))
    colour_matrix: np.ndarray = field(default_factory=lambda: pinhole(12, 16, 10.0))
    units: float = 1000.0
    colour_ending: str = "png"
    world: np.ndarray = field(default_factory=lambda: np.eye(3))
    """Takes the room to the world that the poses are written in."""

    pinhole = staticmethod(pinhole)

    def pose(self, number: int) -> np.ndarray:
        """Camera to room, OpenCV axes."""
        angle = 2 * np.pi * number / self.num
        forward = np.array([np.cos(angle) * np.cos(0.3), np.sin(angle) * np.cos(0.3), -np.sin(0.3)])
        right = np.cross(forward, [0, 0, 1])
        right /= np.linalg.norm(right)
        pose = np.eye(4)
        pose[:3, :3] = np.stack([right, np.cross(forward, right), forward], axis=1)
        pose[:3, 3] = [0.3 * np.sin(angle), 0.2, 1.4]
        return pose

    def written_pose(self, number: int) -> np.ndarray:
        pose = self.pose(number)
        pose[:3] = self.world @ pose[:3]
        return pose

    def trace(self, number: int, size: tuple[int, int], matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Plane depth and wall of every pixel."""
        v, u = np.meshgrid(np.arange(size[0]), np.arange(size[1]), indexing="ij")
        pose = self.pose(number)
        rays = np.stack([u, v, np.ones_like(u)], axis=-1) @ np.linalg.inv(matrix).T @ pose[:3, :3].T
        with np.errstate(divide="ignore"):
            depth = np.where(rays > 0, (HI - pose[:3, 3]) / rays, (LO - pose[:3, 3]) / rays).min(-1)
        return depth, wall_of(pose[:3, 3] + rays * depth[..., None])[0]

    def depth_image(self, number: int) -> np.ndarray:
        return np.round(self.trace(number, self.size, self.matrix)[0] * self.units).astype(np.uint16)

    def colour_image(self, number: int) -> np.ndarray:
        return COLOURS[self.trace(number, self.colour_size, self.colour_matrix)[1]].astype(np.uint8)

    def label_image(self, number: int) -> np.ndarray:
        """Raw values 10 (floor), 20 (ceiling), 30 (upright walls), as in ``label_map``."""
        return np.array([30, 30, 10, 30, 30, 20], dtype=np.uint8)[self.trace(number, self.size, self.matrix)[1]]

    def write(self, folder: Path, layout: str) -> Path:
        """All frames in one of the layouts; the names of the files are in the docstring of ``rgbd_folder``."""
        getattr(self, f"_write_{layout}")(folder)
        return folder

    def _write_seven_scenes(self, folder: Path):
        (folder / "seq-01").mkdir(parents=True)
        np.savetxt(folder / "camera-intrinsics.txt", self.matrix)  # above the sequence
        for i in range(self.num):
            stem = folder / "seq-01" / f"frame-{10 * i:06d}"
            self._images(i, f"{stem}.color", f"{stem}.depth")
            np.savetxt(f"{stem}.pose.txt", self.written_pose(i))

    def _write_hololens(self, folder: Path, lines: int = 1):
        self._folders(folder, "images", "depth")
        np.savetxt(folder / "K.txt", self.matrix)
        for i in range(self.num):
            self._images(i, f"{folder}/images/{i:05d}", f"{folder}/depth/{i:05d}")
        poses = np.stack([self.written_pose(i) for i in range(self.num)])
        np.savetxt(folder / "poses.txt", poses.reshape(-1, 16 // lines))

    def _write_hololens_four_lines(self, folder: Path):
        self._write_hololens(folder, lines=4)

    def _write_scannet(self, folder: Path):
        self._folders(folder, "color", "depth", "pose", "intrinsic", "label")
        for name, matrix in (("color", self.colour_matrix), ("depth", self.matrix)):
            padded = np.eye(4)
            padded[:3, :3] = matrix
            np.savetxt(folder / "intrinsic" / f"intrinsic_{name}.txt", padded)
        names = {"10": "floor", "20": "ceiling", "30": "wall"}
        (folder / "label_map.json").write_text(json.dumps({"label_id_to_category": names}))
        for i in range(self.num):
            self._images(i, f"{folder}/color/{i}", f"{folder}/depth/{i}")
            Image.fromarray(self.label_image(i)).save(folder / "label" / f"{i}.png")
            np.savetxt(folder / "pose" / f"{i}.txt", self.written_pose(i))

    def _write_per_frame(self, folder: Path):
        self._write_scannet(folder)
        for path in (folder / "intrinsic").iterdir():
            path.unlink()
        for i in range(self.num):
            np.savetxt(folder / "intrinsic" / f"{i}.txt", self.matrix)

    def _folders(self, folder: Path, *names: str):
        for name in names:
            (folder / name).mkdir(parents=True)

    def _images(self, number: int, colour: str, depth: str):
        Image.fromarray(self.colour_image(number)).save(f"{colour}.{self.colour_ending}", quality=95, subsampling=0)
        Image.fromarray(self.depth_image(number)).save(f"{depth}.png")


@pytest.fixture
def recording() -> type[Recording]:
    return Recording


@pytest.fixture
def box_room():
    """``wall_of`` a point, and the colours of the walls."""
    return wall_of, COLOURS


@pytest.fixture
def fuzz() -> Callable[..., int]:
    """``fuzz(read, seeds, number=QUICK, key=0)``: see ``fuzzing.check_reader``; a slow test takes ``number=2000``."""
    import fuzzing  # noqa: PLC0415

    def check(read, seeds, number: int = fuzzing.QUICK, key: int = 0) -> int:
        return fuzzing.check_reader(read, seeds, number, key)

    return check


@pytest.fixture
def unreadable(tmp_path) -> Callable[[str], Path]:
    """``unreadable(name)``: a file that is there and gives ``EIO`` when it is read (the memory of this process, which
    has nothing at its start); what was there before is gone."""
    memory = Path("/proc/self/mem")
    if not memory.is_file():
        pytest.skip("needs /proc")

    def make(name: str) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        path.symlink_to(memory)
        return path

    return make


@pytest.fixture
def prepared_scenes():
    """The module of that name."""
    import prepared_scenes  # noqa: PLC0415

    return prepared_scenes
