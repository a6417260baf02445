"""The grammar of a SOURCE, which is one wherever a SOURCE is given."""

from __future__ import annotations

import json

import pytest

from nnsteer.errors import UserError
from nnsteer.texts.skills import load_documents
from nnsteer.texts.source import Where, load_prompts, load_texts, parse_source, picked, read_rows

ROWS = [
    {"text": f"t{i}", "n": i, "meta": {"set": "a=b, c" if i % 2 else "x"}, "a.b": i % 3}
    for i in range(12)
]


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return str(path)


@pytest.mark.parametrize(
    ("options", "numbers"),
    [
        ("where=n=3", [3]),
        ("where=n!=3", [0, 1, 2, *range(4, 12)]),
        ("where=meta.set=a=b, c", range(1, 12, 2)),
        ("where=meta.set!=a=b, c,first=2", [0, 2]),
        ("first=2,where=meta.set=x", [0, 2]),
        ("where=a.b=0", [0, 3, 6, 9]),  # a column of that name comes first
    ],
)
def test_conditions_pick_the_same_rows_of_prompts_and_of_documents(file, options, numbers):
    wanted = [f"t{i}" for i in numbers]
    assert load_texts(f"{file},column=text,{options}") == wanted
    if len(wanted) >= 3:  # a document for each split
        splits = load_documents([f"{file},{options},column=text"], (90, 90, 90), 0)
        assert {d.text for part in (splits.fit, splits.tune, splits.test) for d in part} == set(
            wanted
        )


def test_all_options_in_any_order(file):
    source = parse_source(f"{file},first=3,as=tune,where=a!=b=c,split=train,column=goal, then")
    assert (source.first, source.placed, source.split, source.column) == (
        3,
        "tune",
        "train",
        "goal, then",
    )
    assert source.where == Where("a", "b=c", False)


@pytest.mark.parametrize(
    "option",
    [
        "col=x",
        "column",
        "column=",
        "as=later",
        "first=many",
        "where=style",
        "where=",
        "where==x",
        "first=1,first=2",
    ],
)
def test_what_cant_be_read_is_named_with_all_options_that_can(file, option):
    with pytest.raises(
        UserError,
        match=r"can't read its options at '.*'; give each once: ,column=NAME ,split=NAME ,where=",
    ) as e:
        parse_source(f"{file},{option}")
    assert "\n" not in str(e.value) and repr(option.rpartition(",")[2]) in str(e.value)


def test_a_column_that_is_not_there_is_refused_with_those_that_are(file):
    with pytest.raises(UserError, match=r"no column meta\.name \(columns: text, n, meta, a\.b\)"):
        read_rows(parse_source(f"{file},where=meta.name=x"))
    with pytest.raises(
        UserError, match=r"row 1: no text in column 'prompt' \(columns: text, n, meta, a\.b\)"
    ):
        load_prompts(file, 0)
    endless = ({"text": "a"} for _ in iter(int, 1))
    with pytest.raises(UserError, match=r"no column b \(columns: text\)"):
        list(picked(endless, parse_source(f"{file},where=b!=1")))


def test_rows_without_the_column_are_left_out():
    rows = [{"a": 1}, {}, {"a": 2}]
    assert list(picked(rows, parse_source("nnsteer:harmful.jsonl,where=a!=2"))) == [{"a": 1}]


def test_a_text_file_has_a_text_a_line(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("one, and\n\n two \nthree\u2028still three\n", encoding="utf-8")
    assert (
        load_texts(str(path))
        == load_texts(str(path), "opener")
        == ["one, and", "two", "three\u2028still three"]
    )
    with pytest.raises(UserError, match=r"no text in column 'x' \(columns: text\)"):
        load_texts(f"{path},column=x")
    path.write_bytes(b"one\n\xff\n")
    with pytest.raises(UserError, match=r"a\.txt, byte 4: not UTF-8; save the file as UTF-8"):
        load_texts(str(path))
