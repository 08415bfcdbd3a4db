# SPDX-License-Identifier: Apache-2.0
"""How often `ci.defend` reads a model that is on a disk.

A small random model of many layers, SmolLM2's tokenizer and the package's own words and
texts; all parameters are on a disk, and accelerate brings them in. Counted are reads of
parameters, which are the same on any machine; in units of the decoder's layers, that is
bytes read over bytes of all, and for the layer that is read least and most. Seconds are
of the CPU, relative to those of the same model in memory: with widths this small they
are what accelerate does for each call, not what a disk takes.

    python benchmarks/bench_offload.py [default] [answers]

"answers" gives everyday answers, and texts that say the words, instead of having them
generated.
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import re
import tempfile
import time
from collections import Counter
from itertools import cycle

import accelerate
import torch
from accelerate.utils import OffloadedWeightsLoader
from small_models import small_model

import cintervene as ci
from cintervene import data, models

WORDS, LAYERS = 4, 16
LAYER = re.compile(r"layers\.(\d+)\.")
# By the name of a parameter: how often it was read, and its bytes.
COUNTS, SIZES = Counter(), {}


class Counting(OffloadedWeightsLoader):
    """Counts what is read."""

    def __getitem__(self, key):
        value = super().__getitem__(key)
        COUNTS[key] += 1
        SIZES[key] = value.nbytes
        return value


def deep_model(tokenizer):
    return small_model(tokenizer, LAYERS).bfloat16()


def on_disk(model, folder):
    """The model with all of it in a folder, and every read counted."""
    COUNTS.clear()
    model = accelerate.disk_offload(model, folder, execution_device="cpu")
    for module in model.modules():
        values = getattr(getattr(module, "_hf_hook", None), "weights_map", None)
        if values is not None:
            values.dataset.__class__ = Counting
    return model


def given(words):
    """Prompts with answers as somebody may have them."""
    prompts = [prompt.text for prompt in data.benign_prompts("train")[:250]]
    texts = cycle(one.text for one in data.benign_texts("train"))
    sayings = [
        (f"Tell me something of {word}.", f"What is said of {word} is soon told.")
        for word in words
    ]
    return [*zip(prompts, texts, strict=False), *sayings]


def seconds_of(model, tokenizer, options):
    begin = time.process_time()
    ci.defend(model, tokenizer, **options)
    return time.process_time() - begin


def report(kind, tokenizer):
    words = data.forbidden_words()[:WORDS]
    options = {"forbid": words}
    if kind == "answers":
        options["answers"] = given(words)
    with tempfile.TemporaryDirectory() as folder:
        away = seconds_of(on_disk(deep_model(tokenizer), folder), tokenizer, options)
    counts, sizes = dict(COUNTS), dict(SIZES)
    here = seconds_of(deep_model(tokenizer), tokenizer, options)
    of_layers, read, size = Counter(), 0, 0
    for name, count in counts.items():
        if found := LAYER.search(name):
            of_layers[int(found[1])] = max(of_layers[int(found[1])], count)
            read, size = read + count * sizes[name], size + sizes[name]
    print(
        f"{kind}: {read / size:.1f} times all layers; a layer "
        f"{min(of_layers.values())} to {max(of_layers.values())} times; CPU s "
        f"{away:.0f}, {away / here:.2f} times those in memory",
        flush=True,
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("kinds", nargs="*", default=["default", "answers"])
    torch.set_num_threads(1)
    _, tokenizer = models.load("smollm2")
    for kind in parser.parse_args().kinds:
        report(kind, tokenizer)


if __name__ == "__main__":
    main()
