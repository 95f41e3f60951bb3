import pytest
import torch

from ponder3d.encoders.sparse_unet import SparseUNetConfig, pool_to_voxels
from ponder3d.types import Batch, Scene

SMALL = SparseUNetConfig(
    inputs=("rgb", "normal", "one"), grid_size=0.1, stem_channels=4, channels=(4, 6, 8, 8, 8, 6, 6, 5), blocks=(1,) * 8
)


def example() -> SparseUNetConfig:
    """For the contract of encoders."""
    return SMALL


def cloud(num=400) -> Scene:
    xyz = torch.rand(num, 3) * 2
    return Scene(xyz, torch.rand(num, 3), torch.nn.functional.normalize(torch.randn(num, 3), dim=1), "cloud")


def test_parameters_of_the_papers_encoder():
    assert sum(p.numel() for p in SparseUNetConfig().build().parameters()) == 39_155_904


def test_shape_and_gradients():
    encoder = SMALL.build()
    batch = Batch.of([cloud(), cloud(100)], SMALL.inputs)
    out = encoder(batch)
    assert out.feats.shape[1] == encoder.out_channels == 5
    assert len(out.feats) == len(pool_to_voxels(batch, 0.1).feats)
    out.feats.square().sum().backward()
    assert all(p.grad is not None and bool(torch.isfinite(p.grad).all()) for p in encoder.parameters())


@pytest.mark.parametrize("shift", [(1, 0, 0), (-16, 32, 160), (-4000, 8, 0)])
def test_whole_coarse_voxels_of_shift_change_nothing(shift):
    encoder = SMALL.build().eval()
    coords = torch.unique(torch.randint(0, 30, (300, 3)), dim=0)
    offset = 16 * torch.tensor(shift)

    def feats(at):
        scene = Scene((at + 0.5) * 0.1, None, None, "x")
        return encoder(Batch.of([scene], SMALL.inputs)).feats

    torch.testing.assert_close(feats(coords), feats(coords + offset))


def test_points_in_one_voxel_enter_as_their_mean():
    scene = Scene(
        torch.tensor([[0.01, 0.01, 0.01], [0.02, 0.02, 0.02]]), torch.tensor([[0.0, 0, 0], [1.0, 0.5, 0]]), None, "x"
    )
    x = pool_to_voxels(Batch.of([scene], ("rgb", "one")), 0.1)
    torch.testing.assert_close(x.feats, torch.tensor([[0.0, -0.5, -1.0, 1.0]]))


def test_bfloat16_is_close():
    encoder = SMALL.build().eval()
    batch = Batch.of([cloud()], SMALL.inputs)
    with torch.no_grad():
        exact = encoder(batch).feats
        with torch.autocast("cpu", torch.bfloat16):
            rounded = encoder(batch).feats
    assert float((rounded.float() - exact).norm() / exact.norm()) < 0.05


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"channels": (4, 4, 4)}, "one entry per stage"),
        ({"blocks": (1, 1)}, "one entry per stage"),
        ({"inputs": ("colour",)}, "inputs: choose from rgb, normal, one"),
        ({"inputs": ()}, "inputs: choose"),
        ({"grid_size": 0.0}, "grid_size must be positive"),
    ],
)
def test_bad_choices(changes, message):
    from dataclasses import replace

    with pytest.raises(ValueError, match=message):
        replace(SMALL, **changes)
