"""Where attacks begin."""

import copy

import pytest
import torch

from l2l_at.batches import Batch, apply_crop, gather_crop, random_crop_indices, scatter_crop
from l2l_at.config import ATConfig
from l2l_at.methods import make
from l2l_at.methods.start import Start
from l2l_at.threat import Threat

NORMS = [("linf", 0.1), ("l2", 0.5), ("l1", 2.0)]


def prepared(name, threat):
    start = Start(name, threat)
    start.prepare(50, (3, 8, 8))
    return start


@pytest.fixture
def images():
    return torch.rand(6, 3, 8, 8, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(("norm", "radius"), NORMS)
@pytest.mark.parametrize("name", ["zero", "noise", "random", "last"])
def test_a_start_is_in_the_threat_model(name, norm, radius, images):
    threat = Threat(norm, radius)
    start, batch = prepared(name, threat), Batch(images, torch.zeros(6).long(), torch.arange(6))
    start.remember(batch, threat.random_start(images))
    moved = random_crop_indices(images)
    for seen in (batch, Batch(apply_crop(images, moved), batch.labels, batch.rows, moved)):
        delta = start(seen)
        torch.testing.assert_close(threat.project(delta, seen.images), delta)


@pytest.mark.parametrize(("norm", "radius"), NORMS)
def test_the_last_perturbation_comes_back_to_the_grain_of_a_byte(norm, radius, images):
    threat = Threat(norm, radius)
    start, delta = prepared("last", threat), threat.random_start(images)
    rows = torch.tensor([40, 3, 7, 0, 12, 5])
    start.remember(Batch(images, rows, rows), delta)
    back = start(Batch(images.flip(0), rows, rows.flip(0)))
    assert (back.flip(0) - delta).abs().max() <= radius / 127 / 2 * 1.01 + (radius / 127 if norm != "linf" else 0)


def test_it_moves_along_with_the_augmentation(images):
    threat = Threat("linf", 0.1)
    torch.manual_seed(1)
    start, rows = prepared("last", threat), torch.arange(6)
    first, second = random_crop_indices(images), random_crop_indices(images)
    seen = apply_crop(images, first)
    delta = threat.random_start(seen)
    start.remember(Batch(seen, rows, rows, first), delta)
    now = apply_crop(images, second)
    known = scatter_crop(torch.zeros(6, 3, 16, 16), first, delta)
    expected = threat.project(gather_crop(known, second), now)
    torch.testing.assert_close(start(Batch(now, rows, rows, second)), expected, atol=0.1 / 127, rtol=0)
    third = random_crop_indices(images)  # what neither crop saw stays zero, what the first alone saw stays known
    newer = threat.random_start(now)
    start.remember(Batch(now, rows, rows, second), newer)
    last = apply_crop(images, third)
    expected = threat.project(gather_crop(scatter_crop(known, second, newer), third), last)
    torch.testing.assert_close(start(Batch(last, rows, rows, third)), expected, atol=0.1 / 127, rtol=0)


def test_images_never_seen_begin_at_random(images):
    threat, rows = Threat("linf", 0.1), torch.arange(6)
    start, fresh = prepared("last", threat), Start("random", threat)
    known = Batch(images[:2], rows[:2], torch.tensor([0, 4]))
    start.remember(known, torch.full_like(images[:2], 0.0))
    for asked in (torch.tensor([1, 2, 3, 5, 6, 9]), None):
        torch.manual_seed(2)
        mine = start(Batch(images, rows, asked))
        torch.manual_seed(2)
        assert torch.equal(mine, fresh(Batch(images, rows)))
    assert start(known).count_nonzero() == 0


@pytest.mark.parametrize("name", ["l2l", "pgd-2"])
def test_attacks_go_on_where_they_ended(name, images):
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, 10))
    settings = {"attack_start": "last", "attack_steps": 1, "attack_step_size": 0.05}
    config = ATConfig(method=name, **settings, freeze_attacker=name == "l2l")
    follower, other = make(config, 3).follower, make(config, 3).follower
    for one in (follower, other):
        one.prepare(6, (3, 8, 8))
    batch = Batch(images * 0.5 + 0.25, torch.arange(6), torch.arange(6))
    first = follower.respond(model, batch)
    measured = follower.perturb(model, batch)
    again = follower.respond(model, batch)
    assert torch.equal(measured, again)  # measuring in between has left no trace
    reach = 0.05 * 0.1 + 0.1 / 127
    assert (again - first).abs().max() <= reach
    other.load_state_dict(copy.deepcopy(follower.state_dict()))
    assert torch.equal(other.perturb(model, batch), follower.perturb(model, batch))
