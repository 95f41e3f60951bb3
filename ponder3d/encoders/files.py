"""Encoders as files: safetensors with a JSON header, no pickle.

The header holds a format version, the encoder's configuration and its fingerprint, a digest of the weights, and a card:
what its maker says about it; a run writes its experiment's fingerprint and the step. One file, replaced atomically:
weights and configuration never part.
"""

import contextlib
import hashlib
import json
import os
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from ponder3d.config import fingerprint, from_json, to_json
from ponder3d.encoders.encoder import Encoder, EncoderConfig
from ponder3d.encoders.encoder import EncoderFileError as EncoderFileError
from ponder3d.encoders.released import read_released
from ponder3d.encoders.released_file import is_torch_file
from ponder3d.encoders.sparse_unet import SparseUNet
from ponder3d.files import sync_directory
from ponder3d.sparse.nn import merged_state

FILE_NAME = "encoder.safetensors"
SHIPPED = Path(__file__).parent.parent / "weights"
"""Encoders that come with the package, ``NAME.safetensors``; their cards say how they were made."""
_FORMAT = 1
_HEADER = "ponder3d"


def save_encoder(
    encoder: Encoder, path: Path | str, card: dict[str, Any] | None = None, half_precision: bool = False
) -> None:
    """Write an encoder to a file.

    Args:
        encoder: its weights and ``config``. Changes of convolutions (``sparse.nn.merged_state``) become weights.
        path: the file; its directory must exist.
        card: JSON values to travel along, e.g. the experiment's fingerprint; None: the encoder's own. ``encode`` reads
            ``modality_dropout``, the list of inputs without which the encoder has learnt to do.
        half_precision: whether to keep kernels and matrices as float16, in half the bytes; vectors, such as running
            variances, stay as they are. Loaded again, all are float32.

    Raises:
        ValueError: the encoder is a way to read another (``Encoder.all_levels``): save that one.
        OSError: it could not be written; at ``path`` there is what was there before, or the whole new file.
    """
    if encoder.derived:
        raise ValueError("save_encoder: this is a way to read another encoder, made when it is needed; save that one")
    path = Path(path)
    weights = {name: value.detach().cpu().contiguous() for name, value in merged_state(encoder).items()}
    if half_precision:
        weights = {name: value.half() if value.ndim > 1 else value for name, value in weights.items()}
    header = {
        "format": _FORMAT,
        "config": to_json(encoder.config),
        "fingerprint": fingerprint(encoder.config),
        "sha256": weights_digest(weights),
        "card": encoder.card if card is None else card,
    }
    data = save(weights, metadata={_HEADER: json.dumps(header)})
    temporary = path.with_name(f".tmp-{path.name}-{os.getpid()}")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        sync_directory(path.parent)
    except OSError as error:
        with contextlib.suppress(OSError):  # the first error is the one to report
            temporary.unlink(missing_ok=True)
        need = len(data) >> 20
        raise OSError(error.errno, f"could not save the encoder ({need} MiB): {error.strerror}", str(path)) from error


def load_encoder(path: Path | str, device: torch.device | str = "cpu") -> Encoder:
    """Read an encoder.

    Args:
        path: a file written by ``save_encoder``, or a directory (of a run) that holds ``encoder.safetensors``; or a
            checkpoint of PonderV2 or Pointcept with a SparseUNet in it (``.pth``), with the defaults of
            ``encoders.released.read_released``; or the name of an encoder that comes with the package
            (``shipped_names``), if nothing in the working directory is called that.
        device: where to put it.

    Returns:
        The encoder in evaluation mode, with its ``card``.

    Raises:
        ValueError: the device is not there.
        OSError: there is no such file.
        EncoderFileError: it is something else, of another version, or damaged; the message says what differs.
    """
    _check_device(device)
    path = _existing_file(path)
    if is_torch_file(path):
        released = read_released(path)
        released.encoder.card = released.card(path.name)
        return released.encoder.to(device)
    header, weights = _read(path)
    try:
        config = from_json(EncoderConfig, header["config"])
    except ValueError as error:
        raise EncoderFileError(f"{path}: its configuration does not fit this version: {error}") from error
    if fingerprint(config) != header["fingerprint"]:
        raise EncoderFileError(f"{path}: its configuration differs from its fingerprint; the file is damaged")
    encoder = config.build()
    _check_names(path, set(weights), set(encoder.state_dict()))
    _load(encoder, weights, str(path))
    encoder.card = header["card"]
    return encoder.to(device).eval()


def read_card(path: Path | str) -> dict[str, Any]:
    """What an encoder's file says about it: ``config``, ``fingerprint``, ``card``.

    Raises:
        EncoderFileError: the file is no encoder.
    """
    return _read(_existing_file(path))[0]


def shipped_names() -> list[str]:
    """Names of the encoders that come with the package, for ``load_encoder``."""
    return sorted(path.stem for path in SHIPPED.glob("*.safetensors"))


def _existing_file(path: Path | str) -> Path:
    """The file that is meant: it, the one of a run, or one that comes with the package.

    Raises:
        FileNotFoundError: there is none.
    """
    given = Path(path)
    if not given.exists() and str(path) in shipped_names():
        return SHIPPED / f"{path}.safetensors"
    file = given / FILE_NAME if given.is_dir() else given
    if not file.is_file():
        raise FileNotFoundError(
            f"{file}: no such file; a run writes it with its first checkpoint, and with the package come "
            f"{', '.join(shipped_names()) or 'none'}"
        )
    return file


def start_from(encoder: Encoder, init: str) -> tuple[str, ...]:
    """Give a freshly built encoder the weights of files.

    Args:
        encoder: gets them.
        init: a file or the directory of a run, as ``load_encoder`` reads it, of a like encoder. Where an encoder has
            parts (``Encoder.parts``), ``lidar=FILE,camera=FILE`` or one of the two: the weights of its parts; the rest
            of it is left as it was built, and a part that is not named starts by itself (``Encoder.start``).

    Returns:
        What the parts that start by themselves tell the user.

    Raises:
        ValueError: there is no such file, or no such part.
        EncoderFileError: it is something else, or the encoder in it differs (``copy_weights``).
    """
    parts = encoder.parts()
    named = [each.partition("=") for each in init.split(",")]
    if not parts or not all(equals for _, equals, _ in named):
        copy_weights(_existing(init), encoder, init)
        return ()
    files = {name.strip(): path.strip() for name, _, path in named}
    unknown = [name for name in files if name not in parts]
    if unknown or len(files) < len(named):
        raise ValueError(f"Experiment.init: {init}: parts are {' and '.join(parts)}, each once: part=FILE,part=FILE")
    told: tuple[str, ...] = ()
    for name, part in parts.items():
        if name in files:
            copy_weights(_existing(files[name]), part, files[name])
        else:
            told += part.start()
    return told


def _existing(path: str) -> Encoder:
    try:
        return load_encoder(path)
    except FileNotFoundError as error:
        raise ValueError(f"Experiment.init: {error}") from error


def copy_weights(source: Encoder, target: Encoder, name: str) -> None:
    """Start ``target`` from the weights of ``source``, of which it may know some of the conditions only.

    Raises:
        EncoderFileError: they differ in what they read, in the size of their voxels or cells, in conditions or in
            structure; the message names the first difference.
    """
    for field in ("inputs", "grid_size"):  # weights fit whatever these are, and mean something else
        theirs, ours = getattr(source.config, field), getattr(target.config, field)
        if theirs != ours:
            raise EncoderFileError(f"{name}: trained with {field} {theirs}, this encoder has {ours}; give it the same")
    theirs, ours = _cell(source.config), _cell(target.config)
    if (
        theirs is not None
        and ours is not None
        and any(abs(a - b) > 1e-6 * b for a, b in zip(theirs, ours, strict=True))
    ):
        raise EncoderFileError(
            f"{name}: trained with cells of {' x '.join(f'{a:g}' for a in theirs)} m, this encoder has "
            f"{' x '.join(f'{b:g}' for b in ours)} m; give it a box and a shape with the same"
        )
    source = _of_conditions(source, target.conditions, name)
    _check_names(Path(name), set(source.state_dict()), set(target.state_dict()))
    _load(target, source.state_dict(), name)


def _cell(config: EncoderConfig) -> tuple[float, ...] | None:
    """Size of a cell in metres, where an encoder ends in a volume over a box of its own."""
    box, shape = getattr(config, "box", None), getattr(config, "shape", None)
    if box is None or shape is None:
        return None
    return tuple((hi - lo) / n for lo, hi, n in zip(box[:3], box[3:], shape, strict=True))


def _of_conditions(source: Encoder, wanted: tuple[str, ...], name: str) -> Encoder:
    """The source, with these of its conditions."""
    known = source.conditions
    if known == wanted:
        return source
    if not wanted:
        raise EncoderFileError(
            f"{name}: trained for the conditions {', '.join(known)}, and this encoder tells none apart; fold one of "
            "them into it: ponder3d convert FILE NEW.safetensors --condition NAME"
        )
    if not known:
        raise EncoderFileError(
            f"{name}: trained without conditions, this encoder tells {', '.join(wanted)} apart; give it plain norms"
        )
    unknown = [condition for condition in wanted if condition not in known]
    if unknown or not isinstance(source, SparseUNet):
        raise EncoderFileError(
            f"{name}: trained for the conditions {', '.join(known)}, this encoder has {', '.join(wanted)}"
        )
    return source.only(wanted)


def _check_device(device: torch.device | str) -> None:
    """Raise a ValueError if no tensor gets there and back."""
    try:
        torch.zeros(1, device=device).cpu()
    except (AssertionError, ImportError, RuntimeError) as error:  # the first of a build without CUDA
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(f"--device {device}: cannot be used here ({first}); take cpu, or cuda where it is") from error


def _read(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            weights = {name: file.get_tensor(name) for name in file.keys()}
    except SafetensorError as error:
        raise EncoderFileError(f"{path}: no intact safetensors file ({error})") from error
    if _HEADER not in metadata:
        raise EncoderFileError(f"{path}: a safetensors file, but not one that ponder3d wrote (no '{_HEADER}' header)")
    try:
        header = json.loads(metadata[_HEADER])
    except ValueError as error:
        raise EncoderFileError(f"{path}: its '{_HEADER}' header is damaged ({error})") from error
    if header.get("format") != _FORMAT:
        raise EncoderFileError(f"{path}: encoder format {header.get('format')}, this version reads {_FORMAT}")
    missing = [key for key in ("config", "fingerprint", "sha256", "card") if key not in header]
    if missing:
        raise EncoderFileError(f"{path}: its '{_HEADER}' header has no {missing[0]!r}; the file is damaged")
    if not isinstance(header["card"], dict):
        raise EncoderFileError(f"{path}: its card is no table of entries; the file is damaged")
    if header["sha256"] != weights_digest(weights):
        raise EncoderFileError(f"{path}: the weights differ from their digest; the file is damaged")
    return header, weights


def _check_names(path: Path, found: set[str], expected: set[str]) -> None:
    missing, extra = sorted(expected - found), sorted(found - expected)
    if missing or extra:
        parts = [
            f"{len(names)} {what} (first: {names[0]})"
            for names, what in ((missing, "missing"), (extra, "unknown"))
            if names
        ]
        raise EncoderFileError(f"{path}: weights do not match the encoder: {', '.join(parts)}")


def _load(encoder: nn.Module, weights: dict[str, Tensor], name: str) -> None:
    for key, value in encoder.state_dict().items():
        if value.shape != weights[key].shape:
            raise EncoderFileError(
                f"{name}: {key} has shape {list(weights[key].shape)}, the encoder needs {list(value.shape)}"
            )
    encoder.load_state_dict(weights)


def weights_digest(weights: dict[str, Tensor]) -> str:
    """SHA-256 over names, types, shapes and values of a ``state_dict``."""
    digest = hashlib.sha256()
    for name in sorted(weights):
        value = weights[name].detach().cpu().contiguous()
        digest.update(f"{name} {value.dtype} {list(value.shape)};".encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
