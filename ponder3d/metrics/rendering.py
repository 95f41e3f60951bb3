"""How well a field renders views that it has never seen."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from ponder3d.geometry.mesh import Mesh
from ponder3d.metrics.image import depth_l1, psnr, ssim
from ponder3d.metrics.metric import Metric
from ponder3d.metrics.segmentation import confusion, per_class
from ponder3d.metrics.surface import field_to_tsdf
from ponder3d.types import Batch
from ponder3d.types.scene import to_device


@dataclass(frozen=True)
class RenderedViews:
    """What a field shows from the cameras of one scene."""

    rgb: Float[Tensor, "V H W 3"]
    depth: Float[Tensor, "V H W"]
    """Plane depth, metres."""
    normal: Float[Tensor, "V H W 3"]
    """World frame."""
    semantic: Float[Tensor, "V H W K"] | None
    """Class scores, if the field renders semantics."""
    mesh: Mesh | None
    """The zero level of the field; None: it was not asked for."""


class RenderingMetric(Metric[RenderedViews]):
    """Means over views, and over scenes for the surface.

    Beside the figures stand two baselines that know the answer's mean: each view's mean colour (``psnr_mean_colour``)
    and its median depth (``depth_error_median``). ``surface_missing`` is the share of the scenes in which the views saw
    a surface and the field has none; there is no distance to average in those. ``semantic_miou`` (over the classes that
    occur) and ``semantic_accuracy`` are of the labelled pixels of all views, where both views and field have classes.
    """

    NAMES = (
        "psnr",
        "ssim",
        "depth_error",
        "psnr_mean_colour",
        "depth_error_median",
        "surface_accuracy",
        "surface_completeness",
        "surface_missing",
    )

    def __init__(self, num_classes: int = 0) -> None:
        self.num_classes = num_classes
        # Sums of the figures, how many values each of them has, and the confusion matrix.
        self.state = torch.zeros(2 * len(self.NAMES) + num_classes**2, dtype=torch.float64)

    def update(self, prediction: RenderedViews, batch: Batch) -> None:
        """Add the views of a batch of one scene."""
        assert batch.views is not None and len(batch) == 1
        # All of it is computed on the CPU: the state lives there, and not every device knows float64.
        prediction, views, bounds = to_device((prediction, batch.views, batch.bounds[0]), "cpu")
        truth = views.rgb.to(torch.float32) / 255
        if min(views.cameras.size) >= 11:
            for similarity in ssim(prediction.rgb, truth).tolist():
                self._add("ssim", similarity)
        for view in range(len(truth)):
            self._add("psnr", float(psnr(prediction.rgb[view], truth[view])))
            flat = truth[view].mean((0, 1)).expand_as(truth[view])
            self._add("psnr_mean_colour", float(psnr(flat, truth[view])))
            if views.depth is not None and bool((views.depth[view] > 0).any()):
                depth, seen = views.depth[view], views.depth[view] > 0
                self._add("depth_error", float(depth_l1(prediction.depth[view], depth, seen)))
                median = depth[seen].median().expand_as(depth)
                self._add("depth_error_median", float(depth_l1(median, depth, seen)))
        mesh = prediction.mesh
        surface = None if mesh is None or views.depth is None else field_to_tsdf(mesh, views, bounds)
        if surface is not None:
            self._add("surface_missing", float(surface.completeness is None))
            if surface.accuracy is not None:
                self._add("surface_accuracy", surface.accuracy)
            if surface.completeness is not None:
                self._add("surface_completeness", surface.completeness)

        if self.num_classes and prediction.semantic is not None and views.labels is not None:
            best, true = prediction.semantic.argmax(-1).flatten(), views.labels.flatten().to(torch.int64)
            self.state[2 * len(self.NAMES) :] += confusion(best, true, self.num_classes).flatten()

    def _add(self, name: str, value: float) -> None:
        number = self.NAMES.index(name)
        self.state[[number, number + len(self.NAMES)]] += torch.tensor([value, 1.0], dtype=torch.float64)

    def compute(self) -> dict[str, float]:
        """Figures by name; those that nothing could give are left out. Depth and surface errors are metres."""
        names = len(self.NAMES)
        sums, numbers = self.state[: 2 * names].view(2, names).tolist()
        figures = {name: s / n for name, s, n in zip(self.NAMES, sums, numbers, strict=True) if n}
        matrix = self.state[2 * names :].view(self.num_classes, self.num_classes)
        total = float(matrix.sum())
        if total:
            iou, _, present = per_class(matrix)
            figures["semantic_miou"] = float(iou[present].mean())
            figures["semantic_accuracy"] = float(matrix.diagonal().sum()) / total
        return figures
