"""The answers of an earlier run, read from the samples that `lm_eval --log_samples` wrote.

The prompt is the one that was sent; the tokens are the generated ones, if the samples record them.
A row's text is an `OwnAnswer` in JSON.
"""

import logging
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from mtp_harness.data.rows import Splits, splits, spread, text_row, to_line
from mtp_harness.files import user_path
from mtp_harness.results import samples
from mtp_harness.results.find import read_name

_log = logging.getLogger(__name__)

KIND = "own answer"
QUICK = 16
"""Answers with `quick`, evenly spread."""


class OwnAnswer(NamedTuple):
    """One answer."""

    prompt: str  # what was sent
    text: str  # what came back, cut at a stop string
    record: dict[str, Any] | None  # as of `DecodeRecord.as_dict`; None if none was kept
    greedy: bool  # whether no token was sampled


def load(place: str, quick: bool) -> Splits:
    """Return the split `test`, one row an answer, in one data set with the task's name.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not a samples file, or no answer in it was generated.
    """
    path = user_path(place)
    if not path.is_file():
        raise FileNotFoundError(
            f"on={place}: no such file, expected samples_….jsonl of a run with --log_samples: "
            "check the path"
        )
    named = read_name(path)
    data_set = named.task if named else path.name.partition(".")[0]
    found = [
        (name, answer)
        for number, sample in samples.read_numbered(path)
        for name, answer in _answers(sample, f"{path}:{number}")
    ]
    given = [(name, one) for name, one in found if one.text or (one.record or {}).get("tokens")]
    if not given:
        raise ValueError(f"on={place} holds no answer with text, expected some: run again")
    source = f"samples of {data_set}"
    if n_empty := len(found) - len(given):
        source += f" ({n_empty} of {len(found)} answers are empty and left out)"
        _log.warning("on=%s: %d of %d answers are empty and left out", place, n_empty, len(found))
    rows = spread(given, QUICK) if quick else given
    texts = [{**text_row(data_set, name, source, to_line(one)), "kind": KIND} for name, one in rows]
    return splits({"test": texts})


def _answers(sample: Mapping[str, Any], where: str) -> Iterator[tuple[str, OwnAnswer]]:
    """Yield the answers of a sample, each after its name."""
    kwargs, answers = samples.generation_of(sample), sample.get("resps") or [None]
    prompt = samples.arguments_of(sample)[0]
    fits = len(answers) == 1 and isinstance(answers[0], list)
    if kwargs is None or not isinstance(prompt, str) or not fits:
        raise ValueError(
            f"{where} holds no generated answer, expected the samples of a task that generates, "
            "such as humaneval_mtp: give those"
        )
    greedy = samples.temperature_of(dict(sample)) == 0
    told = sample.get("n_answers")
    records = [one["decode"] for one in told] if isinstance(told, list) else []
    for number, text in enumerate(answers[0]):
        record = records[number] if len(records) == len(answers[0]) else None
        name = f"{sample.get('doc_id')}" + (f"/{number}" if len(answers[0]) > 1 else "")
        yield name, OwnAnswer(prompt, str(text), record, greedy)
