"""Reading the images of posed RGB-D frames. Whatever is wrong with a file comes out as one DataError that names it."""

import warnings
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


def read_image(path: Path, modes: tuple[str, ...]) -> np.ndarray:
    """The pixels of an image file.

    Raises:
        DataError: it is missing, truncated, no image, absurdly large, or of another kind than ``modes`` (Pillow's).
    """
    try:
        with warnings.catch_warnings():
            # A decompression bomb is a warning up to twice Pillow's limit; here it is an error.
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path) as image:
                if image.mode not in modes:
                    raise DataError(f"{path}: an image of kind {image.mode}; expected {' or '.join(modes)}")
                return np.array(image)
    except DataError:
        raise
    except Exception as error:  # Pillow's decoders raise almost anything on damaged files
        raise DataError(f"{path}: cannot be read as an image ({type(error).__name__}: {error})") from error


def read_depth(path: Path, units: DepthUnits) -> tuple[tuple[int, int], Float[Tensor, "H W"]]:
    """Size and plane depth in metres of a 16-bit depth image; 0 where there is none.

    Raises:
        DataError: see ``read_image``; or less than 1 % of the pixels have a depth.
    """
    raw = read_image(path, ("I;16", "I;16B", "I")).astype(np.int64)
    valid = ~np.isin(raw, units.invalid_depth) & (raw > 0) & (raw <= units.max_depth * units.depth_scale)
    if valid.mean() < 0.01:
        raise DataError(f"{path}: only {valid.mean():.2%} of the pixels have a depth up to {units.max_depth:g} m")
    metres = np.where(valid, raw / units.depth_scale, 0).astype(np.float32)
    return (raw.shape[0], raw.shape[1]), torch.from_numpy(metres)


def read_colour(
    frame: Frame, depth_size: tuple[int, int], size: tuple[int, int]
) -> tuple[tuple[int, int], UInt8[Tensor, "H W 3"]]:
    """Size of the colour image in its file, and the image as the depth camera would see it, at ``size``.

    Where both cameras share their intrinsics, scaled to their image sizes, this is a resize. Where they differ, each
    depth pixel looks up the colour pixel in the same direction (the offset between the two cameras is not known here).

    Raises:
        DataError: see ``read_image``.
    """
    with_alpha = read_image(frame.colour, ("RGB", "RGBA", "L"))
    pixels = np.repeat(with_alpha[..., None], 3, axis=2) if with_alpha.ndim == 2 else with_alpha[..., :3]
    colour_size = (pixels.shape[0], pixels.shape[1])
    if frame.colour_intrinsics is frame.depth_intrinsics:
        resized = Image.fromarray(pixels).resize((size[1], size[0]), Image.Resampling.BOX)
        return colour_size, torch.from_numpy(np.array(resized))
    v, u = np.meshgrid(
        *[(np.arange(n) + 0.5) * o / n - 0.5 for n, o in zip(size, depth_size, strict=True)], indexing="ij"
    )
    homography = frame.colour_intrinsics @ np.linalg.inv(frame.depth_intrinsics)
    x, y, z = np.einsum("ij,jhw->ihw", homography, np.stack([u, v, np.ones_like(u)]))
    where = np.stack([(x / z + 0.5) / colour_size[1], (y / z + 0.5) / colour_size[0]], axis=-1) * 2 - 1
    # Average first where the colour image is much finer, so that sampling does not alias.
    shrink = max(1, int(min(colour_size[0] / size[0], colour_size[1] / size[1])))
    image = torch.from_numpy(pixels).permute(2, 0, 1).to(torch.float32)[None]
    image = F.avg_pool2d(image, shrink) if shrink > 1 else image
    grid = torch.from_numpy(where).to(torch.float32)[None]
    sampled = F.grid_sample(image, grid, align_corners=False, padding_mode="border")
    return colour_size, sampled[0].permute(1, 2, 0).round().clamp(0, 255).to(torch.uint8).contiguous()


def read_labels(path: Path, rows: dict[int, int], size: tuple[int, int]) -> Int[Tensor, "H W"]:
    """Class of each pixel at ``size`` by nearest neighbour; values that are no class become -1.

    Raises:
        DataError: see ``read_image``.
    """
    raw = read_image(path, ("L", "P", "I;16", "I")).astype(np.int64)
    top = max([*rows, int(raw.max())], default=0)
    table = np.full(top + 1, -1, dtype=np.int64)
    for value, row in rows.items():
        table[value] = row
    labels = torch.from_numpy(table[np.clip(raw, 0, top)])
    return F.interpolate(labels[None, None].to(torch.float32), size=size, mode="nearest-exact")[0, 0].to(torch.int16)
