# SPDX-License-Identifier: Apache-2.0
"""What works on which architecture, found by running it: docs/architectures.md.

`python tests/support/architecture_table.py` writes the page anew.
"""

from __future__ import annotations

import re
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from string import ascii_letters
from typing import Any

import pytest

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from support.architectures import NAMES, build
from support.trained_tokenizer import train_tokenizer

torch = pytest.importorskip("torch")

import cintervene as ci
from cintervene.activations.layer_stream import LayerStream
from cintervene.errors import CinterveneError
from cintervene.export import lora
from cintervene.methods.common.gated_mlp_discovery import find_gated_mlp
from cintervene.methods.gate.config import GateConfig
from cintervene.methods.guard.method import Guard
from cintervene.methods.pcr.config import PCRConfig
from cintervene.methods.pcr.method import calibrate
from cintervene.models import explain
from cintervene.models.parts import ModelParts
from cintervene.prompts.answerer import answerer
from cintervene.prompts.calibration_size import CalibrationSize
from cintervene.prompts.target_spans import TargetSpan
from cintervene.utils.progress import silent

PAGE = Path(__file__).resolve().parents[2] / "docs" / "architectures.md"
VOCABULARY = 1000
# What a column says where something is refused, and where it fails.
NO, CRASH = "no", "crash"
# What needs a change that PCR made.
NEED_PCR = ("apply", "lora")
COLUMNS = ("explain", "pcr", "apply", "lora", "gate", "guard")
TOKENIZER = train_tokenizer(VOCABULARY)
FEW = CalibrationSize(
    starting=1, later=1, contrast_words=2, text_words=2, prompts=2, texts=2,
    answer_tokens=3, tune_words=1, tune_prompts=1,
)  # fmt: skip
# Of different length, so that they are padded where they come together.
TEXTS = ["say: ", "this is a longer one. It says ", "this: "]
NATS = 8.0
# That are generated under guard.
TOKENS = 4


@dataclass
class Row:
    """What an architecture can do: "yes", what else it has to be told, or why not."""

    name: str
    cells: dict[str, str] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)

    def fill(self, column: str, run: Callable[[], str]) -> bool:
        """Run what a column is about; whether it works."""
        try:
            self.cells[column] = run()
        except CinterveneError as error:
            self.cells[column] = NO
            self.reasons[column] = _general(str(error))
        except Exception as error:
            self.cells[column] = CRASH
            self.reasons[column] = f"{type(error).__name__}: {_general(str(error))}"
        return self.works(column)

    def works(self, column: str) -> bool:
        """Whether a column says anything but that it does not."""
        return self.cells.get(column, NO) not in (NO, CRASH)


def row_of(
    name: str, columns: Sequence[str] = COLUMNS, solve_gate: bool = False
) -> Row:
    """Run what some columns are about on one architecture, with the numbers checked.

    What cannot be explained is not tried any further, nor what PCR does not change. An
    error that is none of ours, and a number that is not what it has to be, is "crash".

    Parameters
    ----------
    name : str
    columns : sequence of str
    solve_gate : bool
        Not only find gates, but solve one and apply it.
    """
    row = Row(name)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        trial = Trial(build(name, VOCABULARY))
        if not row.fill("explain", trial.explain):
            return row
        for column in columns[1:]:
            if column in NEED_PCR and not row.works("pcr"):
                continue
            row.fill(column, getattr(trial, column))
        if solve_gate and row.works("gate"):
            row.fill("gate", trial.solve_gate)
    return row


class Trial:
    """One model, and what is tried on it."""

    def __init__(self, model: Any) -> None:
        self.model = model

    def explain(self) -> str:
        found = explain(self.model)
        self.matrix = "down_proj"
        if not found.targets:
            self.matrix = "o_proj"
            found = explain(self.model, matrix="o_proj")
        if not found.targets:
            raise ci.errors.ModelError(next(iter(found.refused.values())))
        told = "" if self.matrix == "down_proj" else "`o_proj`"
        layers = _layers(len(found.targets), found.n_layers)
        return ", ".join(filter(None, [told, layers])) or "yes"

    def pcr(self) -> str:
        config = PCRConfig(
            forbid=["z"],
            strength=12.0,
            matrix=self.matrix,
            hinge="off",
            calibration=FEW,
        )
        answer = answerer(self.model, TOKENIZER)
        spans = calibrate(answer, TOKENIZER, config, silent).forget
        self.change = ci.defend(self.model, TOKENIZER, config)
        before = self._says(spans)
        with self.change.applied(self.model):
            after = self._says(spans)
        assert after < before - 0.2
        return "yes"

    def _says(self, spans: Sequence[TargetSpan]) -> float:
        """Mean log probability of the tokens that begin the word where it was said."""
        found = [
            _next_log_p(self.model, torch.tensor([one.ids[: one.start]]))[
                one.ids[one.start]
            ]
            for one in spans
        ]
        return float(torch.stack(found).mean())

    def apply(self) -> str:
        """Logits are those that the layer stream foretells; then all is as before."""
        weights = {n: p.clone() for n, p in self.model.named_parameters()}
        base, foretold = self._logits(), self._foretold()
        with self.change.applied(self.model):
            changed = self._logits()
        assert _distance(foretold, changed) < 2e-4
        assert _distance(base, changed) > 1e-3
        after = dict(self.model.named_parameters())
        assert all(torch.equal(after[name], one) for name, one in weights.items())
        assert torch.equal(self._logits(), base)
        return "yes"

    def lora(self) -> str:
        peft = pytest.importorskip("peft")
        with self.change.applied(self.model):
            meant = self._logits()
        with tempfile.TemporaryDirectory() as folder:
            lora(
                self.change,
                Path(folder) / "adapter",
                base="somewhere",
                beyond_limits=True,
            )
            try:
                loaded = peft.PeftModel.from_pretrained(
                    self.model, Path(folder) / "adapter"
                )
            except ValueError as error:
                why = str(error).partition(". ")[0]
                raise ci.errors.InterventionError(f"peft: {why}") from error
        found = self._logits(loaded)
        self.model = loaded.unload()
        assert _distance(found, meant) < 1e-4
        return "yes"

    def gate(self) -> str:
        """Which layers have an MLP whose neurons gates can open and close."""
        decoder = ModelParts.find(self.model).decoder
        self.gated, reasons = [], []
        for layer in range(decoder.n_layers):
            try:
                find_gated_mlp(decoder, layer)
                self.gated.append(layer)
            except ci.errors.ModelError as error:
                reasons.append(error)
        if not self.gated:
            raise reasons[0]
        return _layers(len(self.gated), decoder.n_layers) or "yes"

    def solve_gate(self) -> str:
        """A gate in the last layer but one that can have it changes logits."""
        config = GateConfig(
            layers=self.gated[-2:][:1], steps=2, examples_per_step=2, benign=4,
            harmful=["How is a bomb made?", "How are locks picked?"], answer_tokens=2,
        )  # fmt: skip
        change = ci.defend(self.model, TOKENIZER, config)
        base = self._logits()
        with change.applied(self.model):
            assert _distance(base, self._logits()) > 0
        assert torch.equal(self._logits(), base)
        return self.gate()

    def guard(self) -> str:
        """The likeliest letter becomes as unlikely as asked for, and is not said."""
        ids = torch.tensor([TOKENIZER(TEXTS[0])["input_ids"]])
        letters = [TOKENIZER.get_vocab()[letter] for letter in ascii_letters]
        before = _next_log_p(self.model, ids)
        letter = max(letters, key=lambda token: float(before[token]))
        own = Guard(
            self.model, TOKENIZER, forbid=[TOKENIZER.decode([letter])], strength=NATS
        )
        with own:
            after = _next_log_p(self.model, ids)
        assert before[letter] > -NATS or own.activity.shifted == 0
        assert after[letter] <= 0.02 - NATS or own.activity.unmet > 0
        assert torch.equal(_next_log_p(self.model, ids), before)
        static = self._guards_generation(own, ids, letter)
        met = "yes" if own.activity.unmet == 0 else "not fully"
        return met if static else f"{met}, no static cache"

    def _guards_generation(self, own: Guard, ids: Any, letter: int) -> bool:
        """Generate with a growing and a static cache; whether the model has the latter.

        What it says under guard is the same with both, where it is without guard.
        """
        plain, guarded = self._say(ids), self._say(ids, own)
        assert own.activity.unmet > 0 or letter not in guarded
        try:
            plain_static = self._say(ids, cache_implementation="static")
        except Exception:
            # The model's own error, without a guard.
            return False
        guarded_static = self._say(ids, own, cache_implementation="static")
        assert guarded_static == guarded or plain_static != plain
        return True

    def _say(self, ids: Any, own: Guard | None = None, **options: Any) -> list[int]:
        generate = self.model.generate if own is None else own.generate
        said = generate(
            ids, attention_mask=torch.ones_like(ids), do_sample=False, pad_token_id=0,
            max_new_tokens=TOKENS, min_new_tokens=TOKENS, **options,
        )  # fmt: skip
        answer: list[int] = said[0, ids.shape[1] :].tolist()
        return answer

    def _logits(self, model: Any = None) -> Any:
        """At the last token of each text, each read alone by the model itself."""
        model = self.model if model is None else model
        rows = [torch.tensor([TOKENIZER(text)["input_ids"]]) for text in TEXTS]
        with torch.no_grad():
            logits = [model(input_ids=ids, use_cache=False).logits for ids in rows]
        return torch.cat([one[:, -1] for one in logits])

    def _foretold(self) -> Any:
        """The same by a layer stream, with the change added where it acts."""
        parts = ModelParts.find(self.model)
        ids = [TOKENIZER(text)["input_ids"] for text in TEXTS]
        layers = self.change.options["layers"]
        targets = {t.name: t for t in parts.targets(layers, self.matrix)}
        stream = LayerStream(
            parts.decoder, ids, min(layers), wanted=[[-1]] * len(ids),
            matrix=self.matrix,
        )  # fmt: skip
        updates = self.change.updates
        for name in sorted(updates, key=lambda one: targets[one].layer):
            stream.advance(targets[name].layer, updates[name])
        ended = stream.layer == stream.n_layers
        return parts.unembedding.logits(stream.hidden() if ended else stream.final())


def _layers(some: int, all_of_them: int) -> str:
    """How many of a model's layers, nothing where it is all."""
    return "" if some == all_of_them else f"{some} of {all_of_them} layers"


def _next_log_p(model: Any, ids: Any) -> Any:
    with torch.no_grad():
        logits = model(input_ids=ids, use_cache=False).logits
    return logits[0, -1].float().log_softmax(-1)


def _distance(a: Any, b: Any) -> float:
    return float((a.double() - b.double()).norm() / b.double().norm())


def _general(reason: str) -> str:
    """A reason without the names of modules and classes that it is about."""
    reason = re.sub(r"layer \d+ cannot be changed: ", "", reason)
    reason = re.sub(r"\b[\w.]+\.\d+(\.\w+)*\b", "*", reason)
    reason = re.sub(r"\b\w+For[A-Z]\w+|\b\w+LMHeadModel\b", "the model", reason)
    return " ".join(reason.split())


def page(rows: Sequence[Row]) -> str:
    """The page of the documentation."""
    return "\n".join([*_head(rows), *_table(rows), *_reasons(rows)]) + "\n"


def _head(rows: Sequence[Row]) -> list[str]:
    works = {c: sum(row.works(c) for row in rows) for c in COLUMNS}
    counts = ", ".join(f"{column} on {works[column]}" for column in COLUMNS)
    return [
        "# Architectures", "",
        "What works on the decoder-only models of transformers, found by running it on",
        "a tiny random model of each (`tests/support/architectures.py`). Written by",
        "`python tests/support/architecture_table.py`; a test compares it with what it",
        "finds.", "",
        f"Of {len(rows)} models: {counts}; the rest is refused, for the reasons below.",
        "",
        "- *explain*: which layers can be changed, in their MLP unless `o_proj` is",
        "  said: `matrix=\"o_proj\"` has to be given where the MLP is a mixture of",
        "  experts alone, which are left as they are.",
        "- *pcr*: a word is forbidden, and becomes less likely.",
        "- *apply*: logits are those that were foretold; after `revert` they are the",
        "  same to the bit.",
        "- *lora*: peft loads the adapter, and logits are those of `apply`.",
        "- *gate*: layers whose MLP is a gated one, which gates can close.",
        "- *guard*: the likeliest letter becomes as unlikely as asked for and is not",
        "  generated, with a growing and with a static cache; *not fully* where a norm",
        "  behind the projection, or what can be reached at all, bounds what is done,",
        "  *no static cache* where the model itself does not generate with one.", "",
    ]  # fmt: skip


def _table(rows: Sequence[Row]) -> Iterator[str]:
    yield f"| model type | {' | '.join(COLUMNS)} |"
    yield "| --- " * (len(COLUMNS) + 1) + "|"
    for row in rows:
        yield table_row(row)


def table_row(row: Row) -> str:
    """The line of the table for an architecture."""
    cells = (row.cells.get(column, NO) for column in COLUMNS)
    return f"| {row.name} | {' | '.join(cells)} |"


def _reasons(rows: Sequence[Row]) -> Iterator[str]:
    yield "\n## Why not\n"
    grouped: dict[tuple[str, str], list[str]] = {}
    for row in rows:
        for column, reason in row.reasons.items():
            grouped.setdefault((column, reason), []).append(row.name)
    for (column, reason), names in sorted(grouped.items()):
        yield f"- *{column}*, {', '.join(names)}: {reason}"


def main() -> None:
    """Write the page."""
    transformers = pytest.importorskip("transformers")
    transformers.logging.set_verbosity_error()
    torch.set_num_threads(1)
    PAGE.write_text(page([row_of(name) for name in NAMES]), encoding="utf-8")


if __name__ == "__main__":
    main()
