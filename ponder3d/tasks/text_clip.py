"""Class vectors of CLIP's text encoder, whose space images share: by transformers or by open_clip.

Both packages go on without the weights or the words that they lack: transformers may return a tokenizer of two words,
open_clip warns and keeps random weights. Here either is an error, and nothing is downloaded.
"""

import importlib
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jaxtyping import Float
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from ponder3d.encoders.files import weights_digest
from ponder3d.tasks.class_vectors import ClassVectors, ClassVectorsConfig
from ponder3d.tasks.text_prompts import PAPER_TEMPLATES, check_templates, prompted
from ponder3d.types import LabelSet

_FEWEST_TOKENS = 40_000
"""CLIP's vocabulary has 49,408."""


@dataclass(frozen=True)
class ClipText(ClassVectorsConfig):
    """CLIP by transformers (the extra ``text``), with weights that are on this machine."""

    model: str = "openai/clip-vit-base-patch16"
    """Folder of the model, or the name of one that has been downloaded before."""
    templates: tuple[str, ...] = PAPER_TEMPLATES
    """Prompts, ``{}`` for the name."""

    def __post_init__(self):
        check_templates(self.templates, "ClipText")

    def build(self, labels: LabelSet) -> ClassVectors:
        """The vectors of these classes.

        Raises:
            ValueError: transformers, the weights or the tokenizer are not there; the message says how to get them.
        """
        transformers = _import("transformers", "ClipText", "pip install 'ponder3d[text]'")
        get = f"download it where there is a network: hf download {self.model}, or name a folder in ClipText.model"
        options: dict[str, Any] = {"local_files_only": True}
        try:
            model, report = transformers.CLIPTextModelWithProjection.from_pretrained(
                self.model, use_safetensors=True, output_loading_info=True, **options
            )
            tokenizer = transformers.CLIPTokenizer.from_pretrained(self.model, **options)
        except (OSError, ValueError, SafetensorError) as error:
            raise ValueError(f"ClipText: no usable {self.model} on this machine ({_first(error)}); {get}") from error
        lacking = sorted(report["missing_keys"])
        if lacking:
            raise ValueError(f"ClipText: {self.model} lacks weights (first: {lacking[0]}) and would be random; {get}")
        if tokenizer.vocab_size <= _FEWEST_TOKENS or _ids(tokenizer, "chair") == _ids(tokenizer, "table"):
            raise ValueError(
                f"ClipText: the tokenizer of {self.model} knows {tokenizer.vocab_size} tokens: its files are not on "
                f"this machine; {get}"
            )
        model.eval()

        def encode(texts: list[str]) -> Float[Tensor, "P E"]:
            return model(**tokenizer(texts, padding=True, truncation=True, return_tensors="pt")).text_embeds

        vectors = prompted(labels.names, self.templates, encode, "ClipText")
        digest = weights_digest(model.state_dict())[:12]
        return ClassVectors(vectors, f"{self.model} {digest}, {_prompts(self.templates)}")


@dataclass(frozen=True)
class OpenClipText(ClassVectorsConfig):
    """CLIP by open_clip, with a file of weights."""

    model: str = "ViT-B-16"
    """Name of the architecture. Weights of OpenAI need one with ``-quickgelu``."""
    weights: str = ""
    """File of the weights, safetensors: those of pickle run what is in them."""
    templates: tuple[str, ...] = PAPER_TEMPLATES
    """Prompts, ``{}`` for the name."""

    def __post_init__(self):
        check_templates(self.templates, "OpenClipText")

    def build(self, labels: LabelSet) -> ClassVectors:
        """The vectors of these classes.

        Raises:
            ValueError: open_clip or weights are not there, or some weights would be random.
        """
        path = Path(self.weights)
        if path.suffix != ".safetensors" or not path.is_file():
            raise ValueError(
                f"OpenClipText.weights: no safetensors file {self.weights!r}; repositories of open_clip models have an "
                "open_clip_model.safetensors"
            )
        install = "pip install open_clip_torch, with a torchvision that fits torch"
        open_clip = _import("open_clip", "OpenClipText", install)
        try:
            stored = load_file(path)
        except SafetensorError as error:
            raise ValueError(f"{path}: no intact safetensors file ({error})") from error
        with _quiet():  # it would warn of random weights, which are replaced at once
            try:
                model: Any = open_clip.create_model(self.model)
                tokenizer = open_clip.get_tokenizer(self.model)
            except (RuntimeError, OSError) as error:
                raise ValueError(f"OpenClipText.model: {self.model!r} is unknown ({_first(error)})") from error
        _load(model, stored, path, self.model)
        model.eval()
        vectors = prompted(
            labels.names, self.templates, lambda texts: model.encode_text(tokenizer(texts)), "OpenClipText"
        )
        digest = weights_digest(model.state_dict())[:12]
        return ClassVectors(vectors, f"open_clip {self.model} {path.name} {digest}, {_prompts(self.templates)}")


def _load(model: nn.Module, stored: dict[str, Tensor], path: Path, name: str) -> None:
    """Put weights into a model that holds random ones; every one of them has to be there."""
    for key, value in model.state_dict().items():
        if key not in stored:
            raise ValueError(f"{path}: lacks weights of {name} (first: {key}), which would stay random")
        if stored[key].shape != value.shape:
            shapes = f"{list(stored[key].shape)} and {name} needs {list(value.shape)}"
            raise ValueError(f"{path}: {key} is {shapes}; the file belongs to another model")
    model.load_state_dict(stored, strict=False)


def _import(package: str, owner: str, install: str) -> Any:
    try:
        return importlib.import_module(package)
    except (ImportError, RuntimeError) as error:  # a torchvision of another torch raises the latter
        raise ValueError(f"{owner}: {package} cannot be imported ({_first(error)}); {install}") from error


def _ids(tokenizer: Any, text: str) -> list[int]:
    return list(tokenizer(text)["input_ids"])


def _prompts(templates: tuple[str, ...]) -> str:
    return "the paper's 21 prompts" if templates == PAPER_TEMPLATES else f"prompts: {' | '.join(templates)}"


def _first(error: BaseException) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__


@contextmanager
def _quiet() -> Iterator[None]:
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)
