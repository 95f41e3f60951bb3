"""How fast is a submanifold convolution, beside spconv's CPU build and beside the machine's own matrix products?

    python benchmarks/sparse_conv.py [--threads 1] [--repeats 15] [--channels 16 32 64 128] [--voxel 0.0285] [--quick]

3x3x3, as many channels out as in, float32, on the surface voxels of one generated room (about 85 000 of them).
``compiled`` is what runs where there is a C compiler, ``torch`` what runs without; spconv and ours see the rows in the
same order, have their kernel maps built beforehand, and their results are compared before anything is timed. Calls
alternate (ours, spconv's, ours, ...), and ratios are taken round by round. There is no backward pass of spconv's to
compare with: on the CPU it asks for a CUDA stream and fails without one.

Targets: forward at least 1.5 times spconv's speed at 64 and 128 channels; forward and both gradients within 2.5 times
the floor; ``torch`` within twice the time of ``compiled``.

How to read it: ``speed`` is spconv's time over ours, so above 1 is faster than spconv, with the quartiles over the
rounds in brackets. The floor is what the products alone cost, 2 x pairs x C x C operations at the rate at which this
machine multiplies [1024 C] by [C C] out of cache, plus one copy of the rows in and out at the speed of memory; it is
measured in the same rounds.
"""

import argparse
from collections.abc import Callable

import torch
from measure import alternate, machine, milliseconds, ratio, table, timed, verdict
from torch import Tensor

from ponder3d.data.synthetic.rooms import RoomsConfig
from ponder3d.geometry.grid import Voxels, voxelize
from ponder3d.geometry.kernels import Kernels, kernels
from ponder3d.sparse.functional import sparse_conv
from ponder3d.sparse.maps import subm_map

MIN_SPEED = 1.5
MAX_WHOLE = 2.5


def room_voxels(voxel: float) -> Voxels:
    """The voxels of the surfaces of one room, from a cloud dense enough that they have few holes."""
    room = RoomsConfig(num_rooms=1, image_size=(240, 320), max_points=400_000, cloud_spacing=0.01).build()[0]
    return voxelize(room.xyz, torch.zeros(len(room.xyz), dtype=torch.int64), voxel)


class Spconv:
    """The same convolution by spconv: a layer with our weights, and a tensor that keeps its kernel map."""

    def __init__(self, coords: Tensor, feats: Tensor, weight: Tensor):
        channels = feats.shape[1]
        try:
            import spconv.pytorch as spconv  # noqa: PLC0415
            from spconv.pytorch import ops  # noqa: PLC0415
        except ImportError as error:
            raise SystemExit("spconv is missing: pip install 'ponder3d[bench]' (Python below 3.13)") from error
        self.ops = ops
        self.layer = spconv.SubMConv3d(channels, channels, 3, bias=False, indice_key="rooms")
        with torch.no_grad():  # ours is [tap, in, out] in raster order, theirs [out, x, y, z, in]
            self.layer.weight.copy_(weight.view(3, 3, 3, channels, channels).permute(4, 0, 1, 2, 3))
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


def whole(call: Callable[[], Tensor], inputs: list[Tensor], grad: Tensor) -> Callable[[], float]:
    """Forward and both gradients."""
    return timed(lambda: torch.autograd.grad(call(), inputs, grad))


def floor(pairs: int, rows: int, channels: int, products: int = 1) -> Callable[[], float]:
    """The products out of cache, and the rows copied once."""
    a, b = torch.randn(1024 * torch.get_num_threads(), channels), torch.randn(channels, channels)
    out, source = torch.empty_like(a), torch.randn(rows, channels)
    target = torch.empty_like(source)

    def run() -> None:
        for _ in range(products * pairs // len(a)):
            torch.mm(a, b, out=out)
        target.copy_(source)

    return timed(run)


def measure(voxels: Voxels, channels: int, threads: int, repeats: int) -> list[list[object]]:
    """Rows of the table for a number of channels."""
    rows = len(voxels.keys)
    feats = torch.randn(rows, channels, requires_grad=True)
    weight = (torch.randn(27, channels, channels) * 0.02).requires_grad_()
    grad, maps = torch.randn(rows, channels), subm_map(voxels.keys, 3)
    pairs = int((maps.forward.rows >= 0).sum())
    spconv = Spconv(voxels.coords, feats, weight)

    def ours(which: Kernels) -> Callable[[], Tensor]:
        def run() -> Tensor:
            with kernels(which):
                return sparse_conv(feats, weight, maps)

        return run

    torch.set_num_threads(1)  # with more, spconv adds at random places
    for which in ("compiled", "torch"):
        check(ours(which)(), spconv.forward(), f"{which}, {channels} channels")
    torch.set_num_threads(threads)
    seconds = alternate(
        {
            "compiled": timed(ours("compiled")),
            "spconv": timed(spconv.forward),
            "torch": timed(ours("torch")),
            "floor": floor(pairs, rows, channels),
            "compiled, all": whole(ours("compiled"), [feats, weight], grad),
            "torch, all": whole(ours("torch"), [feats, weight], grad),
            "floor, all": floor(pairs, rows, channels, 3),
        },
        repeats,
    )
    ms = {name: f"{milliseconds(values):.1f}" for name, values in seconds.items()}
    speed = ratio(seconds["spconv"], seconds["compiled"])
    over = ratio(seconds["compiled, all"], seconds["floor, all"])
    without = ratio(seconds["torch, all"], seconds["compiled, all"])
    forward = [channels, ms["compiled"], ms["torch"], ms["spconv"], ms["floor"], speed]
    forward += [ratio(seconds["compiled"], seconds["floor"])]
    backward = [channels, ms["compiled, all"], ms["torch, all"], ms["floor, all"], over, without]
    met = verdict(speed.median >= MIN_SPEED) if channels in (64, 128) else ""
    return [[*forward, met], [*backward, verdict(over.median <= MAX_WHOLE)]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--channels", type=int, nargs="+", default=[16, 32, 64, 128])
    parser.add_argument("--voxel", type=float, default=0.0285, help="metres; 0.0285 gives about 85 000 voxels")
    parser.add_argument("--quick", action="store_true", help="three rounds of 32 and 64 channels: under a minute")
    args = parser.parse_args()
    channels, repeats = ([32, 64], 3) if args.quick else (args.channels, args.repeats)
    torch.manual_seed(0)
    voxels = room_voxels(args.voxel)
    torch.set_num_threads(args.threads)
    print(f"{machine(args.threads)}\n{len(voxels.keys)} voxels of {args.voxel} m, medians of {repeats} rounds")
    tables = [measure(voxels, each, args.threads, repeats) for each in channels]
    print("\nforward, ms; speed is spconv's time over ours (compiled)")
    table(["channels", "compiled", "torch", "spconv", "floor", "speed", "over the floor", ""], [t[0] for t in tables])
    print("\nforward and both gradients, ms")
    table(["channels", "compiled", "torch", "floor", "over the floor", "torch / compiled", ""], [t[1] for t in tables])

    def build(which: Kernels) -> Callable[[], float]:
        def run() -> None:
            with kernels(which):
                subm_map(voxels.keys, 3)

        return timed(run)

    spconv = Spconv(voxels.coords, torch.randn(len(voxels.keys), 16), torch.randn(27, 16, 16))
    seconds = alternate(
        {"compiled": build("compiled"), "torch": build("torch"), "spconv": timed(spconv.build_map)}, repeats
    )
    print("\nkernel map, ms; speed as above")
    fastest = ratio(seconds["spconv"], seconds["compiled"])
    table(["compiled", "torch", "spconv", "speed"], [[f"{milliseconds(v):.1f}" for v in seconds.values()] + [fastest]])


if __name__ == "__main__":
    main()
