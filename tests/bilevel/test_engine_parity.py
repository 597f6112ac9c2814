"""Published methods, written out by hand, against the engine's way of saying them."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from bilevel import Adam, Coordinatewise, GradientStep, SignStep, conjugate_gradient, implicit, scaled_identity, unroll

EPSILON = 0.1


def image_classifier(dtype=torch.float32) -> nn.Module:
    torch.manual_seed(0)
    layers = [nn.Conv2d(2, 6, 3, padding=1), nn.Tanh(), nn.Flatten(), nn.Linear(6 * 25, 4)]
    return nn.Sequential(*layers).to(dtype)


def images(count=8, low=0.0, high=1.0, dtype=torch.float32):
    torch.manual_seed(1)
    x = low + (high - low) * torch.rand(count, 2, 5, 5, dtype=dtype)
    return x, torch.randint(4, (count,))


def test_pgd_is_bit_equal_to_pgd_by_hand():
    """Madry et al., 2018."""
    model, (x, y) = image_classifier(), images()
    size = 0.03
    start = (x + EPSILON * (2 * torch.rand_like(x) - 1)).clamp(0, 1)

    def project(x_adv):
        return torch.min(torch.max(x_adv, x - EPSILON), x + EPSILON).clamp(0, 1)

    by_hand = start.clone()
    for _ in range(7):
        by_hand.requires_grad_()
        (gradient,) = torch.autograd.grad(F.cross_entropy(model(by_hand), y), by_hand)
        by_hand = project(by_hand.detach() + size * gradient.sign())

    answer = unroll(lambda x_adv: -F.cross_entropy(model(x_adv), y), SignStep(size), start, steps=7, project=project)
    assert torch.equal(answer.variable, by_hand)
    assert (answer.trace[1:] < answer.trace[:-1]).all()
    assert ((by_hand - x).abs() > EPSILON - 1e-6).any()
    assert (by_hand == 0).any()
    assert (by_hand == 1).any()


class Attacker(nn.Module):
    """A small attacker as in L2L (Jiang et al., 2021), ε·tanh of a network of image and normalised loss gradient."""

    def __init__(self) -> None:
        super().__init__()
        self.network = nn.Sequential(nn.Conv2d(4, 8, 3, padding=1), nn.Tanh(), nn.Conv2d(8, 2, 3, padding=1))
        self.network[-1].weight.data *= 6  # large enough steps to meet the edge of the ball
        self.double()

    def forward(self, x, gradient):
        return EPSILON * self.network(torch.cat([x, gradient / gradient.abs().max()], 1)).tanh()

    def init(self, variable):
        return {}

    def update(self, gradient, state, variable):
        return self(variable, -gradient), state  # the engine goes downhill on minus the cross-entropy


def test_two_step_l2l_is_two_unrolled_steps_through_the_rule():
    model = image_classifier(torch.float64)
    x, y = images(low=2 * EPSILON, high=1 - 2 * EPSILON, dtype=torch.float64)  # off the box of pixel values
    torch.manual_seed(2)
    attacker = Attacker()

    def input_gradient(point):
        point = point.detach().requires_grad_()
        return torch.autograd.grad(F.cross_entropy(model(point), y), point)[0]

    first = attacker(x, input_gradient(x))
    halfway = (x + first).clamp(0, 1)
    second = attacker(halfway, input_gradient(halfway))  # the image channels keep their history, the gradient's do not
    total = (first + second).clamp(-EPSILON, EPSILON)
    by_hand = (x + total).clamp(0, 1)
    parameters = list(attacker.parameters())
    expected = torch.autograd.grad(-F.cross_entropy(model(by_hand), y), parameters, retain_graph=True)

    def objective(x_adv):
        return -F.cross_entropy(model(x_adv), y)

    def project(x_adv):
        return (x + (x_adv - x).clamp(-EPSILON, EPSILON)).clamp(0, 1)

    answer = unroll(objective, attacker, x, steps=2, project=project, through="rule").variable
    value = torch.autograd.grad(objective(answer), parameters)

    saturated = ((first + second).abs() > EPSILON).double().mean()
    assert 0.02 < saturated < 0.9  # the clamp's zero derivative is at work, and not everywhere
    torch.testing.assert_close(answer, by_hand, rtol=0, atol=1e-15)
    assert distance(value, expected) < 1e-10

    # The comparison can tell: without the image channels' route the gradient is another one.
    cut = attacker(halfway.detach(), input_gradient(halfway))
    other_answer = (x + (first + cut).clamp(-EPSILON, EPSILON)).clamp(0, 1)
    other = torch.autograd.grad(objective(other_answer), parameters)
    assert distance(other, expected) > 1e-4


def distance(left, right):
    """Relative distance of two lists of gradients."""
    gap = sum((a - b).square().sum() for a, b in zip(left, right, strict=True))
    return float((gap / sum(b.square().sum() for b in right)).sqrt())


class FastBat:
    """FAST-BAT (Zhang et al., 2022): a batch, its linearisation point z, and the gradient for the classifier."""

    def __init__(self, rate: float) -> None:
        self.rate = rate
        self.model = image_classifier(torch.float64)
        self.x, self.y = images(dtype=torch.float64)
        self.low = (-self.x).clamp(min=-EPSILON)
        self.high = (1 - self.x).clamp(max=EPSILON)
        z0 = self.project(EPSILON * (2 * torch.rand_like(self.x) - 1))
        self.z = unroll(self.objective, GradientStep(rate), z0, steps=1, project=self.project).variable

    def loss(self, delta, reduction="sum"):
        return F.cross_entropy(self.model(self.x + delta), self.y, reduction=reduction)

    def objective(self, delta):
        return -self.loss(delta)

    def project(self, delta):
        return torch.min(torch.max(delta, self.low), self.high)

    def leader_gradient(self, delta):
        return torch.autograd.grad(self.loss(delta, "mean"), list(self.model.parameters()))

    def attack_gradient(self):
        z = self.z.clone().requires_grad_()
        return torch.autograd.grad(self.objective(z), z, create_graph=True)[0]

    def published(self):
        """Answer, mask of inactive bounds, and ∇mean CE(x + δ) + ∇⟨∇_z CE(x + z), mask∘∇_δ CE(x + δ)⟩ / (λ·batch)."""
        g = self.attack_gradient()
        delta = self.project(self.z - self.rate * g.detach())
        inside = ((delta > self.low + 1e-7) & (delta < self.high - 1e-7)).double()
        leaf = delta.clone().requires_grad_()
        (pull,) = torch.autograd.grad(self.loss(leaf), leaf)
        pushed = (-g * inside * pull).sum() * self.rate / len(self.y)
        cross = torch.autograd.grad(pushed, list(self.model.parameters()))
        return delta, inside, cross, [d + c for d, c in zip(self.leader_gradient(delta), cross, strict=True)]


@pytest.mark.parametrize("rate", [0.02, 0.2, 1.0, 5.0])
def test_fast_bat_is_one_differentiated_step_and_the_implicit_derivative_of_its_proximal_problem(rate):
    """⟨∇ℓ(z), δ⟩ + |δ − z|²/(2·rate) has Hessian I/rate; active bounds leave the system through the mask."""
    batch = FastBat(rate)
    delta, inside, cross, expected = batch.published()
    options = {"steps": 1, "project": batch.project, "through": "everything"}
    answer = unroll(batch.objective, GradientStep(rate), batch.z, **options).variable
    value = batch.leader_gradient(answer)
    torch.testing.assert_close(answer.detach(), delta, rtol=0, atol=1e-15)
    assert 0.1 < inside.mean() < 0.999
    assert distance(value, expected) < 1e-10
    # The cross term is no rounding error beside that bound.
    assert distance(value, [e - c for e, c in zip(expected, cross, strict=True)]) > 1e-6

    def proximal(d):
        return (batch.attack_gradient() * d).sum() + (d - batch.z).square().sum() / (2 * rate)

    solvers = scaled_identity(rate, inside), scaled_identity(rate), conjugate_gradient(3)
    masked, unmasked, by_cg = (batch.leader_gradient(implicit(proximal, delta, solve)) for solve in solvers)
    assert distance(masked, expected) < 1e-10
    assert distance(unmasked, expected) > 1e-6
    assert distance(by_cg, unmasked) < 1e-10


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("hidden", [0, 16])
@pytest.mark.parametrize("through", ["nothing", "rule"])
def test_a_zero_headed_rule_is_adam_to_the_last_bit(dtype, hidden, through):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(5, 9), nn.Tanh(), nn.Linear(9, 7), nn.ReLU(), nn.Linear(7, 1)).to(dtype)
    rules = [Adam(3e-3, (0.5, 0.99), 1e-6), Coordinatewise(3e-3, hidden=hidden, betas=(0.5, 0.99), eps=1e-6)]
    weights = [{name: p.detach() for name, p in network.named_parameters()} for _ in rules]
    states = [rule.init(w) for rule, w in zip(rules, weights, strict=True)]
    for _ in range(100):
        x = torch.randn(16, 5, dtype=dtype)
        target = x[:, :1].sin()

        def objective(w, x=x, target=target):
            return F.mse_loss(torch.func.functional_call(network, w, x), target)

        for i, rule in enumerate(rules):
            response = unroll(objective, rule, weights[i], steps=1, state=states[i], through=through)
            weights[i] = {name: value.detach() for name, value in response.variable.items()}
            states[i] = response.state
    for name, parameter in network.named_parameters():
        assert torch.equal(weights[0][name], weights[1][name])
        assert weights[0][name].dtype == dtype
        assert (weights[0][name] - parameter).abs().max() > 1e-2
