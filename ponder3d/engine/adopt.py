"""Released segmentation models as runs: what was trained elsewhere is evaluated and predicted with like one's own."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ponder3d.config import fingerprint, to_json
from ponder3d.encoders.encoder import EncoderFileError
from ponder3d.encoders.files import FILE_NAME, save_encoder
from ponder3d.encoders.released import Released
from ponder3d.encoders.released_heads import DecoupledHead, Head, LinearHead
from ponder3d.engine.checkpoint import CheckpointStore
from ponder3d.engine.experiment import Experiment
from ponder3d.tasks.heads import HeadConfig, LanguageHeadConfig, LinearHeadConfig
from ponder3d.tasks.kept_vectors import KeptVectors
from ponder3d.tasks.semseg import SemSegConfig
from ponder3d.tasks.tuning import Full
from ponder3d.types import LabelSet


def adopt(
    released: Released, experiment: Experiment, out: Path | str, condition: str = "", card: dict[str, Any] | None = None
) -> Experiment:
    """Write the run that would have ended with these weights, for ``evaluate`` and ``predict``.

    The experiment says what data to evaluate on and how; its encoder and its head become those of the model. Labels of
    the data must be in the order in which the model was trained: ScanNet's 20 and 200, Structured3D's 25 and S3DIS's 13
    classes as ``ponder3d.data`` has them.

    Args:
        released: with a head.
        experiment: of a segmentation recipe.
        out: directory of the run.
        condition: where the model tells conditions apart, the one whose data these are; it is folded into the norms.
        card: JSON values to go with the encoder.

    Returns:
        The experiment of the run.

    Raises:
        ValueError: the recipe is not one of segmentation, ``out`` holds a run, or the condition is missing or unknown.
        EncoderFileError: the model has no head, or one of another number of classes than the data.
        DataError: the data are not there.
        OSError: storage failed.
    """
    out, task_config = Path(out), experiment.task
    if not isinstance(task_config, SemSegConfig):
        raise ValueError(f"adopt: the recipe's task is {type(task_config).__name__}; take a recipe of segmentation")
    store = CheckpointStore(out / "checkpoints", experiment.keep)
    if store.steps():
        raise ValueError(f"{out} already holds a run; choose another directory")
    condition = _condition(released, condition)
    encoder = released.encoder.folded(condition) if released.encoder.conditions else released.encoder
    labels = experiment.data.build().labels
    if labels is None:
        raise EncoderFileError("adopt: the recipe's data have no labels")
    head, weights = _head(released.head, condition, labels, released.kind)
    # A released head reads the last level.
    task_config = replace(task_config, encoder=encoder.config, head=head, tuning=Full(), all_levels=False)
    experiment = replace(experiment, task=task_config, init="")
    task = experiment.task.build(labels)
    of_encoder = {f"encoder.{name}": value for name, value in encoder.state_dict().items()}
    task.load_state_dict({**of_encoder, **{f"head.{name}": value for name, value in weights.items()}})
    state = {
        "step": experiment.steps,
        "skipped": 0,
        "bad_in_a_row": 0,
        "model": task.state_dict(),
        "facts": task.facts(),
        "optimizer": experiment.optim.build(task).state_dict(),
    }
    store.save(experiment.steps, state, to_json(experiment))
    told = {"experiment": fingerprint(experiment), "step": experiment.steps, "kind": released.kind}
    told |= {"condition": condition} if condition else {}
    save_encoder(task.encoder, out / FILE_NAME, {**(card or {}), **told, **task.facts()})
    return experiment


def _condition(released: Released, condition: str) -> str:
    """The condition to keep; empty if there are none."""
    known = released.encoder.conditions
    if isinstance(released.head, DecoupledHead):
        known = tuple(name for name, _ in released.head.heads)
    if not condition and len(known) == 1:
        return known[0]
    if condition not in (known or ("",)):
        what = f"--condition {condition}: unknown" if condition else "say whose data they are (--condition)"
        raise ValueError(f"adopt: {what}; {released.kind} knows {', '.join(known) or 'no conditions'}")
    return condition


def _head(head: Head | None, condition: str, labels: LabelSet, kind: str) -> tuple[HeadConfig, dict[str, Tensor]]:
    """The head for the classes of the data, and its weights."""
    if head is None:
        raise EncoderFileError(f"adopt: {kind} has no head that tells classes; only its encoder can be converted")
    if isinstance(head, DecoupledHead):
        head = dict(head.heads)[condition]
    if isinstance(head, LinearHead):
        _check_classes(len(head.bias), labels, kind)
        return LinearHeadConfig(), {"weight": head.weight, "bias": head.bias}
    rows = head.rows_for(condition)
    _check_classes(len(rows), labels, kind)
    vectors = head.class_vectors[list(rows)]
    weights = {
        "project.weight": head.project_weight,
        "project.bias": head.project_bias,
        "vectors": vectors,
        "log_scale": torch.tensor(head.log_scale),
    }
    scale = float(torch.tensor(head.log_scale).exp())
    return LanguageHeadConfig(KeptVectors(vectors.shape[1], f"vectors of {kind}"), scale), weights


def _check_classes(number: int, labels: LabelSet, kind: str) -> None:
    if number != len(labels):
        raise EncoderFileError(
            f"adopt: the head of {kind} tells {number} classes, the recipe's data have {len(labels)}; choose the same "
            "classes for the data (--data.classes), or another condition"
        )
