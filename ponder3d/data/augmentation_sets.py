"""What is done to a scene, in turn, when its prediction is the sum over several looks at it.

Every transform of a set keeps the points and their order, so that the probabilities of a point can be added up. Turns
and mirrors are about the origin: centre scenes before.

The reference's flip mirrors x and y at once, which is the half turn that its first sets have already; here x alone is
mirrored, which no turn does. (Training mirrors too.)
"""

from ponder3d.data.transforms import QUARTER_TURNS, Flip, RotateTo, Scale, Transform

Augmentations = tuple[tuple[Transform, ...], ...]
"""Of each look at a scene, the transforms."""

_MIRROR = Flip(probability=1.0, axes="x")

NONE: Augmentations = ((),)
"""The scene as it is."""

SCANNET: Augmentations = (
    *(
        (RotateTo("z", (turn,)), Scale(scale, scale)) if scale != 1 else (RotateTo("z", (turn,)),)
        for scale in (1.0, 0.95, 1.05)
        for turn in QUARTER_TURNS
    ),
    (_MIRROR,),
)
"""13 looks, for ScanNet and Structured3D: four turns at three scales, and one mirror."""

SCANNET200: Augmentations = tuple((RotateTo("z", (turn,)),) for turn in QUARTER_TURNS)
"""4 looks: four turns."""

S3DIS: Augmentations = tuple(
    (Scale(scale, scale), *mirror) for mirror in ((), (_MIRROR,)) for scale in (0.9, 0.95, 1.0, 1.05, 1.1)
)
"""10 looks, for models that were trained on S3DIS alone: five scales, with and without a mirror."""

_SETS = {"": NONE, "scannet": SCANNET, "scannet200": SCANNET200, "s3dis": S3DIS}


def augmentation_set(name: str) -> Augmentations:
    """A set by its name: ``scannet``, ``scannet200``, ``s3dis``, or nothing for the scene as it is.

    Raises:
        ValueError: there is none of this name.
    """
    if name not in _SETS:
        raise ValueError(f"no set of augmentations {name!r}; there are {', '.join(filter(None, _SETS))}")
    return _SETS[name]
