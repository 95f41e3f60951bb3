"""The raw frames of 2D-3D-S (noXYZ), which see the rooms of S3DIS.

Layout of an area (``area_1``, ..., ``area_5a``, ``area_5b``, ``area_6``):

========================================= =============================================================================
``3d/camera_to_room.json``                which room each camera (uuid) stands in: ``{uuid: "office_1_1"}``
``raw/{uuid}_pose_{pitch}_{yaw}.txt``     4x4, camera (OpenCV axes) to the area, metres
``raw/{uuid}_intrinsics_{pitch}.txt``     the image's two sides, fx fy cx cy, k1 k2 p1 p2 k3 (Brown-Conrady)
``raw/{uuid}_i{pitch}_{yaw}.jpg``         colour
``raw/{uuid}_d{pitch}_{yaw}.png``         plane depth in 1/4000 m; 0 and 65535 where there is none
========================================= =============================================================================

Area 5 was recorded as two; the poses of 5b are moved into the world of 5a, which is that of Area_5.
"""

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from ponder3d.data.dataset import DataError
from ponder3d.data.faults import raise_if_of_machine
from ponder3d.data.raw.checks import intrinsics_problem, pose_problem
from ponder3d.data.raw.dataset import Problem, RawFrame
from ponder3d.data.raw.example_room import COLOURS, ExampleRoom
from ponder3d.data.raw.surface import NEAR, Surface
from ponder3d.data.raw.text import parse_numbers, read_small
from ponder3d.data.raw.unusable import Unusable, unusable
from ponder3d.data.rgbd_images import fitted_size, read_image, read_rgb, seen_intrinsics

UNITS = 4000.0
"""Of depth, per metre."""
FROM_5B = np.array([[0, 1, 0, -4.09703582], [-1, 0, 0, 6.22617759], [0, 0, 1, 0], [0, 0, 0, 1]])
"""From the world of area_5b to that of area_5a."""
NO_DEPTH = 65535

_MAX_PIXELS = 1 << 24
_POSE = re.compile(r"([A-Za-z0-9]+)_pose_(\d+)_(\d+)\.txt$")
_AREA = re.compile(r"area_(\d+)([ab]?)$")
_ROOM = re.compile(r"(.+)_(\d+)[ab]?$")


@dataclass(frozen=True)
class Frames:
    """Where frames are."""

    rooms: dict[str, list[tuple[str, Path]]]
    """By room (``Area_1-office_1``): names of its frames and the directory of their area."""

    def problems_of_others(self, known: Iterable[str]) -> list[Problem]:
        """One for each room that has frames but is not among the known ones."""
        others = sorted(set(self.rooms) - set(known))
        return [
            Problem(
                room, "", "file", f"{self.rooms[room][0][1]}: {len(self.rooms[room])} frames of a room without points"
            )
            for room in others
        ]


def find_frames(root: Path, problems: list[Problem]) -> Frames:
    """Frames of all rooms, in the order of uuid, pitch and yaw; what is wrong with an area goes to ``problems``.

    Raises:
        DataError: there is no area with a directory ``raw``.
    """
    rooms: dict[str, list[tuple[str, Path]]] = {}
    areas = sorted(path for path in root.glob("area_*") if _AREA.match(path.name) and (path / "raw").is_dir())
    if not areas:
        raise DataError(f"{root}: no area_1/raw, area_2/raw, ... in it; frames_root is the directory of 2D-3D-S")
    for area in areas:
        try:
            room_of = _read_rooms(area / "3d" / "camera_to_room.json")
        except DataError as error:
            problems.append(Problem(f"Area_{area.name.removeprefix('area_')}", "", "file", f"{error}; no frames of it"))
            continue
        homeless = set()
        found = sorted((m[1], int(m[2]), int(m[3])) for p in (area / "raw").iterdir() if (m := _POSE.match(p.name)))
        for uuid, pitch, yaw in found:
            if uuid in room_of:
                rooms.setdefault(room_of[uuid], []).append((f"{uuid}_{pitch}_{yaw}", area))
            else:
                homeless.add(uuid)
        for uuid in sorted(homeless):
            what = f"{area / '3d' / 'camera_to_room.json'}: no room for camera {uuid}; its frames are left out"
            problems.append(Problem(f"Area_{area.name.removeprefix('area_')}", uuid, "file", what))
    return Frames(rooms)


def _read_rooms(path: Path) -> dict[str, str]:
    """Room (``Area_1-office_1``) of each camera."""
    try:
        content = path.read_bytes() if path.stat().st_size <= 1 << 24 else b"more than 16 MiB"
        pairs = json.loads(content).items()
        matches = {str(uuid): _ROOM.match(room) for uuid, room in pairs}
        return {uuid: f"Area_{match[2]}-{match[1]}" for uuid, match in matches.items() if match}
    except (OSError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise_if_of_machine(error, path)
        raise DataError(f"{path}: expected {{uuid: 'office_1_1'}} ({type(error).__name__}: {error})") from error


def read_frame(area: Path, name: str, turn: np.ndarray, surface: Surface, max_side: int, min_seen: float) -> RawFrame:
    """A frame without distortion, with depth, labels and instances where it sees the room's points.

    Args:
        area: directory of the area.
        name: ``{uuid}_{pitch}_{yaw}``.
        turn: [4 4] motion of the room, from ``align_angle``.
        surface: the room's points.
        max_side: pixels, see ``S3DISConfig``.
        min_seen: share of the pixels that must see the room's points.

    Raises:
        Unusable: a file is missing or damaged, or too little is seen.
    """
    uuid, pitch, yaw = name.split("_")
    raw = area / "raw"
    with unusable("pose"):
        path = raw / f"{uuid}_pose_{pitch}_{yaw}.txt"
        pose = parse_numbers(read_small(path), str(path), (16,), "pose").reshape(4, 4)
        if wrong := pose_problem(pose):
            raise DataError(f"{path}: {wrong}")
        path = raw / f"{uuid}_intrinsics_{pitch}.txt"
        camera = parse_numbers(read_small(path), str(path), (11,), "two sides, fx fy cx cy k1 k2 p1 p2 k3")
        matrix = np.array([[camera[2], 0, camera[4]], [0, camera[3], camera[5]], [0, 0, 1]])
    depth_path = raw / f"{uuid}_d{pitch}_{yaw}.png"
    with unusable("depth"):
        depth = read_image(depth_path, ("I;16", "I;16B", "I"))
    with unusable("colour"):
        rgb = read_rgb(raw / f"{uuid}_i{pitch}_{yaw}.jpg")
    size = (depth.shape[0], depth.shape[1])
    if depth.size > _MAX_PIXELS:
        raise Unusable("depth", f"{depth_path}: {size[1]}x{size[0]} pixels, more than any camera of 2D-3D-S has")
    if rgb.shape[:2] != size:
        raise Unusable("colour", f"{depth_path}: depth of {size} beside colour of {rgb.shape[:2]}")
    if sorted(camera[:2]) != sorted(size):  # sources disagree about which of the two comes first
        raise Unusable("pose", f"{path}: a camera of {camera[0]:g} by {camera[1]:g} pixels, but images of {size}")
    if wrong := intrinsics_problem(matrix, size):
        raise Unusable("pose", f"{path}: {wrong}")
    new_size = fitted_size(size, max_side)
    new_matrix = seen_intrinsics((None, matrix), size, size, new_size)
    where = distorted_pixels(matrix, camera[6:], new_matrix, new_size)
    metres = nearest_depth(depth, where)
    world_from_cam = turn @ (FROM_5B @ pose if area.name.endswith("5b") else pose)
    v, u = np.nonzero(metres)
    rays = np.stack([u, v, np.ones_like(u)], axis=1) @ np.linalg.inv(new_matrix).T
    xyz = (rays * metres[v, u, None]) @ world_from_cam[:3, :3].T + world_from_cam[:3, 3]
    found = surface.look_up(xyz)
    share = found[2].sum() / metres.size
    if share < min_seen:
        raise Unusable(
            "depth", f"{depth_path}: only {share:.1%} of the pixels are within {NEAR:g} m of the room's points"
        )
    labels, instances = np.zeros(new_size, dtype=np.int32), np.full(new_size, -1, dtype=np.int32)
    labels[v, u], instances[v, u] = found[:2]
    metres[v[~found[2]], u[~found[2]]] = 0
    return RawFrame(name, new_matrix, world_from_cam, bilinear_colour(rgb, where), metres, labels, instances)


def distorted_pixels(
    matrix: np.ndarray, distortion: np.ndarray, new_matrix: np.ndarray, new_size: tuple[int, int]
) -> np.ndarray:
    """[H W 2]: the (u, v) of a camera with Brown-Conrady distortion that see what the pixels of a pinhole camera see.

    With x, y the ray at plane depth 1 and r2 = x x + y y, the camera sees it at
    x (1 + k1 r2 + k2 r2^2 + k3 r2^3) + 2 p1 x y + p2 (r2 + 2 x x), and the like for y.

    Args:
        matrix: [3 3] of the distorting camera.
        distortion: k1 k2 p1 p2 k3.
        new_matrix: [3 3] of the pinhole camera.
        new_size: its height and width.
    """
    v, u = np.meshgrid(np.arange(new_size[0]), np.arange(new_size[1]), indexing="ij")
    rays = np.stack([u, v, np.ones_like(u)], axis=-1) @ np.linalg.inv(new_matrix).T
    return _distorted(rays[..., :2], distortion) * [matrix[0, 0], matrix[1, 1]] + matrix[:2, 2]


def _distorted(rays: np.ndarray, distortion: np.ndarray) -> np.ndarray:
    k1, k2, p1, p2, k3 = distortion
    x, y = rays[..., 0], rays[..., 1]
    r2 = x * x + y * y
    radial = 1 + r2 * (k1 + r2 * (k2 + r2 * k3))
    shift_x, shift_y = 2 * p1 * x * y + p2 * (r2 + 2 * x * x), 2 * p2 * x * y + p1 * (r2 + 2 * y * y)
    return np.stack([x * radial + shift_x, y * radial + shift_y], axis=-1)


def nearest_depth(depth: np.ndarray, where: np.ndarray) -> np.ndarray:
    """[H W] float32 metres of the pixels nearest to [H W 2] (u, v): a mean of depths, or of depth and "none", is
    neither. 0 where there is none."""
    u, v = (np.clip(np.rint(where[..., i]), -1, depth.shape[1 - i]).astype(int) for i in (0, 1))
    inside = (u >= 0) & (v >= 0) & (u < depth.shape[1]) & (v < depth.shape[0])
    raw = depth[v * inside, u * inside].astype(np.int64)
    return np.where(inside & (raw > 0) & (raw < NO_DEPTH), raw / UNITS, 0).astype(np.float32)


def bilinear_colour(rgb: np.ndarray, where: np.ndarray) -> np.ndarray:
    """[H W 3] uint8 at [H W 2] (u, v) of an image; beyond its edges, the colour of the edge."""
    # Average first where the image is much finer, so that sampling does not alias.
    shrink = max(1, min(rgb.shape[0] // where.shape[0], rgb.shape[1] // where.shape[1]))
    image = torch.from_numpy(rgb).permute(2, 0, 1).to(torch.float32)[None]
    image = F.avg_pool2d(image, shrink) if shrink > 1 else image
    covered = np.array([image.shape[3], image.shape[2]]) * shrink  # pixels that are left over at the edge are dropped
    grid = torch.from_numpy((where + 0.5) / covered * 2 - 1).to(torch.float32)[None]
    sampled = F.grid_sample(image, grid, align_corners=False, padding_mode="border")
    return sampled[0].permute(1, 2, 0).round().clamp(0, 255).to(torch.uint8).numpy()


def write_example(root: Path, room: ExampleRoom, area: str, name: str) -> None:
    """Write frames of a room in the layout of 2D-3D-S; the camera is a little distorted.

    Args:
        root: directory of 2D-3D-S.
        room: what they see.
        area: ``1``, ``5b``, ...
        name: of the room, such as ``office_1``.
    """
    folder = root / f"area_{area}"
    (folder / "raw").mkdir(parents=True)
    (folder / "3d").mkdir()
    uuid = f"{area}{name.replace('_', '')}".encode().hex()
    (folder / "3d" / "camera_to_room.json").write_text(json.dumps({uuid: f"{name}_{area[0]}"}))
    distortion = np.array([0.02, -0.01, 0.001, -0.001, 0.0])
    height, width = room.size
    inner = room.intrinsics
    numbers = [width, height, inner[0, 0], inner[1, 1], inner[0, 2], inner[1, 2], *distortion]
    (folder / "raw" / f"{uuid}_intrinsics_1.txt").write_text(" ".join(f"{value:.9g}" for value in numbers) + "\n")
    for number in range(room.num_frames):
        depth, surface = _seen_distorted(room, number, distortion)
        pose = room.pose(number)
        written = np.linalg.inv(FROM_5B) @ pose if area == "5b" else pose
        np.savetxt(folder / "raw" / f"{uuid}_pose_1_{number}.txt", written, fmt="%.9f")
        raw = np.round(depth * UNITS).astype(np.uint16)
        raw[0, 0] = NO_DEPTH
        Image.fromarray(raw).save(folder / "raw" / f"{uuid}_d1_{number}.png")
        colour = Image.fromarray(COLOURS[surface])
        colour.save(folder / "raw" / f"{uuid}_i1_{number}.jpg", quality=95, subsampling=0)


def _seen_distorted(room: ExampleRoom, number: int, distortion: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Plane depth and surface of each pixel of a distorting camera in a room."""
    height, width = room.size
    v, u = np.meshgrid(np.arange(height), np.arange(width), indexing="ij")
    seen = (np.stack([u, v], axis=-1) - room.intrinsics[:2, 2]) / np.diag(room.intrinsics)[:2]
    rays = seen.copy()
    for _ in range(20):  # the map is nearly the identity, so that its error can be subtracted until there is none
        rays += seen - _distorted(rays, distortion)
    pose = room.pose(number)
    return room.hit(pose[:3, 3], np.concatenate([rays, np.ones((height, width, 1))], axis=-1) @ pose[:3, :3].T)
