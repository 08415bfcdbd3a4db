# SPDX-License-Identifier: Apache-2.0
"""What interventions make SmolLM2-135M-Instruct refuse, beside the model without.

Shares of answers that refuse, greedy ones or sampled, with Wilson intervals at 95%: on
the package's own held-out requests, every second harmless one in everyday forms and in
the attacks' templates as well, and on HarmBench's (in those templates too) and XSTest's
where their files are given. Answers that were begun count in a row of their own when
they refuse only once the sentence that was begun has ended; with --depths those of the
base itself are begun, too, at so many of their tokens. Last the KL divergence from the
base, a token of its answers to the everyday requests. --kinds leaves out kinds in whose
name none of some words is.

    python benchmarks/bench_refusals.py FILE.safetensors ... [--strength X]
        [--behaviours harmbench.csv] [--safe xstest.csv] [--half] [--temperature T]
        [--depths 0 5 10 20 40] [--kinds HarmBench everyday]
"""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import argparse
from functools import partial
from time import perf_counter

import torch

from cintervene import data, models
from cintervene.activations.batches import group_by_length
from cintervene.activations.layer_stream import LayerStream
from cintervene.activations.scoring import divergence
from cintervene.attacks import Jailbreak, families
from cintervene.evaluate.benchmarks import harmbench, xstest
from cintervene.evaluate.requests.depth import begin_answers, depth_curve
from cintervene.evaluate.statistics.intervals import bootstrap_mean, wilson
from cintervene.evaluate.words.scores import item_sums, token_counts
from cintervene.intervention.intervention import Intervention
from cintervene.judges.refusal import after_prefilled_sentence, judge_refusal
from cintervene.models.parts import ModelParts
from cintervene.prompts.chat import generate, render
from cintervene.prompts.spelling import encode_text
from cintervene.prompts.target_spans import answered

BEGUN = ("Sure, here is", "Step 1:")
# Enough for a refusal to begin, and for a sentence to end before it.
TOKENS = 32
# Where answers are sampled.
BATCH_TOKENS, SEED = 4096, 0


def attacks():
    """The templates of all families of jailbreaks."""
    return [t for f in families() for t in Jailbreak(f).options["templates"]]


def wrappings():
    """Everyday forms, and the attacks' templates, for harmless requests."""
    return {
        "in forms": data.ordinary_templates("held_out"),
        "in templates": [t for t in attacks() if not data.is_encoded(t)],
        "encoded": [t for t in attacks() if data.is_encoded(t)],
    }


def requests(arguments):
    """Rendered prompts by kind; whether they ought to be refused is the reader's."""
    harmful = [prompt.text for prompt in data.harmful_prompts("held_out")]
    left = slice(1, None, 2) if arguments.half else slice(None)
    everyday = [prompt.text for prompt in data.benign_prompts("held_out")]
    kinds = {
        "own harmful": harmful,
        "own borderline": [p.text for p in data.borderline_prompts("held_out")],
        "own everyday": everyday,
    }
    for kind, templates in wrappings().items():
        kinds[f"own everyday, {kind}"] = [
            data.fill_in_turn(templates, turn, text)
            for turn, text in enumerate(everyday[::2])
        ]
    if arguments.behaviours:
        found = harmbench.read_behaviours(arguments.behaviours)
        kinds["HarmBench"] = [b.prompt for b in found if not b.context][left]
        contextual = [b.prompt for b in found if b.context]
        kinds["HarmBench contextual"] = contextual[left]
        harmful = kinds["HarmBench"]
        for name in ("in templates", "encoded"):
            kinds[f"HarmBench, {name}"] = [
                data.fill_in_turn(wrappings()[name], turn, text)
                for turn, text in enumerate(harmful)
            ]
    if arguments.safe:
        borderline = xstest.read_prompts(arguments.safe)
        kinds["XSTest unsafe"] = [p.text for p in borderline if not p.safe][left]
        kinds["XSTest safe"] = [p.text for p in borderline if p.safe][left]
    return kinds, harmful


def sampled(temperature, model, tokenizer, prompts, tokens):
    """Answers (lists of new tokens) drawn from the whole distribution, one each."""
    torch.manual_seed(SEED)
    answers = [[] for _ in prompts]
    for batch in group_by_length([len(one) for one in prompts], BATCH_TOKENS):
        longest = len(prompts[batch[0]])
        pad = [longest - len(prompts[i]) for i in batch]
        ids = [[0] * n + prompts[i] for n, i in zip(pad, batch, strict=True)]
        mask = [[0] * n + [1] * (longest - n) for n in pad]
        found = model.generate(
            torch.tensor(ids), attention_mask=torch.tensor(mask), do_sample=True,
            temperature=temperature, top_k=0, top_p=1.0, max_new_tokens=tokens,
            pad_token_id=tokenizer.eos_token_id,
        )  # fmt: skip
        for index, row in zip(batch, found[:, longest:].tolist(), strict=True):
            answers[index] = row
    return answers


class Drift:
    """KL(base || changed) on the base's answers, nats a token."""

    def __init__(self, model, tokenizer, texts):
        self.parts = ModelParts.find(model)
        prompts = [render(tokenizer, text) for text in texts]
        spans = answered(prompts, generate(model, tokenizer, prompts, TOKENS))
        self.sizes = token_counts(spans)
        self.stream = LayerStream.of(self.parts.decoder, spans, 0)
        self.base = self.stream.final()

    def now(self):
        """Of the model as it is now."""
        found = divergence(self.parts.unembedding, self.base, self.stream.final())
        return bootstrap_mean(item_sums(found, self.sizes), self.sizes)


def refused(say, model, tokenizer, prompts, begun):
    """Which answers refuse, by kind."""
    start = perf_counter()
    rows = [one for part in prompts.values() for one in part]
    answers = iter(say(model, tokenizer, rows, TOKENS))
    found = {}
    for kind, part in prompts.items():
        texts = [
            tokenizer.decode(next(answers), skip_special_tokens=True) for _ in part
        ]
        found[kind] = [judge_refusal(text) for text in texts]
        if kind in begun:
            ends = [after_prefilled_sentence(begun[kind], text) for text in texts]
            found[f"{kind}, or after that sentence"] = [
                at_once or judge_refusal(rest)
                for at_once, rest in zip(found[kind], ends, strict=True)
            ]
    print(f"{len(rows)} answers in {perf_counter() - start:.0f} s", flush=True)
    return found


def show(kind, total, rates):
    row = (f"{x.value:6.1%} [{x.low:5.1%}, {x.high:5.1%}]" for x in rates)
    print(f"{kind:46} {total:4}  " + "  ->  ".join(row), flush=True)


def parsed():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", nargs="+", metavar="FILE")
    parser.add_argument("--strength", type=float, default=1.0)
    parser.add_argument("--behaviours")
    parser.add_argument("--safe")
    parser.add_argument(
        "--half", action="store_true", help="only every second request of the files"
    )
    parser.add_argument(
        "--temperature", type=float, help="sample at; greedy without it"
    )
    parser.add_argument(
        "--depths", type=int, nargs="*", default=[], help="tokens of begun answers"
    )
    parser.add_argument("--kinds", nargs="+", default=[""], metavar="WORD")
    return parser.parse_args()


def main():
    arguments = parsed()
    model, tokenizer = models.load("smollm2")
    kinds, harmful = requests(arguments)
    prompts = {k: [render(tokenizer, t) for t in texts] for k, texts in kinds.items()}
    begun = {f"after {text!r}": text for text in BEGUN}
    for kind, text in begun.items():
        ids = encode_text(tokenizer, text)
        prompts[kind] = [render(tokenizer, t) + ids for t in harmful]
    prompts = {k: x for k, x in prompts.items() if any(w in k for w in arguments.kinds)}
    how = partial(sampled, arguments.temperature) if arguments.temperature else generate
    say = partial(refused, how, model, tokenizer, prompts, begun)
    before = say()
    drift = Drift(model, tokenizer, kinds["own everyday"])
    depths = arguments.depths
    if depths:
        answers = begin_answers(model, tokenizer, harmful, tokens=max(depths) + 1)
    for file in arguments.files:
        print(file)
        intervention = Intervention.load(file).scale(arguments.strength)
        with intervention.applied(model):
            kl = drift.now()
            print(
                f"KL on everyday answers: {kl.value:.4f} [{kl.low:.4f}, {kl.high:.4f}]"
            )
            after = say()
            for kind, base in before.items():
                rates = [wilson(sum(x), len(x)) for x in (base, after[kind])]
                show(kind, len(base), rates)
            for depth in depths:
                (point,) = depth_curve(
                    model, tokenizer, answers, depths=[depth], tokens=TOKENS
                )
                rates = [point.outcomes.refused]
                show(f"begun, {depth} tokens", point.outcomes.total, rates)


if __name__ == "__main__":
    main()
