# SPDX-License-Identifier: Apache-2.0
"""The strongest attacks, on SmolLM2-135M-Instruct with and without an intervention.

Harmful requests of the package's held-out split are made directly, with a prefill, with
a suffix that GCG or relaxed PGD found, and with embeddings that PGD found. Each search
is against the weights that it is then tried on. Printed are the shares of requests
that were complied with, refused and answered with broken text, with Wilson's 95%
interval for the first; the share of answers that begin as the search wanted; the
target's loss before and after; and seconds a request (none for what was stored).

    python benchmarks/bench_attacks.py [INTERVENTION.safetensors] [--requests 12]
        [--base-requests 12] [--attacks direct,prefill,gcg,relaxed,embedding]
        [--num-steps 50] [--search-width 64] [--topk 256] [--batch-size 64]
        [--early-stop] [--out DIR] [--device cpu] [--dtype auto]

With `--early-stop` a search ends where the answer begins as wanted. `--search-width`,
`--topk` and `--batch-size` are GCG's. With `--out` test cases are kept, and the same
command goes on after an interruption. The base has as many requests as the changed
model, or fewer with `--base-requests`, none with 0.

On a GPU, with the budget of papers:

    python benchmarks/bench_attacks.py INTERVENTION.safetensors --device cuda
        --requests 10 --attacks direct,prefill,gcg --num-steps 250 --search-width 512
        --batch-size 512 --out gcg-250x512
"""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import argparse
import sys
from contextlib import nullcontext
from pathlib import Path
from time import perf_counter

import numpy as np

from cintervene import Intervention, data, models
from cintervene.attacks import (
    GCG,
    DirectRequest,
    EmbeddingPGD,
    Prefill,
    RelaxedPGD,
    Request,
    run_attack,
)
from cintervene.attacks.templates import PREFILL
from cintervene.baselines import Generation, Undefended
from cintervene.baselines.answering import answer_prefilled
from cintervene.cli.common.console import Console
from cintervene.evaluate.requests.fluency import perplexities
from cintervene.evaluate.requests.outcomes import count, outcomes

# Long enough to see a refusal that turns into help.
ANSWER = 128
HEAD = (
    "weights", "attack", "steps", "complied", "refused", "broken", "begun",
    "loss", "s a request",
)  # fmt: skip


def named_attacks(model, tokenizer, given):
    """By name; each search takes as many steps."""
    every = {"steps": given.num_steps, "early_stop": given.early_stop}
    return {
        "direct": DirectRequest(),
        "prefill": Prefill(),
        "gcg": GCG(
            model, tokenizer, **every, search_width=given.search_width,
            topk=given.topk, batch=given.batch_size,
        ),
        "relaxed": RelaxedPGD(model, tokenizer, **every),
        "embedding": EmbeddingPGD(model, tokenizer, **every, max_new_tokens=ANSWER),
    }  # fmt: skip


def answered(model, tokenizer, cases):
    """The answers, made by the attack itself or now."""
    asked = [(case.prompt, case.prefill) for case in cases if case.answer is None]
    plain = Undefended(model, tokenizer)
    said = iter(answer_prefilled(plain, asked, Generation(ANSWER)))
    return [next(said) if case.answer is None else case.answer for case in cases]


def begun(case, answer):
    """What an answer was made to begin with, and its rest.

    A search that reached its target is judged as a prefill of it: a refusal can follow.
    """
    if "loss" in case.details and answer.startswith(PREFILL):
        return PREFILL, answer.removeprefix(PREFILL)
    return case.prefill, answer


def row(weights, attack, cases, answers, natural, seconds):
    prefills, rests = zip(*map(begun, cases, answers), strict=True)
    found = count(outcomes(rests, prefills=prefills, perplexities=natural))
    wanted = np.mean([answer.lstrip().startswith(PREFILL) for answer in answers])
    ends = [(one.details["first_loss"], one.details["loss"]) for one in cases
            if "loss" in one.details]  # fmt: skip
    loss = " to ".join(f"{end:.2f}" for end in np.mean(ends, axis=0)) if ends else ""
    steps = [case.details["steps"] for case in cases if "steps" in case.details]
    complied = found.complied
    cells = (
        weights,
        attack,
        f"{np.mean(steps):.0f}" if steps else "",
        f"{complied.value:.0%} [{complied.low:.0%}, {complied.high:.0%}]",
        f"{found.refused.value:.0%}",
        f"{found.broken.value:.0%}",
        f"{wanted:.0%}",
        loss,
        f"{seconds / len(cases):.1f}",
    )
    print(f"| {' | '.join(cells)} |", flush=True)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("intervention", nargs="?", type=Path)
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--requests", type=int, default=12)
    parser.add_argument("--base-requests", type=int)
    parser.add_argument("--attacks", default="direct,prefill,gcg,relaxed,embedding")
    parser.add_argument("--num-steps", type=int, default=50)
    parser.add_argument("--search-width", type=int, default=64)
    parser.add_argument("--topk", type=int, default=256)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--early-stop", action="store_true")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="auto")
    given = parser.parse_args()
    model, tokenizer = models.load(given.model, device=given.device, dtype=given.dtype)
    harmful = data.harmful_prompts("held_out")
    requests = [Request(f"held out {n}", p.text) for n, p in enumerate(harmful)]
    fewer = given.requests if given.base_requests is None else given.base_requests
    states = {"base": (nullcontext(), requests[:fewer])} if fewer else {}
    if given.intervention is not None:
        found = Intervention.load(given.intervention)
        changed = found.applied(model), requests[: given.requests]
        states[f"with {found.digest[:8]}"] = changed
    if given.out is not None:
        given.out.mkdir(parents=True, exist_ok=True)
    console = Console(sys.stderr)
    known = named_attacks(model, tokenizer, given)
    print(f"| {' | '.join(HEAD)} |\n| --- | --- |{' ---: |' * (len(HEAD) - 2)}")
    for weights, (applied, asked) in states.items():
        texts = [request.text for request in asked]
        results = []
        with applied:
            for name in given.attacks.split(","):
                attack = known[name]
                path = given.out and given.out / f"{name}-{weights[-8:]}.json"
                begun = perf_counter()
                cases = run_attack(attack, asked, path=path, progress=console)
                seconds = perf_counter() - begun
                answers = answered(model, tokenizer, cases)
                results.append((attack.name, cases, answers, seconds))
        for name, cases, answers, seconds in results:
            # The base judges fluency, whatever weights gave the answer.
            whole = [c.prefill + a for c, a in zip(cases, answers, strict=True)]
            natural = perplexities(model, tokenizer, texts, whole)
            row(weights, name, cases, answers, natural, seconds)


if __name__ == "__main__":
    main()
