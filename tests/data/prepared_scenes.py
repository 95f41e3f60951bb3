"""Prepared scenes of example rooms, and a server that brings them badly."""

import hashlib
import random
import re
import threading
import time
import zlib
from collections import Counter
from collections.abc import Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np

from ponder3d.data.prepared import shard
from ponder3d.data.prepared.container import END, SceneIndex, SceneWriter
from ponder3d.data.prepared.manifest import FILE_NAME, Manifest, SceneEntry
from ponder3d.data.prepared.scene_file import encode_frame
from ponder3d.data.raw.dataset import LabelTable, RawFrame
from ponder3d.data.raw.example_room import COLOURS, SURFACES, ExampleRoom
from ponder3d.files import write_whole
from ponder3d.types import LabelSet

RAW_IDS = np.array([{"wall": 1, "floor": 2, "ceiling": 22, "table": 300}[name] for name in SURFACES], dtype=np.int32)
"""Raw id of each surface of the room."""
FINE = LabelTable(
    "fine",
    LabelSet(("wall", "floor", "ceiling", "table"), ((9, 9, 9), (1, 1, 1), (2, 2, 2), (3, 3, 3))),
    ((1, 0), (2, 1), (22, 2), (300, 3)),
)
COARSE = LabelTable("coarse", LabelSet(("floor", "wall"), ((1, 1, 1), (9, 9, 9))), ((1, 1), (2, 0)))
NORMALS = np.concatenate([np.eye(3), -np.eye(3), [[0, 0, 1]]]).astype(np.float32)
"""Towards free space, of the surfaces; the table's is that of its top."""


def room_of(number: int, num_frames: int = 6, size: tuple[int, int] = (24, 32)) -> ExampleRoom:
    return ExampleRoom(half_width=1.7 + 0.05 * number, num_frames=num_frames, size=size)


def write_prepared(
    root: Path,
    splits: Sequence[str] = ("train", "train", "train", "val", "val"),
    num_frames: int = 6,
    size: tuple[int, int] = (24, 32),
    spacing: float = 0.25,
    labels: bool = True,
) -> Manifest:
    """A directory as ``ponder3d prepare`` leaves it: scene ``room_i`` is ``room_of(i)``."""
    entries, files = [], {}
    for number, split in enumerate(splits):
        name, file = f"room_{number}", f"scenes/{split}/room_{number}.tar"
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        with (root / file).open("wb") as opened:
            writer = SceneWriter(opened, name)
            index, total, place = _write_scene(writer, room_of(number, num_frames, size), name, split, spacing, labels)
            opened.write(END)
        data = (root / file).read_bytes()
        entries.append(SceneEntry(name, split, file, 0, total, place, index.points, len(index.frames)))
        files[file] = len(data), hashlib.sha256(data).hexdigest()
    manifest = Manifest("example", "tests", {}, (FINE, COARSE) if labels else (), None, tuple(entries), files, ())
    write_whole(root / FILE_NAME, manifest.to_bytes())
    return manifest


def pack_small(source: Path | str, out: Path, limit: int) -> Manifest:
    """``shard.pack`` with shards of at most ``limit`` bytes."""
    planned = shard._planned
    shard._planned = lambda manifest, _: planned(manifest, limit)
    try:
        return shard.pack(str(source), out)
    finally:
        shard._planned = planned


def _write_scene(writer: SceneWriter, room: ExampleRoom, name: str, split: str, spacing: float, labels: bool):
    frames = tuple(f"{10 * i:06d}" for i in range(room.num_frames))
    for i, frame_name in enumerate(frames):
        depth, surface = room.trace(i)
        frame = RawFrame(
            frame_name,
            room.intrinsics,
            room.pose(i),
            COLOURS[surface],
            depth.astype(np.float32),
            RAW_IDS[surface] if labels else None,
            surface.astype(np.int32) - 1 if labels else None,
        )
        for kind, data in encode_frame(frame, 1000, 92).items():
            writer.add(f"f{i:06d}.{kind}", data)
    xyz, surface = room.points(spacing)
    writer.add_array("xyz.npy", xyz.astype("<f4"))
    writer.add_array("rgb.npy", COLOURS[surface])
    writer.add_array("normal.npy", NORMALS[surface])
    if labels:
        writer.add_array("labels.npy", RAW_IDS[surface])
        writer.add_array("instances.npy", surface.astype("<i4"))
    if frames:
        writer.add_array("intrinsics.npy", np.stack([room.intrinsics] * len(frames)))
        writer.add_array("world_from_cam.npy", np.stack([room.pose(i) for i in range(len(frames))]))
    size = room.size if frames else None
    index = SceneIndex(name, split, "here", frames, size, 1000, len(xyz), dict(writer.members), (), "abc")
    return index, *writer.finish(index)


class BadServer:
    """Serves a directory on the loopback interface by byte ranges, and does some of it wrong.

    Args:
        root: the directory.
        faults: what may go wrong; see ``_Handler``.
        share: of the requests that go wrong, chosen by what is asked for and how often it was before.
        most: tries in a row that may go wrong for one range.
        stall: seconds that a stalled answer takes.
        ranges_only: files that are asked for as a whole are served well.
    """

    FAULTS = ("500", "503", "stall", "truncated", "short", "long", "flipped", "dropped", "garbage")

    def __init__(
        self,
        root: Path,
        faults: Sequence[str] = (),
        share: float = 1.0,
        most: int = 10**9,
        stall: float = 1.0,
        ranges_only: bool = False,
    ):
        self.root, self.faults, self.share, self.most, self.stall = root, tuple(faults), share, most, stall
        self.ranges_only = ranges_only
        self.asked: Counter[tuple[str, str]] = Counter()
        self.committed: Counter[str] = Counter()
        self._lock = threading.Lock()
        self._over = threading.Event()

    def __enter__(self) -> "BadServer":
        server = self

        class Bound(_Handler):
            owner = server

        self._http = _Quiet(("127.0.0.1", 0), Bound)
        self.url = f"http://127.0.0.1:{self._http.server_address[1]}"
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *error):
        self._over.set()
        self._http.shutdown()
        self._http.server_close()
        self._thread.join(5)

    def fault(self, path: str, part: str) -> str | None:
        with self._lock:
            tries = self.asked[path, part]
            self.asked[path, part] += 1
            draw = random.Random(zlib.crc32(f"{path} {part} {tries}".encode()))
            if not self.faults or tries >= self.most or draw.random() >= self.share or (self.ranges_only and not part):
                return None
            fault = draw.choice(self.faults)
            self.committed[fault] += 1
            return fault

    def wait(self):
        self._over.wait(self.stall)


class _Quiet(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def handle_error(self, request, client_address):
        pass  # clients that hang up are what this is about


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    owner: BadServer

    def log_message(self, format, *args):
        pass

    def do_GET(self):
        path = self.owner.root / self.path.lstrip("/")
        part = self.headers.get("Range", "")
        fault = self.owner.fault(self.path, part)
        if not path.is_file():
            return self._answer(404, b"no such file")
        if fault == "dropped":
            self.close_connection = True
            return None
        if fault == "garbage":
            self.wfile.write(b"this is no HTTP\r\n\r\n")
            self.close_connection = True
            return None
        if fault in ("400", "403", "500", "503"):
            return self._answer(int(fault), b"x" * 100)
        data, status = path.read_bytes(), 200
        found = re.match(r"bytes=(\d+)-(\d+)$", part)
        if found and fault != "whole":
            first, last = int(found[1]), int(found[2])
            if first >= len(data):
                return self._answer(416, b"")
            data, status = data[first : last + 1], 206
        if fault == "stall":
            self.owner.wait()
        if fault == "short":
            data = data[: len(data) // 2]
        if fault == "long":
            data += b"more"
        if fault == "flipped":
            at = random.Random(len(data)).randrange(len(data))
            data = data[:at] + bytes([data[at] ^ 16]) + data[at + 1 :]
        return self._answer(status, data, cut=fault == "truncated")

    def _answer(self, status: int, data: bytes, cut: bool = False):
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data[: len(data) // 2] if cut else data)
        if cut:
            self.close_connection = True
            time.sleep(0.01)
