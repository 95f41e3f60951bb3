"""A tiny drive in PandaSet's layout, of two points and flat images, and the pickles that pandas would write."""

import gzip
import io
import json
import pickle
from pathlib import Path

import numpy as np
from PIL import Image

CAMERAS = ("front_camera", "front_right_camera", "right_camera", "back_camera", "left_camera", "front_left_camera")
CLASSES = {"5": "Vegetation", "7": "Road", "13": "Car"}
SPEED = 4.0
"""Metres a second along the world's y, of the vehicle; the car drives 2 m/s along x."""


class _Named:
    """Stands for a class or function of pandas or numpy in a pickle."""

    def __init__(self, module: str, name: str):
        self.name = f"c{module}\n{name}\n".encode()


class _Made:
    """What ``function(*arguments)`` and ``__setstate__(state)`` would make."""

    def __init__(self, function: _Named, arguments: tuple, state=None):
        self.function, self.arguments, self.state = function, arguments, state


class _Pickler(pickle._Pickler):
    """Python's own pickler, which needs not import what it names."""

    def save(self, obj, save_persistent_id=True):
        if isinstance(obj, _Named):
            self.write(obj.name)
        elif isinstance(obj, _Made):
            self.save(obj.function)
            self.save(obj.arguments)
            self.write(pickle.REDUCE)
            if obj.state is not None:
                self.save(obj.state)
                self.write(pickle.BUILD)
        else:
            super().save(obj, save_persistent_id)


def _array(values: np.ndarray) -> _Made:
    objects = values.dtype == object
    code = "O8" if objects else values.dtype.str[1:]
    kind = _Made(_Named("numpy", "dtype"), (code, 0, 1), (3, "|" if objects else "<", None, None, None, -1, -1, 0))
    data = values.flatten().tolist() if objects else values.tobytes()
    empty = _Made(_Named("numpy.core.multiarray", "_reconstruct"), (_Named("numpy", "ndarray"), (0,), b"b"))
    empty.state = (1, values.shape, kind, False, data)
    return empty


def dump_table(path: Path, columns: dict[str, np.ndarray]) -> None:
    """What ``DataFrame(columns).to_pickle(path)`` of pandas 1.0 writes, with a block for each column."""
    base = "pandas.core.indexes.base"
    names = _Made(
        _Named(base, "_new_Index"),
        (_Named(base, "Index"), {"data": _array(np.array(list(columns), dtype=object)), "name": None}),
    )
    num = len(next(iter(columns.values())))
    rows = _Made(
        _Named(base, "_new_Index"),
        (_Named("pandas.core.indexes.range", "RangeIndex"), {"name": None, "start": 0, "stop": num, "step": 1}),
    )
    blocks = [
        {"values": _array(column[None]), "mgr_locs": slice(i, i + 1, 1)} for i, column in enumerate(columns.values())
    ]
    told = {"0.14.1": {"axes": [names, rows], "blocks": blocks}}
    manager = _Made(_Named("pandas.core.internals.managers", "BlockManager"), (), ([], [], [], told))
    frame = _Made(_Named("pandas.core.frame", "DataFrame"), (), {"_data": manager, "_typ": "dataframe"})
    packed = io.BytesIO()
    _Pickler(packed, protocol=3).dump(frame)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(packed.getvalue()))


def turned(angle: float, place: list[float], camera: bool = False) -> dict:
    """A pose of the layout: turned about z, and for a camera first from looking along y."""
    half, tip = angle / 2, np.sqrt(0.5)
    w, z = np.cos(half), np.sin(half)
    # A camera that looks along y: x stays, y down is -z; a quarter turn about x by -90 degrees.
    quaternion = [w * tip, -w * tip, -z * tip, z * tip] if camera else [w, 0.0, 0.0, z]
    return {
        "position": dict(zip("xyz", place, strict=True)),
        "heading": dict(zip("wxyz", map(float, quaternion), strict=True)),
    }


def write_example(root: Path, num: int = 3, first: int = 10, heading: float = 0.0) -> None:
    """``ROOT/001``: the vehicle drives along the world's y at ``SPEED``, turned about z by ``heading``.

    In each frame three points: of the spinning laser, road 10 m ahead in the world and vegetation 20 m ahead, 3 m up;
    of the other, a car 10 m ahead and 2 m to the right, in a box of 4 x 2 x 1.5 m that drives along x at 2 m/s and has
    a twin from the other laser. Images are 32 x 24 with a colour each.
    """
    drive = root / "001"
    seconds = [1000 + 0.1 * i for i in range(num)]
    places = [[100.0, 200 + SPEED * 0.1 * i, 1.0] for i in range(num)]
    poses = [turned(heading, place) for place in places]

    def write(folder: Path, name: str, value) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(json.dumps(value))

    write(drive / "lidar", "poses.json", poses)
    write(drive / "lidar", "timestamps.json", seconds)
    write(drive / "annotations" / "semseg", "classes.json", CLASSES)
    for number, name in enumerate(CAMERAS):
        folder = drive / "camera" / name
        turns = [turned(heading - number * np.pi / 3, place, camera=True) for place in places]
        write(folder, "poses.json", turns)
        write(folder, "timestamps.json", seconds)
        write(folder, "intrinsics.json", {"fx": 16.0, "fy": 16.0, "cx": 15.7, "cy": 11.7})
        for i in range(num):
            colour = (20 * number, 40 + 10 * i, 90)
            Image.new("RGB", (32, 24), colour).save(folder / f"{first + i:02d}.jpg")
    for i, (x, y, z) in enumerate(places):
        name = f"{first + i:02d}.pkl.gz"
        points = np.array([[x, y + 10, z], [x, y + 20, z + 3], [x + 2, y + 10, z]])
        columns = {axis: points[:, k] for k, axis in enumerate("xyz")}
        strength = {"i": np.array([51.0, 255.0, 0.0]), "t": np.full(3, seconds[i]), "d": np.array([0, 0, 1])}
        dump_table(drive / "lidar" / name, {**columns, **strength})
        dump_table(drive / "annotations" / "semseg" / name, {"class": np.array([7, 5, 13])})
        car = [x + 2 + 0.2 * i, y + 10, z]
        texts = {"uuid": ["a", "b", "c"], "label": ["Car", "Car", "Signs"], "cuboids.sibling_id": ["b", "a", "-"]}
        cuboids = {name: np.array(values, dtype=object) for name, values in texts.items()}
        cuboids["cuboids.sensor_id"] = np.array([0, 1, -1])
        cuboids["yaw"] = np.array([-np.pi / 2] * 3)  # its length, along its own y, is along x
        for k, axis in enumerate("xyz"):
            cuboids[f"position.{axis}"] = np.array([car[k], car[k] + (axis == "x"), 0.0])
            cuboids[f"dimensions.{axis}"] = np.array([[2.0, 4.0, 1.5][k]] * 3)
        dump_table(drive / "annotations" / "cuboids" / name, cuboids)
