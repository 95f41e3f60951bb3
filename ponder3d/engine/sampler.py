"""Which scenes make up which step: a pure function of the seed and the step.

The draws of a run are one endless list: epoch after epoch, each a permutation of the dataset keyed by (seed, epoch).
Step k takes draws ``k * batch_size`` up to ``(k + 1) * batch_size``, whatever the number of ranks, workers and
accumulation passes. So the position of a run is one integer, and nothing of a sampler is ever stored.
"""

from collections.abc import Iterator
from functools import lru_cache

import torch

from ponder3d.geometry import keyed


class StepSampler:
    """Batch sampler of one rank: yields the (epoch, index) draws of each of its passes, from step ``start`` on."""

    def __init__(
        self,
        num_scenes: int,
        batch_size: int,
        seed: int,
        steps: range,
        accumulate: int = 1,
        rank: int = 0,
        world: int = 1,
    ):
        if num_scenes < 1:
            raise ValueError("the training dataset has no scenes")
        if batch_size % (world * accumulate):
            raise ValueError(
                f"batch_size {batch_size} cannot be split over {world} ranks and {accumulate} accumulation passes"
            )
        self.num_scenes, self.batch_size, self.seed = num_scenes, batch_size, seed
        self.steps, self.accumulate, self.rank, self.world = steps, accumulate, rank, world

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        share = self.batch_size // (self.world * self.accumulate)
        for step in self.steps:
            for passed in range(self.accumulate):
                first = step * self.batch_size + (passed * self.world + self.rank) * share
                yield [self.draw(position) for position in range(first, first + share)]

    def __len__(self) -> int:
        return len(self.steps) * self.accumulate

    def draw(self, position: int) -> tuple[int, int]:
        """Epoch and scene index of one draw."""
        epoch, place = divmod(position, self.num_scenes)
        return epoch, int(_permutation(self.num_scenes, self.seed, epoch)[place])


@lru_cache(maxsize=2)
def _permutation(num_scenes: int, seed: int, epoch: int) -> torch.Tensor:
    return torch.randperm(num_scenes, generator=keyed.generator(seed, epoch, 0x5A3B1E))
