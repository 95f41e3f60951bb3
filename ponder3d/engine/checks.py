"""Whether an encoder can read the scenes that it will be given, asked before hours are spent."""

from collections.abc import Callable, Iterator

from ponder3d.data.dataset import SceneDataset
from ponder3d.data.transforms import Transform, steps_of
from ponder3d.encoders.encoder import Encoder
from ponder3d.tasks.task import Task


def check_conditions(name: str, scenes: SceneDataset, transforms: tuple[Transform, ...], encoder: Encoder) -> None:
    """Whether an encoder that tells conditions apart knows those of all scenes; it may know more.

    Args:
        name: of the scenes, in the experiment.
        scenes: before the transforms.
        transforms: are done to them.
        encoder: sees what comes out.

    Raises:
        ValueError: it does not, a scene has none, or ``Only`` names one that no scene has.
    """
    found = scenes.conditions
    for transform in transforms:
        found = transform.conditions_after(found)
    if not encoder.conditions:
        return
    known = ", ".join(encoder.conditions)
    if not found:
        raise ValueError(
            f"Experiment.{name}: the encoder tells {known} apart, and no scene says which of them it is like; "
            "put SetCondition among the transforms, or take a JointConfig"
        )
    strangers = [condition for condition in found if condition not in encoder.conditions]
    if strangers:
        raise ValueError(
            f"Experiment.{name}: scenes have the condition {strangers[0]!r}, and the encoder knows {known}; "
            "give parts of a JointConfig, SetCondition and PromptNormConfig the same names"
        )


def check_images(name: str, scenes: SceneDataset, transforms: tuple[Transform, ...], encoder: Encoder) -> None:
    """Whether an encoder that reads images is given some.

    Args:
        name: of the transforms, in the experiment.
        scenes: before the transforms.
        transforms: are done to them.
        encoder: sees what comes out.

    Raises:
        ValueError: it is not.
    """
    if not encoder.reads_images:
        return
    for of in _without(scenes, transforms, lambda step: step.gives_images):
        raise ValueError(
            f"Experiment.{name}: the encoder reads images, and no transform gives it any{of}; put SeeImages among "
            "them, before PickRays"
        )


def check_depth(scenes: SceneDataset, transforms: tuple[Transform, ...], task: Task) -> None:
    """Whether an encoder that learns from the depth of images is given some in training, by a task that lets it.

    Args:
        scenes: of the training, before the transforms.
        transforms: are done to them.
        task: whose encoder it is.

    Raises:
        ValueError: it is not.
    """
    if not task.encoder.reads_depth:
        return
    if not task.teaches_encoder:
        raise ValueError(
            f"Experiment.task: the encoder learns from the depth of images, and a {type(task).__name__} has no such "
            "term; set depth_weight to 0, or make it a part of a CombinedConfig"
        )
    for of in _without(scenes, transforms, lambda step: step.gives_depth):
        raise ValueError(
            f"Experiment.transforms: the encoder learns from the depth of images, and no transform gives it any{of}; "
            "set SeeImages.depth, or depth_weight to 0"
        )


def _without(
    scenes: SceneDataset, transforms: tuple[Transform, ...], gives: Callable[[Transform], bool]
) -> Iterator[str]:
    """The kinds of scenes to which no transform gives something, as words for a message; none, of scenes of no kind."""
    for condition in scenes.conditions or ("",):
        if not any(map(gives, steps_of(transforms, condition))):
            yield f" for scenes of {condition}" if condition else ""
