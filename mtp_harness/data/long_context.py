"""Prompts of several lengths that end at the same place of a long document.

    ……………………………………………|     a module of the standard library, its beginning
         1,024 ………………|     one row for each length: the prompt is so many tokens at the end
              512 ……|

So the text to be written is the same, and what differs is how much stands before it.
"""

from collections.abc import Sequence
from typing import Any

from mtp_harness.data.corpus import code_corpus
from mtp_harness.data.rows import Splits, beginning, several, splits, spread, text_row

PROMPT_TOKENS = (512, 1024, 1536, 2048, 2560, 3072, 3584)
DOCUMENTS, QUICK = 16, 4
BYTES = 5
"""Of a document for each token of the longest prompt: more than tokens of code have."""


def load(
    quick: bool = False, prompt_tokens: int | Sequence[int] | None = None, **_metadata: Any
) -> Splits:
    """Return the split `test`: `text` and `prompt_tokens`, beside what all probes' documents have.

    Raises:
        ValueError: a length is not a whole number from 1, or no document is long enough.
    """
    lengths = sorted(several("prompt_tokens", prompt_tokens, PROMPT_TOKENS, least=1))
    corpus, n_bytes = code_corpus(), BYTES * lengths[-1]
    long_enough = [one for one in corpus.documents if len(one.text.encode()) >= n_bytes]
    if not long_enough:
        raise ValueError(
            f"prompt_tokens={lengths[-1]} takes a module of {n_bytes:,} bytes, and the standard "
            "library has none, expected a smaller number; choose shorter prompts"
        )
    source = f"standard library of Python {corpus.python_version}"
    rows = [
        {
            **text_row(
                corpus.name, f"{one.name}, {length} tokens", source, beginning(one.text, n_bytes)
            ),
            "prompt_tokens": length,
        }
        for one in spread(long_enough, QUICK if quick else DOCUMENTS)
        for length in lengths
    ]
    return splits({"test": rows})
