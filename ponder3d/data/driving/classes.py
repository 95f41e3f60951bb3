"""The classes of drives, and which of them the categories of nuScenes and PandaSet are.

nuScenes, generated streets and PandaSet share one set of classes of points, that of nuScenes' LiDAR segmentation
challenge, and one of boxes, that of its detection challenge. Maps go from a category's name to a row, -1 for what the
challenges leave out; a name that is in no map is of another dataset.
"""

from ponder3d.types import LabelSet

_STREET = {
    "barrier": (112, 128, 144),
    "bicycle": (220, 20, 60),
    "bus": (255, 69, 0),
    "car": (255, 158, 0),
    "construction vehicle": (233, 150, 70),
    "motorcycle": (255, 61, 99),
    "pedestrian": (0, 0, 230),
    "traffic cone": (47, 79, 79),
    "trailer": (140, 90, 20),
    "truck": (255, 99, 71),
    "drivable surface": (0, 207, 191),
    "other flat": (175, 0, 75),
    "sidewalk": (75, 0, 75),
    "terrain": (112, 180, 60),
    "manmade": (222, 184, 135),
    "vegetation": (0, 175, 0),
}
"""In the benchmark's order, from 1 in its files, and its usual colours; its trailer looks like a car."""
_DETECTED = (
    "car",
    "truck",
    "construction vehicle",
    "bus",
    "trailer",
    "barrier",
    "motorcycle",
    "bicycle",
    "pedestrian",
    "traffic cone",
)

STREET_LABELS = LabelSet(names=tuple(_STREET), palette=tuple(_STREET.values()))
"""The 16 classes of points."""
DETECTION_LABELS = LabelSet(names=_DETECTED, palette=tuple(_STREET[name] for name in _DETECTED))
"""The ten classes of boxes."""

_NUSCENES_OBJECTS = {
    "animal": "",
    "human.pedestrian.adult": "pedestrian",
    "human.pedestrian.child": "pedestrian",
    "human.pedestrian.construction_worker": "pedestrian",
    "human.pedestrian.personal_mobility": "",
    "human.pedestrian.police_officer": "pedestrian",
    "human.pedestrian.stroller": "",
    "human.pedestrian.wheelchair": "",
    "movable_object.barrier": "barrier",
    "movable_object.debris": "",
    "movable_object.pushable_pullable": "",
    "movable_object.trafficcone": "traffic cone",
    "static_object.bicycle_rack": "",
    "vehicle.bicycle": "bicycle",
    "vehicle.bus.bendy": "bus",
    "vehicle.bus.rigid": "bus",
    "vehicle.car": "car",
    "vehicle.construction": "construction vehicle",
    "vehicle.emergency.ambulance": "",
    "vehicle.emergency.police": "",
    "vehicle.motorcycle": "motorcycle",
    "vehicle.trailer": "trailer",
    "vehicle.truck": "truck",
}
"""The 23 categories of annotated boxes; the two challenges merge them alike."""
_NUSCENES_STUFF = {
    "noise": "",
    "flat.driveable_surface": "drivable surface",
    "flat.other": "other flat",
    "flat.sidewalk": "sidewalk",
    "flat.terrain": "terrain",
    "static.manmade": "manmade",
    "static.other": "",
    "static.vegetation": "vegetation",
    "vehicle.ego": "",
}
"""What only points are."""

_PANDASET = {
    "Smoke": "",
    "Exhaust": "",
    "Spray or rain": "",
    "Reflection": "",
    "Vegetation": "vegetation",
    "Ground": "terrain",
    "Road": "drivable surface",
    "Lane Line Marking": "drivable surface",
    "Stop Line Marking": "drivable surface",
    "Other Road Marking": "drivable surface",
    "Sidewalk": "sidewalk",
    "Driveway": "drivable surface",
    "Car": "car",
    "Pickup Truck": "truck",
    "Medium-sized Truck": "truck",
    "Semi-truck": "truck",
    "Towed Object": "trailer",
    "Motorcycle": "motorcycle",
    "Other Vehicle - Construction Vehicle": "construction vehicle",
    "Other Vehicle - Uncommon": "",
    "Other Vehicle - Pedicab": "",
    "Emergency Vehicle": "",
    "Bus": "bus",
    "Personal Mobility Device": "",
    "Motorized Scooter": "motorcycle",
    "Bicycle": "bicycle",
    "Train": "",
    "Trolley": "",
    "Tram / Subway": "",
    "Pedestrian": "pedestrian",
    "Pedestrian with Object": "pedestrian",
    "Animals - Bird": "",
    "Animals - Other": "",
    "Pylons": "",
    "Road Barriers": "barrier",
    "Signs": "manmade",
    "Cones": "traffic cone",
    "Construction Signs": "",
    "Temporary Construction Barriers": "barrier",
    "Rolling Containers": "",
    "Building": "manmade",
    "Other Static Object": "manmade",
}
"""The 42 classes. nuScenes counts pick-ups as trucks, driveways as drivable, and signs and poles as manmade."""


def _rows(categories: dict[str, str], labels: LabelSet) -> dict[str, int]:
    return {name: labels.names.index(own) if own in labels.names else -1 for name, own in categories.items()}


NUSCENES_POINTS = _rows({**_NUSCENES_OBJECTS, **_NUSCENES_STUFF}, STREET_LABELS)
"""Row of ``STREET_LABELS`` of each of the 32 categories of nuScenes' lidarseg; -1 for noise, the vehicle itself, ..."""
NUSCENES_BOXES = _rows(_NUSCENES_OBJECTS, DETECTION_LABELS)
"""Row of ``DETECTION_LABELS`` of each of the 23 categories of nuScenes' annotations."""
PANDASET_POINTS = _rows(_PANDASET, STREET_LABELS)
"""Row of ``STREET_LABELS`` of each of the 42 classes of PandaSet."""
PANDASET_BOXES = _rows(_PANDASET, DETECTION_LABELS)
"""Row of ``DETECTION_LABELS`` of each label of PandaSet's cuboids, which are among the 42."""
