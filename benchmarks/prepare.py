"""A long ScanNet scene through ``ponder3d prepare``: peak memory, disk, time.

    python benchmarks/prepare.py [--frames 5000] [--every 20] [--quick] [--save]

The scene is written to a temporary directory: colour of 1296x968 as JPEG and depth of 640x480, with the noise that
recordings have, in one ``.sens`` file. Memory is that of the command, from ``wait4``; one process, one thread.
"""

import os
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from measure import machine, parser, saved, table
from PIL import Image

from ponder3d.data.raw.example_room import ExampleRoom, scaled
from ponder3d.data.raw.scannet import ScanNetConfig
from ponder3d.data.raw.sens import write_sens

SCENE = "scene0000_00"
COLOUR, DEPTH = (968, 1296), (480, 640)
IMAGES = 24
"""Different images; the others repeat them at other poses."""


def frames(number: int) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Pose, colour and depth in millimetres of each frame."""
    room, random = ExampleRoom(num_frames=IMAGES, size=DEPTH), np.random.default_rng(0)
    images = []
    for i in range(IMAGES):
        rgb = np.array(Image.fromarray(room.colour(i)).resize(COLOUR[::-1]))
        rgb = np.clip(rgb + random.normal(0, 6, rgb.shape), 0, 255).astype(np.uint8)
        depth = room.trace(i)[0] + random.normal(0, 0.004, DEPTH)
        images.append((room.pose(i), rgb, np.round(depth * 1000).astype(np.uint16)))
    for i in range(number):
        yield images[i % IMAGES]


def prepared(raw: Path, out: Path, every: int) -> tuple[float, float]:
    """Seconds and megabytes of memory of the command."""
    names = raw / "some.txt"
    names.write_text(SCENE + "\n")
    command = [sys.executable, "-m", "ponder3d.cli", "prepare", "scannet", str(raw), str(out), "--every", str(every)]
    command += ["--workers", "1", "--scenes", str(names), "--no-annotations"]
    started = time.monotonic()
    child = os.posix_spawn(sys.executable, command, os.environ | {"OMP_NUM_THREADS": "1"})
    _, status, usage = os.wait4(child, 0)
    if status:
        raise SystemExit(f"prepare failed: {os.waitstatus_to_exitcode(status)}")
    return time.monotonic() - started, usage.ru_maxrss / 1024


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--frames", type=int, default=5000)
    options.add_argument("--every", type=int, nargs="+", default=[20, 1])
    options.add_argument("--quick", action="store_true", help="200 frames")
    args = options.parse_args()
    number = 200 if args.quick else args.frames
    torch.set_num_threads(1)
    with saved(args.save), tempfile.TemporaryDirectory() as folder:
        print(machine(1))
        raw = Path(folder) / "raw"
        ScanNetConfig.write_example(raw)
        room = ExampleRoom(size=DEPTH)
        path = raw / "scans" / SCENE / f"{SCENE}.sens"
        write_sens(path, frames(number), scaled(room.intrinsics, DEPTH, COLOUR), room.intrinsics)
        print(f"\n{number} frames, {path.stat().st_size / 1e9:.2f} GB\n")
        rows = []
        for every in args.every:
            out = Path(folder) / f"every-{every}"
            seconds, memory = prepared(raw, out, every)
            size = sum(file.stat().st_size for file in out.rglob("*.tar"))
            kept = len(range(0, number, every))
            per_frame = f"{size / kept / 1e3:.0f}"
            rows.append([every, kept, f"{size / 1e6:.0f}", per_frame, f"{seconds:.0f}", f"{memory:.0f}"])
        table(["every", "frames kept", "MB", "kB a frame", "seconds", "peak MB of memory"], rows)


if __name__ == "__main__":
    main()
