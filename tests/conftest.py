"""A stricter world than production: shapes are checked (pyproject), warnings are errors, algorithms deterministic."""

import os
from pathlib import Path

import pytest
import torch

os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # without it, no matrix product on a GPU is deterministic
torch.use_deterministic_algorithms(True)
torch.backends.cudnn.allow_tf32 = False  # a GPU's convolutions are to be as exact as a CPU's
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
    """Every device of this machine; the GPU's share of a test is skipped where there is none.

    Values are made on the CPU, what is tested gets them on the device, and the expected result is the CPU's.
    """
    if request.param == "cuda" and not torch.cuda.is_available():
        pytest.skip("no GPU")
    return torch.device(request.param)
