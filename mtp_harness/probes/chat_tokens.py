"""Which tokens of a conversation the assistant wrote, under the model's own chat template.

Heads are scored over these alone: what a template or a user puts there, no model drafts. Where the
template marks them (`{% generation %}`), the marks are taken. Otherwise each answer is what the
template adds to the prompt that a model would have been given for it:

    template(messages before, with the prompt for an answer)  →  <user>Hi<end><assistant>
    template(messages before, and the answer)                 →  <user>Hi<end><assistant>Hello<end>
                                                                                     ^^^^^^^^^^

A template that shows an answer otherwise once the conversation goes on (reasoning left out of
earlier answers) gives one reading for each answer, as they were generated.
"""

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

from mtp_harness.data.conversations import Conversation

_MARKED = re.compile(r"\{%-?\s*generation\s*-?%\}")

NO_TEMPLATE = "none: messages as paragraphs"
"""What results say of a tokenizer without a chat template."""


class ChatTokens(NamedTuple):
    """One reading of a conversation.

    Attributes:
        tokens: all of them, the special ones of the template included.
        scored: for each, whether the assistant wrote it.
    """

    tokens: list[int]
    scored: list[bool]


def chat_tokens(tokenizer: Any, document: Conversation) -> list[ChatTokens]:
    """Return the readings of a document: one, or one for each answer.

    Args:
        tokenizer: transformers' fast one.
        document: with something to score.

    Raises:
        ValueError: the template refuses the messages, or an answer is not what it adds to the
            prompt for it.
    """
    if not document.messages:
        return [
            _with_spans(
                tokenizer,
                document.context + document.text,
                [(len(document.context), len(document.context) + len(document.text))],
            )
        ]
    template = getattr(tokenizer, "chat_template", None)
    if not template:
        return [_as_paragraphs(tokenizer, document)]
    if isinstance(template, str) and _MARKED.search(template):
        found = _template(tokenizer, document, document.messages, tokenize=True)
        return [ChatTokens(found["input_ids"], [bool(one) for one in found["assistant_masks"]])]
    return _by_difference(tokenizer, document)


def _as_paragraphs(tokenizer: Any, document: Conversation) -> ChatTokens:
    """Return messages as paragraphs of plain text, for models that never saw a template."""
    text, spans = "", []
    for message in document.messages:
        text += "\n\n" * bool(text)
        if not isinstance(message.get("content"), str):
            raise ValueError(
                f"document {document.id} has messages that are no plain text, and the tokenizer "
                "has no chat template: give one that has"
            )
        if message["role"] == "assistant":
            spans.append((len(text), len(text) + len(message["content"])))
        text += message["content"]
    return _with_spans(tokenizer, text, spans)


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
            raise ValueError(
                f"document {document.id}: the chat template does not begin an answer with the "
                "prompt that it gives for one, so that which tokens are the assistant's is not "
                "known; mark them in the template with {% generation %}"
            )
        span = (len(before), _end_of_answer(tokenizer, after, len(before)))
        spans.append(span)
        apart.append((after[: span[1]], [span]))
    if all(whole.startswith(text) for text, _ in apart):
        return [_with_spans(tokenizer, whole, spans)]
    return [_with_spans(tokenizer, text, span) for text, span in apart]


def _end_of_answer(tokenizer: Any, text: str, start: int) -> int:
    """Return where an answer ends: after its last special token, which the model writes, too."""
    ends = [
        text.rfind(token, start) + len(token)
        for token in tokenizer.all_special_tokens
        if text.rfind(token, start) >= 0
    ]
    return max(ends, default=len(text))


def _template(
    tokenizer: Any,
    document: Conversation,
    messages: Sequence[dict[str, Any]],
    prompt: bool = False,
    tokenize: bool = False,
) -> Any:
    """Return what the chat template makes of messages: text, or tokens with their marks."""
    marks: dict[str, Any] = {"return_dict": True, "return_assistant_tokens_mask": True}
    try:
        return tokenizer.apply_chat_template(
            list(messages),
            tools=document.tools,
            add_generation_prompt=prompt,
            tokenize=tokenize,
            **(marks if tokenize else {}),
        )
    except Exception as error:  # templates raise errors of their own, in their own words
        raise ValueError(
            f"document {document.id}: the chat template refuses its messages ({error})"
        ) from error


def _with_spans(tokenizer: Any, text: str, spans: Sequence[tuple[int, int]]) -> ChatTokens:
    """Return a text's tokens, scored where they begin within a span of characters."""
    found = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
    scored = [
        any(start <= begin < end for start, end in spans) and finish > begin
        for begin, finish in found["offset_mapping"]
    ]
    return ChatTokens(found["input_ids"], scored)
