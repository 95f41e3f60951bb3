import base64
import io
import re
from html.parser import HTMLParser

import numpy as np
import pytest
import torch
from PIL import Image

from ponder3d.report.html import Page, cloud, picture


class Balance(HTMLParser):
    """Tags that were opened and not closed."""

    def __init__(self):
        super().__init__()
        self.open = []

    def handle_starttag(self, tag, attrs):
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_a_page_is_whole_and_escapes_what_it_is_told(tmp_path):
    page = Page("a < b", "by <me>")
    page.heading("<h>")
    page.text("x & y")
    page.table(("<name>", "value"), [("<b>", "1")])
    page.code({"a": "<script>"})
    page.row([picture(torch.zeros(2, 3, 3, dtype=torch.uint8), "<caption>")])
    page.write(tmp_path / "report" / "index.html")
    text = (tmp_path / "report" / "index.html").read_text()
    parser = Balance()
    parser.feed(text)
    assert not parser.open
    for raw in ("<me>", "<h>", "<name>", "<b>", "<caption>", '"<script>"'):
        assert raw not in text
    assert [p.name for p in (tmp_path / "report").iterdir()] == ["index.html"]


def test_a_picture_is_embedded_as_it_is():
    rgb = torch.randint(0, 256, (5, 7, 3), dtype=torch.uint8)
    encoded = re.search(r"base64,([^']+)'", picture(rgb, "x")).group(1)
    assert np.array_equal(np.array(Image.open(io.BytesIO(base64.b64decode(encoded)))), rgb.numpy())


def test_a_cloud_keeps_its_shape_and_its_colours():
    xyz = torch.tensor([[0.0, 0, 0], [2, 0, 0], [0, 1, 0]])
    rgb = torch.tensor([[255, 0, 0], [0, 255, 0], [0, 0, 255]], dtype=torch.uint8)
    packed = re.search(r"'([^']+)', '([^']+)'\)", cloud(xyz, rgb, "x"))
    points = np.frombuffer(base64.b64decode(packed.group(1)), np.uint16).reshape(-1, 3) / 32767 - 1
    colours = np.frombuffer(base64.b64decode(packed.group(2)), np.uint8).reshape(-1, 3)
    by_colour = {tuple(c): p for c, p in zip(colours.tolist(), points, strict=True)}
    step = by_colour[0, 255, 0] - by_colour[255, 0, 0]
    assert step == pytest.approx([2, 0, 0], abs=1e-3)  # the longest side fills [-1, 1], the others in proportion
    assert by_colour[0, 0, 255] - by_colour[255, 0, 0] == pytest.approx([0, 1, 0], abs=1e-3)


def test_no_points_no_canvas():
    assert "canvas" not in cloud(torch.zeros(0, 3), torch.zeros(0, 3, dtype=torch.uint8), "x")
