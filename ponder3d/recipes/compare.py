"""Does pre-training pay? Methods on one encoder, the same data and the same budgets, measured on scenes of their own.

The protocol, in order; every part is a job with its own directory, so an interrupted comparison goes on where it was:

1. Pre-train by each method and seed, all for the same number of steps of the same number of scenes.
2. Choose, on labelled scenes that are set aside and never trained or tested on, by the same rule for every method
   and scratch: the recipe as it is or its twin for pre-trained encoders (``RECIPE_finetune``), at some learning rates.
3. Let scratch converge, on the same scenes: the steps are doubled until that gains less than ``converged``, with the
   settings that are best for each number of steps. All starts choose again for the number that it took: what is best
   for a short training need not be so for a long one.
4. Fine-tune for as many steps from every start, for every seed, and test. Frozen features are probed beside it.

Gains are differences from scratch (of probes: from random weights), seed by seed.
"""

import contextlib
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import torch

from ponder3d.config import essence, fingerprint, to_json
from ponder3d.data.dataset import HeldOut
from ponder3d.data.few import FewScenes, scenes_of_share
from ponder3d.encoders.files import FILE_NAME, read_card
from ponder3d.engine.comparison_table import (
    FINETUNE,
    FROZEN,
    RESULTS,
    SCRATCH,
    TUNED,
    Labels,
    Row,
    distinct,
    items_of,
    numbers_of,
)
from ponder3d.engine.estimate import Estimate, estimate
from ponder3d.engine.evaluate import read_json, write_json
from ponder3d.engine.experiment import Experiment
from ponder3d.engine.jobs import Job, is_finished, run_jobs
from ponder3d.geometry import keyed
from ponder3d.recipes.compare_config import CompareConfig
from ponder3d.recipes.compare_jobs import (
    TUNINGS,
    Candidate,
    Setting,
    check_files,
    find_twin,
    learns_from_labels,
    limited,
    on_one_device,
    one_point_per_voxel,
    probe,
    scenes_set_aside,
)
from ponder3d.recipes.compare_rows import Cell, Facts, table_rows
from ponder3d.recipes.compare_workload import FINETUNING, Workload, tested_factors
from ponder3d.recipes.methods import find_method, pretraining, with_fields
from ponder3d.tasks.semseg import SemSegConfig

_ESTIMATE = "estimate.json"
_MANY_STEPS = 2000
"""Of pre-training and fine-tuning together, if scratch converges at once, from which on an estimate may take longer."""
_SECONDS, _FEW_SECONDS = 15.0, 2.0
"""For the estimate of one job, of a long comparison and of a short one."""


class Comparison:
    """The jobs of a comparison.

    Args:
        config: the choices.
        target: recipe of the segmentation, for messages and to find its twin.
        experiment: that recipe's experiment, as changed by its user.

    Raises:
        ValueError: the recipe is no segmentation, there is no such method, or a method's file holds another encoder.
    """

    def __init__(self, config: CompareConfig, target: str, experiment: Experiment):
        if not isinstance(experiment.task, SemSegConfig):
            raise ValueError(f"compare: {target} is no segmentation; encoders are compared by one")
        self.config, self.target, self.experiment = config, target, on_one_device(experiment)
        self.out = Path(config.out)
        self.ways = items_of(config.ways, "ways")
        if any(way in TUNED for way in self.ways) and FINETUNE not in self.ways:
            self.ways = [FINETUNE, *self.ways]
        named = items_of(config.methods, "methods")
        named = named if SCRATCH in named else [SCRATCH, *named]
        self.methods = {name.partition("=")[0]: find_method(name, target, experiment.data) for name in named}
        if len(self.methods) < len(named):
            raise ValueError(f"compare: methods must have names of their own: {config.methods}")
        self.recipes = {name: made for name, made in self.methods.items() if callable(made)}
        self.against = self._against()
        first = next(iter(self.recipes.values()))() if self.recipes else None
        budgets = [int(steps) for steps in numbers_of(config.pretrain_steps, "pretrain_steps")]
        self.budgets = sorted({steps or (first.steps if first else 0) for steps in budgets})
        self.batch = config.pretrain_batch or (first.batch_size if first else 0)
        num = len(experiment.data.build())
        self.withheld = scenes_set_aside(config.withheld, num)
        named_labels = [Labels.parse(text) for text in items_of(config.labels, "labels")]
        self.scenes = {one.text: scenes_of_share(one.share, num - self.withheld) for one in named_labels}
        """How many are trained on, by amount of labels."""
        self.labels = distinct(named_labels, self.scenes)
        self.twin = find_twin(target)
        self.labelled = {name for name, recipe in self.recipes.items() if learns_from_labels(recipe().task)}
        """Methods that are told classes in pre-training."""
        self.files = {name: made for name, made in self.methods.items() if isinstance(made, Path)}
        check_files(self.files.values(), experiment.task.encoder)
        self.other_data = self._other_data()
        self.failed: dict[str, str] = {}
        self.lost: dict[str, str] = {}
        """Encoder files that there should be, and why there are none."""
        self.convergence: dict[str, list[tuple[int, float]]] = {}
        """By amount of labels: steps and mIoU of scratch on the scenes set aside, in percent."""

    def _against(self) -> str:
        """The method that the others are set against; empty if there is only scratch."""
        pretrained = [name for name in self.methods if name != SCRATCH]
        if self.config.against and self.config.against not in pretrained:
            known = ", ".join(pretrained) or "none"
            raise ValueError(
                f"CompareConfig.against: {self.config.against!r} is none of the methods; these are {known}"
            )
        return self.config.against or next(iter(pretrained), "")

    def _other_data(self) -> list[str]:
        """Methods whose recipes pre-train on other data than the first one's."""
        data = {name: essence(self.pretraining(name, 1, 0).data) for name in self.recipes}
        first = next(iter(data.values()), None)
        return [name for name, one in data.items() if one != first]

    # What is run ------------------------------------------------------------------------------------------------

    def pretraining(self, method: str, steps: int, seed: int) -> Experiment:
        """A pre-training, at the budget of all."""
        made = pretraining(self.recipes[method], self.experiment, seed, steps, str(self.out / "scenes"))
        return on_one_device(replace(made, batch_size=self.batch))

    def finetuning(
        self,
        init: str,
        labels: Labels,
        seed: int,
        candidate: Candidate,
        factor: int,
        choosing: bool = False,
        way: str = FINETUNE,
    ) -> Experiment:
        """Training on the labelled scenes, for ``factor`` times the recipe's steps."""
        e = self.experiment if not candidate.twin or self.twin is None else self.twin.applied(self.experiment)
        task = e.task
        assert isinstance(task, SemSegConfig)
        own = keyed.derive(seed, 0xC0A) % 10_000
        return replace(
            e,
            task=replace(task, tuning=TUNINGS[way]),
            data=self.data(labels, seed, choosing),
            validation=HeldOut() if choosing else e.validation,
            transforms=limited(e.transforms, labels.points, own),
            validation_transforms=one_point_per_voxel(e.validation_transforms),
            optim=replace(e.optim, lr=e.optim.lr * candidate.rate),
            steps=e.steps * factor,
            seed=own,
            init=init,
            validate_every=0,
        )

    def data(self, labels: Labels, seed: int, choosing: bool = False) -> FewScenes:
        """The labelled scenes. Generated ones are the same for every seed: seeds draw their shares of them."""
        whole = with_fields(self.experiment.data, cache=str(self.out / "scenes"))
        return FewScenes(whole, labels.share, self.withheld, keyed.derive(seed, 0xFE) % 10_000, choosing=choosing)

    def _mark(self, method: str) -> str:
        """The name of a method in names of directories: that of a file says which weights it has."""
        return f"{method}-{read_card(self.files[method])['sha256'][:8]}" if method in self.files else method

    def encoder(self, method: str, steps: int, seed: int) -> str:
        """The file that a method starts from; empty for scratch."""
        made = self.methods[method]
        if made is None:
            return ""
        return str(made) if isinstance(made, Path) else str(self._pretraining_job(method, steps, seed).out / FILE_NAME)

    def _pretraining_job(self, method: str, steps: int, seed: int) -> Job:
        return self._job(f"{method}-{steps}-{seed}", "pretrain", self.pretraining(method, steps, seed))

    def _pretrainings(self) -> dict[str, list[Job]]:
        """All of them, by method."""
        runs = [(steps, seed) for steps in self.budgets for seed in range(self.config.seeds)]
        return {method: [self._pretraining_job(method, *run) for run in runs] for method in self.recipes}

    def _job(self, name: str, folder: str, experiment: Experiment) -> Job:
        """Its directory is that of the very same experiment only: nothing that is out of date is taken up again."""
        return Job(f"{folder}-{name}", self.out / folder / f"{name}-{fingerprint(experiment)}", experiment)

    # The stages -------------------------------------------------------------------------------------------------

    def run(self) -> list[Row]:
        """All stages, or what is left of them.

        Returns:
            The table. ``compare.json`` holds it with all that was chosen.
        """
        processes = self._processes()
        pretrained = [job for jobs in self._pretrainings().values() for job in jobs]
        self._run(pretrained, processes, "pre-training")
        # What has failed may have left an encoder file, of its last checkpoint.
        self.lost = {str(job.out / FILE_NAME): self.failed[job.name] for job in pretrained if job.name in self.failed}
        tuned = self._tuned()
        factors = self._converge(processes) if tuned else {}
        reached: dict[Setting, tuple[Candidate, float]] = {}
        for factor in sorted({one for most in factors.values() for one in self._tested(most)}):
            of = {text: factor for text, most in factors.items() if factor in self._tested(most)}
            reached |= self._choose(tuned, of, processes)
        chosen = {setting: one for setting, (one, _) in reached.items()}
        cells = self._cells(chosen, factors)
        figures = self._run([cell.job for cell in cells], processes, "comparison")
        rows = table_rows(cells, figures, self._facts())
        record = {
            "config": to_json(self.config),
            "target": self.target,
            "experiment": to_json(self.experiment),
            "chosen": [
                (of.way, of.method, of.labels, self.experiment.steps * of.factor, str(one))
                for of, one in chosen.items()
            ],
            "steps": {labels: self.experiment.steps * factors[labels] for labels in factors},
            "convergence": self.convergence,
            "twin": self.twin is not None,
            "withheld": self.withheld,
            "scenes": self.scenes,
            "other_data": self.other_data,
            "against": self.against,
            "rows": [asdict(row) for row in rows],
        }
        write_json(self.out / RESULTS, record)
        return rows

    def _run(self, jobs: Sequence[Job], processes: int, title: str) -> dict[str, dict[str, float]]:
        """Jobs whose start is there; the others have failed with it."""
        ready = []
        for job in jobs:
            init = job.experiment.init if job.experiment is not None else str(job.arguments[1])
            if init in self.lost:
                self.failed[job.name] = f"its pre-training failed: {self.lost[init]}"
            else:
                ready.append(job)
        return run_jobs(ready, processes, title, self.config.quiet, self.failed)

    def _tuned(self) -> list[tuple[str, str]]:
        """(way, method) of what is trained; scratch has no frozen parts."""
        return [
            (way, method)
            for way in self.ways
            for method, made in self.methods.items()
            if way == FINETUNE or (way in TUNED and made is not None)
        ]

    def _choose(
        self, tuned: Sequence[tuple[str, str]], factors: dict[str, int], processes: int, title: str = "choosing"
    ) -> dict[Setting, tuple[Candidate, float]]:
        """What is best on the scenes set aside, and the mIoU that it reaches there in percent, nan if nothing came to
        an end.

        Args:
            tuned: ways and methods to choose for.
            factors: the multiple, by the amounts of labels to choose for.
            processes: at a time.
            title: of the progress.
        """
        candidates = [
            Candidate(twin, rate)
            for twin in ((False, True) if self.twin is not None else (False,))
            for rate in numbers_of(self.config.rates, "rates")
        ]
        jobs = {
            Setting(way, method, labels.text, factors[labels.text]): {
                one: self._choosing_job(way, method, labels, one, factors[labels.text]) for one in candidates
            }
            for way, method in tuned
            for labels in self.labels
            if labels.text in factors
        }
        flat = [job for tried in jobs.values() for job in tried.values()]
        figures = self._run(flat, processes, title)
        chosen = {}
        for setting, tried in jobs.items():
            reached = {one: 100 * figures[job.name]["miou"] for one, job in tried.items() if job.name in figures}
            best = max(reached, key=reached.__getitem__) if reached else candidates[0]
            # Where none came to an end, the cells say why.
            chosen[setting] = best, reached.get(best, math.nan)
        return chosen

    def _choosing_job(self, way: str, method: str, labels: Labels, one: Candidate, factor: int) -> Job:
        e = self.finetuning(self._first_encoder(method), labels, 0, one, factor, choosing=True, way=way)
        name = f"{way}-{self._mark(method)}-{labels.text}-{one}-{e.steps}".replace(" ", "-")
        return self._job(name, "choose", e)

    def _first_encoder(self, method: str) -> str:
        """Of the longest pre-training that came to an end, of the first seed that did."""
        files = [
            self.encoder(method, steps, seed)
            for steps in reversed(self.budgets or [0])
            for seed in range(self.config.seeds)
        ]
        return next((file for file in files if file not in self.lost), files[0])

    def _converge(self, processes: int) -> dict[str, int]:
        """By how much the recipe's steps have to be multiplied for scratch to converge, by amount of labels."""
        self.convergence = {labels.text: [] for labels in self.labels}
        factors: dict[str, int] = {}
        factor = 1
        while len(factors) < len(self.labels):
            left = {labels.text: factor for labels in self.labels if labels.text not in factors}
            title = f"scratch for {self.experiment.steps * factor} steps"
            for of, (_, miou) in self._choose([(FINETUNE, SCRATCH)], left, processes, title).items():
                steps = self.convergence[of.labels]
                if math.isnan(miou):
                    factors[of.labels] = max(1, factor // 2)
                    continue
                steps.append((self.experiment.steps * factor, miou))
                gained = steps[-1][1] - steps[-2][1] if len(steps) > 1 else math.inf
                if gained < self.config.converged or 2 * factor > self.config.longest:
                    factors[of.labels] = factor
            factor *= 2
        return factors

    def left_out(self) -> list[str]:
        """Lines about amounts of labels that are the same scenes as another."""
        kept = {self.scenes[one.text]: one.text for one in self.labels if not one.points}
        compared = {one.text for one in self.labels}
        return [
            f"{text} of the scenes to train on is {self.scenes[text]}, the same as {kept[self.scenes[text]]}: left out"
            for text in items_of(self.config.labels, "labels")
            if text not in compared
        ]

    def _tested(self, most: int) -> list[int]:
        """Multiples of the recipe's steps that cells have where scratch converges at ``most``."""
        return tested_factors(most, self.config.doublings)

    def _facts(self) -> Facts:
        return Facts(
            ways=self.ways,
            labels=[labels.text for labels in self.labels],
            methods=list(self.methods),
            scenes=self.scenes,
            batch=self.experiment.batch_size,
            pretrain_batch=self.batch,
            labelled=self.labelled,
            files=self.files,
            against=self.against,
            failed=self.failed,
        )

    def _cells(self, chosen: dict[Setting, Candidate], factors: dict[str, int]) -> list[Cell]:
        """All cells, in the order of methods and budgets; a row's follow each other by seed."""
        cells = []
        for method, made in self.methods.items():
            for budget in self.budgets if callable(made) else [0]:
                for labels in self.labels:
                    for seed in range(self.config.seeds):
                        init = self.encoder(method, budget, seed)
                        before = self._pretraining_job(method, budget, seed).out if callable(made) else None
                        name = f"{self._mark(method)}-{budget}-{labels.text}-{seed}"
                        for way in self.ways:
                            if Setting(way, method, labels.text, 1) in chosen:
                                for factor in self._tested(factors[labels.text]):
                                    one = chosen[Setting(way, method, labels.text, factor)]
                                    e = self.finetuning(init, labels, seed, one, factor, way=way)
                                    job = self._job(f"{name}-x{factor}", way, e)
                                    cells.append(Cell(job, way, method, labels.text, budget, e.steps, seed, before))
                            elif way in FROZEN:
                                plain = self.finetuning("", labels, seed, Candidate(False, 1.0), 1)
                                key = f"{fingerprint(plain)}-{self._mark(method)}-{init}"
                                job = Job(f"{way}-{name}", self.out / way / name, None, probe, (plain, init, way), key)
                                cells.append(Cell(job, way, method, labels.text, budget, 0, seed, before))
        return cells

    # What it takes ----------------------------------------------------------------------------------------------

    def workload(self) -> Workload:
        """How much there is to do: of pre-trainings, what is left; of the others all, which depend on choices."""
        tuned = self._tuned()
        starts = [len(self.budgets) if callable(self.methods[method]) else 1 for _, method in tuned]
        every = sum(len(self.budgets) if callable(made) else 1 for made in self.methods.values())
        cells = len(self.labels) * self.config.seeds
        settings = len(numbers_of(self.config.rates, "rates")) * (2 if self.twin is not None else 1)
        return Workload(
            pretrainings=self._left(),
            choosing=len(self.labels) * settings * len(tuned),
            doubling=len(self.labels) * settings if tuned else 0,
            tested=cells * sum(starts),
            probes=cells * every * sum(way in FROZEN for way in self.ways),
            steps=self.experiment.steps,
            longest=self.config.longest,
            doublings=self.config.doublings,
        )

    def _left(self) -> dict[str, list[int]]:
        """Steps of the pre-trainings that are left to do, by method; methods that are done with are not there."""
        left = {
            method: [job.experiment.steps for job in jobs if job.experiment is not None and not is_finished(job)]
            for method, jobs in self._pretrainings().items()
        }
        return {method: steps for method, steps in left.items() if steps}

    def estimates(self, seconds: float) -> list[tuple[str, Estimate]]:
        """What one of the pre-trainings of each method takes, and one fine-tuning of the recipe's steps, each with the
        threads that a job has."""
        threads = torch.get_num_threads()
        torch.set_num_threads(max(1, threads // self.config.processes))
        try:
            return self._estimates(seconds)
        finally:
            torch.set_num_threads(threads)

    def _estimates(self, seconds: float) -> list[tuple[str, Estimate]]:
        jobs = {method: self.pretraining(method, self.budgets[-1], 0) for method in self._left()}
        # Also where nothing is fine-tuned: a probe, without gradients, takes less memory than this as a rule.
        plain = Candidate(False, 1.0)
        jobs[FINETUNING] = self.finetuning("", self.labels[-1], 0, plain, 1, choosing=True)
        known = []
        for name, experiment in jobs.items():
            with contextlib.suppress(ValueError):  # its row will say why
                known.append((name, estimate(experiment, seconds)))
        return known

    def _processes(self) -> int:
        """As many as the memory allows, by what was estimated before."""
        most = max(self._estimated().values(), default=0)
        return max(1, min(self.config.processes, int(self.config.memory * 2**30 // most) if most else 10**6))

    def _estimated(self) -> dict[str, int]:
        """Bytes that jobs take, as far as it has been estimated for this comparison."""
        kept = read_json(self.out / _ESTIMATE) or {}
        return kept["memory"] if kept.get("key") == self._key() else {}

    def _key(self) -> str:
        return f"{fingerprint(self.config)}-{fingerprint(self.experiment)}"

    def keep_estimates(self, known: Sequence[tuple[str, Estimate]]) -> list[str]:
        """Note what a job takes, for the number of processes; returns lines to be read before all starts."""
        memory = {name: one.memory_bytes for name, one in known}
        self.out.mkdir(parents=True, exist_ok=True)  # where nothing has been generated, it is the first file
        write_json(self.out / _ESTIMATE, {"key": self._key(), "memory": memory})
        return self.workload().lines(known, self._processes(), self.config.memory)


def run_compare(config: CompareConfig, target: str, experiment: Experiment, tell: Callable[[str], None]) -> list[Row]:
    """Run a comparison, or what is left of it.

    Args:
        config: the choices.
        target: name of the recipe.
        experiment: its experiment.
        tell: gets what is left out and what it takes, line by line, before anything starts.

    Raises:
        ValueError: the recipe is no segmentation, there is no such method, or nothing came to an end.
    """
    comparison = Comparison(config, target, experiment)
    for line in comparison.left_out():
        tell(line)
    work = comparison.workload()
    if not comparison._estimated():
        long = work.all_steps(work.factors[0]) >= _MANY_STEPS
        for line in comparison.keep_estimates(comparison.estimates(_SECONDS if long else _FEW_SECONDS)):
            tell(line)
    rows = comparison.run()
    if not any(row.seeds for row in rows):
        why = next((row.failed for row in rows if row.failed), "no cell")
        raise ValueError(f"compare: nothing came to an end: {why}")
    return rows
