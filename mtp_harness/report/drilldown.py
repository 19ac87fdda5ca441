"""The documents of a report: prompt, answers of each run, verdict, and who proposed which token."""

import math
from collections import defaultdict
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mtp_harness.results.documents import Score, scores_of
from mtp_harness.results.run import Run
from mtp_harness.results.samples import generation_of, read
from mtp_harness.scoring.bits_per_byte import pooled_bits_per_byte

Sample = Mapping[str, Any]

Texts = dict[str, int]
"""Texts with their numbers, each stored once: runs share their prompts."""

ANSWERS_SHOWN = 3
"""Answers shown for one document of one run; the others are only counted."""

TEXT_SHOWN = 20_000
"""Characters shown of one text; a cut text says so."""

SCORES_SHOWN = 6

_TITLES = ("task_id", "name", "title", "id", "question_id")
_RIGHT_OR_WRONG = ("acc", "exact_match")


def drilldown(
    runs: Sequence[Run], limit: int, sound: Container[tuple[Path, str]]
) -> dict[str, Any]:
    """Return what the page's script shows, as plain values.

    Args:
        runs: In the order in which answers are shown.
        limit: Documents of a task that the page holds; the others are counted.
        sound: Results file and task of the samples that are not damaged.
    """
    texts: Texts = {}
    shown: dict[str, dict[str, dict[str, Any]]] = defaultdict(dict)
    left_out: dict[str, set[str]] = defaultdict(set)
    for place, run in enumerate(runs):
        for task in run.tasks:
            path = run.samples(task) if (run.path, task) in sound else None
            for sample in read(path) if path else ():
                # The same number may be another document in another run: the hash tells.
                key = f"{sample['doc_id']} {sample['prompt_hash']}"
                if key not in shown[task] and len(shown[task]) >= limit:
                    left_out[task].add(key)
                    continue
                document = shown[task].setdefault(key, _document(sample, texts))
                document["answers"] += _answers(sample, place, texts)
    return {
        "runs": [run.model.name for run in runs],
        "tasks": [
            {
                "name": task,
                "n_left_out": len(left_out[task]),
                "documents": list(found.values()),
                "has_text": _has_text(found.values(), texts),
            }
            for task, found in sorted(shown.items())
        ],
        "texts": list(texts),
    }


def _has_text(documents: Iterable[Mapping[str, Any]], texts: Texts) -> bool:
    """Return whether there is a text to read; stored results may hold only numbers."""
    empty = (None, texts.get(""))
    return any(
        text not in empty
        for document in documents
        for text in (document["prompt"], *(answer["text"] for answer in document["answers"]))
    )


def _number(text: Any, texts: Texts) -> int:
    """Return the number of a text."""
    text = "" if text is None else str(text)
    if len(text) > TEXT_SHOWN:
        left = len(text) - TEXT_SHOWN
        text = f"{text[:TEXT_SHOWN]}\n… {left:,} more characters are in the samples file."
    return texts.setdefault(text, len(texts))


def _document(sample: Sample, texts: Texts) -> dict[str, Any]:
    doc = sample["doc"] if isinstance(sample.get("doc"), dict) else {}
    named = [str(doc[name]) for name in _TITLES if doc.get(name) not in (None, "")]
    target = sample.get("target")
    requests = _requests(sample)
    return {
        "title": ": ".join([str(sample["doc_id"]), *named[:1]])[:80],
        "prompt": _number(str(requests[0][0]), texts) if requests and requests[0] else None,
        "target": None if target in (None, "") else _number(target, texts),
        "answers": [],
    }


def _requests(sample: Sample) -> list[list[Any]]:
    arguments = sample["arguments"]
    each = arguments.values() if isinstance(arguments, dict) else arguments
    return [list(one.values()) if isinstance(one, dict) else list(one) for one in each]


def _answers(sample: Sample, run: int, texts: Texts) -> Iterator[dict[str, Any]]:
    """Yield what is shown of one run's answers to a document."""
    whole = {"run": run, "scores": _scores(sample)}
    if sample["filter"] != "none":
        whole["scores"] = [["filter", sample["filter"]]]
    if generation_of(sample) is None:
        yield _answer(sample, {}) | whole | {"choices": list(_choices(sample, texts))}
        return
    written = [text for some in sample["resps"] for text in some]
    judged = [*_judged(sample), *[{}] * len(written)]
    for place, text in enumerate(written[:ANSWERS_SHOWN]):
        more = len(written) - ANSWERS_SHOWN if place + 1 == ANSWERS_SHOWN else 0
        own = {"text": _number(text, texts), "n_more": more}
        yield _answer(sample, judged[place]) | whole | own


def _answer(sample: Sample, judged: Mapping[str, Any]) -> dict[str, Any]:
    """Return the facts of one answer's verdict and decode record, as far as they exist."""
    verdict = judged.get("verdict") or _right_or_wrong(sample)
    record = judged.get("decode") or {}
    verified = record.get("n_verified") or []
    return {
        "run": None,
        "text": None,
        "n_more": 0,
        "choices": [],
        "verdict": verdict.get("outcome"),
        "detail": verdict.get("detail") or "",
        "scores": [],
        "n_verified": verified,
        "n_characters": record.get("n_characters"),
        "n_drafted": record.get("n_drafted"),
        "rejected": record.get("rejected_text") or [],
        "draft_heads": record.get("draft_heads", 1),
        "tokens_per_forward": record["n_kept"] / len(verified) if verified else None,
        "ended_by": record.get("ended_by"),
        "looping": bool(record.get("looping")),
        "lossless": record.get("lossless", True),
    }


def _judged(sample: Sample) -> list[dict[str, Any]]:
    """Return each answer's verdict and decode record, under whatever name the task stores them."""
    for value in sample.values():
        first = value[0] if isinstance(value, list) and value else None
        if isinstance(first, dict) and "decode" in first:
            return list(value)
    return []


def _right_or_wrong(sample: Sample) -> dict[str, Any]:
    found = [sample[name] for name in _RIGHT_OR_WRONG if sample.get(name) in (0, 1)]
    return {"outcome": "pass" if found[0] == 1 else "fail"} if found else {}


def _choices(sample: Sample, texts: Texts) -> Iterator[dict[str, Any]]:
    """Yield the continuations that a log-likelihood task compared."""
    for request, responses in zip(_requests(sample), sample["resps"], strict=False):
        first = responses[0] if isinstance(responses, list) and responses else None
        if len(request) > 1 and isinstance(first, list) and first:
            logprob = _finite(first[0])
            yield {"text": _number(str(request[1]), texts), "logprob": logprob}


def _scores(sample: Sample) -> list[list[str]]:
    shown = [pair for pair in scores_of(sample) if not pair[0].endswith(("_low90", "_high90"))]
    return [
        [name, _written(score)]
        for name, score in shown[:SCORES_SHOWN]
        if not name.startswith(("accept_", "tokens_per_forward", "looping", "n_"))
        and (not isinstance(score, tuple) or any(score))  # of the document's own data set
    ]


def _written(score: Score) -> str:
    if not isinstance(score, tuple):
        return f"{score:.4g}"
    if len(score) == 2:
        return f"{score[0]:g} of {score[1]:g}"
    return f"{pooled_bits_per_byte([score]):.4g}"


def _finite(value: Any) -> float | None:
    """Return a number that JSON has; the harness writes some as text."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None
