"""What figures/studies says of its studies is what their commands say of the results it keeps."""

import re

import pytest

from ..scripts import ROOT, script

STUDIES = ROOT / "figures" / "studies"
OUTCOMES = {  # study: its command, the results it reads, the table it writes
    1: ("training_cost_outcome", STUDIES / "results" / "training_cost.json", "table_s5"),
    2: ("drafts_compared", STUDIES / "results" / "sequential_and_parallel", "fig_drafts_compared"),
    3: ("sign_of_figure_3", STUDIES / "results" / "sign_of_figure_3", "sign_of_figure_3"),
    4: ("arithmetic", ROOT / "figures" / "results" / "arithmetic", None),
}


@pytest.mark.parametrize("study", OUTCOMES)
def test_outcome_and_table_are_those_of_the_kept_results(capsys, tmp_path, study):
    name, results, table = OUTCOMES[study]
    readme = (STUDIES / "README.md").read_text(encoding="utf-8")
    (state,) = re.findall(rf"^\| {study} .*\| (.*) \|$", readme, re.M)
    if not results.exists():
        assert state.endswith("not run yet")
        return
    assert script(STUDIES / f"{name}.py").main([str(results), "-o", str(tmp_path)]) == 0
    said = re.findall(
        r"^outcome.*?: (agree|disagree|inconclusive|unfinished|\w+ drafts better)",
        capsys.readouterr().out,
        re.M,
    )
    assert said and said == re.findall(r"\*\*([\w ]+)\*\*", state)
    if table:
        kept, again = (
            (folder / f"{table}.csv").read_bytes() for folder in (STUDIES / "results", tmp_path)
        )
        assert again == kept
