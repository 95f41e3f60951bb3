"""How much a comparison has to do."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ponder3d.engine.estimate import Estimate

FINETUNING = "fine-tuning, from scratch"
"""What the estimate of one fine-tuning is called; others are called as their methods, whose names have no comma."""


def tested_factors(most: int, doublings: bool) -> list[int]:
    """Multiples of the recipe's steps that are tested, up to ``most``, a power of two: all doublings, or both ends."""
    return [2**k for k in range(int(math.log2(most)) + 1)] if doublings else sorted({1, most})


@dataclass(frozen=True)
class Workload:
    """Numbers of jobs. Fine-tunings have a multiple of the recipe's steps, the factor at which scratch converges, or
    the recipe's own."""

    pretrainings: Mapping[str, Sequence[int]]
    """Steps of each one that is left to do, by method."""
    choosing: int
    """Fine-tunings of one factor whose settings are chosen."""
    doubling: int
    """Those of scratch among them, which go through the factors in between as well."""
    tested: int
    """Fine-tunings of one factor that are cells of the table."""
    probes: int
    steps: int
    """Of the recipe."""
    longest: int
    """The largest factor allowed."""
    doublings: bool = False
    """Whether every doubling is tested, or the first and the last."""

    @property
    def factors(self) -> tuple[int, int]:
        """Of the earliest convergence that can be seen, and the largest power of two that is allowed."""
        most = 2 ** int(math.log2(self.longest))
        return min(2, most), most

    @property
    def finetunings(self) -> int:
        """At most."""
        most = self.factors[1]
        tested = tested_factors(most, self.doublings)
        left = int(math.log2(most)) + 1 - len(tested)
        return len(tested) * (self.choosing + self.tested) + left * self.doubling

    def finetuning_steps(self, factor: int) -> int:
        """Of all fine-tunings, if scratch converges at a factor."""
        tested = sum(tested_factors(factor, self.doublings))
        left = 2 * factor - 1 - tested
        return self.steps * (tested * (self.choosing + self.tested) + left * self.doubling)

    def all_steps(self, factor: int) -> int:
        """Of pre-trainings that are left, and fine-tunings."""
        return sum(map(sum, self.pretrainings.values())) + self.finetuning_steps(factor)

    def lines(self, known: Sequence[tuple[str, Estimate]], processes: int, memory: float) -> list[str]:
        """To be read before all starts; estimates as of ``seconds``, jobs at a time, and GiB that there are."""
        once, longest = (self.seconds(known, factor) / processes / 60 for factor in self.factors)
        peak = max((one.memory_bytes for _, one in known), default=0) / 2**30
        number = sum(map(len, self.pretrainings.values()))
        warning = "WARNING: one job alone takes more memory than --memory allows; jobs run one at a time all the same"
        return [
            f"{number} pre-trainings to do, at most {self.finetunings} fine-tunings and {self.probes} probes",
            f"about {once:.0f} min if scratch converges at once, {longest:.0f} if it takes {self.factors[1]} times the "
            f"steps, without evaluations and probes, {processes} at a time; {peak:.1f} GiB each of {memory:g} GiB",
            *([warning] if peak > memory else []),
        ]

    def seconds(self, known: Sequence[tuple[str, Estimate]], factor: int) -> float:
        """Of pre-trainings that are left and fine-tunings, one after the other.

        Args:
            known: estimates of one pre-training by each method, under its name, and of one fine-tuning.
            factor: at which scratch converges.
        """
        total = 0.0
        for name, one in known:
            left = self.pretrainings.get(name, ())
            steps = self.finetuning_steps(factor) if name == FINETUNING else sum(left)
            total += steps * one.step_seconds + max(1, len(left)) * one.first_seconds
        return total
