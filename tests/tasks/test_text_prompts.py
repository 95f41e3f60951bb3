import pytest
import torch
import torch.nn.functional as F

from ponder3d.tasks.text_prompts import PAPER_TEMPLATES, check_templates, prompted


def encode(texts: list[str]) -> torch.Tensor:
    """One axis per letter: how often it occurs, and the length of the vector depends on the prompt."""
    rows = torch.stack([torch.tensor([float(text.count(chr(c))) for c in range(97, 123)]) for text in texts])
    return rows * torch.tensor([[1.0 + len(text)] for text in texts])


def test_each_class_is_the_mean_of_its_own_prompts():
    """Two templates and three classes: laid out the wrong way round, a row would mix prompts of two classes."""
    names, templates = ("kk", "mm", "xx"), ("{} u", "vvvvv {}")
    made = prompted(names, templates, encode, "x")
    for name, row in zip(names, made, strict=True):
        first, second = (F.normalize(encode([t.replace("{}", name)]), dim=1)[0] for t in templates)
        torch.testing.assert_close(row, F.normalize((first + second) / 2, dim=0))
    prompts = [t.replace("{}", name) for name in names for t in templates]
    wrong = F.normalize(F.normalize(encode(prompts), dim=1).view(2, 3, -1).mean(0), dim=1)
    assert float((wrong - made).abs().max()) > 0.1
    # By hand: "kk u" is (2, 1) / sqrt 5 over k and u, "vvvvv kk" is (2, 5) / sqrt 29 over k and v.
    k, u, v = 2 / 5**0.5 + 2 / 29**0.5, 1 / 5**0.5, 5 / 29**0.5
    assert float(made[0, ord("k") - 97]) == pytest.approx(k / (k * k + u * u + v * v) ** 0.5, rel=1e-5)


def test_many_prompts_come_in_batches():
    sizes = []

    def counted(texts):
        sizes.append(len(texts))
        return encode(texts)

    names = tuple("abcdefghijklmnopqrst")
    made = prompted(names, PAPER_TEMPLATES, counted, "x")
    assert sizes == [256, 164] and made.shape == (20, 26)
    torch.testing.assert_close(made[3:5], prompted(names[3:5], PAPER_TEMPLATES, encode, "x"))


def test_underscores_are_spaces():
    seen = []
    prompted(("one_two", "b"), ("a {}",), lambda texts: seen.extend(texts) or encode(texts), "x")
    assert seen == ["a one two", "a b"]


def test_the_papers_templates():
    assert len(set(PAPER_TEMPLATES)) == 21
    check_templates(PAPER_TEMPLATES, "x")


def test_an_encoder_that_knows_no_words():
    with pytest.raises(ValueError, match="Fake: 'red' and 'old' have the same vector; the text encoder knows none"):
        prompted(("red", "old"), ("{}",), lambda texts: torch.ones(len(texts), 4), "Fake")
    for value in (0.0, float("nan")):
        with pytest.raises(ValueError, match="Fake: the vector of 'red' is zero or not finite"):
            prompted(("red", "old"), ("{}",), lambda texts, v=value: torch.full((len(texts), 4), v), "Fake")


@pytest.mark.parametrize("templates", [(), ("a photo",), ("{} and {}",)])
def test_templates_have_one_place(templates):
    with pytest.raises(ValueError, match=r"Owner.templates: .*the name of a class takes the place of \{\}"):
        check_templates(templates, "Owner")
