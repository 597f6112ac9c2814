"""Settings: what a field refuses, and that a file gives back what was written."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import pytest
import yaml

from l2l_experiment import settings
from l2l_experiment.errors import UserError


@dataclass(frozen=True)
class Config:
    method: Literal["pgd", "l2l"] = "pgd"
    rate: settings.Positive = 3e-4
    share: settings.ShareBelowOne = 0.5
    n_steps: settings.Count = 10
    net_arch: settings.Layers = (64, 64)
    target_kl: Annotated[float | None, settings.Range(0, open_low=True)] = None
    offset: Annotated[float, settings.Range(-1)] = 0.0
    anchored: bool = False
    env: str = "HalfCheetah-v4"

    def __post_init__(self):
        settings.check(self)


@dataclass(frozen=True)
class Args:
    config: Config = field(default_factory=Config)
    demos: Path | None = None
    seed: settings.Seed = 0
    resume: Path | None = None
    l2l: bool = False

    def __post_init__(self):
        settings.check(self)


REFUSED = [
    ({"method": "bat"}, "--method must be one of pgd, l2l, got 'bat'"),
    ({"rate": 0.0}, "--rate must be positive, got 0.0"),
    ({"rate": float("nan")}, "--rate must be a finite number, got nan"),
    ({"rate": "1e-3"}, "--rate must be a finite number, got '1e-3'"),
    ({"share": 1}, "--share must lie in [0, 1), got 1"),
    ({"n_steps": 0}, "--n-steps must be at least 1, got 0"),
    ({"n_steps": 2.0}, "--n-steps must be a whole number, got 2.0"),
    ({"n_steps": True}, "--n-steps must be a whole number, got True"),
    ({"net_arch": (64, 0)}, "--net-arch must lie in [1, 65536], got 0"),
    ({"net_arch": 64}, "--net-arch takes several values, got 64"),
    ({"target_kl": 0.0}, "--target-kl must be positive, got 0.0"),
    ({"offset": -2}, "--offset must be at least -1, got -2"),
    ({"anchored": 1}, "--anchored must be true or false, got 1"),
    ({"env": 4}, "--env must be a text, got 4"),
]


@pytest.mark.parametrize(("values", "told"), REFUSED)
def test_a_wrong_value_is_one_sentence_that_names_the_flag(values, told):
    with pytest.raises(UserError) as refused:
        Config(**values)
    assert str(refused.value) == told
    with pytest.raises(UserError, match="is not UTF-8"):
        settings.parse(Config, ["--env", "a\udcff"])


def test_ends_of_ranges_integers_for_floats_and_none_are_taken():
    Config(rate=1, share=0, n_steps=1, net_arch=(), target_kl=None, offset=-1)
    assert 1 in settings.Range(0, 1)
    assert 1 not in settings.Range(0, 1, open_high=True)


TIGHT = Config(rate=1e-9, net_arch=(), target_kl=0.001, anchored=True, env="1e-3")  # a text that looks like a number


@pytest.mark.parametrize(
    ("config", "demos", "seed"), [(TIGHT, Path("a/b c.npz"), 2**31 - 1), (Config(env=""), None, 0)]
)
def test_reading_what_was_written_gives_the_same_settings(config, demos, seed):
    args = Args(config=config, demos=demos, seed=seed, resume=Path("runs/x"), l2l=True)
    written = yaml.safe_dump(settings.plain(args))
    assert "!!python" not in written
    values = yaml.safe_load(written)
    assert values.keys() == {"config", "demos", "seed"}  # without what only a command line has
    assert settings.read(Args, values, "config.yaml") == Args(config=config, demos=demos, seed=seed)


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"sed": 1}, "config.yaml: unknown settings sed; known are config, demos, seed, resume, l2l"),
        ({"config": {"policy_rate": 1}}, "config.yaml: unknown settings policy_rate; known are method, rate, "),
        ({"config": {"rate": -1}}, "config.yaml: --rate must be positive, got -1"),
        ({"config": 3}, "config.yaml: --config must be Config, got 3"),
        ({"seed": -1}, "config.yaml: --seed must lie in "),
    ],
)
def test_a_file_that_says_something_else_is_named_once(values, told):
    with pytest.raises(UserError) as refused:
        settings.read(Args, values, "config.yaml")
    assert str(refused.value).startswith(told)


def test_values_are_read_over_others(tmp_path):
    assert settings.read(Config, {"n_steps": 3}, "x", base=Config(rate=0.5)) == Config(rate=0.5, n_steps=3)
    (tmp_path / "tuned.yml").write_text("default: {rate: 0.1, n_steps: 2}\nHopper-v4: {n_steps: 5}\n")
    for env, n_steps in (("Hopper-v4", 5), ("Ant-v4", 2)):
        found = settings.load_block(Config, tmp_path / "tuned.yml", env, env=env)
        assert found == Config(rate=0.1, n_steps=n_steps, env=env)


def test_a_setting_that_would_change_nothing_is_refused():
    idle = frozenset({"rate", "net_arch"})
    settings.reject_unused(Config(n_steps=3), [Config()], idle, "with pgd")
    settings.reject_unused(Config(rate=0.1), [Config(), Config(rate=0.1)], idle, "with pgd")
    with pytest.raises(UserError, match="--net-arch, --rate would change nothing with pgd"):
        settings.reject_unused(Config(rate=0.1, net_arch=(1,)), [Config()], idle, "with pgd")


def test_flags_are_looked_up_before_the_parser():
    for words, value in (
        ("", "digits"),
        ("--dataset", "digits"),
        ("--dataset cifar10", "cifar10"),
        ("--dataset digits --eps 1 --dataset=cifar10", "cifar10"),  # the last one counts
        ("--dataset=cifar10 --dataset digits", "digits"),
    ):
        assert settings.value_of("--dataset", words.split(), "digits") == value
    assert settings.given_flags(["--n_steps=3", "--no-anchored", "-1", "x"]) == {"--n-steps", "--no-anchored"}


def test_names_of_other_tools_are_taken_or_told():
    @dataclass(frozen=True)
    class Flags:
        config: Config = field(default_factory=Config)
        steps: int = 0
        env: str = ""

    assert settings.parse(Flags, ["--total-timesteps", "7"]).steps == 7
    assert settings.parse(Flags, ["--total-timesteps=8"]).steps == 8
    assert settings.given_flags(["--total-timesteps=8"]) == {"--steps"}
    for word, meant in (("--env-id=Hopper-v4", "--env"), ("--algo", "--method"), ("--lr", "--learning-rate")):
        known = meant != "--learning-rate"  # which these flags do not have
        with pytest.raises(UserError if known else SystemExit, match=f"did you mean {meant}\\?" if known else ""):
            settings.parse(Flags, [word])


def test_help_is_divided_into_groups(capsys):
    with pytest.raises(SystemExit, match="0"):
        settings.parse(Config, ["--help"], groups={"rate": "a heading"})
    lines = capsys.readouterr().out.splitlines()
    place = lines.index(" a heading")
    assert lines[place + 2].split()[0] == "--rate"
    assert sum(line.strip().startswith("--rate") for line in lines) == 1
