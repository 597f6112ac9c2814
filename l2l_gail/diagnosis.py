"""Why a run went as it did: figures of the discriminator, of its reward, and of the rule that moves it."""

import math
from collections.abc import Callable, Mapping

import numpy as np
import torch

from bilevel import Coordinatewise, unroll
from bilevel.tree import flatten
from l2l_experiment import events
from l2l_experiment.drawings import Drawing
from l2l_experiment.errors import UserError
from l2l_experiment.run import Run
from l2l_gail.gail import GAIL, Pairs
from l2l_gail.training import find_demonstrations, stored_args

# Curves of a run by figure: title of the axis, and what is drawn by its name in TensorBoard.
CURVES: dict[str, tuple[str, dict[str, str]]] = {
    "discriminator": (
        "accuracy before each round's update, mean over {} rounds",
        {
            "demonstrations": "disc/disc_acc_expert",
            "other demonstrations": "disc/heldout_acc",
            "policy": "disc/disc_acc_gen",
        },
    ),
    "reward": ("standard deviation over a rollout", {"learned reward": "reward/std", "logits": "disc/logit_std"}),
    "step": (
        "length of the last step of a round over Adam's, log10",
        {"learned rule": "follower/step_over_adam", "its log rate alone": "follower/log_rate"},
    ),
}
CHANCE = 2 * math.log(2)  # what a discriminator loses that says one half to everything
ROLLOUTS = 4  # one after the other; each gives answers of its own
BATCHES = 4  # of the scored objective, so that a curve over steps is not the noise of one batch
MOST_STEPS = 50
BINS = np.linspace(-3, 3, 25)


def diagnose(run: Run) -> dict[str, Drawing]:
    """The figures of a finished or running GAIL run, by name.

    Of runs with a learned rule the last checkpoint is loaded too: the policy goes on from there for a few rollouts, and
    on each the rule and Adam answer from the checkpoint's weights with the checkpoint's memory.
    """
    found = logged(events.read(run.folder / events.METRICS), run.folder.name)
    args = stored_args(run, steps=None)
    if args.settings.follower == "adam":
        return found
    demonstrations, _ = find_demonstrations(args)
    gail = GAIL.load(run.folder, demonstrations, device="cpu")
    if gail.filter.policy is None:
        raise UserError(f"{run.folder} has no checkpoint of a trained discriminator yet; wait for the next one")
    draws = [gail.objectives([*gail.replay, rollout(gail)]) for _ in range(ROLLOUTS)]
    rounds = [([step() for _ in range(MOST_STEPS)], [score() for _ in range(BATCHES)]) for step, score in draws]
    return found | {"strength": strength(gail, rounds), "response": responses(gail, [steps[0] for steps, _ in rounds])}


def logged(rows: list[dict[str, float]], name: str) -> dict[str, Drawing]:
    """The figures that the run's own log gives; those it does not log are left out."""
    found, window = {}, max(1, len(rows) // 50)
    for stem, (label, tags) in CURVES.items():
        curves = {}
        for title, (steps, values) in events.curves_of(rows, tags).items():
            if stem == "step":
                of_log = tags[title].endswith("log_rate")
                values = values / np.log(10) if of_log else np.log10(np.maximum(values, 1e-6))
            if "{}" in label:
                steps, values = smoothed(steps, window), smoothed(values, window)
            curves[title] = [(steps, values)]
        if curves:
            labels = {"ylabel": label.format(window), "title": f"{name}: {stem}", "count": False}
            found[stem] = Drawing(curves, labels)
    return found


def smoothed(values: np.ndarray, window: int) -> np.ndarray:
    """Means over so many neighbouring values."""
    return np.convolve(values, np.ones(window) / window, mode="valid") if len(values) >= window else values


def rollout(gail: GAIL) -> Pairs:
    """Observations and clipped actions of the policy's next round, with its noise, from where the environments are."""
    envs, ppo = gail.envs, gail.ppo
    observations, actions = [], []
    for _ in range(gail.config.round_steps):
        observations.append(envs.get_original_obs())
        action, _ = ppo.predict(ppo._last_obs, deterministic=False)
        actions.append(np.clip(action, envs.action_space.low, envs.action_space.high))
        ppo._last_obs, *_ = envs.step(actions[-1])
    return np.concatenate(observations), np.concatenate(actions)


def answers(gail: GAIL, steps: list[Callable], scores: list[Callable]) -> dict[str, list[float]]:
    """The scored objective after 0, 1, … steps of Adam and of the learned rule, from the same weights and memory."""
    config, follower = gail.config, gail.follower
    adam = Coordinatewise(config.disc_rate, hidden=0)  # its log rate is zero: Adam, with the rule's memory
    reached = {}
    for name, rule in (("Adam", adam), ("learned rule", follower.rule)):
        weights, memory, values = follower.weights, follower.memory, []
        for step in [None, *steps]:
            if step is not None:
                answer = unroll(step, rule, weights, steps=1, state=memory)
                weights, memory = answer.variable, answer.state
            values.append(float(torch.stack([score(weights).detach() for score in scores]).mean()))
        reached[name] = values
    return reached


def strength(gail: GAIL, rounds: list[tuple[list[Callable], list[Callable]]]) -> Drawing:
    """How far the rule gets in k steps, and Adam, on each rollout from where it starts, for rollouts differ in that."""
    reached = [answers(gail, steps, scores) for steps, scores in rounds]
    start = np.mean([values["Adam"][0] for values in reached])
    curves = {
        name: [(np.arange(len(values[name])), np.subtract(values[name], values[name][0])) for values in reached]
        for name in reached[0]
    }
    labels = {
        "ylabel": "change of the rule's score (lower is better)",
        "title": f"answers from the last checkpoint, at {start:.2f} (chance: {CHANCE:.2f})",
        "xlabel": "discriminator steps",
        "count": False,
        "of": "rollouts",
    }
    return Drawing(curves, labels)


def response(gail: GAIL, steps: list[Callable]) -> Mapping[str, tuple[np.ndarray, np.ndarray]]:
    """Median step over the rate, by the gradient over its running root mean square: the rule's and Adam's.

    Each of `steps`, objectives, gives every weight a gradient; the medians are over all of them.
    """
    config, follower = gail.config, gail.follower
    weights = {name: weight.detach().requires_grad_() for name, weight in follower.weights.items()}
    gradients = [
        dict(zip(weights, torch.autograd.grad(step(weights), [*weights.values()]), strict=True)) for step in steps
    ]
    weights = {name: weight.detach() for name, weight in weights.items()}
    curves = {}
    for name, rule in (("Adam", Coordinatewise(config.disc_rate, hidden=0)), ("learned rule", follower.rule)):
        sizes, moves = [], []
        for gradient in gradients:
            moved, memory = rule.update(gradient, follower.memory, weights)
            scale = (flatten(memory["square"]) / (1 - rule.betas[1] ** float(memory["count"]))).sqrt() + rule.eps
            sizes.append((flatten(gradient) / scale).numpy())
            moves.append((flatten(moved) / config.disc_rate).detach().numpy())
        x, y = np.concatenate(sizes), np.concatenate(moves)
        bins = np.digitize(x, BINS)
        filled = [index for index in range(1, len(BINS)) if (bins == index).sum() >= 5]
        centres = (BINS[:-1] + BINS[1:]) / 2
        curves[name] = centres[[i - 1 for i in filled]], np.array([np.median(y[bins == i]) for i in filled])
    return curves


def responses(gail: GAIL, steps: list[Callable]) -> Drawing:
    """What the rule does to a gradient of given size."""
    curves = {name: [curve] for name, curve in response(gail, steps).items()}
    if any(len(curve[0]) == 0 for (curve,) in curves.values()):
        raise UserError("the discriminator's gradients are all zero or infinite; there is no response to draw")
    labels = {
        "ylabel": "median step over the rate",
        "title": "what a weight's gradient does, last checkpoint",
        "xlabel": "gradient over its running root mean square",
        "count": False,
    }
    return Drawing(curves, labels)
