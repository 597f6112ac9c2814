"""The alarm for a discriminator that says the same of everything."""

from l2l_gail.alarm import FLAT, PATIENCE, FlatAlarm, flat_since


def rounds(*spreads):
    return [{"step": 100 * (index + 1), "disc/logit_std": spread} for index, spread in enumerate(spreads)]


def test_it_speaks_once_after_so_many_flat_rounds_in_a_row(capsys):
    alarm, flat = FlatAlarm(), FLAT / 2
    raised = [alarm({"disc/logit_std": spread}) for spread in [flat] * (PATIENCE - 1) + [1.0] + [flat] * 2 * PATIENCE]
    assert [index for index, now in enumerate(raised) if now] == [2 * PATIENCE - 1]
    assert capsys.readouterr().err.count("ALARM") == 1


def test_a_spread_at_the_limit_and_rounds_without_figures_are_none():
    alarm = FlatAlarm()
    assert not any(alarm({"disc/logit_std": FLAT}) for _ in range(2 * PATIENCE))
    assert not any(alarm({}) for _ in range(2 * PATIENCE))


def test_flat_to_the_end_counts_and_a_flat_stretch_before_does_not():
    flat = [0.0] * PATIENCE
    assert flat_since(rounds(1.0, *flat)) == 200
    assert flat_since(rounds(*flat)) == 100
    assert flat_since(rounds(*flat, 1.0)) is None
    assert flat_since(rounds(1.0, *flat[1:])) is None
    assert flat_since([{"step": 1}]) is None
