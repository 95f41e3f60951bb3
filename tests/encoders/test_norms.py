from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from ponder3d.encoders.norms import Prompted, PromptNormConfig, _Members, _normalised, rows_of
from ponder3d.encoders.sparse_unet import SparseUNetConfig
from ponder3d.sparse.tensor import sparse_tensor
from ponder3d.types import Batch, Scene

NAMES = ("a", "b", "c")
CONFIG = PromptNormConfig(NAMES, prompt_channels=6)
ENCODER = SparseUNetConfig(
    inputs=("rgb", "one"), grid_size=0.1, stem_channels=4, channels=(6, 8, 8, 5), blocks=(1,) * 4, norm=CONFIG
)


def example() -> PromptNormConfig:
    return CONFIG


def rows(counts, channels=5, double=False):
    """A sparse tensor with so many rows in each scene."""
    coords = torch.cat([F.pad(torch.arange(n)[:, None], (1, 2), value=scene) for scene, n in enumerate(counts)])
    coords[:, 0] = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    coords[:, 2:] = 0
    feats = torch.randn(len(coords), channels) * 3 + 1
    return sparse_tensor(coords, feats.double() if double else feats, len(counts))


def built(config=CONFIG, channels=5):
    norm = config.build(channels, 1e-3, 0.1)
    with torch.no_grad():
        norm.weight.uniform_(0.5, 2)
        norm.bias.normal_()
    return norm


def by_hand(norm, x, conditions, prompts):
    """One condition at a time, with PyTorch's own batch norm."""
    out = torch.empty_like(x.feats)
    statistics = norm.running_mean.clone(), norm.running_var.clone()
    of_row = torch.tensor(conditions)[x.coords[:, 0]]
    for k in range(len(NAMES)):
        mine = of_row == k
        group, row = min(k, len(norm.weight) - 1), min(k, len(norm.weight) - 1)
        scale, shift = torch.ones(x.feats.shape[1]), torch.zeros(x.feats.shape[1])
        if norm.modulation is not None:
            shift, s = norm.modulation(prompts[k]).chunk(2)
            scale = 1 + s
        training = norm.training and int(mine.sum()) > 1
        mean, var = statistics[0][group], statistics[1][group]
        y = F.batch_norm(x.feats[mine], mean, var, norm.weight[row], norm.bias[row], training, 0.1, 1e-3)
        out[mine] = y * scale + shift
    return out, statistics


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("adaptive", [True, False])
@pytest.mark.parametrize("conditions", [(0, 2, 1, 0), (1, 1, 1, 1), (2, 0, 2, 2)])
def test_each_condition_is_normalised_by_itself(training, adaptive, conditions):
    norm = built(replace(CONFIG, adaptive=adaptive)).train(training)
    norm.running_mean.normal_()
    norm.running_var.uniform_(0.5, 2)
    x = rows((30, 20, 17, 5))
    prompts = torch.randn(3, 6) if adaptive else None
    expected, (mean, var) = by_hand(norm, x, conditions, prompts)
    out = norm(x, Prompted(conditions, 3, prompts, torch.device("cpu")))
    torch.testing.assert_close(out, expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(norm.running_mean, mean)
    torch.testing.assert_close(norm.running_var, var)


@pytest.mark.parametrize("conditions", [(0, 1), (0, 0)])
def test_shared_statistics(conditions):
    """Without ``decouple`` all rows share mean, variance, scale and shift; the prompt still tells them apart."""
    norm = built(replace(CONFIG, decouple=False))
    assert norm.weight.shape == (1, 5)
    x, prompts = rows((30, 20)), torch.randn(3, 6)
    mean, var = x.feats.mean(0), x.feats.var(0, unbiased=False)
    normal = (x.feats - mean) / (var + 1e-3).sqrt() * norm.weight + norm.bias
    shift, scale = norm.modulation(prompts).chunk(2, dim=1)
    of_row = torch.tensor(conditions)[x.coords[:, 0]]
    expected = normal * (1 + scale[of_row]) + shift[of_row]
    out = norm(x, Prompted(conditions, 3, prompts, torch.device("cpu")))
    torch.testing.assert_close(out, expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(norm.running_mean[0], 0.1 * mean)
    evaluated = norm.eval()(x, Prompted(conditions, 3, prompts, torch.device("cpu")))
    by_running = (x.feats - norm.running_mean) / (norm.running_var + 1e-3).sqrt() * norm.weight + norm.bias
    torch.testing.assert_close(evaluated, by_running * (1 + scale[of_row]) + shift[of_row], atol=1e-5, rtol=1e-5)


WAYS = ("spans", "members")


def way_of(kind, x, conditions):
    """How rows are summed up on a CPU, or as on a GPU."""
    if kind == "spans":
        return Prompted(conditions, 3, None, torch.device("cpu")).by_condition(x)
    return _Members(torch.tensor(conditions)[x.coords[:, 0]], 3)


@pytest.mark.parametrize("kind", WAYS)
@pytest.mark.parametrize("decouple", [True, False])
@pytest.mark.parametrize("conditions", [(0, 1, 2), (2, 0, 2)])
@pytest.mark.parametrize("training", [True, False])
def test_gradients_of_a_mixed_batch(decouple, kind, conditions, training):
    """Against those of the same written with PyTorch's own operations, in double precision."""
    norm = built(replace(CONFIG, decouple=decouple)).double()
    norm.running_mean.normal_()
    x = rows((9, 1, 6), double=True)
    members = F.one_hot(torch.tensor(conditions)[x.coords[:, 0]], 3).double()
    grouped = members if decouple else torch.ones_like(members[:, :1])
    feats = x.feats.clone().requires_grad_()
    scale, shift = (torch.randn(3, 5, dtype=torch.float64).requires_grad_() for _ in range(2))

    def plainly():
        counts = grouped.sum(0)[:, None]
        mean = torch.where((counts > 1) & training, grouped.T @ feats / counts.clamp(min=1), norm.running_mean)
        centred = feats - grouped @ mean
        var = torch.where((counts > 1) & training, grouped.T @ centred.square() / counts.clamp(min=1), norm.running_var)
        return centred / (grouped @ (var + 1e-3)).sqrt() * (members @ scale) + members @ shift

    way = way_of(kind, x, conditions)
    ours = _normalised(feats, scale, shift, way, norm.running_mean, norm.running_var, 1e-3, training)[0]
    torch.testing.assert_close(ours, plainly())
    weights = torch.randn_like(ours)
    expected = torch.autograd.grad((plainly() * weights).sum(), (feats, scale, shift))
    torch.testing.assert_close(torch.autograd.grad((ours * weights).sum(), (feats, scale, shift)), expected)


def test_both_ways_of_summing_agree_in_evaluation_too():
    norm, x, prompts = built().eval(), rows((9, 0, 6)), torch.randn(3, 6)
    prompted = Prompted((0, 1, 2), 3, prompts, torch.device("cpu"))
    by_spans = norm(x, prompted)
    prompted.by_condition = lambda x: way_of("members", x, (0, 1, 2))
    torch.testing.assert_close(norm(x, prompted), by_spans)


def scene(condition, key, num=80):
    generator = torch.Generator().manual_seed(key)
    xyz = torch.rand(num, 3, generator=generator)
    return Scene(xyz, torch.rand(num, 3, generator=generator), None, f"{condition} {key}", condition=condition)


@pytest.mark.parametrize("recompute", [False, True])
def test_an_encoder_sees_each_scene_of_a_mixed_batch_as_if_alone_with_its_kind(recompute):
    encoder = replace(ENCODER, recompute=recompute).build()
    scenes = [scene("b", 0), scene("a", 1), scene("b", 2)]
    mixed = encoder(Batch.of(scenes, ENCODER.inputs))
    alone = replace(ENCODER, recompute=recompute).build()
    alone.load_state_dict(encoder.state_dict())
    for name in ("running_mean", "running_var"):  # as at the start
        for module in alone.modules():
            if hasattr(module, name):
                getattr(module, name).fill_(float(name == "running_var"))
    both = alone(Batch.of([scenes[0], scenes[2]], ENCODER.inputs))
    of_b = mixed.coords[:, 0] != 1
    torch.testing.assert_close(mixed.feats[of_b], both.feats, atol=1e-4, rtol=1e-4)
    mixed.feats.square().sum().backward()
    unused = [p.grad for p in encoder.parameters() if p.grad is None]
    assert not unused, "every parameter has a gradient, also those of conditions that are not there"
    stem = encoder.stem.norm
    assert bool((stem.weight.grad[:2] != 0).any(1).all()) and not bool((stem.weight.grad[2] != 0).any())
    torch.testing.assert_close(stem.running_mean[2], torch.zeros_like(stem.running_mean[2]))


def test_encode_by_name():
    encoder = ENCODER.build()
    encoder(Batch.of([scene("a", 0), scene("b", 1)], ENCODER.inputs))
    cloud = scene("", 3)
    rows = {name: encoder.encode(cloud.xyz, cloud.rgb, condition=name) for name in ("a", "b")}
    assert not torch.allclose(rows["a"], rows["b"])
    encoder.eval()
    mixed = encoder(Batch.of([replace(cloud, condition="b")], ENCODER.inputs))
    assert len(mixed.feats) <= 80
    with pytest.raises(ValueError, match="condition is missing; this encoder knows a, b, c"):
        encoder.encode(cloud.xyz, cloud.rgb)
    with pytest.raises(ValueError, match="condition 'd' is unknown"):
        encoder.encode(cloud.xyz, cloud.rgb, condition="d")
    one = replace(ENCODER, norm=replace(CONFIG, names=("a",))).build()
    assert one.encode(cloud.xyz, cloud.rgb).shape == (80, 5), "one condition need not be named"
    plain = SparseUNetConfig(grid_size=0.1, stem_channels=4, channels=(4, 4), blocks=(1, 1)).build()
    with pytest.raises(ValueError, match="tells no conditions apart"):
        plain.encode(cloud.xyz, condition="a")


def test_unknown_conditions():
    assert rows_of(("b", "a"), NAMES) == [1, 0]
    with pytest.raises(ValueError, match="the condition of a scene is missing; this encoder knows a, b, c"):
        rows_of(("",), NAMES)
    with pytest.raises(ValueError, match="'x' is unknown"):
        ENCODER.build()(Batch.of([scene("x", 0)], ENCODER.inputs))
    with pytest.raises(ValueError, match="one or more different names"):
        PromptNormConfig(("a", "a"))
    with pytest.raises(ValueError, match="use that"):
        PromptNormConfig(decouple=False, adaptive=False)


def test_parameters_of_the_papers_encoder():
    """Three conditions, spec 1.5: 43,598,272 with the norms' 4,459,520; the outer table of prompts comes on top."""
    with torch.device("meta"):
        encoder = SparseUNetConfig(norm=PromptNormConfig()).build()
    assert sum(p.numel() for p in encoder.parameters()) == 43_598_272 + 3 * 256
