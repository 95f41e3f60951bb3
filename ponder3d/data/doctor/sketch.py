"""What the doctor keeps of a frame: small images, and a few numbers of the large ones."""

import hashlib
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from PIL import Image

from ponder3d.data.raw.dataset import RawFrame
from ponder3d.data.rgbd_images import fitted_size, seen_intrinsics

SIDE = 80
"""Longer side of the small images, in pixels: surfaces of two views can be compared, and a frame takes 50 kB."""
_FLAT = 16
"""Colours of a drawing; a photograph of 80x60 pixels has thousands."""
_EVEN = 0.2
"""Share of adjacent pixels of one colour in a drawing that JPEG has given more; photographs have 0.1 at most."""
EDGE = 1.2
"""Depths of adjacent small pixels that differ by more than this factor lie on two surfaces."""


@dataclass(frozen=True, eq=False)
class Sketch:
    """A frame at a small size."""

    name: str
    size: tuple[int, int]
    """Height and width of the frame in pixels."""
    full_intrinsics: np.ndarray
    """[3 3], for that size."""
    world_from_cam: np.ndarray
    """[4 4] float64."""
    intrinsics: np.ndarray
    """[3 3], for the small images."""
    rgb: np.ndarray
    """[h w 3] uint8."""
    depth: np.ndarray | None
    """[h w] float64 metres, 0 where there is none."""
    labels: np.ndarray | None
    """[h w] int32, raw ids."""
    depth_share: float
    """Of the frame's pixels that have a depth; NaN without a depth image."""
    median_depth: float
    """Metres; NaN without depth."""
    depth_values: int
    """How many different depths the small image has."""
    is_grey: bool
    is_blank: bool
    """The colour image has one colour."""
    is_painted: bool
    """The colour image has few flat colours, as drawings have: such images may be equal without being copies."""
    image_key: bytes
    """Equal for identical colour images."""
    depth_key: bytes
    """Equal for identical depth images; empty without."""

    @cached_property
    def points(self) -> np.ndarray:
        """[h w 3] camera coordinates of the pixels, in metres; z is 0 where there is no depth."""
        assert self.depth is not None
        v, u = np.indices(self.depth.shape)
        rays = np.stack([u, v, np.ones_like(u)], axis=-1) @ np.linalg.inv(self.intrinsics).T
        return rays * self.depth[..., None]

    @cached_property
    def inverse_depth(self) -> np.ndarray:
        """[h w]: 1 / depth, which is linear in the pixel on a plane; NaN where there is none."""
        assert self.depth is not None
        return np.where(self.depth > 0, 1 / np.maximum(self.depth, 1e-9), np.nan)

    @cached_property
    def cells(self) -> np.ndarray:
        """[h-1 w-1] whether the four pixels around a cell lie on one surface."""
        assert self.depth is not None
        d = self.depth
        corners = np.stack([d[:-1, :-1], d[:-1, 1:], d[1:, :-1], d[1:, 1:]])
        return (corners.min(0) > 0) & (corners.max(0) < EDGE * corners.min(0))

    @cached_property
    def solid(self) -> np.ndarray:
        """Flat numbers of the pixels whose surroundings lie on one surface: depth at edges is the least certain."""
        cells = np.pad(self.cells, 1)
        return np.flatnonzero(cells[:-1, :-1] & cells[:-1, 1:] & cells[1:, :-1] & cells[1:, 1:])


def sketch(frame: RawFrame) -> Sketch:
    """The small version of a frame that ``frame_problem`` finds usable."""
    size = (frame.rgb.shape[0], frame.rgb.shape[1])
    small = fitted_size(size, SIDE)
    # Pixels of the large image under the centres of the small one's.
    rows, columns = (((np.arange(s) + 0.5) * n / s).astype(np.int64) for s, n in zip(small, size, strict=True))
    at = np.ix_(rows, columns)
    rgb = np.ascontiguousarray(frame.rgb)
    depth = None if frame.depth is None else frame.depth[at].astype(np.float64)
    measured = frame.depth[frame.depth > 0] if frame.depth is not None else np.zeros(0)
    resized = (
        rgb if small == size else np.array(Image.fromarray(rgb).resize((small[1], small[0]), Image.Resampling.BOX))
    )
    return Sketch(
        name=frame.name,
        size=size,
        full_intrinsics=frame.intrinsics,
        world_from_cam=frame.world_from_cam.astype(np.float64),
        intrinsics=seen_intrinsics((frame.intrinsics, None), size, size, small),
        rgb=resized,
        depth=depth,
        labels=None if frame.labels is None else frame.labels[at],
        depth_share=float("nan") if frame.depth is None else len(measured) / frame.depth.size,
        median_depth=float(np.median(measured[:: max(1, len(measured) // 10_000)])) if len(measured) else float("nan"),
        depth_values=0 if depth is None else len(np.unique(depth)),
        is_grey=bool((np.ptp(resized, axis=2) <= 2).all()),
        is_blank=bool((resized.reshape(-1, 3).std(axis=0) < 1).all()),
        is_painted=_is_painted(resized),
        image_key=_key(rgb),
        depth_key=b"" if frame.depth is None else _key(frame.depth),
    )


def _is_painted(rgb: np.ndarray) -> bool:
    if len(np.unique(rgb.reshape(-1, 3), axis=0)) <= _FLAT:
        return True
    return bool((rgb[:, 1:] == rgb[:, :-1]).all(2).mean() > _EVEN)


def _key(image: np.ndarray) -> bytes:
    return hashlib.blake2b(np.ascontiguousarray(image).tobytes(), digest_size=16).digest()
