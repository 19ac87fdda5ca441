"""The paper's figures and tables, from results and from the paper's own numbers.

    results ──tidy.read_runs──▶ rows ──Figure.select──────┐
    paper/*.csv ──paper_data.read──▶ ──Figure.from_paper──┴▶ one table ──Figure.draw──▶ picture

A new figure is a module `…_figures.py` with `FIGURES`, and its line in `catalogue.MODULES`.
Imports neither torch nor lm_eval, and reads JSON and CSV only.
"""
