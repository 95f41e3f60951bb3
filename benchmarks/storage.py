"""How fast prepared scenes are read: MB/s and scenes/s with every member verified, and what share that takes.

    python benchmarks/storage.py [--data DIR] [--repeats 3] [--quick] [--save]

Scenes of example rooms with 640x480 images, written to a temporary directory, or prepared scenes of ``--data DIR``.
Files come from the page cache, times are of one core and of this process alone; a disk can only be slower.
"""

import hashlib
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from measure import machine, parser, saved, table

from ponder3d.data.prepared.container import END, SceneIndex, SceneWriter
from ponder3d.data.prepared.dataset import PreparedConfig
from ponder3d.data.prepared.manifest import FILE_NAME, Manifest, SceneEntry
from ponder3d.data.prepared.scene_file import encode_frame
from ponder3d.data.raw.dataset import RawFrame
from ponder3d.data.raw.example_room import COLOURS, ExampleRoom
from ponder3d.files import write_whole
from ponder3d.geometry import keyed


def write(root: Path, scenes: int, frames: int, points: int, size: tuple[int, int] = (480, 640)) -> None:
    """Scenes with noise on the images, which is what recordings have: without it they would be a tenth of the size."""
    room, random = ExampleRoom(num_frames=frames, size=size), np.random.default_rng(0)
    images = []
    for i in range(frames):
        depth, surface = room.trace(i)
        rgb = np.clip(COLOURS[surface] + random.normal(0, 4, (*size, 3)), 0, 255).astype(np.uint8)
        noisy = depth + random.normal(0, 0.005, depth.shape)
        frame = RawFrame(str(i), room.intrinsics, room.pose(i), rgb, noisy.astype(np.float32))
        images.append(encode_frame(frame, 1000, 92))
    entries, files = [], {}
    xyz = random.uniform(-2, 2, (points, 3)).astype("<f4")
    for number in range(scenes):
        name, file = f"room_{number}", f"scenes/train/room_{number}.tar"
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        with (root / file).open("wb") as opened:
            writer = SceneWriter(opened, name)
            for i, kinds in enumerate(images):
                for kind, data in kinds.items():
                    writer.add(f"f{i:06d}.{kind}", data)
            writer.add_array("xyz.npy", xyz)
            writer.add_array("rgb.npy", random.integers(0, 256, (points, 3), dtype=np.uint8))
            writer.add_array("normal.npy", np.tile(np.array([[0, 0, 1]], dtype="<f4"), (points, 1)))
            writer.add_array("intrinsics.npy", np.stack([room.intrinsics] * frames))
            writer.add_array("world_from_cam.npy", np.stack([room.pose(i) for i in range(frames)]))
            names = tuple(map(str, range(frames)))
            index = SceneIndex(name, "train", "", names, size, 1000, points, dict(writer.members), (), "")
            total, place = writer.finish(index)
            opened.write(END)
        data = (root / file).read_bytes()
        entries.append(SceneEntry(name, "train", file, 0, total, place, points, frames))
        files[file] = len(data), hashlib.sha256(data).hexdigest()
    write_whole(root / FILE_NAME, Manifest("", "", {}, (), None, tuple(entries), files, ()).to_bytes())


def members(root: str, repeats: int) -> tuple[float, float, float]:
    """Megabytes, seconds of reading and verifying all members, and seconds of SHA-256 alone."""
    data = PreparedConfig(root=root).build()
    size = read = hashed = 0.0
    for _ in range(repeats):
        for entry in data._entries:
            index = data._records.index(entry)
            started = time.process_time()
            found = data._records.members(entry, index, list(index.members))
            read += time.process_time() - started
            started = time.process_time()
            for content in found.values():
                hashlib.sha256(content).digest()
            hashed += time.process_time() - started
            size += sum(map(len, found.values())) / 1e6
    return size, read, hashed


def draws(root: str, views: int, max_side: int, repeats: int) -> float:
    """Seconds of a scene drawn and decoded."""
    data = PreparedConfig(root=root, views=views, max_side=max_side).build()
    started = time.process_time()
    for number in range(repeats * len(data)):
        data.draw(number % len(data), keyed.generator(number))
    return (time.process_time() - started) / repeats / len(data)


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--data", default="", help="prepared scenes, instead of generated ones")
    arguments.add_argument("--repeats", type=int, default=3)
    arguments.add_argument("--quick", action="store_true", help="one round")
    args = arguments.parse_args()
    args.repeats = 1 if args.quick else args.repeats
    torch.set_num_threads(1)
    with saved(args.save), tempfile.TemporaryDirectory() as folder:
        root = args.data
        if not root:
            write(Path(folder), scenes=4, frames=40, points=150_000)
            root = folder
        print(machine(1))
        members(root, 1)
        size, read, hashed = members(root, args.repeats)
        table(
            ["reading all members", "MB", "MB/s", "of that SHA-256"],
            [["local, verified", f"{size:.0f}", f"{size / read:.0f}", f"{hashed / read:.0%}"]],
        )
        print()
        rows = [
            (views, max_side, draws(root, views, max_side, args.repeats))
            for views, max_side in ((0, 0), (5, 0), (5, 320), (-1, 320))
        ]
        table(
            ["drawing scenes", "longest side", "ms a scene", "scenes/s"],
            [
                [f"{'all' if views < 0 else views} views", side or "as it is", f"{1000 * s:.0f}", f"{1 / s:.1f}"]
                for views, side, s in rows
            ],
        )


if __name__ == "__main__":
    main()
