"""Tests of expert training: settings, checkpoints, resumption, and the card that tells how the data were made."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from stable_baselines3 import PPO

from l2l_experiment.errors import UserError
from l2l_gail import expert_cards, expert_settings, expert_training, experts
from l2l_gail.demonstrations import load, shipped_dataset_id
from l2l_gail.environments import make

ROOT = Path(__file__).resolve().parents[2]
TINY = [
    "--n-envs",
    "2",
    "--n-steps",
    "32",
    "--batch-size",
    "32",
    "--n-epochs",
    "1",
    "--net",
    "8",
    "--select-episodes",
    "0",
]


def arguments(tmp_path: Path, *more: str, env: str = "Hopper-v4", steps: int = 128) -> list[str]:
    flags = {"--env": env, "--steps": steps, "--out": tmp_path / "data", "--run-dir": tmp_path / "run"}
    given = [text for flag, value in flags.items() for text in (flag, str(value))]
    return [*given, *TINY, "--algo", "ppo", "--episodes", "2", "--min-return", "None", *more]


@pytest.mark.parametrize("env", ["HalfCheetah-v4", "Hopper-v4", "Walker2d-v4"])
def test_every_block_of_settings_is_read(env):
    settings = expert_settings.settings_for(env)
    assert settings.env == env
    assert settings.min_return > 1000


def test_flags_override_the_environments_settings():
    settings = expert_settings.parse(["--env", "HalfCheetah-v4", "--steps", "5", "--net", "32", "16"])
    assert (settings.steps, settings.net, settings.log_std_init) == (5, (32, 16), -1)


def test_an_environment_without_a_block_keeps_the_defaults():
    assert expert_settings.settings_for("Swimmer-v4") == replace(expert_settings.ExpertSettings(), env="Swimmer-v4")


def test_an_unknown_flag_is_an_error(capsys):
    with pytest.raises(SystemExit) as stop:
        expert_settings.parse(["--stpes", "5"])
    assert stop.value.code == 2


def test_a_smoke_run_writes_data_card_and_page_and_resumes(tmp_path, capsys, monkeypatch):
    experts.main(arguments(tmp_path))
    folder = tmp_path / "data" / shipped_dataset_id("Hopper-v4")
    card = json.loads((folder / "card.json").read_text())
    assert (card["trained_steps"], card["episodes"], card["episodes_dropped"]) == (128, 2, 0)
    assert card["versions"]["mujoco"]
    env = make("Hopper-v4")
    read = load(folder, "Hopper-v4", observation_space=env.observation_space, action_space=env.action_space)
    np.testing.assert_allclose(read.returns, card["returns"], atol=0.01)

    page = (tmp_path / "data" / "README.md").read_text()
    assert f"`{card['command']}`" in page
    (tmp_path / "data" / "README.md").unlink()
    expert_cards.write_readme(tmp_path / "data")
    assert (tmp_path / "data" / "README.md").read_text() == page

    # Recording again from the checkpoint repeats the data, and the card still says how to make them from nothing.
    experts.main(arguments(tmp_path, "--resume", "--overwrite"))
    again = json.loads((folder / "card.json").read_text())
    assert again == card

    # More steps continue where the checkpoint was.
    learned, learn = [], PPO.learn
    monkeypatch.setattr(PPO, "learn", lambda self, steps, **how: learned.append(steps) or learn(self, steps, **how))
    experts.main(arguments(tmp_path, "--resume", "--overwrite", steps=192))
    assert sum(learned) == 64
    assert json.loads((folder / "card.json").read_text())["trained_steps"] == 192
    assert json.loads((tmp_path / "run" / "checkpoint" / "progress.json").read_text())["steps"] == 192


def test_resumption_continues_network_and_filter(tmp_path, monkeypatch):
    settings = expert_settings.parse(arguments(tmp_path))
    model, normalizer = expert_training.train(settings)
    monkeypatch.setattr(PPO, "learn", lambda *_, **__: pytest.fail("it is done, and trains anew"))
    again, filter_again = expert_training.train(replace(settings, resume=True))
    assert again.num_timesteps == model.num_timesteps == 128
    for a, b in zip(model.policy.parameters(), again.policy.parameters(), strict=True):
        np.testing.assert_array_equal(a.detach(), b.detach())
    np.testing.assert_array_equal(normalizer.obs_rms.mean, filter_again.obs_rms.mean)
    assert filter_again.obs_rms.count == normalizer.obs_rms.count


def test_the_best_checkpoint_is_recorded(tmp_path, monkeypatch):
    scores = iter([3.0, 7.0, 5.0, 6.0])
    monkeypatch.setattr(expert_training, "mean_return", lambda *_: next(scores))
    flags = ["--select-episodes", "1", "--checkpoint-every", "64"]
    experts.main(arguments(tmp_path, *flags, steps=192))
    card = json.loads((tmp_path / "data" / shipped_dataset_id("Hopper-v4") / "card.json").read_text())
    assert card["trained_steps"] == 128
    assert "highest mean return over 1 deterministic" in card["selection"]
    experts.main(arguments(tmp_path, *flags, "--resume", "--overwrite", steps=192))
    assert json.loads((tmp_path / "data" / shipped_dataset_id("Hopper-v4") / "card.json").read_text()) == card


def test_what_is_there_is_not_overwritten_unasked(tmp_path):
    settings = expert_settings.parse(arguments(tmp_path))
    expert_training.train(settings)
    with pytest.raises(UserError, match="holds a checkpoint; continue it with --resume"):
        experts.main(arguments(tmp_path))
    (tmp_path / "data" / shipped_dataset_id("Hopper-v4")).mkdir(parents=True)
    with pytest.raises(UserError, match="there already"):
        experts.main(arguments(tmp_path, "--resume"))


def test_resuming_nothing_or_another_run_is_named(tmp_path):
    with pytest.raises(UserError, match="nothing to resume"):
        experts.main(arguments(tmp_path, "--resume"))
    expert_training.train(expert_settings.parse(arguments(tmp_path)))
    with pytest.raises(UserError, match=r"started with gamma 0\.99, not 0\.5"):
        experts.main(arguments(tmp_path, "--resume", "--gamma", "0.5"))


@pytest.mark.parametrize(
    ("flag", "value"),
    [("steps", "0"), ("episodes", "0"), ("n-envs", "0"), ("batch-size", "1"), ("net", "-1"), ("gamma", "nan")]
    + [("learning-rate", "-1"), ("seed", "-1"), ("min-return", "nan"), ("select-episodes", "-1")],
)
def test_settings_that_make_no_sense_are_refused(flag, value):
    with pytest.raises(UserError, match=flag):
        expert_settings.parse([f"--{flag}", value])


def test_an_unknown_environment_is_named(tmp_path):
    with pytest.raises(UserError, match="NoSuchTask-v0"):
        experts.main(arguments(tmp_path, env="NoSuchTask-v0"))


def test_a_poor_expert_is_not_recorded(tmp_path):
    with pytest.raises(UserError, match="returned less than 100000"):
        experts.main(arguments(tmp_path, "--min-return", "100000"))
    assert not (tmp_path / "data").exists()
    assert (tmp_path / "run" / "checkpoint").exists(), "what was trained is kept"


def test_trpo_runs_and_names_its_package(tmp_path):
    pytest.importorskip("sb3_contrib")
    experts.main(arguments(tmp_path, "--algo", "trpo"))
    card = json.loads((tmp_path / "data" / shipped_dataset_id("Hopper-v4") / "card.json").read_text())
    assert "sb3-contrib" in card["versions"]
    assert "target_kl" in card["settings"]
    assert "clip_range" not in card["settings"]


def test_trpo_without_its_package_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "sb3_contrib", None)
    with pytest.raises(UserError, match="needs sb3-contrib"):
        experts.main(arguments(tmp_path, "--algo", "trpo"))


def test_ctrl_c_saves_and_the_script_resumes(tmp_path):
    command = [sys.executable, "scripts/make_expert_data.py", *arguments(tmp_path, steps=10_000_000)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not (tmp_path / "run").exists() and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130, stderr
    steps = json.loads((tmp_path / "run" / "checkpoint" / "progress.json").read_text())["steps"]
    assert f"stopped at step {steps}" in stderr
    experts.main(arguments(tmp_path, "--resume", steps=steps))
    assert (tmp_path / "data" / "README.md").exists()


def test_the_shipped_page_is_what_the_cards_say(tmp_path):
    page = (ROOT / "expert_data" / "README.md").read_text()
    for file in (ROOT / "expert_data").rglob("card.json"):
        copy = tmp_path / file.relative_to(ROOT / "expert_data")
        copy.parent.mkdir(parents=True)
        copy.write_text(file.read_text())
    expert_cards.write_readme(tmp_path)
    assert (tmp_path / "README.md").read_text() == page


def test_a_resumed_expert_meets_other_starts(tmp_path):
    settings = expert_settings.parse(arguments(tmp_path, steps=64))
    expert_training.train(settings)
    seen = []
    original = expert_training._load

    def spy(folder, settings, seed):
        model, normalizer = original(folder, settings, seed)
        seen.append((seed, list(normalizer.venv._seeds)))
        return model, normalizer

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(expert_training, "_load", spy)
        expert_training.train(replace(settings, resume=True, steps=128))
    assert seen == [(settings.seed + 64, [settings.seed + 64, settings.seed + 65])]


def test_an_expert_is_recorded_from_starts_that_training_has_not_used(tmp_path):
    settings = expert_settings.parse(arguments(tmp_path, "--seed", "2", steps=64))
    played = experts.record(settings, *expert_training.train(settings))
    assert played.seeds == [3_000_000, 3_000_001]
    environment = make("Hopper-v4")
    for seed, episode in zip(played.seeds, played.episodes, strict=True):
        np.testing.assert_allclose(episode.observations[0], environment.reset(seed=seed)[0])


def test_a_page_of_somebody_else_is_not_written_over(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "README.md").write_text("# My project\n")
    with pytest.raises(UserError, match="another --out"):
        experts.main(arguments(tmp_path))
    assert not (tmp_path / "run").exists()


def test_cards_of_classifiers_are_none_of_experts(tmp_path):
    (tmp_path / "best").mkdir()
    (tmp_path / "best" / "card.json").write_text('{"model": "small-cnn"}')
    expert_cards.write_readme(tmp_path)
    assert "small-cnn" not in (tmp_path / "README.md").read_text()


def test_demonstrations_in_an_environment_of_ones_own(tmp_path):
    """Registered with a class, as examples/own_environment.py does, and named with the module to import."""
    import gymnasium

    from l2l_gail.recording import save_minari
    from tests.l2l_gail.conftest import make_demonstrations
    from tests.l2l_gail.test_recording import Counter

    gymnasium.register("Count-v0", entry_point=Counter, max_episode_steps=40)
    try:
        made = make_demonstrations(1, 1, episodes=2, length=10)
        folder = save_minari(tmp_path, "test/count-v0", replace(made, env_id="Count-v0"))
        env = gymnasium.make("Count-v0")
        spaces = {"observation_space": env.observation_space, "action_space": env.action_space}
        for name in ("Count-v0", "tests.l2l_gail.test_recording:Count-v0"):
            assert len(load(folder, name, **spaces)) == 2
    finally:
        gymnasium.registry.pop("Count-v0")
