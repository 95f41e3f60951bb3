"""The page of the demo."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ponder3d.config import fingerprint, to_json
from ponder3d.data.transforms import apply
from ponder3d.encoders.encoder import Encoder
from ponder3d.encoders.files import load_encoder
from ponder3d.engine.evaluate import load_task, read_json
from ponder3d.engine.experiment import Experiment
from ponder3d.geometry.drawing import colour_scale, principal_colours
from ponder3d.geometry.mesh import Mesh, sample_surface
from ponder3d.geometry.neighbors import knn
from ponder3d.geometry.ply import write_ply
from ponder3d.report.html import Page, cloud, picture
from ponder3d.report.run_page import curves, render_stages
from ponder3d.tasks.frozen import features_of
from ponder3d.tasks.ponder import Ponder
from ponder3d.types import Batch, Scene

_NAMES = {"label-free": "pre-trained by rendering, no labels", "semantic": "pre-trained with rendered semantics"}


def write_demo_page(folder: Path | str) -> Path:
    """Write ``report/index.html`` and ``report/mesh.ply`` into a demo.

    Returns:
        The page.

    Raises:
        ValueError: the demo has not finished.
    """
    folder = Path(folder)
    results = read_json(folder / "results.json")
    if results is None:
        raise ValueError(f"{folder}: no finished demo (results.json is missing); run ponder3d demo --out {folder}")
    config = results["config"]
    task, experiment, _ = load_task(folder / "label-free")
    assert isinstance(task, Ponder)
    room = experiment.validation_data().build()[0]
    seen = apply(experiment.on_grid(experiment.validation_transforms), room, experiment.seed, 0)
    page = Page(
        "ponder3d: what rendering teaches a 3D encoder", f"seed {config['seed']}, fingerprint {results['fingerprint']}"
    )
    _transfer_table(page, results)
    _what_went_in(page, room)
    _stages(page, folder)
    _surface(page, task, seen, experiment, folder)
    _features(page, folder, seen, experiment)
    page.heading("Learning curves")
    for name, title in _NAMES.items():
        page.text(title)
        page.row(
            curves({"training rays": folder / name / "train.csv", "held-out views": folder / name / "validation.csv"})
        )
    page.heading("Configuration")
    page.text(f"Label-free pre-training, experiment {fingerprint(experiment)}:")
    page.code(to_json(experiment))
    page.text("Demo:")
    page.code(config)
    path = folder / "report" / "index.html"
    page.write(path)
    return path


def _transfer_table(page: Page, results: dict[str, Any]) -> None:
    config = results["config"]
    page.heading("Does it help? mIoU on rooms never seen, in percent")
    page.text(
        f"Linear probe: a linear classifier on frozen features of {config['transfer_rooms']} labelled rooms. "
        f"Fine-tuning: all weights, {config['labelled_points']} labelled points in each of "
        f"{config['labelled_rooms']} rooms, {config['finetune_steps']} steps whatever the start, at the learning rate "
        "that serves it; a pre-trained encoder gets a head for its features first. Twelve classes, "
        f"{config['test_rooms']} test rooms; mean and standard deviation of {config['trials']} trials with other "
        "labelled points, orders and heads. Gains are taken trial by trial: the starts of a trial share all of these."
    )
    page.table(("", "start", "mIoU", "gain"), results["table"])


def _what_went_in(page: Page, room: Scene) -> None:
    page.heading("What goes in")
    page.text(
        "A generated room as a depth camera sees it: a fused point cloud, and posed images that supervise. "
        "Drag to turn, scroll to zoom. In training up to 30 % of the room's blocks are taken away from the encoder."
    )
    assert room.rgb is not None and room.views is not None and room.views.depth is not None
    below = room.xyz[:, 2] < room.xyz[:, 2].max() - 0.25  # without the ceiling one sees the room
    parts = [cloud(room.xyz[below], (room.rgb[below] * 255).to(torch.uint8), "points, ceiling cut away", (420, 340))]
    shown = torch.linspace(0, len(room.views.cameras) - 1, 6).round().to(torch.int64)
    depth = room.views.depth[shown]
    colours = torch.cat(list(room.views.rgb[shown]), dim=1)
    depths = torch.cat([colour_scale(d, float(depth.max())) for d in depth], dim=1)
    parts.append(
        picture(torch.cat([colours, depths]), "six of the posed views: colour and depth (black: nothing measured)")
    )
    page.row(parts)


def _stages(page: Page, folder: Path) -> None:
    page.heading("Rendered while learning, from a camera that no training view and no point came from")
    page.text("Colour, depth and normals. The encoder sees the whole cloud here; in training it sees a part.")
    for view in (0, 1):
        page.row(render_stages(folder / "label-free", f"view-{view}"))


def _surface(page: Page, task: Ponder, seen: Scene, experiment: Experiment, folder: Path) -> None:
    page.heading("The surface of the learnt field")
    batch = Batch.of([seen], experiment.task.encoder.inputs)
    with torch.no_grad():
        mesh = task.predict(batch).mesh
    (folder / "report").mkdir(parents=True, exist_ok=True)
    assert mesh is not None  # the recipe has a mesh_cell
    if len(mesh.faces) == 0:
        page.text("The field has no surface yet.")
        return
    assert mesh.colour is not None
    write_ply(folder / "report" / "mesh.ply", mesh.vertices, (mesh.colour * 255).to(torch.uint8), mesh.faces)
    page.text(f"{len(mesh.faces)} triangles at the zero level of the signed distance; also in report/mesh.ply.")
    xyz, shade = _shaded(mesh)
    below = xyz[:, 2] < xyz[:, 2].max() - 0.4
    below &= xyz[:, 2] > xyz[:, 2].min() + 0.05
    grey = (shade[:, None] * torch.tensor([225.0, 222.0, 215.0])).to(torch.uint8)
    vertex_below = mesh.vertices[:, 2] < mesh.vertices[:, 2].max() - 0.4
    coloured = (mesh.colour[vertex_below] * 255).to(torch.uint8)
    page.row(
        [cloud(xyz[below], grey[below], "shaded"), cloud(mesh.vertices[vertex_below], coloured, "in rendered colours")]
    )


def _shaded(mesh: Mesh) -> tuple[Tensor, Tensor]:
    """Points on a mesh with the brightness of a lamp from above and the side."""
    a, b, c = (mesh.vertices[mesh.faces[:, i]] for i in range(3))
    normal = torch.nn.functional.normalize(torch.linalg.cross(b - a, c - a), dim=1)
    light = torch.nn.functional.normalize(torch.tensor([0.4, -0.5, 0.8]), dim=0)
    face_shade = 0.35 + 0.65 * (normal @ light).abs()
    xyz = sample_surface(mesh, 60_000, torch.Generator().manual_seed(0))
    centre = (a + b + c) / 3
    from_zero = torch.zeros(len(xyz), dtype=torch.int64), torch.zeros(len(centre), dtype=torch.int64)
    nearest = knn(xyz, from_zero[0], centre, from_zero[1], 1)[0][:, 0]
    return xyz, face_shade[nearest]


def _features(page: Page, folder: Path, seen: Scene, experiment: Experiment) -> None:
    page.heading("What the encoders see: features as colours")
    page.text(
        "The three strongest principal components of each encoder's frozen features, of length 1, as red, green and "
        "blue: what an encoder takes for alike looks alike."
    )
    torch.manual_seed(experiment.seed)
    fresh = experiment.task.encoder.build()
    encoders: dict[str, Encoder] = {"random weights": fresh.eval()}
    for name, title in _NAMES.items():
        encoders[title] = load_encoder(folder / name)
    below = seen.xyz[:, 2] < seen.xyz[:, 2].max() - 0.25
    parts = []
    for title, encoder in encoders.items():
        colours = principal_colours(features_of(encoder, seen))
        parts.append(cloud(seen.xyz[below], colours[below], title))
    page.row(parts)
