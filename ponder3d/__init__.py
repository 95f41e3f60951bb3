"""ponder3d: teach 3D encoders by rendering (PonderV2), and prove what they learnt.

``load`` gives an encoder and ``Encoder.encode`` features for anybody's points; neither needs anything of the training
side. ``train`` and ``evaluate`` run experiments (``ponder3d.recipes``); they are loaded when first asked for.
"""

from typing import TYPE_CHECKING, Any

from ponder3d.encoders.encoder import Encoder as Encoder
from ponder3d.encoders.files import load_encoder as load
from ponder3d.encoders.files import save_encoder as save
from ponder3d.types import Batch as Batch
from ponder3d.types import Scene as Scene

if TYPE_CHECKING:
    from ponder3d.engine.evaluate import evaluate
    from ponder3d.engine.experiment import Experiment
    from ponder3d.engine.loop import train

__version__ = "0.1.0"

__all__ = ["Batch", "Encoder", "Experiment", "Scene", "evaluate", "load", "save", "train"]

_TRAINING = {
    "Experiment": "ponder3d.engine.experiment",
    "evaluate": "ponder3d.engine.evaluate",
    "train": "ponder3d.engine.loop",
}


def __getattr__(name: str) -> Any:
    """The training side, imported on first use: ``load`` and ``encode`` need none of it."""
    if name in _TRAINING:
        import importlib

        return getattr(importlib.import_module(_TRAINING[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
