"""``ponder3d reproduce``."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from ponder3d.config import fingerprint
from ponder3d.engine.evaluate import read_json, write_json
from ponder3d.recipes.catalogue import find_recipe
from ponder3d.recipes.numbers import NUMBERS

_ABOUT = "reproduce.json"


@dataclass(frozen=True)
class _ReproduceOptions:
    """Run a row of docs/numbers.md again, and say whether the figure is inside its band."""

    number: Annotated[str, tyro.conf.Positional]
    """Name of the row; ``list`` shows all."""
    data: str = ""
    """Directory of the recording, for the rows that need one."""
    out: str = ""
    """Directory for what is run; empty: ``runs/reproduce/`` and the name. What is finished there is not run again."""


def reproduce(arguments: list[str], run: Callable[[list[str]], int]) -> int:
    """Run a row again.

    Args:
        arguments: of the command line.
        run: the command line itself.

    Returns:
        0 inside the band, 1 outside; the command's own code if it fails.

    Raises:
        ValueError: there is no such row, it needs a recording and none is given, or the directory holds another run.
    """
    options = tyro.cli(_ReproduceOptions, args=arguments, prog="ponder3d reproduce")
    if options.number == "list":
        width = max(map(len, NUMBERS))
        for name, number in NUMBERS.items():
            needs = f" (--data: {number.where})" if number.where else ""
            print(f"{name:<{width}}  {number.value:g} +- {number.band:g}  {number.what}{needs}")
        return 0
    if options.number not in NUMBERS:
        raise ValueError(f"reproduce: no row {options.number!r}; there are {', '.join(NUMBERS)}")
    number = NUMBERS[options.number]
    if number.where and not options.data:
        raise ValueError(
            f"reproduce: {options.number} needs a recording of {number.where}: give its directory as --data"
        )
    out = Path(options.out or f"runs/reproduce/{options.number}")
    command = [options.data if word == "DATA" else word for word in number.command]
    about = {"command": command}
    if command[0] in ("train", "compare"):
        about["recipe"] = [fingerprint(find_recipe(command[1])())]
    # A command that had failed at once has left nothing but its name.
    taken = out.exists() and any(path.name != _ABOUT for path in out.iterdir())
    if taken and read_json(out / _ABOUT) != about:
        raise ValueError(f"reproduce: {out} holds something else, or was run by other code: choose another --out")
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / _ABOUT, about)
    # A demo and a comparison go on where they were; of a run that is complete only its figures are wanted.
    if command[0] == "train" and (out / "checkpoints").is_dir():
        command = ["train", "--resume", str(out)]
    else:
        command += ["--out", str(out)]
    print(f"ponder3d {' '.join(command)}\n")
    code = run(command)
    if code:
        return code
    value = number.figure(out)
    inside = abs(value - number.value) <= number.band
    said = "INSIDE" if inside else "OUTSIDE"
    print(f"\n{number.what}: {value:.4g}, published {number.value:g} +- {number.band:g}: {said} the band")
    return 0 if inside else 1
