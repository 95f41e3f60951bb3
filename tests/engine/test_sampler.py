"""Which scenes make up which step."""

import time
from collections import Counter
from dataclasses import replace

import pytest
import tiny_runs

from ponder3d.engine.sampler import StepSampler


def draws(num_scenes: int, batch_size: int, steps: range, seed: int = 0, **split: int) -> list[list[tuple[int, int]]]:
    return list(StepSampler(num_scenes, batch_size, seed, steps, **split))


def test_a_batch_is_a_function_of_the_seed_and_the_step():
    assert draws(5, 2, range(20)) == draws(5, 2, range(20))
    assert draws(5, 2, range(20)) != draws(5, 2, range(20), seed=1)
    assert [draws(5, 2, range(k, k + 1))[0] for k in (13, 4, 7)] == [draws(5, 2, range(20))[k] for k in (13, 4, 7)]


def test_starting_at_a_step_gives_the_rest_of_the_run():
    whole = draws(5, 2, range(20))
    for start in range(21):
        assert draws(5, 2, range(start, 20)) == whole[start:]


@pytest.mark.parametrize("batch_size", [1, 2, 3, 5, 7])
def test_every_scene_is_drawn_once_an_epoch(batch_size):
    flat = [draw for batch in draws(5, batch_size, range(35)) for draw in batch]
    assert len(flat) == 35 * batch_size
    # 35 steps are a whole number of epochs of 5 scenes for any batch size.
    assert Counter(flat) == {(epoch, index): 1 for epoch in range(7 * batch_size) for index in range(5)}
    assert [epoch for epoch, _ in flat] == sorted(epoch for epoch, _ in flat)


def test_epochs_differ_in_their_order():
    flat = [draw for batch in draws(10, 10, range(6)) for draw in batch]
    orders = {tuple(index for epoch, index in flat if epoch == number) for number in range(6)}
    assert len(orders) == 6


def test_fewer_scenes_than_the_batch_size_are_drawn_several_times():
    batches = draws(3, 8, range(3))
    assert all(len(batch) == 8 for batch in batches)
    # 24 draws are 8 epochs: the first batch holds epochs 0 and 1, and two scenes of epoch 2.
    assert Counter(epoch for epoch, _ in batches[0]) == {0: 3, 1: 3, 2: 2}
    assert Counter(draw for batch in batches for draw in batch) == {(e, i): 1 for e in range(8) for i in range(3)}


@pytest.mark.parametrize(("world", "accumulate"), [(1, 2), (2, 1), (2, 2), (4, 1), (1, 4)])
def test_ranks_and_passes_share_out_the_batch_of_one_rank(world, accumulate):
    whole = draws(5, 4, range(10))
    ranks = [draws(5, 4, range(10), accumulate=accumulate, rank=rank, world=world) for rank in range(world)]
    assert all(len(rank) == 10 * accumulate for rank in ranks)
    for step in range(10):
        parts = [rank[step * accumulate + number] for number in range(accumulate) for rank in ranks]
        assert all(len(part) == 4 // world // accumulate for part in parts)
        assert [draw for part in parts for draw in part] == whole[step]


def test_its_length_is_the_number_of_passes():
    assert len(StepSampler(5, 4, 0, range(3, 10), accumulate=2)) == 14


@pytest.mark.parametrize(("world", "accumulate"), [(3, 1), (1, 3), (2, 4), (8, 1)])
def test_a_batch_that_cannot_be_split_is_refused(world, accumulate):
    with pytest.raises(ValueError, match=f"batch_size 4 cannot be split over {world} ranks and {accumulate}"):
        StepSampler(5, 4, 0, range(1), accumulate, 0, world)


def test_no_scenes_are_refused():
    with pytest.raises(ValueError, match="no scenes"):
        StepSampler(0, 4, 0, range(1))


def test_loader_processes_do_not_change_a_bit_of_the_batches(launch, tmp_path):
    # In children: this process has threads, which forking does not mix with.
    experiment = tiny_runs.ponder_run(steps=7)
    for workers in (0, 1, 2):
        launch(replace(experiment, workers=workers), tmp_path / str(workers), record_batches=True).wait()
    recorded = [tiny_runs.recorded_batches(tmp_path / str(workers)) for workers in (0, 1, 2)]
    assert len(recorded[0]) == 7
    assert not tiny_runs.differences(recorded[0], recorded[1])
    assert not tiny_runs.differences(recorded[0], recorded[2])
    assert tiny_runs.differences(recorded[0][0], recorded[0][1])  # the comparison can fail


def blocked(blocks: tuple[int, ...], mix: int, batch_size: int, steps: range, seed: int = 0, **split: int):
    sampler = StepSampler(sum(blocks), batch_size, seed, steps, blocks=blocks, mix=mix, **split)
    return [draw for batch in sampler for draw in batch]


def test_scenes_that_are_stored_together_are_drawn_together():
    blocks, mix = (3, 1, 4, 2, 5), 2
    block_of = [number for number, size in enumerate(blocks) for _ in range(size)]
    groups = set()
    for epoch in range(20):
        flat = blocked(blocks, mix, 15, range(epoch, epoch + 1))
        order = [index for _, index in flat]
        assert sorted(order) == list(range(15)) and {e for e, _ in flat} == {epoch}
        seen = [frozenset(block_of[i] for i in part) for part in cut(order, block_of, blocks, mix)]
        assert [len(group) for group in seen] == [2, 2, 1]
        groups.add(seen[0])
    assert len(groups) >= 6  # of ten pairs
    order = [index for _, index in blocked(blocks, 5, 15, range(20))]
    firsts = [tuple(order[15 * epoch : 15 * epoch + 3]) for epoch in range(20)]
    assert len(set(firsts)) > 15  # scenes of a group are shuffled too


def cut(order: list[int], block_of: list[int], blocks: tuple[int, ...], mix: int) -> list[list[int]]:
    """An epoch in parts, each of all scenes of some blocks; fails where the blocks of a part are not all there."""
    parts: list[list[int]] = []
    left = list(order)
    while left:
        part: list[int] = []
        while left and (len(met := {block_of[i] for i in part}) < mix or sum(blocks[b] for b in met) > len(part)):
            part.append(left.pop(0))
        assert sum(blocks[b] for b in {block_of[i] for i in part}) == len(part)
        parts.append(part)
    return parts


def test_one_group_of_all_blocks_mixes_everything():
    seen = Counter(index for _, index in blocked((2, 2), 9, 4, range(100))[::4])
    assert len(seen) == 4 and all(10 < number < 45 for number in seen.values())


def test_blocks_change_nothing_else():
    blocks = (3, 1, 4, 2, 5)
    whole = blocked(blocks, 2, 4, range(20))
    assert whole == blocked(blocks, 2, 4, range(20)) != blocked(blocks, 2, 4, range(20), seed=1)
    for start in (3, 4, 11):
        assert blocked(blocks, 2, 4, range(start, 20)) == whole[4 * start :]
    for world, accumulate in ((2, 1), (1, 2), (2, 2), (4, 1)):
        ranks = [list(StepSampler(15, 4, 0, range(20), accumulate, rank, world, blocks, 2)) for rank in range(world)]
        parts = [rank[passed] for passed in range(20 * accumulate) for rank in ranks]
        assert [draw for part in parts for draw in part] == whole
    assert draws(15, 4, range(20)) == [list(batch) for batch in StepSampler(15, 4, 0, range(20), blocks=())]


@pytest.mark.parametrize(("blocks", "mix"), [((3, 3), 1), ((5, 0), 1), ((5,), 0)])
def test_blocks_that_do_not_fit_are_refused(blocks, mix):
    with pytest.raises(ValueError, match=f"mixed {mix} at a time, for a dataset of 5"):
        StepSampler(5, 5, 0, range(1), blocks=blocks, mix=mix)


def test_a_million_scenes():
    sampler = StepSampler(1_000_000, 8, 0, range(3), blocks=(1000,) * 1000, mix=16)
    start = time.monotonic()
    flat = [index for batch in sampler for _, index in batch]
    assert time.monotonic() - start < 5  # 0.3 s on an idle core
    assert len({index // 1000 for index in flat}) <= 16 and len(set(flat)) == 24
