"""A stricter world than production: shapes are checked (pyproject), warnings are errors, algorithms deterministic."""

import os
from pathlib import Path

import pytest
import torch

torch.use_deterministic_algorithms(True)
torch.set_num_threads(int(os.environ.get("PONDER3D_TEST_THREADS", "2")))

REAL_DATA = Path(__file__).parents[2] / "shared" / "data"


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


@pytest.fixture
def real_data():
    """Folder of a real recording, by name; skips where the recordings are absent."""

    def find(name: str) -> Path:
        if not (REAL_DATA / name).exists():
            pytest.skip(f"no real recordings: {name} is not beside the checkout")
        return REAL_DATA / name

    return find


@pytest.fixture(params=["cpu", "cuda"])
def device(request) -> torch.device:
    """Every device of this machine; the GPU's share of a test is skipped where there is none."""
    if request.param == "cuda" and not torch.cuda.is_available():
        pytest.skip("no GPU")
    return torch.device(request.param)
