"""Class vectors of a released model: the promises of all class vectors are tested in test_class_vectors."""

import torch

from ponder3d.tasks.class_vectors import class_codes
from ponder3d.tasks.kept_vectors import KeptVectors
from ponder3d.types import LabelSet


def test_they_have_the_shape_and_name_the_origin():
    made = KeptVectors(8, "somebody's model").build(LabelSet(("a", "b", "c"), ((0, 0, 0),) * 3))
    assert made.source == "vectors of somebody's model"
    assert torch.equal(made.vectors, class_codes(3, 8))
