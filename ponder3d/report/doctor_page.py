"""What the doctor found: a page with pictures, a table for the terminal, a skip list."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from ponder3d.data.dataset import DataError
from ponder3d.data.doctor.examine import examine
from ponder3d.data.doctor.findings import DRAWN, Examination, Finding, Picture, SceneReport
from ponder3d.data.doctor.opening import open_data
from ponder3d.data.raw.dataset import RawDatasetConfig
from ponder3d.data.skip_list import FILE_NAME, SkipList, read_skip_list, write_skip_list
from ponder3d.report.html import Page, chart, cloud, picture
from ponder3d.report.svg import Bar, bar_chart

_LISTED = 200
"""Findings of one kind that are listed."""
_CLASSES = 30
_HEADER = (
    *("scene", "split", "frames", "looked at", "usable", "depth", "median, m", "agreement", "colours", "overlap"),
    *("points", "size, m", "classes"),
)
_CAMERA = (255, 60, 60)


def doctor(
    data: str,
    kind: str = "",
    out: str = "doctor",
    frames: int = 60,
    apply: bool = False,
    config: RawDatasetConfig | None = None,
    progress: Callable[[str, int, int], None] = lambda scene, number, total: None,
) -> tuple[Examination, Path]:
    """Examine a dataset and write the page and the skip list.

    Args:
        data: directory of the dataset, or the URL of a prepared one.
        kind: see ``open_data``.
        out: directory of the page.
        frames: of each scene that are looked at; 0: all.
        apply: also write the skip list where readers of the dataset look for it; entries that are there stay.
        config: how a raw dataset is read; None: as ``config_of`` says.
        progress: see ``examine``.

    Returns:
        The examination and the path of the page.

    Raises:
        DataError: it is no dataset, or its present skip list cannot be read.
        OSError: something cannot be read or written.
    """
    if frames < 0:
        raise DataError(f"frames must be at least 0, it is {frames}")
    if apply and "://" in data:
        raise DataError(f"{data}: no directory to write {FILE_NAME} into; copy that of the page there yourself")
    present = Path(data) / FILE_NAME
    keep = read_skip_list(present) if apply and present.is_file() else SkipList()
    dataset = open_data(data, kind) if config is None else config.build()
    examination = examine(dataset, frames, source=data, progress=progress)
    page = write_doctor_page(examination, Path(out))
    if apply:
        write_skip_list(present, examination.unusable, keep)
    return examination, page


def write_doctor_page(examination: Examination, out: Path) -> Path:
    """Write ``index.html`` and ``skip.tsv`` into a directory.

    Returns:
        The path of the page.
    """
    write_skip_list(out / FILE_NAME, examination.unusable)
    page = Page(f"Doctor: {examination.source}", f"{len(examination.scenes)} scenes, {examination.seconds:.0f} s")
    page.text(summary_line(examination))
    if examination.findings:
        page.heading("Findings")
        _write_findings(page, examination)
    if examination.pictures:
        page.heading("Frames of findings")
        page.text("Each frame of a finding, colour and depth, beside one that is as it should be.")
        for shown in examination.pictures:
            at = (shown.scene, shown.frame)
            here = [f.problem for f in examination.findings if (f.problem.scene, f.problem.frame) == at]
            page.text(f"{'/'.join(at)}: {'; '.join(f'{problem.kind}: {problem.what}' for problem in here)}")
            page.row(_side_by_side(shown))
    page.heading("Scenes")
    page.table(_HEADER, [_row(report) for report in examination.scenes], style="dense")
    page.text(
        "depth: share of the pixels that have one; then its median in metres. agreement: share of the common surface "
        "of neighbouring views that both see at one depth, to 5 %. colours: correlation of their brightness there. "
        "overlap: share of the views' depth that ends near the cloud. All are medians."
    )
    page.heading("What they look like")
    shown = examination.scenes[:DRAWN]
    if len(examination.scenes) > len(shown):
        page.text(f"The first {len(shown)} of {len(examination.scenes)}.")
    for report in shown:
        page.text(report.name)
        page.row(_cloud(report))
        page.row([part for view in report.views for part in _side_by_side(view, 160)])
    totals = _class_totals(examination)
    if totals:
        page.heading("Classes")
        page.row([chart(bar_chart("share of labelled points or pixels", totals))])
    page.write(out / "index.html")
    return out / "index.html"


def summary_line(examination: Examination) -> str:
    """The outcome in one sentence."""
    bad = len(examination.unusable)
    odd = len(examination.findings) - bad
    looked = sum(report.num_examined for report in examination.scenes)
    frames = sum(report.num_frames for report in examination.scenes)
    seen = f"{len(examination.scenes)} scenes, {looked} of {frames} frames looked at"
    if not bad and not odd:
        return f"{seen}: nothing wrong was found."
    return f"{seen}: {bad} findings that make something unusable (in the skip list), {odd} that are suspect."


def summary_table(examination: Examination, most: int = 30) -> str:
    """Table and findings for the terminal.

    Args:
        examination: what was found.
        most: scenes, and findings of either severity, that are listed.
    """
    rows = [_HEADER, *(_row(report) for report in examination.scenes[:most])]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEADER))]
    lines = []
    for name, *cells in rows:
        padded = [cell.rjust(width) for cell, width in zip(cells, widths[1:], strict=True)]
        lines.append("  ".join([name.ljust(widths[0]), *padded]))
    if len(examination.scenes) > most:
        lines.append(f"... and {len(examination.scenes) - most} more scenes")
    for severity in ("unusable", "suspect"):
        found = [f for f in examination.findings if f.severity == severity]
        lines += ["", *(f"{severity}: {finding.problem}" for finding in found[:most])] if found else []
        if len(found) > most:
            lines.append(f"... and {len(found) - most} more")
    return "\n".join([*lines, "", summary_line(examination)])


def _write_findings(page: Page, examination: Examination) -> None:
    kinds: dict[str, list[Finding]] = {}
    for finding in examination.findings:
        kinds.setdefault(finding.problem.kind, []).append(finding)
    for kind, findings in sorted(kinds.items()):
        rows = [(f.problem.scene, f.problem.frame, f.severity, f.problem.what) for f in findings[:_LISTED]]
        page.table((f"{kind} ({len(findings)})", "frame", "", "what"), rows, style="words")
        if len(findings) > _LISTED:
            page.text(f"... and {len(findings) - _LISTED} more; {FILE_NAME} has those that make something unusable.")


def _row(report: SceneReport) -> tuple[str, ...]:
    x, y, z = report.size
    return (
        report.name,
        report.split,
        str(report.num_frames),
        str(report.num_examined),
        str(report.num_usable),
        _share(report.depth_share),
        "-" if np.isnan(report.median_depth) else f"{report.median_depth:.2f}",
        _share(report.agreement),
        "-" if np.isnan(report.colours) else f"{report.colours:.2f}",
        _share(report.overlap),
        str(report.num_points) if report.num_points else "-",
        f"{x:.1f}x{y:.1f}x{z:.1f}" if any(report.size) else "-",
        str(len(report.classes)) if report.classes else "-",
    )


def _share(value: float) -> str:
    return "-" if np.isnan(value) else f"{value:.0%}" if value < 0.995 else f"{value:.1%}"


def _side_by_side(shown: Picture, width: int = 250) -> list[str]:
    """Colour and depth, and those of the frame beside it."""
    measured = [d[d > 0] for d in (shown.depth, shown.beside_depth) if d is not None and d.any()]
    top = max((float(np.percentile(d, 98)) for d in measured), default=1.0)
    parts = [picture(torch.from_numpy(shown.rgb), shown.frame, width)]
    if shown.depth is not None:
        parts.append(picture(_depth_picture(shown.depth, top), f"its depth, 0 to {top:.2g} m", width))
    if shown.beside_rgb is not None:
        parts.append(picture(torch.from_numpy(shown.beside_rgb), f"beside: {shown.beside}", width))
    if shown.beside_depth is not None:
        parts.append(picture(_depth_picture(shown.beside_depth, top), "its depth", width))
    return parts


def _depth_picture(depth: np.ndarray, top: float) -> torch.Tensor:
    """Near is bright; black where there is none."""
    near = 1 - np.clip(depth / max(top, 1e-6), 0, 1)
    rgb = np.stack([40 + 215 * near, 40 + 190 * near**1.5, 70 + 120 * (1 - near)], axis=-1)
    return torch.from_numpy(np.where(depth[..., None] > 0, rgb, 0).astype(np.uint8))


def _cloud(report: SceneReport) -> list[str]:
    """The scene from any side, and from above with its cameras."""
    if not len(report.xyz):
        return []
    lo, hi = np.percentile(report.xyz, [0.5, 99.5], axis=0)
    margin = 0.25 * (hi - lo).max()
    keep = ((report.xyz >= lo - 0.1) & (report.xyz <= hi + 0.1)).all(1)
    xyz, rgb = report.xyz[keep], report.rgb[keep]
    cameras = report.cameras[((report.cameras > lo - margin) & (report.cameras < hi + margin)).all(1)]
    # A camera is a small ball of points, a hundredth of the scene in size.
    ball = np.random.default_rng(0).normal(size=(40, 3)) * 0.004 * (hi - lo).max()
    balls = (cameras[:, None] + ball).reshape(-1, 3).astype(np.float32)
    red = np.tile(np.array(_CAMERA, dtype=np.uint8), (len(balls), 1))
    both = torch.from_numpy(np.concatenate([xyz, balls])), torch.from_numpy(np.concatenate([rgb, red]))
    x, y, _ = report.size
    return [
        cloud(*both, "cameras are red"),
        picture(_from_above(xyz, rgb, cameras), f"from above, {x:.1f} x {y:.1f} m", 300),
    ]


def _from_above(xyz: np.ndarray, rgb: np.ndarray, cameras: np.ndarray, side: int = 150) -> torch.Tensor:
    """[S S 3]: the highest points, below the topmost tenth that hides a room, and the cameras."""
    everything = np.concatenate([xyz, cameras])[:, :2]
    lo = everything.min(0)
    scale = (side - 1) / max(float((everything.max(0) - lo).max()), 1e-6)
    image = np.full((side, side, 3), 255, dtype=np.uint8)
    below = xyz[:, 2] <= np.percentile(xyz[:, 2], 90)
    order = np.flatnonzero(below)[np.argsort(xyz[below, 2], kind="stable")]
    at = ((xyz[order, :2] - lo) * scale).astype(int)
    image[side - 1 - at[:, 1], at[:, 0]] = rgb[order]
    at = ((cameras[:, :2] - lo) * scale).astype(int)
    for du, dv in ((0, 0), (1, 0), (0, 1), (1, 1)):
        image[np.clip(side - 1 - at[:, 1] + dv, 0, side - 1), np.clip(at[:, 0] + du, 0, side - 1)] = _CAMERA
    return torch.from_numpy(image)


def _class_totals(examination: Examination) -> list[Bar]:
    """Share of each class in all labelled points or pixels, the largest first; raw ids without a class by number."""
    totals: dict[str, int] = {}
    for report in examination.scenes:
        for raw, count in report.classes.items():
            name = examination.class_names.get(raw, f"no class ({raw})")
            totals[name] = totals.get(name, 0) + count
    everything = sum(totals.values())
    ordered = sorted(totals.items(), key=lambda item: -item[1])
    rest = sum(count for _, count in ordered[_CLASSES:])
    bars = [Bar(name, count / everything) for name, count in ordered[:_CLASSES]]
    return bars + ([Bar(f"{len(ordered) - _CLASSES} more", rest / everything)] if rest else [])
