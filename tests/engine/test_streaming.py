"""Training on scenes that a bad server brings is training on those scenes: the same batches, the same weights."""

import sys
from pathlib import Path

import pytest
from tiny_runs import TinyRooms, differences, final_state, ponder_run, recorded_batches

from ponder3d.data.prepared.dataset import PreparedConfig
from ponder3d.engine.experiment import Experiment


@pytest.fixture
def helpers():
    """The module that tests of ``data`` use."""
    sys.path.insert(0, str(Path(__file__).parents[1] / "data"))
    import prepared_scenes  # noqa: PLC0415

    return prepared_scenes


@pytest.fixture
def shards(tmp_path, helpers) -> Path:
    """Six training scenes in three shards."""
    helpers.write_prepared(tmp_path / "prepared", ("train",) * 6, num_frames=4, size=(8, 8), spacing=0.4)
    helpers.pack_small(tmp_path / "prepared", tmp_path / "shards", 85_000)
    return tmp_path / "shards"


def experiment(root: Path | str, steps: int = 6, **changes) -> Experiment:
    """Two views of four, images of 8 x 8; two epochs."""
    data = PreparedConfig(root=str(root), views=2, mix_shards=1, timeout=0.3)
    return ponder_run(data=data, validation=TinyRooms().held_out(), steps=steps, **changes)


def sources(batches) -> list[list[str]]:
    return [[source.rpartition(":")[2] for source in one["sources"]] for step in batches for one in step]


def without_sources(batches):
    return [[{k: v for k, v in one.items() if k != "sources"} for one in step] for step in batches]


@pytest.mark.parametrize("world", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_streamed_training_is_training_from_disk(launch, tmp_path, shards, helpers, world):
    assert PreparedConfig(root=str(shards), mix_shards=1).build().blocks == (2, 2, 2)
    local = launch(experiment(shards), tmp_path / "disk", world=world, record_batches=True).wait()
    assert [end["end"] for end in local] == ["done"] * world, local
    with helpers.BadServer(shards, helpers.BadServer.FAULTS, share=0.4, most=2, stall=0.6) as server:
        far = launch(experiment(server.url), tmp_path / "far", world=world, record_batches=True).wait(120)
        assert [end["end"] for end in far] == ["done"] * world, far
        assert len(server.committed) >= 3
    seen = []
    for rank in range(world):
        one, two = (recorded_batches(tmp_path / name, rank) for name in ("disk", "far"))
        assert sources(one) == sources(two)
        assert not differences(without_sources(one), without_sources(two))
        seen.append(sources(one))
    assert not differences(final_state(tmp_path / "disk"), final_state(tmp_path / "far"))
    assert local[0]["figures"] == far[0]["figures"]
    # Steps of two scenes, shards of two: each step has those of one shard.
    steps = [sorted(sum(parts, [])) for parts in zip(*seen, strict=True)]
    assert sorted(map(tuple, steps[:3])) == [("room_0", "room_1"), ("room_2", "room_3"), ("room_4", "room_5")]


def test_a_server_that_refuses_ends_the_run_with_one_clear_error(launch, tmp_path, shards, helpers):
    with helpers.BadServer(shards, ["403"], ranges_only=True) as server:
        (end,) = launch(experiment(server.url, workers=1), tmp_path / "out").wait()
    assert end["end"] == "StorageError", end
    assert "train-00000" in end["message"] and "status 403" in end["message"] and "Traceback" not in end["message"]
