"""Reading the images of posed RGB-D frames. Whatever is wrong with a file comes out as one DataError that names it."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, UInt8
from PIL import Image
from torch import Tensor

from ponder3d.data.dataset import DataError
from ponder3d.data.rgbd_layouts import Frame

# Kinds of images, in Pillow's words.
_COLOUR = ("RGB", "RGBA", "L")
_DEPTH = ("I;16", "I;16B", "I")
_LABEL = ("L", "P", "I;16", "I")


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


def check_headers(frame: Frame, with_label: bool) -> None:
    """See that the images of a frame are there and of the right kind, without decoding them.

    What this cannot see (a truncated file, a depth image without depth) comes out when the frame is read.

    Raises:
        DataError: see ``read_image``.
    """
    label = frame.label if with_label else None
    for path, modes in ((frame.depth, _DEPTH), (frame.colour, _COLOUR), (label, _LABEL)):
        if path is not None:
            with _opened(path, modes):
                pass


def read_image(path: Path, modes: tuple[str, ...]) -> np.ndarray:
    """The pixels of an image file.

    Raises:
        DataError: it is missing, truncated, no image, absurdly large, or of another kind than ``modes`` (Pillow's).
    """
    with _opened(path, modes) as image:
        return np.array(image)


@contextmanager
def _opened(path: Path, modes: tuple[str, ...]) -> Iterator[Image.Image]:
    """An image whose header has been read; whatever goes wrong with it in this context becomes a DataError."""
    try:
        with warnings.catch_warnings():
            # A decompression bomb is a warning up to twice Pillow's limit; here it is an error.
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path) as image:
                if image.mode not in modes:
                    raise DataError(f"{path}: an image of kind {image.mode}; expected {' or '.join(modes)}")
                yield image
    except DataError:
        raise
    except Exception as error:  # Pillow's decoders raise almost anything on damaged files
        raise DataError(f"{path}: cannot be read as an image ({type(error).__name__}: {error})") from error


def read_depth(path: Path, units: DepthUnits) -> tuple[tuple[int, int], Float[Tensor, "H W"]]:
    """Size and plane depth in metres of a 16-bit depth image; 0 where there is none.

    Raises:
        DataError: see ``read_image``; or less than 1 % of the pixels have a depth.
    """
    raw = read_image(path, _DEPTH).astype(np.int64)
    valid = ~np.isin(raw, units.invalid_depth) & (raw > 0) & (raw <= units.max_depth * units.depth_scale)
    if valid.mean() < 0.01:
        raise DataError(f"{path}: only {valid.mean():.2%} of the pixels have a depth up to {units.max_depth:g} m")
    metres = np.where(valid, raw / units.depth_scale, 0).astype(np.float32)
    return (raw.shape[0], raw.shape[1]), torch.from_numpy(metres)


def read_colour(
    frame: Frame, depth_size: tuple[int, int], size: tuple[int, int]
) -> tuple[tuple[int, int], UInt8[Tensor, "H W 3"]]:
    """Size of the colour image in its file, and the image as the depth camera would see it, at ``size``.

    Where one set of intrinsics serves both cameras, scaled to their image sizes, this is a resize. Where they differ,
    each depth pixel looks up the colour pixel in the same direction (the offset between the two cameras is not known
    here).

    Raises:
        DataError: see ``read_image``.
    """
    with_alpha = read_image(frame.colour, _COLOUR)
    pixels = np.repeat(with_alpha[..., None], 3, axis=2) if with_alpha.ndim == 2 else with_alpha[..., :3]
    colour_size = (pixels.shape[0], pixels.shape[1])
    grid = _colour_grid(frame, colour_size, depth_size, size)
    if grid is None:
        resized = Image.fromarray(pixels).resize((size[1], size[0]), Image.Resampling.BOX)
        return colour_size, torch.from_numpy(np.array(resized))
    # Average first where the colour image is much finer, so that sampling does not alias.
    shrink = max(1, int(min(colour_size[0] / size[0], colour_size[1] / size[1])))
    image = torch.from_numpy(pixels).permute(2, 0, 1).to(torch.float32)[None]
    image = F.avg_pool2d(image, shrink) if shrink > 1 else image
    sampled = F.grid_sample(image, grid, align_corners=False, padding_mode="border")
    return colour_size, sampled[0].permute(1, 2, 0).round().clamp(0, 255).to(torch.uint8).contiguous()


def read_labels(
    frame: Frame, rows: dict[int, int], colour_size: tuple[int, int], depth_size: tuple[int, int], size: tuple[int, int]
) -> Int[Tensor, "H W"] | None:
    """Class of each pixel as the depth camera would see it, at ``size``, by nearest neighbour; None without labels.

    Labels belong to the colour image, which is what annotators look at, unless they have the size of the depth image
    and the colour image has another. Values that are no class, and pixels that the labels do not reach, become -1.

    Raises:
        DataError: see ``read_image``.
    """
    if frame.label is None:
        return None
    raw = read_image(frame.label, _LABEL).astype(np.int64)
    top = max([*rows, int(raw.max())], default=0)
    table = np.full(top + 1, -1, dtype=np.int64)
    for value, row in rows.items():
        table[value] = row
    labels = torch.from_numpy(table[np.clip(raw, 0, top)])[None, None].to(torch.float32)
    grid = None if raw.shape == depth_size != colour_size else _colour_grid(frame, colour_size, depth_size, size)
    if grid is None:
        at_size = F.interpolate(labels, size=size, mode="nearest-exact")
    else:  # sampling puts 0 outside: there the labels are moved by one meanwhile
        at_size = F.grid_sample(labels + 1, grid, mode="nearest", align_corners=False) - 1
    return at_size[0, 0].to(torch.int16)


def intrinsics_at(
    frame: Frame, colour_size: tuple[int, int], depth_size: tuple[int, int], size: tuple[int, int]
) -> Float[Tensor, "3 3"]:
    """The depth camera's intrinsics for images of ``size``; the image's outer edges stay in place."""
    if frame.depth_intrinsics is not None:
        matrix, old = frame.depth_intrinsics, depth_size
    else:
        assert frame.colour_intrinsics is not None
        matrix, old = frame.colour_intrinsics, colour_size
    out = torch.from_numpy(matrix).to(torch.float32).clone()
    for row, ratio in ((0, size[1] / old[1]), (1, size[0] / old[0])):
        centre = (out[row, 2] + 0.5) * ratio - 0.5
        out[row, :2] *= ratio
        out[row, 2] = centre
    return out


def _colour_grid(
    frame: Frame, colour_size: tuple[int, int], depth_size: tuple[int, int], size: tuple[int, int]
) -> Float[Tensor, "1 H W 2"] | None:
    """Where in the colour image, from -1 to 1 across it (as ``grid_sample`` wants it), the pixels of the depth camera
    at ``size`` look; None if both cameras see the same."""
    if frame.colour_intrinsics is None or frame.depth_intrinsics is None:
        return None
    v, u = np.meshgrid(
        *[(np.arange(n) + 0.5) * o / n - 0.5 for n, o in zip(size, depth_size, strict=True)], indexing="ij"
    )
    homography = frame.colour_intrinsics @ np.linalg.inv(frame.depth_intrinsics)
    x, y, z = np.einsum("ij,jhw->ihw", homography, np.stack([u, v, np.ones_like(u)]))
    where = np.stack([(x / z + 0.5) / colour_size[1], (y / z + 0.5) / colour_size[0]], axis=-1) * 2 - 1
    return torch.from_numpy(where).to(torch.float32)[None]
