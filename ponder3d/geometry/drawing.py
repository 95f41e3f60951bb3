"""Small pictures of geometry as tensors: depth in colours, points from above. No plotting library."""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from ponder3d.types import Boxes

_STOPS = (
    (0.19, 0.07, 0.23),
    (0.27, 0.49, 0.98),
    (0.16, 0.92, 0.65),
    (0.81, 0.90, 0.21),
    (0.98, 0.47, 0.13),
    (0.48, 0.02, 0.01),
)
"""A rainbow whose brightness rises and falls only once, dark at both ends."""
UNLABELLED = (90, 90, 90)
"""Dark grey, for what has no class."""
_HEIGHTS = (-3.0, 5.0)
"""Metres above a vehicle's laser between which heights differ in colour: from the road to what matters no more."""


def colour_scale(values: Float[Tensor, "H W"], top: float) -> UInt8[Tensor, "H W 3"]:
    """Values from 0 to ``top`` in colours, near dark blue over green to dark red; 0 and below (nothing) is black."""
    stops = torch.tensor(_STOPS, device=values.device)
    place = (values / max(top, 1e-9)).clamp(0, 1) * (len(stops) - 1)
    low = place.floor().clamp(max=len(stops) - 2).to(torch.int64)
    share = (place - low)[..., None]
    rgb = stops[low] * (1 - share) + stops[low + 1] * share
    return (rgb * 255 * (values > 0)[..., None]).round().to(torch.uint8)


def normal_colours(normal: Float[Tensor, "*N 3"]) -> UInt8[Tensor, "*N 3"]:
    """Normals as colours: x, y, z from -1 to 1 become red, green, blue from 0 to 255; no normal (zero) is black."""
    rgb = ((normal + 1) * 127.5).round().clamp(0, 255)
    return (rgb * (normal.abs().sum(-1, keepdim=True) > 0)).to(torch.uint8)


def class_colours(labels: Int[Tensor, "*N"], palette: Sequence[tuple[int, int, int]]) -> UInt8[Tensor, "*N 3"]:
    """The colour of each class, on the CPU; dark grey where a label is negative."""
    table = torch.tensor([*palette, UNLABELLED], dtype=torch.uint8)
    return table[labels.cpu().to(torch.int64).clamp(min=-1)]  # -1 reads the last row


def top_view(
    xyz: Float[Tensor, "N 3"], rgb: UInt8[Tensor, "N 3"], size: int = 400, cut: float = 0.3
) -> UInt8[Tensor, "{size} {size} 3"]:
    """Points seen from above, x to the right and y up, the highest point of a pixel in front.

    Args:
        xyz: world points, z up.
        rgb: their colours.
        size: pixels along each side; the larger extent fills it.
        cut: metres below the top of the cloud that are left out, so that a ceiling does not hide the room.
    """
    image = torch.full((size * size, 3), 255, dtype=torch.uint8)
    if len(xyz) == 0:
        return image.view(size, size, 3)
    xyz, rgb = xyz.cpu(), rgb.cpu()
    below = xyz[:, 2] <= xyz[:, 2].max() - cut
    if bool(below.any()):
        xyz, rgb = xyz[below], rgb[below]
    lo, hi = xyz.amin(0), xyz.amax(0)
    scale = (size - 1) / float((hi - lo)[:2].max().clamp(min=1e-6))
    column = ((xyz[:, 0] - lo[0]) * scale).to(torch.int64)
    row = size - 1 - ((xyz[:, 1] - lo[1]) * scale).to(torch.int64)
    _paint(image, row * size + column, rgb, torch.argsort(xyz[:, 2], stable=True))
    return image.view(size, size, 3)


def block_view(
    xyz: Float[Tensor, "N 3"], rgb: UInt8[Tensor, "N 3"], cell: float, size: int = 400
) -> UInt8[Tensor, "H W 3"]:
    """``top_view`` with a block of pixels for each cell of ``cell`` metres; about ``size`` pixels along each side."""
    extent = float((xyz.amax(0) - xyz.amin(0))[:2].max()) if len(xyz) else 0.0
    num = min(max(round(extent / cell) + 1, 2), size)
    times = max(round(size / num), 1)
    return top_view(xyz, rgb, num).repeat_interleave(times, 0).repeat_interleave(times, 1)


def birds_eye(
    xyz: Float[Tensor, "N 3"],
    labels: Int[Tensor, " N"] | None,
    palette: Sequence[tuple[int, int, int]] = (),
    boxes: Boxes | None = None,
    extent: float = 50.0,
    size: int = 400,
    box_colour: tuple[int, int, int] = (0, 0, 0),
) -> UInt8[Tensor, "{size} {size} 3"]:
    """A street from above, around the origin: x to the right and y, forward, up; on white.

    Args:
        xyz: points, z up, metres. The highest of a pixel is in front, those with a class before those without.
        labels: their classes, dark grey if negative; None: colours of heights, see ``colour_scale``.
        palette: a colour for each class.
        boxes: their outlines are drawn over the points, with a line from the centre to the middle of the front.
        extent: metres from the origin to each edge of the picture; what is beyond is not shown.
        size: pixels along each side.
        box_colour: of the outlines.
    """
    image = torch.full((size * size, 3), 255, dtype=torch.uint8)
    xyz = xyz.cpu()
    if labels is None:
        low, high = _HEIGHTS
        heights = (xyz[:, 2] - low).clamp(min=1e-3)  # 0 would be nothing
        rgb, front = colour_scale(heights[None], high - low)[0], torch.zeros(len(xyz), dtype=torch.int64)
    else:
        rgb, front = class_colours(labels, palette), (labels.cpu() >= 0).to(torch.int64)
    pixel, shown = _pixels_from_above(xyz[:, :2], extent, size)
    by_height = torch.argsort(xyz[:, 2], stable=True)
    order = by_height[torch.argsort(front[by_height], stable=True)]
    _paint(image, pixel, rgb, order[shown[order]])
    if boxes is not None and len(boxes.centre):
        pixel, shown = _pixels_from_above(_outlines(boxes, 2 * size), extent, size)
        image[pixel[shown]] = torch.tensor(box_colour, dtype=torch.uint8)
    return image.view(size, size, 3)


def _paint(
    image: UInt8[Tensor, "P 3"], pixel: Int[Tensor, " N"], rgb: UInt8[Tensor, "N 3"], order: Int[Tensor, " M"]
) -> None:
    """Colour pixels by the points in them, the last in ``order`` of each."""
    # Indexed assignment with repeated indices has no defined winner.
    last = torch.full((len(image),), -1, dtype=torch.int64)
    last.scatter_reduce_(0, pixel[order], torch.arange(len(order)), "amax")
    seen = last >= 0
    image[seen] = rgb[order][last[seen]]


def _pixels_from_above(
    xy: Float[Tensor, "N 2"], extent: float, size: int
) -> tuple[Int[Tensor, " N"], Bool[Tensor, " N"]]:
    """Number of the pixel that each place falls on, and whether it is in the picture."""
    cell = ((xy / extent + 1) * (size / 2)).floor().clamp(-1, size).nan_to_num(-1).to(torch.int64)
    shown = ((cell >= 0) & (cell < size)).all(1)
    return (size - 1 - cell[:, 1]) * size + cell[:, 0], shown


def _outlines(boxes: Boxes, number: int) -> Float[Tensor, "M 2"]:
    """Places along the four sides of boxes, and from their centres to their fronts, ``number`` on each line."""
    half = boxes.size[:, :2].cpu() / 2
    corners = torch.tensor([[1.0, 1], [-1, 1], [-1, -1], [1, -1], [0, 0], [1, 0]]) * half[:, None]
    lines = torch.tensor([[0, 1], [1, 2], [2, 3], [3, 0], [4, 5]])
    start, end = corners[:, lines[:, 0]], corners[:, lines[:, 1]]
    share = torch.linspace(0, 1, number)[:, None]
    x, y = (start[:, :, None] * (1 - share) + end[:, :, None] * share).flatten(1, 2).unbind(-1)
    cos, sin = boxes.yaw.cpu().cos()[:, None], boxes.yaw.cpu().sin()[:, None]
    turned = torch.stack([cos * x - sin * y, sin * x + cos * y], dim=-1)
    return (turned + boxes.centre[:, None, :2].cpu()).flatten(0, 1)


def principal_colours(feats: Float[Tensor, "N C"], lengths: bool = False) -> UInt8[Tensor, "N 3"]:
    """The three strongest principal components of features as red, green and blue, each spread over its 2 to 98 %.

    Args:
        feats: one row each.
        lengths: whether rows that differ by a factor get other colours. Of an encoder's features a hundredth can be
            forty times as long as the rest, and would take the components for itself.
    """
    if len(feats) == 0:
        return torch.zeros(0, 3, dtype=torch.uint8)

    def read(part: Tensor) -> Tensor:
        return part if lengths else torch.nn.functional.normalize(part, dim=1)

    # A part of a large cloud says as much about the axes, and takes a part of the memory.
    some = read(feats[:: max(1, len(feats) // 500_000)])
    mean = some.mean(0)
    centred = (some - mean).double()
    axes = torch.linalg.eigh(centred.T @ centred).eigenvectors[:, -3:].flip(1)
    # An eigenvector's sign is arbitrary; the largest entry positive makes the picture the same every time.
    axes = axes * axes.gather(0, axes.abs().argmax(0, keepdim=True)).sign()
    scores = torch.cat([((read(part) - mean).double() @ axes).float() for part in feats.split(500_000)])
    bounds = torch.quantile(scores[:: max(1, len(scores) // 100_000)], torch.tensor([0.02, 0.98]), dim=0)
    share = (scores - bounds[0]) / (bounds[1] - bounds[0]).clamp(min=1e-9)
    rgb = (share.clamp(0, 1) * 255).round().to(torch.uint8)
    return torch.nn.functional.pad(rgb, (0, 3 - rgb.shape[1]))
