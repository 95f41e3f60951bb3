"""Probes while a run goes on: what they measure, and that the run does not notice them."""

from dataclasses import dataclass, replace

import pytest
import torch
from segmenting import Boards, BoardsConfig
from tiny_runs import TinyRooms, differences, final_state, plain_run, ponder_run

from ponder3d.config import essence, fingerprint, from_json, to_json
from ponder3d.data.dataset import DataError
from ponder3d.data.transforms import Centre, Flip, SetCondition, apply
from ponder3d.encoders.norms import PromptNormConfig
from ponder3d.encoders.sparse_unet import SparseUNetConfig
from ponder3d.engine.estimate import estimate
from ponder3d.engine.experiment import Experiment, first_difference
from ponder3d.engine.log import read_table
from ponder3d.engine.loop import train
from ponder3d.engine.probe import Off, OnlineProbes
from ponder3d.recipes import pretrain_indoor, semseg
from ponder3d.tasks.knn_probe import KNNProbeConfig, knn_probe
from ponder3d.tasks.linear_probe import LinearProbeConfig, linear_probe
from ponder3d.types import Scene

FAST = OnlineProbes(
    BoardsConfig(),
    transforms=(Centre(),),
    linear=LinearProbeConfig(points_per_scene=60, steps=20, batch_size=64),
    knn=KNNProbeConfig(k=5, points_per_scene=40),
)
ENCODER = SparseUNetConfig(grid_size=0.25, stem_channels=4, stem_kernel=3, channels=(4, 4), blocks=(1, 1))
NAMES = [f"{probe}/{figure}" for probe in ("probe", "knn") for figure in ("miou", "macc", "allacc")]


def test_a_run_is_the_same_with_and_without(tmp_path):
    base = ponder_run(steps=4, validate_every=2, workers=0)
    figures = {}
    for name, probe in (("with", FAST), ("without", Off())):
        figures[name] = train(replace(base, probe=probe), tmp_path / name, quiet=True).figures
    assert not differences(final_state(tmp_path / "with"), final_state(tmp_path / "without"))
    rows, plain = (read_table(tmp_path / name / "validation.csv") for name in ("with", "without"))
    assert [row["step"] for row in rows] == [row["step"] for row in plain] == ["0", "2", "4"]
    assert [{n: v for n, v in row.items() if n not in NAMES} for row in rows] == plain
    assert all(0 <= float(row[name]) <= 1 for row in rows for name in NAMES)
    assert len({tuple(row[name] for name in NAMES) for row in rows}) == 3, "the encoder of each step"
    assert list(figures["with"]) == [*figures["without"], *NAMES]
    assert [f"{figures['with'][name]:.6g}" for name in NAMES] == [rows[-1][name] for name in NAMES]


def test_figures_are_those_of_the_probes(tmp_path):
    torch.manual_seed(0)
    encoder, data = ENCODER.build(), BoardsConfig()
    probe = replace(FAST, train_scenes=2, test_scenes=1, seed=3, transforms=(Centre(), Flip()))
    found = probe.build(encoder).measure(encoder, torch.device("cpu"))
    sets = (data.build(), 2), (data.held_out().build(), 1)
    seen = [[apply(probe.transforms, scenes[i], 3, 0, i) for i in range(num)] for scenes, num in sets]
    labels = data.build().labels
    expected = {
        "probe": linear_probe(encoder, *seen, labels, probe.linear, 3),
        "knn": knn_probe(encoder, *seen, labels, probe.knn, 3),
    }
    for name in NAMES:
        kind, figure = name.split("/")
        assert found[name] == pytest.approx(expected[kind][figure], abs=1e-9), name


def test_random_numbers_and_modes_are_put_back():
    encoder = ENCODER.build().train()
    encoder.dec.eval()
    before = [module.training for module in encoder.modules()]
    weights = {name: value.clone() for name, value in encoder.state_dict().items()}
    torch.manual_seed(7)
    probe, device = FAST.build(encoder), torch.device("cpu")
    first = probe.measure(encoder, device)
    drawn = torch.rand(3)
    torch.manual_seed(7)
    assert torch.equal(torch.rand(3), drawn)
    assert [module.training for module in encoder.modules()] == before and len(set(before)) == 2
    assert all(torch.equal(value, weights[name]) for name, value in encoder.state_dict().items())
    torch.manual_seed(8)
    assert probe.measure(encoder, device) == first, "a function of the weights"


def test_runs_and_files_from_before_there_were_probes():
    """Nor tunings: their fingerprints, and how they go on, are as they were."""
    plain = semseg.rooms()
    data = to_json(plain)
    del data["probe"], data["task"]["tuning"]
    assert from_json(Experiment, data) == plain
    assert "probe" not in essence(plain) and "tuning" not in essence(plain)["task"]
    probed = replace(plain, probe=FAST)
    assert fingerprint(probed) == fingerprint(plain) and first_difference(probed, plain) is None
    assert from_json(Experiment, to_json(probed)) == probed
    assert first_difference(semseg.rooms_head(), semseg.rooms_finetune()) is not None


def test_scenes_that_do_not_fit():
    encoder, prompted = ENCODER.build(), replace(ENCODER, norm=PromptNormConfig(("a", "b"), prompt_channels=4)).build()
    one, other = SetCondition("a"), SetCondition("c")
    for probe, of, message in (
        (replace(FAST, train=TinyRooms()), encoder, "probe.train: no labels"),
        (replace(FAST, test=TinyRooms()), encoder, "probe.test: no labels"),
        (replace(FAST, test=BoardsConfig(names=())), encoder, "probe.test: no scenes"),
        (replace(FAST, test=BoardsConfig(classes=("a", "b", "c"))), encoder, "train and test have other classes"),
        (FAST, prompted, "probe.train: the encoder tells a, b apart"),
        (replace(FAST, transforms=(other,)), prompted, "probe.train: scenes have the condition 'c'"),
    ):
        with pytest.raises(ValueError, match=message):
            probe.build(of)
    found = replace(FAST, transforms=(one,)).build(prompted).measure(prompted, torch.device("cpu"))
    assert set(found) == set(NAMES)
    with pytest.raises(ValueError, match="must not be negative"):
        replace(FAST, test_scenes=-1)


def test_a_run_is_refused_before_it_begins(tmp_path):
    with pytest.raises(ValueError, match="probe.train: no labels"):
        train(plain_run(probe=replace(FAST, train=TinyRooms())), tmp_path / "run", quiet=True)
    assert not (tmp_path / "run").exists()


def test_it_is_part_of_the_estimate():
    base = plain_run(probe=FAST, validate_every=1, steps=100)
    assert estimate(base).evaluation_seconds > estimate(replace(base, probe=Off())).evaluation_seconds


def test_two_ranks_have_the_same_figures(launch, tmp_path):
    one, two = launch(plain_run(probe=FAST, steps=2), tmp_path, world=2).wait()
    assert one["figures"] == two["figures"] and set(NAMES) < set(one["figures"])


@dataclass(frozen=True)
class BrokenConfig(BoardsConfig):
    """Its scenes cannot be read."""

    def build(self):
        return Broken(self)


class Broken(Boards):
    def __getitem__(self, index: int) -> Scene:
        raise DataError("a board is broken")


def test_the_other_rank_stops_where_the_first_cannot_measure(launch, tmp_path):
    one, two = launch(plain_run(probe=replace(FAST, train=BrokenConfig()), steps=2), tmp_path, world=2).wait()
    assert (one["end"], one["message"]) == ("DataError", "a board is broken")
    assert two["end"] == "ValueError" and "rank 0 could not probe" in two["message"]


def test_the_recipe_measures_on_rooms_of_its_own():
    """Not on those that semseg.rooms is tested on, nor trained on, nor on those of the pre-training."""
    experiment = pretrain_indoor.rooms_probed()
    assert replace(experiment, probe=Off()) == pretrain_indoor.rooms()
    probe = experiment.probe
    assert isinstance(probe, OnlineProbes)

    def numbers(data) -> set[int]:
        return set(range(data.first, data.first + data.num_rooms))

    sets = [numbers(d) for d in (probe.train, probe.train.held_out())]
    for other in (pretrain_indoor.rooms().data, pretrain_indoor.rooms_paper().data, semseg.rooms_full().data):
        sets += [numbers(other) - set().union(*sets[2:]), numbers(other.held_out()) - set().union(*sets[2:])]
    assert sum(map(len, sets)) == len(set().union(*sets))
