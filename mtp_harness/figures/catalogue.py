"""All figures and tables, in the order of the paper; what only we show comes last."""

from mtp_harness.figures import (
    code_figures,
    probe_figures,
    speed_figures,
    summary_figures,
    training_figures,
)
from mtp_harness.figures.figure import Figure

_ORDER = (
    "fig_1 fig_2 fig_3 fig_4 fig_5 fig_6 fig_7 fig_8 fig_s10 fig_s11 fig_s12 fig_s13 fig_s14 "
    "fig_s15 fig_s16 table_1 table_s2 table_s3 table_s4 table_s5 table_s6 table_s7 table_s8 "
    "table_s9 table_s10 table_s11 table_s12 fig_heads fig_positions fig_perplexity fig_acceptance "
    "fig_speed fig_speed_by_size fig_sample_efficiency"
).split()

_MODULES = (code_figures, training_figures, summary_figures, probe_figures, speed_figures)

FIGURES: dict[str, Figure] = {
    figure.name: figure
    for figure in sorted(
        (figure for module in _MODULES for figure in module.FIGURES),
        key=lambda figure: _ORDER.index(figure.name),
    )
}
