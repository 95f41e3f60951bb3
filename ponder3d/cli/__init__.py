"""The command line, on the functions of the Python API: see ``USAGE``.

Exit codes: 0 done, 143 preempted (saved, can be resumed), 2 usage, 3 bad data, 4 too many non-finite steps, 5 storage,
1 anything else, such as a loader process that was killed; 130 interrupted at once.
"""

import itertools
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from ponder3d.cli import compare, data, features, reproduce, results
from ponder3d.cli.convert import convert
from ponder3d.cli.results import import_all, print_figures
from ponder3d.data.dataset import DataError
from ponder3d.engine.checkpoint import CheckpointStore, NoCheckpointError
from ponder3d.engine.estimate import LONG, TooLargeError, estimate, is_long
from ponder3d.engine.evaluate import evaluate
from ponder3d.engine.experiment import Experiment
from ponder3d.engine.loop import LoaderError, NonFiniteError, PreemptedError, resume_experiment, train
from ponder3d.engine.memory import keep_freed_memory
from ponder3d.recipes import demo as demo_recipe
from ponder3d.recipes.catalogue import find_recipe, list_recipes
from ponder3d.report.compare_page import write_compare_page
from ponder3d.report.demo_page import write_demo_page
from ponder3d.report.run_page import write_run_page

USAGE = """\
usage: ponder3d COMMAND [options]; COMMAND --help explains them

  demo       generate rooms, pre-train by rendering, and measure what it is good for: 10 minutes on two CPU cores

  doctor     look a dataset or your own recordings over: a table, a page with pictures, a list of what to leave out
  prepare    read a dataset as it was downloaded, once, and keep it ready to train on: prepare scannet RAW OUT
  shard      put prepared scenes together in large files, to be streamed from object storage

  features   what a 2D model says of every image, as a target to render: features DIR --backbone MODULE:FUNCTION

  train      run a recipe: ponder3d train pretrain_rgbd.folder --data.root DIR --out RUN, or continue one: --resume RUN
  estimate   what a recipe takes on this machine: time, memory, disk; options as for train
  recipes    list the recipes
  evaluate   figures of a run on views and scenes it has never seen
  report     a page about a run or a demo, with pictures and curves

  compare    does pre-training pay? methods beside each other at equal budgets: compare semseg.rooms_full --labels 10%
  reproduce  run a row of docs/numbers.md again: inside or outside its band

  encode     features of point clouds, as numbers and as a picture: encode RUN/encoder.safetensors CLOUD.ply
  convert    released weights of PonderV2 and Pointcept (.pth) as an encoder file: convert FILE.pth OUT.safetensors
  info       what an encoder reads, gives and was trained on: info RUN/encoder.safetensors
  predict    the class of every point of a run's validation scenes, as files, also those of the ScanNet benchmark
  score      figures of saved predictions
"""


@dataclass(frozen=True)
class TrainOptions:
    """Options of ``ponder3d train``."""

    experiment: Annotated[Experiment, tyro.conf.arg(name="")]
    """The recipe; every field is an option."""
    out: str
    """Directory of the run."""


@dataclass(frozen=True)
class RunOptions:
    """Options of ``ponder3d evaluate``, ``ponder3d report`` and ``ponder3d train --resume``."""

    run: Annotated[str, tyro.conf.Positional]
    """Directory of a run (or of a demo, for the report)."""
    modules: Annotated[tuple[str, ...], tyro.conf.arg(name="import"), tyro.conf.UseAppendAction] = ()
    """Module of your own with a dataset, an encoder or a task that the run uses; may be given several times."""


@dataclass(frozen=True)
class EvaluateOptions:
    """Figures of a run on its validation scenes."""

    run: Annotated[RunOptions, tyro.conf.arg(name="")]
    augment: str = ""
    """For segmentation: sum over a set of augmentations, scannet, scannet200 or s3dis, and score every point."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit code and prints errors in one line."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    commands: dict[str, Callable[[list[str]], int]] = {
        "demo": _demo,
        "compare": compare.compare,
        "reproduce": lambda words: reproduce.reproduce(words, main),
        "train": _train,
        "estimate": _estimate,
        "evaluate": _evaluate,
        "report": _report,
        "recipes": _recipes,
        "prepare": data.prepare,
        "doctor": data.doctor,
        "shard": data.shard,
        "features": features.features,
        "encode": results.encode,
        "convert": convert,
        "info": results.info,
        "predict": results.predict,
        "score": results.score,
    }
    if not arguments or arguments[0] in ("-h", "--help"):
        print(USAGE)
        return 0
    if arguments[0] not in commands:
        print(f"ponder3d: no command {arguments[0]!r}\n\n{USAGE}", file=sys.stderr)
        return 2
    keep_freed_memory()
    try:
        return commands[arguments[0]](arguments[1:])
    except SystemExit as stop:  # tyro has printed what is wrong, or the help
        return stop.code if isinstance(stop.code, int) else 2
    except PreemptedError as error:
        return _fail(error, 143)
    except DataError as error:
        return _fail(error, 3)
    except NonFiniteError as error:
        return _fail(error, 4)
    except (NoCheckpointError, ValueError) as error:
        return _fail(error, 2)
    except OSError as error:
        return _fail(error, 5)
    except LoaderError as error:
        return _fail(error, 1)
    except KeyboardInterrupt:
        return _fail("interrupted; a run goes on with ponder3d train --resume RUN, a demo with the same command", 130)


def _train(arguments: list[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help"):
        print("usage: ponder3d train RECIPE --out RUN [options], or ponder3d train --resume RUN [--import MODULE]\n")
        print("RECIPE --help lists the options of a recipe. Recipes:")
        return _recipes([])
    if arguments[0] == "--resume":
        run = _run(arguments[1:], "train --resume", "Continue a run as it was started.")
        result = train(resume_experiment(run), run, resume=True)
    else:
        options = _train_options("train", arguments)
        if is_long(options.experiment) and not CheckpointStore(Path(options.out) / "checkpoints").steps():
            _tell_what_it_takes(options)
        result = train(options.experiment, options.out)
    if result.leads:
        print_figures(result.figures)
        print(f"\nrun: {result.out}   encoder: {result.out / 'encoder.safetensors'}")
    return 0


def _estimate(arguments: list[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help"):
        print("usage: ponder3d estimate RECIPE [options]: what ponder3d train RECIPE [options] takes on this machine\n")
        print("A few steps are taken and thrown away. RECIPE --help lists the options of a recipe. Recipes:")
        return _recipes([])
    options = _train_options("estimate", arguments)
    print("\n".join(estimate(options.experiment).lines(options.out)))
    return 0


def _train_options(command: str, arguments: list[str]) -> TrainOptions:
    recipe = find_recipe(arguments[0])
    return tyro.cli(
        TrainOptions,
        default=TrainOptions(recipe(), out=f"runs/{arguments[0]}"),
        args=arguments[1:],
        prog=f"ponder3d {command} {arguments[0]}",
        description=recipe.__doc__,
    )


def _tell_what_it_takes(options: TrainOptions) -> None:
    """Before a long run; on the first of its processes alone."""
    if any(os.environ.get(name, "0") != "0" for name in ("RANK", "LOCAL_RANK")):
        return
    try:
        needed = estimate(options.experiment)
    except TooLargeError as error:  # the run will say so too, if it is true for it
        print(f"ponder3d: {error}", file=sys.stderr)
        return
    if needed.total_seconds > LONG or len(needed.lines(options.out)) > 2:
        print("\n".join(f"ponder3d: {line}" for line in needed.lines(options.out)), file=sys.stderr)


def _evaluate(arguments: list[str]) -> int:
    options = tyro.cli(EvaluateOptions, args=arguments, prog="ponder3d evaluate")
    import_all(options.run.modules)
    print_figures(evaluate(options.run.run, augment=options.augment))
    return 0


def _report(arguments: list[str]) -> int:
    run = _run(arguments, "report", "A page about a run or demo.")
    if compare.is_comparison(run):
        print(write_compare_page(run))
    else:
        print(write_demo_page(run) if demo_recipe.is_demo(run) else write_run_page(run))
    return 0


def _demo(arguments: list[str]) -> int:
    options = tyro.cli(
        demo_recipe.DemoConfig, args=arguments, prog="ponder3d demo", description=demo_recipe.DemoConfig.__doc__
    )
    table = demo_recipe.run_demo(options)
    page = write_demo_page(options.out)
    print(table)
    print(f"\nreport: {page}")
    return 0


def _recipes(arguments: list[str]) -> int:
    if arguments:
        raise ValueError("ponder3d recipes takes no options")
    found = list_recipes()
    for module, names in itertools.groupby(found, lambda name: name.rpartition(".")[0]):
        of_module = list(names)
        width = max(len(name) for name in of_module)
        print(f"\n{module}: {_first_line(sys.modules[found[of_module[0]].__module__])}\n")
        for name in of_module:
            print(f"  {name:<{width}}  {_first_line(found[name])}")
    return 0


def _first_line(documented: object) -> str:
    return (documented.__doc__ or "").strip().splitlines()[0]


def _run(arguments: list[str], command: str, description: str) -> str:
    """The run that a command is about; imports what it is said to need, as reading a run never does by itself."""
    options = tyro.cli(RunOptions, args=arguments, prog=f"ponder3d {command}", description=description)
    import_all(options.modules)
    return options.run


def _fail(error: object, code: int) -> int:
    print(f"ponder3d: {error}", file=sys.stderr)
    return code
