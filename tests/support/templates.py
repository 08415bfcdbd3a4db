# SPDX-License-Identifier: Apache-2.0
"""A tokenizer of transformers for tiny models, and chat templates of the usual kinds.

The templates have the shapes that models come with, in words of our own.
"""

from __future__ import annotations

from typing import Any

SPECIAL = ("<s>", "</s>", "<|im_start|>", "<|im_end|>")
TURN = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n"
    "{% endfor %}"
)
ASK = "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
PLAIN = TURN + ASK
PARTS = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{% for c in m['content'] %}"
    "{% if c['type'] == 'text' %}{{ c['text'] }}{% endif %}{% endfor %}<|im_end|>\n"
    "{% endfor %}" + ASK
)
EMPTY_BLOCK = "{{ '<think>\\n\\n</think>\\n\\n' }}"
# A block that is left empty if nobody thinks.
QWEN3 = PLAIN + (
    "{% if enable_thinking is defined and enable_thinking is false %}"
    + EMPTY_BLOCK
    + "{% endif %}"
)
# A line of the system that says which.
SMOLLM3 = (
    "{% if enable_thinking is not defined %}{% set enable_thinking = true %}{% endif %}"
    "<|im_start|>system\nmode: {{ '/think' if enable_thinking else '/no_think' }}"
    "<|im_end|>\n" + PLAIN
)
# Always within a block that is begun.
R1 = PLAIN + "{{ '<think>\\n' }}"
GRANITE = "{% if thinking %}Think first, in a <think> block</think>.{% endif %}" + PLAIN
DEEPSEEK = PLAIN + (
    "{% if thinking is defined and thinking %}<think>{% else %}</think>{% endif %}"
)
EFFORT = (
    "{% set effort = reasoning_effort if reasoning_effort is defined else 'medium' %}"
    "effort: {{ effort }}, {{ identity_name }}\n" + PLAIN
)
COMPARED = "{% if style == 'deep' %}D{% elif style == 'quick' %}Q{% endif %}" + PLAIN
DATED = (
    "{% if date_string is not defined %}"
    "{% set date_string = strftime_now('%d %b %Y') %}"
    "{% endif %}Today is {{ date_string }}.\n" + PLAIN
)


def make_tokenizer(template: Any = None, ends: bool = False) -> Any:
    """A byte-level tokenizer; `ends` puts the tokens of begin and end around texts."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: at for at, token in enumerate([*SPECIAL, *letters])}
    core = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    if ends:
        core.post_processor = processors.TemplateProcessing(
            single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 1)]
        )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core, bos_token="<s>", eos_token="</s>", pad_token="</s>",
        additional_special_tokens=["<|im_start|>", "<|im_end|>"],
    )  # fmt: skip
    tokenizer.chat_template = template
    return tokenizer
