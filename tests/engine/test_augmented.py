"""Every point gets its probabilities, in the dataset's order, and the looks are added up."""

from dataclasses import replace

import pytest
import torch
from segmenting import Boards, BoardsConfig, PointwiseConfig, Thins, by_hand, semseg_run
from tiny_runs import plain_run

from ponder3d.data.transforms import Centre, DropModality, GridSample, Jitter, Shuffle
from ponder3d.engine.augmented import Looks
from ponder3d.tasks.semseg import SemSegConfig

CPU = torch.device("cpu")
SCENE = Boards(BoardsConfig())[0]


def looks(augment: str = "", place: bool = False, **changes) -> Looks:
    experiment = semseg_run(task=SemSegConfig(encoder=PointwiseConfig(place=place)), **changes)
    task = experiment.task.build(Boards(BoardsConfig()).labels).eval()
    with torch.no_grad():
        task.head.weight.mul_(5)
    return Looks(task, experiment, augment, CPU)


def test_a_point_alone_is_what_it_is_in_any_order_and_any_look():
    """The encoder sees colours alone: nothing that is done to the scene may change a bit but by rounding."""
    once = looks()
    head = once.task.head
    with torch.no_grad():
        expected = by_hand(head.weight, head.bias, SCENE.rgb * 2 - 1)
    torch.testing.assert_close(once.probabilities(SCENE, 0), expected)
    for augment in ("scannet", "s3dis"):
        more = looks(augment)
        more.task.load_state_dict(once.task.state_dict())
        found = more.probabilities(SCENE, 0)
        torch.testing.assert_close(found, expected)
        assert torch.equal(found.argmax(1), expected.argmax(1))


def test_looks_are_added_up():
    turned = looks("scannet200", place=True)
    head = turned.task.head
    xyz = SCENE.xyz - torch.cat([(SCENE.xyz.amin(0) + SCENE.xyz.amax(0))[:2] / 2, SCENE.xyz.amin(0)[2:]])
    x, y, z = xyz.unbind(1)
    quarters = [(x, y, z), (-y, x, z), (-x, -y, z), (y, -x, z)]
    with torch.no_grad():
        expected = sum(by_hand(head.weight, head.bias, torch.stack(q, dim=1)) for q in quarters) / 4
    torch.testing.assert_close(turned.probabilities(SCENE, 0), expected)
    torch.testing.assert_close(expected.sum(1), torch.ones(len(x)))


def test_what_is_left_out():
    assert looks().left_out == ("GridSample", "Shuffle")
    assert looks(validation_transforms=(Centre(),)).left_out == ()
    # A transform draws what it draws in an evaluation, whatever is left out before it.
    jitter = Jitter(0.1, 0.2)
    with_them = looks(place=True, validation_transforms=(GridSample(), jitter))
    without = looks(place=True, validation_transforms=(Shuffle(), jitter))
    without.task.load_state_dict(with_them.task.state_dict())
    assert torch.equal(with_them.probabilities(SCENE, 3), without.probabilities(SCENE, 3))
    assert not torch.equal(with_them.probabilities(SCENE, 3), with_them.probabilities(SCENE, 4))


def test_transforms_of_the_validation_are_done():
    bare = looks(validation_transforms=(DropModality(1.0, 1.0),)).probabilities(SCENE, 0)
    torch.testing.assert_close(bare, bare[:1].expand_as(bare))


def test_one_point_and_none():
    for num in (0, 1):
        scene = replace(SCENE, xyz=SCENE.xyz[:num], rgb=SCENE.rgb[:num], labels=None)
        assert looks("scannet200").probabilities(scene, 0).shape == (num, 3)


def test_errors():
    with pytest.raises(ValueError, match=r"Thins: made 89 points of the 90 of boards:scene0000_00; set keeps_points"):
        looks(validation_transforms=(Thins(),)).probabilities(SCENE, 0)
    with pytest.raises(ValueError, match="no set of augmentations 'all'"):
        looks("all")
    plain = plain_run()
    with pytest.raises(ValueError, match="Plain does not predict a class for every point"):
        Looks(plain.task.build(None), plain, "", CPU)
