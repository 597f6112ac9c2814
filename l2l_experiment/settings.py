"""Settings: frozen dataclasses whose fields carry their ranges, checked in one place for flags, files and Python.

A range is part of a field's type, `gamma: Annotated[float, Range(0, 1)] = 0.99`; None is always inside one.
"""

import math
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args, get_origin

import yaml

from l2l_experiment.errors import UserError
from l2l_experiment.files import plain as plain_values

T = TypeVar("T")
FLAGS = ("l2l", "list", "resume")  # what only a command line has


@dataclass(frozen=True)
class Range:
    """Numbers from `low` to `high`; `open_low` and `open_high` leave the end itself out."""

    low: float = -math.inf
    high: float = math.inf
    open_low: bool = False
    open_high: bool = False

    def __contains__(self, value: float) -> bool:
        above = value > self.low if self.open_low else value >= self.low
        return above and (value < self.high if self.open_high else value <= self.high)

    def __str__(self) -> str:
        if self.high == math.inf:
            if self.low == 0:
                return "be positive" if self.open_low else "not be negative"
            return f"be at least {self.low:.10g}"
        return (
            f"lie in {'(' if self.open_low else '['}{self.low:.10g}, {self.high:.10g}{')' if self.open_high else ']'}"
        )


Count = Annotated[int, Range(1)]
Natural = Annotated[int, Range(0)]
Positive = Annotated[float, Range(0, open_low=True)]
NotNegative = Annotated[float, Range(0)]
Share = Annotated[float, Range(0, 1)]
ShareBelowOne = Annotated[float, Range(0, 1, open_high=True)]
Seed = Annotated[int, Range(0, 2**31 - 1)]
Layers = tuple[Count, ...]


def flag(name: str) -> str:
    """A field as the command line spells it."""
    return f"--{name.replace('_', '-')}"


def check(settings: Any) -> None:
    """UserError that names the flag if a value of a dataclass instance has the wrong type, or is out of range.

    Call it in `__post_init__`.
    """
    for name, kind in hints(type(settings)).items():
        _check(getattr(settings, name), kind, flag(name))


@cache
def hints(cls: type) -> dict[str, Any]:
    """The fields' types with their ranges, by name."""
    found = typing.get_type_hints(cls, include_extras=True)
    return {field.name: found[field.name] for field in fields(cls)}


def _check(value: Any, kind: Any, where: str) -> None:
    if get_origin(kind) is Annotated:
        kind, *extras = get_args(kind)
        _check(value, kind, where)
        for limit in extras:
            if isinstance(limit, Range) and value is not None and value not in limit:
                raise UserError(f"{where} must {limit}, got {value}")
        return
    if get_origin(kind) in (typing.Union, types.UnionType):
        if value is None and type(None) in get_args(kind):
            return
        options = [option for option in get_args(kind) if option is not type(None)]
        return _check(value, options[0], where)
    if get_origin(kind) is Literal:
        if value not in get_args(kind) or isinstance(value, bool):
            raise UserError(f"{where} must be one of {', '.join(map(str, get_args(kind)))}, got {value!r}")
    elif get_origin(kind) is tuple:
        if not isinstance(value, tuple):
            raise UserError(f"{where} takes several values, got {value!r}")
        for item in value:
            _check(item, get_args(kind)[0], where)
    elif kind is float:
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise UserError(f"{where} must be a finite number, got {value!r}")
    elif isinstance(kind, type) and (not isinstance(value, kind) or (kind is int and isinstance(value, bool))):
        words = {int: "a whole number", bool: "true or false", str: "a text"}
        raise UserError(f"{where} must be {words.get(kind, kind.__name__)}, got {value!r}")


def read(cls: type[T], values: Mapping[str, Any], where: str, *, base: T | None = None) -> T:
    """An instance of a dataclass from plain values, as YAML holds them, over `base` (by default the class's defaults).

    Lists become tuples, texts become paths where the field is one, mappings become the dataclass of their field. An
    unknown name is a UserError that names `where`, and so is whatever the class refuses.
    """
    known = hints(cls)
    if unknown := sorted(map(str, set(values) - set(known))):
        raise UserError(f"{where}: unknown settings {', '.join(unknown)}; known are {', '.join(known)}")
    built = {name: _built(value, known[name], where) for name, value in values.items()}
    try:
        return replace(cls() if base is None else base, **built)
    except UserError as error:
        raise UserError(f"{where}: {error}") from None


def _built(value: Any, kind: Any, where: str) -> Any:
    kinds = [kind, *get_args(kind)]
    inner = next((k for k in kinds if is_dataclass(k)), None)
    if inner is not None and isinstance(value, Mapping):
        return read(inner, value, where)
    if isinstance(value, list):
        return tuple(value)
    return Path(value) if Path in kinds and isinstance(value, str) else value


def plain(args: Any) -> dict[str, Any]:
    """A command's arguments as plain values for config.yaml, without what only the command line has."""
    values = {field.name: getattr(args, field.name) for field in fields(args) if field.name not in FLAGS}
    return plain_values({name: plain(value) if is_dataclass(value) else value for name, value in values.items()})


def block(cls: type[T], file: Any, name: str, **fixed: Any) -> T:
    """The settings of a file of tuned ones: the block `name` over the block `default`, and `fixed` over both."""
    blocks = yaml.safe_load(file.read_text())
    return read(cls, {**(blocks.get("default") or {}), **(blocks.get(name) or {}), **fixed}, f"{file.name}, {name}")


def refuse_idle(settings: Any, usual: Sequence[Any], names: frozenset[str], reason: str) -> None:
    """UserError if one of the named settings differs from all `usual` ones, where it would change nothing."""
    given = sorted(n for n in names if all(getattr(settings, n) != getattr(other, n) for other in usual))
    if given:
        raise UserError(f"{', '.join(map(flag, given))} would change nothing {reason}")


def value_of(flag: str, argv: Sequence[str], default: str) -> str:
    """What stands behind a flag, the last time that it is given: environment and data set decide other defaults."""
    value = default
    for index, token in enumerate(argv):
        if token == flag and index + 1 < len(argv):
            value = argv[index + 1]
        if token.startswith(flag + "="):
            value = token.removeprefix(flag + "=")
    return value


def given_flags(argv: Sequence[str]) -> set[str]:
    """The flags that a command line names, without their values."""
    return {token.split("=")[0].replace("_", "-") for token in argv if token.startswith("--")}
