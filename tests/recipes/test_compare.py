"""The comparison: what is run, at which budgets, what becomes of failures, and the page and table about it."""

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from ponder3d.cli import compare as compare_command
from ponder3d.cli import main
from ponder3d.config import fingerprint
from ponder3d.data.dataset import scene_name
from ponder3d.data.few import FewScenes
from ponder3d.data.limited import AnnotatedPoints
from ponder3d.data.synthetic.rooms import RoomsConfig
from ponder3d.data.transforms import GridSample, LimitLabels
from ponder3d.encoders.files import EncoderFileError, read_card, save_encoder
from ponder3d.encoders.sparse_unet import SparseUNetConfig
from ponder3d.engine import comparison_table as table
from ponder3d.engine.comparison_table import Labels, Row
from ponder3d.engine.estimate import Estimate
from ponder3d.engine.evaluate import read_json, write_json
from ponder3d.engine.jobs import Job
from ponder3d.engine.loop import train
from ponder3d.recipes import compare as recipe
from ponder3d.recipes import compare_jobs as jobs
from ponder3d.recipes import semseg, smoke
from ponder3d.recipes.compare import Comparison, run_compare
from ponder3d.recipes.compare_config import CompareConfig
from ponder3d.recipes.compare_jobs import find_twin, probe
from ponder3d.recipes.compare_rows import Cell, table_rows
from ponder3d.recipes.compare_workload import FINETUNING
from ponder3d.render.opacity import UniSurf
from ponder3d.report.compare_page import write_compare_page
from ponder3d.tasks.ponder import PonderConfig
from ponder3d.tasks.self_distil import SelfDistilConfig
from ponder3d.tasks.semseg import SemSegConfig
from ponder3d.tasks.tuning import Full, Lora

TARGET = "smoke.semseg"
CHOICES = CompareConfig(
    labels="50%,20", seeds=2, withheld=1, rates="1", longest=2, pretrain_steps="2", quiet=True, processes=1
)


def comparison(folder: Path, **changes: object) -> Comparison:
    return Comparison(replace(CHOICES, out=str(folder), **changes), TARGET, smoke.semseg())  # type: ignore[arg-type]


def one(twin: bool = False, rate: float = 1.0) -> jobs.Candidate:
    return jobs.Candidate(twin, rate)


class Inline:
    """Stands for ``run_jobs``: notes which jobs there are, and makes figures up in the place of training.

    A fine-tuning gives 10 percent of mIoU, 5 more if it is pre-trained, 1 more for every step and for seed 1.
    """

    def __init__(self) -> None:
        self.ran: list[str] = []
        self.breaks: dict[str, str] = {}
        """Why pre-trainings fail, by the beginning of their name."""

    def __call__(
        self, jobs: Sequence[Job], processes: int, title: str, quiet: bool, failed: dict[str, str]
    ) -> dict[str, dict[str, float]]:
        done = {}
        for job in jobs:
            record = read_json(job.out / "result.json")
            if record is None or record["key"] != job.key():
                reason = next((why for start, why in self.breaks.items() if job.name.startswith(start)), None)
                if reason is not None:
                    failed[job.name] = reason
                    job.out.mkdir(parents=True)
                    (job.out / "encoder.safetensors").touch()  # of its first checkpoint
                    continue
                self.ran.append(job.name)
                record = {"key": job.key(), "figures": self.figures(job)}
                write_json(job.out / "result.json", record)
            done[job.name] = record["figures"]
        return done

    def figures(self, job: Job) -> dict[str, float]:
        job.out.mkdir(parents=True, exist_ok=True)
        if job.name.startswith("pretrain"):
            (job.out / "encoder.safetensors").touch()
            return {"psnr": 10.0}
        steps, init = (job.experiment.steps, job.experiment.init) if job.experiment else (0, job.arguments[1])
        return {"miou": 0.1 + 0.05 * bool(init) + 0.01 * steps + 0.01 * (job.name.split("-x")[0][-1] == "1")}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory):
    folder = tmp_path_factory.mktemp("comparison")
    inline = Inline()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(recipe, "run_jobs", inline)
        config = replace(CHOICES, out=str(folder))
        rows = run_compare(config, TARGET, smoke.semseg(), print)
        first = list(inline.ran)
        again = run_compare(config, TARGET, smoke.semseg(), print)
        assert inline.ran == first, "what is finished is not run again"
        assert again == rows
    return folder, first, rows


@pytest.mark.slow
def test_a_comparison_at_a_size_of_seconds(tmp_path) -> None:
    """The command that shows it, in processes of their own."""
    arguments = f"compare {TARGET} --methods scratch,ponder --labels 10% --seeds 2 --quiet".split()
    assert main([*arguments, "--out", str(tmp_path)]) == 0
    rows = [Row(**row) for row in table.read_results(tmp_path)["rows"]]
    assert all(row.seeds == 2 and row.mean is not None and 0 < row.mean < 100 for row in rows)
    assert (tmp_path / "report" / "index.html").is_file()


def test_one_run_of_each_kind_with_nothing_made_up(tmp_path, monkeypatch, shared_cache) -> None:
    (tmp_path / "scenes").symlink_to(shared_cache)

    done: dict[str, dict[str, float]] = {}

    def run(jobs: Sequence[Job], *_: object) -> dict[str, dict[str, float]]:
        for job in jobs:
            job.out.mkdir(parents=True, exist_ok=True)
            if job.name in done:  # what was chosen is where scratch begins to converge
                continue
            if job.experiment is not None:
                done[job.name] = train(job.experiment, job.out, quiet=True).figures
            else:
                assert job.function is not None
                done[job.name] = job.function(*job.arguments)
        return done

    monkeypatch.setattr(recipe, "run_jobs", run)
    monkeypatch.setattr(recipe, "find_twin", lambda target: None)
    config = replace(CHOICES, out=str(tmp_path), methods="ponder", labels="20", seeds=1, longest=1, pretrain_steps="1")
    rows = run_compare(config, TARGET, replace(smoke.semseg(), steps=1), print)
    assert [(row.way, row.method, row.steps, row.samples) for row in rows] == [
        ("finetune", "scratch", 1, 2),
        ("finetune", "ponder", 1, 2 + 2),
        ("probe", "scratch", 0, 0),
        ("probe", "ponder", 0, 2),
    ]
    assert all(row.mean is not None and 0 <= row.mean < 100 for row in rows)
    assert [row.seconds > 0 for row in rows] == [True, True, False, True]


def test_every_cell_is_run_at_equal_budgets(finished) -> None:
    folder, ran, rows = finished
    assert [name for name in ran if name.startswith("pretrain")] == ["pretrain-ponder-2-0", "pretrain-ponder-2-1"]
    # Two methods, two amounts of labels, the recipe and its twin; once for 4 steps and once for 8, at which scratch of
    # its own settings has been run by then, to see whether it converges.
    assert len([name for name in ran if name.startswith("choose")]) == 16 and len(set(ran)) == len(ran)
    of_finetuning = [row for row in rows if row.way == "finetune"]
    for labels in ("50%", "20"):
        steps = {
            method: sorted(row.steps for row in of_finetuning if (row.method, row.labels) == (method, labels))
            for method in ("scratch", "ponder")
        }
        assert steps["scratch"] == steps["ponder"] and steps["scratch"][0] == 4
    assert {row.samples for row in of_finetuning if row.method == "ponder" and row.steps == 4} == {2 * 2 + 4 * 2}
    assert all(row.seeds == 2 and not row.failed and row.mean is not None for row in rows)
    assert {(row.way, row.method) for row in rows} == {
        (way, method) for way in ("finetune", "probe") for method in ("scratch", "ponder")
    }


def test_gains_are_taken_seed_by_seed(finished) -> None:
    _, _, rows = finished
    row = next(r for r in rows if (r.way, r.method, r.labels, r.steps) == ("finetune", "ponder", "20", 4))
    assert (row.mean, row.gain) == pytest.approx((19.5, 5.0))  # 10 + 5 + 4, and 1 more for one of two seeds
    assert row.spread == pytest.approx(0.5**0.5)
    assert row.gain_spread == pytest.approx(0.0, abs=1e-9)
    assert all(r.gain is None for r in rows if r.method == "scratch")


def test_the_record_and_the_page_say_what_was_done(finished) -> None:
    folder, _, rows = finished
    record = table.read_results(folder)
    assert [Row(**row) for row in record["rows"]] == rows
    assert {tuple(cell[:4]) for cell in record["chosen"]} == {
        ("finetune", m, labels, steps) for m in ("scratch", "ponder") for labels in ("50%", "20") for steps in (4, 8)
    }
    assert record["steps"]["50%"] in (4, 8)
    text = write_compare_page(folder).read_text()
    assert "20, 4 steps" in text and "20, 8 steps" in text, "what was chosen for each"
    assert "2 seeds" in text and "chosen by one rule" in text and "When scratch has converged" in text
    assert "scenes seen" in text and "random" in text
    for steps in record["convergence"].values():
        assert table.convergence_told([miou for _, miou in steps], record["config"]["converged"]) in text
    assert f"20 labelled: after {record['steps']['20']} steps" in text, "the methods side by side"


def test_the_command_prints_the_table_and_whether_scratch_has_converged(finished, monkeypatch, capsys) -> None:
    folder, _, rows = finished
    monkeypatch.setattr(compare_command, "run_compare", lambda *_: rows)
    assert main(["compare", TARGET, "--out", str(folder)]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[: len(rows) + 1] == table.table_text(rows).splitlines()
    told = [line for line in printed if line.startswith("scratch with ")]
    assert told == [
        f"scratch with {labels} labelled: {table.convergence_told([miou for _, miou in steps], 0.5)}"
        for labels, steps in table.read_results(folder)["convergence"].items()
    ]
    assert len(told) == 2 and printed[-1] == f"report: {folder / 'report' / 'index.html'}"


def test_a_failed_cell_is_a_row_that_says_why_and_the_others_go_on(tmp_path, monkeypatch) -> None:
    inline = Inline()
    inline.breaks = {"pretrain-ponder": "it is broken"}
    monkeypatch.setattr(recipe, "run_jobs", inline)
    rows = run_compare(replace(CHOICES, out=str(tmp_path), ways="probe", labels="50%"), TARGET, smoke.semseg(), print)
    scratch, ponder = rows
    assert scratch.mean is not None and scratch.seeds == 2
    assert ponder.mean is None and ponder.seeds == 0
    assert ponder.failed == "its pre-training failed: it is broken"
    assert "failed" in table.table_text(rows).splitlines()[2]
    assert "failed: probe of ponder, 50%: its pre-training failed: it is broken" in table.table_text(rows)
    assert "it is broken" in write_compare_page(tmp_path).read_text()


def test_a_row_tells_every_reason_of_its_seeds_once(tmp_path, monkeypatch) -> None:
    inline = Inline()
    inline.breaks = {"pretrain-ponder-2-1": "its loss is not finite", "pretrain-ponder": "no memory"}
    monkeypatch.setattr(recipe, "run_jobs", inline)
    config = replace(CHOICES, out=str(tmp_path), ways="probe", labels="50%", seeds=3)
    row = run_compare(config, TARGET, smoke.semseg(), print)[1]
    assert row.failed == "its pre-training failed: no memory; its pre-training failed: its loss is not finite"


def test_a_fifth_is_set_aside_unless_somebody_says_how_much(tmp_path) -> None:
    assert comparison(tmp_path, withheld=0).withheld == 1  # of 4 rooms
    assert comparison(tmp_path, withheld=2).withheld == 2
    full = Comparison(replace(CHOICES, out=str(tmp_path), withheld=0), "semseg.rooms_full", semseg.rooms_full())
    assert full.withheld == 4  # of 64


def test_labels_are_scenes_or_points(tmp_path) -> None:
    made = comparison(tmp_path)
    share = made.finetuning("", Labels.parse("50%"), 1, one(), 2)
    assert isinstance(share.data, FewScenes) and (share.data.share, share.data.withheld) == (0.5, 1)
    assert share.steps == 8 and not any(isinstance(step, LimitLabels) for step in share.transforms)
    assert isinstance(share.validation_transforms[-1], GridSample)
    points = made.finetuning("", Labels.parse("20"), 1, one(rate=2.0), 1)
    assert isinstance(points.transforms[0], LimitLabels) and points.transforms[0].points == 20
    assert isinstance(points.data, FewScenes) and points.data.share == 1.0
    assert points.optim.lr == 2 * smoke.semseg().optim.lr


def test_shares_that_are_the_same_scenes_are_compared_once(tmp_path) -> None:
    """Four rooms, of which one is set aside: up to a third is one scene, up to two thirds two."""
    made = comparison(tmp_path, labels="1%,5%,20,10%,50%,60%,100%")
    assert [labels.text for labels in made.labels] == ["20", "10%", "60%", "100%"]
    assert made.scenes == {"1%": 1, "5%": 1, "10%": 1, "50%": 2, "60%": 2, "100%": 3, "20": 3}
    assert made.left_out() == [
        "1% of the scenes to train on is 1, the same as 10%: left out",
        "5% of the scenes to train on is 1, the same as 10%: left out",
        "50% of the scenes to train on is 2, the same as 60%: left out",
    ]
    for one in made.labels:
        assert len(made.data(one, 0).build()) == made.scenes[one.text]


def test_one_seed_has_no_spread() -> None:
    assert table.mean_and_spread([]) == (None, None) and table.mean_and_spread([3.0]) == (3.0, None)
    row = Row("probe", "ponder", "10%", 2, 0, 12.5, None, 2.0, None, 1.0, 4, 1, scenes=1)
    text = table.table_text([row])
    assert "12.5    +2.0  1 s" in text and "+-" not in text and "10% (1 scene)" in text


def test_methods_are_set_against_one_seed_by_seed(tmp_path) -> None:
    methods = "scratch,ponder,self_distil,small=indoor-small"
    config = replace(CHOICES, out=str(tmp_path), methods=methods, labels="20", ways="probe")
    made = Comparison(config, "semseg.rooms", semseg.rooms())
    assert made.against == "ponder"
    reached = {
        ("scratch", 0): (10.0, 11.0, 12.0),
        ("ponder", 2): (14.0, 15.0, 17.0),
        ("ponder", 4): (20.0, 22.0, 24.0),
        ("self_distil", 2): (13.0, 16.0, 15.0),
        ("self_distil", 4): (21.0, 22.0),
        ("small", 0): (19.0, 20.0, 21.0),
    }
    cells, figures = [], {}
    for (method, budget), values in reached.items():
        for seed, value in enumerate(values):
            job = Job(f"{method}-{budget}-{seed}", tmp_path, None)
            cells.append(Cell(job, "probe", method, "20", budget, 0, seed, None))
            figures[job.name] = {"miou": value / 100}
    rows = {(row.method, row.pretrain_steps): row for row in table_rows(cells, figures, made._facts())}
    assert all(rows[own].difference is None for own in (("scratch", 0), ("ponder", 2), ("ponder", 4)))
    assert rows["self_distil", 2].difference == pytest.approx((-1 + 1 - 2) / 3)
    assert rows["self_distil", 2].difference_spread == pytest.approx(math.sqrt(7 / 3))
    assert rows["self_distil", 4].difference == pytest.approx(0.5), "of the seeds that both have"
    assert rows["small", 0].difference == pytest.approx(-2.0), "a file is set against the longest"
    assert rows["small", 0].by_seed == pytest.approx({"0": 19.0, "1": 20.0, "2": 21.0})
    assert "against ponder" in table.table_text(list(rows.values()), "ponder")
    # With no other method there is nothing to tell.
    assert "against" not in table.table_text([rows["scratch", 0], rows["ponder", 4]], "ponder")


def test_which_method_the_others_are_set_against_can_be_said(tmp_path) -> None:
    methods = "scratch,ponder,self_distil"
    assert comparison(tmp_path, methods=methods, against="self_distil").against == "self_distil"
    assert comparison(tmp_path, methods="scratch").against == ""
    for wrong in ("scratch", "also"):
        with pytest.raises(ValueError, match=f"against: '{wrong}' is none of the methods; these are ponder, self_dist"):
            comparison(tmp_path, methods=methods, against=wrong)


def test_every_doubling_is_tested_where_a_curve_is_wanted(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(recipe, "run_jobs", Inline())
    made = comparison(tmp_path, ways="finetune", labels="20", longest=4, doublings=True)
    rows = made.run()
    # More steps gain more, to the end.
    assert [(row.method, row.steps) for row in rows] == [
        (method, steps) for steps in (4, 8, 16) for method in ("scratch", "ponder")
    ]
    assert made.workload().finetunings == 3 * (2 * 2 + 2 * 2)
    assert made.workload().finetuning_steps(4) == 4 * (1 + 2 + 4) * (2 * 2 + 2 * 2)
    chosen = {tuple(cell[1:4]) for cell in table.read_results(tmp_path)["chosen"]}
    assert chosen == {(method, "20", steps) for method in ("scratch", "ponder") for steps in (4, 8, 16)}
    page = write_compare_page(tmp_path).read_text()
    assert "20 labelled: against fine-tuning" in page


def test_quality_is_drawn_against_steps_and_time_of_pretraining(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(recipe, "run_jobs", Inline())
    made = comparison(tmp_path, ways="probe", labels="20", pretrain_steps="2,4,8")
    rows = made.run()
    assert all(row.pretrain_seconds == row.seconds for row in rows), "probes train nothing"
    page = write_compare_page(tmp_path).read_text()
    assert "20 labelled: against pre-training<" in page
    assert "against the time of pre-training" not in page, "no steps were logged"
    record = table.read_results(tmp_path)
    for row in record["rows"]:
        row["pretrain_seconds"] = 0.5 * row["pretrain_steps"]
    write_json(tmp_path / table.RESULTS, record)
    assert "20 labelled: against the time of pre-training<" in write_compare_page(tmp_path).read_text()


def test_of_points_that_a_benchmark_lists_some_are_taken(tmp_path) -> None:
    """Probes read the very points that fine-tuning does."""
    listed = AnnotatedPoints(str(tmp_path / "points.json"))
    target = smoke.semseg()
    target = replace(target, transforms=(listed, LimitLabels(7), *target.transforms))
    made = Comparison(replace(CHOICES, out=str(tmp_path)), TARGET, target)
    steps = made.finetuning("", Labels.parse("20"), 0, one(), 1).transforms
    assert steps[0] == listed and isinstance(steps[1], LimitLabels) and steps[1].points == 20
    assert not any(isinstance(step, (AnnotatedPoints, LimitLabels)) for step in steps[2:])
    assert made.finetuning("", Labels.parse("50%"), 0, one(), 1).transforms == (listed, *smoke.semseg().transforms)


@pytest.mark.parametrize(("labels", "most"), [("100%", 15), ("5", 5)])
def test_probes_read_the_labels_of_fine_tuning(labels: str, most: int, tmp_path, monkeypatch, shared_cache) -> None:
    target = smoke.semseg()
    target = replace(target, data=replace(target.data, cache=shared_cache))
    data = target.data.build()
    known = [torch.nonzero(data[i].labels >= 0).flatten()[:15].tolist() for i in range(len(data))]
    names = {scene_name(data[i].source): points for i, points in enumerate(known)}
    (tmp_path / "points.json").write_text(json.dumps(names))
    target = replace(target, transforms=(AnnotatedPoints(str(tmp_path / "points.json")), *target.transforms))
    made = Comparison(replace(CHOICES, out=str(tmp_path)), TARGET, target)
    told = []

    def note(encoder, train, test, *rest):
        told.extend(int((scene.labels >= 0).sum()) for scene in train)
        return {"miou": 0.0}

    monkeypatch.setattr(jobs, "linear_probe", note)
    probe(made.finetuning("", Labels.parse(labels), 0, one(), 1), "")
    # Every point was listed in its own voxel or shares one with others, of which GridSample takes a single one.
    assert told and all(0 < count <= most for count in told)


def test_starts_of_a_seed_share_all_but_the_encoder(tmp_path) -> None:
    made = comparison(tmp_path)
    a, b = (made.finetuning(init, Labels.parse("20"), 1, one(), 1) for init in ("", "x.safetensors"))
    assert replace(b, init="") == a
    other = made.finetuning("", Labels.parse("20"), 2, one(), 1)
    assert other.seed != a.seed and other.transforms[0] != a.transforms[0]


def test_settings_are_chosen_on_scenes_that_nobody_trains_or_tests_on(tmp_path, shared_cache) -> None:
    (tmp_path / "scenes").symlink_to(shared_cache)
    made = comparison(tmp_path)
    labels = Labels.parse("100%")
    aside = made.finetuning("", labels, 0, one(), 1, choosing=True).validation_data().build()
    test = made.finetuning("", labels, 0, one(), 1).validation_data().build()
    trained = made.finetuning("", labels, 0, one(), 1).data.build()
    sources = [{data[i].source for i in range(len(data))} for data in (aside, test, trained)]
    assert [len(each) for each in sources] == [1, 2, 3]
    assert not sources[0] & sources[1] and not sources[0] & sources[2] and not sources[1] & sources[2]


def test_the_twin_brings_its_schedule_and_not_its_data(tmp_path) -> None:
    made = comparison(tmp_path)
    tuned = made.finetuning("", Labels.parse("100%"), 0, one(twin=True), 1)
    assert tuned.optim == smoke.semseg_finetune().optim
    assert tuned.task == smoke.semseg_finetune().task
    assert tuned.data == made.finetuning("", Labels.parse("100%"), 0, one(), 1).data


def test_pretraining_has_the_targets_encoder_and_one_budget(tmp_path) -> None:
    made = comparison(tmp_path, pretrain_steps="3,6", pretrain_batch=1, methods="scratch,ponder,point_contrast")
    assert made.budgets == [3, 6]
    for method in ("ponder", "point_contrast"):
        experiment = made.pretraining(method, 6, 1)
        assert experiment.task.encoder == smoke.semseg().task.encoder
        assert (experiment.steps, experiment.batch_size, experiment.seed) == (6, 1, 1)
    assert fingerprint(made.pretraining("ponder", 6, 1)) != fingerprint(made.pretraining("ponder", 6, 2))


def test_processes_follow_the_memory(tmp_path) -> None:
    made = comparison(tmp_path, processes=4, memory=2.0)
    assert made._processes() == 4  # nothing is known yet
    memory = {"fine-tuning": 2**29, "pre-training": 9 * 2**26}
    write_json(tmp_path / "estimate.json", {"key": made._key(), "memory": memory})
    assert made._processes() == 3
    write_json(tmp_path / "estimate.json", {"key": "of another comparison", "memory": memory})
    assert made._processes() == 4


def test_how_much_there_is_to_do(tmp_path) -> None:
    # Two amounts of labels, two methods: to choose, the recipe and its twin; to be tested, two seeds; 4 and 8 steps.
    work = comparison(tmp_path).workload()
    assert (work.pretrainings, work.finetunings, work.probes) == ({"ponder": [2, 2]}, 2 * (2 * 2 * 2 + 2 * 2 * 2), 8)
    # In between, scratch alone: 8 and 16 steps of 32. Two budgets make two starts of a method.
    work = comparison(tmp_path, longest=9, pretrain_steps="2,4").workload()
    assert work.pretrainings == {"ponder": [2, 2, 4, 4]}
    assert (work.finetunings, work.probes) == (2 * (8 + 12) + 2 * 2 * 2, 12)
    assert work.factors == (2, 8) and work.all_steps(8) == 2 * 6 + 4 * ((8 + 12) * (1 + 8) + 2 * 2 * (2 + 4))
    assert work.all_steps(2) == 2 * 6 + 4 * (8 + 12) * 3
    work = comparison(tmp_path, longest=1).workload()
    assert work.factors == (1, 1) and work.all_steps(1) == 2 * 2 + 4 * work.finetunings
    frozen = comparison(tmp_path, ways="probe", methods="scratch,ponder", pretrain_steps="2,500").workload()
    assert frozen.finetunings == 0 and frozen.all_steps(1) == frozen.all_steps(8) == 2 * 502
    one = Estimate(10, 0.5, 0.0, 0.0, 3.0, 0.0, 0.0, 1, 1, 1, "cpu", 1)
    known = [("ponder", one), (FINETUNING, replace(one, step_seconds=2.0))]
    assert work.seconds(known, 1) == 2 * (2 * 0.5 + 3.0) + work.finetuning_steps(1) * 2.0 + 3.0
    counts, time = work.lines(known, processes=2, memory=8.0)
    assert counts.startswith("2 pre-trainings to do, at most 16 fine-tunings and 8 probes")
    assert "about 1 min if scratch converges at once, 1 if it takes 1 times the steps" in time and "2 at a time" in time


def test_what_is_done_is_nothing_to_do(tmp_path, monkeypatch) -> None:
    made = comparison(tmp_path, methods="ponder,self_distil", pretrain_steps="2,4")
    for method, done in (("ponder", 4), ("self_distil", 1)):
        for job in made._pretrainings()[method][:done]:
            job.out.mkdir(parents=True)
            write_json(job.out / "result.json", {"key": job.key(), "figures": {}})
    tried = []

    def note(experiment, seconds):
        tried.append(type(experiment.task))
        raise ValueError("it has no time")

    monkeypatch.setattr(recipe, "estimate", note)
    assert made.workload().pretrainings == {"self_distil": [2, 4, 4]}
    assert made.estimates(1.0) == [] and tried == [SelfDistilConfig, SemSegConfig]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"methods": "scratch,magic"}, "no method 'magic' for data of rooms; known are scratch, ponder"),
        ({"methods": "ponder,ponder"}, "names one twice"),
        ({"methods": "ponder,ponder=mine.recipe"}, "no recipe 'mine.recipe'"),
        ({"labels": "0%"}, "'0%' is neither a share"),
        ({"labels": "120%"}, "'120%' is neither a share"),
        ({"labels": "1.5"}, "'1.5' is neither a share"),
        ({"labels": ""}, "labels is empty"),
        ({"rates": "1,fast"}, "'fast' is no number"),
        ({"rates": "0"}, "rates must be positive"),
        ({"ways": "dance"}, "no way 'dance'; known are finetune, decoder, head, lora, probe, levels, knn"),
        ({"seeds": 0}, "seeds must be at least 1"),
        ({"pretrain_steps": "10,-5"}, "pretrain_steps must be whole numbers of steps, one is -5"),
        ({"pretrain_steps": "1.5"}, "pretrain_steps must be whole numbers of steps, one is 1.5"),
        ({"pretrain_steps": "nan"}, "pretrain_steps must be whole numbers of steps, one is nan"),
        ({"pretrain_steps": "inf"}, "pretrain_steps must be whole numbers of steps, one is inf"),
    ],
)
def test_what_cannot_be_compared_is_refused(tmp_path, changes: dict[str, object], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        comparison(tmp_path, **changes)


def test_a_pretext_task_is_no_target(tmp_path) -> None:
    with pytest.raises(ValueError, match="is no segmentation"):
        Comparison(replace(CHOICES, out=str(tmp_path)), "smoke.pretrain_indoor_rooms", smoke.pretrain_indoor_rooms())


def test_a_file_is_a_method_of_its_own_and_known_by_its_weights(tmp_path) -> None:
    with pytest.raises(ValueError, match=r"old=old.safetensors: there is no file old.safetensors"):
        comparison(tmp_path, methods="scratch,old=old.safetensors")
    file = tmp_path / "encoder.safetensors"
    names = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        save_encoder(smoke.semseg().task.encoder.build(), file)
        made = comparison(tmp_path, methods=f"old={file}", labels="20")
        names.append({str(cell.job.out) for cell in made._cells({}, {"20": 1}) if cell.method == "old"})
    assert made.encoder("old", 0, 1) == str(file)
    assert not made.workload().pretrainings
    assert names[0] and not names[0] & names[1]


def test_an_encoder_that_comes_with_the_package_is_a_method(tmp_path) -> None:
    config = replace(CHOICES, out=str(tmp_path), methods="scratch,small=indoor-small", labels="20")
    made = Comparison(config, "semseg.rooms", semseg.rooms())
    assert read_card(made.encoder("small", 0, 1))["card"]["name"] == "indoor-small" and not made.workload().pretrainings
    cells = [cell for cell in made._cells({}, {"20": 1}) if cell.method == "small"]
    rows = table_rows(cells, {cell.job.name: {"miou": 0.5} for cell in cells}, made._facts())
    assert "small (file)" in table.table_text(rows), "its time and scenes of pre-training are not known"


def test_a_file_that_cannot_be_started_from_is_told_before_anything_is_trained(tmp_path) -> None:
    with pytest.raises(EncoderFileError, match=r"trained with grid_size 0\.08, this encoder has 0\.16"):
        comparison(tmp_path, methods="scratch,small=indoor-small")
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(b"nothing")
    with pytest.raises(EncoderFileError, match=r"broken\.safetensors"):
        comparison(tmp_path, methods=f"scratch,broken={broken}")


@pytest.mark.parametrize(
    ("withheld", "rooms", "said"),
    [(4, 4, "4 of 4 labelled scenes .* or withhold fewer"), (0, 1, "1 of 1 labelled scenes .* give more scenes$")],
)
def test_scenes_are_left_to_train_on(withheld: int, rooms: int, said: str, tmp_path) -> None:
    target = replace(smoke.semseg(), data=replace(smoke.semseg().data, num_rooms=rooms))
    with pytest.raises(ValueError, match=rf"CompareConfig.withheld: {said}"):
        Comparison(replace(CHOICES, out=str(tmp_path), withheld=withheld), TARGET, target)


def test_an_encoder_of_another_kind_is_refused_by_probes_too(tmp_path) -> None:
    file = tmp_path / "encoder.safetensors"
    encoder = smoke.semseg().task.encoder
    assert isinstance(encoder, SparseUNetConfig)
    save_encoder(replace(encoder, grid_size=0.32).build(), file)
    with pytest.raises(EncoderFileError, match=r"trained with grid_size 0\.32"):
        probe(comparison(tmp_path).finetuning("", Labels.parse("20"), 0, one(), 1), str(file))


@pytest.mark.parametrize(("way", "width"), [("probe", 8), ("levels", 32)])
def test_what_a_probe_reads(way, width, tmp_path, monkeypatch) -> None:
    """One level of the decoder, which has 8 channels at a smoke size, or all four."""
    read = []

    def note(encoder, *rest):
        read.append((encoder.config, encoder.out_channels))
        return {"miou": 0.0}

    monkeypatch.setattr(jobs, "linear_probe", note)
    experiment = comparison(tmp_path).finetuning("", Labels.parse("20"), 0, one(), 1)
    probe(experiment, "", way)
    assert read == [(experiment.task.encoder, width)]


def test_a_probe_holds_one_scene_at_a_time(tmp_path, monkeypatch) -> None:
    made = []

    def note(encoder, train, test, *rest):
        assert not made, "none beforehand"
        for scenes in (train, test):
            for number, _ in enumerate(scenes):
                made.append(number)
                assert len(made) == applied.count(True)
        return {"miou": 0.0}

    applied: list[bool] = []
    monkeypatch.setattr(jobs, "apply", lambda *arguments: applied.append(True))
    monkeypatch.setattr(jobs, "linear_probe", note)
    probe(comparison(tmp_path).finetuning("", Labels.parse("20"), 0, one(), 1), "")
    assert len(made) > 2


def test_a_long_comparison_is_estimated_first_whatever_is_long_in_it(tmp_path, monkeypatch) -> None:
    """Pre-trainings count too, and a comparison of probes alone tries a fine-tuning for the memory of a probe."""
    frozen = comparison(tmp_path, ways="probe", methods="scratch,ponder", pretrain_steps="2,500")
    tried = []

    def refuse(experiment, seconds):
        tried.append(type(experiment.task))
        raise ValueError("it has no time")

    monkeypatch.setattr(recipe, "estimate", refuse)
    assert frozen.estimates(1.0) == [] and tried == [PonderConfig, SemSegConfig]


def test_short_comparisons_heed_the_memory_too(tmp_path, monkeypatch) -> None:
    """It is measured before anything is run, and told where one job alone takes more."""
    inline = Inline()
    seen: list[tuple[int, int]] = []

    def run(jobs: Sequence[Job], processes: int, *rest: Any) -> dict[str, dict[str, float]]:
        seen.append((processes, len(inline.ran)))
        return inline(jobs, processes, *rest)

    measured = Estimate(10, 0.5, 0.0, 0.0, 3.0, 0.0, 0.0, 2**30, 1, 1, "cpu", 1)
    monkeypatch.setattr(recipe, "run_jobs", run)
    monkeypatch.setattr(recipe, "estimate", lambda experiment, seconds: measured)
    told: list[str] = []
    config = replace(CHOICES, out=str(tmp_path), processes=8, memory=2.5, labels="20", ways="probe")
    run_compare(config, TARGET, smoke.semseg(), told.append)
    assert {processes for processes, _ in seen} == {2} and "2 at a time" in told[1]
    told.clear()
    run_compare(config, TARGET, smoke.semseg(), told.append)
    assert not told, "measured once"
    run_compare(replace(config, out=str(tmp_path / "b"), memory=0.5), TARGET, smoke.semseg(), told.append)
    assert seen[-1][0] == 1 and "takes more memory" in told[-1]


def test_an_estimate_makes_the_directory_that_it_is_kept_in(tmp_path) -> None:
    """Recordings generate nothing: there is no directory before the first job."""
    made = comparison(tmp_path / "a" / "new")
    assert made.keep_estimates([]) and not made._estimated()
    assert (tmp_path / "a" / "new" / "estimate.json").is_file()


def test_a_share_of_scenes_has_all_labels_of_them(tmp_path) -> None:
    few = Comparison(replace(CHOICES, out=str(tmp_path)), "smoke.semseg_rooms", smoke.semseg_rooms())
    assert any(isinstance(step, LimitLabels) for step in smoke.semseg_rooms().transforms)
    shared = few.finetuning("", Labels.parse("100%"), 0, one(), 1)
    assert not any(isinstance(step, LimitLabels) for step in shared.transforms)


def test_finetuning_trains_all_weights_whatever_the_recipe_does(tmp_path) -> None:
    lora = Comparison(replace(CHOICES, out=str(tmp_path)), "smoke.semseg_rooms_lora", smoke.semseg_rooms_lora())
    task = lora.finetuning("", Labels.parse("20"), 0, one(), 1).task
    assert isinstance(task, SemSegConfig) and isinstance(task.tuning, Full)


def test_the_twin_leaves_what_its_user_wants(tmp_path) -> None:
    plain = smoke.semseg()
    assert isinstance(plain.task, SemSegConfig)
    own = replace(plain, task=replace(plain.task, lovasz=0.25), optim=replace(plain.optim, weight_decay=0.125))
    made = Comparison(replace(CHOICES, out=str(tmp_path)), TARGET, own)
    tuned = made.finetuning("", Labels.parse("20"), 0, one(twin=True), 1)
    assert isinstance(tuned.task, SemSegConfig)
    assert (tuned.task.lovasz, tuned.task.head_passes, tuned.optim.weight_decay) == (0.25, 4, 0.125)
    assert tuned.optim.lr == smoke.semseg_finetune().optim.lr != plain.optim.lr


def test_scenes_to_test_on_choose_nothing(tmp_path) -> None:
    own = replace(smoke.semseg(), validation=RoomsConfig(first=800_000, num_rooms=1))
    made = Comparison(replace(CHOICES, out=str(tmp_path)), TARGET, own)
    choosing = made.finetuning("", Labels.parse("20"), 0, one(), 1, choosing=True)
    assert isinstance(choosing.validation_data(), FewScenes)
    assert made.finetuning("", Labels.parse("20"), 0, one(), 1).validation_data() == own.validation


def test_settings_are_chosen_with_the_first_pretraining_that_is_there(tmp_path) -> None:
    made = comparison(tmp_path, pretrain_steps="2,4")
    made.lost = {made.encoder("ponder", 4, seed): "broken" for seed in (0, 1)}
    assert made._first_encoder("ponder") == made.encoder("ponder", 2, 0)
    assert made._first_encoder("scratch") == ""


def test_methods_that_are_told_classes_are_marked(tmp_path) -> None:
    made = comparison(tmp_path, methods="ponder,semantic,ponder_distil,supervised=smoke.semseg")
    assert made.labelled == {"semantic", "supervised"}
    row = Row("probe", "semantic", "20", 2, 0, 1.0, 0.0, 1.0, 0.0, 1.0, 4, 2, labelled=True)
    assert "semantic (classes)" in table.table_text([row])


def test_other_data_are_told(tmp_path) -> None:
    assert comparison(tmp_path, methods="ponder,self_distil").other_data == []
    made = comparison(tmp_path, methods="ponder,mine=pretrain_indoor.rooms_paper")
    assert made.other_data == ["mine"]


def test_jobs_have_one_device_each_and_the_same_steps(tmp_path) -> None:
    target = replace(smoke.semseg(), batch_size=8, devices=2, accumulate=2)
    made = Comparison(replace(CHOICES, out=str(tmp_path), pretrain_batch=8), TARGET, target)
    tuned = made.finetuning("", Labels.parse("20"), 0, one(), 1)
    assert (tuned.devices, tuned.accumulate, tuned.batch_size) == (1, 4, 8)
    assert made.pretraining("ponder", 2, 0).devices == 1


def test_the_readmes_target_has_a_twin() -> None:
    assert find_twin("semseg.rooms_full") is not None and find_twin("semseg.rooms_paper") is None


def test_unisurf_shrinks_over_the_run_that_it_gets(tmp_path) -> None:
    task = comparison(tmp_path, methods="unisurf").pretraining("unisurf", 6, 0).task
    assert isinstance(task, PonderConfig) and isinstance(task.render.opacity, UniSurf)
    assert task.render.opacity.shrinking == 6


def test_an_unfinished_comparison_has_no_page(tmp_path) -> None:
    with pytest.raises(ValueError, match="no finished comparison"):
        write_compare_page(tmp_path)


def test_a_comparison_of_an_earlier_version_is_told(tmp_path) -> None:
    write_json(tmp_path / table.RESULTS, {"rows": [], "chosen": {"finetune, scratch, 20": "own x1"}})
    with pytest.raises(ValueError, match=r"compare.json is of an earlier version; run the same"):
        write_compare_page(tmp_path)


def test_it_is_told_whether_scratch_has_converged() -> None:
    """Where the doubling ended because no more was allowed, it has not."""
    assert table.convergence_told([39.4], 0.5) == table.convergence_told([], 0.5) == "convergence not tested"
    assert table.convergence_told([39.4, 39.8], 0.5) == "converged"
    assert table.convergence_told([39.4, 40.3, 41.2], 0.5) == "NOT converged: +0.9 in the last doubling"


def test_convergence_stops_when_doubling_gains_too_little(tmp_path, monkeypatch) -> None:
    """Of the best settings for each number of steps: those of the first gain nothing from 4 steps to 8."""
    own, twin = {4: 0.15, 8: 0.15, 16: 0.1, 32: 0.9}, {4: 0.10, 8: 0.20, 16: 0.203, 32: 0.9}

    def run(jobs: Sequence[Job], *_: object) -> dict[str, dict[str, float]]:
        experiments = {job.name: job.experiment for job in jobs if job.experiment is not None}
        return {
            name: {"miou": (twin if e.task.head_passes else own)[e.steps]}  # type: ignore[union-attr]
            for name, e in experiments.items()
        }

    monkeypatch.setattr(recipe, "run_jobs", run)
    made = comparison(tmp_path, labels="50%", longest=8)
    assert made._converge(1) == {"50%": 4}
    assert made.convergence["50%"] == [(4, 15.0), (8, 20.0), (16, pytest.approx(20.3))]
    made = comparison(tmp_path, labels="50%", longest=2)
    assert made._converge(1) == {"50%": 2}


def test_settings_are_chosen_for_every_number_of_steps(tmp_path, monkeypatch) -> None:
    """The twin is best for a short training, the recipe as it is for a long one; each is tested with its own."""
    twin_of = {}

    def run(jobs: Sequence[Job], *_: object) -> dict[str, dict[str, float]]:
        figures = {}
        for job in jobs:
            assert job.experiment is not None
            task = job.experiment.task
            if not isinstance(task, SemSegConfig):
                figures[job.name] = {"psnr": 10.0}
                continue
            twin, steps = task.head_passes > 0, job.experiment.steps
            figures[job.name] = {"miou": 0.1 + 0.02 * steps + (0.1 if twin == (steps == 4) else 0.0)}
            if job.name.startswith("finetune"):
                twin_of[steps] = twin_of.get(steps, set()) | {twin}
        return figures

    monkeypatch.setattr(recipe, "run_jobs", run)
    made = Comparison(
        replace(CHOICES, out=str(tmp_path), ways="finetune", methods="scratch,ponder", labels="20"),
        "smoke.semseg_rooms",
        smoke.semseg_rooms(),
    )
    rows = made.run()
    assert twin_of == {4: {True}, 8: {False}}
    chosen = {(method, steps): text for _, method, _, steps, text in table.read_results(tmp_path)["chosen"]}
    assert chosen == {(m, s): f"{'finetune' if s == 4 else 'own'} x1" for m in ("scratch", "ponder") for s in (4, 8)}
    assert {row.steps for row in rows} == {4, 8}


def test_ways_that_freeze_are_measured_against_scratch_trained_in_full(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(recipe, "run_jobs", Inline())
    made = comparison(tmp_path, ways="finetune,decoder,lora,knn", labels="20", longest=1)
    tuned = made.finetuning("x", Labels.parse("20"), 0, one(), 1, way="lora")
    assert isinstance(tuned.task, SemSegConfig) and isinstance(tuned.task.tuning, Lora)
    rows = {(row.way, row.method): row for row in made.run()}
    assert set(rows) == {
        ("finetune", "scratch"), ("finetune", "ponder"), ("decoder", "ponder"), ("lora", "ponder"),
        ("knn", "scratch"), ("knn", "ponder"),
    }  # fmt: skip
    assert rows["decoder", "ponder"].gain == pytest.approx(5.0)
    assert rows["knn", "ponder"].gain == pytest.approx(5.0)
    work = made.workload()
    assert (work.pretrainings, work.finetunings, work.probes) == ({}, 2 * 4 + 4 * 2, 4)  # those are done
