import ast
import inspect
import textwrap
from dataclasses import dataclass

import pytest

from ponder3d.config import Config, ConfigError, essence, fingerprint, from_json, incidental, later, to_json


@dataclass(frozen=True)
class Inner(Config):
    size: int = 3
    names: tuple[str, ...] = ("a", "b")


@dataclass(frozen=True)
class Other(Config):
    ratio: float = 0.5


@dataclass(frozen=True)
class Nothing(Config):
    pass


@dataclass(frozen=True)
class Outer(Config):
    part: Inner | Other | Nothing = Inner()
    pair: tuple[int, float] = (1, 2.0)
    parts: tuple[Config, ...] = (Other(), Inner())
    limit: int | None = None


@pytest.mark.parametrize(
    "config", [Outer(), Outer(part=Nothing(), limit=4), Outer(part=Other(0.1), parts=()), Outer(pair=(5, 7.5))]
)
def test_round_trip(config):
    assert from_json(Outer, to_json(config)) == config
    assert fingerprint(from_json(Outer, to_json(config))) == fingerprint(config)


def test_fingerprints_tell_apart():
    assert len({fingerprint(c) for c in (Outer(), Outer(limit=0), Outer(part=Nothing()), Outer(pair=(1, 2.5)))}) == 4


@dataclass(frozen=True)
class Stored(Config):
    seed: int = 0
    folder: str = incidental("here")


@dataclass(frozen=True)
class Holder(Config):
    data: Stored = Stored()
    parts: tuple[Stored, ...] = ()


def test_a_fingerprint_leaves_out_what_has_no_part_in_the_outcome():
    here, there = (Holder(Stored(folder=folder), (Stored(folder=folder),)) for folder in ("here", "there"))
    assert fingerprint(here) == fingerprint(there)
    assert fingerprint(here) != fingerprint(Holder(Stored(seed=1), (Stored(),)))
    assert from_json(Holder, to_json(there)) == there, "it is written and read like any other"
    assert "folder" not in essence(here)["data"] and "folder" not in essence(here)["parts"][0]


def test_whole_numbers_are_read_as_floats():
    data = to_json(Other())
    data["ratio"] = 1
    assert from_json(Other, data) == Other(1.0)


def edited(**changes):
    data = to_json(Outer())
    for path, value in changes.items():
        *parents, last = path.split("__")
        target = data
        for parent in parents:
            target = target[parent]
        target[last] = value
    return data


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (edited(part__sise=4), r"part\.sise: Inner has no such field; did you mean 'size'"),
        (edited(part__size="4"), r"part\.size: expected int, found '4'"),
        (edited(part__size=True), r"part\.size: expected int"),
        (edited(pair=[1]), r"pair: expected 2 values, found 1"),
        (edited(part__names="ab"), r"part\.names: expected tuple"),
        (edited(part__names=[1]), r"part\.names\[0\]: expected str"),
        (edited(part=3), r"part: expected"),
        (edited(part__type="os:system"), "no configuration class"),
        (edited(part__type="antigravity:fly"), "import antigravity first"),
        (edited(part__type="ponder3d.nothing:X"), "no module ponder3d.nothing"),
        (edited(part__type=f"{__name__}:Outer"), "is not one of Inner, Other, Nothing"),
    ],
)
def test_errors_name_the_field(data, message):
    with pytest.raises(ConfigError, match=message):
        from_json(Outer, data)


def test_a_missing_field_is_an_error():
    data = to_json(Outer())
    del data["pair"]
    with pytest.raises(ConfigError, match="pair: missing; it was written by another version"):
        from_json(Outer, data)


def test_an_incidental_field_that_a_file_does_not_know_has_its_default():
    data = to_json(Stored(seed=3, folder="elsewhere"))
    del data["folder"]
    assert from_json(Stored, data) == Stored(seed=3)


def test_only_configuration_values_are_written():
    @dataclass(frozen=True)
    class Bad(Config):
        value: object = object()

    with pytest.raises(ConfigError, match="value holds a object"):
        to_json(Bad())


def test_reading_imports_nothing():
    """A configuration from anywhere must not make the program import, and so run, a module."""
    import sys

    name = "this"  # prints when imported
    assert name not in sys.modules
    with pytest.raises(ConfigError):
        from_json(Outer, edited(part__type="this:s"))
    assert name not in sys.modules


def unexplained(cls: type) -> list[str]:
    """Fields of a class without a string below them, which is what ``--help`` shows."""
    definition = ast.parse(textwrap.dedent(inspect.getsource(cls))).body[0]
    assert isinstance(definition, ast.ClassDef)
    texts = [isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) for node in definition.body[1:]]
    return [
        ast.unparse(node.target)
        for node, has_text in zip(definition.body, [*texts, False], strict=True)
        if isinstance(node, ast.AnnAssign) and not has_text
    ]


def test_every_field_says_what_it_is(members):
    found = {cls.__name__: unexplained(cls) for cls in members(Config)}
    assert len(found) > 20
    assert not {name: fields for name, fields in found.items() if fields}


def test_a_field_that_says_nothing_is_found():
    assert unexplained(Inner) == ["size", "names"]


@dataclass(frozen=True)
class Before(Config):
    seed: int = 0


@dataclass(frozen=True)
class After(Config):
    seed: int = 0
    part: Inner | Other = later(Inner())


def test_a_later_field_changes_nothing_until_it_is_used():
    old, new = to_json(Before(3)), to_json(After(3))
    assert new["part"] == to_json(Inner()), "files have it"
    assert from_json(After, {**old, "type": new["type"]}) == After(3)
    assert {**essence(After(3)), "type": ""} == {**essence(Before(3)), "type": ""}
    assert len({fingerprint(After(3, part)) for part in (Inner(), Inner(4), Other())}) == 3
    assert from_json(After, to_json(After(3, Other()))) == After(3, Other())
