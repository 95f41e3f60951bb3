"""Posed images."""

from dataclasses import dataclass

from jaxtyping import Float, Int, UInt8
from torch import Tensor


@dataclass(frozen=True)
class Cameras:
    """Pinhole cameras of V views with one image size.

    Convention: OpenCV axes (x right, y down, z forward); pixel (u, v) with integer coordinates is a pixel's CENTRE, so
    the image spans u in [-0.5, W - 0.5]. ``world_from_cam @ [x y z 1]`` takes camera coordinates to the world. Its 3x3
    block is orthonormal; its determinant is -1 after the scene was mirrored.
    """

    intrinsics: Float[Tensor, "V 3 3"]
    world_from_cam: Float[Tensor, "V 4 4"]
    size: tuple[int, int]
    """Height and width in pixels."""

    def __len__(self) -> int:
        return len(self.intrinsics)


@dataclass(frozen=True)
class Views:
    """Posed images of one scene, or of a batch of scenes when ``counts`` has more than one entry."""

    cameras: Cameras
    rgb: UInt8[Tensor, "V H W 3"]
    """sRGB in 0..255."""
    depth: Float[Tensor, "V H W"] | None
    """Plane depth (along the camera's z axis) in metres; 0 where there is none."""
    labels: Int[Tensor, "V H W"] | None
    """Class of each pixel; negative where there is none."""
    counts: Int[Tensor, " B"]
    """Number of views of each scene."""
    instances: Int[Tensor, "V H W"] | None = None
    """Instance number of each pixel within its scene; -1 where there is none."""
    names: tuple[str, ...] = ()
    """What each view is called (its file's name, say), the same every time, no two alike within a scene or recording:
    for messages, and to find what is kept of an image elsewhere."""
