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
from l2l_at.data import Batch, load
from l2l_at.trainer import Trainer
from l2l_experiment import events

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


def trained(name, steps=3):
    """Weights of classifier and attacker after some steps, and what the attack remembers."""
    config = ATConfig(batch_size=32, subset=128, epochs=1, **ALIKE.get(name, {}))
    trainer = Trainer(config, load("digits", subset=128))
    for _ in range(steps):
        trainer.step()
    weights = dict(trainer.model.state_dict())
    follower = trainer.method.follower
    if follower.attacker is not None:
        weights |= {f"attacker/{key}": value for key, value in follower.attacker.state_dict().items()}
    start = getattr(follower, "start", None)
    return weights | ({} if start is None else start.state())


def test_alone_nothing_is_shared():
    batch = Batch(torch.rand(4, 1, 2, 2), torch.arange(4))
    module = nn.BatchNorm1d(2)
    with parallel.group(torch.device("cpu")), parallel.first():
        assert parallel.share(batch) is batch
        assert parallel.gather(batch.labels) is batch.labels
        assert (parallel.rank(), parallel.count()) == (0, 1)
        assert parallel.of_first(True, torch.device("cpu"))
        parallel.average_gradients(module)
        parallel.average_moments(module)
    assert not module.weight._backward_hooks


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
    one, two = (safetensors.torch.load_file(tmp_path / f"memory_{rank}") for rank in (0, 1))
    assert all(torch.equal(one[key], two[key]) for key in one)
    assert int(one["seen"].sum()) == 96  # three batches, whoever saw their images
    moments = [safetensors.torch.load_file(tmp_path / f"moments_{rank}")["mean"] for rank in (0, 1)]
    assert moments[0].tolist() == moments[1].tolist() == [0.5]


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
    assert list(events.read_scalars(killed, "robust/clean")[0]) == [2, 4]
    done = torchrun(script, *flags, "--batch-size", "33")
    assert done.returncode != 0
    assert "multiple of 2 processes" in done.stderr


def work(out: Path) -> None:
    """One of the two processes."""
    with parallel.group(torch.device("cpu")):
        rank = parallel.rank()
        for name in (*ALIKE, "memory"):
            tensors = {key: value.contiguous() for key, value in trained(name).items()}
            safetensors.torch.save_file(tensors, out / f"{name}_{rank}")
        norm = nn.BatchNorm1d(1)
        norm.running_mean.fill_(rank)
        parallel.average_moments(norm)
        safetensors.torch.save_file({"mean": norm.running_mean}, out / f"moments_{rank}")


if __name__ == "__main__":
    torch.set_num_threads(1)
    work(Path(sys.argv[1]))
