"""What is graded may come in many kinds, and a model may answer anything: right, refused, or told."""

import pytest
import torch
from torch import nn

from l2l_at import export, graders, models
from l2l_at.config import ATConfig
from l2l_at.datasets import load
from l2l_at.grading import grade
from l2l_experiment.errors import UserError
from tests.l2l_at.test_grading import THREAT


@pytest.fixture(scope="module")
def trained():
    """A linear classifier of digits, since AutoAttack asks a model a thousand times, and a few images."""
    torch.manual_seed(0)
    task, model = load("digits"), nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
    images, labels = task.train.take(slice(None))
    for _ in range(60):
        loss = nn.functional.cross_entropy(model(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model.eval(), *task.test.subset(slice(0, 30)).take(slice(None))


def test_answers_that_are_not_finite_are_wrong_and_told(trained):
    model, images, labels = trained
    off = images.flatten(1).sum(1).median()

    def broken(x):  # NaN on half of the images, whatever their label, and on some that attacks make
        return torch.where((x.flatten(1).sum(1) > off)[:, None], float("nan"), 1.0) * model(x)

    record = grade(broken, images, labels, THREAT)
    sure = grade(model, images, labels, THREAT)
    finite = (images.flatten(1).sum(1) <= off).float().mean()
    assert record["clean"] <= finite
    assert record["robust"] <= min(finite, sure["robust"])
    assert any("NaN" in text for text in record["warnings"])
    with pytest.raises(UserError, match="every image"):
        grade(lambda x: model(x) * float("nan"), images, labels, THREAT)


def test_an_attack_that_finds_only_nan_has_found_a_wrong_answer(trained):
    model, images, labels = trained
    zeros = labels == labels[0]  # of one class, the one that NaN would be taken for
    x, y = images[zeros], torch.zeros_like(labels[zeros])

    def fragile(batch):  # sure of class 0, but NaN as soon as a pixel has moved
        logits = 50 * torch.eye(10)[torch.zeros(len(batch), dtype=torch.long)] + 1e-3 * model(batch)
        same = torch.stack([(batch == one).flatten(1).all(1) for one in x]).any(0)
        return torch.where(same[:, None], logits, float("nan"))

    record = grade(fragile, x, y, THREAT)
    assert (record["clean"], record["autoattack"]) == (1.0, 0.0)


@pytest.mark.slow
def test_fewer_than_ten_classes(trained):
    (model, images, labels), classes = trained, 4
    kept = labels < classes
    record = grade(lambda x: model(x)[:, :classes], images[kept], labels[kept], THREAT, tier="standard")
    assert 0 <= record["robust"] <= record["clean"] <= 1


def test_kinds_of_input_that_mean_the_same(trained, monkeypatch):
    model, images, labels = trained
    monkeypatch.setattr(graders, "_autoattack", graders._foolbox)  # quicker: what an attack is given is tested here
    usual = grade(model, images, labels, THREAT)

    def same(x, y, asked=model):
        found = grade(asked, x, y, THREAT)
        return {key: found[key] for key in ("clean", "attacks")} == {key: usual[key] for key in ("clean", "attacks")}

    one_hot = torch.nn.functional.one_hot(labels, 10)
    for kind in (labels.int(), labels.to(torch.uint8), labels[:, None], one_hot, labels.numpy(), labels.tolist()):
        assert same(images, kind)
    for kind in (images.double(), images.numpy(), images.clone().requires_grad_()):
        assert same(kind, labels)
    assert same(images, labels, lambda x: (model(x), None))
    for mode in (torch.no_grad, torch.inference_mode):
        with mode():
            assert same(images + 0, labels + 0)
    for x, y, told in (
        ((images * 255).to(torch.uint8), labels, "floats in"),
        (images, labels + 1, "labels must lie"),
        (images, labels + 0.5, "whole numbers"),
        (images[0], labels, "shape"),
    ):
        with pytest.raises(UserError, match=told):
            grade(model, x, y, THREAT)
    with pytest.raises(UserError, match="cannot take images of shape"):
        grade(model, images[:, :, :4], labels, THREAT)


def test_an_attack_that_fails_is_named(trained, monkeypatch):
    monkeypatch.setattr(graders, "_autoattack", lambda *_: 1 // 0)
    with pytest.raises(UserError, match=r"apgd-ce fails in linf on images of shape \(1, 8, 8\) \(ZeroDivisionError"):
        grade(*trained, THREAT)


@pytest.mark.parametrize("moments", [[[0.5]], [[0.5], [0.5], [0.5]], [["x"], [1.0]], 3, "ab"])
def test_a_card_whose_moments_are_damaged_is_named(moments, tmp_path):
    model = models.build("small-cnn", ((0.5,), (0.5,)), 10)
    export.save(tmp_path, model, ATConfig(dataset="digits"), moments=moments)
    with pytest.raises(UserError, match=r"card\.json does not describe a classifier"):
        export.load(tmp_path)
