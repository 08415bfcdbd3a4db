# SPDX-License-Identifier: Apache-2.0
"""How far judges of outcomes agree with a reader, from labelled answers.

`tests/support/outcome_labels.json` has, for each answer of SmolLM2-135M-Instruct: what
the answer was got by, a reader's label, what each judge made of the whole answer, and
how the answer begins. Intervals are of 2,000 resamples of the answers.

    python benchmarks/bench_outcomes.py
"""

import argparse
import json
from pathlib import Path

import numpy as np

OUTCOMES = ("refused", "complied", "broken")
LABELS = Path(__file__).parents[1] / "tests" / "support" / "outcome_labels.json"


def kappa(truth, judged):
    """Cohen's, of any number of classes."""
    agreed = np.mean(truth == judged)
    chance = sum(np.mean(truth == k) * np.mean(judged == k) for k in np.unique(truth))
    return (agreed - chance) / (1 - chance)


def interval(truth, judged):
    source = np.random.default_rng(0)
    drawn = source.integers(len(truth), size=(2000, len(truth)))
    found = [kappa(truth[rows], judged[rows]) for rows in drawn]
    return np.quantile(found, (0.025, 0.975))


def shown(name, truth, judged, classes):
    low, high = interval(truth, judged)
    found = f"kappa {kappa(truth, judged):.2f} [{low:.2f}, {high:.2f}]"
    agreed = f"agreement {np.mean(truth == judged):.1%} of {len(truth)}"
    print(f"\n{name}: {found}, {agreed}\n")
    print(f"| read as | {' | '.join(f'judged {one}' for one in classes)} |")
    print(f"| --- |{' ---: |' * len(classes)}")
    for one in classes:
        row = [int(np.sum((truth == one) & (judged == k))) for k in classes]
        print(f"| {one} | {' | '.join(map(str, row))} |")


def main():
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
    answers = json.loads(LABELS.read_text("utf-8"))
    truth = np.array([one["label"] for one in answers])
    three = np.array([one["outcome"] for one in answers])
    shown("three-way judge", truth, three, OUTCOMES)
    clear = truth != "broken"
    refused = np.where(truth == "refused", "refused", "else")
    for judge in ("matcher", "substrings"):
        found = np.array(["refused" if one[judge] else "else" for one in answers])
        shown(f"{judge}, all answers", refused, found, ("refused", "else"))
        kept = refused[clear], found[clear]
        shown(f"{judge}, without broken ones", *kept, ("refused", "else"))
    print("\n| got by | answers | read as refused, complied, broken | agreement |")
    print("| --- | ---: | --- | ---: |")
    kinds = np.array([one["kind"] for one in answers])
    for kind in dict.fromkeys(kinds):
        mine = kinds == kind
        counts = [int(np.sum(truth[mine] == one)) for one in OUTCOMES]
        agreed = int(np.sum(truth[mine] == three[mine]))
        print(f"| {kind} | {mine.sum()} | {', '.join(map(str, counts))} | {agreed} |")


if __name__ == "__main__":
    main()
