"""Figures in sentences are those of the records, and there is no other."""

from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
SENTENCE = "L2L makes {:.1f} % at its worst, {:+.0f} points from Adam."
PAGE = "Before.\nL2L makes 12.5 % at its\n  worst, −7 points from Adam. After: 3 runs."


@pytest.fixture(scope="module")
def by_page():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "benchmarks"))
        import claims_report

        return claims_report.by_page()


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_sentences_say_what_the_records_say(path, by_page, benchmarks):
    from claims import restate, unclaimed

    page, claims = path.read_text(), by_page.get(str(path.relative_to(ROOT)), [])
    assert restate(page, claims) == page, "make the pages anew: python scripts/compare.py --from docs/results"
    assert unclaimed(page, claims) == [], "these are measured and come from no record: add a claim, or leave them out"


def test_every_page_of_claims_is_there(by_page):
    assert set(by_page) <= {str(path.relative_to(ROOT)) for path in PAGES}


def test_figures_are_written_anew_wherever_lines_break(benchmarks):
    from claims import Claim, restate

    assert restate(PAGE, [Claim(SENTENCE, (99.96, 3.2))]) == PAGE.replace("12.5", "100.0").replace("−7", "+3")
    assert restate(PAGE, [Claim(SENTENCE, (12.5, -7))]) == PAGE
    assert restate("a lead of 12, which", [Claim("a lead of {:,}", (1345,))]) == "a lead of 1,345, which"
    assert restate("at 3e-5, 1,234 steps", [Claim("at {}, {:,} steps", ("1e-4", 9))]) == "at 1e-4, 9 steps"


@pytest.mark.parametrize("page", ["Before.", PAGE + PAGE])
def test_a_claim_that_is_not_there_once_is_refused(page, benchmarks):
    from claims import Claim, restate

    with pytest.raises(ValueError, match="times in its page"):
        restate(page, [Claim(SENTENCE, (1, 2))])
    with pytest.raises(ValueError, match="2 slots, 1 figures"):
        restate(PAGE, [Claim(SENTENCE, (1,))])


def test_figures_without_a_claim_are_found(benchmarks):
    from claims import Claim, unclaimed

    page = f"{PAGE}\nA 95 % interval, `--share 5 %`.\n<!-- begin t -->\n7 %\n<!-- end t -->\nMore: 8 %"
    assert unclaimed(page, []) == ["12.5 %", "−7 points", "8 %"]
    assert unclaimed(page, [Claim(SENTENCE, (1, 2))]) == ["8 %"]
