"""The page in a real browser: sorting, filtering, drill-down, widths, and text that would run."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from mtp_harness.cli import main
from mtp_harness.report.page import harmless_json

from ..leaderboard.result_files import write_run

HOSTILE = [
    "</script><script>document.title='ran'</script>",
    "<img src=x onerror=\"document.title='ran'\">",
    "<svg onload=document.title='ran'></svg>",
    "<!--<script>",
    "]]></pre></textarea></style><iframe srcdoc='<script>parent.document.title=1</script>'>",
    "{{ 7*7 }} ${7*7} &lt;b&gt; &amp;",
    "\u2028\u2029\x00\x1b[31m \ud800 \u202eabc",
    "javascript:document.title='ran'",
    "'\" onmouseover=document.title='ran' x='",
]


def record(n_verified, n_characters, k=4):
    return {
        "n_kept": len(n_characters) - 1,
        "n_verified": n_verified,
        "n_characters": n_characters,
        "draft_heads": k,
        "ended_by": "stop",
        "looping": False,
        "lossless": True,
    }


def verdict(outcome, detail=""):
    return {"outcome": outcome, "kind": "", "detail": detail, "wall_s": 0.1, "rule": "values"}


@pytest.fixture
def report(tmp_path, capsys):
    def call(*arguments):
        path = tmp_path / "report.html"
        assert main(["report", str(tmp_path / "results"), "-o", str(path), *arguments]) == 0
        capsys.readouterr()
        return path

    call.results = tmp_path / "results"
    return call


@pytest.fixture
def three(report):
    """Three models whose order by name, score and speed is three orders."""
    models = [("alpha", "x___", 20.0), ("beta", "xxx_", 100.0), ("gamma", "xx__", 3.0)]
    for place, (name, marks, speed) in enumerate(models):
        right = [mark == "x" for mark in marks]
        answers = [
            [{"text": f"{name} {i}", "verdict": verdict("pass" if passed else "fail")}]
            for i, passed in enumerate(right)
        ]
        write_run(
            report.results / name,
            name,
            scores={
                "pass@1": [float(r) for r in right],
                "tokens_per_forward": [(10, 10 - place)] * 4,
            },
            answers=answers,
            mtp={"totals": {"n_answers": 4, "timing": {"tokens_per_s": speed}}},
        )
    write_run(report.results / "other", "alpha", task="mbpp_mtp", scores={"pass@1": [1.0, 0.0]})
    return report


def names(page):
    found = page.locator("#board tbody tr:visible th").all_inner_texts()
    return [name.split("\n")[0] for name in found]


def test_opening_the_page_logs_nothing_and_asks_for_nothing(three, open_page):
    page = open_page(three())
    page.wait_for_timeout(300)
    assert page.outside() == []
    assert page.title() == "3 models on humaneval_mtp and mbpp_mtp"


def test_clicking_a_heading_sorts_and_again_turns_around(three, open_page):
    page = open_page(three())
    assert names(page) == ["alpha", "beta", "gamma"]
    heading = page.locator("th[data-task=humaneval_mtp] button", has_text="pass@1")
    heading.click()
    assert names(page) == ["beta", "gamma", "alpha"]
    assert heading.locator("..").get_attribute("aria-sort") == "descending"
    heading.click()
    assert names(page) == ["alpha", "gamma", "beta"]
    page.locator("th[data-task=humaneval_mtp] button", has_text="tokens/s").click()
    assert names(page) == ["beta", "alpha", "gamma"]  # by number: 100 before 20 before 3
    page.locator("#board").get_by_role("button", name="model").click()
    assert names(page) == ["alpha", "beta", "gamma"]
    assert page.locator("#board th[aria-sort]").count() == 1


def test_rows_without_a_value_stay_last(three, open_page):
    page = open_page(three())
    heading = page.locator("th[data-task=mbpp_mtp] button", has_text="pass@1")
    heading.click()
    assert names(page)[0] == "alpha"
    heading.click()
    assert names(page)[0] == "alpha"


def test_sorting_by_keyboard(three, open_page):
    page = open_page(three())
    page.locator("th[data-task=humaneval_mtp] button", has_text="pass@1").focus()
    page.keyboard.press("Enter")
    assert names(page) == ["beta", "gamma", "alpha"]


def test_filtering_rows_and_tasks(three, open_page):
    page = open_page(three())
    page.fill("#row-filter", "BET k=4")
    assert names(page) == ["beta"]
    assert page.inner_text("#row-count") == "1 of 3 rows"
    page.fill("#row-filter", "nobody")
    assert names(page) == []
    page.fill("#row-filter", "")
    page.select_option("#task-filter", "mbpp_mtp")
    shown = page.locator("#board thead tr:last-child th:visible").all_inner_texts()
    assert [text.split("\n")[0].strip(" ↕↑↓") for text in shown][-1] == "pass@1"
    assert page.locator("#board td[data-task=humaneval_mtp]:visible").count() == 0
    assert page.locator("#board td[data-task=mbpp_mtp]:visible").count() == 3


def test_baseline_and_differences_are_shown(three, open_page):
    page = open_page(three("--baseline", "alpha"))
    row = page.locator("#board tbody tr", has_text="beta")
    assert row.locator(".change").first.inner_text().startswith("+0.500 [")
    assert "baseline" in page.locator("#board tbody tr", has_text="alpha").inner_text()


def test_documents_can_be_chosen_by_mouse_keyboard_verdict_and_text(three, open_page):
    page = open_page(three())
    options = page.locator("#document-list [role=option]")
    assert options.count() == 4
    options.nth(2).click()
    assert page.inner_text("#detail h3") == "2: document 2"
    assert page.locator("#detail .answer h4").all_inner_texts() == [
        "alpha",
        "beta",
        "gamma",
    ]
    assert page.locator("#detail .tag").all_inner_texts() == ["fail", "pass", "fail"]
    page.focus("#document-list")
    page.keyboard.press("ArrowDown")
    assert page.inner_text("#detail h3") == "3: document 3"
    page.keyboard.press("Home")
    assert page.inner_text("#detail h3") == "0: document 0"
    page.select_option("#verdict-filter", "differ")
    assert options.count() == 2  # all pass the first, none the last
    page.select_option("#verdict-filter", "")
    page.fill("#document-filter", "gamma 3")
    assert options.count() == 1
    assert page.inner_text("#detail h3") == "3: document 3"
    page.fill("#document-filter", "")
    page.select_option("#document-task", label="mbpp_mtp")
    assert options.count() == 2


def heads_by_hand(n_verified, n_tokens):
    """Head 1 writes the first token; each step adds its drafts, then head 1's own."""
    heads = [1]
    for verified in n_verified:
        heads += [*range(2, verified + 2), 1]
    return heads[:n_tokens]


def test_tokens_are_coloured_by_the_head_that_proposed_them(report, open_page):
    text = "aé𝄞b\nsome words of several letters"
    lengths = [1, 1, 1, 1, 1, 5, 6, 3, 8, 7, 40]  # the last token goes on behind the stop string
    n_verified = [3, 0, 2, 1]  # 4 + 1 + 3 + 2 = 10 tokens after the first
    answer = {"text": text, "verdict": verdict("fail"), "decode": record(n_verified, lengths)}
    write_run(report.results, scores={"pass@1": [0.0]}, answers=[[answer]])
    page = open_page(report())
    tokens = page.locator("#detail .answer:not(.prompt) .token")
    pieces = tokens.evaluate_all("all => all.map((one) => one.textContent)")
    heads = tokens.evaluate_all("all => all.map((one) => Number(one.dataset.head))")
    assert pieces == ["a", "é", "𝄞", "b", "\n", "some ", "words ", "of ", "several ", "letters"]
    assert heads == heads_by_hand(n_verified, 11)[:10] == [1, 2, 3, 4, 1, 1, 2, 3, 1, 2]
    colours = tokens.evaluate_all("all => all.map((one) => getComputedStyle(one).backgroundColor)")
    assert len({colour for colour, head in zip(colours, heads, strict=True) if head > 1}) == 3
    assert "head 4: step 1, 3 drafts accepted" in tokens.nth(3).get_attribute("title")
    assert page.locator("#detail .token.first").count() == 4  # one for each step
    page.check("#number-heads")
    shown = tokens.nth(3).evaluate("one => getComputedStyle(one, '::after').content")
    assert "4" in shown


def test_rejected_drafts_stand_before_the_token_that_replaced_them(report, open_page):
    # Step 1: 1 of 3 verified, "x" and a line break rejected, head 1 wrote "c"; step 2: all three;
    # step 3: of 2 drafts none, but the answer ends within the step before it is shown.
    decode = record([1, 3, 0], [1] * 7) | {
        "n_drafted": [3, 3, 2],
        "rejected_text": ["x", "\n", "<img src=x>", "z"],
    }
    answer = {"text": "abcdefg", "verdict": verdict("fail"), "decode": decode}
    write_run(report.results, scores={"pass@1": [0.0]}, answers=[[answer]])
    page = open_page(report())
    pieces = page.locator("#detail article pre > *").evaluate_all(
        "all => all.map((one) => [one.tagName, one.textContent, Number(one.dataset.head)])"
    )
    assert pieces == [
        ["SPAN", "a", 1],
        ["SPAN", "b", 2],
        ["DEL", "x", 3],
        ["DEL", "↵", 4],
        ["SPAN", "c", 1],
        *(["SPAN", letter, head] for letter, head in zip("defg", [2, 3, 4, 1], strict=True)),
    ]
    page.uncheck("#show-rejected")
    assert page.inner_text("#detail article pre") == "abcdefg"
    assert page.outside() == []


def test_answers_without_recorded_lengths_are_plain(report, open_page):
    answer = {"text": "abc", "decode": record([2], None or [1, 1, 1]) | {"n_characters": None}}
    write_run(report.results, scores={"pass@1": [0.0]}, answers=[[answer]])
    page = open_page(report())
    assert page.locator("#detail .token").count() == 0
    assert page.locator("#detail article pre").inner_text() == "abc"
    assert page.outside() == []


def test_what_a_model_wrote_is_text_and_never_runs(report, open_page):
    # Wherever strings of others come from: label, prompt, answer, verdict, document, command.
    hostile = "".join(HOSTILE)
    lengths = [1] * len(hostile)
    decode = record([0] * (len(hostile) - 1), lengths, k=2)
    plain = [[{"text": one, "verdict": verdict("fail", one)}] for one in HOSTILE]
    coloured = [[{"text": hostile, "verdict": verdict("fail", hostile), "decode": decode}]]
    scores = {"pass@1": [0.0] * (len(HOSTILE) + 1)}
    label = hostile.replace("\x00", "")
    write_run(
        report.results,
        label,
        scores=scores,
        answers=plain + coloured,
        prompts=hostile.replace("{", "{{").replace("}", "}}") + " {}",
        documents="</script><img src=x onerror=document.title='ran'> {}",
        mtp={"command": hostile},
    )
    page = open_page(report("--title", "</title><script>document.title='ran'</script>"))
    for place, text in enumerate([*HOSTILE, hostile]):
        page.locator("#document-list [role=option]").nth(place).click()
        shown = page.locator("#detail article pre").evaluate("one => one.textContent")
        assert shown.encode("utf-16", "surrogatepass") == text.encode("utf-16", "surrogatepass")
    page.hover("#detail article pre")
    page.wait_for_timeout(200)
    assert page.title().startswith("</title><script>")  # the title as given, as text
    assert page.locator("script").count() == 2
    assert page.locator("iframe, svg, object, embed, [onerror]").count() == 0
    pictures = page.locator("img").evaluate_all("all => all.map(one => one.src)")
    assert all(picture.startswith("data:image/svg+xml;base64,") for picture in pictures)
    assert page.outside() == []


def test_policy_stops_what_would_slip_through(report, open_page):
    write_run(report.results)
    page = open_page(report())
    page.evaluate(
        """() => {
            const made = document.createElement("script");
            made.textContent = "document.title = 'ran'";
            document.body.append(made);
            const hostile = "<img src=x onerror=\\"document.title='ran'\\">";
            document.body.insertAdjacentHTML("beforeend", hostile);
        }"""
    )
    page.wait_for_timeout(200)
    assert page.title() == "model on humaneval_mtp"
    assert any("Content Security Policy" in problem for problem in page.problems)


@pytest.mark.parametrize("width", [320, 390, 768, 1400])
def test_page_is_never_wider_than_its_window(three, open_page, width):
    page = open_page(three("--baseline", "alpha"), viewport={"width": width, "height": 800})
    for details in page.locator("details").all():
        details.evaluate("one => { one.open = true; }")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    # Nothing outside a box that scrolls sticks out either.
    sticking = page.evaluate(
        """width => [...document.querySelectorAll("main *, header *, nav *")].filter((one) =>
            !one.closest(".scroll, pre") && one.getBoundingClientRect().right > width + 1
            && getComputedStyle(one).position !== "absolute"
        ).map((one) => one.outerHTML.slice(0, 90))""",
        width,
    )
    assert sticking == []


def test_dark_and_light(three, open_page):
    path = three()
    background = "getComputedStyle(document.body).backgroundColor"
    light = open_page(path, color_scheme="light").evaluate(background)
    page = open_page(path, color_scheme="dark")
    dark = page.evaluate(background)
    assert light != dark
    page.click("#theme")
    assert (page.inner_text("#theme"), page.evaluate(background)) == ("Theme: light", light)
    page.click("#theme")
    assert (page.inner_text("#theme"), page.evaluate(background)) == ("Theme: dark", dark)
    for _ in range(20):  # the browser writes down what a page stores in its own time
        page.reload()
        if page.inner_text("#theme") == "Theme: dark":
            break
        page.wait_for_timeout(250)
    assert (page.inner_text("#theme"), page.evaluate(background)) == ("Theme: dark", dark)


def test_what_does_not_fit_is_counted(report, open_page):
    answers = [[{"text": f"answer {doc} {i}"} for i in range(5)] for doc in range(7)]
    write_run(report.results, scores={"pass@1": [0.0] * 7}, answers=answers)
    page = open_page(report("--documents", "4"))
    assert page.inner_text("#document-count") == "4 of 4 documents; 3 more are in the samples files"
    assert page.locator("#detail article").count() == 3
    assert "2 more answers are in the samples file" in page.inner_text("#detail")


def test_runs_that_cannot_be_compared_stand_apart(report, open_page):
    write_run(report.results / "a", "one")
    write_run(report.results / "b", "two", version=2.0)
    page = open_page(report())
    page.click(".conflicts summary")
    assert "task version 1.1 against 2." in page.inner_text(".conflicts")
    assert page.locator("#board td[data-task=humaneval_mtp].best").count() == 0
    assert page.locator("#board .group.head").all_inner_texts() == [
        "humaneval_mtp",
        "humaneval_mtp (2)",
    ]


def test_choices_are_shown_with_their_likelihoods(report, open_page):
    write_run(report.results, task="copa", scores={"acc": [1.0]}, generation=False)
    path = next(report.results.glob("samples_*"))
    sample = json.loads(path.read_text())
    sample["arguments"] = {f"gen_args_{i}": {"arg_0": "It", "arg_1": f" c{i}"} for i in range(2)}
    sample["resps"] = [[["-3.5", "False"]], [[float("-inf"), False]]]
    path.write_text(json.dumps(sample))
    page = open_page(report())
    assert page.locator("#detail article td").all_inner_texts() == [" c0", "-3.50", " c1", "–"] or [
        text.strip() for text in page.locator("#detail article td").all_inner_texts()
    ] == ["c0", "-3.50", "c1", "–"]
    assert page.inner_text("#detail .tag") == "pass"


def test_same_results_give_the_same_page(three):
    assert three().read_bytes() == three().read_bytes()


def test_a_first_run_opens_with_its_score_speed_and_heads(report, open_page):
    write_run(
        report.results,
        "tiny",
        scores={
            "pass@1": [1.0, 0.0, 1.0, 1.0],
            "tokens_per_forward": [(12, 4), (6, 4), (8, 4), (4, 4)],
            "accept_rate_prefix_2": [(4, 4), (2, 4), (4, 4), (0, 4)],
            "accept_rate_prefix_3": [(2, 4), (0, 4), (1, 4), (0, 4)],
        },
        k=3,
    )
    page = open_page(report(), viewport={"width": 400, "height": 800})
    tiles = page.locator(".tiles").inner_text().split("\n")
    assert tiles[:2] == ["pass@1", "0.750"] and tiles[2].startswith("[")
    assert tiles[3:5] == ["tokens per forward", "1.875"]  # 30 tokens in 16 forwards
    assert tiles[-3:] == ["heads", "3", "of 4 used"]
    rows = page.locator(".card .heads tr").all_inner_texts()
    assert [row.split() for row in rows] == [
        ["head", "2", "3"],
        ["drafts", "accepted", "0.625", "0.188"],
    ]
    first = page.locator("main :is(h2, h3, details)").evaluate_all("all => all.map(e => e.id)")
    assert first[0] == "results-title"
    assert page.locator("details[open]").count() == 1  # the prompt; notes are folded
    assert page.locator(".tiles").bounding_box()["y"] < 500


def test_scores_by_head_and_both_readings_of_one_module(report, open_page):
    scores = {
        "code_accuracy_1": [(8, 10)] * 2,
        "code_accuracy_2": [(5, 10)] * 2,
        "code_accuracy_3": [(3, 10)] * 2,
        "code_chained_accuracy_3": [(4, 10)] * 2,
        "code_tf_agree_2": [(5, 10)] * 2,
    }
    for label in ("one", "two"):
        write_run(report.results / label, label, "mtp_heads", scores, generation=False)
    page = open_page(report())
    rows = page.locator(".card .heads tr").all_inner_texts()
    assert [row.split("\t") for row in rows] == [
        ["head", "1", "2", "3"],
        ["accuracy, code", ""],
        ["one", "0.800", "0.500", "0.300"],
        ["two", "0.800", "0.500", "0.300"],
        ["chained accuracy, code", ""],
        ["one", "–", "–", "0.400"],
        ["two", "–", "–", "0.400"],
    ]


def test_samples_without_texts_say_so(report, open_page):
    answers = [[{"text": "", "verdict": verdict("pass")}], [{"text": ""}]]
    write_run(report.results, scores={"pass@1": [1.0, 0.0]}, answers=answers, prompts="")
    page = open_page(report())
    assert "These samples hold no texts" in page.inner_text("#documents")
    assert page.locator("#detail pre").count() == 0
    assert page.inner_text("#detail .tag") == "pass"


def test_at_400_px_the_first_column_stays_and_scores_scroll_with_a_cue(three, open_page):
    page = open_page(three(), viewport={"width": 400, "height": 800})
    frame, box = page.locator(".frame:has(#board)"), page.locator(".scroll:has(#board)")
    cue = "(one, which) => getComputedStyle(one, which).opacity"
    page.wait_for_timeout(300)
    assert [frame.evaluate(cue, end) for end in ("::before", "::after")] == ["0", "1"]
    before = page.locator("#board tbody th").first.bounding_box()["x"]
    box.evaluate("one => { one.scrollLeft = one.scrollWidth; }")
    page.wait_for_timeout(300)
    assert page.locator("#board tbody th").first.bounding_box()["x"] == before
    assert [frame.evaluate(cue, end) for end in ("::before", "::after")] == ["1", "0"]


def test_figures_enlarge_on_a_click_and_turn_by_keys(three, open_page):
    page = open_page(three())
    plates = page.locator("figure button.plate")
    titles = page.locator("figure h3").all_inner_texts()
    assert len(titles) > 1 and all(titles)
    plates.first.focus()
    page.keyboard.press("Enter")
    assert page.inner_text("#zoom-title") == titles[0]
    large, small = page.locator("#zoom img").bounding_box(), plates.first.bounding_box()
    assert large["width"] > 1.5 * small["width"]
    page.keyboard.press("ArrowRight")
    assert page.inner_text("#zoom-title") == titles[1]
    page.keyboard.press("Escape")
    assert not page.locator("#zoom").is_visible()
    assert page.outside() == []


def test_page_names_no_address_elsewhere(three):
    page = three().read_text()
    assert not re.findall(r"""(?:src|href|url)\s*[=(]\s*["']?(?:https?:)?//""", page)


@pytest.mark.parametrize("text", HOSTILE)
def test_json_cannot_end_its_element(text):
    written = harmless_json({"text": text})
    assert "<" not in written
    assert json.loads(written) == {"text": text}


@pytest.mark.slow
def test_a_real_run_is_coloured_as_its_record_says(tmp_path, open_page, capsys):
    command = [str(Path(sys.executable).parent / "lm_eval"), "--model", "mtp", "--limit", "2"]
    command += ["--tasks", "humaneval_mtp", "-o", str(tmp_path / "run"), "--log_samples"]
    subprocess.run(command, check=True, capture_output=True, cwd=tmp_path)
    [samples] = (tmp_path / "run").rglob("samples_*.jsonl")
    first = json.loads(samples.read_text().splitlines()[0])
    decode, text = first["n_answers"][0]["decode"], first["resps"][0][0]
    page_file = tmp_path / "report.html"
    assert main(["report", str(tmp_path / "run"), "-o", str(page_file)]) == 0
    capsys.readouterr()
    page = open_page(page_file)
    tokens = page.locator("#detail article .token")
    shown = tokens.evaluate_all("all => all.map((one) => [one.textContent, +one.dataset.head])")
    assert "".join(piece for piece, _ in shown) == text
    # A byte model's tokens are the text's bytes, all ASCII here.
    assert text.isascii()
    assert [head for _, head in shown] == heads_by_hand(decode["n_verified"], len(text))
    assert page.outside() == []


def test_figures_stand_in_the_page_with_their_tables(report, open_page):
    write_run(report.results)
    page = open_page(report())
    pictures = page.locator("img")
    assert pictures.count() > 0
    assert pictures.evaluate_all("all => all.every(one => one.complete && one.naturalWidth > 0)")
    figure = page.locator("figure").first
    assert figure.locator("table").count() == 1
    assert page.outside() == []
