"""The seven choice and knowledge tasks of figures 5 and S12, and the metric used of each."""

METRICS = {
    "arc_challenge": "acc_norm,none",
    "copa": "acc,none",
    "hellaswag": "acc_norm,none",
    "nq_open": "exact_match,remove_whitespace",
    "piqa": "acc_norm,none",
    "social_iqa": "acc,none",
    "triviaqa": "exact_match,remove_whitespace",
}
"""Task → its metric in the results; the order is figure S12's."""
