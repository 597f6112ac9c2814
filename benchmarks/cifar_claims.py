"""What docs/results/at.md says of CIFAR in sentences, and where it comes from (see claims.py)."""

import json
from collections import defaultdict

import numpy as np
from at_tables import DATA, DIGITS, after_all, cost_of, read_costs, recorded
from claims import Claim
from pages import gaps, standard_error


def cifar_claims() -> list[Claim]:
    """Runs and costs on a GPU, and the smoke test."""
    return [*cifar(), *gpu_cost()]


def cifar() -> list[Claim]:
    """Short runs on a GPU, and the smoke test."""
    runs = recorded("cifar10-short")
    best, kept, grades = defaultdict(dict), defaultdict(dict), defaultdict(dict)
    for run in runs.values():
        seed, result = run["settings"]["seed"], run["result"]
        best[run["group"]][seed] = 100 * result["best"]["pgd10"]
        kept[run["group"]][seed] = 100 * result["best"]["clean"]
        if "grade" in result:
            grades[run["group"]][seed] = after_all(run)
    robust = [grade for name in ("l2l_8", "fgsm-rs_8") for grade in grades[name].values()]
    images = runs["l2l_8_s0"]["result"]["grade"]["n"]
    gain = {
        name: float(np.mean([run["result"]["gain"] for run in runs.values() if run["group"] == name]))
        for name in ("l2l_8", "frozen_8")
    }
    fooled = runs["fgsm-rs_16_s1"]["curves"]["train/fgsm"][-1][1]
    small = recorded("cifar-cpu")
    losses = [
        point[1]
        for name in ("cifar10_l2l_s0", "cifar100_l2l_s0")
        for point in (small[name]["curves"]["train/loss"][0], small[name]["curves"]["train/loss"][-1])
    ]
    return [
        Claim(
            "withstands PGD-10 in {:.1f}, {:.1f} and {:.1f} points more of cases than FGSM-RS",
            gaps(best["l2l_8"], best["fgsm-rs_8"]),
        ),
        Claim(
            "leads by {:.1f} and {:.1f} points, where one standard error of a difference between two sets of {} images "
            "is {:.1f}",
            [
                *gaps(grades["l2l_8"], grades["fgsm-rs_8"]),
                images,
                2**0.5 * standard_error(float(np.mean(robust)) / 100, images),
            ],
        ),
        Claim("it has {:.1f}, {:.1f} and {:.1f} points less", gaps(kept["fgsm-rs_8"], kept["l2l_8"])),
        Claim("kept from epoch {:.0f}, before", [runs["fgsm-rs_8_s2"]["result"]["best"]["epoch"]]),
        Claim("PGD-10 it is by {:.1f} and {:.1f} points", gaps(best["l2l_8"], best["pgd_8"])),
        Claim("the frozen attacker ends {:.1f} and {:.1f} points", gaps(best["frozen_8"], best["l2l_8"])),
        Claim("(gain {:.2f} and {:.2f})", [gain["l2l_8"], gain["frozen_8"]]),
        Claim("it withstands PGD-10 in {:.1f} and {:.1f} % of cases and then in none", [*best["fgsm-rs_16"].values()]),
        Claim("epoch 9, {:.1f} and {:.1f} points under", gaps(grades["l2l_16"], grades["fgsm-rs_16"])),
        Claim("With seed 1 one step, too, leaves only {:.0f} % of the training images", [100 * fooled]),
        Claim("the training loss falls from {:.2f} to {:.2f} and from {:.2f} to {:.2f}", losses),
    ]


def gpu_cost() -> list[Claim]:
    """What a step costs on a GPU."""
    costs = read_costs()
    steps = [json.loads((DATA / f"cost_resnet18_{name}.json").read_text()) for name in ("128", "128_wide")]
    return [
        Claim(
            "(PGD-10's step took {:.0f} ms in one record and {:.0f} in another)",
            [record["summary"]["pgd"]["milliseconds"] for record in steps],
        ),
        Claim(
            "At batch 512 `l2l` costs {:.2f} of PGD-10 ({:.2f} on digits on a CPU)",
            (costs["cifar10", "resnet18", 512, "l2l"], cost_of(costs, DIGITS, "l2l")),
        ),
        Claim("costs {:.2f} of PGD-10 at batch 128", (costs["cifar10", "resnet18", 128, "fast-bat"],)),
    ]
