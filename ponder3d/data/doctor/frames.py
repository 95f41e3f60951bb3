"""Checks of single frames, most of them against the others of the scene."""

import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from ponder3d.data.doctor.findings import MOST, Fault
from ponder3d.data.doctor.sketch import EDGE, Sketch
from ponder3d.data.raw.checks import MAX_EXTENT

CENTRE = 0.25
"""Share of the image size by which a camera's centre may lie off the image's."""
ANGLES = (10.0, 150.0)
"""Degrees across the image that a pinhole camera sees."""
DEPTHS = (0.05, 60.0)
"""Metres between which the median depth of a scene's views usually lies, indoors and out."""
MAX_PATH = 2000.0
"""Metres that the cameras of a scene are usually apart at most; drives may be longer."""
_NO_PATH = 50 * MAX_EXTENT
"""Metres: no recording goes so far, but one of a kilometre does in millimetres."""
SMOOTH = 0.7
"""Share of adjacent pixels of a small depth image that lie on one surface, at least; recordings have 0.96 and more."""
_STRANGE = 0.02
"""Share of a label image that an id without a class covers, for it to be worth a word."""
_JUMP = 10.0
"""A frame that is so many median steps away from both its neighbours jumps."""


def frame_faults(views: Sequence[Sketch]) -> Iterator[Fault]:
    """What is wrong with images and intrinsics of the frames of a scene, each for itself or unlike the others."""
    for view, what in _sizes(views):
        yield Fault(view.name, "colour", "size", what, "suspect")
    for topic, check in (("centre", _centres), ("focal", _focals), ("lens", _lenses)):
        for view, what in check(views):
            yield Fault(view.name, "intrinsics", topic, what, "unusable" if topic == "centre" else "suspect")
    for view, what in _blank(views):
        yield Fault(view.name, "colour", "blank", what, "unusable" if "of one colour" not in what else "suspect")
    for view, what in _grey(views):
        yield Fault(view.name, "colour", "grey", what, "suspect")
    for view, what in _flat_depth(views):
        yield Fault(view.name, "depth", "flat", what, "unusable")
    for view, what in _noisy_depth(views):
        yield Fault(view.name, "depth", "noise", what, "unusable")
    for view, what in _clipped_depth(views):
        yield Fault(view.name, "depth", "clipped", what, "suspect")
    for view, what in _sparse_depth(views):
        yield Fault(view.name, "depth", "sparse", what, "suspect")
    depth = np.array([v.median_depth for v in views])
    typical = float(np.median(depth[np.isfinite(depth)])) if np.isfinite(depth).any() else 1.0
    if not DEPTHS[0] <= typical <= DEPTHS[1]:
        what = f"half of what the views see is nearer than {typical:.4g} m, and half farther: which unit has the depth?"
        yield Fault("", "depth", "units", what, "unusable" if typical > MAX_EXTENT else "suspect")


def empty_labels(views: Sequence[Sketch], classes: frozenset[int]) -> Iterator[Fault]:
    """Frames whose label images name no class, where those of others do.

    Args:
        views: of a scene.
        classes: raw ids that have a class; empty: all have.
    """
    labelled = [(v, v.labels) for v in views if v.labels is not None]
    empty = [v for v, labels in labelled if not np.isin(labels, list(classes)).any()] if classes else []
    if empty and len(empty) == len(labelled):
        yield Fault("", "label", "empty", "no pixel of its label images has a class of the dataset", "suspect")
    elif len(empty) <= (1 - MOST) * len(labelled):
        for view in empty:
            yield Fault(view.name, "label", "empty", "no pixel of the label image has a class; others' have", "suspect")


def strange_labels(views: Sequence[Sketch], classes: frozenset[int]) -> Iterator[Fault]:
    """Raw ids without a class that cover a part of few frames only: where any id may occur, those are the odd ones.

    Args:
        views: of a scene.
        classes: raw ids that have a class; empty: all have.
    """
    labelled = [(v, np.unique(v.labels, return_counts=True)) for v in views if v.labels is not None]
    if not classes or len(labelled) < 3:
        return
    frames = Counter(int(i) for _, (ids, _) in labelled for i in ids)
    for view, (ids, counts) in labelled:
        for raw, count in zip(ids.tolist(), counts.tolist(), strict=True):
            share = count / counts.sum()
            if raw not in classes and share > _STRANGE and frames[raw] <= (1 - MOST) * len(labelled):
                what = f"label {raw} on {share:.0%} of its pixels, which has no class and hardly occurs in other frames"
                yield Fault(view.name, "label", "strange", what, "suspect")
                break


def series_faults(names: Sequence[str]) -> Iterator[Fault]:
    """Numbers that are missing in a series of frames whose names differ in one number only."""
    parts = [re.fullmatch(r"(.*?)(\d+)(\D*)", name) for name in names]
    if len(names) < 4 or not all(parts) or len({(p[1], p[3]) for p in parts if p}) != 1:
        return
    numbers = np.sort([int(p[2]) for p in parts if p])
    steps = np.diff(numbers)
    step, times = Counter(steps.tolist()).most_common(1)[0]
    if step < 1 or times < MOST * len(steps):
        return
    gaps = [(int(a), int(b)) for a, b, s in zip(numbers, numbers[1:], steps, strict=False) if s > 1.5 * step]
    if gaps:
        shown = ", ".join(f"between {a} and {b}" for a, b in gaps[:4]) + (" and more" if len(gaps) > 4 else "")
        yield Fault(
            "", "file", "gaps", f"frames are numbered in steps of {step}, and some are missing: {shown}", "suspect"
        )


def pose_faults(views: Sequence[Sketch]) -> Iterator[Fault]:
    """Camera positions that are implausible, by themselves or next to those before and after."""
    if len(views) < 2:
        return
    at = np.stack([v.world_from_cam[:3, 3] for v in views])
    spread = float(np.linalg.norm(at - np.median(at, 0), axis=1).max())
    usual = float(np.median(np.linalg.norm(at - np.median(at, 0), axis=1)))
    if usual > MAX_PATH / 2:
        what = f"its cameras are up to {spread:.4g} m from their middle: are the positions in metres?"
        yield Fault("", "pose", "units", what, "unusable" if usual > _NO_PATH else "suspect")
        return
    for i in _jumps(at):
        step = float(min(np.linalg.norm(at[i] - at[j]) for j in (i - 1, i + 1) if 0 <= j < len(at)))
        what = f"the camera jumps {step:.3g} m away from the frames before and after; they are close together"
        yield Fault(views[i].name, "pose", "jump", what, "suspect")


def _jumps(at: np.ndarray) -> list[int]:
    """Positions far from both neighbours, which are near each other; at either end from the next two."""
    if len(at) < 5:
        return []

    def gap(i: int, j: int) -> float:
        return float(np.linalg.norm(at[i] - at[j]))

    median = float(np.median(np.linalg.norm(np.diff(at, axis=0), axis=1)))
    limit = max(_JUMP * median, 0.3)
    found = []
    for i in range(len(at)):
        a, b = (1, 2) if i == 0 else (i - 1, i - 2) if i == len(at) - 1 else (i - 1, i + 1)
        if min(gap(i, a), gap(i, b)) > limit and gap(a, b) < 0.5 * min(gap(i, a), gap(i, b)):
            found.append(i)
    return found


Told = Iterator[tuple[Sketch, str]]


def _unlike(views: Sequence[Sketch], value: Callable[[Sketch], tuple]) -> tuple[tuple | None, list[Sketch]]:
    """The value that most views have, and the views that have another."""
    counts = Counter(value(v) for v in views)
    if len(counts) < 2:
        return None, []
    usual, times = counts.most_common(1)[0]
    return (usual, [v for v in views if value(v) != usual]) if times >= MOST * len(views) else (None, [])


def _sizes(views: Sequence[Sketch]) -> Told:
    usual, others = _unlike(views, lambda v: v.size)
    for v in others:
        assert usual
        yield v, f"its images have {v.size[1]}x{v.size[0]} pixels, most others have {usual[1]}x{usual[0]}"


def _lenses(views: Sequence[Sketch]) -> Told:
    def lens(v: Sketch) -> tuple:
        k, (height, width) = v.full_intrinsics, v.size
        # In shares of the image, to 2 %: frames may come at several sizes, and calibrations wander a little.
        return tuple(np.round(50 * np.array([k[0, 0] / width, k[1, 1] / height])).astype(int).tolist())

    _, others = _unlike(views, lens)
    for v in others:
        yield v, f"its focal length, {v.full_intrinsics[0, 0]:.4g} pixels, is not that of most others"


def _centres(views: Sequence[Sketch]) -> Told:
    for v in views:
        k, (height, width) = v.full_intrinsics, v.size
        off = max(abs((k[0, 2] + 0.5) / width - 0.5), abs((k[1, 2] + 0.5) / height - 0.5))
        if off > CENTRE:
            yield (
                v,
                f"they put the centre at ({k[0, 2]:.4g}, {k[1, 2]:.4g}) of an image of {width}x{height} pixels: "
                "are they for another image size?",
            )


def _focals(views: Sequence[Sketch]) -> Told:
    for v in views:
        fx, fy = v.full_intrinsics[0, 0], v.full_intrinsics[1, 1]
        across = 2 * np.degrees(np.arctan(v.size[1] / (2 * fx)))
        if not ANGLES[0] <= across <= ANGLES[1]:
            yield v, f"with a focal length of {fx:.4g} pixels an image of {v.size[1]} sees {across:.3g} degrees across"
        elif not 0.6 < fx / fy < 1.67:  # images of one sequence may have been given one shape
            yield v, f"focal lengths {fx:.4g} and {fy:.4g}: pixels are not so far from square"


def _blank(views: Sequence[Sketch]) -> Told:
    blank = [v for v in views if v.is_blank]
    if not blank:
        return
    # Where all images are of a few flat colours, one that shows a single wall has a single colour.
    painted = np.mean([v.is_painted for v in views]) > 0.5
    for v in blank:
        r, g, b = v.rgb.reshape(-1, 3).mean(0)
        name = "black" if max(r, g, b) < 4 else "white" if min(r, g, b) > 251 else "of one colour"
        if not (painted and name == "of one colour"):
            yield v, f"the image is {name}"


def _grey(views: Sequence[Sketch]) -> Told:
    grey = [v for v in views if v.is_grey and not v.is_blank]
    if len(grey) <= (1 - MOST) * len(views):
        for v in grey:
            yield v, "the image is grey, those of most others are coloured"


def _flat_depth(views: Sequence[Sketch]) -> Told:
    for v in views:
        if v.depth is not None and v.depth_share > 0.5 and v.depth_values <= 1 + (v.depth_share < 1):
            yield v, f"every pixel has the depth {v.median_depth:.4g} m"


def _noisy_depth(views: Sequence[Sketch]) -> Told:
    smooth = np.array([_smoothness(v) for v in views])
    usual = float(np.nanmedian(smooth)) if np.isfinite(smooth).any() else 1.0
    for v, share in zip(views, smooth, strict=True):
        if share < max(SMOOTH, usual - 0.15):
            rest = f", {1 - usual:.0%} in others" if usual > SMOOTH else ""
            odd = f"{1 - share:.0%} of adjacent pixels are of different surfaces{rest}"
            yield v, f"{odd}: this is noise, or its 16 bits have another order"


def _smoothness(view: Sketch) -> float:
    """Share of adjacent pixels that lie on one surface; NaN where there are too few."""
    if view.depth is None:
        return float("nan")
    one, two = view.depth[:, :-1], view.depth[:, 1:]
    both = (one > 0) & (two > 0)
    smooth = np.maximum(one, two)[both] < EDGE * np.minimum(one, two)[both]
    return float(smooth.mean()) if len(smooth) >= 50 else float("nan")


def _clipped_depth(views: Sequence[Sketch]) -> Told:
    for v in views:
        if v.depth is None or not (v.depth > 0).any() or v.depth_values <= 2:
            continue
        top = v.depth.max()
        share = float((v.depth == top).sum() / (v.depth > 0).sum())
        if share > 0.3:
            yield v, f"{share:.0%} of its depth is {top:.4g} m, the largest there is: does that mean no depth?"


def _sparse_depth(views: Sequence[Sketch]) -> Told:
    share = np.array([v.depth_share for v in views])
    usual = float(np.nanmedian(share)) if np.isfinite(share).any() else 0.0
    for v in views:
        if v.depth_share < 0.15 * usual:
            yield v, f"only {v.depth_share:.1%} of its pixels have a depth; the others have {usual:.0%}"
