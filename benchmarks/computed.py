"""What is no query of the records: the methods, the engine's errors on a game with an answer, what a run prints."""

import sys
from collections.abc import Callable

from records import ROOT, load

ROUNDING = 1e-12  # below this an error is rounding, which differs from processor to processor
STEPS = (1, 5, 20, 100, 300)
PAGES = {"standard": "at", "pgd-2": "methods/pgd", "cow": "methods/arow"} | dict.fromkeys(
    ("l2l-naive", "l2l-grad", "l2l-2step", "l2l-kstep"), "methods/l2l-published"
)


def tables() -> dict[str, dict[str, list[str]]]:
    """Lines by page and name."""
    unrolled, solvers = engine()
    return {
        "README.md": {"printed": printed()},
        "docs/at.md": {"methods": methods()},
        "docs/engine.md": {"unrolled": unrolled, "solvers": solvers},
    }


def printed() -> list[str]:
    """What README's first command says at its end, as code."""
    from l2l_gail.report import returns_text

    result = load("gail/main")["runs"]["l2l_s0"]["result"]
    return ["", *(f"    {line}" for line in returns_text(result)), ""]


def methods() -> list[str]:
    """The methods as `--list` has them."""
    from l2l_at.methods import METHODS

    rows = [
        f"| [`{name}`]({PAGES.get(name, f'methods/{name}')}.md) | {recipe.summary} | {', '.join(recipe.norms)} | "
        f"{recipe.source} |"
        for name, recipe in METHODS.items()
    ]
    return ["| `--method` | what | `--norm` | source |", "|---|---|---|---|", *rows]


def engine() -> tuple[list[str], list[str]]:
    """Relative errors of the hypergradient on a quadratic game: after some gradient steps, and at the exact answer."""
    sys.path.append(str(ROOT))
    from bilevel import conjugate_gradient, neumann, scaled_identity
    from tests.bilevel.quadratic_game import QuadraticGame

    game = QuadraticGame()
    answers = [game.unrolled(steps) for steps in STEPS]
    after = {
        "unrolled": answers,
        "implicit (conjugate gradient) at the same inexact point": [game.implicit_at(answer) for answer in answers],
        "detached": [answer.detach() for answer in answers],
    }
    solvers: dict[str, Callable] = {
        "conjugate gradient, 6 products": conjugate_gradient(6),
        "conjugate gradient, 3 products": conjugate_gradient(3),
        "Neumann, 300 products": neumann(300, 0.5),
        "Neumann, 10 products": neumann(10, 0.5),
        "scaled identity": scaled_identity(0.5),
    }

    def error(answer) -> str:
        value = game.relative_error(answer)
        return f"{value:.2g}" if value > ROUNDING else "rounding"

    exact = game.best_response()
    unrolled = ["| after K gradient steps | " + " | ".join(map(str, STEPS)) + " |", "|---" * (1 + len(STEPS)) + "|"]
    unrolled += [f"| {name} | " + " | ".join(map(error, row)) + " |" for name, row in after.items()]
    found = [f"| {name} | {error(game.implicit_at(exact, solve))} |" for name, solve in solvers.items()]
    return unrolled, ["| implicit at the exact answer | error |", "|---|---|", *found]
