"""The texts that r is fitted on, format by format."""

from __future__ import annotations

import json

import pytest

from nnsteer.errors import UserError
from nnsteer.recipes.affine.texts import contrast_set
from nnsteer.texts.contrast import Text
from nnsteer.texts.refusal import Requests
from nnsteer.texts.source import Prompt, Splits


def splits(*fit):
    return Splits(tuple(map(Prompt, fit)), (Prompt("tune"),), (Prompt("test"),))


REQUESTS = Requests(
    splits("steal", "rob", "forge"),
    splits("bake", "sing"),
    ("I can't.", "No."),
    ("Sure.", "Of course."),
)
ITEMS = [
    {
        "question": "Would you lie?\n\nChoices:\n (A) Yes, I\n would lie.\n (B) Never.",
        "answer_matching_behavior": "(A)",
        "answer_not_matching_behavior": "(B)",
        "split": "fit",
    },
    {
        "question": "Would you stop?\n\nChoices:\n (A) At once.\n (B) I would not.",
        "answer_matching_behavior": "(B)",
        "answer_not_matching_behavior": "(A)",
        "split": "fit",
    },
    *(
        {
            "question": f"Question {split}?\n\nChoices:\n (A) a\n (B) b",
            "answer_matching_behavior": "(A)",
            "answer_not_matching_behavior": "(B)",
            "split": split,
        }
        for split in ("tune", "test")
    ),
]


@pytest.fixture
def behaviour(tmp_path):
    """Rimsky et al.'s file: a list of objects."""
    path = tmp_path / "generate_dataset.json"
    path.write_text(json.dumps(ITEMS))
    return path


def test_prompts_are_paired_and_cut_to_the_shorter_side():
    for name in ("prompts", "refused"):
        found = contrast_set(name, REQUESTS, 10, 0)
        assert found.positive == (Text("steal"), Text("rob")) and found.negative == (
            Text("bake"),
            Text("sing"),
        )
    assert len(contrast_set("prompts", REQUESTS, 1, 0).positive) == 1


def test_answered_prompts_come_from_both_sides_and_differ_in_the_opener_alone():
    caa, opencon = contrast_set("caa", REQUESTS, 2, 0), contrast_set("opencon", REQUESTS, 2, 0)
    for found in (caa, opencon):
        assert (
            [t.prompt for t in found.positive]
            == [t.prompt for t in found.negative]
            == ["steal", "rob", "bake", "sing"]
        )
        assert {t.response for t in found.positive} <= set(REQUESTS.refusals)
        assert {t.response for t in found.negative} <= set(REQUESTS.compliances)
    assert {t.response for t in opencon.positive + opencon.negative} == {"I can't.", "Sure."}
    assert len({t.response for t in caa.positive}) == 2


def test_own_answers_come_from_their_columns(tmp_path):
    path = tmp_path / "harm.csv"
    path.write_text("prompt,refusal,nonrefusal\nsteal,No way.,Gladly.\n")
    found = contrast_set(f"caa:{path}", REQUESTS, 10, 0)
    assert (found.positive, found.negative) == (
        (Text("steal", "No way."),),
        (Text("steal", "Gladly."),),
    )


def test_choices_between_the_two_stand_in_both_orders_and_end_at_the_letter():
    found = contrast_set("abcon", REQUESTS, 1, 0)
    assert [(t.prompt[-32:], t.response) for t in found.positive[:2]] == [
        ("hoices:\n (A) I can't.\n (B) Sure."[-32:], "(A"),
        ("hoices:\n (A) Sure.\n (B) I can't."[-32:], "(B"),
    ]
    assert [t.response for t in found.negative[:2]] == ["(B", "(A"]
    assert len(found.positive) == 4 and found.positive[0].prompt.startswith("steal\n\nChoices:\n")


def test_published_behaviours_are_read_as_letters_or_in_words(behaviour):
    letters = contrast_set(f"ab:{behaviour}", REQUESTS, 10, 0)
    assert [t.response for t in letters.positive] == ["(A", "(B"] and [
        t.response for t in letters.negative
    ] == ["(B", "(A"]
    assert letters.positive[0].prompt == letters.negative[0].prompt == ITEMS[0]["question"]
    words = contrast_set(f"open:{behaviour}", REQUESTS, 10, 0)
    assert words.positive == (
        Text("Would you lie?", "Yes, I\n would lie."),
        Text("Would you stop?", "I would not."),
    )
    assert words.negative == (Text("Would you lie?", "Never."), Text("Would you stop?", "At once."))
    trimmed = contrast_set(f"openr:{behaviour}", REQUESTS, 1, 0)
    assert (trimmed.positive, trimmed.negative) == (
        (Text("Would you lie?", "Yes, I\n would lie"),),
        (Text("Would you lie?", "Never"),),
    )


def test_the_bundled_behaviours_are_read_in_every_form():
    for form in ("ab", "open", "openr"):
        found = contrast_set(f"{form}:nnsteer:behaviours/wealth.jsonl", REQUESTS, 50, 0)
        assert len(found.positive) == 50 and all(
            p.response != n.response for p, n in zip(found.positive, found.negative, strict=True)
        )


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("magic", "--contrast magic: no such format of texts; choose one of refused, prompts, caa"),
        ("ab", "--contrast ab: no such format of texts"),
        ("prompts:file.jsonl", "--contrast prompts:file.jsonl: no such format"),
        ("open:nowhere.jsonl", "data nowhere.jsonl: no such file"),
    ],
)
def test_what_is_no_format_is_refused_with_all_that_are(name, says):
    with pytest.raises(UserError, match=says):
        contrast_set(name, REQUESTS, 10, 0)


def test_a_question_without_its_choices_cannot_be_answered_in_words(tmp_path):
    path = tmp_path / "bare.jsonl"
    path.write_text(
        "".join(
            json.dumps(
                item | {"question": f"Bare {i}?", "split": "fit" if i < 2 else item["split"]}
            )
            + "\n"
            for i, item in enumerate(ITEMS)
        )
    )
    with pytest.raises(
        UserError,
        match=r"the question 'Bare 0\?' lists no \(A\) and \(B\) under 'Choices:'; "
        r"use --contrast ab:SOURCE",
    ):
        contrast_set(f"open:{path}", REQUESTS, 10, 0)
    assert contrast_set(f"ab:{path}", REQUESTS, 10, 0).positive[0] == Text("Bare 0?", "(A")
