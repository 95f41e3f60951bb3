from dataclasses import replace

import pytest
import torch

from ponder3d.data.transforms import GridSample, apply
from ponder3d.encoders.camera import CameraEncoderConfig
from ponder3d.encoders.encoder import EncoderFileError
from ponder3d.encoders.files import load_encoder, save_encoder, start_from
from ponder3d.encoders.fusion import FusionEncoderConfig, shown
from ponder3d.encoders.image.convnext import ConvNeXtConfig
from ponder3d.encoders.image.depth import DepthBins, SimpleDepth
from ponder3d.encoders.image.lift_splat import LiftSplat
from ponder3d.encoders.image.neck import FPNConfig
from ponder3d.encoders.sparse_unet import SparseUNetConfig
from ponder3d.encoders.voxelnet import VoxelNetConfig
from ponder3d.types import Batch, Cameras, Scene, Views
from ponder3d.volume.convert import densify
from ponder3d.volume.unet3d import NoNet3DConfig

BOX = (-1.2, -1.2, -1.2, 2.4, 2.4, 2.4)


def example() -> FusionEncoderConfig:
    """For the contract of encoders."""
    lidar = VoxelNetConfig(("rgb", "normal", "one"), 0.1, BOX, (9, 9, 3), (4, 6), (1, 1), 8, NoNet3DConfig())
    camera = CameraEncoderConfig(
        box=(-1.2, -1.2, -1.2, 2.4, 2.4, 2.4),
        shape=(6, 6, 3),
        backbone=ConvNeXtConfig(depths=(1, 1, 1, 1), dims=(8, 8, 16, 16), layer_scale=1.0),
        neck=FPNConfig(8),
        lift=LiftSplat(6, DepthBins(near=0.5, far=8.5, num=16), SimpleDepth()),
    )
    return FusionEncoderConfig(lidar, camera, BOX, (9, 9, 3), channels=5, out_channels=7)


def a_scene(key: int = 0, num: int = 200) -> Scene:
    pose = torch.tensor([[1.0, 0, 0, 0.5], [0, 0, 1, -3], [0, -1, 0, 0.5], [0, 0, 0, 1]])
    intrinsics = torch.tensor([[40.0, 0, 39.5], [0, 40, 23.5], [0, 0, 1]])
    rgb = torch.randint(0, 256, (1, 48, 80, 3), dtype=torch.uint8)
    images = Views(Cameras(intrinsics[None], pose[None], (48, 80)), rgb, None, None, torch.tensor([1]))
    return Scene(torch.rand(num, 3) * 2, torch.rand(num, 3), None, "street", key=key, images=images)


def volume(encoder, *scenes: Scene) -> torch.Tensor:
    return encoder(Batch.of(scenes, encoder.config.inputs)).feats.detach()


def test_what_it_reads_is_what_its_parts_read():
    config = example()
    assert config.inputs == config.lidar.inputs and config.grid_size == config.lidar.grid_size
    assert config.with_inputs(("xyz",)).lidar.inputs == ("xyz",)
    encoder = config.build()
    assert encoder.reads_images and encoder.box == BOX and set(encoder.parts()) == {"lidar", "camera"}


@pytest.mark.parametrize("how", ["sum", "concat"])
def test_both_meet_in_one_volume(how):
    encoder = replace(example(), how=how).build().eval()
    batch = Batch.of([a_scene(), a_scene()], encoder.config.inputs)
    encoder.requires_grad_(False)
    out = encoder(batch)
    points = encoder.of_lidar(densify(encoder.lidar(batch), out.grid).feats)
    images = encoder.of_camera(densify(encoder.camera(batch), out.grid).feats)
    met = points + images if how == "sum" else torch.cat([points, images], dim=-1)
    expected = encoder.fuse(met.permute(0, 4, 1, 2, 3)).permute(0, 2, 3, 4, 1)
    torch.testing.assert_close(out.feats, expected)
    assert out.grid.shape == (9, 9, 3) and float(points.abs().max()) > 0 and float(images.abs().max()) > 0


def test_any_encoder_of_points_takes_part():
    unet = SparseUNetConfig(("rgb", "one"), 0.1, 4, 3, (4, 5), (1, 1))
    encoder = replace(example(), lidar=unet).build().eval()
    scene = a_scene()
    out = volume(encoder, scene)
    assert not torch.equal(out, volume(encoder, replace(scene, xyz=scene.xyz.flip(1))))


def test_one_of_both_may_be_left_out_in_training():
    scene, other = a_scene(), a_scene()
    for share, changed, same in (
        ({"drop_lidar": 1.0}, {"images": other.images}, {"xyz": other.xyz}),
        ({"drop_camera": 1.0}, {"xyz": other.xyz}, {"images": other.images}),
    ):
        encoder = replace(example(), **share).build().train()
        first = volume(encoder, scene)
        assert torch.equal(volume(encoder, replace(scene, **same)), first)
        assert not torch.equal(volume(encoder, replace(scene, **changed)), first)
        encoder.eval()
        both = volume(encoder, scene)
        assert not torch.equal(volume(encoder, replace(scene, **same)), both)


def test_what_is_left_out_follows_from_the_scenes_key():
    keys = torch.arange(20_000)
    lidar, camera = shown(keys, 0.25, 0.5)
    assert bool((lidar | camera).all())
    assert float((~lidar).double().mean()) == pytest.approx(0.25, abs=0.02)
    assert float((~camera).double().mean()) == pytest.approx(0.5, abs=0.02)
    some = torch.tensor([17, 3, 4711])
    assert torch.equal(shown(some, 0.25, 0.5)[0], lidar[some]) and torch.equal(shown(some, 0.25, 0.5)[1], camera[some])
    assert all(bool(kept.all()) for kept in shown(keys, 0.0, 0.0))


def test_a_missing_part_is_as_one_that_was_left_out():
    trained = replace(example(), drop_camera=0.5, drop_lidar=0.5).build().eval()
    scene = a_scene()
    without = volume(trained, replace(scene, images=None))
    assert without.shape == (1, 9, 9, 3, 7)
    trained.camera.requires_grad_(False)
    for parameter in (trained.of_camera.weight, trained.of_camera.bias):
        torch.nn.init.zeros_(parameter)
    torch.testing.assert_close(volume(trained, scene), without)
    empty = replace(scene, xyz=scene.xyz[:0], rgb=scene.rgb[:0])
    blind = volume(trained, replace(empty, images=None))
    grid_of_nothing = torch.zeros(1, 5, 9, 9, 3)
    torch.testing.assert_close(blind, trained.fuse(grid_of_nothing).permute(0, 2, 3, 4, 1).detach())
    with pytest.raises(ValueError, match="put SeeImages among the transforms"):
        volume(example().build(), replace(scene, images=None))


def test_its_camera_learns_from_depth():
    config = example()
    encoder = replace(config, camera=replace(config.camera, depth_weight=2.0)).build().eval()
    scene = a_scene()
    depth = torch.zeros(1, 48, 80)
    depth[0, 20, 30] = 4.0
    batch = Batch.of([replace(scene, images=replace(scene.images, depth=depth))], encoder.config.inputs)
    fused, terms = encoder.learn(batch)
    assert torch.equal(fused.feats, encoder(batch).feats)
    torch.testing.assert_close(terms, encoder.camera.learn(batch)[1])
    assert terms["lift_depth"].item() > 0 and config.build().learn(batch)[1] == {}


def test_it_starts_from_files_of_its_parts(tmp_path):
    config = example()
    lidar, camera = config.lidar.build(), config.camera.build()
    save_encoder(lidar, tmp_path / "lidar.safetensors")
    save_encoder(camera, tmp_path / "camera.safetensors")
    encoder = config.build()
    start_from(encoder, f"lidar={tmp_path / 'lidar.safetensors'},camera={tmp_path / 'camera.safetensors'}")
    for part, source in ((encoder.lidar, lidar), (encoder.camera, camera)):
        assert all(torch.equal(value, source.state_dict()[name]) for name, value in part.state_dict().items())
    one = config.build()
    before = {name: value.clone() for name, value in one.lidar.state_dict().items()}
    start_from(one, f"camera={tmp_path / 'camera.safetensors'}")
    assert all(torch.equal(value, before[name]) for name, value in one.lidar.state_dict().items())
    assert torch.equal(one.camera.lift.state_dict().popitem()[1], camera.lift.state_dict().popitem()[1])
    save_encoder(encoder, tmp_path / "both.safetensors")
    other = config.build()
    start_from(other, str(tmp_path / "both.safetensors"))
    assert all(torch.equal(value, other.state_dict()[name]) for name, value in encoder.state_dict().items())
    assert load_encoder(tmp_path / "both.safetensors").config == config


def test_files_that_do_not_fit(tmp_path):
    config = example()
    save_encoder(config.lidar.build(), tmp_path / "lidar.safetensors")
    path = tmp_path / "lidar.safetensors"
    for init, message in (
        (f"radar={path}", "parts are lidar and camera, each once"),
        (f"lidar={path},lidar={path}", "parts are lidar and camera, each once"),
        (f"lidar={tmp_path / 'none'}", "none: no such file"),
    ):
        with pytest.raises(ValueError, match=f"Experiment.init: .*{message}"):
            start_from(config.build(), init)
    with pytest.raises(EncoderFileError, match=r"trained with inputs \('rgb', 'normal', 'one'\)"):
        start_from(config.build(), f"camera={path}")
    larger = replace(config, lidar=replace(config.lidar, box=(*BOX[:5], 4.2)))
    with pytest.raises(EncoderFileError, match=r"cells of 0.4 x 0.4 x 1.2 m, this encoder has 0.4 x 0.4 x 1.8 m"):
        start_from(larger.build(), f"lidar={path}")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"drop_lidar": 0.7, "drop_camera": 0.4}, "probabilities of two things"),
        ({"drop_lidar": -0.1}, "probabilities of two things"),
        ({"shape": (0, 4, 4)}, "must be positive"),
        ({"camera": example().lidar}, "camera one that reads none, not VoxelNetConfig and VoxelNetConfig"),
    ],
)
def test_bad_choices(changes, message):
    with pytest.raises(ValueError, match=f"FusionEncoderConfig: .*{message}"):
        replace(example(), **changes)


def test_parts_that_start_by_themselves_say_what_they_read(tmp_path):
    backbone = example().camera.backbone
    torch.save({**backbone.build().state_dict(), "head.weight": torch.ones(2)}, tmp_path / "net.pth")
    camera = replace(example().camera, backbone=replace(backbone, weights=str(tmp_path / "net.pth")))
    config = replace(example(), camera=camera)
    (line,) = config.build().start()
    assert "net.pth: head left out (1 names)" in line
    save_encoder(config.lidar.build(), tmp_path / "lidar.safetensors")
    assert start_from(config.build(), f"lidar={tmp_path / 'lidar.safetensors'}") == (line,)


def test_scenes_from_anywhere_are_encoded_as_in_a_batch():
    encoder = replace(example(), drop_camera=0.5, drop_lidar=0.5).build()
    scene = apply((GridSample(0.1),), a_scene(), 0, 0)
    assert scene.images is not None
    seen, rgb = scene.images.cameras, scene.images.rgb
    views = (rgb.numpy(), seen.intrinsics.numpy(), seen.world_from_cam.double())
    # Sampled points are means of voxels; encoded ones stand in the middle of theirs.
    middle = replace(scene, xyz=(torch.floor(scene.xyz / 0.1) + 0.5) * 0.1)
    cloud = {"xyz": middle.xyz, "rgb": middle.rgb}
    empty = replace(middle, xyz=middle.xyz[:0], rgb=middle.rgb[:0])
    encoder.eval()
    expected = [volume(encoder, s) for s in (middle, replace(middle, images=None), empty)]
    encoder.train()
    with pytest.warns(UserWarning, match="encode_views: normal missing.*: pass normal$"):
        both = encoder.encode_views(*views, **cloud)
    assert not encoder.training and both.grid.shape == (9, 9, 3)
    for got, wanted in zip((both, encoder.encode_views(**cloud), encoder.encode_views(*views)), expected, strict=True):
        torch.testing.assert_close(got.feats, wanted)
    assert not torch.allclose(expected[0], expected[1])


def test_points_outside_the_box_are_not_looked_at():
    """Training leaves them out, so a SparseUNet, which would see them, has never seen any."""
    config = replace(example(), drop_camera=0.5, lidar=SparseUNetConfig(("rgb",), 0.1, 4, 3, (4, 5), (1, 1)))
    encoder, xyz, rgb = config.build(), torch.rand(300, 3) * 2, torch.rand(300, 3)
    far = torch.cat([xyz, torch.rand(50, 3) + torch.tensor([2.4, 0.0, 0.0])])
    alone = encoder.encode_views(xyz=xyz, rgb=rgb)
    assert torch.equal(encoder.encode_views(xyz=far, rgb=torch.cat([rgb, torch.rand(50, 3)])).feats, alone.feats)


def test_scenes_that_are_none():
    both, either = example().build(), replace(example(), drop_camera=0.5, drop_lidar=0.5).build()
    cloud = {"xyz": torch.rand(9, 3), "rgb": torch.rand(9, 3), "normal": torch.rand(9, 3)}
    views = {
        "images": torch.zeros(1, 48, 80, 3, dtype=torch.uint8),
        "intrinsics": torch.eye(3)[None],
        "world_from_cam": torch.eye(4)[None],
    }
    for encoder, given, message in (
        (either, {"images": views["images"]}, "go together"),
        (both, {}, "neither images nor points"),
        (either, {"xyz": torch.zeros(0, 3)}, "neither images nor points"),
        (both, cloud, r"no images, and this encoder did not learn to do without .*drop_camera is 0"),
        (both, views, r"no points, and this encoder did not learn to do without .*drop_lidar is 0"),
        (either, {**views, "rgb": cloud["rgb"]}, "rgb of points without xyz"),
        (either, {**cloud, "condition": "winter"}, "tells no conditions apart"),
        (either, {**cloud, "xyz": cloud["xyz"] + 50}, "no point lies in the box"),
    ):
        with pytest.raises(ValueError, match=message):
            encoder.encode_views(**given)
        assert encoder.training
    with pytest.raises(ValueError, match="reads images"):
        both.encode(cloud["xyz"])
