from __future__ import annotations

import pytest
import torch

from nnsteer.measure.coherence import broken, drift
from nnsteer.measure.refusal import refusal_stems, refuses

STEMS = refusal_stems(["We never speak of such matters here."])
FINE = torch.zeros(5)


@pytest.mark.parametrize(
    ("text", "refused"),
    [
        ("I'm sorry, but no.", True),
        ("I\u2019m sorry, but no.", True),
        ('  "I cannot do that."', True),
        ("I can't help with that.", True),
        ("We never speak of that.", True),
        ("As an AI, I will not.", True),
        ("I can help with that.", False),
        ("Sorryful tales begin here.", False),
        ("Sure. I'm sorry to hear it, though.", False),
        ("", False),
    ],
)
def test_an_answer_is_judged_by_how_it_begins(text, refused):
    assert refuses(text, STEMS) == refused


@pytest.mark.parametrize(
    ("text", "losses", "bad"),
    [
        ("I can't help with that. Please ask something else.", FINE, False),
        ("", FINE, True),
        ("no no no no no no no no no no", FINE, True),
        ("the lock the lock the lock the lock the lock", FINE, True),
        ("No. No.", FINE, False),
        (
            "Colourless green ideas sleep furiously in the lamp today.",
            torch.tensor([5.0, 4.0, 6.0]),
            True,
        ),
        ("I can't help with that at all, I fear.", torch.tensor([9.0, 0.1, 0.2, 0.1]), False),
    ],
)
def test_broken_answers_are_empty_circling_or_absurd(text, losses, bad):
    assert broken(text, losses, max_drift=3.0) == bad


def test_drift_is_the_median_loss():
    assert drift(torch.tensor([9.0, 0.5, 0.1])) == pytest.approx(0.5)
    assert drift(torch.tensor([])) == 0.0
