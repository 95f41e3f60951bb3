"""Coloured points and meshes as binary PLY, which any viewer opens."""

import os
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int, UInt8
from torch import Tensor


def write_ply(
    path: Path, xyz: Float[Tensor, "N 3"], rgb: UInt8[Tensor, "N 3"], faces: Int[Tensor, "F 3"] | None = None
) -> None:
    """Write points, or a triangle mesh if there are faces; whole or not at all."""
    vertices = np.empty(len(xyz), dtype=[("p", "<f4", 3), ("c", "u1", 3)])
    vertices["p"], vertices["c"] = xyz.cpu().numpy(), rgb.cpu().numpy()
    header = ["ply", "format binary_little_endian 1.0", f"element vertex {len(xyz)}"]
    header += [f"property float {axis}" for axis in "xyz"] + [f"property uchar {c}" for c in ("red", "green", "blue")]
    data = vertices.tobytes()
    if faces is not None:
        triangles = np.empty(len(faces), dtype=[("n", "u1"), ("v", "<i4", 3)])
        triangles["n"], triangles["v"] = 3, faces.cpu().numpy()
        header += [f"element face {len(faces)}", "property list uchar int vertex_indices"]
        data += triangles.tobytes()
    temporary = path.with_name(f".tmp-{path.name}-{os.getpid()}")
    temporary.write_bytes(("\n".join([*header, "end_header"]) + "\n").encode() + data)
    os.replace(temporary, path)
