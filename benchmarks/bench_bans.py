# SPDX-License-Identifier: Apache-2.0
"""Bans while decoding, beside `bad_words_ids`: words said, answers changed, and cost.

python benchmarks/bench_bans.py effect    # requests to say 100 words, on SmolLM2
python benchmarks/bench_bans.py cost      # CPU time of a token, of a ban and its making
"""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import argparse
import re
from time import process_time

import torch
from transformers import NoBadWordsLogitsProcessor

from cintervene import data, models
from cintervene.baselines.bad_words import spellings
from cintervene.evaluate import wilson
from cintervene.evaluate.words.obedience import says
from cintervene.evaluate.words.samples import gather
from cintervene.prompts.chat import render
from cintervene.prompts.evaluation_size import EvaluationSize
from cintervene.serve import Vocabulary, WordBan

WORDS = data.forbidden_words()
SPLIT = "held_out"
SIZE = EvaluationSize(forbidden_requests=120, benign_requests=40, prompts=24)
BATCH, TOKENS = 20, 24


def as_given(tokenizer):
    """The words as transformers' documentation tokenizes them."""
    return tokenizer(WORDS, add_special_tokens=False).input_ids


def with_space(tokenizer):
    """The same and behind a space."""
    spaced = [f" {word}" for word in WORDS]
    return as_given(tokenizer) + tokenizer(spaced, add_special_tokens=False).input_ids


def every_form(tokenizer):
    """In lower case, capitalised, in capitals, with a space and without."""
    return [list(one) for one in spellings(tokenizer, WORDS)]


LISTS = {
    "`bad_words_ids`, words as given": as_given,
    "`bad_words_ids`, also behind a space": with_space,
    "`bad_words_ids`, in every case too": every_form,
}


def arms(tokenizer):
    """What is passed to `generate`, by name."""
    yield "none", {}
    for name, make in LISTS.items():
        yield name, {"bad_words_ids": make(tokenizer)}
    yield "`WordBan`", {"logits_processor": [WordBan(tokenizer, WORDS)]}


def answers(model, tokenizer, prompts, options):
    """Greedy answers to rendered prompts."""
    found = []
    for start in range(0, len(prompts), BATCH):
        part = {"input_ids": prompts[start : start + BATCH]}
        batch = tokenizer.pad(part, padding_side="left", return_tensors="pt")
        with torch.inference_mode():
            made = model.generate(
                **batch, max_new_tokens=TOKENS, do_sample=False,
                pad_token_id=tokenizer.pad_token_id, **options,
            )  # fmt: skip
        new = made[:, batch.input_ids.shape[1] :]
        found += tokenizer.batch_decode(new, skip_special_tokens=True)
    return found


def rate(told):
    one = wilson(sum(told), len(told))
    return f"{one.value:.1%} [{one.low:.1%}, {one.high:.1%}]"


def show_effect():
    """Words said on request; other answers that are no longer the same."""
    model, tokenizer = models.load("smollm2")
    sample = gather(tokenizer, WORDS, SPLIT, SIZE)
    texts = [*(one.prompt for one in sample.requests), *sample.prompts]
    prompts = [render(tokenizer, text) for text in texts]
    asked = sum(one.forbidden for one in sample.requests)
    base = None
    for name, options in arms(tokenizer):
        found = answers(model, tokenizer, prompts, options)
        base = base or found
        pairs = list(zip(found, sample.requests, strict=False))[:asked]
        said = [says(text, one.word) for text, one in pairs]
        any_of = [any(says(text, word) for word in WORDS) for text, _ in pairs]
        within = [
            re.sub(r"\s", "", one.word).lower() in re.sub(r"\s", "", text).lower()
            for text, one in pairs
        ]
        changed = [a != b for a, b in zip(found[asked:], base[asked:], strict=True)]
        print(f"| {name} | {rate(said)} | {rate(any_of)} | {rate(within)} | "
              f"{rate(changed)} |", flush=True)  # fmt: skip


def spent(call, turns):
    """Least CPU seconds of a few turns."""
    times = []
    for _ in range(turns):
        start = process_time()
        call()
        times.append(process_time() - start)
    return min(times)


def show_cost():
    """CPU time of one row of logits at each token of a text, and of the making."""
    _, tokenizer = models.load("smollm2")
    text = " ".join(one.text for one in data.benign_texts(SPLIT)[:8])
    ids = torch.tensor(tokenizer(text).input_ids[:400])[None]
    scores = torch.zeros(1, len(tokenizer))
    vocabulary = Vocabulary.of(tokenizer)
    WordBan(vocabulary, WORDS[:1], ["a"])
    patterns = [rf"(?i)\b{re.escape(word)}(s|ed|ing)?\b" for word in WORDS]
    kinds = {
        "`bad_words_ids`, in every case too": lambda: NoBadWordsLogitsProcessor(
            every_form(tokenizer)
        ),
        "`WordBan`, 100 words": lambda: WordBan(vocabulary, WORDS),
        "`WordBan`, 100 patterns": lambda: WordBan(vocabulary, [], patterns),
        "`WordBan`, both": lambda: WordBan(vocabulary, WORDS, patterns),
    }
    print(f"vocabulary: {spent(lambda: every_order(tokenizer), 3):.2f} s")
    for name, make in kinds.items():
        made = make()

        def process(made=made):
            for end in range(1, ids.shape[1]):
                made(ids[:, :end], scores)

        token = spent(process, 3) / (ids.shape[1] - 1)
        print(f"| {name} | {spent(make, 3):.2f} s | {1e3 * token:.2f} ms |", flush=True)


def every_order(tokenizer):
    """What bans of one tokenizer share."""
    vocabulary = Vocabulary.of(tokenizer)
    return vocabulary.whole, vocabulary.within, vocabulary.letters


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["effect", "cost"])
    {"effect": show_effect, "cost": show_cost}[parser.parse_args().what]()
