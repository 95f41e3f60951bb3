"""Commands about data, on small datasets in their publishers' layouts."""

import json
from pathlib import Path

import pytest

from ponder3d import cli
from ponder3d.data.prepared.prepare import raw_datasets
from ponder3d.data.raw.example_room import ExampleRoom
from ponder3d.data.raw.rgbd import RGBDConfig, write_sequence
from ponder3d.data.raw.scannet import ScanNetConfig


@pytest.fixture(scope="module")
def raw(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("scannet")
    ScanNetConfig.write_example(root)
    return root


def test_kinds_of_datasets_are_listed(capsys):
    assert cli.main(["prepare"]) == 0
    out = capsys.readouterr().out
    assert {"scannet", "s3dis", "structured3d", "rgbd", "folder"} == set(raw_datasets())
    assert all(f"\n  {name} " in out for name in raw_datasets())


@pytest.mark.parametrize("kind", sorted(raw_datasets()))
def test_help_of_a_kind(kind, capsys):
    assert cli.main(["prepare", kind, "--help"]) == 0
    out = capsys.readouterr().out
    assert f"usage: ponder3d prepare {kind} RAW OUT" in out and "--every" in out and "--jpeg-quality" in out


def test_prepare_shard_and_look_it_over(raw, tmp_path, capsys):
    out = tmp_path / "out"
    command = ["prepare", "scannet", str(raw), str(out), "--every", "2", "--workers", "1"]
    assert cli.main([*command, "--estimate"]) == 0
    assert "scenes" in capsys.readouterr().out and not out.exists()
    assert cli.main(command) == 0
    printed = capsys.readouterr().out
    assert "frames (1 of 2)" in printed and f"in {out}" in printed
    manifest = (out / "manifest.json").read_bytes()
    assert cli.main(command) == 0 and (out / "manifest.json").read_bytes() == manifest
    assert cli.main(["shard", str(out), str(tmp_path / "shards"), "--shard-mb", "1"]) == 0
    assert "shards" in capsys.readouterr().out and (tmp_path / "shards/train-000000.tar").is_file()
    assert cli.main(["doctor", str(tmp_path / "shards"), "--out", str(tmp_path / "page")]) in (0, 3)
    assert json.loads(manifest)["scenes"][0]["name"] in capsys.readouterr().out
    assert (tmp_path / "page/index.html").is_file() and (tmp_path / "page/skip.tsv").is_file()


def test_the_page_of_a_directory_without_a_name(tmp_path, capsys, monkeypatch):
    below = tmp_path / "house" / "below"
    write_sequence(tmp_path / "house" / "hall", ExampleRoom(), "hololens")
    below.mkdir()
    monkeypatch.chdir(below)
    assert cli.main(["doctor", ".."]) == 0
    assert (below / "runs" / "doctor" / "house" / "index.html").is_file() and not (
        below / "runs" / "index.html"
    ).exists()


def test_what_the_doctor_finds_is_left_out(tmp_path, capsys):
    root = tmp_path / "rooms"
    root.mkdir()
    RGBDConfig.write_example(root)
    assert cli.main(["doctor", str(root), "--out", str(tmp_path / "page")]) == 0
    pose = sorted(root.rglob("pose/*.txt"))[2]
    pose.write_text(pose.read_text().replace(pose.read_text().split()[0], "-inf", 1))
    assert cli.main(["doctor", str(root), "--out", str(tmp_path / "page"), "--apply"]) == 3
    assert "pose" in capsys.readouterr().out
    (line,) = [line for line in (root / "skip.tsv").read_text().splitlines() if not line.startswith("#")]
    assert line.split("\t")[1] == pose.stem and "finite" in line


def test_the_kind_may_be_said_in_one_word(raw, tmp_path, capsys):
    said = []
    for words in ([], ["--kind", "folder"], ["--kind=folder"]):
        code = cli.main(["doctor", str(raw), *words, "--out", str(tmp_path / "page")])
        said.append((code, capsys.readouterr().err))
    assert said[1] == said[2] != said[0]


def test_wrong_arguments(raw, tmp_path, capsys):
    for arguments, code, message in (
        (["prepare", "scanet", str(raw), str(tmp_path)], 2, "no kind of dataset 'scanet'"),
        (["prepare", "scannet", str(raw)], 2, "usage: ponder3d prepare scannet RAW OUT"),
        (["prepare", "scannet", str(tmp_path / "absent"), str(tmp_path / "out")], 3, "absent"),
        (["prepare", "scannet", str(raw), str(raw)], 3, "not of a prepared dataset"),
        (["shard", str(tmp_path), str(tmp_path / "out")], 3, "manifest"),
        (["doctor", str(tmp_path / "absent")], 3, "absent"),
        (["doctor", str(raw), "--kind", "scanet"], 3, "scanet"),
        (["doctor", str(raw), "--kind=scanet"], 3, "scanet"),
    ):
        assert cli.main(arguments) == code, arguments
        assert message in capsys.readouterr().err, arguments


def test_a_disk_that_is_too_small(raw, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("ponder3d.cli.data.free_bytes", lambda out: 1000)
    assert cli.main(["prepare", "scannet", str(raw), str(tmp_path / "out"), "--workers", "1"]) == 5
    assert "too little space" in capsys.readouterr().err and not (tmp_path / "out").exists()
