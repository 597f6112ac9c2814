"""Write the generated tables and figures of README and docs from the records: python benchmarks/pages.py [--check]

What they show is said in tables.yml. A table stands between `<!-- begin NAME -->` and `<!-- end NAME -->` in its page.
"""

import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import computed
import drawn
import tyro
import yaml
from cells import Row, cell
from records import RESULTS, ROOT, Selection, key, label, matches, ratios, runs

QUERIES = ROOT / "benchmarks" / "tables.yml"
Spec = Mapping[str, Any]
NO_SETTINGS = ("from", "minus", "pick", "alias", "lists", "of")  # what a row has beside settings of its runs


@dataclass(frozen=True)
class Args:
    """Make tables and figures anew."""

    check: bool = False
    """Change nothing: compare the tables with those in the pages, and exit with code 1 if one differs."""


def main() -> None:
    """Write, or compare."""
    args = tyro.cli(Args)
    wrong = []
    for page, tables in contents().items():
        path = ROOT / page
        old = path.read_text()
        try:
            new = filled(old, tables)
        except ValueError as error:
            sys.exit(f"{page}: {error}")
        if new != old:
            wrong.append(page)
            if not args.check:
                path.write_text(new)
    if args.check:
        print(
            "".join(f"{page} is not what the records give; run python benchmarks/pages.py\n" for page in wrong), end=""
        )
        sys.exit(bool(wrong))
    for name, spec in queries()["figures"].items():
        drawn.draw(RESULTS / name, spec, rows_of(spec) if "from" in spec else [])


@cache
def queries() -> dict[str, Any]:
    """The content of tables.yml."""
    return yaml.safe_load(QUERIES.read_text())


def contents() -> dict[str, dict[str, list[str]]]:
    """The lines of every table by page and name."""
    asked = queries()
    found = {page: {name: table(spec) for name, spec in tables.items()} for page, tables in asked["pages"].items()}
    methods = asked["methods"]
    for page, where in methods["pages"].items():
        found[f"docs/methods/{page}.md"] = {
            "figures": table({**methods["table"], "where": {"method": where} if isinstance(where, list) else where})
        }
    for page, tables in computed.tables().items():
        found.setdefault(page, {}).update(tables)
    return found


def filled(page: str, tables: Mapping[str, Sequence[str]]) -> str:
    """The page with these tables between their marks; ValueError if a mark or a table has no other half."""
    marks = re.findall(r"<!-- begin (\S+) -->", page)
    if sorted(marks) != sorted(tables):
        raise ValueError(
            f"marks {', '.join(sorted(set(marks) ^ set(tables)))} stand in the page or in tables.yml alone"
        )
    for name, lines in tables.items():
        pattern = rf"(<!-- begin {name} -->\n).*?(<!-- end {name} -->)"
        page, count = re.subn(pattern, lambda m: "\n".join([m[1].strip(), *lines, m[2]]), page, flags=re.DOTALL)  # noqa: B023
        if count != 1:
            raise ValueError(f"{name} must begin and end once")
    return page


def table(spec: Spec) -> list[str]:
    """A Markdown table: a row for each of `rows`, the cells of `columns` filled with its figures."""
    columns = [column for part in spec["columns"] for column in columns_of(part)]
    lines = [_line([spec.get("head", ""), *(title for title, _, _ in columns)]), "|---" * (1 + len(columns)) + "|"]
    for title, row in rows_of(spec):
        cells = [cell(template, row.where(where) if where else row) for _, where, template in columns]
        lines.append(_line([title, *cells]))
    return lines


def _line(cells: Sequence[str]) -> str:
    return f"|{'|'.join(cells)}|"


def columns_of(part: Spec) -> list[tuple[str, Mapping[str, Any], str]]:
    """Title, condition and cell of each column of a part of `columns`: one with `over` has columns for each value."""
    if "over" not in part:
        return [(title, {}, template) for title, template in part.items()]
    ((setting, values),) = part["over"].items()
    return [
        (title.format(label(value)), {setting: value}, template)
        for value in values
        for title, template in part["cells"].items()
    ]


def rows_of(spec: Spec) -> list[tuple[str, Row]]:
    """The rows of a table or the groups of a figure: listed, as pairs, or one for each value of the settings `each`."""
    listed = {title: {} for title in spec["rows"]} if isinstance(spec.get("rows"), list) else dict(spec.get("rows", {}))
    for one, other in spec.get("pairs", ()):
        listed[f"{one} − {other}"] = {"trained_by": one, "minus": {"trained_by": other}}
    if "each" in spec:
        where = {**spec.get("where", {}), **spec.get("own", {})}
        made = [run for run in runs(spec["from"]) if matches(run, where)]
        for values in sorted({tuple(key(run, name) for name in spec["each"]) for run in made}, key=_order):
            known = dict(zip(spec["each"], values, strict=True))
            title = spec.get("" if "kind" in spec else "title", ", ".join(f"{{{name}}}" for name in known))
            title = title.format(**{name: label(value) for name, value in known.items()})
            listed[title] = {**spec.get("own", {}), **known}
    rows = [(title, row_of(title, row, spec)) for title, row in listed.items()]
    if "sort" in spec:
        rows.sort(key=lambda row: row[1].where(spec.get("sort_where", {})).get(spec["sort"]), reverse="down" in spec)
    return rows


def _order(values: Sequence[Any]) -> list[tuple[bool, Any]]:
    """Numbers as numbers before words."""
    return [(isinstance(value, str), value if isinstance(value, str) else float(value or 0)) for value in values]


def row_of(title: str, asked: Spec, spec: Spec) -> Row:
    """A row's own runs, those they are compared with, and lists beside them, measured in turns."""
    made = Selection(runs(asked.get("from", spec.get("from", ())))).where(spec.get("where", {}))
    where = {name: value for name, value in asked.items() if name not in NO_SETTINGS}
    named = {**{name: label(value) for name, value in where.items()}, "title": title, "of": asked.get("of")}
    lists = {
        name: ratios(*(word.format(**named) for word in words))
        for name, words in asked.get("lists", spec.get("lists", {})).items()
    }
    minus = asked.get("minus", spec.get("minus", {}))
    own, base = (replace(made.where(some), lists=lists) for some in (where, {**where, **minus}))
    if "pick" in asked:
        own, base = own.picked(*asked["pick"]), base.picked(*asked["pick"])
    return Row(own, base, asked.get("alias", {}))


if __name__ == "__main__":
    main()
