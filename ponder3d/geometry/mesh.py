"""Triangle meshes from scalar grids by naive surface nets, and points on them.

Surface nets (Gibson 1998) put one vertex into every cube of eight neighbouring samples that the surface crosses, at the
mean of the crossings on the cube's edges, and one quad across every crossed edge. Compared with marching cubes there
are no case tables, so the whole of it is a few tensor operations that run on any device.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


@dataclass(frozen=True)
class Mesh:
    """Triangles; counter-clockwise seen from the positive side of the field."""

    vertices: Float[Tensor, "V 3"]
    """World coordinates, metres."""
    faces: Int[Tensor, "F 3"]
    colour: Float[Tensor, "V 3"] | None = None
    """Vertex colours in [0, 1]."""


def surface_nets(
    values: Float[Tensor, "X Y Z"],
    origin: Float[Tensor, "3"],
    spacing: Float[Tensor, "3"],
    valid: Bool[Tensor, "X Y Z"] | None = None,
) -> Mesh:
    """The zero level of samples on a regular lattice.

    Args:
        values: signed samples; value [i, j, k] lies at ``origin + spacing * (i, j, k)``.
        origin: world position of the first sample.
        spacing: metres between samples along each axis.
        valid: samples that may be used; a cube with an invalid corner makes no vertex. None means all.
    """
    negative = values < 0
    cube_shape = tuple(n - 1 for n in values.shape)
    total = values.new_zeros((*cube_shape, 3))
    crossings = values.new_zeros(cube_shape)
    for axis in range(3):
        for shift in _edge_shifts(axis):
            start, end = _window(values, shift, cube_shape), _window(values, _plus(shift, axis), cube_shape)
            crossed = (start < 0) != (end < 0)
            fraction = torch.where(crossed, start / torch.where(crossed, start - end, 1.0), 0.0)
            where = torch.tensor(shift, dtype=values.dtype, device=values.device).expand(*cube_shape, 3).clone()
            where[..., axis] = fraction
            total += where * crossed[..., None]
            crossings += crossed
    active = crossings > 0
    if valid is not None:
        for shift in ((i, j, k) for i in (0, 1) for j in (0, 1) for k in (0, 1)):
            active &= _window(valid, shift, cube_shape)
    number = torch.full(cube_shape, -1, dtype=torch.int64, device=values.device)
    cells = active.nonzero()
    number[active] = torch.arange(len(cells), device=values.device)
    local = total[active] / crossings[active][:, None]
    vertices = origin + (cells + local) * spacing
    return Mesh(vertices=vertices, faces=_faces(negative, number))


def face_areas(mesh: Mesh) -> Float[Tensor, " F"]:
    """Area of each triangle, square metres."""
    a, b, c = (mesh.vertices[mesh.faces[:, i]] for i in range(3))
    return torch.linalg.cross(b - a, c - a).norm(dim=1) / 2


def sample_surface(mesh: Mesh, num_points: int, generator: torch.Generator) -> Float[Tensor, "{num_points} 3"]:
    """Points spread uniformly over the area of a mesh.

    Raises:
        ValueError: the mesh has no area.
    """
    area = face_areas(mesh)
    if not float(area.sum()) > 0:
        raise ValueError("sample_surface: the mesh has no area")
    # Drawn on the generator's device, the CPU, which also has the float64 that a sum of many areas needs.
    u, v, pick = torch.rand(3, num_points, generator=generator)
    cumulative = area.cpu().double().cumsum(0)
    face = torch.searchsorted(cumulative, pick.double() * cumulative[-1]).clamp(max=len(area) - 1).to(area.device)
    u, v = u.sqrt()[:, None].to(area.device), v[:, None].to(area.device)
    a, b, c = (mesh.vertices[mesh.faces[face, i]] for i in range(3))
    return (1 - u) * a + u * (1 - v) * b + u * v * c


def _edge_shifts(axis: int) -> list[tuple[int, int, int]]:
    """Lower ends of the four edges of a unit cube that run along an axis."""
    shifts = [(i, j, k) for i in (0, 1) for j in (0, 1) for k in (0, 1)]
    return [shift for shift in shifts if shift[axis] == 0]


def _plus(shift: tuple[int, int, int], axis: int) -> tuple[int, int, int]:
    moved = [s + (a == axis) for a, s in enumerate(shift)]
    return (moved[0], moved[1], moved[2])


def _window(values: Tensor, shift: tuple[int, int, int], shape: tuple[int, ...]) -> Tensor:
    return values[tuple(slice(s, s + n) for s, n in zip(shift, shape, strict=True))]


def _faces(negative: Tensor, number: Tensor) -> Tensor:
    """Two triangles for every crossed lattice edge whose four surrounding cubes have a vertex."""
    faces = []
    for axis in range(3):
        j, k = (axis + 1) % 3, (axis + 2) % 3
        size = list(negative.shape)
        # Edges with cubes on all four sides: not on the border of the two other axes.
        span = [slice(0, size[a] - 1) if a == axis else slice(1, size[a] - 1) for a in range(3)]
        ahead = [slice(1, size[a]) if a == axis else slice(1, size[a] - 1) for a in range(3)]
        crossed = negative[tuple(span)] != negative[tuple(ahead)]
        quad = []
        for dj, dk in ((1, 1), (0, 1), (0, 0), (1, 0)):
            window = [slice(0, size[a] - 1) for a in range(3)]
            window[j] = slice(1 - dj, size[j] - 1 - dj)
            window[k] = slice(1 - dk, size[k] - 1 - dk)
            quad.append(number[tuple(window)][crossed])
        corners = torch.stack(quad, dim=1)
        # The quad runs counter-clockwise about +axis when its corners go (-,-), (+,-), (+,+), (-,+); it must face the
        # positive side, so it is turned round where the positive side is at the lower end of the edge.
        flip = ~negative[tuple(span)][crossed]
        corners = torch.where(flip[:, None], corners.flip(1), corners)
        corners = corners[(corners >= 0).all(1)]
        faces += [corners[:, [0, 1, 2]], corners[:, [0, 2, 3]]]
    return torch.cat(faces)
