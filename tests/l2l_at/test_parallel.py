"""Several processes that train one classifier: they agree with each other and with one process that does it alone."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import nn

from l2l_at import parallel
from l2l_at.config import ATConfig
from l2l_at.datasets import load
from l2l_at.trainer import Trainer
from l2l_experiment import metrics

ROOT = Path(__file__).parents[2]
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
# Nothing is drawn but the order of the images, so that a batch in two halves is the batch.
ALIKE = {
    "pgd": {"method": "pgd", "attack_start": "zero"},
    "awp": {"method": "pgd", "attack_start": "zero", "awp": 0.01, "awp_from": 0.0},
    "l2l": {"method": "l2l", "attack_start": "zero", "attacker_every": 1},
    "l2l-grad": {"method": "l2l-grad", "gradient_scale": "sample"},
}


def torchrun(*words):
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    return subprocess.run([*TORCHRUN, *map(str, words)], env=environment, capture_output=True, text=True, timeout=300)


# Here only the processes have to agree: with whatever is drawn, normalised over a batch, averaged or clipped.
AGREE = {name: {"method": name} for name in ("trades", "l2l-2step", "l2l-trades", "l2l-sdi", "fast-bat", "grad-align")}
AGREE["normalised"] = {"method": "l2l-grad", "attacker": "two-layer"}
AGREE["clipped"] = {"method": "l2l", "clip_norm": 0.1, "attack_start": "random", "attacker_every": 1}


def trained(name, steps=3):
    """Weights of classifier and attacker after some steps, and what the attack remembers."""
    config = ATConfig(batch_size=32, subset=128, epochs=1, **(ALIKE | AGREE)[name])
    trainer = Trainer(config, load("digits", subset=128))
    for _ in range(steps):
        trainer.step()
    weights = dict(trainer.model.state_dict())
    weights |= {f"average/{key}": value for key, value in trainer.eval_model.state_dict().items()}
    follower = trainer.method.follower
    if follower.attacker is not None:
        weights |= {f"attacker/{key}": value for key, value in follower.attacker.state_dict().items()}
    start = getattr(follower, "start", None)
    return weights | ({} if start is None else start.state_dict())


@pytest.mark.slow
def test_two_processes_do_what_one_does(tmp_path):
    done = torchrun(__file__, tmp_path)
    assert done.returncode == 0, done.stderr[:3000]
    for name in ALIKE:
        both = [safetensors.torch.load_file(tmp_path / f"{name}_{rank}") for rank in (0, 1)]
        alone = trained(name)
        assert set(alone) == set(both[0])
        for key, value in alone.items():
            assert torch.equal(both[0][key], both[1][key]), (name, key)
            torch.testing.assert_close(both[0][key], value, rtol=1e-3, atol=2e-5, msg=f"{name} {key}")
    for name in AGREE:
        one, two = (safetensors.torch.load_file(tmp_path / f"{name}_{rank}") for rank in (0, 1))
        for key in one:
            assert torch.equal(one[key], two[key]), (name, key)
    assert int(safetensors.torch.load_file(tmp_path / "l2l-trades_0")["seen"].sum()) == 96  # whoever saw the images
    moments = [safetensors.torch.load_file(tmp_path / f"moments_{rank}") for rank in (0, 1)]
    assert moments[0]["mean"].tolist() == moments[1]["mean"].tolist() == [0.5]
    assert moments[1]["constant"].tolist() == [1]


@pytest.mark.slow
def test_a_run_of_two_processes_leaves_one_folder_and_goes_on(tmp_path):
    script = ROOT / "scripts" / "train_at.py"
    flags = ["--epochs", "2", "--subset", "256", "--grade", "none"]
    straight, killed = tmp_path / "straight", tmp_path / "killed"
    for folder in (straight, killed):
        done = torchrun(script, *flags, "--run-dir", folder)
        assert done.returncode == 0, done.stderr[:3000]
        assert done.stdout.count("See curves") == 1
    record = json.loads((straight / "record.json").read_text())
    assert (record["status"], record["processes"], record["steps"]) == ("finished", 2, 4)
    newest = max((killed / "checkpoints").iterdir())
    for file in newest.iterdir():
        file.unlink()
    newest.rmdir()
    record = json.loads((killed / "record.json").read_text())
    (killed / "record.json").write_text(json.dumps(record | {"status": "interrupted"}))
    done = torchrun(script, "--resume", killed)
    assert done.returncode == 0, done.stderr[:3000]
    weights = [(folder / "last" / "model.safetensors").read_bytes() for folder in (straight, killed)]
    assert weights[0] == weights[1]
    assert [row["step"] for row in metrics.read(killed / metrics.METRICS)] == [2, 4]
    assert json.loads((killed / "record.json").read_text())["resumed_at"] == [2]
    for wrong, said in ((["--batch-size", "33"], "multiple of 2 processes"), (["--run-dir", straight], "not empty")):
        done = torchrun(script, *flags, *wrong)
        assert done.returncode != 0
        assert said in done.stderr
        assert "Connection closed" not in done.stderr


def work(out: Path) -> None:
    """One of the two processes."""
    with parallel.group(torch.device("cpu")):
        rank = parallel.rank()
        for name in ALIKE | AGREE:
            tensors = {key: value.contiguous() for key, value in trained(name).items()}
            safetensors.torch.save_file(tensors, out / f"{name}_{rank}")
        norm = nn.BatchNorm1d(1)
        norm.running_mean.fill_(rank)
        norm.register_buffer("constant", torch.full((1,), float(rank)))
        parallel.average_batch_norm_stats(norm)
        safetensors.torch.save_file({"mean": norm.running_mean, "constant": norm.constant}, out / f"moments_{rank}")


if __name__ == "__main__":
    torch.set_num_threads(1)
    work(Path(sys.argv[1]))
