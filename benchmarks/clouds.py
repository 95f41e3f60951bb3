"""The point clouds that benchmarks measure on: generated rooms, and recordings of a directory given by ``--data``.

``--data DIR`` holds ``7scenes/redkitchen/seq-01`` (7-Scenes, https://www.microsoft.com/research/project/rgb-d-dataset-7-scenes)
and ``pandaset/002`` (PandaSet, https://pandaset.org) as their publishers ship them, or one of the two.
"""

import gzip
import json
import math
import pickle
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ponder3d.data.rgbd_folder import RGBDFolderConfig
from ponder3d.data.synthetic.rooms import RoomsConfig
from ponder3d.geometry.cameras import project
from ponder3d.types import Cameras

SCAN, SWEEPS = Path("7scenes/redkitchen/seq-01"), Path("pandaset/002")


def room(spacing: float = 0.005, cache: str = "", index: int = 0) -> Tensor:
    """The cloud of a generated room, dense enough that voxels of twice ``spacing`` have few holes."""
    size = (480, 640) if spacing < 0.01 else (240, 320)
    config = RoomsConfig(first=index, num_rooms=1, image_size=size, max_points=8_000_000, cloud_spacing=spacing)
    return RoomsConfig(**{**vars(config), "cache": cache}).build()[0].xyz


def scan(data: Path, spacing: float = 0.005) -> Tensor:
    """All frames of a recorded kitchen, fused."""
    config = RGBDFolderConfig(
        root=str(data / SCAN), window=0, hold_out=0, fused_share=1.0, max_side=320, cloud_spacing=spacing
    )
    return config.build()[0].xyz


@dataclass(frozen=True)
class Sweep:
    """A LiDAR sweep and the cameras around it; x right, y forward, z up, the origin 1.8 m above the road."""

    xyz: Tensor
    cameras: Cameras


HEIGHT = 1.8
"""Where a LiDAR usually sits: the boxes of driving datasets are given about it."""


def recorded_sweep(data: Path, number: int = 0) -> Sweep:
    """A sweep of PandaSet; ``number`` counts those that are there, and starts again after the last."""
    root = data / SWEEPS
    files = sorted((root / "lidar").glob("*.pkl.gz"))
    if not files:
        raise SystemExit(f"{root}: no lidar/*.pkl.gz there")
    frame = number % len(files)
    ego = _pose(root / "lidar", frame)
    ego[:3, 3] += HEIGHT * ego[:3, 2]
    world = torch.from_numpy(_table(files[frame], ("x", "y", "z")))
    xyz = (world - ego[:3, 3]) @ ego[:3, :3]
    poses, intrinsics = [], []
    for camera in sorted((root / "camera").iterdir()):
        k = json.loads((camera / "intrinsics.json").read_text())
        intrinsics.append(torch.tensor([[k["fx"], 0, k["cx"]], [0, k["fy"], k["cy"]], [0, 0, 1]]))
        poses.append(torch.linalg.inv(ego) @ _pose(camera, frame))
    return Sweep(xyz.float(), Cameras(torch.stack(intrinsics), torch.stack(poses).float(), (1080, 1920)))


def generated_sweep(seed: int = 0, beams: int = 64, turns: int = 2000) -> Sweep:
    """A stand-in for a sweep: what a spinning LiDAR sees of a road, walls along it and boxes on it."""
    generator = torch.Generator().manual_seed(seed)

    def uniform(num: int, low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(num, generator=generator)

    tilt = torch.linspace(math.radians(-25), math.radians(15), beams)[:, None]
    turn = torch.linspace(0, 2 * math.pi, turns + 1)[None, :-1]
    columns = [tilt.cos() * turn.sin(), tilt.cos() * turn.cos(), tilt.sin().expand(beams, turns)]
    rays = torch.stack(columns, dim=-1).view(-1, 3)
    num = 60
    centre = torch.stack([uniform(num, -25, 25), uniform(num, -60, 60)], dim=1)
    half = torch.stack([uniform(num, 0.3, 1.5), uniform(num, 0.3, 4.0)], dim=1)
    far = centre[:, 0].abs() > 12  # houses
    half[far] *= 3
    height = torch.where(far, uniform(num, 4, 12), uniform(num, 1, 3))
    lo = torch.cat([centre - half, torch.full((num, 1), -HEIGHT)], dim=1)
    hi = torch.cat([centre + half, height[:, None] - HEIGHT], dim=1)
    keep = ((lo > 0) | (hi < 0))[:, :2].any(1)  # none around the car
    t = torch.where(rays[:, 2] < 0, -HEIGHT / rays[:, 2].clamp(max=-1e-6), torch.inf)
    for low, high in zip(lo[keep], hi[keep], strict=True):
        ends = torch.stack([low / rays, high / rays]).sort(dim=0).values
        enter, leave = ends[0].amax(1), ends[1].amin(1)
        t = torch.where((enter < leave) & (enter > 0), torch.minimum(t, enter), t)
    seen = (t > 2) & (t < 100)
    xyz = (t[:, None] * rays)[seen]
    xyz = xyz + 0.02 * torch.randn(xyz.shape, generator=generator)
    yaw = torch.arange(6) * (math.pi / 3)
    zero, one = torch.zeros(6), torch.ones(6)
    # Columns: the camera's right, down and forward.
    right = torch.stack([yaw.cos(), -yaw.sin(), zero], dim=1)
    forward = torch.stack([yaw.sin(), yaw.cos(), zero], dim=1)
    poses = torch.eye(4).repeat(6, 1, 1)
    poses[:, :3, :3] = torch.stack([right, torch.stack([zero, zero, -one], dim=1), forward], dim=2)
    poses[:, :3, 3] = 0.5 * forward + torch.tensor([0.0, 0.0, -0.2])
    intrinsics = torch.tensor([[1250.0, 0, 800], [0, 1250, 450], [0, 0, 1]]).repeat(6, 1, 1)
    return Sweep(xyz, Cameras(intrinsics, poses, (900, 1600)))


def seen_points(sweep: Sweep, camera: int) -> Tensor:
    """Rows of the points that fall into a camera's image."""
    view = torch.full((len(sweep.xyz),), camera)
    uv, depth = project(sweep.cameras, sweep.xyz, view)
    height, width = sweep.cameras.size
    inside = (uv > 0).all(1) & (uv[:, 0] < width - 1) & (uv[:, 1] < height - 1)
    return (inside & (depth > 1)).nonzero()[:, 0]


def _pose(sensor: Path, frame: int) -> Tensor:
    """A sensor-to-world matrix."""
    entry = json.loads((sensor / "poses.json").read_text())[frame]
    w, x, y, z = (entry["heading"][axis] for axis in "wxyz")
    turn = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]
    pose = torch.eye(4, dtype=torch.float64)
    pose[:3, :3] = torch.tensor(turn, dtype=torch.float64)
    pose[:3, 3] = torch.tensor([entry["position"][axis] for axis in "xyz"], dtype=torch.float64)
    return pose


class _Kept:
    """Stands for pandas' classes: keeps what it is made of."""

    def __init__(self, *arguments: object):
        self.arguments = arguments

    def __setstate__(self, state: object) -> None:
        self.state = state


class _Unpickler(pickle.Unpickler):
    """Makes numpy arrays, and nothing else that could run code: a table's pandas classes become ``_Kept``."""

    NUMPY = {"_reconstruct": np.zeros(0).__reduce__()[0], "ndarray": np.ndarray, "dtype": np.dtype}
    PANDAS = {"DataFrame", "BlockManager", "Index", "RangeIndex"}

    def find_class(self, module: str, name: str) -> Any:
        package = module.split(".")[0]
        if package == "numpy" and name in self.NUMPY:
            return self.NUMPY[name]
        if package == "pandas" and name in self.PANDAS:
            return _Kept
        if package == "pandas" and name == "_new_Index":
            return lambda kind, content: content
        if (module, name) == ("builtins", "slice"):
            return slice
        raise pickle.UnpicklingError(f"{module}.{name} has no place in a table of numbers")


def _table(file: Path, names: Sequence[str]) -> np.ndarray:
    """Columns of a pickled pandas table of numbers, without pandas."""
    with gzip.open(file) as opened:
        manager = _Unpickler(opened).load().state["_data"]
    for content in manager.state[3].values():
        columns = content["axes"][0]["data"].tolist()
        for block in content["blocks"]:
            held = columns[block["mgr_locs"]]
            if set(names) <= set(held):
                return np.stack([block["values"][held.index(name)] for name in names], axis=1)
    raise SystemExit(f"{file}: no columns {', '.join(names)}")
