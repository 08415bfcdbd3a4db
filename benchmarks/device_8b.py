# SPDX-License-Identifier: Apache-2.0
"""What the package does with an 8B model on a GPU: seconds, idling, both memories.

python benchmarks/device_8b.py --out seen.jsonl
python benchmarks/device_8b.py --tiny --device cpu      # the same steps, anywhere

A model of Llama-3.1-8B's shape with random weights, made on the device, and SmolLM2's
tokenizer. Each step is a line of JSON, written as soon as it is over: seconds, the
share of them in which the GPU worked (as nvidia-smi samples it), the most memory on the
device and on the host, and what the step found. One that fails is a line with its
error, and the next one begins; a step that might not end within --seconds is left out.
`tsr` takes two of its forty steps in one of its five layers.
"""

import argparse
import json
import subprocess
import threading
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

import numpy as np
import torch
from process_memory import clear, resident

import cintervene as ci
from cintervene import data
from cintervene.models import find_targets
from cintervene.models.embedded import cache_directory

# Hidden size, that of the MLP, layers, vocabulary, heads, those of keys and values.
WIDE = (4096, 14336, 32, 128256, 32, 8)
TINY = (64, 160, 4, 49152, 4, 2)
# Benign inputs that a norm is made of by default, and those of --tiny.
ROWS, FEW_ROWS = 13112, 200
# What each step needs of the time, so that one that is begun ends; guessed.
SECONDS = {
    "algebra": 20, "model": 20, "pcr": 150, "pcr matrices": 150, "guard": 60,
    "apply": 20, "gate": 120, "tsr": 150,
}  # fmt: skip
# Of --tiny.
LITTLE = ci.CalibrationSize(
    starting=1, later=1, contrast_words=2, text_words=4, prompts=4, texts=2,
    answer_tokens=4, tune_words=2, tune_prompts=2, sentences=1, sentence_tokens=4,
    neighbours=1,
)  # fmt: skip
LITTLE_TSR = {"answers": 6, "borderline": 6, "answer_tokens": 4}
LITTLE_GATE = {"steps": 2, "examples_per_step": 6, "benign": 12, "answer_tokens": 4}


class Busy:
    """The share of the time in which a GPU worked; nothing of it on other devices."""

    def __init__(self, device):
        self.samples = []
        if device.type == "cuda":
            threading.Thread(target=self._watch, args=(device,), daemon=True).start()

    def _watch(self, device):
        command = [
            "nvidia-smi", f"--id={device.index or 0}", "--loop-ms=250",
            "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits",
        ]  # fmt: skip
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as watch:
            for line in watch.stdout:
                with suppress(ValueError):
                    self.samples.append(float(line) / 100)

    def since(self, first):
        seen = self.samples[first:]
        return sum(seen) / len(seen) if seen else None


@dataclass
class Bench:
    """The steps.

    Attributes
    ----------
    device : torch.device
    tiny : bool
    model, tokenizer
        Once they are made.
    """

    device: torch.device
    tiny: bool
    model: Any = None
    tokenizer: Any = None

    @property
    def shape(self):
        return TINY if self.tiny else WIDE

    def wait(self):
        """Until the device has done what it was given."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def timed(self, call):
        """What a second call returns, and its seconds."""
        call()
        self.wait()
        start = perf_counter()
        result = call()
        self.wait()
        return result, perf_counter() - start

    def algebra(self):
        """What dense algebra of a layer takes on the device in either precision."""
        hidden, inner = self.shape[:2]
        count, found = FEW_ROWS if self.tiny else ROWS, {}
        for dtype in (torch.float32, torch.float64):
            rows = torch.randn(count, inner, device=self.device, dtype=dtype)
            seconds = {}
            gram, seconds["gram"] = self.timed(lambda rows=rows: rows.T @ rows)
            gram.diagonal().add_(count)
            factor, seconds["factor"] = self.timed(
                lambda gram=gram: torch.linalg.cholesky(gram)
            )
            right = torch.randn(inner, hidden, device=self.device, dtype=dtype)
            _, seconds["solve"] = self.timed(
                lambda right=right, factor=factor: torch.cholesky_solve(right, factor)
            )
            square = gram[:hidden, :hidden].contiguous()
            _, seconds["eigenvectors"] = self.timed(
                lambda square=square: torch.linalg.eigh(square)
            )
            name = str(dtype).removeprefix("torch.")
            found[name] = {key: round(value, 4) for key, value in seconds.items()}
        return found

    def make(self):
        from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

        hidden, inner, layers, vocabulary, heads, groups = self.shape
        place = cache_directory() / "models" / "smollm2"
        self.tokenizer = AutoTokenizer.from_pretrained(place, local_files_only=True)
        config = LlamaConfig(
            vocab_size=vocabulary, hidden_size=hidden, intermediate_size=inner,
            num_hidden_layers=layers, num_attention_heads=heads,
            num_key_value_heads=groups, max_position_embeddings=8192,
            tie_word_embeddings=False, dtype="bfloat16",
        )  # fmt: skip
        torch.manual_seed(0)
        torch.set_default_dtype(torch.bfloat16)
        with self.device:
            self.model = LlamaForCausalLM(config).eval()
        torch.set_default_dtype(torch.float32)
        # No answer ends early, nor has tokens that the tokenizer does not know.
        self.model.generation_config.eos_token_id = None
        with torch.no_grad():
            self.model.lm_head.weight[len(self.tokenizer) :] = 0.0
        return {"parameters": sum(one.numel() for one in self.model.parameters())}

    def defended(self, **options):
        found = ci.defend(self.model, self.tokenizer, **options)
        seconds = found.metrics["seconds"]
        return {
            "seconds": {phase: round(value, 2) for phase, value in seconds.items()},
            "digest": found.digest[:12],
        }

    def pcr(self, **options):
        words = data.forbidden_words()[: 2 if self.tiny else 100]
        size = LITTLE if self.tiny else ci.CalibrationSize()
        return self.defended(forbid=words, calibration=size, strength=16.0, **options)

    def matrices(self):
        return self.pcr(hinge="off")

    def gate(self):
        few = {"harmful": self.requests(), **LITTLE_GATE} if self.tiny else {}
        return self.defended(method="gate", layers=[self.shape[2] // 2], **few)

    def tsr(self):
        few = {"harmful": self.requests(), **LITTLE_TSR} if self.tiny else {}
        layer = self.shape[2] // 2
        return self.defended(method="tsr", layers=[layer], steps=2, **few)

    def requests(self):
        return [one.text for one in data.harmful_prompts("train")[:12]]

    def guard(self):
        """Milliseconds a token: unguarded, guarded and quiet, and where it acts."""
        prompt = self.tokenizer("The weather is", return_tensors="pt").to(self.device)
        count, found = 4 if self.tiny else 32, {}

        def answer(name, model):
            said, seconds = self.timed(
                lambda: model.generate(**prompt, max_new_tokens=count, do_sample=False)
            )
            found[name] = round(1e3 * seconds / count, 2)
            return said

        said = answer("plain", self.model)
        start = perf_counter()
        quiet = ci.Guard(self.model, self.tokenizer, forbid=data.forbidden_words()[:20])
        found["made, s"] = round(perf_counter() - start, 2)
        answer("quiet", quiet)
        tokens = (self.tokenizer.decode([one]).strip() for one in said[0].tolist())
        words = [one for one in tokens if one.isalpha()][-4:] or ["the"]
        acting = ci.Guard(self.model, self.tokenizer, forbid=words, strength=14.0)
        answer("acting", acting)
        return {**found, "acted at": acting.activity.shifted}

    def apply(self):
        """Seconds to make an intervention of two layers, to apply it, to revert it."""
        hidden, inner, layers = self.shape[:3]
        rng = np.random.default_rng(0)
        changes = [
            (
                target,
                ci.LowRankUpdate(
                    0.01 * rng.standard_normal((hidden, 64)),
                    0.01 * rng.standard_normal((64, inner)),
                ),
            )
            for target in find_targets(self.model, [layers - 2, layers - 1])
        ]
        times = [perf_counter()]
        change = ci.Intervention.of(self.model, changes)
        times.append(perf_counter())
        change.apply(self.model)
        times.append(perf_counter())
        change.revert(self.model)
        times.append(perf_counter())
        names = ("made, s", "applied, s", "reverted, s")
        return dict(zip(names, np.diff(times).round(2).tolist(), strict=True))

    @property
    def steps(self):
        """What is done, by name and in order."""
        return {
            "algebra": self.algebra, "model": self.make, "pcr": self.pcr,
            "pcr matrices": self.matrices, "guard": self.guard, "apply": self.apply,
            "gate": self.gate, "tsr": self.tsr,
        }  # fmt: skip


def run(bench, name, busy):
    """One step: what it took and found."""
    on_gpu = bench.device.type == "cuda"
    if on_gpu:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(bench.device)
    clear()
    first, cpu, start = len(busy.samples), process_time(), perf_counter()
    try:
        found = bench.steps[name]()
    except Exception as error:
        found = {"error": f"{type(error).__name__}: {error}"[:300]}
    bench.wait()
    took = {
        "s": perf_counter() - start,
        "cpu_s": process_time() - cpu,
        "host_GB": resident("VmHWM") / 1e9,
    }
    if on_gpu:
        took["gpu_GB"] = torch.cuda.max_memory_allocated(bench.device) / 1e9
        took["gpu_busy"] = busy.since(first)
    rounded = {key: one and round(one, 2) for key, one in took.items()}
    return {"step": name, **rounded, **found}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda", type=torch.device)
    parser.add_argument("--tiny", action="store_true", help="a tiny model, little text")
    parser.add_argument("--seconds", type=float, default=560.0, help="for all of it")
    parser.add_argument("--steps", nargs="*", default=list(SECONDS), choices=SECONDS)
    parser.add_argument("--out", type=Path, help="a file for the lines, too")
    args = parser.parse_args()
    if args.device.type == "cuda" and not torch.cuda.is_available():
        parser.error("--device: got cuda, which is not here; use --tiny --device cpu")
    start, bench = perf_counter(), Bench(args.device, args.tiny)
    busy = Busy(args.device)
    # Whatever is done with a model takes one.
    for name in dict.fromkeys(["model", *args.steps]):
        left = args.seconds - (perf_counter() - start)
        enough = args.tiny or left >= SECONDS[name]
        line = run(bench, name, busy) if enough else {"step": name, "left out": True}
        text = json.dumps(line)
        print(text, flush=True)
        if args.out is not None:
            with args.out.open("a", encoding="utf-8") as file:
                file.write(text + "\n")


if __name__ == "__main__":
    main()
