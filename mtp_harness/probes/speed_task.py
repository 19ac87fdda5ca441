"""`mtp_speed`: how fast each k decodes, by batch size and prompt length."""

from collections.abc import Iterator, Sequence
from typing import Any

from mtp_harness.data.corpus import code_corpus
from mtp_harness.errors import UserError
from mtp_harness.harness import rules
from mtp_harness.probes.hardware import Traffic
from mtp_harness.probes.pooled import Measured, Place, pair_cell
from mtp_harness.probes.speed import SELF, SpeedQuestion
from mtp_harness.probes.task import ProbeTask, Tables
from mtp_harness.results.long_table import Cell, long_table

NEW_TOKENS, TRIALS = 256, 10
QUICK_NEW_TOKENS, QUICK_TRIALS = 64, 3

DIMENSIONS = ("model", "batch", "prompt_tokens", "k")


class SpeedTask(ProbeTask):
    """Times decoding on a grid of cells.

    Flat metrics: `tokens_per_second_K` of decoding, for each k, and `speedup_K` over k = 1, both as
    sums over all cells; `cells_not_measured`.
    """

    request_type = "speed"
    IN_VLLM = True
    OPTIONS = frozenset({"new_tokens", "trials", "heads", "baseline"})
    POOLS = {"cells_not_measured": sum}
    OWN_PROCESS = True
    """In a suite: earlier work in the process would count as its memory, and could slow it."""

    def question(self, doc: dict[str, Any]) -> SpeedQuestion:
        """Return the cell."""
        heads = self.options.get("heads")
        return SpeedQuestion(
            doc["batch"],
            doc["prompt_tokens"],
            self.whole("new_tokens", NEW_TOKENS, QUICK_NEW_TOKENS, least=2),
            self.whole("trials", TRIALS, QUICK_TRIALS, least=1),
            None if heads is None else self._heads(heads),
            self.options.get("baseline"),
        )

    def _heads(self, given: Any) -> tuple[int, ...]:
        heads = list(given) if isinstance(given, list | tuple) else [given]
        if not rules.one_or_several(rules.whole(1)).fits(heads):
            raise UserError(
                f"{self.config.task}: heads={given}, expected the k to time, such as [1, 4]; "
                "choose some."
            )
        return tuple(dict.fromkeys(heads))

    def process_results(self, doc: dict[str, Any], results: Sequence[Any]) -> dict[str, Any]:
        """Return the flat metrics of one cell, and what was measured of it."""
        asked = self.question(doc)
        names = ("batch", "prompt_tokens", "new_tokens", "trials")
        cell = {name: getattr(asked, name) for name in names}
        return super().process_results(doc, [Measured(**cell, **results[0])])

    def metrics(self, measured: Measured) -> dict[str, Any]:
        """Return the flat metrics of one cell."""
        found: dict[str, Any] = {"cells_not_measured": len(measured["not_measured"])}
        seconds = {k: _sum(_runs(measured, SELF, k), "decode_s") for k in measured["heads"]}
        for k in measured["heads"]:
            tokens = _sum(_runs(measured, SELF, k), "n_kept")
            found[f"tokens_per_second_{k}"] = (tokens, seconds[k])
            if k > 1 and 1 in seconds:
                both = seconds[1] and seconds[k]
                found[f"speedup_{k}"] = (seconds[1], seconds[k]) if both else (0, 0)
        return found

    def tables(self, documents: list[Measured]) -> Tables:
        """Return the tables `by_cell` and `not_measured`."""
        inorder = sorted(documents, key=lambda one: (one["prompt_tokens"], one["batch"]))
        unfit = [
            [one["model"], cell["batch"], cell["prompt_tokens"], one["k"], one["reason"]]
            for cell in inorder
            for one in cell["not_measured"]
        ]
        return {
            "by_cell": long_table(DIMENSIONS, [c for cell in inorder for c in cells_of(cell)]),
            "not_measured": {"columns": [*DIMENSIONS, "reason"], "rows": unfit},
        }

    def described(self, documents: list[Measured]) -> dict[str, dict[str, Any]]:
        """Return what the prompts are cut from, and how long answers and trials were."""
        corpus, first = code_corpus().describe(), documents[0]
        about = {
            "sha256": corpus["sha256"],
            "n_documents": corpus["n_documents"],
            "bytes": corpus["n_bytes"],
            **{name: first[name] for name in ("source", "new_tokens", "trials")},
        }
        return {corpus["name"]: about}


def cells_of(cell: Measured) -> Iterator[Cell]:
    """Yield the rows of one batch size and prompt length.

    Values are ratios of sums over trials; their intervals come from resampling trials. `seconds_…`
    are means. What could not be measured has one row without a value.
    """
    size = (cell["batch"], cell["prompt_tokens"])
    for one in cell["not_measured"]:
        place = (one["model"], *size, one["k"])
        yield Cell(place, "tokens_per_second", float("nan"), count=0)
    contenders = dict.fromkeys((run["model"], run["k"]) for run in cell["runs"])
    for model, k in contenders:
        runs = _runs(cell, model, k)
        place = (model, *size, k)
        decode = [run["decode_s"] for run in runs]
        n_own = cell["new_tokens"] - 1  # of a row; its first token comes from the prefill
        pairs = {
            "tokens_per_second": [(run["n_kept"], run["decode_s"]) for run in runs],
            "seconds_decoding": [(s, 1) for s in decode],
            "seconds_prefill": [(run["prefill_s"], 1) for run in runs],
            "latency_per_token": [(s, n_own) for s in decode],
        }
        pairs |= _of_steps(cell, runs, f"{model} {k}")
        pairs |= _speedups(cell, runs)
        for name, values in pairs.items():
            yield pair_cell(place, name, values, count=len(values))
        if "foreseen_bytes" in cell:  # a second engine does not show its memory
            yield from _memory(place, cell["foreseen_bytes"][f"{model} {k}"], runs)


def _memory(place: Place, foreseen: int, runs: Sequence[dict[str, Any]]) -> Iterator[Cell]:
    """Yield what rows take: known before, measured beyond what was there, and the whole peak."""
    yield Cell(place, "memory_foreseen", foreseen, count=len(runs))
    read = [run for run in runs if run["peak_bytes"] is not None]
    if read:
        taken = max(run["peak_bytes"] - run["before_bytes"] for run in read)
        yield Cell(place, "memory_taken", taken, count=len(read))
        yield Cell(place, "peak_memory", max(run["peak_bytes"] for run in read), count=len(read))


def _of_steps(
    cell: Measured, runs: Sequence[dict[str, Any]], contender: str
) -> dict[str, list[Any]]:
    """Return pairs of metrics about steps; a second engine may not report steps or bytes."""
    if any(run["steps"] is None for run in runs):
        return {}
    found = {
        # All rows begin together: the one with the most steps was in every step.
        "seconds_per_step": [(run["decode_s"], max(run["steps"])) for run in runs],
        "tokens_per_forward": [(run["n_kept"], sum(run["steps"])) for run in runs],
    }
    if "traffic" in cell:
        traffic = Traffic(**cell["traffic"][contender])
        lengths = (cell["prompt_tokens"], cell["new_tokens"])
        # Seconds that reading would take at the full bandwidth.
        reads = [traffic.read(run["steps"], *lengths) / cell["bandwidth"] for run in runs]
        found["bandwidth_share"] = [*zip(reads, (run["decode_s"] for run in runs), strict=True)]
    return found


def _speedups(cell: Measured, runs: Sequence[dict[str, Any]]) -> dict[str, list[Any]]:
    """Return pairs (seconds of the other, own seconds) per trial, against NTP and a baseline."""
    found = {}
    baselines = [r for r in cell["runs"] if r["model"] != SELF]
    for name, others in (
        ("speedup", _runs(cell, SELF, 1)),
        ("speedup_over_baseline", baselines),
    ):
        by_trial = {other["trial"]: other for other in others}
        if by_trial:
            both = [(by_trial[run["trial"]], run) for run in runs]
            found[name] = [(a["decode_s"], b["decode_s"]) for a, b in both]
            found[f"{name}_with_prefill"] = [
                (a["prefill_s"] + a["decode_s"], b["prefill_s"] + b["decode_s"]) for a, b in both
            ]
    return found


def _runs(cell: Measured, model: str, k: int) -> list[dict[str, Any]]:
    return [run for run in cell["runs"] if run["model"] == model and run["k"] == k]


def _sum(runs: Sequence[dict[str, Any]], name: str) -> float:
    return float(sum(run[name] for run in runs))
