# SPDX-License-Identifier: Apache-2.0
"""The guard: limits kept, weights left alone, whatever way a model generates."""

from __future__ import annotations

from string import ascii_lowercase
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from support.guarded import (
    FORBID,
    PROMPTS,
    STRENGTH,
    TOKENIZER,
    forbidden,
    guard,
    padded,
    step,
)
from support.tiny_models import ARCHITECTURES, make_tiny_model

from cintervene.errors import ArgumentError, InterventionError

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from cintervene.methods.common.output_metric import OutputMetric
from cintervene.methods.guard import output_shift
from cintervene.methods.guard.method import Guard, _benign
from cintervene.models import find_targets
from cintervene.models.precision import WidenedProducts
from cintervene.solvers.pcr import pcr
from cintervene.solvers.solution import Status
from cintervene.solvers.update import LowRankUpdate


@pytest.fixture(params=sorted(ARCHITECTURES))
def any_model(request: pytest.FixtureRequest) -> Any:
    """Room for benign texts, which are long in single characters."""
    return make_tiny_model(request.param, max_position_embeddings=1024)


@pytest.fixture
def llama() -> Any:
    return make_tiny_model("llama", max_position_embeddings=1024)


def broken_limits(
    found: Any, allowed: float = 0.011, prompts: Any = None
) -> tuple[int, int]:
    """Next tokens at which a limit is broken, and tokens that had a limit.

    `prompts` are those that the sequences leave out.
    """
    sequences = found.sequences
    if prompts is not None:
        sequences = torch.cat([prompts, sequences], dim=1)
    start = sequences.shape[1] - len(found.logits)
    broken = limited = 0
    for row, sequence in enumerate(sequences.tolist()):
        for at, logits in enumerate(found.logits):
            tokens = forbidden(TOKENIZER.decode(sequence[: start + at]))
            log_p = logits[row].float().log_softmax(-1)
            broken += bool((log_p[tokens] > allowed - STRENGTH).any())
            limited += len(tokens)
    return broken, limited


def test_no_forbidden_token_is_likelier_than_asked_for(any_model: Any) -> None:
    before = {name: p.clone() for name, p in any_model.named_parameters()}
    own = guard(any_model)
    plain = step(any_model)
    assert broken_limits(plain)[0] > 0
    with own:
        found = step(any_model)
    broken, limited = broken_limits(found)
    assert limited > 10
    assert own.activity.positions == 20
    assert 0 < own.activity.shifted < 20
    assert broken == own.activity.unmet
    # Where a norm follows the projection, it bounds what the weights can do.
    if find_targets(any_model, [-1])[0].after is None:
        assert broken == 0
    again = step(any_model)
    assert all(map(torch.equal, again.logits, plain.logits))
    assert all(torch.equal(p, before[n]) for n, p in any_model.named_parameters())
    assert hooks(any_model) == 0


def hooks(model: Any) -> int:
    """Hooks of all kinds that a guard may have left."""
    return sum(
        len(part._forward_hooks) + len(part._forward_pre_hooks)
        for part in model.modules()
    )


def test_the_prompt_gets_a_change_of_rank_one(any_model: Any) -> None:
    """Each row's logits are those of weights of its own, which differ in rank 1."""
    ids = padded(["this: ", 'say: "', "bbbbzb"])["input_ids"]
    rest = torch.tensor([[40, 41, 42]] * 3)
    with torch.no_grad():
        plain = any_model(ids, use_cache=True, logits_to_keep=1)
        own = guard(any_model, every_token=False, ridge=1e3)
        with own:
            first = any_model(ids, use_cache=True, logits_to_keep=1)
            change = own._call.state.updates
            second = any_model(rest, past_key_values=first.past_key_values)
        assert torch.equal(first.logits[2], plain.logits[2])
        assert change.left[2].abs().sum() == 0.0
        for row in range(3):
            (target,) = find_targets(any_model, [-1])
            delta = torch.outer(change.left[row], change.right[row])
            kept = target.weight.detach().clone()
            target.weight.add_(delta.T if target.transposed else delta)
            both = torch.cat([ids, rest], dim=1)[row : row + 1]
            expected = any_model(both).logits[0, ids.shape[1] - 1 :]
            target.weight.copy_(kept)
            found = torch.cat([first.logits[row], second.logits[row]])
            torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)
        assert not torch.allclose(found[1:], first.logits[0], atol=1e-2)


@pytest.fixture
def metrics(monkeypatch: pytest.MonkeyPatch) -> list[OutputMetric]:
    """The metrics of outputs that guards are made with."""
    made: list[OutputMetric] = []

    def noted(*args: Any) -> OutputMetric:
        made.append(OutputMetric(*args))
        return made[-1]

    monkeypatch.setattr(output_shift, "OutputMetric", noted)
    return made


def test_the_change_is_the_least(llama: Any, metrics: list[OutputMetric]) -> None:
    """One token: the shift is along its direction in the metric of outputs."""
    own = guard(llama, forbid=["7"], strength=12.0)
    ids = padded(["this: "])["input_ids"]
    with torch.no_grad(), own:
        llama(ids, use_cache=True, logits_to_keep=1)
        change = own._call.state.updates
    (direction,) = own._solver._directions
    steepest = metrics[0].restore(LowRankUpdate(direction[:, None], np.ones((1, 1))))
    left = change.left[0].double().numpy()
    cosine = left @ steepest.left[:, 0]
    cosine /= np.linalg.norm(left) * np.linalg.norm(steepest.left)
    assert cosine == pytest.approx(-1.0, abs=1e-6)


@pytest.mark.parametrize("opposed", [False, True])
def test_shifts_are_mapped_back_to_outputs(
    llama: Any, metrics: list[OutputMetric], opposed: bool
) -> None:
    """As the whole solution is; also where no shift lowers all of the tokens."""
    solver = guard(llama)._solver
    rng = np.random.default_rng(0)
    if opposed:
        solver._directions[1] = -solver._directions[0]
        solver._restored[1] = -solver._restored[0]
    drop = rng.uniform(0.1, 5.0, (3, len(solver._directions)))
    drop[0, 2:], drop[1, :3] = 0.0, 0.0
    found = solver._least_shift(drop).numpy()
    solution = pcr(
        np.eye(3), np.zeros((3, solver._directions.shape[1])), None, 0.0,
        halfspaces=(solver._directions, np.where(drop > 0.0, -drop, np.inf)),
    )  # fmt: skip
    assert (solution.status is Status.INFEASIBLE) == opposed
    expected = metrics[0].restore(solution.update).matrix().T
    size = np.abs(expected).max()
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6 * size)


def test_rows_do_not_know_of_each_other(any_model: Any) -> None:
    own = guard(any_model)
    with own:
        together = step(any_model)
        for row, prompt in enumerate(PROMPTS):
            alone = step(any_model, **padded([prompt]))
            assert (
                alone.sequences[0, -5:].tolist()
                == together.sequences[row, -5:].tolist()
            )
            for one, other in zip(alone.logits, together.logits, strict=True):
                torch.testing.assert_close(one[0], other[row], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    "options",
    [
        {"do_sample": True, "top_k": 0, "temperature": 1.0},
        {"use_cache": False},
        {"cache_implementation": "static"},
        {"num_return_sequences": 2, "do_sample": True},
    ],
    ids=["sampling", "no cache", "static cache", "several answers"],
)
def test_ways_to_generate(llama: Any, options: dict[str, Any]) -> None:
    own = guard(llama)
    with own, torch.random.fork_rng(), torch.inference_mode():
        torch.random.manual_seed(0)
        found = step(llama, size=8, **options)
    assert broken_limits(found)[0] == 0
    assert own.activity.shifted > 0


def test_beams_keep_their_tokens_and_changes(llama: Any) -> None:
    """A beam's score is that of its tokens, read again under guard."""
    # Nearly even odds, so that beams change places; words that two tokens decide on.
    llama.model.norm.weight.data *= 0.2
    words = [first + second for first in ascii_lowercase for second in "aeiou"]
    own = guard(llama, forbid=words, ridge=1e3)
    inputs = padded(["this: ", "say x "])
    with own:
        found = llama.generate(
            **inputs, num_beams=6, max_new_tokens=8, length_penalty=0.0,
            eos_token_id=None, pad_token_id=0, do_sample=False,
            return_dict_in_generate=True, output_scores=True,
        )  # fmt: skip
        length = inputs["input_ids"].shape[1]
        mask = torch.ones_like(found.sequences)
        mask[:, :length] = inputs["attention_mask"]
        with torch.no_grad():
            first = llama(**inputs, use_cache=True)
            rest = llama(
                input_ids=found.sequences[:, length:],
                attention_mask=mask,
                past_key_values=first.past_key_values,
            )
    logits = torch.cat([first.logits[:, -1:], rest.logits[:, :-1]], dim=1)
    log_p = logits.log_softmax(-1).gather(2, found.sequences[:, length:, None])
    assert own.activity.shifted > 0
    torch.testing.assert_close(
        found.sequences_scores, log_p.sum(dim=(1, 2)), rtol=1e-3, atol=1e-3
    )


def test_prompts_of_embeddings(llama: Any) -> None:
    """Their tokens are read off the embeddings."""
    inputs = padded()
    prompts = inputs.pop("input_ids")
    embedded = llama.get_input_embeddings()(prompts).detach()
    with guard(llama) as own:
        found = step(llama, input_ids=None, inputs_embeds=embedded)
    assert broken_limits(found, prompts=prompts)[0] == 0
    assert own.activity.shifted > 0


class Interrupting:
    """A streamer that takes so many batches of tokens, and then Ctrl-C is pressed."""

    def __init__(self, size: int) -> None:
        self.left = size

    def put(self, _tokens: Any) -> None:
        self.left -= 1
        if self.left < 0:
            raise KeyboardInterrupt

    def end(self) -> None:
        pass


def test_an_interrupted_generation_leaves_nothing(llama: Any) -> None:
    own = guard(llama)
    one = padded(["this: "])
    with pytest.raises(KeyboardInterrupt):
        own.generate(**one, max_new_tokens=8, streamer=Interrupting(3), pad_token_id=0)
    assert hooks(llama) == 0
    streamed = own.generate(
        **one, max_new_tokens=4, streamer=Interrupting(9), pad_token_id=0
    )
    assert torch.equal(streamed, own.generate(**one, max_new_tokens=4, pad_token_id=0))


def test_caches_are_left_as_they_were(llama: Any) -> None:
    own = guard(llama)
    with own, torch.no_grad():
        cache = llama(**padded(), use_cache=True).past_key_values
        assert "reorder_cache" in vars(cache)
    assert "reorder_cache" not in vars(cache)


def test_bfloat16_weights(llama: Any) -> None:
    own = guard(llama.to(torch.bfloat16))
    with own:
        found = step(llama)
    assert broken_limits(found)[0] == 0
    assert own.activity.shifted > 0


def test_a_right_padded_prompt_is_guarded_at_its_own_end(llama: Any) -> None:
    ids = torch.tensor([[30, 31, 95, 0, 0], [30, 31, 32, 33, 95]])
    with guard(llama), torch.no_grad():
        found = llama(ids, attention_mask=(ids > 0).long()).logits
        alone = llama(ids[:1, :3]).logits
    torch.testing.assert_close(found[0, 2], alone[0, 2], rtol=1e-4, atol=1e-4)


def test_what_cannot_be_done_is_refused(llama: Any) -> None:
    for wrong, message in (
        ({"forbid": "bomb"}, r"forbid: got 'bomb'; expected a list of texts"),
        ({"forbid": []}, "no words"),
        ({"method": "tsr"}, "method: is no parameter of the guard"),
        ({"concepts": "activation"}, "'contrast'"),
        ({"strength": 0.0}, "positive"),
        ({"ridge": -1.0}, "ridge"),
    ):
        with pytest.raises(ArgumentError, match=message):
            guard(llama, **wrong)
    with guard(llama), pytest.raises(InterventionError, match="another guard"):
        guard(llama).__enter__()


def test_a_guard_may_be_entered_again(llama: Any) -> None:
    own = guard(llama)
    with own:
        own.generate(**padded(), max_new_tokens=1, pad_token_id=0)
        assert hooks(llama) == 5
    assert hooks(llama) == 0


def test_the_processor_of_a_multimodal_model(llama: Any) -> None:
    processor = SimpleNamespace(tokenizer=TOKENIZER)
    with guard(llama):
        expected = step(llama).sequences
    with Guard(llama, processor, forbid=FORBID, strength=STRENGTH):
        assert torch.equal(step(llama).sequences, expected)


def test_a_forbidden_word_is_not_benign_however_it_is_written(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # What case folding makes of the first letter is no composed character any more.
    benign = ["\u0390a", "cat"]
    monkeypatch.setattr("cintervene.data.benign_words", lambda split: benign)
    spans = [len(_benign(TOKENIZER, [word], [])) for word in (*benign, "dog")]
    assert spans[0] == spans[1] < spans[2]


def test_its_calibration_multiplies_as_fast_as_the_processor_can(
    llama: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX2")
    widened = []
    widen = WidenedProducts._weight
    monkeypatch.setattr(
        WidenedProducts, "_weight", lambda *args: widened.append(args) or widen(*args)
    )
    guard(llama.bfloat16())
    assert widened
