"""Colour, depth and labels of an RGB-D camera as images of one pinhole camera."""

import numpy as np
import torch
import torch.nn.functional as F

from ponder3d.data.raw.dataset import RawFrame
from ponder3d.data.rgbd_images import Matrices, fitted_size, seen_colour, seen_intrinsics, seen_labels


def aligned(
    name: str,
    world_from_cam: np.ndarray,
    rgb: np.ndarray,
    depth: np.ndarray,
    matrices: Matrices,
    max_side: int = 0,
    labels: np.ndarray | None = None,
    instances: np.ndarray | None = None,
    no_label: int = 0,
    size: tuple[int, int] | None = None,
) -> RawFrame:
    """A frame as its depth camera sees it.

    Args:
        name: of the frame.
        world_from_cam: [4 4] pose of the depth camera.
        rgb: [H W 3] uint8, of any size.
        depth: [H W] float32 metres, 0 where there is none.
        matrices: intrinsics of the colour and the depth image at their own sizes.
        max_side: images are made smaller until their longer side is at most this; 0 keeps the size of the depth image.
        labels: [H W] raw ids, of the size of either image.
        instances: [H W], likewise.
        no_label: the raw id that means "none", for pixels that the labels do not reach.
        size: (height, width) of the images, whatever ``max_side`` says.
    """
    depth_size = (depth.shape[0], depth.shape[1])
    colour_size = (rgb.shape[0], rgb.shape[1])
    size = size or fitted_size(depth_size, max_side)

    def at_size(image: np.ndarray | None, nothing: int) -> np.ndarray | None:
        if image is None:
            return None
        return seen_labels(image, matrices, colour_size, depth_size, size, nothing).numpy().astype(np.int32)

    small = F.interpolate(torch.from_numpy(depth)[None, None], size=size, mode="nearest-exact")[0, 0]
    return RawFrame(
        name=name,
        intrinsics=seen_intrinsics(matrices, colour_size, depth_size, size),
        world_from_cam=world_from_cam.astype(np.float64),
        rgb=seen_colour(rgb, matrices, depth_size, size).numpy(),
        depth=small.numpy(),
        labels=at_size(labels, no_label),
        instances=at_size(instances, -1),
    )
