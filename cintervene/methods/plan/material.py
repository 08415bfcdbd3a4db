# SPDX-License-Identifier: Apache-2.0
"""How much text a method runs over, from its parameters alone.

Tokens are counted with SmolLM2's tokenizer and chat template; others make up to a
third more or less of them.
"""

from __future__ import annotations

from dataclasses import dataclass

from cintervene import data
from cintervene.methods.arr.config import ARRConfig
from cintervene.methods.config import DescentConfig, RequestConfig
from cintervene.methods.gate.config import GateConfig
from cintervene.methods.pcr.config import PCRConfig

__all__ = ["EXAMPLE", "Material", "material_of"]

# Tokens of a conversation in which a word is said, places that are constrained there,
# and benign words in it that are to stay.
SAID, PLACES, STAYING = 50, 2.4, 1.9
# Tokens of an everyday prompt in its template, of a passage of running text, and of an
# example about a request; of examples for each request that is to be refused.
PROMPT, PASSAGE, EXAMPLE, EXAMPLES = 45, 150, 58, 2.25
# Tokens of a refusal.
REFUSAL = 8
# Conversations of each benign word, and of each word to tune on.
TURNS, TUNE_TURNS = 4, 4


@dataclass(frozen=True)
class Material:
    """Tokens and rows, about.

    Attributes
    ----------
    answered : int
        Prompts that the model answers beforehand.
    answer : int
        Tokens of an answer.
    forget, near, benign, tune : int
        Tokens of what is forbidden or harmful, of what is most like it, of all other
        text, and of what a strength is chosen on.
    constrained : int
        Rows of constraints, or of losses.
    kept : int
        Rows that are to stay.
    wanted : int
        Rows of an example about a request whose next tokens matter.
    compared : int
        Rows whose next tokens are compared with those before, where a strength is
        chosen.
    """

    answered: int
    answer: int
    forget: int
    near: int
    benign: int
    tune: int
    constrained: int
    kept: int
    wanted: int
    compared: int

    @property
    def tokens(self) -> int:
        """All that the model runs over to fit."""
        return self.forget + self.near + self.benign


def material_of(config: RequestConfig | PCRConfig, neurons: bool) -> Material:
    """What there is with these parameters.

    Parameters
    ----------
    config : MethodConfig
    neurons : bool
        Whether PCR changes neurons, for which the model writes sentences.
    """
    if not isinstance(config, PCRConfig):
        return _of_requests(config)
    if config.kind == "forbid":
        return _of_words(config, neurons)
    return _of_concept(config)


def _of_words(config: PCRConfig, neurons: bool) -> Material:
    size, words = config.calibration, len(config.forbid or ())
    sentences = words * size.sentences if neurons else 0
    own_answers = config.answers is None
    said = words * (size.starting + size.later)
    near = TURNS * size.contrast_words + size.text_words
    own = PROMPT + size.answer_tokens
    return Material(
        answered=own_answers * (size.prompts + size.tune_prompts + sentences),
        answer=size.answer_tokens,
        forget=SAID * said,
        near=SAID * near,
        benign=size.prompts * own + size.texts * PASSAGE,
        tune=SAID * TUNE_TURNS * (words + size.tune_words) + size.tune_prompts * own,
        constrained=round(PLACES * said + STAYING * near),
        kept=size.prompts * size.answer_tokens + size.texts * PASSAGE,
        wanted=size.answer_tokens,
        compared=size.tune_prompts * size.answer_tokens,
    )


def _of_concept(config: PCRConfig) -> Material:
    size, texts = config.calibration, len(config.examples or config.harmful or ())
    own = PROMPT + size.answer_tokens
    near = size.contrast_prompts if config.kind == "harmful" else 0
    return Material(
        answered=size.prompts + size.tune_prompts + (2 * texts if near else 0),
        answer=size.answer_tokens,
        forget=texts * own,
        near=near * own,
        benign=size.prompts * own + size.texts * PASSAGE,
        tune=size.tune_prompts * own + texts * own,
        constrained=texts * size.positions,
        kept=size.prompts * size.answer_tokens + size.texts * PASSAGE,
        wanted=size.answer_tokens,
        compared=size.tune_prompts * size.answer_tokens,
    )


def _of_requests(config: RequestConfig) -> Material:
    harmful = len(config.requests)
    if isinstance(config, DescentConfig):
        everyday, borderline = config.answers, config.borderline
        answer = config.answer_tokens
    else:
        assert isinstance(config, GateConfig)
        everyday = borderline = config.benign
        answer = config.answer_tokens
    benign = everyday + borderline + len(config.preserve)
    tuned = len(data.harmful_prompts("tune")) + benign // 4
    examples = round(EXAMPLES * harmful)
    # Those of an answer that is to be left, or of a refusal.
    wanted = answer if isinstance(config, ARRConfig) else REFUSAL
    return Material(
        answered=everyday + everyday // 4 + harmful // 2,
        answer=answer,
        forget=EXAMPLE * examples,
        near=EXAMPLE * borderline,
        benign=EXAMPLE * everyday,
        tune=EXAMPLE * tuned,
        constrained=wanted * examples,
        kept=EXAMPLE * benign // 2,
        wanted=wanted,
        compared=wanted * tuned,
    )
