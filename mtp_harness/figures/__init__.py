"""Results of the harness, and the paper's numbers, as tidy tables and as the paper's figures.

    results_*.json ──result_file.read──▶ ResultFile ──values.values_of──▶ rows ─┐
    paper/*.csv ─────────────────────────paper_data.read────────────────────────┴▶ one table
                                                                                   schema.COLUMNS

Imports neither torch nor lm_eval, and reads JSON and CSV only.
"""
