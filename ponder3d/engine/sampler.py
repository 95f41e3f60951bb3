"""Which scenes make up which step: a pure function of the seed and the step.

The draws of a run are one endless list: epoch after epoch, each a permutation of the dataset keyed by (seed, epoch).
Step k takes draws ``k * batch_size`` up to ``(k + 1) * batch_size``, whatever the number of ranks, workers and
accumulation passes. So the position of a run is one integer, and nothing of a sampler is ever stored.

Scenes that are stored together, in blocks, are drawn together: an epoch takes the blocks in a random order, a few at a
time, and the scenes of these few in a random order.
"""

from collections.abc import Iterator, Sequence
from functools import lru_cache

import torch

from ponder3d.geometry import keyed


class StepSampler:
    """Batch sampler of one rank: yields the (epoch, index) draws of each of its passes, from step ``start`` on.

    Args:
        num_scenes: of the dataset.
        batch_size: scenes of a step, over all ranks and passes.
        seed: of the order.
        steps: that are left.
        accumulate: passes of a step.
        rank: which rank this is.
        world: number of ranks.
        blocks: ``SceneDataset.blocks``; empty: every order of the scenes is equally likely.
        mix: blocks whose scenes are mixed.

    Raises:
        ValueError: no scenes, a batch that cannot be split evenly, or blocks that do not sum to the number of scenes.
    """

    def __init__(
        self,
        num_scenes: int,
        batch_size: int,
        seed: int,
        steps: range,
        accumulate: int = 1,
        rank: int = 0,
        world: int = 1,
        blocks: Sequence[int] = (),
        mix: int = 1,
    ):
        if num_scenes < 1:
            raise ValueError("the training dataset has no scenes")
        if batch_size % (world * accumulate):
            raise ValueError(
                f"batch_size {batch_size} cannot be split over {world} ranks and {accumulate} accumulation passes"
            )
        if blocks and (sum(blocks) != num_scenes or min(blocks) < 1 or mix < 1):
            raise ValueError(
                f"blocks of {sum(blocks)} scenes, the smallest of {min(blocks)}, mixed {mix} at a time, for a dataset "
                f"of {num_scenes}"
            )
        self.num_scenes, self.batch_size, self.seed = num_scenes, batch_size, seed
        self.steps, self.accumulate, self.rank, self.world = steps, accumulate, rank, world
        self.blocks, self.mix = torch.tensor(blocks, dtype=torch.int64), mix
        self._order: tuple[int, torch.Tensor] = (-1, self.blocks)
        """Of the epoch that was asked for last."""

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
        if not len(self.blocks):
            return epoch, int(_permutation(self.num_scenes, self.seed, epoch)[place])
        if self._order[0] != epoch:
            self._order = epoch, _order_in_blocks(self.blocks, self.mix, self.seed, epoch)
        return epoch, int(self._order[1][place])


@lru_cache(maxsize=2)
def _permutation(num_scenes: int, seed: int, epoch: int) -> torch.Tensor:
    return torch.randperm(num_scenes, generator=keyed.generator(seed, epoch, 0x5A3B1E))


def _order_in_blocks(blocks: torch.Tensor, mix: int, seed: int, epoch: int) -> torch.Tensor:
    """[N] scenes in the order of an epoch; 0.2 s for a million of them."""
    rank_of_block = torch.empty_like(blocks)
    rank_of_block[_permutation(len(blocks), seed, epoch)] = torch.arange(len(blocks))
    scenes = torch.randperm(int(blocks.sum()), generator=keyed.generator(seed, epoch, 0xB10C5))
    group = torch.repeat_interleave(rank_of_block // mix, blocks)
    return scenes[group[scenes].argsort(stable=True)]
