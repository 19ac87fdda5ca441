"""ROUGE against hand-worked examples, `rouge_score` itself, and plain loops."""

import sys
from collections import Counter

import pytest
from rouge_score import rouge_scorer

from mtp_harness.scoring import rouge as module
from mtp_harness.scoring.rouge import COUNTS, SCORES, UnicodeTokenizer, rouge

from ..data.text_fixtures import PERSIAN, THAI, articles


def three(found, kind, suffix=""):
    return [found[f"{kind}_{aspect}{suffix}"] for aspect in ("precision", "recall", "f1")]


# ---------------------------------------------------------------- by hand


def test_the_example_of_the_docstring():
    found = rouge("the cat sat on the mat", "the cat lay")
    assert three(found, "rouge1") == pytest.approx([2 / 3, 1 / 3, 4 / 9])
    assert three(found, "rouge2") == pytest.approx([1 / 2, 1 / 5, 2 / 7])
    assert three(found, "rouge3") == [0, 0, 0]
    assert three(found, "rougeL") == pytest.approx([2 / 3, 1 / 3, 4 / 9])
    assert [found[name] for name in COUNTS] == [0, 0, 0, 0]


def test_a_word_counts_as_often_as_both_have_it():
    # "the" twice in the answer, once in the reference.
    found = rouge("the dog", "the the dog")
    assert three(found, "rouge1") == pytest.approx([2 / 3, 1, 4 / 5])


def test_order_matters_to_the_longest_common_subsequence():
    # police kill the gunman / the gunman kill police: "the gunman" is common, 2 of 4.
    found = rouge("police kill the gunman", "the gunman kill police")
    assert three(found, "rouge1") == [1, 1, 1]
    assert three(found, "rougeL") == pytest.approx([1 / 2, 1 / 2, 1 / 2])
    assert three(found, "rouge2") == pytest.approx([1 / 3, 1 / 3, 1 / 3])


def test_lsum_takes_lines_as_sentences_and_nothing_else():
    # By line every word is in some common subsequence; over the whole text only "c d" or "a b" is.
    found = rouge("a b\nc d", "c d\na b")
    assert three(found, "rougeLsum") == [1, 1, 1]
    assert three(found, "rougeL") == pytest.approx([1 / 2, 1 / 2, 1 / 2])
    # The same with full stops: no sentence is split, so Lsum is L.
    found = rouge("a b. c d.", "c d. a b.")
    assert three(found, "rougeLsum") == three(found, "rougeL") == pytest.approx([1 / 2] * 3)


def test_words_are_not_stemmed():
    assert rouge("running dogs", "run dog")["rouge1_f1"] == 0


def test_ascii_reading_of_french_breaks_words_at_accents():
    # été → "t"; l, t, fini against l, t: 2 of 3.  Unicode: l, été, fini against l, été.
    found = rouge("L'été fini", "l'âté")
    assert three(found, "rouge1") == pytest.approx([1, 2 / 3, 4 / 5])
    assert three(found, "rouge1", "_unicode") == pytest.approx([1 / 2, 1 / 3, 2 / 5])


def test_persian_has_no_token_in_the_ascii_reading():
    _, reference = PERSIAN[0]
    found = rouge(reference, reference)
    assert [found[name] for name in SCORES if "unicode" not in name] == [0] * 15
    assert [found[name] for name in SCORES if "unicode" in name] == [1] * 15
    assert found["empty_answers"] == found["empty_references"] == 1
    assert found["empty_answers_unicode"] == found["empty_references_unicode"] == 0


# ---------------------------------------------------------------- by other means


def plain(reference, answer, n):
    """Overlap of n-grams by counting, without `rouge_score`."""
    a, b = (
        Counter(zip(*(words[i:] for i in range(n)), strict=False))
        for words in (answer.split(), reference.split())
    )
    common, of_a, of_b = (a & b).total(), a.total(), b.total()
    p, r = common / max(of_a, 1), common / max(of_b, 1)
    return [p, r, 2 * p * r / (p + r) if p + r else 0]


def test_agrees_with_rouge_score_and_plain_counts_on_real_articles(shared_data):
    scorer = rouge_scorer.RougeScorer(
        ["rouge1", "rouge2", "rouge3", "rougeL", "rougeLsum"], use_stemmer=False
    )
    rows = articles(shared_data)
    assert len(rows) == 40
    for row in rows:
        answer = "\n".join(row["article"].split(" . ")[:3])  # the first three sentences
        found = rouge(row["highlights"], answer)
        for kind, score in scorer.score(row["highlights"], answer).items():
            assert three(found, kind) == [score.precision, score.recall, score.fmeasure]
        words = [
            " ".join("".join(c if c.isascii() and c.isalnum() else " " for c in t.lower()).split())
            for t in (row["highlights"], answer)
        ]
        for n in (1, 2, 3):
            assert three(found, f"rouge{n}") == pytest.approx(plain(*words, n))


# ---------------------------------------------------------------- what has no score


@pytest.mark.parametrize("answer", ["", " \n", "…!?"])
def test_an_answer_without_a_token_scores_0_and_is_counted(answer):
    found = rouge("a b", answer)
    assert [found[name] for name in SCORES] == [0] * 30
    assert found["empty_answers"] == found["empty_answers_unicode"] == 1
    assert found["empty_references"] == found["empty_references_unicode"] == 0


@pytest.mark.parametrize("reference", ["", " \n\t"])
def test_an_empty_reference_is_refused(reference):
    with pytest.raises(ValueError, match="reference summary is empty, expected text"):
        rouge(reference, "a")


def test_a_missing_scorer_is_named(monkeypatch):
    module._scorer.cache_clear()
    monkeypatch.setitem(sys.modules, "rouge_score", None)
    monkeypatch.setitem(sys.modules, "rouge_score.rouge_scorer", None)
    with pytest.raises(ModuleNotFoundError, match="`pip install rouge-score`"):
        rouge("a", "a")
    module._scorer.cache_clear()


# ---------------------------------------------------------------- tokens of other scripts


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("L'été, à 10h30!", ["l", "été", "à", "10h30"]),
        ("e\u0301te\u0301", ["été"]),  # decomposed
        ("می\u200cخواهم بروم.", ["میخواهم", "بروم"]),
        ("كِتاب", ["كِتاب"]),  # a vowel mark does not end a word
        ("กินข้าว 2 จาน", ["กิ", "น", "ข้", "า", "ว", "2", "จ", "า", "น"]),
        ("BBCไทย", ["bbc", "ไ", "ท", "ย"]),
        ("東京 tower", ["東", "京", "tower"]),
        ("snake_case", ["snake", "case"]),
        ("\u0301a", ["a"]),  # a mark on nothing
        ("", []),
    ],
)
def test_unicode_tokens(text, tokens):
    assert UnicodeTokenizer().tokenize(text) == tokens


def test_unicode_tokens_of_ascii_are_those_of_rouge_score():
    from rouge_score.tokenize import tokenize

    text = "".join(map(chr, range(128))) * 2 + " It's 5 o'clock, Mr. X-Ray_7!"
    assert UnicodeTokenizer().tokenize(text) == tokenize(text, None)


def test_thai_is_scored_by_letters():
    text, _ = THAI[0]
    assert three(rouge(text, text), "rouge1", "_unicode") == [1, 1, 1]
    # ฝ น ต ก against ฝ น: 2 of 2, 2 of 4.
    found = rouge("ฝนตก", "ฝน")
    assert three(found, "rouge1", "_unicode") == pytest.approx([1, 1 / 2, 2 / 3])
