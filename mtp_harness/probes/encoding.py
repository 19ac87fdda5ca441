"""Encodes what is read as tokens, and marks which of them are scored.

    text           after the prefix token (BOS), or after a context as lm_eval encodes the two
    conversation   under the model's chat template; the assistant's tokens are scored
    own answer     the prompt as it was sent, and the tokens that were generated after it

A row's `kind` says which of them it is; the text of the last two is a document in JSON.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import groupby
from typing import Any, NamedTuple

import torch
from torch import Tensor

from mtp_harness.data import conversations, own_answers
from mtp_harness.data.conversations import Conversation
from mtp_harness.data.own_answers import OwnAnswer
from mtp_harness.decode.records import DecodeRecord
from mtp_harness.decode.stopping import continuation_text
from mtp_harness.harness.protocol import HeadsModel
from mtp_harness.probes.chat_tokens import chat_prompt, chat_tokens, scored_text, way_of

Characters = Callable[[], list[tuple[int, int]] | None]
"""Returns begin and end of each scored token's characters; None if the tokenizer has none."""

FROM_SAMPLES, ENCODED_AGAIN = "the samples' tokens", "the samples' text, encoded again"


class Encoded(NamedTuple):
    """A text x[0..N], in one or more parts in sequence.

    Attributes:
        tokens: int64 [N+1].
        scored: which of them are scored, bool [N+1]; the others are context.
        part: the part of each token, int64 [N+1]; parts are read separately.
        text: the scored text.
        characters: of the scored tokens of a plain text; absent with a slow tokenizer or for a
            question with its own encoding. A function, because it takes longer than tokenizing.
        facts: for a document of the user's, what its answer reports beside the measurements:
            `n_bytes` of the text, `encoded` (how), and `n_reasoning_lost`, texts of reasoning that
            the template leaves out.
        decoded: how the scored tokens were decoded, if that can be compared.
    """

    tokens: Tensor
    scored: Tensor
    part: Tensor
    text: str
    characters: Characters = lambda: None
    facts: dict[str, Any] | None = None
    decoded: DecodeRecord | None = None

    @classmethod
    def behind(cls, context: list[int], tokens: list[int], text: str, **more: Any) -> Encoded:
        """Return tokens that are all scored, after a context that is not scored."""
        every = torch.tensor([*context, *tokens])
        scored = torch.arange(len(every)) >= len(context)
        return cls(every, scored, torch.zeros_like(every), text, **more)

    def lengths(self) -> list[int]:
        """Return the number of tokens of each part."""
        found: list[int] = torch.bincount(self.part).tolist()
        return found

    def runs(self) -> Iterator[tuple[int, int]]:
        """Yield begin and end of every run of scored tokens; the very first token is in none."""
        at = 0
        pairs = zip(self.scored.tolist(), self.part.tolist(), strict=True)
        for (scored, _), run in groupby(pairs):
            begin, at = at, at + len(list(run))
            if scored and at > 1:
                yield max(begin, 1), at


def encode(
    lm: HeadsModel, content: str, kind: str = "text", context: str = "", as_rolling: bool = False
) -> Encoded:
    """Return the encoded text of a question; see `TextQuestion` for the arguments.

    Raises:
        ValueError: a conversation cannot be read; see `chat_tokens`.
    """
    with _of_any_length(lm.tokenizer):
        if kind in _DOCUMENTS:
            return _DOCUMENTS[kind](lm, content)
        if context:
            return Encoded.behind(*lm._encode_pair(context, content), content)
        if as_rolling:
            return Encoded.behind([lm.prefix_token_id], lm.tok_encode(content), content)
    tokenize = partial(lm.tokenizer, content, add_special_tokens=False, verbose=False)
    found = Encoded.behind([lm.prefix_token_id], tokenize()["input_ids"], content)
    if not lm.tokenizer.is_fast:
        return found
    return found._replace(
        characters=lambda: tokenize(return_offsets_mapping=True)["offset_mapping"]
    )


@contextmanager
def _of_any_length(tokenizer: Any) -> Iterator[None]:
    """Let a text be longer than the context without a warning: windows are cut from it later."""
    before, tokenizer.model_max_length = tokenizer.model_max_length, sys.maxsize
    try:
        yield
    finally:
        tokenizer.model_max_length = before


def _conversation(lm: HeadsModel, line: str) -> Encoded:
    """Return a conversation under the model's chat template."""
    document = Conversation(**json.loads(line))
    readings = chat_tokens(lm.tokenizer, document, lm.prefix_token_id)
    text = scored_text(lm.tokenizer, readings)
    reasoning = [str(one.get("reasoning_content") or "").strip() for one in document.messages]
    lengths = torch.tensor([len(one.tokens) for one in readings])
    return Encoded(
        torch.tensor([token for one in readings for token in one.tokens]),
        torch.tensor([scored for one in readings for scored in one.scored]),
        torch.repeat_interleave(lengths),
        text,
        facts={
            "n_bytes": len(text.encode()),
            "encoded": way_of(lm.tokenizer, document),
            "n_reasoning_lost": sum(one not in text for one in reasoning),
        },
    )


def _own_answer(lm: HeadsModel, line: str) -> Encoded:
    """Return an answer of an earlier run behind its prompt, cut as it was cut then.

    The tokens are those recorded in the samples if prompt and text are the same under this
    tokenizer; otherwise the answer's text is encoded again, which may give other tokens.
    """
    asked = OwnAnswer(**json.loads(line))
    record = DecodeRecord.from_dict(asked.record) if asked.record else None
    ids, _ = lm.tok_batch_encode([asked.prompt], truncation=lm.truncation)
    prompt: list[int] = ids[0].tolist() or [lm.prefix_token_id]
    tokens, text = list[int](), asked.text
    if record and record.tokens:
        fits = len(prompt) == record.n_prompt_tokens + record.n_truncated
        prompt = prompt[-record.n_prompt_tokens :]
        whole = continuation_text(lm.tok_decode, prompt[-1], list(record.tokens))
        if fits and asked.text.strip() in whole:
            tokens, text = list(record.tokens), whole  # a stop string is generated, too
    way = FROM_SAMPLES if tokens else ENCODED_AGAIN
    compares = record and tokens and asked.greedy and record.lossless and record.n_drafted is None
    return Encoded.behind(
        prompt,
        tokens or lm.tokenizer(text, add_special_tokens=False)["input_ids"],
        text,
        facts={"n_bytes": len(text.encode()), "encoded": way},
        decoded=record if compares else None,
    )


_DOCUMENTS: dict[str, Callable[[HeadsModel, str], Encoded]] = {
    conversations.KIND: _conversation,
    own_answers.KIND: _own_answer,
}


def prompt_of(lm: HeadsModel, line: str) -> str | list[int]:
    """Return the model's input for the last answer of a conversation.

    Raises:
        ValueError: see `chat_prompt`.
    """
    return chat_prompt(lm.tokenizer, Conversation(**json.loads(line)))


def last_tokens(lm: HeadsModel, text: str, count: int) -> list[int]:
    """Return this many tokens from the end of a text; a BOS that begins the text stays in front.

    Raises:
        ValueError: the text has fewer.
    """
    with _of_any_length(lm.tokenizer):
        ids, _ = lm.tok_batch_encode([text])
    tokens: list[int] = ids[0].tolist()
    if len(tokens) < count:
        raise ValueError(
            f"the document has {len(tokens)} tokens, expected {count} or more: choose shorter "
            "prompts (prompt_tokens in the metadata)"
        )
    front = tokens[:1] if tokens[0] == lm.tokenizer.bos_token_id else []
    return front + tokens[len(tokens) - count + len(front) :]
