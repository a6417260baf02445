from __future__ import annotations

import csv
import json

import pytest
from datasets import Dataset

from nnsteer.errors import UserError
from nnsteer.texts.source import load_openers, load_prompts, parse_source, read_rows

ROWS = [{"request": f"request number {i}", "kind": "k"} for i in range(20)]


def written(path, rows=ROWS):
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    elif path.suffix == ".json":
        path.write_text(json.dumps(rows))
    elif path.suffix == ".csv":
        with path.open("w", newline="") as file:
            table = csv.DictWriter(file, rows[0])
            table.writeheader()
            table.writerows(rows)
    else:
        Dataset.from_list(rows).to_parquet(path)
    return f"{path},column=request"


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.csv", "a.parquet"])
def test_every_format_gives_the_same_splits(tmp_path, name):
    splits = load_prompts(written(tmp_path / name), seed=1)
    assert [len(splits.fit), len(splits.tune), len(splits.test)] == [10, 4, 6]
    everything = [p.text for part in (splits.fit, splits.tune, splits.test) for p in part]
    assert sorted(everything) == sorted(row["request"] for row in ROWS)
    assert splits == load_prompts(written(tmp_path / "again.jsonl"), seed=1)
    assert splits != load_prompts(written(tmp_path / "again.jsonl"), seed=2)


def test_rows_with_a_split_of_their_own_stay_there(tmp_path):
    rows = [{"prompt": f"p{i}", "split": ("fit", "tune", "test")[i % 3]} for i in range(9)]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    splits = load_prompts(str(tmp_path / "a.jsonl"), seed=0)
    assert [p.text for p in splits.tune] == ["p1", "p4", "p7"]


def test_a_files_own_split_column_can_be_chosen_from(tmp_path):
    rows = [{"prompt": f"{s} {i}", "split": s} for s in ("train", "validation") for i in range(10)]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    splits = load_prompts(f"{tmp_path / 'a.jsonl'},split=train", seed=0)
    texts = [p.text for part in (splits.fit, splits.tune, splits.test) for p in part]
    assert sorted(texts) == [f"train {i}" for i in range(10)]


def test_a_prompt_never_lies_in_two_splits(tmp_path):
    rows = [{"prompt": f"Ask {i % 5}!" if i < 5 else f" ask {i % 5}! "} for i in range(10)] + [
        {"prompt": f"x{i}"} for i in range(5)
    ]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    splits = load_prompts(str(tmp_path / "a.jsonl"), seed=0)
    assert len(splits.fit) + len(splits.tune) + len(splits.test) == 10


def test_bundled_files_are_named_with_a_prefix():
    assert len(load_openers("nnsteer:refusals.jsonl")) == 100
    assert parse_source("nnsteer:harmful.jsonl").place.endswith("harmful.jsonl")


def test_a_hub_dataset_is_named_with_its_revision_column_and_split():
    source = parse_source("org/name@abc123,column=goal,split=test")
    assert (source.place, source.revision, source.column, source.split) == (
        "org/name",
        "abc123",
        "goal",
        "test",
    )


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("missing.jsonl", "data missing.jsonl: no such file; give PATH"),
        ("org/name", "needs a pinned revision"),
        ("notes.md", "neither a .jsonl, .json, .csv, .parquet or .txt file nor a hub dataset"),
        ("a.jsonl,col=x", "can't read its options"),
        ("a.jsonl,column", "can't read its options"),
    ],
)
def test_a_source_that_is_nothing_is_refused(source, says):
    with pytest.raises(UserError, match=says) as error:
        load_prompts(source, 0)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('{"prompt": "a"}\n{"prompt": \n', r"a\.jsonl, line 2: not JSON"),
        ('{"prompt": "a"}\n\n["b"]\n', r"a\.jsonl, line 3: expected an object"),
        (
            '{"prompt": "a"}\n{"text": "b"}\n',
            r"row 2: no text in column 'prompt' \(columns: text\); name it with ,column=",
        ),
        ('{"prompt": "a"}\n{"prompt": " "}\n', "row 2: no text"),
        ("", "no prompt left for its fit split"),
        ('{"prompt": "a"}\n', "no prompt left for its (tune|fit) split"),
    ],
)
def test_a_malformed_file_is_refused_with_the_line(tmp_path, text, says):
    (tmp_path / "a.jsonl").write_text(text)
    with pytest.raises(UserError, match=says) as error:
        load_prompts(str(tmp_path / "a.jsonl"), 0)
    assert "\n" not in str(error.value)


def test_a_malformed_table_is_refused(tmp_path):
    (tmp_path / "a.parquet").write_text("nonsense")
    with pytest.raises(UserError, match=r"a\.parquet: .*check the file"):
        load_prompts(str(tmp_path / "a.parquet"), 0)


def test_no_openers_are_refused(tmp_path):
    (tmp_path / "a.jsonl").write_text("\n")
    with pytest.raises(UserError, match="holds no opener"):
        load_openers(str(tmp_path / "a.jsonl"))


def test_several_sources_count_as_one_and_each_may_have_its_split(tmp_path):
    for name, n in (("a", 7), ("b", 5)):
        rows = [{"prompt": f"{name}{i}", "style": "base" if i % 2 else "other"} for i in range(n)]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    splits = load_prompts(
        f"{tmp_path / 'a.jsonl'} + {tmp_path / 'b.jsonl'},where=style=base,as=test", seed=0
    )
    assert [p.text for p in splits.test] == ["b1", "b3"]
    assert len(splits.fit) == 5 and len(splits.tune) == 2
    first = load_prompts(f"{tmp_path / 'a.jsonl'},first=3,as=test + {tmp_path / 'a.jsonl'}", seed=0)
    assert [p.text for p in first.test] == ["a0", "a1", "a2"] and len(first.fit) == 3


@pytest.mark.parametrize("options", ["as=later", "first=many", "where=style", "where="])
def test_options_that_cant_be_meant_are_refused(tmp_path, options):
    (tmp_path / "a.jsonl").write_text('{"prompt": "a"}\n')
    with pytest.raises(UserError, match="can't read its options"):
        parse_source(f"{tmp_path / 'a.jsonl'},{options}")


def test_a_line_separator_within_a_text_ends_no_row(tmp_path):
    (tmp_path / "p.jsonl").write_text(
        '{"prompt": "one\u2028two"}\n{"prompt": "three"}\n', encoding="utf-8"
    )
    assert [row["prompt"] for row in read_rows(parse_source(str(tmp_path / "p.jsonl")))] == [
        "one\u2028two",
        "three",
    ]
