"""Runs whose encoder reads images."""

from dataclasses import replace

import pytest
import torch
from tiny_runs import TinyRooms, ponder_run

from ponder3d.data.joint import JointConfig, PartConfig
from ponder3d.data.transforms import KeepViews, Only, PickRays, SeeImages
from ponder3d.encoders.camera import CameraEncoder, CameraEncoderConfig
from ponder3d.encoders.files import load_encoder
from ponder3d.encoders.image.convnext import ConvNeXtConfig
from ponder3d.encoders.image.depth import DepthBins, SimpleDepth
from ponder3d.encoders.image.lift_splat import LiftSplat
from ponder3d.encoders.image.masking import ImageMaskingConfig
from ponder3d.encoders.image.neck import FPNConfig
from ponder3d.engine.experiment import Experiment
from ponder3d.engine.loop import train
from ponder3d.engine.optim import OptimConfig
from ponder3d.tasks.also import ALSOConfig
from ponder3d.tasks.masking import NoMasking

BACKBONE = ConvNeXtConfig(depths=(1, 1), dims=(4, 6), out_stages=(1,), layer_scale=1.0)


def camera_run(**changes) -> Experiment:
    """Rooms of 2 m, seen by their two images of 8 x 8 pixels."""
    encoder = CameraEncoderConfig(
        box=(-1.5, -1.5, -1.5, 1.5, 1.5, 1.5),
        shape=(6, 6, 6),
        backbone=replace(BACKBONE, weights=changes.pop("weights", "")),
        masking=ImageMaskingConfig(0.3, patch=8),
        neck=FPNConfig(6),
        lift=LiftSplat(4, DepthBins(0.0, 2.0, 8), SimpleDepth()),
    )
    base = ponder_run(workers=0, steps=2)
    steps = {"transforms": (SeeImages(), PickRays(2, 8)), "validation_transforms": (SeeImages(), KeepViews((0,)))}
    return replace(base, task=replace(base.task, encoder=encoder, masking=NoMasking()), **{**steps, **changes})


def test_a_run_from_pretrained_weights_needs_their_file_once(tmp_path, capsys):
    torch.manual_seed(5)
    source = BACKBONE.build()
    path = tmp_path / "backbone.pth"
    torch.save({**source.state_dict(), "head.weight": torch.ones(3)}, path)
    run = camera_run(weights=str(path), optim=OptimConfig(lr=1e-6))
    train(run, tmp_path / "run")
    assert "backbone.pth: head left out (1 names)" in capsys.readouterr().err
    path.unlink()
    encoder = load_encoder(tmp_path / "run")
    assert isinstance(encoder, CameraEncoder)
    torch.testing.assert_close(encoder.backbone.stem[0].weight, source.stem[0].weight, atol=1e-4, rtol=0)
    assert not torch.equal(encoder.backbone.stem[0].weight, source.stem[0].weight), "trained a little"
    train(run, tmp_path / "run", resume=True, quiet=True)
    again = replace(run, init=str(tmp_path / "run"), steps=1)
    train(again, tmp_path / "again", quiet=True)  # all of its weights are those of the encoder's file
    with pytest.raises(ValueError, match=r"backbone\.weights: .*no such file"):
        train(run, tmp_path / "other", quiet=True)


def test_without_images_nothing_is_begun(tmp_path):
    for changes, what in (
        ({"transforms": (PickRays(2, 8),)}, r"Experiment\.transforms: .*put SeeImages among them, before PickRays"),
        ({"validation_transforms": (KeepViews((0,)),)}, r"Experiment\.validation_transforms: the encoder reads images"),
    ):
        with pytest.raises(ValueError, match=what):
            train(camera_run(**changes), tmp_path / "run", quiet=True)
        assert not (tmp_path / "run").exists()


def test_images_of_each_of_several_datasets():
    run = camera_run()
    data = JointConfig((PartConfig("a", TinyRooms()), PartConfig("b", TinyRooms(first=9)))).build()
    task = run.task.build(None)
    run.check_images(data, data, task)
    only = replace(run, transforms=(Only(("a",), (SeeImages(),)), PickRays(2, 8)))
    with pytest.raises(ValueError, match="no transform gives it any for scenes of b"):
        only.check_images(data, data, task)
    both = replace(run, transforms=(Only(("a",), (SeeImages(),)), Only(("b",), (SeeImages(),)), PickRays(2, 8)))
    both.check_images(data, data, task)
    only.check_images(data, data, ponder_run().task.build(None))  # reads none


def test_an_encoder_that_learns_from_depth_gets_some(tmp_path):
    run = camera_run()
    config = replace(run.task, encoder=replace(run.task.encoder, depth_weight=1.0))
    run = replace(run, task=config)
    with pytest.raises(ValueError, match=r"Experiment\.transforms: .*no transform gives it any; set SeeImages\.depth"):
        train(run, tmp_path / "run", quiet=True)
    seen = replace(run, transforms=(SeeImages(depth=True), PickRays(2, 8)))
    train(seen, tmp_path / "run", quiet=True)  # no depth in evaluation
    assert "lift_depth" in (tmp_path / "run" / "train.csv").read_text().splitlines()[0]
    with pytest.raises(ValueError, match=r"a ALSO has no such term; set depth_weight to 0, or make it a part"):
        train(replace(seen, task=ALSOConfig(encoder=config.encoder)), tmp_path / "other", quiet=True)
    data = JointConfig((PartConfig("a", TinyRooms()), PartConfig("b", TinyRooms(first=9)))).build()
    steps = (Only(("a",), (SeeImages(depth=True),)), Only(("b",), (SeeImages(),)), PickRays(2, 8))
    with pytest.raises(ValueError, match="depth of images, and no transform gives it any for scenes of b"):
        replace(run, transforms=steps).check_images(data, data, config.build(None))
