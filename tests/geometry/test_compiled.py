"""Libraries that are built on the user's machine: used only where that works, and missed by nobody."""

import concurrent.futures
import logging
import time

import pytest
import torch

from ponder3d.geometry import compiled, compiled_grid, compiled_trilinear
from ponder3d.geometry.kernels import kernels
from ponder3d.render import compiled_softplus
from ponder3d.sparse import compiled as compiled_conv

CPU = torch.device("cpu")
# Each with something in its source that, changed, makes it compute something else.
LIBRARIES = [
    pytest.param(compiled_conv.LIBRARY, ("+= in[i][k]", "-= in[i][k]"), id="conv"),
    pytest.param(compiled_grid.LIBRARY, ("MASK) - HALF", "MASK) + HALF"), id="grid"),
    pytest.param(compiled_trilinear.LIBRARY, ("sum += w[k]", "sum -= w[k]"), id="trilinear"),
    pytest.param(compiled_softplus.LIBRARY, ("2 * v *", "3 * v *"), id="softplus"),
]


@pytest.mark.parametrize(("library", "change"), LIBRARIES)
def test_without_a_compiler_there_is_none(library, change, no_compiler, caplog):
    with caplog.at_level(logging.INFO, compiled.__name__):
        assert not library.wanted(CPU)
    assert "no C compiler" in caplog.text
    with kernels("compiled"), pytest.raises(RuntimeError, match="C compiler"):
        library.wanted(CPU)


@pytest.mark.parametrize("fault", ["does not compile", "computes something else", "cannot be written"])
@pytest.mark.parametrize(("library", "change"), LIBRARIES)
def test_a_library_that_cannot_be_trusted_is_not_used(library, change, fault, monkeypatch, tmp_path):
    if not library.available:
        pytest.skip("no C compiler")
    cache = tmp_path / "cache"
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
    if fault == "cannot be written":
        cache.write_text("a file where the folder should be")
    else:
        files = compiled.resources.files
        source = files(library.package).joinpath(library.source).read_text()
        broken = source + "syntax error" if fault == "does not compile" else source.replace(*change)
        assert broken != source
        (tmp_path / library.source).write_text(broken)
        (tmp_path / "cpu_pool.h").write_bytes(files("ponder3d.geometry").joinpath("cpu_pool.h").read_bytes())
        monkeypatch.setattr(compiled.resources, "files", lambda package: tmp_path)
    library.forget()
    try:
        assert not library.wanted(CPU)
        left = [] if fault == "cannot be written" else [path.suffix for path in (cache / "ponder3d").iterdir()]
        assert left == ([".so"] if fault == "computes something else" else [])
    finally:
        monkeypatch.undo()
        library.forget()


def test_a_library_that_lost_its_end_is_built_again(monkeypatch, tmp_path):
    """Loaded, it would end the process."""
    library = compiled_trilinear.LIBRARY
    if not library.available:
        pytest.skip("no C compiler")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    library.forget()
    try:
        whole = library._built()
        data = whole.read_bytes()
        assert library._built() == whole
        whole.write_bytes(data[: len(data) // 2])
        assert library.available
        assert {path.read_bytes() for path in (tmp_path / "ponder3d").iterdir()} == {data}
    finally:
        monkeypatch.undo()
        library.forget()


def test_two_threads_that_ask_at_once_get_the_same_answer(monkeypatch):
    library = compiled_trilinear.LIBRARY
    if not library.available:
        pytest.skip("no C compiler")
    load = library._load

    def slow_load():
        time.sleep(0.2)
        return load()

    monkeypatch.setattr(library, "_load", slow_load)
    library.forget()
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        assert all(pool.map(lambda _: library.available, range(4)))


def test_without_a_home_there_is_no_library(monkeypatch):
    def no_home():
        raise RuntimeError("Could not determine home directory.")

    library = compiled_trilinear.LIBRARY
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(compiled.Path, "home", no_home)
    library.forget()
    try:
        assert not library.available
    finally:
        monkeypatch.undo()
        library.forget()
