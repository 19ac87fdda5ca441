"""Words of any script, for `rouge_score`, whose own tokenizer knows a to z and 0 to 9 only.

A token is a run of letters and digits (Unicode categories L and N) with the marks on them (M), in
lower case and composed form (NFC); everything else separates, and invisible format characters (Cf,
such as the zero-width non-joiner inside Persian words) are dropped. Thai, Lao, Burmese, Khmer,
Chinese and Japanese put no spaces between words: there every letter with its marks is a token of
its own, so their scores are over characters and higher than over words. On ASCII text the tokens
are `rouge_score`'s own.

    "L'été"            → l, été
    "می‌خواهم"          → میخواهم              (with a zero-width non-joiner after می)
    "กินข้าว 2 จาน"      → กิ, น, ข้, า, ว, 2, จ, า, น
"""

import re
import unicodedata

_WITHOUT_SPACES = (
    range(0x0E00, 0x0F00),  # Thai, Lao
    range(0x1000, 0x10A0),  # Burmese
    range(0x1780, 0x1800),  # Khmer
    range(0x3040, 0x3100),  # Hiragana, Katakana
    range(0x3400, 0x4DC0),  # Chinese characters
    range(0x4E00, 0xA000),
    range(0xF900, 0xFB00),
    range(0x20000, 0x32000),
)


class UnicodeTokenizer:
    """What `rouge_score.rouge_scorer.RougeScorer` takes as `tokenizer`."""

    def tokenize(self, text: str) -> list[str]:
        """Return the tokens of a text."""
        composed = unicodedata.normalize("NFC", text.lower())
        seen = [letter for letter in composed if unicodedata.category(letter) != "Cf"]
        kinds = "".join(map(_kind, seen))
        spans = (found.span() for found in re.finditer("w[wM]*|cM*", kinds))
        return ["".join(seen[start:end]) for start, end in spans]


def _kind(letter: str) -> str:
    """Return `w` in a word, `c` for a token of its own, `M` for a mark, `.` for what separates."""
    category = unicodedata.category(letter)[0]
    if category not in "LN":
        return "M" if category == "M" else "."
    return "c" if any(ord(letter) in block for block in _WITHOUT_SPACES) else "w"
