"""Hue, saturation and value (the hexagonal model), and red, green and blue; in linear or sRGB alike."""

import numpy as np
from jaxtyping import Float


def rgb_from_hsv(hsv: Float[np.ndarray, "N 3"]) -> Float[np.ndarray, "N 3"]:
    """Hue, saturation and value in [0, 1] to red, green and blue in [0, 1]."""
    shade = (np.array([5.0, 3.0, 1.0]) + hsv[:, :1] * 6) % 6
    return hsv[:, 2:] * (1 - hsv[:, 1:2] * np.clip(np.minimum(shade, 4 - shade), 0, 1))


def hsv_from_rgb(rgb: Float[np.ndarray, "N 3"]) -> Float[np.ndarray, "N 3"]:
    """Red, green and blue in [0, 1] to hue, saturation and value in [0, 1]; the hue of a grey is 0."""
    largest, value = rgb.argmax(1), rgb.max(1)
    chroma = value - rgb.min(1)
    rows = np.arange(len(rgb))
    # In sixths of the wheel: 0 is red, 2 green, 4 blue.
    sixths = 2 * largest + (rgb[rows, (largest + 1) % 3] - rgb[rows, (largest + 2) % 3]) / np.maximum(chroma, 1e-9)
    hue = np.where(chroma > 0, sixths / 6 % 1, 0)
    return np.stack([hue, chroma / np.maximum(value, 1e-9), value], axis=1)
