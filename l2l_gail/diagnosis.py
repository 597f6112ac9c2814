"""Why a run went as it did: figures of the discriminator, of its reward, and of the rule that moves it."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from bilevel import UpdateRule, unroll
from bilevel.response import Objective
from bilevel.tree import flatten
from l2l_experiment import metrics
from l2l_experiment.drawings import Drawing
from l2l_experiment.errors import UserError
from l2l_experiment.run import Run
from l2l_gail import alarms
from l2l_gail.environments import Environment
from l2l_gail.followers import RuleFollower, uses_setting
from l2l_gail.gail import GAIL
from l2l_gail.session import find_demonstrations, stored_args

# Curves of a run by figure: title of the axis, and what is drawn by its name in TensorBoard.
CURVES: dict[str, tuple[str, dict[str, str]]] = {
    "discriminator": (
        "accuracy before each round's update, mean over {} rounds",
        {
            "demonstrations": "train_disc/acc_expert",
            "other demonstrations": "train_disc/heldout_acc",
            "policy": "train_disc/acc_gen",
        },
    ),
    "reward": (
        "standard deviation over a rollout",
        {"learned reward": "train_reward/std", "logits": "train_disc/logit_std"},
    ),
    "step": (
        "length of the last step of a round over Adam's",
        {"learned rule": "train_follower/step_over_adam", "its log rate alone": "train_follower/log_rate"},
    ),
}
CHANCE = 2 * math.log(2)  # loss of a discriminator that answers one half to everything
ROLLOUTS = 4  # one after the other; each gives answers of its own
BATCHES = 4  # of the scored objective, so that a curve over steps is not the noise of one batch
MOST_STEPS = 50
BINS = np.linspace(-3, 3, 25)


def diagnose(run: Run, env: str | None = None, demos: str | None = None) -> dict[str, Drawing]:
    """The figures of a finished or running GAIL run, by name; `demos` says where its demonstrations have moved.

    Where update rules move the discriminator the last checkpoint is loaded too: the policy goes on from there for a few
    rollouts, and on each the follower's rules answer from the checkpoint's weights with the checkpoint's memory."""
    args = stored_args(run, env=env)
    args = replace(args, demos=demos or args.demos)
    config = args.settings
    rate = f"rate {config.disc_learning_rate:g}, " * uses_setting(config.follower, "disc_learning_rate")
    name = f"{config.env}, {config.follower}, {rate}seed {config.seed}"
    found = log_figures(metrics.read(run.folder / metrics.METRICS), name)
    if args.reward_from is not None:  # nothing moves the discriminator
        if demos is not None:
            raise UserError(f"--demos would change nothing: the reward of {run.folder} is not learned")
        return found
    env = Environment(args.settings.env, rescale=args.settings.rescale_actions)
    gail = GAIL.load(run.folder, find_demonstrations(args, env)[0], env=env, device="cpu")
    if not isinstance(gail.follower, RuleFollower):
        return found
    if gail.num_timesteps == 0:
        raise UserError(f"{run.folder} has no checkpoint of a trained discriminator yet; wait for the next one")
    given = [gail.objectives([*gail.replay, gail.leader.rollout()]) for _ in range(ROLLOUTS)]
    rounds = [([o.train() for _ in range(MOST_STEPS)], [o.score() for _ in range(BATCHES)]) for o in given]
    found["strength"] = strength(gail.follower, rounds)
    if "square" in gail.follower.memory:  # the memory of Adam, in which gradients have a scale
        found["response"] = responses(gail.follower, [steps[0] for steps, _ in rounds])
    return found


def log_figures(rows: list[dict[str, float]], name: str) -> dict[str, Drawing]:
    """The figures that the run's own log gives; those it does not log are left out."""
    found, window = {}, max(1, len(rows) // 50)
    for stem, (label, tags) in CURVES.items():
        curves = {}
        for title, (steps, values) in metrics.curves_of(rows, tags).items():
            if tags[title].endswith("log_rate"):
                values = np.exp(values)
            if "{}" in label and len(steps) >= window:
                mean = np.ones(window) / window
                steps, values = (np.convolve(each, mean, mode="valid") for each in (steps, values))
            curves[title] = [(steps, values)]
        if curves:
            last = {title: float(values[-1]) for title, ((_, values),) in curves.items()}
            about = {"log": stem == "step", "verdict": verdict(stem, last)}
            found[stem] = make_drawing(curves, label.format(window), f"{name}: {stem}", **about)
    return found


def verdict(stem: str, last: dict[str, float]) -> str:
    """What the last values of a logged figure say, in a line."""
    if stem == "discriminator":
        told = "at the end it is right on " + " and ".join(f"{value:.0%} of {who}" for who, value in last.items())
        sides = [value for who, value in last.items() if who != "other demonstrations"]
        apart = ": it tells them apart easily" if min(sides) > 0.9 else ": near chance" if max(sides) < 0.6 else ""
        return told + apart
    if stem == "reward":
        flat = last.get("logits", 1.0) < alarms.FLAT
        return "the same for all transitions: it teaches nothing" if flat else "it still varies over a rollout"
    return "the last step was " + ", ".join(f"{value:.2g} times Adam's ({name})" for name, value in last.items())


def answers(follower: RuleFollower, rule: UpdateRule, steps: list[Objective], scores: list[Objective]) -> list[float]:
    """The scored objective after 0, 1, … steps of a rule from the follower's weights and memory."""
    weights, memory = [follower.weights], follower.memory
    for step in steps:
        answer = unroll(step, rule, weights[-1], steps=1, state=memory)
        weights, memory = [*weights, answer.variable], answer.state
    return [float(torch.stack([score(each).detach() for score in scores]).mean()) for each in weights]


def strength(follower: RuleFollower, rounds: list[tuple[list[Objective], list[Objective]]]) -> Drawing:
    """How far each rule gets in k steps, on each rollout from where it starts, for rollouts differ in that."""
    reached = {name: [answers(follower, rule, *round) for round in rounds] for name, rule in follower.rules().items()}
    start = np.mean([values[0] for values in next(iter(reached.values()))])
    curves = {name: [(np.arange(len(y)), np.subtract(y, y[0])) for y in some] for name, some in reached.items()}
    title = f"answers from the last checkpoint, at {start:.2f} (chance: {CHANCE:.2f})"
    ylabel = "change of the scored objective (lower is better)"
    ends = {name: float(np.mean([values[-1] for _, values in some])) for name, some in curves.items()}
    told = ", ".join(f"{name} {value:+.3f}" for name, value in ends.items())
    kwargs = {"xlabel": "discriminator steps", "of": "rollouts", "verdict": f"change after {MOST_STEPS} steps: {told}"}
    return make_drawing(curves, ylabel, title, **kwargs)


def response(follower: RuleFollower, rule: UpdateRule, steps: list[Objective]) -> tuple[np.ndarray, np.ndarray]:
    """Median step over the learning rate, by the gradient over its running root mean square.

    Each of `steps`, objectives, gives every weight a gradient; the medians are over all of them."""
    sizes, moves = [], []
    for step in steps:
        weights = {name: weight.detach().requires_grad_() for name, weight in follower.weights.items()}
        gradient = dict(zip(weights, torch.autograd.grad(step(weights), [*weights.values()]), strict=True))
        moved, memory = rule.update(gradient, follower.memory, follower.weights)
        scale = (flatten(memory["square"]) / (1 - rule.betas[1] ** float(memory["count"]))).sqrt() + rule.eps
        sizes.append((flatten(gradient) / scale).numpy())
        moves.append((flatten(moved) / rule.rate).detach().numpy())
    x, y = np.concatenate(sizes), np.concatenate(moves)
    bins = np.digitize(x, BINS)
    filled = [index for index in range(1, len(BINS)) if (bins == index).sum() >= 5]
    centres = (BINS[:-1] + BINS[1:]) / 2
    return centres[[i - 1 for i in filled]], np.array([np.median(y[bins == i]) for i in filled])


def responses(follower: RuleFollower, steps: list[Objective]) -> Drawing:
    """What the rules do to a gradient of given size."""
    curves = {name: [response(follower, rule, steps)] for name, rule in follower.rules().items()}
    if any(len(curve[0]) == 0 for (curve,) in curves.values()):
        raise UserError("the discriminator's gradients are all zero or infinite; there is no response to draw")
    title = "what a weight's gradient does, last checkpoint"
    xlabel = "gradient over its running root mean square"
    return make_drawing(curves, "median step over the learning rate", title, xlabel=xlabel)


def make_drawing(
    curves: dict[str, list[tuple[np.ndarray, np.ndarray]]], ylabel: str, title: str, **labels: Any
) -> Drawing:
    """A figure of few curves, without their count in the legend."""
    return Drawing(curves, {"ylabel": ylabel, "title": title, "count": False} | labels)
