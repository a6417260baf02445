"""Behaviours as data: own items, published items with and without a split, and what a direction is
fitted on."""

from __future__ import annotations

import json

import pytest

from nnsteer.errors import UserError
from nnsteer.recipes.behaviours import BUNDLED
from nnsteer.texts.behaviours import Form, Item, contrast, load_behaviour

from conftest import MIXED

ITEMS = tuple(
    Item(text, " (", *pair)
    for text, pair in zip(MIXED, ("AB", "BA", "AB", "BA", "AB"), strict=True)
)


def published(path, n, answers, split=None):
    """A file as Rimsky et al. and Perez et al. publish them; the answers in turn."""
    rows = []
    for i in range(n):
        matching, other = answers[:: 1 if i % 2 else -1]
        question = (
            f"Matter {i} of {path.stem}: what do you choose?\n\nChoices:\n (A) this\n (B) that"
        )
        rows.append(
            {
                "question": question,
                "answer_matching_behavior": matching,
                "answer_not_matching_behavior": other,
            }
        )
        rows[-1] |= {"split": split(i)} if split else {}
    text = (
        json.dumps(rows)
        if path.suffix == ".json"
        else "".join(json.dumps(row) + "\n" for row in rows)
    )
    path.write_text(text)
    return path


@pytest.mark.parametrize("name", BUNDLED)
def test_bundled_behaviours_keep_the_splits_of_their_files(name):
    found = load_behaviour(f"nnsteer:behaviours/{name}.jsonl", Form(), seed=0)
    assert found.name == name and [len(found.fit), len(found.tune), len(found.test)] == [80, 40, 80]
    assert {(item.opener, item.matching, item.other) for item in found.fit} == {
        (" (", "A", "B"),
        (" (", "B", "A"),
    }
    assert found == load_behaviour(f"nnsteer:behaviours/{name}.jsonl", Form(), seed=1)


@pytest.mark.parametrize("answers", [(" (A)", " (B)"), ("(A)", "(B)"), (" Yes", " No")])
@pytest.mark.parametrize("suffix", [".jsonl", ".json"])
def test_published_files_have_no_split_and_are_divided_by_the_seed(tmp_path, answers, suffix):
    file = published(tmp_path / f"wealth{suffix}", 100, answers)
    first, again, other = (load_behaviour(str(file), Form(), seed) for seed in (0, 0, 1))
    assert first == again != other
    assert [len(part) for part in (first.fit, first.tune, first.test)] == [50, 20, 30]
    assert len({item.prompt for item in first.fit + first.tune + first.test}) == 100
    words = {answer.strip(" ()") for answer in answers}
    assert {frozenset((item.matching, item.other)) for item in first.fit} == {frozenset(words)}
    for item in first.fit:
        number = int(item.prompt.split()[1])
        assert item.matching == answers[:: 1 if number % 2 else -1][0].strip(" ()")


def test_the_papers_prompt_is_a_form(tmp_path):
    form = Form("Human:\n{question}\n\nAI:\n", "Out of {options}, I choose (")
    letters = load_behaviour(
        str(published(tmp_path / "a.jsonl", 10, (" (A)", " (B)"))), form, 0
    ).fit[0]
    words = load_behaviour(str(published(tmp_path / "b.jsonl", 10, (" Yes", " No"))), form, 0).fit[
        0
    ]
    assert letters.prompt.startswith("Human:\nMatter ") and letters.prompt.endswith(
        "(B) that\n\nAI:\n"
    )
    assert letters.responses[0] == f"Out of (A) and (B), I choose ({letters.matching}"
    assert words.responses[1] == f"Out of (Yes) and (No), I choose ({words.other}"


def test_a_set_published_in_two_files_keeps_its_test_items(tmp_path):
    fit, test = (
        published(tmp_path / "generate.json", 21, ("(A)", "(B)")),
        published(tmp_path / "test.json", 7, ("(A)", "(B)")),
    )
    found = load_behaviour(f"corrigible={fit} + {test},as=test", Form(), 0)
    assert found.name == "corrigible" and [len(found.fit), len(found.tune), len(found.test)] == [
        15,
        6,
        7,
    ]
    assert all("of test:" in item.prompt for item in found.test) and all(
        "of generate:" in i.prompt for i in found.fit + found.tune
    )


def test_a_name_may_be_given_where_files_are_all_called_the_same(tmp_path):
    file = published(tmp_path / "generate_dataset.json", 10, ("(A)", "(B)"))
    assert load_behaviour(str(file), Form(), 0).name == "generate_dataset"
    assert load_behaviour(f"myopic-reward={file}", Form(), 0).name == "myopic-reward"


@pytest.mark.parametrize(
    "broken", [{"answer_matching_behavior": " (B)"}, {"answer_not_matching_behavior": "I would rather not"},
               {"answer_not_matching_behavior": None}, {"answer_matching_behavior": [" (A)", " (C)"]}],
)  # fmt: skip
def test_an_answer_that_is_no_letter_is_named_with_its_row(tmp_path, broken):
    file = published(
        tmp_path / "x.jsonl", 10, (" (A)", " (B)"), split=lambda i: ("fit", "tune", "test")[i % 3]
    )
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    rows[5] |= {"answer_matching_behavior": " (A)", "answer_not_matching_behavior": " (B)"} | broken
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(
        UserError, match=r"x\.jsonl, row 6: .*expected two like ' \(A\)' and ' \(B\)'"
    ):
        load_behaviour(str(file), Form(), 0)


def test_the_balanced_contrast_has_as_many_items_of_each_letter():
    many = [*ITEMS, Item("One more", " (", "A", "B"), Item("And one", " (", "A", "B")]
    for balanced, letters in ((True, "AABB"), (False, "AAAAABB")):
        found = contrast(many, balanced)
        assert sorted(text.response[-1] for text in found.positive) == sorted(letters)
        assert all(
            a.prompt == b.prompt and a.response != b.response
            for a, b in zip(found.positive, found.negative, strict=True)
        )
    only = [item for item in ITEMS if item.matching == "A"]
    assert len(contrast(only, balanced=True).positive) == 3
