"""What does a step of pre-training cost, where does the time go, and how far is it from the products alone?

    python benchmarks/step.py [--config demo] [--scenes 2] [--threads 1] [--repeats 10] [--quick] [--save]
    python benchmarks/step.py --config indoor [--scenes 1] [--cache DIR]
    python benchmarks/step.py --config outdoor [--encoder voxelnet] [--scenes 1] [--data DIR]

``demo`` is ``pretrain_indoor.rooms`` on two generated rooms. ``indoor`` is the paper's, ``pretrain_indoor.rooms_paper``
with a semantic head of 512 channels: per scene 5 x 256 rays of 96 + 36 samples, a volume of 128 x 128 x 32, 39 million
parameters. ``outdoor`` is the paper's for driving (spec 3.1): voxels of 10 cm, a volume of 180 x 180 x 5 over 108 x 108
x 8 m, at most 6 x 512 rays of 72 + 24 samples that end in LiDAR points, on sweeps of PandaSet in ``--data`` (see
``clouds.py``), or generated ones without; colours are random. Its encoder sees zeros and ones. With ``--encoder
voxelnet`` it is UniPAD's for LiDAR (spec 3.2): four fifths of the blocks removed, voxels of 7.5 x 7.5 x 20 cm, and the
dense SECOND3D behind the sparse part, which is most of the step.

Steps of the last two take 8 and 4 scenes on a GPU and one on a CPU, in gigabytes and tens of seconds; figures are those
of the scenes that were taken. On a GPU encoder and dense network run in bfloat16. Two configurations have run on an
H200 (``README.md`` beside this file).

How to read it: parts are times within the steps that train, medians over ``--repeats`` of them: CPU time with one
thread, so that waiting for other jobs does not count, else time passed. ``losses`` is the rest of the forward pass.
``compiled`` and ``torch`` are two ways of computing sparse convolutions on a CPU; their steps alternate, and the ratio
is taken round by round. ``loader`` is what the scenes of a batch take to be read and transformed, which a loader
process may hide. The floor is the time of the products alone (``operations.py``) at the rate at which this machine
multiplies [1024 128] by [128 128] out of cache (a GPU: [65536 128]), and ``share`` is the floor over the time. The peak
is how far the first step raises the memory of this process (a GPU's: all of it), optimiser state included.
"""

import argparse
import contextlib
import math
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from unittest import mock

import torch
from clouds import SWEEPS, generated_sweep, recorded_sweep, seen_points
from measure import gemm_rate, machine, parser, peak_mb, ratio, saved, synchronize, table
from operations import Operations, count

from ponder3d.data.loader import Collate, KeyedScenes
from ponder3d.data.synthetic.rooms import RoomsConfig, generate
from ponder3d.data.transforms import GridSample, RemoveBlocks, apply
from ponder3d.encoders.sparse_unet import SparseUNetConfig
from ponder3d.encoders.voxelnet import VoxelNetConfig
from ponder3d.engine.experiment import Experiment
from ponder3d.engine.memory import keep_freed_memory
from ponder3d.engine.optim import OptimConfig
from ponder3d.geometry.kernels import Kernels, kernels
from ponder3d.recipes import pretrain_indoor
from ponder3d.render.fields import FieldConfig
from ponder3d.render.losses import RenderLossConfig
from ponder3d.render.renderer import RenderConfig
from ponder3d.tasks import ponder
from ponder3d.tasks.class_vectors import FixedCodes
from ponder3d.tasks.masking import BlockMasking, NoMasking
from ponder3d.tasks.ponder import Ponder, PonderConfig
from ponder3d.types import Batch, Rays, RayTargets, Scene
from ponder3d.types.scene import to_device
from ponder3d.volume.projection import ProjectionConfig
from ponder3d.volume.unet3d import ShallowNet3DConfig

FORWARD = ("encoder", "densify", "dense network", "rendering", "losses")
PARTS = (*FORWARD, "backward", "optimiser")
BOX = torch.tensor([[-54.0, -54.0, -5.0], [54.0, 54.0, 3.0]])


@dataclass
class Work:
    """What is measured."""

    task: Ponder
    optimizer: torch.optim.Optimizer
    batches: list[Batch]
    loading: float | None
    """Seconds per batch; None where scenes are not read."""


@dataclass
class Clock:
    """Seconds of the parts of steps."""

    device: torch.device
    now: Callable[[], float]
    steps: list[dict[str, float]] = field(default_factory=list)
    wall: list[float] = field(default_factory=list)
    _last: float = 0.0

    def start(self) -> None:
        """Begin a step."""
        self.steps.append(dict.fromkeys(PARTS, 0.0))
        synchronize(self.device)
        self._last = self.now()

    def lap(self, name: str) -> None:
        """Add the time since the last lap to a part."""
        synchronize(self.device)
        now = self.now()
        self.steps[-1][name] += now - self._last
        self._last = self.now()

    def part(self, name: str) -> float:
        """Median."""
        return statistics.median(step[name] for step in self.steps)

    def totals(self) -> list[float]:
        """Of all parts, by step."""
        return [sum(step.values()) for step in self.steps]


def outdoor_config(encoder: str) -> PonderConfig:
    """PonderV2's configuration for LiDAR with colour. Depth is in metres here, and so is its weight: 10 per 54 m."""
    if encoder == "voxelnet":
        voxelnet = VoxelNetConfig()
        return replace(
            outdoor_config("sparse_unet"),
            encoder=voxelnet,
            masking=NoMasking(),
            cell_offsets=False,
            volume_box=voxelnet.box,
            volume_net=ProjectionConfig(32),
        )
    return PonderConfig(
        encoder=SparseUNetConfig(inputs=("rgb", "one"), grid_size=0.1),
        masking=BlockMasking(size=0.8),
        volume_shape=(180, 180, 5),
        volume_net=ShallowNet3DConfig(channels=32, depth=1, out_channels=32),
        field=FieldConfig(
            hidden=16, sdf_layers=6, colour_layers=4, geometry_channels=16, shared_volume=True, use_position=True
        ),
        render=RenderConfig(num_uniform=72, num_importance=24),
        losses=RenderLossConfig(colour=10.0, depth=10 / 54, sdf=0.0, free_space=0.0, eikonal=0.0),
    )


def outdoor_scene(number: int, data: Path | None) -> Scene:
    """A sweep within the box, and rays from the cameras to points of it."""
    sweep = generated_sweep(number) if data is None else recorded_sweep(data, number)
    generator = torch.Generator().manual_seed(number)
    inside = ((sweep.xyz > BOX[0]) & (sweep.xyz < BOX[1])).all(1)
    sweep = replace(sweep, xyz=sweep.xyz[inside])
    ends, origins = [], []
    for camera in range(len(sweep.cameras)):
        rows = seen_points(sweep, camera)
        rows = rows[torch.randperm(len(rows), generator=generator)[:512]]
        ends.append(sweep.xyz[rows])
        origins.append(sweep.cameras.world_from_cam[camera, :3, 3].expand(len(rows), 3))
    origin, end = torch.cat(origins), torch.cat(ends)
    t = (end - origin).norm(dim=1)
    zeros = torch.zeros_like(t)
    rays = Rays(origin, (end - origin) / t[:, None], zeros + 1.0, zeros + 200.0, zeros.to(torch.int64))
    cell = (BOX[1] - BOX[0]) / torch.tensor([180, 180, 5])
    return Scene(
        xyz=sweep.xyz,
        rgb=None,
        normal=None,
        source=f"sweep {number}",
        rays=rays,
        targets=RayTargets(rgb=torch.rand(len(t), 3, generator=generator), t=t),
        bounds=torch.stack([BOX[0] + cell, BOX[1] - cell]),  # ``Ponder.grid`` adds a cell on either side
    )


def outdoor(scenes: int, data: Path | None, encoder: str) -> Work:
    """Task and one batch of sweeps."""
    config = outdoor_config(encoder)
    sample = (GridSample(config.encoder.grid_size),)
    if encoder == "voxelnet":
        sample = (RemoveBlocks(0.8, 0.8, 0.6, 1.6, (-54.0, -54.0, -5.0)), *sample)
    batch = Collate(config.encoder.inputs)([apply(sample, outdoor_scene(i, data), 0, 0, i) for i in range(scenes)])
    torch.manual_seed(0)
    task = config.build(None)
    assert isinstance(task, Ponder)
    return Work(task, OptimConfig().build(task), [batch], None)


def indoor(experiment: Experiment, scenes: int, batches: int, cache: str) -> Work:
    """Task and batches of generated rooms."""
    assert isinstance(experiment.data, RoomsConfig)
    data = replace(experiment.data, num_rooms=scenes * min(batches, 2), cache=cache)
    generate(data, workers=1)  # in a process of its own: its memory would hide the step's
    rooms = KeyedScenes(data.build(), experiment.on_grid(experiment.transforms), 0)
    made, seconds = [], []
    for number in range(batches):
        start = time.process_time()
        rows = range(number % 2 * scenes, (number % 2 + 1) * scenes)
        made.append(Collate(experiment.task.encoder.inputs)([rooms[number, row] for row in rows]))
        seconds.append(time.process_time() - start)
    torch.manual_seed(0)
    task = experiment.task.build(data.build().labels)
    assert isinstance(task, Ponder)
    return Work(task, experiment.optim.build(task), made, statistics.median(seconds))


def rooms_paper() -> Experiment:
    """The paper's indoor recipe with a semantic head."""
    experiment = pretrain_indoor.rooms_paper()
    assert isinstance(experiment.task, PonderConfig)
    return replace(experiment, task=replace(experiment.task, semantics=FixedCodes(512)))


@contextlib.contextmanager
def watched(task: Ponder, clock: Clock) -> Iterator[None]:
    """Steps taken inside tell the clock where they are."""

    def then(call: Callable[..., object], name: str, before: str) -> Callable[..., object]:
        def run(*arguments: object, **named: object) -> object:
            clock.lap(before)
            result = call(*arguments, **named)
            clock.lap(name)
            return result

        return run

    pool = "densify_with_offsets" if task.config.cell_offsets else "densify"
    patches = [
        mock.patch.object(task.encoder, "forward", then(task.encoder.forward, "encoder", "losses")),
        mock.patch.object(task.unet, "forward", then(task.unet.forward, "dense network", "densify")),
        mock.patch.object(ponder, pool, then(getattr(ponder, pool), "densify", "densify")),
        mock.patch.object(ponder, "render", then(ponder.render, "rendering", "losses")),
    ]
    with contextlib.ExitStack() as stack:
        for patch in patches:
            stack.enter_context(patch)
        yield


def step(work: Work, batch: Batch, clock: Clock, half: bool) -> None:
    """One step of training."""
    clock.start()
    start = time.perf_counter()
    with watched(work.task, clock), torch.autocast(clock.device.type, torch.bfloat16, enabled=half):
        loss = torch.stack(list(work.task.losses(batch, 0).terms.values())).sum()
        clock.lap("losses")
    loss.backward()
    clock.lap("backward")
    work.optimizer.step()
    work.optimizer.zero_grad(set_to_none=True)
    clock.lap("optimiser")
    clock.wall.append(time.perf_counter() - start)


def floor_rows(operations: Operations, rates: dict[str, float], clock: Clock) -> list[list[object]]:
    """Rows of the table of floors."""
    forward = {
        "encoder": operations.encoder,
        "dense network": operations.dense,
        "field": operations.field,
    }
    part = {"encoder": "encoder", "dense network": "dense network", "field": "rendering"}
    rows: list[list[object]] = []
    for name, macs in forward.items():
        floor, spent = macs / rates[name], clock.part(part[name])
        rows.append([f"{part[name]}, forward", f"{macs / 1e9:.2f}", *_times(floor, spent)])
    trained = operations.trained
    floor = sum(macs / rates[name] for name, macs in trained.items())
    rows.append(["step", f"{sum(trained.values()) / 1e9:.2f}", *_times(floor, statistics.median(clock.totals()))])
    return rows


def _times(floor: float, spent: float) -> list[str]:
    return [f"{1000 * floor:.0f}", f"{1000 * spent:.0f}", f"{floor / spent:.0%}"]


def report(work: Work, args: argparse.Namespace) -> None:
    """Take the steps and print the tables."""
    device = torch.device(args.device)
    half = device.type == "cuda"
    work.task.to(device).train()
    work = replace(work, batches=[to_device(batch, device) for batch in work.batches])
    first = work.batches[0]
    assert first.rays is not None
    now = time.process_time if device.type == "cpu" and args.threads == 1 else time.perf_counter
    clocks = {which: Clock(device, now) for which in args.kernels}
    size = f"{len(first)} scenes, {len(first.points.xyz)} points, {len(first.rays)} rays"
    parameters = sum(p.numel() for p in work.task.parameters()) / 1e6
    print(f"{machine(args.threads)}\n{args.config}: {size}, {parameters:.1f} M parameters, {args.repeats} rounds")
    peak = math.nan
    for number in range(args.repeats + 1):
        for which, kept in clocks.items():
            batch = work.batches[number % len(work.batches)]
            clock = kept if number else Clock(device, now)  # the first round warms up
            with kernels(which):
                if math.isnan(peak):
                    peak = peak_mb(lambda b=batch, c=clock: step(work, b, c, half), device)
                else:
                    step(work, batch, clock, half)
    names = {"auto": "ms"}
    print(f"\nms{' of CPU time' if now is time.process_time else ''}")
    rows: list[list[object]] = [[name, *(f"{1000 * c.part(name):.0f}" for c in clocks.values())] for name in PARTS]
    rows.append(["step", *(f"{1000 * statistics.median(c.totals()):.0f}" for c in clocks.values())])
    if work.loading is not None:
        rows.append(["loader", f"{1000 * work.loading:.0f}", *[""] * (len(clocks) - 1)])
    table(["", *(names.get(which, which) for which in clocks)], rows)
    if {"compiled", "torch"} <= set(clocks):
        print(f"torch / compiled, a step: {ratio(clocks['torch'].totals(), clocks['compiled'].totals())}")
    one = next(iter(clocks.values()))
    counted = [count(work.task, batch) for batch in work.batches]
    mean = Operations(**{name: statistics.mean(vars(o)[name] for o in counted) for name in vars(counted[0])})
    low = gemm_rate(128, device, torch.bfloat16 if half else torch.float32, now)
    rates = {"encoder": low, "dense network": low, "field": gemm_rate(128, device, clock=now)}
    print(
        f"\nscenes per second: {len(first) / statistics.median(one.wall):.3g} (time passed), peak memory {peak:.0f} MB"
    )
    print(f"\nproducts, at {2 * low / 1e9:.0f} (field: {2 * rates['field'] / 1e9:.0f}) GFLOP/s")
    table(["", "GMAC", "floor, ms", "ms", "share"], floor_rows(mean, rates, one))


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--config", choices=["demo", "indoor", "outdoor"], default="demo")
    options.add_argument("--encoder", choices=["sparse_unet", "voxelnet"], default="sparse_unet", help="of outdoor")
    options.add_argument("--recipe", choices=["rooms", "rooms_semantic"], default="rooms", help="of the demo")
    options.add_argument("--scenes", type=int, help="per step")
    options.add_argument("--threads", type=int, default=1)
    options.add_argument("--repeats", type=int, help="rounds (10; indoor and outdoor on a CPU: 2)")
    options.add_argument("--kernels", nargs="+", choices=["auto", "compiled", "torch", "triton"])
    options.add_argument("--device", default="cpu")
    options.add_argument("--data", type=Path, help="directory with recordings, for --config outdoor")
    options.add_argument("--cache", help="directory that keeps generated rooms")
    options.add_argument("--quick", action="store_true", help="three rounds of the demo, one of the others")
    args = options.parse_args()
    small, cpu = args.config == "demo", args.device == "cpu"
    both: list[Kernels] = ["compiled", "torch"]
    args.kernels = args.kernels or (both if small and cpu else ["auto"])
    args.repeats = args.repeats or (3 if args.quick and small else 10 if small or not cpu else 1 if args.quick else 2)
    torch.set_num_threads(args.threads)
    keep_freed_memory()  # as the commands of ponder3d do
    if args.data is not None and not (args.data / SWEEPS).is_dir():
        options.error(f"--data: no {SWEEPS} in {args.data}")
    with saved(args.save), tempfile.TemporaryDirectory() as temporary:
        if args.config == "outdoor":
            if args.data is None:
                print("generated sweeps: no --data")
            work = outdoor(args.scenes or (1 if cpu else 4), args.data, args.encoder)
        elif small:
            experiment = getattr(pretrain_indoor, args.recipe)()
            work = indoor(experiment, args.scenes or 2, 4, args.cache or temporary)
        else:
            work = indoor(rooms_paper(), args.scenes or (1 if cpu else 8), 1, args.cache or temporary)
        report(work, args)


if __name__ == "__main__":
    main()
