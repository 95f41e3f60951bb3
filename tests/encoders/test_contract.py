"""What every encoder of the package promises, found by walking it; a new one is tested without a word.

An encoder whose defaults are not small has a function ``example`` in the test file of its module.
"""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from ponder3d.config import from_json, to_json
from ponder3d.encoders.encoder import Encoder, EncoderConfig
from ponder3d.encoders.files import load_encoder, save_encoder
from ponder3d.types import Batch, Cameras, Grid, Scene, Views
from ponder3d.types.scene import INPUT_CHANNELS
from ponder3d.volume.convert import densify, sample_at

FAMILY = EncoderConfig


def cloud(num: int, low: float = 0.0) -> Scene:
    """Points, and two images of where they are for encoders that see those."""
    normal = torch.nn.functional.normalize(torch.randn(num, 3), dim=1)
    xyz, rgb = torch.rand(num, 3) * 2 + low, torch.rand(num, 3)
    return Scene(xyz, rgb, normal, "cloud", images=images())


def images() -> Views:
    """From 3 m beside the points along y and along x, with noise on them."""
    along_y = torch.tensor([[1.0, 0, 0, 0.5], [0, 0, 1, -3], [0, -1, 0, 0.5], [0, 0, 0, 1]])
    along_x = torch.tensor([[0.0, 0, 1, -3], [-1, 0, 0, 0.5], [0, -1, 0, 0.5], [0, 0, 0, 1]])
    intrinsics = torch.tensor([[40.0, 0, 39.5], [0, 40, 23.5], [0, 0, 1]]).repeat(2, 1, 1)
    cameras = Cameras(intrinsics, torch.stack([along_y, along_x]), (48, 80))
    rgb = torch.randint(0, 256, (2, 48, 80, 3), dtype=torch.uint8)
    return Views(cameras, rgb, None, None, torch.tensor([2]))


def features(encoder: Encoder, *scenes: Scene) -> Tensor:
    """One row per point, as tasks read them."""
    batch = Batch.of(scenes, encoder.config.inputs)
    return sample_at(encoder(batch), batch.points.xyz, batch.points.scene)


def test_a_configuration_survives_json_and_stays_with_its_encoder(example):
    assert from_json(EncoderConfig, to_json(example)) == example
    assert example.build().config == example
    assert example.grid_size > 0 and set(example.inputs) <= set(INPUT_CHANNELS)


@pytest.mark.parametrize("inputs", [("one",), ("normal", "rgb"), tuple(INPUT_CHANNELS)], ids=" ".join)
def test_any_inputs_can_be_chosen(example, inputs):
    if not example.inputs:
        pytest.skip("reads no points")
    encoder = example.with_inputs(inputs).build()
    assert features(encoder, cloud(50)).shape == (50, encoder.out_channels)


def test_both_doors_open_and_train_every_parameter(example):
    encoder = example.build()
    scenes = [cloud(300), cloud(100, low=-1.0)]
    batch = Batch.of(scenes, example.inputs)
    out = encoder(batch)
    volume = densify(out, Grid(batch.bounds, (6, 5, 4)))
    assert volume.feats.shape == (2, 6, 5, 4, encoder.out_channels)
    rows = sample_at(out, batch.points.xyz, batch.points.scene)
    assert rows.shape == (400, encoder.out_channels) and bool(torch.isfinite(rows).all())
    (rows.square().sum() + volume.feats.square().sum()).backward()
    for name, parameter in encoder.named_parameters():
        assert parameter.grad is not None and bool(torch.isfinite(parameter.grad).all()), name
        assert float(parameter.grad.abs().max()) > 0, name


def test_a_decoder_is_a_part_of_it_that_is_trained(example):
    encoder = example.build()
    own = [name for name, _ in encoder.named_parameters()]
    for part in encoder.decoder:
        assert any(name.startswith(f"{part}.") for name in own), part
    assert not own or any(not name.startswith(tuple(f"{part}." for part in encoder.decoder)) for name in own)


def test_scenes_of_a_batch_do_not_mix(example):
    encoder = example.build().eval()
    scenes = [cloud(300), cloud(200, low=-1.0), cloud(50)]
    together = features(encoder, *scenes).split([300, 200, 50])
    for scene, rows in zip(scenes, together, strict=True):
        torch.testing.assert_close(features(encoder, scene), rows, atol=1e-5, rtol=1e-4)


def test_the_order_of_the_points_does_not_matter(example):
    encoder, scene = example.build().eval(), cloud(300)
    order = torch.randperm(300)
    shuffled = replace(scene, xyz=scene.xyz[order], rgb=scene.rgb[order], normal=scene.normal[order])
    torch.testing.assert_close(features(encoder, shuffled), features(encoder, scene)[order], atol=1e-5, rtol=1e-4)


def test_evaluation_changes_nothing_and_repeats_to_the_bit(example):
    encoder, scene = example.build().eval(), cloud(300)
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    torch.manual_seed(1)
    first = features(encoder, scene)
    torch.manual_seed(2)
    assert torch.equal(features(encoder, scene), first)
    assert all(torch.equal(value, before[name]) for name, value in encoder.state_dict().items())


@pytest.mark.parametrize("num", [0, 1, 2])
@pytest.mark.parametrize("training", [True, False])
def test_next_to_nothing(example, num, training):
    """An empty scene and a scene of one point go through, trained or not, alone or beside another."""
    encoder = example.build().train(training)
    for scenes in ([cloud(num)], [cloud(num), cloud(100)]):
        rows = features(encoder, *scenes)
        assert rows.shape == (sum(len(s.xyz) for s in scenes), encoder.out_channels)
        assert bool(torch.isfinite(rows).all())
        rows.sum().backward()
    assert all(p.grad is None or bool(torch.isfinite(p.grad).all()) for p in encoder.parameters())


def test_a_file_holds_all_of_it(example, tmp_path):
    encoder, scene = example.build(), cloud(300)
    features(encoder.train(), scene)  # statistics that differ from the initial ones
    save_encoder(encoder, tmp_path / "encoder.safetensors")
    loaded = load_encoder(tmp_path)
    assert loaded.config == example
    assert torch.equal(features(loaded, scene), features(encoder.eval(), scene))


def test_images_are_asked_for_where_they_are_needed(example):
    encoder, scene = example.build().eval(), replace(cloud(50), images=None)
    if not encoder.reads_images:
        return
    with pytest.raises(ValueError, match="put SeeImages among the transforms"):
        features(encoder, scene)
    with pytest.raises(ValueError, match="reads images, and a cloud has none"):
        encoder.encode(scene.xyz, scene.rgb, scene.normal)


def test_any_cloud_can_be_encoded(example):
    if example.build().reads_images:
        pytest.skip("a cloud is not enough")
    encoder, scene = example.with_inputs(tuple(INPUT_CHANNELS)).build(), cloud(300)
    strength, age = torch.rand(300), torch.rand(300)
    rows = encoder.encode(scene.xyz, scene.rgb, scene.normal, intensity=strength, time=age)
    assert rows.shape == (300, encoder.out_channels) and rows.dtype == torch.float32
    order = torch.randperm(300)
    again = encoder.encode(
        *(x[order].numpy() for x in (scene.xyz, scene.rgb, scene.normal)),
        intensity=strength[order].numpy(),
        time=age[order].numpy(),
    )
    torch.testing.assert_close(again, rows[order], atol=1e-5, rtol=1e-4)
    encoder.card = {"modality_dropout": ["rgb", "normal", "intensity"]}
    assert encoder.encode(scene.xyz).shape == rows.shape, "colour, normals and intensity may be missing"


def test_tiles_equal_the_whole_where_the_reach_is_known(example):
    """A strip of four reaches, cut in at least two: every feature is that of the strip in one piece."""
    encoder = example.build()
    if encoder.reach is None:
        pytest.skip("not cut")
    step = example.grid_size
    strip = torch.cartesian_prod(torch.arange(int(4 * encoder.reach / step)), torch.arange(3), torch.arange(2))
    xyz = (strip + 0.5) * step
    normal = torch.nn.functional.normalize(torch.randn(len(xyz), 3), dim=1)
    for norm in (m for m in encoder.modules() if isinstance(m, torch.nn.BatchNorm1d)):
        norm.momentum = 1.0  # one pass in training: with the initial statistics deep features would be almost 0
    features(encoder.train(), Scene(xyz, torch.rand(len(xyz), 3), normal, "strip"))
    rgb, calls = torch.rand(len(xyz), 3), []
    encoder.register_forward_hook(lambda *_: calls.append(1))
    whole = encoder.encode(xyz, rgb, normal)
    assert len(calls) == 1
    tiled = encoder.encode(xyz, rgb, normal, max_voxels=3 * len(xyz) // 4)
    assert len(calls) > 2
    assert float((whole - tiled).norm(dim=1).max() / whole.norm(dim=1).mean()) < 1e-5
    rough = encoder.encode(xyz, rgb, normal, max_voxels=3 * len(xyz) // 4, halo=encoder.reach / 10)
    assert float((whole - rough).norm(dim=1).max() / whole.norm(dim=1).mean()) > 1e-3, "this test cannot fail"
