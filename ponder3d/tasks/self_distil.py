"""Self-distillation: a student that sees a part of a scene says what its teacher says of the whole.

A small relative of Sonata (Wu et al. 2025, arXiv 2503.16429) and of DINO and iBOT before it. The teacher is a moving
average of the student. Both assign what they see to prototypes; the teacher's assignments are made equally frequent
(Sinkhorn-Knopp, Caron et al. 2020), so that they cannot all be the same.

No geometric shortcut: the two views are turned and scaled differently, hidden points are moved out of their place, and
what is compared are means over cells of some voxels, not single points. Sonata has no decoder at all for that reason;
here the whole encoder is taught, for that is what the other tasks teach and what is used afterwards. Nor are Sonata's
local crops here, half of its loss, its second global view, and its changes of colours.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from ponder3d.encoders.encoder import Encoder, EncoderConfig
from ponder3d.encoders.sparse_unet import SparseUNetConfig
from ponder3d.geometry.drawing import block_view
from ponder3d.geometry.grid import find_keys, voxelize
from ponder3d.geometry.keyed import hashed, normals_from
from ponder3d.geometry.rows import sum_rows
from ponder3d.metrics.assignment import Assignment, AssignmentMetric
from ponder3d.tasks.masking import hidden_points
from ponder3d.tasks.pairs import second_view
from ponder3d.tasks.projection_heads import MLPProjection, ProjectionHeadConfig
from ponder3d.tasks.task import Picture, StepLosses, Task, TaskConfig
from ponder3d.tasks.teacher import become, follow, frozen_copy
from ponder3d.types import Batch, LabelSet
from ponder3d.types.scene import INPUT_CHANNELS
from ponder3d.volume.convert import sample_at

_RETRIEVED = 1024
"""Cells of a batch that are looked for among each other in evaluation, at most."""


@dataclass(frozen=True)
class SelfDistilConfig(TaskConfig):
    """Choices of self-distillation. Pairs of numbers are the value at the first step and that after ``ramp`` steps."""

    encoder: EncoderConfig = SparseUNetConfig()
    """The encoder that is pre-trained."""
    hide: tuple[float, float] = (0.3, 0.7)
    """Share of the occupied blocks whose points the student does not see: a learnt token instead of their features, and
    moved by ``jitter``. Zeros: the transforms take points away, and nothing else is hidden."""
    block: tuple[float, float] = (0.2, 0.8)
    """Edge of such a block in metres."""
    jitter: float = 0.5
    """Standard deviation by which hidden points are moved along each axis, in voxels of the encoder."""
    ramp: int = 200
    """Steps after which the second numbers hold."""
    cell: float = 0.24
    """Metres; what student and teacher say is averaged over such cells before it is compared."""
    momentum: tuple[float, float] = (0.98, 0.995)
    """Share of the teacher's weights that stays at each step."""
    head: ProjectionHeadConfig = MLPProjection(hidden=(128, 128), out_channels=32)
    """From features to the embedding, whose cosines with the prototypes are the scores."""
    prototypes: int = 128
    """Number of prototypes."""
    student_temperature: float = 0.1
    """By which the student's scores are divided."""
    teacher_temperature: tuple[float, float] = (0.04, 0.07)
    """By which the teacher's scores are divided; lower than the student's, so that it is the more certain one."""
    rounds: int = 3
    """Of Sinkhorn-Knopp."""

    def __post_init__(self):
        for name in ("hide", "momentum"):
            if not all(0 <= value <= 1 for value in getattr(self, name)):
                raise ValueError(f"SelfDistilConfig.{name} must be shares from 0 to 1, not {getattr(self, name)}")
        for name in ("block", "teacher_temperature"):
            if min(getattr(self, name)) <= 0:
                raise ValueError(f"SelfDistilConfig.{name} must be positive, not {getattr(self, name)}")
        for name in ("cell", "student_temperature"):
            if getattr(self, name) <= 0:
                raise ValueError(f"SelfDistilConfig.{name} must be positive, not {getattr(self, name)}")
        for name, least in (("ramp", 1), ("prototypes", 2), ("rounds", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"SelfDistilConfig.{name} must be at least {least}, not {getattr(self, name)}")
        if self.jitter < 0:
            raise ValueError(f"SelfDistilConfig.jitter must not be negative, but is {self.jitter}")

    def build(self, labels: LabelSet | None) -> Task:
        """The task; labels are not used."""
        return SelfDistil(self)


@dataclass(frozen=True)
class _Cells:
    """What a network says of the cells of one view."""

    keys: Int[Tensor, " M"]
    """Of ``voxelize``: sorted, the same for the same cell of the other view."""
    coords: Int[Tensor, "M 4"]
    feats: Float[Tensor, "M C"]
    """Means of the encoder's features."""
    embedding: Float[Tensor, "M E"]
    """Unit vectors."""
    scores: Float[Tensor, "M K"]
    """Cosines with the prototypes."""


class Assigner(nn.Module):
    """Features to unit embeddings, and to their cosines with prototypes."""

    def __init__(self, in_channels: int, config: SelfDistilConfig):
        super().__init__()
        self.project = config.head.build(in_channels)
        width = config.head.width(in_channels)
        self.prototypes = nn.Parameter(F.normalize(torch.randn(config.prototypes, width), dim=1))

    def forward(self, feats: Float[Tensor, "M C"]) -> tuple[Float[Tensor, "M E"], Float[Tensor, "M K"]]:
        """Embeddings and cosines."""
        embedding = F.normalize(self.project(feats).float(), dim=1)
        return embedding, embedding @ F.normalize(self.prototypes, dim=1).T


class SelfDistil(Task):
    """A student, and a teacher that follows it."""

    def __init__(self, config: SelfDistilConfig):
        super().__init__()
        self.config = config
        self.encoder = config.encoder.build()
        self.head = Assigner(self.encoder.out_channels, config)
        self.token: nn.Parameter | None = None
        if max(config.hide):
            channels = sum(INPUT_CHANNELS[name] for name in config.encoder.inputs)
            self.token = nn.Parameter(torch.empty(channels))
            nn.init.trunc_normal_(self.token, std=0.02, a=-0.02, b=0.02)
        self.teacher_encoder, self.teacher_head = frozen_copy(self.encoder), frozen_copy(self.head)
        self.followed: Tensor
        self.register_buffer("followed", torch.full((), -1, dtype=torch.int64))

    def _begin(self) -> None:
        """Teacher and student are the same."""
        become(self.teacher_encoder, self.encoder)
        become(self.teacher_head, self.head)

    def borrow(self, encoder: Encoder) -> None:
        """The teacher becomes a copy of the encoder too."""
        super().borrow(encoder)
        self._begin()

    def prepare(self, passes: Iterator[Iterable[Batch]]) -> None:
        """The teacher begins as the student, whatever file the latter has been read from."""
        self._begin()

    def losses(self, batch: Batch, step: int) -> StepLosses:
        """Cross-entropy between the teacher's assignment of the pair's cells and the student's of the same cells.

        Monitors: ``matched``, the share of the student's cells that the teacher saw; ``used``, the share of the
        prototypes that the teacher finds likeliest anywhere (exponential of the entropy, 1: all equally often);
        ``agreement`` of the likeliest prototypes; ``spread``, the standard deviation of the student's embedding times
        the root of its width (0: collapse, 1: evenly spread).

        Raises:
            ValueError: the batch has no pair, or its points do not know their place.
        """
        config, pair = self.config, second_view(batch, "SelfDistil")
        if self.training:
            # Once a step, however many passes it has: in further ones the share is 0.
            share = (1 - self._at(config.momentum, step)) * (self.followed != step)
            follow(self.teacher_encoder, self.encoder, share)
            follow(self.teacher_head, self.head, share)
            self.followed.fill_(step)
        with torch.no_grad():
            taught = self._cells(self.teacher_encoder, self.teacher_head, pair)
        seen = self._cells(self.encoder, self.head, self._hidden(batch, step))
        with torch.no_grad():
            wanted = sinkhorn(taught.scores / self._at(config.teacher_temperature, step), config.rounds)
        row, known = _match(seen, taught)
        said = (seen.scores / config.student_temperature).log_softmax(1)
        cross = -(wanted[row] * said).sum(1)
        number = known.sum().clamp(min=1)
        with torch.no_grad():
            likeliest = taught.scores.argmax(1)
            agree = (seen.scores.argmax(1) == likeliest[row]) & known
            monitors = {
                "matched": known.float().mean(),
                "used": _used(likeliest, config.prototypes),
                "agreement": agree.sum() / number,
                "spread": seen.embedding.float().std(0, correction=0).mean() * seen.embedding.shape[1] ** 0.5,
            }
        return StepLosses({"distil": (cross * known).sum() / number}, monitors)

    def _at(self, ends: tuple[float, float], step: int) -> float:
        """A scheduled number at a step."""
        done = min(step / self.config.ramp, 1.0)
        return ends[0] + (ends[1] - ends[0]) * done

    def _hidden(self, batch: Batch, step: int) -> Batch:
        """The batch with hidden blocks: their features are the token, and their points are not where they were."""
        if self.token is None or not self.training:
            return batch
        points = batch.points
        scene = points.scene
        hidden = hidden_points(points, batch.keys, self._at(self.config.hide, step), self._at(self.config.block, step))
        number = torch.arange(len(scene), device=scene.device) - (points.counts.cumsum(0) - points.counts)[scene]
        axes = torch.arange(3, device=scene.device)
        noise, _ = normals_from(hashed(batch.keys[scene][:, None], number[:, None], axes, 0x717))
        xyz = points.xyz + noise * (hidden[:, None] * (self.config.jitter * self.config.encoder.grid_size))
        feats = torch.where(hidden[:, None], self.token.to(points.feats.dtype), points.feats)
        return replace(batch, points=replace(points, xyz=xyz, feats=feats))

    def _cells(self, encoder: Encoder, head: Assigner, batch: Batch) -> _Cells:
        points, place = batch.points, batch.place
        assert place is not None
        feats = sample_at(encoder(batch), points.xyz, points.scene)
        cells = voxelize(place, points.scene, self.config.cell)
        mean = sum_rows(feats, cells.voxel, len(cells.keys)) / cells.counts[:, None]
        return _Cells(cells.keys, cells.coords, mean, *head(mean))

    @torch.no_grad()
    def predict(self, batch: Batch) -> Assignment:
        """What student and teacher assign the cells to that both see: the student in the batch, the teacher in its
        pair.

        Raises:
            ValueError: see ``losses``.
        """
        taught = self._cells(self.teacher_encoder, self.teacher_head, second_view(batch, "SelfDistil"))
        seen = self._cells(self.encoder, self.head, batch)
        row, known = _match(seen, taught)
        kept = known.nonzero()[:, 0]
        row = row[kept]
        some = torch.linspace(0, max(len(kept) - 1, 0), min(len(kept), _RETRIEVED), device=row.device).round().long()
        found = (seen.embedding[kept[some]] @ taught.embedding[row[some]].T).argmax(1) if len(some) else some
        return Assignment(
            student=seen.scores[kept].argmax(1),
            teacher=taught.scores[row].argmax(1),
            found=found == torch.arange(len(some), device=row.device),
            xyz=(seen.coords[kept, 1:] + 0.5) * self.config.cell,
            scene=seen.coords[kept, 0],
        )

    def metric(self) -> AssignmentMetric:
        """How often student and teacher agree, and how many prototypes are used."""
        return AssignmentMetric(self.config.prototypes)

    def pictures(self, prediction: Assignment, batch: Batch) -> list[Picture]:
        """``prototypes``: the first scene from above, each cell in the colour of its likeliest prototype, as the
        student sees it on the left and as the teacher does on the right."""
        first = prediction.scene == 0
        colours = hashed(torch.arange(self.config.prototypes)[:, None], torch.arange(3)).remainder(256).to(torch.uint8)
        xyz, cell = prediction.xyz[first], self.config.cell
        columns = [block_view(xyz, colours[who[first].cpu()], cell) for who in (prediction.student, prediction.teacher)]
        return [Picture("prototypes", torch.cat(columns, dim=1))]


def sinkhorn(scores: Float[Tensor, "M K"], rounds: int) -> Float[Tensor, "M K"]:
    """Assignments that follow scores, and in which every prototype is as frequent as any other, over all ranks.

    Rows add up to 1. Sinkhorn and Knopp 1967, as in SwAV: columns and rows are divided by their sums in turn.
    """
    assigned = (scores - scores.amax(1, keepdim=True)).exp()
    for _ in range(rounds):
        total = assigned.sum(0)
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            torch.distributed.all_reduce(total)
        assigned = assigned / total.clamp(min=1e-12)
        assigned = assigned / assigned.sum(1, keepdim=True).clamp(min=1e-12)
    return assigned


def _used(numbers: Int[Tensor, " M"], total: int) -> Float[Tensor, ""]:
    """Exponential of the entropy of how often each of ``total`` numbers occurs, by ``total``."""
    count = torch.zeros(total, device=numbers.device).index_add_(
        0, numbers, torch.ones_like(numbers, dtype=torch.float)
    )
    share = count / count.sum().clamp(min=1)
    return (-(share * share.clamp(min=1e-12).log()).sum()).exp() / total


def _match(seen: _Cells, taught: _Cells) -> tuple[Int[Tensor, " M"], Bool[Tensor, " M"]]:
    """The teacher's row of each of the student's cells, and whether there is one."""
    row = find_keys(taught.keys, seen.keys)
    return row.clamp(min=0), row >= 0
