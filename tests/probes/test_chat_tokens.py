"""Which tokens the assistant wrote, under templates of the kinds that models have."""

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from mtp_harness.data.conversations import BUILT_IN, Conversation, read_conversations
from mtp_harness.models.load import load_tokenizer
from mtp_harness.probes.chat_tokens import chat_tokens

SPECIAL = ["<s>", "<end>", "<user>", "<assistant>", "<system>", "<think>", "</think>"]
PLAIN = (
    "<s>{% for m in messages %}<{{ m.role }}>{{ m.content }}<end>\n{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)
MARKED = (
    "<s>{% for m in messages %}<{{ m.role }}>"
    "{% if m.role == 'assistant' %}{% generation %}{{ m.content }}<end>{% endgeneration %}"
    "{% else %}{{ m.content }}<end>{% endif %}{{ '\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)
FORGETFUL = (  # reasoning is shown for the last answer alone
    "<s>{% for m in messages %}<{{ m.role }}>"
    "{% if m.role == 'assistant' and loop.last %}"
    "<think>{{ m.reasoning_content }}</think>{% endif %}"
    "{{ m.content }}<end>\n{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}"
)
REWRITES = "<s>{% for m in messages %}{{ m.role }}: {{ m.content }}<end>{% endfor %}"
REFUSES = "{{ raise_exception('only two roles') }}"


def tokenizer(template):
    """Bytes, and special tokens."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    bare = Tokenizer(models.BPE({letter: i for i, letter in enumerate(alphabet)}, []))
    bare.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bare.decoder = decoders.ByteLevel()
    made = PreTrainedTokenizerFast(tokenizer_object=bare, eos_token="<end>", bos_token="<s>")
    made.add_special_tokens({"additional_special_tokens": SPECIAL[2:]})
    made.chat_template = template
    return made


def spoken(*contents, **more):
    roles = ["user", "assistant"] * len(contents)
    messages = [
        {"role": role, "content": content, **(more if role == "assistant" else {})}
        for role, content in zip(roles, contents, strict=False)
    ]
    return Conversation("1", None, messages)


def scored(made, reading):
    """The scored tokens as text, and all of them."""
    kept = [token for token, keep in zip(reading.tokens, reading.scored, strict=True) if keep]
    return made.decode(kept), made.decode(reading.tokens)


@pytest.mark.parametrize("template", [PLAIN, MARKED], ids=["by difference", "by marks"])
def test_answers_alone_are_scored_with_the_token_that_ends_them(template):
    made = tokenizer(template)
    (reading,) = chat_tokens(made, spoken("Hi", "Hello", "And?", "Nothing."))
    assert scored(made, reading) == (
        "Hello<end>Nothing.<end>",
        "<s><user>Hi<end>\n<assistant>Hello<end>\n<user>And?<end>\n<assistant>Nothing.<end>\n",
    )


def test_a_template_that_forgets_reasoning_gives_a_reading_for_each_answer():
    made = tokenizer(FORGETFUL)
    document = spoken("Hi", "Hello", "And?", "Nothing.", reasoning_content="hm")
    first, second = chat_tokens(made, document)
    assert scored(made, first) == (
        "<think>hm</think>Hello<end>",
        "<s><user>Hi<end>\n<assistant><think>hm</think>Hello<end>",
    )
    assert scored(made, second)[0] == "<think>hm</think>Nothing.<end>"
    assert scored(made, second)[1].startswith("<s><user>Hi<end>\n<assistant>Hello<end>\n<user>And")


def test_without_a_template_messages_are_paragraphs():
    made = tokenizer(None)
    (reading,) = chat_tokens(made, spoken("Hi", "Hello"))
    assert scored(made, reading) == ("Hello", "Hi\n\nHello")
    with pytest.raises(ValueError, match="no plain text, and the tokenizer has no chat template"):
        chat_tokens(made, spoken([{"type": "text", "text": "Hi"}], "Hello"))


def test_plain_texts_have_no_template():
    made = tokenizer(PLAIN)
    (reading,) = chat_tokens(made, Conversation("1", None, [], None, "2 + 2 =", " 4"))
    assert scored(made, reading) == (" 4", "2 + 2 = 4")


@pytest.mark.parametrize(
    ("template", "said"),
    [
        (REWRITES, "does not begin an answer with the prompt that it gives for one"),
        (REFUSES, "the chat template refuses its messages .only two roles"),
    ],
)
def test_a_template_that_cannot_be_read_is_named(template, said):
    made = tokenizer(template + "{% if add_generation_prompt %}assistant>{% endif %}")
    with pytest.raises(ValueError, match=said):
        chat_tokens(made, spoken("Hi", "Hello"))


def test_the_built_in_set_is_read_by_the_shipped_tokenizer():
    made = load_tokenizer("mtp-bytes-n4")
    for document in read_conversations(BUILT_IN):
        (reading,) = chat_tokens(made, document)
        answer = document.messages[-1]["content"]
        kept = [t for t, keep in zip(reading.tokens, reading.scored, strict=True) if keep]
        assert bytes(kept).decode() == answer
