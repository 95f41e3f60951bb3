"""Kernels run on a GPU or in Triton's interpreter (``TRITON_INTERPRET=1 pytest tests/kernels``), or are skipped."""

import importlib.util
import os
from pathlib import Path

import numpy as np
import pytest
import torch


def _missing() -> str:
    if importlib.util.find_spec("triton") is None:
        return "triton is not installed"
    if not torch.cuda.is_available() and os.environ.get("TRITON_INTERPRET") != "1":
        return "no GPU, and TRITON_INTERPRET=1 is not set"
    return ""


class _Skipped(pytest.Module):
    def collect(self):
        pytest.skip(_missing())


def pytest_pycollect_makemodule(module_path: Path, parent):
    # The modules import triton: skipping their tests one by one would come too late.
    return _Skipped.from_parent(parent, path=module_path) if _missing() else None


@pytest.fixture
def device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


@pytest.fixture(autouse=True)
def _mended_interpreter(monkeypatch):
    """Triton 3.6's interpreter calls int() on arrays, which numpy 2.4 refuses, and multiplies the bits of bfloat16."""
    from triton.runtime import interpreter

    patch_tensor, create_dot = interpreter._patch_lang_tensor, interpreter.InterpreterBuilder.create_dot

    def patch(tensor, scope):
        patch_tensor(tensor, scope)
        scope.set_attr(tensor, "__index__", lambda self: self.handle.data.item())

    def widened(x):
        if x.dtype.scalar != interpreter.tl.bfloat16:
            return x
        return interpreter.TensorHandle((x.data.astype(np.uint32) << 16).view(np.float32), interpreter.tl.float32)

    def dot(self, a, b, *rest):
        return create_dot(self, widened(a), widened(b), *rest)

    monkeypatch.setattr(interpreter, "_patch_lang_tensor", patch)
    monkeypatch.setattr(interpreter.InterpreterBuilder, "create_dot", dot)
