"""What is done to the scenes of some datasets only."""

from dataclasses import dataclass, replace

import pytest
import torch

from ponder3d.config import from_json, to_json
from ponder3d.data import transforms as tf
from ponder3d.data.joint import JointConfig, PartConfig
from ponder3d.data.synthetic.rooms import RoomsConfig
from ponder3d.geometry import keyed
from ponder3d.types import Scene

SCENE = Scene(torch.rand(100, 3), None, None, "x", condition="S3DIS")


def test_a_condition_is_set():
    assert tf.SetCondition("ScanNet")(SCENE, keyed.generator(0)).condition == "ScanNet"
    assert tf.SetCondition("ScanNet").conditions_after(("S3DIS", "a")) == ("ScanNet",)
    assert tf.SetCondition().conditions_after(("a",)) == () and tf.Centre().conditions_after(("a",)) == ("a",)


def test_only_some_are_cropped():
    crop = tf.Only(("S3DIS", "other"), (tf.SphereCrop(share=0.6), tf.SetCondition("y")))
    out = crop(SCENE, keyed.generator(0))
    assert len(out.xyz) == 60 and out.condition == "y"
    generator = keyed.generator(0)
    elsewhere = replace(SCENE, condition="ScanNet")
    assert crop(elsewhere, generator) is elsewhere
    assert torch.equal(generator.get_state(), keyed.generator(0).get_state())
    assert from_json(tf.Transform, to_json(crop)) == crop


def test_only_is_what_its_transforms_are():
    sample = tf.Only(("S3DIS",), (tf.GridSample(),))
    assert sample.on_grid(0.5).transforms == (tf.GridSample(0.5),)
    assert len(sample.on_grid(0.5)(SCENE, keyed.generator(0)).xyz) <= 8
    assert not sample.keeps_points and not sample.on_grid(0.5).keeps_points and not tf.Only((), (sample,)).keeps_points
    assert tf.Only(("S3DIS",), (tf.Centre(),)).keeps_points and tf.Only().keeps_points


def test_what_is_done_to_scenes_of_one_condition():
    centre, flip, views = tf.Centre(), tf.Flip(), tf.KeepViews((0,))
    inner = tf.Only(("b",), (flip, tf.SetCondition("c"), tf.Only(("c",), (views,))))
    chain = (tf.Only(("a",), (centre,)), inner, tf.Only(("c",), (centre,)))
    assert tf.steps_of(chain, "a") == (centre,) and tf.steps_of(chain, "") == () and tf.steps_of((), "a") == ()
    assert tf.steps_of(chain, "b") == (flip, tf.SetCondition("c"), views, centre)
    assert tf.steps_of((tf.SetCondition("a"), *chain), "b") == (tf.SetCondition("a"), centre)


def test_conditions_that_no_scene_has():
    only = tf.Only(("b",), (tf.SetCondition("c"),))
    assert only.conditions_after(("a", "b")) == ("a", "c") and only.conditions_after(("b", "c")) == ("c",)
    with pytest.raises(ValueError, match="Only.conditions: no scene has the condition 'b'; there are a, c"):
        only.conditions_after(("a", "c"))
    with pytest.raises(ValueError, match="there are none"):
        only.conditions_after(())


@dataclass(frozen=True)
class Suspicious(tf.Transform):
    """Does not go with any data; says which."""

    def __call__(self, scene, generator):
        return scene

    def check(self, dataset):
        raise ValueError(f"{len(dataset)} scenes")


def test_only_the_scenes_that_are_meant_are_checked():
    rooms = RoomsConfig(num_rooms=3)
    data = JointConfig((PartConfig("a", rooms), PartConfig("b", replace(rooms, num_rooms=5)))).build()
    with pytest.raises(ValueError, match="^5 scenes$"):
        tf.Only(("b",), (Suspicious(),)).check(data)
    tf.Only(("c",), (Suspicious(),)).check(data)
