"""Kills, write faults and malformed inputs, at random, for as long as one likes; not part of the test suite.

    python -m tests.torture --minutes 30

Prints kills / lost / unequal: how often a training was killed (SIGKILL, or a disk that is full) at a random moment, how
many runs could not be resumed, and how many ended with other weights or figures than one that nobody disturbed. Then
inputs / clean / traceback / hang / silent: what became of demonstrations, settings, checkpoints, cards and flags that
were damaged. `silent` counts damaged checkpoints that loaded without a word. Exit code 1 if any count is not 0."""

import argparse
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

import l2l_at
from l2l_at import cli as at
from l2l_at import tuned
from l2l_experiment import checkpoint, files, metrics
from l2l_experiment.errors import exit_on_user_error
from l2l_experiment.run import Run
from l2l_gail import GAIL, load_demonstrations
from l2l_gail import cli as gail
from l2l_gail.session import stored_args
from tests.l2l_gail.conftest import make_demonstrations, save_minari, save_npz

SMALL = "--n-envs 2 --n-steps 32 --batch-size 32 --n-epochs 2 --net-arch 8 --disc-hidden 16 --disc-updates 10"
SMALL += " --disc-batch-size 16 --num-demos 2 --steps 640 --checkpoint-every 2 --eval-episodes 1 --l2l"
DIGITS = "--epochs 3 --subset 300 --batch-size 50 --probe-images 20 --grade none --method l2l"
TOOLS = {"gail": (gail.main, SMALL.split()), "at": (at.main, DIGITS.split())}
AT_FLAGS = "--eps --method --norm --epochs --attack-steps --model --batch-size --holdout --attacker-sees"
GAIL_FLAGS = f"{SMALL} --env --follower --reward --gamma --seed --log-std-init --every"
NONSENSE = [None, "", "x", "no", True, -1, 0, 1.5, 1e308, -1e308, 10**12, "1e-320", "nan", "inf", [], [1], {}, {"a": 1}]
NONSENSE += ["\0", "a" * 5000, "../..", "ü", [[]], "0:5", "8/0", "-"]


def forked(work: Callable[[], object], log: Path, *, seconds: float = 60.0) -> int | None:
    """The exit code of `work` in a process of its own, with its output in `log`; None if killed after `seconds`."""
    if (child := os.fork()) == 0:
        out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(out, 1)
        os.dup2(out, 2)
        code = 1
        random.seed(0)  # python seeds it anew after a fork, and checkpoints hold its state
        try:
            work()
            code = 0
        except SystemExit as stopped:
            code = stopped.code if isinstance(stopped.code, int) else 0 if stopped.code is None else 1
        except BaseException:  # noqa: BLE001  what a command lets out, the user sees
            import traceback

            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.005)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return None


def outcome(folder: Path) -> tuple[list, list]:
    """The weights and the figures that a run ended with, without times."""

    def leaves(node: object) -> list:
        if isinstance(node, dict):
            return [leaf for key, value in node.items() if key != "seconds" for leaf in leaves(value)]
        if isinstance(node, list | tuple):
            return [leaf for value in node for leaf in leaves(value)]
        return [node.tolist()] if isinstance(node, torch.Tensor | np.ndarray) else [node]

    rows = metrics.read(folder / metrics.METRICS)
    return leaves(checkpoint.latest(folder)), [{k: v for k, v in row.items() if "time" not in k} for row in rows]


def difference(one: tuple[list, list], two: tuple[list, list]) -> str:
    """Where two outcomes first differ."""
    for name, mine, other in zip(("state", "log"), one, two, strict=True):
        if len(mine) != len(other):
            return f"{name}: {len(mine)} and {len(other)} entries"
        for place, (left, right) in enumerate(zip(mine, other, strict=True)):
            if repr(left) != repr(right):
                return f"{name}, entry {place}: {left!r:.300} and {right!r:.300}"
    return "nowhere"


def faulty(chance: random.Random) -> None:
    """From now on a call that writes fails at random, as on a disk that is full."""
    real, left = files.sync, chance.randrange(12)

    def sync(path: Path) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise OSError(28, "No space left on device", str(path))
        real(path)

    for module in (files, checkpoint):
        module.sync = sync


def kills(tool: str, until: float, chance: random.Random, folder: Path) -> Counter:
    """Trains, killed again and again, and compares the end with that of a training that nobody disturbed."""
    main, flags = TOOLS[tool]
    flags = flags if tool == "at" else [*flags, "--demos", str(save_npz(folder / "d.npz", make_demonstrations(17, 6)))]
    found, whole, log = Counter(), folder / "whole", folder / "log"
    started = time.monotonic()
    assert forked(lambda: main([*flags, "--run-dir", str(whole)]), log) == 0, log.read_text()
    took, wanted = time.monotonic() - started, repr(outcome(whole))
    while time.monotonic() < until:
        run = folder / f"run{found['runs']}"
        found["runs"] += 1
        history = []
        for turn in range(60):
            words = ["--resume", str(run)] if (run / "record.json").is_file() else [*flags, "--run-dir", str(run)]
            disturbed = turn < 12

            def work(words: list[str] = words, fault: bool = disturbed and chance.random() < 0.3) -> None:
                if fault:
                    faulty(chance)
                main(words)

            before = sorted(path.name for path in run.glob("checkpoints/*"))
            code = forked(work, log, seconds=chance.uniform(0.02, took) if disturbed else 60)
            history.append((words[0], code, before, log.read_text()[-200:]))
            if code == 0 and Run.open(run, kind=tool).record["status"] == "finished":
                break
            found["kills"] += 1
            if not disturbed or code not in (None, 2):  # None: killed; 2: one sentence about a disk that is full
                found["lost"] += 1
                print(f"lost: {run}\n{log.read_text()[-2000:]}")
                break
        else:
            found["lost"] += 1
        if code == 0 and repr(outcome(run)) != wanted:
            found["unequal"] += 1
            mine = outcome(run)
            print(f"unequal: {run}: {difference(mine, outcome(whole))}", *history, sep="\n  ")
        elif code == 0:
            shutil.rmtree(run)
    return found


def damaged(path: Path, chance: random.Random) -> None:
    """A bit flipped, a piece cut out, doubled or made zero, or the end missing."""
    data = bytearray(path.read_bytes())
    place, length = chance.randrange(len(data)), chance.randrange(1, 60)
    match chance.randrange(5):
        case 0:
            data[place] ^= 1 << chance.randrange(8)
        case 1:
            del data[place : place + length]
        case 2:
            data[place:place] = data[place : place + length] or b"\0"
        case 3:
            data[place : place + length] = chance.randbytes(length)
        case 4:
            del data[place:]
    path.write_bytes(data)


def mutated_yaml(path: Path, chance: random.Random) -> None:
    """One value of a file of settings, at any depth, becomes nonsense; or its bytes do."""
    import yaml

    if chance.random() < 0.3:
        return damaged(path, chance)
    content = yaml.safe_load(path.read_text())
    place = content if chance.random() < 0.4 or "settings" not in content else content["settings"]
    place[chance.choice([*place, "unknown"])] = chance.choice(NONSENSE)
    path.write_text(yaml.safe_dump(content))
    return None


def fuzz(until: float, chance: random.Random, folder: Path) -> Counter:
    """Damages one input after the other, and looks at what the code that reads it makes of it."""
    found, log, made = Counter(), folder / "log", folder / "made"
    made.mkdir()
    demonstrations = make_demonstrations(17, 6)
    npz = save_npz(made / "d.npz", demonstrations)
    save_minari(made / "minari", "test/cheetah-v0", replace(demonstrations, env_id="HalfCheetah-v4"))
    run, (main, flags) = made / "run", TOOLS["gail"]
    forked(lambda: main([*flags, "--demos", str(npz), "--run-dir", str(run)]), log)
    l2l_at.save(made / "classifier", l2l_at.models.build("small-cnn", ((0.3,), (0.3,)), 10), tuned("digits"))

    def flags_of(parser: Callable, chance: random.Random, words: list[str]) -> Callable[[], object]:
        names = [word for word in words if word.startswith("--")]
        argv = []
        for _ in range(chance.randrange(1, 4)):
            argv += [chance.choice(names), str(chance.choice(NONSENSE)).replace("\0", "?")]
        return lambda: parser(argv)

    readers: dict[str, tuple[str | None, Callable, Callable]] = {
        "npz": ("d.npz", damaged, lambda at_: load_demonstrations(at_ / "d.npz", "HalfCheetah-v4")),
        "hdf5": (
            "minari/test/cheetah-v0/data/main_data.hdf5",
            damaged,
            lambda at_: load_demonstrations(at_ / "minari/test/cheetah-v0", "HalfCheetah-v4"),
        ),
        "metadata": (
            "minari/test/cheetah-v0/data/metadata.json",
            damaged,
            lambda at_: load_demonstrations(at_ / "minari/test/cheetah-v0", "HalfCheetah-v4"),
        ),
        "config": ("run/config.yaml", mutated_yaml, lambda at_: stored_args(Run.open(at_ / "run", kind="gail"))),
        "record": ("run/record.json", damaged, lambda at_: Run.open(at_ / "run", kind="gail")),
        "log": ("run/metrics.jsonl", damaged, lambda at_: metrics.read(at_ / "run/metrics.jsonl")),
        "checkpoint": (None, damaged, lambda at_: GAIL.load(at_ / "run")),
        "card": ("classifier/card.json", damaged, lambda at_: l2l_at.load(at_ / "classifier")),
        "weights": ("classifier/model.safetensors", damaged, lambda at_: l2l_at.load(at_ / "classifier")),
    }
    copy = folder / "copy"
    while time.monotonic() < until:
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(made, copy)
        kind = chance.choice([*readers, "gail flags", "at flags"])
        if kind in readers:
            name, change, reader = readers[kind]
            path = copy / name if name else chance.choice(sorted((copy / "run").glob("checkpoints/*/*")))
            before = path.read_bytes()
            change(path, chance)
            if path.read_bytes() == before:
                continue
            work = lambda reader=reader: reader(copy)  # noqa: E731
        else:
            parser, words = (gail.parse, GAIL_FLAGS) if kind == "gail flags" else (at.parse, AT_FLAGS)
            work = flags_of(parser, chance, words.split())
        code = forked(exit_on_user_error(work), log, seconds=30)
        said = log.read_text(errors="replace")
        found["inputs"] += 1
        if code is None:
            found["hang"] += 1
        elif "Traceback" in said or code not in (0, 2):
            found["traceback"] += 1
        else:
            found["clean"] += 1
            older = kind == "checkpoint" and path.parent.name != max(p.name for p in path.parent.parent.iterdir())
            if kind == "checkpoint" and code == 0 and not said and not older:
                found["silent"] += 1
                print("silent:", path)
        if code is None or "Traceback" in said or code not in (0, 2):
            print(f"{kind}, exit code {code}:\n{said[-1500:]}")
    return found


def main() -> None:
    """Half of the time for kills, half for inputs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.set_num_threads(1)
    chance, total, seconds = random.Random(args.seed), Counter(), 60 * args.minutes
    with tempfile.TemporaryDirectory() as temporary:
        for tool in TOOLS:
            folder = Path(temporary) / tool
            folder.mkdir()
            total += kills(tool, time.monotonic() + seconds / 4, chance, folder)
        folder = Path(temporary) / "fuzz"
        folder.mkdir()
        inputs = fuzz(time.monotonic() + seconds / 2, chance, folder)
    print("kills {kills} in {runs} runs, lost {lost}, unequal {unequal}".format_map(Counter(total)))
    print("inputs {inputs}: clean {clean}, traceback {traceback}, hang {hang}, silent {silent}".format_map(inputs))
    bad = total["lost"] + total["unequal"] + inputs["traceback"] + inputs["hang"] + inputs["silent"]
    sys.exit(1 if bad else 0)


if __name__ == "__main__":
    main()
