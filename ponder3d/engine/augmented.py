"""Predictions for every point of a scene, summed over several looks at it (test-time augmentation)."""

from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from ponder3d.data.augmentation_sets import augmentation_set
from ponder3d.data.transforms import Transform
from ponder3d.engine.experiment import Experiment
from ponder3d.geometry import keyed
from ponder3d.tasks.semseg import SemSeg
from ponder3d.tasks.task import Task
from ponder3d.types import Batch, Scene
from ponder3d.types.scene import to_device


class Looks:
    """What a task predicts for all points of scenes, whatever ``validation_transforms`` would leave of them.

    Of the transforms those are done that keep the points and their order (``Transform.keeps_points``): centring, say.
    The others, such as ``GridSample``, are left out, and named in ``left_out``: the task thins dense clouds out by
    itself and answers for every point.

    Args:
        task: in evaluation mode.
        experiment: of the task.
        augment: name of a set of ``data.augmentation_sets``; empty looks once, at the scene as it is.
        device: where the task is.

    Raises:
        ValueError: the task does not tell classes of points, or there is no such set.
    """

    def __init__(self, task: Task, experiment: Experiment, augment: str, device: torch.device):
        if not isinstance(task, SemSeg):
            raise ValueError(f"{type(task).__name__} does not predict a class for every point; segmentation does")
        self.task, self.experiment, self.device = task, experiment, device
        self._sets = [experiment.on_grid(transforms) for transforms in augmentation_set(augment)]
        transforms = experiment.on_grid(experiment.validation_transforms)
        # With its place: a transform draws the same numbers whether or not those before it are done.
        self._before = [(place, t) for place, t in enumerate(transforms) if t.keeps_points]
        self.left_out = tuple(type(t).__name__ for t in transforms if not t.keeps_points)

    def probabilities(self, scene: Scene, index: int) -> Float[Tensor, "N K"]:
        """How likely each class is at every point of a scene, the mean over all looks; on the CPU.

        Args:
            scene: as the dataset has it.
            index: of the scene in the dataset; what is random in the transforms follows from it.

        Raises:
            ValueError: a transform that says that it keeps the points does not.
        """
        seed = self.experiment.seed
        for place, transform in self._before:
            scene = _done(transform, scene, seed, 0, index, place)
        scene = replace(scene, views=None, rays=None, targets=None, boxes=None, instances=None)
        total = torch.zeros(len(scene.xyz), len(self.task.labels))
        for look, transforms in enumerate(self._sets):
            seen = scene
            for place, transform in enumerate(transforms):
                seen = _done(transform, seen, seed, 0, index, 0xA06, look, place)
            batch = to_device(Batch.of([seen], self.experiment.task.encoder.inputs), self.device)
            total += self.task.probabilities(batch)
        return total.div_(len(self._sets))


def _done(transform: Transform, scene: Scene, *key: int) -> Scene:
    out = transform(scene, keyed.generator(*key))
    if len(out.xyz) != len(scene.xyz):
        raise ValueError(
            f"{type(transform).__name__}: made {len(out.xyz)} points of the {len(scene.xyz)} of {scene.source}; set "
            "keeps_points = False in the class, and predictions are made without it"
        )
    return out
