# SPDX-License-Identifier: Apache-2.0
"""What a plan says of memory and seconds, and what random models then take.

python benchmarks/bench_plan.py 30M 360M --methods pcr tsr
python benchmarks/bench_plan.py "8B layer"

Each run has a process of its own: a random-weight Llama of the size in bfloat16, with
SmolLM2's tokenizer and vocabulary. Measured is the largest resident set (Linux), all
in all and in each phase of the method; and what of it was not there before, when
libraries were imported and the model was made, in units of one (d_in, d_in) matrix of
float64. "8B layer" has two layers and the vocabulary of Llama-3.1-8B, of which its last
is changed: in one step where there are steps, and with fewer examples.
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import json
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import asdict
from time import process_time

from process_memory import clear, resident

# Hidden size, that of the MLP, layers.
SIZES = {
    "30M": (384, 1024, 8),
    "135M": (576, 1536, 30),
    "360M": (960, 2560, 32),
    "1.2B": (2048, 8192, 18),
    "8B layer": (4096, 14336, 2),
}
# Where they are not those of the tokenizer, and of heads that are 64 wide: tokens, of
# which the last never win; heads, and those of keys and values.
WIDE = {"8B layer": (128256, 32, 8)}
# Of these one layer alone is changed, as shortly as can be: one strength is tried, for
# what it does is over the limit.
SHORTLY = {"layers": [-1], "steps": 1, "max_kl": 1e-9}
FEWER = {"answers": 4, "borderline": 4, "benign": 4}
# Little text: what memory grows with are the widths.
TEXT = {
    "starting": 1,
    "later": 1,
    "contrast_words": 2,
    "text_words": 8,
    "prompts": 6,
    "texts": 2,
    "answer_tokens": 8,
    "tune_words": 1,
    "tune_prompts": 2,
    "sentences": 0,
    "neighbours": 1,
}
FORBID = ["bomb", "ransom"]
FEW = {"answers": 8, "borderline": 8, "answer_tokens": 4, "steps": 2}
METHODS = {
    "pcr": {"forbid": FORBID},
    "pcr matrix": {
        "method": "pcr", "forbid": FORBID, "hinge": "off", "layers": "auto",
    },
    "tsr": {"layers": [-2, -1], **FEW},
    "arr": {"layers": [-2, -1], **FEW},
    "gate": {"layers": [-1], "steps": 2, "benign": 8, "answer_tokens": 4},
}  # fmt: skip


def options_of(name, size):
    """Parameters of a method, as `defend` and `plan` take them."""
    import cintervene as ci

    options = {"method": name, **METHODS[name]}
    if size in WIDE and "steps" in options:
        fewer = {key: FEWER[key] for key in FEWER if key in options}
        options |= SHORTLY | fewer
    elif size in WIDE and "layers" in options:
        options["layers"] = [-1]
    if "forbid" in options:
        return {**options, "calibration": ci.CalibrationSize(**TEXT)}
    prompts = ci.data.harmful_prompts("train")[:8]
    return {**options, "harmful": [prompt.text for prompt in prompts]}


def load_tokenizer():
    """SmolLM2's, without the model, whose memory would be counted."""
    from transformers import AutoTokenizer

    from cintervene.models.embedded import cache_directory

    directory = cache_directory() / "models" / "smollm2"
    return AutoTokenizer.from_pretrained(directory, local_files_only=True)


def make_model(size, vocabulary):
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    hidden, inner, layers = SIZES[size]
    heads = max(1, hidden // 64)
    tokens, heads, groups = WIDE.get(size, (vocabulary, heads, heads))
    torch.manual_seed(0)
    torch.set_num_threads(1)
    torch.set_default_dtype(torch.bfloat16)
    config = LlamaConfig(
        vocab_size=tokens, hidden_size=hidden, intermediate_size=inner,
        num_hidden_layers=layers, num_attention_heads=heads, num_key_value_heads=groups,
        tie_word_embeddings=True, dtype="bfloat16",
    )  # fmt: skip
    model = LlamaForCausalLM(config).eval()
    torch.set_default_dtype(torch.float32)
    # No answer has tokens that the tokenizer does not know.
    with torch.no_grad():
        model.lm_head.weight[vocabulary:] = 0.0
    return model


def run(size, name):
    """One method on one model in this process, as JSON."""
    import cintervene as ci
    from cintervene.utils.clock import Clock

    tokenizer = load_tokenizer()
    model = make_model(size, len(tokenizer))
    options = options_of(name, size)
    expected = ci.plan(model, **options)
    peaks, seconds = {}, {}
    plain = Clock.phase

    def note(phase):
        peaks[phase] = max(peaks.get(phase, 0), resident("VmHWM"))
        clear()

    @contextmanager
    def phase(self, what):
        note("between")
        start = process_time()
        with plain(self, what):
            yield
        seconds[what] = seconds.get(what, 0.0) + process_time() - start
        note(what)

    Clock.phase = phase
    clear()
    before, start = resident("VmRSS"), process_time()
    ci.defend(model, tokenizer, **options)
    note("between")
    print(
        json.dumps(
            {
                "before": before, "peaks": peaks, "seconds": seconds,
                "cpu": process_time() - start, "plan": asdict(expected),
            }
        )
    )  # fmt: skip


def show(size, name, found):
    """The plan beside what was measured."""
    expected, most = found["plan"], max(found["peaks"].values())
    unit, over = 8 * SIZES[size][1] ** 2, most - found["before"]
    phases = ", ".join(
        f"{phase} {peak / 1e6:.0f}" for phase, peak in found["peaks"].items()
    )
    print(
        f"{size} {name}: plan {expected['host_bytes'] / 1e6:.0f} MB, measured "
        f"{most / 1e6:.0f} MB ({expected['host_bytes'] / most - 1:+.0%}), over the "
        f"model {over / 1e6:.0f} MB, {over / unit:.2f} units; plan "
        f"{expected['seconds']:.0f} s, measured {found['cpu']:.0f} CPU s; before "
        f"{found['before'] / 1e6:.0f} MB, in phases {phases}",
        flush=True,
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("sizes", nargs="*", metavar="SIZE", help=", ".join(SIZES))
    parser.add_argument("--methods", nargs="*", default=list(METHODS))
    parser.add_argument("--alone", action="store_true", help="in this process only")
    args = parser.parse_args()
    for size in args.sizes:
        for name in args.methods:
            if args.alone:
                run(size, name)
                continue
            done = subprocess.run(
                [sys.executable, __file__, size, "--methods", name, "--alone"],
                stdout=subprocess.PIPE, check=True,
            )  # fmt: skip
            show(size, name, json.loads(done.stdout.splitlines()[-1]))


if __name__ == "__main__":
    main()
