"""Pictures of image features that a run was taught, beside those that it renders."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor

from ponder3d.data.loader import Collate, KeyedScenes
from ponder3d.data.transforms import PickRays, steps_of
from ponder3d.engine.evaluate import load_task
from ponder3d.geometry.cameras import pixel_grid, pixel_rays
from ponder3d.geometry.drawing import principal_colours
from ponder3d.render.renderer import clip_rays, render
from ponder3d.tasks.ponder import Ponder
from ponder3d.types import Rays, Scene, Volume


def write_feature_pictures(run: Path | str, scene: int = 0, views: Sequence[int] = (0, 1)) -> list[tuple[Path, Path]]:
    """Write ``renders/features/view-V-{truth,rendered}.png`` into a run: colours are the first three principal
    components of both, spread over their 2 to 98 %. White pixels have no feature.

    Args:
        run: directory of a run of pre-training with ``PickRays.features``.
        scene: of its training data; what it is rendered from is not corrupted.
        views: of the scene.

    Returns:
        The two pictures of each view.

    Raises:
        ValueError: it is none, or there is no such scene or view.
        CheckpointError: the run has no checkpoint that verifies.
        DataError: scene or maps cannot be read.
    """
    task, experiment, _ = load_task(run)
    if not isinstance(task, Ponder) or task.field.feature is None:
        raise ValueError(f"{run}: no run that renders features")
    dataset = experiment.data.all_images().build()
    if not 0 <= scene < len(dataset):
        raise ValueError(f"{run}: no scene {scene}; its data have {len(dataset)}")
    keyed = KeyedScenes(dataset, experiment.on_grid(experiment.validation_transforms), experiment.seed, True)
    shown = keyed[0, scene]
    steps = steps_of(experiment.transforms, shown.condition)
    picks = [step for step in steps if isinstance(step, PickRays) and step.added_features()]
    if not picks:
        raise ValueError(f"{run}: rays of {shown.source} have no features of images (PickRays.features)")
    maps = picks[0].features
    if shown.views is None or not all(0 <= view < len(shown.views.cameras) for view in views):
        raise ValueError(f"{shown.source}: no such views as {tuple(views)}")
    with torch.no_grad():
        volume = task.volume(Collate(experiment.task.encoder.inputs)([shown]))
    folder = Path(run) / "renders" / "features"
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for view in views:
        rendered = _rendered(task, volume, shown, view)
        uv = pixel_grid(shown.views.cameras.size)
        target = maps.look_up(shown, uv, torch.full((len(uv),), view))
        assert target is not None
        # Others may stand behind the features of images: the surroundings of where a ray ends.
        pair = (target, rendered[:, : target.shape[1]])
        paths = folder / f"view-{view}-truth.png", folder / f"view-{view}-rendered.png"
        for path, picture in zip(paths, _coloured(*pair), strict=True):
            Image.fromarray(np.ascontiguousarray(picture.view(*shown.views.cameras.size, 3).numpy())).save(path)
        written.append(paths)
    return written


@torch.no_grad()
def _rendered(task: Ponder, volume: Volume, scene: Scene, view: int, chunk: int = 4096) -> Float[Tensor, "P K"]:
    """The feature that each pixel of a view shows."""
    assert scene.views is not None
    chunk = max(1, chunk // task.config.render.evaluation_factor)
    uv = pixel_grid(scene.views.cameras.size)
    parts = []
    for piece in uv.split(chunk):
        rows = torch.full((len(piece),), view)
        origins, directions = pixel_rays(scene.views.cameras, piece, rows)
        near, far = torch.full((len(piece),), 0.05), torch.full((len(piece),), 1e3)
        rays = clip_rays(Rays(origins, directions, near, far, torch.zeros_like(rows)), volume.grid)
        feature = render(task.field, volume, rays, task.config.render.in_evaluation()).feature
        assert feature is not None
        parts.append(feature)
    return torch.cat(parts)


def _coloured(
    target: Float[Tensor, "P K"], rendered: Float[Tensor, "P K"]
) -> tuple[UInt8[Tensor, "P 3"], UInt8[Tensor, "P 3"]]:
    """Both in the colours of the same components."""
    known = torch.isfinite(target).all(1)
    colours = principal_colours(torch.cat([target[known], rendered]), lengths=True)
    truth = torch.full((len(target), 3), 255, dtype=torch.uint8)
    truth[known] = colours[: int(known.sum())]
    return truth, colours[int(known.sum()) :]
