"""Sweep files: which runs a YAML file and flags stand for.

A file holds `script` (gail, at, or a path to a Python file with `parse` and `main` as a tool's `cli` has them), `base`
(flags of every run), and `variants` (named changes) and `grid` (values by flag), at the top or, by name, in
`experiments`; an experiment may be a list of such blocks. Flags are written without dashes in front. A list behind a
flag is several words in `base` and `variants`, and several runs in `grid`."""

import itertools
import re
import runpy
import typing
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, is_dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from l2l_experiment import settings, tools
from l2l_experiment.errors import UserError
from l2l_experiment.files import read_mapping

FORBIDDEN = {"run-dir", "resume", "list"}
PATHS = ("run_dir", "data_dir")  # settings that do not tell runs apart
OUT = "{out}"  # in a flag: the sweep's folder
KEYS = {"base", "variants", "grid"}

Words = tuple[str, ...]  # what stands behind a flag


class StringLoader(yaml.SafeLoader):
    """YAML with merge keys, in which every value is a text: else 3:5 is 185, in base 60."""

    yaml_implicit_resolvers = {"<": [("tag:yaml.org,2002:merge", re.compile("^<<$"))]}

    def compose_mapping_node(self, anchor: str | None) -> yaml.MappingNode:
        """A mapping whose keys stand once each: PyYAML would keep the last of two in silence."""
        node = super().compose_mapping_node(anchor)
        for key, times in Counter(str(key.value) for key, _ in node.value).items():
            if times > 1:
                where = f"the block that begins in line {node.start_mark.line + 1}"
                raise yaml.composer.ComposerError(problem=f"{key} stands {times} times in {where}")
        return node


@dataclass(frozen=True)
class Block:
    """Runs: `variants` times `grid`, each over `base`. Flags are without dashes."""

    base: Mapping[str, Words]
    variants: Mapping[str, Mapping[str, Words]]
    grid: Mapping[str, Sequence[Words]]


Experiments = dict[str, list[Block]]  # "" is the name of a file's only experiment


def expand(blocks: Sequence[Block], boolean_flags: frozenset[str] = frozenset()) -> dict[str, Words]:
    """Flags of each run by its name; what varies makes the name. UserError if two runs would have one name."""
    varied = {key for block in blocks for key, values in block.grid.items() if len(values) > 1}
    found: dict[str, Words] = {}
    for block in blocks:
        points = [dict(zip(block.grid, values, strict=True)) for values in itertools.product(*block.grid.values())]
        for point, (variant, changes) in itertools.product(points, (block.variants or {"": {}}).items()):
            if both := sorted(changes.keys() & point.keys()):
                raise UserError(f"variant {variant} and the grid both set {', '.join(both)}")
            flags = {**block.base, **changes, **point}
            if wrong := sorted(FORBIDDEN & flags.keys()):
                raise UserError(f"--{wrong[0]} cannot be swept; runs go into --out, and the same command resumes them")
            name = _name(variant, {key: point[key] for key in point if key in varied}, flags.get("seed", ("0",)))
            if name in found:
                raise UserError(f"two runs would be called {name}; each value may stand once in a sweep")
            found[name] = tuple(word for key, words in flags.items() for word in _flag(key, words, boolean_flags))
    return found


def _name(variant: str, varied: Mapping[str, Words], seed: Words) -> str:
    """`adam_disc-learning-rate-3e-5_s0`: words as they are, numbers behind their setting, the seed at the end."""
    parts = [variant] if variant else []
    for key, words in varied.items():
        word = "-".join(words).replace("/", "-") or key
        if key != "seed":
            parts.append(word if word[0].isalpha() and word.lower() not in ("true", "false") else f"{key}-{word}")
    return "_".join([*parts, f"s{'-'.join(seed)}"])


def _flag(key: str, words: Words, boolean_flags: frozenset[str]) -> Words:
    """A setting as the command line has it: true and false turn a switch on and off, and are values of other flags."""
    if len(words) != 1 or words[0].lower() not in ("true", "false"):
        return (f"--{key}", *words)
    if key not in boolean_flags:
        return (f"--{key}", words[0].capitalize())
    return (f"--{key}" if words[0].lower() == "true" else f"--no-{key}",)


MAX_RUNS = 10_000  # runs of a sweep


def read(spec: str, rest: Sequence[str]) -> tuple[str, Experiments]:
    """The script and the blocks of each experiment, from a file and from flags; flags stand over the file."""
    given: dict[str, list[str]] = {}
    for token in rest:
        if token.startswith("--"):
            name, _, value = token[2:].partition("=")
            values = given[name.replace("_", "-")] = [value] if value else []
        elif not given:
            raise UserError(f"{token} belongs to no flag; write e.g. --seed 0:5")
        else:
            values.append(token)
    grid = {name: _grid_values(values) for name, values in given.items()}
    if spec in tools.TOOLS:
        return spec, {"": [Block({}, {}, grid)]}
    path = Path(spec)
    if not path.is_file():
        raise UserError(f"there is no file {path}; name one, or one of {', '.join(tools.TOOLS)}")
    if path.suffix == ".py":
        raise UserError(f"a sweep is described by a YAML file; name {path.name} in it, as `script: {path.name}`")
    content = read_mapping(path, loader=StringLoader, advice="fix it")
    script = content.pop("script", None)
    if not isinstance(script, str) or (script not in tools.TOOLS and not (path.parent / script).is_file()):
        raise UserError(f"{path} must name its `script`: {', '.join(tools.TOOLS)}, or a Python file beside it")
    if script not in tools.TOOLS:
        script = str((path.parent / script).resolve())
    several = content.pop("experiments", None)
    top = _block(content, path, {}, grid)
    if several is None:
        return script, {"": [top]}
    if not several or not isinstance(several, dict) or content.keys() - {"base"}:
        raise UserError(f"{path}: `experiments` takes blocks by name, and no `grid` or `variants` beside it")
    if wrong := [name for name in several if name in ("", ".", "..") or {"/", "\\"} & set(name)]:
        raise UserError(f"{path}: an experiment's name is that of its folder, and cannot be {wrong[0]!r}")
    named = {name: blocks if isinstance(blocks, list) else [blocks] for name, blocks in several.items()}
    return script, {name: [_block(block, path, top.base, grid) for block in blocks] for name, blocks in named.items()}


def _block(content: Any, path: Path, base: Mapping[str, Words], given: Mapping[str, Sequence[Words]]) -> Block:
    """A block of a file over the file's `base`, in which `given` flags of the command line replace its own."""
    if not isinstance(content, dict) or content.keys() - KEYS:
        what = ", ".join(sorted(content.keys() - KEYS)) if isinstance(content, dict) else repr(content)
        raise UserError(f"{path}: a block takes {', '.join(sorted(KEYS))}, not {what}")

    def flags(value: Any, where: str) -> dict[str, Any]:
        if value and not isinstance(value, dict):
            raise UserError(f"{path}: `{where}` takes flags and their values, not {value!r}")
        named = {key.removeprefix("--").replace("_", "-"): item for key, item in (value or {}).items()}
        return {key: item for key, item in named.items() if key not in given}

    def words(value: Any, where: str) -> dict[str, Words]:
        return {key: _words(item) for key, item in flags(value, where).items()}

    if not isinstance(named := content.get("variants") or {}, dict):
        raise UserError(f"{path}: `variants` takes names, each with flags and their values, not {named!r}")
    variants = {str(name).replace("/", "-"): words(changes, name) for name, changes in named.items()}
    grid = {key: _grid_values(value) for key, value in flags(content.get("grid"), "grid").items()}
    return Block({**base, **words(content.get("base"), "base")}, variants, {**grid, **given})


def _grid_values(values: Any) -> list[Words]:
    """What a value or a list of values stands for in a grid: `2:5` for 2, 3, 4; none for a switch."""
    found: list[Words] = []
    for value in values if isinstance(values, list) else [values]:
        if isinstance(value, str) and (span := re.fullmatch(r"(\d+):(\d+)", value)):
            if not 0 < len(numbers := range(int(span[1]), min(int(span[2]), int(span[1]) + MAX_RUNS + 1))) <= MAX_RUNS:
                raise UserError(f"{value} must hold 1 to {MAX_RUNS:,} numbers; 0:5 stands for 0, 1, 2, 3, 4")
            found += [(str(number),) for number in numbers]
        else:
            found.append(_words(value))
    return found or [()]


def _words(value: Any) -> Words:
    """The words behind a flag: of a list its items, of a text those between commas."""
    if isinstance(value, dict):
        raise UserError(f"a flag takes a value or a list of values, not {value!r}")
    return tuple(map(str, value)) if isinstance(value, list) else tuple(value.split(",")) if value else ()


@cache
def parser(script: str) -> Callable[[list[str]], Any]:
    """A script's `parse`: of a tool's `cli`, or of a Python file."""
    if script in tools.TOOLS:
        return tools.module(script, "cli").parse
    found = runpy.run_path(script).get("parse")
    if found is None:
        raise UserError(f"a sweep needs a script with parse and main, and {script} has no parse")
    return found


@cache
def boolean_flags(script: str) -> frozenset[str]:
    """The flags of a script that take no value and have an opposite."""
    args = parser(script)([])
    parts = [args, *filter(is_dataclass, vars(args).values())]
    hints = {name: kind for part in parts for name, kind in typing.get_type_hints(type(part)).items()}
    return frozenset(name.replace("_", "-") for name, kind in hints.items() if kind is bool)


def settings_of(script: str, flags: Sequence[str]) -> dict[str, Any]:
    """All settings of a run with these flags, flat, without its folder; what the parser refuses is a UserError."""
    return comparable_settings(settings.plain(parser(script)(list(flags))))


def comparable_settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """The content of config.yaml in one level, without paths that do not tell runs apart."""
    return {name: value for name, value in settings.flatten_config(config).items() if name not in PATHS}
