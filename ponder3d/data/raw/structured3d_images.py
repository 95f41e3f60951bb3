"""Cameras and images of Structured3D, and what they see.

``camera_pose.txt``: position (mm), viewing direction, up, and half the field of view along x and y in radians. The
field of view reaches the outer edges of the outer pixels, u = -0.5 and u = W - 0.5, so that the image centre is at
(W - 1) / 2. Depth is plane depth in mm.

Panorama: equirectangular, z up, with +y in the middle of the image and -y at its left and right edge. Pixel (u, v)
looks along (sin a cos b, cos a cos b, sin b) with a = ((u + 0.5) / W - 0.5) 2 pi and b = (0.5 - (v + 0.5) / H) pi.
Depth is the distance along that direction in mm.

Both: depth 0 is "none". ``semantic.png`` has NYU40 ids and ScanNet's colours as its palette; some tools turn it into
a colour image, and colours are turned back then. ``instance.png`` has ids of ``bbox_3d.json``, 65535 is "none".
"""

from dataclasses import dataclass, field

import numpy as np
import torch

from ponder3d.data.dataset import DataError
from ponder3d.data.raw import nyu40
from ponder3d.data.raw.dataset import Problem, RawPoints
from ponder3d.data.raw.structured3d_files import Place
from ponder3d.data.raw.text import parse_numbers
from ponder3d.data.raw.unusable import Unusable, unusable
from ponder3d.data.rgbd_images import read_image
from ponder3d.geometry.grid import MAX_COORDINATE, pack_keys

IMAGES = ("rgb_rawlight.png", "depth.png", "semantic.png")
"""Every frame and panorama has these, most have instance.png."""
SPACING = 0.01
"""Metres between the points of a room."""
MIN_COSINE = 0.15
"""What is seen at a smaller cosine, 81 degrees and more from its normal, does not count."""
BACKGROUND = 65535

_MAX_PIXELS = 1 << 22
"""Of an image, 4 times those of a frame; points and normals need some 250 bytes for each."""
_CODES = np.array([0, *(r << 16 | g << 8 | b for r, g, b in nyu40.PALETTE)])
"""Colours of the ids 0 to 40 as one number."""


@dataclass(frozen=True, eq=False)
class Images:
    """The images of one camera."""

    rgb: np.ndarray
    """[H W 3] uint8."""
    depth: np.ndarray
    """[H W] float32 metres as in the file: plane depth, or distance in a panorama. 0: none."""
    labels: np.ndarray
    """[H W] int32 NYU40 ids, 0 where there is none."""
    instances: np.ndarray
    """[H W] int32, -1 where there is none."""


def read_images(files: dict[str, tuple[Place, str]]) -> Images:
    """Images of a camera, by the names in ``IMAGES``: where each is, and its name there.

    Raises:
        Unusable: one is damaged, of another kind than it should be, or of another size than the others.
    """

    def read(name: str, *modes: str) -> np.ndarray:
        place, member = files[name]
        image = read_image(place.where(member), modes, place.read(member))
        if image.shape[0] * image.shape[1] > _MAX_PIXELS:
            raise DataError(f"{place.where(member)}: {image.shape[1]}x{image.shape[0]} pixels; frames have 1280x720")
        return image

    with unusable("depth"):
        raw = read("depth.png", "I;16", "I;16B", "I").astype(np.int64)
        depth = np.where((raw > 0) & (raw < 65535), raw / 1000, 0).astype(np.float32)
    with unusable("colour"):
        rgb = read("rgb_rawlight.png", "RGB", "RGBA")[..., :3]
        _check_size(rgb, depth, files["rgb_rawlight.png"])
    with unusable("label"):
        place, member = files["semantic.png"]
        labels = label_ids(read("semantic.png", "P", "L", "RGB", "RGBA"), place.where(member))
        _check_size(labels, depth, files["semantic.png"])
        instances = np.full(depth.shape, -1, dtype=np.int32)
        if "instance.png" in files:
            found = read("instance.png", "I;16", "I;16B", "I", "L").astype(np.int64)
            _check_size(found, depth, files["instance.png"])
            instances = np.where((found >= 0) & (found < BACKGROUND), found, -1).astype(np.int32)
    return Images(rgb, depth, labels, instances)


def label_ids(image: np.ndarray, where: str) -> np.ndarray:
    """[H W] int32 ids from a semantic image: of ids, or [H W C] of the colours of ScanNet's palette.

    Raises:
        DataError: an id above 40, or a colour that is not in the palette.
    """
    if image.ndim == 2:
        if image.max() > len(nyu40.NAMES):
            raise DataError(f"{where}: label {image.max()}; NYU40 has 0 to 40")
        return image.astype(np.int32)
    wide = image[..., :3].astype(np.int64)
    codes = wide[..., 0] << 16 | wide[..., 1] << 8 | wide[..., 2]
    order = np.argsort(_CODES)
    found = order[np.minimum(np.searchsorted(_CODES[order], codes), len(_CODES) - 1)]
    unknown = _CODES[found] != codes
    if unknown.any():
        v, u = np.argwhere(unknown)[0]
        raise DataError(f"{where}: the colour {tuple(wide[v, u].tolist())} of pixel ({u}, {v}) is none of NYU40's")
    return found.astype(np.int32)


def parse_camera(content: bytes, where: str, size: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """[4 4] pose (OpenCV axes to world, metres) and [3 3] intrinsics from a ``camera_pose.txt``.

    The camera's x is front x up and its y is front x x, so that the pose is a rotation whatever the file's own
    order of axes. Some files end with a twelfth number, 1.

    Raises:
        DataError: it has not 11 numbers, its directions do not span a plane, or its field of view is none.
    """
    numbers = parse_numbers(content, where, (11, 12), "position, front, up and half fields of view")
    front, up = numbers[3:6], numbers[6:9]
    right = np.cross(front, up)
    lengths = np.linalg.norm(front), np.linalg.norm(up), np.linalg.norm(right)
    if not (lengths[2] > 0.1 * lengths[0] * lengths[1] > 0):
        raise DataError(f"{where}: the viewing direction {front} and up {up} are no two directions")
    pose = np.eye(4)
    forward, right = front / lengths[0], right / lengths[2]
    pose[:3, :3] = np.stack([right, np.cross(forward, right), forward], axis=1)
    pose[:3, 3] = numbers[:3] / 1000
    if not ((numbers[9:11] > 0.01) & (numbers[9:11] < 1.55)).all():
        raise DataError(
            f"{where}: half fields of view of {numbers[9]:g} and {numbers[10]:g} radians; expected 0.01 to 1.55"
        )
    height, width = size
    focal_x, focal_y = np.array([width, height]) / 2 / np.tan(numbers[9:11])
    return pose, np.array([[focal_x, 0, (width - 1) / 2], [0, focal_y, (height - 1) / 2], [0, 0, 1]])


def perspective_rays(pose: np.ndarray, matrix: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
    """[H W 3] float32: what each pixel sees at plane depth 1, from the camera, in world axes."""
    v, u = np.meshgrid(np.arange(size[0]), np.arange(size[1]), indexing="ij")
    rays = np.stack([u, v, np.ones_like(u)], axis=-1) @ np.linalg.inv(matrix).T
    return (rays @ pose[:3, :3].T).astype(np.float32)


def panorama_rays(size: tuple[int, ...]) -> np.ndarray:
    """[H W 3] float32: the unit direction of each pixel of a panorama."""
    a = ((np.arange(size[1]) + 0.5) / size[1] - 0.5) * 2 * np.pi
    b = ((0.5 - (np.arange(size[0]) + 0.5) / size[0]) * np.pi)[:, None]
    return np.stack(np.broadcast_arrays(np.sin(a) * np.cos(b), np.cos(a) * np.cos(b), np.sin(b)), -1).astype(np.float32)


@dataclass(frozen=True, eq=False)
class Seen:
    """Images and where their pixels are."""

    images: Images
    xyz: np.ndarray
    """[H W 3] float32, world, metres."""
    normal: np.ndarray
    """[H W 3] float32, unit, towards the camera; 0 where a pixel has no neighbour with a depth."""
    counts: np.ndarray
    """[H W]: has a depth and a label and is not seen at a grazing angle."""


def see(images: Images, origin: np.ndarray, rays: np.ndarray, around: bool = False) -> Seen:
    """Put images into the world.

    Args:
        images: of a camera.
        origin: [3] its position, metres.
        rays: [H W 3] what its pixels see at depth 1.
        around: the last column of pixels is the first one's neighbour.

    Raises:
        DataError: a point is farther from the world's origin than voxels of 1 cm reach, 655 m.
    """
    measured = images.depth > 0
    local = rays * images.depth[..., None]
    normal = grid_normals(local, measured, around)
    distance = np.linalg.norm(local, axis=-1)
    along = np.einsum("hwi,hwi->hw", normal, local)
    cosine = np.abs(along) / np.maximum(distance, 1e-9)
    normal = np.where(along[..., None] > 0, -normal, normal)
    xyz = (local + origin).astype(np.float32)
    if not np.abs(xyz).max() < MAX_COORDINATE * SPACING:
        raise DataError(
            f"a camera at {origin} m sees points beyond {MAX_COORDINATE * SPACING:g} m; positions are in mm"
        )
    return Seen(images, xyz, normal, measured & (images.labels > 0) & (cosine > MIN_COSINE))


def grid_normals(xyz: np.ndarray, measured: np.ndarray, around: bool) -> np.ndarray:
    """[H W 3] unit normals, of either sign, of an image of points; 0 where a pixel has no measured neighbours.

    Along each axis the nearer of the two neighbours counts: at an edge, that is the one on the same surface.
    """
    across = _step(xyz, measured, 1, around)
    down = _step(xyz, measured, 0, False)
    normal = np.cross(across, down)
    length = np.linalg.norm(normal, axis=-1, keepdims=True)
    return np.divide(normal, length, out=np.zeros_like(normal), where=length > 0)


def _step(xyz: np.ndarray, measured: np.ndarray, axis: int, around: bool) -> np.ndarray:
    """[H W 3]: to the neighbour along an axis, or from the one before it; 0 where there is neither."""
    step = np.roll(xyz, -1, axis) - xyz
    there = measured & np.roll(measured, -1, axis)
    if not around:
        there[(slice(None), -1) if axis else -1] = False
    length = np.where(there, np.linalg.norm(step, axis=-1), np.inf)
    before = np.roll(length, 1, axis)
    chosen = np.where((length <= before)[..., None], step, np.roll(step, 1, axis))
    return chosen * np.isfinite(np.minimum(length, before))[..., None]


@dataclass
class Cloud:
    """Points of many images, the first that falls into each voxel of ``SPACING``."""

    keys: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    """Sorted keys of the occupied voxels."""
    parts: list[tuple[np.ndarray, ...]] = field(default_factory=list)
    """xyz, rgb, normal, labels and instances of each image's new points."""

    def add(self, seen: Seen) -> None:
        """Add the pixels that count."""
        xyz = seen.xyz[seen.counts]
        cells = np.floor(xyz / SPACING).astype(np.int64)
        keys = pack_keys(torch.from_numpy(np.pad(cells, ((0, 0), (1, 0))))).numpy()
        keys, first = np.unique(keys, return_index=True)
        new = np.ones(len(keys), dtype=bool)
        if len(self.keys):
            new = self.keys[np.minimum(np.searchsorted(self.keys, keys), len(self.keys) - 1)] != keys
        first = np.sort(first[new])
        images = seen.images
        columns = (images.rgb, seen.normal, images.labels, images.instances)
        self.parts.append((xyz[first], *(column[seen.counts][first] for column in columns)))
        self.keys = np.union1d(self.keys, keys[new])

    def points(self, problems: tuple[Problem, ...]) -> RawPoints | None:
        """All of them; None if there are none."""
        if not len(self.keys):
            return None
        xyz, rgb, normal, labels, instances = (np.concatenate(column) for column in zip(*self.parts, strict=True))
        return RawPoints(xyz, rgb, normal, labels, instances, problems)


def _check_size(image: np.ndarray, depth: np.ndarray, where: tuple[Place, str]) -> None:
    if image.shape[:2] != depth.shape:
        place, member = where
        raise Unusable("file", f"{place.where(member)}: an image of {image.shape[:2]} beside depth of {depth.shape}")
