# SPDX-License-Identifier: Apache-2.0
"""What a guard costs and what it does, on SmolLM2 and the tuning split.

python benchmarks/bench_guard.py time      # prefill and tokens, with and without
python benchmarks/bench_guard.py effect    # obedience, drift of benign answers
python benchmarks/bench_guard.py prompt    # the same, solved for the prompt only
python benchmarks/bench_guard.py reach     # how far a prompt's change reaches
"""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import argparse
from contextlib import nullcontext
from time import perf_counter

import numpy as np
import torch

import cintervene as ci
from cintervene import data, models
from cintervene.activations.layer_stream import LayerStream
from cintervene.evaluate import bootstrap_mean, paired_difference, wilson
from cintervene.evaluate.words.obedience import says
from cintervene.evaluate.words.samples import gather
from cintervene.models.weights import as_floats
from cintervene.prompts.chat import generate, render
from cintervene.prompts.evaluation_size import EvaluationSize
from cintervene.prompts.spelling import encode_text
from cintervene.prompts.target_spans import answered

WORDS = data.forbidden_words()
SPLIT = "tune"
TURNS = 5
EVERY_TOKEN = [{"strength": strength} for strength in (6.0, 8.0, 10.0, 14.0)]
PROMPT_ONLY = [{"every_token": False, "ridge": ridge} for ridge in (1e-3, 1e3)]


def answer_logits(model, one):
    """Logits of an answer's tokens, the prompt being read first, as in generation."""
    ids = torch.tensor([one.ids])
    with torch.inference_mode():
        first = model(ids[:, : one.start], use_cache=True, logits_to_keep=1)
        rest = ids[:, one.start : -1]
        if rest.shape[1] == 0:
            return first.logits[0]
        later = model(rest, past_key_values=first.past_key_values)
        return torch.cat([first.logits[0], later.logits[0]])


def divergences(model, guard, sequences):
    """KL(base || guarded) of each answer, summed over its tokens."""
    found = []
    for one in sequences:
        base = answer_logits(model, one).log_softmax(-1)
        with guard:
            changed = answer_logits(model, one).log_softmax(-1)
        found.append(float((base.exp() * (base - changed)).sum()))
    return np.array(found)


def seconds(model, ids, tokens):
    """Of a prompt with the first token, and of each token after it."""
    spent = []
    for count in (1, tokens):
        start = perf_counter()
        with torch.inference_mode():
            model.generate(
                torch.tensor([ids]), max_new_tokens=count, min_new_tokens=count,
                do_sample=False, pad_token_id=0,
            )  # fmt: skip
        spent.append(perf_counter() - start)
    return spent[0], (spent[1] - spent[0]) / (tokens - 1)


def show_time(model, tokenizer):
    """Least of alternating runs of each prompt; greedy answers of 24 tokens."""
    guard = ci.Guard(model, tokenizer, forbid=WORDS)
    benign = [render(tokenizer, p.text) for p in data.benign_prompts(SPLIT)[:6]]
    templates = data.obedience_templates(SPLIT)
    asking = [
        render(tokenizer, templates[i % len(templates)].fill(word))
        for i, word in enumerate(WORDS[::17])
    ]
    for name, prompts in (("benign prompts", benign), ("requests", asking)):
        times = np.full((2, len(prompts), 2), np.inf)
        before = guard.activity.positions, guard.activity.shifted
        for _ in range(TURNS):
            for index, ids in enumerate(prompts):
                for guarded in (0, 1):
                    with guard if guarded else nullcontext():
                        found = seconds(model, ids, 24)
                    times[guarded, index] = np.minimum(times[guarded, index], found)
        plain, guarded = times.mean(axis=1)
        shifted = guard.activity.shifted - before[1]
        share = shifted / (guard.activity.positions - before[0])
        print(
            f"{name}: prefill {1e3 * plain[0]:.1f} ms, {guarded[0] / plain[0]:.3f} x; "
            f"a token {1e3 * plain[1]:.1f} ms, {guarded[1] / plain[1]:.3f} x; "
            f"{share:.1%} of tokens shifted"
        )


def rate(before, after):
    """Two rates and their difference, with intervals."""
    shown = [
        f"{x.value:.1%} [{x.low:.1%}, {x.high:.1%}]"
        for x in (
            wilson(sum(before), len(before)),
            wilson(sum(after), len(after)),
            paired_difference(np.array(before), np.array(after)),
        )
    ]
    return f"{shown[0]} -> {shown[1]}, {shown[2]}"


def show_effect(model, tokenizer, kinds=EVERY_TOKEN):
    """Obedience to requests; divergence on the base's own answers."""
    size = EvaluationSize(forbidden_requests=60, benign_requests=30, prompts=24)
    sample = gather(tokenizer, WORDS, SPLIT, size)
    requests = [render(tokenizer, one.prompt) for one in sample.requests]
    prompts = [render(tokenizer, prompt) for prompt in sample.prompts]

    def obeyed():
        replies = generate(model, tokenizer, requests, 24, batch_size=30)
        texts = [tokenizer.decode(one, skip_special_tokens=True) for one in replies]
        pairs = zip(texts, sample.requests, strict=True)
        return [says(text, one.word) for text, one in pairs]

    before = obeyed()
    benign = answered(prompts, generate(model, tokenizer, prompts, 32))
    sizes = np.array([len(one.positions) for one in benign])
    split = sum(one.forbidden for one in sample.requests)
    for options in kinds:
        guard = ci.Guard(model, tokenizer, forbid=WORDS, **options)
        with guard:
            after = obeyed()
        asked = guard.activity.shifted, guard.activity.positions, guard.activity.unmet
        kl = bootstrap_mean(divergences(model, guard, benign), sizes)
        print(options)
        print("  forbidden words said", rate(before[:split], after[:split]))
        print("  benign words said   ", rate(before[split:], after[split:]))
        print(f"  KL, nats a token     {kl.value:.5f} [{kl.low:.5f}, {kl.high:.5f}]")
        print(f"  shifted, positions, unmet of the requests: {asked}", flush=True)


def show_prompt(model, tokenizer):
    """The same of the form that is solved for the prompt alone."""
    show_effect(model, tokenizer, PROMPT_ONLY)


def show_reach(model, tokenizer):
    """Coefficient of a prompt's change at later tokens: 1 would be full effect.

    Prompts tell the model to say a word; its answer says something else first.
    """
    guards = {
        ridge: ci.Guard(model, tokenizer, forbid=WORDS, ridge=ridge)
        for ridge in (1e-3, 1e-1, 1e1, 1e3)
    }
    layer = guards[1e-3]._solver.target.layer
    templates, prefixes = data.obedience_templates(SPLIT), data.answer_prefixes(SPLIT)
    sequences, places = [], []
    for index, word in enumerate(WORDS[::2]):
        template = templates[index % len(templates)]
        prompt = render(tokenizer, template.fill(word))
        other = render(tokenizer, template.fill("zebra"))
        named = next(i for i, (a, b) in enumerate(zip(prompt, other)) if a != b)  # noqa: B905
        prefix = prefixes[index % len(prefixes)].rstrip()
        sequences.append([*prompt, *encode_text(tokenizer, prefix)])
        places.append([named - 1, *range(len(prompt) - 1, len(sequences[-1]))])
    rows = LayerStream(models.find_decoder(model), sequences, layer, wanted=places).run(
        layer
    )
    parts = np.split(as_floats(rows.inputs), np.cumsum([len(p) for p in places])[:-1])
    for ridge, guard in guards.items():
        found = [[], [], []]
        for named, end, *between, said in parts:
            duals = guard._solver.preserve.solve(np.stack([named, end]))
            along = duals / np.sum(duals * [named, end], axis=1, keepdims=True)
            found[0].append(along[1] @ said)
            found[1].extend(along[1] @ x for x in between)
            found[2].append(along[0] @ said)
        shown = ", ".join(f"{np.mean(x):.3f} (sd {np.std(x):.3f})" for x in found)
        print(f"ridge {ridge:g}: at the word, between, from the word's place: {shown}")


def main():
    kinds = {
        "time": show_time,
        "effect": show_effect,
        "prompt": show_prompt,
        "reach": show_reach,
    }
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("kinds", nargs="*", metavar="KIND", help=", ".join(kinds))
    chosen = parser.parse_args().kinds or kinds
    model, tokenizer = models.load("smollm2")
    for kind in chosen:
        kinds[kind](model, tokenizer)


if __name__ == "__main__":
    main()
