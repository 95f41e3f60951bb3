"""A street that is known exactly: flat ground, a wall across it, and a vehicle that drives towards the wall."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from ponder3d.data.driving.classes import DETECTION_LABELS
from ponder3d.data.driving.drive import Drive, Shot, Sweep
from ponder3d.types import Boxes, LabelSet

WALL_Y = 30.0
"""World y of the wall; the ground is at z = 0."""
HEIGHT = 2.0
"""Of laser and cameras above the ground."""
STEP = 1.5
"""Metres of driving from key frame to key frame, along world y."""
ORIGIN = np.array([400_000.0, 5_000_000.0, 100.0])
"""Of the drive's world on a map: float32 would be off by 0.25 m there."""
GROUND, WALL = (90, 90, 90), (200, 120, 40)
LABELS = LabelSet(("ground", "wall"), (GROUND, WALL))
FORWARD = np.array([[1.0, 0, 0], [0, 0, 1], [0, -1, 0]])
"""World axes of a camera that looks along +y: its x, y and z are world x, -z and y."""
BACKWARD = np.array([[-1.0, 0, 0], [0, 0, -1], [0, -1, 0]])
SIZE = (24, 40)
K = np.array([[20.0, 0, 19.5], [0, 20.0, 11.5], [0, 0, 1]])
CAMERAS = {"front": FORWARD, "back": BACKWARD}


def pose(place, turn=None) -> torch.Tensor:
    out = np.eye(4)
    out[:3, 3] = place
    if turn is not None:
        out[:3, :3] = turn
    return torch.from_numpy(out)


def traced(origin: np.ndarray, directions: np.ndarray) -> np.ndarray:
    """Distance along rays to ground or wall, NaN where they meet neither."""
    with np.errstate(divide="ignore", invalid="ignore"):
        ground = np.where(directions[..., 2] < 0, -origin[2] / directions[..., 2], np.inf)
        wall = np.where(directions[..., 1] > 0, (WALL_Y - origin[1]) / directions[..., 1], np.inf)
    t = np.minimum(ground, wall)
    return np.where(t < 200, t, np.nan)


@dataclass
class AnalyticDrive(Drive):
    num: int = 4
    name: str = "street"
    cameras: tuple[str, ...] = ("front", "back")
    per_key: int = 2
    """Revolutions per key frame; those between have no labels."""
    changed: dict = field(default_factory=dict)
    """Sweeps by number, in place of the right ones."""
    sizes: dict = field(default_factory=dict)
    sweeps_read: list = field(default_factory=list)

    def __len__(self) -> int:
        return self.num

    def seconds(self, frame: int) -> float:
        return 100 + 0.5 * frame

    def laser(self, number: float) -> np.ndarray:
        """World position of the laser; number counts revolutions."""
        return np.array([0.0, STEP * number / self.per_key, HEIGHT])

    def _sweep(self, number: int, key: bool) -> Sweep:
        self.sweeps_read.append(number)
        if number in self.changed:
            return self.changed[number]
        place = self.laser(number)
        azimuth, elevation = np.meshgrid(np.deg2rad(np.arange(0.25, 360, 1.5)), np.deg2rad(np.arange(-25, 5, 1.0)))
        rays = np.stack(
            [
                np.cos(elevation) * np.cos(azimuth),
                np.cos(elevation) * np.sin(azimuth),
                np.sin(elevation),
            ],
            axis=-1,
        ).reshape(-1, 3)
        t = traced(place, rays)
        rays, t = rays[~np.isnan(t)], t[~np.isnan(t)]
        xyz = rays * t[:, None]
        is_wall = np.abs(xyz[:, 1] + place[1] - WALL_Y) < 1e-6
        return Sweep(
            xyz=torch.from_numpy(xyz.astype(np.float32)),
            intensity=torch.from_numpy(np.where(is_wall, 0.75, 0.25).astype(np.float32)),
            world_from_sensor=pose(place + ORIGIN),
            seconds=100 + 0.5 * number / self.per_key,
            source=f"sweep-{number}",
            labels=torch.from_numpy(is_wall.astype(np.int64)) if key else None,
        )

    def sweep(self, frame: int) -> Sweep:
        return self._sweep(frame * self.per_key, True)

    def earlier(self, frame: int, number: int) -> list[Sweep]:
        last = frame * self.per_key
        return [self._sweep(i, False) for i in range(last - 1, max(last - 1 - number, -1), -1)]

    def shots(self, frame: int, cameras: Sequence[str]) -> list[Shot]:
        return [self._shot(frame, name) for name in cameras]

    def _shot(self, frame: int, name: str) -> Shot:
        height, width = self.sizes.get(name, SIZE)
        place = self.laser(frame * self.per_key)
        v, u = np.meshgrid(np.arange(height), np.arange(width), indexing="ij")
        rays = np.stack([u, v, np.ones_like(u)], axis=-1) @ np.linalg.inv(K).T @ CAMERAS[name].T
        t = traced(place, rays)
        is_wall = np.abs(place[1] + t * rays[..., 1] - WALL_Y) < 1e-6
        rgb = np.where(is_wall[..., None], WALL, GROUND)
        rgb[np.isnan(t)] = (100, 150, 250)
        rgb[0, 0] = (frame, 0, len(name))  # no two images are alike
        return Shot(
            rgb=torch.from_numpy(rgb.astype(np.uint8)),
            intrinsics=torch.from_numpy(K),
            world_from_cam=pose(place + ORIGIN, CAMERAS[name]),
            name=f"{name}/{frame}",
        )

    def boxes(self, frame: int) -> Boxes:
        """A car 10 m ahead of the start that drives off at 2 m/s, and a cone."""
        ahead = float(10 + 2 * 0.5 * frame - self.laser(frame * self.per_key)[1])
        return Boxes(
            centre=torch.tensor([[1.0, ahead, -1.2], [-3.0, 5.0, -1.5]]),
            size=torch.tensor([[4.0, 1.8, 1.6], [0.4, 0.4, 1.0]]),
            yaw=torch.tensor([torch.pi / 2, 0.0]),
            label=torch.tensor([DETECTION_LABELS.names.index(name) for name in ("car", "traffic cone")]),
            velocity=torch.tensor([[0.0, 2.0], [torch.nan, torch.nan]]),
        )
