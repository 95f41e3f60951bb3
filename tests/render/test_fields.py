"""The closed-form gradient against automatic differentiation and finite differences, in float64."""

import pytest
import torch
import torch.nn.functional as F

from ponder3d.geometry.grid import cells_from_world
from ponder3d.geometry.trilinear import corners, sample
from ponder3d.render import closed_form
from ponder3d.render.closed_form import DecoderWeights, Positions, decode_with_gradient
from ponder3d.render.fields import FieldConfig, SDFField
from ponder3d.types import Grid, Volume
from ponder3d.types.scene import to_device

CONFIGS = {
    "paper": FieldConfig(hidden=16, geometry_channels=5, softplus_beta=10.0),
    "one layer": FieldConfig(hidden=16, sdf_layers=1, geometry_channels=5),
    "deep, with position": FieldConfig(
        hidden=12, sdf_layers=4, colour_layers=3, geometry_channels=3, use_position=True, softplus_beta=10.0
    ),
    "shared, one layer, with position": FieldConfig(
        hidden=8, sdf_layers=1, geometry_channels=2, shared_volume=True, use_position=True
    ),
}


def setup(config: FieldConfig, num=40) -> tuple[SDFField, Volume, torch.Tensor, torch.Tensor]:
    field = config.build(8, semantic_channels=4).double()
    lo = torch.tensor([[-1.0, 0, 2], [0, 0, 0]], dtype=torch.float64)
    grid = Grid(torch.stack([lo, lo + torch.tensor([2.0, 3.0, 1.5])], dim=1), (4, 5, 3))
    volume = Volume(grid, torch.randn(2, 4, 5, 3, 8, dtype=torch.float64))
    scene = torch.arange(num) % 2
    share = torch.rand(num, 3, dtype=torch.float64) * 0.7 + 0.15
    xyz = grid.box[:, 0][scene] + share * (grid.box[:, 1] - grid.box[:, 0])[scene]
    return field, volume, xyz, scene


@pytest.fixture(params=CONFIGS.values(), ids=CONFIGS.keys())
def config(request):
    return request.param


def oracle_distance(field: SDFField, volume: Volume, xyz, scene) -> torch.Tensor:
    """The field's distance written with torch's grid_sample, which autograd differentiates twice."""
    out = []
    for b in range(len(volume.grid.box)):
        rows = scene == b
        share = cells_from_world(volume.grid, xyz[rows], scene[rows]) / torch.tensor(volume.grid.shape)
        q = share * 2 - 1
        f = F.grid_sample(
            volume.feats[b : b + 1, ..., : field.split].permute(0, 4, 1, 2, 3),
            q.flip(-1).view(1, 1, 1, -1, 3),
            align_corners=False,
            padding_mode="border",
        )[0, :, 0, 0].T
        out.append(field.sdf(f, q if field.config.use_position else None)[:, 0])
    order = torch.cat([(scene == b).nonzero()[:, 0] for b in range(len(volume.grid.box))])
    return torch.cat(out)[torch.argsort(order)]


def test_distance_equals_the_oracle(config):
    field, volume, xyz, scene = setup(config)
    expected = oracle_distance(field, volume, xyz, scene)
    torch.testing.assert_close(field(volume, xyz, scene).sdf, expected)
    torch.testing.assert_close(field.distance(volume, xyz, scene), expected)


def test_gradient_equals_autograd(config, device):
    field, volume, xyz, scene = setup(config)
    xyz.requires_grad_()
    expected = torch.autograd.grad(oracle_distance(field, volume, xyz, scene).sum(), xyz)[0]
    moved = to_device((volume, xyz.detach(), scene), device)
    torch.testing.assert_close(field.to(device)(*moved).gradient.cpu(), expected)


def test_gradient_equals_finite_differences(config):
    field, volume, xyz, scene = setup(config)
    found = field(volume, xyz, scene).gradient
    for axis in range(3):
        step = torch.zeros(3, dtype=torch.float64)
        step[axis] = 1e-6
        difference = field.distance(volume, xyz + step, scene) - field.distance(volume, xyz - step, scene)
        torch.testing.assert_close(found[:, axis], difference / 2e-6, atol=1e-6, rtol=1e-4)


def test_parameter_gradients_equal_a_double_backward(config):
    """A loss of the gradient, differentiated once here, must move the parameters as double backward would."""
    field, volume, xyz, scene = setup(config)
    feats = volume.feats.clone().requires_grad_()
    volume = Volume(volume.grid, feats)
    parameters = [p for p in field.sdf.parameters()]
    direction = torch.randn(40, 3, dtype=torch.float64)

    def loss(sdf, gradient):
        return sdf.square().sum() + (gradient.norm(dim=1) - 1).square().sum() + (gradient * direction).sum().tanh()

    samples = field(volume, xyz, scene)
    ours = torch.autograd.grad(loss(samples.sdf, samples.gradient), [feats, *parameters])
    moving = xyz.clone().requires_grad_()
    sdf = oracle_distance(field, volume, moving, scene)
    gradient = torch.autograd.grad(sdf.sum(), moving, create_graph=True)[0]
    theirs = torch.autograd.grad(loss(sdf, gradient), [feats, *parameters])
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b)


def test_semantics_may_be_decoded_after_compositing(config):
    field, volume, xyz, scene = setup(config)
    assert field.semantic is not None
    inputs = field.head_inputs(field(volume, xyz, scene))
    weights = torch.rand(40, dtype=torch.float64) / 40
    before = (weights[:, None] * field.semantic(inputs)).sum(0)
    after = (weights[:, None] * inputs).sum(0) @ field.semantic.weight.T + weights.sum() * field.semantic.bias
    torch.testing.assert_close(before, after)


def test_heads_may_see_the_appearance_alone():
    """The second half of the volume's channels, as sampled: the first half may be anything."""
    field, volume, xyz, scene = setup(FieldConfig(hidden=8, geometry_channels=2, heads_see="appearance"))
    inputs = field.head_inputs(field(volume, xyz, scene))
    assert inputs.shape == (40, 4) and field.semantic is not None and field.semantic.in_features == 4
    torch.testing.assert_close(inputs, sample(volume, corners(volume.grid, xyz, scene))[:, 4:])
    other = torch.cat([torch.randn(2, 4, 5, 3, 4, dtype=torch.float64), volume.feats[..., 4:]], dim=-1)
    changed = Volume(volume.grid, other)
    torch.testing.assert_close(field.head_inputs(field(changed, xyz, scene)), inputs)


def test_colours_are_colours(config):
    field, volume, xyz, scene = setup(config)
    colours = field.colours(field(volume, xyz, scene), F.normalize(torch.randn_like(xyz), dim=1))
    assert colours.shape == (40, 3) and 0 <= float(colours.detach().min()) and float(colours.detach().max()) <= 1


@pytest.mark.parametrize("bias", [0.1, 0.5, -0.3])
def test_initial_distances_are_about_the_bias(bias):
    """An untrained volume, whose features are small, is free space for a positive bias and solid for a negative one."""
    _, volume, xyz, scene = setup(CONFIGS["paper"])
    field = FieldConfig(sdf_bias=bias).build(128).double()
    feats = 0.05 * torch.randn(*volume.feats.shape[:4], 128, dtype=torch.float64)
    first = field.distance(Volume(volume.grid, feats), xyz, scene).detach()
    assert float(first.mean()) == pytest.approx(bias, abs=0.09)  # three deviations over random initial weights
    assert float((first * bias > 0).double().mean()) > 0.9


def test_a_fixed_sharpness_is_not_trained():
    field = FieldConfig(inv_std=30.0, learn_inv_std=False).build(8)
    assert not field.log_inv_std.requires_grad
    torch.testing.assert_close(field.inv_std, torch.tensor(30.0))
    assert FieldConfig().build(8).log_inv_std.requires_grad


def all_gradients(field: SDFField, volume: Volume, xyz, scene) -> list[torch.Tensor]:
    """Of a loss of all outputs, by the volume and the decoder; the outputs first."""
    feats = volume.feats.clone().requires_grad_()
    samples = field(Volume(volume.grid, feats), xyz, scene)
    outputs = [samples.sdf, samples.gradient, samples.geometry, samples.appearance]
    loss = sum(((each + 0.3).square().sum() for each in outputs), torch.zeros((), device=xyz.device))
    grads = torch.autograd.grad(loss, [feats, *field.sdf.parameters()])
    return [*(each.detach() for each in outputs), *grads]


def test_every_output_has_the_right_gradients(config):
    """Geometry features, appearance and distance alike, and all of them at once, by finite differences."""
    field, volume, xyz, scene = setup(config, num=6)
    at = corners(volume.grid, xyz, scene)
    weights = field.sdf.weights()
    positions = Positions(torch.rand_like(xyz), torch.rand_like(xyz)) if config.use_position else None

    def decode(rows, *flat):
        given = DecoderWeights.from_flat(list(flat), len(weights.feature))
        decoded = decode_with_gradient(rows, at, given, config.softplus_beta, positions)
        return tuple(vars(decoded).values())

    rows = volume.feats.flatten(0, 3).requires_grad_()
    assert torch.autograd.gradcheck(decode, (rows, *weights.flat()), fast_mode=True)


def test_what_is_known_is_taken_and_differentiated(config):
    field, volume, xyz, scene = setup(config)
    feats = volume.feats.clone().requires_grad_()

    def everything(known, first):
        samples = field(Volume(volume.grid, feats), xyz[first:], scene[first:], known)
        outputs = [samples.sdf, samples.gradient, samples.geometry, samples.appearance]
        loss = sum(((each + 0.3).square().sum() for each in outputs), torch.zeros(()))
        return [*outputs, *torch.autograd.grad(loss, [feats, *field.sdf.parameters()])]

    known = field.look(volume, xyz[:25], scene[:25])
    torch.testing.assert_close(known.sdf, field.distance(volume, xyz[:25], scene[:25]).detach())
    for a, b in zip(everything(known, 25), everything(None, 0), strict=True):
        torch.testing.assert_close(a, b)
    known.decoded.gradient[3] = 7.0
    assert everything(known, 25)[1][3].tolist() == [7.0] * 3  # not computed again


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_a_volume_of_any_precision_is_decoded_in_that_of_the_field(config, dtype):
    field, volume, xyz, scene = setup(config)
    field, xyz = field.float(), xyz.float()
    grid = Grid(volume.grid.box.float(), volume.grid.shape)
    given, rounded = (Volume(grid, volume.feats.to(dtype).to(t)) for t in (dtype, torch.float32))
    torch.testing.assert_close(field.distance(given, xyz, scene), field.distance(rounded, xyz, scene))
    torch.testing.assert_close(field(given, xyz, scene).gradient, field(rounded, xyz, scene).gradient)


@pytest.mark.parametrize("chunk", [1, 7, 20, 39])
def test_chunks_do_not_show(config, chunk, monkeypatch, device):
    """40 points: one at a time, with a remainder, without, and a remainder of one."""
    field, volume, xyz, scene = setup(config)
    whole = all_gradients(field, volume, xyz, scene)
    monkeypatch.setattr(closed_form, "CHUNK", chunk)
    for a, b in zip(all_gradients(field.to(device), *to_device((volume, xyz, scene), device)), whole, strict=True):
        torch.testing.assert_close(a.cpu(), b)


def test_no_points(config):
    field, volume, xyz, scene = setup(config)
    sdf, gradient, geometry, appearance, *grads = all_gradients(field, volume, xyz[:0], scene[:0])
    assert sdf.shape == (0,) and gradient.shape == (0, 3)
    assert geometry.shape == (0, config.geometry_channels)
    assert appearance.shape == (0, 8 if config.shared_volume else 4)
    assert all(float(each.abs().max()) == 0 for each in grads)


def test_the_same_to_the_bit(config, monkeypatch):
    monkeypatch.setattr(closed_form, "CHUNK", 1000)
    field, volume, xyz, scene = setup(config, num=4500)
    field, grid = field.to(torch.float32), Grid(volume.grid.box.to(torch.float32), volume.grid.shape)
    volume = Volume(grid, volume.feats.to(torch.float32))
    first, second = (all_gradients(field, volume, xyz.to(torch.float32), scene) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_autocast_does_not_reach_the_field():
    field, volume, xyz, scene = setup(CONFIGS["paper"])
    expected = all_gradients(field, volume, xyz, scene)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = all_gradients(field, volume, xyz, scene)
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


def test_a_frozen_volume_or_decoder_is_no_obstacle():
    field, volume, xyz, scene = setup(CONFIGS["paper"])
    weight = field.sdf.feature_layers[0].weight
    field(volume, xyz, scene).gradient.square().sum().backward()
    assert float(weight.grad.abs().max()) > 0
    field.requires_grad_(False)
    feats = volume.feats.clone().requires_grad_()
    field(Volume(volume.grid, feats), xyz, scene).gradient.square().sum().backward()
    assert feats.grad is not None and float(feats.grad.abs().max()) > 0


@pytest.mark.parametrize("beta", [1.0, 100.0])
def test_softplus_equals_torchs(beta):
    z = torch.cat([torch.linspace(-100, 100, 2001), torch.linspace(-0.5, 0.5, 2001)])
    y, s = closed_form._softplus(z, beta)
    expected = torch.nn.functional.softplus(z.to(torch.float64), beta=beta)
    # A few roundings of z, relative to the larger of the two.
    assert bool(((y - expected).abs() <= 3e-7 * (z.abs() + 1 / beta)).all())
    torch.testing.assert_close(s, torch.sigmoid(beta * z))
