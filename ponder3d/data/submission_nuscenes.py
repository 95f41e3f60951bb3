"""Files of nuScenes' LiDAR segmentation challenge: one byte per point of a key frame's file, classes from 1 to 16.

::

    RESULTS/
        lidarseg/PART/TOKEN_lidarseg.bin    TOKEN: the sample_data token of the laser at the key frame
        PART/submission.json                what the results were made from

PART is ``train``, ``val``, ``test``, ``mini_train`` or ``mini_val``. All of it goes into one zip file.
"""

import json
import re
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from ponder3d.data.archive import Archive
from ponder3d.data.dataset import DataError
from ponder3d.files import replacing, write_whole

PATH = re.compile(r"lidarseg/((?:mini_)?(?:train|val|test))/[A-Za-z0-9_-]+_lidarseg\.bin")
"""What files of results are called."""


def write_lidarseg(path: Path, prediction: np.ndarray, benchmark_ids: Sequence[int]) -> None:
    """Write the file of one key frame.

    Args:
        path: ``TOKEN_lidarseg.bin``.
        prediction: [M] index of the class of each point of the key frame's file.
        benchmark_ids: number of each class.

    Raises:
        ValueError: there is no number for a class.
        OSError: it cannot be written.
    """
    if len(prediction) and not 0 <= int(prediction.min()) <= int(prediction.max()) < len(benchmark_ids):
        raise ValueError(f"{path}: a class without a number; there are {len(benchmark_ids)}")
    write_whole(path, np.array(benchmark_ids or (0,), dtype=np.uint8)[prediction].tobytes())


def write_meta(folder: Path, files: Sequence[str], cameras: bool, external: bool) -> None:
    """Write ``submission.json`` of each part.

    Args:
        folder: of the results.
        files: their paths below it.
        cameras: whether the results were made from images too.
        external: whether from weights that come from elsewhere.

    Raises:
        OSError: it cannot be written.
    """
    used = {"camera": cameras, "lidar": True, "radar": False, "map": False, "external": external}
    text = json.dumps({"meta": {f"use_{name}": value for name, value in used.items()}}, indent=1) + "\n"
    for part in sorted({_part(file) for file in files}):
        write_whole(folder / part / "submission.json", text.encode())


def zip_results(folder: Path, files: Sequence[str], path: Path) -> None:
    """Pack the results, and what says how they were made, into one zip file.

    Raises:
        OSError: one is missing, or it cannot be written.
    """
    names = [*files, *{f"{_part(file)}/submission.json" for file in files}]
    with replacing(path) as file, zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as packed:
        for name in sorted(names):
            member = zipfile.ZipInfo(name)  # without the time: the same predictions give the same file
            packed.writestr(member, (folder / name).read_bytes(), zipfile.ZIP_DEFLATED)


def read_results(
    path: Path, sizes: Mapping[str, int], benchmark_ids: Sequence[int]
) -> Iterator[tuple[str, np.ndarray]]:
    """Check results and read them back, a key frame at a time.

    Args:
        path: the directory of the results, or a zip file of it.
        sizes: number of points of the file of each key frame of the set, by the path of its results.
        benchmark_ids: number of each class.

    Yields:
        Path below the directory, and [M] index of the class of each point, in the order of ``sizes``.

    Raises:
        DataError: a key frame is missing or not of the set, has another number of points, or a byte is no class.
        OSError: it cannot be read.
    """
    archive = None if path.is_dir() else Archive(path)
    if archive is None:
        found = {file.relative_to(path).as_posix() for file in path.rglob("*.bin")}
    else:
        found = {name for name in archive.names if name.endswith(".bin")}
    for problem, names in (("has no", set(sizes) - found), ("has a file of no scene of this set:", found - set(sizes))):
        if names:
            more = f" and {len(names) - 1} more" if len(names) > 1 else ""
            raise DataError(f"{path}: {problem} {min(names)}{more}")
    if not all(0 <= number < 256 for number in benchmark_ids):
        raise DataError(f"{path}: numbers of classes up to {max(benchmark_ids)}, and files have one byte per point")
    rows = np.full(256, -1, dtype=np.int32)
    rows[list(benchmark_ids)] = np.arange(len(benchmark_ids))
    for name, size in sizes.items():
        where = f"{path}/{name}"
        data = _read(path, name, size) if archive is None else archive.read(name, size + 1)
        if len(data) != size:
            raise DataError(f"{where}: has {len(data)} bytes or more, and the key frame has {size} points")
        out = rows[np.frombuffer(data, np.uint8)]
        if size and int(out.min()) < 0:
            point = int(out.argmin())
            raise DataError(f"{where}: point {point} is {data[point]}, which is no class of the benchmark")
        yield name, out


def _part(file: str) -> str:
    match = PATH.fullmatch(file)
    assert match is not None, file
    return match[1]


def _read(path: Path, name: str, size: int) -> bytes:
    with (path / name).open("rb") as file:
        return file.read(size + 1)
