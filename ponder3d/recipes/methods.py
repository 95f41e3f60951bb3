"""Ways to pre-train by the names that ``ponder3d compare`` knows them by.

Method M for data of family F (``rooms``, ``streets``, ``pandaset``, ``prepared``: the name of the data's configuration)
is the recipe ``F_M`` of any module here, so that a new rival is one new recipe. The recipes of this module give the
project's own pre-trainings such names. For a target of ``smoke``, methods are the smoke sizes of these recipes.
"""

from dataclasses import replace
from pathlib import Path

from ponder3d.data.dataset import DatasetConfig
from ponder3d.data.synthetic.rooms import RoomsConfig
from ponder3d.data.transforms import SetCondition
from ponder3d.encoders.files import SHIPPED, shipped_names
from ponder3d.engine.comparison_table import SCRATCH
from ponder3d.engine.experiment import Experiment
from ponder3d.engine.probe import Off
from ponder3d.recipes import pretrain_driving, pretrain_indoor, pretrain_rgbd, pretrain_streets
from ponder3d.recipes.catalogue import Recipe, find_recipe, list_recipes
from ponder3d.render.opacity import UniSurf
from ponder3d.tasks.combined import CombinedConfig
from ponder3d.tasks.ponder import PonderConfig
from ponder3d.tasks.semseg import SemSegConfig
from ponder3d.tasks.task import TaskConfig


def rooms_ponder() -> Experiment:
    """Label-free rendering of generated rooms: ``pretrain_indoor.rooms``."""
    return pretrain_indoor.rooms()


def streets_ponder() -> Experiment:
    """Label-free rendering of generated streets: ``pretrain_streets.lidar``."""
    return pretrain_streets.lidar()


def pandaset_ponder() -> Experiment:
    """Label-free rendering of PandaSet: ``pretrain_driving.pandaset``, without the images that segmentation leaves."""
    return pretrain_driving.pandaset()


def prepared_ponder() -> Experiment:
    """Label-free rendering of prepared scenes: ``pretrain_rgbd.prepared``."""
    return pretrain_rgbd.prepared()


def find_method(method: str, target: str, data: DatasetConfig) -> Recipe | Path | None:
    """What a method is.

    Args:
        method: ``scratch``, the name of a method, or ``NAME=RECIPE`` or ``NAME=FILE`` for anybody's own: a recipe as
            ``find_recipe`` finds it, an encoder file, ``.safetensors``, or an encoder that comes with the package.
        target: the recipe that encoders are compared by.
        data: its data, of which methods are a family.

    Returns:
        The recipe of the pre-training, the file of an encoder that is pre-trained, or None for ``scratch``.

    Raises:
        ValueError: there is no such method, of which the message lists what there is, or no such file.
    """
    name, _, source = method.partition("=")
    if name == SCRATCH:
        return None
    if source.endswith(".safetensors"):
        if not Path(source).is_file():
            raise ValueError(f"methods: {method}: there is no file {source}")
        return Path(source)
    if source in shipped_names():
        return SHIPPED / f"{source}.safetensors"
    if source:
        return find_recipe(source)
    known = known_methods(target, data)
    if name not in known:
        listed = ", ".join([SCRATCH, *known])
        raise ValueError(
            f"no method {name!r} for data of {family(data)}; known are {listed}; or name your own: {name}=RECIPE or "
            f"{name}=FILE.safetensors"
        )
    return known[name]


def known_methods(target: str, data: DatasetConfig) -> dict[str, Recipe]:
    """The pre-trainings for data of a family, by the names of the methods."""
    smoke = target.split(".")[0] == "smoke"
    mark = f"{family(data)}_"
    found = {}
    for name, recipe in list_recipes().items():
        module, function = name.rsplit(".", 1)
        if (module == "smoke") != smoke:
            continue
        # Smoke sizes have the module's name before the function's: methods_rooms_ponder.
        at = function.find(f"_{mark}") + 1 if smoke else 0
        if (smoke and not at) or not function[at:].startswith(mark) or function.endswith("_paper"):
            continue
        made = recipe()
        pretext = not isinstance(made.task, SemSegConfig) and isinstance(made.probe, Off)
        # An image encoder is not what the target's encoder is.
        if pretext and not any(step.gives_images for step in made.transforms):
            found[function[at + len(mark) :]] = recipe
    return found


def family(data: DatasetConfig) -> str:
    """``rooms`` for ``RoomsConfig``, and so on."""
    return type(data).__name__.removesuffix("Config").lower()


def pretraining(recipe: Recipe, target: Experiment, seed: int, steps: int, cache: str) -> Experiment:
    """A pre-training of the target's encoder by a method, at the budget that all methods have.

    Args:
        recipe: of the method.
        target: whose encoder it is, and whose computer (``accelerator``). A dataset that the recipe leaves open
            (``root``) is the target's; if it is of the target's kind, so are its scenes, and what is held out of them.
        seed: of scenes, order and weights.
        steps: of the optimiser; 0 for the recipe's.
        cache: directory in which generated scenes are kept.
    """
    own = recipe()
    data = _of_target(own.data, target.data)
    # Its own evaluation is no part of the comparison: a little of it shows whether something was learnt at all.
    data = with_fields(data, seed=seed, cache=cache, num_test_rooms=1, num_test_towns=1)
    steps = steps or own.steps
    task = _of_budget(replace(own.task, encoder=target.task.encoder), steps)  # pyright: ignore[reportArgumentType, reportCallIssue]
    # An encoder with norms by condition has to be told which they are.
    conditions = tuple(step for step in target.transforms if isinstance(step, SetCondition))
    return replace(
        own,
        task=task,
        data=data,
        transforms=(*conditions, *own.transforms),
        validation_transforms=(*conditions, *own.validation_transforms),
        seed=seed,
        steps=steps,
        accelerator=target.accelerator,
        validate_every=0,
        probe=Off(),
    )


def _of_target(data: DatasetConfig, target: DatasetConfig) -> DatasetConfig:
    """A recipe's data with what it leaves open taken from the target's."""
    if isinstance(data, RoomsConfig) and isinstance(target, RoomsConfig) and target.designs != "all":
        return replace(data, designs=target.designs)  # those of the rooms held out are for nobody to see
    root = getattr(target, "root", "")
    if getattr(data, "root", None) not in ("", root):
        return data
    if type(data) is type(target):
        # Nothing that is to be tested on may be pre-trained on.
        return with_fields(target, **{name: getattr(data, name) for name in data.beside_points})
    return with_fields(data, root=root)


def _of_budget(task: TaskConfig, steps: int) -> TaskConfig:
    """A task, or every part of a combination, for a run of so many steps and a cheap evaluation of its own."""
    if isinstance(task, CombinedConfig):
        return replace(task, parts=tuple(replace(part, task=_of_budget(part.task, steps)) for part in task.parts))
    if not isinstance(task, PonderConfig):
        return task
    # More samples than training has cost minutes a run, and change no weight.
    render = replace(task.render, evaluation_factor=1)
    if isinstance(render.opacity, UniSurf):  # it shrinks over the whole run
        render = replace(render, opacity=replace(render.opacity, shrinking=steps))
    return replace(task, render=render)


def with_fields(data: DatasetConfig, **values: object) -> DatasetConfig:
    """The configuration with those of the fields that it has."""
    known = {name: value for name, value in values.items() if hasattr(data, name)}
    return replace(data, **known)  # pyright: ignore[reportArgumentType, reportCallIssue]
