import math

import pytest
import torch

from ponder3d.config import from_json, to_json
from ponder3d.data.augmentation_sets import NONE, S3DIS, SCANNET, SCANNET200, augmentation_set
from ponder3d.data.transforms import Transform
from ponder3d.geometry import keyed
from ponder3d.types import Scene


def seen(transforms: tuple[Transform, ...], key: int = 0) -> torch.Tensor:
    """Where a look puts the ends of the axes."""
    scene = Scene(torch.eye(3), None, None, "axes")
    for transform in transforms:
        scene = transform(scene, keyed.generator(key))
    return scene.xyz


def test_the_looks_of_the_paper():
    def turned(scale: float, angle: float) -> torch.Tensor:
        c, s = round(math.cos(angle)), round(math.sin(angle))
        return scale * torch.tensor([[c, s, 0.0], [-s, c, 0], [0, 0, 1]])

    turns = (0, math.pi / 2, math.pi, 3 * math.pi / 2)
    mirror = torch.diag(torch.tensor([-1.0, 1, 1]))
    scannet = [turned(scale, turn) for scale in (1, 0.95, 1.05) for turn in turns] + [mirror]
    s3dis = [m * scale for m in (torch.eye(3), mirror) for scale in (0.9, 0.95, 1.0, 1.05, 1.1)]
    for looks, expected in ((NONE, [torch.eye(3)]), (SCANNET, scannet), (SCANNET200, scannet[:4]), (S3DIS, s3dis)):
        assert len(looks) == len(expected)
        for look, matrix in zip(looks, expected, strict=True):
            torch.testing.assert_close(seen(look), matrix, atol=1e-6, rtol=0)
    assert (len(SCANNET), len(SCANNET200), len(S3DIS)) == (13, 4, 10)


def test_no_two_looks_of_a_set_are_the_same():
    for looks in (SCANNET, SCANNET200, S3DIS):
        matrices = {tuple(seen(look).round(decimals=4).flatten().add(0.0).tolist()) for look in looks}
        assert len(matrices) == len(looks)


def test_looks_keep_the_points_and_draw_nothing():
    for looks in (SCANNET, SCANNET200, S3DIS):
        for look in looks:
            assert all(transform.keeps_points for transform in look)
            assert torch.equal(seen(look, 1), seen(look, 2))
            assert tuple(from_json(Transform, to_json(transform)) for transform in look) == look


def test_names():
    assert augmentation_set("") == NONE and augmentation_set("scannet200") == SCANNET200
    with pytest.raises(ValueError, match="no set of augmentations 'best'; there are scannet, scannet200, s3dis"):
        augmentation_set("best")
