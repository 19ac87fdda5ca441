"""Every figure is drawn from runs and from the paper; nothing is drawn without data."""

import io
import json
import re
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure as Canvas
from PIL import Image

from mtp_harness.figures import catalogue, footer, style
from mtp_harness.figures.catalogue import FIGURES, draw_all
from mtp_harness.figures.figure import NoData, draw, paint
from mtp_harness.figures.series import is_paper, series_of
from mtp_harness.results.tidy import frame, read_runs

from .runs import table, write_everything, write_run

NEVER_MEASURED = {"table_s5", "table_s11", "table_s13", "table_s14"}
OURS = {
    "fig_heads", "fig_positions", "fig_classes", "fig_acceptance", "fig_speed", "fig_perplexity",
    "fig_sample_efficiency", "fig_speed_by_size", "fig_heads_by_step", "fig_advice",
    "fig_temperature", "fig_long_context", "fig_drafts_fail", "fig_calibration", "fig_threshold",
}  # fmt: skip
ISSUE = """
fig_2 fig_s11 table_s4 table_s5 table_s6 table_s11 fig_1 fig_3 table_s7 fig_4 fig_5 fig_s12 fig_6
 table_s8 table_s9 table_s10 fig_7 fig_s14 fig_8 fig_s15 fig_s16 fig_s10 table_s2 table_s3
fig_speed_by_size fig_s13 table_1 table_s12 fig_heads fig_positions fig_acceptance fig_speed
fig_perplexity fig_sample_efficiency table_s13 table_s14 fig_classes
fig_heads_by_step fig_advice fig_temperature fig_long_context
 fig_drafts_fail fig_calibration fig_threshold""".split()


@pytest.fixture(scope="module")
def everything(tmp_path_factory):
    folder = tmp_path_factory.mktemp("everything")
    write_everything(folder)
    results = read_runs([folder])
    assert not results.problems
    return results


def test_the_figures_are_those_that_were_asked_for():
    assert sorted(FIGURES) == sorted(ISSUE)


def test_figures_stand_in_the_order_of_the_paper_and_ours_behind():
    names = list(FIGURES)
    assert names[7:10] == ["fig_8", "fig_s10", "fig_s11"]
    assert names[14:17] == ["fig_s16", "table_1", "table_s2"]
    assert set(names[-len(OURS) :]) == OURS


def test_every_file_of_figures_is_in_the_catalogue():
    files = Path(catalogue.__file__).parent.glob("*_figures.py")
    assert {f"mtp_harness.figures.{path.stem}" for path in files} == set(catalogue.MODULES)


@pytest.mark.parametrize("name", sorted(set(ISSUE) - OURS))
def test_paper_figure_is_drawn_from_the_paper_alone(name):
    drawn = draw(FIGURES[name], None)
    assert is_paper(drawn.table).all()
    assert has_ink(drawn.pictures["png"])


@pytest.mark.parametrize("name", sorted(set(ISSUE) - NEVER_MEASURED))
def test_figure_is_drawn_from_runs_and_beside_the_paper(name, everything):
    if not FIGURES[name].is_diagram:
        assert not is_paper(FIGURES[name].show(everything, paper=False).table).any()
    both = draw(FIGURES[name], everything, paper=True)
    assert is_paper(both.table).any() == bool(FIGURES[name].paper)
    assert has_ink(both.pictures["png"])


@pytest.mark.parametrize("name", "fig_4 fig_5 fig_8 fig_s12 fig_s13 fig_s15 fig_s16".split())
def test_percentages_are_those_of_the_table(name):
    canvas, shown = Canvas(), FIGURES[name].show(None, paper=False).table
    FIGURES[name].draw(canvas, shown, style.PAPER)
    highest = max(max(line.get_ydata()) for axes in canvas.axes for line in axes.get_lines()[:1])
    assert 0.1 * highest < 100 * shown["value"].max() < 10 * highest
    assert highest <= 100


def test_sample_efficiency_has_shares_in_percent_and_bits_as_they_are(tmp_path):
    for n in (1, 4):
        for tokens in (100, 1000, 10_000):
            bits = table("data_set offset", [["humaneval", 1, "bits_per_byte", 2 - n / 10]])
            tables = {"mtp_solutions": {"by_offset": bits}}
            metrics = {"humaneval_mtp": {"pass@1": 0.25}, "mtp_solutions": {}}
            told = {"metrics": metrics, "tables": tables, "train_tokens": tokens}
            write_run(tmp_path, f"model of {n}", n, **told)
    canvas = Canvas()
    shown = FIGURES["fig_sample_efficiency"].show(read_runs([tmp_path]), paper=False).table
    FIGURES["fig_sample_efficiency"].draw(canvas, shown, style.PAPER)
    seen = {axes.get_ylabel(): set(axes.get_lines()[0].get_ydata()) for axes in canvas.axes}
    assert seen == {"pass@1 (%)": {25.0}, "bits per byte": {1.9}}


def test_sample_efficiency_is_not_read_from_checkpoints_of_several_types(tmp_path):
    for tokens, dtype in ((100, "bfloat16"), (1000, "bfloat16"), (10_000, "float32")):
        told = {"metrics": {"humaneval_mtp": {"pass@1": 0.25}}, "train_tokens": tokens}
        write_run(tmp_path, "a", 4, dtype=dtype, **told)
    said = draw_all(read_runs([tmp_path]), ["fig_sample_efficiency"]).refused
    assert "cannot be compared (dtype bfloat16 against float32: " in said["fig_sample_efficiency"]


@pytest.mark.parametrize("name", sorted(OURS))
def test_figure_that_the_paper_lacks_is_refused_with_its_command(name):
    with pytest.raises(NoData, match=rf"^{name} is not drawn: the paper has none. Run `lm_eval"):
        draw(FIGURES[name], None)


def test_nothing_is_drawn_from_runs_that_did_not_measure_it(tmp_path):
    write_run(tmp_path, metrics={"some_task": {"acc": 0.5}})
    gallery = draw_all(read_runs([tmp_path]))
    assert {one.figure.name for one in gallery.drawn} == {"fig_1", "fig_2", "fig_s11"}
    assert set(gallery.missing) == set(ISSUE) - {"fig_1", "fig_2", "fig_s11"}
    for name in gallery.missing:
        assert "no run measured it. Run" in gallery.refused[name]


@pytest.mark.parametrize("name", ["fig_3", "fig_s10", "table_1", "table_s10", "fig_2", "fig_6"])
def test_equal_input_gives_equal_bytes(name):
    first, second = (draw(FIGURES[name], None, formats=("png", "pdf", "svg")) for _ in range(2))
    assert first.pictures == second.pictures
    assert first.csv == second.csv


def test_hash_of_the_sources_is_in_the_file(tmp_path, everything):
    drawn = draw(FIGURES["fig_8"], everything, formats=("png", "pdf", "svg"))
    assert Image.open(io.BytesIO(drawn.pictures["png"])).text["Source"].endswith(drawn.sources)
    assert drawn.sources.encode() in drawn.pictures["svg"]
    assert drawn.sources.encode() in drawn.pictures["pdf"]
    # Another run among the sources, another hash.
    other = draw(FIGURES["fig_7"], everything)
    paper = draw(FIGURES["fig_8"], everything, paper=True)
    assert len({drawn.sources, paper.sources}) == 2
    assert other.sources == drawn.sources  # the same runs measured both


def test_two_runs_on_one_point_are_refused_and_named(tmp_path):
    cells = table("operations pause_tokens", [[1, 0, "accuracy", 0.5]])
    tables = {"mtp_arithmetic": {"by_operations": cells}}
    write_run(tmp_path, "a", tables=tables, train_step=1)
    write_run(tmp_path, "a", tables=tables, train_step=2)
    gallery = draw_all(read_runs([tmp_path]), ["fig_8"])
    assert not gallery.drawn and not gallery.missing
    said = gallery.refused["fig_8"]
    assert "two values at number of operations 1 of a (they differ in train_step 1 and 2;" in said
    assert "results_2026" in said and "label=" in said


def heads_of(documents, hardware="one", speed=1.0):
    cells = table("data_set offset", [["code", 1, "accuracy", 0.75]])
    times = table("model batch prompt_tokens k", [["self", 1, 64, 2, "speedup", speed]])
    return {
        "tables": {"mtp_heads": {"by_offset": cells}, "mtp_speed": {"by_cell": times}},
        "documents": {"mtp_heads": {"code": {"sha256": documents}}},
        "hardware": {"gpu": hardware},
    }


def test_models_that_read_other_documents_are_not_drawn_together(tmp_path):
    write_run(tmp_path, "a", **heads_of("aaaaaaaaaaaa"))
    write_run(tmp_path, "b", **heads_of("aaaaaaaaaaaa"))
    assert len(draw(FIGURES["fig_heads"], read_runs([tmp_path])).table) == 2
    write_run(tmp_path, "c", **heads_of("bbbbbbbbbbbb"))
    said = draw_all(read_runs([tmp_path]), ["fig_heads"]).refused["fig_heads"]
    assert "its runs of mtp_heads cannot be compared (documents of code " in said
    assert "aaaaaaaaaaaa" in said and "bbbbbbbbbbbb" in said


def test_time_depends_on_the_machine_and_accuracy_does_not(tmp_path):
    write_run(tmp_path, "a", **heads_of("aaaaaaaaaaaa", "one", 1.5))
    write_run(tmp_path, "a", **heads_of("aaaaaaaaaaaa", "another", 2.5))
    results = read_runs([tmp_path])
    assert len(results.problems) == 1  # the accuracy of the older run is not shown
    assert len(draw(FIGURES["fig_heads"], results).table) == 1
    speeds = draw(FIGURES["fig_s10"], results).table
    shown = speeds[speeds["metric"] == "speedup"].set_index("hardware")["value"]
    assert shown.to_dict() == {"one": 1.5, "another": 2.5}


def test_architecture_is_that_of_the_models_own_configuration(tmp_path):
    checkpoint = tmp_path / "7B_200B_4"
    checkpoint.mkdir()
    told = {"dim": 4096, "n_layers": 32, "n_heads": 32, "n_future_tokens": 4, "vocab_size": 32000}
    (checkpoint / "params.json").write_text(json.dumps(told))
    for pretrained, blocks in (("mtp-bytes-n4", [8, 4]), (str(checkpoint), [28, 4])):
        folder = tmp_path / Path(pretrained).name / "runs"
        write_run(folder, metrics={"mbpp_mtp": {"pass@1": 0.5}}, pretrained=pretrained)
        shown = draw(FIGURES["fig_1"], read_runs([folder])).table
        assert shown["metric"].tolist() == ["trunk blocks", "head blocks"]
        assert shown["value"].tolist() == blocks
    write_run(
        tmp_path / "gone", metrics={"mbpp_mtp": {"pass@1": 0.5}}, pretrained="/nowhere/at/all"
    )
    assert "config.json" in draw_all(read_runs([tmp_path / "gone"]), ["fig_1"]).refused["fig_1"]


def test_seeds_are_averaged_and_their_points_are_kept(everything):
    shown = draw(FIGURES["fig_8"], everything).table
    here = shown[(shown["label"] == "100M") & (shown["n"] == 2) & (shown["operations"] == 3)]
    assert sorted(here["train_seed"]) == [0, 1]
    assert here["value"].tolist() == pytest.approx(
        [(1 - 3 / 11) ** 2 * 0.88, (1 - 3 / 11) ** 2 * 0.88 + 0.01]
    )


def test_measured_and_forced_acceptance_never_share_a_series():
    rows = [
        {"source": "run", "label": "a", "k": 2, "acceptance": how, "batch": b, "value": 1.0 + b}
        for how in ("exact", "synthetic", "all")
        for b in (1, 8)
    ]
    rows.append({"source": "Table S2", "label": "a", "k": 2, "batch": 1, "value": 1.5})
    found = list(series_of(frame(rows), "k", ("label",), style.PAPER))
    assert len(found) == 4
    for one in found:
        assert one.rows["acceptance"].nunique(dropna=False) == 1
        assert one.rows["source"].nunique() == 1
    assert len({one.label for one in found}) == 4
    assert any("synthetic acceptance" in one.label for one in found)
    assert any("unverified" in one.label for one in found)


def test_paper_stands_apart_beside_runs(everything):
    both = draw(FIGURES["fig_8"], everything, paper=True).table
    own = list(series_of(both, "n", ("label",), style.PAPER))
    assert {one.alpha for one in own if one.from_paper} == {style.PAPER_ALPHA}
    assert {one.alpha for one in own if not one.from_paper} == {1.0}
    assert all("paper" in one.label for one in own if one.from_paper)


def test_rules_of_acceptance_meet_at_temperature_0_where_the_heads_agree(everything):
    shown = FIGURES["fig_temperature"].show(everything, paper=False).table
    factors = {"accept_greedy": 0.3, "accept_sampled": 0.1, "accept_same_noise": 0.2}
    assert len(shown) == 2 * 2 * 3 * 3 * 3  # models, data sets, rules, offsets, temperatures
    for _, row in shown.iterrows():
        agrees = 1 - 0.1 * (row["offset"] - 1)
        expected = agrees * (1 - row["temperature"] * factors[row["metric"]])
        assert row["value"] == pytest.approx(expected)


def test_long_context_has_milliseconds_gigabytes_and_bins_by_their_middle(everything):
    shown = FIGURES["fig_long_context"].show(everything, paper=False).table
    of = shown[(shown["label"] == "7B") & (shown["k"] == 2)]
    found = {
        (name, tokens): value
        for name, tokens, value in zip(of["metric"], of["prompt_tokens"], of["value"], strict=True)
    }
    assert found == pytest.approx(
        {("seconds_per_step", tokens): 17.0 for tokens in (512, 2048, 8192)}
        | {("memory_foreseen", tokens): 8e-4 * tokens for tokens in (512, 2048, 8192)}
        | {("memory_taken", tokens): 1e-3 * tokens for tokens in (512, 2048, 8192)}
        | {("accept_length", low + 256): 1.5 + low / 1e4 for low in (512, 1024, 1536)}
    )
    canvas, _ = drawn_on_canvas("fig_long_context", everything)
    titles = [axes.get_title() for axes in canvas.axes[:3]]
    assert titles == ["one step (ms)", "memory of rows (GB)", "tokens of a step"]


def test_heads_without_a_data_set_are_one_row_of_panels(tmp_path):
    cells = [[k, name, 0.5] for k in (1, 2) for name in ("accuracy", "bits_per_byte")]
    tables = {"mtp_heads": {"by_offset": table("offset", cells)}}
    write_run(tmp_path, "a", 2, tables=tables)
    canvas, _ = drawn_on_canvas("fig_heads", read_runs([tmp_path]))
    assert [axes.get_title() for axes in canvas.axes] == ["accuracy (%)", "bits per byte"]


def test_interval_of_latency_is_turned_around(everything):
    shown = draw(FIGURES["fig_s10"], everything).table
    latency = shown[(shown["metric"] == "latency over k = 1") & (shown["k"] == 4)].iloc[0]
    speedup = 1 + 3 * 0.6
    assert float(latency["value"]) == pytest.approx(1 / speedup)
    assert float(latency["low"]) == pytest.approx(1 / (speedup * 1.03))
    assert float(latency["high"]) == pytest.approx(1 / (speedup * 0.97))


def drawn_on_canvas(name, results):
    """Return the canvas of a figure with the paper's numbers beside the runs', laid out."""
    shown = FIGURES[name].show(results, paper=True)
    with matplotlib.rc_context(fname=style.MPLSTYLE):
        canvas = paint(shown, results.files if results else {}, style.PAPER)
        canvas.draw_without_rendering()
    return canvas, shown.table


def footer_of(canvas):
    return " ".join(canvas.get_supxlabel().split())


def test_speedup_has_one_line_for_each_k_and_says_with_which_prompts(tmp_path):
    for n, size in ((1, 4), (4, 4), (4, 40)):
        cells = [
            ["self", batch, tokens, k, "speedup", k * tokens / 1000]
            for batch in (1, 8)
            for tokens in (512, 1024)
            for k in range(1, n + 1)
        ]
        times = table("model batch prompt_tokens k", cells)
        told = {"parameters": size, "tables": {"mtp_speed": {"by_cell": times}}}
        write_run(tmp_path, f"{n} heads, {size}", n, **told)
    results = read_runs([tmp_path])
    for name, where in (("fig_s10", ""), ("fig_speed_by_size", ", batch size 8")):
        shown = FIGURES[name].show(results, paper=True).table
        own = shown[~is_paper(shown)]
        assert set(own["label"]) == {"4 heads, 4", "4 heads, 40"}
        assert set(own["prompt_tokens"]) == {512}
        assert f"prompts of 512 tokens{where}" in footer_of(drawn_on_canvas(name, results)[0])


@pytest.mark.parametrize("name", [name for name in ISSUE if name.startswith("table_")])
def test_a_table_says_what_it_shows_and_in_which_unit(name):
    canvas, _ = drawn_on_canvas(name, None)
    heading = " ".join(canvas.get_suptitle().split())
    assert heading == FIGURES[name].caption.partition(". ")[0].removesuffix(".")
    assert re.search(r"%|points|speedup|multiple|temperature|Settings|Width", heading)


@pytest.mark.parametrize("name", sorted(set(ISSUE) - NEVER_MEASURED))
def test_every_figure_has_a_title_and_says_which_models_and_what_its_bars_are(name, everything):
    canvas, _ = drawn_on_canvas(name, everything)
    title, _, more = FIGURES[name].caption.partition(". ")
    said, heading = footer_of(canvas), " ".join(canvas.get_suptitle().split())
    assert heading == title.removesuffix(".") and more in said
    if not FIGURES[name].is_diagram and name != "fig_1":
        assert "Models: " in said
    if any(axes.collections for axes in canvas.axes):
        assert re.search(r"(Error bars|Bands): 90 % bootstrap intervals over", said)
    legends = [text.get_text() for one in canvas.legends for text in one.get_texts()]
    assert len(legends) <= 12
    texts = [text.get_text() for text in canvas.findobj(matplotlib.text.Text)]
    assert not [text for text in texts if re.search(r"(?<!\w)-\d|speed-up", text)]


def test_tokens_of_byte_models_are_called_bytes(tmp_path):
    cells = [["self", b, 64, k, "tokens_per_second", b * k] for b in (1, 4) for k in (1, 2)]
    tables = {"mtp_speed": {"by_cell": table("model batch prompt_tokens k", cells)}}
    for size, unit in ((256, "bytes"), (32_000, "tokens")):
        write_run(tmp_path / unit, "a", 2, tables=tables, vocab_size=size)
        canvas, _ = drawn_on_canvas("fig_speed", read_runs([tmp_path / unit]))
        assert canvas.axes[0].get_ylabel() == f"{unit} per second"
        assert f"prompts of 64 {unit}" in footer_of(canvas)
        assert canvas.get_suptitle().lower().startswith(unit)


def test_bandwidth_limit_is_thin_and_named_and_panels_share_their_axes(everything):
    canvas, shown = drawn_on_canvas("fig_speed", everything)
    (legend,) = canvas.legends
    assert "bandwidth limit" in [text.get_text() for text in legend.get_texts()]
    assert len({axes.get_ylim() for axes in canvas.axes if axes.has_data()}) == 1
    limits = [one for axes in canvas.axes for one in axes.get_lines() if one.get_linewidth() < 1]
    expected = shown[shown["metric"] == "bandwidth limit"].groupby(["run", "baseline", "k"],
                                                                   dropna=False)  # fmt: skip
    assert len(limits) == len(expected) and {one.get_linestyle() for one in limits} == {"-"}


def test_footers_name_every_table_of_the_paper_that_is_shown(tmp_path):
    alone, _ = drawn_on_canvas("fig_1", None)
    said = footer_of(alone)
    assert "Table S14, Figure 3 (digitised), its baselines Table S7" in said
    write_run(tmp_path, metrics={"mbpp_mtp": {"pass@1": 0.5}}, pretrained="mtp-bytes-n4")
    beside, shown = drawn_on_canvas("fig_1", read_runs([tmp_path]))
    assert "S14" not in footer_of(beside)  # the diagram is the run's
    assert (shown["metric"] == "trunk blocks").sum() == 1


def test_footers_say_how_answers_were_decoded(tmp_path):
    rows = [["code", k, "tokens_per_forward", 10 * k] for k in (1, 4)]
    tables = {"mtp_speculative": {"by_k": table("category k", rows)}}
    told = {"code": {"source": "HumanEval", "new_tokens": 128}, "prose": {"new_tokens": "many"}}
    write_run(
        tmp_path, tables=tables, batch_size=16, documents={"mtp_speculative": told}
    )  # a table of its own has neither
    for name, paper in (("table_s2", "512 tokens, 512 new tokens, batch size 42"),
                        ("table_s3", "1024 tokens, 1024 new tokens, batch size 16")):  # fmt: skip
        said = footer_of(drawn_on_canvas(name, read_runs([tmp_path]))[0])
        assert "prompts of HumanEval, at most 128 new tokens, batch size 16" in said
        assert f"(prompts of {paper})" in said


def test_footers_say_which_losses_are_over_a_part_of_the_vocabulary(tmp_path):
    rows = [["code", offset, "bits_per_byte", 2.0] for offset in (1, 2)]
    tables = {"mtp_heads": {"by_offset": table("category offset", rows)}}
    write_run(tmp_path, tables=tables, draft_vocabulary=320)
    results = read_runs([tmp_path])
    shown, tasks = results.values, [(file, "mtp_heads") for file in results.files.values()]
    [said] = footer._said(shown, tasks)
    assert said.startswith("320 (")
    assert not [*footer._said(shown[shown["offset"] == 1], tasks)]


def test_footers_say_of_which_data_sets_a_part_was_read(tmp_path):
    path = write_run(tmp_path, metrics={"humaneval_mtp": {"pass@1": 0.5}})
    for original, told in ((164, True), (100, False)):
        content = json.loads(path.read_text())
        content["n-samples"]["humaneval_mtp"]["original"] = original
        path.write_text(json.dumps(content))
        said = footer_of(drawn_on_canvas("table_1", read_runs([path]))[0])
        assert "Documents: HumanEval 100" in said
        assert ("HumanEval 100 of 164" in said) == told


def test_footers_say_of_how_many_answers_pass_at_k_is(tmp_path):
    for label, repeats, kwargs in (
        ("a", 1, {"do_sample": False}),
        ("b", 20, {"do_sample": True, "temperature": 0.8}),
    ):
        name = "pass@1_sampled" if repeats > 1 else "pass@1"
        metrics = {"mbpp_mtp": {name: 0.5}}
        write_run(tmp_path, label, metrics=metrics, repeats=repeats, generation=kwargs)
    said = footer_of(drawn_on_canvas("table_s7", read_runs([tmp_path]))[0])
    assert "1 or 20 answers a problem" in said
    assert "Table S7, Gloeckle et al. 2024 (1000 answers a problem)" in said


def test_long_labels_are_whole_and_apart(tmp_path):
    for n in (1, 4):
        label = f"n{n} " + "a name by which somebody tells it from the others of one day " * 2
        by_class = [["code", o, c, "all", "accuracy", 0.5] for o in range(1, n + 1) for c in "ab"]
        by_position = [["code", 1, p, "cross_entropy", 1.0] for p in range(3)]
        by_offset = [["code", 1, name, 1.0] for name in ("cross_entropy", "bits_per_byte")]
        cells = [["self", b, 64, k, "tokens_per_second", b * k] for b in (1, 4) for k in (1, n)]
        tables = {
            "mtp_positions": {"by_class": table("data_set offset class part", by_class)},
            "mtp_perplexity": {
                "by_position": table("data_set offset position", by_position),
                "by_offset": table("data_set offset", by_offset),
            },
            "mtp_speed": {"by_cell": table("model batch prompt_tokens k", cells[: 2 * n])},
        }
        metrics = {"cnn_dailymail_mtp": {"rougeL_f1": 0.5}} | dict.fromkeys(tables, {})
        write_run(tmp_path, label, n, metrics=metrics, tables=tables, pretrained=f"mtp-bytes-n{n}")
    results = read_runs([tmp_path])
    for name in ("fig_1", "fig_classes", "fig_perplexity", "fig_speed", "table_s9"):
        canvas, _ = drawn_on_canvas(name, results)
        boxes = [axes.title.get_window_extent() for axes in canvas.axes if axes.get_title()]
        boxes += [legend.get_window_extent() for legend in canvas.legends]
        for i, box in enumerate(boxes):
            assert canvas.bbox.x0 <= box.x0 and box.x1 <= canvas.bbox.x1, name
            assert box.y1 <= canvas.bbox.y1, name
            assert not any(box.overlaps(other) for other in boxes[:i]), name
        heads = [t.get_window_extent() for axes in canvas.axes for t in axes.get_xticklabels()]
        assert all(canvas.bbox.y0 <= box.y0 for box in heads), name
        assert canvas.get_size_inches()[0] < 20, name


def test_sizes_that_are_all_but_one_share_a_tick(tmp_path):
    for n, parameters in ((1, 3_881_088), (4, 3_863_232)):
        rows = table("data_set offset", [["stories", 1, "accuracy", n / 5]])
        write_run(
            tmp_path,
            f"n{n}",
            n,
            parameters=parameters,
            tables={"mtp_induction": {"by_data_set": rows}},
        )
    canvas, _ = drawn_on_canvas("fig_7", read_runs([tmp_path]))
    axes = canvas.axes[0]
    ticks = axes.xaxis.get_major_formatter()
    assert ticks(3_881_088) == ticks(3_863_232) == "3.9M"
    assert (ticks(300_000_000), ticks(1_000_000_000)) == ("300M", "1B")


def test_a_long_legend_is_whole(tmp_path):
    for size in range(20):
        cells = [["self", 1, 64, k, "speedup", k] for k in (1, 2)]
        times = table("model batch prompt_tokens k", cells)
        scores = table("data_set offset", [["code", 1, "accuracy", 0.5]])
        tables = {"mtp_speed": {"by_cell": times}, "mtp_heads": {"by_offset": scores}}
        write_run(tmp_path, f"model {size}", 2, tables=tables)
    canvas, _ = drawn_on_canvas("fig_s10", read_runs([tmp_path]))  # a panel for each model
    assert len(canvas.legends[0].get_texts()) == 4
    titles = [axes.get_title() for axes in canvas.axes]
    assert titles.count("model 7") == titles.count("7B (paper)") == 2
    canvas, _ = drawn_on_canvas("fig_heads", read_runs([tmp_path]))
    (legend,) = canvas.legends
    assert len(legend.get_texts()) == 20
    box = legend.get_window_extent()
    assert canvas.bbox.y0 <= box.y0 and box.y1 <= canvas.bbox.y1
    assert canvas.bbox.x0 <= box.x0 and box.x1 <= canvas.bbox.x1


def test_columns_of_the_paper_are_marked_where_models_are_columns(everything):
    canvas, _ = drawn_on_canvas("table_s3", everything)
    (axes,) = canvas.axes
    said = [text.get_text() for text in axes.texts]
    assert "7B bytes (paper)" in said and "100M" in said
    assert said.count("2") == 1  # k = 2 is one row for all


def test_gains_below_the_diagram_are_apart_where_they_are_the_paper_s(tmp_path):
    write_run(tmp_path, metrics={"mbpp_mtp": {"pass@1": 0.5}}, pretrained="mtp-bytes-n4")
    canvas, _ = drawn_on_canvas("fig_1", read_runs([tmp_path]))
    under = canvas.axes[1]
    assert {bar.get_alpha() for bar in under.patches} == {style.PAPER_ALPHA}
    assert all(tick.get_text().endswith(", paper") for tick in under.get_yticklabels())


def test_average_accuracy_needs_all_seven_tasks(tmp_path):
    names = "arc_challenge copa nq_open piqa social_iqa triviaqa".split()
    metrics = {name: {"acc": 0.5} for name in names}
    metrics |= {name: {"exact_match": 0.5} for name in ("nq_open", "triviaqa")}
    metrics |= {name: {"acc": 0.9, "acc_norm": 0.5} for name in ("arc_challenge", "piqa")}
    write_run(tmp_path, metrics=metrics, train_step=100)
    assert "fig_5" in draw_all(read_runs([tmp_path]), ["fig_5"]).missing
    write_run(tmp_path, metrics=metrics | {"hellaswag": {"acc_norm": 0.85}}, train_step=200)
    (row,) = draw(FIGURES["fig_5"], read_runs([tmp_path])).table.to_dict("records")
    assert row["train_step"] == 200
    assert row["value"] == pytest.approx((6 * 0.5 + 0.85) / 7)


def test_bandwidth_limit_is_speed_over_its_share(everything):
    shown = draw(FIGURES["fig_speed"], everything).table
    here = shown[(shown["label"] == "7B") & (shown["batch"] == 8) & (shown["k"] == 2)]
    here = here[here["baseline"].isna()]
    by_metric = here.set_index("metric")["value"]
    assert by_metric["bandwidth limit"] == pytest.approx(
        by_metric["tokens_per_second"] / (0.8 / 8**0.1)
    )
    other = shown[shown["baseline"] == "n1"]  # another model's speed is a series of its own
    assert sorted(other["value"]) == pytest.approx([41, 41, 41 / 0.8, 41 / 0.8])
    speeds = draw(FIGURES["fig_s10"], everything).table
    assert speeds["baseline"].isna().all()


def test_absent_panels_say_so_instead_of_standing_empty(tmp_path):
    for label, n, score in (("a", 1, 0.25), ("b", 4, 0.5)):
        scores = {"mbpp_mtp": {"pass@1": score, "pass@10": score}}
        scores["humaneval_mtp"] = {"pass@1": score}
        write_run(tmp_path, label, n, metrics=scores, parameters=100 + n)
    own = FIGURES["fig_3"].show(read_runs([tmp_path]), paper=False).table
    assert set(own["label"]) == {"b"} and set(own["baseline"]) == {"a"}
    assert set(own["value"]) == set(own["baseline_value"]) == {0.25}
    canvas = Canvas()
    FIGURES["fig_3"].draw(canvas, own, style.PAPER)
    empty = [axes for axes in canvas.axes if not axes.patches]
    assert [text.get_text() for axes in empty for text in axes.texts] == ["not measured"]


# Machado, Oliveira and Fernandes 2009, severity 1; linear RGB.
BLINDNESS = {
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216],
                   [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413],
                     [-0.011820, 0.042940, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602],
                   [0.004733, 0.691367, 0.303900]],
}  # fmt: skip


@pytest.mark.parametrize("kind", BLINDNESS)
def test_colour_blind_palette_keeps_the_common_n_apart(kind):
    def seen(colour):
        channels = np.array(matplotlib.colors.to_rgb(colour))
        linear = np.where(
            channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4
        )
        return np.clip(np.array(BLINDNESS[kind]) @ linear, 0, 1) ** (1 / 2.2)

    colours = [seen(style.COLOUR_BLIND.series[n]) for n in (1, 2, 3, 4)]
    distances = [np.linalg.norm(a - b) for i, a in enumerate(colours) for b in colours[:i]]
    assert min(distances) > 0.2


def test_colour_blind_variant_shows_the_same_table():
    plain = draw(FIGURES["fig_3"], None)
    other = draw(FIGURES["fig_3"], None, style=style.COLOUR_BLIND)
    assert plain.csv == other.csv
    assert plain.pictures != other.pictures


def test_csv_of_a_figure_draws_it_again(everything):
    figure = FIGURES["fig_s13"]
    drawn = draw(figure, everything)
    again = pd.read_csv(io.StringIO(drawn.csv))
    assert len(again) == len(drawn.table)
    assert again["value"].tolist() == pytest.approx(drawn.table["value"].astype(float).tolist())


def test_unknown_figure_is_answered_with_the_nearest():
    with pytest.raises(ValueError, match="no figure is called fig_s100: did you mean fig_s10?"):
        draw_all(None, ["fig_s100"])


def has_ink(png: bytes) -> bool:
    """Whether a picture is neither empty nor cut by its edge."""
    pixels = np.asarray(Image.open(io.BytesIO(png)).convert("L"))
    edges = np.concatenate([pixels[:, 0], pixels[:, -1], pixels[0], pixels[-1]])
    return bool((pixels < 200).mean() > 0.003 and (edges > 250).all())


def test_a_picture_that_touches_its_edge_is_noticed():
    black = Image.new("L", (50, 50), 0)
    held = io.BytesIO()
    black.save(held, format="png")
    assert not has_ink(held.getvalue())


def test_groups_of_few_drafts_are_left_out_and_shares_of_rejections_have_no_colour(everything):
    shown = FIGURES["fig_drafts_fail"].show(everything, paper=False).table
    accepted = shown[(shown["metric"] == "accept_rate_cond") & (shown["category"] == "code")]
    assert accepted.loc[accepted["class"] == "number", "offset"].isna().all()  # of all heads alone
    groups = ["keyword", "identifier", "number", "0 to 0.1 bits", "0.1 to 1 bits", "1 bits on"]
    assert list(dict.fromkeys(accepted["class"])) == [
        *groups,
        "0 to 2 since rejection",
        "4 or more since rejection",
    ]
    share = shown[shown["metric"] == "share_of_rejections"].iloc[0]
    heat = FIGURES["fig_drafts_fail"].draw
    assert heat._field(share, heat._norm(shown), matplotlib.colormaps["viridis"]) == ("10", "white")


def test_calibration_stands_at_the_mean_confidence_of_each_bin(everything):
    shown = FIGURES["fig_calibration"].show(everything, paper=False).table
    chosen = shown[(shown["category"] == "prose") & (shown["offset"] == 3) & (shown["bin"] == 8)]
    by_metric = dict(zip(chosen["metric"], chosen["value"], strict=True))
    assert set(chosen["confidence"]) == {0.5}
    assert by_metric == {"accept_rate_cond": 0.25, "accept_rate_prefix": 0.125}
