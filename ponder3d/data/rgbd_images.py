"""Reading the images of posed RGB-D frames. Whatever is wrong with a file comes out as one DataError that names it."""

import functools
import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, UInt8
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from ponder3d.data.dataset import DataError
from ponder3d.data.faults import raise_if_of_machine
from ponder3d.data.rgbd_layouts import Frame

# Kinds of images, in Pillow's words.
_COLOUR = ("RGB", "RGBA", "L")
_DEPTH = ("I;16", "I;16B", "I")
_LABEL = ("L", "P", "I;16", "I")
_MAX_BYTES = 1 << 30

Matrices = tuple[np.ndarray | None, np.ndarray | None]
"""[3 3] intrinsics of the colour and of the depth image at their own sizes; one that is None is the other's, scaled."""


@runtime_checkable
class DepthUnits(Protocol):
    """What turns raw depth into metres."""

    @property
    def depth_scale(self) -> float:
        """Units per metre."""
        ...

    @property
    def invalid_depth(self) -> tuple[int, ...]:
        """Raw values that mean "nothing"."""
        ...

    @property
    def max_depth(self) -> float:
        """Metres."""
        ...


class FrameError(DataError):
    """An image of a frame that cannot be used."""

    def __init__(self, kind: str, what: str):
        super().__init__(what)
        self.kind = kind
        """As of ``raw.dataset.Problem``: ``depth``, ``colour`` or ``label``."""


@contextmanager
def _reading(kind: str) -> Iterator[None]:
    """Tells which image of a frame it is whose reading failed."""
    try:
        yield
    except DataError as error:
        raise FrameError(kind, str(error)) from error


def check_headers(frame: Frame, with_label: bool) -> None:
    """See that the images of a frame are there and of the right kind, without decoding them.

    What this cannot see (a truncated file, a depth image without depth) comes out when the frame is read.

    Raises:
        FrameError: see ``read_image``.
    """
    label = frame.label if with_label else None
    for kind, path, modes in (
        ("depth", frame.depth, _DEPTH),
        ("colour", frame.colour, _COLOUR),
        ("label", label, _LABEL),
    ):
        if path is not None:
            with _reading(kind), _opened(path, modes):
                pass


def depth_size(frame: Frame) -> tuple[int, int]:
    """(height, width) of the depth image, from its header.

    Raises:
        FrameError: see ``read_image``.
    """
    with _reading("depth"), _opened(frame.depth, _DEPTH) as image:
        return image.height, image.width


def read_image(path: Path | str, modes: tuple[str, ...], content: bytes | None = None) -> np.ndarray:
    """The pixels of an image file.

    Args:
        path: of the file; with ``content`` only a name for messages, such as that of a member of an archive.
        modes: kinds of images that are taken, in Pillow's words.
        content: the file, if it was read already.

    Raises:
        DataError: it is missing, truncated, no image, absurdly large, or of another kind than ``modes``.
    """
    with _opened(path, modes, _content(Path(path)) if content is None else content) as image:
        return np.array(image)


def _content(path: Path) -> bytes:
    """An image file. From memory Pillow cannot ask for more than there is, as damaged files make it do from a disk."""
    try:
        size = path.stat().st_size
        if size > _MAX_BYTES:
            raise DataError(f"{path}: {size} bytes; an image file has at most {_MAX_BYTES}")
        return path.read_bytes()
    except OSError as error:
        raise_if_of_machine(error, path)
        raise DataError(f"{path}: cannot be read as an image ({type(error).__name__}: {error})") from error


@contextmanager
def _opened(path: Path | str, modes: tuple[str, ...], content: bytes | None = None) -> Iterator[Image.Image]:
    """An image whose header has been read; whatever is wrong with it becomes a DataError."""
    try:
        with warnings.catch_warnings():
            # A decompression bomb is a warning up to twice Pillow's limit; here it is an error.
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            # Pillow leaves files open that it fails to read.
            file = open(path, "rb") if content is None else io.BytesIO(content)
            with file, Image.open(file) as image:
                if image.mode not in modes:
                    raise DataError(f"{path}: an image of kind {image.mode}; expected {' or '.join(modes)}")
                yield image
    except DataError:
        raise
    except UnidentifiedImageError as error:  # says the address of the object that it was given
        raise DataError(f"{path}: cannot be read as an image (it begins like none that Pillow knows)") from error
    except Exception as error:  # Pillow's decoders raise almost anything on damaged files
        raise_if_of_machine(error, path)
        raise DataError(f"{path}: cannot be read as an image ({type(error).__name__}: {error})") from error


def read_frame_depth(frame: Frame, units: DepthUnits) -> tuple[tuple[int, int], Float[Tensor, "H W"]]:
    """``read_depth`` of a frame, in the units that its layout has, if it has some.

    Raises:
        FrameError: see ``read_depth``.
    """
    with _reading("depth"):
        return read_depth(frame.depth, units, frame.depth_units, frame.depth_turned)


def read_depth(
    path: Path, units: DepthUnits, scale: float | None = None, turned: int = 0
) -> tuple[tuple[int, int], Float[Tensor, "H W"]]:
    """Size and plane depth in metres of a 16-bit depth image; 0 where there is none.

    Args:
        path: the image.
        units: what its values mean.
        scale: units per metre if they are known; else ``units.depth_scale``.
        turned: bits by which the values were rotated to the left, within 16.

    Raises:
        DataError: see ``read_image``; or less than 1 % of the pixels have a depth.
    """
    raw = read_image(path, _DEPTH).astype(np.int64)
    if turned:
        raw = ((raw >> turned) | (raw << (16 - turned))) & 0xFFFF
    scale = scale or units.depth_scale
    valid = ~np.isin(raw, units.invalid_depth) & (raw > 0) & (raw <= units.max_depth * scale)
    if not valid.size or valid.mean() < 0.01:
        share = valid.mean() if valid.size else 0
        raise DataError(f"{path}: only {share:.2%} of the pixels have a depth up to {units.max_depth:g} m")
    metres = np.where(valid, raw / scale, 0).astype(np.float32)
    return (raw.shape[0], raw.shape[1]), torch.from_numpy(metres)


def read_colour(
    frame: Frame, depth_size: tuple[int, int], size: tuple[int, int]
) -> tuple[tuple[int, int], UInt8[Tensor, "H W 3"]]:
    """Size of the colour image in its file, and the image as the depth camera would see it, at ``size``.

    Raises:
        FrameError: see ``read_image``.
    """
    with _reading("colour"):
        pixels = read_rgb(frame.colour)
    colour_size = (pixels.shape[0], pixels.shape[1])
    return colour_size, seen_colour(pixels, (frame.colour_intrinsics, frame.depth_intrinsics), depth_size, size)


def read_rgb(path: Path) -> np.ndarray:
    """[H W 3] uint8 of a colour or grey image; transparency is dropped.

    Raises:
        DataError: see ``read_image``.
    """
    pixels = read_image(path, _COLOUR)
    return np.repeat(pixels[..., None], 3, axis=2) if pixels.ndim == 2 else pixels[..., :3]


def read_ids(path: Path) -> np.ndarray:
    """[H W] int64 of an image of label or instance numbers.

    Raises:
        FrameError: see ``read_image``.
    """
    with _reading("label"):
        ids = read_image(path, _LABEL).astype(np.int64)
        if ids.size and not (ids.min() >= 0 and ids.max() <= 0xFFFF):
            raise DataError(f"{path}: numbers from {ids.min()} to {ids.max()}; labels have 16 bits")
        return ids


def fitted_size(size: tuple[int, int], max_side: int) -> tuple[int, int]:
    """(height, width) with its longer side at most ``max_side``; 0 leaves it."""
    if not max_side or max(size) <= max_side:
        return size
    ratio = max_side / max(size)
    return max(1, round(size[0] * ratio)), max(1, round(size[1] * ratio))


def seen_colour(
    pixels: np.ndarray, matrices: Matrices, depth_size: tuple[int, int], size: tuple[int, int]
) -> UInt8[Tensor, "H W 3"]:
    """A colour image as the depth camera would see it, at ``size``.

    Where one set of intrinsics serves both cameras, scaled to their image sizes, this is a resize. Where they differ,
    each depth pixel looks up the colour pixel in the same direction (the offset between the two cameras is not known
    here).
    """
    colour_size = (pixels.shape[0], pixels.shape[1])
    grid = _colour_grid(matrices, colour_size, depth_size, size)
    if grid is None:
        resized = Image.fromarray(pixels).resize((size[1], size[0]), Image.Resampling.BOX)
        return torch.from_numpy(np.array(resized))
    # Average first where the colour image is much finer, so that sampling does not alias.
    shrink = max(1, int(min(colour_size[0] / size[0], colour_size[1] / size[1])))
    image = torch.from_numpy(pixels).permute(2, 0, 1).to(torch.float32)[None]
    if shrink > 1:
        image = F.avg_pool2d(image, shrink)
        # Pixels that are left over at the lower and right edge are in no average: places are shares of what is.
        covered = [shrink * side / full for side, full in zip(image.shape[:1:-1], colour_size[::-1], strict=True)]
        grid = (grid + 1) / torch.tensor(covered) - 1
    sampled = F.grid_sample(image, grid, align_corners=False, padding_mode="border")
    return sampled[0].permute(1, 2, 0).round().clamp(0, 255).to(torch.uint8).contiguous()


def read_labels(
    frame: Frame, rows: dict[int, int], colour_size: tuple[int, int], depth_size: tuple[int, int], size: tuple[int, int]
) -> Int[Tensor, "H W"] | None:
    """Class of each pixel as the depth camera would see it, at ``size``, by nearest neighbour; None without labels.

    Values that are no class, and pixels that the labels do not reach, become -1.

    Raises:
        FrameError: see ``read_image``.
    """
    if frame.label is None:
        return None
    raw = read_ids(frame.label)
    top = max([*rows, int(raw.max())], default=0)
    table = np.full(top + 1, -1, dtype=np.int64)
    for value, row in rows.items():
        table[value] = row
    labels = table[np.clip(raw, 0, top)]
    matrices = (frame.colour_intrinsics, frame.depth_intrinsics)
    return seen_labels(labels, matrices, colour_size, depth_size, size, nothing=-1).to(torch.int16)


def seen_labels(
    labels: np.ndarray,
    matrices: Matrices,
    colour_size: tuple[int, int],
    depth_size: tuple[int, int],
    size: tuple[int, int],
    nothing: int,
) -> Int[Tensor, "H W"]:
    """A label image as the depth camera would see it, at ``size``, by nearest neighbour; ``nothing`` where the labels
    do not reach.

    Labels belong to the colour image, which is what annotators look at, unless they have the size of the depth image
    and the colour image has another.
    """
    # float64 holds every number of 32 bits, which instance masks use.
    values = torch.from_numpy(labels)[None, None].to(torch.float64)
    grid = None if labels.shape == depth_size != colour_size else _colour_grid(matrices, colour_size, depth_size, size)
    if grid is None:
        at_size = F.interpolate(values, size=size, mode="nearest-exact")
    else:  # sampling puts 0 outside: there the labels are moved meanwhile
        moved = F.grid_sample(values - nothing, grid.to(torch.float64), mode="nearest", align_corners=False)
        at_size = moved + nothing
    return at_size[0, 0].to(torch.int64)


def intrinsics_at(
    frame: Frame, colour_size: tuple[int, int], depth_size: tuple[int, int], size: tuple[int, int]
) -> Float[Tensor, "3 3"]:
    """The depth camera's intrinsics for images of ``size``; the image's outer edges stay in place."""
    matrices = (frame.colour_intrinsics, frame.depth_intrinsics)
    return torch.from_numpy(seen_intrinsics(matrices, colour_size, depth_size, size)).to(torch.float32)


def seen_intrinsics(
    matrices: Matrices, colour_size: tuple[int, int], depth_size: tuple[int, int], size: tuple[int, int]
) -> np.ndarray:
    """[3 3] float64: the depth camera's intrinsics for images of ``size``; the image's outer edges stay in place."""
    colour, depth = matrices
    matrix, old = (depth, depth_size) if depth is not None else (colour, colour_size)
    assert matrix is not None
    out = matrix.astype(np.float64).copy()
    for row, ratio in ((0, size[1] / old[1]), (1, size[0] / old[0])):
        centre = (out[row, 2] + 0.5) * ratio - 0.5
        out[row, :2] *= ratio
        out[row, 2] = centre
    return out


def _colour_grid(
    matrices: Matrices, colour_size: tuple[int, int], depth_size: tuple[int, int], size: tuple[int, int]
) -> Float[Tensor, "1 H W 2"] | None:
    """Where in the colour image, from -1 to 1 across it (as ``grid_sample`` wants it), the pixels of the depth camera
    at ``size`` look; None if both cameras see the same."""
    colour, depth = matrices
    if colour is None or depth is None:
        return None
    return _looked_up(tuple(colour.flatten()), tuple(depth.flatten()), colour_size, depth_size, size)


@functools.lru_cache(maxsize=2)
def _looked_up(
    colour_matrix: tuple[float, ...],
    depth_matrix: tuple[float, ...],
    colour_size: tuple[int, int],
    depth_size: tuple[int, int],
    size: tuple[int, int],
) -> Float[Tensor, "1 H W 2"]:
    """The grid of ``_colour_grid``; the frames of a scene have one, and it takes longer to make than to use."""
    colour, depth = (np.array(values).reshape(3, 3) for values in (colour_matrix, depth_matrix))
    v, u = np.meshgrid(
        *[(np.arange(n) + 0.5) * o / n - 0.5 for n, o in zip(size, depth_size, strict=True)], indexing="ij"
    )
    homography = colour @ np.linalg.inv(depth)
    x, y, z = np.einsum("ij,jhw->ihw", homography, np.stack([u, v, np.ones_like(u)]))
    where = np.stack([(x / z + 0.5) / colour_size[1], (y / z + 0.5) / colour_size[0]], axis=-1) * 2 - 1
    return torch.from_numpy(where).to(torch.float32)[None]
