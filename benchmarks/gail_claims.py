"""What the pages say of imitation in sentences, and where it comes from (see claims.py)."""

from typing import Any

import numpy as np
import sensitivity
from claims import Claim
from gail_runs import (
    SLOW,
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
from gail_tables import recorded
from pages import gaps, interval
from rate_claims import rate_claims

LOW = 90  # percent of the expert
LOST = 4000  # an evaluation episode of HalfCheetah that returns less went wrong


def gail_claims() -> dict[str, list[Claim]]:
    """Claims by page, named from the root of the checkout."""
    results = [
        *cuda(),
        *single_runs(),
        *rate_claims(),
        *stress(),
        *dead(),
        *parts(),
        *carried(),
        *other_tasks(),
    ]
    return {"README.md": readme(), "docs/gail.md": choice(), "docs/results/gail.md": results}


def readme() -> list[Claim]:
    """The README's sentences beside its tables of imitation."""
    seconds = 1e6 / speeds("throughput")["summary"]["l2l-gail"]["steps_per_second"]
    main = of("main")
    middle, low, high = interval(gaps(percents("l2l", main), percents("adam", main)))
    late = [sensitivity.falls(run)[1] for run in main]
    l2l, adam = (late_falls(who, one_demonstration(), disc_rate=3e-4) for who in ("l2l", "adam"))
    four = [run for run in of("sensitivity") if run["settings"]["num_demos"] == 4]
    ahead = gaps(*(percents(who, four, disc_rate=1e-4, gradient_penalty=1) for who in ("l2l", "adam")))
    plain = [run for run in of("boundary") if run["settings"]["gradient_penalty"] == 0]
    long = [percents("adam", plain, disc_rate=rate)[0] for rate in (1e-4, 1e-3, 3e-3)]
    stopped = [percents("l2l", plain, disc_rate=rate)[0] for rate in (1e-3, 3e-3)]
    return [
        Claim("takes one core {:.0f} minutes on a quick machine", (seconds / 60,)),
        Claim("(difference {:+.1f} points, 95 % interval {:+.1f} to {:+.1f})", (middle, low, high)),
        Claim("no run here falls by more than {:.0f}; with one", (max(late),)),
        Claim(
            "L2L falls by {:.0f} and Adam by {:.0f} (means over three seeds, difference {:+.0f}, 95 % interval {:+.0f} "
            "to {:+.0f})",
            (mean(l2l), mean(adam), *interval(gaps(l2l, adam))),
        ),
        Claim("at 1e-4 is {:.1f} points behind, which", (float(np.mean(ahead)),)),
        Claim("(L2L {:+.1f} points on average, {:+.1f} to {:+.1f})", interval(network_over_rate())),
        Claim(
            "Adam makes {:.1f} to {:.1f} % of the demonstrations' return at three rates, and {:.1f} at 3e-5",
            (min(long), max(long), percents("adam", plain, disc_rate=3e-5)[0]),
        ),
        Claim("L2L {:.1f} % at 1e-3 and {:.1f} at 3e-3", stopped),
    ]


def choice() -> list[Claim]:
    """When not to use the learned follower."""
    scratch = [run for run in of("scratch") if run["settings"]["env"] == "Walker2d-v4"]
    cloned = [percents(who, of("tasks"), env="Walker2d-v4") for who in ("adam", "l2l")]
    means = sorted(map(mean, cloned))
    return [
        Claim(
            "L2L made {:.0f} % of the expert and Adam {:.0f} %",
            [mean(percents(who, scratch)) for who in ("l2l", "adam")],
        ),
        Claim("both make {:.1f} to {:.1f} % on average", means),
    ]


def cuda() -> list[Claim]:
    """What a GPU changes."""
    records = [speeds("throughput_cuda_256"), speeds("throughput_cuda_1024")]
    of_ppo = [
        one / other
        for record in records
        for who in ("gail", "l2l-gail")
        for one, other in zip(record["steps_per_second"][who], record["steps_per_second"]["ppo"], strict=True)
    ]
    apart = [max(turns) / min(turns) - 1 for record in records for turns in record["steps_per_second"].values()]
    cpu, gpu = (speeds(f"throughput_{device}_256")["summary"] for device in ("cpu", "cuda"))
    times = [cpu[who]["steps_per_second"] / gpu[who]["steps_per_second"] for who in ("ppo", "l2l-gail")]
    return [
        Claim(
            "(ratios {:.2f} to {:.2f}; the same program's two turns differ by up to {:.0f} %)",
            (min(of_ppo), max(of_ppo), 100 * max(apart)),
        ),
        Claim("PPO itself, with its small networks, makes {:.1f} times as many steps on the CPU alone", times[:1]),
        Claim("and L2L-GAIL {:.1f} times as many", times[1:]),
    ]


def single_runs() -> list[Claim]:
    """What makes single runs differ."""
    rows = speeds("exploration")["rows"]
    most = max(row["share_upside_down"] or 0 for row in rows)
    earlier = recorded("earlier")["adam_s0"]["result"]
    (fixed,) = [row for row in rows if row["change"].startswith("policy's filter fixed")]
    alone = [run for run in of("rates") if run["settings"]["follower"] == "l2l-rate"]
    four = [run for run in of("sensitivity") if run["settings"]["num_demos"] == 4]
    four = [run for run in four if run["settings"]["gradient_penalty"] == 1]
    runs = [run for run in [*of("main"), *one_demonstration(), *four, *alone] if run["settings"]["seed"] < 3]
    quick = [run for run in runs if (run["settings"]["follower"], run["settings"]["disc_rate"]) != ("adam", SLOW)]
    lost = [run for run in quick if run["result"]["return"]["min"] < LOST]
    filters = [of("filter"), of_version("adam", of("main"))]
    falls = [np.mean([sensitivity.falls(run)[1] for run in some]) for some in filters]
    shares = [np.mean([run["result"]["percent_of_expert"] for run in some]) for some in filters]
    return [
        Claim(
            "it falls by {:.0f} on average, the fixed filter by {:.0f}, and it ends at {:.1f} % of the expert, the "
            "fixed one at {:.1f} %",
            [*falls, *shares],
        ),
        Claim("up to {:.0f} % of their time there", (100 * most,)),
        Claim(
            "({:.0f} ± {:.0f} in one run of an earlier version)", [earlier["return"][name] for name in ("mean", "sd")]
        ),
        Claim(
            "the same seed went from {:.0f} to {:.1f} % of the expert's return",
            (earlier["percent_of_expert"], 100 * fixed["return_mean"] / earlier["expert"]["mean"]),
        ),
        Claim("in {} of {} runs with a penalty", (len(lost), len(quick))),
        Claim("Three of the {} are Adam's with four demonstrations", (of_adam(lost, four),)),
    ]


def of_adam(lost: list[dict[str, Any]], four: list[dict[str, Any]]) -> int:
    """How many runs lost an episode; raises if what the page says of Adam's with four demonstrations holds no more."""
    adam = [run["settings"]["disc_rate"] for run in lost if run in four and run["settings"]["follower"] == "adam"]
    if (len(adam), adam.count(1e-4)) != (3, 2):
        raise ValueError("docs/results/gail.md says otherwise of the episodes in which Adam's policies fall")
    return len(lost)


def stress() -> list[Claim]:
    """No penalty, 2M steps."""
    runs = of("stress")
    adam, l2l = percents("adam", runs), percents("l2l, score smoothed", runs)
    lost, *recovered = sorted(adam, key=adam.__getitem__)
    failed = recorded("stress")[f"adam_s{lost}"]
    held = [value for value in failed["curves"]["disc/heldout_loss"] if value is not None]
    rule = np.mean([last(run, "follower/log_rate") for run in of_version("l2l, score smoothed", runs)])
    alone = recorded("stress")["l2l-unsmoothed_s0"]["result"]["percent_of_expert"]
    one = [percents(who, of("sensitivity"), disc_rate=1e-3, gradient_penalty=0, num_demos=1) for who in ("l2l", "adam")]
    shorter = [*map(mean, one), *interval(gaps(*one))[1:]]
    return [
        Claim("do not tell it from Adam at this rate ({:.1f} against {:.1f} %, difference {:.1f} to {:+.1f})", shorter),
        Claim(
            "({:.0f} and {:.0f} % of the expert), one does not ({:.1f} %)",
            [*(adam[seed] for seed in recovered), adam[lost]],
        ),
        Claim(
            "ends at an accuracy of {:.2f} %, and its loss on held-out data rises from {:.2f} early on to {:.2f}",
            (100 * last(failed, "disc/disc_acc"), min(held), held[-1]),
        ),
        Claim("that was made ends at {:.0f} %, below", (alone,)),
        Claim(
            "the worst of three seeds makes {:.1f} % and the mean is {:.1f} % (Adam: {:.1f} and {:.1f})",
            [of(by_seed) for by_seed in (l2l, adam) for of in (lowest, mean)],
        ),
        Claim("to e^{:.1f} of what it started from", (rule,)),
    ]


def dead() -> list[Claim]:
    """How rules without a penalty failed that were scored on smoothed labels."""
    tried, plain = of("no-penalty"), of("sensitivity")
    smoothed = [percents("l2l, score smoothed", tried, disc_rate=rate) for rate in (SLOW, 1e-4)]
    adam = [percents("adam", plain, disc_rate=rate, gradient_penalty=0, num_demos=1) for rate in (SLOW, 1e-4)]
    shared = [{seed: by_seed[seed] for seed in (0, 1)} for by_seed in adam]
    one = {name: run for name, run in recorded("no-penalty").items() if name.endswith("_s0")}
    spread = [last(one[f"l2l-{score}_1e-4_s0"], "disc/logit_std") for score in ("smoothed", "penalty")]
    alone = {name: run["result"]["percent_of_expert"] for name, run in one.items()}
    small = [last(recorded("no-penalty")[f"l2l-smoothed_3e-5_s{seed}"], "disc/logit_std") for seed in (0, 1)]
    return [
        Claim(
            "{:.0f} % of the expert at 3e-5 and {:.0f} % at 1e-4, where Adam makes {:.0f} and {:.0f} on the same two "
            "seeds",
            [mean(by_seed) for by_seed in (*smoothed, *shared)],
        ),
        Claim("ends at {} (smoothed) and {} (scored with a penalty)", [*map(sensitivity.rate_name, spread)]),
        Claim(
            "{:.0f} % at 3e-5, seed 0, against {:.0f}",
            [alone[f"l2l-{name}_3e-5_s0"] for name in ("penalty", "smoothed")],
        ),
        Claim("({:.1f} and {:.1f} at the end)", small),
        Claim("(seed 0: {:.0f} and {:.0f} %)", [alone[f"l2l-{name}_1e-4_s0"] for name in ("penalty", "anchored")]),
    ]


def parts() -> list[Claim]:
    """The learned rule with parts taken away."""

    def score(name: str) -> float:
        return float(np.mean([run["result"]["percent_of_expert"] for run in named(name)]))

    def end(runs: list[dict[str, Any]]) -> float:
        return SLOW * float(np.exp(np.mean([last(run, "follower/log_rate") for run in runs])))

    def named(name: str) -> list[dict[str, Any]]:
        return [run for key, run in recorded("ablation").items() if key.startswith(f"l2l-{name}_s")]

    whole = [mean(percents(who, of("rates"), disc_rate=SLOW)) for who in ("l2l-rate", "l2l")]
    held = [named("every-step"), named("every-10"), named("zero-head")]
    held += [
        [run for run in of_version(who, of("rates")) if run["settings"]["disc_rate"] == SLOW]
        for who in ("l2l", "l2l-rate")
    ]
    ends = [sensitivity.rate_name(rate, digits=1) for rate in (end(named("no-holdout")), max(map(end, held)))]
    return [
        Claim("climbs again, to {} at the end, where the others end at {} or lower (figure)", ends),
        Claim("never fitted, the rule makes {:.1f} % of the expert", (score("zero-head"),)),
        Claim(
            "it makes {:.1f}, {:.1f} and {:.1f} %, with the log rate alone (`l2l-rate`) {:.1f} %, as it ships {:.1f} %",
            [*map(score, ("no-holdout", "every-step", "every-10")), *whole],
        ),
    ]


def carried() -> list[Claim]:
    """A rule learned on HalfCheetah, frozen, on other tasks."""
    kept = [run for run in of("ablation") if run["settings"].get("carried")]
    rate = kept[0]["settings"]["disc_rate"] * float(np.exp(np.mean([last(run, "follower/log_rate") for run in kept])))
    found = {
        env: (percents("l2l", kept, env=env), *(percents(who, of("tasks"), env=env) for who in ("l2l", "adam")))
        for env in ("Hopper-v4", "Walker2d-v4")
    }
    hopper, walker = ([mean(some) for some in found[env]] for env in found)
    alone = found["Walker2d-v4"][0]
    behind = {env: gaps(place, here) for env, (here, place, _) in found.items()}
    return [
        Claim("training ended, {} on average", (sensitivity.rate_name(rate, digits=1),)),
        Claim("On Hopper it makes {:.1f} % (fitted in place {:.1f}, Adam at 3e-4 {:.1f})", hopper),
        Claim("on Walker2d {:.1f} % ({:.1f} and {:.1f})", walker),
        Claim("in {} of {} runs ends under {} %", (sum(share < LOW for share in alone.values()), len(alone), LOW)),
        Claim("behind the rule fitted in place by {:.1f}, {:.1f} and {:.1f} points on Hopper", behind["Hopper-v4"]),
        Claim("by {:.1f}, {:.1f} and {:.1f} on Walker2d", behind["Walker2d-v4"]),
        Claim("interval of the mean {:.1f} to {:.1f})", interval(behind["Walker2d-v4"])[1:]),
    ]


def other_tasks() -> list[Claim]:
    """Cloning alone, and a constant reward."""
    cloned = [recorded("cloning")[f"{env}_adam_s0"] for env in ("Hopper-v4", "Walker2d-v4")]
    constant = recorded("constant")["Walker2d-v4_adam_s0"]["result"]["percent_of_expert"]
    walker = [mean(percents(who, of("tasks"), env="Walker2d-v4")) for who in ("adam", "l2l")]
    return [
        Claim(
            "cloning alone makes {:.1f} % (Hopper) and {:.1f} % (Walker2d)",
            [run["result"]["percent_of_expert"] for run in cloned],
        ),
        Claim("it raises it to {:.1f} %", (constant,)),
        Claim("adds to cloning there ({:.1f} to {:.1f} %)", (min(walker), max(walker))),
    ]
