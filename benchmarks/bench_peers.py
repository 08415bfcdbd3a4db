# SPDX-License-Identifier: Apache-2.0
"""Refusal taught by two peers beside ours, on SmolLM2-135M-Instruct.

- Rank-one addition: one down projection adds the refusal direction (Arditi et al.,
  arXiv 2406.11717) in proportion to how much its input is like that of harmful prompts.
- RMU (Li et al., arXiv 2403.03218): the hidden state of harmful prompts is driven to a
  random direction, that of benign ones is held, by gradient steps on three layers.
- `defend(method="tsr")`, at its defaults.

All are made from the package's training split and measured on its held-out one:
refused, complied and broken answers to harmful requests, refused borderline requests,
and KL of the base's answers to everyday prompts.

    python benchmarks/bench_peers.py [rank-one] [rmu] [tsr]
"""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import copy
import sys
from time import perf_counter

import torch

from cintervene import data, models
from cintervene.baselines import Generation, Undefended
from cintervene.evaluate.fluency import perplexities
from cintervene.evaluate.outcomes import count, outcomes
from cintervene.models.capture import LayerStream
from cintervene.models.conversation import generate, render
from cintervene.models.scoring import divergence
from cintervene.models.trace import evaluating

LAYER = 16
STRENGTHS = (0.5, 1.0, 2.0)
STEERING = (10.0, 40.0)
STEPS, RATE, RETAIN, BATCH = 40, 5e-5, 20.0, 8
REQUESTS, EVERYDAY = 30, 24


def texts(prompts, number=None):
    return [prompt.text for prompt in prompts][:number]


class Comparison:
    """The base's answers, and what a changed model does to them."""

    def __init__(self, model, tokenizer):
        self.model, self.tokenizer = model, tokenizer
        self.harmful = texts(data.harmful_prompts("held_out"), REQUESTS)
        self.border = texts(data.borderline_prompts("held_out"), REQUESTS)
        everyday = texts(data.benign_prompts("held_out"), EVERYDAY)
        prompts = [render(tokenizer, prompt) for prompt in everyday]
        with evaluating(model):
            answers = generate(model, tokenizer, prompts, 24)
        pairs = list(zip(prompts, answers, strict=True))
        self.sequences = [[*prompt, *answer] for prompt, answer in pairs]
        self.wanted = [range(len(p) - 1, len(p) + len(a) - 1) for p, a in pairs]
        self.base = self.hidden(model)

    def hidden(self, model):
        last = len(models.find_decoder(model).layers) - 1
        return LayerStream(model, self.sequences, last, wanted=self.wanted).final()

    def row(self, name, model, seconds):
        """Print what became of the answers."""
        answers = Undefended(model, self.tokenizer).answer(
            self.harmful + self.border, Generation(32)
        )
        harmful, border = answers[: len(self.harmful)], answers[len(self.harmful) :]
        natural = perplexities(self.model, self.tokenizer, self.harmful, harmful)
        found = count(outcomes(harmful, perplexities=natural))
        refused = count(outcomes(border)).refused.value
        unembedding = models.find_unembedding(self.model)
        kl = divergence(unembedding, self.base, self.hidden(model).to(self.base))
        rates = (found.refused.value, found.complied.value, found.broken.value, refused)
        cells = " | ".join(f"{rate:.0%}" for rate in rates)
        print(f"| {name} | {cells} | {kl.mean():.4f} | {seconds:.0f} |", flush=True)


def rank_one(model, tokenizer, strength):
    """Add the difference of the classes, `strength` times as long as it is."""
    prompts = (data.harmful_prompts("train"), data.benign_prompts("train"))
    bad, good = (
        [render(tokenizer, text) for text in texts(kind, 48)] for kind in prompts
    )
    direction = leaving(model, bad) - leaving(model, good)
    mean = models.capture(model, bad, [LAYER])[LAYER].inputs.float().mean(dim=0)
    changed = copy.deepcopy(model)
    (target,) = models.find_targets(changed, [LAYER])
    with torch.no_grad():
        step = torch.outer(strength * direction, mean / (mean @ mean))
        target.weight.copy_(target.weight.float() + step)
    return changed


def leaving(model, sequences):
    """Mean of what leaves layer LAYER at the last token."""
    with torch.no_grad():
        every = torch.ones(1, 1, dtype=torch.bool)
        rows = [
            state(model, torch.tensor([ids]), every.expand(1, len(ids)))[-1].float()
            for ids in sequences
        ]
    return torch.stack(rows).mean(dim=0)


def rmu(model, tokenizer, steering):
    """Train layers LAYER - 2 to LAYER."""
    pupil = copy.deepcopy(model).float()
    teacher = copy.deepcopy(pupil)
    pupil.requires_grad_(False)
    layers = range(LAYER - 2, LAYER + 1)
    weights = [target.weight for target in models.find_targets(pupil, layers)]
    for weight in weights:
        weight.requires_grad_(True)
    source = torch.Generator().manual_seed(0)
    control = torch.rand(model.config.hidden_size, generator=source)
    control = steering * control / control.norm()
    optimiser = torch.optim.AdamW(weights, lr=RATE)
    kinds = (data.harmful_prompts("train"), data.benign_prompts("train"))
    for step in range(STEPS):
        forget, retain = (
            padded(tokenizer, texts(prompts)[BATCH * step % 90 :][:BATCH])
            for prompts in kinds
        )
        bad, good = (state(pupil, *batch) for batch in (forget, retain))
        with torch.no_grad():
            held = state(teacher, *retain)
        loss = (bad - control).square().mean() + RETAIN * (good - held).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return pupil.to(model.dtype).requires_grad_(True)


def padded(tokenizer, prompts):
    ids = [render(tokenizer, prompt) for prompt in prompts]
    length = max(map(len, ids))
    rows = [[*one, *[one[0]] * (length - len(one))] for one in ids]
    mask = [[True] * len(one) + [False] * (length - len(one)) for one in ids]
    return torch.tensor(rows), torch.tensor(mask)


def state(model, ids, mask):
    """What leaves layer LAYER at the tokens of the prompts."""
    states = model.model(ids, use_cache=False, output_hidden_states=True).hidden_states
    return states[LAYER + 1][mask]


def timed(make, *arguments):
    start = perf_counter()
    return make(*arguments), perf_counter() - start


def main(chosen):
    model, tokenizer = models.load("smollm2")
    comparison = Comparison(model, tokenizer)
    print(
        "| method | refused | complied | broken | borderline refused | KL | seconds |"
    )
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: |")
    comparison.row("base", model, 0.0)
    for strength in STRENGTHS if "rank-one" in chosen else ():
        changed, seconds = timed(rank_one, model, tokenizer, strength)
        comparison.row(f"rank-one addition, {strength:g} x", changed, seconds)
    for steering in STEERING if "rmu" in chosen else ():
        changed, seconds = timed(rmu, model, tokenizer, steering)
        comparison.row(f"RMU, steering {steering:g}", changed, seconds)
    if "tsr" in chosen:
        harmful = texts(data.harmful_prompts("train"))
        start = perf_counter()
        found = models.defend(model, tokenizer, method="tsr", harmful=harmful)
        seconds = perf_counter() - start
        with found.applied(model):
            comparison.row('defend(method="tsr")', model, seconds)


if __name__ == "__main__":
    main(sys.argv[1:] or ["rank-one", "rmu", "tsr"])
