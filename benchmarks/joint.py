"""Does joint training pay, and do its parts? Generated rooms of three kinds (``recipes/joint_rooms.py``).

    python benchmarks/joint.py --seeds 0 1 2 [--out runs/joint] [--processes 2] [--steps 400] [--batch-size 4] [--save]

Every recipe of ``joint_rooms`` is trained for every seed, which decides the rooms, the order and the initial weights,
and all for the same number of steps: rooms that are trained on by themselves are seen three times as often as in the
joint recipes. Figures are mIoU in percent over the 16 test rooms of each kind, one point per voxel, mean and standard
deviation over the seeds; gains are differences seed by seed from training on the kind alone. Interrupted, it goes on
where it was.
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
from ponder3d.tasks.heads import LanguageHeadConfig
from ponder3d.tasks.semseg import SemSegConfig
from ponder3d.tasks.stored_vectors import StoredVectors

KINDS = ("homes", "offices", "renders")
JOINT = ("naive", "prompted", "prompted_codes", "prompted_text")


def experiment(name: str, seed: int, steps: int, cache: str, text: str = "", batch_size: int = 0) -> Experiment:
    recipe = getattr(joint_rooms, name)()
    if text and name == "prompted_text":
        task = recipe.task
        assert isinstance(task, SemSegConfig) and isinstance(task.head, LanguageHeadConfig)
        recipe = replace(recipe, task=replace(task, head=replace(task.head, vectors=StoredVectors(text))))
    data = recipe.data
    if isinstance(data, JointConfig):
        parts = tuple(replace(part, data=replace(part.data, seed=seed, cache=cache)) for part in data.parts)
        data = replace(data, parts=parts)
    else:
        data = replace(data, seed=seed, cache=cache)
    batch_size = batch_size or recipe.batch_size
    return replace(recipe, data=data, seed=seed, steps=steps, batch_size=batch_size, save_every=steps)


def rooms_of(data: JointConfig | RoomsConfig) -> list[RoomsConfig]:
    parts = [part.data for part in data.parts] if isinstance(data, JointConfig) else [data]
    return [part for part in parts if isinstance(part, RoomsConfig)]


def jobs(seeds: list[int], steps: int, out: Path, text: str, batch_size: int) -> list[Job]:
    cache = str(out / "rooms")
    return [
        Job(f"{name}-{seed}", out / f"{name}-{seed}", experiment(name, seed, steps, cache, text, batch_size))
        for seed in seeds
        for name in (*JOINT, *KINDS)
    ]


def cell(values: list[float]) -> str:
    spread = statistics.stdev(values) if len(values) > 1 else 0.0
    return f"{statistics.mean(values):.1f} +- {spread:.1f}"


def main() -> None:
    made = parser(__doc__)
    made.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    made.add_argument("--steps", type=int, default=400)
    made.add_argument("--batch-size", type=int, default=0, help="rooms per step; 0: those of the recipes, 4")
    made.add_argument("--out", type=Path, default=Path("runs/joint"))
    made.add_argument("--processes", type=int, default=2)
    made.add_argument("--text", default="", help="file of save_class_vectors, where there is no sentence encoder")
    args = made.parse_args()
    with saved(args.save):
        todo = jobs(args.seeds, args.steps, args.out, args.text, args.batch_size)
        for seed in args.seeds:
            for rooms in rooms_of(experiment("naive", seed, args.steps, str(args.out / "rooms")).data):
                generate(rooms, args.processes)
                generate(rooms.held_out(), args.processes)
        figures = run_jobs(todo, args.processes, "joint training")
        print(machine(1))

        alone = {kind: [100 * figures[f"{kind}-{seed}"]["miou"] for seed in args.seeds] for kind in KINDS}
        rows = [("alone", *(word for kind in KINDS for word in (cell(alone[kind]), "")))]
        for name in JOINT:
            row = [name]
            for kind in KINDS:
                values = [100 * figures[f"{name}-{seed}"][f"miou/{kind}"] for seed in args.seeds]
                row += [cell(values), cell([v - b for v, b in zip(values, alone[kind], strict=True)])]
            rows.append(tuple(row))
        table(("", *(word for kind in KINDS for word in (kind, "gain"))), rows)


if __name__ == "__main__":
    main()
