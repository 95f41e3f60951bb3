"""The package is a house: a module may import from the floors below its own, and within its own folder."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import ponder3d
from ponder3d.encoders.sparse_unet import SparseUNetConfig

ROOT = Path(ponder3d.__file__).parent
FLOORS = (
    {"types", "config", "files", "processes"},
    {"geometry"},
    {"sparse"},
    {"volume"},
    {"encoders", "render", "data", "metrics"},
    {"tasks"},
    {"engine"},
    {"recipes", "report"},
    {"cli"},
)
FLOOR_OF = {folder: floor for floor, folders in enumerate(FLOORS) for folder in folders}
MODULES = sorted(ROOT.rglob("*.py"))


def imports(text: str) -> list[str]:
    """Modules that a source imports."""
    names = []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative import"
            names += [f"{node.module}.{alias.name}" for alias in node.names]
    return names


def imports_upwards(folder: str, text: str) -> list[str]:
    """Imports of a source in ``folder`` that do not point down; the package's own names stand above all floors."""
    own = [name.split(".") for name in imports(text) if name.split(".")[0] == "ponder3d"]
    return [
        ".".join(parts)
        for parts in own
        if len(parts) == 1
        or parts[1] not in FLOOR_OF
        or (parts[1] != folder and FLOOR_OF[parts[1]] >= FLOOR_OF[folder])
    ]


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_down(path):
    folder = path.relative_to(ROOT).with_suffix("").parts[0]
    if folder == "__init__":
        return
    assert folder in FLOOR_OF, f"{folder}: say here which floor it is on"
    assert not imports_upwards(folder, path.read_text())


def test_an_import_that_points_up_is_found():
    assert imports_upwards("render", "from ponder3d.tasks.ponder import Ponder") == ["ponder3d.tasks.ponder.Ponder"]
    assert imports_upwards("render", "from ponder3d.encoders import encode") == ["ponder3d.encoders.encode"]
    assert imports_upwards("tasks", "import ponder3d.engine.loop\nimport torch") == ["ponder3d.engine.loop"]
    assert imports_upwards("tasks", "from ponder3d.geometry import grid\nfrom ponder3d.tasks import task") == []
    assert imports_upwards("tasks", "from ponder3d import train") == ["ponder3d.train"]
    assert imports_upwards("tasks", "import ponder3d") == ["ponder3d"]


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_sources_are_plain(path):
    text = path.read_text()
    assert text.isascii()
    # It would hide the annotations that jaxtyping and the configuration read.
    assert "from __future__ import annotations" not in text
    assert text.count("\n") <= 500, "a module of more than 500 lines is two modules"


def test_loading_an_encoder_pulls_in_neither_lightning_nor_a_plotting_library(tmp_path):
    config = SparseUNetConfig(inputs=("one",), grid_size=0.1, stem_channels=3, channels=(4, 5), blocks=(1, 1))
    ponder3d.save(config.build(), tmp_path / "encoder.safetensors")
    code = """
import sys
import numpy
import ponder3d
features = ponder3d.load(sys.argv[1]).encode(numpy.random.rand(50, 3))
assert len(features) == 50
ponder3d.save, ponder3d.Encoder, ponder3d.Scene
heavy = ("lightning", "lightning_fabric", "pytorch_lightning", "matplotlib", "plotly", "tensorboardX", "tyro", "spconv")
print([name for name in heavy if name in sys.modules])
"""
    command = [sys.executable, "-c", code, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.strip() == "[]"
