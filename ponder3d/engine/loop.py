"""The loop: the specification of training.

Batch k is a pure function of (seed, k) and the step's randomness one of (seed, step, rank), so the position of a run is
one integer. All ranks take every decision together, at a step boundary, from one reduction. A step without a finite
loss and gradient is skipped and its scenes are named. SIGTERM and Ctrl-C set a flag; the loop saves and leaves.
"""

import collections
import contextlib
import functools
import itertools
import math
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader

from ponder3d.config import fingerprint, from_json, to_json
from ponder3d.data.loader import Batches, Collate, KeyedScenes, as_it_is
from ponder3d.encoders.files import FILE_NAME, save_encoder, start_from
from ponder3d.engine.checkpoint import CheckpointError, CheckpointStore, Loaded
from ponder3d.engine.evaluate import evaluate_scenes, write_confusion
from ponder3d.engine.experiment import Experiment, first_difference
from ponder3d.engine.log import SKIPPED_FRAMES, Progress, Report, SkippedFrames, TableLog, TensorBoard
from ponder3d.engine.optim import gradient_norm, step_unless
from ponder3d.engine.probe import Off
from ponder3d.engine.runner import Runner
from ponder3d.engine.sampler import StepSampler
from ponder3d.geometry import keyed
from ponder3d.processes import signals_set_flag
from ponder3d.types import Batch
from ponder3d.types.scene import to_device

_TRAIN_LOG, _VALIDATION_LOG = "train.csv", "validation.csv"


class NonFiniteError(ValueError):
    """Too many steps had no finite loss and gradient, in a row or in all; the checkpoints are finite and are kept."""


class LoaderError(RuntimeError):
    """A loader process died (killed, out of memory). The run can be resumed."""


class PreemptedError(Exception):
    """The run was asked to stop, and has saved. It can be resumed."""


@dataclass(frozen=True)
class TrainResult:
    """What a run left behind."""

    out: Path
    figures: dict[str, float]
    """The evaluation at the end."""
    skipped_steps: int
    """Steps that were left out because they were not finite."""
    leads: bool = True
    """Whether this process is the first of the run, the one that tells people."""


def train(
    experiment: Experiment,
    out: Path | str,
    resume: bool = False,
    quiet: bool = False,
    report: Report | None = None,
) -> TrainResult:
    """Run an experiment, or continue it.

    Args:
        experiment: what to run; on resume the one in the checkpoint (see ``resume_experiment``).
        out: directory of the run. Gets ``checkpoints/``, ``train.csv``, ``validation.csv``, ``tensorboard/`` (if
            tensorboardX is installed), ``renders/``, ``encoder.safetensors``, and ``skipped-frames.txt`` if there are
            frames that cannot be used.
        resume: continue from the newest checkpoint that verifies, or start if there is none yet.
        quiet: no progress line.
        report: told about the progress instead of the terminal.

    Raises:
        ValueError: ``out`` holds a run and ``resume`` is off, data and task do not fit each other, a batch cannot be
            split as ``Experiment.mix`` needs it, or there is no file ``Experiment.init``.
        EncoderFileError: that file does not hold such an encoder.
        DataError: a scene cannot be used.
        NonFiniteError: more steps were not finite than ``Experiment.max_bad_steps`` and ``max_skipped_steps`` allow.
        PreemptedError: SIGTERM or Ctrl-C arrived; everything is saved. A second Ctrl-C stops at once.
        LoaderError: a loader process died.
        OSError: storage failed (``CheckpointError`` if a checkpoint could not be written or read); older checkpoints
            are as they were.
    """
    return _Run(experiment, Path(out), resume, quiet, report).complete()


def resume_experiment(out: Path | str) -> Experiment:
    """The experiment of a run, from its newest checkpoint that verifies.

    Raises:
        CheckpointError: there is none (``NoCheckpointError`` if there is nothing at all).
        ConfigError: it was written by another version, or with classes of a module that is not imported.
    """
    return from_json(Experiment, CheckpointStore(Path(out) / "checkpoints").load().experiment)


@dataclass
class _Sums:
    """Figures since the last row of the log; kept on the device, read when the row is written."""

    figures: dict[str, Tensor] = field(default_factory=dict)
    """Sum and number of the values of each."""
    steps: int = 0
    """Steps done, skipped ones too."""
    seconds: float = 0.0
    """Time they took, without evaluations and saves."""

    def add(self, figures: dict[str, Tensor]) -> None:
        """Add values; NaN stands for none, e.g. where no ray has anything to be compared with."""
        for name, value in figures.items():
            value = value.detach().float()
            known = ~value.isnan()
            new = torch.stack([torch.where(known, value, 0), known.float()])
            self.figures[name] = self.figures[name] + new if name in self.figures else new

    def totals(self) -> dict[str, tuple[float, float]]:
        return {name: (float(total), float(number)) for name, (total, number) in self.figures.items()}


@dataclass(frozen=True)
class _Decision:
    """What the ranks have decided about a step, perhaps still on its way from the device."""

    step: int
    sources: list[str]
    """Scenes of this rank."""
    read: Callable[[], list[bool]]
    """Whether it is skipped, whether any rank was asked to stop, whether this rank's loss is finite."""


def _means(ranks: Sequence[dict[str, tuple[float, float]]]) -> dict[str, float]:
    """Mean of each figure over the passes of all ranks; one that no pass had is left out."""
    means = {}
    for name in dict.fromkeys(name for totals in ranks for name in totals):
        totals, numbers = zip(*(rank[name] for rank in ranks if name in rank), strict=True)
        if sum(numbers):
            means[name] = sum(totals) / sum(numbers)
    return means


class _Run:
    """One process of a run."""

    def __init__(self, experiment: Experiment, out: Path, resume: bool, quiet: bool, report: Report | None):
        self.experiment, self.out, self.report = experiment, out, report
        self.store = CheckpointStore(out / "checkpoints", experiment.keep)
        goes_on = bool(self.store.steps())  # asked before the ranks meet: afterwards the first one saves
        if goes_on and not resume:
            raise ValueError(f"{out} already holds a run: continue it with --resume {out}, or choose another --out")
        self.runner = Runner(experiment.devices, experiment.precision, experiment.accelerator)
        self.leads = self.runner.rank == 0
        experiment.check_pairs(self.runner.world)
        dataset = experiment.data.build()
        experiment.check_data(dataset)
        validation = experiment.validation_data().build()  # now, not after hours: there may be nothing to evaluate on
        self.num_validation = len(validation)
        self.scenes = KeyedScenes(dataset, experiment.on_grid(experiment.transforms), experiment.seed)
        torch.manual_seed(keyed.derive(experiment.seed, 0x1217))  # the same initial weights on every rank
        loaded = self.store.load() if goes_on else None
        kept = loaded.state if loaded else {}
        self.task = experiment.task.rebuild(dataset.labels, kept.get("model", {}), kept.get("facts", {}))
        experiment.check_conditions(dataset, validation, self.task.encoder)
        experiment.check_images(dataset, validation, self.task)
        experiment.check_classes(dataset, validation, self.task)
        self.probe = experiment.probe.build(self.task.encoder)
        started: tuple[str, ...] = ()
        if not goes_on:
            if experiment.init:
                started = start_from(self.task.encoder, experiment.init)
            else:
                started = self.task.encoder.start()
            self.task.to(self.runner.device).prepare(self._pass(number) for number in itertools.count())
        self.optimizer = experiment.optim.build(self.task)
        self.step_module, self.wrapped_optimizer = self.runner.setup(self.task, self.optimizer)
        self.position = self.skipped = self.bad_in_a_row = 0
        self.stop = False
        self.undecided: collections.deque[_Decision] = collections.deque()
        # Reading what a GPU has decided about a step makes the host wait for it: it is read while the next one runs.
        self.lag = 1 if self.runner.device.type == "cuda" else 0
        if loaded is not None:
            self._restore(loaded)
        self.skipped_frames = SkippedFrames(out / SKIPPED_FRAMES)
        if self.leads:
            out.mkdir(parents=True, exist_ok=True)
            self._sweep()
            self.skipped_frames.add((*dataset.skipped, *validation.skipped))
        self.quiet = quiet or report is not None or not self.leads
        for line in started if not self.quiet else ():
            print(f"ponder3d: {line}", file=sys.stderr)
        for name, what in self.task.facts().items() if not self.quiet else ():
            print(f"ponder3d: {name.replace('_', ' ')}: {what}", file=sys.stderr)
        self.train_log = TableLog(out / _TRAIN_LOG, self.position) if self.leads else None
        self.validation_log = TableLog(out / _VALIDATION_LOG, self.position) if self.leads else None
        self.board = TensorBoard(out / "tensorboard", self.position, self.quiet) if self.leads else None
        name = type(self.task).__name__.lower()
        self.progress = Progress(experiment.steps, self.position, name, self.quiet)

    def complete(self) -> TrainResult:
        """Every step that is left, then the final evaluation."""
        try:
            return self._complete()
        except RuntimeError as error:
            # torch raises it from a signal handler as soon as a loader process dies, wherever the loop is then.
            if not str(error).startswith("DataLoader worker (pid"):
                raise
            raise self._loader_error(error) from error

    def _complete(self) -> TrainResult:
        with contextlib.ExitStack() as stack:
            stack.callback(self.progress.close)
            if self.board is not None:
                stack.callback(self.board.close)
            self._train()
            return TrainResult(self.out, self._validate(self.experiment.steps, 0), self.skipped, self.leads)

    def _train(self) -> None:
        e = self.experiment
        # A new run can be resumed from here on; one that goes on writes its encoder again, as it may have been killed
        # between the two files of its last save.
        self._save()
        sums = _Sums()
        with signals_set_flag() as asked_to_stop, contextlib.closing(self._batches()) as batches:
            # That of a step where the run was stopped is still to come.
            here = self.validation_log is not None and not self.validation_log.has(self.position)
            if self._is_evaluated(self.position) and bool(self.runner.any(here)):
                self._validate(self.position, e.validation_scenes, asked_to_stop)
                self._stop_if_asked()
            for step in range(self.position, e.steps):
                started = time.monotonic()
                self._step(step, [next(batches) for _ in range(e.accumulate)], asked_to_stop, sums)
                sums.seconds += time.monotonic() - started
                sums.steps += 1
                self.position = step + 1
                if self.position % e.log_every == 0 or self.position == e.steps:
                    self._log(sums)
                    sums = _Sums()
                if self._is_evaluated(self.position) and not self.stop:
                    self._validate(self.position, e.validation_scenes, asked_to_stop)
                # After the evaluation: a run that is killed in it comes back to this step and evaluates again.
                if self.position % e.save_every == 0 or self.position == e.steps or self.stop:
                    self._save()
                self._stop_if_asked()

    def _is_evaluated(self, step: int) -> bool:
        """Whether there is an evaluation at a step; that at the end is another."""
        every = self.experiment.validate_every
        return every > 0 and step % every == 0 and step < self.experiment.steps

    def _stop_if_asked(self) -> None:
        """Where the run has been saved."""
        if self.stop and self.position < self.experiment.steps:
            raise PreemptedError(f"stopped after step {self.position}; continue with --resume {self.out}")

    def _step(self, step: int, passes: list[Batch], asked_to_stop: threading.Event, sums: _Sums) -> None:
        """One optimiser step. Whether it counts is decided on the device, and learnt by ``_settle``."""
        e = self.experiment
        self.task.train()
        before = [(b, b.clone()) for b in self.task.buffers()]
        total = torch.zeros((), device=self.runner.device)
        figures = []
        for number, batch in enumerate(passes):
            torch.manual_seed(keyed.derive(e.seed, step, self.runner.rank, number))
            moved = to_device(batch, self.runner.device, non_blocking=True)
            with self.step_module.without_sync(number + 1 < len(passes)):
                terms, monitors = self.step_module.losses(moved, step)
                loss = torch.stack(list(terms.values())).sum() / len(passes)
                self.step_module.backward(loss)
            total = total + loss.detach()
            figures.append({**terms, **monitors})
        self.skipped_frames.add(line for batch in passes for line in batch.skipped)
        norm, loss_is_finite = gradient_norm(self.task.parameters()), torch.isfinite(total)
        decision = self.runner.any(~(torch.isfinite(norm) & loss_is_finite), asked_to_stop.is_set())
        bad = decision[0]
        if e.optim.clip:
            torch.nn.utils.clip_grads_with_norm_(self.task.parameters(), e.optim.clip, norm)
        e.optim.set(self.optimizer, step, e.steps)
        step_unless(bad, self.optimizer, self.wrapped_optimizer)
        # Running statistics have already seen the batch; a bad one is taken back.
        for buffer, value in before:
            buffer.copy_(torch.where(bad, value, buffer))
        for of_pass in [{"loss": total}, *figures, {"gradient_norm": norm}]:
            sums.add({name: torch.where(bad, math.nan, value.detach().float()) for name, value in of_pass.items()})
        self.optimizer.zero_grad(set_to_none=True)
        sources = [source for batch in passes for source in batch.sources]
        self.undecided.append(
            _Decision(step, sources, self.runner.reading(torch.cat([decision, loss_is_finite[None]])))
        )
        self._settle(self.lag)

    def _settle(self, lag: int) -> None:
        """Learn what was decided on the device, except for the last ``lag`` steps, which it may still be at."""
        while len(self.undecided) > lag:
            decision = self.undecided.popleft()
            bad, stop, loss_is_finite = decision.read()
            self.stop |= stop
            if bad:
                self._note_bad_step(decision.step, decision.sources, loss_is_finite)
            else:
                self.bad_in_a_row = 0

    def _note_bad_step(self, step: int, sources: list[str], loss_is_finite: bool) -> None:
        self.skipped += 1
        self.bad_in_a_row += 1
        what = "gradient" if loss_is_finite else "loss"
        names = ", ".join(sources)
        line = f"step {step} skipped on all ranks; rank {self.runner.rank}, {what} not finite, scenes: {names}"
        print(f"ponder3d: {line}", file=sys.stderr)
        with (self.out / "skipped.log").open("a") as file:
            file.write(line + "\n")
        e = self.experiment
        if self.bad_in_a_row >= e.max_bad_steps or self.skipped >= e.max_skipped_steps:
            in_a_row = self.bad_in_a_row >= e.max_bad_steps
            count = f"{self.bad_in_a_row} steps in a row" if in_a_row else f"{self.skipped} steps of the run"
            raise NonFiniteError(
                f"{count} were not finite, the last of them step {step}; {self.out / 'skipped.log'} names the scenes. "
                "The checkpoints hold finite weights. Look at the scenes, or start another run with a lower --optim.lr"
            )

    def _pass(self, number: int) -> Iterator[Batch]:
        """Every draw of an epoch, hence every scene. Steps draw from epochs 0, 1, ...; these are -1, -2, ..."""
        collate = Collate(self.experiment.task.encoder.inputs, self.experiment.max_points)
        for row in range(len(self.scenes)):
            yield to_device(collate([self.scenes[-1 - number, row]]), self.runner.device)

    def _batches(self) -> Generator[Batch, None, None]:
        e = self.experiment
        steps = range(self.position, e.steps)
        sampler = StepSampler(
            len(self.scenes),
            e.batch_size,
            e.seed,
            steps,
            e.accumulate,
            self.runner.rank,
            self.runner.world,
            self.scenes.dataset.blocks,
            self.scenes.dataset.mix_blocks,
        )
        over = multiprocessing.RawValue("b", 0)
        loader = DataLoader(
            Batches(self.scenes, Collate(e.task.encoder.inputs, e.max_points, e.mix)),
            batch_size=None,  # the sampler yields the draws of a whole batch
            sampler=sampler,  # type: ignore[arg-type]
            num_workers=e.workers,
            collate_fn=as_it_is,  # type: ignore[arg-type]
            pin_memory=self.runner.device.type == "cuda",
            worker_init_fn=functools.partial(_leave_signals_to_the_loop, over),
        )
        try:
            for batch in loader:
                if isinstance(batch, Exception):
                    raise batch
                yield batch
        except (EOFError, ConnectionError) as error:
            # The other end of the pipe is gone; or the dataset raised it, in a process that lives.
            if e.workers == 0 or str(error).startswith("Caught "):
                raise
            raise self._loader_error(error) from error
        finally:
            over.value = 1

    def _loader_error(self, error: Exception) -> LoaderError:
        return LoaderError(f"a loader process died ({str(error).strip()}); continue with --resume {self.out}")

    def _log(self, sums: _Sums) -> None:
        self._settle(0)
        ranks = self.runner.gather(sums.totals())
        if not self.leads or self.train_log is None or self.board is None:
            return
        e = self.experiment
        means = _means(ranks)
        rate = e.batch_size * sums.steps / sums.seconds
        lr = e.optim.lr * e.optim.factor(self.position - 1, e.steps)
        figures = {**means, "lr": lr, "scenes_per_second": rate, "skipped_steps": float(self.skipped)}
        self.train_log.write(self.position, figures)
        self.board.write(self.position, figures, "train")
        shown = {name: means[name] for name in ("loss", "psnr", "depth_error", "accuracy") if name in means}
        self.progress.show(self.position, shown, f"{rate:.1f} scenes/s")
        if self.report is not None:
            self.report(self.position, e.steps, shown)

    def _validate(self, step: int, limit: int, asked_to_stop: threading.Event | None = None) -> dict[str, float]:
        """Evaluate; scenes are dealt out to the ranks and the metric's sums are added. If the run is asked to stop
        meanwhile, nothing comes of it: there may be no time."""
        e = self.experiment
        rows = range(self.runner.rank, min(limit or self.num_validation, self.num_validation), self.runner.world)
        self.runner.share_buffers(self.task)  # as in the checkpoint: whichever rank evaluates a scene
        stops = asked_to_stop.is_set if asked_to_stop is not None else lambda: False
        state, pictures = evaluate_scenes(self.task, e, self.runner.device, self.skipped_frames, rows, stops=stops)
        if bool(self.runner.any(stops())):
            self.stop = True
            return {}
        metric = self.task.metric()
        metric.state = self.runner.sum(state)
        figures = metric.compute() | self._probe()
        if step == e.steps and self.leads:
            write_confusion(self.out / "confusion.png", metric)
        if self.validation_log is not None and self.board is not None:
            self.validation_log.write(step, figures)
            self.board.write(step, figures, "validation")
            folder = self.out / "renders" / f"step-{step:08d}"
            for picture in pictures:
                folder.mkdir(parents=True, exist_ok=True)
                Image.fromarray(picture.rgb.cpu().numpy()).save(folder / f"{picture.name}.png")
        return figures

    def _probe(self) -> dict[str, float]:
        """What else is measured of the encoder."""
        if isinstance(self.experiment.probe, Off):
            return {}
        other = ValueError(f"{self.out}: rank 0 could not probe the encoder; its message says why")
        # Minutes, on real scenes: longer than a rank that may be dead is waited for elsewhere.
        return self.runner.first(lambda: self.probe.measure(self.task.encoder, self.runner.device), other, patient=True)

    def _save(self) -> None:
        self._settle(0)
        problem = f"{self.out}: rank 0 could not save step {self.position}; its message says why"
        self.runner.first(self._write, CheckpointError(problem))

    def _write(self) -> None:
        state = {
            "step": self.position,
            "skipped": self.skipped,
            "bad_in_a_row": self.bad_in_a_row,
            "model": self.task.state_dict(),
            "facts": self.task.facts(),
            "optimizer": self.optimizer.state_dict(),
        }
        self.store.save(self.position, state, to_json(self.experiment))
        if self.position:  # an encoder that has learnt nothing is no result
            card = {
                "experiment": fingerprint(self.experiment),
                "step": self.position,
                "modality_dropout": self.experiment.dropped_inputs(),
            }
            save_encoder(self.task.encoder, self.out / FILE_NAME, card | self.task.facts())

    def _sweep(self) -> None:
        """Remove what a killed process of this run has left unfinished."""
        self.store.sweep()
        for name in (FILE_NAME, _TRAIN_LOG, _VALIDATION_LOG):
            for left in self.out.glob(f".tmp-{name}-*"):
                left.unlink(missing_ok=True)

    def _restore(self, loaded: Loaded) -> None:
        stored = from_json(Experiment, loaded.experiment)
        changed = first_difference(stored, self.experiment)
        if changed is not None:
            raise ValueError(
                f"{self.out} holds another experiment (it differs in {changed}): continue it as it is with --resume "
                f"{self.out}, or choose another --out"
            )
        if self.leads:
            for line in loaded.skipped:
                print(f"ponder3d: a damaged checkpoint was passed over: {line}", file=sys.stderr)
        self.task.load_state_dict(loaded.state["model"])
        self.optimizer.load_state_dict(loaded.state["optimizer"])
        self.position, self.skipped = loaded.state["step"], loaded.state["skipped"]
        self.bad_in_a_row = loaded.state["bad_in_a_row"]


def _leave_signals_to_the_loop(over: Any, worker: int) -> None:
    """In a loader process: a SIGTERM to all processes of a run (batch systems send it), or a Ctrl-C, must not take the
    loader away before the loop has saved; once the loop is over, SIGTERM is how multiprocessing ends what is left."""

    def leave(number: int, frame: Any) -> None:
        if over.value:
            os._exit(0)

    signal.signal(signal.SIGTERM, leave)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
