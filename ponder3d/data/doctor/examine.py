"""The examination of a dataset, scene by scene."""

import contextlib
import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from PIL import Image

from ponder3d.data.dataset import DataError
from ponder3d.data.doctor.copies import Copies
from ponder3d.data.doctor.findings import DRAWN, Examination, Fault, Finding, Picture, SceneReport, gathered
from ponder3d.data.doctor.frames import empty_labels, frame_faults, pose_faults, series_faults, strange_labels
from ponder3d.data.doctor.points import overlap_faults, point_faults, view_overlap
from ponder3d.data.doctor.sketch import Sketch, sketch
from ponder3d.data.doctor.views import Comparison, compare
from ponder3d.data.raw.checks import frame_problem, points_problem
from ponder3d.data.raw.dataset import Problem, RawDataset, RawFrame, RawPoints, RawScene
from ponder3d.data.rgbd_images import fitted_size

_CLOUD = 20_000
"""Points of a scene that are kept for its picture."""
_PICTURES = 24
"""Frames of findings that are shown, and of one scene at most a quarter of them."""
_PICTURE_SIDE = 320
_VIEWS, _VIEW_SIDE = 3, 160
"""Usable frames of a drawn scene that are shown, and the longer side of their pictures."""


@dataclass
class _Scene:
    """What is known of a scene while it is looked at."""

    faults: list[Fault] = field(default_factory=list)
    views: list[Sketch] = field(default_factory=list)
    """Usable frames."""
    points: RawPoints | None = None
    comparison: Comparison = field(default_factory=Comparison)
    overlap: float = float("nan")


def examine(
    dataset: RawDataset,
    frames_per_scene: int = 60,
    source: str = "",
    progress: Callable[[str, int, int], None] = lambda scene, number, total: None,
) -> Examination:
    """Look for everything that is wrong with a dataset. Frames are streamed; small versions of those of one scene are
    kept.

    Args:
        dataset: of any kind.
        frames_per_scene: so many at equal steps are looked at; 0: all.
        source: its directory, for the report.
        progress: called with the name and number of the scene that comes next, and the number of all.
    """
    start = time.monotonic()
    rows = dict(dataset.tables[0].rows) if dataset.tables else {}
    findings: list[Finding] = []
    listed: dict[str, list[Problem]] = {}
    for problem in dataset.problems:
        listed.setdefault(problem.scene, []).append(problem)
    reports, pictures, copies = [], [], Copies()
    for number, scene in enumerate(dataset.scenes):
        progress(scene.name, number, len(dataset.scenes))
        names = _chosen(scene.frames, frames_per_scene)
        known = _look(scene, names, dataset, frozenset(rows))
        before = listed.pop(scene.name, [])
        known.faults += [Fault(p.frame, p.kind, f"reader {p.kind}", p.what, "unusable") for p in before]
        known.faults += series_faults([*scene.frames, *(p.frame for p in before if p.frame not in scene.frames)])
        copies.add(scene.name, known.views, _cloud_key(known.points))
        of_scene = gathered(scene.name, known.faults, len(names) + sum(1 for p in before if p.frame))
        findings += of_scene
        reports.append(_report(scene, names, known, of_scene, number < DRAWN))
        pictures += _pictures(scene, known, of_scene, _PICTURES - len(pictures))
    for problems in listed.values():
        faults = [Fault(p.frame, p.kind, f"reader {p.kind}", p.what, "unusable") for p in problems]
        findings += gathered(problems[0].scene, faults, sum(1 for p in problems if p.frame))
    findings += copies.findings({(f.problem.scene, f.problem.frame) for f in findings})
    names_of_rows = dataset.tables[0].labels.names if dataset.tables else ()
    return Examination(
        source=source,
        findings=tuple(sorted(findings, key=lambda f: (f.severity != "unusable", f.problem))),
        scenes=tuple(reports),
        pictures=tuple(pictures),
        class_names={raw: names_of_rows[row] for raw, row in rows.items()},
        seconds=time.monotonic() - start,
    )


def _chosen(frames: Sequence[str], number: int) -> list[str]:
    """Frames at equal steps, the first and the last among them."""
    if not number or len(frames) <= number:
        return list(frames)
    return [frames[round(i * (len(frames) - 1) / (number - 1))] for i in range(number)] if number > 1 else [frames[0]]


def _look(scene: RawScene, names: Sequence[str], dataset: RawDataset, classes: frozenset[int]) -> _Scene:
    known = _Scene()
    try:
        with scene.keeping() if names else contextlib.nullcontext():
            _read(scene, names, dataset, known)
    except DataError as error:
        known.faults.append(Fault("", "file", "unreadable", str(error), "unusable"))
    if known.points is not None:
        known.faults += point_faults(known.points, classes)
    known.faults += frame_faults(known.views)
    no_labels = list(empty_labels(known.views, classes))
    blank = {fault.frame for fault in no_labels}
    known.faults += no_labels
    known.faults += [f for f in strange_labels(known.views, classes) if f.frame not in blank]
    _look_together(known)
    # A frame without labels whose neighbours have none there either sees what nobody has annotated.
    alike = known.comparison.labelled_alike
    known.faults = [f for f in known.faults if not (f.frame in alike and f.kind == "label" and f.topic == "empty")]
    return known


def _read(scene: RawScene, names: Sequence[str], dataset: RawDataset, known: _Scene) -> None:
    points = scene.read_points()
    problem = None if points is None else points_problem(points, dataset.known_ids)
    if problem is not None:
        known.faults.append(Fault("", problem[0], "points", problem[1], "unusable"))
    else:
        known.points = points
        repaired = () if points is None else points.problems
        known.faults += [Fault(p.frame, p.kind, f"repaired {p.kind}", p.what, "suspect") for p in repaired]
    for frame in scene.read_frames(names) if names else ():
        _take(frame, dataset, known)


def _take(frame: RawFrame | Problem, dataset: RawDataset, known: _Scene) -> None:
    if isinstance(frame, Problem):
        known.faults.append(Fault(frame.frame, frame.kind, f"reader {frame.kind}", frame.what, "unusable"))
        return
    wrong = frame_problem(frame, dataset.known_ids)
    if wrong is not None:
        known.faults.append(Fault(frame.name, wrong[0], f"frame {wrong[0]}", wrong[1], "unusable"))
        return
    known.views.append(sketch(frame))


def _look_together(known: _Scene) -> None:
    """Checks that need several views: of those that nothing is known against, so that one fault has one finding."""
    mute = {f.frame for f in known.faults if f.frame and (f.kind in ("intrinsics", "depth"))}
    sound = [view for view in known.views if view.name not in mute]
    blind = {f.frame for f in known.faults if f.kind == "colour" and f.topic == "blank"}
    shares = np.zeros(0)
    if known.points is not None and known.views:
        shares = view_overlap(known.views, known.points.xyz)
        finite = shares[np.isfinite(shares)]
        known.overlap = float(np.median(finite)) if len(finite) else float("nan")
    known.comparison = compare(sound)
    strangers = {f.frame for f in known.comparison.faults if f.topic.startswith("stranger") and f.kind != "label"}
    whole = any(not f.frame and f.kind != "label" for f in known.comparison.faults)
    # An image that is blank goes with no neighbour's: that has been said.
    odd = {f.frame for f in known.faults if f.frame and f.kind == "label"}
    known.faults += [
        f
        for f in known.comparison.faults
        if not (f.kind == "colour" and f.frame in blind or f.kind == "label" and f.frame in odd)
    ]
    if known.points is not None and known.views and not whole:
        known.faults += [f for f in overlap_faults(known.views, shares) if f.frame not in strangers | mute]
    if not whole:
        explained = strangers | set(known.comparison.fitting)
        known.faults += [f for f in pose_faults(sound) if f.frame not in explained]


def _cloud_key(points: RawPoints | None) -> bytes:
    return b"" if points is None else hashlib.blake2b(np.ascontiguousarray(points.xyz).tobytes()).digest()


def _report(
    scene: RawScene, names: Sequence[str], known: _Scene, findings: Sequence[Finding], drawn: bool
) -> SceneReport:
    unusable = {f.problem.frame for f in findings if f.severity == "unusable"}
    # A frame that is out of place would make the scene large.
    views, points = [v for v in known.views if v.name not in unusable], known.points
    xyz, rgb = _cloud(views, points)
    classes: dict[int, int] = {}
    for labels in [points.labels] if points is not None and points.labels is not None else [v.labels for v in views]:
        if labels is not None:
            for raw, count in zip(*np.unique(labels, return_counts=True), strict=True):
                classes[int(raw)] = classes.get(int(raw), 0) + int(count)
    x, y, z = (np.percentile(xyz, 99.5, axis=0) - np.percentile(xyz, 0.5, axis=0)).tolist() if len(xyz) else [0.0] * 3
    return SceneReport(
        name=scene.name,
        split=scene.split,
        source=scene.source,
        num_frames=len(scene.frames),
        num_examined=len(names),
        num_usable=0 if "" in unusable else len(views),
        depth_share=_median([v.depth_share for v in views]),
        median_depth=_median([v.median_depth for v in views]),
        agreement=known.comparison.agreement,
        colours=known.comparison.colours,
        overlap=known.overlap,
        num_points=0 if points is None else len(points.xyz),
        size=(x, y, z),
        classes=classes,
        # Copies: a part of an array would keep all of it.
        xyz=xyz[: len(xyz) * drawn].astype(np.float32),
        rgb=rgb[: len(rgb) * drawn].copy(),
        cameras=np.array([v.world_from_cam[:3, 3] for v in views]).reshape(-1, 3),
        views=_views(scene, [v.name for v in views]) if drawn else (),
    )


def _cloud(views: Sequence[Sketch], points: RawPoints | None) -> tuple[np.ndarray, np.ndarray]:
    """[N 3] places and [N 3] colours of a sample of the points, or of what the views see."""
    if points is not None:
        step = max(1, len(points.xyz) // _CLOUD)
        xyz = points.xyz[::step]
        grey = np.full((len(xyz), 3), 128, dtype=np.uint8)
        return xyz, grey if points.rgb is None else points.rgb[::step]
    parts, colours = [], []
    for view in views:
        if view.depth is not None:
            use = np.flatnonzero(view.depth.reshape(-1) > 0)
            use = use[:: max(1, len(use) * len(views) // _CLOUD)]
            camera = view.points.reshape(-1, 3)[use]
            parts.append(camera @ view.world_from_cam[:3, :3].T + view.world_from_cam[:3, 3])
            colours.append(view.rgb.reshape(-1, 3)[use])
    if not parts:
        return np.zeros((0, 3)), np.zeros((0, 3), dtype=np.uint8)
    return np.concatenate(parts), np.concatenate(colours)


def _views(scene: RawScene, names: Sequence[str]) -> tuple[Picture, ...]:
    """Some of a scene's usable frames, evenly over time."""
    num = min(_VIEWS, len(names))
    chosen = [names[(2 * i + 1) * len(names) // (2 * num)] for i in range(num)]
    try:
        frames = [f for f in scene.read_frames(chosen) if isinstance(f, RawFrame)] if chosen else []
    except DataError:
        return ()
    return tuple(Picture(scene.name, frame.name, *_small(frame, _VIEW_SIDE)) for frame in frames)


def _pictures(scene: RawScene, known: _Scene, findings: Sequence[Finding], room: int) -> list[Picture]:
    """Frames of findings beside one that fits, read once more at a better size."""
    wrong = list(dict.fromkeys(f.problem.frame for f in findings if f.problem.frame))
    fine = [v.name for v in known.views if v.name not in wrong]
    made = []
    for name in [n for n in wrong if n in scene.frames][: min(room, _PICTURES // 4)]:
        at = scene.frames.index(name)
        beside = known.comparison.partner.get(name) or min(
            fine, key=lambda other: abs(scene.frames.index(other) - at), default=""
        )
        try:
            frame, *others = scene.read_frames([name, beside] if beside else [name])
        except DataError:
            continue
        other = next((o for o in others if isinstance(o, RawFrame)), None)
        if isinstance(frame, RawFrame):
            rgb, depth = _small(frame)
            made.append(
                Picture(scene.name, name, rgb, depth, beside if other else "", *(_small(other) if other else ()))
            )
    return made


def _small(frame: RawFrame, side: int = _PICTURE_SIDE) -> tuple[np.ndarray, np.ndarray | None]:
    size = fitted_size((frame.rgb.shape[0], frame.rgb.shape[1]), side)
    rgb = np.array(Image.fromarray(np.ascontiguousarray(frame.rgb)).resize((size[1], size[0]), Image.Resampling.BOX))
    if frame.depth is None or frame.depth.shape != frame.rgb.shape[:2]:
        return rgb, None
    rows, columns = (
        ((np.arange(s) + 0.5) * n / s).astype(np.int64) for s, n in zip(size, frame.depth.shape, strict=True)
    )
    return rgb, frame.depth[np.ix_(rows, columns)]


def _median(values: Sequence[float]) -> float:
    finite = [v for v in values if np.isfinite(v)]
    return float(np.median(finite)) if finite else float("nan")
