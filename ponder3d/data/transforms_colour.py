"""Transforms of what a point carries: its colour, whether there is any, and its label."""

import zlib
from dataclasses import dataclass, replace

import torch
from torch import Generator, Tensor

from ponder3d.data.hsv import hsv_from_rgb, rgb_from_hsv
from ponder3d.data.transforms_base import Transform
from ponder3d.geometry import keyed
from ponder3d.types import Scene
from ponder3d.types.scene import extent


@dataclass(frozen=True)
class AutoContrast(Transform):
    """Stretch each colour channel of the points to [0, 1], blended with the original by a random share."""

    probability: float = 0.2
    """Probability that the colours of a scene are stretched."""

    def __call__(self, scene: Scene, generator: Generator) -> Scene:
        chance, blend = torch.rand(2, generator=generator).tolist()
        if scene.rgb is None or len(scene.rgb) == 0 or chance >= self.probability:
            return scene
        lo, hi = extent(scene.rgb)
        stretched = (scene.rgb - lo) / (hi - lo).clamp(min=1e-6)
        return replace(scene, rgb=(1 - blend) * scene.rgb + blend * stretched)


@dataclass(frozen=True)
class ShiftColour(Transform):
    """Shift the colour of all points by one random amount per channel."""

    probability: float = 0.95
    """Probability that the colours of a scene are shifted."""
    ratio: float = 0.05
    """Largest shift, as a share of the full range."""

    def __call__(self, scene: Scene, generator: Generator) -> Scene:
        chance, *shift = torch.rand(4, generator=generator).tolist()
        if scene.rgb is None or chance >= self.probability:
            return scene
        return replace(scene, rgb=(scene.rgb + (torch.tensor(shift) * 2 - 1) * self.ratio).clamp(0, 1))


@dataclass(frozen=True)
class JitterColour(Transform):
    """Add Gaussian noise to the colour of each point."""

    probability: float = 0.95
    """Probability that the colours of a scene get noise."""
    std: float = 0.05
    """Standard deviation of each channel, where 1 is full scale."""

    def __call__(self, scene: Scene, generator: Generator) -> Scene:
        if scene.rgb is None or float(torch.rand((), generator=generator)) >= self.probability:
            return scene
        noise = torch.randn(scene.rgb.shape, generator=generator) * self.std
        return replace(scene, rgb=(scene.rgb + noise).clamp(0, 1))


@dataclass(frozen=True)
class VaryColour(Transform):
    """Change brightness, contrast, saturation and hue of the whole cloud, one after the other in random order.

    Photographers' terms as image augmentation has them: factors on the colours, on their difference from the mean
    luminance of the cloud, and on that from each point's own; hue is turned around the colour wheel. Colours stay in
    [0, 1]. Numbers are those of Masked Scene Contrast's released configuration.
    """

    probability: float = 0.8
    """Probability of each of the four changes."""
    brightness: float = 0.4
    """The factor lies within 1 -+ this."""
    contrast: float = 0.4
    """The factor lies within 1 -+ this."""
    saturation: float = 0.2
    """The factor lies within 1 -+ this."""
    hue: float = 0.02
    """Largest turn of the colour wheel, as a share of all of it."""

    def __post_init__(self):
        for name, most in (("brightness", 1.0), ("contrast", 1.0), ("saturation", 1.0), ("hue", 0.5)):
            if not 0 <= getattr(self, name) <= most:
                raise ValueError(f"VaryColour.{name} must lie in [0, {most:g}], it is {getattr(self, name)}")

    def __call__(self, scene: Scene, generator: Generator) -> Scene:
        chances, draws = torch.rand(2, 4, generator=generator).tolist()
        order = torch.randperm(4, generator=generator).tolist()
        if scene.rgb is None or len(scene.rgb) == 0:
            return scene
        ranges = (self.brightness, self.contrast, self.saturation, self.hue)
        rgb = scene.rgb
        for which in order:
            amount = (2 * draws[which] - 1) * ranges[which]
            if chances[which] >= self.probability:
                continue
            if which == 3:
                rgb = _turned_hue(rgb, amount)
                continue
            grey = (rgb @ rgb.new_tensor(_LUMINANCE))[:, None]
            centre = (torch.zeros(1), grey.mean(), grey)[which]
            rgb = (centre + (1 + amount) * (rgb - centre)).clamp(0, 1)
        return replace(scene, rgb=rgb)


_LUMINANCE = (0.299, 0.587, 0.114)
"""Of red, green and blue (ITU-R BT.601)."""


def _turned_hue(rgb: Tensor, turn: float) -> Tensor:
    """Colours (N, 3) with another hue, of the same saturation and value."""
    hsv = hsv_from_rgb(rgb.numpy())
    hsv[:, 0] = (hsv[:, 0] + turn) % 1
    return torch.from_numpy(rgb_from_hsv(hsv)).to(rgb.dtype)


@dataclass(frozen=True)
class DropModality(Transform):
    """Forget the colour, the normals, or the intensities of the whole cloud; the encoder learns to live without them.

    The images keep their colour: an encoder that sees bare geometry is still asked to render it.
    """

    colour: float = 0.2
    """Probability of losing the colour."""
    normal: float = 0.2
    """Probability of losing the normals."""
    intensity: float = 0.0
    """Probability of losing the intensities of a laser's echoes."""

    def __call__(self, scene: Scene, generator: Generator) -> Scene:
        colour, normal = (torch.rand(2, generator=generator) < torch.tensor([self.colour, self.normal])).tolist()
        intensity = self.intensity > 0 and float(torch.rand((), generator=generator)) < self.intensity
        return replace(
            scene,
            rgb=None if colour else scene.rgb,
            normal=None if normal else scene.normal,
            intensity=None if intensity else scene.intensity,
        )

    @property
    def inputs(self) -> tuple[str, ...]:
        """Those that are sometimes forgotten, by their names in ``types.scene.INPUT_CHANNELS``."""
        shares = {"rgb": self.colour, "normal": self.normal, "intensity": self.intensity}
        return tuple(name for name, share in shares.items() if share > 0)


@dataclass(frozen=True)
class LimitLabels(Transform):
    """Keep the labels of a few random points of each scene, always the same ones: limited annotations."""

    points: int = 20
    """Labelled points per scene."""
    seed: int = 0
    """Draws other points for other seeds."""

    def __call__(self, scene: Scene, generator: Generator) -> Scene:
        if scene.labels is None:
            raise ValueError(f"LimitLabels: {scene.source} has no point labels")
        labelled = (scene.labels >= 0).nonzero()[:, 0]
        own = keyed.generator(self.seed, zlib.crc32(scene.source.encode()))
        keep = labelled[torch.randperm(len(labelled), generator=own)[: self.points]]
        labels = torch.full_like(scene.labels, -1)
        labels[keep] = scene.labels[keep]
        return replace(scene, labels=labels)
