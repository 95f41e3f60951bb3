"""The camera encoder as a whole; its parts have tests of their own in ``tests/encoders/image``."""

import contextlib
import re
from dataclasses import replace

import pytest
import torch

from ponder3d.cli import main
from ponder3d.encoders.camera import CameraEncoderConfig
from ponder3d.encoders.encoder import EncoderFileError
from ponder3d.encoders.files import load_encoder, save_encoder
from ponder3d.encoders.image.convnext import ConvNeXtConfig
from ponder3d.encoders.image.depth import DepthBins, SimpleDepth, depth_bin_loss
from ponder3d.encoders.image.lift import BilinearLift, DepthWeightedLift
from ponder3d.encoders.image.lift_splat import LiftSplat
from ponder3d.encoders.image.masking import ImageMaskingConfig
from ponder3d.encoders.image.neck import FPNConfig
from ponder3d.types import Batch, Cameras, Scene, Views
from ponder3d.types.scene import to_device

BACKBONE = ConvNeXtConfig(depths=(1, 1, 1, 1), dims=(8, 8, 16, 16), layer_scale=1.0)
BINS = DepthBins(near=0.5, far=8.5, num=16)


def example() -> CameraEncoderConfig:
    return CameraEncoderConfig(
        box=(-4.0, -4.0, -2.0, 4.0, 4.0, 3.0),
        shape=(8, 8, 5),
        backbone=BACKBONE,
        neck=FPNConfig(8),
        lift=LiftSplat(6, BINS, SimpleDepth()),
        convs=1,
    )


def views(num: int, height: int = 40, width: int = 70) -> Views:
    """Cameras at the origin that look along y, one beside the other."""
    pose = torch.tensor([[1.0, 0, 0, 0], [0, 0, 1, 0], [0, -1, 0, 0], [0, 0, 0, 1]]).repeat(num, 1, 1)
    pose[:, 0, 3] = torch.arange(num)
    intrinsics = torch.tensor([[35.0, 0, (width - 1) / 2], [0, 35, (height - 1) / 2], [0, 0, 1]]).repeat(num, 1, 1)
    rgb = torch.randint(0, 256, (num, height, width, 3), dtype=torch.uint8)
    return Views(Cameras(intrinsics, pose, (height, width)), rgb, None, None, torch.tensor([num]))


def scene(num: int = 2, **fields) -> Scene:
    return Scene(torch.rand(5, 3), None, None, "street", images=views(num), **fields)


LIFTS = [LiftSplat(6, BINS, SimpleDepth()), BilinearLift(6), DepthWeightedLift(6, BINS)]


@pytest.mark.parametrize("lift", LIFTS, ids=lambda lift: type(lift).__name__)
def test_the_volume_is_that_of_the_configuration(lift):
    encoder = replace(example(), lift=lift).build()
    volume = encoder(Batch.of([scene(), scene()], ()))
    assert volume.feats.shape == (2, 8, 8, 5, 6)
    assert volume.grid.shape == (8, 8, 5)
    assert torch.equal(volume.grid.box[1], torch.tensor([[-4.0, -4, -2], [4, 4, 3]]))


def test_points_are_not_looked_at():
    encoder, one = example().build().eval(), scene()
    other = replace(one, xyz=torch.rand(90, 3) * 5)
    assert torch.equal(encoder(Batch.of([one], ())).feats, encoder(Batch.of([other], ())).feats)


def test_views_from_anywhere_are_encoded_as_in_a_batch():
    encoder, one = example().build(), scene()
    assert one.images is not None
    expected = encoder.eval()(Batch.of([one], ()))
    encoder.train()
    seen = one.images.cameras
    volume = encoder.encode_views(one.images.rgb.numpy(), seen.intrinsics.numpy(), seen.world_from_cam.double())
    assert torch.equal(volume.feats, expected.feats) and not encoder.training
    assert torch.equal(volume.grid.box, expected.grid.box)


@pytest.mark.parametrize(
    ("wrong", "what"),
    [
        ({"images": torch.zeros(2, 8, 8, 3)}, r"images must be uint8 \[V H W 3\]"),
        ({"images": torch.zeros(0, 8, 8, 3, dtype=torch.uint8)}, "images must be uint8"),
        ({"intrinsics": torch.eye(3)[None]}, r"intrinsics must be \[2 3 3\]"),
        ({"world_from_cam": torch.full((2, 4, 4), torch.nan)}, "world_from_cam is not finite"),
    ],
)
def test_views_that_are_none(wrong, what):
    seen = views(2)
    given = {"images": seen.rgb, "intrinsics": seen.cameras.intrinsics, "world_from_cam": seen.cameras.world_from_cam}
    encoder = example().build()
    with pytest.raises(ValueError, match=what):
        encoder.encode_views(**{**given, **wrong})
    assert encoder.training, "nothing has happened"


@pytest.mark.parametrize("lift", [LiftSplat(6, BINS, SimpleDepth()), DepthWeightedLift(6, BINS)])
def test_depth_of_images_teaches_the_lift(lift):
    """The term is the loss of the lift's distribution, and its gradient reaches the backbone."""
    one = scene()
    depth = torch.zeros(2, 40, 70)
    depth[0, 5, 9], depth[1, 30, 60] = 3.2, 7.9
    batch = Batch.of([replace(one, images=replace(one.images, depth=depth))], ())
    encoder = replace(example(), lift=lift, depth_weight=0.5).build().eval()
    volume, terms = encoder.learn(batch)
    assert torch.equal(volume.feats, encoder(batch).feats)
    _, lifted = encoder.lifted(batch)
    (stride,) = encoder.lift.strides
    expected = 0.5 * depth_bin_loss(lifted.depth[0], depth, BINS, stride)
    torch.testing.assert_close(terms, {"lift_depth": expected})
    terms["lift_depth"].backward()
    assert all(p.grad is not None and float(p.grad.abs().max()) > 0 for p in encoder.backbone.stem.parameters())
    plain = replace(example(), lift=lift).build()
    assert plain.learn(batch)[1] == {} and encoder.reads_depth and not plain.reads_depth
    with pytest.raises(ValueError, match=r"among street are images without depth; set SeeImages\.depth"):
        encoder.learn(Batch.of([one], ()))


def test_depth_needs_a_distribution_to_teach():
    with pytest.raises(ValueError, match="a BilinearLift has no distribution of depth"):
        replace(example(), lift=BilinearLift(6), depth_weight=1.0).build()
    with pytest.raises(ValueError, match="depth_weight must be at least 0, not -1"):
        replace(example(), depth_weight=-1.0)


def test_patches_are_hidden_in_training_as_the_key_of_the_scene_says():
    config = replace(
        example(), masking=ImageMaskingConfig(0.4, token=True), convs=0, backbone=replace(BACKBONE, drop_path=0.0)
    )
    encoder, one = config.build(), scene(key=7)
    first, again = (encoder.train()(Batch.of([one], ())).feats for _ in range(2))
    assert torch.equal(first, again)
    other = encoder(Batch.of([replace(one, key=8)], ())).feats
    assert not torch.equal(first, other)
    assert torch.equal(encoder(Batch.of([scene(), one], ())).feats[1], first[0]), "whatever stands beside it"
    encoder.zero_grad()
    first.square().sum().backward()
    assert float(encoder.masking.tokens[0].grad.abs().max()) > 0
    seen = encoder.eval()(Batch.of([one], ())).feats
    assert torch.equal(seen, encoder(Batch.of([replace(one, key=8)], ())).feats) and not torch.equal(seen, first)


def test_batches_that_do_not_fit():
    encoder = example().build()
    with pytest.raises(ValueError, match="as many images of every scene; choose them: street 2, street 3"):
        Batch.of([scene(2), scene(3)], ())
    with pytest.raises(ValueError, match="3 images of 2 scenes; there must be as many of each"):
        encoder(replace(Batch.of([scene(2), scene(2)], ()), images=scene(3).images))
    with pytest.raises(ValueError, match="no images with street: put SeeImages among the transforms"):
        encoder(Batch.of([replace(scene(), images=None)], ()))


def test_weights_are_read_at_the_start_and_never_again(tmp_path):
    source = BACKBONE.build()
    path = tmp_path / "backbone.pth"
    torch.save({**source.state_dict(), "head.weight": torch.ones(3)}, path)
    config = replace(example(), backbone=replace(BACKBONE, weights=str(path)))
    encoder = config.build()
    assert not torch.equal(encoder.backbone.stem[0].weight, source.stem[0].weight)
    (line,) = encoder.start()
    assert line.startswith(f"{path}: head left out (1 names): it is for classes")
    assert torch.equal(encoder.backbone.stem[0].weight, source.stem[0].weight)
    save_encoder(encoder, tmp_path / "encoder.safetensors")
    path.unlink()
    loaded = load_encoder(tmp_path / "encoder.safetensors")
    assert loaded.config == config
    assert torch.equal(loaded.backbone.stem[0].weight, source.stem[0].weight)
    with pytest.raises(EncoderFileError, match=r"backbone\.weights: .*no such file of weights"):
        config.build().start()
    assert example().build().start() == ()


@pytest.mark.parametrize(
    ("wrong", "what"),
    [
        ({"inputs": ("rgb",)}, "it reads images alone, not rgb"),
        ({"box": (0.0, 0.0, 0.0, 1.0, 0.0, 1.0)}, "CameraEncoderConfig: a box is lower"),
        ({"shape": (1, 0, 1)}, "number of cells must be positive"),
        ({"convs": -1}, "convs -1 not negative"),
    ],
)
def test_choices_that_make_no_encoder(wrong, what):
    with pytest.raises(ValueError, match=what):
        replace(example(), **wrong)


def test_info_says_that_it_reads_images(tmp_path, capsys):
    save_encoder(example().build(), tmp_path / "encoder.safetensors")
    assert main(["info", str(tmp_path / "encoder.safetensors")]) == 0
    assert re.search(r"^inputs +images$", capsys.readouterr().out, flags=re.MULTILINE)


def test_a_token_without_masks_waits():
    """Fine-tuning without masks from an encoder that has a token: the same parameters, of which it learns not."""
    encoder = replace(example(), masking=ImageMaskingConfig(0.0, token=True)).build().train()
    encoder(Batch.of([scene()], ())).feats.sum().backward()
    assert all(p.grad is not None for p in encoder.parameters() if p.requires_grad)
    assert [name for name, p in encoder.named_parameters() if not p.requires_grad] == ["masking.tokens.0"]


@pytest.mark.parametrize("lift", LIFTS, ids=lambda lift: type(lift).__name__)
def test_no_step_waits_for_a_gpu(lift, monkeypatch):
    """Tensors without values: whatever asks for one raises. On a CPU the host may ask, and does."""
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: contextlib.nullcontext())  # knows no such device
    encoder = replace(example(), lift=lift, masking=ImageMaskingConfig(0.4, token=True)).build().to("meta").train()
    volume = encoder(to_device(Batch.of([scene(), scene()], ()), "meta"))
    volume.feats.sum().backward()
    assert volume.feats.device.type == "meta"
