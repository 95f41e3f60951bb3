"""What a cheap RGB-D camera makes of a perfect image: exposure, noise, rounding and holes.

Depth noise grows with the square of the distance, as it does for a camera that triangulates (Khoshelham and Elberink,
"Accuracy and resolution of Kinect depth data", 2012, find about 1.4 mm at 1 m).
"""

import functools
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, UInt8, UInt16

from ponder3d.config import Config

HOLE_BLOCK = 3
"""Holes on bad materials come in blots of this many pixels."""

_GAMMA_STEPS = 4096


@dataclass(frozen=True)
class SensorConfig(Config):
    """How much worse than perfect the cameras are; all zero for perfect ones."""

    depth_noise: float = 0.0015
    """Standard deviation of depth in metres at a distance of 1 m; grows with its square."""
    holes: float = 1.0
    """Scale of every probability that a pixel has no depth; 0 also switches the range limits off."""
    colour_noise: float = 0.012
    """Standard deviation of colour where 1 is full scale."""
    exposure: float = 0.2
    """Largest relative change of exposure between views."""
    white_balance: float = 0.06
    """Largest relative change of a colour channel between views."""
    near: float = 0.4
    """Metres below which there is no depth."""
    far: float = 8.0
    """Metres beyond which there is no depth."""

    def __post_init__(self):
        for name in ("depth_noise", "holes", "colour_noise", "exposure", "white_balance", "near"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"SensorConfig.{name} must not be negative, it is {getattr(self, name)}")
        if not self.near < self.far <= 65:
            raise ValueError(f"SensorConfig.far must lie between near ({self.near}) and 65 m, it is {self.far}")


def colour_image(
    linear: Float32[np.ndarray, "3 H W"], config: SensorConfig, rng: np.random.Generator
) -> UInt8[np.ndarray, "H W 3"]:
    """Linear RGB to sRGB bytes: automatic exposure, white balance, vignetting, noise."""
    _, height, width = linear.shape
    # Exposed for the 80th percentile, of every 7th pixel: a window or a lamp may burn out, a dark corner stays dark.
    white = float(np.percentile(linear[1].reshape(-1)[::7], 80)) + 1e-3
    gain = 0.6 / white * (1 + config.exposure * rng.uniform(-1, 1))
    balance = gain * (1 + config.white_balance * rng.uniform(-1, 1, (3, 1, 1)))
    v = (np.arange(height, dtype=np.float32)[:, None] / height - 0.5) ** 2
    u = (np.arange(width, dtype=np.float32) / width - 0.5) ** 2
    falloff = balance.astype(np.float32) * (1 - np.float32(0.5) * (u + v))
    steps = np.minimum(linear * falloff, 1) * np.float32(_GAMMA_STEPS - 1)
    srgb = np.take(_gamma_table(), steps.astype(np.int32))
    if config.colour_noise:
        srgb = srgb + np.float32(config.colour_noise * 255) * rng.standard_normal(srgb.shape, dtype=np.float32)
    return np.ascontiguousarray(np.clip(srgb + np.float32(0.5), 0, 255).astype(np.uint8).transpose(1, 2, 0))


def depth_image(
    depth: Float32[np.ndarray, "H W"],
    facing: Float32[np.ndarray, "H W"],
    dropout: Float32[np.ndarray, "H W"],
    config: SensorConfig,
    rng: np.random.Generator,
) -> UInt16[np.ndarray, "H W"]:
    """Plane depth in millimetres, 0 for none.

    Args:
        depth: true plane depth in metres, infinite where nothing is seen.
        facing: cosine between the ray and the surface's normal; depth is lost where it is small.
        dropout: probability that the material returns nothing.
        config: strength of everything.
        rng: source of the noise.
    """
    height, width = depth.shape
    lost = ~np.isfinite(depth)
    depth = np.where(lost, np.float32(0), depth)
    if config.holes:
        coarse = rng.random((height // HOLE_BLOCK + 1, width // HOLE_BLOCK + 1), dtype=np.float32)
        blots = np.repeat(np.repeat(coarse, HOLE_BLOCK, 0), HOLE_BLOCK, 1)[:height, :width]
        chance = rng.random((height, width), dtype=np.float32)
        grazing = np.clip((np.float32(0.2) - np.abs(facing)) * 5, 0, 1)
        lost |= blots < np.float32(config.holes) * dropout
        lost |= chance < np.float32(config.holes) * (0.9 * grazing + 0.7 * _is_behind_edge(depth) + 0.003)
        lost |= (depth < config.near) | (depth > config.far)
    if config.depth_noise:
        noise = rng.standard_normal(depth.shape, dtype=np.float32)
        depth = depth + np.float32(config.depth_noise) * depth * depth * noise
    return np.where(lost, 0, np.clip(np.rint(depth * 1000), 0, 65535)).astype(np.uint16)


def _is_behind_edge(depth):
    """Pixels next to one that is nearer by 4 cm plus 3 %: a triangulating camera's second eye cannot see them."""
    limit = depth * np.float32(0.97) - np.float32(0.04)
    behind = np.zeros(depth.shape, bool)
    behind[:, 1:] |= depth[:, :-1] < limit[:, 1:]
    behind[:, :-1] |= depth[:, 1:] < limit[:, :-1]
    behind[1:] |= depth[:-1] < limit[1:]
    behind[:-1] |= depth[1:] < limit[:-1]
    return behind


@functools.cache
def _gamma_table():
    return (np.linspace(0, 1, _GAMMA_STEPS) ** (1 / 2.2) * 255).astype(np.float32)
