"""The neural SDF field (eq. 4, 5 and 9): features of a volume, decoded to signed distance, colour and semantics.

The spatial gradient of the SDF is written down in closed form: the decoder's derivative by its features, layer by
layer, and the derivative of the trilinear weights (``closed_form.py``). Training needs first-order autograd only, no
double backward.
"""

import math
from dataclasses import dataclass, fields
from typing import Literal, TypeVar

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from ponder3d.config import Config
from ponder3d.geometry.grid import cells_from_world, shape_like
from ponder3d.geometry.trilinear import Corners, corners, sample
from ponder3d.render.closed_form import Decoded, DecoderWeights, Positions, decode_with_gradient
from ponder3d.types import Volume


@dataclass(frozen=True)
class FieldConfig(Config):
    """Choices of the decoders. PonderV2 indoors: hidden 128, two SDF layers, no hidden colour layer, 64 channels."""

    hidden: int = 128
    """Width of hidden layers."""
    sdf_layers: int = 2
    """Linear layers of the SDF decoder, at least 1; the features enter each of them."""
    colour_layers: int = 1
    """Linear layers of the colour decoder, at least 1."""
    geometry_channels: int = 64
    """Channels h that the SDF decoder hands to the other decoders."""
    shared_volume: bool = False
    """Whether all decoders see all channels; otherwise the first half is geometry, the second appearance."""
    use_position: bool = False
    """Whether the decoders also see the position within the volume, in [-1, 1]."""
    heads_see: Literal["all", "appearance"] = "all"
    """What the semantic and the feature head read: normal, appearance, geometry features and position; or the
    appearance alone, so that they say what the volume's features hold linearly."""
    softplus_beta: float = 100.0
    """Sharpness of the SDF decoder's activation."""
    sdf_bias: float = 0.1
    """Initial signed distance in metres, positive: an untrained volume is mostly free space."""
    inv_std: float = 20.0
    """Sharpness of the surface, 1/metres; the initial one if it is learned."""
    background: bool = False
    """Whether what no surface stops has a colour, a learnt function of the ray's direction: the sky. Otherwise it is
    black."""
    learn_inv_std: bool = True
    """Whether the sharpness is learned, as in NeuS. A corrupted input makes blur pay off; a fixed one prevents that."""

    def build(self, in_channels: int, semantic_channels: int = 0, feature_channels: int = 0) -> "SDFField":
        """The field for volumes of ``in_channels``; semantic and feature heads are built when they have channels."""
        return SDFField(in_channels, semantic_channels, feature_channels, self)


@dataclass(frozen=True)
class Look:
    """What a field says at N points, without gradients; ``SDFField.forward`` need not compute it again."""

    at: Corners
    positions: Positions | None
    decoded: Decoded

    @property
    def sdf(self) -> Float[Tensor, " N"]:
        """Metres, positive outside."""
        return self.decoded.distance


@dataclass(frozen=True)
class FieldSamples:
    """What the field says at N points."""

    sdf: Float[Tensor, " N"]
    """Metres, positive outside."""
    gradient: Float[Tensor, "N 3"]
    """Gradient of ``sdf`` in the world frame."""
    geometry: Float[Tensor, "N H"]
    """The features h of eq. 5 and 9."""
    appearance: Float[Tensor, "N A"]
    """The volume features that colour and semantics read."""
    position: Float[Tensor, "N 3"] | None
    """Position within the volume's box, in [-1, 1], if the decoders use it."""

    @property
    def normal(self) -> Float[Tensor, "N 3"]:
        """The gradient's direction; unit length except where the gradient vanishes, and there it does too.

        Far from all points the volume is constant and the gradient is rounding error; dividing by its length of 1e-8
        would multiply the gradient of the colour loss there by as much, and drown the rest.
        """
        return self.gradient / (self.gradient.square().sum(1, keepdim=True) + 1e-4).sqrt()


class SDFDecoder(nn.Module):
    """phi_SDF: features (and position) to signed distance and geometry features, with its derivative.

    ``z_l = W_l softplus(z_{l-1}) + U_l f (+ P q for l = 0)``; the first entry of the last ``z`` is the distance.
    """

    def __init__(self, in_channels: int, config: FieldConfig):
        super().__init__()
        self.beta = config.softplus_beta
        widths = [config.hidden] * (config.sdf_layers - 1) + [1 + config.geometry_channels]
        self.feature_layers = nn.ModuleList([nn.Linear(in_channels, width) for width in widths])
        self.hidden_layers = nn.ModuleList(
            [nn.Linear(i, o, bias=False) for i, o in zip(widths[:-1], widths[1:], strict=True)]
        )
        self.position_layer = nn.Linear(3, widths[0], bias=False) if config.use_position else None
        with torch.no_grad():
            last = self.feature_layers[-1]
            assert isinstance(last, nn.Linear)
            last.bias[0] = config.sdf_bias

    def forward(self, f: Float[Tensor, "N C"], q: Float[Tensor, "N 3"] | None) -> Float[Tensor, "N D"]:
        """Distance, then geometry features."""
        z = self.feature_layers[0](f)
        if self.position_layer is not None:
            assert q is not None
            z = z + self.position_layer(q)
        for hidden, feature in zip(self.hidden_layers, self.feature_layers[1:], strict=True):
            z = hidden(F.softplus(z, beta=self.beta)) + feature(f)
        return z

    def weights(self) -> DecoderWeights:
        """What ``decode_with_gradient`` needs to do the same, with the derivative."""
        return DecoderWeights(
            feature=_weights(self.feature_layers),
            bias=[layer.bias for layer in self.feature_layers if isinstance(layer, nn.Linear)],
            hidden=_weights(self.hidden_layers),
            position=None if self.position_layer is None else self.position_layer.weight,
        )


T = TypeVar("T", Corners, Positions)


def _joined(first: T, then: T) -> T:
    """Two values of tensors as one of more rows."""
    return type(first)(*(torch.cat([getattr(first, f.name), getattr(then, f.name)]) for f in fields(first)))


def _weights(layers: nn.ModuleList) -> list[Tensor]:
    return [layer.weight for layer in layers if isinstance(layer, nn.Linear)]


class SDFField(nn.Module):
    """The decoders on top of a feature volume. Runs in float32 whatever the precision around it."""

    def __init__(self, in_channels: int, semantic_channels: int, feature_channels: int, config: FieldConfig):
        super().__init__()
        self.config = config
        self.split = in_channels if config.shared_volume else in_channels // 2
        appearance = in_channels if config.shared_volume else in_channels - self.split
        self.sdf = SDFDecoder(self.split, config)
        seen = 3 + appearance + config.geometry_channels + (3 if config.use_position else 0)
        widths = [seen + 3] + [config.hidden] * (config.colour_layers - 1)
        layers: list[nn.Module] = []
        for i, o in zip(widths[:-1], widths[1:], strict=True):
            layers += [nn.Linear(i, o), nn.ReLU()]
        self.colour = nn.Sequential(*layers, nn.Linear(widths[-1], 3), nn.Sigmoid())
        self.background = None
        if config.background:
            self.background = nn.Sequential(nn.Linear(3, 16), nn.ReLU(), nn.Linear(16, 3), nn.Sigmoid())
        seen_by_heads = appearance if config.heads_see == "appearance" else seen
        self.semantic = nn.Linear(seen_by_heads, semantic_channels) if semantic_channels else None
        self.feature = nn.Linear(seen_by_heads, feature_channels) if feature_channels else None
        # Stored as a tenth of the logarithm, as NeuS does: the learning rate then moves it by about 10 % per 0.01.
        self.log_inv_std = nn.Parameter(torch.tensor(math.log(config.inv_std) / 10), config.learn_inv_std)

    @property
    def inv_std(self) -> Float[Tensor, ""]:
        """Sharpness s of the surface, 1/metres; bounded so that it can neither vanish nor overflow."""
        return torch.exp(10 * self.log_inv_std).clamp(1e-3, 1e6)

    def distance(self, volume: Volume, xyz: Float[Tensor, "N 3"], scene: Int[Tensor, " N"]) -> Float[Tensor, " N"]:
        """Signed distance alone, for proposals and surface extraction."""
        dtype = self.log_inv_std.dtype
        geometry = Volume(volume.grid, volume.feats[..., : self.split])
        f = sample(geometry, corners(volume.grid, xyz, scene), dtype)
        return self.sdf(f, self._position(volume, xyz, scene))[:, 0]

    @torch.no_grad()
    def look(self, volume: Volume, xyz: Float[Tensor, "N 3"], scene: Int[Tensor, " N"]) -> Look:
        """Everything there is to know at world points that more points will follow, for proposals."""
        at, positions = self._where(volume, xyz, scene)
        return Look(at, positions, self._decode(volume, at, positions, None))

    def forward(
        self, volume: Volume, xyz: Float[Tensor, "N 3"], scene: Int[Tensor, " N"], known: Look | None = None
    ) -> FieldSamples:
        """Distance, gradient and features at world points; given ``known``, at its points and after them at ``xyz``."""
        at, positions = self._where(volume, xyz, scene)
        if known is not None:
            at = _joined(known.at, at)
            positions = None if positions is None or known.positions is None else _joined(known.positions, positions)
        decoded = self._decode(volume, at, positions, None if known is None else known.decoded)
        q = None if positions is None else positions.q
        appearance = decoded.seen if self.config.shared_volume else decoded.unseen
        return FieldSamples(decoded.distance, decoded.gradient, decoded.others, appearance, q)

    def colours(self, samples: FieldSamples, directions: Float[Tensor, "N 3"]) -> Float[Tensor, "N 3"]:
        """phi_RGB (eq. 5): colour in [0, 1] seen along the ray directions."""
        first, *rest = self.colour
        assert isinstance(first, nn.Linear)
        parts = [*self.seen(samples), directions]
        # The first layer part by part: side by side they would be the largest tensor of the renderer.
        z = first.bias
        for part, weight in zip(parts, first.weight.split([part.shape[1] for part in parts], dim=1), strict=True):
            z = torch.addmm(z, part, weight.T)
        for layer in rest:
            z = layer(z)
        return z

    def head_inputs(self, samples: FieldSamples) -> Float[Tensor, "N E"]:
        """What the semantic and feature heads read (eq. 9). Both are affine, so they work after compositing."""
        return torch.cat(self.head_parts(samples), dim=1)

    def head_parts(self, samples: FieldSamples) -> list[Float[Tensor, "N _"]]:
        """``head_inputs`` in parts."""
        return [samples.appearance] if self.config.heads_see == "appearance" else self.seen(samples)

    def seen(self, samples: FieldSamples) -> list[Float[Tensor, "N _"]]:
        """What the colour decoder reads beside the direction, side by side: normal, appearance, geometry, position."""
        parts = [samples.normal, samples.appearance, samples.geometry]
        return parts if samples.position is None else [*parts, samples.position]

    def _decode(self, volume: Volume, at: Corners, positions: Positions | None, known: Decoded | None) -> Decoded:
        rows = volume.feats.flatten(0, 3)
        return decode_with_gradient(rows, at, self.sdf.weights(), self.sdf.beta, positions, known)

    def _where(self, volume: Volume, xyz: Tensor, scene: Tensor) -> tuple[Corners, Positions | None]:
        at, q = corners(volume.grid, xyz, scene), self._position(volume, xyz, scene)
        if q is None:
            return at, None
        return at, Positions(q, (2 / (volume.grid.box[:, 1] - volume.grid.box[:, 0]))[scene])

    def _position(self, volume: Volume, xyz: Tensor, scene: Tensor) -> Tensor | None:
        if not self.config.use_position:
            return None
        return cells_from_world(volume.grid, xyz, scene) / shape_like(volume.grid.shape, xyz) * 2 - 1
