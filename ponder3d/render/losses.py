"""Losses between what was rendered and what the camera saw (eq. 8, and the terms the released code adds).

Everything is in metres, unless said otherwise (``units``). Rays that miss the volume count in no term (but for
``misses``), rays without depth in no depth term. Each term is a
mean over what counts and 0 (with a gradient of 0) where nothing does.
"""

from dataclasses import dataclass, replace
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from ponder3d.config import Config
from ponder3d.types import Rays, RayTargets, RenderOutput
from ponder3d.types.labels import IMPOSSIBLE


@dataclass(frozen=True)
class RenderLossConfig(Config):
    """Weights of the terms; 0 leaves a term out. The weights are PonderV2's indoors by default."""

    colour: float = 10.0
    """Weight of the L1 error of rendered colour, where 1 is full scale."""
    depth: float = 1.0
    """Weight of the L1 error of the rendered distance along the ray, per metre."""
    sdf: float = 10.0
    """Weight of the L1 error of the signed distance within ``truncation`` of a surface, per metre."""
    free_space: float = 1.0
    """Weight of how far the signed distance stays below ``truncation`` farther in front of a surface, per metre."""
    eikonal: float = 0.01
    """Weight of (length of the SDF's gradient - 1)^2 at all samples."""
    semantic: float = 0.1
    """Weight of the cross-entropy of rendered classes (eq. 9); counts with ``PonderConfig.semantics``."""
    feature: float = 1.0
    """Weight of the error of rendered features; counts with ``PonderConfig.feature_channels``."""
    feature_distance: Literal["l1", "cosine"] = "l1"
    """Of a rendered feature from its target: mean absolute difference of the channels, or 1 - cosine, which is blind to
    length, as in the distillation of OpenScene (Peng et al. 2023)."""
    truncation: float = 0.2
    """Metres on either side of a surface in which its signed distance is supervised; in units of ``units``."""
    units: Literal["metres", "extent"] = "metres"
    """What distances are measured in. ``extent``: the longest side of their scene's bounds, as the released code, so
    that the same error in metres weighs less in a large room than in a small one."""
    slope: float = 1.0
    """Length of the gradient that the eikonal term asks for. The released code takes the gradient by a position that it
    has divided by 1.101, and so asks for 0.908."""
    misses: bool = False
    """Whether rays that miss the volume count in the colour term, as black, and in the eikonal term, as in the released
    code."""
    temperature: float = 0.1
    """Of the softmax in the semantic term. PonderV2 has 0.01, for vectors of text, which are all much alike: if the
    cosine of two classes is 0.8, the right one's logit can be 20 above the other's, and at 0.1 only 2."""
    contrast: Literal["classes", "rays"] = "classes"
    """What a rendered feature is told apart from: every class once, or the classes of all rays of the batch, as the
    released code. With ``rays`` frequent classes weigh more, and the loss cannot fall below the logarithm
    of the number of rays of a class. Rays of other datasets are told apart too, which is what that code does where all
    of a batch are of one."""
    surface: float = 0.0
    """Share of the semantic and feature terms that asks the field at the measured end of each ray, instead of what is
    rendered along it; in [0, 1]. It is what a perfectly sharp surface would render, for one sample per ray."""

    def __post_init__(self):
        if not 0 <= self.surface <= 1:
            raise ValueError(f"RenderLossConfig.surface must be in [0, 1], not {self.surface}")
        if self.slope <= 0 or self.truncation < 0:
            raise ValueError(
                "RenderLossConfig: slope must be above 0 and truncation at least 0, "
                f"not {self.slope} and {self.truncation}"
            )


def render_losses(
    out: RenderOutput,
    rays: Rays,
    targets: RayTargets,
    config: RenderLossConfig,
    class_vectors: Float[Tensor, "K E"] | None = None,
    possible: Bool[Tensor, "B K"] | None = None,
    extent: Float[Tensor, " B"] | None = None,
) -> dict[str, Float[Tensor, ""]]:
    """The weighted terms by name; their sum is the loss.

    Args:
        out: what was rendered along ``rays``.
        rays: clipped to the volume.
        targets: what the camera saw.
        config: weights.
        class_vectors: unit vector per class, for the semantic term.
        possible: which classes each scene can have; None: all.
        extent: longest side of each scene's bounds, metres; needed with ``units="extent"``.
    """
    hit = rays.hits
    losses: dict[str, Tensor] = {}
    counted, rgb = hit, targets.rgb
    if config.misses:
        counted, rgb = torch.ones_like(hit), rgb * hit[:, None]
    if config.colour:
        losses["colour"] = config.colour * masked_mean((out.rgb - rgb).abs().mean(1), counted)
    if config.eikonal:
        stretch = (out.gradient.norm(dim=-1) - config.slope).square()
        losses["eikonal"] = config.eikonal * masked_mean(stretch, counted[:, None].expand_as(stretch))
    if targets.t is not None:
        # A measured point outside the volume says nothing about the part of the ray inside it, except that it is free.
        measured = hit & (targets.t > 0)
        within = measured & (targets.t <= rays.far)
        shown, at = out, targets.t
        if config.units == "extent":
            assert extent is not None
            shown, at = _in_units(out, extent[rays.scene]), targets.t / extent[rays.scene]
        if config.depth:
            losses["depth"] = config.depth * masked_mean((shown.t - at).abs(), within)
        if config.sdf:
            losses["sdf"] = config.sdf * near_surface_loss(shown, at, within, config.truncation)
        if config.free_space:
            losses["free_space"] = config.free_space * free_space_loss(shown, at, measured, config.truncation)
    rendered = replace(
        config, semantic=config.semantic * (1 - config.surface), feature=config.feature * (1 - config.surface)
    )
    counts = hit if targets.t is None else hit & (targets.t > 0)
    of_ray = None if possible is None else possible[rays.scene]
    return losses | _head_losses(out.semantic, out.feature, hit, counts, targets, rendered, class_vectors, of_ray)


def _in_units(out: RenderOutput, unit: Float[Tensor, " R"]) -> RenderOutput:
    """With all distances in units of so many metres."""
    each = unit[:, None]
    return replace(out, t=out.t / unit, sample_t=out.sample_t / each, sdf=out.sdf / each)


def surface_losses(
    semantic: Float[Tensor, "R E"] | None,
    feature: Float[Tensor, "R F"] | None,
    rays: Rays,
    targets: RayTargets,
    config: RenderLossConfig,
    class_vectors: Float[Tensor, "K E"] | None = None,
    possible: Bool[Tensor, "B K"] | None = None,
) -> dict[str, Float[Tensor, ""]]:
    """The share ``config.surface`` of the semantic and feature terms, from what the field says where rays end.

    Args:
        semantic: semantic feature at the measured end of each ray (``render.renderer.decode_at_ends``).
        feature: counterpart of ``targets.feature`` there.
        rays: clipped to the volume. Those that end outside it, or that nothing was measured on, do not count.
        targets: what the camera saw.
        config: weights.
        class_vectors: unit vector per class, for the semantic term.
        possible: which classes each scene can have; None: all.
    """
    assert targets.t is not None
    counts = rays.hits & (targets.t > rays.near) & (targets.t <= rays.far)
    weights = replace(config, semantic=config.semantic * config.surface, feature=config.feature * config.surface)
    of_ray = None if possible is None else possible[rays.scene]
    losses = _head_losses(semantic, feature, counts, counts, targets, weights, class_vectors, of_ray)
    return {f"surface_{name}": loss for name, loss in losses.items()}


def _head_losses(
    semantic: Tensor | None,
    feature: Tensor | None,
    labelled: Bool[Tensor, " R"],
    described: Bool[Tensor, " R"],
    targets: RayTargets,
    weights: RenderLossConfig,
    class_vectors: Tensor | None,
    possible: Bool[Tensor, "R K"] | None,
) -> dict[str, Float[Tensor, ""]]:
    """Terms of the affine heads; the masks say which rays count in which."""
    losses: dict[str, Tensor] = {}
    if weights.semantic and semantic is not None and targets.label is not None:
        assert class_vectors is not None
        label = targets.label.masked_fill(~labelled, -1)
        losses["semantic"] = weights.semantic * semantic_loss(
            semantic, label, class_vectors, weights.temperature, weights.contrast, possible
        )
    if weights.feature and feature is not None and targets.feature is not None:
        losses["feature"] = weights.feature * feature_loss(
            feature, targets.feature, described, weights.feature_distance
        )
    return losses


def feature_loss(
    rendered: Float[Tensor, "R F"],
    target: Float[Tensor, "R F"],
    counts: Bool[Tensor, " R"],
    distance: Literal["l1", "cosine"] = "l1",
) -> Float[Tensor, ""]:
    """Mean distance of rendered features from their targets, see ``RenderLossConfig.feature_distance``.

    Rays whose target is not finite throughout do not count, nor, with ``cosine``, those whose target has no direction.
    """
    finite = torch.isfinite(target)
    counts = counts & finite.all(1)
    target = torch.where(finite, target, 0)
    if distance == "l1":
        return masked_mean((rendered - target).abs().mean(1), counts)
    length = target.norm(dim=1)
    # The floor keeps the gradient of a ray that hardly meets anything, whose feature is almost 0, from exploding.
    cosine = (rendered * target).sum(1) / ((rendered.square().sum(1) + 1e-4).sqrt() * length.clamp(min=1e-12))
    return masked_mean(1 - cosine, counts & (length > 0))


def near_surface_loss(
    out: RenderOutput, t: Float[Tensor, " R"], measured: Bool[Tensor, " R"], truncation: float
) -> Float[Tensor, ""]:
    """``|t_j + sdf_j - t|`` over samples within ``truncation`` of the measured surface, along the ray."""
    gap = t[:, None] - out.sample_t
    return masked_mean((out.sdf - gap).abs(), measured[:, None] & (gap.abs() <= truncation))


def free_space_loss(
    out: RenderOutput, t: Float[Tensor, " R"], measured: Bool[Tensor, " R"], truncation: float
) -> Float[Tensor, ""]:
    """``relu(truncation - sdf_j)`` over the samples further than ``truncation`` in front of the measured surface."""
    in_front = measured[:, None] & (out.sample_t < t[:, None] - truncation)
    return masked_mean(F.relu(truncation - out.sdf), in_front)


def semantic_loss(
    rendered: Float[Tensor, "R E"],
    label: torch.Tensor,
    class_vectors: Float[Tensor, "K E"],
    temperature: float,
    contrast: Literal["classes", "rays"] = "classes",
    possible: Bool[Tensor, "R K"] | None = None,
) -> Float[Tensor, ""]:
    """Cross-entropy of the cosine between rendered features and class vectors; negative labels do not count.

    With ``contrast="rays"`` the candidates are the targets of all R rays, and a ray without a label is a candidate of
    cosine 0. Rays of one class have one target, so their number stands for them (exact): R x K products
    instead of R x R. ``possible`` says which classes each ray's scene can have; with ``contrast="classes"`` no others
    are candidates.
    """
    # The floor keeps a ray that hardly meets anything, whose feature is almost 0, from outweighing all others.
    direction = rendered / (rendered.square().sum(1, keepdim=True) + 1e-4).sqrt()
    logits = direction @ class_vectors.T / temperature
    labelled = label >= 0
    offset = torch.zeros_like(logits[:, 0])
    if contrast == "classes" and possible is not None:
        logits = logits.masked_fill(~possible, IMPOSSIBLE)
    if contrast == "rays":
        classes = torch.arange(len(class_vectors), device=label.device)
        counts = (label[:, None] == classes).sum(0).to(logits.dtype).log()
        unlabelled = (~labelled).sum().to(logits.dtype).log().expand(len(logits), 1)
        logits = torch.cat([logits + counts, unlabelled], dim=1)
        offset = torch.where(labelled, counts[label.clamp(min=0)], 0)
    per_ray = F.cross_entropy(logits, label.clamp(min=-1), ignore_index=-1, reduction="none") + offset
    return masked_mean(per_ray, labelled)


def masked_mean(values: Float[Tensor, "*N"], mask: Bool[Tensor, "*N"]) -> Float[Tensor, ""]:
    """Mean over the true entries; 0 if there are none. Values outside the mask may be anything finite."""
    return (values * mask).sum() / mask.sum().clamp(min=1)
