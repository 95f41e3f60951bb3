"""ponder3d convert: released weights, and one condition of an encoder, as an encoder file."""

import hashlib
import sys
from pathlib import Path

import pytest
import torch

import ponder3d
from ponder3d import cli
from ponder3d.encoders.files import read_card
from ponder3d.encoders.released import read_released
from ponder3d.encoders.sparse_unet import SparseUNetConfig


@pytest.fixture
def files():
    """The module that tests of ``encoders`` use."""
    sys.path.insert(0, str(Path(__file__).parents[1] / "encoders"))
    import released_files  # noqa: PLC0415

    return released_files


@pytest.fixture
def checkpoint(files, tmp_path) -> Path:
    net = files.Net(stem=3, channels=(4, 5), blocks=(1, 1), conditions=3)
    weights = {**files.backbone(net, prefix="backbone."), **files.table(net), **files.language(net)}
    return files.saved(tmp_path / "released.pth", {**weights, **files.rendering()})


XYZ, RGB = torch.rand(40, 3), torch.rand(40, 3)
NORMAL = torch.nn.functional.normalize(torch.randn(40, 3), dim=1)


def test_the_whole(checkpoint, tmp_path, capsys):
    out = tmp_path / "encoder.safetensors"
    assert cli.main(["convert", str(checkpoint), str(out)]) == 0
    released = read_released(checkpoint)
    parameters = sum(p.numel() for p in released.encoder.parameters())
    assert capsys.readouterr().out.splitlines() == [
        f"{checkpoint}: PonderIndoor-v2 of SpUNet-v1m3, {len(released.used)} names used",
        "  left out: counters of batches (24 names): the weight of new statistics is constant",
        "  left out: renderer (25 names): it serves pre-training only",
        "  left out: projection network (50 names): it serves pre-training only",
        "  left out: text head (4 names): the loss that would have trained it was left out of the total",
        f"{out}: {parameters:,} parameters, reads rgb and normal, conditions ScanNet, S3DIS, Structured3D",
    ]
    loaded = ponder3d.load(out)
    assert loaded.config == released.encoder.config
    for name, value in released.encoder.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value)
    for name in loaded.conditions:
        expected = released.encoder.encode(XYZ, RGB, NORMAL, condition=name)
        assert torch.equal(loaded.encode(XYZ, RGB, NORMAL, condition=name), expected)
    card = read_card(out)["card"]
    assert card["source"] == "released.pth"
    assert card["source_sha256"] == hashlib.sha256(checkpoint.read_bytes()).hexdigest()
    assert card["kind"] == "PonderIndoor-v2 of SpUNet-v1m3" and card["converter"] == 1
    assert card["left_out"]["renderer"] == [25, "it serves pre-training only"]


def test_one_condition(checkpoint, tmp_path, capsys):
    out = tmp_path / "s3dis.safetensors"
    assert cli.main(["convert", str(checkpoint), str(out), "--condition", "S3DIS", "--grid-size", "0.05"]) == 0
    assert capsys.readouterr().out.endswith("reads rgb and normal, no conditions\n")
    loaded = ponder3d.load(out)
    whole = read_released(checkpoint, grid_size=0.05).encoder
    assert loaded.config.grid_size == 0.05 and read_card(out)["card"]["condition"] == "S3DIS"
    torch.testing.assert_close(
        loaded.encode(XYZ, RGB, NORMAL), whole.encode(XYZ, RGB, NORMAL, condition="S3DIS"), atol=1e-6, rtol=1e-5
    )
    again = tmp_path / "again.safetensors"
    assert cli.main(["convert", str(checkpoint), str(tmp_path / "whole.safetensors"), "--grid-size", "0.05"]) == 0
    assert cli.main(["convert", str(tmp_path / "whole.safetensors"), str(again), "--condition", "S3DIS"]) == 0
    assert torch.equal(ponder3d.load(again).encode(XYZ, RGB, NORMAL), loaded.encode(XYZ, RGB, NORMAL))
    card = read_card(again)["card"]
    assert card["source"] == "whole.safetensors" and card["kind"] == "PonderIndoor-v2 of SpUNet-v1m3"


def test_names_of_conditions(checkpoint, tmp_path):
    out = tmp_path / "encoder.safetensors"
    options = ["--conditions", "a", "b", "c", "--table", "c", "a", "b"]
    assert cli.main(["convert", str(checkpoint), str(out), *options]) == 0
    assert ponder3d.load(out).conditions == ("a", "b", "c")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--condition", "kitchen"], "the condition 'kitchen' is unknown; this encoder knows ScanNet, S3DIS"),
        (["--conditions", "a", "b"], "it tells 3 conditions apart, not those named: a, b"),
        (["--inputs", "rgb"], "its first convolution reads 6 channels; rgb are 3"),
        (["--grid-size", "0"], "grid_size must be positive"),
    ],
)
def test_what_does_not_fit_writes_nothing(options, message, checkpoint, tmp_path, capsys):
    out = tmp_path / "encoder.safetensors"
    out.write_bytes(b"before")
    assert cli.main(["convert", str(checkpoint), str(out), *options]) == 2
    assert message in capsys.readouterr().err
    assert out.read_bytes() == b"before"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["encoder.safetensors", "released.pth"]


def test_a_condition_that_was_never_trained_is_told(checkpoint, tmp_path, capsys):
    state = torch.load(checkpoint, weights_only=False)
    for name, value in state["state_dict"].items():
        if name.endswith("bns.1.num_batches_tracked"):
            value.zero_()
    torch.save(state, checkpoint)
    assert cli.main(["convert", str(checkpoint), str(tmp_path / "e.safetensors")]) == 0
    assert "\n  never trained: the batch norms of S3DIS\n" in capsys.readouterr().out


def test_what_a_file_says_itself_is_no_option(checkpoint, tmp_path, capsys):
    encoder = tmp_path / "encoder.safetensors"
    assert cli.main(["convert", str(checkpoint), str(encoder)]) == 0
    assert cli.main(["convert", str(encoder), str(tmp_path / "e.safetensors"), "--grid-size", "0.05"]) == 2
    assert "--grid-size is about checkpoints" in capsys.readouterr().err
    assert not (tmp_path / "e.safetensors").exists()


def test_bad_places(checkpoint, tmp_path, capsys):
    assert cli.main(["convert", str(checkpoint), str(tmp_path / "encoder.pth")]) == 2
    assert "must be called NAME.safetensors" in capsys.readouterr().err
    assert cli.main(["convert", str(checkpoint), str(tmp_path / "absent" / "e.safetensors")]) == 2
    assert "is no directory" in capsys.readouterr().err
    assert cli.main(["convert", str(tmp_path / "absent.pth"), str(tmp_path / "e.safetensors")]) == 5
    assert "no such file" in capsys.readouterr().err
    checkpoint.write_bytes(checkpoint.read_bytes()[:-9])
    assert cli.main(["convert", str(checkpoint), str(tmp_path / "e.safetensors")]) == 2
    assert "no intact file of torch.save" in capsys.readouterr().err


def test_a_plain_encoder_has_no_condition_to_fold(tmp_path, capsys):
    config = SparseUNetConfig(inputs=("rgb",), grid_size=0.2, stem_channels=3, channels=(4, 5), blocks=(1, 1))
    ponder3d.save(config.build(), tmp_path / "plain.safetensors")
    command = ["convert", str(tmp_path / "plain.safetensors"), str(tmp_path / "e.safetensors"), "--condition", "a"]
    assert cli.main(command) == 2
    assert "this encoder tells no conditions apart" in capsys.readouterr().err
