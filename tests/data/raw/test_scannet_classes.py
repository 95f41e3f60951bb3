from collections import Counter

import pytest

from ponder3d.data.raw.scannet_classes import (
    BENCHMARK20,
    GROUPS200,
    IDS200,
    LABELS200,
    VAL_ROOMS,
    label_tables,
    official_split,
)

SCANS_OF_VAL_ROOMS = """
11x2 15x1 19x2 25x3 30x3 46x3 50x3 63x1 64x2 77x2 81x3 84x3 86x3 88x4 95x2 100x3 131x3 139x1 144x2 146x3 149x1
153x2 164x4 169x2 187x2 193x2 196x1 203x3 207x3 208x1 217x1 221x2 222x2 231x3 246x1 249x1 251x1 256x3 257x1
277x3 278x2 300x2 304x1 307x3 314x1 316x1 328x1 329x3 334x3 338x3 342x1 343x1 351x2 353x3 354x1 355x2 356x3
357x2 377x3 378x3 382x2 389x1 406x3 412x2 414x1 423x3 426x4 427x1 430x2 432x2 435x4 441x1 458x2 461x1 462x1
474x6 488x2 490x1 494x1 496x1 500x2 518x1 527x1 535x1 549x2 550x1 552x2 553x3 558x3 559x3 565x1 568x3 574x3
575x3 578x3 580x2 583x3 591x3 593x2 595x1 598x3 599x3 606x3 607x2 608x3 609x4 616x2 618x1 621x1 629x3 633x2
643x1 644x1 645x3 647x2 648x2 651x3 652x1 653x2 655x3 658x1 660x1 663x3 664x3 665x2 670x2 671x2 678x3 684x2
685x3 686x3 689x1 690x2 693x3 695x4 696x3 697x4 699x1 700x3 701x3 702x3 704x2
"""
"""Scans of each room in the official list of 312: room x scans."""


def test_the_validation_rooms():
    scans = dict(map(int, word.split("x")) for word in SCANS_OF_VAL_ROOMS.split())
    assert scans.keys() == VAL_ROOMS and len(VAL_ROOMS) == 142
    assert sum(scans.values()) == 312 == 1513 - 1201


@pytest.mark.parametrize(
    ("room", "split"), [(0, "train"), (706, "train"), (11, "val"), (704, "val"), (707, "test"), (806, "test")]
)
def test_the_official_split(room, split):
    assert official_split(room) == split


def test_scannet200():
    assert len(LABELS200) == len(set(IDS200)) == len(set(LABELS200.palette)) == 200
    assert list(IDS200) == sorted(IDS200) and IDS200[0] == 1 and IDS200[-1] == 1191
    assert Counter(GROUPS200) == {"head": 66, "common": 68, "tail": 66}
    facts = dict(zip(LABELS200.names, zip(IDS200, LABELS200.palette, GROUPS200, strict=True), strict=True))
    assert facts["wall"] == (1, (174, 199, 232), "head")
    assert facts["case of water bottles"] == (1181, (77, 15, 130), "tail")
    assert facts["mattress"] == (1191, (42, 94, 198), "common")


def test_tables():
    """Raw ids 2 (chair), 10 (office chair), 55 (shower curtain), 1163 (object) and 1300, which ScanNet200 lacks."""
    twenty, two_hundred, nyu40 = label_tables({1300: 39, 2: 5, 10: 5, 55: 28, 1163: 40, 10000: 7}, {10000: 10})
    assert [t.name for t in (twenty, two_hundred, nyu40)] == ["scannet20", "scannet200", "nyu40"]
    assert len(twenty.labels) == 20 and twenty.benchmark_ids == BENCHMARK20
    assert [(i, twenty.labels.names[row]) for i, row in twenty.rows] == [
        (2, "chair"),
        (10, "chair"),
        (55, "shower curtain"),
        (1300, "otherfurniture"),
        (10000, "table"),
    ]
    assert twenty.labels.palette[twenty.labels.names.index("chair")] == (188, 189, 34)
    assert dict(two_hundred.rows)[10] == two_hundred.labels.names.index("office chair")
    assert dict(two_hundred.rows)[10000] == dict(two_hundred.rows)[10], "ScanNet200 goes by the table's id"
    assert nyu40.labels.names[dict(nyu40.rows)[10000]] == "table"
    assert two_hundred.benchmark_ids == IDS200 and 1300 not in dict(two_hundred.rows)
    assert nyu40.labels.names[dict(nyu40.rows)[1163]] == "otherprop" and len(nyu40.labels) == 40
