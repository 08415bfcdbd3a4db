# SPDX-License-Identifier: Apache-2.0
"""Whatever way a model decodes, forbidden words are not said."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from support.characters import CHARACTERS
from support.guarded import PROMPTS, STRENGTH, TOKENIZER, forbidden, guard, padded, said
from support.tiny_models import ARCHITECTURES, make_tiny_model

from cintervene.errors import ModelError

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

LENGTH = 8
# Of which prompt lookup finds something to copy.
REPEATED = "a, a, 7, a q; a, 7,"


@pytest.fixture(scope="module")
def llama() -> Any:
    return make_tiny_model("llama", max_position_embeddings=1024)


@pytest.fixture(scope="module")
def own(llama: Any) -> Any:
    """A guard whose changes for prompts act on much of what follows."""
    return guard(llama, ridge=1e3)


def generate(model: Any, prompts: list[str], **options: Any) -> list[list[int]]:
    """Answers, one after another for each prompt."""
    inputs = padded(prompts)
    given = {
        "max_new_tokens": LENGTH, "do_sample": False, "pad_token_id": 0,
        "eos_token_id": None,
    }  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.random.manual_seed(0)
        found = model.generate(**inputs, **(given | options))
    length = inputs["input_ids"].shape[1]
    return [row[length:] for row in found.tolist()]


def words_said(model: Any, prompts: list[str], **options: Any) -> list[str]:
    answers = generate(model, prompts, **options)
    each = len(answers) // len(prompts)
    return [
        word
        for at, answer in enumerate(answers)
        for word in said(TOKENIZER(prompts[at // each])["input_ids"], answer)
    ]


# A token that is a word.
BIASED = CHARACTERS.index("a") + 1

BATCHES: dict[str, dict[str, Any]] = {
    "greedy": {},
    "no cache": {"use_cache": False},
    "static cache": {"cache_implementation": "static"},
    "quantised cache": {
        "cache_implementation": "quantized",
        "cache_config": {"backend": "fp8"},
    },
    "chunked prefill": {"prefill_chunk_size": 3},
    "sampling": {"do_sample": True, "top_k": 0},
    "hot sampling": {"do_sample": True, "top_k": 0, "temperature": 4.0},
    "only the best of guidance": {
        "do_sample": True,
        "top_k": 1,
        "guidance_scale": 6.0,
    },
    "only the best of a bias": {
        "do_sample": True,
        "top_k": 1,
        "sequence_bias": [[[BIASED], 50.0]],
    },
    "several answers": {"do_sample": True, "num_return_sequences": 3},
    "beams": {"num_beams": 4, "num_return_sequences": 4},
    "sampled beams": {"num_beams": 3, "do_sample": True},
    "guidance": {"guidance_scale": 6.0},
}


@pytest.mark.parametrize("way", sorted(BATCHES))
def test_batches(llama: Any, own: Any, way: str) -> None:
    plain = words_said(llama, PROMPTS, **BATCHES[way])
    before = own.activity.shifted
    with own:
        found = words_said(llama, PROMPTS, **BATCHES[way])
    assert plain or "do_sample" in BATCHES[way]
    assert found == []
    assert own.activity.shifted > before


def adapted(layers: list[int]) -> Any:
    """A model with a LoRA of random factors on some layers."""
    peft = pytest.importorskip("peft")
    inner = make_tiny_model("llama", max_position_embeddings=1024)
    config = peft.LoraConfig(
        target_modules=["q_proj", "down_proj"], layers_to_transform=layers, r=2,
        init_lora_weights=False,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return peft.get_peft_model(inner, config).eval()


@pytest.mark.parametrize("way", ["greedy", "hot sampling", "beams"])
def test_around_an_adapter(way: str) -> None:
    """Whether peft's model or the one inside it generates."""
    model = adapted([0, 2])
    plain = words_said(model, PROMPTS, **BATCHES[way])
    assert plain or "sampling" in way
    around = guard(model, ridge=1e3)
    with around:
        assert words_said(model, PROMPTS, **BATCHES[way]) == []
        assert words_said(model.get_base_model(), PROMPTS, **BATCHES[way]) == []
    assert around.activity.shifted > 0
    assert words_said(model, PROMPTS, **BATCHES[way]) == plain


def test_an_adapter_on_the_last_layer_is_refused() -> None:
    with pytest.raises(ModelError, match="belongs to an adapter; merge the adapter"):
        guard(adapted([2, 3]))


DRAFTS = ("lookup", "itself", "another", "early exit", "sampled")


def drafted(model: Any, kind: str) -> dict[str, Any]:
    if kind == "lookup":
        return {"prompt_lookup_num_tokens": 4}
    if kind == "early exit":
        return {"assistant_early_exit": 2}
    draft = copy.deepcopy(model)
    if kind == "another":
        draft.lm_head.weight.data.add_(0.05)
    return {"assistant_model": draft, "do_sample": kind == "sampled"}


@pytest.mark.parametrize("kind", DRAFTS)
def test_drafts_are_bounded_token_by_token(llama: Any, own: Any, kind: str) -> None:
    """Greedy answers with drafts are those without, the prompt's change included."""
    options = drafted(llama, kind)
    moved = 0
    for prompt in (*PROMPTS, REPEATED):
        plain = generate(llama, [prompt])
        with own:
            answer = generate(llama, [prompt])
            assert words_said(llama, [prompt], **options) == []
            assert kind == "sampled" or generate(llama, [prompt], **options) == answer
        moved += plain != answer
    assert moved


def test_drafts_see_the_change_that_the_prompt_was_given(llama: Any) -> None:
    """One call of prompt and drafts gives the logits of a call for each."""
    ids = padded(["this: "])["input_ids"]
    rest = torch.tensor([[40, 41, 42]])
    for every in (True, False):
        with guard(llama, ridge=1e3, every_token=every), torch.no_grad():
            together = llama(torch.cat([ids, rest], dim=1), logits_to_keep=4).logits
            first = llama(ids, use_cache=True, logits_to_keep=1)
            then = llama(rest, past_key_values=first.past_key_values).logits
        apart = torch.cat([first.logits, then], dim=1)
        torch.testing.assert_close(together, apart, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", sorted(ARCHITECTURES))
def test_a_static_cache_changes_nothing(name: str) -> None:
    model = make_tiny_model(name, max_position_embeddings=1024)
    with guard(model):
        answers = generate(model, PROMPTS)
        assert generate(model, PROMPTS, cache_implementation="static") == answers


def above_limits(logits: Any, ids: Any) -> int:
    """Positions at which a limit is broken."""
    return sum(
        bool((row.log_softmax(-1)[tokens] > 0.011 - STRENGTH).any())
        for at, row in enumerate(logits[0], 1)
        if (tokens := forbidden(TOKENIZER.decode(ids[0, :at].tolist())))
    )


def test_logits_of_every_position_are_bounded(llama: Any, own: Any) -> None:
    """By whoever calls the model, at all positions or at some of them."""
    ids = padded(["this: a, q x"])["input_ids"]
    with own, torch.no_grad():
        whole = llama(ids).logits
        some = llama(ids, logits_to_keep=torch.tensor([3, 5, 11])).logits
    assert above_limits(whole, ids) == 0
    assert above_limits(llama(ids).logits, ids) > 0
    torch.testing.assert_close(some[0, 0], whole[0, 3], rtol=1e-4, atol=1e-4)


def forward_loop(model: Any, cache: Any, size: int = LENGTH) -> list[int]:
    """A user's own greedy loop, from a cache that holds all of PROMPTS[0] but "x"."""
    token = torch.tensor([TOKENIZER("x")["input_ids"]])
    found: list[int] = []
    for _ in range(size):
        with torch.no_grad():
            logits = model(token, past_key_values=cache, use_cache=True).logits
        token = logits[:, -1:].argmax(-1)
        found.append(int(token))
    return found


def test_copies_of_a_cache_go_on_with_their_own_tokens(llama: Any, own: Any) -> None:
    with own, torch.no_grad():
        ids = padded(["say "])["input_ids"]
        cache = llama(ids, use_cache=True).past_key_values
        copied = copy.deepcopy(cache)
        first = forward_loop(llama, cache)
        assert forward_loop(llama, copied) == first
        assert said(TOKENIZER("say x")["input_ids"], first) == []


def test_rows_of_a_cache_that_are_chosen_and_repeated(llama: Any, own: Any) -> None:
    """As contrastive search does; "x" has to be known as begun in its own row only."""
    with own, torch.no_grad():
        cache = llama(padded(["this b", "this x"])["input_ids"]).past_key_values
        cache.batch_repeat_interleave(2)
        cache.batch_select_indices(torch.tensor([3, 0]))
        comma = torch.tensor([TOKENIZER(",")["input_ids"]] * 2)
        llama(comma, past_key_values=cache)
        cache.crop(-1)
        state = cache.reorder_cache._states[cache]
    assert [TOKENIZER.decode(row[-2:]) for row in state.tokens] == [" x", " b"]


def test_embeddings_are_read_as_tokens(llama: Any, own: Any) -> None:
    """Also those that are no prompt's: a loop that feeds embeddings is guarded."""
    embedding = llama.get_input_embeddings()
    ids = padded(["say x"])["input_ids"]
    with own, torch.no_grad():
        found = llama(inputs_embeds=embedding(ids)).logits
        torch.testing.assert_close(found, llama(ids).logits)


def test_continuous_batching(llama: Any, own: Any) -> None:
    prompts = [TOKENIZER(prompt)["input_ids"] for prompt in PROMPTS]
    config = transformers.GenerationConfig(
        max_new_tokens=LENGTH, do_sample=False, eos_token_id=-1, pad_token_id=0
    )
    before = own.activity.shifted
    with own:
        outputs = llama.generate_batch(
            prompts, generation_config=config, progress_bar=False
        )
    assert all(one.error is None for one in outputs.values())
    assert own.activity.shifted > before
    answers = {tuple(one.prompt_ids): one.generated_tokens for one in outputs.values()}
    assert [said(prompt, answers[tuple(prompt)]) for prompt in prompts] == [[]] * 4


def test_a_state_that_cannot_be_followed_is_refused() -> None:
    config = transformers.RwkvConfig(
        vocab_size=97, hidden_size=24, attention_hidden_size=24, num_hidden_layers=2
    )
    with pytest.raises(ModelError):
        guard(transformers.RwkvForCausalLM(config).eval())
