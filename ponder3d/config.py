"""Configurations: frozen dataclasses that turn into JSON and back, strictly, and have a fingerprint.

A configuration holds what a person may choose; facts that follow from something else (number of classes, input
channels) are arguments of ``build``. There is no registry: the JSON of a configuration names its class by its Python
address. Reading one back never imports code that the program has not imported by itself, except modules of ponder3d.
"""

import dataclasses
import difflib
import hashlib
import importlib
import json
import sys
import types
import typing
from collections.abc import Callable
from typing import Any, TypeVar, cast


class Config:
    """Marks a frozen dataclass whose fields are bool, int, float, str, tuples of them, or other Configs."""


class ConfigError(ValueError):
    """A configuration that cannot be read; the message names the field and what to do."""


C = TypeVar("C", bound=Config)
T = TypeVar("T")

_INCIDENTAL, _LATER = "incidental", "later"


def incidental(default: T) -> T:
    """The default of a field that has no part in what comes out: where files go, how many processes share the work.

    Such a field is written and read like any other, and ``fingerprint`` leaves it out.
    """
    return dataclasses.field(default=default, metadata={_INCIDENTAL: True})


def later(default: T) -> T:
    """The default of a field that its class got later, where what was there before is what the default says.

    A file that lacks it means the default, and while it has the default a fingerprint is what it was before.
    """
    return dataclasses.field(default=default, metadata={_LATER: True})


def to_json(config: Config) -> dict[str, Any]:
    """The configuration as JSON values, with a ``type`` entry per Config.

    Raises:
        ConfigError: a field holds something that is not a configuration value.
    """
    return _encode(config, "", lambda field, value: True)


def essence(config: Config) -> dict[str, Any]:
    """``to_json`` without the incidental fields, and later ones that have their defaults, those of its parts included:
    what decides the outcome."""
    return _encode(config, "", _decides)


def _decides(field: dataclasses.Field[Any], value: Any) -> bool:
    return not (field.metadata.get(_INCIDENTAL) or (field.metadata.get(_LATER) and value == field.default))


def from_json(cls: type[C], data: dict[str, Any]) -> C:
    """Read a configuration back; unknown, missing and ill-typed fields are errors.

    Raises:
        ConfigError: naming the field by its path.
    """
    return _decode(cls, data, "")


def fingerprint(config: Config) -> str:
    """First 12 hex digits of the SHA-256 of the canonical JSON of what decides the outcome: ``essence``."""
    text = json.dumps(essence(config), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _encode(value: Any, path: str, keep: Callable[[dataclasses.Field[Any], Any], bool]) -> Any:
    if isinstance(value, Config):
        names = [f.name for f in dataclasses.fields(value) if keep(f, getattr(value, f.name))]  # type: ignore[arg-type]
        fields = {name: _encode(getattr(value, name), _join(path, name), keep) for name in names}
        return {"type": f"{type(value).__module__}:{type(value).__qualname__}", **fields}
    if isinstance(value, (tuple, list)):
        return [_encode(item, f"{path}[{i}]", keep) for i, item in enumerate(value)]
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise ConfigError(f"{path or 'the configuration'} holds a {type(value).__name__}, which is no configuration value")


def _decode(annotation: Any, value: Any, path: str) -> Any:
    origin = typing.get_origin(annotation)
    if origin in (typing.Union, types.UnionType):
        options = typing.get_args(annotation)
        if value is None and type(None) in options:
            return None
        if isinstance(value, dict):
            return _decode_config(tuple(o for o in options if _is_config(o)), value, path)
        plain = [o for o in options if o is not type(None) and not _is_config(o)]
        return _decode(plain[0], value, path) if plain else _wrong(value, annotation, path)
    if _is_config(annotation):
        return _decode_config((annotation,), value, path)
    if origin is tuple:
        return _decode_tuple(typing.get_args(annotation), value, path)
    if origin is typing.Literal:
        return value if value in typing.get_args(annotation) else _wrong(value, annotation, path)
    if annotation is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if isinstance(annotation, type) and type(value) is annotation:
        return value
    return _wrong(value, annotation, path)


def _decode_tuple(items: tuple[Any, ...], value: Any, path: str) -> tuple[Any, ...]:
    if not isinstance(value, list):
        return _wrong(value, tuple, path)
    if len(items) == 2 and items[1] is Ellipsis:
        items = (items[0],) * len(value)
    if len(items) != len(value):
        raise ConfigError(f"{path}: expected {len(items)} values, found {len(value)}")
    return tuple(_decode(item, v, f"{path}[{i}]") for i, (item, v) in enumerate(zip(items, value, strict=True)))


def _decode_config(allowed: tuple[type, ...], data: Any, path: str) -> Any:
    where = path or "the configuration"
    if not isinstance(data, dict) or not isinstance(data.get("type"), str):
        raise ConfigError(f"{where}: expected an object with a 'type' entry")
    cls = _find_class(data["type"], where)
    if not issubclass(cls, allowed):
        raise ConfigError(f"{where}: {data['type']} is not one of {', '.join(a.__name__ for a in allowed)}")
    hints = typing.get_type_hints(cls)
    names = [f.name for f in dataclasses.fields(cls)]
    for name in data:
        if name != "type" and name not in names:
            close = difflib.get_close_matches(name, names, n=1)
            hint = f"; did you mean {close[0]!r}?" if close else ""
            raise ConfigError(f"{_join(path, name)}: {cls.__name__} has no such field{hint}")
    # An incidental field has no part in what comes out: a file from before it was there means its default.
    optional = {f.name for f in dataclasses.fields(cls) if f.metadata.get(_INCIDENTAL) or f.metadata.get(_LATER)}
    missing = [name for name in names if name not in data and name not in optional]
    if missing:
        raise ConfigError(f"{_join(path, missing[0])}: missing; it was written by another version of ponder3d")
    return cls(**{name: _decode(hints[name], data[name], _join(path, name)) for name in names if name in data})


def _find_class(address: str, where: str) -> type:
    module_name, _, qualname = address.partition(":")
    if module_name not in sys.modules and module_name.partition(".")[0] == __name__.partition(".")[0]:
        try:
            importlib.import_module(module_name)
        except ImportError as error:
            raise ConfigError(f"{where}: ponder3d has no module {module_name}") from error
    found: Any = sys.modules.get(module_name)
    if found is None:
        raise ConfigError(
            f"{where}: type {address} is of a module that is not imported; import {module_name} first (on the command "
            f"line --import {module_name})"
        )
    for part in qualname.split("."):
        found = getattr(found, part, None)
    if found is None and module_name == "__main__":
        raise ConfigError(
            f"{where}: {qualname} is of a script, which only that script knows; put the class in a module of its own "
            "and import it there, for what is to be used elsewhere"
        )
    if not (_is_config(found) and dataclasses.is_dataclass(found)):
        raise ConfigError(f"{where}: {address} is no configuration class")
    return cast(type, found)


def _is_config(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, Config)


def _wrong(value: Any, annotation: Any, path: str) -> Any:
    name = getattr(annotation, "__name__", str(annotation))
    raise ConfigError(f"{path}: expected {name}, found {value!r}")


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name
