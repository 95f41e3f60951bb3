"""Probes while an encoder is pre-trained: at every evaluation, what can be read from its features as they are then.

What they measure is a function of the encoder's weights, and the run does not notice them: random numbers and modes are
put back.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch

from ponder3d.config import Config
from ponder3d.data.dataset import DatasetConfig, HeldOut, SceneDataset
from ponder3d.data.loader import KeyedScenes
from ponder3d.data.transforms import Centre, GridSample, Transform
from ponder3d.encoders.encoder import Encoder
from ponder3d.engine.checks import check_conditions, check_images
from ponder3d.engine.random_state import modes_put_back, random_numbers_put_back
from ponder3d.tasks.frozen import labelled_features, scored, single_batches
from ponder3d.tasks.heads import LinearHead
from ponder3d.tasks.knn_probe import KNNProbeConfig, Neighbours
from ponder3d.tasks.linear_probe import LinearProbeConfig, fit_to, scorer_of
from ponder3d.types import LabelSet, Scene

_FIGURES = ("miou", "macc", "allacc")


class ProbeConfig(Config, ABC):
    """Choices of what is measured of an encoder while it is pre-trained."""

    @abstractmethod
    def build(self, encoder: Encoder) -> "Probe":
        """Open the scenes.

        Raises:
            ValueError: they do not fit each other or the encoder.
            DataError: they are not there.
        """


class Probe:
    """Measures nothing."""

    def measure(self, encoder: Encoder, device: torch.device) -> dict[str, float]:
        """Figures of an encoder on its device, by names that no figure of a task has."""
        return {}


@dataclass(frozen=True)
class Off(ProbeConfig):
    """Nothing is measured."""

    def build(self, encoder: Encoder) -> Probe:
        """Nothing is opened."""
        return Probe()


@dataclass(frozen=True)
class OnlineProbes(ProbeConfig):
    """A linear probe and nearest neighbours, on labelled scenes of their own."""

    train: DatasetConfig
    """Scenes with labels, that classifiers are fitted to and neighbours come from."""
    test: DatasetConfig = HeldOut()
    """Scenes to measure on; ``HeldOut()`` takes what ``train`` keeps back. Whoever chooses by the figures should not
    report results on these."""
    transforms: tuple[Transform, ...] = (Centre(), GridSample())
    """What is done to a scene before; drawn with the same numbers every time."""
    train_scenes: int = 0
    """So many of ``train``, from the first on; 0 takes all."""
    test_scenes: int = 0
    """So many of ``test``; 0 takes all."""
    linear: LinearProbeConfig = LinearProbeConfig()
    """Choices of the linear probe: ``probe/miou``, ``probe/macc``, ``probe/allacc``."""
    knn: KNNProbeConfig = KNNProbeConfig()
    """Choices of the neighbours: ``knn/miou`` and so on."""
    seed: int = 0
    """Of the points that are drawn and of the fit; apart from the run's, so that runs with several can be compared."""

    def __post_init__(self):
        if self.train_scenes < 0 or self.test_scenes < 0:
            raise ValueError("OnlineProbes: train_scenes and test_scenes must not be negative")

    def build(self, encoder: Encoder) -> "_OnlineProbes":
        """Open both sets of scenes."""
        return _OnlineProbes(self, encoder)


class _OnlineProbes(Probe):
    def __init__(self, config: OnlineProbes, encoder: Encoder):
        self.config = config
        test = config.train.held_out() if isinstance(config.test, HeldOut) else config.test
        self.train, self.test = config.train.build(), test.build()
        for name, scenes in (("train", self.train), ("test", self.test)):
            if scenes.labels is None or not len(scenes):
                raise ValueError(
                    f"Experiment.probe.{name}: {'no labels' if len(scenes) else 'no scenes'} to measure with"
                )
            check_conditions(f"probe.{name}", scenes, config.transforms, encoder)
            check_images("probe.transforms", scenes, config.transforms, encoder)
        assert self.train.labels is not None and self.test.labels is not None
        if self.train.labels.names != self.test.labels.names:
            raise ValueError("Experiment.probe: train and test have other classes than each other")
        self.labels: LabelSet = self.train.labels
        self.transforms = tuple(transform.on_grid(encoder.config.grid_size) for transform in config.transforms)

    def measure(self, encoder: Encoder, device: torch.device) -> dict[str, float]:
        """Figures of both, as ``linear_probe`` and ``knn_probe`` give them; features are computed once.

        Raises:
            DataError: a scene cannot be read.
            ValueError: no scene has a labelled point, or one has no labels.
        """
        c = self.config
        with random_numbers_put_back(device), modes_put_back(encoder):
            batches = single_batches(encoder, self._scenes(self.train, c.train_scenes), device)
            most = max(c.linear.points_per_scene, c.knn.points_per_scene)
            known = labelled_features(encoder, batches, self.labels, most, c.seed)
            head = LinearHead(encoder.out_channels, self.labels)
            fit_to(known.first(c.linear.points_per_scene), head, c.linear, c.seed)
            neighbours = Neighbours(known.first(c.knn.points_per_scene), self.labels, c.knn, device)
            scorers = {"probe": scorer_of(head), "knn": neighbours}
            found = scored(encoder, self._scenes(self.test, c.test_scenes), self.labels, scorers, device)
        return {f"{name}/{figure}": found[name][figure] for name in scorers for figure in _FIGURES}

    def _scenes(self, dataset: SceneDataset, limit: int) -> Iterator[Scene]:
        scenes = KeyedScenes(dataset, self.transforms, self.config.seed, each_once=True)
        for index in range(min(limit or len(dataset), len(dataset))):
            yield replace(scenes[0, index], views=None, rays=None, targets=None)  # nothing reads them
