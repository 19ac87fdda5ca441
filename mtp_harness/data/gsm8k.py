"""GSM8K: 1319 grade-school problems, each with a worked answer that ends in `#### NUMBER`.

The eight worked examples of the prompt are those of the harness's own task `gsm8k_cot`, read from
the installed `lm_eval`, so that both tasks ask the same question.

Source: Cobbe et al. 2021, "Training Verifiers to Solve Math Word Problems"; the examples: Wei et
al. 2022, "Chain-of-Thought Prompting Elicits Reasoning in Large Language Models", appendix G.
"""

import importlib.util
import re
from decimal import Decimal, InvalidOperation
from pathlib import Path

from mtp_harness.data.rows import Splits, splits
from mtp_harness.data.sources import Source, find_files, read_rows

SOURCE = Source(
    "GSM8K",
    (
        "gsm8k/test.jsonl.gz",
        "gsm8k/test.jsonl",
        "gsm8k/test-*.parquet",
        "gsm8k/main/test-*.parquet",
    ),
    "openai/gsm8k",
    "main/test-*.parquet",
    ("question", "answer"),
)
_SHOTS = Path("tasks", "gsm8k", "gsm8k-cot.yaml")
_NUMBER = re.compile(r"-?\$?-?[\d,]*\.?\d+")


def load(data_dir: str | None = None, **_metadata: object) -> Splits:
    """Return `test`: `question`, `target` (the worked answer), `final` (its number, as text)."""
    rows = []
    for number, row in enumerate(read_rows(SOURCE, data_dir), 1):
        worked, _, last = row["answer"].rpartition("####")
        if value_of(last) is None:
            raise ValueError(
                f"row {number} of {SOURCE.title} has the answer …{row['answer'][-40:]!r}, expected "
                "one that ends in #### and a number"
            )
        rows.append({"question": row["question"], "target": worked.strip(), "final": last.strip()})
    return splits({"test": rows}, ", ".join(path.name for path in find_files(SOURCE, data_dir)))


def shots() -> list[dict[str, str]]:
    """Return the worked examples, each with `question` and `target`.

    Raises:
        FileNotFoundError: The installed `lm_eval` does not have them.
    """
    import yaml

    spec = importlib.util.find_spec("lm_eval")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        path = Path(folder) / _SHOTS
        if path.is_file():
            task = yaml.safe_load(path.read_text(encoding="utf-8"))
            examples: list[dict[str, str]] = task["fewshot_config"]["samples"]
            return examples
    raise FileNotFoundError(
        f"the installed lm_eval has no {_SHOTS}, whose examples gsm8k_mtp puts into its prompt: "
        "install lm_eval 0.4.13"
    )


def value_of(text: str) -> Decimal | None:
    """Return a number written as `1,234`, `$18.00` or `-3.`; None for anything else."""
    bare = text.strip().rstrip(".")
    if not _NUMBER.fullmatch(bare):
        return None
    try:
        return Decimal(bare.replace(",", "").replace("$", ""))
    except InvalidOperation:
        return None
