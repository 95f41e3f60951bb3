"""A part of a dataset's scenes: limited reconstructions, and scenes that are set aside to choose settings by.

ScanNet's data-efficient benchmark trains on 1, 5, 10 or 20 % of the scenes (Hou et al. 2021, "Exploring data-efficient
3D scene understanding with contrastive scene contexts").
"""

import math
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Generator

from ponder3d.data.dataset import BenchmarkFile, DataError, DatasetConfig, SceneDataset
from ponder3d.geometry import keyed
from ponder3d.types import Scene


@dataclass(frozen=True)
class FewScenes(DatasetConfig):
    """Some scenes of a dataset, drawn at random once and for all: smaller shares are parts of larger ones."""

    data: DatasetConfig
    """The whole."""
    share: float = 1.0
    """Share of the scenes that may be trained on, those set aside not counted; rounded up."""
    withheld: int = 0
    """Scenes set aside: never trained on, whatever the share."""
    seed: int = 0
    """Other seeds draw other scenes; what is set aside is the same for all."""
    part: Literal["train", "withheld"] = "train"
    """Which of the two these scenes are."""
    choosing: bool = False
    """Whether ``held_out`` are the scenes set aside, to choose settings by; else what ``data`` keeps back."""

    def __post_init__(self):
        if not 0 < self.share <= 1:
            raise ValueError(f"FewScenes.share must lie in (0, 1], it is {self.share:g}")
        if self.withheld < 0:
            raise ValueError(f"FewScenes.withheld must not be negative, it is {self.withheld}")
        if self.withheld == 0 and (self.choosing or self.part == "withheld"):
            raise ValueError("FewScenes.withheld is 0: no scenes are set aside to choose by")

    def build(self) -> "Few":
        """Open the whole and draw.

        Raises:
            DataError: the whole cannot be opened, draws some scenes more often than others (``SceneDataset.draws``),
                or nothing of it is left to train on.
        """
        return Few(self)

    def all_images(self) -> "FewScenes":
        """As of the whole, of these scenes."""
        return replace(self, data=self.data.all_images())

    def held_out(self) -> DatasetConfig:
        """The scenes set aside if ``choosing``, else those that the whole keeps back."""
        return replace(self, part="withheld") if self.choosing else self.data.held_out()


def scenes_of_share(share: float, num: int) -> int:
    """How many of ``num`` scenes a share in (0, 1] is, rounded up: at least one."""
    return math.ceil(share * num - 1e-9)  # 0.07 * 100 is 7.000000000000001, and means 7


class Few(SceneDataset):
    """Some scenes of a dataset, in the whole's order."""

    def __init__(self, config: FewScenes):
        self.whole = config.data.build()
        num = len(self.whole)
        if config.withheld >= num:
            raise DataError(
                f"FewScenes.withheld: {config.withheld} of {num} scenes are set aside, and none is left to train on"
            )
        if self.whole.draws != num:  # of a part, an epoch would have each scene once, without a word
            raise DataError(
                "FewScenes: some of these scenes are drawn more often than others, which a part cannot keep; set "
                "every share of a JointConfig to 0"
            )
        apart = torch.randperm(num, generator=keyed.generator(0xFE3))[: config.withheld]
        self.rows = sorted(apart.tolist())
        if config.part == "train":
            left = [row for row in range(num) if row not in set(self.rows)]
            order = torch.randperm(len(left), generator=keyed.generator(config.seed, 0xFE4)).tolist()
            self.rows = sorted(left[i] for i in order[: scenes_of_share(config.share, len(left))])
        whole = self.whole
        self.labels, self.skipped, self.conditions = whole.labels, whole.skipped, whole.conditions
        self.benchmark, self.benchmark_ids = whole.benchmark, whole.benchmark_ids

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Scene:
        return self.whole[self._row(index)]

    def draw(self, index: int, generator: Generator) -> Scene:
        """As the whole draws it."""
        return self.whole.draw(self._row(index), generator)

    def view_names(self, index: int) -> tuple[str, tuple[str, ...]]:
        """As the whole names them."""
        return self.whole.view_names(self._row(index))

    def benchmark_file(self, index: int, scene: Scene) -> BenchmarkFile | None:
        """As the whole makes it."""
        return self.whole.benchmark_file(self._row(index), scene)

    def _row(self, index: int) -> int:
        if not 0 <= index < len(self.rows):  # a list would count from its end
            raise IndexError(f"scene {index} of {len(self.rows)}")
        return self.rows[index]
