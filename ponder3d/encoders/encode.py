"""Features for a point cloud of any size: pool to voxels, cut into tiles with a halo, encode, hand back."""

import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from ponder3d.geometry.grid import MAX_COORDINATE, voxelize
from ponder3d.geometry.normals import estimate_normals
from ponder3d.geometry.rows import sum_rows
from ponder3d.types import Batch, Cameras, Points, Views, Volume
from ponder3d.types.scene import extent, point_feats, to_device
from ponder3d.volume.convert import Features, sample_at

Array = np.ndarray | Tensor


@dataclass(frozen=True)
class Cloud:
    """A cloud as ``as_cloud`` makes it: coordinates as given in float64, the rest in float32."""

    xyz: Float[Tensor, "N 3"]
    rgb: Float[Tensor, "N 3"] | None
    normal: Float[Tensor, "N 3"] | None
    intensity: Float[Tensor, " N"] | None
    time: Float[Tensor, " N"] | None


def encode_cloud(
    encoder: Callable[[Batch], Features],
    device: torch.device,
    grid_size: float,
    inputs: Sequence[str],
    out_channels: int,
    cloud: Cloud,
    max_voxels: int,
    halo: float,
    condition: str = "",
    box: tuple[float, ...] | None = None,
) -> Float[Tensor, "N C"]:
    """See ``Encoder.encode``, which gathers these arguments."""
    if len(cloud.xyz) == 0:
        _check_told(cloud, inputs)
        return torch.zeros(0, out_channels)
    centre, feats, voxel = as_voxels(cloud, grid_size, inputs, box)
    if len(centre) > max_voxels and math.isinf(halo):
        warnings.warn(
            f"encode: {len(centre)} voxels in one piece, more than max_voxels: the encoder does not say how far it "
            "sees (Encoder.reach). Pass a halo to have the cloud cut",
            stacklevel=4,
        )
    out = torch.empty(len(centre), out_channels)
    for inner, around in tiles(centre, max_voxels, halo):
        points = Points(centre[around], feats[around], torch.tensor([len(around)]))
        key = torch.zeros(1, dtype=torch.int64)
        batch = Batch(points, extent(points.xyz)[None], key, ("encode",), conditions=(condition,))
        batch = to_device(batch, device)
        at = centre[inner].to(device)
        scene = torch.zeros(len(at), dtype=torch.int64, device=device)
        out[inner] = sample_at(encoder(batch), at, scene).float().cpu()
    return out[voxel]


def as_voxels(
    cloud: Cloud, grid_size: float, inputs: Sequence[str], box: tuple[float, ...] | None = None
) -> tuple[Float[Tensor, "M 3"], Float[Tensor, "M C"], Int[Tensor, " N"]]:
    """The occupied voxels of a cloud that has points: their centres, what an encoder reads of each, and the voxel of
    each point. Centres are metres from where voxels are counted; of an encoder with a ``box`` that is the origin.

    Raises:
        ValueError: the cloud has nothing that the encoder reads, is too long, or has no point in the box.
    """
    _check_told(cloud, inputs)
    xyz = cloud.xyz
    local = (xyz - _origin(xyz, grid_size, box)).to(torch.float32)
    voxels = voxelize(local, torch.zeros(len(local), dtype=torch.int64), grid_size)

    def pooled(values: Float[Tensor, "N *C"] | None) -> Float[Tensor, "M *C"] | None:
        return None if values is None else _pool(values, voxels.voxel, voxels.counts)

    normal = pooled(cloud.normal)
    feats = point_feats(
        _pool(xyz, voxels.voxel, voxels.counts).to(torch.float32),
        pooled(cloud.rgb),
        None if normal is None else F.normalize(normal, dim=1),
        inputs,
        pooled(cloud.intensity),
        pooled(cloud.time),
    )
    return (voxels.coords[:, 1:].to(torch.float32) + 0.5) * grid_size, feats, voxels.voxel


def _check_told(cloud: Cloud, inputs: Sequence[str]) -> None:
    given = {name: getattr(cloud, name, None) is not None for name in ("rgb", "normal", "intensity", "time")}
    if not any(given.get(name, True) for name in inputs):
        raise ValueError(
            f"this encoder reads {' and '.join(inputs)} and got neither: it would see the same everywhere. Pass one of "
            "them, or train an encoder whose inputs include 'one'"
        )


def as_views(images: Array, intrinsics: Array, world_from_cam: Array) -> Views:
    """The images of one scene, checked and on the CPU; shapes are those of ``CameraEncoder.encode_views``.

    Raises:
        ValueError: an argument has another type or shape, or is not finite.
    """
    rgb, matrices, poses = (torch.as_tensor(part).detach().cpu() for part in (images, intrinsics, world_from_cam))
    if rgb.dtype != torch.uint8 or rgb.ndim != 4 or rgb.shape[3] != 3 or rgb.numel() == 0:
        raise ValueError(f"encode_views: images must be uint8 [V H W 3], they are {rgb.dtype} {list(rgb.shape)}")
    for name, value, side in (("intrinsics", matrices, 3), ("world_from_cam", poses, 4)):
        if list(value.shape) != [len(rgb), side, side]:
            raise ValueError(f"encode_views: {name} must be [{len(rgb)} {side} {side}], not {list(value.shape)}")
        if not bool(torch.isfinite(value).all()):
            raise ValueError(f"encode_views: {name} is not finite")
    cameras = Cameras(matrices.to(torch.float32), poses.to(torch.float32), (rgb.shape[1], rgb.shape[2]))
    return Views(cameras, rgb, None, None, torch.tensor([len(rgb)]))


def encode_scene(
    encoder: nn.Module,
    inputs: Sequence[str],
    cloud: Cloud | None,
    grid_size: float,
    box: tuple[float, ...] | None,
    images: Views | None,
    condition: str = "",
) -> Volume:
    """The volume of one scene with a cloud, images or both, on the CPU, float32. Points outside the box, which training
    leaves out too, are not looked at. The encoder is left in evaluation mode.

    Raises:
        ValueError: as ``as_voxels``.
    """
    if cloud is None or len(cloud.xyz) == 0:
        centre = torch.zeros(0, 3)
        feats, bounds = point_feats(centre, None, None, inputs), torch.zeros(2, 3)
    else:
        centre, feats, _ = as_voxels(_within(cloud, box), grid_size, inputs, box)
        bounds = extent(centre)
    points = Points(centre, feats, torch.tensor([len(centre)]))
    key = torch.zeros(1, dtype=torch.int64)
    batch = Batch(points, bounds[None], key, ("encode_views",), images=images, conditions=(condition,))
    encoder.eval()
    volume = encoder(to_device(batch, next(encoder.parameters()).device))
    return Volume(replace(volume.grid, box=volume.grid.box.cpu()), volume.feats.float().cpu())


def _within(cloud: Cloud, box: tuple[float, ...] | None) -> Cloud:
    """The points in a box; all of them if there are none, which ``_origin`` refuses."""
    if box is None:
        return cloud
    low, high = torch.tensor(box, dtype=cloud.xyz.dtype).view(2, 3)
    inside = ((cloud.xyz >= low) & (cloud.xyz < high)).all(1)
    if not bool(inside.any()):
        return cloud
    rest = {f.name: getattr(cloud, f.name) for f in fields(cloud) if f.name != "xyz"}
    return Cloud(cloud.xyz[inside], **{name: None if one is None else one[inside] for name, one in rest.items()})


def _origin(xyz: Float[Tensor, "N 3"], grid_size: float, box: tuple[float, ...] | None) -> Float[Tensor, " 3"]:
    """What to subtract from coordinates before voxels are counted.

    Coordinates may be large (a map projection), so voxels are counted from the cloud itself: one begins at its lower
    corner, so that a shifted cloud has the same voxels, and 0 lies in the middle, which uses the keys' whole range. An
    encoder of a fixed box gets coordinates as they are.
    """
    lo, hi = xyz.amin(0), xyz.amax(0)
    if box is not None:
        low, high = torch.tensor(box, dtype=xyz.dtype).view(2, 3)
        if not bool(((xyz >= low) & (xyz < high)).all(1).any()):
            raise ValueError(
                f"xyz: no point lies in the box that this encoder looks at, {box[:3]} to {box[3:]} m; give it "
                "coordinates in the frame in which it was trained"
            )
        if float(torch.maximum(hi, -lo).max()) >= MAX_COORDINATE * grid_size:
            raise ValueError(
                f"xyz: a point is {float(torch.maximum(hi, -lo).max()):.0f} m from the origin; leave it out"
            )
        return torch.zeros(3, dtype=xyz.dtype)
    half = torch.floor((hi - lo) / (2 * grid_size))
    if bool((half >= MAX_COORDINATE).any()):
        raise ValueError(
            f"xyz: the cloud is {float((hi - lo).max()):.0f} m long; with voxels of {grid_size:g} m it can be "
            f"{2 * MAX_COORDINATE * grid_size:.0f} m. Encode it in parts"
        )
    return lo + half * grid_size


def normals_of_cloud(
    xyz: Float[Tensor, "N 3"], grid_size: float, viewpoint: Array | None = None
) -> Float[Tensor, "N 3"]:
    """Normals from neighbours for an encoder's voxels, whatever the density of the cloud.

    The cloud is thinned to one mean point per cube of a quarter of a voxel, and points of a cube share a normal. Means
    of whole voxels would be too few: of clouds of two recordings (7-Scenes, HoloLens; voxels of 8 cm) their normals are
    27.9 and 12.7 degrees from those of the depth images, in the median, and the means of these 13.1 and 7.7.

    Raises:
        ValueError: ``viewpoint`` has another shape than [3] and [N 3], or is not finite.
    """
    if len(xyz) == 0:
        return torch.zeros(0, 3)
    lo, hi = xyz.amin(0), xyz.amax(0)
    local = xyz - (lo + hi) / 2
    size = max(grid_size / 4, float((hi - lo).max()) / (2 * MAX_COORDINATE - 2))
    cubes = voxelize(local.to(torch.float32), torch.zeros(len(local), dtype=torch.int64), size)
    seen_from = viewpoint
    if viewpoint is not None:
        seen_from = torch.as_tensor(viewpoint).detach().cpu().to(torch.float64)
        if seen_from.shape == xyz.shape:
            seen_from = _pool(seen_from, cubes.voxel, cubes.counts)
    return estimate_normals(_pool(xyz, cubes.voxel, cubes.counts), viewpoint=seen_from)[cubes.voxel]


def as_cloud(
    xyz: Array, rgb: Array | None, normal: Array | None, intensity: Array | None = None, time: Array | None = None
) -> Cloud:
    """Arrays as tensors: coordinates as float64, the rest as float32, colours and intensities in [0, 1].

    Raises:
        ValueError: a wrong shape, a value that is not finite, or float colours or intensities beyond [0, 1].
    """
    points = _as_tensor("xyz", xyz, None).to(torch.float64)
    num = len(points)
    return Cloud(
        points,
        None if rgb is None else _as_share("rgb", "colours", _as_tensor("rgb", rgb, num)),
        None if normal is None else _as_tensor("normal", normal, num).to(torch.float32),
        None if intensity is None else _as_share("intensity", "values", _as_tensor("intensity", intensity, num)),
        None if time is None else _as_tensor("time", time, num).to(torch.float32),
    )


def tiles(
    xyz: Float[Tensor, "M 3"], max_points: int, halo: float
) -> Iterator[tuple[Int[Tensor, " I"], Int[Tensor, " A"]]]:
    """Cut points into tiles that together cover each of them once.

    What costs is the sum of all points in and around the tiles, so cuts go where few points lie near them, and leave
    tiles that are as full as they may be.

    Yields:
        The rows of a tile, and the rows of all points within ``halo`` of its bounding box (the tile's own among them).
        The latter are at most ``max_points``, or else no side of the tile is longer than the halo: smaller tiles would
        consist of little but halo.
    """
    rows = torch.arange(len(xyz), device=xyz.device)
    stack = [(rows, rows)]
    while stack:
        inner, around = stack.pop()
        around = around[_near(xyz[around], xyz[inner], halo)]  # what is near a part of a tile is near the tile
        below = _cut(xyz[inner], xyz[around], max_points, halo) if len(around) > max_points else None
        if below is None:
            yield inner, around
        else:
            stack += [(inner[~below], around), (inner[below], around)]


def _near(xyz: Float[Tensor, "A 3"], tile: Float[Tensor, "I 3"], halo: float) -> Bool[Tensor, " A"]:
    """Which points lie within ``halo`` of a tile's bounding box."""
    near = torch.ones(len(xyz), dtype=torch.bool, device=xyz.device)
    for along, low, high in zip(xyz.unbind(1), tile.amin(0) - halo, tile.amax(0) + halo, strict=True):
        near &= (along >= low) & (along <= high)  # faster than ``all`` over rows of three
    return near


def _cut(
    tile: Float[Tensor, "I 3"], around: Float[Tensor, "A 3"], max_points: int, halo: float
) -> Bool[Tensor, " I"] | None:
    """Which points of a tile a cut takes off; None if no side is longer than the halo.

    Each axis offers one cut: where the part taken off is just full, or, if that part were a thin slice (thinner than a
    quarter of the sides, or than the halo), at the median. The least work wins: points of both parts, with halos.
    """
    length = tile.amax(0) - tile.amin(0)
    best = None
    for axis in (length > halo).nonzero()[:, 0].tolist():
        along, rest = tile[:, axis], torch.cat([length[:axis], length[axis + 1 :]]).max()
        full = around[:, axis].kthvalue(max_points + 1).values - halo
        thin = (full - along.min()) < torch.minimum(length[axis], rest).div(4).clamp(min=halo)
        below = along <= along.median() if bool(thin) else along < full
        if bool(below.all()):  # half of the points lie at the far end
            below = along < along.max()
        if not bool(below.any()):
            continue
        work = sum(int(_near(around, part, halo).sum()) for part in (tile[below], tile[~below]))
        if best is None or (work, -float(length[axis])) < best[0]:
            best = (work, -float(length[axis])), below
    return None if best is None else best[1]


def _as_share(name: str, what: str, raw: Tensor) -> Tensor:
    """Values in [0, 1], of bytes (and 16-bit intensities) by their range."""
    brightest = {torch.uint8: 255} | ({torch.uint16: 65535} if name == "intensity" else {})
    share = raw.to(torch.float32) / brightest.get(raw.dtype, 1)
    if len(share) and not (0 <= float(share.min()) and float(share.max()) <= 1):
        types = "uint8" if name == "rgb" else "uint8, 0..65535 as uint16"
        raise ValueError(f"{name}: float {what} must lie in [0, 1]; pass 0..255 {what} as {types}")
    return share


def _as_tensor(name: str, value: Array, length: int | None) -> Tensor:
    if isinstance(value, np.ndarray):  # copied: torch takes no reversed, read-only or byte-swapped array
        value = torch.from_numpy(value.astype(value.dtype.newbyteorder("="), order="C"))
    tensor = value.detach().cpu()
    single = name in ("intensity", "time")
    if tensor.ndim != (1 if single else 2) or (not single and tensor.shape[1] != 3):
        raise ValueError(f"{name}: expected shape {'[N]' if single else '[N 3]'}, found {list(tensor.shape)}")
    if length is not None and len(tensor) != length:
        raise ValueError(f"{name}: {len(tensor)} rows for {length} points")
    if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
        row = (~torch.isfinite(tensor)).view(len(tensor), -1).any(1).nonzero()[0, 0]
        raise ValueError(f"{name}: row {int(row)} is not finite")
    return tensor


def _pool(values: Float[Tensor, "N *C"], voxel: Int[Tensor, " N"], counts: Int[Tensor, " M"]) -> Float[Tensor, "M *C"]:
    wide = values.view(len(values), -1)
    return (sum_rows(wide, voxel, len(counts)) / counts[:, None]).view(len(counts), *values.shape[1:])
