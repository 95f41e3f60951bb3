"""Files of the ScanNet and ScanNet200 benchmarks of 3D semantic labels: ``SCENE.txt`` with one class number per line.

Line i is the class of vertex i of ``SCENE_vh_clean_2.ply``, as a number of the benchmark: a NYU40 id for the 20
classes, a raw id for the 200. All scenes of the set go into one zip file, without directories.
"""

import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from ponder3d.data.archive import Archive
from ponder3d.data.dataset import DataError
from ponder3d.files import replacing, write_whole

_LONGEST = 9
"""Bytes of a line at most: class numbers have up to four digits."""


def write_ids(path: Path, prediction: np.ndarray, benchmark_ids: Sequence[int]) -> None:
    """Write the file of one scene.

    Args:
        path: ``SCENE.txt``.
        prediction: [N] index of the class of each point.
        benchmark_ids: number of each class.

    Raises:
        ValueError: there is no number for a class.
        OSError: it cannot be written.
    """
    if len(prediction) and not 0 <= int(prediction.min()) <= int(prediction.max()) < len(benchmark_ids):
        raise ValueError(f"{path}: a class without a number; there are {len(benchmark_ids)}")
    lines = np.array([b"%d\n" % number for number in benchmark_ids] or [b""], dtype=object)
    write_whole(path, b"".join(lines[prediction]))


def zip_scenes(folder: Path, scenes: Sequence[str], path: Path) -> None:
    """Pack the files of some scenes into one zip file.

    Raises:
        OSError: one is missing, or it cannot be written.
    """
    with replacing(path) as file, zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as packed:
        for name in sorted(scenes):
            member = zipfile.ZipInfo(f"{name}.txt")  # without the time: the same predictions give the same file
            packed.writestr(member, (folder / f"{name}.txt").read_bytes(), zipfile.ZIP_DEFLATED)


def read_submission(
    path: Path, sizes: Mapping[str, int], benchmark_ids: Sequence[int]
) -> Iterator[tuple[str, np.ndarray]]:
    """Check a submission and read it back, a scene at a time.

    Args:
        path: a directory of ``SCENE.txt``, or a zip file of them.
        sizes: number of points of every scene of the set.
        benchmark_ids: number of each class.

    Yields:
        Name, and [N] index of the class of each point, in the order of ``sizes``.

    Raises:
        DataError: a scene is missing or not of the set, has another number of lines, or a line is no class.
        OSError: it cannot be read.
    """
    archive = None if path.is_dir() else Archive(path)
    if archive is None:
        found = {file.name for file in path.iterdir() if file.suffix == ".txt"}
    else:
        found = set(archive.names)
    wanted = {f"{name}.txt" for name in sizes}
    for problem, names in (("has no", wanted - found), ("has a file of no scene of this set:", found - wanted)):
        if names:
            more = f" and {len(names) - 1} more" if len(names) > 1 else ""
            raise DataError(f"{path}: {problem} {min(names)}{more}")
    rows = {b"%d" % number: row for row, number in enumerate(benchmark_ids)}
    for name, size in sizes.items():
        where, most = f"{path}/{name}.txt", (size + 1) * _LONGEST
        yield name, _parse(_read(path, archive, name, most, where), size, rows, where)


def _read(path: Path, archive: Archive | None, name: str, most: int, where: str) -> bytes:
    if archive is not None:
        return archive.read(f"{name}.txt", most)
    with (path / f"{name}.txt").open("rb") as file:
        data = file.read(most + 1)
    if len(data) > most:
        raise DataError(f"{where}: has more than {most} bytes, too many for its points")
    return data


def _parse(data: bytes, size: int, rows: Mapping[bytes, int], where: str) -> np.ndarray:
    lines = data.splitlines()
    if len(lines) != size:
        raise DataError(f"{where}: has {len(lines)} lines, and the scene has {size} points")
    out = np.empty(size, dtype=np.int32)
    for number, line in enumerate(lines):
        row = rows.get(line)
        if row is None:
            raise DataError(f"{where}: line {number + 1} is {line[:20]!r}, which is no class of the benchmark")
        out[number] = row
    return out
