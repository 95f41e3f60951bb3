"""Files that ``torch.save`` wrote: their tensors, and nothing that would run.

Checkpoints of PonderV2 and Pointcept are zip files with a pickle of the whole training state: weights, optimiser,
scheduler, best figure. ``torch.load(weights_only=True)`` builds tensors and containers from it and refuses everything
else. Two things of a training state are neither, and harmless if nothing is built from them: a figure that is a NumPy
number, and the annealing function that OneCycleLR kept in its state before PyTorch 2.0. Their names stand for
``_Nothing`` here, which ignores what it is given.
"""

import errno
import hashlib
import pickle
import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ponder3d.encoders.encoder import EncoderFileError

_ZIP, _PICKLE = b"PK\x03\x04", b"\x80"
_SUFFIXES = (".pth", ".pt", ".ckpt")
_MAX_PICKLE = 64 << 20
"""Bytes of the pickle, which is read whole: 0.2 MB in a checkpoint of a SparseUNet with its optimiser."""
_WEIGHTS = ("state_dict", "model_state_dict", "model")
"""Entries of a checkpoint that hold the weights, as trainers call them."""


class _Nothing:
    """Stands for an object of a training state that is not wanted."""

    def __init__(self, *_arguments: Any):
        pass

    def __setstate__(self, state: Any) -> None:
        pass


_HARMLESS: list[Any] = [
    (_Nothing, name)
    for name in (
        "numpy.core.multiarray.scalar",  # NumPy 1
        "numpy._core.multiarray.scalar",
        "numpy.dtype",
        "builtins.getattr",  # of the next one; the pickle has its old name, __builtin__
        "__builtin__.getattr",
        "torch.optim.lr_scheduler.OneCycleLR",
    )
]


def is_torch_file(path: Path) -> bool:
    """Whether a file looks as if ``torch.save`` wrote it: by its first bytes, or by its name if they say nothing.

    Raises:
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        head = file.read(9)
    if head[8:] == b"{":  # safetensors: the length of a JSON header, then the header
        return False
    return head.startswith((_ZIP, _PICKLE)) or path.suffix.lower() in _SUFFIXES


def read_state(path: Path) -> dict[str, Tensor]:
    """The weights in a file of ``torch.save``; they stay on disk until they are used.

    The file holds them directly or under one of ``state_dict``, ``model_state_dict`` and ``model``. A leading
    ``module.``, which DistributedDataParallel adds, is taken off where all names have it.

    Raises:
        OSError: the file cannot be read.
        EncoderFileError: it is no such file, is damaged, or holds something else than weights.
    """
    _check_archive(path)
    state = _load(path)
    if isinstance(state, dict):
        inner = [state[name] for name in _WEIGHTS if isinstance(state.get(name), dict)]
        state = inner[0] if inner else state
    if not isinstance(state, dict) or not state or not all(isinstance(name, str) for name in state):
        raise EncoderFileError(f"{path}: it holds {_told(state)}, and no weights by name (a state_dict)")
    other = [name for name, value in state.items() if not isinstance(value, Tensor)]
    if other:
        raise EncoderFileError(f"{path}: {other[0]} is {_told(state[other[0]])} and no tensor: this is no state_dict")
    odd = [name for name, value in state.items() if not _is_plain(value)]
    if odd:
        raise EncoderFileError(f"{path}: {odd[0]} is a sparse, quantised or otherwise special tensor; save plain ones")
    # A damaged size or stride can make a tensor of the whole file, many times over.
    if sum(value.numel() * value.element_size() for value in state.values()) > path.stat().st_size:
        raise EncoderFileError(f"{path}: its tensors are larger than the file; it is damaged")
    if all(name.startswith("module.") for name in state):
        state = {name.removeprefix("module."): value for name, value in state.items()}
    return state


def file_digest(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _is_plain(value: Tensor) -> bool:
    """Whether a tensor is its numbers, one after the other: most functions know no others."""
    dense = value.layout == torch.strided and not value.is_quantized and not value.is_nested
    return dense and value.device.type == "cpu" and type(value) in (Tensor, nn.Parameter)


def _check_archive(path: Path) -> None:
    """Refuse what is no whole zip file of stored entries, before PyTorch reads it."""
    with path.open("rb") as file:
        head = file.read(2)
        if head[:1] == _PICKLE:
            raise EncoderFileError(
                f"{path}: in the format that PyTorch wrote before 1.6, which cannot be read without running it; write "
                "it anew where you trust it: torch.save(torch.load(FILE, weights_only=True), NEW)"
            )
        if head != _ZIP[:2]:
            raise EncoderFileError(f"{path}: no file of torch.save (it does not begin like a zip file)")
        try:
            entries = zipfile.ZipFile(file).infolist()
        except Exception as error:  # zipfile raises what it likes of damaged archives
            _raise_unless_damage(error)
            raise EncoderFileError(
                f"{path}: no intact file of torch.save ({error}); is its download complete?"
            ) from error
    size = path.stat().st_size
    packed = [entry for entry in entries if entry.compress_type != zipfile.ZIP_STORED or entry.flag_bits & 1]
    if packed or sum(entry.file_size for entry in entries) > size:
        raise EncoderFileError(f"{path}: a zip file with compressed or overlapping entries; torch.save writes none")
    if any(entry.file_size > _MAX_PICKLE for entry in entries if entry.filename.endswith(".pkl")):
        raise EncoderFileError(f"{path}: its pickle is larger than {_MAX_PICKLE >> 20} MB; torch.save writes none such")


def _load(path: Path) -> Any:
    try:
        with torch.serialization.safe_globals(_HARMLESS):
            return torch.load(str(path), map_location="cpu", weights_only=True, mmap=True)
    except pickle.UnpicklingError as error:
        raise EncoderFileError(
            f"{path}: it holds code or is damaged ({_first_reason(error)}); code in a file is not run. If you trust "
            "where it is from, load it with PyTorch and save its state_dict by itself"
        ) from error
    except Exception as error:  # whatever a damaged file makes the unpickler and the tensors run into
        _raise_unless_damage(error)
        raise EncoderFileError(f"{path}: damaged ({type(error).__name__}: {_first_line(error)})") from error


def _raise_unless_damage(error: Exception) -> None:
    """Hand on what storage says; a place before the begin of a file (EINVAL) is one that a damaged file names."""
    if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):
        raise error


def _first_reason(error: Exception) -> str:
    """The part of PyTorch's message that says what is wrong, without its advice to load the file nevertheless."""
    marked = [line for line in str(error).splitlines() if "WeightsUnpickler error" in line or "GLOBAL" in line]
    text = marked[0].split("WeightsUnpickler error:")[-1] if marked else _first_line(error)
    return text.split(". ")[0].strip(" .")


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [""])[0][:200]


def _told(value: Any) -> str:
    return f"a {type(value).__name__}" + (" without entries" if isinstance(value, dict) and not value else "")
