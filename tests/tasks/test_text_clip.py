"""CLIP itself is not here: stand-ins for transformers and open_clip, which fail as those do."""

import sys
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from ponder3d.tasks.text_clip import ClipText, OpenClipText
from ponder3d.types import LabelSet

CLASSES = LabelSet(("chair", "sofa", "shower_curtain"), ((0, 0, 0),) * 3)


class Model(nn.Module):
    """The sum of random vectors of letters."""

    def __init__(self, seed: int = 0):
        super().__init__()
        table = torch.randn(128, 6, generator=torch.Generator().manual_seed(seed))
        self.register_buffer("table", table)

    def encode_text(self, ids):
        return self.table[ids].sum(1)

    def forward(self, input_ids):
        return SimpleNamespace(text_embeds=self.encode_text(input_ids))


class Tokenizer:
    """Letters as tokens; with a vocabulary of 2 every text is the same, as of transformers' without its files."""

    def __init__(self, vocab_size: int = 49408):
        self.vocab_size = vocab_size

    def __call__(self, texts, padding=False, truncation=False, return_tensors=None):
        if isinstance(texts, str):
            return {"input_ids": self.ids(texts)}
        width = max(map(len, texts))
        return {"input_ids": torch.tensor([self.ids(text.ljust(width)) for text in texts])}

    def ids(self, text):
        return [ord(c) for c in text] if self.vocab_size > 2 else [1] * len(text[:1])


def transformers(monkeypatch, missing=(), vocab_size=49408, error=None):
    """Stands in for the package; the options of calls are kept in ``calls``."""
    calls = []

    def load_model(name, **options):
        calls.append(options)
        if error is not None:
            raise error
        return Model(), {"missing_keys": set(missing)}

    def load_tokenizer(name, **options):
        calls.append(options)
        return Tokenizer(vocab_size)

    made = SimpleNamespace(
        CLIPTextModelWithProjection=SimpleNamespace(from_pretrained=load_model),
        CLIPTokenizer=SimpleNamespace(from_pretrained=load_tokenizer),
        calls=calls,
    )
    monkeypatch.setitem(sys.modules, "transformers", made)
    return made


def open_clip(monkeypatch, models=("ViT-B-16",)):
    """Stands in for the package, whose models are random."""

    def create_model(name):
        if name not in models:
            raise RuntimeError(f"Model config for {name} not found.")
        return Model(seed=int(torch.randint(1 << 30, ())))

    made = SimpleNamespace(
        create_model=create_model, get_tokenizer=lambda name: lambda texts: Tokenizer()(texts)["input_ids"]
    )
    monkeypatch.setitem(sys.modules, "open_clip", made)


def example(member, monkeypatch, tmp_path):
    if member.__name__ == "ClipText":
        transformers(monkeypatch)
        return member()
    open_clip(monkeypatch)
    save_file(Model().state_dict(), tmp_path / "clip.safetensors")
    return member(weights=str(tmp_path / "clip.safetensors"))


def test_nothing_is_downloaded_or_unpickled(monkeypatch):
    made = transformers(monkeypatch)
    vectors = ClipText().build(CLASSES)
    assert [call["local_files_only"] for call in made.calls] == [True, True] and made.calls[0]["use_safetensors"]
    assert vectors.source.startswith("openai/clip-vit-base-patch16 ")
    assert vectors.source.endswith(", the paper's 21 prompts")
    assert ClipText(templates=("{}", "a {}")).build(CLASSES).source.endswith(", prompts: {} | a {}")


def test_without_transformers(monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ValueError, match=r"transformers cannot be imported .*; pip install 'ponder3d\[text\]'"):
        ClipText().build(CLASSES)


def test_weights_that_are_not_there(monkeypatch):
    transformers(monkeypatch, error=OSError("not in the cache\nand more"))
    with pytest.raises(ValueError, match=r"no usable org/m on this machine \(not in the cache\); .*hf download org/m"):
        ClipText("org/m").build(CLASSES)
    transformers(monkeypatch, missing=("text_projection.weight",))
    with pytest.raises(ValueError, match=r"lacks weights \(first: text_projection.weight\) and would be random"):
        ClipText().build(CLASSES)


@pytest.mark.parametrize("vocab_size", [2, 40_000])
def test_a_tokenizer_without_words(monkeypatch, vocab_size):
    transformers(monkeypatch, vocab_size=vocab_size)
    with pytest.raises(ValueError, match=rf"knows {vocab_size} tokens: its files are not on this machine"):
        ClipText().build(CLASSES)


def test_a_tokenizer_to_which_all_words_are_the_same(monkeypatch):
    made = transformers(monkeypatch)

    class Same(Tokenizer):
        def ids(self, text):
            return [7]

    made.CLIPTokenizer.from_pretrained = lambda *args, **options: Same()
    with pytest.raises(ValueError, match="its files are not on this machine"):
        ClipText().build(CLASSES)


def test_weights_of_the_file_not_random_ones(monkeypatch, tmp_path):
    made = example(OpenClipText, monkeypatch, tmp_path).build(CLASSES)
    transformers(monkeypatch)  # the same stand-in model, with the weights of the file
    torch.testing.assert_close(made.vectors, ClipText().build(CLASSES).vectors)
    assert made.source.startswith("open_clip ViT-B-16 clip.safetensors ")


def test_weights_that_would_stay_random(monkeypatch, tmp_path):
    open_clip(monkeypatch)
    path = tmp_path / "w.safetensors"
    save_file({"other": torch.zeros(1)}, path)
    with pytest.raises(ValueError, match=r"lacks weights of ViT-B-16 \(first: table\), which would stay random"):
        OpenClipText(weights=str(path)).build(CLASSES)
    save_file({"table": torch.zeros(128, 5)}, path)
    with pytest.raises(ValueError, match=r"table is \[128, 5\] and ViT-B-16 needs \[128, 6\]"):
        OpenClipText(weights=str(path)).build(CLASSES)
    path.write_bytes(b"nothing of the kind")
    with pytest.raises(ValueError, match="no intact safetensors file"):
        OpenClipText(weights=str(path)).build(CLASSES)
    for name in ("", "openai", str(tmp_path / "absent.safetensors"), str(tmp_path)):
        with pytest.raises(ValueError, match=f"OpenClipText.weights: no safetensors file {name!r}"):
            OpenClipText(weights=name).build(CLASSES)


def test_an_unknown_model_and_no_open_clip(monkeypatch, tmp_path):
    config = example(OpenClipText, monkeypatch, tmp_path)
    with pytest.raises(ValueError, match="OpenClipText.model: 'ViT-X' is unknown"):
        OpenClipText("ViT-X", config.weights).build(CLASSES)
    monkeypatch.setitem(sys.modules, "open_clip", None)
    with pytest.raises(ValueError, match="open_clip cannot be imported .*; pip install open_clip_torch"):
        config.build(CLASSES)
