"""A tiny dataset in the layout of Structured3D."""

import io
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image

from ponder3d.data.raw import nyu40
from ponder3d.data.raw.example_room import COLOURS, SURFACES, ExampleRoom
from ponder3d.data.raw.structured3d_images import BACKGROUND, panorama_rays

ROOMS = (("scene_00000", "485142", 2.0), ("scene_03000", "100", 1.8))
"""Scene, room, and half its width."""
PANORAMA_SIZE = (32, 64)

_RAW = np.array([nyu40.NAMES.index(word) + 1 for word in SURFACES], dtype=np.uint8)
_PALETTE = [0, 0, 0, *(value for colour in nyu40.PALETTE for value in colour)]


def write_example(root: Path) -> None:
    """Write two archives: the perspective frames and the panoramas of ``ROOMS``. The ceiling is no instance."""
    root.mkdir(parents=True, exist_ok=True)
    frames = zipfile.ZipFile(root / "Structured3D_perspective_full_00.zip", "w", zipfile.ZIP_DEFLATED)
    panoramas = zipfile.ZipFile(root / "Structured3D_panorama_00.zip", "w", zipfile.ZIP_DEFLATED)
    with frames, panoramas:
        for scene, name, half_width in ROOMS:
            room = ExampleRoom(half_width=half_width)
            folder = f"Structured3D/{scene}/2D_rendering/{name}/"
            for number in range(room.num_frames):
                below = f"{folder}perspective/full/{number}/"
                depth, surface = room.trace(number)
                _write_images(frames, below, depth, surface)
                pose = room.pose(number)
                half_fields = np.arctan(np.array(room.size[::-1]) / 2 / np.diag(room.intrinsics)[:2])
                camera = [*(1000 * pose[:3, 3]), *pose[:3, 2], *-pose[:3, 1], *half_fields]
                frames.writestr(f"{below}camera_pose.txt", " ".join(f"{value:.6f}" for value in camera))
            origin = room.pose(0)[:3, 3]
            distance, surface = room.hit(origin, panorama_rays(PANORAMA_SIZE).astype(np.float64))
            _write_images(panoramas, f"{folder}panorama/full/", distance, surface)
            panoramas.writestr(f"{folder}panorama/camera_xyz.txt", " ".join(f"{value:.3f}" for value in 1000 * origin))


def _write_images(archive: zipfile.ZipFile, folder: str, depth: np.ndarray, surface: np.ndarray) -> None:
    labels = Image.fromarray(_RAW[surface])
    labels.putpalette(_PALETTE)
    images = {
        "rgb_rawlight": Image.fromarray(np.dstack([COLOURS[surface], np.full(surface.shape, 255, dtype=np.uint8)])),
        "depth": Image.fromarray(np.round(1000 * depth).astype(np.uint16)),
        "semantic": labels,
        "instance": Image.fromarray(np.where(surface == 5, BACKGROUND, surface).astype(np.uint16)),
    }
    for name, image in images.items():
        file = io.BytesIO()
        image.save(file, "PNG")
        archive.writestr(f"{folder}{name}.png", file.getvalue())
