"""What the doctor found."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from ponder3d.data.raw.dataset import Problem

Severity = Literal["unusable", "suspect"]
DRAWN = 12
"""Scenes, the first ones, of which clouds and views are kept to be drawn."""
MOST = 0.8
"""What is true of this share of a scene's frames is said once, of the scene."""


@dataclass(frozen=True)
class Finding:
    """Something wrong with a scene or a frame."""

    problem: Problem
    severity: Severity
    """``unusable``: training on it does harm, and the skip list names it. ``suspect``: somebody should look at it."""


@dataclass(frozen=True)
class Fault:
    """What a check says about one frame, or about all of a scene."""

    frame: str
    """Empty: the scene."""
    kind: str
    """Of ``Problem.kind``."""
    topic: str
    """What is wrong, in a few words: faults of one topic can be summed up."""
    what: str
    severity: Severity


@dataclass(frozen=True, eq=False)
class Picture:
    """A frame, and for that of a finding one beside it that is as it should be."""

    scene: str
    frame: str
    rgb: np.ndarray
    """[H W 3] uint8."""
    depth: np.ndarray | None
    """[H W] metres."""
    beside: str = ""
    """Name of the other frame; empty: there is none."""
    beside_rgb: np.ndarray | None = None
    beside_depth: np.ndarray | None = None


@dataclass(frozen=True, eq=False)
class SceneReport:
    """A scene in numbers; those that could not be measured are NaN."""

    name: str
    split: str
    source: str
    num_frames: int
    num_examined: int
    """Frames that were looked at."""
    num_usable: int
    """Of those, the ones without a finding that makes them unusable."""
    depth_share: float
    """Median share of the pixels that have a depth."""
    median_depth: float
    """Metres."""
    agreement: float
    """Median over pairs of neighbouring views: share of the common surface that both see at one depth."""
    colours: float
    """Median over pairs of neighbouring views: correlation of brightness on the common surface."""
    overlap: float
    """Median share of a view's pixels that lie near a point of the cloud."""
    num_points: int
    size: tuple[float, float, float]
    """Extent in metres, of the points or of what the views see."""
    classes: dict[int, int]
    """Number of points, or else of pixels that were looked at, by raw id."""
    xyz: np.ndarray
    """[N 3] a sample of the points, or of what the views see, for a picture; none where the scene is not drawn."""
    rgb: np.ndarray
    """[N 3] uint8."""
    cameras: np.ndarray
    """[F 3] camera positions."""
    views: tuple[Picture, ...] = ()
    """Some usable frames, evenly over time; none where the scene is not drawn."""


@dataclass(frozen=True, eq=False)
class Examination:
    """All that the doctor has to say about a dataset."""

    source: str
    """Directory of the dataset."""
    findings: tuple[Finding, ...]
    scenes: tuple[SceneReport, ...]
    pictures: tuple[Picture, ...] = ()
    class_names: dict[int, str] = field(default_factory=dict)
    """Name of the class of a raw id, in the dataset's first table."""
    seconds: float = 0.0
    """That the examination took."""

    @property
    def unusable(self) -> tuple[Problem, ...]:
        """What the skip list names."""
        return tuple(f.problem for f in self.findings if f.severity == "unusable")


def gathered(scene: str, faults: Sequence[Fault], num_frames: int) -> list[Finding]:
    """Faults of a scene as findings: one that most frames share is one finding of the scene.

    Args:
        scene: its name.
        faults: of the scene and its frames.
        num_frames: frames that were looked at.
    """
    topics: dict[tuple[str, str], list[Fault]] = {}
    for fault in faults:
        topics.setdefault((fault.kind, fault.topic), []).append(fault)
    findings = []
    for (kind, _), group in topics.items():
        of_frames = {f.frame for f in group if f.frame}
        if len(of_frames) >= max(3, MOST * num_frames):
            first = next(f for f in group if f.frame)
            number = f"all {num_frames}" if len(of_frames) == num_frames else f"{len(of_frames)} of {num_frames}"
            what = f"{number} frames that were looked at, such as {first.frame}: {first.what}"
            findings.append(Finding(Problem(scene, "", kind, what), first.severity))
            group = [f for f in group if not f.frame]
        findings += [Finding(Problem(scene, f.frame, kind, f.what), f.severity) for f in group]
    return sorted(findings, key=lambda f: (f.problem.frame, f.problem.kind, f.problem.what))
