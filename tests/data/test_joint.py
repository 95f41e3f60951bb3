"""Several datasets as one: order, draws, classes, and what one has and another lacks."""

from collections import Counter
from dataclasses import dataclass, replace

import pytest
import torch

from ponder3d.data import transforms as tf
from ponder3d.data.dataset import DataError, DatasetConfig, SceneDataset
from ponder3d.data.joint import JointConfig, PartConfig
from ponder3d.data.loader import Collate, KeyedScenes
from ponder3d.data.prepared.dataset import PreparedConfig
from ponder3d.data.raw import s3dis, structured3d
from ponder3d.data.raw.scannet_classes import label_tables
from ponder3d.data.rgbd_folder import RGBDFolderConfig
from ponder3d.data.synthetic.rooms import RoomsConfig
from ponder3d.engine.sampler import StepSampler
from ponder3d.geometry import keyed
from ponder3d.types import Boxes, Cameras, LabelSet, Scene, Views

ROOMS = RoomsConfig(num_rooms=3, num_test_rooms=2, num_views=2, num_fused_views=1, image_size=(24, 32), max_points=500)

UNION = (
    "wall floor cabinet bed chair sofa table door window bookshelf bookcase picture counter desk shelves curtain "
    "dresser pillow mirror ceiling refrigerator television shower-curtain nightstand toilet sink lamp bathtub "
    "garbagebin board beam column clutter otherstructure otherfurniture otherprop"
)
"""The 36 names of the paper's vocabulary (spec 4.2)."""


def example(tmp_path) -> JointConfig:
    fine = replace(ROOMS, num_rooms=2, num_test_rooms=1, cache=str(tmp_path))
    coarse = replace(fine, seed=1, num_rooms=1, classes="grouped")
    return JointConfig((PartConfig("fine", fine), PartConfig("coarse", coarse)))


@dataclass(frozen=True)
class ToyConfig(DatasetConfig):
    """Scenes of a point per class, and one without; drawn scenes say which number was drawn."""

    num: int = 3
    classes: tuple[str, ...] = ("wall", "chair")
    blocks: tuple[int, ...] = ()
    mix: int = 1
    depth: bool = True

    def build(self) -> "Toy":
        return Toy(self)

    def held_out(self) -> "ToyConfig":
        return replace(self, num=2)


class Toy(SceneDataset):
    def __init__(self, config: ToyConfig):
        self.config = config
        self.blocks, self.mix_blocks = config.blocks, config.mix
        colours = [(i, len(config.classes), 0) for i in range(len(config.classes))]
        self.labels = LabelSet(config.classes, tuple(colours)) if config.classes else None
        self.skipped = (f"frame {config.num} is dark",)
        self.benchmark_ids = tuple(range(10, 10 + len(config.classes)))

    def __len__(self):
        return self.config.num

    def __getitem__(self, index):
        if not 0 <= index < len(self):
            raise IndexError(index)
        labels = torch.tensor([*range(len(self.config.classes)), -1]) if self.labels else None
        num = len(self.config.classes) + 1
        cameras = Cameras(torch.eye(3)[None], torch.eye(4)[None], (1, num))
        views = Views(
            cameras,
            torch.zeros(1, 1, num, 3, dtype=torch.uint8),
            torch.ones(1, 1, num) if self.config.depth else None,
            None if labels is None else labels.view(1, 1, num).to(torch.int16),
            torch.tensor([1]),
        )
        boxes = None if labels is None else Boxes(*torch.ones(2, num, 3), torch.ones(num), labels)
        return Scene(torch.rand(num, 3), None, None, f"/toy:scene{index}", labels=labels, views=views, boxes=boxes)

    def draw(self, index, generator):
        return replace(self[index], key=int(torch.randint(1000, (), generator=generator)))


def joint(*parts: ToyConfig, shares=(0.0,) * 9, **choices) -> JointConfig:
    named = zip("abc", parts, shares, strict=False)
    return JointConfig(tuple(PartConfig(name, part, float(share)) for name, part, share in named), **choices)


def sources(scenes) -> list[str]:
    return [scene.source.replace("/toy:scene", "") for scene in scenes]


# -------------------------------------------------------------------------------------------------------------- classes


def test_the_papers_vocabulary():
    """ScanNet's 20, S3DIS's 13 and Structured3D's 25 classes make the paper's 36, but for one that none of them has;
    each class is the one of its name, those of S3DIS too, whose rows the paper's code has in another order."""
    scannet = label_tables({}, {})[0].labels
    parts = {"ScanNet": scannet, "S3DIS": s3dis.LABELS, "Structured3D": structured3d.TABLES[0].labels}
    data = JointConfig(tuple(PartConfig(name, ToyConfig(classes=own.names)) for name, own in parts.items())).build()
    assert len(data.labels) == 35 and set(data.labels.names) == {n.replace("-", " ") for n in UNION.split()} - {
        "garbagebin"
    }
    subsets = dict(data.labels.subsets)
    assert list(subsets) == list(parts) and [len(rows) for rows in subsets.values()] == [20, 13, 25]
    for name, own in parts.items():
        assert tuple(data.labels.names[row] for row in subsets[name]) == own.names
    assert data.labels.names[:20] == scannet.names
    # Rows of the paper's own order for S3DIS's 13 labels, right this time.
    assert [UNION.replace("-", "_").split().index(data.labels.names[row]) for row in subsets["S3DIS"]] == [
        *(19, 1, 0, 30, 31, 8, 7, 6, 4, 5, 10, 29, 32)
    ]


def test_labels_of_points_images_and_boxes_are_mapped():
    data = joint(
        ToyConfig(classes=("Wall", "office_chair")), ToyConfig(classes=("table", "office Chair ", "wall"))
    ).build()
    assert data.labels.names == ("Wall", "office_chair", "table")
    assert data.labels.palette == ((0, 2, 0), (1, 2, 0), (0, 3, 0))
    assert data.labels.subsets == (("a", (0, 1)), ("b", (2, 1, 0))) and data.benchmark_ids == ()
    for scene, expected in (
        (data[0], [0, 1, -1]),
        (data[1], [2, 1, 0, -1]),
        (data.draw(1, keyed.generator(0)), [2, 1, 0, -1]),
    ):
        assert scene.labels.tolist() == scene.views.labels.flatten().tolist() == scene.boxes.label.tolist() == expected
        assert (scene.labels.dtype, scene.views.labels.dtype) == (torch.int64, torch.int16)


def test_separate_vocabulary():
    data = joint(ToyConfig(), ToyConfig(classes=("chair",)), vocabulary="separate").build()
    assert data.labels.names == ("a: wall", "a: chair", "b: chair")
    assert data.labels.subsets == (("a", (0, 1)), ("b", (2,)))
    assert data[1].labels.tolist() == [2, -1]


def test_unlabelled_parts():
    data = joint(ToyConfig(classes=()), ToyConfig()).build()
    assert data.labels.subsets == (("b", (0, 1)),) and data.benchmark_ids == (10, 11)
    scene = data[0]
    assert scene.labels.tolist() == scene.views.labels.flatten().tolist() == [-1] and scene.boxes is None
    batch = Collate(("one",))([data[0], data[1]])
    assert batch.labels.tolist() == [-1, 0, 1, -1] and batch.conditions == ("a", "b")
    alone = joint(ToyConfig(classes=()), ToyConfig(classes=())).build()
    assert alone.labels is None and alone[0].labels is None and alone[0].views.labels is None


def test_classes_that_become_one():
    with pytest.raises(
        DataError, match=r"data.parts\[1\] \(b\): its classes 'Chair' and 'chair' would be one; .*separate"
    ):
        joint(ToyConfig(), ToyConfig(classes=("Chair", "chair"))).build()
    assert len(joint(ToyConfig(), ToyConfig(classes=("Chair", "chair")), vocabulary="separate").build().labels) == 4


# ----------------------------------------------------------------------------------------------------- order and draws


def test_scenes_of_all_parts_in_turn():
    data = joint(ToyConfig(1), ToyConfig(4), ToyConfig(2)).build()
    assert sources(data[i] for i in range(7)) == ["a:0", "b:0", "c:0", "b:1", "c:1", "b:2", "b:3"]
    assert [data[i].condition for i in range(4)] == ["a", "b", "c", "b"] and data.conditions == ("a", "b", "c")
    assert data.skipped == ("frame 1 is dark", "frame 4 is dark", "frame 2 is dark")
    assert data.draw(3, keyed.generator(5)).key == Toy(ToyConfig()).draw(1, keyed.generator(5)).key
    for index in (-1, 7):
        with pytest.raises(IndexError):
            data[index]


def epoch(data: SceneDataset, number: int = 0) -> Counter[str]:
    return Counter(sources(data[data.drawn(number, place)] for place in range(data.draws)))


def test_without_shares_an_epoch_has_every_scene_once():
    data = joint(ToyConfig(1), ToyConfig(4)).build()
    assert data.draws == 5 and set(epoch(data).values()) == {1} and len(epoch(data, 3)) == 5
    assert data.blocks == ()


def test_shares():
    """4:2:1 of 6, 2 and 4 scenes: the last is largest for its share, so there are 16, 8 and 4 draws."""
    data = joint(ToyConfig(6), ToyConfig(2), ToyConfig(4), shares=(4, 2, 1)).build()
    assert data.draws == 28 and len(data) == 12
    found = epoch(data)
    by_part = Counter({part: sum(n for name, n in found.items() if name[0] == part) for part in "abc"})
    assert by_part == {"a": 16, "b": 8, "c": 4} and min(found.values()) == 1
    # What an epoch cannot have as often as the rest, the next one has once more: 3 x 16 draws of 6 scenes are 8 each.
    three = epoch(data) + epoch(data, 1) + epoch(data, 2)
    assert {name: n for name, n in three.items() if name[0] == "a"} == {f"a:{i}": 8 for i in range(6)}
    assert joint(ToyConfig(6), ToyConfig(7), shares=(0.1, 0.3)).build().draws == 6 + 18


def test_a_run_draws_as_the_shares_say():
    data = joint(ToyConfig(2), ToyConfig(3), shares=(3, 1)).build()
    scenes = KeyedScenes(data, (), seed=1)
    assert len(scenes) == data.draws == 12 and len(KeyedScenes(data, (), 1, each_once=True)) == 5
    drawn = [scenes[draw] for batch in StepSampler(len(scenes), 4, 1, range(3)) for draw in batch]
    assert Counter(scene.condition for scene in drawn) == {"a": 9, "b": 3}
    of_one = [scene.key for scene in drawn if scene.source.endswith("a:/toy:scene0")]
    assert len(set(of_one)) == len(of_one) >= 4, "each draw of a scene has random numbers of its own"
    assert sources(KeyedScenes(data, (), 1, each_once=True)[0, i] for i in range(3)) == ["a:0", "b:0", "a:1"]


def test_blocks_are_of_one_part():
    data = joint(ToyConfig(10, blocks=(4, 4, 2), mix=2), ToyConfig(7), shares=(2, 1)).build()
    assert data.draws == 14 + 7 and sum(data.blocks) == 21
    # Once through, and four more; the other part in pieces of about their length.
    assert data.blocks == (4, 4, 2, 3, 1, 3, 3, 1) and data.mix_blocks == 4
    order = [sources([data[data.drawn(1, place)]])[0] for place in range(21)]
    starts = [sum(data.blocks[:i]) for i in range(len(data.blocks))]
    for start, length in zip(starts, data.blocks, strict=True):
        assert len({name[0] for name in order[start : start + length]}) == 1
    assert len(list(StepSampler(data.draws, 3, 0, range(7), blocks=data.blocks, mix=data.mix_blocks))) == 7


def test_blocks_without_shares():
    data = joint(ToyConfig(6, blocks=(4, 2)), ToyConfig(1)).build()
    assert data.blocks == (4, 2, 1) and [data.drawn(0, place) for place in range(7)] == [0, 2, 3, 4, 5, 6, 1]


def test_what_is_held_out():
    held = joint(ToyConfig(6), ToyConfig(7), shares=(1, 2)).held_out()
    assert [part.data.num for part in held.parts] == [2, 2] and held.build().draws == 4
    assert held.build().labels == joint(ToyConfig(6), ToyConfig(7)).build().labels


# --------------------------------------------------------------------------------------------- what some of them lack


def test_rays_of_a_part_without_depth_stand_beside_others():
    data = joint(ToyConfig(), ToyConfig(depth=False, classes=())).build()
    scenes = [tf.PickRays(1, 4)(data[i], keyed.generator(i)) for i in range(2)]
    assert scenes[1].targets.t is None
    batch = Collate(("one",))(scenes)
    assert bool((batch.targets.t[:4] > 0).all()) and batch.targets.t[4:].tolist() == [0] * 4
    assert batch.targets.label[4:].tolist() == [-1] * 4 and len(batch.rays) == 8
    with pytest.raises(DataError, match=r"a:/toy:scene0 has rays and b:/toy:scene0 has none; scenes of a batch"):
        Collate(("one",))([scenes[0], data[1]])
    feature = replace(scenes[0], targets=replace(scenes[0].targets, feature=torch.rand(4, 2)))
    filled = Collate(("one",))([feature, scenes[1]]).targets.feature
    assert torch.equal(filled[:4], feature.targets.feature) and bool(filled[4:].isnan().all())
    other = replace(scenes[1], targets=replace(scenes[1].targets, feature=torch.rand(4, 3)))
    with pytest.raises(DataError, match="a:/toy:scene0 has target features of 2 channels and b:/toy:scene0 of 3"):
        Collate(("one",))([feature, other])


# ------------------------------------------------------------------------------------------------------------ mistakes


def test_mistakes_are_named():
    with pytest.raises(DataError, match=r"JointConfig.parts is empty"):
        JointConfig().build()
    with pytest.raises(ValueError, match=r"JointConfig.parts\[1\].name: 'a' is parts\[0\] already"):
        JointConfig((PartConfig("a", ROOMS), PartConfig("a", ROOMS)))
    with pytest.raises(ValueError, match="JointConfig: c is several datasets itself; make each of them a part"):
        JointConfig((PartConfig("c", JointConfig((PartConfig("a", ToyConfig()),))),))
    with pytest.raises(ValueError, match="JointConfig: b has no share, and other parts have"):
        joint(ToyConfig(), ToyConfig(), shares=(1, 0))
    for name in ("", "a b", "a/b", ".a"):
        with pytest.raises(ValueError, match="make a name, not"):
            PartConfig(name, ROOMS)
    for share in (-1.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="PartConfig.share of a must be 0 or a positive number"):
            PartConfig("a", ROOMS, share)
    with pytest.raises(DataError, match=r"data.parts\[1\] \(b\): it has no scenes"):
        joint(ToyConfig(), ToyConfig(num=0)).build()


def test_a_part_that_cannot_be_opened_names_its_own_option(tmp_path):
    data = JointConfig((PartConfig("a", ROOMS), PartConfig("b", PreparedConfig())))
    with pytest.raises(DataError, match=r"data.parts\[1\] \(b\): .*--data.parts.1.data.root DIR"):
        data.build()
    lost = replace(data, parts=(data.parts[0], PartConfig("b", PreparedConfig(root=str(tmp_path)))))
    with pytest.raises(DataError, match=r"data.parts\[1\] \(b\): .*manifest.json"):
        lost.build()


def test_views_by_name_and_the_images_of_some_parts():
    data = joint(ToyConfig(1), ToyConfig(2)).build()
    assert data.view_names(2) == ("b:/toy:scene1", ()) == (data[2].source, ())
    some = data.only(("b", "x"))
    assert sources(some[i] for i in range(len(some))) == ["b:0", "b:1"]
    config = JointConfig((PartConfig("a", RGBDFolderConfig(window=7)), PartConfig("b", ROOMS)))
    assert [part.data for part in config.all_images().parts] == [config.parts[0].data.all_images(), ROOMS]


def test_classes_of_several_datasets_have_colours_of_their_own(tmp_path):
    fine = replace(ROOMS, num_rooms=1, num_test_rooms=1, cache=str(tmp_path))
    other = replace(fine, classes="spaces")
    labels = JointConfig((PartConfig("fine", fine), PartConfig("other", other)), "separate").build().labels
    assert len(set(labels.palette)) == len(labels) > 40
    assert labels.palette[: len(fine.build().labels)] == fine.build().labels.palette
