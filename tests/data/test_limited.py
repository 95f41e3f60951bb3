import json
import pickle
import zipfile

import numpy as np
import pytest
import torch

from ponder3d.data.dataset import DataError
from ponder3d.data.limited import AnnotatedPoints, read_annotated_points, read_scene_list
from ponder3d.data.prepared.dataset import PreparedConfig
from ponder3d.geometry import keyed
from ponder3d.types import Scene

POINTS = {"scene0000_00": [3, 0, 4], "scene0001_01": [1]}


def a_scene(name: str = "scene0000_00", num: int = 6) -> Scene:
    return Scene(torch.zeros(num, 3), None, None, f"/data/{name}", labels=torch.arange(num) + 10)


def annotated(path, scene: Scene) -> Scene:
    return AnnotatedPoints(str(path))(scene, keyed.generator(0))


def saved(path, how: str):
    """The same lists in every format that is read."""
    arrays = {name: np.array(points) for name, points in POINTS.items()}
    if how == "json":
        path.write_text(json.dumps(POINTS))
    elif how == "npz":
        with path.open("wb") as file:
            np.savez(file, **arrays)
    else:
        values = {"lists": POINTS, "arrays": arrays, "tensors": {k: torch.tensor(v) for k, v in POINTS.items()}}
        values["scalars"] = {name: list(points) for name, points in arrays.items()}
        values["small"] = {name: points.astype(np.uint16) for name, points in arrays.items()}
        torch.save(values[how], path)
    return path


@pytest.mark.parametrize(
    ("name", "how"),
    [
        *(("points20", how) for how in ("lists", "arrays", "tensors", "scalars", "small")),
        ("points.npz", "npz"),
        ("points.json", "json"),
    ],
)
def test_lists_of_points(tmp_path, name, how):
    found = read_annotated_points(saved(tmp_path / name, how))
    assert {scene: points.tolist() for scene, points in found.items()} == POINTS
    assert all(points.dtype == np.int64 for points in found.values())


def test_files_of_older_versions(tmp_path):
    """torch.save before 1.6 wrote plain pickles; numpy 1 called a module numpy.core that is numpy._core now."""
    arrays = {name: np.array(points) for name, points in POINTS.items()}
    path = tmp_path / "points20"
    torch.save(arrays, path, _use_new_zipfile_serialization=False)
    path.write_bytes(path.read_bytes().replace(b"numpy._core.multiarray", b"numpy.core.multiarray"))
    assert b"numpy.core.multiarray" in path.read_bytes()
    assert {scene: points.tolist() for scene, points in read_annotated_points(path).items()} == POINTS


def test_only_listed_points_keep_their_label(tmp_path):
    path = saved(tmp_path / "points20", "arrays")
    scene = a_scene()
    assert annotated(path, scene).labels.tolist() == [10, -1, -1, 13, 14, -1]
    assert scene.labels.tolist() == [10, 11, 12, 13, 14, 15]
    assert AnnotatedPoints()(scene, keyed.generator(0)) is scene


def test_prepared_scenes_are_known_by_their_name(tmp_path, prepared_scenes):
    prepared_scenes.write_prepared(tmp_path / "prepared", ("train",), num_frames=1)
    (tmp_path / "points.json").write_text(json.dumps({"room_0": [2, 0]}))
    scene = PreparedConfig(root=str(tmp_path / "prepared"), views=0).build()[0]
    assert scene.labels is not None and (scene.labels >= 0).sum() > 2
    kept = annotated(tmp_path / "points.json", scene).labels
    assert torch.nonzero(kept >= 0)[:, 0].tolist() == [0, 2] and torch.equal(kept[:3:2], scene.labels[:3:2])


def test_scenes_that_do_not_fit(tmp_path):
    path = saved(tmp_path / "points20", "lists")
    with pytest.raises(ValueError, match=r"lists no points of scene0002_00 \(of /data/scene0002_00\)"):
        annotated(path, a_scene("scene0002_00"))
    with pytest.raises(ValueError, match="lists point 4 of scene0000_00, which has 4; put this transform before"):
        annotated(path, a_scene(num=4))
    bare = Scene(torch.zeros(6, 3), None, None, "scene0000_00")
    with pytest.raises(ValueError, match="AnnotatedPoints: scene0000_00 has no point labels"):
        annotated(path, bare)


class Evil:
    def __reduce__(self):
        return print, ("unpickled",)


@pytest.mark.parametrize("new", [True, False])
def test_nothing_else_is_unpickled(tmp_path, capsys, new):
    path = tmp_path / "points20"
    torch.save({"scene0000_00": Evil()}, path, _use_new_zipfile_serialization=new)
    with pytest.raises(DataError, match="points20: holds more than numbers"):
        read_annotated_points(path)
    path.write_bytes(pickle.dumps({"scene0000_00": Evil()}))
    with pytest.raises(DataError, match="points20"):
        read_annotated_points(path)
    with (tmp_path / "points.npz").open("wb") as file:
        np.savez(file, scene0000_00=np.array([Evil()], dtype=object))
    with pytest.raises(DataError, match="points.npz"):
        read_annotated_points(tmp_path / "points.npz")
    assert "unpickled" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([1, 2], "a list; expected scenes"),
        ({}, "a dict; expected scenes"),
        ({"a": 3}, "a: expected a list of numbers"),
        ({"a": [1.5]}, "a: expected a list of numbers"),
        ({"a": [-1]}, "a: expected a list of numbers"),
        ({"a": [1 << 40]}, "a: expected a list of numbers"),
        ({"a": [[1], [2, 3]]}, "a: no numbers"),
        ({"a": "text"}, "a: expected a list of numbers"),
    ],
)
def test_lists_that_are_none(tmp_path, value, message):
    (tmp_path / "a.json").write_text(json.dumps(value))
    torch.save(value, tmp_path / "a")
    for name in ("a.json", "a"):
        with pytest.raises(DataError, match=f"{name}: {message}"):
            read_annotated_points(tmp_path / name)


def test_files_that_are_none(tmp_path):
    for name in ("absent", "absent.npz", "absent.json", "."):
        with pytest.raises(DataError, match="no such file"):
            read_annotated_points(tmp_path / name)
    torch.save({7: [1]}, tmp_path / "a")
    with pytest.raises(DataError, match="7 is no name of a scene"):
        read_annotated_points(tmp_path / "a")


def test_lists_of_scenes(tmp_path):
    path = tmp_path / "5.txt"
    path.write_text("# 5 %\nscene0001_00\r\n\n scene0000_00 \n")
    assert read_scene_list(path) == ("scene0001_00", "scene0000_00")
    for content, message in (
        (b"#\n", "it names no scene"),
        (b"a\na\n", "scene a is there twice"),
        (b"a b\n", "a line 'a b'"),
        (b"\xff\xfe", "no text"),
    ):
        path.write_bytes(content)
        with pytest.raises(DataError, match=f"5.txt: {message}"):
            read_scene_list(path)
    with pytest.raises(DataError, match="no such file"):
        read_scene_list(tmp_path / "absent.txt")


@pytest.fixture
def readers(tmp_path):
    def through(name: str, how: tuple[str, ...]):
        seeds = [saved(tmp_path / name, kind).read_bytes() for kind in how]
        if name == "points.npz":  # as np.savez_compressed has it
            with zipfile.ZipFile(tmp_path / name, "w", zipfile.ZIP_DEFLATED) as archive:
                archive.writestr("scene0000_00.npy", b"\x93NUMPY\x01\x00" + np_header() + np.arange(9).tobytes())
            seeds.append((tmp_path / name).read_bytes())

        def run(data: bytes):
            (tmp_path / name).write_bytes(data)
            return read_annotated_points(tmp_path / name)

        return run, seeds

    return [
        through("points20", ("lists", "arrays", "tensors", "scalars")),
        through("points.npz", ("npz",)),
        through("points.json", ("json",)),
    ]


def np_header() -> bytes:
    text = "{'descr': '<i8', 'fortran_order': False, 'shape': (9,), }".ljust(117) + "\n"
    return len(text).to_bytes(2, "little") + text.encode()


@pytest.mark.parametrize("kind", range(3))
def test_damaged_files(readers, fuzz, kind):
    assert fuzz(*readers[kind]) > 5


@pytest.mark.slow
@pytest.mark.parametrize("kind", range(3))
def test_many_damaged_files(readers, fuzz, kind):
    assert fuzz(*readers[kind], 2000, key=1) > 200
