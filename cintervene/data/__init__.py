# SPDX-License-Identifier: Apache-2.0
"""Words, templates, prompts and texts to tune an intervention on and to measure it.

Everything here was written for this package. The data that an intervention is built
from (``"train"``), the data its strength is chosen on (``"tune"``), the data that
reports are made of (``"held_out"``) and a frozen set that is reported on last, and that
nothing is ever tuned on (``"fresh"``), share no entry.
"""

from cintervene.data.languages import LanguageRequest, language_requests
from cintervene.data.prompts import (
    BenignPrompt,
    BenignText,
    ObedienceTemplate,
    answer_prefixes,
    benign_prompts,
    benign_texts,
    obedience_templates,
    sentence_templates,
)
from cintervene.data.readers import read_requests, read_texts, read_words
from cintervene.data.refusals import (
    HarmfulPrompt,
    borderline_prompts,
    compliance_prefixes,
    conversations,
    disguise_templates,
    harmful_prompts,
    jailbreak_templates,
    ordinary_templates,
    safe_refusals,
)
from cintervene.data.splits import Split
from cintervene.data.templates import fill_in_turn, fill_template, is_encoded
from cintervene.data.word_clues import definitions, extraction_templates, running_texts
from cintervene.data.words import (
    benign_words,
    caseless,
    forbidden_words,
    normal_word,
    related_words,
    unique_words,
)

__all__ = [
    "BenignPrompt",
    "BenignText",
    "HarmfulPrompt",
    "LanguageRequest",
    "ObedienceTemplate",
    "Split",
    "answer_prefixes",
    "benign_prompts",
    "benign_texts",
    "benign_words",
    "borderline_prompts",
    "caseless",
    "compliance_prefixes",
    "conversations",
    "definitions",
    "disguise_templates",
    "extraction_templates",
    "fill_in_turn",
    "fill_template",
    "forbidden_words",
    "harmful_prompts",
    "is_encoded",
    "jailbreak_templates",
    "language_requests",
    "normal_word",
    "obedience_templates",
    "ordinary_templates",
    "read_requests",
    "read_texts",
    "read_words",
    "related_words",
    "running_texts",
    "safe_refusals",
    "sentence_templates",
    "unique_words",
]
