"""How this process deals with the memory it has freed."""

import ctypes

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_MOST = (1 << 31) - 1
_MOST_ONCE = 1 << 25
"""What glibc before 2.35 takes: larger blocks are always given back there."""


def keep_freed_memory() -> bool:
    """Tell glibc to keep what is freed, for the next step; says whether it will.

    By default it gives blocks above 32 MB and the end of its heap back to the system at once. A step then takes them
    anew, page by page: a third of the CPU time of an encoder's pass over a million voxels, a seventh of a training step
    of the paper's indoor configuration (``benchmarks/README.md``). Memory stays at its peak instead, which grows by 5
    to 25 %. It concerns the whole process, and those it forks (loaders): commands of ``ponder3d`` call it, the library
    by itself does not.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # another C library
        return False
    kept = mallopt(_MMAP_THRESHOLD, _MOST) or mallopt(_MMAP_THRESHOLD, _MOST_ONCE)
    return bool(mallopt(_TRIM_THRESHOLD, _MOST)) and bool(kept)
