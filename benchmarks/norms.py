"""What do norms by condition cost?

    python benchmarks/norms.py [--quick] [--rows 100000] [--channels 96] [--save]

Forward and backward pass of one norm in training, on one core, rows of four scenes:

    plain     PyTorch's batch norm
    one       ``PromptNorm``, all scenes of one condition (PyTorch's batch norm with modulated scale and shift)
    mixed     ``PromptNorm``, scenes of three conditions
    by hand   the same as mixed, condition by condition: rows picked, normalised, put back

``mixed`` and ``by hand`` give the same before anything is timed. The floor is memory traffic at 10 GB/s: plain forward
reads the rows twice and writes them once, backward reads rows and gradient twice and writes once, 8 x 4 bytes an
element; mixed makes its tables' rows in products, 4 more written and read forward and 6 backward: 28 x 4.

Then a training step of a SparseUNet (that of ``pretrain_indoor.rooms``, forward and backward, two generated rooms).
Megabytes are the peak above what was there before.
"""

from collections.abc import Callable
from dataclasses import replace

import torch
import torch.nn.functional as F
from measure import alternate, machine, milliseconds, parser, peak_mb, ratio, saved, table, timed
from torch import Tensor

from ponder3d.data.synthetic.rooms import RoomsConfig
from ponder3d.data.transforms import Centre, GridSample, apply
from ponder3d.encoders.norms import PlainNormConfig, Prompted, PromptNorm, PromptNormConfig
from ponder3d.engine.memory import keep_freed_memory
from ponder3d.recipes.pretrain_indoor import small_encoder
from ponder3d.sparse import SparseTensor, sparse_tensor
from ponder3d.types import Batch

CONDITIONS = ("a", "b", "c")


def rows(num: int, channels: int) -> SparseTensor:
    coords = torch.zeros(num, 4, dtype=torch.int64)
    coords[:, 0] = torch.arange(num) * 4 // num
    coords[:, 1], coords[:, 2] = torch.arange(num) % 1000, torch.arange(num) // 1000
    return sparse_tensor(coords, torch.randn(num, channels), 4)


def by_hand(norm: PromptNorm, x: Tensor, of_row: Tensor, prompts: Tensor) -> Tensor:
    scale, shift = norm.affine(prompts)
    out = torch.empty_like(x)
    for k in range(len(CONDITIONS)):
        mine = (of_row == k).nonzero()[:, 0]
        statistics = norm.running_mean[k], norm.running_var[k]
        normal = F.batch_norm(x[mine], *statistics, scale[k], shift[k], True, 0.1, norm.eps)
        out = out.index_copy(0, mine, normal)
    return out


def passes(call: Callable[[Tensor], Tensor], x: Tensor) -> Callable[[], None]:
    """Forward and backward with everything that needs a gradient."""
    weights = torch.randn_like(x)

    def run() -> None:
        feats = x.detach().requires_grad_()
        (call(feats) * weights).sum().backward()

    return run


def norms(num: int, channels: int, repeats: int) -> None:
    x = rows(num, channels)
    prompts = torch.randn(len(CONDITIONS), 256, requires_grad=True)
    plain = PlainNormConfig().build(channels, 1e-3, 0.01)
    prompted = PromptNormConfig(CONDITIONS).build(channels, 1e-3, 0.01)
    kinds = {
        name: Prompted(which, 3, prompts, x.feats.device) for name, which in (("one", [1] * 4), ("mixed", [0, 1, 2, 0]))
    }
    of_row = torch.tensor([0, 1, 2, 0])[x.coords[:, 0]]
    calls = {
        "plain": passes(lambda f: plain(x.with_feats(f)), x.feats),
        "one": passes(lambda f: prompted(x.with_feats(f), kinds["one"]), x.feats),
        "mixed": passes(lambda f: prompted(x.with_feats(f), kinds["mixed"]), x.feats),
        "by hand": passes(lambda f: by_hand(prompted, f, of_row, prompts), x.feats),
    }
    ours = prompted(x, kinds["mixed"])
    torch.testing.assert_close(ours, by_hand(prompted, x.feats, of_row, prompts), atol=1e-4, rtol=1e-4)
    seconds = alternate({name: timed(call) for name, call in calls.items()}, repeats)
    floor = {"plain": 8, "one": 8, "mixed": 28, "by hand": float("nan")}
    print(f"{num} rows of {channels} channels")
    table(
        ("", "ms", "floor ms", "times plain", "MB"),
        [
            (
                name,
                f"{milliseconds(seconds[name]):.1f}",
                f"{floor[name] * 4 * num * channels / 1e7:.1f}",
                ratio(seconds[name], seconds["plain"]),
                f"{peak_mb(call):.0f}",
            )
            for name, call in calls.items()
        ],
    )


def steps(repeats: int) -> None:
    config = small_encoder()
    data = RoomsConfig(num_rooms=2, cloud_spacing=0.04).build()
    scenes = [apply((Centre(), GridSample(config.grid_size)), data[i], i) for i in range(2)]
    known = replace(config, norm=PromptNormConfig(CONDITIONS))
    calls = {}
    for name, encoder, conditions in (
        ("plain", config.build(), ("", "")),
        ("one", known.build(), ("a", "a")),
        ("mixed", known.build(), ("a", "b")),
    ):
        own = [replace(s, condition=c, views=None) for s, c in zip(scenes, conditions, strict=True)]
        batch = Batch.of(own, config.inputs)
        calls[name] = lambda encoder=encoder, batch=batch: encoder(batch).feats.square().sum().backward()
    seconds = alternate({name: timed(call) for name, call in calls.items()}, repeats)
    print(f"\nSparseUNet, forward and backward, {len(batch.points.xyz)} voxels")
    table(
        ("", "ms", "times plain", "MB"),
        [
            (name, f"{milliseconds(seconds[name]):.0f}", ratio(seconds[name], seconds["plain"]), f"{peak_mb(call):.0f}")
            for name, call in calls.items()
        ],
    )


def main() -> None:
    made = parser(__doc__)
    made.add_argument("--quick", action="store_true", help="fewer rows, three rounds")
    made.add_argument("--rows", type=int, default=100_000)
    made.add_argument("--channels", type=int, default=96)
    args = made.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()
    with saved(args.save):
        print(machine(1))
        repeats = 3 if args.quick else 9
        norms(10_000 if args.quick else args.rows, args.channels, repeats)
        steps(repeats)


if __name__ == "__main__":
    main()
