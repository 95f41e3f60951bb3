"""The kernels of ``cpu_kernels.c``, built with the machine's own C compiler when first needed.

Nothing is compiled at installation and nothing depends on it: without a compiler, and for other types than float32,
plain PyTorch does the same. The library is kept in the user's cache, under a name that tells the source, the compiler
and the processor, and is trusted only after it has computed a small convolution correctly.
"""

import ctypes
import functools
import hashlib
import logging
import os
import platform
import shutil
import subprocess
import tempfile
from importlib import resources
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ponder3d.geometry import kernels
from ponder3d.geometry.grid import key_offset

_FLAGS = ("-O3", "-march=native", "-std=c11", "-shared", "-fPIC", "-pthread")
_log = logging.getLogger(__name__)


def wanted(device: torch.device) -> bool:
    """Whether an operation on this device should run compiled.

    Raises:
        RuntimeError: ``kernels("compiled")`` insists, and they cannot be built here.
    """
    which = kernels.chosen()
    if device.type != "cpu" or which not in ("auto", "compiled"):
        return False
    if _library() is not None:
        return True
    if which == "compiled":
        raise RuntimeError("compiled kernels: no C compiler, or it failed; log ponder3d.sparse.compiled to see why")
    return False


def conv(
    feats: Float[Tensor, "M_in C_in"], weight: Float[Tensor, "K C_in C_out"], rows: Int[Tensor, "K M_out"]
) -> Float[Tensor, "M_out C_out"]:
    """``out[q] = sum over taps r of feats[rows[r, q]] @ weight[r]``, float32. ``weight`` may be a view."""
    feats, rows = feats.contiguous(), rows.contiguous()
    num_taps, c_in, c_out = weight.shape
    out = feats.new_empty(rows.shape[1], c_out)
    _run("conv", feats, weight, rows, out, rows.shape[1], num_taps, c_in, c_out, *weight.stride())
    return out


def weight_gradient(
    feats: Float[Tensor, "M_in C_in"], grad_out: Float[Tensor, "M_out C_out"], rows: Int[Tensor, "K M_out"]
) -> Float[Tensor, "K C_in C_out"]:
    """``grad[r] = sum over output rows q of feats[rows[r, q]] outer grad_out[q]``, float32."""
    feats, grad_out, rows = feats.contiguous(), grad_out.contiguous(), rows.contiguous()
    (num_taps, num_out), c_in, c_out = rows.shape, feats.shape[1], grad_out.shape[1]
    out = feats.new_empty(num_taps, c_in, c_out)
    _run("weight_gradient", feats, grad_out, rows, out, num_out, num_taps, c_in, c_out)
    return out


def neighbour_table(keys: Int[Tensor, " M"], kernel: int) -> Int[Tensor, "K M"]:
    """Row of each tap's neighbour of each row of sorted keys, -1 where there is none."""
    keys = keys.contiguous()
    table = torch.empty(kernel**3, len(keys), dtype=torch.int32)
    _run("neighbours", keys, table, len(keys), kernel, key_offset(1, 0, 0), key_offset(0, 1, 0))
    return table


def _run(name: str, *arguments: Tensor | int) -> None:
    library = _library()
    assert library is not None
    _call(library, name, *arguments)


def _call(library: ctypes.CDLL, name: str, *arguments: Tensor | int) -> None:
    plain = [
        ctypes.c_void_p(each.data_ptr()) if isinstance(each, Tensor) else ctypes.c_int64(each) for each in arguments
    ]
    if library[f"ponder3d_{name}"](*plain, ctypes.c_int(torch.get_num_threads())):
        raise MemoryError(f"compiled {name}: out of memory")


@functools.cache
def _library() -> ctypes.CDLL | None:
    """The library; None if it cannot be built or does not compute what it should."""
    try:
        library = ctypes.CDLL(str(_built()))
        if not _is_right(library):
            _log.warning("the compiled kernels compute something else than PyTorch; not used")
            return None
    except (OSError, subprocess.SubprocessError) as error:
        _log.info("no compiled kernels: %s", error)
        return None
    return library


def _built() -> Path:
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        raise FileNotFoundError("no C compiler (cc, gcc, clang) on the path")
    source = resources.files("ponder3d.sparse").joinpath("cpu_kernels.c").read_bytes()
    version = subprocess.run([compiler, "--version"], check=True, capture_output=True, timeout=60).stdout
    digest = hashlib.sha256(b"\0".join([source, version, _processor(), " ".join(_FLAGS).encode()])).hexdigest()
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ponder3d"
    path = folder / f"cpu-kernels-{digest[:20]}.so"
    if path.exists():
        return path
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as workshop:
        code, result = Path(workshop) / "cpu_kernels.c", Path(workshop) / "result.so"
        code.write_bytes(source)
        command = [compiler, *_FLAGS, str(code), "-o", str(result)]
        made = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
        if made.returncode:
            raise OSError(f"{' '.join(command)}: {made.stderr.strip()[:500]}")
        os.replace(result, path)
    return path


def _processor() -> bytes:
    """What ``-march=native`` depends on: a home directory may be shared by machines of several kinds."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    flags = next((line for line in lines if line.startswith(("flags", "Features"))), platform.processor())
    return f"{platform.machine()} {flags}".encode()


def _is_right(library: ctypes.CDLL) -> bool:
    generator = torch.Generator().manual_seed(0)
    feats, weight = torch.randn(40, 19, generator=generator), torch.randn(2, 19, 35, generator=generator)
    rows = torch.randint(-1, 40, (2, 50), generator=generator, dtype=torch.int32)
    out = torch.empty(50, 35)
    _call(library, "conv", feats, weight, rows, out, 50, 2, 19, 35, *weight.stride())
    padded = torch.nn.functional.pad(feats, (0, 0, 0, 1))
    expected = padded[rows[0]] @ weight[0] + padded[rows[1]] @ weight[1]
    return bool(torch.allclose(out, expected, rtol=1e-4, atol=1e-4))
