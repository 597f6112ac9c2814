"""Flags looked at before the parser."""

import pytest

from l2l_experiment.flags import value_of


@pytest.mark.parametrize(
    ("argv", "value"),
    [
        ([], "digits"),
        (["--dataset", "cifar10"], "cifar10"),
        (["--dataset=cifar10"], "cifar10"),
        (["--dataset", "digits", "--eps", "1", "--dataset", "cifar10"], "cifar10"),
        (["--dataset", "cifar10", "--dataset=digits"], "digits"),
        (["--dataset"], "digits"),
    ],
)
def test_the_last_of_a_flag_counts(argv, value):
    assert value_of("--dataset", argv, "digits") == value
