import numpy as np

from ponder3d.data.raw.mesh_normals import vertex_normals


def test_normals_are_weighted_by_area():
    """At the origin meet a triangle of area 1/2 facing z and one of area 1 facing x: (2, 0, 1) / sqrt(5)."""
    xyz = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 2, 0], [0, 0, 1], [5, 5, 5]], dtype=np.float32)
    faces = np.array([[0, 1, 2], [0, 3, 4]], dtype=np.int32)
    normals = vertex_normals(xyz, faces)
    np.testing.assert_allclose(normals[0], np.array([2, 0, 1]) / np.sqrt(5))
    np.testing.assert_allclose(normals[1:], [[0, 0, 1], [0, 0, 1], [1, 0, 0], [1, 0, 0], [0, 0, 1]])


def test_triangles_without_area_or_with_holes_in_them():
    xyz = np.array([[0, 0, 0], [1, 0, 0], [2, 0, 0], [np.nan, 0, 0]])
    normals = vertex_normals(xyz, np.array([[0, 1, 2], [1, 2, 3]]))
    np.testing.assert_array_equal(normals, np.tile([0, 0, 1], (4, 1)))
    assert vertex_normals(xyz, np.zeros((0, 3), np.int32)).shape == (4, 3)
