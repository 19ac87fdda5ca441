"""Suites: several models times several tasks, each cell a real `lm_eval` process.

    suite.yaml ──suite──▶ Suite ──expand──▶ single tasks ──plan──▶ cells ──run──▶ results, compared

`run_evaluation_pipeline` is the same for one checkpoint and evaluations by name.
"""

from mtp_harness.pipeline.evaluation import run_evaluation_pipeline

__all__ = ["run_evaluation_pipeline"]
