"""`count_verified` against counting by hand."""

import itertools

import torch

from mtp_harness.decode.acceptance import count_verified


def by_hand(drafts, choices):
    count = 0
    while count < len(drafts) and drafts[count] == choices[count]:
        count += 1
    return count


def test_example_of_the_docstring():
    drafts = torch.tensor([[11, 12, 13]])
    choices = torch.tensor([[11, 12, 99, 14]])
    assert count_verified(drafts, choices).tolist() == [2]


def test_every_pattern_of_agreement():
    """Two tokens, k = 1..4: all drafts against all choices, as one batch per k."""
    for k in (1, 2, 3, 4):
        pairs = [
            (row[: k - 1], row[k - 1 :]) for row in itertools.product((0, 1), repeat=2 * k - 1)
        ]
        drafts = torch.tensor([d for d, _ in pairs], dtype=torch.int64).reshape(len(pairs), k - 1)
        choices = torch.tensor([c for _, c in pairs])
        verified = count_verified(drafts, choices)
        assert verified.dtype == torch.int64
        assert verified.tolist() == [by_hand(d, c) for d, c in pairs]


def test_agreement_after_a_wrong_draft_does_not_count():
    drafts = torch.tensor([[1, 2, 3], [1, 0, 3], [1, 2, 0], [1, 2, 3]])
    choices = torch.tensor([[0, 2, 3, 4], [1, 2, 3, 4], [1, 2, 3, 4], [1, 2, 3, 4]])
    assert count_verified(drafts, choices).tolist() == [0, 1, 2, 3]
