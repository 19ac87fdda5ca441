"""The texts of `mtp_induction`: stories and functions with gaps for names, as documents."""

from __future__ import annotations

import hashlib
from itertools import zip_longest
from typing import TYPE_CHECKING, Any

from mtp_harness.data.corpus import code_corpus
from mtp_harness.data.renamed_code import renamed_functions
from mtp_harness.data.stories import VERSION, Template, folder_stories, generated_stories
from mtp_harness.files import user_path

if TYPE_CHECKING:
    import datasets

STORIES, CODE = "stories", "code"

N_TEXTS, QUICK_TEXTS = 100, 20
"""Of each kind; the paper has 100 stories."""

DENSITY = 0.7


def load(
    quick: bool = False,
    n_texts: int | None = None,
    seed: int = 0,
    density: float = DENSITY,
    stories: str | None = None,
    **_metadata: Any,
) -> dict[str, datasets.Dataset]:
    """Return the templates as the harness wants them from `custom_dataset`.

    Args:
        quick: `QUICK_TEXTS` of each kind.
        n_texts: of each kind.
        seed: of the generated stories.
        density: how often they name rather than describe a character.
        stories: folder with stories to read instead, one `.txt` each.
        _metadata: the rest of the task's and the run's metadata, all of which the harness passes.

    Returns:
        The split `test`: one row per text, with its `data_set` (stories or code), `name`, `source`,
        `sha256` (of the template) and `text`. Kinds take turns.

    Raises:
        ValueError: an argument is not what it should be.
        FileNotFoundError: there is no such folder, or no story in it.
    """
    import datasets

    count = (QUICK_TEXTS if quick else N_TEXTS) if n_texts is None else n_texts
    if type(count) is not int or count < 1:
        raise ValueError(f"n_texts={count}, expected a whole number from 1; choose one")
    if type(density) not in (int, float):
        raise ValueError(f"density={density}, expected a number from 0 to 1; choose one")
    corpus = code_corpus()
    if stories is not None:
        folder = user_path(stories)
        tales, source = folder_stories(folder, count), f"folder {folder.name}"
    else:
        tales = generated_stories(count, seed, density)
        source = f"generated: grammar {VERSION}, seed {seed}, density {density}"
    code = renamed_functions(corpus, count)
    library = f"functions of the standard library of Python {corpus.python_version}"
    kinds = [
        [_row(STORIES, source, one) for one in tales],
        [_row(CODE, library, one) for one in code],
    ]
    # In turns, so that --limit N and ranks get some of each.
    in_turns = [row for rows in zip_longest(*kinds) for row in rows if row is not None]
    return {"test": datasets.Dataset.from_list(in_turns)}


def _row(data_set: str, source: str, one: Template) -> dict[str, str]:
    sha256 = hashlib.sha256(one.text.encode()).hexdigest()
    about = {"data_set": data_set, "name": one.name, "source": source, "sha256": sha256}
    return {**about, "text": one.text}
