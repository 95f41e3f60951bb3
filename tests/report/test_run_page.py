"""The page about a run: what is beside its pictures; that there is one is tested on the command line."""

from dataclasses import replace

import numpy as np
from PIL import Image

from ponder3d.data.prepared.dataset import PreparedConfig
from ponder3d.geometry.drawing import UNLABELLED
from ponder3d.recipes import smoke, smoke_rivals
from ponder3d.report.html import Page
from ponder3d.report.run_page import (
    _parts,
    _pictures,
    class_legend,
    confusion_pictures,
    curves,
    drawn_stages,
    points_picture,
    render_stages,
)
from ponder3d.tasks.combined import PartConfig


def drawn(path, colours) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.array([colours], dtype=np.uint8)).save(path)


def test_the_legend_names_the_classes_of_the_last_column(tmp_path):
    experiment = smoke.pretrain_indoor_rooms_semantic()
    names, palette = (lambda labels: (labels.names, labels.palette))(experiment.data.build().labels)
    drawn(tmp_path / "truth.png", [palette[0]] * 6 + [palette[4], palette[2]])
    drawn(tmp_path / "rendered.png", [palette[1]] * 6 + [palette[2], UNLABELLED])
    pictures = [tmp_path / "truth.png", tmp_path / "rendered.png"]
    expected = [(names[2], palette[2]), (names[4], palette[4]), ("no label", UNLABELLED)]
    assert class_legend(experiment, pictures, 4) == expected
    assert (names[0], palette[0]) in class_legend(experiment, pictures, 1)
    gone = replace(experiment, data=PreparedConfig(root=str(tmp_path / "gone")))
    assert class_legend(gone, pictures, 4) == [], "the data, which know the names, are not here"


def test_a_legend_on_a_page(tmp_path):
    page = Page("t", "s")
    page.legend([("a <b>", (1, 2, 3))])
    page.legend([])
    page.write(tmp_path / "page.html")
    text = (tmp_path / "page.html").read_text()
    assert text.count("<div class='legend'>") == 1
    assert "background: rgb(1, 2, 3)'></i>a &lt;b&gt;</span>" in text


def test_pictures_of_a_run_come_in_order_and_are_enlarged(tmp_path):
    for step in (20, 0):
        for name in ("view-0-truth", "view-0-rendered", "classes"):
            drawn(tmp_path / "renders" / f"step-{step:08d}" / f"{name}.png", [(1, 2, 3)] * 100)
    truth, first, last = render_stages(tmp_path, "view-0", semantic=True)
    assert "truth: colour, depth, normals from depth, classes<" in truth and "width='500'" in truth
    assert "after 0 steps" in first and "after 20 steps" in last
    assert "classes" not in render_stages(tmp_path, "view-0")[0]
    assert ["after 0 steps" in part for part in drawn_stages(tmp_path, "classes")] == [True, False]
    assert points_picture(tmp_path) == []
    drawn(tmp_path / "renders" / "step-00000020" / "points.png", [(1, 2, 3)])
    assert ["and its boxes" in part for part in points_picture(tmp_path)] == [True]
    assert render_stages(tmp_path / "none", "view-0") == drawn_stages(tmp_path / "none", "classes") == []


def test_confusion_matrices_of_a_run(tmp_path):
    assert confusion_pictures(tmp_path) == []
    drawn(tmp_path / "confusion-scannet.png", [(1, 2, 3)])
    drawn(tmp_path / "confusion.png", [(4, 5, 6)])
    plain, augmented = confusion_pictures(tmp_path)
    assert "confusion matrix<" in plain and "with the augmentations scannet" in augmented


def test_pictures_of_every_part_of_a_run(tmp_path):
    experiment = smoke_rivals.combinations_rooms_ponder_distil()
    for name in ("ponder-view-0-truth", "ponder-view-0-rendered", "distil-prototypes", "prototypes"):
        drawn(tmp_path / "renders" / "step-00000004" / f"{name}.png", [(1, 2, 3)] * 100)
    parts = _parts(experiment.task)
    assert list(parts) == [(), ("ponder",), ("distil",)]
    nested = replace(experiment.task, parts=(PartConfig("two_of_them", experiment.task),))
    inner = ("two_of_them", "distil")
    assert list(_parts(nested)) == [(), ("two_of_them",), ("two_of_them", "ponder"), inner]
    drawn(tmp_path / "renders" / "step-00000004" / "two_of_them-distil-prototypes.png", [(1, 2, 3)] * 100)
    page = Page("t", "s")
    _pictures(page, tmp_path, experiment, inner, _parts(nested)[inner])
    page.write(tmp_path / "page.html")
    assert "of the teacher (two_of_them_distil)" in (tmp_path / "page.html").read_text()
    headings = {(): "Likeliest prototypes", ("ponder",): "Rendered while learning (ponder): colour, depth"}
    for part, heading in headings.items():
        page = Page("t", "s")
        _pictures(page, tmp_path, experiment, part, parts[part])
        page.write(tmp_path / "page.html")
        text = (tmp_path / "page.html").read_text()
        assert text.count("<h2") == 1 and heading in text and ("(ponder)" in text) == bool(part)


def test_curves_of_a_part_of_a_run(tmp_path):
    (tmp_path / "train.csv").write_text("step,loss,ponder_psnr,distil_agreement\n1,3,11,0.1\n2,2,12,0.2\n")
    table = {"training": tmp_path / "train.csv"}
    assert [len(curves(table, part)) for part in ("", "ponder", "distil", "other")] == [1, 1, 1, 0]
    assert "PSNR (ponder)" in curves(table, "ponder")[0] and "teacher (distil)" in curves(table, "distil")[0]
