"""ALSO: what lies on a line of sight is empty up to the surface, and full behind it.

Boulch et al. 2022, "ALSO: Automotive Lidar Self-supervision by Occupancy estimation" (arXiv 2212.05867). Where a ray
ends at a measured distance, a place just before and one just behind are asked for, and one anywhere on the way. The
paper decodes the latent vectors of the points around a place; here they are pooled into a volume first, which any
encoder has.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from ponder3d.encoders.encoder import EncoderConfig
from ponder3d.encoders.sparse_unet import SparseUNetConfig
from ponder3d.geometry.grid import cells_from_world, shape_like
from ponder3d.geometry.keyed import hashed, uniform_from
from ponder3d.metrics.occupancy import Occupancy, OccupancyMetric
from ponder3d.tasks.masked_occupancy import outcome_view, weighted_mean
from ponder3d.tasks.task import Picture, StepLosses, Task, TaskConfig
from ponder3d.types import Batch, LabelSet, Rays, Volume
from ponder3d.volume.convert import densify_with_offsets, sample_at
from ponder3d.volume.scene_grid import check_grid, scene_grid
from ponder3d.volume.unet3d import ShallowNet3DConfig, VolumeNetConfig

_SALT = 0xA150
"""Tells these random numbers from others that are made with the same keys."""


@dataclass(frozen=True)
class ALSOConfig(TaskConfig):
    """Choices of the pretext task."""

    encoder: EncoderConfig = SparseUNetConfig()
    """The encoder that is pre-trained."""
    volume_shape: tuple[int, int, int] = (32, 32, 16)
    """Cells along x, y and z of each scene's box."""
    volume_box: tuple[float, ...] = ()
    """Lower and upper corner of the volume in the scenes' frame, six numbers in metres, the same for all of
    them. Empty: each scene has a volume of its own, around its bounds."""
    volume_margin: float = 0.1
    """Metres by which the volume reaches beyond the scene's bounds, at least; never less than a cell."""
    volume_net: VolumeNetConfig = ShallowNet3DConfig(channels=32, depth=1, out_channels=32, bypass="add")
    """The dense network between the encoder's pooled features and the decoder."""
    hidden: int = 32
    """Width of the two hidden layers of the decoder of a place."""
    reach: float = 0.2
    """Metres before and behind a surface in which places are drawn; the paper's 0.1 m are for voxels of 5 to 10 cm."""
    free: bool = True
    """Whether a third place is drawn anywhere between the sensor and the surface."""
    colour: float = 0.0
    """Weight of the colour of the surface, decoded at the end of each ray (absolute difference); the paper has the
    laser's intensity there."""

    def __post_init__(self):
        check_grid("ALSOConfig", self.volume_shape, self.volume_box, self.volume_margin)
        if self.reach <= 0 or self.hidden < 1 or self.colour < 0:
            raise ValueError(
                "ALSOConfig: reach must be positive, hidden at least 1 and colour not negative, they are "
                f"{self.reach}, {self.hidden} and {self.colour}"
            )

    def build(self, labels: LabelSet | None) -> Task:
        """The task; labels are not used."""
        return ALSO(self)


@dataclass(frozen=True)
class _Places:
    """Places on lines of sight."""

    xyz: Float[Tensor, "Q 3"]
    scene: Int[Tensor, " Q"]
    full: Bool[Tensor, " Q"]
    """Whether they are behind the surface."""
    counts: Bool[Tensor, " Q"]
    """Whether the ray ends anywhere, and the place is in the volume."""


class ALSO(Task):
    """Encoder and a decoder of places, trained together."""

    def __init__(self, config: ALSOConfig):
        super().__init__()
        self.config = config
        self.encoder = config.encoder.build()
        self.unet = config.volume_net.build(self.encoder.out_channels + 4)
        self.decoder = nn.Sequential(
            nn.Linear(self.unet.out_channels, config.hidden),
            nn.ReLU(),
            nn.Linear(config.hidden, config.hidden),
            nn.ReLU(),
            nn.Linear(config.hidden, 4 if config.colour else 1),
        )

    def losses(self, batch: Batch, step: int) -> StepLosses:
        """Cross-entropy of full and empty, a half each, and the colour if it has a weight; ``accuracy`` as monitor.

        Raises:
            ValueError: the batch has no rays with distances (see ``data.transforms.PickRays``).
        """
        volume = self._volume(batch)
        places = self._places(batch, volume)
        out = self._decoded(volume, places.xyz, places.scene)
        full, empty = (places.counts & places.full).float(), (places.counts & ~places.full).float()
        cross = F.binary_cross_entropy_with_logits(out[:, 0], places.full.float(), reduction="none")
        terms = {"occupancy": (weighted_mean(cross, full) + weighted_mean(cross, empty)) / 2}
        if self.config.colour:
            terms["colour"] = self.config.colour * self._colour_loss(batch, volume)
        with torch.no_grad():
            right = ((out[:, 0] > 0) == places.full).float()
            accuracy = (weighted_mean(right, full) + weighted_mean(right, empty)) / 2
        return StepLosses(terms, {"accuracy": accuracy})

    def _volume(self, batch: Batch) -> Volume:
        config = self.config
        grid = scene_grid(batch.bounds, config.volume_shape, config.volume_box, config.volume_margin)
        return self.unet(densify_with_offsets(self.encoder(batch), grid))

    def _decoded(self, volume: Volume, xyz: Float[Tensor, "Q 3"], scene: Int[Tensor, " Q"]) -> Float[Tensor, "Q C"]:
        """Logit of being full, and colour if it is learnt."""
        return self.decoder(sample_at(volume, xyz, scene)).float()

    def _colour_loss(self, batch: Batch, volume: Volume) -> Float[Tensor, ""]:
        rays, t, rgb = _measured(batch)
        ends = rays.origins + t[:, None] * rays.directions
        seen = self._decoded(volume, ends, rays.scene)[:, 1:].sigmoid()
        return weighted_mean((seen - rgb).abs().mean(1), ((t > 0) & _inside(volume, ends, rays.scene)).float())

    def _places(self, batch: Batch, volume: Volume) -> _Places:
        """Two or three places on each ray, a function of the scene's key and of the ray's number in its scene."""
        rays, t, _ = _measured(batch)
        first = torch.searchsorted(rays.scene, torch.arange(len(batch), device=t.device))
        number = torch.arange(len(rays), device=t.device) - first[rays.scene]
        of_ray = hashed(batch.keys[rays.scene], number, _SALT)
        before, behind, way = uniform_from(hashed(of_ray[:, None], torch.arange(3, device=t.device))).unbind(1)
        reach = self.config.reach
        distances = [torch.maximum(t - reach * before, rays.near), t + reach * behind]
        if self.config.free:
            distances.append(rays.near + way * (t - rays.near).clamp(min=0.0))
        at = torch.stack(distances)
        xyz = (rays.origins + at[..., None] * rays.directions).flatten(0, 1)
        scene = rays.scene.repeat(len(at))
        full = torch.zeros_like(at, dtype=torch.bool)
        full[1].fill_(True)
        return _Places(xyz, scene, full.flatten(), (t > rays.near).repeat(len(at)) & _inside(volume, xyz, scene))

    @torch.no_grad()
    def predict(self, batch: Batch) -> Occupancy:
        """Which of the places on the batch's rays are full.

        Raises:
            ValueError: see ``losses``.
        """
        volume = self._volume(batch)
        places = self._places(batch, volume)
        rows = places.counts.nonzero()[:, 0]
        xyz, scene = places.xyz[rows], places.scene[rows]
        return Occupancy(self._decoded(volume, xyz, scene)[:, 0] > 0, places.full[rows], xyz, scene)

    def metric(self) -> OccupancyMetric:
        """IoU and accuracies of places."""
        return OccupancyMetric()

    def pictures(self, prediction: Occupancy, batch: Batch) -> list[Picture]:
        """``occupancy``: the first scene from above, its points in grey; places that are full and were called so in
        green, called full by mistake in red, missed in blue."""
        return [Picture("occupancy", outcome_view(prediction, batch, self.config.reach / 4))]


def _measured(batch: Batch) -> tuple[Rays, Float[Tensor, " R"], Float[Tensor, "R 3"]]:
    """Rays, the distances at which they end, 0 for none, and what they see there.

    Raises:
        ValueError: there are none.
    """
    if batch.rays is None or batch.targets is None or batch.targets.t is None:
        raise ValueError(f"ALSO: no rays with distances for {batch.sources[0]}; put PickRays among the transforms")
    return batch.rays, batch.targets.t, batch.targets.rgb


def _inside(volume: Volume, xyz: Float[Tensor, "Q 3"], scene: Int[Tensor, " Q"]) -> Bool[Tensor, " Q"]:
    cells = cells_from_world(volume.grid, xyz, scene)
    return ((cells >= 0) & (cells < shape_like(volume.grid.shape, cells))).all(1)
