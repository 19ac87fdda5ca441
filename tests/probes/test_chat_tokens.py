"""Which tokens the assistant wrote, under templates of the kinds that models have."""

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from mtp_harness.data.conversations import BUILT_IN, Conversation, read_conversations
from mtp_harness.models.load import load_tokenizer
from mtp_harness.probes.chat_tokens import chat_prompt, chat_tokens, scored_text

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


TALK = ("Hi", "Hello", "And?", "Nothing.")


def test_marks_as_transformers_reads_them_are_the_prefix_difference_without_marks():
    marked = tokenizer(MARKED)
    (found,) = chat_tokens(tokenizer(PLAIN), spoken(*TALK), bos=0)
    theirs = marked.apply_chat_template(
        spoken(*TALK).messages, return_dict=True, return_assistant_tokens_mask=True
    )
    assert found.tokens == theirs["input_ids"]
    assert found.scored == [bool(one) for one in theirs["assistant_masks"]]
    assert chat_tokens(marked, spoken(*TALK), bos=0) == [found]


@pytest.mark.parametrize("template", [PLAIN, MARKED], ids=["by difference", "by marks"])
def test_answers_alone_are_scored_with_the_token_that_ends_them(template):
    made = tokenizer(template)
    (reading,) = readings = chat_tokens(made, spoken(*TALK), bos=0)
    assert scored(made, reading) == (
        "Hello<end>Nothing.<end>",
        "<s><user>Hi<end>\n<assistant>Hello<end>\n<user>And?<end>\n<assistant>Nothing.<end>\n",
    )
    assert scored_text(made, readings) == "HelloNothing."
    prompt = made.decode(chat_prompt(made, spoken(*TALK)))
    assert made.decode(reading.tokens).startswith(prompt) and prompt.endswith("<assistant>")


OPENED = (  # DeepSeek-R1, Qwen3.5: the prompt opens the thinking, which an answer may lack
    "{% for m in messages %}<{{ m.role }}>"
    "{% if m.reasoning_content %}<think>\n{{ m.reasoning_content }}\n</think>\n{% endif %}"
    "{{ m.content }}<end>{% endfor %}{% if add_generation_prompt %}<assistant><think>\n{% endif %}"
)
CLOSED = OPENED.replace("<think>\n{% endif %}", "<think>\n\n</think>\n\n{% endif %}")
ENDLESS = (  # GLM: the next speaker's token ends an answer
    "<s>{% for m in messages %}<{{ m.role }}>"
    "{% if m.role == 'assistant' %}<think></think>{% endif %}{{ '\\n' + m.content }}{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)


@pytest.mark.parametrize(
    ("template", "more", "answer"),
    [
        (OPENED, {}, "Hello<end>"),
        (OPENED, {"reasoning_content": "hm"}, "hm\n</think>\nHello<end>"),
        (CLOSED, {}, "Hello<end>"),
        (CLOSED, {"reasoning_content": "hm"}, "<think>\nhm\n</think>\nHello<end>"),
        (ENDLESS, {}, "<think></think>\nHello"),
    ],
)
def test_a_block_of_thinking_belongs_to_who_wrote_it(template, more, answer):
    made = tokenizer(template)
    (reading,) = chat_tokens(made, spoken("Hi", "Hello", **more), bos=0)
    assert scored(made, reading)[0] == answer


def test_tools_and_what_they_say_are_not_the_assistants():
    template = PLAIN.replace("<s>", "<s>{% for t in tools or [] %}{{ t.name }}{% endfor %}")
    made = tokenizer(template.replace("m.content", "(m.content or m.tool_calls[0])"))
    messages = [
        {"role": "user", "content": "Rain?"},
        {"role": "assistant", "content": None, "tool_calls": ["look()"]},
        {"role": "user", "content": "wet"},
        {"role": "assistant", "content": "Yes."},
    ]
    (reading,) = chat_tokens(made, Conversation("1", None, messages, [{"name": "look"}]), bos=0)
    assert scored(made, reading)[0] == "look()<end>Yes.<end>"
    assert scored(made, reading)[1].startswith("<s>look<user>")


def test_a_tokenizer_without_offsets_is_named():
    made = tokenizer(PLAIN)

    class Slow:
        is_fast = False

        def __getattr__(self, name):
            return getattr(made, name)

    with pytest.raises(ValueError, match="gives the characters of each token.*give a fast one"):
        chat_tokens(Slow(), spoken("Hi", "Hello"), bos=0)


def test_a_template_that_forgets_reasoning_gives_a_reading_for_each_answer():
    made = tokenizer(FORGETFUL)
    document = spoken("Hi", "Hello", "And?", "Nothing.", reasoning_content="hm")
    first, second = chat_tokens(made, document, made.bos_token_id)
    assert scored(made, first) == (
        "<think>hm</think>Hello<end>",
        "<s><user>Hi<end>\n<assistant><think>hm</think>Hello<end>",
    )
    assert scored(made, second)[0] == "<think>hm</think>Nothing.<end>"
    assert scored(made, second)[1].startswith("<s><user>Hi<end>\n<assistant>Hello<end>\n<user>And")


def test_without_a_template_messages_are_paragraphs():
    made = tokenizer(None)
    (reading,) = chat_tokens(made, spoken("Hi", "Hello"), made.bos_token_id)
    assert scored(made, reading) == ("Hello", "<s>Hi\n\nHello")
    assert chat_prompt(made, spoken("Hi", "Hello")) == "Hi\n\n"
    with pytest.raises(ValueError, match="not plain text, and the tokenizer has no chat template"):
        chat_tokens(made, spoken([{"type": "text", "text": "Hi"}], "Hello"), made.bos_token_id)


def test_plain_texts_have_no_template():
    made = tokenizer(PLAIN)
    (reading,) = chat_tokens(
        made, Conversation("1", None, [], None, "2 + 2 =", " 4"), made.bos_token_id
    )
    assert scored(made, reading) == (" 4", "<s>2 + 2 = 4")


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
        chat_tokens(made, spoken("Hi", "Hello"), made.bos_token_id)


def test_the_built_in_set_is_read_by_the_shipped_tokenizer():
    made = load_tokenizer("mtp-bytes-n4")
    for document in read_conversations(BUILT_IN):
        (reading,) = chat_tokens(made, document, made.bos_token_id)
        answer = document.messages[-1]["content"]
        kept = [t for t, keep in zip(reading.tokens, reading.scored, strict=True) if keep]
        assert bytes(kept).decode() == answer
