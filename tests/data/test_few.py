"""Shares of a dataset's scenes: nested, disjoint from what is set aside, and the same every time."""

from dataclasses import dataclass, replace

import pytest
import torch

from ponder3d.config import from_json, to_json
from ponder3d.data.dataset import DataError, DatasetConfig, SceneDataset
from ponder3d.data.few import FewScenes
from ponder3d.data.joint import JointConfig, PartConfig
from ponder3d.data.prepared.dataset import PreparedConfig
from ponder3d.data.synthetic.rooms import RoomsConfig
from ponder3d.geometry import keyed
from ponder3d.types import LabelSet, Scene


def example(tmp_path_factory) -> FewScenes:
    """A part of a few small rooms, for the contract of datasets."""
    rooms = RoomsConfig(
        num_rooms=3,
        num_test_rooms=1,
        num_views=2,
        num_fused_views=2,
        image_size=(24, 32),
        max_points=500,
        cache=str(tmp_path_factory.mktemp("few")),
    )
    return FewScenes(rooms, 0.6)


@dataclass(frozen=True)
class NumberedConfig(DatasetConfig):
    """Scenes with one point each, at their number."""

    num: int = 100
    first: int = 0

    def build(self) -> "Numbered":
        return Numbered(self)

    def held_out(self) -> "NumberedConfig":
        return NumberedConfig(5, 1000)


class Numbered(SceneDataset):
    conditions = ("numbers",)

    def __init__(self, config: NumberedConfig):
        self.config, self.labels = config, LabelSet(("point",), ((1, 2, 3),))

    def __len__(self) -> int:
        return self.config.num

    def __getitem__(self, index: int) -> Scene:
        return Scene(torch.full((1, 3), float(self.config.first + index)), None, None, f"scene/{index}")


def numbers(config: DatasetConfig) -> list[int]:
    data = config.build()
    return [int(data[i].xyz[0, 0]) for i in range(len(data))]


@pytest.mark.parametrize(("share", "num"), [(0.01, 1), (0.05, 5), (0.07, 7), (0.1, 10), (0.005, 1), (1.0, 100)])
def test_a_share_is_rounded_up(share: float, num: int) -> None:
    assert len(set(numbers(FewScenes(NumberedConfig(), share)))) == num


def test_smaller_shares_are_parts_of_larger_ones() -> None:
    shares = [set(numbers(FewScenes(NumberedConfig(), share, withheld=10, seed=3))) for share in (0.1, 0.5, 1.0)]
    assert shares[0] < shares[1] < shares[2]
    assert [len(share) for share in shares] == [9, 45, 90]


def test_scenes_set_aside_are_never_trained_on_and_the_same_for_all_seeds() -> None:
    aside = [numbers(FewScenes(NumberedConfig(), 0.3, 10, seed, "withheld")) for seed in (0, 1)]
    assert aside[0] == aside[1] and len(aside[0]) == 10
    trained = {n for seed in range(20) for n in numbers(FewScenes(NumberedConfig(), 0.5, 10, seed))}
    assert trained == set(range(100)) - set(aside[0])


def test_seeds_draw_other_scenes_and_a_seed_always_the_same() -> None:
    assert numbers(FewScenes(NumberedConfig(), 0.1, seed=0)) == numbers(FewScenes(NumberedConfig(), 0.1, seed=0))
    assert numbers(FewScenes(NumberedConfig(), 0.1, seed=0)) != numbers(FewScenes(NumberedConfig(), 0.1, seed=1))


def test_images_are_those_of_the_whole(tmp_path) -> None:
    """All of a prepared scene's, where training draws five."""
    few = FewScenes(PreparedConfig(root=str(tmp_path), views=5), 0.5, 2, 3)
    assert few.all_images() == FewScenes(few.data.all_images(), 0.5, 2, 3) != few


def test_what_is_held_out_is_the_wholes_or_what_is_set_aside() -> None:
    few = FewScenes(NumberedConfig(), 0.5, 10)
    assert numbers(few.held_out()) == [1000, 1001, 1002, 1003, 1004]
    choosing = FewScenes(NumberedConfig(), 0.5, 10, choosing=True)
    assert numbers(choosing.held_out()) == numbers(FewScenes(NumberedConfig(), 1.0, 10, 0, "withheld"))


def test_a_part_is_what_the_whole_is() -> None:
    few = FewScenes(NumberedConfig(), 0.1).build()
    assert few.labels is not None and few.labels.names == ("point",) and few.conditions == ("numbers",)
    assert few.draw(0, keyed.generator(0)).source == few[0].source == few.view_names(0)[0]
    with pytest.raises(IndexError):
        few[-1]


@pytest.mark.parametrize(
    ("kwargs", "said"),
    [
        ({"share": 0.0}, r"share must lie in \(0, 1\]"),
        ({"share": 1.5}, "share must lie in"),
        ({"withheld": -1}, "withheld must not be negative"),
        ({"choosing": True}, "no scenes are set aside"),
        ({"part": "withheld"}, "no scenes are set aside"),
    ],
)
def test_what_cannot_be_is_refused(kwargs: dict[str, object], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        FewScenes(NumberedConfig(), **kwargs)  # type: ignore[arg-type]


def test_nothing_left_to_train_on_is_refused() -> None:
    with pytest.raises(DataError, match="4 of 4 scenes are set aside"):
        FewScenes(NumberedConfig(4), withheld=4).build()


def test_what_draws_some_scenes_more_often_has_no_parts() -> None:
    parts = [PartConfig("a", NumberedConfig(6), share=2.0), PartConfig("b", NumberedConfig(4), share=1.0)]
    with pytest.raises(DataError, match="set every share of a JointConfig to 0"):
        FewScenes(JointConfig(tuple(parts)), 0.5).build()
    equal = JointConfig(tuple(replace(part, share=0.0) for part in parts))
    assert len(FewScenes(equal, 0.5).build()) == 5


def test_a_configuration_survives_json() -> None:
    few = FewScenes(NumberedConfig(7), 0.5, 2, 3, choosing=True)
    assert from_json(FewScenes, to_json(few)) == few
