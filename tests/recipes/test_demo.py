"""The demo at a size of seconds, from the rooms to the page."""

import json
import re
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from ponder3d.config import fingerprint
from ponder3d.data.synthetic.rooms import FIRST_TEST_ROOM, RoomsConfig, room_path
from ponder3d.data.transforms import Centre, GridSample, LimitLabels
from ponder3d.recipes import demo
from ponder3d.recipes.demo import (
    PRETRAININGS,
    DemoConfig,
    finetune_experiment,
    pretrain_experiments,
    run_demo,
    summarise,
    table_text,
)
from ponder3d.report.demo_page import write_demo_page
from ponder3d.tasks.semseg import SemSegConfig


def test_rooms_of_training_transfer_and_test_are_disjoint():
    config = DemoConfig()
    pretrained = pretrain_experiments(config)["label-free"].data
    transfer = finetune_experiment(config, "", 0).data
    rendered, tests = pretrained.held_out(), transfer.held_out()
    ranges = [range(d.first, d.first + d.num_rooms) for d in (pretrained, transfer, rendered, tests)]
    assert all(a.stop <= b.start for a, b in pairwise(ranges))
    assert ranges[2].start >= FIRST_TEST_ROOM


def test_every_room_is_made_before_the_first_run(monkeypatch):
    """Runs side by side would each make the rooms that are missing."""
    made = set()
    monkeypatch.setattr(demo, "generate", lambda data, *args: made.update(files(data)))

    def look(jobs, *args):
        parts = [part for job in jobs for part in (job.experiment.data, job.experiment.data.held_out())]
        assert len(parts) == 4 and all(files(part) <= made for part in parts)
        raise InterruptedError

    monkeypatch.setattr(demo, "run_jobs", look)
    with pytest.raises(InterruptedError):
        run_demo(DemoConfig(quiet=True))


def files(data: RoomsConfig) -> set[Path]:
    return {room_path(data, number) for number in range(data.num_rooms)}


def test_budgets_are_equal_whatever_the_start():
    config = DemoConfig()
    scratch, pretrained = (finetune_experiment(config, init, 1) for init in ("", "encoder.safetensors"))
    assert isinstance(pretrained.task, SemSegConfig) and pretrained.task.head_passes
    # Same steps, scenes, labels and losses; the learning rate and the start of the head are each start's own.
    own = {"init": "", "optim": scratch.optim, "task": replace(pretrained.task, head_passes=0)}
    assert replace(pretrained, **own) == scratch
    assert pretrained.optim.lr <= scratch.optim.lr and pretrained.init == "encoder.safetensors"


def test_a_demo_is_the_same_wherever_it_lies_and_however_it_is_run():
    here, there = DemoConfig(), DemoConfig(out="elsewhere", processes=7, quiet=True)
    assert fingerprint(here) == fingerprint(there) != fingerprint(DemoConfig(seed=1))
    one, other = (pretrain_experiments(config)["label-free"] for config in (here, there))
    assert one.data != other.data and fingerprint(one) == fingerprint(other)


def test_fine_tuning_is_scored_on_one_point_per_voxel():
    """Every point, which ``semseg.rooms`` scores, would be most of the demo's time."""
    assert finetune_experiment(DemoConfig(), "", 0).validation_transforms == (Centre(), GridSample())


def test_trials_differ_in_the_labelled_points():
    picks = [t for trial in (0, 1) for t in finetune_experiment(DemoConfig(), "", trial).transforms]
    seeds = {t.seed for t in picks if isinstance(t, LimitLabels)}
    assert len(seeds) == 2


def test_means_and_spreads():
    figures = {f"{way}-{start}-{t}": {"miou": 0.1} for way in ("probe", "finetune") for start in ("x",) for t in (0, 1)}
    for way, starts in (("probe", ("random", *PRETRAININGS)), ("finetune", ("scratch", *PRETRAININGS))):
        for start in starts:
            figures |= {f"{way}-{start}-0": {"miou": 0.10}, f"{way}-{start}-1": {"miou": 0.14}}
    figures["probe-semantic-1"] = {"miou": 0.30}
    rows = summarise(figures, 2)
    assert [(row.way, row.start) for row in rows][:3] == [
        ("probe", "random"),
        ("probe", "label-free"),
        ("probe", "semantic"),
    ]
    assert rows[0].mean == pytest.approx(12) and rows[0].spread == pytest.approx(2 * 2**0.5)
    assert rows[2].mean == pytest.approx(20)
    assert re.search(r"semantic +20\.0 \+- 14\.1 +\+8\.0 \+- 11\.3", table_text(rows))


def test_the_whole_demo(tmp_path):
    config = DemoConfig(out=str(tmp_path / "demo"), smoke=True, quiet=True)
    table = run_demo(config)
    assert "label-free" in table and "semantic" in table and "nan" not in table
    page = write_demo_page(config.out)
    text = page.read_text()
    assert page == tmp_path / "demo" / "report" / "index.html"
    # Self-contained: nothing is fetched from anywhere.
    assert not re.findall(r"(?:src|href)\s*=\s*['\"](?!data:|#)", text)
    assert "http://" not in text.replace("http://www.w3.org/2000/svg", "") and "https://" not in text
    for part in ("What goes in", "mIoU", "PSNR", "fingerprint"):
        assert part.lower() in text.lower(), part
    results = json.loads((tmp_path / "demo" / "results.json").read_text())
    assert len(results["rows"]) == 6 and len(results["figures"]) == 12
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "demo").rglob("*.safetensors")}
    assert run_demo(config) == table  # finished: nothing is run again
    assert {path: path.stat().st_mtime_ns for path in before} == before
