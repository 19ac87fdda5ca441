import pytest

from mtp_harness.scoring.n_samples import NSamples


def test_metadata_of_the_paper():
    metadata = {"version": 1.0, "n_samples": 200, "temperature": 0.8, "k": [1, 10, 100]}
    sampling = NSamples.from_metadata(metadata)
    assert sampling == NSamples(200, 0.8, (1, 10, 100))
    assert sampling.generation_kwargs() == {"do_sample": True, "temperature": 0.8}


def test_metadata_of_other_things_is_no_sampling():
    assert NSamples.from_metadata({"version": 1.0, "pretrained": "x"}) is None


def test_text_from_a_command_line_is_read():
    sampling = NSamples.from_metadata({"n_samples": "20", "temperature": "0.2", "k": "10"})
    assert sampling == NSamples(20, 0.2, (10,))


def test_top_p_and_top_k_go_along():
    kwargs = NSamples(2, 0.5, (1,), top_p=0.95, top_k=40).generation_kwargs()
    assert kwargs == {"do_sample": True, "temperature": 0.5, "top_p": 0.95, "top_k": 40}


def test_greedy_stays_greedy():
    assert NSamples.from_metadata({"temperature": 0}).generation_kwargs() == {"do_sample": False}


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({"n_samples": 20}, "greedy decoding would give 20 times the same"),
        ({"n_samples": 0, "temperature": 1}, "n_samples=0; expected at least 1"),
        ({"n_samples": 5, "temperature": 1, "k": [1, 10]}, "k=10 with n_samples=5"),
        ({"n_samples": 5, "temperature": -1}, "temperature=-1.0; expected 0"),
        ({"n_samples": "many", "temperature": 1}, "n_samples='many' is not a whole number"),
        ({"n_samples": 2.5, "temperature": 1}, "n_samples=2.5 is not a whole number"),
        ({"n_samples": 5, "temperature": "warm"}, "temperature='warm' is not a number"),
        ({"n_samples": 5, "temperature": None}, "is not sampling"),
    ],
)
def test_what_cannot_be_scored_is_refused(metadata, message):
    with pytest.raises(ValueError, match=message):
        NSamples.from_metadata(metadata)
