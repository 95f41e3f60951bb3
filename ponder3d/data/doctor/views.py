"""Checks of neighbouring views against each other: who does not fit, and what would make it fit."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from ponder3d.data.doctor.agreement import (
    Meeting,
    Score,
    colour_correlation,
    label_agreement,
    meet,
    neighbours,
    score,
)
from ponder3d.data.doctor.findings import Fault
from ponder3d.data.doctor.sketch import Sketch

FACTORS = (0.001, 0.01, 0.1, 0.2, 0.5, 2.0, 5.0, 10.0, 100.0, 1000.0)
"""By which depth or positions may be off: mm, cm, 1/5000 m and the like taken for each other."""
_FINE = 0.02
"""Tolerance of depth where units are compared: with 5 %, wrong ones agree too well when the camera hardly moves."""
_PAIRS = 45
"""Pairs on which units and the direction of poses are tried: each costs about 15 ms."""
_COLOUR_OVERLAP = 0.25
"""Share of a view's surface whose brightness must be comparable: of less the correlation says little."""
_COLOUR_PIXELS = 60
"""Small pixels of it at least."""
_JUDGES = 4
"""Neighbours that must be able to judge a view for it to be unusable, not just suspect: of a sparse sequence two may
overlap it in a corner, and be wrong."""

_UPRIGHT = tuple(
    np.array(rows, dtype=np.float64)
    for rows in (
        *(((1, 0, 0), (0, 1, 0), (0, 0, 1)), ((-1, 0, 0), (0, 1, 0), (0, 0, -1))),
        *(((0, 0, -1), (0, 1, 0), (1, 0, 0)), ((0, 0, 1), (0, 1, 0), (-1, 0, 0))),
        *(((1, 0, 0), (0, 0, -1), (0, 1, 0)), ((1, 0, 0), (0, 0, 1), (0, -1, 0))),
    )
)
"""[3 3] rotations that take z, -z, x, -x, y and -y to z: by one of them a reader made its files' world upright, unless
something told it the direction of gravity."""

Pair = tuple[int, int]


@dataclass
class Comparison:
    """The views of a scene against each other."""

    faults: list[Fault] = field(default_factory=list)
    agreement: float = float("nan")
    """Median share of agreeing depth over all pairs."""
    colours: float = float("nan")
    """Median correlation of brightness over all pairs."""
    labels: float = float("nan")
    """Median share of equal labels over all pairs."""
    fitting: frozenset[str] = frozenset()
    """Frames whose depth agrees with most of their neighbours."""
    labelled_alike: frozenset[str] = frozenset()
    """Frames whose labels are those of most of their neighbours."""
    partner: dict[str, str] = field(default_factory=dict)
    """A frame that is as it should be, for each frame of a fault."""


def compare(views: Sequence[Sketch]) -> Comparison:
    """Look for views that do not fit their neighbours. Those without depth are left out.

    Args:
        views: usable frames of a scene, in the order of time.
    """
    views = [v for v in views if v.depth is not None and len(v.solid) >= 25]
    result = Comparison()
    if len(views) < 2:
        return result
    whole = _wrong_as_a_whole(views)
    if whole is not None:
        result.faults.append(whole)
    meetings: dict[Pair, tuple[Meeting, Meeting]] = {}
    for i, j in neighbours(views):
        meetings[i, j] = meet(views[i], views[j]), meet(views[j], views[i])
    scores = {pair: score(both) for pair, both in meetings.items()}
    shares = {pair: s.share for pair, s in scores.items()}
    result.agreement = _median(shares.values())
    if whole is not None or not np.isfinite(result.agreement):
        return result
    if result.agreement < 0.6:
        what = (
            f"neighbouring views agree on {result.agreement:.0%} of their common surface: "
            "poses, intrinsics or depth are wrong throughout"
        )
        severity = "unusable" if result.agreement < 0.4 else "suspect"
        result.faults.append(Fault("", "pose", "agreement", what, severity))
        return result
    strangers = outliers(len(views), _bad_depth(shares, scores))
    good = [i for i in range(len(views)) if i not in strangers]
    for i in strangers:
        result.faults.append(_explained(views, i, good, shares, result.agreement))
        result.partner[views[i].name] = views[min(good, key=lambda j: abs(i - j))].name if good else ""
    result.fitting = frozenset(views[i].name for i in good if any(i in p and shares[p] > 0.5 for p in shares))
    # Colours and labels are compared where depth agrees.
    sound = {pair: both for pair, both in meetings.items() if not set(pair) & set(strangers)}
    result.faults += _colours(views, sound, scores, result)
    result.faults += _labels(views, sound, result)
    return result


def outliers(num: int, bad: Mapping[Pair, bool], least: float = 0.6) -> list[int]:
    """Views that disagree with most of their neighbours. The worst goes first and takes its pairs along, so that a
    view whose only fault is to stand beside it is not named.

    Args:
        num: of views.
        bad: whether the two views of a pair disagree.
        least: share of a view's pairs that must be bad, two at least.
    """
    left, found = dict(bad), []
    while True:
        total, wrong = np.zeros(num), np.zeros(num)
        for pair, is_bad in left.items():
            total[list(pair)] += 1
            wrong[list(pair)] += is_bad
        share = np.where(wrong >= 2, wrong / np.maximum(total, 1), 0)
        worst = int(np.lexsort([wrong, share])[-1]) if num else 0
        if not num or share[worst] < least:
            return sorted(found)
        found.append(worst)
        left = {pair: is_bad for pair, is_bad in left.items() if worst not in pair}


def _bad_depth(shares: Mapping[Pair, float], scores: Mapping[Pair, Score]) -> dict[Pair, bool]:
    """Pairs that can be judged. One next to each other in time that sees nothing in common is bad if one of the two
    is lost."""
    values = np.array([s for s in shares.values() if np.isfinite(s)])
    usual = float(np.median(values))
    spread = 1.48 * float(np.median(np.abs(values - usual)))
    limit = usual - np.clip(4 * spread, 0.15, 0.35)
    bad = {pair: bool(share < limit) for pair, share in shares.items() if np.isfinite(share)}
    lost = _lost(shares, scores, bad)
    return bad | {(i, j): True for i, j in shares if (i, j) not in bad and j - i <= 2 and {i, j} & lost}


def _lost(shares: Mapping[Pair, float], scores: Mapping[Pair, Score], bad: Mapping[Pair, bool]) -> set[int]:
    """Views that agree with no other, and do not see what those before and after them see together. In a sequence
    whose views hardly overlap that means nothing."""
    next_ones = [pair for pair in shares if pair[1] == pair[0] + 1]
    typical = float(np.median([scores[pair].overlap for pair in next_ones]))
    if len(next_ones) < 4 or np.isfinite([shares[pair] for pair in next_ones]).mean() < 0.8 or typical <= 0.3:
        return set()
    last = len(next_ones)
    agreeing = {k for pair, is_bad in bad.items() if not is_bad for k in pair}
    found = set()
    for k in set(range(last + 1)) - agreeing:
        around = (1, 2) if k == 0 else (last - 2, last - 1) if k == last else (k - 1, k + 1)
        if not bad.get(around, True) and scores[around].overlap > typical / 2:
            found.add(k)
    return found


def _pooled(pairs: Sequence[tuple[Meeting, Meeting]]) -> tuple[float, float]:
    """Share of agreeing pixels over several pairs, and their share in all pixels that were tried."""
    total = score([m for both in pairs for m in both], _FINE)
    tried = sum(m.num for both in pairs for m in both)
    return total.agree / max(1, total.agree + total.contrary), total.agree / max(1, tried)


def _better(new: tuple[float, float], old: tuple[float, float]) -> bool:
    """Whether a change leaves less than half of the contradictions, and clearly more agreement; or makes much agree
    where hardly anything met."""
    clearer = 1 - new[0] < 0.5 * (1 - old[0]) and new[1] > 1.15 * old[1]
    return new[0] >= 0.8 and new[1] > 0.02 and (clearer or new[1] > 4 * old[1])


def _wrong_as_a_whole(views: Sequence[Sketch]) -> Fault | None:
    """Poses that are the wrong way round, or depth whose unit is not that of the poses."""
    pairs = [(i, i + gap) for gap in (1, 2, 4, 8) for i in range(len(views) - gap)]
    pairs = pairs[:: max(1, len(pairs) // _PAIRS)]
    if len(pairs) < 3:
        return None

    def tried(poses: Sequence[np.ndarray | None], factor: float) -> tuple[float, float]:
        both = [
            (
                meet(views[i], views[j], poses[i], poses[j], factor, factor),
                meet(views[j], views[i], poses[j], poses[i], factor, factor),
            )
            for i, j in pairs
        ]
        return _pooled(both)

    given = tried([None] * len(views), 1.0)
    if given[0] > 0.97 and given[1] > 0.05:
        return None
    for turn in _UPRIGHT:
        turned = tried([inverted(v.world_from_cam, turn) for v in views], 1.0)
        if not _better(turned, given):
            continue
        what = (
            f"the poses look like world to camera: inverted, neighbouring views agree on {turned[0]:.0%} of their "
            f"common surface, as they are on {given[0]:.0%}"
        )
        return Fault("", "pose", "inverse", what, "unusable")
    results = {factor: tried([None] * len(views), factor) for factor in FACTORS}
    factor = max(results, key=lambda f: results[f][0] * results[f][1])
    if not _better(results[factor], given):
        return None
    depth = _median(v.median_depth for v in views)
    numbers = f"{results[factor][0]:.0%} of their common surface agrees then, {given[0]:.0%} as it is"
    if factor >= 100 and depth < 60:
        what = f"camera positions are {factor:g} times too large for the depth ({numbers}): which unit have they?"
        return Fault("", "pose", "units", what, "unusable")
    unit = f"; if it was read as 1/1000 m, its unit is 1/{1000 / factor:g} m" if factor < 100 else ""
    what = f"depth times {factor:g} fits the poses ({numbers}){unit}"
    return Fault("", "depth", "units", what, "unusable")


def _explained(
    views: Sequence[Sketch], i: int, good: Sequence[int], shares: Mapping[Pair, float], usual: float
) -> Fault:
    """What is wrong with a view that does not fit: whatever single change makes it fit."""
    view = views[i]
    near = sorted(good, key=lambda j: abs(i - j))[:6]

    def tried(pose: np.ndarray | None, factor: float = 1.0) -> tuple[float, float]:
        return _pooled(
            [(meet(view, views[j], pose, None, factor), meet(views[j], view, None, pose, 1.0, factor)) for j in near]
        )

    as_it_is = tried(None)
    candidates: list[tuple[str, str, tuple[float, float]]] = []
    for factor in FACTORS:
        candidates.append(("depth", f"depth times {factor:g}", tried(None, factor)))
        moved = view.world_from_cam.copy()
        moved[:3, 3] *= factor
        candidates.append(("pose", f"position times {factor:g}", tried(moved)))
    for turn in _UPRIGHT:
        candidates.append(("pose", "pose inverted", tried(inverted(view.world_from_cam, turn))))
    kind, change, fit = max(candidates, key=lambda c: c[2][0] * c[2][1])
    own = [s for pair, s in shares.items() if i in pair and np.isfinite(s)]
    seen = f"agrees on {np.median(own):.0%} of the common surface" if own else "sees nothing that they see"
    what = f"it does not fit its neighbours: it {seen}, they on {usual:.0%} with each other"
    if near and _better(fit, as_it_is):
        return Fault(view.name, kind, f"stranger: {change}", f"{what}; with its {change} it would", "unusable")
    what += "; its pose or its depth is wrong, or it is a frame of something else"
    severity = "unusable" if len(own) >= _JUDGES and np.median(own) < 0.75 * usual else "suspect"
    return Fault(view.name, "pose", "stranger", what, severity)


def _colours(
    views: Sequence[Sketch],
    meetings: Mapping[Pair, tuple[Meeting, Meeting]],
    scores: Mapping[Pair, Score],
    result: Comparison,
) -> Iterator[Fault]:
    """Views whose brightness does not go with that of their neighbours."""
    values = {}
    for (i, j), both in meetings.items():
        surface = min(len(views[k].solid) for k in (i, j))
        if scores[i, j].agree >= 2 * max(_COLOUR_PIXELS, _COLOUR_OVERLAP * surface):
            values[i, j] = colour_correlation(views[i], views[j], both)
    values = {pair: value for pair, value in values.items() if np.isfinite(value)}
    result.colours = _median(values.values())
    if len(values) < 4 or result.colours < 0.4:  # lights that move, or nothing to see: no ground to stand on
        return
    limit = min(0.45, result.colours - 0.35)
    strangers = outliers(len(views), {pair: bool(value < limit) for pair, value in values.items()}, least=0.7)
    for i in strangers:
        own = {pair: value for pair, value in values.items() if i in pair}
        judges = [pair for pair in own if not (set(pair) - {i}) & set(strangers)][:6]
        what = (
            f"colour does not fit depth and pose: it goes with its neighbours' at {np.median(list(own.values())):.2f}, "
            f"theirs with each other's at {result.colours:.2f}"
        )
        owner = _owner(views, i, judges, meetings, result.colours)
        if owner:
            what += f"; the colour image of {owner} would fit"
        result.partner[views[i].name] = owner or views[max(0, i - 1) or min(1, len(views) - 1)].name
        yield Fault(views[i].name, "colour", "stranger", what, "unusable" if len(own) >= _JUDGES else "suspect")


def _owner(
    views: Sequence[Sketch],
    i: int,
    judges: Sequence[Pair],
    meetings: Mapping[Pair, tuple[Meeting, Meeting]],
    usual: float,
) -> str:
    """The frame whose colour image belongs to view ``i``; empty if there is none."""
    fits = {}
    for k, other in enumerate(views):
        if k != i and other.rgb.shape == views[i].rgb.shape and judges:
            found = []
            for pair in judges:
                j = pair[0] + pair[1] - i
                one, two = meetings[pair] if pair[0] == i else meetings[pair][::-1]
                found.append(colour_correlation(views[i], views[j], (one, two), other.rgb))
            fits[other.name] = _median(found)
    best = max(fits, key=lambda name: np.nan_to_num(fits[name], nan=-1), default="")
    return best if best and fits[best] > usual - 0.2 else ""


def _labels(
    views: Sequence[Sketch], meetings: Mapping[Pair, tuple[Meeting, Meeting]], result: Comparison
) -> Iterator[Fault]:
    """Views whose labels are not those of their neighbours."""
    values = {(i, j): label_agreement(views[i], views[j], both) for (i, j), both in meetings.items()}
    values = {pair: value for pair, value in values.items() if np.isfinite(value)}
    result.labels = _median(values.values())
    if len(values) >= 3 and result.labels < 0.5:
        what = f"neighbouring views have one label on {result.labels:.0%} of their common surface"
        yield Fault("", "label", "agreement", what, "suspect")
        return
    bad = {pair: bool(value < result.labels - 0.3) for pair, value in values.items()}
    own_values = [[value for pair, value in values.items() if i in pair] for i in range(len(views))]
    alike = [view.name for view, own in zip(views, own_values, strict=True) if _median(own) > result.labels - 0.3]
    result.labelled_alike = frozenset(alike)
    for i in outliers(len(views), bad, least=0.7):
        own = np.median(own_values[i])
        what = f"its labels are its neighbours' on {own:.0%} of the common surface; theirs agree on {result.labels:.0%}"
        yield Fault(views[i].name, "label", "stranger", what, "suspect")


def inverted(pose: np.ndarray, turn: np.ndarray) -> np.ndarray:
    """[4 4]: what a pose would be if the one in the files were inverted.

    Args:
        pose: [4 4] as it was read: ``turn`` times that of the files.
        turn: [3 3] by which the reader makes the files' world upright.
    """
    whole = np.eye(4)
    whole[:3, :3] = turn
    out = np.eye(4)
    out[:3, :3] = pose[:3, :3].T
    out[:3, 3] = -pose[:3, :3].T @ pose[:3, 3]
    return whole @ out @ whole


def _median(values) -> float:
    finite = [v for v in values if np.isfinite(v)]
    return float(np.median(finite)) if finite else float("nan")
