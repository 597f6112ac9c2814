"""What a learned rule leaves open is decided once, and older runs keep what they were made with."""

from dataclasses import asdict, replace

import pytest

from l2l_gail.config import GAILConfig, from_run
from l2l_gail.discriminator import Discriminator
from l2l_gail.followers import make_follower

L2L = GAILConfig(follower="l2l")
OPEN = ("score_penalty", "score_smoothing", "follower_anchored")


def decided(config):
    return tuple(getattr(config, name) for name in OPEN)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, (1.0, 0.0, False)),
        ({"gradient_penalty": 0.0}, (1.0, 0.0, True)),
        ({"gradient_penalty": 0.0, "score_smoothing": 0.2, "follower_anchored": False}, (0.0, 0.2, False)),
        ({"gradient_penalty": 10.0, "follower_anchored": True}, (10.0, 0.0, True)),
        ({"gradient_penalty": 0.0, "follower": "l2l-rate"}, (1.0, 0.0, False)),
        ({"gradient_penalty": 0.0, "follower": "adam"}, (None, None, None)),
    ],
)
def test_written_out_decides_everything_and_changes_nothing(changes, expected):
    config = replace(L2L, **changes)
    written = config.written_out
    assert decided(written) == expected
    assert written.written_out == written
    assert from_run(asdict(written)) == written
    if config.follower != "adam":
        assert decided(written.scoring)[:2] == expected[:2]
        assert (config.scoring.gradient_penalty, config.scoring.label_smoothing) == expected[:2]


@pytest.mark.parametrize(
    ("stored", "expected"),
    [
        ({"gradient_penalty": 1.0, "score_penalty": None, "score_smoothing": None}, (1.0, 0.0, False)),
        ({"gradient_penalty": 0.0, "score_penalty": None, "score_smoothing": None}, (0.0, 0.2, False)),
        ({"gradient_penalty": 0.0, "score_penalty": 1.0, "score_smoothing": None}, (1.0, 0.0, False)),
        ({"gradient_penalty": 0.0, "score_penalty": None, "score_smoothing": 0.0}, (0.0, 0.0, False)),
        ({"gradient_penalty": 0.0}, (0.0, 0.0, False)),  # older than the setting
        ({"gradient_penalty": 0.0, "score_penalty": 1.0, "score_smoothing": 0.0}, (1.0, 0.0, False)),
        (
            {"gradient_penalty": 0.0, "score_penalty": 1.0, "score_smoothing": None, "follower_anchored": True},
            (1.0, 0.0, True),
        ),
    ],
)
def test_an_older_run_keeps_what_it_was_made_with(stored, expected):
    assert decided(from_run({"follower": "l2l"} | stored)) == expected


def test_a_follower_without_penalty_sees_weights_from_their_start():
    for penalty in (0.0, 1.0):
        config = replace(L2L, gradient_penalty=penalty)
        assert make_follower(Discriminator(3, (4,)), config).rule.anchored == (penalty == 0)
