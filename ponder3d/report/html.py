"""One self-contained HTML page: pictures are embedded, nothing is fetched from anywhere."""

import base64
import html
import io
import json
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor

_STYLE = """
:root { color-scheme: light; }
body { font: 15px/1.5 system-ui, sans-serif; color: #222; background: #fafafa; margin: 0 auto; max-width: 1080px; padding: 24px; }
h1 { font-size: 26px; margin: 0 0 4px; } h2 { font-size: 19px; margin: 34px 0 8px; border-bottom: 1px solid #ddd; }
p { max-width: 80ch; } .note { color: #666; font-size: 13px; }
table { border-collapse: collapse; margin: 10px 0; } th, td { padding: 5px 14px; text-align: right; border-bottom: 1px solid #e4e4e4; }
th:first-child, td:first-child { text-align: left; } table.words td, table.words th { text-align: left; vertical-align: top; padding: 4px 12px 4px 4px; }
table.words td { font-size: 13px; white-space: nowrap; } table.words td:last-child { white-space: normal; overflow-wrap: anywhere; }
table.dense th, table.dense td { padding: 5px 7px; font-size: 13px; } thead th { border-bottom: 2px solid #999; }
.row { display: flex; flex-wrap: wrap; gap: 14px; align-items: flex-start; } figure { margin: 0; }
.legend { display: flex; flex-wrap: wrap; gap: 3px 16px; font-size: 13px; margin: 8px 0; }
.legend i { display: inline-block; width: 12px; height: 12px; margin-right: 5px; border-radius: 2px; vertical-align: -1px; }
figcaption { font-size: 13px; color: #555; } img { display: block; max-width: 100%; image-rendering: pixelated; border-radius: 3px; }
canvas { background: #111418; border-radius: 4px; cursor: grab; touch-action: none; }
.chart { width: 460px; max-width: 100%; background: white; border: 1px solid #e8e8e8; border-radius: 4px; }
svg text { font: 11px system-ui, sans-serif; fill: #444; } svg .title { font-size: 13px; font-weight: 600; } svg .grid { stroke: #eee; }
pre { background: #f0f0f0; padding: 12px; overflow: auto; max-height: 420px; font-size: 12px; border-radius: 4px; }
"""

_VIEWER = """
function showCloud(canvas, xyz64, rgb64) {
  const bytes = s => Uint8Array.from(atob(s), c => c.charCodeAt(0));
  const xyz = new Uint16Array(bytes(xyz64).buffer), rgb = bytes(rgb64), n = rgb.length / 3;
  const w = canvas.width, h = canvas.height, context = canvas.getContext('2d');
  const image = context.createImageData(w, h), depth = new Float32Array(w * h);
  let yaw = 0.7, pitch = 0.75, zoom = 1.0, turning = true, last = null;
  function draw() {
    const cy = Math.cos(yaw), sy = Math.sin(yaw), cp = Math.cos(pitch), sp = Math.sin(pitch);
    image.data.fill(0); depth.fill(1e9);
    for (let i = 0; i < n; i++) {
      const x = xyz[3*i] / 32768 - 1, y = xyz[3*i+1] / 32768 - 1, z = xyz[3*i+2] / 32768 - 1;
      const a = cy * x - sy * y, b = sy * x + cy * y;
      const forward = cp * b - sp * z + 3.2, up = sp * b + cp * z;
      const scale = 1.45 * zoom * h / forward, u = (w / 2 + a * scale) | 0, v = (h / 2 - up * scale) | 0;
      if (u < 0 || v < 0 || u >= w - 1 || v >= h - 1) continue;
      for (let k = 0; k < 4; k++) {
        const p = (v + (k >> 1)) * w + u + (k & 1);
        if (forward >= depth[p]) continue;
        depth[p] = forward;
        image.data[4*p] = rgb[3*i]; image.data[4*p+1] = rgb[3*i+1]; image.data[4*p+2] = rgb[3*i+2]; image.data[4*p+3] = 255;
      }
    }
    context.putImageData(image, 0, 0);
  }
  function loop() { if (!turning) return; yaw += 0.004; draw(); requestAnimationFrame(loop); }
  canvas.onpointerdown = e => { turning = false; last = [e.clientX, e.clientY]; canvas.setPointerCapture(e.pointerId); };
  canvas.onpointermove = e => { if (!last) return;
    yaw += (e.clientX - last[0]) * 0.01; pitch = Math.min(1.57, Math.max(-1.57, pitch + (e.clientY - last[1]) * 0.01));
    last = [e.clientX, e.clientY]; draw(); };
  canvas.onpointerup = () => { last = null; };
  canvas.onwheel = e => { e.preventDefault(); turning = false; zoom *= Math.exp(-e.deltaY * 0.001); draw(); };
  draw();
  new IntersectionObserver(seen => { if (seen[0].isIntersecting && turning) requestAnimationFrame(loop); }).observe(canvas);
}
"""


class Page:
    """A page that is put together from top to bottom."""

    def __init__(self, title: str, subtitle: str):
        self._title = title
        self._body = [f"<h1>{html.escape(title)}</h1><p class='note'>{html.escape(subtitle)}</p>"]
        self._clouds = 0

    def heading(self, text: str) -> None:
        """A section."""
        self._body.append(f"<h2>{html.escape(text)}</h2>")

    def text(self, text: str) -> None:
        """A paragraph."""
        self._body.append(f"<p>{html.escape(text)}</p>")

    def row(self, parts: Sequence[str]) -> None:
        """Figures or charts side by side."""
        self._body.append(f"<div class='row'>{''.join(parts)}</div>")

    def table(self, header: Sequence[str], rows: Sequence[Sequence[str]], style: str = "") -> None:
        """A table; the first column names the rows.

        Args:
            header: of the columns.
            rows: of cells.
            style: empty for numbers, ``dense`` for many columns of them, ``words`` for text, the longest in the last.
        """
        head = "".join(f"<th>{html.escape(cell)}</th>" for cell in header)
        body = "".join("<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
        self._body.append(f"<table class='{style}'><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>")

    def legend(self, entries: Sequence[tuple[str, tuple[int, int, int]]]) -> None:
        """Names with the colours that stand for them, if there are any."""
        if entries:
            swatch = "<span><i style='background: rgb{}'></i>{}</span>"
            spans = "".join(swatch.format(tuple(rgb), html.escape(name)) for name, rgb in entries)
            self._body.append(f"<div class='legend'>{spans}</div>")

    def code(self, record: object) -> None:
        """A value as indented JSON."""
        self._body.append(f"<pre>{html.escape(json.dumps(record, indent=1))}</pre>")

    def write(self, path: Path) -> None:
        """Write the page, whole or not at all."""
        text = (
            f"<!doctype html><html lang='en'><head><meta charset='utf-8'><title>{html.escape(self._title)}</title>"
            f"<meta name='viewport' content='width=device-width'><style>{_STYLE}</style><script>{_VIEWER}</script></head>"
            f"<body>{''.join(self._body)}</body></html>"
        )
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".tmp-{path.name}-{os.getpid()}")
        temporary.write_text(text, encoding="utf-8")
        os.replace(temporary, path)


def chart(svg: str) -> str:
    """A chart as a part of a row."""
    return f"<div class='chart'>{svg}</div>" if svg else ""


def picture(rgb: UInt8[Tensor, "H W 3"] | Path, caption: str, width: int | None = None) -> str:
    """An embedded picture as a part of a row."""
    if isinstance(rgb, Path):
        data = rgb.read_bytes()
    else:
        buffer = io.BytesIO()
        Image.fromarray(rgb.numpy()).save(buffer, format="PNG", optimize=True)
        data = buffer.getvalue()
    size = f" width='{width}'" if width else ""
    encoded = base64.b64encode(data).decode()
    return f"<figure><img{size} src='data:image/png;base64,{encoded}'><figcaption>{html.escape(caption)}</figcaption></figure>"


def cloud(
    xyz: Float[Tensor, "N 3"], rgb: UInt8[Tensor, "N 3"], caption: str, size: tuple[int, int] = (340, 300)
) -> str:
    """Points that can be turned with the mouse, as a part of a row; at most 60,000 of them are embedded."""
    if len(xyz) == 0:
        return f"<figure><figcaption>{html.escape(caption)}: nothing to show</figcaption></figure>"
    rows = torch.randperm(len(xyz), generator=torch.Generator().manual_seed(0))[:60_000]
    xyz, rgb = xyz[rows].cpu(), rgb[rows].cpu()
    lo, hi = xyz.amin(0), xyz.amax(0)
    scaled = (xyz - (lo + hi) / 2) / (float((hi - lo).max()) / 2 or 1)
    integers = ((scaled + 1) * 32767).round().clamp(0, 65535).numpy().astype(np.uint16)
    packed = [base64.b64encode(a.tobytes()).decode() for a in (integers, rgb.numpy())]
    script = f"showCloud(document.currentScript.previousElementSibling, '{packed[0]}', '{packed[1]}')"
    return (
        f"<figure><div><canvas width='{size[0]}' height='{size[1]}'></canvas><script>{script}</script></div>"
        f"<figcaption>{html.escape(caption)}</figcaption></figure>"
    )
