"""Are vectors of a text encoder better targets of semantic rendering than fixed codes?

    python benchmarks/text_targets.py --seeds 0 1 2 [--out runs/text-targets] [--processes 2] [--save]

The demo's pre-training with rendered semantics (``pretrain_indoor.rooms_semantic``, 500 steps, 12 classes), once with
fixed orthonormal codes of 32 numbers and once with what a sentence encoder makes of the classes' names, 384 numbers.
Then the demo's linear probe and fine-tuning from few labels, three trials a seed. mIoU in percent, mean and standard
deviation over the seeds of the means of their trials; gains are differences from the codes, seed by seed.
"""

import statistics
from dataclasses import replace
from pathlib import Path

from measure import machine, parser, saved, table

from ponder3d.config import fingerprint
from ponder3d.data.synthetic.rooms import RoomsConfig, generate
from ponder3d.encoders.files import FILE_NAME
from ponder3d.engine.experiment import Experiment
from ponder3d.engine.jobs import Job, run_jobs
from ponder3d.recipes.demo import DemoConfig, _rooms, finetune_experiment, pretrain_experiments, probe
from ponder3d.tasks.ponder import PonderConfig
from ponder3d.tasks.stored_vectors import StoredVectors
from ponder3d.tasks.text_bert import SentenceText

TRIALS = 3


def pretrainings(config: DemoConfig, file: str) -> dict[str, Experiment]:
    codes = pretrain_experiments(config)["semantic"]
    task = codes.task
    assert isinstance(task, PonderConfig)
    text = replace(codes, task=replace(task, semantics=StoredVectors(file) if file else SentenceText()))
    return {"codes": replace(codes, validate_every=0), "text": replace(text, validate_every=0)}


def transfers(config: DemoConfig, names: list[str]) -> list[Job]:
    out, jobs = Path(config.out), []
    for name in names:
        encoder = str(out / name / FILE_NAME)
        for trial in range(TRIALS):
            tuned = finetune_experiment(config, encoder, trial)
            jobs.append(Job(f"{config.seed}-finetune-{name}-{trial}", out / f"finetune-{name}-{trial}", tuned))
            key = f"{fingerprint(config)}-{encoder}"
            folder = out / f"probe-{name}-{trial}"
            jobs.append(Job(f"{config.seed}-probe-{name}-{trial}", folder, None, probe, (config, encoder, trial), key))
    return jobs


def cell(values: list[float]) -> str:
    return f"{statistics.mean(values):.1f} +- {statistics.stdev(values) if len(values) > 1 else 0.0:.1f}"


def main() -> None:
    made = parser(__doc__)
    made.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    made.add_argument("--steps", type=int, default=500)
    made.add_argument("--out", type=Path, default=Path("runs/text-targets"))
    made.add_argument("--processes", type=int, default=2)
    made.add_argument("--text", default="", help="file of save_class_vectors, where there is no sentence encoder")
    args = made.parse_args()
    configs = [DemoConfig(out=f"{args.out}/{s}", seed=s, pretrain_steps=args.steps, quiet=True) for s in args.seeds]
    with saved(args.save):
        runs, later = [], []
        for config in configs:
            experiments = pretrainings(config, args.text)
            data = experiments["codes"].data
            assert isinstance(data, RoomsConfig)
            for rooms in (data, data.held_out(), _rooms(config), _rooms(config).held_out()):
                generate(rooms, args.processes)
            runs += [Job(f"{config.seed}-{n}", Path(config.out) / n, e) for n, e in experiments.items()]
            later += transfers(config, list(experiments))
        run_jobs(runs, args.processes, "pre-training")
        figures = run_jobs(later, args.processes, "transfer")
        print(machine(1))
        rows = []
        for way in ("probe", "finetune"):
            means = {
                name: [
                    statistics.mean(100 * figures[f"{seed}-{way}-{name}-{trial}"]["miou"] for trial in range(TRIALS))
                    for seed in args.seeds
                ]
                for name in ("codes", "text")
            }
            gains = [t - c for t, c in zip(means["text"], means["codes"], strict=True)]
            rows.append((way, cell(means["codes"]), cell(means["text"]), cell(gains)))
        table(("", "codes", "text", "gain"), rows)


if __name__ == "__main__":
    main()
