# SPDX-License-Identifier: Apache-2.0
"""How evenly the work of `ci.defend` is dealt out, by counting it.

Processes with a small random model, SmolLM2's tokenizer and the package's own words and
texts share the work; each counts the tokens that pass a decoder layer, padding
included, and seconds of its CPU. The least that W ranks can have each is 1 / W of what
one has alone; prefixes and the probe that each runs for itself come on top. Tokens are
exact, and the same on any machine; they say nothing of how long messages take.

    python benchmarks/bench_ranks.py [WORLDS ...] [--methods words tsr arr gate]
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import json
import socket
import time
from functools import partial

import torch
from small_models import counted, small_model
from torch import distributed

import cintervene as ci
from cintervene import data, models
from cintervene.methods import registry

WORDS, REQUESTS = 12, 60


def options_of(method):
    """Twelve words, or sixty requests to a method in its small budget."""
    if method == "words":
        return {"forbid": data.forbidden_words()[:WORDS], "calibration": "small"}
    harmful = [one.text for one in data.harmful_prompts("train")[:REQUESTS]]
    small = registry.find_method(method).config.budgets["small"]
    layers = [3] if method == "gate" else [1, 2, 3]
    return {"method": method, "harmful": harmful, "layers": layers, **small}


def work(make, tokenizer, method, rank, world, port, place):
    model = make(tokenizer)
    counts = counted(model)
    if world > 1:
        distributed.init_process_group(
            "gloo", f"tcp://127.0.0.1:{port}", rank=rank, world_size=world
        )
    with ci.joined():
        change = ci.defend(model, tokenizer, **options_of(method))
    result = {
        "digest": change.digest, "tokens": counts[0], "seconds": time.process_time(),
    }  # fmt: skip
    place.write(json.dumps(result) + "\n")
    place.flush()


def run(share, world):
    """What each of the ranks did."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port = one.getsockname()[1]
    pipes = [os.pipe() for _ in range(world)]
    for rank, (_, into) in enumerate(pipes):
        if os.fork() == 0:
            with os.fdopen(into, "w") as place:
                share(rank, world, port, place)
            os._exit(0)
        os.close(into)
    found = []
    for out, _ in pipes:
        with os.fdopen(out) as stream:
            found.append(json.loads(stream.readline()))
    for _ in pipes:
        os.wait()
    return found


def report(method, tokenizer, worlds):
    alone = None
    for world in worlds:
        found = run(partial(work, small_model, tokenizer, method), world)
        alone = alone or found[0]
        assert {one["digest"] for one in found} == {alone["digest"]}
        most = max(one["tokens"] for one in found)
        tokens = " ".join(f"{one['tokens']:,}" for one in found)
        seconds = " ".join(f"{one['seconds']:.0f}" for one in found)
        fewer = alone["tokens"] / most
        print(
            f"{method}, {world} ranks: tokens x layers {tokens}; {fewer:.2f} times "
            f"fewer at most; CPU s {seconds}",
            flush=True,
        )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("worlds", type=int, nargs="*", default=[1, 2, 4])
    parser.add_argument("--methods", nargs="+", default=["words"])
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    _, tokenizer = models.load("smollm2")
    for method in arguments.methods:
        report(method, tokenizer, arguments.worlds)


if __name__ == "__main__":
    main()
