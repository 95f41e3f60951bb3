"""Tiny experiments, and runs of them in child processes that may be killed at any instant.

The children are forked from one warm server process (multiprocessing's forkserver, started by the fixture ``launch`` of
the conftest here): a run costs a fork instead of three seconds of ``import torch``.
"""

import contextlib
import errno
import faulthandler
import itertools
import multiprocessing
import os
import signal
import socket
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, fields, is_dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any, NoReturn

import torch
from torch import Tensor, nn

from ponder3d.data.dataset import DataError, DatasetConfig, SceneDataset
from ponder3d.data.transforms import (
    DropModality,
    DropPoints,
    Flip,
    Jitter,
    JitterColour,
    KeepViews,
    PickRays,
    RemoveBlocks,
    Rotate,
)
from ponder3d.encoders.encoder import Encoder, EncoderConfig
from ponder3d.encoders.sparse_unet import SparseUNetConfig
from ponder3d.engine import loop, runner
from ponder3d.engine.checkpoint import CheckpointError, CheckpointStore
from ponder3d.engine.experiment import Experiment
from ponder3d.engine.optim import OptimConfig
from ponder3d.engine.probe import Probe, ProbeConfig
from ponder3d.geometry import keyed
from ponder3d.metrics.metric import Metric
from ponder3d.render.fields import FieldConfig
from ponder3d.render.renderer import RenderConfig
from ponder3d.tasks.masking import BlockMasking
from ponder3d.tasks.ponder import PonderConfig
from ponder3d.tasks.task import Picture, StepLosses, Task, TaskConfig
from ponder3d.types import Batch, Cameras, LabelSet, Points, Scene, Views
from ponder3d.volume.unet3d import ShallowNet3DConfig

# ---------------------------------------------------------------------------------------------------------------- data


TROUBLES = {error.__name__: error for error in (RuntimeError, EOFError, ConnectionError, ValueError, DataError)}


@dataclass(frozen=True)
class TinyRooms(DatasetConfig):
    """Cubes of 2 m: points on the walls, and two views of 8 x 8 pixels from the middle."""

    num: int = 5
    first: int = 0
    depth: bool = True
    trouble: str = ""
    """Name of the exception that reading scene 3 raises."""

    def build(self) -> "TinyScenes":
        return TinyScenes(self)

    def held_out(self) -> DatasetConfig:
        # Without depth there is no surface to measure: that would take longer than all the steps.
        return replace(self, num=2, first=1000, depth=False, trouble="")


class TinyScenes(SceneDataset):
    labels = None

    def __init__(self, config: TinyRooms):
        self.config = config

    def __len__(self) -> int:
        return self.config.num

    def __getitem__(self, index: int) -> Scene:
        if self.config.trouble and index == 3:
            raise TROUBLES[self.config.trouble]("scene 3 is broken")
        random = keyed.generator(self.config.first + index, 0x717)
        axis = torch.randint(3, (60,), generator=random)
        side = torch.randint(2, (60,), generator=random) * 2.0 - 1
        xyz = torch.rand(60, 3, generator=random) * 2 - 1
        xyz[torch.arange(60), axis] = side
        normal = torch.zeros(60, 3)
        normal[torch.arange(60), axis] = -side
        return Scene(
            xyz=xyz,
            rgb=torch.rand(60, 3, generator=random),
            normal=normal,
            source=f"tiny/{self.config.first + index}",
            views=_views(random, self.config.depth),
        )


def _views(random: torch.Generator, depth: bool) -> Views:
    """Two cameras in the middle that look along +y and +x; every pixel sees a wall 1 m away."""
    turns = torch.tensor([[[1, 0, 0], [0, 0, 1], [0, -1, 0]], [[0, 0, 1], [-1, 0, 0], [0, -1, 0]]])
    poses = torch.eye(4).repeat(2, 1, 1)
    poses[:, :3, :3] = turns
    intrinsics = torch.tensor([[8.0, 0, 3.5], [0, 8.0, 3.5], [0, 0, 1]]).repeat(2, 1, 1)
    return Views(
        cameras=Cameras(intrinsics, poses, (8, 8)),
        rgb=torch.randint(256, (2, 8, 8, 3), generator=random, dtype=torch.uint8),
        depth=torch.ones(2, 8, 8) if depth else None,
        labels=None,
        counts=torch.tensor([2]),
    )


# --------------------------------------------------------------------------------------------------------------- tasks


def ponder_run(**changes: Any) -> Experiment:
    """Pre-training with everything on that draws random numbers. 5 scenes in batches of 2: an epoch is 2.5 steps."""
    encoder = SparseUNetConfig(
        inputs=("rgb", "normal", "one"),
        grid_size=0.25,
        stem_channels=4,
        stem_kernel=3,
        channels=(4, 4),
        blocks=(1, 1),
        norm_momentum=0.1,
    )
    base = Experiment(
        task=PonderConfig(
            encoder=encoder,
            masking=BlockMasking(ratio=0.5, size=0.5),
            volume_shape=(8, 8, 8),
            volume_net=ShallowNet3DConfig(channels=4, depth=1, out_channels=8),
            field=FieldConfig(hidden=8, geometry_channels=4),
            render=RenderConfig(num_uniform=4, num_importance=2),
            mesh_cell=0.5,
        ),
        data=TinyRooms(),
        transforms=(
            DropPoints(0.3),
            Rotate(probability=1.0),
            Flip(),
            Jitter(),
            JitterColour(),
            RemoveBlocks(0.1, 0.4),
            DropModality(0.3, 0.3),
            PickRays(views=2, rays_per_view=8),
        ),
        validation_transforms=(KeepViews((0,)),),
        optim=OptimConfig(lr=1e-2),
        steps=40,
        batch_size=2,
        save_every=2,
        log_every=1,
        workers=2,
    )
    return replace(base, **changes)


@dataclass(frozen=True)
class PlainEncoderConfig(EncoderConfig):
    """One linear layer per point, with or without batch statistics."""

    inputs: tuple[str, ...] = ("rgb", "normal")
    grid_size: float = 0.1
    norm: bool = False

    def build(self) -> "PlainEncoder":
        return PlainEncoder(self)


class PlainEncoder(Encoder):
    def __init__(self, config: PlainEncoderConfig):
        super().__init__()
        self.config, self.out_channels = config, 4
        self.linear = nn.Linear(6, 4)
        self.norm = nn.BatchNorm1d(4) if config.norm else nn.Identity()

    def forward(self, batch: Batch) -> Points:
        return replace(batch.points, feats=self.norm(self.linear(batch.points.feats)))


@dataclass(frozen=True)
class PlainConfig(TaskConfig):
    """Fits the height of the points. The loss is a mean over scenes of means over points: it can be split."""

    encoder: PlainEncoderConfig = PlainEncoderConfig()
    noise: float = 0.0
    """Noise on the target, drawn from the global generator like a dropout layer's."""
    bad_scenes: tuple[str, ...] = ()
    """Sources of the scenes that spoil their batch."""
    bad: str = "loss"
    """``loss``: the loss is NaN. ``gradient``: the loss is finite, its gradient is not."""
    bad_from: int = 0
    """They do so from this step on."""
    prepared: str = ""
    """File that gets a line for every scene the task is prepared with; the head starts from their mean height."""

    def build(self, labels: LabelSet | None) -> "Plain":
        return Plain(self)


class Plain(Task):
    def __init__(self, config: PlainConfig):
        super().__init__()
        self.config = config
        self.encoder = config.encoder.build()
        self.head = nn.Linear(4, 1)

    def prepare(self, passes: Iterator[Iterable[Batch]]) -> None:
        if not self.config.prepared:
            return
        heights = []
        with Path(self.config.prepared).open("a") as file:
            for number, scenes in enumerate(itertools.islice(passes, 2)):
                for batch in scenes:
                    heights.append(batch.points.xyz[:, 2].mean())
                    place = batch.points.xyz[0].tolist()
                    file.write(f"{number} {batch.sources[0]} {place}\n")
        with torch.no_grad():
            self.head.bias.fill_(torch.stack(heights).mean())

    def losses(self, batch: Batch, step: int) -> StepLosses:
        points = batch.points
        target = points.xyz[:, 2] + self.config.noise * torch.randn(len(points.xyz))
        error = (self.predict(batch) - target).square()
        per_scene = torch.zeros(len(batch)).index_add_(0, points.scene, error) / points.counts
        loss = per_scene.mean()
        if step >= self.config.bad_from and set(batch.sources) & set(self.config.bad_scenes):
            # The gradient of a square root at 0 is infinite; times 0 it is NaN.
            loss = loss * float("nan") if self.config.bad == "loss" else loss + (loss * 0).sqrt()
        return StepLosses({"height": loss})

    def predict(self, batch: Batch) -> Tensor:
        features = self.encoder(batch)
        assert isinstance(features, Points)
        return self.head(features.feats)[:, 0]

    def metric(self) -> "HeightError":
        return HeightError()

    def pictures(self, prediction: Tensor, batch: Batch) -> list[Picture]:
        return []


class HeightError(Metric[Tensor]):
    def __init__(self):
        self.state = torch.zeros(2, dtype=torch.float64)

    def update(self, prediction: Tensor, batch: Batch) -> None:
        error = (prediction - batch.points.xyz[:, 2]).abs().sum()
        self.state += torch.tensor([float(error), len(prediction)], dtype=torch.float64)

    def compute(self) -> dict[str, float]:
        return {"height_error": float(self.state[0] / self.state[1])}


@dataclass(frozen=True)
class PatientProbeConfig(ProbeConfig):
    """A probe that takes its time."""

    seconds: float = 0.0

    def build(self, encoder: Encoder) -> "PatientProbe":
        return PatientProbe(self.seconds)


class PatientProbe(Probe):
    def __init__(self, seconds: float):
        self.seconds = seconds

    def measure(self, encoder: Encoder, device: torch.device) -> dict[str, float]:
        time.sleep(self.seconds)
        return {"probed": self.seconds}


def plain_run(**changes: Any) -> Experiment:
    """A run whose steps take a millisecond."""
    base = Experiment(
        task=PlainConfig(),
        data=TinyRooms(),
        transforms=(Rotate(probability=1.0), JitterColour()),
        validation_transforms=(),
        optim=OptimConfig(lr=1e-2),
        steps=10,
        batch_size=2,
        save_every=3,
        log_every=1,
        workers=0,
    )
    return replace(base, **changes)


# ------------------------------------------------------------------------------------------------------------ comparing


def differences(a: Any, b: Any, where: str = "") -> list[str]:
    """Where two values made of dicts, lists, numbers and tensors differ by so much as a bit."""
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        same = a.dtype == b.dtype and a.shape == b.shape
        same = same and torch.equal(a.reshape(-1).view(torch.uint8), b.reshape(-1).view(torch.uint8))
        return [] if same else [where]
    if isinstance(a, dict) and isinstance(b, dict) and a.keys() == b.keys():
        return [found for key in a for found in differences(a[key], b[key], f"{where}/{key}")]
    if isinstance(a, (list, tuple)) and isinstance(b, (list, tuple)) and len(a) == len(b):
        return [found for i, (x, y) in enumerate(zip(a, b, strict=True)) for found in differences(x, y, f"{where}/{i}")]
    return [] if type(a) is type(b) and a == b else [where]


def final_state(out: Path) -> dict[str, Any]:
    """All that a run ends with: step, counters, weights, buffers and the optimiser's moments."""
    return CheckpointStore(out / "checkpoints").load().state


# ------------------------------------------------------------------------------------------------------------- children


@dataclass(frozen=True)
class Attempt:
    """One try at a run: what to run, and how it is made to fail from inside."""

    experiment: Experiment
    out: Path
    resume: bool = True
    die_in_save: int = -1
    """Number of the call to the operating system, within the saves of this attempt, at which all processes are
    killed."""
    no_space_in_save: int = -1
    """Number of the save of this attempt, from 0 on, that finds the disk full."""
    kill_worker_at: int = -1
    """Kill a loader process after this step."""
    kill_worker_while: str = "stepping"
    """``stepping``: in the middle of a step; ``waiting``: while the loop waits for a batch."""
    bad_sampler: bool = False
    """Replace the sampler by one that is known to be bad."""
    record_batches: bool = False
    """Write every batch to a file; see ``recorded_batches``."""
    timeout: float = 0.0
    """Seconds that a rank waits for the others; 0: as usual."""
    threads: int = 1
    rank: int = 0
    world: int = 1
    port: int = 0


class Limit:
    """So many seconds. A machine that stands still for a while, as virtual ones do, is no process that hangs: of the
    time between two questions at most a second counts."""

    def __init__(self, seconds: float):
        self.left, self.asked = seconds, time.monotonic()

    def over(self) -> bool:
        now = time.monotonic()
        self.left -= min(now - self.asked, 1.0)
        self.asked = now
        return self.left < 0


@dataclass
class Child:
    """A running attempt: one process per rank, all in one process group together with their loader processes."""

    processes: list[Any]
    pipes: list[Any]
    """One per rank: the step after every step of rank 0, and at last a dict that says how the rank ended."""
    ends: dict[int, dict[str, Any]] = field(default_factory=dict)
    step: int = -1
    """The last step that rank 0 has reported."""
    ended: bool = False

    def send(self, number: signal.Signals, rank: int | None = None) -> None:
        """A signal to one rank alone, or to all processes."""
        with contextlib.suppress(ProcessLookupError):
            if rank is None:
                os.killpg(self.processes[0].pid, number)
            else:
                os.kill(self.processes[rank].pid, number)

    def wait_for_step(self, step: int = 0, seconds: float = 120.0) -> bool:
        """Wait until a step is reported; False if the attempt has ended before."""
        limit = Limit(seconds)
        while self.step < step and 0 not in self.ends:
            if limit.over():
                self._give_up(f"no step {step} within {seconds} s")
            self._read(0.01)
            if not self.processes[0].is_alive():
                self._read(0.0)
                break
        return self.step >= step

    def wait(self, seconds: float = 120.0) -> list[dict[str, Any]]:
        """How each rank has ended: {"end": "done", "killed" or the name of an exception, ...}; it must not hang."""
        limit = Limit(seconds)
        while any(process.is_alive() for process in self.processes):
            if limit.over():
                self._give_up(f"a rank hangs for {seconds} s")
            self._read(0.01)
        self._read(0.0)
        self.end()
        return [self.ends.get(rank, {"end": "killed"}) for rank in range(len(self.processes))]

    def end(self) -> None:
        """Kill what is left, also loader processes that have outlived a killed rank."""
        if not self.ended:
            self.ended = True
            self.send(signal.SIGKILL)
            for process, pipe in zip(self.processes, self.pipes, strict=True):
                process.join()
                pipe.close()

    def _give_up(self, problem: str) -> NoReturn:
        self.send(signal.SIGUSR1)  # every process, loaders too, writes to stderr where it is
        time.sleep(1)
        self.send(signal.SIGKILL)
        raise AssertionError(f"{problem}; stderr says where its processes were")

    def _read(self, seconds: float) -> None:
        for rank, pipe in enumerate(self.pipes):
            with contextlib.suppress(EOFError, ConnectionError):  # a rank that was killed
                while pipe.poll(seconds if rank == 0 else 0.0):
                    message = pipe.recv()
                    if isinstance(message, dict):
                        self.ends[rank] = message
                    else:
                        self.step = message


def start(attempt: Attempt) -> Child:
    """Start an attempt in processes forked from the warm server."""
    context = multiprocessing.get_context("forkserver")
    child = Child([], [])
    port = free_port() if attempt.world > 1 else 0
    for rank in range(attempt.world):
        receiver, sender = context.Pipe(duplex=False)
        group = child.processes[0].pid if rank else 0
        process = context.Process(target=_child, args=(replace(attempt, rank=rank, port=port), sender, group))
        process.start()
        sender.close()
        assert receiver.recv() == -1  # it is in the group now
        child.processes.append(process)
        child.pipes.append(receiver)
    return child


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _child(attempt: Attempt, pipe: Any, group: int) -> None:
    os.setpgid(0, group)
    faulthandler.register(signal.SIGUSR1)  # see Child._give_up
    multiprocessing.set_start_method("fork", force=True)  # loader processes: children of this one, as usual
    pipe.send(-1)
    warnings.simplefilter("error")
    torch.set_num_threads(attempt.threads)
    if attempt.world > 1:
        # What torchrun would set.
        os.environ |= {
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(attempt.port),
            "RANK": str(attempt.rank),
            "LOCAL_RANK": str(attempt.rank),
            "WORLD_SIZE": str(attempt.world),
            "LOCAL_WORLD_SIZE": str(attempt.world),
            "GROUP_RANK": "0",
            "GROUP_WORLD_SIZE": "1",
            "TORCHELASTIC_RUN_ID": "tiny",
            "GLOO_SOCKET_IFNAME": "lo",
        }
    if attempt.timeout:
        runner._TIMEOUT = timedelta(seconds=attempt.timeout)
    if attempt.die_in_save >= 0:
        _die_in_save(attempt.die_in_save)
    if attempt.no_space_in_save >= 0:
        _find_no_space(attempt.no_space_in_save)
    if attempt.record_batches:
        _record_batches(attempt.out / f"batches-{attempt.rank}.pt")
    if attempt.bad_sampler:
        loop.StepSampler = ForgetfulSampler  # type: ignore[misc, assignment]

    def report(step: int, steps: int, figures: dict[str, float]) -> None:
        pipe.send(step)
        if step == attempt.kill_worker_at:
            os.kill(multiprocessing.active_children()[0].pid, signal.SIGKILL)  # type: ignore[arg-type]
            if attempt.kill_worker_while == "stepping":
                time.sleep(0.2)  # the step is still going on when the news arrives

    try:
        run = loop._Run(attempt.experiment, attempt.out, attempt.resume, True, report)
        result = run.complete()
        # Only rank 0 writes checkpoints.
        torch.save(run.task.state_dict(), attempt.out / f"rank-{attempt.rank}.pt")
        end = {"end": "done", "figures": result.figures, "skipped": result.skipped_steps}
    except Exception as error:
        end = {"end": type(error).__name__, "message": str(error)}
    pipe.send(end)
    pipe.close()


def recorded_batches(out: Path, rank: int = 0) -> list[Any]:
    """What the steps of an attempt were given, as containers of tensors."""
    return torch.load(out / f"batches-{rank}.pt", weights_only=True)


def _record_batches(path: Path) -> None:
    step, seen = loop._Run._step, []

    def recording_step(run: Any, number: int, passes: list[Batch], *others: Any) -> None:
        seen.append([_plain(batch) for batch in passes])
        torch.save(seen, path)
        step(run, number, passes, *others)

    loop._Run._step = recording_step  # type: ignore[method-assign]


def _plain(value: Any) -> Any:
    if is_dataclass(value):
        return {f.name: _plain(getattr(value, f.name)) for f in fields(value)}
    return [_plain(item) for item in value] if isinstance(value, tuple) else value


def _find_no_space(number: int) -> None:
    save, calls = CheckpointStore.save, itertools.count()

    def full_save(*args: Any, **kwargs: Any) -> Path:
        if next(calls) == number:
            raise CheckpointError(errno.ENOSPC, "No space left on device")
        return save(*args, **kwargs)

    CheckpointStore.save = full_save  # type: ignore[method-assign, assignment]


def _die_in_save(number: int) -> None:
    save, write_encoder, calls = CheckpointStore.save, loop.save_encoder, itertools.count()

    def die(name: str) -> None:
        if next(calls) == number:
            os.killpg(0, signal.SIGKILL)
            time.sleep(60)

    def watched_save(*args: Any, **kwargs: Any) -> Path:
        with before_each_call(die):
            return save(*args, **kwargs)

    def watched_write_encoder(*args: Any, **kwargs: Any) -> None:
        with before_each_call(die):
            write_encoder(*args, **kwargs)

    CheckpointStore.save = watched_save  # type: ignore[method-assign, assignment]
    loop.save_encoder = watched_write_encoder  # type: ignore[assignment]


# --------------------------------------------------------------------------------------------------------------- faults

CALLS = ("open", "write", "fsync", "close", "mkdir", "rename", "replace", "unlink", "rmdir")
"""What a saver asks of the operating system."""


@contextlib.contextmanager
def before_each_call(hook: Callable[[str], None]) -> Iterator[None]:
    """Within this context the hook is called before each of ``CALLS``, also before those of shutil; it may raise."""
    originals = {name: getattr(os, name) for name in CALLS}

    def watched(name: str) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            hook(name)
            return originals[name](*args, **kwargs)

        return call

    try:
        for name in CALLS:
            setattr(os, name, watched(name))
        yield
    finally:
        for name, original in originals.items():
            setattr(os, name, original)


class ForgetfulSampler:
    """Known to be bad: it shuffles with a generator that starts afresh with the process.

    A resumed run is in the middle of an epoch, but draws as at the beginning of the first.
    """

    def __init__(self, num_scenes: int, batch_size: int, seed: int, steps: range, *others: int):
        self.num_scenes, self.batch_size, self.steps = num_scenes, batch_size, steps
        self.generator = torch.Generator().manual_seed(seed)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        draws: list[tuple[int, int]] = []
        epoch = self.steps.start * self.batch_size // self.num_scenes
        for _ in self.steps:
            while len(draws) < self.batch_size:
                order = torch.randperm(self.num_scenes, generator=self.generator).tolist()
                draws += [(epoch, index) for index in order]
                epoch += 1
            yield draws[: self.batch_size]
            draws = draws[self.batch_size :]
