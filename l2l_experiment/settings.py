"""Settings: frozen dataclasses whose fields carry their ranges, checked in one place for flags, files and Python.

A range is part of a field's type, `gamma: Annotated[float, Range(0, 1)] = 0.99`; None is always inside one."""

import contextlib
import io
import itertools
import math
import sys
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, is_dataclass, replace
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args, get_origin

import numpy as np
import tyro
import yaml

from l2l_experiment.errors import UserError
from l2l_experiment.files import plain as plain_values

T = TypeVar("T")
# Settings of how a run is kept, watched and judged, not of what is trained.
BOOKKEEPING = {
    "checkpoint_every",
    "data_dir",
    "device",
    "eval_episodes",
    "eval_every",
    "grade",
    "grade_images",
    "probe_every",
}
BOOKKEEPING |= {"probe_images", "run_dir", "threads"}
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
        ends = "(" if self.open_low else "[", ")" if self.open_high else "]"
        return f"lie in {ends[0]}{self.low:.10g}, {self.high:.10g}{ends[1]}"


Count = Annotated[int, Range(1)]
Natural = Annotated[int, Range(0)]
Positive = Annotated[float, Range(0, open_low=True)]
NotNegative = Annotated[float, Range(0)]
Share = Annotated[float, Range(0, 1)]
ShareBelowOne = Annotated[float, Range(0, 1, open_high=True)]
Seed = Annotated[int, Range(0, 2**31 - 1)]
Layers = tuple[Annotated[int, Range(1, 65_536)], ...]
Threads = Annotated[int, Range(1, 1024)]


# The same under a name that other tools have, and what other names of theirs are called here: that which a command has.
ALIASES = {"--total-timesteps": "--steps", "--total_timesteps": "--steps", "--beta": "--regularisation"}
FOREIGN_FLAGS = {
    "--lr": ("--learning-rate",),
    "--policy-rate": ("--learning-rate",),
    "--disc-lr": ("--disc-learning-rate",),
    "--disc-rate": ("--disc-learning-rate",),
    "--epsilon": ("--eps",),
    "--alpha": ("--attack-step-size",),
    "--num-envs": ("--n-envs",),
    "--num-steps": ("--n-steps",),
    "--update-epochs": ("--n-epochs",),
    "--env-id": ("--env",),
    "--algo": ("--follower", "--method"),
    "--arch": ("--model",),
    "--total-steps": ("--steps",),
    "--timesteps": ("--steps",),
    "--expert": ("--demos",),
    "--output": ("--run-dir", "--out"),
    "--logdir": ("--run-dir", "--out"),
}


def parse(
    cls: type[T], argv: Sequence[str] | None = None, *, groups: Mapping[str, str] | None = None, **kwargs: Any
) -> Any:
    """A command's arguments by tyro; UserError for a flag that other tools have and that is called otherwise here.

    `groups` divides `--help`: the name of each group by the field it starts with."""
    words = [*(sys.argv[1:] if argv is None else argv)]
    known = {flag(name) for name in _names(cls)}
    if strange := [word for word in words if not is_text(word)]:
        raise UserError(f"{strange[0]!r} is not UTF-8; rename the file or folder")
    for place, word in enumerate(words):
        name, equals, value = word.partition("=")
        if name in ALIASES and ALIASES[name] in known:
            words[place] = ALIASES[name] + equals + value
        elif name not in known and (meant := [other for other in FOREIGN_FLAGS.get(name, ()) if other in known]):
            raise UserError(f"there is no {name}; did you mean {meant[0]}?")
    if not {"-h", "--help"} & {*words}:
        return tyro.cli(cls, args=words, **kwargs)
    with contextlib.redirect_stdout(io.StringIO()) as text, contextlib.suppress(SystemExit):
        tyro.cli(cls, args=words, **kwargs)
    print(add_group_headings(text.getvalue(), groups or {}), end="")
    raise SystemExit(0)


def is_text(word: str) -> bool:
    """Whether a word of the command line, or a path, can be written as UTF-8: names of files may be any bytes."""
    return not any("\ud800" <= letter <= "\udfff" for letter in word)


def add_group_headings(text: str, groups: Mapping[str, str]) -> str:
    """A help text with a heading before each group's first flag; tyro itself groups only nested dataclasses."""
    lines, headings = [], {flag(name): title for name, title in groups.items()}
    for line in text.splitlines():
        words = line.replace(",", " ").split()
        if words and words[0] in headings:
            title = headings.pop(words[0])
            lines += ["", f" {title}", f" {'-' * 78}"]
        lines.append(line.rstrip())
    return "\n".join([*lines, ""])


def _names(cls: type) -> set[str]:
    """Names of all fields, those of nested dataclasses too."""
    inner = [kind for hint in hints(cls).values() for kind in (hint, *get_args(hint))]
    return set(hints(cls)).union(*(_names(kind) for kind in inner if isinstance(kind, type) and is_dataclass(kind)))


def flag(name: str) -> str:
    """A field as the command line spells it."""
    return f"--{name.replace('_', '-')}"


def check(settings: Any) -> None:
    """For `__post_init__` of a frozen dataclass: UserError that names the flag if a value has the wrong type, or is out
    of range. Lists become tuples, and numpy's numbers Python's."""
    for name, kind in hints(type(settings)).items():
        value = _plain(getattr(settings, name))
        object.__setattr__(settings, name, value)
        _check(value, kind, flag(name))


def _plain(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return tuple(map(_plain, value))
    return value.item() if isinstance(value, np.generic) else value


@cache
def hints(cls: type) -> dict[str, Any]:
    """The fields' types with their ranges, by name."""
    return typing.get_type_hints(cls, include_extras=True)


def _check(value: Any, kind: Any, where: str) -> None:
    origin, parts = get_origin(kind), get_args(kind)
    if origin is Annotated:
        _check(value, parts[0], where)
        for limit in parts[1:]:
            if isinstance(limit, Range) and value is not None and value not in limit:
                raise UserError(f"{where} must {limit}, got {value}")
    elif origin in (typing.Union, types.UnionType):
        if value is not None or type(None) not in parts:
            _check(value, next(part for part in parts if part is not type(None)), where)
    elif origin is Literal:
        if value not in parts or isinstance(value, bool):
            raise UserError(f"{where} must be one of {', '.join(map(str, parts))}, got {value!r}")
    elif origin is tuple:
        if not isinstance(value, tuple):
            raise UserError(f"{where} takes several values, got {value!r}")
        for item in value:
            _check(item, parts[0], where)
    elif kind is float:
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise UserError(f"{where} must be a finite number, got {value!r}")
    elif isinstance(kind, type) and (not isinstance(value, kind) or (kind is int and isinstance(value, bool))):
        words = {int: "a whole number", bool: "true or false", str: "a text"}
        raise UserError(f"{where} must be {words.get(kind, kind.__name__)}, got {value!r}")


def read(cls: type[T], values: Mapping[str, Any], where: str, *, base: T | None = None) -> T:
    """An instance of a dataclass from plain values, as YAML holds them, over `base` (by default the class's defaults).

    Lists become tuples, texts become paths where the field is one, mappings become the dataclass of their field. An
    unknown name is a UserError that names `where`, and so is whatever the class refuses."""
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
    inner = [k for k in kinds if isinstance(k, type) and is_dataclass(k)]  # not a Range, which is an instance
    if inner and isinstance(value, Mapping):
        return read(inner[0], value, where)
    if isinstance(value, list):
        return tuple(value)
    return Path(value) if Path in kinds and isinstance(value, str) else value


def plain(args: Any) -> dict[str, Any]:
    """A command's arguments as plain values for config.yaml, without what only the command line has."""
    return plain_values({name: value for name, value in asdict(args).items() if name not in FLAGS})


def flatten_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """The content of config.yaml in one level."""
    return (config.get("settings") or {}) | {name: value for name, value in config.items() if name != "settings"}


def require_same(
    made_with: Mapping[str, Any],
    now: Any,
    *,
    but: frozenset[str] = frozenset(),
    what: str = "the checkpoint was made with other settings",
    advice: str = "restore the config.yaml that made it",
) -> None:
    """UserError that names what differs between the settings that a checkpoint was made with and those of now."""
    own = plain(now)
    made_with = plain(type(now)()) | dict(made_with)  # settings that are newer than it were at their defaults
    names = sorted((made_with.keys() | own.keys()) - but)
    if other := [name for name in names if made_with.get(name) != own.get(name)]:
        told = ", ".join(f"{name} {made_with.get(name)!r}, not {own.get(name)!r}" for name in other)
        raise UserError(f"{what} ({told}); {advice}")


def load_block(cls: type[T], file: Any, *names: str, **fixed: Any) -> T:
    """The settings of a file of tuned ones: blocks by name, each over those before it and all over the block `default`,
    and `fixed` over everything."""
    blocks = yaml.safe_load(file.read_text())
    chosen = [blocks.get(name) or {} for name in ("default", *names)]
    return read(cls, {key: value for part in (*chosen, fixed) for key, value in part.items()}, f"{file.name}, {names}")


def reject_unused(settings: Any, usual: Sequence[Any], names: frozenset[str], reason: str) -> None:
    """UserError if one of the named settings differs from all `usual` ones, where it would change nothing."""
    given = sorted(n for n in names if all(getattr(settings, n) != getattr(other, n) for other in usual))
    if given:
        raise UserError(f"{', '.join(map(flag, given))} would change nothing {reason}")


def value_of(flag: str, argv: Sequence[str], default: str) -> str:
    """What stands behind a flag, the last time that it is given: environment and data set decide other defaults."""
    for token, behind in reversed([*itertools.zip_longest(argv, argv[1:])]):
        if token == flag and behind is not None:
            return behind
        if token.startswith(flag + "="):
            return token.removeprefix(flag + "=")
    return default


def given_flags(argv: Sequence[str]) -> set[str]:
    """The flags that a command line names, without their values."""
    given = {token.split("=")[0].replace("_", "-") for token in argv if token.startswith("--")}
    return {ALIASES.get(name, name) for name in given}
