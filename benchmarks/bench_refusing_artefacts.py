# SPDX-License-Identifier: Apache-2.0
"""What is left of an intervention that refuses in each form that it is shipped in.

Every form is written, loaded by the library that it is meant for and asked the same
held-out requests of the package: shares of greedy answers that refuse, with Wilson
intervals at 95%, and by how many nats a token the base model's own answers became less
likely, which is what `arr` is after where requests are harmful, and drift elsewhere.
Needs peft, and for the last row llama-cpp-python and the .gguf file that the base was
converted from.

    python benchmarks/bench_refusing_artefacts.py FILE.safetensors [BASE.gguf]
"""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import argparse
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import peft
import torch

from cintervene import Intervention, data, export, models
from cintervene.evaluate import judge_refusal, wilson
from cintervene.prompts.chat import generate, render

TOKENS = 32
KINDS = {
    "harmful": data.harmful_prompts,
    "borderline": data.borderline_prompts,
    "everyday": data.benign_prompts,
}
# Every how many-th request; llama.cpp answers one at a time.
STEP, STEP_ALONE = 1, 4


class InTorch:
    """A model of transformers, perhaps in peft's hands."""

    def __init__(self, model, tokenizer):
        self.model, self.tokenizer = model, tokenizer

    def answers(self, prompts):
        return generate(self.model, self.tokenizer, prompts, TOKENS)

    def log_probabilities(self, ids):
        with torch.inference_mode():
            return self.model(input_ids=torch.tensor([ids])).logits[0].log_softmax(-1)


class InLlamaCpp:
    """The quantised file in llama.cpp, perhaps with an adapter."""

    def __init__(self, path, tokenizer, adapter=None):
        import llama_cpp

        self.end = tokenizer.eos_token_id
        self.model = llama_cpp.Llama(
            str(path), n_ctx=1024, logits_all=True, verbose=False, lora_path=adapter
        )

    def answers(self, prompts):
        return [self._answer(list(one)) for one in prompts]

    def _answer(self, prompt):
        self.model.reset()
        answer = []
        for token in self.model.generate(prompt, temp=0.0, repeat_penalty=1.0):
            answer.append(token)
            if token == self.end or len(answer) == TOKENS:
                return answer
        return answer

    def log_probabilities(self, ids):
        self.model.reset()
        self.model.eval(list(ids))
        scores = torch.from_numpy(np.array(self.model.scores[: len(ids)]))
        return scores.log_softmax(-1)


def nats(run, prompt, answer):
    """Negative log probability a token of an answer."""
    table = run.log_probabilities([*prompt, *answer])[len(prompt) - 1 : -1]
    return -float(table[range(len(answer)), answer].mean())


class Yardstick:
    """Requests, and the base model's answers to them."""

    def __init__(self, base, tokenizer, step):
        self.tokenizer = tokenizer
        self.prompts = {
            kind: [render(tokenizer, one.text) for one in read("held_out")[::step]]
            for kind, read in KINDS.items()
        }
        self.said = {kind: base.answers(some) for kind, some in self.prompts.items()}
        self.before = self._nats(base)

    def _nats(self, run):
        return {
            kind: np.mean(
                [nats(run, *one) for one in zip(some, self.said[kind], strict=True)]
            )
            for kind, some in self.prompts.items()
        }

    def row(self, name, run):
        found = []
        after = self._nats(run)
        for kind, some in self.prompts.items():
            texts = [
                self.tokenizer.decode(one, skip_special_tokens=True)
                for one in run.answers(some)
            ]
            rate = wilson(sum(map(judge_refusal, texts)), len(texts))
            rise = after[kind] - self.before[kind]
            found.append(
                f"{kind} {rate.value:4.0%} [{rate.low:3.0%}, {rate.high:4.0%}] of "
                f"{len(texts)}, {rise:+.3f} nats"
            )
        print(f"{name:32} " + "; ".join(found), flush=True)


def main(file, gguf):
    change = Intervention.load(file)
    model, tokenizer = models.load(change.model)
    yardstick = Yardstick(InTorch(model, tokenizer), tokenizer, STEP)
    yardstick.row("base", InTorch(model, tokenizer))
    with TemporaryDirectory() as work:
        work = Path(work)
        with change.applied(model):
            yardstick.row("Intervention.apply", InTorch(model, tokenizer))
        model.save_pretrained(work / "base")
        tokenizer.save_pretrained(work / "base")
        made = export.checkpoint(change, work / "base", work / "merged")
        merged, _ = models.load(made.path)
        yardstick.row("checkpoint", InTorch(merged, tokenizer))
        for dtype in ("float32", "bfloat16"):
            made = export.lora(change, work / dtype, dtype=dtype)
            base, _ = models.load(change.model)
            adapted = peft.PeftModel.from_pretrained(base, made.path)
            yardstick.row(f"LoRA in peft, {dtype}", InTorch(adapted, tokenizer))
        if gguf:
            run = partial(InLlamaCpp, gguf, tokenizer)
            base = run()
            yardstick = Yardstick(base, tokenizer, STEP_ALONE)
            yardstick.row("base in llama.cpp", base)
            made = export.gguf(change, work / "gguf", gguf, dtype="float32")
            adapter = str(made.path / "adapter.gguf")
            yardstick.row("GGUF LoRA in llama.cpp", run(adapter))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file", metavar="FILE.safetensors")
    parser.add_argument("gguf", nargs="?", metavar="BASE.gguf")
    main(**vars(parser.parse_args()))
