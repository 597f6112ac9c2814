"""What docs/results/gail.md says of the discriminator's rate in sentences, and where it comes from (see claims.py)."""

import re
from typing import Any

import numpy as np
import sensitivity
from claims import Claim
from gail_runs import (
    SLOW,
    course,
    ends,
    key_of,
    last,
    late_falls,
    lowest,
    mean,
    network_over_rate,
    of,
    of_version,
    one_demonstration,
    percents,
    speeds,
)
from gail_slopes import LOOKS, look_at
from gail_tables import recorded, swept, version
from pages import gaps, interval

from l2l_gail.alarm import FLAT

DIP = 131_000  # steps at which the rule's discriminator pays for going backwards, without penalty
GOOD = (1e-4, 3e-4, 1e-3, 3e-3)  # rates that suit Adam where there is a penalty


def rate_claims() -> list[Claim]:
    """One demonstration with the penalty, four, and one without the penalty."""
    return [
        *with_penalty(),
        *four_demonstrations(),
        *without_penalty(),
        *four_without_penalty(),
        *slopes(),
        *longer(),
        *own_settings(),
    ]


def with_penalty() -> list[Claim]:
    """No rate to tune?"""
    runs = one_demonstration()
    adam = {rate: percents("adam", runs, disc_rate=rate) for rate in (SLOW, *GOOD)}
    l2l = {rate: percents("l2l", runs, disc_rate=rate) for rate in (SLOW, *GOOD)}
    good, slow = [mean(adam[rate]) for rate in GOOD], adam[SLOW].values()
    level = {rate: interval(gaps(l2l[rate], adam[rate])) for rate in GOOD}
    each = [gap for rate in GOOD for gap in gaps(l2l[rate], adam[rate])]
    (sure,) = [three for three in level.values() if three[1] > 0]
    middle, low, high = interval(network_over_rate())
    fell = {who: {rate: late_falls(who, runs, disc_rate=rate) for rate in GOOD} for who in ("l2l", "adam")}
    late = [[mean(fell[who][rate]) for rate in GOOD] for who in ("l2l", "adam")]
    for rate in GOOD:
        low_fall, high_fall = interval(gaps(fell["l2l"][rate], fell["adam"][rate]))[1:]
        if not low_fall < 0 < high_fall:
            raise ValueError("docs/results/gail.md says that no interval of the late falls leaves out 0")
    alone = [mean(percents("l2l-rate", of("rates"), disc_rate=rate)) for rate in (SLOW, 3e-4, 3e-3)]
    scored = recorded("score_on_seen")["l2l_3e-5_s0"]
    return [
        Claim("There it makes {:.1f} to {:.1f} % of the expert", (min(good), max(good))),
        Claim("At 3e-5 the best of {} runs makes {:.1f} %, the worst {:.1f}", (len(slow), max(slow), min(slow))),
        Claim(
            "{:.0f} points above Adam on the same seeds (95 % interval {:.0f} to {:.0f})",
            interval(gaps(l2l[SLOW], adam[SLOW])),
        ),
        Claim(
            "Its worst rate makes {:.1f} % (mean over seeds), its worst run {:.1f} %",
            (min(map(mean, l2l.values())), min(min(by_seed.values()) for by_seed in l2l.values())),
        ),
        Claim(
            "lie between {:+.1f} and {:+.1f} points, single seeds' between {:.1f} and {:+.1f}; the one interval that "
            "leaves out 0 is that of {:+.1f} ({:+.1f} to {:+.1f})",
            [of(some) for some in ([three[0] for three in level.values()], each) for of in (min, max)] + [*sure],
        ),
        Claim("(`l2l-rate`) makes {:.1f}, {:.1f} and {:.1f} % from 3e-5, 3e-4 and 3e-3", alone),
        Claim("From 3e-5 it comes to {} by step {:.0f}k and ends at {} (means over seeds)", course("l2l")),
        Claim("two of three runs of `l2l-rate` end at {} and {}, and at 3e-5", ends("l2l-rate")[1:]),
        Claim(
            "average over the three L2L is {:.1f} points behind it (95 % interval of the difference {:.1f} to {:+.1f})",
            (-middle, low, high),
        ),
        Claim(
            "L2L's largest fall at these rates is {:.0f} to {:.0f} (means over seeds), Adam's {:.0f} to {:.0f}",
            [of(values) for values in late for of in (min, max)],
        ),
        Claim("(from 3e-5 to {})", (sensitivity.rate_name(last(scored, "follower/rate")),)),
    ]


def four_demonstrations() -> list[Claim]:
    """The rates with four demonstrations and the penalty."""
    runs = [
        run
        for run in of("sensitivity")
        if (run["settings"]["num_demos"], run["settings"]["gradient_penalty"]) == (4, 1)
    ]
    found = {who: {rate: percents(who, runs, disc_rate=rate) for rate in sensitivity.RATES} for who in ("adam", "l2l")}
    adam, l2l = ([mean(by_seed) for by_seed in found[who].values()] for who in ("adam", "l2l"))
    low = sensitivity.RATES[0]
    best, worst = max(found["adam"][low].values()), lowest(found["adam"][low])
    ahead, *elsewhere = (interval(gaps(found["l2l"][rate], found["adam"][rate])) for rate in sensitivity.RATES)
    clear = [some for some in elsewhere if some[1] > 0 or some[2] < 0]
    return [
        Claim(
            "Adam makes {:.1f} % at 3e-5 (its runs {:.1f} to {:.1f}), {:.1f} % at 1e-4 and {:.1f} to {:.1f} % above",
            (adam[0], worst, best, adam[1], min(adam[2:]), max(adam[2:])),
        ),
        Claim("L2L makes {:.1f} to {:.1f} % at all five rates", (min(l2l), max(l2l))),
        Claim("its lowest run {:.1f} %", (min(map(lowest, found["l2l"].values())),)),
        Claim("At 3e-5 it is {:.0f} points ahead, with an interval of {:.0f} to {:.0f}", ahead),
        Claim(
            "elsewhere by {:.1f} to {:.1f} points, and {} of those 4 intervals leaves out 0",
            (min(some[0] for some in elsewhere), max(some[0] for some in elsewhere), len(clear)),
        ),
    ]


def without_penalty() -> list[Claim]:
    """The worst and the best of rates where there is no penalty."""
    runs = [run for run in swept() if run["settings"]["num_demos"] == 1 and run["settings"]["gradient_penalty"] == 0]
    found = {who: {rate: percents(who, runs, disc_rate=rate) for rate in sensitivity.RATES} for who in ("adam", "l2l")}
    means = {who: [mean(by_seed) for by_seed in by_rate.values()] for who, by_rate in found.items()}
    ahead, behind = (interval(gaps(found["l2l"][rate], found["adam"][rate])) for rate in (3e-3, 3e-4))
    alive = [run for run in of_version("l2l", runs) if last(run, "disc/logit_std") > FLAT]
    if len(alive) != len(of_version("l2l", runs)):
        raise ValueError("a discriminator died: docs/results/gail.md has to tell")
    return [
        Claim(
            "Adam makes {:.1f} % at its worst rate and {:.1f} % at its best, the learned rule as it ships {:.1f} and "
            "{:.1f} %",
            [of(means[who]) for who in ("adam", "l2l") for of in (min, max)],
        ),
        Claim("At 3e-3 L2L is {:.0f} points ahead (95 % interval {:+.1f} to {:+.1f}, the one of five", ahead),
        Claim("best rate, it is {:.0f} points behind ({:+.1f} to {:+.1f})", (-behind[0], *behind[1:])),
        Claim("that learns nothing ({:.1f} %); what its", (lowest(found["l2l"][3e-4]),)),
        Claim("L2L makes {:.1f} % and Adam {:.1f} %, a difference", [np.mean(means[who]) for who in ("l2l", "adam")]),
        Claim("the discriminator of none of {} runs died", (len(alive),)),
        *beside_smoothed(runs),
    ]


def four_without_penalty() -> list[Claim]:
    """The rates with four demonstrations and no penalty."""
    runs = [run for run in swept() if run["settings"]["num_demos"] == 4 and run["settings"]["gradient_penalty"] == 0]
    found = {who: {rate: percents(who, runs, disc_rate=rate) for rate in sensitivity.RATES} for who in ("adam", "l2l")}
    means = {who: [mean(by_seed) for by_seed in by_rate.values()] for who, by_rate in found.items()}
    level = {rate: interval(gaps(found["l2l"][rate], found["adam"][rate])) for rate in sensitivity.RATES}
    if [rate for rate, (_, low, high) in level.items() if low > 0 or high < 0] != [SLOW]:
        raise ValueError("README.md, docs/gail.md and docs/results/gail.md say that one interval leaves out 0")
    behind = level[3e-4]
    return [
        Claim(
            "same: Adam makes {:.1f} % at its worst rate and {:.1f} % at its best, L2L {:.1f} and {:.1f} %",
            [of(means[who]) for who in ("adam", "l2l") for of in (min, max)],
        ),
        Claim("At 3e-5 L2L is {:.0f} points ahead (95 % interval {:+.1f} to {:+.1f}, the one of these", level[SLOW]),
        Claim("at 3e-4 it is {:.0f} points behind ({:+.1f} to {:+.1f}), again", (-behind[0], *behind[1:])),
        Claim("again with a first seed that learns nothing ({:.1f} %)", (lowest(found["l2l"][3e-4]),)),
        Claim("L2L makes {:.1f} % and Adam {:.1f} %:", [np.mean(means[who]) for who in ("l2l", "adam")]),
    ]


def slopes() -> list[Claim]:
    """What the discriminator pays for while a policy begins."""
    runs = speeds("slopes")["slopes"]

    def span(names: str, what: str, step: int) -> tuple[float, float]:
        found = [look_at(run["looks"], step)[what] for name, run in runs.items() if re.fullmatch(names, name)]
        return min(found), max(found)

    adam, l2l = (rf"{who}, 3e-4, seed \d" for who in ("adam", "l2l"))
    both, others = r"\w+ with penalty.*", r"l2l, (1e-4|1e-3|3e-3).*"
    early, middle, late = LOOKS
    steep, slope, speed = "steepness", "slope", "velocity"
    flat = [of(span(both, steep, step)[at] for step in LOOKS) for of, at in ((min, 0), (max, 1))]
    alone = [run for run in of("no-penalty") if run["settings"]["follower"] == "l2l-rate"]
    alone = [run["result"]["percent_of_expert"] for run in alone if run["settings"]["disc_rate"] == 3e-4]
    dips = {name: [look["step"] for look in run["looks"] if look[slope] < 0] for name, run in runs.items()}
    for name in (*(f"l2l, 3e-4, seed {seed}" for seed in range(3)), "l2l, 1e-3, seed 0", "l2l, 3e-3, seed 0"):
        if not dips[name] or not 110_000 < dips[name][0] < 150_000:
            raise ValueError("docs/results/gail.md says that the slope goes below zero from 110k on")
    return [
        Claim(
            "at 100k the slope is {:.1f} to {:.1f}, of a steepness of {:.1f} to {:.1f}",
            [*span(adam, slope, middle), *span(adam, steep, middle)],
        ),
        Claim("the robot runs forward at {:.1f} to {:.1f} m/s", span(adam, speed, late)),
        Claim(
            "At 50k it is still {:.1f} to {:.1f}, at 100k {:.1f} to {:.1f}, and of the slope in velocity {:.1f} to "
            "{:.1f} is left",
            [*span(l2l, steep, early), *span(l2l, steep, middle), *span(l2l, slope, middle)],
        ),
        Claim("of three runs forward ({:.1f} to {:.1f} m/s)", span(l2l, speed, late)),
        Claim("as flat from the start ({:.1f} to {:.1f}), its slope is a", flat),
        Claim(
            "steady {:.1f}, and at 200k the robots run at {:.1f}",
            (span(both, slope, late)[0], span(both, speed, late)[0]),
        ),
        Claim("the robots run at {:.1f} and {:.1f} m/s (one seed each)", span(both, speed, late)),
        Claim(
            "{:.1f} to {:.1f} m/s at 131k, where those at 3e-4 make {:.1f} to {:.1f}. After it they keep {:.1f} to "
            "{:.1f}",
            [*span(others, speed, DIP), *span(l2l, speed, DIP), *span(others, speed, late)],
        ),
        Claim("cannot flatten: its slope is {:.1f} at 100k", span("l2l-rate.*", slope, middle)[:1]),
        Claim("and makes {:.1f} % in the end (three seeds)", (float(np.mean(alone)),)),
    ]


def longer() -> list[Claim]:
    """What comes of three times the steps."""
    plain = [run for run in swept() if run["settings"]["num_demos"] == 1 and run["settings"]["gradient_penalty"] == 0]
    long = [run for run in of("boundary") if run["settings"]["gradient_penalty"] == 0]

    def made(who: str, runs: list[dict[str, Any]], *rates: float) -> list[float]:
        return [percents(who, runs, disc_rate=rate)[0] for rate in rates]

    runs = recorded("boundary")
    stuck, kept, slow = (runs[name] for name in ("l2l_fast_s0", "l2l-limited_fast_s0", "l2l_s0"))
    tiny = [made("adam", some, 3e-5)[0] for some in (long, plain)]
    won, safe = runs["adam_tiny_s0"], runs["l2l_1_gp1_s0"]
    rates = (1e-4, 1e-3, 3e-3)
    second = percents("adam", long, disc_rate=1e-3)[1]
    lowest_rate = min(value for value in stuck["curves"]["follower/log_rate"] if value is not None)
    penalised = [
        abs(value)
        for run in [*of("main"), *of("tasks"), *swept()]
        if version(run["settings"]) == "l2l" and run["settings"]["gradient_penalty"] == 1
        for value in run["curves"]["follower/log_rate"]
        if value is not None
    ]
    return [
        Claim("Adam makes {:.1f} % at 1e-4, {:.1f} at 1e-3 and {:.1f} at 3e-3", made("adam", long, *rates)),
        Claim("in 1M steps the same seed makes {:.1f}, {:.1f} and {:.1f} %", made("adam", plain, *rates)),
        Claim("a second seed at 1e-3 makes {:.1f} %", (second,)),
        Claim("At 3e-5 Adam makes {:.1f} %, after 1M steps {:.1f}", tiny),
        Claim(
            "accuracy is {:.3f} and its loss {:.3f} on average over the last 1M steps",
            [between(won, tag, 2e6, 3e6) for tag in ("disc/disc_acc", "disc/heldout_loss")],
        ),
        Claim(
            "L2L makes {:.1f} % at 1e-3 and {:.1f} at 3e-3, where it makes {:.1f} and {:.1f} % in 1M",
            [*made("l2l", long, 1e-3, 3e-3), *made("l2l", plain, 1e-3, 3e-3)],
        ),
        Claim("until its log rate is {:.1f}", (lowest_rate,)),
        Claim("is right in {:.0f} % of cases on average between 0.6M and 1.7M steps", (wrong(stuck),)),
        Claim("between 1.2M and 1.9M its log rate is {:.1f} and nothing moves", (between(slow, "follower/log_rate"),)),
        Claim("the same seed makes {:.1f} %", (kept["result"]["percent_of_expert"],)),
        Claim("the largest log rate, up or down, is {:.1f}", (max(penalised),)),
        Claim("**With the penalty** L2L makes {:.1f} % in 3M steps", (safe["result"]["percent_of_expert"],)),
    ]


def own_settings() -> list[Claim]:
    """The two rates of the rule itself."""
    runs = recorded("meta")
    names = ("log-rate-0.01", "log-rate-0.2", "network-1e-2")
    made = [runs[f"l2l_{name}_3e-5_s10"]["result"]["percent_of_expert"] for name in names]
    shipped = mean(percents("l2l", one_demonstration(), disc_rate=SLOW))
    return [
        Claim("a network ten times faster make {:.1f}, {:.1f} and {:.1f} %", made),
        Claim("as it ships the rule makes {:.1f} % on average over five other seeds", (shipped,)),
    ]


def wrong(run: dict[str, Any]) -> float:
    """Mean accuracy of a run's discriminator while its rule stood still, in percent."""
    return 100 * between(run, "disc/disc_acc", 0.6e6, 1.7e6)


def between(run: dict[str, Any], tag: str, start: float = 1.2e6, end: float = 1.9e6) -> float:
    """Mean of a curve over a stretch of steps."""
    pairs = zip(run["grid"], run["curves"][tag], strict=True)
    return float(np.mean([value for step, value in pairs if start <= step <= end]))


def beside_smoothed(runs: list[dict[str, Any]]) -> list[Claim]:
    """The rule as it ships without a penalty, on the rates and seeds with which the one before it was run."""
    before = {key_of(run): run for run in of_version("l2l, score smoothed", of("no-penalty"))}
    now = {key_of(run): run for run in of_version("l2l", runs) if key_of(run) in before}

    def score(of: dict[tuple[float, int], dict[str, Any]], rate: float | None = None) -> float:
        return float(np.mean([of[key]["result"]["percent_of_expert"] for key in now if rate in (None, key[0])]))

    return [
        Claim("they make {:.0f} % on average and the smoothed score {:.0f} %", (score(now), score(before))),
        Claim("at 3e-4, two seeds, {:.0f} % against {:.0f}", (score(now, 3e-4), score(before, 3e-4))),
    ]
