"""The examples run, and stay short enough to be read at a glance."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

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


@pytest.mark.slow
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


@pytest.mark.slow
def test_images():
    import images

    env = images.gymnasium.make("CartPolePixels-v0")
    images.record("pixels.npz", env)
    assert np.load("pixels.npz")["observations"].shape == (1002, 3, 42, 42)
    top, middle = images.draw([0.0, 0.0, 0.1, 0.0])[0], images.draw([1.2, 0.0, 0.0, 0.0])[20]
    assert top.argmax() / 21 - 1 == pytest.approx(np.tan(0.3), abs=0.1)  # where a pole that leans right ends
    assert middle.argmax() / 21 - 1 == pytest.approx(0.5, abs=0.1)  # an upright one is above the cart
    images.train(
        ["--env", "CartPolePixels-v0", "--demos", "pixels.npz", "--num-demos", "1", *SHORT, "--run-dir", "run"]
    )
    assert (Path("run") / "policy.zip").is_file()


@pytest.mark.slow
def test_own_follower_trains_resumes_and_is_diagnosed(tmp_path):
    import own_follower

    from l2l_compare import cli as compare
    from l2l_compare import diagnose
    from l2l_gail import FOLLOWERS

    own_follower.main(["--follower", "momentum", *SHORT, "--run-dir", "run"])
    own_follower.main(["--resume", "run", "--steps", "6144"])
    compare.main(["run", "--tag", "train_disc/acc", "--out", "comparison"])
    assert "momentum" in yaml.safe_load(Path("run/config.yaml").read_text())["settings"]["follower"]
    diagnose.main(["run"])
    assert {path.stem for path in Path("run/diagnosis").glob("*.png")} >= {"discriminator", "strength"}
    del FOLLOWERS["momentum"]


@pytest.mark.slow
def test_own_data_set_makes_a_run_a_grade_and_a_sweep(capsys):
    import own_data_set

    from l2l_experiment import sweep_cli

    flags = ["--dataset", "stripes", "--epochs", "1", "--subset", "256"]
    own_data_set.main([*flags, "--run-dir", "run"])
    own_data_set.grade_main(["run", "--images", "10"])
    assert "stripes, drawn on the fly" in Path("run/best/card.json").read_text()
    spec = {"script": str(FOLDER / "own_data_set.py"), "base": {"dataset": "stripes", "epochs": 1, "subset": 256}}
    Path("sweep.yaml").write_text(yaml.safe_dump(spec | {"grid": {"method": ["standard"], "seed": ["0:1"]}}))
    sweep_cli.main(["sweep.yaml", "--out", "swept"])
    assert "1 of 1 runs are finished" in capsys.readouterr().out
    del own_data_set.DATASETS["stripes"]


def test_own_method():
    import own_method

    flags = ["--method", "corners", "--epochs", "1", "--subset", "256", "--grade", "none", "--run-dir", "run"]
    own_method.train(flags)
    del own_method.METHODS["corners"]


def test_notebook():
    import notebook

    from l2l_at.cli import main as train_at

    draw = np.random.default_rng(0)
    gail, actions = notebook.imitate(
        draw.normal(size=(202, 3)), draw.uniform(-1, 1, size=(200, 1)), np.array([100, 200]), steps=2048
    )
    assert actions.shape == (5, 1)
    train_at(["--epochs", "1", "--subset", "256", "--grade", "none", "--method", "standard", "--run-dir", "run"])
    assert notebook.classify("run", torch.rand(3, 1, 8, 8)).shape == (3,)


@pytest.mark.slow
def test_the_notebook_runs_from_top_to_bottom():
    cells, names = json.loads((FOLDER / "notebook.ipynb").read_text())["cells"], {}
    for cell in cells:
        if cell["cell_type"] == "code":
            exec("".join(cell["source"]), names)
    assert names["actions"].shape == (5, 1)
    assert names["threat"].size(names["attacked"] - names["images"]).max() <= 0.1 + 1e-6
