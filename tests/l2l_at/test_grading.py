"""Grading: foreign attacks, isolated from the process, resumable, with a record."""

import copy
import json
import random
import sys
import warnings
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from l2l_at import export, graders, grading, models
from l2l_at.attacks import accuracy, pgd
from l2l_at.config import tuned
from l2l_at.datasets import DATASETS
from l2l_at.grading import Grade, grade, grade_folder, masking_warnings, supersedes
from l2l_at.threat import Threat
from l2l_experiment.errors import UserError

THREAT = Threat("linf", 0.1)
# What every version has written into a card.
CARD = {"model": "small-cnn", "dataset": "digits", "classes": 10, "threat": {"norm": "linf", "radius": 0.1}}


def test_an_attack_that_meddles_leaves_the_process_as_it_was(trained, monkeypatch):
    model, images, labels = trained

    def meddle(name, model, images, *_):
        random.random(), np.random.rand(), torch.rand(1)  # noqa: NPY002
        sys.settrace(lambda *_: None)
        warnings.warn("the gradients are zero", stacklevel=1)
        return images + 0.5

    monkeypatch.setattr(graders, "_foolbox", meddle)
    tracer, states = sys.gettrace(), (random.getstate(), np.random.get_state()[1].copy(), torch.get_rng_state())  # noqa: NPY002
    attacked = graders.attack(graders.FOOLBOX, model, images[:5], labels[:5], THREAT, seed=0)
    assert sys.gettrace() is tracer
    assert random.getstate() == states[0]
    assert np.array_equal(np.random.get_state()[1], states[1])  # noqa: NPY002
    assert torch.equal(torch.get_rng_state(), states[2])
    # What it says is told, and what it found outside the threat model does not count.
    assert "the gradients are zero" in attacked.messages
    assert any("left the threat model on 5 images" in text for text in attacked.messages)
    assert not attacked.fooled.any()


@pytest.mark.slow
def test_our_pgd_agrees_with_foreign_attacks(trained):
    """The guard against a weak attack of our own (see the clamp inside the graph): within a point of two others."""
    model, images, labels = trained
    torch.manual_seed(0)
    ours = accuracy(model, images + pgd(model, images, labels, THREAT, steps=50, size=0.05), labels)
    right = model(images).argmax(1) == labels
    theirs = {
        name: float((right & ~graders.attack(name, model, images, labels, THREAT, seed=0).fooled).float().mean())
        for name in ("apgd-ce", graders.FOOLBOX)
    }
    assert 0.1 < ours < 0.9
    assert all(abs(ours - value) <= 0.0101 for value in theirs.values()), (ours, theirs)


@pytest.mark.parametrize(("norm", "radius", "slack"), [("l2", 0.5, 0.02), ("l1", 4.0, 0.05)])
def test_our_pgd_is_an_attack_in_other_norms(trained, norm, radius, slack):
    """In l1 the steepest step moves one pixel; many of them would leave three times as much as APGD does."""
    model, images, labels = trained
    threat = Threat(norm, radius)
    torch.manual_seed(0)
    ours = accuracy(model, images + pgd(model, images, labels, threat), labels)
    right = model(images).argmax(1) == labels
    theirs = right & ~graders.attack("apgd-ce", model, images, labels, threat, seed=0).fooled
    assert abs(ours - float(theirs.float().mean())) <= slack


def test_a_clamp_inside_the_graph_would_overstate_robustness(trained):
    model, images, labels = trained
    torch.manual_seed(0)
    delta = torch.empty_like(images).uniform_(-0.1, 0.1)  # half of the black pixels start below black, and stay
    for _ in range(50):
        delta = delta.detach().requires_grad_()
        loss = nn.functional.cross_entropy(model((images + delta).clamp(0, 1)), labels, reduction="sum")
        (gradient,) = torch.autograd.grad(loss, delta)
        delta = (delta + 0.005 * gradient.sign()).clamp(-0.1, 0.1)
    weak = accuracy(model, (images + delta).clamp(0, 1), labels)
    torch.manual_seed(0)
    right = accuracy(model, images + pgd(model, images, labels, THREAT, steps=50, size=0.05), labels)
    assert weak > right + 0.03


@pytest.fixture
def quick_attacks(monkeypatch):
    """Foolbox's PGD in place of AutoAttack, whose targeted attack asks a model a thousand times."""
    monkeypatch.setattr(graders, "_autoattack", graders._foolbox)


def test_a_grade_is_worst_case_per_image_and_resumes(trained, quick_attacks, tmp_path, monkeypatch):
    model, images, labels = trained
    path = tmp_path / "progress.json"
    images, labels = images[:4], labels[:4]
    record = grade(model, images, labels, THREAT, shard=2, path=path)
    assert record["clean"] >= record["attacks"]["apgd-ce"] >= record["attacks"]["apgd-t"] == record["autoattack"]
    assert record["robust"] <= min(record["autoattack"], record["attacks"][graders.FOOLBOX])
    assert (record["n"], record["norm"], record["radius"]) == (4, "linf", 0.1)
    assert any(name.startswith("pyautoattack") for name in record["packages"])
    whole = json.loads(path.read_text())
    whole["shards"] = dict(list(whole["shards"].items())[:4])
    path.write_text(json.dumps(whole))
    made = []
    monkeypatch.setattr(graders, "attack", lambda *a, _real=graders.attack, **k: made.append(a[0]) or _real(*a, **k))
    assert grade(model, images, labels, THREAT, shard=2, path=path) == record
    assert made == ["apgd-ce", "apgd-t"]
    other = copy.deepcopy(model)
    other.network[0].weight.data.zero_()
    assert grade(other, images, labels, THREAT, shard=2, path=path)["clean"] <= 0.5 < record["clean"]


def test_an_image_counts_once_and_foolbox_sees_all(trained, monkeypatch):
    """Of four images each attack breaks another one; AutoAttack's second does not see what its first has broken."""
    model, images, labels = trained
    right = (model(images).argmax(1) == labels).nonzero().flatten()[:4]
    x, y = images[right], labels[right]
    broken, seen = {"apgd-ce": 0, "apgd-t": 1, graders.FOOLBOX: 2}, {}

    def attack(name, model, images, labels, threat, *, seed):
        seen[name] = len(images)
        fooled = torch.tensor([torch.equal(image, x[broken[name]]) for image in images])
        return graders.Attacked(fooled, ())

    monkeypatch.setattr(graders, "attack", attack)
    record = grade(model, x, y, THREAT)
    assert record["attacks"] == {graders.FOOLBOX: 0.75, "apgd-ce": 0.75, "apgd-t": 0.5}
    assert (record["clean"], record["autoattack"], record["robust"]) == (1.0, 0.5, 0.25)
    assert seen == {graders.FOOLBOX: 4, "apgd-ce": 4, "apgd-t": 3}


@pytest.mark.slow
def test_a_softmax_output_and_a_zero_gradient_are_told(trained):
    model, images, labels = trained
    record = grade(nn.Sequential(model, nn.Softmax(1)), images[:2], labels[:2], THREAT)
    assert any("probability" in text for text in record["warnings"])


def test_a_grade_of_more_images_or_attacks_says_more():
    grades = [{"n": n, "tier": tier} for n, tier in ((4, "standard"), (8, "quick"), (8, "standard"))]
    for rank, one in enumerate(grades):
        assert supersedes(one, None)
        assert [supersedes(one, other) for other in grades] == [rank > other for other in range(3)]


def test_masked_gradients_smell(trained):
    def a_grade(**flags):
        kept = Grade("standard", THREAT, 0, 100)
        kept.flags = {name: [True] * value + [False] * (100 - value) for name, value in flags.items()}
        return masking_warnings(kept)

    usual = {"clean": 99, graders.FOOLBOX: 72, "apgd-ce": 72, "apgd-t": 70, "fab-t": 70, "square": 70}
    assert a_grade(**usual) == []
    assert "Square" in a_grade(**usual | {"square": 60})[0]
    assert "foolbox" in a_grade(**usual | {graders.FOOLBOX: 60})[0]
    assert "targeted" in a_grade(**usual | {"apgd-ce": 90, graders.FOOLBOX: 90})[0]
    assert "FAB" in a_grade(**usual | {"fab-t": 60, "square": 60})[0]
    assert "radius" in a_grade(**dict.fromkeys(usual, 99))[0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x, y: (x * 255, y, 10), r"\[0, 1\]"),
        (lambda x, y: (x - 0.5, y, 10), r"\[0, 1\]"),
        (lambda x, y: (x, y + 5, 10), r"labels must lie in \[0, 10\)"),
        (lambda x, y: (x, y % 3, 3), "3 classes|shape"),
        (lambda x, y: (x, y[:-1], 10), "as many labels"),
        (lambda x, y: (x * float("nan"), y, 10), r"\[0, 1\]"),
    ],
)
def test_bad_input_is_refused(change, message, trained):
    model, images, labels = trained
    x, y, classes = change(images, labels)
    with pytest.raises(UserError, match=message):
        grade(model, x, y, THREAT, classes=classes)


@pytest.fixture
def exported(trained, tmp_path):
    export.save(tmp_path / "best", trained[0], tuned("digits", eps="0.1"))
    return tmp_path


def test_grade_of_a_folder_writes_a_record(exported, quick_attacks, capsys):
    record = grade_folder(exported, images=3)
    assert export.read_card(export.find(exported))["grade"] == record
    (written,) = (exported / "best").glob("grade_quick_*.json")
    assert json.loads(written.read_text()) == record
    assert "AutoAttack" in capsys.readouterr().out
    assert grade_folder(exported, images=1, norm="l2", eps="0.5")["norm"] == "l2"
    assert export.read_card(export.find(exported))["grade"] == record  # fewer images, or another threat model, say less
    assert grade_folder(exported, images=1, eps="0.2sd")["radius"] == pytest.approx(0.2 * 0.3760)
    with pytest.raises(UserError, match="--eps"):
        grade_folder(exported, images=4, norm="l2")
    with pytest.raises(UserError, match="positive"):
        grade_folder(exported, images=4, eps="0")


def test_one_image_is_no_gradient_masking(exported, quick_attacks):
    def told(targeted, count):
        left = {"clean": 1.0, "apgd-ce": 0.8}
        found = SimpleNamespace(count=count, tier="quick", accuracy=lambda name: left.get(name, targeted))
        return grading.masking_warnings(found)

    assert not told(0.7, 10)
    assert "targeted attack takes 20.0 points more" in told(0.6, 10)[0]
    assert "targeted attack takes 11.0 points more" in told(0.69, 1000)[0]


def test_a_damaged_file_of_shards_costs_only_time(exported, quick_attacks):
    whole = grade_folder(exported, images=1)
    (path,) = (exported / "best").glob(".grading_*")
    for content in ("[]", "{", "3"):
        path.write_text(content)
        assert grade_folder(exported, images=1)["robust"] == whole["robust"]


def test_a_standard_grade_goes_on_from_a_quick_one(exported, quick_attacks, monkeypatch):
    quick = grade_folder(exported, images=1)
    made = []
    attack = graders.attack
    monkeypatch.setattr(graders, "attack", lambda name, *a, **k: made.append(name) or attack(name, *a, **k))
    standard = grade_folder(exported, images=1, tier="standard")
    assert made == ["fab-t", "square"]
    assert standard["attacks"]["apgd-t"] == quick["attacks"]["apgd-t"]
    assert standard["tier"] == "standard"


def test_export_and_load(trained, exported):
    model, images, _ = trained
    loaded = export.load(exported)
    assert not loaded.training
    assert torch.equal(loaded(images), model(images))
    export.save(exported / "own", model.network, tuned("digits"))
    with pytest.raises(UserError, match="load\\(path, model\\)"):
        export.load(exported / "own")
    assert export.load(exported / "own", model.network)(images).shape == (len(images), 10)
    with pytest.raises(UserError, match="does not fit the module that was passed"):
        export.load(exported / "own", torch.nn.Linear(3, 2))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / export.WEIGHTS).write_bytes(b"12345"), "cannot be read"),
        (lambda folder: (folder / export.CARD).write_text("{"), "cannot be read"),
        (lambda folder: (folder / export.CARD).write_text("{}"), "does not say"),
        (lambda folder: (folder / export.WEIGHTS).unlink(), "holds no"),
        (lambda folder: export.write_card(folder, CARD | {"model": "preact-tiny"}), "no preact-tiny"),
        (lambda folder: export.write_card(folder, CARD | {"model": "vit"}), "names the model 'vit'"),
    ],
)
def test_damaged_exports_are_refused(damage, message, exported):
    damage(exported / "best")
    with pytest.raises(UserError, match=message):
        export.load(exported)


def test_tiers_name_attacks_that_exist():
    from pyautoattack import AutoAttack

    theirs = AutoAttack(torch.nn.Identity(), norm="Linf", eps=0.1, version="standard", device="cpu").attacks_to_run
    names = {tier: grading.Grade(tier, THREAT, 0, 1).attacks for tier in ("quick", "standard")}
    assert [name for name in names["standard"] if name != graders.FOOLBOX] == list(theirs)
    assert [name for name in names["quick"] if name != graders.FOOLBOX] == list(theirs[:2])
    assert all(graders.FOOLBOX in attacks for attacks in names.values())


def test_a_classifier_that_is_replaced_meanwhile_gets_no_grade(exported, trained, monkeypatch):
    def attack(model, *_, **__):
        other = models.build("small-cnn", DATASETS["digits"].normalisation, 10)
        export.save(exported / "best", other, tuned("digits"), epoch=99)
        return {"n": 8, "tier": "quick"}

    monkeypatch.setattr(grading, "grade", attack)
    with pytest.raises(UserError, match="replaced while it was graded"):
        grade_folder(exported, images=8)
    assert export.read_card(exported / "best")["epoch"] == 99
    assert "grade" not in export.read_card(exported / "best")


def test_a_grade_that_came_meanwhile_stays(exported, monkeypatch):
    better = {"n": 360, "tier": "standard"}

    def attack(*_, **__):
        export.write_card(exported / "best", export.read_card(exported / "best") | {"grade": better})
        return {"n": 8, "tier": "quick"}

    monkeypatch.setattr(grading, "grade", attack)
    monkeypatch.setattr(grading.report, "of_grade", lambda *_: "")
    grade_folder(exported, images=8)
    assert export.read_card(exported / "best")["grade"] == better
