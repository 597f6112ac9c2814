"""The tables of docs/engine.md, computed anew: python benchmarks/engine_report.py

They follow from one quadratic game with a closed form (tests/bilevel/quadratic_game.py); there is nothing to record.
"""

import sys

import tyro
from campaign import ROOT
from pages import update

sys.path.insert(0, str(ROOT))

from bilevel import conjugate_gradient, neumann, scaled_identity  # noqa: E402
from tests.bilevel.quadratic_game import QuadraticGame  # noqa: E402

PAGE = ROOT / "docs" / "engine.md"
STEPS = (1, 5, 20, 100, 300)
ROUNDING = 1e-12  # below this an error is rounding, which differs from processor to processor


def main() -> None:
    """Compute and write."""
    game = QuadraticGame()
    update(PAGE, {"unrolled": after_steps(game), "solvers": at_the_answer(game)})


def after_steps(game: QuadraticGame) -> list[str]:
    """Relative errors of the hypergradient after K gradient steps."""
    answers = [game.unrolled(steps) for steps in STEPS]
    rows = {
        "unrolled": answers,
        "implicit (conjugate gradient) at the same inexact point": [game.implicit_at(answer) for answer in answers],
        "detached": [answer.detach() for answer in answers],
    }
    lines = ["| after K gradient steps | " + " | ".join(map(str, STEPS)) + " |", "|---" * (1 + len(STEPS)) + "|"]
    return [*lines, *(f"| {name} | " + " | ".join(error(game, a) for a in row) + " |" for name, row in rows.items())]


def at_the_answer(game: QuadraticGame) -> list[str]:
    """Relative errors of the implicit hypergradient at the exact answer."""
    exact = game.best_response()
    rows = {
        "conjugate gradient, 6 products": conjugate_gradient(6),
        "conjugate gradient, 3 products": conjugate_gradient(3),
        "Neumann, 300 products": neumann(300, 0.5),
        "Neumann, 10 products": neumann(10, 0.5),
        "scaled identity": scaled_identity(0.5),
    }
    found = [f"| {name} | {error(game, game.implicit_at(exact, solve))} |" for name, solve in rows.items()]
    return ["| implicit at the exact answer | error |", "|---|---|", *found]


def error(game: QuadraticGame, answer) -> str:
    """The relative error of the hypergradient at an answer, two digits."""
    value = game.relative_error(answer)
    return f"{value:.2g}" if value > ROUNDING else "rounding"


if __name__ == "__main__":
    tyro.cli(main)
