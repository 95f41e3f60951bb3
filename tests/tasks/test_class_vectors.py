"""What every way of making class vectors promises, and the ways that need no text."""

import pytest
import torch

from ponder3d.config import from_json, to_json
from ponder3d.tasks.class_vectors import ClassVectors, ClassVectorsConfig, FixedCodes, NoVectors, class_codes, words
from ponder3d.types import LabelSet

FAMILY = ClassVectorsConfig
CLASSES = LabelSet(("chair", "sofa", "shower_curtain"), ((0, 0, 0),) * 3)


def test_there_are_members(members):
    names = {"NoVectors", "FixedCodes", "ClipText", "OpenClipText", "SentenceText", "StoredVectors"}
    assert {cls.__name__ for cls in members(FAMILY)} >= names


def test_unit_rows_that_are_the_same_again(example):
    torch.manual_seed(1)
    made = example.build(CLASSES)
    assert isinstance(made, ClassVectors) and made.source and made.source.isprintable()
    assert made.vectors.dtype == torch.float32 and len(made.vectors) == 3 and not made.vectors.requires_grad
    if not isinstance(example, NoVectors):
        torch.testing.assert_close(made.vectors.norm(dim=1), torch.ones(3))
        products = made.vectors @ made.vectors.T
        assert float((products - torch.eye(3)).max()) < 1 - 1e-6, "no two classes are the same"
    torch.manual_seed(2)
    again = example.build(CLASSES)
    assert torch.equal(again.vectors, made.vectors) and again.source == made.source


def test_json(example):
    assert from_json(ClassVectorsConfig, to_json(example)) == example


def test_codes():
    made = FixedCodes(8).build(CLASSES)
    assert torch.equal(made.vectors, class_codes(3, 8)) and made.source == "fixed orthonormal codes of 8"
    torch.testing.assert_close(made.vectors @ made.vectors.T, torch.eye(3), atol=1e-6, rtol=0)
    codes = class_codes(5, 16)
    torch.manual_seed(7)
    assert torch.equal(codes, class_codes(5, 16)), "the same for everyone"
    assert NoVectors().build(CLASSES).vectors.shape == (3, 0)
    with pytest.raises(ValueError, match="FixedCodes.channels is 2, but 3 classes need at least as many"):
        FixedCodes(2).build(CLASSES)
    with pytest.raises(ValueError, match="at least 1, not 0"):
        FixedCodes(0)


def test_words():
    assert words("shower_curtain") == "shower curtain" and words("TV stand") == "TV stand"
