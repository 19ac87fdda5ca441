"""Writes results and samples files as lm_eval 0.4.13 does, with scores that a test chooses."""

import hashlib
import json

VERDICTS = {1.0: "pass", 0.0: "fail"}


def sha(text):
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def pooled(values):
    pairs = [value if isinstance(value, tuple) else (value, 1) for value in values]
    return sum(a for a, _ in pairs) / sum(b for _, b in pairs)


def write_run(
    folder,
    label="model",
    task="humaneval_mtp",
    scores=None,
    *,
    answers=None,
    n=4,
    k=4,
    parameters=4_000_000,
    mtp=None,
    generation=None,
    version=1.1,
    n_samples=1,
    metadata=None,
    prompts="prompt {}",
    documents="document {}",
    stated=None,
    tables=None,
    samples=True,
    stamp="2026-01-02T03-04-05.000001",
):
    """Write one run of one task; return its results file.

    Args:
        scores: metric -> one number, or (numerator, denominator), for each document.
        answers: one list of {"text", "verdict", "decode"} for each document.
        generation: arguments of generation; False for a task that generates nothing.
        stated: metric -> value, instead of the pooled scores.
    """
    scores = {"pass@1": [1.0, 0.0, 1.0]} if scores is None else scores
    n_documents = len(next(iter(scores.values())))
    if generation is None:
        generation = {"until": ["\ndef"], "max_gen_toks": 512, "do_sample": False}
    folder.mkdir(parents=True, exist_ok=True)
    own = {
        "pretrained": label,
        "label": label,
        "n_future_tokens": n,
        "draft_heads": k,
        "dtype": "float32",
        "draft_rule": "exact: a draft is verified when it equals head 1's argmax",
        "totals": {"n_answers": n_documents, "timing": {"tokens_per_s": 1000.0}},
        "tables": {task: tables} if tables else {},
    }
    stated = {
        name: pooled(list(each)) for name, each in scores.items() if name not in (stated or {})
    } | (stated or {})
    values = {f"{name},none": value for name, value in stated.items()}
    content = {
        "results": {task: {"alias": task, **values}},
        "configs": {
            task: {
                "output_type": "generate_until" if generation else "multiple_choice",
                "generation_kwargs": generation or None,
                "repeats": n_samples,
                "metadata": {"version": version, "pretrained": label, **(metadata or {})},
            }
        },
        "versions": {task: version},
        "n-shot": {task: 0},
        "higher_is_better": {task: dict.fromkeys(scores, True)},
        "n-samples": {task: {"original": 164, "effective": n_documents}},
        "config": {
            "model": "mtp",
            "model_args": {"pretrained": label},
            "model_num_parameters": parameters,
            "mtp": own | (mtp or {}),
        },
        "model_name": label,
    }
    path = folder / f"results_{stamp}.json"
    path.write_text(json.dumps(content))
    if samples:
        lines = []
        for doc in range(n_documents):
            prompt = prompts.format(doc)
            texts = answers[doc] if answers else [{"text": "answer"}] * n_samples
            lines.append(
                {
                    "doc_id": doc,
                    "doc": {"task_id": documents.format(doc)},
                    "target": f"target {doc}",
                    "arguments": {"gen_args_0": {"arg_0": prompt, "arg_1": generation or "choice"}},
                    "resps": [[one["text"] for one in texts]],
                    "filtered_resps": [[one["text"] for one in texts]],
                    "filter": "none",
                    "metrics": list(scores),
                    "doc_hash": sha(documents.format(doc)),
                    "prompt_hash": sha(prompt),
                    "target_hash": sha(f"target {doc}"),
                    "n_answers": [
                        {"verdict": one.get("verdict"), "decode": one.get("decode")}
                        for one in texts
                    ],
                    **{name: each[doc] for name, each in scores.items()},
                }
            )
        text = "".join(f"{json.dumps(line)}\n" for line in lines)
        (folder / f"samples_{task}_{stamp}.jsonl").write_text(text)
    return path
