"""A list of scenes and frames to leave out: what the doctor writes and the readers honour.

``skip.tsv`` is text, one entry a line: scene, tab, frame (empty: the whole scene), tab, ``kind: reason``. Lines that
begin with ``#`` say nothing. Lines of words, ``scene frame`` or ``scene``, are read too: lists made by hand, and the
``skip.lst`` of PonderV2.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from ponder3d.data.dataset import DataError
from ponder3d.data.faults import raise_if_of_machine
from ponder3d.data.raw.dataset import SCENE_NAME, Problem
from ponder3d.files import write_whole

FILE_NAME = "skip.tsv"
"""Read where it lies in the directory of a dataset."""
_MAX_BYTES = 1 << 26
"""A list of a million frames has 64 MB."""
_HEADER = "# scene\tframe (empty: the whole scene)\twhy it is left out; remove a line to use what it names\n"


@dataclass(frozen=True)
class SkipList:
    """What to leave out, and why. An empty one leaves out nothing."""

    entries: dict[tuple[str, str], str] = field(default_factory=dict)
    """Reason by scene and frame; the frame of a whole scene is empty, numbers have no leading zeros."""
    where: str = ""
    """The file it was read from, for messages."""

    def scene(self, name: str) -> str | None:
        """Why a whole scene is left out; None if it is not."""
        return self.entries.get((name, ""))

    def frame(self, scene: str, frame: str) -> str | None:
        """Why a frame is left out, by itself or with its scene; None if it is not. 7 and 000007 are one frame."""
        return self.entries.get((scene, _plain(frame)), self.scene(scene))

    def strangers(self, scenes: Iterable[str]) -> tuple[str, ...]:
        """Scenes that the list names and the dataset does not have: the list may be for another directory."""
        known = set(scenes)
        return tuple(sorted({scene for scene, _ in self.entries} - known))


def read_skip_list(path: Path) -> SkipList:
    """Read a skip list.

    Raises:
        DataError: it cannot be read, or a line is no entry.
    """
    try:
        size = path.stat().st_size
        if size > _MAX_BYTES:
            raise DataError(f"{path}: {size} bytes; a skip list has at most {_MAX_BYTES}")
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not a text in UTF-8 ({error})") from error
    except OSError as error:
        raise_if_of_machine(error, path)
        raise DataError(f"{path}: cannot be read ({error.strerror or error})") from error
    return parse_skip_list(text, str(path))


def skip_list_of(root: Path, path: str = "") -> SkipList:
    """The skip list that somebody named, or else the one in the directory of a dataset, or else an empty one.

    Raises:
        DataError: see ``read_skip_list``.
    """
    if path:
        return read_skip_list(Path(path))
    return read_skip_list(root / FILE_NAME) if (root / FILE_NAME).is_file() else SkipList()


def parse_skip_list(text: str, where: str) -> SkipList:
    """The entries of a text; of two for the same thing the first holds.

    Args:
        text: of a skip list.
        where: its file, for messages.

    Raises:
        DataError: naming the line that is no entry.
    """
    entries: dict[tuple[str, str], str] = {}
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip() or line.startswith("#"):
            continue
        columns = line.rstrip("\r").split("\t", 2) if "\t" in line else line.split()
        if len(columns) > 2 and "\t" not in line:
            raise DataError(
                f"{where}: line {number} has {len(columns)} words; write scene, tab, frame, tab, reason, or scene frame"
            )
        scene, frame, reason = (*(column.strip() for column in columns), "", "")[:3]
        if not SCENE_NAME.match(scene):
            raise DataError(f"{where}: line {number}: {scene[:60]!r} is no name of a scene")
        entries.setdefault((scene, _plain(frame)), reason or "listed without a reason")
    return SkipList(entries, where)


def write_skip_list(path: Path, problems: Iterable[Problem], keep: SkipList | None = None) -> None:
    """Write a skip list, whole or not at all; ``parse_skip_list`` reads it, whatever the names are.

    What has a name that no line can hold, such as a scene with a space, becomes a comment: the readers refuse such
    scenes anyway.

    Args:
        path: the file.
        problems: what to leave out; one line for each scene and frame, with all that is wrong with it.
        keep: entries to write too, such as those that were in the file before.
    """
    reasons: dict[tuple[str, str], list[str]] = {}
    for problem in problems:
        reasons.setdefault((problem.scene, problem.frame), []).append(f"{problem.kind}: {problem.what}")
    known = {(scene, _plain(frame)) for scene, frame in reasons}
    for (scene, frame), reason in (keep.entries if keep else {}).items():
        if (scene, frame) not in known:
            reasons[scene, frame] = [reason]
    lines, comments = [], []
    for (scene, frame), why in sorted(reasons.items()):
        reason = " ".join("; ".join(why).split())
        if _fits(scene, frame):
            lines.append(f"{scene}\t{frame}\t{reason}\n")
        else:
            comments.append(f"# not listed, for its name: {scene!a} {frame!a}: {reason}\n")
    # Names of files that are no UTF-8 have lone surrogates in Python.
    write_whole(path, (_HEADER + "".join(lines + comments)).encode(errors="backslashreplace"))


def _fits(scene: str, frame: str) -> bool:
    """Whether ``parse_skip_list`` finds a scene and a frame in a line as they are."""
    plain = frame == frame.strip() and not set(frame) & set("\t\r\n") and not re.search("[\ud800-\udfff]", frame)
    return plain and SCENE_NAME.match(scene) is not None


def _plain(frame: str) -> str:
    return (frame.lstrip("0") or "0") if frame.isdigit() else frame
