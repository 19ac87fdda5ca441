"""The texts of `mtp_induction`: stories and functions with gaps for names, as documents."""

from typing import Any

from mtp_harness.data.corpus import code_corpus
from mtp_harness.data.renamed_code import renamed_functions
from mtp_harness.data.rows import Splits, in_turns, splits, text_row, whole
from mtp_harness.data.stories import VERSION, folder_stories, generated_stories
from mtp_harness.files import user_path

STORIES, CODE = "stories", "code"

N_TEXTS, QUICK_TEXTS = 100, 20
"""Texts of each kind; the paper has 100 stories."""

DENSITY = 0.7


def load(
    quick: bool = False,
    n_texts: int | None = None,
    seed: int = 0,
    density: float = DENSITY,
    stories: str | None = None,
    **_metadata: Any,
) -> Splits:
    """Return the split `test`, one row per template, stories and code in turns.

    Args:
        quick: `QUICK_TEXTS` of each kind.
        n_texts: of each kind.
        seed: of the generated stories.
        density: how often the stories name a character instead of describing it.
        stories: folder with stories to read instead, one `.txt` each.

    Raises:
        ValueError: an argument is invalid.
        FileNotFoundError: there is no such folder, or no story in it.
    """
    usual = QUICK_TEXTS if quick else N_TEXTS
    count = whole("n_texts", usual if n_texts is None else n_texts, 1)
    if type(density) not in (int, float):
        raise ValueError(f"density={density}, expected a number from 0 to 1; choose one")
    corpus = code_corpus()
    if stories is not None:
        folder = user_path(stories)
        tales, source = folder_stories(folder, count), f"folder {folder.name}"
    else:
        tales = generated_stories(count, seed, density)
        source = f"generated: grammar {VERSION}, seed {seed}, density {density}"
    library = f"functions of the standard library of Python {corpus.python_version}"
    kinds = [
        [text_row(STORIES, one.name, source, one.text) for one in tales],
        [text_row(CODE, one.name, library, one.text) for one in renamed_functions(corpus, count)],
    ]
    return splits({"test": in_turns(kinds)})
