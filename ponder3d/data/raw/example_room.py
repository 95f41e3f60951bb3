"""A box room with a table in it whose points and images are known exactly: what the example datasets show.

World: metres, z up, floor at z = 0. Surfaces are numbered: the room's walls at low x, low y, the floor, the walls at
high x, high y, the ceiling, and the table. Frames are taken while turning on the spot, looking a little down.
"""

from dataclasses import dataclass

import numpy as np

SURFACES = ("wall", "wall", "floor", "wall", "wall", "ceiling", "table")
"""What each surface is called in every indoor dataset."""
COLOURS = np.array(
    [[200, 60, 60], [60, 200, 60], [90, 90, 200], [200, 200, 60], [60, 200, 200], [230, 230, 230], [200, 60, 200]],
    dtype=np.uint8,
)
_TABLE_LO, _TABLE_HI = np.array([0.8, -0.4, 0.0]), np.array([1.6, 0.5, 0.7])


@dataclass(frozen=True)
class ExampleRoom:
    """One room."""

    half_width: float = 2.0
    """Metres along x; rooms of other widths are other rooms."""
    num_frames: int = 8
    """Frames of a full turn."""
    size: tuple[int, int] = (24, 32)
    """Height and width of an image in pixels."""

    @property
    def box(self) -> np.ndarray:
        """[2 3]: lower and upper corner."""
        return np.array([[-self.half_width, -1.5, 0.0], [self.half_width, 1.5, 2.5]])

    @property
    def intrinsics(self) -> np.ndarray:
        """[3 3], of an image that sees 77 degrees across."""
        height, width = self.size
        focal = width / 1.6
        return np.array([[focal, 0, (width - 1) / 2], [0, focal, (height - 1) / 2], [0, 0, 1]])

    def pose(self, number: int) -> np.ndarray:
        """[4 4]: camera (OpenCV axes) to world of a frame."""
        angle = 2 * np.pi * number / self.num_frames
        forward = np.array([np.cos(angle) * np.cos(0.3), np.sin(angle) * np.cos(0.3), -np.sin(0.3)])
        right = np.cross(forward, [0, 0, 1])
        right /= np.linalg.norm(right)
        pose = np.eye(4)
        pose[:3, :3] = np.stack([right, np.cross(forward, right), forward], axis=1)
        pose[:3, 3] = [-0.5 + 0.2 * np.sin(angle), 0.2, 1.4]
        return pose

    def trace(
        self, number: int, size: tuple[int, int] | None = None, intrinsics: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """[H W] plane depth in metres and [H W] number of the surface that each pixel of a frame sees."""
        height, width = self.size if size is None else size
        matrix = self.intrinsics if intrinsics is None else intrinsics
        v, u = np.meshgrid(np.arange(height), np.arange(width), indexing="ij")
        pose = self.pose(number)
        rays = np.stack([u, v, np.ones_like(u)], axis=-1) @ np.linalg.inv(matrix).T @ pose[:3, :3].T
        return self.hit(pose[:3, 3], rays)

    def hit(self, origin: np.ndarray, rays: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Where rays ``origin + t * ray`` end: [...] t, in lengths of ``ray``, and [...] number of the surface."""
        rays = np.where(rays == 0, 1e-12, rays)
        lo, hi = self.box
        walls = np.where(rays > 0, (hi - origin) / rays, (lo - origin) / rays)
        axis = walls.argmin(-1)
        t = walls.min(-1)
        surface = axis + 3 * (np.take_along_axis(rays, axis[..., None], -1)[..., 0] > 0)
        a, b = (_TABLE_LO - origin) / rays, (_TABLE_HI - origin) / rays
        enter, leave = np.minimum(a, b).max(-1), np.maximum(a, b).min(-1)
        on_table = (enter < leave) & (enter > 0) & (enter < t)
        return np.where(on_table, enter, t), np.where(on_table, 6, surface)

    def colour(self, number: int, size: tuple[int, int] | None = None) -> np.ndarray:
        """[H W 3] uint8."""
        intrinsics = None if size is None else scaled(self.intrinsics, self.size, size)
        return COLOURS[self.trace(number, size, intrinsics)[1]]

    def points(self, spacing: float = 0.1) -> tuple[np.ndarray, np.ndarray]:
        """[N 3] float64 points on all surfaces and [N] the number of each point's surface."""
        parts, surfaces = [], []
        for axis in range(3):
            for side in (0, 1):
                parts.append(_plate(self.box, axis, side, spacing))
                surfaces.append(axis + 3 * side)
        table = np.stack([_TABLE_LO, _TABLE_HI])
        for axis, side in ((0, 0), (0, 1), (1, 0), (1, 1), (2, 1)):
            parts.append(_plate(table, axis, side, spacing))
            surfaces.append(6)
        number = np.concatenate([np.full(len(p), s) for p, s in zip(parts, surfaces, strict=True)])
        return np.concatenate(parts), number

    def mesh(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """[N 3] vertices, [F 3] triangles facing free space, and [N] the number of each vertex's surface."""
        vertices, faces, surfaces = [], [], []
        table = np.stack([_TABLE_LO, _TABLE_HI])
        plates = [(self.box, axis, side, axis + 3 * side, 1 - 2 * side) for axis in range(3) for side in (0, 1)]
        plates += [(table, axis, side, 6, 2 * side - 1) for axis, side in ((0, 0), (0, 1), (1, 0), (1, 1), (2, 1))]
        for box, axis, side, surface, towards in plates:
            j, k = (axis + 1) % 3, (axis + 2) % 3
            corners = np.empty((4, 3))
            corners[:, axis] = box[side, axis]
            corners[:, j], corners[:, k] = box[[0, 1, 1, 0], j], box[[0, 0, 1, 1], k]
            first = len(vertices) * 4
            quad = np.array([[0, 1, 2], [0, 2, 3]]) + first
            vertices.append(corners)
            faces.append(quad if towards > 0 else quad[:, ::-1])
            surfaces.append(np.full(4, surface))
        return np.concatenate(vertices), np.concatenate(faces), np.concatenate(surfaces)

    def distance(self, xyz: np.ndarray) -> np.ndarray:
        """[N]: how far points are from the nearest surface."""
        lo, hi = self.box
        walls = np.abs(np.concatenate([xyz - lo, xyz - hi], axis=-1)).min(-1)
        outside = np.maximum(np.maximum(_TABLE_LO - xyz, xyz - _TABLE_HI), 0)
        inside = np.minimum(xyz - _TABLE_LO, _TABLE_HI - xyz).min(-1)
        return np.minimum(walls, np.where(inside > 0, inside, np.linalg.norm(outside, axis=-1)))


def scaled(intrinsics: np.ndarray, size: tuple[int, int], new: tuple[int, int]) -> np.ndarray:
    """Intrinsics of the same camera at another image size (height, width); the image's outer edges stay in place."""
    out = intrinsics.astype(np.float64).copy()
    for row, ratio in ((0, new[1] / size[1]), (1, new[0] / size[0])):
        centre = (out[row, 2] + 0.5) * ratio - 0.5
        out[row, :2] *= ratio
        out[row, 2] = centre
    return out


def _plate(box: np.ndarray, axis: int, side: int, spacing: float) -> np.ndarray:
    """Points on one side of a box, half a spacing from its edges on."""
    j, k = (axis + 1) % 3, (axis + 2) % 3
    a, b = (np.arange(box[0, i] + spacing / 2, box[1, i], spacing) for i in (j, k))
    grid = np.stack(np.meshgrid(a, b, indexing="ij"), axis=-1).reshape(-1, 2)
    out = np.empty((len(grid), 3))
    out[:, axis], out[:, j], out[:, k] = box[side, axis], grid[:, 0], grid[:, 1]
    return out
