"""Sparse tensors: features at occupied voxels, and the kernel maps that all layers share."""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ponder3d.geometry.grid import MAX_COORDINATE, MAX_SCENES, pack_keys
from ponder3d.sparse.maps import ConvMap, Triple, inner_subm_map, strided_map, subm_map, triple


class MapCache:
    """Kernel maps of one set of voxels and of the coarser sets made from it, built when first needed.

    One cache travels with all tensors made from one input, so that forward, backward and every block of a network share
    the maps; it lives as long as one of those tensors.
    """

    def __init__(self) -> None:
        self._levels: dict[int, tuple[Tensor, Tensor]] = {}
        self._subm: dict[tuple[int, int], ConvMap] = {}
        self._strided: dict[tuple[int, int, int, Triple, Triple | None], ConvMap] = {}

    def add_level(self, stride: int, coords: Int[Tensor, "M 4"], keys: Int[Tensor, " M"]) -> None:
        """Register the voxels of a stride."""
        self._levels[stride] = (coords, keys)

    def level(self, stride: int) -> tuple[Int[Tensor, "M 4"], Int[Tensor, " M"]]:
        """Coordinates and keys of the voxels at a stride."""
        return self._levels[stride]

    def subm(self, stride: int, kernel: int) -> ConvMap:
        """The submanifold map at a stride.

        It is cut from a wider one if there is one, which is then forgotten: networks have a wide kernel in their stem
        only, and 5x5x5 taps are 500 bytes a voxel. Asked for again, the wider one is searched again, and stays.
        """
        if (stride, kernel) not in self._subm:
            wider = [k for s, k in self._subm if s == stride and k > kernel and (k - kernel) % 2 == 0]
            self._subm[stride, kernel] = (
                inner_subm_map(self._subm.pop((stride, min(wider))), kernel)
                if wider
                else subm_map(self._levels[stride][1], kernel)
            )
        return self._subm[stride, kernel]

    def strided(
        self, stride: int, kernel: int, step: int, padding: int | Triple, limits: Triple | None = None
    ) -> ConvMap:
        """The map from the voxels at ``stride`` to those at ``stride * step``, which it creates (``strided_map``)."""
        which = (stride, kernel, step, triple(padding), limits)
        if which not in self._strided:
            if stride * step in self._levels:
                raise ValueError(
                    f"a map to stride {stride * step} with other kernel, stride, padding or limits exists: one set of "
                    "voxels per stride"
                )
            coords, keys, maps = strided_map(self._levels[stride][0], kernel, step, padding, limits)
            self._levels[stride * step] = (coords, keys)
            self._strided[which] = maps
        return self._strided[which]


@dataclass(frozen=True)
class SparseTensor:
    """Features at the occupied voxels of a batch of scenes. Rows are sorted by (scene, x, y, z)."""

    coords: Int[Tensor, "M 4"]
    """Scene, x, y, z in voxels of this tensor's stride."""
    feats: Float[Tensor, "M C"]
    num_scenes: int
    stride: int
    """Size of a voxel here, in voxels of the input."""
    voxel_size: float
    """Metres per INPUT voxel; voxel i of this tensor covers ``[i, i + 1) * stride * voxel_size``."""
    maps: MapCache

    def with_feats(self, feats: Float[Tensor, "M D"]) -> "SparseTensor":
        """The same voxels with other features."""
        return replace(self, feats=feats)

    def at_stride(self, stride: int, feats: Float[Tensor, "M2 C2"]) -> "SparseTensor":
        """A tensor on the voxels of another stride of the same family."""
        return replace(self, coords=self.maps.level(stride)[0], feats=feats, stride=stride)

    @property
    def keys(self) -> Int[Tensor, " M"]:
        """The sorted keys of the voxels."""
        return self.maps.level(self.stride)[1]


def sparse_tensor(
    coords: Int[Tensor, "M 4"], feats: Float[Tensor, "M C"], num_scenes: int, voxel_size: float = 1.0
) -> SparseTensor:
    """A sparse tensor at stride 1 from voxels in any order; its rows come out sorted.

    Raises:
        ValueError: a voxel occurs twice, or a coordinate or scene index is out of range.
    """
    if len(coords):
        if bool((coords[:, 1:].abs() > MAX_COORDINATE).any()):
            raise ValueError(f"sparse_tensor: a coordinate is beyond +-{MAX_COORDINATE}")
        if num_scenes > MAX_SCENES or int(coords[:, 0].min()) < 0 or int(coords[:, 0].max()) >= num_scenes:
            raise ValueError(f"sparse_tensor: a scene index is not in [0, {min(num_scenes, MAX_SCENES)})")
    keys, order = torch.sort(pack_keys(coords))
    if bool((keys[1:] == keys[:-1]).any()):
        raise ValueError("sparse_tensor: a voxel occurs twice; pool its features first (geometry.grid.voxelize)")
    maps = MapCache()
    coords = coords[order].to(torch.int64)
    maps.add_level(1, coords, keys)
    return SparseTensor(coords, feats[order], num_scenes, 1, voxel_size, maps)
