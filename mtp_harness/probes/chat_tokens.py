"""Finds the tokens of a conversation that the assistant wrote, under the model's chat template.

Only these are scored, because no model drafts the template's or the user's tokens. If the template
marks them (`{% generation %}`), the marks are used. Otherwise an answer is what the template adds
to the prompt for that answer:

    template(messages before, with the prompt for an answer)  →  <user>Hi<end><assistant>
    template(messages before, and the answer)                 →  <user>Hi<end><assistant>Hello<end>
                                                                                     ^^^^^^^^^^

A prompt may open a block of thinking that the template leaves out of an answer without thinking;
the answer then begins where the block would. A template that shows an answer differently once the
conversation continues (without its reasoning) gives one reading for each answer, as they were
generated. Without a template, messages are paragraphs of plain text.
"""

import re
from collections.abc import Sequence
from itertools import groupby
from typing import Any, NamedTuple

from mtp_harness.data.conversations import Conversation

_MARKED = re.compile(r"\{%-?\s*generation\s*-?%\}")
_THINKING = re.compile(r"<think>\s*(</think>\s*)?\Z")

MARKS = "chat template, its marks"
DIFFERENCE = "chat template, prefix difference"
NO_TEMPLATE = "no chat template: messages as paragraphs"
"""How the assistant's tokens were found, as the results say it."""


class ChatTokens(NamedTuple):
    """One reading of a conversation."""

    tokens: list[int]  # all of them, the special ones of the template included
    scored: list[bool]  # for each, whether the assistant wrote it


def way_of(tokenizer: Any, document: Conversation) -> str:
    """Return how the assistant's tokens of a document are found."""
    template = _template_of(tokenizer, document)
    if template is None:
        return NO_TEMPLATE
    return MARKS if _MARKED.search(template) else DIFFERENCE


def chat_tokens(tokenizer: Any, document: Conversation, bos: int) -> list[ChatTokens]:
    """Return the readings of a document: one, or one for each answer.

    Args:
        tokenizer: a fast tokenizer of transformers.
        document: with something to score.
        bos: the token before plain text; a template writes its own.

    Raises:
        ValueError: the tokenizer does not give the characters of each token, the template refuses
            the messages, or an answer is not what it adds to the prompt for it.
    """
    if not tokenizer.is_fast:
        raise ValueError(
            "conversations need a tokenizer that gives the characters of each token, and this one "
            "does not: give a fast one (tokenizer=…)"
        )
    if not document.messages:
        begin = len(document.context)
        spans = [(begin, begin + len(document.text))]
        return [_with_spans(tokenizer, document.context + document.text, spans, bos)]
    way = way_of(tokenizer, document)
    if way == NO_TEMPLATE:
        return [_with_spans(tokenizer, *_paragraphs(document, document.messages), bos)]
    if way == MARKS:
        found = _template(tokenizer, document, document.messages, tokenize=True)
        return [ChatTokens(found["input_ids"], [bool(one) for one in found["assistant_masks"]])]
    return _by_difference(tokenizer, document)


def chat_prompt(tokenizer: Any, document: Conversation) -> str | list[int]:
    """Return the model's input for the last answer: text without a template, else tokens.

    Raises:
        ValueError: the template refuses the messages.
    """
    if not document.messages:
        return document.context
    if way_of(tokenizer, document) == NO_TEMPLATE:
        return _paragraphs(document, document.asked)[0] + "\n\n"
    text = _template(tokenizer, document, document.asked, prompt=True)
    tokens: list[int] = tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
    return tokens


def scored_text(tokenizer: Any, readings: Sequence[ChatTokens]) -> str:
    """Return the text of the scored tokens, special ones left out."""
    return "".join(
        tokenizer.decode([token for token, _ in run], skip_special_tokens=True)
        for reading in readings
        for keep, run in groupby(zip(*reading, strict=True), key=lambda pair: pair[1])
        if keep
    )


def _template_of(tokenizer: Any, document: Conversation) -> str | None:
    if not document.messages or not getattr(tokenizer, "chat_template", None):
        return None
    found: str = tokenizer.get_chat_template(tools=document.tools)
    return found


def _paragraphs(
    document: Conversation, messages: Sequence[dict[str, Any]]
) -> tuple[str, list[tuple[int, int]]]:
    """Return messages as paragraphs of plain text, and the characters of the answers."""
    text, spans = "", []
    for message in messages:
        text += "\n\n" * bool(text)
        if not isinstance(message.get("content"), str):
            raise ValueError(
                f"document {document.id} has messages that are not plain text, and the tokenizer "
                "has no chat template: give one that has"
            )
        if message["role"] == "assistant":
            spans.append((len(text), len(text) + len(message["content"])))
        text += message["content"]
    return text, spans


def _by_difference(tokenizer: Any, document: Conversation) -> list[ChatTokens]:
    """Return readings by what the template adds for each answer."""
    messages = document.messages
    whole = _template(tokenizer, document, messages)
    spans, apart = [], []
    for place, message in enumerate(messages):
        if message["role"] != "assistant":
            continue
        before = _template(tokenizer, document, messages[:place], prompt=True)
        after = _template(tokenizer, document, messages[: place + 1])
        if not after.startswith(before):
            before = _THINKING.sub("", before)
        if not after.startswith(before):
            raise ValueError(
                f"document {document.id}: the chat template does not begin an answer with the "
                "prompt that it gives for one, so that which tokens are the assistant's is not "
                "known: mark them in the template with {% generation %}"
            )
        span = (len(before), _end_of_answer(tokenizer, after))
        spans.append(span)
        apart.append(after[: span[1]])
    if all(whole.startswith(text) for text in apart):
        return [_with_spans(tokenizer, whole, spans)]
    return [_with_spans(tokenizer, text, [span]) for text, span in zip(apart, spans, strict=True)]


def _end_of_answer(tokenizer: Any, text: str) -> int:
    """Return where an answer ends: after a special token that only white space follows, if any."""
    bare = text.rstrip()
    return len(bare) if bare.endswith(tuple(tokenizer.all_special_tokens)) else len(text)


def _template(
    tokenizer: Any,
    document: Conversation,
    messages: Sequence[dict[str, Any]],
    prompt: bool = False,
    tokenize: bool = False,
) -> Any:
    """Return messages under the chat template: text, or tokens with their marks."""
    marks: dict[str, Any] = {"return_dict": True, "return_assistant_tokens_mask": True}
    try:
        return tokenizer.apply_chat_template(
            list(messages),
            tools=document.tools,
            add_generation_prompt=prompt,
            tokenize=tokenize,
            **(marks if tokenize else {}),
        )
    except Exception as error:  # templates raise exceptions of any type
        said = " ".join(str(error).split())
        raise ValueError(
            f"document {document.id}: the chat template refuses its messages ({said}): change "
            "them, or leave the document out"
        ) from error


def _with_spans(
    tokenizer: Any, text: str, spans: Sequence[tuple[int, int]], bos: int | None = None
) -> ChatTokens:
    """Return a text's tokens, scored where they begin within a span of characters."""
    found = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
    scored = [
        any(start <= begin < end for start, end in spans) and finish > begin
        for begin, finish in found["offset_mapping"]
    ]
    tokens = found["input_ids"]
    return (
        ChatTokens(tokens, scored) if bos is None else ChatTokens([bos, *tokens], [False, *scored])
    )
