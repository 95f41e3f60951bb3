"""The 40 classes of NYU Depth v2, which ScanNet and Structured3D use.

Names are those of Structured3D's ``labelids.txt``; colours are those of ScanNet's benchmark scripts, which are also the
palette of Structured3D's semantic images.
"""

from ponder3d.types import LabelSet

NAMES = (
    "wall",
    "floor",
    "cabinet",
    "bed",
    "chair",
    "sofa",
    "table",
    "door",
    "window",
    "bookshelf",
    "picture",
    "counter",
    "blinds",
    "desk",
    "shelves",
    "curtain",
    "dresser",
    "pillow",
    "mirror",
    "floor mat",
    "clothes",
    "ceiling",
    "books",
    "refrigerator",
    "television",
    "paper",
    "towel",
    "shower curtain",
    "box",
    "whiteboard",
    "person",
    "nightstand",
    "toilet",
    "sink",
    "lamp",
    "bathtub",
    "bag",
    "otherstructure",
    "otherfurniture",
    "otherprop",
)
"""Of the ids 1 to 40; 0 means "no label"."""

PALETTE = (
    (174, 199, 232),
    (152, 223, 138),
    (31, 119, 180),
    (255, 187, 120),
    (188, 189, 34),
    (140, 86, 75),
    (255, 152, 150),
    (214, 39, 40),
    (197, 176, 213),
    (148, 103, 189),
    (196, 156, 148),
    (23, 190, 207),
    (178, 76, 76),
    (247, 182, 210),
    (66, 188, 102),
    (219, 219, 141),
    (140, 57, 197),
    (202, 185, 52),
    (51, 176, 203),
    (200, 54, 131),
    (92, 193, 61),
    (78, 71, 183),
    (172, 114, 82),
    (255, 127, 14),
    (91, 163, 138),
    (153, 98, 156),
    (140, 153, 101),
    (158, 218, 229),
    (100, 125, 154),
    (178, 127, 135),
    (120, 185, 128),
    (146, 111, 194),
    (44, 160, 44),
    (112, 128, 144),
    (96, 207, 209),
    (227, 119, 194),
    (213, 92, 176),
    (94, 106, 211),
    (82, 84, 163),
    (100, 85, 144),
)
"""Of the ids 1 to 40; 0 is black."""

IDS = tuple(range(1, len(NAMES) + 1))


def label_set(ids: tuple[int, ...] = IDS) -> LabelSet:
    """The classes with these ids (1 to 40), in this order."""
    return LabelSet(tuple(NAMES[i - 1] for i in ids), tuple(PALETTE[i - 1] for i in ids))
