"""Elastic distortion: the room bends smoothly (Simard et al. 2003, "Best practices for convolutional neural networks").

As in PonderV2 (spec 5.1), except that normals turn with the surface.
"""

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Generator, Tensor

from ponder3d.data.transforms import Transform
from ponder3d.geometry.trilinear import corners, read_slopes, sample, twin_of
from ponder3d.types import Grid, Scene, Volume
from ponder3d.types.scene import extent


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
            field = smooth_noise(extent(xyz), spacing, magnitude, generator)
            at = corners(field.grid, xyz, torch.zeros(len(xyz), dtype=torch.int64))
            if normal is not None:
                slopes = read_slopes(field.feats.flatten(0, 3), at.index, at.slope, twin_of(xyz))
                normal = _turned(normal, slopes + torch.eye(3))
            xyz = xyz + sample(field, at)
        return replace(scene, xyz=xyz, normal=normal)


def smooth_noise(bounds: Float[Tensor, "2 3"], spacing: float, magnitude: float, generator: Generator) -> Volume:
    """Displacements on a lattice that reaches beyond the bounds: Gaussian noise, twice averaged over 3 x 3 x 3 nodes.

    Node 0 lies one spacing before the lower corner. Outside the lattice the noise counts as zero.
    """
    lo, hi = bounds
    shape = [int(n) + 3 for n in ((hi - lo) / spacing).floor()]
    noise = torch.randn(3, *shape, generator=generator)
    for _ in range(2):
        noise = F.avg_pool3d(noise, 3, stride=1, padding=1)
    corner = lo - 1.5 * spacing  # a value of a grid sits at the centre of its cell
    box = torch.stack([corner, corner + torch.tensor(shape) * spacing])
    grid = Grid(box[None], (shape[0], shape[1], shape[2]))
    return Volume(grid, magnitude * noise.permute(1, 2, 3, 0)[None])


def _turned(normal: Float[Tensor, "N 3"], tangents: Float[Tensor, "N 3 3"]) -> Float[Tensor, "N 3"]:
    """Unit normals of a surface after a map; row i of ``tangents`` is where the map takes the direction of axis i.

    A normal is a cross product of tangents, so it goes with the cofactors of the map.
    """
    x, y, z = tangents.unbind(1)
    cofactors = torch.stack([torch.linalg.cross(y, z), torch.linalg.cross(z, x), torch.linalg.cross(x, y)], dim=1)
    return F.normalize(torch.einsum("ni,nij->nj", normal, cofactors), dim=1)
