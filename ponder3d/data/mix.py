"""Mix3D: two scenes laid over each other (Nekrasov et al. 2021, "Mix3D: Out-of-context data augmentation for 3D
scenes"), so that what stands around an object says less about what it is.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from ponder3d.data.dataset import DataError
from ponder3d.data.transforms_base import whole_bounds
from ponder3d.geometry import keyed
from ponder3d.geometry.transforms import Similarity, transform_scene
from ponder3d.types import Boxes, Scene
from ponder3d.types.scene import extent


def mix_pairs(scenes: Sequence[Scene], probability: float) -> list[Scene]:
    """Lay each even scene and the one after it over each other, with some probability.

    What happens to a pair is a function of the two scenes: the coin is keyed by the first one's ``key``. Scenes of two
    datasets (``Scene.condition``) stay two: an encoder treats each scene as one of them.

    Args:
        scenes: an even number.
        probability: of each pair of one condition; one that is not mixed stays two scenes.

    Raises:
        ValueError: the number of scenes is odd.
        DataError: a scene has images, rays or a second view, whether or not the coin says that it is mixed.
    """
    if len(scenes) % 2:
        raise ValueError(f"mix_pairs: {len(scenes)} scenes cannot be paired; their number must be even")
    for scene in scenes:
        if scene.pair is not None:
            raise DataError(f"{scene.source}: has two views, and pairs are not mixed; set Experiment.mix to 0")
        if scene.views is not None or scene.rays is not None:
            what = "images" if scene.rays is None else "rays"
            raise DataError(
                f"{scene.source}: has {what}, and no camera sees a mixture of two scenes; put PointsOnly() among the "
                "transforms or set Experiment.mix to 0"
            )
    out: list[Scene] = []
    for first, second in zip(scenes[::2], scenes[1::2], strict=True):
        chance = float(torch.rand((), generator=keyed.generator(first.key, 0x3D)))
        mixed = chance < probability and first.condition == second.condition
        out += [mixture(first, second)] if mixed else [first, second]
    return out


def mixture(first: Scene, second: Scene) -> Scene:
    """The points of two scenes in one, each with the middle of its points' box at x = y = 0; heights stay.

    Labels, instances and boxes of both stay; instances of the second are numbered after the first's. Where only one has
    colour, normals or labels, the other's points get what an encoder takes for "unknown" (``types.scene.point_feats``),
    or no label. The key is the first scene's, and so is the condition, which should be that of both.
    """
    a, b = _in_the_middle(first), _in_the_middle(second)
    instances = (a.instances, b.instances)
    if a.instances is not None and b.instances is not None:
        after = int(a.instances.max()) + 1 if len(a.instances) else 0
        instances = (a.instances, torch.where(b.instances >= 0, b.instances + max(after, 0), b.instances))
    bounds = None
    if a.bounds is not None or b.bounds is not None:
        both = torch.stack([whole_bounds(a), whole_bounds(b)])
        bounds = torch.stack([both[:, 0].amin(0), both[:, 1].amax(0)])
    return Scene(
        xyz=torch.cat([a.xyz, b.xyz]),
        rgb=_joined(a, b, a.rgb, b.rgb, 0.5),
        normal=_joined(a, b, a.normal, b.normal, 0.0),
        source=f"{a.source} + {b.source}",
        labels=_joined(a, b, a.labels, b.labels, -1),
        instances=_joined(a, b, *instances, -1),
        intensity=_joined(a, b, a.intensity, b.intensity, 0.0),
        time=_joined(a, b, a.time, b.time, 0.0),
        boxes=None if a.boxes is None or b.boxes is None else _all_boxes(a.boxes, b.boxes),
        bounds=bounds,
        key=a.key,
        condition=a.condition,
        skipped=a.skipped + b.skipped,
    )


def _in_the_middle(scene: Scene) -> Scene:
    """Not where ``Centre`` puts the whole scene: this may be a crop from its edge, and would meet nothing of the
    other."""
    middle = extent(scene.xyz).mean(0)
    middle[2] = 0.0
    return transform_scene(Similarity(torch.eye(3), -middle), scene)


def _joined(a: Scene, b: Scene, one: Tensor | None, other: Tensor | None, unknown: int | float) -> Tensor | None:
    """A column of the points of both scenes; None if neither has it."""
    known = one if one is not None else other
    if known is None:
        return None
    parts = [
        known.new_full((len(scene.xyz), *known.shape[1:]), unknown) if column is None else column
        for scene, column in ((a, one), (b, other))
    ]
    return torch.cat(parts)


def _all_boxes(a: Boxes, b: Boxes) -> Boxes:
    """Both scenes' boxes; a column that one of them lacks is left out."""
    return Boxes(
        centre=torch.cat([a.centre, b.centre]),
        size=torch.cat([a.size, b.size]),
        yaw=torch.cat([a.yaw, b.yaw]),
        label=torch.cat([a.label, b.label]),
        score=None if a.score is None or b.score is None else torch.cat([a.score, b.score]),
        velocity=None if a.velocity is None or b.velocity is None else torch.cat([a.velocity, b.velocity]),
    )
