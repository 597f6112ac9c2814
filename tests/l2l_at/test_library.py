"""What a notebook uses: training of one's own classifier on one's own data, runs and grades of them."""

import json
from dataclasses import replace

import pytest
import torch
from torch import nn

from l2l_at import DATASETS, PGD, ATConfig, DataSet, Images, Threat, cli, datasets, export, grade, load, train
from l2l_at.config import tuned
from l2l_at.trainer import Trainer
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


def test_an_attack_does_not_depend_on_the_caller_s_mode(own):
    images, labels = own.read()[1].take(slice(None))
    model, attack, found = nn.Sequential(nn.Flatten(), nn.Linear(100, 10)), PGD(Threat("linf", 0.1)), []
    for mode in (torch.enable_grad, torch.no_grad, torch.inference_mode):
        with mode():
            torch.manual_seed(0)
            found.append(attack(model, images.clone(), labels.clone()))
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_training_does_not_depend_on_the_caller_s_mode(own, mode):
    config = ATConfig(model="preact-tiny", epochs=1, device="cpu")
    trained = train(None, own, config=config, progress=False)
    with mode():
        again = train(None, own, config=config, progress=False)
    for one, other in zip(trained.parameters(), again.parameters(), strict=True):
        assert torch.equal(one, other)


def test_slips_of_a_notebook_are_one_sentence(own):
    with pytest.raises(UserError, match="there is a data set digits already"):
        train(None, DataSet("digits", 10, own.loader, "mine"))
    assert DATASETS["digits"].source == "scikit-learn's digits"
    with pytest.raises(UserError, match="norm l2 needs eps"):
        train(None, "digits", norm="l2")
    with pytest.raises(UserError, match="norm l2 needs eps"):
        tuned("digits", norm="l2")
    images, labels = own.read()[1].take(slice(None))
    with pytest.raises(UserError, match="at least 1 image, got 0"):
        grade(nn.Flatten(), images, labels, Threat("linf", 0.1), shard=0)
    with pytest.raises(UserError, match="images must lie in"):
        PGD(Threat("linf", 0.1))(nn.Flatten(), 255 * images, labels)
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


def test_a_data_set_from_a_folder_needs_no_moments(monkeypatch, tmp_path):
    """They are those of the images that were read from it."""
    folders = []

    def read(folder):
        folders.append(folder)
        return squares(400, 0), squares(60, 1)

    monkeypatch.setitem(DATASETS, "mine", DataSet("mine", 10, read, "drawn by the test", takes_folder=True))
    config = ATConfig(dataset="mine", eps=0.05, epochs=1, method="standard", model="preact-tiny")
    classifier = train(None, datasets.load("mine", data_dir=tmp_path), config=config, progress=False)
    assert folders == [tmp_path]
    assert classifier.mean.flatten().tolist() == pytest.approx(datasets.moments_of(squares(400, 0))[0], abs=0.02)


def test_tied_weights_and_half_precision_are_saved_and_graded(tmp_path):
    model = nn.Sequential(nn.Flatten(), nn.Linear(100, 100), nn.Linear(100, 100), nn.Linear(100, 10))
    model[2].weight = model[1].weight
    export.save(tmp_path / "tied", model, ATConfig(dataset="digits"))
    again = load(
        tmp_path / "tied",
        nn.Sequential(
            *(type(part)(*size) for part, size in zip(model, ((), (100, 100), (100, 100), (100, 10)), strict=True))
        ),
    )
    torch.testing.assert_close(again(torch.ones(1, 100)), model(torch.ones(1, 100)))
    half, path = model.bfloat16(), tmp_path / "new" / "progress.json"
    images, labels = squares(4, 0).take(slice(None))
    record = grade(lambda x: half(x.bfloat16()).float(), images, labels, Threat("linf", 0.05), path=str(path))
    assert record["n"] == 4
    assert path.exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"augmentation": "flip"}, "must be one of none, crop, crop-flip, got 'flip'"),
        ({"classes": "10"}, "2 or more classes, got '10'"),
        ({"loader": 3}, "must be a function that returns"),
    ],
)
def test_a_data_set_that_makes_no_sense(own, changes, message):
    with pytest.raises(UserError, match=message):
        replace(own, **changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"moments": ((0.5,) * 3, (0.2,) * 3)}, "1 channels, and moments of 3"),
        ({"loader": lambda: (replace(squares(40, 0), white=16),) * 2}, "above 16, which stands for white"),
        ({"loader": lambda: squares(40, 0)}, r"must return \(training, test\)"),
        ({"loader": lambda: None}, r"must return \(training, test\).*got NoneType"),
        (
            {"loader": lambda: (replace(squares(40, 0), labels=torch.zeros(40, 1).long()),) * 2},
            r"of shape \(40, 1\) for 40",
        ),
    ],
)
def test_a_data_set_that_holds_no_images(own, changes, message):
    with pytest.raises(UserError, match=message):
        datasets.load(replace(own, **changes))


@pytest.mark.parametrize("asked", [{"subset": -5}, {"seed": -1}, {"holdout": 1.5}])
def test_a_split_that_makes_no_sense(own, asked):
    with pytest.raises(UserError, match="holdout lies between 0 and 1, seed is 0 or more and subset 1 or more"):
        datasets.load(own, **asked)


def test_what_cannot_be_trained_is_told(own):
    model = nn.Sequential(nn.Flatten(), nn.Linear(100, 10))
    for given, told in (
        ((nn.Linear, own), "a torch module, an instance, or None"),
        ((model.requires_grad_(False), own), "has no weights to train"),
        ((None, (1, 2)), "the name of a data set, a DataSet or what datasets.load returns; got a tuple"),
    ):
        with pytest.raises(UserError, match=told):
            train(*given)
    with pytest.raises(UserError, match="config must be an ATConfig"):
        train(None, own, config={"eps": 0.1})
    settings = {"epochs": 1, "device": "cpu", "average": "none", "progress": False}
    assert isinstance(train(None, own, config=ATConfig(model="small-cnn"), model="preact-tiny", **settings), nn.Module)


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (lambda images: images + 0.1, "Return the perturbation, not the image"),
        (lambda images: torch.full_like(images, torch.nan), "must keep images in"),
        (lambda images: torch.zeros(1), r"perturbations of shape \(.*not torch.float32 of shape \(1,\)"),
        (lambda images: images.double(), "not torch.float64"),
        (lambda images: None, "not NoneType"),
    ],
)
def test_a_followers_perturbations_are_looked_at_once(own, answer, message):
    trainer = Trainer(ATConfig(dataset="squares", model="preact-tiny", method="pgd", device="cpu"), datasets.load(own))
    trainer.method.follower.perturb = lambda model, batch: answer(batch.images)
    with pytest.raises(UserError, match=message):
        trainer.step()


def test_an_attack_takes_what_a_grade_takes(own):
    images, labels = own.read()[1].take(slice(None))
    model, attack = nn.Sequential(nn.Flatten(), nn.Linear(100, 10)), PGD(Threat("linf", 0.1))
    found = []
    for x, y in ((images, labels), (images.numpy(), labels.numpy()), (images.double(), labels.int())):
        torch.manual_seed(0)
        found.append(attack(lambda v: model(v), x, y))
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])
    with pytest.raises(UserError, match=r"labels must lie in \[0, 10\)"):
        attack(model, images, labels + 5)
    with pytest.raises(UserError, match="steps of a positive size"):
        PGD(Threat("linf", 0.1), size=-0.25)
    with pytest.raises(UserError, match="the threat must be a Threat"):
        PGD(0.1)
    with pytest.raises(UserError, match="is one of a data set's"):
        Threat("linf", "0.2sd")


def test_a_grade_is_not_taken_for_that_of_another_function(own, tmp_path):
    images, labels = own.read()[1].take(slice(0, 20))
    model, path = nn.Sequential(nn.Flatten(), nn.Linear(100, 10)), tmp_path / "grade.json"
    with torch.no_grad():
        model[1].weight.copy_(torch.eye(10).repeat_interleave(10, 1))
    good = grade(lambda x: 50 * model(x), images, labels, Threat("linf", 0.01), path=path)
    bad = grade(lambda x: 50 * model(x).roll(1, 1), images, labels, Threat("linf", 0.01), path=path)
    assert (good["robust"], bad["robust"]) == (1.0, 0.0)


def test_what_is_saved_says_which_layers_it_has(own, tmp_path):
    config = ATConfig(dataset="squares", model="preact-tiny")
    model = nn.Sequential(nn.Flatten(), nn.Linear(100, 10), nn.ReLU(), nn.Linear(10, 10))
    export.save(tmp_path, model, config, accuracy=torch.tensor(0.5))
    assert json.loads((tmp_path / "card.json").read_text())["accuracy"] == 0.5
    assert load(tmp_path, model) is model
    with pytest.raises(UserError, match="a module with other layers"):
        load(tmp_path, nn.Sequential(nn.Flatten(), nn.Linear(100, 10), nn.Tanh(), nn.Linear(10, 10)))
