"""A tiny nuScenes in the official layout: two scenes of three samples, with numbers that can be followed by hand.

The vehicle drives along world x at 4 m/s from (100, 50); its axes are those of the world. The laser sits 1 m ahead and
1.8 m up, its y axis forward: a landmark at (x, y, z) of the world is at (50 - y, x - 101 - 4 t, z - 1.8). Between two
samples, half a second apart, is one more revolution. Cameras look ahead and every 55 or 70 degrees around.
"""

import json
import math
from pathlib import Path

import numpy as np
from PIL import Image

CATEGORIES = (
    *("noise", "animal", "human.pedestrian.adult", "human.pedestrian.child", "human.pedestrian.construction_worker"),
    *("human.pedestrian.personal_mobility", "human.pedestrian.police_officer", "human.pedestrian.stroller"),
    *("human.pedestrian.wheelchair", "movable_object.barrier", "movable_object.debris"),
    *("movable_object.pushable_pullable", "movable_object.trafficcone", "static_object.bicycle_rack"),
    *("vehicle.bicycle", "vehicle.bus.bendy", "vehicle.bus.rigid", "vehicle.car", "vehicle.construction"),
    *("vehicle.emergency.ambulance", "vehicle.emergency.police", "vehicle.motorcycle", "vehicle.trailer"),
    *("vehicle.truck", "flat.driveable_surface", "flat.other", "flat.sidewalk", "flat.terrain", "static.manmade"),
    *("static.other", "static.vegetation", "vehicle.ego"),
)
"""In the order of their numbers in label files."""
TURNS = {
    "CAM_FRONT": 0,
    "CAM_FRONT_RIGHT": -55,
    "CAM_BACK_RIGHT": -110,
    "CAM_BACK": 180,
    "CAM_BACK_LEFT": 110,
    "CAM_FRONT_LEFT": 55,
}
"""Degrees to the left of ahead."""
SIZE = (18, 32)
START_US = 1_532_402_927_000_000
SPEED = 4.0
_FIRST = (
    *((120, 50, 1.8), (120, 48, 3), (110, 60, 0), (110, 40, 0)),
    *((90, 50, 1), (90, 58, 2), (105, 45, 0), (104, 57, 1)),
)
LANDMARKS = np.array([_FIRST, np.add(_FIRST, (1.0, 2.0, 0.0))])
"""Of each scene, in the world."""
LABELS = (17, 28, 24, 26, 30, 30, 24, 12)
"""Numbers of their categories: car, manmade, drivable surface, sidewalk, vegetation, ..., traffic cone."""
OWN = np.array([[0.2, -0.3, -0.5], [-0.9, 0.9, -0.4]])
"""Points on the vehicle, in the laser's frame; their category is 31. They come first and third in the files."""
SCENES = ("scene-0061", "scene-0103")
"""One of the mini set's training split, one of its validation split."""


def quaternion(degrees: float) -> list[float]:
    """About z."""
    half = math.radians(degrees) / 2
    return [math.cos(half), 0.0, 0.0, math.sin(half)]


def camera_quaternion(degrees: float) -> list[float]:
    """Of a camera (x right, y down, z ahead) turned to the left."""
    w, _, _, z = quaternion(degrees)
    a, b, c, d = 0.5, -0.5, 0.5, -0.5  # looks along the vehicle's x
    return [w * a - z * d, w * b - z * c, w * c + z * b, w * d + z * a]


def token(*parts: object) -> str:
    return "-".join(map(str, parts))


def write_table(root: Path, name: str, rows: list, version: str = "v1.0-mini") -> None:
    path = root / version / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(rows, indent=0))


def read_table(root: Path, name: str, version: str = "v1.0-mini") -> list:
    return json.loads((root / version / f"{name}.json").read_text())


def sweep_points(scene: int, seconds: float) -> np.ndarray:
    """[10 5]: x y z intensity ring."""
    x, y, z = (LANDMARKS[scene] - [101 + SPEED * seconds, 50, 1.8]).T
    xyz = np.stack([-y, x, z], axis=1)
    xyz = np.concatenate([OWN[:1], xyz[:1], OWN[1:], xyz[1:]])
    number = np.arange(len(xyz))
    return np.concatenate([xyz, (number * 25.5)[:, None], number[:, None]], axis=1).astype("<f4")


def write_nuscenes(root: Path, lidarseg: bool = True, version: str = "v1.0-mini") -> None:
    """Write all of it."""
    tables: dict[str, list] = {
        name: []
        for name in (
            *("category", "sensor", "calibrated_sensor", "scene", "sample", "sample_data", "ego_pose", "instance"),
            *("sample_annotation", "lidarseg"),
        )
    }
    tables["category"] = [
        {"token": f"cat-{name}", "name": name, "description": ""} | ({"index": number} if lidarseg else {})
        for number, name in enumerate(CATEGORIES)
        if lidarseg or not name.startswith(("flat", "static.", "noise"))
    ]
    _sensors(tables)
    for scene, name in enumerate(SCENES):
        _scene(root, tables, scene, name, version)
    if not lidarseg:
        del tables["lidarseg"]
    for table, rows in tables.items():
        write_table(root, table, rows, version)


def _sensors(tables: dict[str, list]) -> None:
    tables["sensor"] = [
        {"token": f"s-{c}", "channel": c, "modality": "x"} for c in ("LIDAR_TOP", "RADAR_FRONT", *TURNS)
    ]
    laser = {"translation": [1, 0.0, 1.8], "rotation": quaternion(-90), "camera_intrinsic": []}
    matrix = [[20.0, 0.0, 15.5], [0.0, 20.0, 8.5], [0.0, 0.0, 1.0]]
    tables["calibrated_sensor"] = [
        {"token": "c-LIDAR_TOP", "sensor_token": "s-LIDAR_TOP"} | laser,
        {"token": "c-RADAR_FRONT", "sensor_token": "s-RADAR_FRONT"} | laser,
        *(
            {
                "token": f"c-{camera}",
                "sensor_token": f"s-{camera}",
                "translation": [0.5, 0.0, 1.5],
                "rotation": camera_quaternion(degrees),
                "camera_intrinsic": matrix,
            }
            for camera, degrees in TURNS.items()
        ),
    ]


def _scene(root: Path, tables: dict[str, list], scene: int, name: str, version: str) -> None:
    tables["scene"].append({"token": f"scene{scene}", "name": name, "nbr_samples": 3, "description": ""})
    start = START_US + 60_000_000 * scene
    for k in range(3):
        us = start + 500_000 * k
        tables["sample"].append(
            {
                "token": token("sample", scene, k),
                "timestamp": us,
                "scene_token": f"scene{scene}",
                "prev": token("sample", scene, k - 1) if k else "",
                "next": token("sample", scene, k + 1) if k < 2 else "",
            }
        )
    for number in range(5):
        _sweep(root, tables, scene, number, start)
    for k in range(3):
        _images(root, tables, scene, k, start)
        labels = np.array([31, LABELS[0], 31, *LABELS[1:]], dtype=np.uint8)
        file = f"lidarseg/{version}/{token('lidar', scene, 2 * k)}_lidarseg.bin"
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).write_bytes(labels.tobytes())
        tables["lidarseg"].append(
            {"token": token("seg", scene, k), "sample_data_token": token("lidar", scene, 2 * k), "filename": file}
        )
    for what, category in (("car", "vehicle.car"), ("walker", "human.pedestrian.adult"), ("dog", "animal")):
        tables["instance"].append({"token": token(what, scene), "category_token": f"cat-{category}"})
        for k in range(3):
            _annotation(tables, scene, k, what)


def _data(tables: dict[str, list], own: str, sample: str, sensor: str, us: int, start: int, **more) -> None:
    seconds = (us - start) * 1e-6
    tables["ego_pose"].append(
        {
            "token": f"ego-{own}",
            "timestamp": us,
            "translation": [100 + SPEED * seconds, 50, 0],
            "rotation": [1, 0, 0, 0],
        }
    )
    tables["sample_data"].append(
        {
            "token": own,
            "sample_token": sample,
            "ego_pose_token": f"ego-{own}",
            "calibrated_sensor_token": f"c-{sensor}",
            "timestamp": us,
            "fileformat": "",
            "is_key_frame": True,
            "prev": "",
            "next": "",
        }
        | more
    )


def _sweep(root: Path, tables: dict[str, list], scene: int, number: int, start: int) -> None:
    us, is_key = start + 250_000 * number, number % 2 == 0
    file = f"{'samples' if is_key else 'sweeps'}/LIDAR_TOP/n0__LIDAR_TOP__{us}.pcd.bin"
    (root / file).parent.mkdir(parents=True, exist_ok=True)
    (root / file).write_bytes(sweep_points(scene, 0.25 * number).tobytes())
    own, sample = token("lidar", scene, number), token("sample", scene, (number + 1) // 2)
    before = token("lidar", scene, number - 1) if number else ""
    _data(tables, own, sample, "LIDAR_TOP", us, start, is_key_frame=is_key, filename=file, prev=before)


def _images(root: Path, tables: dict[str, list], scene: int, k: int, start: int) -> None:
    for place, camera in enumerate(TURNS):
        us = start + 500_000 * k + 10_000 * place  # each camera a little later than the one before
        file = f"samples/{camera}/n0__{camera}__{us}.jpg"
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", SIZE[::-1], (30 * place + 20, 60 * k + 10, 90 * scene + 10)).save(root / file, quality=95)
        own, sample = token(camera, scene, k), token("sample", scene, k)
        _data(tables, own, sample, camera, us, start, filename=file)
    _data(tables, token("between", scene, k), sample, "CAM_FRONT", us, start, is_key_frame=False, filename="none.jpg")
    _data(tables, token("radar", scene, k), sample, "RADAR_FRONT", us, start, filename="none.pcd")


def _annotation(tables: dict[str, list], scene: int, k: int, what: str) -> None:
    """A car ahead at 2 m/s, turned 30 degrees to the left; someone who walks to the right at 1 m/s; a dog."""
    where = {"car": [110.0 + k, 50.0, 1.0], "walker": [105.0, 45.0 - 0.5 * k, 0.9], "dog": [100.0, 40.0, 0.3]}[what]
    tables["sample_annotation"].append(
        {
            "token": token(what, scene, k),
            "sample_token": token("sample", scene, k),
            "instance_token": token(what, scene),
            "attribute_tokens": [],
            "translation": where,
            "size": [1.8, 4.5, 1.5],
            "rotation": quaternion(30 if what == "car" else 0),
            "prev": token(what, scene, k - 1) if k else "",
            "next": token(what, scene, k + 1) if k < 2 else "",
            "num_lidar_pts": k,
            "num_radar_pts": 0,
        }
    )
