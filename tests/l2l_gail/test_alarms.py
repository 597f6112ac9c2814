"""The alarm for a discriminator that says the same of everything, and for one that is wrong about it."""

import pytest

from l2l_gail.alarms import PATIENCE, TROUBLES, Alarm, ongoing_since

NAMES = pytest.mark.parametrize("name", TROUBLES)


def rounds(name, *values):
    return [{"step": 100 * (index + 1), TROUBLES[name].figure: value} for index, value in enumerate(values)]


@NAMES
def test_it_speaks_once_after_so_many_bad_rounds_in_a_row(name, capsys):
    alarm, (figure, limit, *_) = Alarm(), TROUBLES[name]
    bad = [limit / 2]
    raised = [alarm({figure: value}) for value in bad * (PATIENCE - 1) + [1.0] + bad * 2 * PATIENCE]
    assert [(index, now) for index, now in enumerate(raised) if now] == [(2 * PATIENCE - 1, [name])]
    assert capsys.readouterr().err.count("ALARM") == 1


@NAMES
def test_bad_to_the_end_counts_and_a_bad_stretch_before_does_not(name):
    bad = [0.0] * PATIENCE
    assert ongoing_since(rounds(name, 1.0, *bad))[name] == 200
    assert ongoing_since(rounds(name, *bad))[name] == 100
    assert ongoing_since(rounds(name, *bad, 1.0))[name] is None
    assert ongoing_since(rounds(name, 1.0, *bad[1:]))[name] is None
    (other,) = TROUBLES.keys() - {name}
    assert ongoing_since(rounds(name, *bad))[other] is None
