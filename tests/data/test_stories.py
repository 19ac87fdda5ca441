"""Templates for the induction probe: seeded stories, stories from a folder, renamed functions."""

import ast

import pytest

from mtp_harness.data.corpus import Corpus, Document, code_corpus
from mtp_harness.data.renamed_code import renamed_functions
from mtp_harness.data.stories import folder_stories, gap, gaps, generated_stories, names_in


def filled(text, names):
    for index, name in enumerate(names):
        text = text.replace(gap(index), name)
    return text


def mentions_per_story(density):
    return sum(len(gaps(t.text)) for t in generated_stories(200, 0, density)) / 200


def test_stories_depend_on_the_seed_alone():
    stories = generated_stories(20, 0, 0.7)
    assert stories == generated_stories(20, 0, 0.7) != generated_stories(20, 1, 0.7)
    assert stories[:5] == generated_stories(5, 0, 0.7)
    assert len({story.text for story in stories}) == 20


def test_density_is_the_share_of_mentions_that_are_names():
    introductions = sum(max(i for _, i in gaps(t.text)) + 1 for t in generated_stories(200, 0, 0.0))
    introduced = introductions / 200
    assert mentions_per_story(0.0) == introduced
    all_named = mentions_per_story(1.0) - introduced
    assert (mentions_per_story(0.25) - introduced) / all_named == pytest.approx(0.25, abs=0.02)
    with pytest.raises(ValueError, match="density=1.5, expected a probability"):
        generated_stories(1, 0, 1.5)


def test_every_gap_follows_a_space_and_ends_at_a_word():
    for story in generated_stories(50, 3, 0.9):
        for at, _ in gaps(story.text):
            assert story.text[at - 1] == " " and story.text[at + 1] in " ,.?!"
        assert "{" not in story.text


def test_the_first_story_stays_what_it_is():
    # Kept so that a change of the grammar does not go unnoticed: it needs a new VERSION.
    opening = filled(generated_stories(1, 0, 0.7)[0].text, ["Ann", "Bob", "Cid"])
    assert opening.startswith(
        "Once upon a time there was a little bird named Ann. There was also a fox whose name was "
        "Bob. There was also a rabbit whose name was Cid. The boat belonged to Ann, but Cid liked"
    )


def test_names_of_a_story_become_gaps(tmp_path):
    story = (
        "Once upon a time, Lily met Tom. Lily had a rose, and Rose grew. The Tom cat saw Lily. "
        'But Lily said, "Hi, Tom." But Tom ran. But Max came.'
    )
    # Rose is written small too, Max comes once, But and The only begin sentences.
    assert names_in(story) == ["Lily", "Tom"]
    (tmp_path / "a.txt").write_text(story)
    (tmp_path / "b.txt").write_text("Nobody is here.")
    (template,) = folder_stories(tmp_path, 10)
    assert template.name == "a.txt" and filled(template.text, ["Lily", "Tom"]) == story
    assert [i for _, i in gaps(template.text)] == [0, 1, 0, 1, 0, 0, 1, 1]


def test_a_story_of_many_names_keeps_some_of_them(tmp_path):
    names = (
        "Anna Boris Carla David Elena Frank Greta Hugo Irma Jonas Karin Lukas Maria Nils".split()
    )
    pairs = zip(names, names[1:] + names[:1], strict=True)
    story = " ".join(f"Then {a} smiled at {b}, and {a} went home." for a, b in pairs)
    (tmp_path / "a.txt").write_text(story)
    (template,) = folder_stories(tmp_path, 10)
    assert {index for _, index in gaps(template.text)} == set(range(12))
    assert filled(template.text, names) == story


def test_files_that_are_no_stories_are_left_out_and_named(tmp_path, caplog):
    good = "Tim ran, and Tim sat. Then Tim slept, and so did Tim."
    (tmp_path / "good.txt").write_text(good)
    (tmp_path / "latin.txt").write_bytes(good.encode() + b"\xe9")
    (tmp_path / "private.txt").write_text(good + "\ue0f3")
    assert [one.name for one in folder_stories(tmp_path, 10)] == ["good.txt"]
    assert "left out: latin.txt, private.txt" in caplog.text


def test_no_folder_is_called_so(tmp_path):
    with pytest.raises(
        FileNotFoundError, match="none is not a folder, expected one with .txt files"
    ):
        folder_stories(tmp_path / "none", 10)


def test_a_folder_without_stories_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="holds no .txt file with a name that occurs 3"):
        folder_stories(tmp_path, 10)


FUNCTION = '''
def outer(x): return x

def search(values, target, *, strict=True):
    """Return where target stands in values, or -1: a function long enough to be read, padded."""
    if target is None or target == 0 or target == 1 or target == 2:
        return -1
    position = values.start
    while position < len(values):
        if values[position] == target:
            return position
        if strict and values.target(target=target):
            raise ValueError("values", position)
        position += 1
    # This line, and the next one, only make it longer, up to the four hundred characters that
    # are asked for; they name position and values, which stay as they are here.
    return -1
'''


def test_names_are_replaced_where_they_are_names():
    corpus = Corpus("code", "3", (Document("m.py", FUNCTION),))
    (template,) = renamed_functions(corpus, 5)
    assert template.name == "m.py:search"
    # position is used 6 times, values 5, target 7; but that is a keyword somewhere and so stays.
    assert len(gaps(template.text)) == 11
    code = filled(template.text, ["gapone", "gaptwo"])
    assert "gapone.target(target=target)" in code and '"values"' in code
    assert "gapone[gaptwo] == target" in code and "position and values, which" in code


def test_renamed_functions_of_the_library_are_the_same_programs():
    corpus = code_corpus()
    templates = renamed_functions(corpus, 30)
    assert len(templates) == 30 == len({t.name.split(":")[0] for t in templates})
    sources = {document.name: document.text for document in corpus.documents}
    for template in templates:
        file, function = template.name.split(":")
        nodes = ast.parse(sources[file]).body
        original = [n for n in nodes if isinstance(n, ast.FunctionDef) and n.name == function]
        renamed = ast.parse(filled(template.text, ["gapone", "gaptwo"])).body[0]
        for node in ast.walk(original[-1]):
            assert "gapone" not in ast.dump(node)
        names = sorted(_names(renamed) - _names(original[-1]))
        gone = sorted(_names(original[-1]) - _names(renamed))
        assert names == ["gapone", "gaptwo"] and len(gone) == 2


def _names(function):
    nodes = list(ast.walk(function))
    return {n.id for n in nodes if isinstance(n, ast.Name)} | {
        n.arg for n in nodes if isinstance(n, ast.arg)
    }
