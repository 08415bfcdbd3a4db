# SPDX-License-Identifier: Apache-2.0
"""Words, templates, prompts and texts to tune an intervention on and to measure it.

Everything here was written for this package. The data that an intervention is built
from (``"train"``), the data its strength is chosen on (``"tune"``) and the data that
reports are made of (``"held_out"``) share no entry.
"""

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
    disguise_templates,
    harmful_prompts,
    jailbreak_templates,
    ordinary_templates,
    safe_refusals,
)
from cintervene.data.splits import Split
from cintervene.data.templates import fill_in_turn, fill_template, is_encoded
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
    "ObedienceTemplate",
    "Split",
    "answer_prefixes",
    "benign_prompts",
    "benign_texts",
    "benign_words",
    "borderline_prompts",
    "caseless",
    "compliance_prefixes",
    "disguise_templates",
    "fill_in_turn",
    "fill_template",
    "forbidden_words",
    "harmful_prompts",
    "is_encoded",
    "jailbreak_templates",
    "normal_word",
    "obedience_templates",
    "ordinary_templates",
    "read_requests",
    "read_texts",
    "read_words",
    "related_words",
    "safe_refusals",
    "sentence_templates",
    "unique_words",
]
