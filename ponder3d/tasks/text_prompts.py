"""From names of classes to one vector per class: prompts, and their mean."""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from ponder3d.tasks.class_vectors import spoken

PAPER_TEMPLATES = (
    "itap of a {}",
    "a origami {}",
    "a rendering of a {}",
    "a painting of a {}",
    "a photo of a {}",
    "a photo of one {}",
    "a photo of a nice {}",
    "a photo of a weird {}",
    "a cropped photo of a {}",
    "a bad photo of a {}",
    "a good photo of a {}",
    "a photo of the large {}",
    "a photo of the small {}",
    "a photo of a clean {}",
    "a photo of a dirty {}",
    "a bright photo of a {}",
    "a dark photo of a {}",
    "a {} in a living room",
    "a {} in a bedroom",
    "a {} in a kitchen",
    "a {} in a bathroom",
)
"""The 21 prompts of PonderV2's indoor configurations."""

_BATCH = 256
"""Prompts that a text encoder gets at a time."""


def check_templates(templates: Sequence[str], owner: str) -> None:
    """Raise a ValueError unless there are templates and each has one place for the name, ``{}``."""
    wrong = [template for template in templates if template.count("{}") != 1]
    if wrong or not templates:
        what = f"{wrong[0]!r} has not exactly one {{}}" if wrong else "there are none"
        raise ValueError(f"{owner}.templates: {what}; the name of a class takes the place of {{}}")


def prompted(
    names: Sequence[str], templates: Sequence[str], encode: Callable[[list[str]], Float[Tensor, "P E"]], owner: str
) -> Float[Tensor, "K E"]:
    """Unit vector per class: the mean over templates of the unit vectors of its prompts, scaled to length 1.

    Args:
        names: of the classes.
        templates: prompts, with ``{}`` where the name goes.
        encode: vectors of prompts, of any length but 0.
        owner: whose vectors they are, for messages.

    Raises:
        ValueError: two classes get the same vector, as from a tokenizer that knows no words, or one gets none.
    """
    # Class by class: the prompts of a class are neighbours, so that [K T] is how they are laid out.
    prompts = [template.replace("{}", name) for name in spoken(names) for template in templates]
    with torch.no_grad():
        parts = [encode(prompts[i : i + _BATCH]).float().cpu() for i in range(0, len(prompts), _BATCH)]
        each = F.normalize(torch.cat(parts), dim=1).view(len(names), len(templates), -1)
        vectors = F.normalize(each.mean(1), dim=1)
    check_apart(names, vectors, owner)
    return vectors


def check_apart(names: Sequence[str], vectors: Float[Tensor, "K E"], owner: str) -> None:
    """Raise a ValueError if a vector is no direction, or two are the same."""
    for name, vector in zip(names, vectors, strict=True):
        if not bool(vector.isfinite().all()) or float(vector.norm()) < 0.5:
            raise ValueError(f"{owner}: the vector of {name!r} is zero or not finite")
    alike = (vectors @ vectors.T).triu(1) > 1 - 1e-6
    if bool(alike.any()):
        first, second = (names[i] for i in alike.nonzero()[0].tolist())
        raise ValueError(
            f"{owner}: {first!r} and {second!r} have the same vector; the text encoder knows none of their words, or "
            "the names differ in nothing that it sees"
        )
