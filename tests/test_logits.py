"""What is made of logits next to the model."""

from __future__ import annotations

import torch
from torch.nn.functional import cross_entropy

from nnsteer.kernels.logits import choices, divergences, losses, ranks


def test_losses_are_cross_entropies_and_ranks_those_of_the_sorted_logits():
    torch.manual_seed(0)
    logits, ids = torch.randn(3, 7, 50), torch.randint(50, (3, 7))
    for row in range(3):
        torch.testing.assert_close(
            losses(logits, ids)[row],
            cross_entropy(logits[row, :-1], ids[row, 1:], reduction="none"),
        )
        order = logits[row, :-1].argsort(-1, descending=True)
        assert ranks(logits, ids)[row].tolist() == [
            (order[i] == ids[row, i + 1]).nonzero().item() for i in range(6)
        ]


def test_of_equally_likely_tokens_the_first_is_predicted_and_of_none_where_a_logit_is_not_a_number():
    logits = torch.tensor([1.0, 3.0, 3.0, 0.0, 3.0]).expand(1, 6, 5).clone()
    ids = torch.tensor([[0, 1, 2, 4, 0, 3]])
    assert ranks(logits, ids).tolist() == [[0, 1, 2, 3, 4]]
    logits[0, 0, 1], logits[0, 1, 3] = float("nan"), float("nan")
    assert ranks(logits, ids)[0, :2].tolist() == [5, 2]
    assert losses(logits.bfloat16(), ids).dtype == torch.float32


def test_choices_are_those_after_the_last_token():
    logits = torch.zeros(2, 3, 6)
    logits[:, -1] = torch.tensor([[0.0, 5, 1, 2, 3, 4], [9.0, 5, 1, 2, 3, 4]])
    found = choices(logits, torch.tensor([[2, 1], [5, 0]]))
    assert found["top"].tolist() == [1, 0] and found["asked"].tolist() == [[1.0, 5.0], [4.0, 9.0]]


def test_divergences_are_from_the_row_that_is_named():
    torch.manual_seed(0)
    logits = torch.randn(3, 2, 9)
    p, q = (logits[row, -1].double().softmax(-1) for row in (2, 0))
    found = divergences(logits, torch.tensor([0, 1, 0]))
    assert found[:2].tolist() == [0.0, 0.0]
    torch.testing.assert_close(found[2], (p * (p / q).log()).sum())
