"""The choices of a comparison."""

import math
from dataclasses import dataclass

from ponder3d.config import Config, incidental
from ponder3d.engine.comparison_table import WAYS, Labels, items_of, numbers_of


@dataclass(frozen=True)
class CompareConfig(Config):
    """Pre-train by several methods and measure what it is worth in segmentation, at equal budgets."""

    methods: str = "scratch,ponder"
    """Methods, separated by commas: names of ``recipes.methods``, ``NAME=RECIPE``, ``NAME=FILE.safetensors``, ``NAME=``
    and an encoder that comes with the package. ``scratch`` is always among them: gains are from there."""
    labels: str = "1%,5%,10%,100%"
    """How much is labelled, separated by commas: a share of the scenes (``10%``, rounded up; of shares that are the
    same scenes only the largest is run), or points in each scene (``20``)."""
    ways: str = "finetune,probe"
    """Ways to use an encoder, separated by commas: ``finetune`` (all weights), ``decoder``, ``head``, ``lora`` (only
    these are trained), ``probe`` (a linear classifier on frozen features), ``levels`` (on those of all levels of the
    decoder, ``Encoder.all_levels``), ``knn`` (nearest neighbours)."""
    seeds: int = 3
    """Repetitions, each with its own scenes to pre-train on, labelled scenes or points, order and weights."""
    pretrain_steps: str = "0"
    """Budgets of pre-training in steps, separated by commas; 0 is the recipe's own, of the first method that has one.
    With several, there is a curve of quality against compute."""
    pretrain_batch: int = 0
    """Scenes per step of pre-training; 0: as many as the first method's recipe has."""
    rates: str = "0.5,1,2"
    """Learning rates to choose from, as factors on the recipe's."""
    converged: float = 0.5
    """Training from scratch has converged when twice as many steps gain less than this, in points of mIoU."""
    longest: int = 8
    """Most steps of fine-tuning, in multiples of the recipe's, whether or not scratch has converged."""
    doublings: bool = False
    """Test after every doubling of the steps, for a curve, rather than after the recipe's and the last."""
    against: str = incidental("")
    """Method that the others are set against too, seed by seed; empty: the first one listed that pre-trains."""
    withheld: int = 0
    """Labelled scenes set aside to choose by; 0: a fifth of them, at most 4."""
    out: str = incidental("runs/compare")
    """Directory of the comparison; the page is ``report/index.html`` in it."""
    processes: int = incidental(2)
    """Jobs at a time, if ``memory`` allows; each gets an equal share of the threads."""
    memory: float = incidental(8.0)
    """GiB that all jobs together may take, by the estimate."""
    quiet: bool = incidental(False)
    """No progress on the terminal."""

    def __post_init__(self):
        for name, least in (("seeds", 1), ("longest", 1), ("withheld", 0), ("processes", 1), ("pretrain_batch", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"CompareConfig.{name} must be at least {least}, it is {getattr(self, name)}")
        unknown = [way for way in items_of(self.ways, "ways") if way not in WAYS]
        if unknown:
            raise ValueError(f"CompareConfig.ways: no way {unknown[0]!r}; known are {', '.join(WAYS)}")
        for rate in numbers_of(self.rates, "rates"):
            if not 0 < rate < math.inf:
                raise ValueError(f"CompareConfig.rates must be positive, one is {rate:g}")
        items_of(self.methods, "methods")
        for text in items_of(self.labels, "labels"):
            Labels.parse(text)
        for steps in numbers_of(self.pretrain_steps, "pretrain_steps"):
            if not (steps >= 0 and steps % 1 == 0):
                raise ValueError(f"CompareConfig.pretrain_steps must be whole numbers of steps, one is {steps:g}")
