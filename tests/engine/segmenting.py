"""A segmentation run of milliseconds: boards of coloured points, and encoders that are functions of a point alone."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ponder3d.data.dataset import BenchmarkFile, DatasetConfig, SceneDataset
from ponder3d.data.transforms import Centre, GridSample, Shuffle, Transform
from ponder3d.encoders.encoder import Encoder, EncoderConfig
from ponder3d.engine.experiment import Experiment
from ponder3d.engine.optim import OptimConfig
from ponder3d.geometry import keyed
from ponder3d.tasks.semseg import SemSegConfig
from ponder3d.types import Batch, LabelSet, Points, Scene

LABELS = LabelSet(("floor", "wall", "chair"), ((255, 0, 0), (0, 255, 0), (0, 0, 255)))


@dataclass(frozen=True)
class BoardsConfig(DatasetConfig):
    """Points on a floor, several to a voxel; the class shows in the colour, with much noise."""

    names: tuple[str, ...] = ("scene0000_00", "scene0001_00", "scene0002_00")
    labelled: bool = True
    benchmark: bool = True
    classes: tuple[str, ...] = LABELS.names
    sweeps: bool = False
    """As of a laser: every scene is that of a key frame, and its benchmark wants other points."""

    def build(self) -> "Boards":
        return Boards(self)

    def held_out(self) -> "BoardsConfig":
        return replace(self, names=("scene0700_00", "scene0701_00"))


class Boards(SceneDataset):
    """Every read of a scene is noted in ``reads``."""

    reads: list[str] = []

    def __init__(self, config: BoardsConfig):
        self.config = config
        self.labels = LabelSet(config.classes, LABELS.palette) if config.labelled else None
        self.benchmark_ids = (2, 1, 5) if config.benchmark else ()
        self.benchmark = "nuscenes" if config.sweeps else "scannet"

    def __len__(self) -> int:
        return len(self.config.names)

    def __getitem__(self, index: int) -> Scene:
        name = self.config.names[index]
        Boards.reads.append(name)
        random = keyed.generator(index, len(name), 0xB0A2D)
        num = 90 + 7 * index
        labels = torch.randint(0, 3, (num,), generator=random)
        xyz = torch.rand(num, 3, generator=random) * torch.tensor([1.4, 0.9, 0.05]) + 3
        rgb = (torch.eye(3)[labels] + torch.rand(num, 3, generator=random)) / 2
        labels[::11] = -1
        return Scene(xyz, rgb, None, f"boards:{name}", labels=labels if self.config.labelled else None)

    def benchmark_file(self, index: int, scene: Scene) -> BenchmarkFile | None:
        """The first 40 points, after one that was left out and is nearest to the last."""
        if not self.config.sweeps:
            return None
        rows, own = torch.tensor([len(scene.xyz) - 1, *range(40)]), torch.tensor([False] + [True] * 40)
        return BenchmarkFile(f"lidarseg/val/{self.config.names[index]}_lidarseg.bin", rows, own)


@dataclass(frozen=True)
class PointwiseConfig(EncoderConfig):
    """Features of a point are its colour, or its place."""

    inputs: tuple[str, ...] = ("rgb",)
    grid_size: float = 0.1
    place: bool = False

    def build(self) -> "Pointwise":
        return Pointwise(self)


class Pointwise(Encoder):
    def __init__(self, config: PointwiseConfig):
        super().__init__()
        self.config, self.out_channels = config, 3

    def forward(self, batch: Batch) -> Points:
        points = batch.points
        return replace(points, feats=points.xyz if self.config.place else points.feats)


@dataclass(frozen=True)
class Thins(Transform):
    """Says that it keeps the points and does not."""

    def __call__(self, scene: Scene, generator: torch.Generator) -> Scene:
        return replace(scene, xyz=scene.xyz[1:], rgb=None, labels=None)


def semseg_run(**changes) -> Experiment:
    base = Experiment(
        task=SemSegConfig(encoder=PointwiseConfig()),
        data=BoardsConfig(),
        transforms=(Centre(),),
        validation_transforms=(Centre(), GridSample(), Shuffle()),
        optim=OptimConfig(lr=0.3),
        steps=4,
        batch_size=2,
        workers=0,
    )
    return replace(base, **changes)


def by_hand(weight: Tensor, bias: Tensor, feats: Tensor) -> Tensor:
    """Probabilities of a linear head."""
    return (feats @ weight.T + bias).softmax(1)
