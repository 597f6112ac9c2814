"""What a notebook uses: training of one's own classifier on one's own data, runs and grades of them."""

import json

import pytest
import torch
from torch import nn

from l2l_at import DATASETS, PGD, ATConfig, DataSet, Images, Threat, cli, datasets, export, grade, load, train
from l2l_experiment.errors import UserError


def squares(count, seed):
    """Ten classes: which of ten rows is bright."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 10
    integers = torch.randint(0, 100, (count, 1, 10, 10), generator=generator, dtype=torch.uint8)
    integers[torch.arange(count), 0, labels] += 120
    return Images(integers, labels)


@pytest.fixture
def own(monkeypatch):
    data = DataSet("squares", 10, lambda: (squares(400, 0), squares(60, 1)), "squares, drawn by the test")
    monkeypatch.setitem(DATASETS, "squares", data)
    return data


def test_any_module_is_trained_on_any_data_set_and_graded(monkeypatch, own):
    monkeypatch.delitem(DATASETS, "squares")
    model = nn.Sequential(nn.Flatten(), nn.Linear(100, 10))
    before = model[1].weight.detach().clone()
    config = ATConfig(eps=0.05, batch_size=60, average="swa")
    classifier = train(model, own, config=config, progress=False, method="pgd", epochs=6)
    assert not classifier.training
    assert classifier is not model  # its average
    assert not torch.equal(model[1].weight, before)
    images, labels = datasets.load("squares").test.take(slice(None))
    threat = Threat("linf", 0.05)
    attacked = PGD(threat)(classifier.train(), images, labels)
    assert threat.size(attacked - images).max() <= 0.05 + 1e-6
    assert classifier.training
    found = grade(classifier, images, labels, threat)
    assert found["robust"] > 0.9
    assert train(None, datasets.load(own), config=ATConfig(model="preact-tiny", epochs=1), progress=False)


def test_slips_of_a_notebook_are_one_sentence(own):
    with pytest.raises(UserError, match="there is a data set digits already"):
        train(None, DataSet("digits", 10, own.loader, "mine"))
    assert DATASETS["digits"].source == "scikit-learn's digits"
    with pytest.raises(UserError, match="norm l2 needs eps"):
        train(None, "digits", norm="l2")
    images, labels = own.read()[1].take(slice(None))
    with pytest.raises(UserError, match="one of quick, standard, got 'fast'"):
        grade(nn.Flatten(), images, labels, Threat("linf", 0.1), tier="fast")
    with pytest.raises(UserError, match=r"must be a Threat such as .*, got 0.1"):
        grade(nn.Flatten(), images, labels, 0.1)

    class Tupled(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(100, 10)

        def forward(self, images):
            return self.layer(images.flatten(1)), images

    with pytest.raises(UserError, match="logits alone, not with a tuple"):
        train(Tupled(), own, progress=False)
    last = DataSet(
        "last",
        10,
        lambda: 2 * ((torch.zeros(60, 40, 10, 3, dtype=torch.uint8), torch.zeros(60, dtype=torch.int64)),),
        "",
    )
    with pytest.raises(UserError, match="channels last"):
        last.read()


@pytest.mark.slow
def test_the_card_of_own_data_says_where_they_come_from(own, tmp_path, monkeypatch, capsys):
    folder = tmp_path / "run"
    cli.main(
        ["--dataset", "squares", "--epochs", "1", "--subset", "256", "--method", "pgd-2", "--run-dir", str(folder)]
    )
    card = json.loads((folder / "best" / export.CARD).read_text())
    assert (card["dataset"], card["data"], card["shape"]) == ("squares", "squares, drawn by the test", [1, 10, 10])
    assert card["model"] == "preact-tiny"
    cli.grade_main([str(folder), "--images", "10"])
    assert json.loads((folder / "record.json").read_text())["result"]["grade"]["n"] == 10
    monkeypatch.delitem(DATASETS, "squares")
    classifier = load(folder)  # its card holds what it takes
    assert classifier(torch.rand(2, 1, 10, 10)).shape == (2, 10)
    torch.testing.assert_close(classifier.mean.flatten().tolist(), list(own.normalisation[0]))
    with pytest.raises(UserError, match="'squares'; one of your own"):
        datasets.find("squares")
