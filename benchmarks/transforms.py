"""How fast are voxels, grid sampling, test-time fragments, and the transforms of a training scene?

    python benchmarks/transforms.py [--quick] [--data DIR] [--repeats 7] [--save]

One core. Clouds: a generated room, turned as ``Rotate`` does, in the order in which it was stored and in random order;
with ``--data`` a recorded kitchen. Voxels of 2 cm. Colours, normals, labels (a third of the points has none) and
instances are random numbers: what is done with them does not depend on them, but for the labels.

    voxelize     points to sorted voxels, counts, each point's voxel, and their order by voxel
    GridSample   voxelize, one labelled point of each, all five columns of it
    fragments    voxelize, and the rows of every fragment, one point of each voxel at a time

    compiled     ``kernels("auto")`` with a compiler
    torch        ``kernels("torch")``: without one, and the reference for the results
    plain        what one writes first: ``torch.unique``, a stable sort of its rows, indexing; no check of the range

All three give the same points before anything is timed. The target is 5 million points per second, compiled. A rate is
the points of the cloud over the time, whatever comes out; ms are of CPU time, medians; ratios are those of neighbouring
calls, with quartiles.

The floor, in bytes of memory traffic for each of N points in M = N / 3 voxels, and its ms at 10 GB/s for a million:

    keys         12 of xyz, 8 of the scene, 8 written                                    28
    words        8 read to find the box of cells, 8 read, 8 written                      24
    sorting      24 in each pass (counted, read, written); a room has 24 bits: 3 passes  72
    places       8 read twice, order and voxel written                                   32
    voxels       keys and counts, written and copied, and coordinates: M x 88            29   voxelize      19 ms
    choosing     8 of order, 10 for the labels; the random numbers and rows: M x 12      22
    columns      M x 52 read in lines of 64 bytes of which a part is used, M x 52       90   GridSample    30 ms
    a fragment   order, counts and rows, M x 24, and N / 4 for its bits                   8   13 fragments  30 ms

Operations: about 10 a point for its key, 6 in each pass, 10 for places: 40, which at two a nanosecond are 20 ms. They
overlap with the traffic in part.
"""

import functools
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from clouds import SCAN, room, scan
from measure import alternate, machine, milliseconds, parser, ratio, saved, table, timed, verdict
from torch import Tensor

from ponder3d.data.synthetic.rooms import RoomsConfig
from ponder3d.data.transforms import GridSample, Transform
from ponder3d.engine.experiment import Experiment
from ponder3d.engine.memory import keep_freed_memory
from ponder3d.geometry import keyed
from ponder3d.geometry.compiled_grid import LIBRARY
from ponder3d.geometry.grid import fragments, voxelize
from ponder3d.geometry.kernels import kernels
from ponder3d.geometry.transforms import rotation_about
from ponder3d.recipes import pretrain_rgbd, semseg
from ponder3d.types import Scene

SIZE, TARGET = 0.02, 5.0
KEY = (1, 2, 3)
COLUMNS = ("xyz", "rgb", "normal", "labels", "instances")


def scene_of(xyz: Tensor, shuffled: bool) -> Scene:
    """A scene with all columns, turned, of about the given points."""
    torch.manual_seed(0)
    xyz = xyz @ rotation_about("z", 0.5).T
    num = len(xyz)
    if shuffled:
        xyz = xyz[torch.randperm(num)]
    labels = torch.randint(20, (num,)).where(torch.rand(num) < 2 / 3, -1)
    normal = torch.nn.functional.normalize(torch.randn(num, 3), dim=1)
    return Scene(xyz.contiguous(), torch.rand(num, 3), normal, "", labels, torch.randint(50, (num,)))


@dataclass(frozen=True)
class Plain:
    """The three operations in the words one first thinks of."""

    scene: Scene

    def voxelize(self) -> tuple[Tensor, Tensor, Tensor]:
        """Coordinates, each point's voxel, counts."""
        cells = torch.floor(self.scene.xyz / SIZE).to(torch.int64)
        wide = 1 << 20
        flat = ((cells[:, 0] + wide // 2) * wide + cells[:, 1] + wide // 2) * wide + cells[:, 2] + wide // 2
        _, voxel, counts = torch.unique(flat, return_inverse=True, return_counts=True)
        return cells, voxel, counts

    def grid_sample(self) -> Scene:
        """As ``GridSample`` draws."""
        _, voxel, counts = self.voxelize()
        scene = self.scene
        assert scene.labels is not None
        labelled = scene.labels >= 0
        num = torch.zeros_like(counts).index_add_(0, voxel, labelled.to(torch.int64))
        choices = torch.where(num > 0, num, counts)
        order = torch.argsort(voxel * 2 + ~labelled, stable=True)
        pick = (torch.rand(len(counts), generator=keyed.generator(*KEY)) * choices).to(torch.int64)
        rows = order[counts.cumsum(0) - counts + torch.minimum(pick, choices - 1)]
        return replace(scene, **{name: getattr(scene, name)[rows] for name in COLUMNS})

    def fragments(self) -> list[Tensor]:
        """Rows of all of them."""
        _, voxel, counts = self.voxelize()
        order = torch.argsort(voxel, stable=True)
        first = counts.cumsum(0) - counts
        return [order[first + turn % counts].sort().values for turn in range(int(counts.max()))]


def operations(scene: Scene) -> dict[str, Callable[[], object]]:
    """The library's."""
    zero = torch.zeros(len(scene.xyz), dtype=torch.int64)
    return {
        "voxelize": lambda: voxelize(scene.xyz, zero, SIZE),
        "GridSample": lambda: GridSample(SIZE)(scene, keyed.generator(*KEY)),
        "fragments": lambda: list(fragments(scene.xyz, zero, SIZE)),
    }


def within(which: str, call: Callable[[], object]) -> object:
    with kernels(which):  # type: ignore[arg-type]
        return call()


def check(scene: Scene) -> tuple[int, int]:
    """All ways give the same; number of voxels and of fragments."""
    plain, zero = Plain(scene), torch.zeros(len(scene.xyz), dtype=torch.int64)
    cells, voxel, counts = plain.voxelize()
    sampled, parts = plain.grid_sample(), plain.fragments()
    for which in ("auto", "torch"):
        with kernels(which):
            found = voxelize(scene.xyz, zero, SIZE)
            points = GridSample(SIZE)(scene, keyed.generator(*KEY))
            rows = list(fragments(scene.xyz, zero, SIZE))
        same = [torch.equal(found.voxel, voxel), torch.equal(found.counts, counts)]
        same += [
            torch.equal(found.coords[found.voxel, 1:], cells),
            torch.equal(found.order, voxel.argsort(stable=True)),
        ]
        same += [torch.equal(getattr(points, name), getattr(sampled, name)) for name in COLUMNS]
        same += [len(rows) == len(parts), *(torch.equal(a, b) for a, b in zip(rows, parts, strict=True))]
        if not all(same):
            raise SystemExit(f"kernels({which!r}) and plain PyTorch give different points")
    return len(counts), len(parts)


def measure_grid(name: str, scene: Scene, repeats: int) -> list[list[object]]:
    num_voxels, num_fragments = check(scene)
    plain, num = Plain(scene), len(scene.xyz)
    beside = {"voxelize": plain.voxelize, "GridSample": plain.grid_sample, "fragments": plain.fragments}
    rows: list[list[object]] = []
    for label, call in operations(scene).items():
        calls: dict[str, Callable[[], object]] = {
            "compiled": functools.partial(within, "auto", call),
            "torch": functools.partial(within, "torch", call),
            "plain": beside[label],
        }
        seconds = alternate({key: timed(run, clock=time.process_time) for key, run in calls.items()}, repeats)
        ms = {key: milliseconds(values) for key, values in seconds.items()}
        rates = {key: num / 1e3 / value for key, value in ms.items()}
        title = label if label != "fragments" else f"{num_fragments} fragments"
        speeds: list[object] = [ratio(seconds[other], seconds["compiled"]) for other in ("torch", "plain")]
        numbers = [*(f"{value:.1f}" for value in ms.values()), *(f"{value:.1f}" for value in rates.values())]
        cloud = f"{name}: {num} points, {num_voxels} voxels"
        rows.append([cloud, title, *numbers, *speeds, verdict(rates["compiled"] >= TARGET)])
    return rows


def measure_chain(name: str, experiment: Experiment, scene: Scene, repeats: int) -> list[list[object]]:
    """ms of every transform of a recipe, each scene drawn to be transformed: probabilities are 1."""
    steps = [step.on_grid(experiment.task.encoder.grid_size) for step in experiment.transforms]  # type: ignore[attr-defined]
    steps = [replace(step, probability=1.0) if hasattr(step, "probability") else step for step in steps]  # type: ignore[type-var]  # dataclasses, all of them
    rows: list[list[object]] = []
    totals = {"compiled": 0.0, "torch": 0.0}
    for number, step in enumerate(steps):
        calls = {
            "compiled": functools.partial(within, "auto", functools.partial(run, step, scene, number)),
            "torch": functools.partial(within, "torch", functools.partial(run, step, scene, number)),
        }
        seconds = alternate({key: timed(call, clock=time.process_time) for key, call in calls.items()}, repeats)
        ms = {key: milliseconds(values) for key, values in seconds.items()}
        totals = {key: totals[key] + ms[key] for key in totals}
        rows.append([name, type(step).__name__, len(scene.xyz), *(f"{value:.1f}" for value in ms.values())])
        scene = run(step, scene, number)
    return [*rows, [name, "all", len(scene.xyz), *(f"{value:.1f}" for value in totals.values())]]


def run(step: Transform, scene: Scene, number: int) -> Scene:
    return step(scene, keyed.generator(*KEY, number))


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--data", type=Path, help="directory of recordings, see clouds.py")
    options.add_argument("--repeats", type=int, default=7)
    options.add_argument("--quick", action="store_true", help="a smaller room and three rounds: under a minute")
    args = options.parse_args()
    repeats = 3 if args.quick else args.repeats
    torch.set_num_threads(1)
    keep_freed_memory()
    with saved(args.save):
        compiler = "with" if LIBRARY.available else "without"
        print(f"{machine(1)}\n{compiler} a compiler, {repeats} rounds")
        xyz = room(0.01 if args.quick else 0.005)
        cases = {"room": scene_of(xyz, False), "room, shuffled": scene_of(xyz, True)}
        if args.data and (args.data / SCAN).is_dir():
            cases["7-Scenes"] = scene_of(scan(args.data), False)
        else:
            print("no recording: --data DIR with 7-Scenes in it")
        rows = [row for name, scene in cases.items() for row in measure_grid(name, scene, repeats)]
        head = ["cloud", "", "ms: compiled", "torch", "plain", "million points/s: compiled", "torch", "plain"]
        table([*head, "torch / compiled", "plain / compiled", f">= {TARGET:g}"], rows)
        print()
        recipes = {"semseg.rooms_paper": semseg.rooms_paper(), "pretrain_rgbd.folder": pretrain_rgbd.folder()}
        sizes = [(150_000, 0.01)] if args.quick else [(150_000, 0.01), (8_000_000, 0.005)]
        chains: list[list[object]] = []
        for most, spacing in sizes:
            scene = RoomsConfig(num_rooms=1, max_points=most, cloud_spacing=spacing).build()[0]
            for name, experiment in recipes.items():
                chains += measure_chain(name, experiment, scene, repeats)
        table(["recipe", "transform", "points", "ms: compiled", "torch"], chains)


if __name__ == "__main__":
    main()
