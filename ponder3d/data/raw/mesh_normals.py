"""Normals of the vertices of a triangle mesh."""

import numpy as np

UP = (0.0, 0.0, 1.0)


def vertex_normals(xyz: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """[N 3] float64 unit normals: means of those of the triangles around a vertex, weighted by their areas.

    A vertex of no triangle, or of triangles without area, has the normal (0, 0, 1).

    Args:
        xyz: [N 3].
        faces: [F 3] vertices of each triangle, counter-clockwise as seen from where the normal points.
    """
    a, b, c = (xyz[faces[:, corner]].astype(np.float64) for corner in range(3))
    twice_area = np.cross(b - a, c - a)
    total = np.empty((len(xyz), 3))
    for axis in range(3):
        weights = np.repeat(twice_area[:, axis], 3)
        total[:, axis] = np.bincount(faces.reshape(-1), weights=weights, minlength=len(xyz))
    length = np.linalg.norm(total, axis=1, keepdims=True)
    known = np.isfinite(length) & (length > 0)
    return np.where(known, total / np.where(known, length, 1), UP)
