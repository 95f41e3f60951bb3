"""What a run will take: time, memory and disk, measured on a copy of it that is thrown away.

A few batches go the way that those of the run go: read, transformed, packed, through the task and its optimiser, on the
run's device and in its precision. Nothing of the run changes: the copy has its own weights, random numbers are put
back, and no file is written but what a dataset keeps for itself.
"""

import contextlib
import io
import math
import os
import resource
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image

from ponder3d.config import to_json
from ponder3d.data.loader import Collate, KeyedScenes
from ponder3d.data.prepared.prepare import free_bytes
from ponder3d.engine.experiment import Experiment
from ponder3d.engine.random_state import random_numbers_put_back
from ponder3d.engine.runner import device_type
from ponder3d.engine.sampler import StepSampler
from ponder3d.geometry import keyed
from ponder3d.tasks.task import Task
from ponder3d.types import Batch
from ponder3d.types.scene import to_device

SECONDS = 45.0
"""No batch is begun after this time."""
LONG = 600.0
"""Seconds; runs that take longer are told of beforehand."""
FEW_STEPS = 500
"""Runs of fewer steps are not even measured."""
_PASSES = 4
"""Batches at most, the first of which warms up."""
_KEPT = 5
"""A scene that is read so many times faster again is taken to have been kept by its dataset."""
_LINE = 12
"""Bytes of a figure in a log."""
_STATUS = Path("/proc/self/status")


class TooLargeError(ValueError):
    """A step that does not fit into memory."""


@dataclass(frozen=True)
class Estimate:
    """What a run will take. Seconds are of time passed."""

    steps: int
    step_seconds: float
    """The longer of computing and loading, which go on side by side; their sum without loader processes."""
    compute_seconds: float
    """Of a step alone."""
    scene_seconds: float
    """To read and transform a scene, in one process."""
    first_seconds: float
    """Added once, where a dataset makes or fetches scenes when they are first read, and keeps them."""
    loading_seconds: float
    """Of the scenes of a step, shared by the loader processes."""
    evaluation_seconds: float
    """Of all evaluations; nan if there was no time to try one."""
    memory_bytes: int
    """The peak of one process: of the GPU's memory, or of this machine's; loader processes have their own."""
    checkpoint_bytes: int
    disk_bytes: int
    """What the run leaves: checkpoints, encoder, logs, and the pictures of its evaluations."""
    device: str
    timed_steps: int
    """From how many steps, after the one that warms up; 0: from that one."""

    @property
    def total_seconds(self) -> float:
        """All steps, and the evaluations as far as they are known."""
        evaluations = 0 if math.isnan(self.evaluation_seconds) else self.evaluation_seconds
        return self.steps * self.step_seconds + self.first_seconds + evaluations

    def lines(self, out: Path | str) -> list[str]:
        """To be read before the run starts in ``out``."""
        slow = self.loading_seconds > self.compute_seconds
        bound = f"; loading takes longer than computing ({_time(self.compute_seconds)}): more --workers" if slow else ""
        evaluations = "" if math.isnan(self.evaluation_seconds) else f", evaluations {_time(self.evaluation_seconds)}"
        first = f", scenes for the first time {_time(self.first_seconds)}" if self.first_seconds else ""
        steps = f"{self.steps:,} steps of {_time(self.step_seconds)}"
        free = free_bytes(Path(out))
        text = [
            f"about {_time(self.total_seconds)}: {steps}{first}{evaluations}{bound}",
            f"memory {_size(self.memory_bytes)} ({self.device}); disk {_size(self.disk_bytes)}, {_size(free)} are free",
        ]
        # While a checkpoint is written, those that it follows are still there.
        need = self.disk_bytes + self.checkpoint_bytes
        if need > free:
            text.append(f"WARNING: {out} needs {_size(need)} while it saves; make room, or keep fewer with --keep 1")
        return text


def is_long(experiment: Experiment) -> bool:
    """Whether a run has so many steps that it is worth measuring."""
    return experiment.steps >= FEW_STEPS


def estimate(experiment: Experiment, seconds: float = SECONDS) -> Estimate:
    """Measure a few steps of an experiment and conclude from them to all of it.

    Args:
        experiment: what would be run. Its ranks (``devices``, or torchrun's) are assumed to be as fast as this process.
        seconds: time after which no other batch is begun; one always is, however long it takes.

    Raises:
        TooLargeError: a step does not fit into memory; the message says what helps.
        DataError: a scene cannot be used.
        ValueError: data, task and batch do not fit each other.
    """
    world = int(os.environ.get("WORLD_SIZE", experiment.devices))
    experiment.check_pairs(world)
    kind = device_type(experiment.accelerator)
    device = torch.device(f"cuda:{os.environ.get('LOCAL_RANK', 0)}" if kind == "cuda" else kind)
    with random_numbers_put_back(device):
        try:
            return _measure(experiment, world, device, seconds)
        except (MemoryError, RuntimeError) as error:
            if not _is_out_of_memory(error):
                raise
            raise TooLargeError(
                f"a step does not fit into the memory of {device}: try a larger --accumulate (now "
                f"{experiment.accumulate}; the batch stays), a smaller --max-points or --batch-size, or the recipe's "
                "size for one GPU, if it has one"
            ) from error
        finally:
            if device.type == "cuda":
                torch.cuda.empty_cache()


def _measure(e: Experiment, world: int, device: torch.device, seconds: float) -> Estimate:
    started = time.monotonic()
    dataset = e.data.build()
    scenes = KeyedScenes(dataset, e.on_grid(e.transforms), e.seed)
    draws = StepSampler(
        len(scenes),
        e.batch_size,
        e.seed,
        range(min(_PASSES, e.steps)),
        e.accumulate,
        0,
        world,
        dataset.blocks,
        dataset.mix_blocks,
    )
    collate = Collate(e.task.encoder.inputs, e.max_points, e.mix)
    torch.manual_seed(keyed.derive(e.seed, 0x1217))
    task = e.task.build(dataset.labels).to(device)
    optimizer = e.optim.build(task)
    peak = _Peak(device)
    loading, passing, updating, scenes_read = [], [], [], 0
    names: set[str] = set()
    last: list[tuple[int, int]] = []
    for number, rows in enumerate(draws):
        if number == _PASSES or (number and time.monotonic() - started > seconds):
            break
        begun = time.monotonic()
        batch = collate([scenes[row] for row in rows])
        scenes_read, last = scenes_read + len(rows), rows
        loading.append(time.monotonic() - begun)
        times = _step(task, optimizer, batch, device, e.precision, names)
        passing.append(times[0])
        updating.append(times[1])
    memory = peak.bytes()
    warm = slice(1, None) if len(passing) > 1 else slice(None)
    compute = e.accumulate * _mean(passing[warm]) + _mean(updating[warm])
    first = sum(loading) / scenes_read
    begun = time.monotonic()
    collate([scenes[row] for row in last])
    again = (time.monotonic() - begun) / len(last)
    scene_seconds = again if first > _KEPT * again else first
    made = min(len(scenes), e.steps * e.batch_size) * (first - scene_seconds) / world / max(1, e.workers)
    share = scene_seconds * e.batch_size / world
    load = share / max(1, e.workers)
    checkpoint = _bytes_of_checkpoint(task, optimizer, e)
    evaluation, pictures = math.nan, 0
    number = _evaluations(e)
    if time.monotonic() - started < seconds:
        one, pictures = _evaluate(task, e, device)
        validation = len(e.validation_data().build())
        some = min(e.validation_scenes or validation, validation)
        evaluation = one * ((number - 1) * some + validation) / world + number * _probe(task, e, device)
    weights = sum(v.nbytes for v in task.encoder.state_dict().values())
    logs = (e.steps // e.log_every + 1) * (len(names) + 4) * _LINE
    kept = min(e.keep, 1 + math.ceil(e.steps / e.save_every))
    return Estimate(
        steps=e.steps,
        step_seconds=max(compute, load) if e.workers else compute + share,
        compute_seconds=compute,
        scene_seconds=scene_seconds,
        first_seconds=made,
        loading_seconds=load,
        evaluation_seconds=evaluation,
        memory_bytes=memory,
        checkpoint_bytes=checkpoint,
        disk_bytes=kept * checkpoint + weights + logs + number * pictures,
        device=str(device),
        timed_steps=len(passing) - 1,
    )


def _step(
    task: Task,
    optimizer: torch.optim.Optimizer,
    batch: Batch,
    device: torch.device,
    precision: str,
    names: set[str],
) -> tuple[float, float]:
    """Seconds of a pass and of an update."""
    task.train()
    _wait(device)
    begun = time.monotonic()
    moved = to_device(batch, device)
    with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16-mixed"):
        losses = task.losses(moved, 0)
    torch.stack(list(losses.terms.values())).sum().backward()
    _wait(device)
    between = time.monotonic()
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    _wait(device)
    names.update(losses.terms, losses.monitors)
    return between - begun, time.monotonic() - between


def _evaluate(task: Task, e: Experiment, device: torch.device) -> tuple[float, int]:
    """Seconds of one scene of an evaluation, and bytes of the pictures that an evaluation leaves."""
    dataset = e.validation_data().build()
    if not len(dataset):
        return 0.0, 0
    task.eval()
    scenes = KeyedScenes(dataset, e.on_grid(e.validation_transforms), e.seed)
    scenes[0, 0]  # a dataset may have to make it first
    begun = time.monotonic()
    batch = to_device(Collate(e.task.encoder.inputs)([scenes[0, 0]]), device)
    with torch.no_grad():
        prediction = task.predict(batch)
    task.metric().update(prediction, batch)
    _wait(device)
    spent = time.monotonic() - begun
    size = 0
    for picture in task.pictures(prediction, batch):
        file = io.BytesIO()
        Image.fromarray(picture.rgb.cpu().numpy()).save(file, "png")
        size += len(file.getbuffer())
    return spent, size


def _probe(task: Task, e: Experiment, device: torch.device) -> float:
    """Seconds of the probes of an evaluation."""
    probe = e.probe.build(task.encoder)
    begun = time.monotonic()
    probe.measure(task.encoder, device)
    return time.monotonic() - begun


def _evaluations(e: Experiment) -> int:
    """How often a run evaluates: before the first step and in between, if at all, and at the end."""
    return 1 + (math.ceil(e.steps / e.validate_every) if e.validate_every else 0)


def _bytes_of_checkpoint(task: Task, optimizer: torch.optim.Optimizer, e: Experiment) -> int:
    counter = _Counter()
    torch.save({"model": task.state_dict(), "optimizer": optimizer.state_dict()}, counter)  # type: ignore[arg-type]
    return counter.size + len(repr(to_json(e)))


class _Counter(io.RawIOBase):
    """A file that only counts."""

    size = 0

    def write(self, data: object) -> int:
        number = memoryview(data).nbytes  # type: ignore[arg-type]
        self.size += number
        return number


class _Peak:
    """The most memory that this process has from now on."""

    def __init__(self, device: torch.device):
        self.device = device
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        elif _STATUS.exists():
            with contextlib.suppress(OSError):  # a container may not allow it; the count is then from the start
                Path("/proc/self/clear_refs").write_text("5")

    def bytes(self) -> int:
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.device)
        if _STATUS.exists():
            line = next((row for row in _STATUS.read_text().splitlines() if row.startswith("VmHWM:")), "")
            if line:
                return int(line.split()[1]) * 1024
        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _is_out_of_memory(error: BaseException) -> bool:
    texts = ("out of memory", "can't allocate memory", "not enough memory")
    return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or any(text in str(error) for text in texts)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)


def _time(seconds: float) -> str:
    if seconds > 36 * 3600:
        return f"{seconds / 86400:.1f} days"
    if seconds > 5400:
        return f"{seconds / 3600:.1f} h"
    if seconds > 90:
        return f"{seconds / 60:.0f} min"
    return f"{seconds:.1f} s" if seconds > 1 else f"{1000 * seconds:.0f} ms"


def _size(number: int) -> str:
    return f"{number / 1e9:.1f} GB" if number > 1e9 else f"{number / 1e6:.1f} MB"
