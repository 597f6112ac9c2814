"""The shape of the project: which package may import which, no circles, small files, a command for every script."""

import ast
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = {
    "bilevel": set(),
    "l2l_experiment": set(),
    "l2l_compare": {"l2l_experiment"},
    "l2l_gail": {"bilevel", "l2l_experiment"},
    "l2l_at": {"bilevel", "l2l_experiment"},
}
MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for package in PACKAGES
    for path in sorted((ROOT / package).rglob("*.py"))
}
COMMANDS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]


def imports(path):
    """Modules of this project that a file imports, anywhere in it, for types too."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {f"{node.module}.{alias.name}" for alias in node.names} | {node.module}
    return {name for name in found if name in MODULES}


def test_every_package_is_installed_and_the_demonstrations_with_them():
    installed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    found = {".".join(path.parent.relative_to(ROOT).parts) for path in MODULES.values()}
    assert set(installed["packages"]) == found | {"l2l_data"}
    assert (ROOT / installed["package-dir"]["l2l_data"] / "l2l").is_dir()


def test_packages_import_one_way():
    for name, path in MODULES.items():
        package = name.split(".")[0]
        allowed = PACKAGES[package] | {package}
        assert {other.split(".")[0] for other in imports(path)} <= allowed, name


def test_the_engine_imports_torch_alone():
    for path in (ROOT / "bilevel").glob("*.py"):
        roots = set()
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                roots |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                roots.add(node.module.split(".")[0])
        assert roots <= {"torch", "bilevel", "collections", "dataclasses", "typing"}, path


def test_no_circles():
    """A package's `__init__` only gathers what others define, so it is no node of its own."""
    edges = {
        name: {other for other in imports(path) if other != name and MODULES[other].name != "__init__.py"}
        for name, path in MODULES.items()
        if path.name != "__init__.py"
    }
    done, open_ = set(), []

    def visit(name):
        assert name not in open_, " -> ".join([*open_[open_.index(name) :], name])
        if name not in done:
            open_.append(name)
            for other in sorted(edges[name]):
                visit(other)
            done.add(open_.pop())

    for name in edges:
        visit(name)


@pytest.mark.parametrize("folder", [*PACKAGES, "scripts", "benchmarks", "tests", "examples"])
def test_no_file_is_long(folder):
    for path in (ROOT / folder).rglob("*.py"):
        assert len(path.read_text().splitlines()) <= 350, path


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_every_command_has_a_script(command):
    module, _, name = COMMANDS[command].partition(":")
    script = ROOT / "scripts" / f"{command.removeprefix('l2l-').replace('-', '_')}.py"
    text = script.read_text()
    assert f"from {module} import {name}" in text
    assert len(text.splitlines()) <= 7


def test_every_flag_is_explained():
    """By a comment at the end of its line or a docstring under it: a comment inside parentheses is not shown."""
    seen = 0
    for name, path in MODULES.items():
        text = path.read_text()
        lines = text.splitlines()
        for made in ast.walk(ast.parse(text)):
            if not (isinstance(made, ast.ClassDef) and made.name.endswith(("Args", "Config", "ExpertSettings"))):
                continue
            for field, behind in zip(made.body, [*made.body[1:], None], strict=True):
                if not isinstance(field, ast.AnnAssign) or "conf.arg(name=" in lines[field.lineno - 1]:
                    continue
                documented = isinstance(behind, ast.Expr) and isinstance(behind.value, ast.Constant)
                comment = lines[field.end_lineno - 1][field.end_col_offset :].strip().startswith("#")
                assert documented or comment, f"{name}: {made.name}.{field.target.id}"
                seen += 1
    assert seen > 150
