"""What does a step of pre-training cost on a CPU, and where does the time go?

    python benchmarks/step.py [--recipe rooms] [--threads 1] [--repeats 10] [--quick]

The task of ``pretrain_indoor.RECIPE`` on two generated rooms. ``compiled`` and ``torch`` are the two ways of computing
sparse convolutions on a CPU (``ponder3d.geometry.kernels``); their steps alternate, and the ratio is taken round by
round. Parts are CPU time of all threads, so that waiting for other jobs does not count; medians over the rounds.
``loader`` is the time that both scenes of a batch take to be read and transformed, which a loader process may hide.
"""

import argparse
import statistics
import tempfile
import time
from dataclasses import dataclass, field, replace

import torch
from measure import machine, ratio, table

from ponder3d.data.loader import Collate, KeyedScenes
from ponder3d.data.synthetic.rooms import RoomsConfig
from ponder3d.engine.experiment import Experiment
from ponder3d.geometry.kernels import Kernels, kernels
from ponder3d.recipes import pretrain_indoor
from ponder3d.render.renderer import clip_rays, render
from ponder3d.tasks.ponder import Ponder
from ponder3d.types import Batch

SCENES = 2


@dataclass
class Clock:
    """CPU seconds of the parts of steps."""

    parts: dict[str, list[float]] = field(default_factory=dict)

    def lap(self, name: str) -> None:
        """Note the time since the last lap as that of a part."""
        now = time.process_time()
        self.parts.setdefault(name, []).append(now - self._last)
        self._last = time.process_time()

    def start(self) -> None:
        """Begin a step."""
        self._last = time.process_time()


def batches(experiment: Experiment, cache: str, num: int) -> tuple[list[Batch], float]:
    """Some batches, and the median CPU seconds that one took."""
    assert isinstance(experiment.data, RoomsConfig)
    data = replace(experiment.data, num_rooms=2 * SCENES, cache=cache)
    scenes = KeyedScenes(data.build(), experiment.on_grid(experiment.transforms), 0)
    for row in range(2 * SCENES):  # made once; reading is what a run does
        scenes[0, row]
    made, seconds = [], []
    for number in range(num):
        start = time.process_time()
        rows = range(number % 2 * SCENES, (number % 2 + 1) * SCENES)
        made.append(Collate(experiment.task.encoder.inputs)([scenes[number, row] for row in rows]))
        seconds.append(time.process_time() - start)
    return made, statistics.median(seconds)


def step(task: Ponder, optimizer: torch.optim.Optimizer, batch: Batch, clock: Clock) -> None:
    """A step, and beside it its forward parts once more without gradients, to time them."""
    with torch.no_grad():
        clock.start()
        features = task.encoder(task.mask(batch))
        clock.lap("encoder, forward")
        del features
        volume = task.volume(batch)
        clock.lap("encoder and volume, forward")
        assert batch.rays is not None
        rays = clip_rays(batch.rays, volume.grid).every(task.config.render_every)
        render(task.field, volume, rays, task.config.render, batch.keys)
        clock.lap("rendering, forward")
        del volume
    clock.start()
    loss = torch.stack(list(task.losses(batch, 0).terms.values())).sum()
    clock.lap("losses")
    loss.backward()
    clock.lap("backward")
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    clock.lap("optimiser")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--recipe", choices=["rooms", "rooms_semantic"], default="rooms")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--quick", action="store_true", help="three rounds")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    repeats = 3 if args.quick else args.repeats
    experiment = getattr(pretrain_indoor, args.recipe)()
    with tempfile.TemporaryDirectory() as cache:
        made, loading = batches(experiment, cache, 4)
        labels = experiment.data.build().labels
    torch.manual_seed(0)
    task = experiment.task.build(labels)
    assert isinstance(task, Ponder)
    optimizer = experiment.optim.build(task)
    task.train()
    print(f"{machine(args.threads)}\n{len(made[0].points.xyz)} points, {repeats} rounds, ms of CPU time")
    choices: tuple[Kernels, Kernels] = ("compiled", "torch")
    clocks = {which: Clock() for which in choices}
    for number in range(repeats + 1):
        for which in choices:
            clock = clocks[which] if number else Clock()  # the first round warms up
            with kernels(which):
                step(task, optimizer, made[number % len(made)], clock)
    names = list(clocks["compiled"].parts)
    rows = [[name, *(f"{1000 * statistics.median(clocks[w].parts[name]):.0f}" for w in choices)] for name in names]
    counted = ("losses", "backward", "optimiser")
    whole = {w: [sum(laps) for laps in zip(*(clocks[w].parts[n] for n in counted), strict=True)] for w in choices}
    rows.append(["step", *(f"{1000 * statistics.median(whole[w]):.0f}" for w in choices)])
    rows.append(["loader", f"{1000 * loading:.0f}", ""])
    table(["", *choices], rows)
    print(f"\ntorch / compiled, a step: {ratio(whole['torch'], whole['compiled'])}")


if __name__ == "__main__":
    main()
