"""The examples run, and stay short enough to be read at a glance."""

import json
from pathlib import Path

import numpy as np
import pytest

FOLDER = Path(__file__).parents[1] / "examples"
SHORT = ("--steps", "2048", "--eval-episodes", "1")


@pytest.fixture(autouse=True)
def examples(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(str(FOLDER))
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.py")), ids=lambda path: path.stem)
def test_under_thirty_lines_of_code(path):
    lines = [line for line in path.read_text().splitlines() if line.strip()]
    assert len(lines) < 30


def test_own_demonstrations(tmp_path):
    import own_demonstrations

    own_demonstrations.main(tmp_path / "demos.npz", *SHORT, "--run-dir", "run")
    assert (tmp_path / "run" / "policy.zip").is_file()


def test_own_environment(tmp_path):
    import own_environment

    own_environment.record("track.npz", "Track-v0", lambda state, _: np.clip([-state[0] - 1.5 * state[1]], -1, 1))
    own_environment.train(
        ["--env", "Track-v0", "--demos", "track.npz", "--num-demos", "2", "--l2l", *SHORT, "--run-dir", "run"]
    )
    assert (tmp_path / "run" / "policy.zip").is_file()


def test_own_data_set(tmp_path):
    import own_data_set

    assert own_data_set.parse(["--dataset", "stripes"]).settings.model == "preact-tiny"
    own_data_set.main(["--dataset", "stripes", "--method", "fgsm-rs", "--epochs", "1", "--run-dir", "run"])
    own_data_set.grade_main(["run", "--images", "4"])
    del own_data_set.DATASETS["stripes"]
    card = json.loads((tmp_path / "run" / "best" / "card.json").read_text())
    assert (card["data"], card["grade"]["n"]) == ("stripes, drawn on the fly", 4)


def test_own_method():
    import own_method

    flags = ["--method", "corners", "--epochs", "1", "--subset", "256", "--grade", "none", "--run-dir", "run"]
    own_method.train(flags)
    del own_method.METHODS["corners"]


def test_own_follower():
    import own_follower

    gail = own_follower.main(steps=2048)
    moved = gail.follower.memory.values()
    assert all(state.abs().sum() > 0 for state in moved)
