"""How fast is a submanifold convolution, beside spconv's CPU build and beside the machine's own matrix products?

    python benchmarks/sparse_conv.py [--threads 1] [--repeats 15] [--voxel 0.0285]

3x3x3, 64 to 64 channels, float32, on the surface voxels of one generated room (about 80 000 of them). Both
libraries have their kernel map built beforehand and see the rows in the same order; their results are compared before
anything is timed. Calls alternate (ours, spconv's, ours, ...), and the ratio is taken round by round. There is no
backward pass of spconv's to compare with: on the CPU it asks for a CUDA stream and fails without one.

Targets: forward at 0.75 of spconv's speed or more; backward (both gradients) at most 3 times the forward pass.

How to read it: ``speed`` is spconv's time over ours, so above 1 is faster than spconv, with the quartiles over the
rounds in brackets. The floor is what the products alone cost: 2 x pairs x 64 x 64 operations at the rate at which this
machine multiplies [n 64] by [64 64] out of cache; the bytes are those that any gather-and-multiply scheme moves.
"""

import argparse

import torch
from measure import alternate, machine, milliseconds, ratio, table, timed, verdict
from torch import Tensor

from ponder3d.data.synthetic.rooms import RoomsConfig
from ponder3d.geometry.grid import Voxels, voxelize
from ponder3d.sparse.functional import sparse_conv
from ponder3d.sparse.maps import ConvMap, subm_map

CHANNELS = 64
MAX_FORWARD = 1 / 0.75
MAX_BACKWARD = 3.0


def room_voxels(voxel: float) -> Voxels:
    """The voxels of the surfaces of one room, from a cloud dense enough that they have few holes."""
    room = RoomsConfig(num_rooms=1, image_size=(240, 320), max_points=400_000, cloud_spacing=0.01).build()[0]
    return voxelize(room.xyz, torch.zeros(len(room.xyz), dtype=torch.int64), voxel)


class Spconv:
    """The same convolution by spconv: a layer with our weights, and a tensor that keeps its kernel map."""

    def __init__(self, coords: Tensor, feats: Tensor, weight: Tensor):
        try:
            import spconv.pytorch as spconv  # noqa: PLC0415
            from spconv.pytorch import ops  # noqa: PLC0415
        except ImportError as error:
            raise SystemExit("spconv is missing: pip install 'ponder3d[bench]' (Python below 3.13)") from error
        self.ops = ops
        self.layer = spconv.SubMConv3d(CHANNELS, CHANNELS, 3, bias=False, indice_key="rooms")
        with torch.no_grad():  # ours is [tap, in, out] in raster order, theirs [out, x, y, z, in]
            self.layer.weight.copy_(weight.view(3, 3, 3, CHANNELS, CHANNELS).permute(4, 0, 1, 2, 3))
        self.indices = coords.clone()
        self.indices[:, 1:] -= coords[:, 1:].amin(0)
        self.indices = self.indices.to(torch.int32)
        self.shape = (self.indices[:, 1:].amax(0) + 1).tolist()
        empty = spconv.SparseConvTensor(feats, self.indices, self.shape, 1)
        with torch.no_grad():
            self.input = empty.replace_feature(feats)
            self.input.indice_dict = self.layer(empty).indice_dict
        assert self.input.find_indice_pair("rooms") is not None

    def forward(self) -> Tensor:
        """The convolved features."""
        return self.layer(self.input).features

    def build_map(self) -> None:
        """The kernel map alone, as the layer builds it."""
        size, one = [3] * 3, [1] * 3
        self.ops.get_indice_pairs(
            self.indices, 1, self.shape, self.layer.algo, size, one, one, one, [0] * 3, subm=True, transpose=False
        )


def check(ours: Tensor, theirs: Tensor, what: str) -> None:
    error = float(((ours - theirs).abs().max() / theirs.abs().max()).detach())
    print(f"largest difference of {what} from spconv's, relative to the largest value: {error:.1e}")
    if not error <= 1e-4:
        raise SystemExit(f"{what}: not the same convolution")


def backward_time(out: Tensor, inputs: list[Tensor], grad: Tensor) -> float:
    return timed(lambda: torch.autograd.grad(out, inputs, grad))()


def product_rate(rows: int, threads: int) -> float:
    """Operations per second of [rows 64] @ [64 64]; each thread's share of the rows fits its level-2 cache."""
    a, b = torch.randn(rows * threads, CHANNELS), torch.randn(CHANNELS, CHANNELS)
    out = torch.empty(rows * threads, CHANNELS)

    def many() -> None:
        for _ in range(200):
            torch.mm(a, b, out=out)

    return 200 * 2 * rows * threads * CHANNELS**2 / min(alternate({"mm": timed(many)}, 7)["mm"])


def square_rate(size: int = 1024) -> float:
    """Operations per second of a large square product: the machine's peak."""
    a, b = torch.randn(size, size), torch.randn(size, size)
    return 2 * size**3 / min(alternate({"mm": timed(lambda: a @ b)}, 9)["mm"])


def copy_rate(megabytes: int = 256) -> float:
    """Bytes read and written per second when copying what no cache holds."""
    a = torch.zeros(megabytes * 250_000)
    b = torch.empty_like(a)
    return 2 * 4 * len(a) / min(alternate({"copy": timed(lambda: b.copy_(a))}, 7)["copy"])


def floor(maps: ConvMap, rows: int, threads: int) -> None:
    pairs, width = len(maps.forward.in_rows), 4 * CHANNELS
    operations = 2 * pairs * CHANNELS**2
    product, square, copy = product_rate(1024, threads), square_rate(), copy_rate()
    least = 2 * rows * width + CHANNELS**2 * 27 * 4 + pairs * 16 + rows * 8
    moved = 6 * pairs * width + rows * width + pairs * 16 + rows * 8
    print(f"\nfloor of a forward pass ({pairs} pairs, {pairs / rows:.1f} a voxel)")
    table(
        ["", "amount", "rate", "ms"],
        [
            ["products, [n 64] x [64 64]", f"{operations / 1e9:.2f} GFLOP", f"{product / 1e9:.0f} GFLOP/s"]
            + [f"{1000 * operations / product:.1f}"],
            ["products, 1024 x 1024", f"{operations / 1e9:.2f} GFLOP", f"{square / 1e9:.0f} GFLOP/s"]
            + [f"{1000 * operations / square:.1f}"],
            ["bytes: rows in and out once, map", f"{least / 1e6:.0f} MB", f"{copy / 1e9:.1f} GB/s (memory)"]
            + [f"{1000 * least / copy:.1f}"],
            ["bytes: gather, multiply, sum", f"{moved / 1e6:.0f} MB", "in cache if the blocks fit", "-"],
        ],
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--voxel", type=float, default=0.0285, help="metres; 0.0285 gives about 80 000 voxels")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    voxels = room_voxels(args.voxel)
    rows = len(voxels.keys)
    feats = torch.randn(rows, CHANNELS, requires_grad=True)
    weight = (torch.randn(27, CHANNELS, CHANNELS) * 0.02).requires_grad_()
    maps = subm_map(voxels.keys, 3)
    spconv = Spconv(voxels.coords, feats, weight)
    grad = torch.randn(rows, CHANNELS)
    print(f"{machine(args.threads)}\n{rows} voxels of {args.voxel} m")

    torch.set_num_threads(1)
    out, theirs = sparse_conv(feats, weight, maps), spconv.forward()
    check(out, theirs, "the result")
    torch.set_num_threads(args.threads)
    if args.threads > 1:
        wrong = sum(float((spconv.forward() - theirs).abs().max().detach()) > 1e-3 for _ in range(20))
        first = sparse_conv(feats, weight, maps)
        same = sum(torch.equal(sparse_conv(feats, weight, maps), first) for _ in range(20))
        print(
            f"with {args.threads} threads, spconv's result is wrong in {wrong} of 20 runs; ours is the same in {same}"
        )
    del out, theirs

    seconds = alternate(
        {
            "ours, forward": timed(lambda: sparse_conv(feats, weight, maps)),
            "spconv, forward": timed(spconv.forward),
            "ours, backward": lambda: backward_time(sparse_conv(feats, weight, maps), [feats, weight], grad),
            "ours, kernel map": timed(lambda: subm_map(voxels.keys, 3)),
            "spconv, kernel map": timed(spconv.build_map),
        },
        args.repeats,
    )
    forward, backward = seconds["ours, forward"], seconds["ours, backward"]
    print(f"\nmedians of {args.repeats} alternating rounds")
    table(["", "ms"], [[name, f"{milliseconds(values):.1f}"] for name, values in seconds.items()])
    speed, cost = ratio(seconds["spconv, forward"], forward), ratio(backward, forward)
    print("\nratios within a round, median (quartiles)")
    table(
        ["", "ratio", "target", ""],
        [
            ["forward speed, ours / spconv", speed, ">= 0.75", verdict(1 / speed.median <= MAX_FORWARD)],
            ["backward / forward, ours", cost, "<= 3", verdict(cost.median <= MAX_BACKWARD)],
            ["kernel map speed, ours / spconv", ratio(seconds["spconv, kernel map"], seconds["ours, kernel map"])]
            + ["", ""],
        ],
    )
    floor(maps, rows, args.threads)


if __name__ == "__main__":
    main()
