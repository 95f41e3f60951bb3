"""Finding recipes: the functions of the modules here that return an Experiment, and those of anybody's own modules."""

import importlib
import inspect
import os
import pkgutil
import sys
from collections.abc import Callable
from types import ModuleType

import ponder3d.recipes
from ponder3d.engine.experiment import Experiment

Recipe = Callable[[], Experiment]


def list_recipes() -> dict[str, Recipe]:
    """The recipes of this package by name, ``module.function``."""
    found = {}
    for module_info in pkgutil.iter_modules(ponder3d.recipes.__path__):
        module = importlib.import_module(f"{ponder3d.recipes.__name__}.{module_info.name}")
        # One module of smoke sizes would be too long.
        prefix = "smoke" if module_info.name.startswith("smoke_") else module_info.name
        for name, function in inspect.getmembers(module, inspect.isfunction):
            if function.__module__ == module.__name__ and _is_recipe(function) and not name.startswith("_"):
                found[f"{prefix}.{name}"] = function
    return found


def find_recipe(name: str) -> Recipe:
    """A recipe of this package, or of any importable module: ``mine.recipes.big`` is ``big`` in ``mine/recipes.py``.

    Raises:
        ValueError: there is none; the message lists what there is.
    """
    own = list_recipes()
    if name in own:
        return own[name]
    module_name, _, function_name = name.rpartition(".")
    if module_name:
        function = getattr(import_own(module_name), function_name, None)
        if inspect.isfunction(function) and _is_recipe(function):
            return function
    raise ValueError(
        f"no recipe {name!r}; known are {', '.join(own)}, and any function of a module that is declared to return one: "
        "def FUNCTION() -> Experiment"
    )


def import_own(name: str) -> ModuleType | None:
    """Import somebody's own module, also one in the working directory; None if there is no such module.

    Raises:
        ValueError: this is no name of a module.
        ImportError: it imports something that is not there.
    """
    if not all(part.isidentifier() for part in name.split(".")):
        raise ValueError(f"{name!r} is no name of a module: write mine for mine.py, pack.mine for pack/mine.py")
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        missing = error.name or ""
        if name != missing and not name.startswith(f"{missing}."):
            raise  # the module is there, and something that it imports is not
        return None


def _is_recipe(function: Callable[..., object]) -> bool:
    signature = inspect.signature(function, eval_str=True)  # annotations may be strings, all of a module's even
    return signature.return_annotation is Experiment and not signature.parameters
