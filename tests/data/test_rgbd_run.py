"""Whole runs on a recording, through the command line: what the README promises for recordings of one's own."""

import json
from pathlib import Path

import numpy as np
import pytest

from ponder3d import cli
from ponder3d.data.rgbd_images import read_rgb
from ponder3d.encoders.files import FILE_NAME, load_encoder
from ponder3d.report.feature_pictures import write_feature_pictures

LIST = "skipped-frames.txt"


@pytest.fixture
def root(tmp_path, recording) -> Path:
    """Ten frames, of which number 4 is held out."""
    matrix = recording.pinhole(24, 32, 20.0)
    large = recording(num=10, size=(24, 32), colour_size=(24, 32), matrix=matrix, colour_matrix=matrix)
    return large.write(tmp_path / "rec", "scannet")


def train(root: Path, out: Path, *options: str) -> int:
    arguments = ["train", "smoke.pretrain_rgbd_folder", "--data.root", str(root), "--out", str(out)]
    return cli.main([*arguments, *options])


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-40])


def test_train_evaluate_report(root, tmp_path, capsys):
    run = tmp_path / "run"
    assert train(root, run) == 0
    capsys.readouterr()
    assert cli.main(["evaluate", str(run)]) == 0
    figures = json.loads((run / "evaluation.json").read_text())["figures"]
    printed = capsys.readouterr().out
    for name in ("psnr", "ssim", "depth_error"):
        assert name in printed and np.isfinite(figures[name])
    assert cli.main(["report", str(run)]) == 0
    page = Path(capsys.readouterr().out.strip()).read_text()
    assert "<svg" in page and str(root) in page
    assert load_encoder(run / FILE_NAME).encode(np.random.default_rng(0).random((50, 3))).shape[0] == 50
    assert not (run / LIST).exists(), "nothing was left out"


def test_what_is_left_out_is_said_at_the_start_and_listed(root, tmp_path, capsys):
    for number in (0, 1, 2, 5):
        np.savetxt(root / "pose" / f"{number}.txt", np.full((4, 4), -np.inf))
    run = tmp_path / "run"
    assert train(root, run, "--data.hold-out", "3") == 0
    said = capsys.readouterr().err
    assert f"4 frame(s) cannot be used and are left out; all are listed in {run / LIST}" in said
    assert "color/2.png: pose is not finite\n  and 1 more" in said and "color/5.png" not in said
    lines = [f"{root}/color/{number}.png: pose is not finite" for number in (0, 1, 2, 5)]
    assert (run / LIST).read_text().splitlines() == lines
    assert cli.main(["train", "--resume", str(run)]) == 0
    assert "4 frame(s)" in capsys.readouterr().err and (run / LIST).read_text().splitlines() == lines


def test_what_a_loader_process_cannot_read_is_listed_too(root, tmp_path):
    (root / "depth" / "2.png").unlink()
    cut(root / "depth" / "7.png")
    cut(root / "color" / "4.png")  # held out: only the evaluation reads it
    run = tmp_path / "run"
    options = ["--data.hold-out", "5", "--data.window", "0", "--workers", "1", "--validate-every", "2"]
    assert train(root, run, *options) == 0
    lines = (run / LIST).read_text().splitlines()
    assert len(lines) == 3 and lines[0].startswith(f"{root}/color/2.png: no depth image")
    for path in ("depth/7.png", "color/4.png"):
        assert sum(line.startswith(f"{root}/{path}: cannot be read as an image") for line in lines) == 1
    (run / LIST).unlink()
    assert cli.main(["evaluate", str(run)]) == 0
    assert (run / LIST).read_text().splitlines() == [line for line in lines if line.endswith("truncated)")]


@pytest.mark.parametrize("hold_out", ["0", "30"])
def test_without_a_held_out_frame_a_run_does_not_start(root, tmp_path, capsys, hold_out):
    options = ["--data.hold-out", hold_out, "--validate-every", "0"]
    assert train(root, tmp_path / "run", *options) == 3
    assert "held" in (said := capsys.readouterr().err) and "--data.hold-out" in said
    assert not (tmp_path / "run").exists()


def test_an_option_out_of_range_is_named(root, tmp_path, capsys):
    assert train(root, tmp_path / "run", "--data.fused-share", "1.5") == 2
    assert "RGBDFolderConfig.fused_share must be above 0" in capsys.readouterr().err


def make_maps(root: Path, maps: Path) -> int:
    make = ["features", "smoke.pretrain_rgbd_folder", "--data.root", str(root), "--out", str(maps)]
    return cli.main([*make, "--channels", "7"])


def train_on_maps(root: Path, maps: Path, out: Path, *options: str) -> int:
    arguments = ["train", "smoke.pretrain_rgbd_folder_features", "--data.root", str(root), "--out", str(out)]
    arguments += ["--transforms.5.features.root", str(maps), "--steps", "2", "--validate-every", "0"]
    return cli.main([*arguments, *options])


def test_features_of_images_are_made(root, tmp_path, capsys):
    maps, run = tmp_path / "maps", tmp_path / "run"
    assert make_maps(root, maps) == 0
    said = capsys.readouterr().out
    assert "9 images; maps of 3 x 4 x 7" in said and "9 maps made, of 7 channels" in said
    assert train_on_maps(root, maps, run) == 2
    assert "of 7 channels, and the task renders one of 32; set --task.feature-channels 7" in capsys.readouterr().err
    assert not run.exists(), "the name of a run is not taken by one that cannot start"


@pytest.mark.slow
def test_features_of_images_are_rendered(root, tmp_path):
    """From frames to maps to a run, as the docstring of the recipe says."""
    maps, run = tmp_path / "maps", tmp_path / "run"
    assert make_maps(root, maps) == 0
    assert train_on_maps(root, maps, run, "--task.feature-channels", "7") == 0
    header, *rows = (run / "train.csv").read_text().splitlines()
    place = header.split(",").index("feature")
    assert len(rows) == 2 and all(0 < float(row.split(",")[place]) < 10 for row in rows)
    pictures = write_feature_pictures(run, views=(0,))[0]
    assert [path.name for path in pictures] == ["view-0-truth.png", "view-0-rendered.png"]
    assert all(read_rgb(path).shape == (24, 32, 3) for path in pictures)
    with pytest.raises(ValueError, match="no scene 5; its data have"):
        write_feature_pictures(run, scene=5)
