from dataclasses import replace

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


REACH = [
    # Stem 1; 2 convolutions at stride 1 on the way up and 2 at stride 2: 2 + 2 * 2; alignment 1.
    ({"stem_kernel": 3, "channels": (4, 5), "blocks": (1, 1)}, 8),
    # Stem 2; down 2 * 2 + 4 * 4, up 2 * 2 + 6; alignment 3.
    ({"channels": (4, 6, 6, 5), "blocks": (1, 2, 1, 3)}, 2 + 4 + 16 + 4 + 6 + 3),
]


@pytest.mark.parametrize(("changes", "voxels"), REACH)
def test_reach_is_what_the_gradient_says(changes, voxels):
    """With positive weights nothing cancels: the gradient is positive exactly where a feature depends on its input."""
    config = replace(SMALL, inputs=("one",), **changes)
    encoder = config.build().eval().double()
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.abs_().add_(0.1)
    length = 2 * voxels + 16
    line = torch.zeros(length, 3)
    line[:, 0] = (torch.arange(length) + 0.5) * config.grid_size
    batch = Batch.of([Scene(line, None, None, "line")], config.inputs)
    feats = batch.points.feats.double().requires_grad_()
    out = encoder(replace(batch, points=replace(batch.points, feats=feats))).feats
    farthest = 0
    for row in range(voxels, voxels + 16):  # every position within the coarsest voxel
        (gradient,) = torch.autograd.grad(out[row].sum(), feats, retain_graph=True)
        seen = (gradient[:, 0] > 0).nonzero()[:, 0]
        farthest = max(farthest, int((seen - row).abs().max()))
    assert farthest == voxels
    assert encoder.reach == pytest.approx((voxels + 1) * config.grid_size)


def test_reach_of_the_papers_encoder():
    # Stem 2; down 4 * 2 + 6 * 4 + 8 * 8 + 12 * 16, up 4 * (8 + 4 + 2 + 1); alignment 15; and the voxel's own size.
    assert SparseUNetConfig().build().reach == pytest.approx((2 + 288 + 60 + 15 + 1) * 0.02)


def test_what_is_beyond_reach_is_not_seen_and_what_is_within_is():
    """Points that are there or not, in a bar 12 m long; in float64, so that little weight is not lost to rounding."""
    encoder = replace(SMALL, channels=(4, 6, 6, 5), blocks=(1,) * 4).build().eval().double()
    coords = torch.cartesian_prod(torch.arange(120), torch.arange(3), torch.arange(3))
    distance = (coords[:, 0] - 50).abs() * 0.1

    @torch.no_grad()
    def feats(radius):
        kept = distance < radius
        batch = Batch.of([Scene((coords[kept] + 0.5) * 0.1, None, None, "bar")], SMALL.inputs)
        points = replace(batch.points, feats=batch.points.feats.double())
        return encoder(replace(batch, points=points)).feats[distance[kept] == 0]

    whole = feats(100.0)
    torch.testing.assert_close(feats(encoder.reach), whole, rtol=1e-12, atol=1e-15)
    assert float((feats(0.6 * encoder.reach) - whole).norm() / whole.norm()) > 1e-9


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
    with pytest.raises(ValueError, match=message):
        replace(SMALL, **changes)


def test_all_levels_side_by_side():
    """Coarse features are repeated on the voxels that they cover; the last channels are those of the encoder itself."""
    config = SparseUNetConfig(
        inputs=("one",), grid_size=0.1, stem_channels=4, channels=(4, 6, 8, 5, 6, 3), blocks=(1, 1, 1, 1, 1, 1)
    )
    torch.manual_seed(0)
    encoder = config.build().eval()
    batch = Batch.of([Scene(torch.rand(300, 3) * 2 - 1, None, None, str(i)) for i in range(2)], config.inputs)
    with torch.no_grad():
        plain, levels = encoder(batch), encoder.all_levels()(batch)
    assert levels.feats.shape[1] == encoder.all_levels().out_channels == 5 + 6 + 3
    assert torch.equal(levels.coords, plain.coords) and torch.equal(levels.feats[:, 11:], plain.feats)
    kept = []
    with torch.no_grad():
        encoder._decoded(batch, kept)
    for level, columns in zip(kept, (slice(0, 5), slice(5, 11), slice(11, 14)), strict=True):
        known = {tuple(where): feats for where, feats in zip(level.coords.tolist(), level.feats, strict=True)}
        for (scene, *cell), feats in zip(plain.coords.tolist(), levels.feats, strict=True):
            assert torch.equal(feats[columns], known[(scene, *(c // level.stride for c in cell))])
    assert torch.equal(encoder.all_levels()(batch).feats.detach(), levels.feats), "with gradients too"
    cloud = torch.rand(100, 3)
    assert encoder.all_levels().encode(cloud).shape == (100, 14)
    assert torch.equal(encoder.all_levels().encode(cloud)[:, 11:], encoder.encode(cloud))
