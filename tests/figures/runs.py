"""Runs of the kinds that figures are drawn from, written as the harness writes them.

The numbers are formulas, so that a test can say what a figure must show.
"""

import json
from pathlib import Path
from typing import Any

VALUES = ["metric", "value", "low", "high", "count"]


def table(dimensions: str, rows: list[list[Any]]) -> dict[str, Any]:
    """Return a probe's table; rows without interval and count get them."""
    width = len(dimensions.split()) + len(VALUES)
    full = [row + [None] * (width - len(row)) for row in rows]
    return {"columns": [*dimensions.split(), *VALUES], "rows": full}


def write_run(
    folder: Path,
    label: str = "a model",
    n: int = 4,
    k: int | None = None,
    *,
    parameters: int = 7_000_000_000,
    metrics: dict[str, dict[str, float]] | None = None,
    tables: dict[str, dict[str, Any]] | None = None,
    generation: dict[str, Any] | None = None,
    repeats: int = 1,
    samples: dict[str, list[dict[str, float]]] | None = None,
    **mtp: Any,
) -> Path:
    """Write one results file, and its samples: one dict of metrics per document."""
    metrics = metrics or {task: {} for task in tables or {}}
    content = {
        "results": {
            task: {f"{name},none": value for name, value in own.items()}
            for task, own in metrics.items()
        },
        "configs": {
            task: {"task": task, "generation_kwargs": generation, "repeats": repeats}
            for task in metrics
        },
        "config": {
            "model": "mtp",
            "model_num_parameters": parameters,
            "mtp": {
                "schema": 1,
                "pretrained": "mtp-bytes-n4",
                "label": label,
                "n_future_tokens": n,
                "draft_heads": k or n,
                "acceptance": "exact",
                "slots": 1,
                "hardware": {"cpu": "a processor"},
                "tables": tables or {},
                **mtp,
            },
        },
        "n-samples": {
            task: {"effective": len((samples or {}).get(task) or [None] * 100)} for task in metrics
        },
        "date": 1.8e9,
        "model_name": "mtp-bytes-n4",
    }
    folder.mkdir(parents=True, exist_ok=True)
    stamp = f"2026-01-31T12-00-{len(list(folder.iterdir())):02d}.000000"
    path = folder / f"results_{stamp}.json"
    path.write_text(json.dumps(content), encoding="utf-8")
    for task, documents in (samples or {}).items():
        lines = [json.dumps({"doc_id": i, **one}) for i, one in enumerate(documents)]
        path.with_name(f"samples_{task}_{stamp}.jsonl").write_text("\n".join(lines) + "\n")
    return path


PARAMETERS = {"30M": 30_000_000, "100M": 100_000_000, "7B": 7_000_000_000}


def write_everything(folder: Path) -> None:
    """Write runs that every figure can be drawn from."""
    for size, parameters in PARAMETERS.items():
        for n in (1, 2, 4):
            for seed in (0, 1):
                _reasoning(folder, size, n, seed, parameters)
    for n in (1, 2, 4):
        _code(folder, "7B", n, PARAMETERS["7B"])
        _code(folder, "7B linear", n, PARAMETERS["7B"])
        for step in range(2500, 12501, 2500):
            _checkpoint(folder, n, step)
        for tokens in (200_000_000_000, 500_000_000_000):
            _text(folder, n, tokens)
    _decoding(folder)


def _reasoning(folder: Path, size: str, n: int, seed: int, parameters: int) -> None:
    induction = [
        [name, 1, "accuracy", 0.1 + 0.05 * n + 0.02 * seed + 0.1 * len(size)]
        for name in ("stories", "books and stories")
    ]
    arithmetic = [
        [m, pause, "accuracy", max(0.0, (1 - m / 11) ** 2 * (0.8 + 0.04 * n) + 0.01 * seed), None]
        for m in range(1, 11)
        for pause in (0, 5, 10)
    ]
    tables = {
        "mtp_induction": {"by_data_set": table("data_set offset", induction)},
        "mtp_arithmetic": {"by_operations": table("operations pause_tokens", arithmetic)},
    }
    write_run(folder, size, n, parameters=parameters, tables=tables, train_seed=seed)


def _code(folder: Path, size: str, n: int, parameters: int) -> None:
    tasks = ("mbpp_mtp", "humaneval_mtp", "apps_mtp", "codecontests_mtp")
    for temperature in (0.2, 0.8):
        metrics, samples = {}, {}
        for place, task in enumerate(tasks):
            each = [
                {
                    f"pass@{k}_sampled": min(
                        1.0, ((i * 7 + place + n) % 10) / 10 * (k**0.2) * temperature
                    )
                    for k in (1, 10, 100)
                }
                for i in range(40)
            ]
            samples[task] = each
            metrics[task] = {name: sum(one[name] for one in each) / len(each) for name in each[0]}
        write_run(
            folder,
            f"{size} finetuned",
            n,
            parameters=parameters,
            metrics=metrics,
            samples=samples,
            generation={"do_sample": True, "temperature": temperature, "until": []},
            repeats=200,
            train_tokens=200_000_000_000,
        )


def _checkpoint(folder: Path, n: int, step: int) -> None:
    choice = {
        "arc_challenge": "acc_norm",
        "copa": "acc",
        "hellaswag": "acc_norm",
        "nq_open": "exact_match",
        "piqa": "acc_norm",
        "social_iqa": "acc",
        "triviaqa": "exact_match",
    }
    metrics = {
        task: {metric: 0.2 + step / 50_000 + 0.01 * n + 0.03 * place}
        for place, (task, metric) in enumerate(choice.items())
    }
    told = {"train_step": step, "train_tokens": step * 2**23}
    write_run(folder, "7B", n, metrics=metrics, **told)
    write_run(folder, "7B", n, tables={"mtp_heads": {"by_offset": heads_at(step, n)}}, **told)


def heads_at(step: int, n: int) -> dict[str, Any]:
    """Return what heads know: accuracy .5 and step / 50,000, less .1 for each offset."""
    cells = [["code", i, "accuracy", 0.5 + step / 50_000 - 0.1 * i] for i in range(1, n + 1)]
    return table("data_set offset", cells)


def _text(folder: Path, n: int, tokens: int) -> None:
    names = "cnn_dailymail multi_news orangesum pn_summary samsum thaisum wikisummary xsum".split()
    rouge = {
        f"{name}_mtp": {
            f"rouge{kind}_{aspect}": 0.2 + 0.01 * n * ((place + i) % 3 - 1) + 0.02 * place
            for i, kind in enumerate(("1", "2", "3", "L", "Lsum"))
            for aspect in ("f1", "precision", "recall")
        }
        for place, name in enumerate(names)
    }
    write_run(folder, "7B", n, metrics=rouge, train_tokens=tokens)
    for temperature in (0.2, 0.6, 1.0, 1.4):
        metrics = {
            f"gsm8k_mtp_t{temperature}": {
                f"pass@{k}_sampled": 0.1 + 0.05 * k**0.3 - 0.04 * temperature * n / 4
                for k in (1, 10, 100)
            }
        }
        kwargs = {"do_sample": True, "temperature": temperature, "until": []}
        write_run(
            folder, "7B", n, metrics=metrics, generation=kwargs, repeats=200, train_tokens=tokens
        )


def _decoding(folder: Path) -> None:
    for label, parameters in (("7B", 7_000_000_000), ("100M", 100_000_000)):
        write_run(folder, label, 4, parameters=parameters, tables=_decoding_tables(label))


def _decoding_tables(label: str) -> dict[str, Any]:
    place = 1.0 if label == "7B" else 0.8
    cells = []
    for batch in (1, 8, 16, 32):
        for k in (1, 2, 3, 4):
            speedup = 1 + (k - 1) * 0.6 * place
            cells += [
                ["self", batch, 512, k, "speedup", speedup, speedup * 0.97, speedup * 1.03, 10],
                ["self", batch, 512, k, "tokens_per_second", 40.0 * batch**0.9 * speedup],
                ["self", batch, 512, k, "bandwidth_share", 0.8 / batch**0.1],
                ["self", batch, 512, k, "seconds_per_step", (9 + k * batch / 8) / 1000],
            ]
    for tokens in (512, 2048, 8192):
        for k in (1, 2, 3, 4):
            at = ["self", 32, tokens, k]
            cells += [[*at, "seconds_per_step", (9 + 4 * k) / 1000]] if tokens > 512 else []
            cells += [[*at, "memory_foreseen", 4e5 * tokens * k]]
            cells += [[*at, "memory_taken", 5e5 * tokens * k]]
    cells.append(["n1", 1, 512, 1, "tokens_per_second", 41.0])
    cells.append(["n1", 1, 512, 1, "bandwidth_share", 0.8])
    by_k, steps = [], []
    for category in ("code", "prose"):
        for k in (1, 2, 3, 4):
            by_k += [
                [category, k, "tokens_per_forward", 1 + 0.7 * (k - 1)],
                [category, k, "tokens_per_second", 100 * (1 + 0.6 * (k - 1))],
            ]
            steps += [[category, k, v, "steps", 10 + 20 * v] for v in range(k)]
    offsets, buckets, classes, positions, wholes, accepted = [], [], [], [], [], []
    for data_set in ("code", "prose"):
        for offset in (1, 2, 3, 4):
            score = 0.8 - 0.08 * offset - (0.1 if data_set == "prose" else 0)
            offsets += [
                [data_set, offset, "accuracy", score, score - 0.02, score + 0.02, 1000],
                [data_set, offset, "bits_per_byte", 1 + 0.5 * offset],
                [data_set, offset, "confidence", score + 0.03],
                [data_set, offset, "tf_agree", 1 - 0.1 * (offset - 1)],
            ]
            accepted += [
                [
                    data_set,
                    warm,
                    offset,
                    f"accept_{rule}",
                    (1 - 0.1 * (offset - 1)) * (1 - warm * by),
                ]
                for warm in (0.6, 1.0)
                for rule, by in (("greedy", 0.3), ("sampled", 0.1), ("same_noise", 0.2))
                if offset > 1
            ]
            for low, high in ((0, 255), (256, 511), (512, 1023)):
                buckets.append([data_set, offset, low, high, "accuracy", score + low / 1e4])
            for kind in ("name", "operator", "white space"):
                classes.append([data_set, offset, kind, "all", "accuracy", score])
            wholes += [[data_set, offset, "cross_entropy", 1.0]]
            wholes += [[data_set, offset, "bits_per_byte", 0.4]]
            for at in range(0, 256, 8):
                positions.append([data_set, offset, at + 1, "cross_entropy", 1 + offset / (at + 2)])
    contexts = [
        ["code", k, low, low + 511, offset, metric, value]
        for k in (2, 3, 4)
        for low in (512, 1024, 1536)
        for offset, metric, value in (
            (None, "accept_length", 1 + 0.5 * (k - 1) + low / 1e4),
            (2, "accept_rate_prefix", 0.5 + low / 1e4),
        )
    ]
    return {
        "mtp_speed": {"by_cell": table("model batch prompt_tokens k", cells)},
        "mtp_speculative": {
            "by_k": table("category k", by_k),
            "histogram": table("category k n_verified", steps),
        },
        "mtp_long_context": {
            "by_context": table("category k position_from position_to offset", contexts)
        },
        "mtp_drafts": drafts(),
        "mtp_heads": {"by_offset": table("data_set offset", offsets)},
        "mtp_acceptance": {"by_offset": table("data_set temperature offset", accepted)},
        "mtp_positions": {
            "by_bucket": table("data_set offset position_from position_to", buckets),
            "by_class": table("data_set offset class part", classes),
        },
        "mtp_perplexity": {
            "by_position": table("data_set offset position", positions),
            "by_offset": table("data_set offset", wholes),
        },
    }


def drafts():
    """Return the tables of `mtp_drafts`, of n = 4."""
    accepted, shares = "accept_rate_cond", "share_of_rejections"
    by_class, by_entropy, by_since, bins, by_threshold = [], [], [], [], []
    for category in ("code", "prose"):
        for offset in (None, 2, 3, 4):
            rate = 0.9 - 0.05 * (offset or 3)
            for name, share in (("keyword", 0.1), ("identifier", 0.7), ("number", 0.2)):
                count = 20 if name == "number" and offset else 100
                by_class.append([category, offset, name, accepted, rate, None, None, count])
                if offset is None:
                    by_class.append([category, offset, name, shares, share, None, None, 50])
            for low, high in ((0.0, 0.1), (0.1, 1.0), (1.0, None)):
                by_entropy.append(
                    [category, offset, low, high, accepted, rate - low / 4, None, None, 100]
                )
            if offset is None:
                continue
            for since in (offset - 2, offset + 2):
                by_since.append([category, offset, since, accepted, rate, None, None, 100])
            for number in range(1, 16):
                middle = (number - 0.5) / 15
                for metric, value in (
                    ("confidence", middle),
                    (accepted, middle**2),
                    ("accept_rate_prefix", middle**3),
                ):
                    bins.append([category, offset, number, metric, value, None, None, 100])
        for k in (2, 3, 4):
            for threshold in (0.0, 0.5, 0.9):
                for metric, value in (
                    ("tokens_per_forward", k - threshold),
                    ("drafts_per_forward", k - 1),
                ):
                    by_threshold.append([category, k, threshold, metric, value])
    return {
        "by_class": table("category offset class", by_class),
        "by_entropy": table("category offset entropy_from entropy_to", by_entropy),
        "by_since": table("category offset since", by_since),
        "calibration": table("category offset bin", bins),
        "by_threshold": table("category k threshold", by_threshold),
    }
