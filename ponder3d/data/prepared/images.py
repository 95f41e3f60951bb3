"""Images of prepared scenes, from bytes whose checksum was verified; at most as large as they are wanted."""

import io
import warnings
from collections.abc import Callable

import numpy as np
from PIL import Image

from ponder3d.data.dataset import DataError
from ponder3d.data.faults import raise_if_of_machine

_NUMBERS = ("I;16", "I;16B", "I")


def read_colour(data: bytes, where: str, old: tuple[int, int], size: tuple[int, int]) -> np.ndarray:
    """A colour image, averaged down to a size.

    Args:
        data: a JPEG file.
        where: what it is, for messages.
        old: its (height, width).
        size: the wanted one, not larger.

    Returns:
        [H W 3] uint8.

    Raises:
        DataError: it is no such image.
    """

    def decode(image: Image.Image) -> Image.Image:
        # JPEG stores blocks of 8x8 frequencies: leaving out the high ones gives a half, quarter or eighth of the size
        # at a fraction of the time. Only where nothing is left over at the edges: the camera stays the same.
        for factor in (8, 4, 2):
            if all(o % factor == 0 and o // factor >= s for o, s in zip(old, size, strict=True)):
                image.draft("RGB", (old[1] // factor, old[0] // factor))
                break
        pixels = image if image.mode == "RGB" else image.convert("RGB")
        return pixels.resize((size[1], size[0]), Image.Resampling.BOX) if old != size else pixels

    return _read(data, where, old, ("RGB", "L"), decode)


def read_numbers(data: bytes, where: str, old: tuple[int, int], size: tuple[int, int]) -> np.ndarray:
    """An image of 16-bit numbers, by nearest neighbour at another size; arguments as in ``read_colour``.

    Returns:
        [H W] uint16.

    Raises:
        DataError: it is no such image.
    """
    pixels = _read(data, where, old, _NUMBERS, lambda image: image)
    if old != size:
        v, u = ((2 * np.arange(n) + 1) * o // (2 * n) for n, o in zip(size, old, strict=True))
        pixels = pixels[v[:, None], u]
    return pixels.astype(np.uint16)


def _read(
    data: bytes,
    where: str,
    size: tuple[int, int],
    modes: tuple[str, ...],
    decode: Callable[[Image.Image], Image.Image],
) -> np.ndarray:
    try:
        with warnings.catch_warnings():
            # A decompression bomb is a warning up to twice Pillow's limit; here it is an error.
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(data), formats=("JPEG", "PNG")) as image:
                if image.mode not in modes or (image.height, image.width) != size:
                    raise DataError(
                        f"{where}: an image of kind {image.mode}, {image.width}x{image.height}; expected "
                        f"{' or '.join(modes)}, {size[1]}x{size[0]}"
                    )
                return np.array(decode(image))
    except DataError:
        raise
    except Exception as error:  # Pillow's decoders raise almost anything on damaged files
        raise_if_of_machine(error, where)
        raise DataError(f"{where}: cannot be read as an image ({type(error).__name__}: {error})") from error
