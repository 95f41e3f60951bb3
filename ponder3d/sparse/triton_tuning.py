"""How the Triton convolutions choose their blocks: a few configurations, cut to the shape, tried once, kept on disk."""

from collections.abc import Callable
from typing import Any

import torch
import triton
from triton import knobs


def power_of_two(n: int) -> int:
    """The smallest power of two that is not below ``n``."""
    return 1 << (n - 1).bit_length()


def tuned(
    configs: list[triton.Config], fit: Callable[..., list[triton.Config]], key: list[str]
) -> Callable[[Any], Any]:
    """``triton.autotune``, remembered on disk between processes; the interpreter takes small blocks untried.

    All configurations add the same products in the same order: the choice is one of speed.
    """
    if knobs.runtime.interpret:
        configs = [triton.Config({name: 16 if name in ("BLOCK_M", "BLOCK_R") else 32 for name in configs[0].kwargs})]
    return triton.autotune(
        configs, key, prune_configs_by={"early_config_prune": fit}, do_bench=_bench, cache_results=True
    )


def _bench(call: Callable[[], None], quantiles: tuple[float, ...]) -> Any:
    # A third of Triton's default time: a SparseUNet tunes about 60 cases.
    return triton.testing.do_bench(call, warmup=10, rep=30, quantiles=quantiles)


def fit_conv(configs: list[triton.Config], args: dict[str, Any], **meta: Any) -> list[triton.Config]:
    """The configurations of a convolution that make sense for its channels and precision."""
    deepest, widest = _largest_blocks(args, meta)
    limits = {
        "BLOCK_M": meta["TILE_ROWS"],
        "BLOCK_N": _channel_block(args["out_units"] * args["OUT_ALIGN"], widest),
        "BLOCK_K": _channel_block(args["in_units"] * args["IN_ALIGN"], deepest),
    }
    return _fitted(configs, limits)


def fit_weight_gradient(configs: list[triton.Config], args: dict[str, Any], **meta: Any) -> list[triton.Config]:
    """As ``fit_conv``, of the gradient of the weights."""
    deepest, widest = _largest_blocks(args, meta)
    limits = {
        "BLOCK_R": min(meta["TILE_ROWS"], deepest),
        "BLOCK_I": _channel_block(args["in_units"] * args["IN_ALIGN"], widest),
        "BLOCK_O": _channel_block(args["out_units"] * args["OUT_ALIGN"], widest),
    }
    return _fitted(configs, limits)


def _largest_blocks(args: dict[str, Any], meta: dict[str, Any]) -> tuple[int, int]:
    """Largest (depth, width) of a product.

    float32 takes twice the shared memory, so half the depth; exact float32 is plain multiply-adds, all of them
    unrolled: 16 deep and 128 wide are 1024 a thread and 2 s to compile.
    """
    if args["feats"].dtype != torch.float32:
        return 128, 256
    return (16, 128) if meta["PRECISION"] == "ieee" else (32, 256)


def _channel_block(channels: int, largest: int) -> int:
    """The smallest block that holds all channels, between the tensor cores' 16 and the largest."""
    return max(16, min(largest, power_of_two(channels)))


def _fitted(configs: list[triton.Config], limits: dict[str, int]) -> list[triton.Config]:
    """The configurations with their blocks cut down to the limits, each once."""
    cut = [
        triton.Config(
            {name: min(size, limits[name]) for name, size in config.kwargs.items()},
            num_warps=config.num_warps,
            num_stages=config.num_stages,
        )
        for config in configs
    ]
    return list(dict.fromkeys(cut))
