"""Pre-training by rendering (PonderV2): the paper on one page.

A corrupted point cloud goes through the encoder; its features become a volume; a neural SDF field renders the volume
along camera rays; the difference from the images trains the encoder (eq. 1 to 9).
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from ponder3d.encoders.encoder import EncoderConfig, Features
from ponder3d.encoders.sparse_unet import SparseUNetConfig
from ponder3d.geometry.cameras import depth_from_t, normals_from_depth, pixel_grid, pixel_rays
from ponder3d.geometry.drawing import class_colours, colour_scale, normal_colours
from ponder3d.metrics.image import depth_l1, psnr
from ponder3d.metrics.rendering import RenderedViews, RenderingMetric
from ponder3d.render.fields import FieldConfig
from ponder3d.render.losses import RenderLossConfig, render_losses, surface_losses
from ponder3d.render.renderer import RenderConfig, clip_rays, decode_at_ends, render
from ponder3d.render.surface import extract_mesh
from ponder3d.tasks.class_vectors import ClassVectorsConfig, NoVectors
from ponder3d.tasks.heads import Head, HeadConfig, LanguageHeadConfig, point_cross_entropy, possible_classes
from ponder3d.tasks.kept_vectors import kept
from ponder3d.tasks.masking import MaskingConfig, NoMasking
from ponder3d.tasks.task import Picture, StepLosses, Task, TaskConfig
from ponder3d.types import Batch, Cameras, Grid, LabelSet, Rays, RayTargets, RenderOutput, Volume
from ponder3d.types.labels import IMPOSSIBLE
from ponder3d.types.scene import INPUT_CHANNELS
from ponder3d.volume.convert import densify, densify_with_offsets, sample_at
from ponder3d.volume.scene_grid import scene_grid
from ponder3d.volume.unet3d import UNet3DConfig, VolumeNetConfig


@dataclass(frozen=True)
class PonderConfig(TaskConfig):
    """Choices of the pretext task; the defaults are the paper's indoors, in metres."""

    encoder: EncoderConfig = SparseUNetConfig()
    """The encoder that is pre-trained."""
    masking: MaskingConfig = NoMasking()
    """Hides features from the encoder in training; transforms take points away."""
    volume_shape: tuple[int, int, int] = (128, 128, 32)
    """Cells along x, y and z of each scene's box."""
    volume_box: tuple[float, ...] = ()
    """Lower and upper corner of the volume in the scenes' frame, six numbers in metres, the same for every scene: what
    lies around a vehicle. Empty: each scene has a volume of its own, around its bounds."""
    volume_margin: float = 0.1
    """Metres by which the volume reaches beyond the scene's bounds, at least; never less than a cell, because the field
    is constant beyond the outermost cell centres."""
    volume_cube: bool = False
    """Whether a scene's volume is a cube that stands on its floor, as in the released code, whatever its height: flat
    rooms fill the lower part of it, and cells are as much taller than wide as ``volume_shape`` has fewer of them."""
    read_stretch: float = 1.0
    """How many times larger the field takes the box of the volume to be than the one that points were pooled in, around
    the same centre. In the released code that is 1.1: of 128 cells those at the border are read 6 cells off."""
    cell_offsets: bool = True
    """Whether the dense network is told where in its cell the pooled features lie (see ``densify_with_offsets``)."""
    volume_net: VolumeNetConfig = UNet3DConfig()
    """The dense network between the encoder's pooled features and the field (eq. 3)."""
    field: FieldConfig = FieldConfig()
    """Decoders of the feature volume: signed distance, colour, semantics (eq. 4, 5, 9)."""
    render: RenderConfig = RenderConfig()
    """Samples along rays, and their opacity (eq. 6, 7)."""
    losses: RenderLossConfig = RenderLossConfig()
    """Weights of the loss terms (eq. 8)."""
    semantics: ClassVectorsConfig = NoVectors()
    """What the rendered semantic feature (eq. 9) is compared with, a vector per class; the 2D labels of pre-training
    scenes are needed with any but ``NoVectors``."""
    feature_channels: int = 0
    """Width of the rendered target feature, that of ``data.context.ContextTarget`` or of maps of image features
    (``PickRays.features``), or of both together; 0 renders none."""
    render_every: int = 1
    """Each k-th ray is rendered. The others only count where they end (``RenderLossConfig.surface``), at the price of
    one sample. Let it divide ``PickRays.rays_per_view``: then the choice does not depend on the rest of the batch."""
    mesh_cell: float = 0.05
    """Metres between the lattice points on which the field is evaluated to extract its surface; 0 extracts none: on
    100 m of street the lattice has no end."""
    points: float = 0.0
    """Weight of the cross-entropy of the input points' classes, read by ``points_head`` from the encoder's features;
    0 leaves it out. Without any labelled point in a batch the term is 0."""
    points_head: HeadConfig = LanguageHeadConfig()
    """The head of that term."""

    def __post_init__(self):
        if min(self.volume_shape) < 3:
            raise ValueError(f"PonderConfig.volume_shape: at least 3 cells along each axis, not {self.volume_shape}")
        if self.volume_box and not _is_box(self.volume_box):
            raise ValueError(
                f"PonderConfig.volume_box: a lower and an upper corner, six numbers, are needed, not {self.volume_box}"
            )
        if self.volume_box and self.volume_cube:
            raise ValueError("PonderConfig.volume_cube is for volumes around scenes; leave volume_box empty")
        if self.read_stretch <= 0:
            raise ValueError(f"PonderConfig.read_stretch must be above 0, not {self.read_stretch}")
        if self.mesh_cell < 0:
            raise ValueError(f"PonderConfig.mesh_cell must not be negative, but is {self.mesh_cell}")
        if self.render_every < 1:
            raise ValueError(f"PonderConfig.render_every must be at least 1, not {self.render_every}")
        if self.render_every > 1 and not self.losses.surface:
            raise ValueError("PonderConfig.render_every: the rays between count in no term; set losses.surface, or 1")
        if self.points < 0:
            raise ValueError(f"PonderConfig.points must not be negative, but is {self.points}")

    def feature_width(self) -> int:
        """``feature_channels``."""
        return self.feature_channels

    def build(self, labels: LabelSet | None) -> Task:
        """The task; ``labels`` are needed with ``semantics`` and ``points`` only."""
        return Ponder(self, labels)

    def rebuild(self, labels: LabelSet | None, weights: Mapping[str, Tensor], facts: Mapping[str, str]) -> Task:
        """With class vectors as they are among the weights."""
        semantics = kept(self.semantics, weights.get("class_vectors"), facts.get("class_vectors", ""))
        head = self.points_head.with_kept(weights.get("points_head.vectors"), facts.get("points_class_vectors", ""))
        return replace(self, semantics=semantics, points_head=head).build(labels)


class Ponder(Task):
    """Encoder, dense network and field, trained together."""

    teaches_encoder = True

    def __init__(self, config: PonderConfig, labels: LabelSet | None):
        super().__init__()
        made = None
        if not isinstance(config.semantics, NoVectors):
            if labels is None:
                raise ValueError("PonderConfig.semantics: the dataset has no labels to render; take NoVectors")
            made = config.semantics.build(labels)
        if config.points and labels is None:
            raise ValueError("PonderConfig.points: the dataset has no labels of points; set it to 0")
        self.config = config
        self.mask = config.masking.build(sum(INPUT_CHANNELS[name] for name in config.encoder.inputs))
        self.encoder = config.encoder.build()
        self.unet = config.volume_net.build(self.encoder.out_channels + (4 if config.cell_offsets else 0))
        semantic_channels = 0 if made is None else made.vectors.shape[1]
        self.field = config.field.build(self.unet.out_channels, semantic_channels, config.feature_channels)
        self.labels, self.source = labels, "" if made is None else made.source
        self.class_vectors: Tensor | None
        self.register_buffer("class_vectors", None if made is None else made.vectors)
        self.points_head: Head | None = None
        if config.points:
            assert labels is not None
            self.points_head = config.points_head.build(self.encoder.out_channels, labels)

    def facts(self) -> dict[str, str]:
        """``class_vectors`` and ``points_class_vectors``: what made those of rendered semantics and of points."""
        of_points = "" if self.points_head is None else self.points_head.source
        sources = {"class_vectors": self.source, "points_class_vectors": of_points}
        return {name: source for name, source in sources.items() if source}

    def losses(self, batch: Batch, step: int) -> StepLosses:
        """Eq. 8 and the terms beside it; PSNR and distance error of the rendered rays as monitors.

        Raises:
            ValueError: the batch has no rays (see ``data.transforms.PickRays``), or target features of another width.
        """
        rays, targets = batch.rays, batch.targets
        if rays is None or targets is None:
            raise ValueError(f"Ponder.losses: no rays for {batch.sources[0]}; end the transforms with PickRays")
        width, given = self.config.feature_channels, targets.feature
        if width and given is not None and given.shape[1] != width:
            raise ValueError(f"PonderConfig.feature_channels is {width}, and the rays' features have {given.shape[1]}")
        if width and given is None:  # the term stays, at 0, as in _point_losses: only some datasets may have features
            targets = replace(targets, feature=targets.rgb.new_full((len(targets.rgb), width), math.nan))
        features, own = self.learn(self.mask(batch))
        volume = self.volume_of(features, batch)
        possible = self._possible(batch.conditions, volume.feats.device)
        every = self.config.render_every
        with torch.autocast(rays.origins.device.type, enabled=False):
            rays = clip_rays(rays, volume.grid)
            shown, seen = rays.every(every), targets.every(every)
            keys, guide, at = (batch.keys, seen.t, step) if self.training else (None, None, None)
            out = render(self.field, volume, shown, self.config.render, keys, guide, at)
            extent = (batch.bounds[:, 1] - batch.bounds[:, 0]).amax(1)
            terms = render_losses(out, shown, seen, self.config.losses, self.class_vectors, possible, extent)
            terms |= self._surface_losses(volume, rays, targets, possible)
            terms |= self._point_losses(features, batch) | own
        with torch.no_grad():
            monitors = {"psnr": psnr(out.rgb, seen.rgb, shown.hits), "inv_std": self.field.inv_std}
            if seen.t is not None:
                monitors["depth_error"] = depth_l1(out.t, seen.t, shown.hits & (seen.t > 0) & (seen.t <= shown.far))
            right = self._semantic_accuracy(out, shown, seen, possible)
            monitors |= {} if right is None else {"semantic_accuracy": right}
        return StepLosses(terms, monitors)

    def _surface_losses(
        self, volume: Volume, rays: Rays, targets: RayTargets, possible: Tensor | None
    ) -> dict[str, Tensor]:
        has_heads = self.field.semantic is not None or self.field.feature is not None
        if not self.config.losses.surface or targets.t is None or not has_heads:
            return {}
        semantic, feature = decode_at_ends(self.field, volume, rays, targets.t)
        return surface_losses(semantic, feature, rays, targets, self.config.losses, self.class_vectors, possible)

    def _point_losses(self, features: Features, batch: Batch) -> dict[str, Tensor]:
        """The term ``ppt``: classes of the input points, from what the encoder makes of them."""
        if self.points_head is None:
            return {}
        points, labels = batch.points, batch.labels
        feats = sample_at(features, points.xyz, points.scene).float()
        scores = self.points_head(feats, points.scene, batch.conditions)
        # Without labels the term stays, at 0: ranks of a parallel run must not differ in which parameters take part.
        labels = torch.full_like(points.scene, -1) if labels is None else labels
        return {"ppt": self.config.points * point_cross_entropy(scores, labels)}

    def _possible(self, conditions: tuple[str, ...], device: torch.device) -> Bool[Tensor, "B K"] | None:
        """Which classes each scene can have; None where all can have all."""
        return None if self.labels is None else possible_classes(self.labels, conditions, device)

    def _semantic_accuracy(
        self, out: RenderOutput, rays: Rays, targets: RayTargets, possible: Tensor | None
    ) -> Float[Tensor, ""] | None:
        """Share of the rays that count in the semantic term whose best class is theirs; NaN if none does."""
        scores = self.class_scores(out, None if possible is None else possible[rays.scene])
        if scores is None or targets.label is None:
            return None
        counts = rays.hits & (targets.label >= 0)
        return ((scores.argmax(1) == targets.label) & counts).sum() / counts.sum()

    def volume(self, batch: Batch) -> Volume:
        """The feature volume of a batch (eq. 1 to 3), in float32."""
        return self.volume_of(self.encoder(self.mask(batch)), batch)

    def volume_of(self, features: Features, batch: Batch) -> Volume:
        """The feature volume of what the encoder has made of a batch (eq. 2 and 3), in float32."""
        pool = densify_with_offsets if self.config.cell_offsets else densify
        volume = self.unet(pool(features, self.grid(batch)))
        return replace(volume, feats=volume.feats.float(), grid=self._read_as(volume.grid))

    def _read_as(self, grid: Grid) -> Grid:
        """``read_stretch``."""
        if self.config.read_stretch == 1:
            return grid
        centre = grid.box.mean(1, keepdim=True)
        return Grid(centre + (grid.box - centre) * self.config.read_stretch, grid.shape)

    def grid(self, batch: Batch) -> Grid:
        """The same box for every scene, or one around each; a cube that stands on its floor with ``volume_cube``."""
        config, bounds = self.config, batch.bounds
        if config.volume_cube:
            lo, hi = bounds.unbind(1)
            side = (hi - lo).amax(1, keepdim=True)
            lo = torch.cat([(lo + hi - side)[:, :2] / 2, lo[:, 2:]], dim=1)
            bounds = torch.stack([lo, lo + side], dim=1)
        return scene_grid(bounds, config.volume_shape, config.volume_box, config.volume_margin)

    @torch.no_grad()
    def predict(self, batch: Batch) -> RenderedViews:
        """Render the views of a batch of one scene, and extract its surface (``PonderConfig.mesh_cell``).

        Raises:
            ValueError: the batch has no views, or more than one scene.
        """
        if batch.views is None or len(batch) != 1:
            raise ValueError(
                "Ponder.predict: needs a batch of one scene with the views to render; after PickRays they are gone, "
                "unless it has keep_views"
            )
        volume = self.volume(batch)
        return self.render_views(volume, batch.views.cameras, condition="".join(batch.conditions))

    @torch.no_grad()
    def render_views(self, volume: Volume, cameras: Cameras, chunk: int = 4096, condition: str = "") -> RenderedViews:
        """Render every pixel of cameras that look at the volume's first scene.

        ``chunk`` rays are rendered at a time, fewer if each has more samples than in training.
        ``condition`` is the scene's, which says what classes it can have.
        """
        height, width = cameras.size
        uv = pixel_grid(cameras.size, volume.feats.device).repeat(len(cameras), 1)
        view = torch.arange(len(cameras), device=uv.device).repeat_interleave(height * width)
        origins, directions = pixel_rays(cameras, uv, view)
        possible = self._possible((condition,), uv.device)
        render_config, parts = self.config.render, []
        chunk = max(1, chunk // render_config.evaluation_factor)
        for o, d in zip(origins.split(chunk), directions.split(chunk), strict=True):
            zeros = torch.zeros(len(o), device=o.device)
            rays = Rays(o, d, near=zeros + 0.05, far=zeros + 1e3, scene=zeros.to(torch.int64))
            out = render(self.field, volume, clip_rays(rays, volume.grid), render_config.in_evaluation())
            parts.append((out.rgb, out.t, out.normal, self.class_scores(out, possible)))
        rgb, t, normal = (torch.cat([p[i] for p in parts]) for i in range(3))
        scores = [p[3] for p in parts if p[3] is not None]
        size = (len(cameras), height, width)
        return RenderedViews(
            rgb=rgb.view(*size, 3),
            depth=depth_from_t(cameras, uv, t, view).view(size),
            normal=normal.view(*size, 3),
            semantic=torch.cat(scores).view(*size, -1) if scores else None,
            mesh=extract_mesh(self.field, volume, 0, self.config.mesh_cell) if self.config.mesh_cell else None,
        )

    def class_scores(
        self, out: RenderOutput, possible: Bool[Tensor, "_ K"] | None = None
    ) -> Float[Tensor, "R K"] | None:
        """Cosine between the rendered semantic feature and each class vector; None without semantics.

        ``possible`` says which classes rays can have, by ray or for all; the others get ``IMPOSSIBLE``.
        """
        if out.semantic is None or self.class_vectors is None:
            return None
        scores = F.normalize(out.semantic, dim=1) @ self.class_vectors.T
        return scores if possible is None else scores.masked_fill(~possible, IMPOSSIBLE)

    def metric(self) -> RenderingMetric:
        """PSNR, SSIM, depth error and distance to the TSDF surface; mIoU of rendered classes."""
        return RenderingMetric(0 if self.class_vectors is None else len(self.class_vectors))

    def pictures(self, prediction: RenderedViews, batch: Batch) -> list[Picture]:
        """Per view one picture of the truth and one of what was rendered: colour, depth, normals, and classes if the
        field has them, side by side."""
        views = batch.views
        assert views is not None and len(batch) == 1
        truth = torch.zeros_like(prediction.depth) if views.depth is None else views.depth
        true_normal = normals_from_depth(truth, views.cameras.intrinsics)
        turn = views.cameras.world_from_cam[:, :3, :3]
        true_normal = torch.einsum("vij,vhwj->vhwi", turn, true_normal)
        pictures = []
        for view in range(len(views.cameras)):
            far = float(torch.maximum(truth[view], prediction.depth[view]).max())
            real = [views.rgb[view], colour_scale(truth[view], far), normal_colours(true_normal[view])]
            rgb = (prediction.rgb[view].clamp(0, 1) * 255).round().to(torch.uint8)
            made = [rgb, colour_scale(prediction.depth[view], far), normal_colours(prediction.normal[view])]
            if prediction.semantic is not None and self.labels is not None:
                best = prediction.semantic[view].argmax(-1)
                labels = torch.full_like(best, -1) if views.labels is None else views.labels[view]
                real.append(class_colours(labels, self.labels.palette).to(truth.device))
                made.append(class_colours(best, self.labels.palette).to(truth.device))
            pictures.append(Picture(f"view-{view}-truth", torch.cat(real, dim=1)))
            pictures.append(Picture(f"view-{view}-rendered", torch.cat(made, dim=1)))
        return pictures


def _is_box(numbers: tuple[float, ...]) -> bool:
    """Whether they are a lower and an upper corner."""
    return len(numbers) == 6 and all(lo < hi for lo, hi in zip(numbers[:3], numbers[3:], strict=True))
