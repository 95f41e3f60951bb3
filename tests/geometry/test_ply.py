import numpy as np
import torch

from ponder3d.geometry.ply import write_ply


def read(path):
    data = path.read_bytes()
    header, body = data.split(b"end_header\n")
    return header.decode().splitlines(), body


def test_points(tmp_path):
    xyz = torch.tensor([[0.0, 1, 2], [3, 4, 5]])
    write_ply(tmp_path / "a.ply", xyz, torch.tensor([[1, 2, 3], [4, 5, 6]], dtype=torch.uint8))
    header, body = read(tmp_path / "a.ply")
    assert header[:3] == ["ply", "format binary_little_endian 1.0", "element vertex 2"]
    assert len(body) == 2 * 15
    assert np.frombuffer(body[15:27], "<f4").tolist() == [3, 4, 5] and list(body[27:30]) == [4, 5, 6]


def test_a_mesh(tmp_path):
    faces = torch.tensor([[0, 1, 2]])
    write_ply(tmp_path / "a.ply", torch.zeros(3, 3), torch.zeros(3, 3, dtype=torch.uint8), faces)
    header, body = read(tmp_path / "a.ply")
    assert "element face 1" in header
    assert body[45] == 3 and np.frombuffer(body[46:], "<i4").tolist() == [0, 1, 2]
    assert [p.name for p in tmp_path.iterdir()] == ["a.ply"]
