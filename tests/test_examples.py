"""Every example runs as its first line says, in a process of its own, on a tiny encoder."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import ponder3d
from ponder3d.encoders.sparse_unet import SparseUNetConfig

EXAMPLES = sorted((Path(__file__).parents[1] / "examples").glob("*.py"))


@pytest.fixture
def run(tmp_path) -> Path:
    """A folder as a run leaves it, as far as an example reads it."""
    config = SparseUNetConfig(inputs=("rgb", "one"), grid_size=0.2, stem_channels=3, channels=(4, 5), blocks=(1, 1))
    ponder3d.save(config.build(), tmp_path / "encoder.safetensors")
    return tmp_path


def output(*arguments: object) -> str:
    command = [sys.executable, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_runs(path, run):
    assert output(path, run)


def test_encode_reads_a_cloud(run):
    cloud = np.random.default_rng(0).uniform(0, 1, (70, 6))
    np.save(run / "cloud.npy", cloud)
    assert output(EXAMPLES[0], run, run / "cloud.npy").startswith("70 points, 5 features each")
