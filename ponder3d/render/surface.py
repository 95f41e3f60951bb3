"""The surface of a field as a mesh."""

from dataclasses import replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ponder3d.geometry.mesh import Mesh, surface_nets
from ponder3d.geometry.tsdf import cell_centres
from ponder3d.render.fields import SDFField
from ponder3d.types import Grid, Volume

_CHUNK = 1 << 16


@torch.no_grad()
def extract_mesh(
    field: SDFField, volume: Volume, scene: int, cell: float, valid: Bool[Tensor, "X Y Z"] | None = None
) -> Mesh:
    """The zero level of one scene's field, coloured as seen head-on.

    Args:
        field: decoders.
        volume: feature volumes.
        scene: which of them.
        cell: spacing of the lattice on which the field is evaluated, metres.
        valid: cells of ``lattice(volume, scene, cell)`` that may carry surface, e.g. those that some camera saw.
    """
    grid = lattice(volume, scene, cell)
    centres = cell_centres(grid)
    values = torch.cat([field.distance(volume, part, _scene(part, scene)) for part in centres.split(_CHUNK)])
    mesh = surface_nets(values.view(grid.shape), centres[0], _spacing(grid), valid)
    return replace(mesh, colour=_head_on_colours(field, volume, mesh.vertices, scene))


def lattice(volume: Volume, scene: int, cell: float) -> Grid:
    """A one-scene grid over the scene's box with cells of about ``cell`` metres."""
    lo, hi = volume.grid.box[scene]
    shape = ((hi - lo) / cell).ceil().clamp(min=2).to(torch.int64).tolist()
    return Grid(volume.grid.box[scene : scene + 1], (shape[0], shape[1], shape[2]))


def _spacing(grid: Grid) -> Float[Tensor, "3"]:
    lo, hi = grid.box[0]
    return (hi - lo) / torch.tensor(grid.shape, dtype=lo.dtype, device=lo.device)


def _scene(xyz: Tensor, scene: int) -> Int[Tensor, " N"]:
    return torch.full((len(xyz),), scene, dtype=torch.int64, device=xyz.device)


def _head_on_colours(field: SDFField, volume: Volume, xyz: Tensor, scene: int) -> Float[Tensor, "V 3"]:
    parts = []
    for part in xyz.split(_CHUNK):
        samples = field(volume, part, _scene(part, scene))
        parts.append(field.colours(samples, -samples.normal))
    return torch.cat(parts) if parts else xyz.new_zeros(0, 3)
