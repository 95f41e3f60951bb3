"""``ponder3d compare``."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from ponder3d.engine.comparison_table import RESULTS, convergence_told, read_results, table_text
from ponder3d.engine.experiment import Experiment
from ponder3d.recipes.catalogue import find_recipe
from ponder3d.recipes.compare import run_compare
from ponder3d.recipes.compare_config import CompareConfig
from ponder3d.recipes.methods import known_methods
from ponder3d.report.compare_page import write_compare_page

_USAGE = """\
usage: ponder3d compare RECIPE [options]: does pre-training pay?

Encoders are pre-trained by several methods, and by none, and used for the segmentation that RECIPE is, at equal
budgets, over shares of labels and seeds. Interrupted, the same command goes on. `ponder3d compare RECIPE --help` lists
the methods that there are for its data, and all options.

  ponder3d compare semseg.rooms_full --methods scratch,ponder --labels 1%,10%,100% --seeds 3 --steps 80 --out DIR
"""


@dataclass(frozen=True)
class _CompareOptions:
    experiment: Annotated[Experiment, tyro.conf.arg(name="")]
    """The segmentation; every field is an option."""
    compare: Annotated[CompareConfig, tyro.conf.arg(name="")]
    """The comparison."""


def compare(arguments: list[str]) -> int:
    """Compare methods, or go on; prints the table and where the page is."""
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_USAGE)
        return 0
    name = arguments[0]
    recipe = find_recipe(name)
    experiment = recipe()
    methods = ", ".join(known_methods(name, experiment.data))
    options = tyro.cli(
        _CompareOptions,
        default=_CompareOptions(experiment, CompareConfig(out=f"runs/compare-{name}")),
        args=arguments[1:],
        prog=f"ponder3d compare {name}",
        description=f"{recipe.__doc__ or ''}\n\nMethods for its data: scratch, {methods}.",
    )
    rows = run_compare(options.compare, name, options.experiment, _tell)
    page = write_compare_page(options.compare.out)
    record = read_results(options.compare.out)
    print(table_text(rows, record["against"]))
    for amount, steps in record["convergence"].items():
        told = convergence_told([miou for _, miou in steps], options.compare.converged)
        print(f"scratch with {amount} labelled: {told}")
    print(f"\nreport: {page}")
    return 0


def is_comparison(folder: str) -> bool:
    """Whether a directory holds a finished comparison."""
    return (Path(folder) / RESULTS).is_file()


def _tell(line: str) -> None:
    print(f"ponder3d: {line}", file=sys.stderr)
