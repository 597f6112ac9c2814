"""The figures in the sentences of README and docs, from the records: python benchmarks/claims_report.py"""

import sys

import tyro
from at_claims import at_claims
from campaign import ROOT
from claims import Claim, restate
from gail_claims import gail_claims


def main() -> None:
    """Write them."""
    for page, claims in by_page().items():
        path = ROOT / page
        try:
            path.write_text(restate(path.read_text(), claims))
        except ValueError as error:
            sys.exit(f"{page}: {error}")


def by_page() -> dict[str, list[Claim]]:
    """All claims by page, named from the root of the checkout."""
    found: dict[str, list[Claim]] = {}
    for some in (at_claims(), gail_claims()):
        for page, claims in some.items():
            found.setdefault(page, []).extend(claims)
    return found


if __name__ == "__main__":
    tyro.cli(main)
