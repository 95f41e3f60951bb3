"""Ways to use a pre-trained encoder: which of its weights a task may change.

What is frozen has no gradient and keeps its running statistics: it is in evaluation mode whatever mode the task is in.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass

from torch import nn

from ponder3d.config import Config
from ponder3d.encoders.encoder import Encoder
from ponder3d.sparse.nn import LowRank, SparseConv


class TuningConfig(Config, ABC):
    """Choices of what is trained of an encoder."""

    @abstractmethod
    def build(self, encoder: Encoder) -> "Tuning":
        """Freeze what is not trained, of an encoder whose weights may be set later.

        Raises:
            ValueError: the encoder cannot be tuned in this way.
        """


class Tuning(nn.Module):
    """What a task holds beside its encoder: which parts of that are frozen, and the parameters that it got."""

    def __init__(self, frozen: list[nn.Module]):
        super().__init__()
        self._frozen = tuple(frozen)  # a tuple: the encoder's modules are not this one's
        for module in self._frozen:
            for parameter in module.parameters(recurse=False):
                parameter.requires_grad_(False)

    def hold(self) -> None:
        """Put what is frozen into evaluation mode; to be called after every ``train`` of the encoder."""
        for module in self._frozen:
            module.training = False  # of this module alone: there may be others below it that are trained


@dataclass(frozen=True)
class Full(TuningConfig):
    """Everything is trained."""

    def build(self, encoder: Encoder) -> Tuning:
        """Nothing is frozen."""
        return Tuning([])


@dataclass(frozen=True)
class DecoderOnly(TuningConfig):
    """The decoder of the encoder (``Encoder.decoder``) and the head are trained; Pointcept's decoder probing."""

    def build(self, encoder: Encoder) -> Tuning:
        """All but the decoder is frozen.

        Raises:
            ValueError: the encoder has no decoder.
        """
        if not encoder.decoder:
            raise ValueError(
                f"DecoderOnly: a {type(encoder).__name__} has no decoder of its own (Encoder.decoder); take HeadOnly, "
                "or Full"
            )
        trained = {module for name in encoder.decoder for module in encoder.get_submodule(name).modules()}
        return Tuning([module for module in encoder.modules() if module not in trained])


@dataclass(frozen=True)
class HeadOnly(TuningConfig):
    """The head alone is trained, on the features of the encoder as it is: a linear probe with augmentation."""

    def build(self, encoder: Encoder) -> Tuning:
        """All of the encoder is frozen."""
        return Tuning(list(encoder.modules()))


@dataclass(frozen=True)
class Lora(TuningConfig):
    """Sparse convolutions are changed by matrices of low rank, and the head is trained (Hu et al. 2022).

    Other layers, 1x1x1 convolutions and norms among them, stay as they are. A file of the encoder has the changed
    weights as its own.
    """

    rank: int = 4
    """Of the change of each convolution, as a matrix from the taps' inputs to the outputs."""
    alpha: float = 8.0
    """The change is multiplied by ``alpha / rank``."""

    def __post_init__(self):
        if self.rank < 1 or self.alpha <= 0:
            raise ValueError(f"Lora: rank and alpha must be positive, not {self.rank} and {self.alpha}")

    def build(self, encoder: Encoder) -> Tuning:
        """All of the encoder is frozen, and its convolutions are changed by parameters of the task.

        Raises:
            ValueError: the encoder has no sparse convolutions.
        """
        convs = {name: module for name, module in encoder.named_modules() if isinstance(module, SparseConv)}
        if not convs:
            raise ValueError(f"Lora: a {type(encoder).__name__} has no sparse convolutions to change; take HeadOnly")
        return LoraTuning(encoder, convs, self)


class LoraTuning(Tuning):
    """The changes, by the places of the convolutions in the encoder."""

    def __init__(self, encoder: Encoder, convs: dict[str, SparseConv], config: Lora):
        super().__init__(list(encoder.modules()))
        self.changes = nn.ModuleDict()
        for name, conv in convs.items():
            change = LowRank(conv.weight, config.rank, config.alpha / config.rank)
            conv.change(change)
            self.changes[name.replace(".", "/")] = change  # a dot would be a level of its own
