# SPDX-License-Identifier: Apache-2.0
"""PCR at test time: weights change for the sequence at hand, and are then forgotten.

At the end of a prompt the least change of the last down projection is solved for that
keeps the answer's first token from being forbidden; it is of rank 1, and acts on the
rest of that sequence only. There it has part of its effect, and what comes later needs
more than the first token did: so where a later token comes near, the problem is solved
again for that token.

References
----------
arXiv 2510.03567, PCR at test time; docs/methods/guard.md, whose formulas are cited by
their numbers.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor, nn

from cintervene import data
from cintervene.errors import InterventionError
from cintervene.methods.guard.arguments import (
    ForwardArguments,
    check_followable,
    returned_cache,
)
from cintervene.methods.guard.automaton import WordAutomaton
from cintervene.methods.guard.config import GuardConfig
from cintervene.methods.guard.decoding import add_mask, generating, remove_mask
from cintervene.methods.guard.forward_call import (
    BoundedLogits,
    ForwardCall,
    Positions,
)
from cintervene.methods.guard.output_shift import (
    TOLERANCE,
    OutputPosition,
    OutputShift,
    ShiftSolver,
)
from cintervene.methods.guard.packed import PackedCall
from cintervene.methods.guard.state import (
    RankOneUpdates,
    States,
    follow_cache,
    leave_cache,
)
from cintervene.models.compiled import EAGER
from cintervene.models.decoder import text_config
from cintervene.models.parts import ModelParts
from cintervene.models.precision import quick_products
from cintervene.models.sharded import check_whole_model
from cintervene.models.weights import as_floats
from cintervene.models.wrapped import unwrapped
from cintervene.prompts.spelling import encode_text, text_tokenizer, words_to_forbid
from cintervene.prompts.target_spans import TargetSpan, word_spans
from cintervene.utils.arrays import Floats

__all__ = ["Activity", "Guard"]

# Passages of running text, and benign words said to prompts that ask for them, from
# which the norms are taken.
TEXTS, WORDS = 24, 24
# Positions that are looked at together, as many logits as memory has room for.
POSITIONS = 64


@dataclass
class Activity:
    """What a guard has done so far.

    Attributes
    ----------
    positions : int
        Next tokens that were looked at.
    shifted : int
        Those at which a forbidden one was above its limit, so that the layer's output
        was shifted.
    unmet : int
        Those at which one stayed above it.
    worst : float
        Nats by which the worst of these did.
    """

    positions: int = 0
    shifted: int = 0
    unmet: int = 0
    worst: float = 0.0

    def add(self, positions: int, excess: Floats) -> None:
        """Count positions, and those of them that were shifted."""
        self.positions += positions
        self.shifted += len(excess)
        self.unmet += int((excess > 0.0).sum())
        self.worst = max(self.worst, float(excess.max(initial=0.0)))


class Guard:
    """Keeps a model from saying words while it generates, and leaves its weights alone.

    Use it around anything that calls the model, or its own `generate`. Sequences of a
    batch are guarded each by itself. One generation may run at a time.

    Parameters
    ----------
    model : nn.Module
        A causal language model of transformers.
    tokenizer
        Its tokenizer, or the processor that has it.
    config : GuardConfig, optional
        What is forbidden, and how.
    **parameters
        Without `config`, the parameters of which it is made.

    Attributes
    ----------
    activity : Activity
        What has been done since the guard was made.

    Raises
    ------
    ArgumentError
        An option is unknown or out of range, or a word cannot be spelled.
    ModelError
        The model's last down projection or its unembedding is not a plain one.

    Examples
    --------
    >>> guard = ci.Guard(model, tokenizer, forbid=["bomb"])
    >>> guard.generate(**inputs, max_new_tokens=50)
    >>> with guard:
    ...     model.generate(**inputs, do_sample=True, streamer=streamer)
    """

    @quick_products()
    def __init__(
        self,
        model: nn.Module,
        tokenizer: Any,
        config: GuardConfig | None = None,
        **parameters: Any,
    ) -> None:
        config = GuardConfig.of(config, parameters)
        tokenizer = text_tokenizer(tokenizer)
        words = words_to_forbid(tokenizer, config.forbid or ())
        self.activity = Activity()
        inner = unwrapped(model)
        check_whole_model(model)
        self._model, self._config = generating(inner), config
        parts = ModelParts.find(self._model)
        self._depth = parts.n_layers
        check_followable(self._model)
        self._automaton = WordAutomaton(
            tokenizer, words, size=parts.unembedding.weight.shape[0]
        )
        self._solver = ShiftSolver(
            parts, self._automaton.tokens, _benign(tokenizer, words, config.preserve),
            config.concepts == "contrast", config.ridge,
        )  # fmt: skip
        self._arguments = ForwardArguments(self._model)
        self._states: States = WeakKeyDictionary()
        self._call: ForwardCall | None = None
        self._called = False
        self._hooks = ExitStack()
        self._entered = 0

    def generate(self, *args: Any, **kwargs: Any) -> Any:
        """Call the model's `generate` under guard; arguments and result are its own.

        Raises
        ------
        InterventionError
            It did not call the model in a way that a guard notices.
        """
        with self:
            self._called = False
            answer = self._model.generate(*args, **kwargs)  # type: ignore[operator]
        if not self._called:
            raise InterventionError(
                f"{type(self._model).__name__}.generate never called the model's "
                "forward where hooks notice, so nothing was guarded; use the generate "
                "of transformers"
            )
        return answer

    def __enter__(self) -> Self:
        if not self._entered:
            self._attach()
        self._entered += 1
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._entered -= 1
        if not self._entered:
            self._hooks.close()

    def _attach(self) -> None:
        hooks = self._model._forward_pre_hooks.values()
        if any(isinstance(getattr(hook, "__self__", None), Guard) for hook in hooks):
            raise InterventionError(
                "the model is under another guard; leave that one first, or forbid "
                "all words with one"
            )
        model, solver = self._model, self._solver
        with ExitStack() as stack:
            stack.callback(self._forget)
            # Compiled code calls no hooks, and transformers compiles by itself.
            stack.enter_context(EAGER)
            for handle in (
                model.register_forward_pre_hook(self._before_call, with_kwargs=True),
                model.register_forward_hook(self._after_call),
                solver.target.module.register_forward_hook(self._after_projection),
                solver.unembedding.norm.register_forward_hook(self._after_norm),
                solver.unembedding.head.register_forward_hook(self._after_head),
            ):
                stack.callback(handle.remove)
            if self._config.every_token:
                stack.callback(remove_mask, model)
                add_mask(model, self._automaton)
            self._hooks = stack.pop_all()

    def _forget(self) -> None:
        for cache in self._states:
            leave_cache(cache)
        self._states.clear()
        self._call = None

    def _before_call(self, _module: nn.Module, args: Any, kwargs: Any) -> None:
        """Find the state of the sequences that a call goes on with."""
        self._called = True
        self._call = self._arguments.call(args, kwargs, self._states)
        if isinstance(self._call, PackedCall) and not self._config.every_token:
            raise InterventionError(
                "every_token: got False under continuous batching, where a prompt's "
                "change cannot be kept; expected True"
            )
        if self._call.prompt:
            self._call.state.updates = None

    def _after_projection(
        self, _module: nn.Module, args: Any, outputs: Tensor
    ) -> Tensor:
        """Apply the changes that prompts were given to what follows them."""
        call = self._call
        if call is None or not call.open:
            return outputs
        call.inputs = call.batched(args[0])
        if call.state.updates is not None:
            shift = call.state.updates.shift(call.inputs)
            shifted = outputs.float() + shift.reshape(outputs.shape)
            outputs = shifted.to(outputs.dtype)
        call.outputs = call.batched(outputs)
        return outputs

    def _after_norm(self, _module: nn.Module, args: Any, normed: Tensor) -> None:
        if self._call is not None:
            self._call.residual, self._call.normed = args[0], normed

    def _after_head(
        self, _module: nn.Module, args: Any, logits: Tensor
    ) -> Tensor | None:
        """Look at the next tokens, and shift where a forbidden one is too likely."""
        call = self._call
        if call is None or not call.seen:
            self._check_drafted(call)
            return None
        bounded = BoundedLogits(call, args[0], logits)
        with torch.no_grad():
            left = call.positions(logits.shape[1])
            if call.prompt:
                ends = call.prompt_ends(logits.shape[1])
                self._bound_prompts(call, ends, bounded)
                left = left.without(ends)
                self._change_drafts(call, left.behind(ends), bounded)
            if self._config.every_token:
                for positions in left.chunks(POSITIONS):
                    self._bound(call, positions, bounded)
        return bounded.changed

    def _check_drafted(self, call: ForwardCall | None) -> None:
        """Refuse logits that no hook saw coming, unless fewer layers draft them."""
        drafted = text_config(self._model).num_hidden_layers < self._depth
        if call is not None and call.open and not drafted:
            raise InterventionError(
                f"{self._solver.target.name}: its hook did not run before the head's, "
                "so these logits are not guarded; load the model without what runs in "
                "its layers' place (compiled or exported code, fused kernels)"
            )

    def _bound(
        self, call: ForwardCall, positions: Positions, bounded: BoundedLogits
    ) -> tuple[Positions, OutputPosition, OutputShift] | None:
        """Bound the next tokens of some positions; return what was shifted."""
        limits = self._limits(call, positions)
        log_p = self._solver.log_probabilities(bounded.at(positions))
        above = np.flatnonzero((log_p > limits + TOLERANCE).any(axis=1))
        if not len(above):
            self.activity.add(len(positions), np.empty(0))
            return None
        chosen = positions[torch.from_numpy(above)]
        position = call.at(chosen, bounded.at(chosen))
        shift = self._solver.solve(position, limits[above])
        bounded.write(chosen, shift.logits)
        self.activity.add(len(positions), shift.excess)
        return chosen, position, shift

    def _limits(self, call: ForwardCall, positions: Positions) -> Floats:
        """Largest log-probabilities, (positions, tokens): formula (1)."""
        reach = self._automaton.reach
        weights = np.stack(
            [
                self._automaton.weights(call.history(row, column, reach))
                for row, column in zip(
                    positions.rows.tolist(), positions.columns.tolist(), strict=True
                )
            ]
        )
        strength = self._config.strength
        limits: Floats = np.where(weights > 0.0, -strength * weights, np.inf)
        return limits

    def _bound_prompts(
        self, call: ForwardCall, ends: Positions, bounded: BoundedLogits
    ) -> None:
        """Bound the first tokens, and keep the least change of the weight that does.

        Of the changes with ``delta h = d`` it is ``d k' / (k' h)``, k = P^-1 h:
        formula (4).
        """
        found = self._bound(call, ends, bounded)
        if found is None:
            return
        chosen, position, shift = found
        inputs = as_floats(position.inputs)
        right = self._solver.preserve.solve(inputs)
        right /= np.sum(right * inputs, axis=1, keepdims=True)
        call.state.updates = RankOneUpdates.of(
            len(call.state.tokens), chosen.rows, shift.outputs,
            torch.from_numpy(right).to(shift.outputs),
        )  # fmt: skip

    def _change_drafts(
        self, call: ForwardCall, positions: Positions, bounded: BoundedLogits
    ) -> None:
        """Apply the changes that prompts were given to what follows in the call."""
        updates = call.state.updates
        if updates is None:
            return
        for part in positions.chunks(POSITIONS):
            position = call.at(part, bounded.at(part))
            shift = updates.select(part.rows).shift(position.inputs)
            changed = self._solver.shifted(position, shift)
            call.replace(part, changed)
            bounded.write(part, changed.logits)

    def _after_call(self, _module: nn.Module, _args: Any, output: Any) -> None:
        """Keep the state of the sequences with their cache."""
        call = self._call
        if call is None:
            return
        call.open = False
        cache = returned_cache(output)
        if cache is not None and self._states.get(cache) is not call.state:
            follow_cache(cache, call.state, self._states)


def _benign(
    tokenizer: Any, words: Sequence[str], texts: Iterable[str]
) -> list[TargetSpan]:
    """Running text, and benign words said to prompts like those for forbidden ones."""
    forbidden = {data.caseless(word) for word in words}
    benign = [word for word in data.benign_words("train") if word not in forbidden]
    passages = [*(one.text for one in data.benign_texts("train")[:TEXTS]), *texts]
    return [
        *(TargetSpan(tuple(encode_text(tokenizer, text)), 1) for text in passages),
        *word_spans(
            tokenizer, benign[:WORDS], data.obedience_templates("train"),
            data.answer_prefixes("train"), starting=1, later=1,
        ),
    ]  # fmt: skip
