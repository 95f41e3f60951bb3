"""From a dataset to batches. Batch k is a pure function of (seed, k): see ``engine.sampler`` for the order."""

from collections.abc import Sequence

from torch.utils.data import Dataset

from ponder3d.data.dataset import SceneDataset
from ponder3d.data.transforms import Transform, apply
from ponder3d.types import Batch, Scene


class KeyedScenes(Dataset[Scene]):
    """Scenes drawn by (epoch, index): what happens to a scene depends on (seed, epoch, index) alone."""

    def __init__(self, dataset: SceneDataset, transforms: tuple[Transform, ...], seed: int):
        self.dataset, self.transforms, self.seed = dataset, transforms, seed

    def __getitem__(self, draw: tuple[int, int]) -> Scene:
        epoch, index = draw
        return apply(self.transforms, self.dataset[index], self.seed, epoch, index)

    def __len__(self) -> int:
        return len(self.dataset)


class Collate:
    """Packs scenes into a batch with the point channels of one encoder."""

    def __init__(self, inputs: Sequence[str]):
        self.inputs = tuple(inputs)

    def __call__(self, scenes: Sequence[Scene]) -> Batch:
        return Batch.of(scenes, self.inputs)
