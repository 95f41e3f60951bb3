"""Does joint training pay, and do its parts? Generated rooms of three kinds (``recipes/joint_rooms.py``).

    python benchmarks/joint.py --seeds 0 1 2 [--out runs/joint] [--processes 2] [--steps 200] [--save]

Every recipe of ``joint_rooms`` is trained for every seed, which decides the rooms, the order and the initial weights.
``homes``, ``offices`` and ``renders`` are trained by themselves for ``--steps`` steps, and for three times as many
(``longer``): what the joint recipes take, which see each kind of room as often as the first and the second do not.
Figures are mIoU in percent over the 16 test rooms of each kind, one point per voxel, mean and standard deviation over
the seeds; gains are differences seed by seed from the better of alone and alone longer. Interrupted, it goes on where
it was.
"""

import statistics
from dataclasses import replace
from pathlib import Path

from measure import machine, parser, saved, table

from ponder3d.data.joint import JointConfig
from ponder3d.data.synthetic.rooms import RoomsConfig, generate
from ponder3d.engine.experiment import Experiment
from ponder3d.engine.jobs import Job, run_jobs
from ponder3d.recipes import joint_rooms

KINDS = ("homes", "offices", "renders")
JOINT = ("naive", "prompted", "prompted_text")


def experiment(name: str, seed: int, steps: int, cache: str) -> Experiment:
    recipe = getattr(joint_rooms, name)()
    data = recipe.data
    if isinstance(data, JointConfig):
        parts = tuple(replace(part, data=replace(part.data, seed=seed, cache=cache)) for part in data.parts)
        data = replace(data, parts=parts)
    else:
        data = replace(data, seed=seed, cache=cache)
    return replace(recipe, data=data, seed=seed, steps=steps, save_every=steps)


def rooms_of(data: JointConfig | RoomsConfig) -> list[RoomsConfig]:
    parts = [part.data for part in data.parts] if isinstance(data, JointConfig) else [data]
    return [part for part in parts if isinstance(part, RoomsConfig)]


def jobs(seeds: list[int], steps: int, out: Path) -> list[Job]:
    made = []
    for seed in seeds:
        for name in (*KINDS, *JOINT):
            times = {"": 1, "-longer": 3} if name in KINDS else {"": 3}
            for suffix, factor in times.items():
                run = experiment(name, seed, factor * steps, str(out / "rooms"))
                made.append(Job(f"{name}{suffix}-{seed}", out / f"{name}{suffix}-{seed}", run))
    return sorted(made, key=lambda job: -job.experiment.steps if job.experiment else 0)


def cell(values: list[float]) -> str:
    spread = statistics.stdev(values) if len(values) > 1 else 0.0
    return f"{statistics.mean(values):.1f} +- {spread:.1f}"


def gain(values: list[float], base: list[float]) -> str:
    return "+" + cell([v - b for v, b in zip(values, base, strict=True)]) if values is not base else ""


def main() -> None:
    made = parser(__doc__)
    made.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    made.add_argument("--steps", type=int, default=200)
    made.add_argument("--out", type=Path, default=Path("runs/joint"))
    made.add_argument("--processes", type=int, default=2)
    args = made.parse_args()
    with saved(args.save):
        todo = jobs(args.seeds, args.steps, args.out)
        for job in todo:
            if job.name.startswith(("naive",)) and job.experiment is not None:
                for rooms in rooms_of(job.experiment.data):
                    generate(rooms, args.processes)
                    generate(rooms.held_out(), args.processes)
        figures = run_jobs(todo, args.processes, "joint training")
        print(machine(1))

        def of(name: str, kind: str) -> list[float]:
            key = "miou" if name.startswith(KINDS) else f"miou/{kind}"
            return [100 * figures[f"{name}-{seed}"][key] for seed in args.seeds]

        rows = []
        for title in ("alone", "alone, longer", *JOINT):
            row = [title]
            for kind in KINDS:
                own = {"alone": kind, "alone, longer": f"{kind}-longer"}
                values = of(own.get(title, title), kind)
                base = [max(pair) for pair in zip(of(kind, kind), of(f"{kind}-longer", kind), strict=True)]
                row += [
                    cell(values),
                    "" if title in own else f"{cell([v - b for v, b in zip(values, base, strict=True)])}",
                ]
            rows.append(row)
        table(("", *(word for kind in KINDS for word in (kind, "gain"))), rows)


if __name__ == "__main__":
    main()
