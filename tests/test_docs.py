"""The documentation points at what is there."""

import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "expert_data" / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def anchors(page):
    """The anchors that a Markdown page's headings have on the usual hosts."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_and_commands(page):
    text = page.read_text()
    assert "@@" not in text  # a figure that was to be filled in
    for target, anchor in re.findall(r"\]\(([^)#]*)(?:#([^)]*))?\)", text):
        if target.startswith("http"):
            continue
        linked = page.parent / target if target else page
        assert linked.exists(), target
        assert not anchor or anchor in anchors(linked), f"{target}#{anchor}"
    for script in re.findall(r"python ((?:scripts|benchmarks|examples|tests)/[\w/]+\.py)", text):
        assert (ROOT / script).is_file(), script


def test_no_run_counts_twice():
    """Neither under two names, nor under two seeds, nor in two records."""
    seen = {}
    for record in sorted((ROOT / "docs" / "results").glob("*/*.json")):
        for name, run in json.loads(record.read_text()).get("runs", {}).items():
            settings = {key: value for key, value in run["settings"].items() if key != "seed"}
            result = {key: value for key, value in run["result"].items() if "seconds" not in key}
            here = f"{record.parent.name}/{record.stem}/{name}"
            twin = seen.setdefault(json.dumps([settings, result], sort_keys=True), here)
            assert twin == here, f"{here} is {twin}"
