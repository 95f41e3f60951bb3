"""Class vectors in a file: made where a text encoder is, used where there is none."""

import json
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from ponder3d.data.npy import npy_array
from ponder3d.files import replacing
from ponder3d.tasks.class_vectors import ClassVectors, ClassVectorsConfig, words
from ponder3d.tasks.text_prompts import check_apart
from ponder3d.types import LabelSet

_HEADER = "class_vectors"
_LARGEST = 256 << 20
"""Bytes of a member of an npz file; ten thousand vectors of 4096 numbers are 164 MB."""


@dataclass(frozen=True)
class StoredVectors(ClassVectorsConfig):
    """Vectors from a file that ``save_class_vectors`` wrote, by name; it may hold more classes than are asked for."""

    file: str = ""
    """The file: ``.safetensors``, or ``.npz`` with ``names``, ``vectors`` and ``source``."""

    def build(self, labels: LabelSet) -> ClassVectors:
        """The vectors of these classes, scaled to length 1.

        Raises:
            ValueError: no file is named, it is damaged, or it lacks a class.
            FileNotFoundError: there is no such file.
        """
        if not self.file:
            raise ValueError("StoredVectors.file: name a file that save_class_vectors wrote")
        path = Path(self.file)
        if not path.is_file():
            raise FileNotFoundError(f"{path}: no such file; save_class_vectors writes class vectors")
        names, vectors, source = _read_npz(path) if path.suffix == ".npz" else _read_safetensors(path)
        rows = {words(name): row for row, name in enumerate(names)}
        missing = [name for name in labels.names if words(name) not in rows]
        if missing:
            more = f" and {len(missing) - 5} more" if len(missing) > 5 else ""
            raise ValueError(f"{path}: no vectors of {', '.join(missing[:5])}{more}; it has {len(names)} others")
        picked = F.normalize(vectors[[rows[words(name)] for name in labels.names]], dim=1)
        check_apart(labels.names, picked, str(path))
        return ClassVectors(picked, source)


def save_class_vectors(path: Path | str, names: Sequence[str], vectors: Float[Tensor, "K E"], source: str) -> None:
    """Write class vectors for ``StoredVectors``.

    Args:
        path: the file, whose name ends in ``.safetensors`` or ``.npz``.
        names: of the classes.
        vectors: one row each, of any length but 0.
        source: what made them (``ClassVectors.source``).

    Raises:
        ValueError: the name of the file ends in something else, or names and vectors do not fit each other.
        OSError: it could not be written; at ``path`` there is what was there before.
    """
    path, vectors = Path(path), vectors.detach().cpu().float().contiguous()
    if path.suffix not in (".safetensors", ".npz"):
        raise ValueError(f"{path}: class vectors are kept as .safetensors or .npz")
    if vectors.ndim != 2 or len(names) != len(vectors) or len({words(name) for name in names}) != len(names):
        raise ValueError(f"{path}: {len(names)} names do not name the rows of vectors of shape {list(vectors.shape)}")
    with replacing(path) as file:
        if path.suffix == ".npz":
            np.savez(file, names=np.array(names, dtype=str), vectors=vectors.numpy(), source=np.array(source))
        else:
            header = json.dumps({"names": list(names), "source": source})
            file.write(save({"vectors": vectors}, metadata={_HEADER: header}))


def _read_safetensors(path: Path) -> tuple[list[str], Tensor, str]:
    try:
        with safe_open(path, framework="pt") as file:
            header = json.loads((file.metadata() or {})[_HEADER])
            vectors = file.get_tensor("vectors")
        names, source = header["names"], header["source"]
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise _damaged(path, error) from error
    return _checked(path, names, vectors, source)


def _read_npz(path: Path) -> tuple[list[str], Tensor, str]:
    arrays = {}
    try:
        with zipfile.ZipFile(path) as archive:
            for name in ("names", "vectors", "source"):
                with archive.open(f"{name}.npy") as member:
                    data = member.read(_LARGEST + 1)
                if len(data) > _LARGEST:
                    raise ValueError(f"{name} is larger than {_LARGEST >> 20} MiB")
                arrays[name] = npy_array(data, f"{path}: {name}")
        vectors = torch.from_numpy(np.array(arrays["vectors"], dtype=np.float32))
        names, source = arrays["names"].tolist(), arrays["source"].tolist()
    except OSError:
        raise
    except Exception as error:  # zipfile and its decompressors raise what they like of damaged archives
        raise _damaged(path, error) from error
    return _checked(path, names, vectors, source)


def _checked(path: Path, names: object, vectors: Tensor, source: object) -> tuple[list[str], Tensor, str]:
    fits = isinstance(names, list) and all(isinstance(name, str) for name in names) and isinstance(source, str)
    if not (fits and isinstance(names, list) and isinstance(source, str) and vectors.is_floating_point()):
        raise _damaged(path, "names and source are no texts, or vectors no real numbers")
    if vectors.ndim != 2 or len(vectors) != len(names):
        raise _damaged(path, f"{len(names)} names for vectors of shape {list(vectors.shape)}")
    return names, vectors.float(), source


def _damaged(path: Path, why: object) -> ValueError:
    what = why if isinstance(why, str) else f"{type(why).__name__}: {why}"
    return ValueError(f"{path}: no class vectors as save_class_vectors writes them ({what})")
