"""Sweep files: blocks, variants, names, flags over a file, runs with equal settings, records."""

import json
from pathlib import Path

import pytest

from l2l_experiment import sweep_cli, sweep_files
from l2l_experiment.errors import UserError
from l2l_experiment.sweep_files import expand, read

# As a tool's `cli` has it: flags to a dataclass.
TOOL = """
from dataclasses import dataclass
from pathlib import Path
import tyro
from l2l_experiment.errors import UserError

@dataclass(frozen=True)
class Args:
    rate: float = 0.1
    who: str = "adam"
    seed: int = 0
    sizes: tuple[int, ...] = ()
    mixup: bool = False
    anchored: bool | None = None
    source: str = ""
    run_dir: Path | None = None

def parse(argv):
    args = tyro.cli(Args, args=argv)
    if args.rate <= 0:
        raise UserError("--rate must be positive")
    return args

def main(argv=None):
    parse(argv)
"""


@pytest.fixture
def spec(tmp_path):
    """Write a sweep file beside a tool of its own."""
    (tmp_path / "tool.py").write_text(TOOL)
    sweep_files.parser.cache_clear()

    def write(text):
        path = tmp_path / "mine.yaml"
        path.write_text(f"script: tool.py\n{text}")
        return str(path)

    return write


def flags_of(path, rest=()):
    script, experiments = read(path, rest)
    return {name: expand(blocks, sweep_files.boolean_flags(script)) for name, blocks in experiments.items()}


def names(grid, rest=()):
    words = [word for key, values in grid.items() for word in (f"--{key}", *values)]
    return list(expand(read("gail", words)[1][""]))


def test_what_varies_names_the_run():
    assert names({"who": ["adam", "l2l"], "seed": ["0:2"]}) == ["adam_s0", "adam_s1", "l2l_s0", "l2l_s1"]
    assert names({"who": ["adam"], "rate": ["3e-5", "1e-3"]}) == ["rate-3e-5_s0", "rate-1e-3_s0"]
    assert names({"eps": ["8/255", "0.1"], "seed": ["7"]}) == ["eps-8-255_s7", "eps-0.1_s7"]
    assert names({"sizes": ["64,64", "256,256"]}) == ["sizes-64-64_s0", "sizes-256-256_s0"]
    assert names({"mixup": ["true", "False"]}) == ["mixup-true_s0", "mixup-False_s0"]


def test_variants_times_grid_over_base_in_several_blocks(spec):
    path = spec(
        """
base: {sizes: [64, 64]}
experiments:
  one:
    - base: &few {rate: 0.5}
      variants: {plain: {}, l2l: {who: l2l, anchored: false}}
      grid: {seed: 0:2}
    - {base: {<<: *few, who: other}, grid: {seed: [7], rate: [1, 2]}}
  two: {variants: {mixed: {mixup: true}}}
"""
    )
    found = flags_of(path)
    assert list(found["one"]) == ["plain_s0", "l2l_s0", "plain_s1", "l2l_s1", "rate-1_s7", "rate-2_s7"]
    start = ("--sizes", "64", "64", "--rate", "0.5")
    assert found["one"]["l2l_s1"] == (*start, "--who", "l2l", "--anchored", "False", "--seed", "1")
    assert found["two"] == {"mixed_s0": ("--sizes", "64", "64", "--mixup")}
    over = flags_of(path, ["--rate", "9", "--who=x"])
    assert over["one"]["l2l_s0"][-4:] == ("--rate", "9", "--who", "x")
    with pytest.raises(UserError, match="two runs would be called s7"):  # of two rates one is left
        flags_of(spec("grid: {seed: [7, 7]}"))


def test_switches_are_turned_on_and_off(spec):
    found = flags_of(spec("grid:\n  mixup: [true, false]\n  anchored: [True]\n"))[""]
    assert list(found.values()) == [("--mixup", "--anchored", "True"), ("--no-mixup", "--anchored", "True")]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("grid: [\n", "fix it"),
        ("grid: {seed: [5:5]}", "5:5 must hold 1 to"),
        ("experiments: {a: {grids: {}}}", "a block takes base, grid, variants, not grids"),
        ("experiments: {a: {}}\ngrid: {seed: 1}", "no `grid` or `variants` beside it"),
        ("base: {run-dir: x}", "--run-dir cannot be swept"),
        ("base: {seed: {a: 1}}", "a value or a list of values"),
        ("variants: [a, b]", "`variants` takes names, each with flags"),
        ("variants: {a: {seed: 1}}\ngrid: {seed: 0:2}", "variant a and the grid both set seed"),
        ("grid:\n  seed: 0:2\n  steps: 5\n  seed: 3", "seed stands 2 times in the block that begins in line 3"),
        ("experiments: {}", "`experiments` takes blocks by name"),
        ("experiments: {..: {}}", "cannot be '..'"),
        ("experiments: {a/b: {}}", "cannot be 'a/b'"),
    ],
)
def test_files_that_make_no_sense(spec, text, message):
    with pytest.raises(UserError, match=message):
        flags_of(spec(text))


def test_specs_that_are_none(spec, tmp_path):
    with pytest.raises(UserError, match="no file nowhere.yaml"):
        read("nowhere.yaml", [])
    Path(spec("")).write_text("script: other\n")
    with pytest.raises(UserError, match="must name its `script`"):
        read(str(tmp_path / "mine.yaml"), [])
    (tmp_path / "mine.py").touch()
    with pytest.raises(UserError, match="`script: mine.py`"):
        read(str(tmp_path / "mine.py"), [])
    with pytest.raises(UserError, match="stray belongs to no flag"):
        read("gail", ["stray"])


def test_runs_with_equal_settings_are_made_once_and_recorded_ones_not_at_all(spec, tmp_path):
    path = spec(
        """
experiments:
  one: {grid: {seed: 0:3, rate: [0.1, 0.5]}}
  two: {base: {rate: 0.5}, variants: {again: {seed: 1}, carried: {source: "{out}/one/x"}}}
"""
    )
    records = tmp_path / "records"
    records.mkdir()
    # What a record does not know is younger, and was as it is by default; 1 and 1.0 are the same.
    kept = {"a": {"settings": {"rate": 0.1, "who": "adam", "seed": 2.0, "sizes": [], "gone": 7}}}
    (records / "one.json").write_text(json.dumps({"runs": kept}))
    (records / "old.json").write_text(json.dumps({"note": "other code", "runs": {"b": {"settings": {"seed": 0}}}}))
    found = sweep_cli.plan(path, (), [], tmp_path / "out", records=records)
    assert [folder.name for folder in found.recorded] == ["rate-0.1_s2"]
    assert {one.name: other.name for one, other in found.duplicates.items()} == {"again_s1": "rate-0.5_s1"}
    assert len(found.jobs) == 6
    assert found.jobs[-1].flags == ("--rate", "0.5", "--source", f"{tmp_path}/out/one/x")
    assert [job.folder.name for job in sweep_cli.plan(path, ("two",), [], tmp_path, only="again").jobs] == ["again_s1"]
    with pytest.raises(UserError, match="no experiment three; there are one, two"):
        sweep_cli.plan(path, ("three",), [], tmp_path)
    with pytest.raises(UserError, match="--rate must be positive"):
        sweep_cli.plan(path, (), ["--rate", "0"], tmp_path)


def test_a_folder_with_other_settings_is_refused(spec, tmp_path):
    path, folder = spec("base: {who: l2l}"), tmp_path / "out" / "s0"
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(json.dumps({"settings": {"who": "l2l"}, "seed": 0, "run_dir": "elsewhere"}))
    assert len(sweep_cli.plan(path, (), [], tmp_path / "out").jobs) == 1
    with pytest.raises(UserError, match="holds a run with who l2l, but this sweep wants x; name another --out"):
        sweep_cli.plan(path, (), ["--who", "x"], tmp_path / "out")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["gail", "--folower", "l2l"], "--folower"),
        (["gail", "stray"], "no experiment stray"),
        (["gail", "--seed"], "Missing value"),
        (["gail", "--address", "here:6379"], "--backend ray"),
        (["gail", "--disc-learning-rate", "1e-3", "-1"], "--disc-learning-rate must be positive"),
        (["at", "--norm", "l2"], "needs --eps"),
        (["at", "--swa-from", "0.9"], "--swa-from would change nothing"),
    ],
)
def test_the_command_refuses_what_makes_no_sense_before_it_trains(words, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stopped:
        sweep_cli.main(words)
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_dry_run_makes_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    sweep_cli.main(["gail", "--l2l", "--seed", "3:5", "--steps=2048", "--dry-run"])
    lines = capsys.readouterr().out.splitlines()
    assert lines == [f"{tmp_path}/runs/gail/s{seed}: --l2l --seed {seed} --steps 2048" for seed in (3, 4)] + [
        "2 runs, 0 more stand in records"
    ]
    assert list(tmp_path.iterdir()) == []


def test_a_script_without_parse_is_refused(tmp_path):
    (tmp_path / "own.py").write_text("def main(argv): ...")
    with pytest.raises(UserError, match="has no parse"):
        sweep_files.parser(str(tmp_path / "own.py"))
