"""A cloud from the depth of many frames, one at a time: memory follows from the cloud, not from the frames."""

import torch
import torch.nn.functional as F

from ponder3d.data.cloud_voxels import voxels_of_cloud
from ponder3d.data.dataset import DataError
from ponder3d.data.raw.dataset import RawFrame, RawPoints
from ponder3d.geometry.cameras import normals_from_depth

MAX_POINTS = 30_000_000
"""Of a fused cloud; some 2.5 GB while it is made."""
_PENDING = 2_000_000
"""Pixels that are collected before they are merged into the cloud."""


class CloudBuilder:
    """Averages what falls into one voxel: position, colour and normal; of labels and instances the last is kept.

    Pixels without a normal (at depth edges and holes) make no points: their depth is the least certain.
    """

    def __init__(self, spacing: float, where: str):
        """Args:
        spacing: edge of a voxel in metres.
        where: what the cloud is of, for messages.
        """
        self.spacing, self.where = spacing, where
        self._sums = torch.zeros(0, 9, dtype=torch.float64)
        """Sums over the pixels of a voxel: xyz, rgb, normal."""
        self._counts = torch.zeros(0, dtype=torch.int64)
        self._ids = torch.zeros(0, 2, dtype=torch.int64)
        """Label and instance; -1 where none is known."""
        self._pending: list[tuple[torch.Tensor, torch.Tensor]] = []
        self._has = {"labels": False, "instances": False}

    def add(self, frame: RawFrame) -> None:
        """Take the depth of a frame in.

        Raises:
            DataError: the cloud becomes larger than ``MAX_POINTS``, or lies too far from the origin.
        """
        if frame.depth is None:
            return
        depth = torch.from_numpy(frame.depth)[None]
        intrinsics = torch.from_numpy(frame.intrinsics).to(torch.float32)[None]
        normal = normals_from_depth(depth, intrinsics)[0]
        use = normal.abs().sum(-1) > 0
        v, u = use.nonzero(as_tuple=True)
        pose = torch.from_numpy(frame.world_from_cam).to(torch.float32)
        rays = torch.stack([u, v, torch.ones_like(u)], dim=1).to(torch.float32) @ torch.linalg.inv(intrinsics[0]).T
        xyz = (rays * depth[0][use][:, None]) @ pose[:3, :3].T + pose[:3, 3]
        rgb = torch.from_numpy(frame.rgb)[use].to(torch.float32)
        ids = torch.full((len(u), 2), -1, dtype=torch.int64)
        for column, name in enumerate(("labels", "instances")):
            values = getattr(frame, name)
            if values is not None:
                self._has[name] = True
                ids[:, column] = torch.from_numpy(values)[use]
        self._pending.append((torch.cat([xyz, rgb, normal[use] @ pose[:3, :3].T], dim=1), ids))
        if sum(len(rows) for rows, _ in self._pending) > _PENDING:
            self._merge()

    def points(self) -> RawPoints:
        """The cloud.

        Raises:
            DataError: as ``add``; or not a single pixel had a depth and a normal.
        """
        self._merge()
        if len(self._counts) == 0:
            raise DataError(f"{self.where}: no frame with usable depth to make points of")
        mean = (self._sums / self._counts[:, None]).to(torch.float32)
        return RawPoints(
            xyz=mean[:, :3].numpy(),
            rgb=mean[:, 3:6].round().clamp(0, 255).to(torch.uint8).numpy(),
            normal=F.normalize(mean[:, 6:], dim=1).numpy(),
            labels=self._ids[:, 0].to(torch.int32).numpy() if self._has["labels"] else None,
            instances=self._ids[:, 1].to(torch.int32).numpy() if self._has["instances"] else None,
        )

    def _merge(self) -> None:
        if not self._pending:
            return
        rows = torch.cat([rows for rows, _ in self._pending]).to(torch.float64)
        ids = torch.cat([self._ids, *(ids for _, ids in self._pending)])
        self._pending = []
        # Of a voxel that is there already its mean stands for it; it lies in the voxel, as a cell is convex.
        old = self._sums[:, :3] / self._counts[:, None]
        where = torch.cat([old, rows[:, :3]]).to(torch.float32)
        voxels = voxels_of_cloud(where, self.spacing, self.where)
        if len(voxels.keys) > MAX_POINTS:
            raise DataError(
                f"{self.where}: more than {MAX_POINTS} voxels of {self.spacing:g} m: are the poses in metres? "
                "Otherwise take a larger --cloud-spacing"
            )
        counts = torch.cat([self._counts, torch.ones(len(rows), dtype=torch.int64)])
        self._sums = torch.zeros(len(voxels.keys), 9, dtype=torch.float64).index_add_(
            0, voxels.voxel, torch.cat([self._sums, rows])
        )
        self._counts = torch.zeros(len(voxels.keys), dtype=torch.int64).index_add_(0, voxels.voxel, counts)
        self._ids = _latest(ids, voxels.voxel, len(voxels.keys))


def _latest(ids: torch.Tensor, voxel: torch.Tensor, num: int) -> torch.Tensor:
    """Per voxel and column the last value that is known."""
    out = torch.full((num, ids.shape[1]), -1, dtype=torch.int64)
    for column in range(ids.shape[1]):
        known = (ids[:, column] >= 0).nonzero()[:, 0]
        last = torch.full((num,), -1, dtype=torch.int64).scatter_reduce_(0, voxel[known], known, "amax")
        there = last >= 0
        out[there, column] = ids[last[there], column]
    return out
