"""How fast is a submanifold convolution, beside spconv's and beside the machine's own matrix products?

    python benchmarks/sparse_conv.py [--threads 1] [--shape room2cm scan2cm lidar] [--channels 16 32 64 128 256]
                                     [--data DIR] [--device cuda --dtype tf32 float16] [--quick] [--save]

3x3x3, as many channels out as in. Shapes: a generated room and a recorded one (7-Scenes, fused) in voxels of 5, 2 and
1 cm, and a recorded LiDAR sweep (PandaSet) in voxels of 10 cm; ``room2.85cm`` is about 85 000 voxels. Recordings are
read from ``--data`` (see ``clouds.py``); without it their rows are left out, and so are rows of which one call would
take more than ``--most`` operations. Without arguments it takes about a quarter of an hour on one core.

``ours`` is what runs by itself: compiled C on a CPU, Triton on a GPU; ``torch`` what runs without a compiler. spconv
and ours see the rows in the same order, have their kernel maps built beforehand, and the results of all are compared
with PyTorch's in float32 before anything is timed; without spconv, and in bfloat16, which it does not know, its columns
stay empty. Calls alternate (ours, spconv's, ours, ...), and ratios are taken round by round. On a CPU there is no
backward pass of spconv's to compare with: it asks for a CUDA stream and fails without one.

Targets on a CPU: forward at least 1.5 times spconv's speed at 64 and 128 channels; forward and both gradients within
2.5 times the floor.

How to read it: ``speed`` is spconv's time over ours, so above 1 is faster than spconv, with the quartiles over the
rounds in brackets. The floor is what the products alone cost, 2 x pairs x C x C operations at the rate at which this
machine multiplies [1024 C] by [C C] out of cache (a GPU: about [1048576 C]), plus one copy of the rows in and out at
the speed of memory; it is measured in the same rounds. ``dense`` is PyTorch's conv3d on a crop of 32 x 32 x 32 voxels
around the middle of the cloud: it shows that the same is computed, and what the empty voxels would cost.

On an H200 it ran once, on one shape, and not to its end (``README.md`` beside this file).
"""

import argparse
import importlib.util
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from clouds import SCAN, SWEEPS, recorded_sweep, room, scan
from measure import alternate, gemm_rate, machine, milliseconds, parser, ratio, saved, table, timed, verdict
from torch import Tensor

from ponder3d.geometry.grid import Voxels, voxelize
from ponder3d.geometry.kernels import Kernels, kernels
from ponder3d.sparse.functional import sparse_conv
from ponder3d.sparse.maps import subm_map

MIN_SPEED = 1.5
MAX_WHOLE = 2.5
SHAPES = {
    "room5cm": ("room", 0.05),
    "room2.85cm": ("room", 0.0285),
    "room2cm": ("room", 0.02),
    "room1cm": ("room", 0.01),
    "scan5cm": ("scan", 0.05),
    "scan2cm": ("scan", 0.02),
    "scan1cm": ("scan", 0.01),
    "lidar": ("lidar", 0.1),
}
DTYPES = {"float32": torch.float32, "tf32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
TOLERANCE = {"float32": 1e-4, "tf32": 5e-3, "float16": 5e-3, "bfloat16": 4e-2}
OTHERS = 4
"""How much further from float32 those beside ours may be: their sums are rounded more often."""
CROP = 32


def shapes(names: list[str], data: Path | None, device: str) -> dict[str, Voxels]:
    """The voxels of the shapes that can be made."""
    clouds: dict[str, Tensor] = {}
    made = {}
    for name in names:
        kind, size = SHAPES[name]
        recording = {"scan": SCAN, "lidar": SWEEPS}.get(kind)
        if recording is not None and (data is None or not (data / recording).is_dir()):
            print(f"{name}: left out, no {recording} in --data")
            continue
        if kind not in clouds:
            if kind == "room":
                fine = any(SHAPES[each] == ("room", 0.01) for each in names)
                clouds[kind] = room(spacing=0.005 if fine else 0.01)
            else:
                assert data is not None
                clouds[kind] = scan(data) if kind == "scan" else recorded_sweep(data).xyz
        xyz = clouds[kind].to(device)
        made[name] = voxelize(xyz, torch.zeros(len(xyz), dtype=torch.int64, device=device), size)
    return made


HAS_SPCONV = importlib.util.find_spec("spconv") is not None


def spconv_takes(dtype: str) -> bool:
    """Whether spconv is there and knows the precision: it has no bfloat16."""
    return HAS_SPCONV and dtype != "bfloat16"


class Spconv:
    """The same convolution by spconv: a layer with our weights, and a tensor that keeps its kernel map."""

    def __init__(self, coords: Tensor, feats: Tensor, weight: Tensor):
        channels = feats.shape[1]
        import spconv.pytorch as spconv  # noqa: PLC0415
        from spconv.pytorch import ops  # noqa: PLC0415

        self.ops = ops
        self.layer = spconv.SubMConv3d(channels, channels, 3, bias=False, indice_key="shape").to(feats)
        with torch.no_grad():  # ours is [tap, in, out] in raster order, theirs [out, x, y, z, in]
            self.layer.weight.copy_(weight.view(3, 3, 3, channels, channels).permute(4, 0, 1, 2, 3))
        self.indices = coords.clone()
        self.indices[:, 1:] -= coords[:, 1:].amin(0)
        self.indices = self.indices.to(torch.int32)
        self.shape = (self.indices[:, 1:].amax(0) + 1).tolist()
        empty = spconv.SparseConvTensor(feats, self.indices, self.shape, 1)
        with torch.no_grad():
            indice_dict = self.layer(empty).indice_dict
        self.input = empty.replace_feature(feats)
        self.input.indice_dict = indice_dict
        assert self.input.find_indice_pair("shape") is not None

    def forward(self) -> Tensor:
        """The convolved features."""
        return self.layer(self.input).features

    def build_map(self) -> None:
        """The kernel map alone, as the layer builds it."""
        sizes = ([3] * 3, [1] * 3, [1] * 3, [1] * 3, [0] * 3)
        build = self.ops.get_indice_pairs
        if self.layer.algo.name != "Native":
            build = self.ops.get_indice_pairs_implicit_gemm
        build(self.indices, 1, self.shape, self.layer.algo, *sizes, subm=True, transpose=False)


def difference(result: Tensor, exact: Tensor, dtype: str, what: str, times: float = 1) -> float:
    """Largest difference, relative to the largest value."""
    error = float(((result - exact).abs().max() / exact.abs().max()).detach())
    if not error <= times * TOLERANCE[dtype]:
        raise SystemExit(f"{what}: not the same convolution, {error:.1e} of the largest value apart")
    return error


def floor(pairs: int, like: Tensor, products: int = 1) -> Callable[[], float]:
    """The products out of cache, and the rows copied once."""
    rows, channels = like.shape
    pairs *= products
    # On a GPU blocks of about a million rows that add up to the pairs, or launching is what is timed.
    block = pairs // max(1, round(pairs / 2**20)) if like.is_cuda else 1024 * torch.get_num_threads()
    made = {"device": like.device, "dtype": like.dtype}
    a, b = torch.randn(block, channels, **made), torch.randn(channels, channels, **made)
    out, target = torch.empty_like(a), torch.empty_like(like)

    def run() -> None:
        for _ in range(max(1, round(pairs / block))):
            torch.mm(a, b, out=out)
        target.copy_(like)

    return timed(run, like.device)


class Case:
    """One shape with one number of channels and one precision."""

    def __init__(self, voxels: Voxels, channels: int, dtype: str):
        self.voxels, self.channels, self.dtype = voxels, channels, dtype
        made = {"device": voxels.keys.device, "dtype": DTYPES[dtype]}
        self.feats = torch.randn(len(voxels.keys), channels, **made).requires_grad_()
        self.weight = (torch.randn(27, channels, channels, **made) * 0.02).requires_grad_()
        self.grad = torch.randn(len(voxels.keys), channels, **made)
        self.maps = subm_map(voxels.keys, 3)
        self.pairs = int((self.maps.forward.rows >= 0).sum())

    def ours(self, which: Kernels) -> Callable[[], Tensor]:
        """Our convolution."""

        def run() -> Tensor:
            with kernels(which):
                return sparse_conv(self.feats, self.weight, self.maps)

        return run

    def exact(self) -> Tensor:
        """The same of the same numbers in float32, by PyTorch's products."""
        before = torch.get_float32_matmul_precision()
        try:
            torch.set_float32_matmul_precision("highest")
            with kernels("torch"):
                return sparse_conv(self.feats.float(), self.weight.float(), self.maps)
        finally:
            torch.set_float32_matmul_precision(before)

    def whole(self, call: Callable[[], Tensor], inputs: list[Tensor]) -> Callable[[], float]:
        """Forward and both gradients."""
        return timed(lambda: torch.autograd.grad(call(), inputs, self.grad), self.feats.device)


def measure(name: str, case: Case, threads: int, repeats: int) -> tuple[list[object], list[object]]:
    """A row of the forward table and one of the table with gradients."""
    device, feats = case.feats.device, case.feats
    both = [feats, case.weight]
    calls = {
        "ours": timed(case.ours("auto"), device),
        "torch": timed(case.ours("torch"), device),
        "floor": floor(case.pairs, feats.detach()),
        "ours, all": case.whole(case.ours("auto"), both),
        "torch, all": case.whole(case.ours("torch"), both),
        "floor, all": floor(case.pairs, feats.detach(), 3),
    }
    others = [case.ours("torch")]
    if spconv_takes(case.dtype):
        spconv = Spconv(case.voxels.coords, feats, case.weight)
        others.append(spconv.forward)
        calls["spconv"] = timed(spconv.forward, device)
        if feats.is_cuda:
            calls["spconv, all"] = case.whole(spconv.forward, [feats, spconv.layer.weight])
    torch.set_num_threads(1)  # with more, spconv's CPU build adds at random places
    with torch.no_grad():
        exact = case.exact()
        error = difference(case.ours("auto")().float(), exact, case.dtype, name)
        for other in others:
            difference(other().float(), exact, case.dtype, f"{name}, not ours", OTHERS)
    torch.set_num_threads(threads)
    seconds = alternate(calls, repeats)
    ms = {key: f"{milliseconds(values):.1f}" for key, values in seconds.items()}
    speed = ratio(seconds["spconv"], seconds["ours"]) if "spconv" in seconds else None
    over = ratio(seconds["ours, all"], seconds["floor, all"])
    cpu = not feats.is_cuda
    start = [name, case.channels, case.dtype, f"{case.pairs / len(feats):.1f}"]
    forward = [*start, ms["ours"], ms["torch"], ms.get("spconv", ""), ms["floor"], speed or ""]
    forward += [ratio(seconds["ours"], seconds["floor"]), f"{error:.0e}"]
    forward += [verdict(speed.median >= MIN_SPEED) if speed and cpu and case.channels in (64, 128) else ""]
    backward = [*start[:3], ms["ours, all"], ms["torch, all"], ms.get("spconv, all", ""), ms["floor, all"]]
    backward += [ratio(seconds["spconv, all"], seconds["ours, all"]) if "spconv, all" in seconds else "", over]
    backward += [ratio(seconds["torch, all"], seconds["ours, all"]), verdict(over.median <= MAX_WHOLE) if cpu else ""]
    return forward, backward


def measure_map(name: str, voxels: Voxels, repeats: int) -> list[object]:
    """A row of the table of kernel maps."""
    device = voxels.keys.device

    def build(which: Kernels) -> Callable[[], float]:
        def run() -> None:
            with kernels(which):
                subm_map(voxels.keys, 3)

        return timed(run, device)

    calls = {"ours": build("auto"), "torch": build("torch")}
    if HAS_SPCONV:
        ones = {"device": device, "dtype": torch.float32}
        spconv = Spconv(voxels.coords, torch.ones(len(voxels.keys), 16, **ones), torch.ones(27, 16, 16, **ones))
        calls["spconv"] = timed(spconv.build_map, device)
    seconds = alternate(calls, repeats)
    times = [f"{milliseconds(values):.1f}" for values in seconds.values()]
    beside = [ratio(seconds["spconv"], seconds["ours"])] if HAS_SPCONV else ["", ""]
    return [name, len(voxels.keys), *times, *beside]


def measure_dense(name: str, voxels: Voxels, channels: int, repeats: int) -> list[object]:
    """A row of the table of dense crops: the fullest of those around eight voxels spread over the shape."""
    middles = voxels.coords[:: max(1, len(voxels.coords) // 8), 1:]
    insides = [(voxels.coords[:, 1:] - m + CROP // 2).clamp(-1, CROP) for m in middles]
    masks = [((at >= 0) & (at < CROP)).all(1) for at in insides]
    best = max(range(len(masks)), key=lambda i: int(masks[i].sum()))
    x, y, z = insides[best][masks[best]].unbind(1)
    case = Case(Voxels(voxels.coords[masks[best]], voxels.keys[masks[best]], x, x, x), channels, "float32")
    volume = case.feats.new_zeros(1, channels, CROP, CROP, CROP)
    volume[0, :, x, y, z] = case.feats.detach().T
    weight = case.weight.detach().view(3, 3, 3, channels, channels).permute(4, 3, 0, 1, 2).contiguous()

    def dense() -> Tensor:
        return F.conv3d(volume, weight, padding=1)

    with torch.no_grad(), torch.backends.cudnn.flags(allow_tf32=False):
        error = difference(case.ours("auto")(), dense()[0, :, x, y, z].T, "float32", f"{name}, conv3d")
        device = case.feats.device
        seconds = alternate({"ours": timed(case.ours("auto"), device), "dense": timed(dense, device)}, repeats)
    ms = [f"{milliseconds(values):.2f}" for values in seconds.values()]
    share = f"{len(x) / CROP**3:.1%}"
    return [name, len(x), share, *ms, ratio(seconds["dense"], seconds["ours"]), f"{error:.0e}"]


def run(args: argparse.Namespace) -> None:
    """Print all tables."""
    torch.manual_seed(0)
    torch.set_num_threads(args.threads)
    print(f"{machine(args.threads)}\nmedians of at most {args.repeats} rounds, ms")
    if not HAS_SPCONV:
        wheel = "spconv-cu126 or newer" if args.device != "cpu" else "'ponder3d[bench]', Python below 3.13"
        print(f"spconv: left out, not installed (pip install {wheel})")
    made = shapes(args.shape, args.data, args.device)
    rows: list[tuple[list[object], list[object]]] = []
    left_out = []
    for name, voxels in made.items():
        pairs = int((subm_map(voxels.keys, 3).forward.rows >= 0).sum())
        for channels in args.channels:
            work = 2 * pairs * channels**2
            if work > args.most * 1e9:
                left_out.append(f"{name} {channels}")
                continue
            for dtype in args.dtype:
                if args.device != "cpu":
                    torch.set_float32_matmul_precision("high" if dtype == "tf32" else "highest")
                    if HAS_SPCONV:
                        _allow_tf32_in_spconv(dtype == "tf32")
                # A round is about 20 times the forward products.
                repeats = max(3, min(args.repeats, int(args.seconds / (20 * work / args.rate))))
                rows.append(measure(name, Case(voxels, channels, dtype), args.threads, repeats))
    if left_out:
        print(f"left out, more than {args.most:g}e9 operations: {', '.join(left_out)}")
    print("\nforward; speed is spconv's time over ours, neighbours the pairs per voxel")
    head = ["shape", "channels", "dtype", "neighbours", "ours", "torch", "spconv", "floor", "speed"]
    table([*head, "over the floor", "difference", ""], [row[0] for row in rows])
    print("\nforward and both gradients")
    head = ["shape", "channels", "dtype", "ours", "torch", "spconv", "floor", "speed", "over the floor"]
    table([*head, "torch / ours", ""], [row[1] for row in rows])
    torch.set_float32_matmul_precision("highest")
    print("\nkernel map; speed as above")
    maps = [measure_map(name, voxels, min(args.repeats, 5)) for name, voxels in made.items()]
    table(["shape", "voxels", "ours", "torch", "spconv", "speed"], maps)
    channels = args.channels[len(args.channels) // 2]
    print(f"\na crop of {CROP}^3 voxels, forward, {channels} channels, float32; speed is conv3d's time over ours")
    crops = [measure_dense(name, voxels, channels, min(args.repeats, 5)) for name, voxels in made.items()]
    table(["shape", "voxels", "occupied", "ours", "conv3d", "speed", "difference"], crops)


def _allow_tf32_in_spconv(allow: bool) -> None:
    from spconv import constants  # noqa: PLC0415

    constants.SPCONV_ALLOW_TF32 = allow


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--threads", type=int, default=1)
    options.add_argument("--repeats", type=int, default=9, help="rounds, at most")
    options.add_argument(
        "--seconds", type=float, default=30, help="about as long a row may take; at least three rounds"
    )
    options.add_argument("--most", type=float, help="operations of the largest row, 1e9 (CPU: 150)")
    options.add_argument("--shape", nargs="+", choices=SHAPES, metavar="SHAPE", help=f"of {', '.join(SHAPES)}")
    options.add_argument("--channels", type=int, nargs="+", default=[16, 32, 64, 128, 256])
    options.add_argument("--data", type=Path, help="directory with recordings")
    options.add_argument("--device", default="cpu")
    options.add_argument("--dtype", nargs="+", choices=DTYPES, help="more than float32 on a GPU only")
    options.add_argument("--quick", action="store_true", help="three rounds of small shapes: under a minute")
    args = options.parse_args()
    cpu = args.device == "cpu"
    args.dtype = args.dtype or (["float32"] if cpu else list(DTYPES))
    if cpu and args.dtype != ["float32"]:
        options.error("on a CPU there is float32 only")
    args.most = args.most or (150 if cpu else 1e6)
    args.shape = args.shape or [name for name in SHAPES if not (cpu and name in ("room1cm", "scan1cm"))]
    if args.quick:
        args.shape, args.channels, args.repeats = ["room5cm", "room2.85cm"], [32, 64], 3
    args.rate = 2 * gemm_rate(64, args.device)
    with saved(args.save):
        run(args)


if __name__ == "__main__":
    main()
