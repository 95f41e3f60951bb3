"""Writing drives in the layout of ``folder``, to convert recordings and to make examples."""

import io
import json
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image
from torch import Tensor

from ponder3d.data.dataset import DataError
from ponder3d.data.driving.checks import checked_shot, checked_sweep
from ponder3d.data.driving.classes import DETECTION_LABELS
from ponder3d.data.driving.drive import Drive, Sweep
from ponder3d.data.driving.json_files import TimedPose, poses_text
from ponder3d.files import write_whole
from ponder3d.types import Boxes, LabelSet


def write_drive(
    drive: Drive, root: Path, labels: LabelSet | None = None, frames: Sequence[int] | None = None, between: int = 0
) -> Path:
    """Write a drive as ``ROOT/NAME``, in the layout of ``ponder3d.data.driving.folder``. Images become PNG.

    Cameras get their own poses, at their exposures. What a key frame's ``NAME`` was is not kept: they are numbered.

    Args:
        drive: what is written.
        root: the directory; other drives may be there already, of the same classes.
        labels: the classes of its points; None leaves labels out.
        frames: key frames to write, ascending; None: all.
        between: revolutions before each key frame that are written too, as far as they are after the key frame before.

    Returns:
        The folder of the drive.

    Raises:
        DataError: there is such a folder, with other classes, or the drive cannot be read or has no name of a folder.
    """
    folder = root / drive.name
    if Path(drive.name).name != drive.name or not drive.name:
        raise DataError(f"{drive.name!r}: no name of a folder; rename the drive")
    if folder.exists():
        raise DataError(f"{folder}: it is there already; remove it, or write elsewhere")
    if labels is not None:
        _write_classes(root / "classes.json", labels)
    num_classes = 0 if labels is None else len(labels)
    poses: dict[str, list[TimedPose]] = {name: [] for name in ("lidar", "sweeps", *drive.cameras)}
    cameras: dict[str, dict[str, object]] = {}
    boxes: dict[str, list[dict[str, object]]] = {}
    last = -math.inf
    for frame in range(len(drive)) if frames is None else frames:
        name = f"{frame:06d}"
        sweep, _ = checked_sweep(drive.sweep(frame), max(num_classes, 1 << 15))
        older = drive.earlier(frame, between) if between else []
        for number, other in enumerate(reversed([s for s in older if s.seconds > last])):
            _write_sweep(folder / "sweeps", f"{name}-{number:02d}", checked_sweep(other, 1 << 15)[0], poses["sweeps"])
        _write_sweep(folder / "lidar", name, sweep, poses["lidar"])
        if labels is not None and sweep.labels is not None:
            write_whole(folder / "labels" / f"{name}.npy", _npy(sweep.labels.numpy().astype(np.int16)))
        for camera, shot in zip(drive.cameras, drive.shots(frame, drive.cameras), strict=True):
            shot = checked_shot(shot, sweep.source)
            size = [shot.rgb.shape[0], shot.rgb.shape[1]]
            seen = {"K": shot.intrinsics.tolist(), "size": size}
            if cameras.setdefault(camera, seen) != seen:
                raise DataError(f"{shot.name}: intrinsics: other than before; the layout has one matrix per camera")
            poses[camera].append(TimedPose(name, sweep.seconds, shot.world_from_cam.numpy()))
            packed = io.BytesIO()
            Image.fromarray(shot.rgb.numpy()).save(packed, "PNG")
            write_whole(folder / "cameras" / camera / f"{name}.png", packed.getvalue())
        own = drive.boxes(frame)
        if own is not None:
            boxes[name] = _box_entries(own)
        last = sweep.seconds
    for camera in cameras:
        write_whole(folder / "cameras" / camera / "poses.txt", poses_text(poses[camera]).encode())
    if boxes:
        write_whole(folder / "boxes.json", json.dumps(boxes).encode())
    if poses["sweeps"]:
        write_whole(folder / "sweeps.txt", poses_text(poses["sweeps"]).encode())
    write_whole(folder / "poses.txt", poses_text(poses["lidar"]).encode())
    # Last: a folder without it is no drive, so that half a drive is none.
    write_whole(folder / "calibration.json", json.dumps({"cameras": cameras}, indent=1).encode())
    return folder


def _write_sweep(folder: Path, name: str, sweep: Sweep, rows: list[TimedPose]) -> None:
    table = np.concatenate([sweep.xyz.numpy(), sweep.intensity.numpy()[:, None]], axis=1).astype(np.float32)
    write_whole(folder / f"{name}.npy", _npy(table))
    rows.append(TimedPose(name, sweep.seconds, sweep.world_from_sensor.numpy()))


def _write_classes(path: Path, labels: LabelSet) -> None:
    record = {"names": list(labels.names), "palette": [list(colour) for colour in labels.palette]}
    text = json.dumps(record).encode()
    if path.exists() and path.read_bytes() != text:
        raise DataError(f"{path}: other classes than {', '.join(labels.names[:3])}, ...; write to another directory")
    write_whole(path, text)


def _box_entries(boxes: Boxes) -> list[dict[str, object]]:
    entries = []
    for number in range(len(boxes.label)):
        entry: dict[str, object] = {
            "class": DETECTION_LABELS.names[int(boxes.label[number])],
            "centre": _plain(boxes.centre[number]),
            "size": _plain(boxes.size[number]),
            "yaw": float(boxes.yaw[number]),
        }
        if boxes.velocity is not None and bool(boxes.velocity[number].isfinite().all()):
            entry["velocity"] = _plain(boxes.velocity[number])
        entries.append(entry)
    return entries


def _plain(values: Tensor) -> list[float]:
    return [float(value) for value in values]


def _npy(array: np.ndarray) -> bytes:
    packed = io.BytesIO()
    np.save(packed, array)
    return packed.getvalue()
