"""What a user sees of two groups in TensorBoard: both drawn in one chart, each in its own colour."""

import numpy as np
import pytest

from l2l_compare import board
from tests.browser import CHROMIUM, evaluate, opened, until
from tests.l2l_compare.made_up import TAG, ragged

# Strokes of the lines of each card, by its title.
STROKES = """Object.fromEntries([...document.querySelectorAll('scalar-card')].map(card => [
    card.querySelector('.tag-path, tb-truncated-path').textContent.trim().replace(/\\s/g, ''),
    [...new Set([...card.querySelectorAll('svg path')].map(p => p.style.stroke).filter(s => s.startsWith('rgb')))]]))"""


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium (Debian: apt install chromium)")
def test_two_groups_are_drawn_in_one_chart_in_two_colours(tmp_path):
    pytest.importorskip("websockets")
    groups = {name: [ragged(name, name, [0, 50, 100], [0, 5, end])] for name, end in (("adam", 3), ("l2l", 9))}
    board.write(tmp_path, groups, dict.fromkeys(groups, np.linspace(0, 100, 20)), TAG)
    with opened(tmp_path, "#timeseries") as page:
        cards = until(lambda: (found := evaluate(page, STROKES)) and len(found.get(TAG, ())) >= 2 and found)
        names = evaluate(page, "document.querySelector('runs-data-table, runs-table').textContent")
    assert list(cards)[0] == TAG  # the first thing that is shown
    assert "stability/drawdown" in cards
    assert "adam" in names
    assert "l2l" in names
