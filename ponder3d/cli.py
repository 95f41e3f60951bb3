"""The command line: ``ponder3d demo | train | evaluate | report | recipes``, on the functions of the Python API.

Exit codes: 0 done, 143 preempted (saved, can be resumed), 2 usage, 3 bad data, 4 too many non-finite steps, 5 storage.
"""

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated

import tyro

from ponder3d.config import ConfigError
from ponder3d.data.dataset import DataError
from ponder3d.encoders.files import EncoderFileError
from ponder3d.engine.evaluate import evaluate
from ponder3d.engine.experiment import Experiment
from ponder3d.engine.loop import NonFiniteError, PreemptedError, resume_experiment, train
from ponder3d.recipes import demo as demo_recipe
from ponder3d.recipes.catalogue import find_recipe, list_recipes
from ponder3d.report.demo_page import write_demo_page
from ponder3d.report.run_page import write_run_page

USAGE = """\
usage: ponder3d COMMAND [options]; COMMAND --help explains them

  demo       generate rooms, pre-train by rendering, and measure what it is good for: 10 minutes on two CPU cores
  train      run a recipe: ponder3d train pretrain_rgbd.folder --data.root DIR --out RUN, or continue one: --resume RUN
  evaluate   figures of a run on views and scenes it has never seen
  report     a page about a run or a demo, with pictures and curves
  recipes    list the recipes
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
    """Options of ``ponder3d evaluate`` and ``ponder3d report``."""

    run: Annotated[str, tyro.conf.Positional]
    """Directory of a run (or of a demo, for the report)."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit code and prints errors in one line."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    commands: dict[str, Callable[[list[str]], int]] = {
        "demo": _demo,
        "train": _train,
        "evaluate": _evaluate,
        "report": _report,
        "recipes": _recipes,
    }
    if not arguments or arguments[0] in ("-h", "--help"):
        print(USAGE)
        return 0
    if arguments[0] not in commands:
        print(f"ponder3d: no command {arguments[0]!r}\n\n{USAGE}", file=sys.stderr)
        return 2
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
    except (ConfigError, EncoderFileError, ValueError) as error:
        return _fail(error, 2)
    except OSError as error:
        return _fail(error, 5)
    except KeyboardInterrupt:
        return _fail("interrupted; run the same command again to continue", 130)


def _train(arguments: list[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help"):
        print("usage: ponder3d train RECIPE --out RUN [options], or ponder3d train --resume RUN\n")
        print("RECIPE --help lists the options of a recipe. Recipes:")
        return _recipes([])
    if arguments[0] == "--resume":
        if len(arguments) != 2:
            raise ValueError("ponder3d train --resume takes the directory of a run, and nothing else")
        result = train(resume_experiment(arguments[1]), arguments[1], resume=True)
    else:
        recipe = find_recipe(arguments[0])
        options = tyro.cli(
            TrainOptions,
            default=TrainOptions(recipe(), out=f"runs/{arguments[0]}"),
            args=arguments[1:],
            prog=f"ponder3d train {arguments[0]}",
            description=recipe.__doc__,
        )
        result = train(options.experiment, options.out)
    _print_figures(result.figures)
    print(f"\nrun: {result.out}   encoder: {result.out / 'encoder.safetensors'}")
    return 0


def _evaluate(arguments: list[str]) -> int:
    options = tyro.cli(RunOptions, args=arguments, prog="ponder3d evaluate", description="Figures of a run.")
    _print_figures(evaluate(options.run))
    return 0


def _report(arguments: list[str]) -> int:
    options = tyro.cli(RunOptions, args=arguments, prog="ponder3d report", description="A page about a run or demo.")
    page = write_demo_page(options.run) if demo_recipe.is_demo(options.run) else write_run_page(options.run)
    print(page)
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
    width = max(len(name) for name in found)
    for name, function in found.items():
        print(f"  {name:<{width}}  {(function.__doc__ or '').strip().splitlines()[0]}")
    return 0


def _print_figures(figures: dict[str, float]) -> None:
    width = max((len(name) for name in figures), default=0)
    for name, value in figures.items():
        print(f"{name:<{width}}  {value:.4g}")


def _fail(error: object, code: int) -> int:
    print(f"ponder3d: {error}", file=sys.stderr)
    return code
