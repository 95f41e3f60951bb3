import io
import json
import zipfile

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from ponder3d.tasks.stored_vectors import StoredVectors, save_class_vectors
from ponder3d.types import LabelSet

NAMES = ("chair", "sofa", "shower curtain", "lamp")
VECTORS = torch.tensor([[3.0, 4.0, 0.0], [0.0, 2.0, 0.0], [0.0, 0.0, 0.5], [1.0, 1.0, 1.0]])
SUFFIXES = (".safetensors", ".npz")


def example(tmp_path) -> StoredVectors:
    save_class_vectors(tmp_path / "v.safetensors", NAMES, VECTORS, "a model")
    return StoredVectors(str(tmp_path / "v.safetensors"))


def classes(*names: str) -> LabelSet:
    return LabelSet(names, ((0, 0, 0),) * len(names))


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_vectors_by_name(tmp_path, suffix):
    path = tmp_path / f"v{suffix}"
    save_class_vectors(path, NAMES, VECTORS, "a model, its prompts")
    made = StoredVectors(str(path)).build(classes("shower_curtain", "chair"))
    torch.testing.assert_close(made.vectors, torch.tensor([[0.0, 0, 1], [0.6, 0.8, 0]]))
    assert made.source == "a model, its prompts" and [p.name for p in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_missing_classes_are_named(tmp_path, suffix):
    path = tmp_path / f"v{suffix}"
    save_class_vectors(path, NAMES, VECTORS, "x")
    with pytest.raises(ValueError, match=rf"v{suffix}: no vectors of door, a, b, c, d and 1 more; it has 4 others"):
        StoredVectors(str(path)).build(classes("chair", "door", "a", "b", "c", "d", "e"))


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_vectors_that_tell_nothing_apart(tmp_path, suffix):
    path = tmp_path / f"v{suffix}"
    save_class_vectors(path, ("a", "b", "c"), torch.tensor([[1.0, 0], [2.0, 0], [0, 0]]), "x")
    with pytest.raises(ValueError, match="'a' and 'b' have the same vector"):
        StoredVectors(str(path)).build(classes("a", "b"))
    with pytest.raises(ValueError, match="the vector of 'c' is zero"):
        StoredVectors(str(path)).build(classes("a", "c"))


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_damaged_files(tmp_path, suffix):
    path = tmp_path / f"v{suffix}"
    save_class_vectors(path, NAMES, VECTORS, "x")
    whole = path.read_bytes()
    expected = F.normalize(VECTORS, dim=1)
    for cut in (0, 1, 9, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:cut])
        with pytest.raises(ValueError, match=rf"v{suffix}: no class vectors as save_class_vectors writes them"):
            StoredVectors(str(path)).build(classes(*NAMES))
    for place in range(0, len(whole), 5):  # what is damaged elsewhere is another number, or an error
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0x24]) + whole[place + 1 :])
        try:
            made = StoredVectors(str(path)).build(classes(*NAMES))
        except ValueError as error:
            assert "v." in str(error)
        else:
            assert made.vectors.shape == expected.shape


def test_other_files(tmp_path):
    with pytest.raises(ValueError, match="StoredVectors.file: name a file"):
        StoredVectors().build(classes("a"))
    with pytest.raises(FileNotFoundError, match="absent.npz: no such file"):
        StoredVectors(str(tmp_path / "absent.npz")).build(classes("a"))
    for header in ({}, {"class_vectors": "[1]"}, {"class_vectors": json.dumps({"names": [1], "source": "x"})}):
        save_file({"vectors": torch.ones(1, 2)}, tmp_path / "v.safetensors", metadata=header)
        with pytest.raises(ValueError, match="no class vectors as save_class_vectors writes them"):
            StoredVectors(str(tmp_path / "v.safetensors")).build(classes("a"))
    np.savez(tmp_path / "v.npz", names=np.array(["a"], dtype=object), vectors=np.ones((1, 2)), source=np.array("x"))
    with pytest.raises(ValueError, match="no class vectors.*names: no array"):
        StoredVectors(str(tmp_path / "v.npz")).build(classes("a"))
    np.savez(tmp_path / "v.npz", names=np.array(["a", "b"]), vectors=np.ones((1, 2)), source=np.array("x"))
    with pytest.raises(ValueError, match=r"2 names for vectors of shape \[1, 2\]"):
        StoredVectors(str(tmp_path / "v.npz")).build(classes("a"))


def test_an_archive_that_unpacks_to_too_much(tmp_path, monkeypatch):
    monkeypatch.setattr("ponder3d.tasks.stored_vectors._LARGEST", 1 << 16)
    content = io.BytesIO()
    np.save(content, np.array(["a" * (1 << 16)]))
    with zipfile.ZipFile(tmp_path / "v.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("names.npy", content.getvalue())
    with pytest.raises(ValueError, match="names is larger than"):
        StoredVectors(str(tmp_path / "v.npz")).build(classes("a"))


def test_what_cannot_be_saved(tmp_path):
    with pytest.raises(ValueError, match="kept as .safetensors or .npz"):
        save_class_vectors(tmp_path / "v.pt", NAMES, VECTORS, "x")
    for names in (NAMES[:3], ("a", "a_b", "a b", "c")):
        with pytest.raises(ValueError, match="names do not name the rows"):
            save_class_vectors(tmp_path / "v.npz", names, VECTORS, "x")
    assert not list(tmp_path.iterdir())
