"""A confusion matrix to look at."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from ponder3d.types import LabelSet

_LARGE, _SMALL = (44, 13), (15, 11)
"""Edge of a cell and height of the font in pixels; up to ``_FEW`` classes there is a number in each cell."""
_FEW = 40
_LONGEST = 28
"""Characters of a name that are shown."""
_ABSENT, _INK, _PALE = (226, 226, 226), (34, 34, 34), (150, 150, 150)
_GAP = 8
"""Pixels between parts."""

Font = ImageFont.ImageFont | ImageFont.FreeTypeFont


def confusion_picture(matrix: Float[Tensor, "K K"], labels: LabelSet) -> UInt8[Tensor, "H W 3"]:
    """Rows are true classes, columns predicted ones; a cell is the percentage of the points of its row.

    The row of a class that is not in the truth has no shares: it is grey, its name pale, and a line below lists all of
    them. Zeros have no number.

    Args:
        matrix: numbers of points by (true class, predicted class).
        labels: the classes.
    """
    num = len(labels)
    cell, height = _LARGE if num <= _FEW else _SMALL
    font = ImageFont.load_default(size=height)
    names = [name if len(name) <= _LONGEST else f"{name[: _LONGEST - 2]}.." for name in labels.names]
    total = matrix.sum(1)
    share = (matrix / total.clamp(min=1)[:, None]).tolist()
    present = (total > 0).tolist()
    margin = max((int(font.getlength(name)) for name in names), default=0) + 2 * _GAP
    absent = [name for name, there in zip(labels.names, present, strict=True) if not there]
    title = "true class (row) and predicted class (column), % of the row's points"
    width = max(margin + num * cell + _GAP, int(font.getlength(title)) + 2 * _GAP)
    notes = _wrapped([title, *([f"not in the truth (grey): {', '.join(absent)}"] if absent else [])], font, width)
    line = height + 5
    image = Image.new("RGB", (width, margin + num * cell + _GAP + line * len(notes) + _GAP), (255, 255, 255))
    draw = ImageDraw.Draw(image)
    for i, name in enumerate(names):
        middle = margin + i * cell + cell // 2
        draw.text((margin - _GAP, middle), name, _INK if present[i] else _PALE, font, anchor="rm")
        _upwards(image, name, (middle, margin - _GAP), font)
    for i, row in enumerate(share):
        for j, value in enumerate(row):
            x, y = margin + j * cell, margin + i * cell
            fill = _shade(value, i == j) if present[i] else _ABSENT
            draw.rectangle((x, y, x + cell - 2, y + cell - 2), fill)
            if present[i] and value > 0 and num <= _FEW:
                text = f"{100 * value:.0f}" if value >= 0.005 else "<1"
                ink = (255, 255, 255) if value > 0.55 else _INK
                draw.text((x + cell / 2 - 1, y + cell / 2 - 1), text, ink, font, anchor="mm")
    for number, text in enumerate(notes):
        draw.text((_GAP, margin + num * cell + _GAP + line * number), text, _INK, font)
    return torch.from_numpy(np.asarray(image).copy())


def _shade(value: float, right: bool) -> tuple[int, int, int]:
    """From almost white to blue on the diagonal, to red elsewhere; the root tells small shares from none."""
    full = (24, 78, 150) if right else (178, 40, 30)
    depth = value**0.5
    return tuple(round(247 + depth * (channel - 247)) for channel in full)  # type: ignore[return-value]


def _upwards(image: Image.Image, name: str, foot: tuple[int, int], font: Font) -> None:
    """A name turned by 90 degrees that begins at ``foot`` and reads upwards."""
    _, _, right, bottom = font.getbbox(name)
    text = Image.new("RGB", (max(1, int(right)), int(bottom) + 2), (255, 255, 255))
    ImageDraw.Draw(text).text((0, 0), name, _INK, font)
    turned = text.rotate(90, expand=True)
    image.paste(turned, (foot[0] - turned.width // 2, foot[1] - turned.height))


def _wrapped(texts: Sequence[str], font: Font, width: int) -> list[str]:
    """Lines that are no wider than the picture, broken between words."""
    lines = []
    for text in texts:
        lines.append("")
        for word in text.split(" "):
            longer = f"{lines[-1]} {word}".strip()
            if lines[-1] and font.getlength(longer) > width - 2 * _GAP:
                lines.append(word)
            else:
                lines[-1] = longer
    return lines
