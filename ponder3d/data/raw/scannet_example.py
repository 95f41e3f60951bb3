"""A tiny ScanNet: example rooms in the files and folders of the official download."""

import json
import zipfile
from io import BytesIO
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from ponder3d.data.raw import nyu40
from ponder3d.data.raw.example_room import COLOURS, SURFACES, ExampleRoom, scaled
from ponder3d.data.raw.scannet_classes import IDS200, LABELS200
from ponder3d.data.raw.sens import write_sens
from ponder3d.geometry.ply import write_ply

SCENES = {"scene0000_00": 2.0, "scene0001_00": 2.2, "scene0011_00": 2.4, "scene0707_00": 2.6}
"""Half the width of each room: two that train, one that validates, one of the test."""
UNKNOWN_SURFACE = 4
"""Nobody has annotated this wall."""
COLOUR_SIZE = (36, 48)
TURN = 0.3
"""Radians about z by which ``axisAlignment`` turns."""
_NYU40_OF = {"couch": "sofa", "shelf": "shelves", "tv": "television", "mat": "floor mat", "book": "books"}
_OTHER = {"trash can": "otherfurniture", "stairs": "otherstructure"}
_SEGMENT = 17
"""Segments of a scene have numbers of any size: surface s is segment 17 s + 5."""


def colour_intrinsics(room: ExampleRoom) -> np.ndarray:
    """[3 3] of the colour camera, which sees a little more than the depth camera."""
    matrix = scaled(room.intrinsics, room.size, COLOUR_SIZE)
    matrix[0, 0] *= 0.9
    matrix[1, 1] *= 0.9
    return matrix


def surface_ids() -> np.ndarray:
    """[7] raw id of each surface; 0 for the one that nobody has annotated."""
    id_of = dict(zip(LABELS200.names, IDS200, strict=True))
    ids = np.array([id_of[name] for name in SURFACES])
    ids[UNKNOWN_SURFACE] = 0
    return ids


def gridded_mesh(room: ExampleRoom, spacing: float = 0.1) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """As ``ExampleRoom.mesh``, with vertices at most ``spacing`` metres apart."""
    corners, quads, surfaces = room.mesh()
    vertices, faces, numbers, count = [], [], [], 0
    for plate in range(len(corners) // 4):
        origin, u_end, _, v_end = corners[4 * plate : 4 * plate + 4]
        num_u, num_v = (int(np.ceil(np.linalg.norm(end - origin) / spacing)) + 1 for end in (u_end, v_end))
        u, v = np.meshgrid(np.linspace(0, 1, num_u), np.linspace(0, 1, num_v), indexing="ij")
        vertices.append((origin + u[..., None] * (u_end - origin) + v[..., None] * (v_end - origin)).reshape(-1, 3))
        number = np.arange(num_u * num_v).reshape(num_u, num_v) + count
        a, b, c, d = number[:-1, :-1], number[1:, :-1], number[1:, 1:], number[:-1, 1:]
        cut = np.stack([np.stack([a, b, c], -1), np.stack([a, c, d], -1)]).reshape(-1, 3)
        towards = quads[2 * plate][0] < quads[2 * plate][2]
        faces.append(cut if towards else cut[:, ::-1])
        numbers.append(np.full(num_u * num_v, surfaces[4 * plate]))
        count += num_u * num_v
    return np.concatenate(vertices), np.concatenate(faces), np.concatenate(numbers)


def write_scannet(root: Path) -> None:
    """Write the download of ``SCENES`` into a directory: meshes, annotations, frames, label images and the table."""
    _write_table(root / "scannetv2-labels.combined.tsv")
    for name, half_width in SCENES.items():
        hidden = name == "scene0707_00"
        folder = root / ("scans_test" if hidden else "scans") / name
        folder.mkdir(parents=True)
        room = ExampleRoom(half_width)
        surfaces = _write_mesh(folder / f"{name}_vh_clean_2.ply", room)
        turn = np.eye(4)
        turn[:2, :2] = [[np.cos(TURN), -np.sin(TURN)], [np.sin(TURN), np.cos(TURN)]]
        lines = [f"numDepthFrames = {room.num_frames}", "sceneType = Bedroom"]
        if not hidden:
            _write_annotations(folder, surfaces)
            _write_label_images(folder, room)
            lines.insert(0, f"axisAlignment = {' '.join(f'{value:.9f}' for value in turn.flatten())} ")
        (folder / f"{name}.txt").write_text("\n".join(lines) + "\n")
        if name == "scene0001_00":
            _export_frames(folder, room)
        else:
            frames = ((room.pose(n), _colour(room, n), _millimetres(room, n)) for n in range(room.num_frames))
            write_sens(folder / f"{name}.sens", frames, colour_intrinsics(room), room.intrinsics)


def _write_table(path: Path) -> None:
    number_of = {name: number for number, name in enumerate(nyu40.NAMES, start=1)}
    rows = ["id\traw_category\tcategory\tcount\tnyu40id"]
    for raw_id, name in zip(IDS200, LABELS200.names, strict=True):
        called = (_NYU40_OF | _OTHER).get(name, name if name in number_of else "otherprop")
        rows.append(f"{raw_id}\t{name}\t{name}\t1\t{number_of[called]}")
    rows.append(f"22\tbooks\tbook\t1\t{number_of['books']}")
    path.write_text("\n".join(rows) + "\n")


def _write_mesh(path: Path, room: ExampleRoom) -> np.ndarray:
    vertices, faces, surfaces = gridded_mesh(room)
    write_ply(path, torch.from_numpy(vertices), torch.from_numpy(COLOURS[surfaces]), torch.from_numpy(faces.copy()))
    return surfaces


def _write_annotations(folder: Path, surfaces: np.ndarray) -> None:
    segments = {"sceneId": folder.name, "segIndices": (surfaces * _SEGMENT + 5).tolist()}
    (folder / f"{folder.name}_vh_clean_2.0.010000.segs.json").write_text(json.dumps(segments))
    groups = [
        {"id": number, "objectId": number, "segments": [number * _SEGMENT + 5], "label": name}
        for number, name in enumerate(SURFACES)
        if number != UNKNOWN_SURFACE
    ]
    (folder / f"{folder.name}.aggregation.json").write_text(json.dumps({"sceneId": folder.name, "segGroups": groups}))


def _write_label_images(folder: Path, room: ExampleRoom) -> None:
    for kind in ("label-filt", "instance-filt"):
        with zipfile.ZipFile(folder / f"{folder.name}_2d-{kind}.zip", "w", zipfile.ZIP_DEFLATED) as archive:
            for number in range(room.num_frames):
                surface = room.trace(number, COLOUR_SIZE, colour_intrinsics(room))[1]
                instance = np.where(surface == UNKNOWN_SURFACE, 0, surface + 1).astype(np.uint8)
                image = surface_ids()[surface].astype(np.uint16) if kind == "label-filt" else instance
                archive.writestr(f"{kind}/{number}.png", _png(image))


def _export_frames(folder: Path, room: ExampleRoom) -> None:
    """Frames as the official exporter writes them."""
    for part in ("color", "depth", "pose", "intrinsic"):
        (folder / part).mkdir()
    for number in range(room.num_frames):
        Image.fromarray(_colour(room, number)).save(folder / "color" / f"{number}.jpg", quality=95, subsampling=0)
        (folder / "depth" / f"{number}.png").write_bytes(_png(_millimetres(room, number)))
        np.savetxt(folder / "pose" / f"{number}.txt", room.pose(number), fmt="%f")
    for kind, matrix in (("color", colour_intrinsics(room)), ("depth", room.intrinsics)):
        square = np.eye(4)
        square[:3, :3] = matrix
        np.savetxt(folder / "intrinsic" / f"intrinsic_{kind}.txt", square, fmt="%f")


def _colour(room: ExampleRoom, number: int) -> np.ndarray:
    return COLOURS[room.trace(number, COLOUR_SIZE, colour_intrinsics(room))[1]]


def _millimetres(room: ExampleRoom, number: int) -> np.ndarray:
    return np.round(room.trace(number)[0] * 1000).astype(np.uint16)


def _png(image: np.ndarray) -> bytes:
    buffer = BytesIO()
    Image.fromarray(image).save(buffer, "png")
    return buffer.getvalue()
