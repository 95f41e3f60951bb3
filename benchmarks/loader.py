"""What it takes to feed 8 scenes of 5 views from prepared files, beside a step of the demo.

    python benchmarks/loader.py [--repeats 5] [--quick] [--save]

Scenes are drawn, verified and decoded, go through the transforms of ``pretrain_rgbd.prepared`` with 5 views of 256
rays, and are packed. Times are of one core and of this process alone, from the page cache, one thread for either side;
loader processes share the work. The step is that of ``pretrain_indoor.rooms`` with 2 rooms.
"""

import statistics
import tempfile
import time
from pathlib import Path

import torch
from measure import machine, milliseconds, parser, saved, table
from step import Clock, indoor, step
from storage import write

from ponder3d.data.loader import Collate, KeyedScenes
from ponder3d.data.prepared.dataset import PreparedConfig
from ponder3d.data.transforms import PickRays
from ponder3d.engine.memory import keep_freed_memory
from ponder3d.recipes import pretrain_indoor, pretrain_rgbd

SIZES = {
    "as the demo's rooms": (30_000, (120, 160), 0),
    "as ScanNet, prepared at 320": (150_000, (240, 320), 0),
    "as ScanNet, read at 320": (150_000, (480, 640), 320),
}
"""Points of a scene, (height, width) of its 40 images as they are kept, and the longer side that they are read at."""
BATCH = 8


def feeding(root: Path, max_side: int, repeats: int) -> dict[str, list[float]]:
    """Seconds of the parts of a batch, by part."""
    experiment = pretrain_rgbd.prepared()
    transforms = [PickRays(5, 256) if isinstance(t, PickRays) else t for t in experiment.transforms]
    config = PreparedConfig(root=str(root), views=5, max_side=max_side)
    data, collate = config.build(), Collate(experiment.task.encoder.inputs)
    whole = KeyedScenes(data, experiment.on_grid(tuple(transforms)), 0)
    bare = KeyedScenes(data, (), 0)
    parts: dict[str, list[float]] = {"reading": [], "transforms": [], "packing": []}
    for number in range(-1, repeats):  # the first round fills the caches
        draws = [(number + 1, scene) for scene in range(BATCH)]
        marks = [time.process_time()]
        for draw in draws:
            bare[draw]
        marks.append(time.process_time())
        scenes = [whole[draw] for draw in draws]
        marks.append(time.process_time())
        collate(scenes)
        marks.append(time.process_time())
        read, both, packed = (after - before for before, after in zip(marks, marks[1:], strict=False))
        if number >= 0:
            for name, seconds in zip(parts, (read, both - read, packed), strict=True):
                parts[name].append(seconds)
    return parts


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--repeats", type=int, default=5)
    options.add_argument("--quick", action="store_true", help="one round")
    args = options.parse_args()
    repeats = 1 if args.quick else args.repeats
    torch.set_num_threads(1)
    keep_freed_memory()
    with saved(args.save), tempfile.TemporaryDirectory() as folder:
        print(machine(1))
        work = indoor(pretrain_indoor.rooms(), 2, 2, f"{folder}/rooms")
        clock = Clock(torch.device("cpu"), time.process_time)
        for number in range(repeats + 1):
            step(work, work.batches[number % len(work.batches)], clock, half=False)
        of_step = statistics.median(clock.totals()[1:])
        rows = []
        for name, (points, size, max_side) in SIZES.items():
            root = Path(folder) / name
            write(root, BATCH, 40, points, size)
            parts = feeding(root, max_side, repeats)
            total = sum(statistics.median(times) for times in parts.values())
            columns = [f"{milliseconds(times):.0f}" for times in parts.values()]
            rows.append([name, *columns, f"{1000 * total:.0f}", f"{total / of_step:.2f}"])
        print(f"\nstep of the demo: {1000 * of_step:.0f} ms\n")
        table(["8 scenes of 5 views", "reading, ms", "transforms", "packing", "all", "of the step"], rows)


if __name__ == "__main__":
    main()
