"""Volume rendering of an SDF field (eq. 4 to 7 and 9). All rays of all scenes in one call."""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from ponder3d.config import Config, later
from ponder3d.geometry.boxes import ray_box
from ponder3d.geometry.keyed import hashed, uniform_from
from ponder3d.render import samplers
from ponder3d.render.fields import Look, SDFField
from ponder3d.render.opacity import NeuS, OpacityConfig
from ponder3d.render.weights import composite
from ponder3d.types import Grid, Rays, RenderOutput, Volume


@dataclass(frozen=True)
class RenderConfig(Config):
    """Choices of the renderer. PonderV2 indoors: 96 uniform and 36 further samples, ``NeuS(alpha="slope")``."""

    num_uniform: int = 96
    """Samples spread evenly between near and far, stratified in training."""
    num_importance: int = 36
    """Samples around the surface that the field has so far, where ``opacity`` puts them; 0 for none."""
    num_guided: int = 0
    """Training samples placed around the measured distance of a ray, where the supervision is; elsewhere they are added
    to the importance samples."""
    guide_spread: float = 0.2
    """Metres on either side of the measured distance."""
    opacity: OpacityConfig = NeuS()
    """How opaque the signed distance is, and how its surface is looked for."""
    evaluation_factor: int = later(1)
    """Views that are looked at have this many times as many samples as a ray in training. Rays in training may be told
    where their surface is (``num_guided``), and others make up for one whose samples all miss it; a rendered pixel has
    nothing but its samples, and no gradient to keep."""

    def __post_init__(self):
        if self.num_uniform < 2 or self.num_importance < 0 or self.num_guided < 0:
            raise ValueError("RenderConfig: num_uniform must be at least 2, the other numbers of samples at least 0")
        if self.evaluation_factor < 1:
            raise ValueError("RenderConfig: evaluation_factor must be at least 1")

    def in_evaluation(self) -> "RenderConfig":
        """As views are rendered: more samples, none of them guided."""
        times = self.evaluation_factor
        return replace(
            self,
            num_uniform=times * self.num_uniform,
            num_importance=times * (self.num_importance + self.num_guided),
            num_guided=0,
            evaluation_factor=1,
        )


def clip_rays(rays: Rays, grid: Grid) -> Rays:
    """Restrict rays to the box of their scene's grid; those that miss it end up with ``far <= near``."""
    enter, leave = ray_box(rays.origins, rays.directions, grid.box[:, 0][rays.scene], grid.box[:, 1][rays.scene])
    return replace(rays, near=torch.maximum(rays.near, enter), far=torch.minimum(rays.far, leave))


def render(
    field: SDFField,
    volume: Volume,
    rays: Rays,
    config: RenderConfig,
    keys: Int[Tensor, " B"] | None = None,
    guide: Float[Tensor, " R"] | None = None,
    step: int | None = None,
) -> RenderOutput:
    """Render colour, distance, normal and, if the field has the head, semantics along rays.

    Args:
        field: decoders.
        volume: feature volumes of all scenes.
        rays: rays of all scenes, clipped to the volume (``clip_rays``). Those that miss give some output, which no loss
            may use.
        config: samples and opacity.
        keys: one key per scene; given, the samples are jittered with numbers that depend on the scene's key and the
            ray's number within the scene only. None (evaluation) puts them at fixed places.
        guide: measured distance along each ray, 0 for none; tells the guided samples where to be.
        step: of training, for what changes in its course; None (evaluation): as it is in the end.

    Returns:
        Distances, gradients and weights of all samples come along, for the losses.
    """
    # A ray that misses gets the tiny interval behind its near end: finite numbers, no special case further on.
    far = torch.where(rays.hits, rays.far, rays.near + 1e-3)
    rays = replace(rays, far=far)
    sets, known = _place_samples(field, volume, rays, config, keys, guide, step)
    layout = _Layout(len(rays), [t.shape[1] for t in sets])
    samples = field(volume, *_points(rays, sets[-1]), known)
    # Distances are sorted along each ray for the weights; everything wide stays in the order in which it was computed.
    t, order = torch.cat(sets, dim=1).sort(dim=1)
    sdf = layout.of_rays(samples.sdf).gather(1, order)
    gradient = layout.of_rays(samples.gradient).gather(1, order[..., None].expand(-1, -1, 3))
    weights, seen_at = config.opacity.weights(t, sdf, gradient, rays, field.inv_std)
    opacity = weights.sum(1)
    as_computed = torch.empty_like(weights).scatter(1, order, weights)
    rgb = layout.composite(as_computed, field.colours(samples, layout.of_samples(rays.directions)))
    if field.background is not None:
        rgb = rgb + (1 - opacity)[:, None] * field.background(rays.directions)
    inputs = None
    if field.semantic is not None or field.feature is not None:
        inputs = torch.cat([layout.composite(as_computed, part) for part in field.head_parts(samples)], dim=1)
    return RenderOutput(
        rgb=rgb,
        # What no sample stops is seen where the volume ends.
        t=composite(weights, seen_at) + (1 - opacity) * far,
        normal=layout.composite(as_computed, samples.normal),
        opacity=opacity,
        semantic=_decode(field.semantic, inputs, opacity),
        feature=_decode(field.feature, inputs, opacity),
        sample_t=t,
        weights=weights,
        sdf=sdf,
        gradient=gradient,
    )


def decode_at_ends(
    field: SDFField, volume: Volume, rays: Rays, t: Float[Tensor, " R"]
) -> tuple[Float[Tensor, "R E"] | None, Float[Tensor, "R K"] | None]:
    """What the semantic and the feature head say where rays end: at distance ``t``, within near and far."""
    t = torch.minimum(torch.maximum(t, rays.near), torch.maximum(rays.far, rays.near))
    samples = field(volume, rays.origins + t[:, None] * rays.directions, rays.scene)
    inputs, whole = field.head_inputs(samples), torch.ones_like(t)
    return _decode(field.semantic, inputs, whole), _decode(field.feature, inputs, whole)


@dataclass(frozen=True)
class _Layout:
    """How the samples of rays follow each other: first a number of samples of every ray, then further ones of each."""

    num_rays: int
    widths: list[int]
    """Samples per ray of each set."""

    def of_rays(self, values: Float[Tensor, "N *C"]) -> Float[Tensor, "R S *C"]:
        """The samples of a ray side by side, those of the first set first."""
        sets = values.split([self.num_rays * width for width in self.widths])
        pairs = zip(sets, self.widths, strict=True)
        return torch.cat([part.view(self.num_rays, width, *values.shape[1:]) for part, width in pairs], dim=1)

    def of_samples(self, values: Float[Tensor, "R C"]) -> Float[Tensor, "N C"]:
        """The value of its ray for each sample."""
        return torch.cat([values[:, None].expand(-1, width, -1).flatten(0, 1) for width in self.widths])

    def composite(self, weights: Float[Tensor, "R S"], values: Float[Tensor, "N C"]) -> Float[Tensor, "R C"]:
        """Weighted sum along each ray, without a copy of the values."""
        sets = values.split([self.num_rays * width for width in self.widths])
        parts = [
            composite(weight, part.view(*weight.shape, values.shape[1]))
            for weight, part in zip(weights.split(self.widths, dim=1), sets, strict=True)
        ]
        return parts[0] if len(parts) == 1 else torch.stack(parts).sum(0)


def _place_samples(
    field: SDFField,
    volume: Volume,
    rays: Rays,
    config: RenderConfig,
    keys: Tensor | None,
    guide: Tensor | None,
    step: int | None,
) -> tuple[list[Float[Tensor, "R _"]], Look | None]:
    """Distances in one or two sets; of the first of two it is known what the field says there."""

    ray_keys = None if keys is None else _ray_keys(rays, keys)

    def noise(num: int, stream: int) -> Tensor | None:
        return None if ray_keys is None else _ray_noise(ray_keys, num, stream)

    def distance(t: Tensor) -> Tensor:
        return field.distance(volume, *_points(rays, t)).view(t.shape)

    t = samplers.uniform(rays.near, rays.far, config.num_uniform, noise(config.num_uniform, 0))
    num_importance = config.num_importance + (config.num_guided if guide is None else 0)
    known, further = None, []
    if num_importance:
        known = field.look(volume, *_points(rays, t))
        sdf, jitter = known.sdf.view(t.shape), noise(num_importance, 1)
        with torch.no_grad():
            place = config.opacity.place
            further.append(place(t, sdf, distance, rays, field.inv_std, num_importance, jitter, step))
    if config.num_guided and guide is not None:
        near, far = (
            torch.where(guide > 0, guide + s * config.guide_spread, end) for s, end in ((-1, rays.near), (1, rays.far))
        )
        around = samplers.uniform(near, far, config.num_guided, noise(config.num_guided, 2))
        further.append(torch.minimum(torch.maximum(around, rays.near[:, None]), rays.far[:, None]))
    if known is None:
        return [torch.cat([t, *further], dim=1)], None
    return [t, torch.cat(further, dim=1)], known


def _points(rays: Rays, t: Float[Tensor, "R S"]) -> tuple[Float[Tensor, "N 3"], Int[Tensor, " N"]]:
    """World points at distances along rays, ray by ray, and their scenes."""
    xyz = rays.origins[:, None] + t[..., None] * rays.directions[:, None]
    return xyz.flatten(0, 1), rays.scene[:, None].expand(t.shape).flatten()


def _decode(
    head: nn.Linear | None, inputs: Float[Tensor, "R E"] | None, opacity: Float[Tensor, " R"]
) -> Float[Tensor, "R K"] | None:
    """Decoded after compositing: ``A sum(w f) + b sum(w) = sum(w (A f + b))`` with 1/S of the work."""
    if head is None or inputs is None:
        return None
    return inputs @ head.weight.T + opacity[:, None] * head.bias


def _ray_keys(rays: Rays, keys: Int[Tensor, " B"]) -> tuple[Int[Tensor, " R"], Int[Tensor, " R"]]:
    """What a ray is known by: its scene's key and its number within the scene."""
    first = torch.searchsorted(rays.scene, torch.arange(len(keys), device=keys.device))
    number = torch.arange(len(rays), device=keys.device) - first[rays.scene]
    return keys[rays.scene], number


def _ray_noise(ray_keys: tuple[Tensor, Tensor], num: int, stream: int) -> Float[Tensor, "R {num}"]:
    """Uniform numbers per ray and sample."""
    of_ray = hashed(*ray_keys, stream)
    return uniform_from(hashed(of_ray[:, None], torch.arange(num, device=of_ray.device)))
