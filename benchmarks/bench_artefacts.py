# SPDX-License-Identifier: Apache-2.0
"""What is left of an intervention in each form that it is shipped in.

Every form is written, loaded by the library that it is meant for and asked for the same
answers, one in so many of those that `cintervene evaluate` scores on held-out data:
perplexity of forbidden and of benign words, after over before. Needs peft, and for the
last row llama-cpp-python and the .gguf file that the base was converted from.

    python benchmarks/bench_artefacts.py demo/intervention.safetensors [BASE.gguf]
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

from cintervene import Intervention, evaluate, export, models
from cintervene.evaluate.words.samples import gather

STEP = 12
GROUPS = ("forbidden", "benign")


def in_torch(model, ids):
    with torch.inference_mode():
        return model(input_ids=torch.tensor([ids])).logits[0].double()


def in_llama_cpp(model, ids):
    model.reset()
    model.eval(list(ids))
    return torch.from_numpy(np.array(model.scores[: len(ids)])).double()


def scores(logits, spans):
    """Sums of negative log-likelihoods of the words, answer by answer."""
    found = []
    for one in spans:
        table = logits(one.ids).log_softmax(-1)
        rows = list(one.positions)
        found.append(-float(table[rows, list(one.targets)].sum()))
    return np.array(found)


def row(name, before, after, sizes):
    ratios = [
        np.exp((after[group].sum() - before[group].sum()) / sizes[group])
        for group in GROUPS
    ]
    print(f"{name:44}" + "".join(f"{ratio:12.3f} x" for ratio in ratios), flush=True)


def main(file, gguf):
    change = Intervention.load(file)
    model, tokenizer = models.load(change.model)
    sample = gather(
        tokenizer, change.options["forbid"], "held_out", evaluate.EvaluationSize()
    )
    chosen = {group: sample.word_spans[group][::STEP] for group in GROUPS}
    sizes = {g: sum(len(u.targets) for u in us) for g, us in chosen.items()}
    print(" " * 44 + "".join(f"{g:>14}" for g in GROUPS))
    print({group: len(us) for group, us in chosen.items()}, "answers")

    def measure(run, model):
        return {g: scores(partial(run, model), us) for g, us in chosen.items()}

    before = measure(in_torch, model)
    with TemporaryDirectory() as work:
        work = Path(work)
        with change.applied(model):
            row("Intervention.apply", before, measure(in_torch, model), sizes)
        attached = export.AdapterIntervention(change)
        with attached.applied(model):
            row("AdapterIntervention", before, measure(in_torch, model), sizes)
        source = work / "base"
        model.save_pretrained(source)
        tokenizer.save_pretrained(source)
        made = export.checkpoint(change, source, work / "merged")
        merged, _ = models.load(made.path)
        row("checkpoint", before, measure(in_torch, merged), sizes)
        for dtype in ("float32", "bfloat16"):
            made = export.lora(change, work / dtype, dtype=dtype)
            base, _ = models.load(change.model)
            adapted = peft.PeftModel.from_pretrained(base, made.path)
            name = f"LoRA in peft, {dtype}, off by {max(made.errors.values()):.0e}"
            row(name, before, measure(in_torch, adapted), sizes)
        if gguf:
            import llama_cpp

            load = partial(
                llama_cpp.Llama, gguf, n_ctx=512, logits_all=True, verbose=False
            )
            before = measure(in_llama_cpp, load())
            for dtype in ("float32", "float16"):
                made = export.gguf(change, work / f"gguf-{dtype}", gguf, dtype=dtype)
                adapted = load(lora_path=str(made.path / "adapter.gguf"))
                after = measure(in_llama_cpp, adapted)
                row(f"GGUF LoRA in llama.cpp, {dtype}", before, after, sizes)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file", metavar="FILE.safetensors")
    parser.add_argument("gguf", nargs="?", metavar="BASE.gguf")
    main(**vars(parser.parse_args()))
