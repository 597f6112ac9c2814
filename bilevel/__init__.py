"""A small bilevel engine: how a follower answers, and how the answer differentiates."""

from bilevel.coordinatewise import Coordinatewise
from bilevel.learned import LearnedFollower
from bilevel.response import Response, detach, implicit, unroll
from bilevel.rules import Adam, GradientStep, HypergradientAdam, SignStep, SteepestStep, UpdateRule
from bilevel.solvers import conjugate_gradient, neumann, scaled_identity

__all__ = [
    "Adam",
    "Coordinatewise",
    "GradientStep",
    "HypergradientAdam",
    "LearnedFollower",
    "Response",
    "SignStep",
    "SteepestStep",
    "UpdateRule",
    "conjugate_gradient",
    "detach",
    "implicit",
    "neumann",
    "scaled_identity",
    "unroll",
]
