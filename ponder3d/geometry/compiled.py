"""C functions for the CPU, built with the machine's own compiler when first needed.

Nothing is compiled at installation and nothing depends on it: without a compiler, and for other types than float32,
plain PyTorch does the same. A library is kept in the user's cache, under a name that tells the source, the compiler,
the processor and what the file holds, and is trusted only after it has computed something small correctly.
"""

import contextlib
import ctypes
import hashlib
import logging
import operator
import os
import platform
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator
from importlib import resources
from pathlib import Path
from typing import SupportsIndex

import torch
from torch import Tensor

from ponder3d.geometry import kernels

# Without the third, -std=c11 forbids a * b + c in one instruction, and a convolution takes 1.4 times as long.
_FLAGS = ("-O3", "-march=native", "-ffp-contract=fast", "-std=c11", "-shared", "-fPIC", "-pthread")
_HEADER = "cpu_pool.h"
_log = logging.getLogger(__name__)


class Functions:
    """The functions ``ponder3d_*`` of a loaded library."""

    def __init__(self, path: Path):
        self._loaded = ctypes.CDLL(str(path))

    def run(self, name: str, *arguments: Tensor | SupportsIndex | float) -> int:
        """Call a function with pointers and numbers, and the number of threads after them.

        Returns:
            0, or what else the function says of its arguments.

        Raises:
            MemoryError: it says 1.
        """
        code = self._loaded[f"ponder3d_{name}"](*map(_plain, arguments), ctypes.c_int(torch.get_num_threads()))
        if code == 1:
            raise MemoryError(f"compiled {name}: out of memory")
        return code


class Library:
    """The functions of one C file, built, loaded and checked when first needed.

    Args:
        package: where the file is.
        source: its name.
        check: whether they compute what they should.
    """

    def __init__(self, package: str, source: str, check: Callable[[Functions], bool]):
        self.package, self.source, self._check = package, source, check
        self._functions: Functions | None = None
        self._tried, self._lock = False, threading.Lock()

    def wanted(self, device: torch.device) -> bool:
        """Whether an operation on this device should run compiled.

        Raises:
            RuntimeError: ``kernels("compiled")`` insists, and they cannot be built here.
        """
        which = kernels.chosen()
        if device.type != "cpu" or which not in ("auto", "compiled"):
            return False
        if self.available:
            return True
        if which == "compiled":
            raise RuntimeError(f"compiled kernels: no C compiler, or it failed; log {__name__} to see why")
        return False

    @property
    def available(self) -> bool:
        """Whether it can be built here and computes what it should."""
        if not self._tried:
            with self._lock:  # whoever comes second waits: it must not compute otherwise than the first
                if not self._tried:
                    self._functions = self._load()
                    self._tried = True
        return self._functions is not None

    def forget(self) -> None:
        """Try again when next asked."""
        self._functions, self._tried = None, False

    def run(self, name: str, *arguments: Tensor | SupportsIndex | float) -> int:
        """``Functions.run`` of a library that is available."""
        functions = self._functions if self.available else None
        assert functions is not None, f"{self.source} cannot be built here"
        return functions.run(name, *arguments)

    def _load(self) -> Functions | None:
        try:
            functions = Functions(self._built())
            # The check makes tensors: of the kind that it expects, whatever this process has chosen to be usual.
            with torch.device("cpu"), _usual_dtype(torch.float32):
                if self._check(functions):
                    return functions
            _log.warning("the compiled %s computes something else than PyTorch; not used", self.source)
        except (OSError, RuntimeError, subprocess.SubprocessError) as error:  # RuntimeError: there is no home directory
            _log.info("no compiled kernels: %s", error)
        return None

    def _built(self) -> Path:
        compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
        if compiler is None:
            raise FileNotFoundError("no C compiler (cc, gcc, clang) on the path")
        header = resources.files("ponder3d.geometry").joinpath(_HEADER).read_bytes()
        source = resources.files(self.package).joinpath(self.source).read_bytes()
        version = subprocess.run([compiler, "--version"], check=True, capture_output=True, timeout=60).stdout
        parts = [header, source, version, _processor(), " ".join(_FLAGS).encode()]
        digest = hashlib.sha256(b"\0".join(parts)).hexdigest()
        name = f"{Path(self.source).stem}-{digest[:20]}"
        folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ponder3d"
        for path in sorted(folder.glob(f"{name}-*.so")):
            # A file that lost its end would end the process, without a word.
            if path.stem == f"{name}-{_digest(path)}":
                return path
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as workshop:
            code, result = Path(workshop) / self.source, Path(workshop) / "result.so"
            code.write_bytes(source)
            (Path(workshop) / _HEADER).write_bytes(header)
            command = [compiler, *_FLAGS, str(code), "-o", str(result)]
            made = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
            if made.returncode:
                raise OSError(f"{' '.join(command)}: {made.stderr.strip()[:500]}")
            path = folder / f"{name}-{_digest(result)}.so"
            with result.open("rb") as file:
                os.fsync(file.fileno())
            os.replace(result, path)
        return path


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()[:12]


def _plain(argument: Tensor | SupportsIndex | float) -> ctypes.c_void_p | ctypes.c_int64 | ctypes.c_float:
    if isinstance(argument, Tensor):
        assert argument.device.type == "cpu"
        return ctypes.c_void_p(argument.data_ptr())
    # Not every whole number is an int: NumPy has its own.
    return ctypes.c_float(argument) if isinstance(argument, float) else ctypes.c_int64(operator.index(argument))


@contextlib.contextmanager
def _usual_dtype(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def _processor() -> bytes:
    """What ``-march=native`` depends on: a home directory may be shared by machines of several kinds."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    flags = next((line for line in lines if line.startswith(("flags", "Features"))), platform.processor())
    return f"{platform.machine()} {flags}".encode()
