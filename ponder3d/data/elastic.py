"""Elastic distortion: the room bends smoothly (Simard et al. 2003, "Best practices for convolutional neural networks").

As in PonderV2, except that normals turn with the surface. Where the noise has more nodes than ``DENSE``,
only those around points are drawn, each from a hash of its number: other numbers of the same distribution.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Generator, Tensor

from ponder3d.data.dataset import DataError
from ponder3d.data.transforms import Transform
from ponder3d.geometry import keyed
from ponder3d.geometry.grid import unique_keys
from ponder3d.geometry.trilinear import Corners, corners, read, read_slopes, twin_of
from ponder3d.types import Grid, Scene, Volume
from ponder3d.types.scene import extent

DENSE = 1 << 21
"""Nodes of noise that are drawn all at once; a room of 10 x 10 x 3 m has 50 000 at 0.2 m. More of them, and a single
stray point would cost gigabytes."""
_MOST = 1 << 60
"""Nodes that can be numbered, with room for their neighbours."""
_CELLS = 1024
"""Cells between nodes whose noise is made at a time: 216 nodes each, 2 MB of hashes."""


@dataclass(frozen=True)
class ElasticDistortion(Transform):
    """Move points by smooth random fields, one after the other, and turn their normals along.

    No camera sees a bent room: the scene loses its views, and boxes, which stay straight. For tasks on points only.
    """

    stages: tuple[tuple[float, float], ...] = ((0.2, 0.4), (0.8, 1.6))
    """Of each field the spacing of its noise in metres, and what the noise is multiplied by. The noise has a standard
    deviation of 0.11 m before that: 0.4 moves points by some 4 cm."""
    probability: float = 0.95
    """Share of the scenes that are distorted."""

    def __post_init__(self):
        if any(spacing <= 0 for spacing, _ in self.stages):
            raise ValueError(f"ElasticDistortion.stages: spacings must be positive, they are {self.stages}")

    def __call__(self, scene: Scene, generator: Generator) -> Scene:
        if scene.rays is not None:
            raise ValueError(
                f"ElasticDistortion: {scene.source} has rays, which cannot be bent along; use it without PickRays"
            )
        scene = replace(scene, views=None, boxes=None)
        if float(torch.rand((), generator=generator)) >= self.probability or len(scene.xyz) == 0:
            return scene
        xyz, normal = scene.xyz, scene.normal
        for spacing, magnitude in self.stages:
            grid = noise_grid(extent(xyz), spacing)
            num_nodes = math.prod(grid.shape)
            if num_nodes > _MOST:
                far = f"{float(xyz.abs().amax()):g} m"
                raise DataError(
                    f"ElasticDistortion: {scene.source} reaches out to {far}, too far for noise every {spacing:g} m; "
                    "remove stray points, or check the unit of the coordinates"
                )
            at = corners(grid, xyz, torch.zeros(len(xyz), dtype=torch.int64))
            if num_nodes <= DENSE:
                rows = smooth_noise(grid, magnitude, generator).feats.flatten(0, 3)
            else:
                key = int(torch.randint(1 << 62, (), generator=generator))
                rows, at = noise_around(at, grid, magnitude, lambda nodes, key=key: node_noise(key, nodes))
            if normal is not None:
                slopes = read_slopes(rows, at.index, at.slope, twin_of(xyz))
                normal = _turned(normal, slopes + torch.eye(3))
            xyz = xyz + read(rows, at.index, at.weight, twin_of(xyz))
        return replace(scene, xyz=xyz, normal=normal)


def noise_grid(bounds: Float[Tensor, "2 3"], spacing: float) -> Grid:
    """A lattice that reaches beyond the bounds; node 0 lies one spacing before the lower corner.

    Raises:
        DataError: the bounds are not finite.
    """
    lo, hi = bounds
    steps = ((hi - lo) / spacing).floor()
    if not bool(steps.isfinite().all()):
        raise DataError("ElasticDistortion: a coordinate is not finite")
    shape = [int(n) + 3 for n in steps]
    corner = lo - 1.5 * spacing  # a value of a grid sits at the centre of its cell
    box = torch.stack([corner, corner + torch.tensor(shape) * spacing])
    return Grid(box[None], (shape[0], shape[1], shape[2]))


def smooth_noise(grid: Grid, magnitude: float, generator: Generator) -> Volume:
    """Displacements on a lattice: Gaussian noise, twice averaged over 3 x 3 x 3 nodes.

    Outside the lattice the noise counts as zero.
    """
    noise = torch.randn(3, *grid.shape, generator=generator)
    for _ in range(2):
        noise = F.avg_pool3d(noise, 3, stride=1, padding=1)
    return Volume(grid, magnitude * noise.permute(1, 2, 3, 0)[None])


def noise_around(
    at: Corners, grid: Grid, magnitude: float, noise: Callable[[Int[Tensor, "..."]], Float[Tensor, "... 3"]]
) -> tuple[Float[Tensor, "R 3"], Corners]:
    """What ``smooth_noise`` makes, for the corners of points alone: time and memory follow these, not the lattice.

    Args:
        at: corners of points on ``grid``.
        grid: the lattice.
        magnitude: what the noise is multiplied by.
        noise: of nodes, by their row in the lattice; rows of nodes that are not in it do not matter.

    Returns:
        Displacements at the corners, and the corners with rows of these.
    """
    cells = unique_keys(at.index[:, 0])[0]
    rows = torch.cat([_noise_in(part, grid, noise) for part in cells.keys.split(_CELLS)])
    return magnitude * rows, replace(at, index=8 * cells.row[:, None] + torch.arange(8))


def node_noise(key: int, nodes: Int[Tensor, "..."]) -> Float[Tensor, "... 3"]:
    """Three standard normal numbers for each node."""
    (x, y), (z, _) = (keyed.normals_from(keyed.hashed(key + part, nodes)) for part in range(2))
    return torch.stack([x, y, z], dim=-1)


def _noise_in(
    lows: Int[Tensor, " M"], grid: Grid, noise: Callable[[Int[Tensor, "..."]], Float[Tensor, "... 3"]]
) -> Float[Tensor, "R 3"]:
    """Smoothed noise at the eight nodes of cells, 8 rows for each; ``lows`` are the rows of their first nodes."""
    _, y, z = grid.shape
    first = torch.stack([lows // (y * z), lows // z % y, lows % z], dim=1) - 2
    places = first[..., None] + torch.arange(6)  # [M 3 6]: the nodes that the eight are means of
    strides = torch.tensor([y * z, z, 1])
    i, j, k = (places * strides[:, None]).unbind(1)
    values = noise(i[:, :, None, None] + j[:, None, :, None] + k[:, None, None, :])  # [M 6 6 6 3]
    inside = (places >= 0) & (places < torch.tensor(grid.shape)[:, None])
    for width in (6, 4):
        within = inside[:, :, 3 - width // 2 : 3 + width // 2].to(values.dtype)
        for axis in range(3):
            shape = [-1, 1, 1, 1, 1]
            shape[1 + axis] = width
            values = values * within[:, axis].view(shape)
            before, middle, after = (values.narrow(1 + axis, start, width - 2) for start in range(3))
            values = (before + middle + after) / 3
    return values.flatten(0, 3)


def _turned(normal: Float[Tensor, "N 3"], tangents: Float[Tensor, "N 3 3"]) -> Float[Tensor, "N 3"]:
    """Unit normals of a surface after a map; row i of ``tangents`` is where the map takes the direction of axis i.

    A normal is a cross product of tangents, so it goes with the cofactors of the map.
    """
    x, y, z = tangents.unbind(1)
    cofactors = torch.stack([torch.linalg.cross(y, z), torch.linalg.cross(z, x), torch.linalg.cross(x, y)], dim=1)
    return F.normalize(torch.einsum("ni,nij->nj", normal, cofactors), dim=1)
