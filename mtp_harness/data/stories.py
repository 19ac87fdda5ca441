"""Texts that mention names repeatedly, with a gap for each name, for the induction probe.

A *template* is a text in which a character of the private use area stands for a name: U+E000 for
the first, U+E001 for the second, and so on. Three sources:

    generated_stories   children's stories from a seeded grammar; the density is how often a
                        character is named instead of described ("the girl")
    folder_stories      your own stories, one `.txt` each; their names become gaps
    renamed_functions   functions of real code (`mtp_harness.data.renamed_code`)

Source of the test: Gloeckle et al. 2024, section 4.1, which renames the characters of 100 stories
of a data set that it does not name.
"""

import logging
import random
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from mtp_harness.data.rows import below, spread

_log = logging.getLogger(__name__)

VERSION = "1"
"""Version of the grammar: raised when the stories of a seed change."""

GAP = 0xE000
MOST_NAMES = 12
"""Most names in a story of a folder: byte-level names need that many different first letters."""

MIN_MENTIONS = 3
"""Fewest mentions of each name in a story or function that is read."""

SENTENCES = 24
"""Sentences of a generated story after those that introduce its characters."""


class Template(NamedTuple):
    """A text with gaps, and its name."""

    name: str
    text: str


def gap(index: int) -> str:
    """Return the character that stands for a name, counted from 0."""
    return chr(GAP + index)


def gaps(text: str) -> list[tuple[int, int]]:
    """Return the gaps of a template: (position in the text, index of the name)."""
    return [(at, ord(c) - GAP) for at, c in enumerate(text) if GAP <= ord(c) < GAP + 0x100]


# Generated --------------------------------------------------------------------------------------

_CHARACTERS = ("girl", "boy", "cat", "dog", "rabbit", "bear", "mouse", "bird", "fox", "frog")
_PLACES = ("garden", "park", "forest", "kitchen", "river", "hill", "barn", "old house", "beach")
_THINGS = ("ball", "kite", "red box", "cake", "book", "flower", "boat", "drum", "hat", "apple")
_FEELINGS = ("happy", "sad", "tired", "surprised", "proud", "hungry", "brave", "shy")
_SENTENCES = (
    "Then {a} went to the {place} to look for the {thing}.",
    "It was a sunny day, and {a} wanted to play with {b}.",
    '"Look at this {thing}," said {a}, and {b} smiled.',
    '"Can I have the {thing}?" asked {a}.',
    "After a while {a} was {feeling}, so {b} came to help.",
    "But {a} could not find the {thing}, and {b} was {feeling}.",
    "In the {place}, {a} saw a big {thing}.",
    "So {a} gave the {thing} to {b}, because {b} was {feeling}.",
    "When the rain came, {a} and {b} ran to the {place}.",
    "At first {a} did not know what to do with the {thing}.",
    "The {thing} belonged to {a}, but {b} liked it too.",
    '"Thank you, {a}," said {b}.',
    "Everybody in the {place} knew {a}.",
    "Next to the {place}, {b} waited for {a}.",
)


def generated_stories(count: int, seed: int, density: float) -> list[Template]:
    """Return stories with two or three characters, the same for the same arguments.

    Density is the chance, 0 … 1, that a mention after the introduction names the character
    instead of describing it.
    """
    if not 0 <= density <= 1:
        raise ValueError(
            f"density={density}, expected a probability from 0 (nobody is named twice) to 1 "
            "(always named); choose one"
        )
    return [
        Template(f"story {i}", _story(random.Random(f"{VERSION}/{seed}/{i}"), density))
        for i in range(count)
    ]


def _story(source: random.Random, density: float) -> str:
    kinds = _some(source, _CHARACTERS, 2 + below(source, 2))
    opening = [f"Once upon a time there was a little {kinds[0]} named {gap(0)}."]
    opening += [
        f"There was also a {kind} whose name was {gap(i)}." for i, kind in enumerate(kinds) if i
    ]

    def called(index: int) -> str:
        return gap(index) if source.random() < density else f"the {kinds[index]}"

    sentences = []
    for _ in range(SENTENCES):
        a, b = _some(source, range(len(kinds)), 2)
        form = _SENTENCES[below(source, len(_SENTENCES))]
        place, thing, feeling = (
            words[below(source, len(words))] for words in (_PLACES, _THINGS, _FEELINGS)
        )
        while "{b}" in form or "{a}" in form:  # each mention is drawn independently
            form = form.replace("{a}", called(a), 1).replace("{b}", called(b), 1)
        sentences.append(form.format(place=place, thing=thing, feeling=feeling))
    return " ".join([*opening, *sentences])


def _some(source: random.Random, of: Sequence[Any], count: int) -> list[Any]:
    left = list(of)
    return [left.pop(below(source, len(left))) for _ in range(count)]


# Found ------------------------------------------------------------------------------------------

_WORD = re.compile(r"[A-Za-z]+")


def folder_stories(folder: Path, count: int) -> list[Template]:
    """Return the stories of a folder that mention names, evenly spread over its `.txt` files.

    A name is a capitalised word that never occurs in lower case in the story, occurs in the middle
    of a sentence at least once, and at least `MIN_MENTIONS` times in all. If a story has more than
    `MOST_NAMES` names, the first ones are replaced. Files that are not UTF-8, or contain characters
    that stand for names here, are left out with a warning.

    Raises:
        FileNotFoundError: there is no such folder, or no file holds such a story.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"stories={folder} is not a folder, expected one with .txt files")
    found, left_out = [], []
    for path in sorted(folder.rglob("*.txt")):
        name = path.relative_to(folder).as_posix()
        try:
            text = path.read_text(encoding="utf-8-sig").strip()
        except (OSError, UnicodeDecodeError):
            text = gap(0)
        if gaps(text):
            left_out.append(name)
        elif named := names_in(text)[:MOST_NAMES]:
            found.append(Template(name, _with_gaps(text, named)))
    if left_out:
        names = ", ".join(left_out)
        _log.warning("%s: no UTF-8 text, or with private characters, left out: %s", folder, names)
    if not found:
        raise FileNotFoundError(
            f"{folder} holds no .txt file with a name that occurs {MIN_MENTIONS} times, expected "
            "one story per file: name another folder"
        )
    return spread(found, count)


def names_in(story: str) -> list[str]:
    """Return the names in a story, as `folder_stories` understands them, by first mention."""
    words = [(found[0], found.start()) for found in _WORD.finditer(story)]
    lower = {word for word, _ in words if word.islower()}
    counts = Counter(word for word, _ in words)
    inside = {word for word, at in words if re.search(r"[a-z,;] $", story[:at][-2:])}
    return [
        word
        for word in dict.fromkeys(word for word, _ in words)
        if word.istitle()
        and len(word) > 1
        and word in inside
        and word.lower() not in lower
        and counts[word] >= MIN_MENTIONS
    ]


def _with_gaps(text: str, names: Sequence[str]) -> str:
    places = {name: gap(index) for index, name in enumerate(names)}
    return _WORD.sub(lambda found: places.get(found[0], found[0]), text)
