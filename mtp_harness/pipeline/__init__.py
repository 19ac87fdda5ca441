"""Suites: several models times several tasks, each cell a real `lm_eval` process.

suite.yaml ──suite──▶ Suite ──expand──▶ single tasks ──plan──▶ Cells ──run──▶ results ──▶ compare
"""
