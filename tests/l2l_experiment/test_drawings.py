"""Figures as data."""

import json

import numpy as np
import pytest

from l2l_experiment import drawings, tools
from l2l_experiment.drawings import Drawing
from l2l_experiment.errors import UserError


def test_drawings_come_back_from_their_file(tmp_path):
    drawn = {"reward": Drawing({"a": [(range(3), np.array([0.0, 1 / 3, 2e9]))]}, {"ylabel": "y", "title": "t"})}
    kept = drawings.from_plain(json.loads(drawings.save(drawn, tmp_path).read_text()))
    assert kept == {"reward": Drawing({"a": [([0, 1, 2], [0, 0.33333, 2e9])]}, {"ylabel": "y", "title": "t"})}
    assert drawings.plain(kept) == drawings.plain(drawn)


def test_many_points_are_thinned_evenly():
    rises = Drawing({"a": [(range(1001), range(1001))]}, {})
    (thinned,) = drawings.plain({"x": rises}, most=11)["x"]["curves"]["a"]
    assert thinned == [[100.0 * place for place in range(11)]] * 2


def test_a_tool_is_found_by_the_kind_of_its_runs():
    with pytest.raises(UserError, match="'sac' is no training tool; there are gail, at"):
        tools.module("sac", "cli")
