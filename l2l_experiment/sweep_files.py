"""Sweep files: which runs a YAML file and flags stand for.

A file holds `script` (gail, at, or a path to a Python file with `parse` and `main` as a tool's `cli` has them), `base`
(flags of every run), and `variants` (named changes) and `grid` (values by flag), at the top or, by name, in
`experiments`; an experiment may be a list of such blocks. Flags are written without dashes in front. A list behind a
flag is several words in `base` and `variants`, and several runs in `grid`.
"""

import importlib.util
import itertools
import re
import typing
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, is_dataclass, replace
from functools import cache
from pathlib import Path
from types import ModuleType
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


class Texts(yaml.SafeLoader):
    """YAML with merge keys, in which every value is a text: else 3:5 is 185, in base 60."""

    yaml_implicit_resolvers = {"<": [("tag:yaml.org,2002:merge", re.compile("^<<$"))]}


@dataclass(frozen=True)
class Block:
    """Runs: `variants` times `grid`, each over `base`. Flags are without dashes."""

    base: Mapping[str, Words] = field(default_factory=dict)
    variants: Mapping[str, Mapping[str, Words]] = field(default_factory=dict)
    grid: Mapping[str, Sequence[Words]] = field(default_factory=dict)

    def runs(self) -> Iterable[tuple[str, dict[str, Words], dict[str, Words]]]:
        """Name of the variant, point of the grid, and all flags of each run."""
        for values in itertools.product(*self.grid.values()):
            point = dict(zip(self.grid, values, strict=True))
            for name, changes in (self.variants or {"": {}}).items():
                if both := sorted(changes.keys() & point.keys()):
                    raise UserError(f"variant {name} and the grid both set {', '.join(both)}")
                yield name, point, {**self.base, **changes, **point}


Experiments = dict[str, list[Block]]  # "" is the name of a file's only experiment


def expand(blocks: Sequence[Block], switches: frozenset[str] = frozenset()) -> dict[str, Words]:
    """Flags of each run by its name; what varies makes the name. UserError if two runs would have one name."""
    varied = {key for block in blocks for key, values in block.grid.items() if len(values) > 1}
    found: dict[str, Words] = {}
    for block in blocks:
        for variant, point, flags in block.runs():
            changing = {key: words for key, words in point.items() if key in varied}
            name = _name(variant, changing, flags.get("seed", ("0",)))
            if name in found:
                raise UserError(f"two runs would be called {name}; each value may stand once in a sweep")
            found[name] = tuple(word for key, words in flags.items() for word in _flag(key, words, switches))
    return found


def _name(variant: str, varied: Mapping[str, Words], seed: Words) -> str:
    """`adam_disc-learning-rate-3e-5_s0`: words as they are, numbers behind their setting, the seed at the end."""
    parts = [variant] if variant else []
    for key, words in varied.items():
        word = "-".join(words).replace("/", "-") or key
        if key != "seed":
            parts.append(word if word[0].isalpha() and word.lower() not in ("true", "false") else f"{key}-{word}")
    return "_".join([*parts, f"s{'-'.join(seed)}"])


def _flag(key: str, words: Words, switches: frozenset[str]) -> Words:
    """A setting as the command line has it: true and false turn a switch on and off, and are values of other flags."""
    if len(words) == 1 and words[0].lower() in ("true", "false"):
        if key not in switches:
            return (f"--{key}", words[0].capitalize())
        return (f"--{key}" if words[0].lower() == "true" else f"--no-{key}",)
    return (f"--{key}", *words)


def read(spec: str, rest: Sequence[str]) -> tuple[str, Experiments]:
    """The script and the blocks of each experiment, from a file and from flags; flags stand over the file."""
    if spec in tools.TOOLS:
        script, experiments = spec, {"": [Block()]}
    else:
        script, experiments = _read_file(Path(spec))
    given = _read_flags(rest)
    if forbidden := sorted(FORBIDDEN & {*given, *_flags_of(experiments)}):
        raise UserError(
            f"--{forbidden[0]} cannot be swept; the runs go into --out, and are resumed by the same command"
        )
    return script, {name: [_over(block, given) for block in blocks] for name, blocks in experiments.items()}


def _flags_of(experiments: Experiments) -> set[str]:
    blocks = [block for some in experiments.values() for block in some]
    return {key for b in blocks for keys in (b.base, b.grid, *b.variants.values()) for key in keys}


def _over(block: Block, given: Mapping[str, Sequence[Words]]) -> Block:
    """A block in which flags of the command line stand in place of its own."""

    def others(flags: Mapping[str, Any]) -> dict[str, Any]:
        return {key: value for key, value in flags.items() if key not in given}

    variants = {name: others(changes) for name, changes in block.variants.items()}
    return replace(block, base=others(block.base), variants=variants, grid={**others(block.grid), **given})


def _read_flags(rest: Sequence[str]) -> dict[str, list[Words]]:
    """Values by flag; both spellings of a flag are one, and no value stands for a switch."""
    found: dict[str, list[str]] = {}
    name = None
    for token in rest:
        if token.startswith("--"):
            name, _, value = token[2:].partition("=")
            name = name.replace("_", "-")
            found[name] = [value] if value else []
        elif name is None:
            raise UserError(f"{token} stands behind no flag; write e.g. --seed 0:5")
        else:
            found[name].append(token)
    return {name: _options(values) for name, values in found.items()}


def _read_file(path: Path) -> tuple[str, Experiments]:
    if not path.is_file():
        raise UserError(f"there is no file {path}; name one, or one of {', '.join(tools.TOOLS)}")
    content = read_mapping(path, loader=Texts, advice="mend it")
    script = content.pop("script", None)
    if not isinstance(script, str) or (script not in tools.TOOLS and not (path.parent / script).is_file()):
        raise UserError(f"{path} must name its `script`: {', '.join(tools.TOOLS)}, or a Python file beside it")
    if script not in tools.TOOLS:
        script = str((path.parent / script).resolve())
    several = content.pop("experiments", None)
    top = _block(content, path, {})
    if several is None:
        return script, {"": [top]}
    if not isinstance(several, dict) or top.grid or top.variants:
        raise UserError(f"{path}: `experiments` takes blocks by name, and no `grid` or `variants` beside it")
    named = {name: blocks if isinstance(blocks, list) else [blocks] for name, blocks in several.items()}
    return script, {name: [_block(block, path, top.base) for block in blocks] for name, blocks in named.items()}


def _block(content: Any, path: Path, base: Mapping[str, Words]) -> Block:
    if not isinstance(content, dict) or (unknown := set(content) - KEYS):
        what = f"not {', '.join(sorted(unknown))}" if isinstance(content, dict) else f"not {content!r}"
        raise UserError(f"{path}: a block takes {', '.join(sorted(KEYS))}, {what}")

    def mapping(value: Any, where: str) -> dict[str, Any]:
        if value and not isinstance(value, dict):
            raise UserError(f"{path}: `{where}` takes flags and their values, not {value!r}")
        return {key.replace("_", "-"): item for key, item in (value or {}).items()}

    def words(value: Any, where: str) -> dict[str, Words]:
        return {key: _words(item) for key, item in mapping(value, where).items()}

    named = content.get("variants") or {}
    grid = mapping(content.get("grid"), "grid")
    return Block(
        base={**base, **words(content.get("base"), "base")},
        variants={name: words(changes, name) for name, changes in named.items()},
        grid={key: _options(item if isinstance(item, list) else [item] if item else []) for key, item in grid.items()},
    )


def _options(values: Sequence[Any]) -> list[Words]:
    """What the values of a flag in a grid stand for: `2:5` for 2, 3, 4; none for a switch."""
    found: list[Words] = []
    for value in values:
        if isinstance(value, str) and (span := re.fullmatch(r"(\d+):(\d+)", value)):
            if int(span[1]) >= int(span[2]):
                raise UserError(f"{value} holds no number; 0:5 stands for 0, 1, 2, 3, 4")
            found += [(str(number),) for number in range(int(span[1]), int(span[2]))]
        else:
            found.append(_words(value))
    return found or [()]


def _words(value: Any) -> Words:
    """The words behind a flag: of a list its items, of a text those between commas."""
    if isinstance(value, dict):
        raise UserError(f"a flag takes a value or a list of values, not {value!r}")
    return tuple(map(str, value)) if isinstance(value, list) else tuple(value.split(",")) if value else ()


@cache
def program(script: str) -> ModuleType:
    """The module with a script's `parse`: a tool's `cli`, or a Python file."""
    if script in tools.TOOLS:
        return tools.module(script, "cli")
    spec = importlib.util.spec_from_file_location(Path(script).stem, script)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@cache
def switches(script: str) -> frozenset[str]:
    """The flags of a script that take no value and have an opposite."""
    args = program(script).parse([])
    parts = [args, *(value for value in vars(args).values() if is_dataclass(value))]
    hints = {name: kind for part in parts for name, kind in typing.get_type_hints(type(part)).items()}
    return frozenset(name.replace("_", "-") for name, kind in hints.items() if kind is bool)


def settings_of(script: str, flags: Sequence[str]) -> dict[str, Any]:
    """All settings of a run with these flags, flat, without its folder; what the parser refuses is a UserError."""
    return flat(settings.plain(program(script).parse(list(flags))))


def flat(config: Mapping[str, Any]) -> dict[str, Any]:
    """The content of config.yaml in one level, without paths that do not tell runs apart."""
    values = {**(config.get("settings") or {}), **{k: v for k, v in config.items() if k != "settings"}}
    return {name: value for name, value in values.items() if name not in PATHS}
