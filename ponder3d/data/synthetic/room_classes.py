"""The classes of generated rooms. ``rooms`` exports them; they are here because the furniture needs their numbers."""

from ponder3d.types import LabelSet

_CLASSES = {
    "wall": (174, 199, 232), "floor": (152, 223, 138), "ceiling": (225, 225, 225), "door": (214, 39, 40),
    "window": (197, 176, 213), "picture": (196, 156, 148), "curtain": (219, 219, 141), "bed": (255, 187, 120),
    "sofa": (140, 86, 75), "armchair": (190, 110, 60), "chair": (188, 189, 34), "stool": (110, 120, 20),
    "bench": (90, 60, 40), "table": (255, 152, 150), "coffee table": (255, 90, 110), "desk": (247, 182, 210),
    "nightstand": (150, 100, 160), "bookshelf": (148, 103, 189), "wardrobe": (100, 60, 140), "cabinet": (31, 119, 180),
    "counter": (23, 190, 207), "refrigerator": (255, 127, 14), "stove": (200, 60, 0), "sink": (112, 128, 144),
    "toilet": (44, 160, 44), "bathtub": (227, 119, 194), "washing machine": (0, 110, 110), "radiator": (120, 70, 70),
    "lamp": (255, 235, 60), "television": (20, 20, 90), "monitor": (60, 60, 220), "plant": (0, 200, 60),
    "bin": (70, 70, 70), "pillow": (255, 200, 230), "rug": (130, 200, 190), "box": (180, 140, 90),
    "mirror": (140, 230, 255),
}  # fmt: skip

ROOMS_LABELS = LabelSet(names=tuple(_CLASSES), palette=tuple(_CLASSES.values()))
"""Classes of generated rooms."""

_GROUPS = {
    "bed": ((255, 187, 120), ("bed",)),
    "ceiling": ((225, 225, 225), ("ceiling",)),
    "chair": ((188, 189, 34), ("chair", "stool", "bench")),
    "floor": ((152, 223, 138), ("floor", "rug")),
    "furniture": (
        (31, 119, 180),
        ("nightstand", "bookshelf", "wardrobe", "cabinet", "counter", "refrigerator", "stove", "sink", "toilet",
         "bathtub", "washing machine", "radiator"),
    ),
    "objects": ((255, 235, 60), ("lamp", "plant", "bin", "pillow", "box", "mirror")),
    "picture": ((196, 156, 148), ("picture",)),
    "sofa": ((140, 86, 75), ("sofa", "armchair")),
    "table": ((255, 152, 150), ("table", "coffee table", "desk")),
    "tv": ((20, 20, 90), ("television", "monitor")),
    "wall": ((174, 199, 232), ("wall", "door")),
    "window": ((197, 176, 213), ("window", "curtain")),
}  # fmt: skip

GROUPED_LABELS = LabelSet(names=tuple(_GROUPS), palette=tuple(colour for colour, _ in _GROUPS.values()))
"""The same rooms in the twelve groups that the 13-class NYUv2 split makes of them (its "books" are furniture here)."""

_SPACES = {
    "ceiling": ((225, 225, 225), ("ceiling",)),
    "floor": ((152, 223, 138), ("floor",)),
    "wall": ((174, 199, 232), ("wall",)),
    "window": ((197, 176, 213), ("window",)),
    "door": ((214, 39, 40), ("door",)),
    "table": ((255, 152, 150), ("table", "coffee table", "desk", "counter")),
    "chair": ((188, 189, 34), ("chair", "armchair", "stool", "bench")),
    "sofa": ((140, 86, 75), ("sofa",)),
    "bookcase": ((148, 103, 189), ("bookshelf", "wardrobe", "cabinet")),
    "board": ((60, 60, 220), ("picture", "mirror", "television", "monitor")),
}  # fmt: skip

_CLUTTER = (120, 150, 120)

SPACES_LABELS = LabelSet(names=(*_SPACES, "clutter"), palette=(*(colour for colour, _ in _SPACES.values()), _CLUTTER))
"""The same rooms as S3DIS would label them: the building, five kinds of furniture, and all else is clutter."""


def _rows(groups: dict[str, tuple[tuple[int, int, int], tuple[str, ...]]]) -> tuple[int, ...]:
    """Row of the group of each class; those in no group get the row after the last."""
    members = [names for _, names in groups.values()]
    return tuple(next((i for i, names in enumerate(members) if name in names), len(members)) for name in _CLASSES)


LABELS_OF = {
    "all": (ROOMS_LABELS, tuple(range(len(_CLASSES)))),
    "grouped": (GROUPED_LABELS, _rows(_GROUPS)),
    "spaces": (SPACES_LABELS, _rows(_SPACES)),
}
"""Choices of classes: the label set, and its row for each row of ``ROOMS_LABELS``."""

STRUCTURE = ("wall", "floor", "ceiling")
"""Classes without instances: their points and pixels have instance -1 and there is no box for them."""
