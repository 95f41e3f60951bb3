"""Class vectors of a checkpoint: the promises of all class vectors are tested in test_class_vectors."""

import torch

from ponder3d.tasks.class_vectors import FixedCodes
from ponder3d.tasks.kept_vectors import KeptVectors, kept
from ponder3d.types import LabelSet

LABELS = LabelSet(("a", "b", "c"), ((0, 0, 0),) * 3)


def test_they_have_the_shape_and_name_the_origin():
    for channels in (8, 2):
        made = KeptVectors(channels, "vectors of somebody's model").build(LABELS)
        assert made.source == "vectors of somebody's model" and made.vectors.shape == (3, channels)
        torch.testing.assert_close(made.vectors.norm(dim=1), torch.ones(3))


def test_they_stand_for_a_choice_once_there_are_some():
    choice, vectors = FixedCodes(4), torch.eye(3, 5)
    assert kept(choice, vectors, "a model of words") == KeptVectors(5, "a model of words")
    assert kept(choice, None, "none") is choice
    assert kept(choice, vectors, "") is choice, "a checkpoint from before does not say what made them"
