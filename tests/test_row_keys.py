"""Each row counts once, and what a row is stands in the row, whatever it is called."""

from __future__ import annotations

from dataclasses import asdict, replace
from itertools import product

import pytest

from nnsteer.errors import UserError
from nnsteer.folder import Folder
from nnsteer.measure import answers, items, sampled, walks
from nnsteer.measure.walks import rows_of, trade_offs
from nnsteer.recipes.behaviours import Config, check_behaviours
from nnsteer.report import (
    affine,
    behaviour_summary,
    category_numbers,
    category_summary,
    refusal,
    results,
)
from nnsteer.study.rows import Place, sort_out


def behaviours_run(path, name):
    """The folder of a run of one behaviour that steering moves, with its random controls."""
    folder, other = Folder(path), "other"
    ways = [*(f"{b} {sign}" for b, sign in product((name, other), "+-")), "sum +", "simultaneous +"]
    folder.write_json("config.json", {"settings": {"max_faulty": 0.05}})
    alone = {way: {"behaviour": way[:-2], "layer": 0, "coefficient": 1.0} for way in ways[:4]}
    folder.write_json("chosen.json", {"alone": alone, "layer": 0, "layers": {name: 0, other: 0}, "scalars": {}})
    folder.write_json("cosines.json", {"block_out[0]": [[1.0, 0.1], [0.1, 1.0]]})
    folder.write_json("seconds.json", {})
    asked = [(variant, behaviour, False) for variant, behaviour in product(("baseline", *ways), (name, other))]
    asked += [(f"random {way}", way[:-2], True) for way in ways[:4]]
    rows = [
        asdict(items.Row(variant, behaviour, f"q{i}", "A", "B", said, float(i), control))
        for variant, behaviour, control in asked
        for i in range(30)
        for said in ("A" if variant.endswith("+") and not control else "AB"[i % 2])
    ]
    folder.append("rows.jsonl", rows)
    text = [{"variant": v, "text": i, "top1": i / 9, "tokens": 5 + i} for v, i in product(("baseline", *ways), range(9))]
    folder.append("text_rows.jsonl", text)
    return folder


def double(folder, name):
    """As two processes that wrote at once left it."""
    lines = (folder / name).read_text().splitlines(keepends=True)
    (folder / name).write_text("".join(line + line for line in lines))


@pytest.mark.parametrize("name", ["randomness", "random", "baseline", "permuted", "unsteered"])
def test_a_behaviour_keeps_its_p_value_whatever_it_is_called(tmp_path, name):
    (tmp_path / "wealth").mkdir()
    (tmp_path / name).mkdir()
    plain, named = (behaviour_summary.summarise(behaviours_run(tmp_path / n, n)) for n in ("wealth", name))
    assert named["alone"][name] == plain["alone"]["wealth"] and list(named["together"]) == list(plain["together"])
    for way in ("+", "-"):
        assert named["alone"][name][way]["test"]["against_baseline"]["p_holm"] is not None
        assert named["alone"][name][way]["random"]["against_baseline"]["p_holm"] is None


@pytest.mark.parametrize("names", [["simultaneous", "a"], ["weighted sum"], ["a", "random a"]])
def test_a_behaviour_is_not_called_what_a_way_to_steer_is(names):
    with pytest.raises(UserError, match=f"--behaviours: {max(names, key=len)} is the name of a way to steer; give another"):
        check_behaviours(Config(), names)


def test_a_behaviours_run_whose_rows_are_doubled_has_the_same_summary(tmp_path):
    folder = behaviours_run(tmp_path, "wealth")
    before = behaviour_summary.summarise(folder)
    double(folder, "rows.jsonl")
    double(folder, "text_rows.jsonl")
    assert behaviour_summary.summarise(folder) == before


def test_a_refusal_runs_doubled_rows_count_once(tmp_path):
    folder = Folder(tmp_path)
    quality = {"test": {"f1": 1.0, "precision": 1.0, "recall": 1.0}}
    folder.write_json("condition.json", {"site": {"layer": 0}, "threshold": 0.0, "fires_when": "above", "quality": quality})
    folder.write_json("dose.json", {"chosen": "one"})
    folder.write_json("seconds.json", {})
    some = [
        asdict(answers.Row(variant, side, "", f"{side} {i}", "no", i % 3 == 0, i % 5 == 1, 0.1, None, None))
        for variant, side, i in product(refusal.LABELS, ("harmful", "harmless"), range(12))
    ]
    folder.append("rows.jsonl", some)
    before, found = refusal.summarise(folder), category_numbers.read_answers(folder, "rows.jsonl")
    double(folder, "rows.jsonl")
    folder.append("rows.jsonl", [row | {"refused": not row["refused"]} for row in some])  # the later ones are ignored
    assert refusal.summarise(folder) == before
    assert category_numbers.read_answers(folder, "rows.jsonl") == found


def test_sampled_answers_and_walks_count_once(tmp_path):
    folder = Folder(tmp_path)
    one = sampled.Row("ace", 0.0, "harmful", "", "p", 0, "no", True, False)
    own = [replace(one, method=m, prompt=f"p{i}", sample=s) for m, i, s in product(("ace", "unsteered"), range(5), range(2))]
    folder.append("rows.jsonl", map(asdict, own))
    before = affine.read(folder)
    double(folder, "rows.jsonl")
    assert affine.read(folder) == before
    (tmp_path / "walks").mkdir()
    folder = Folder(tmp_path / "walks")
    step = walks.Row("test", "layer 1", 1.0, "skill", 0, [5, 5], [3, 2], [4, 4])
    ways = (("unsteered", 0.0), ("layer 1", 1.0))
    own = [replace(step, variant=v, coefficient=c, domain=d) for (v, c), d in product(ways, ("skill", "retained"))]
    folder.append("rows.jsonl", map(asdict, own))
    before = rows_of(folder)
    double(folder, "rows.jsonl")
    assert rows_of(folder) == before and set(trade_offs(rows_of(folder), "test")) == {"layer 1"}


def test_a_studys_doubled_rows_count_once_and_the_next_start_leaves_each_once(tmp_path):
    folder = Folder(tmp_path)
    names = [{"name": "baseline", "axes": {}}, {"name": "random", "axes": {"layer": 1}}]
    about = {"baseline": "baseline", "variants": names, "controls": {}, "sets": [{"name": "s", "n": 9}]}
    measure = {"name": "length", "settings": "", "binary": False}
    folder.write_json("study.json", about | {"measures": [measure], "recommend": None, "planes": {}, "scores": {}})
    place = [Place(f"{v['name']} {i}", v["name"], "s", "") for v, i in product(names, range(9))]
    answer = [p._asdict() | {"prompt": p.key[-1], "completion": "a"} for p in place]
    value = [p._asdict() | {"prompt": p.key[-1], "measure": "length", "value": float(i)} for i, p in enumerate(place)]
    folder.append("completions.jsonl", answer)
    folder.append("rows.jsonl", value)
    before = results.read(folder)
    for name in ("completions.jsonl", "rows.jsonl"):
        double(folder, name)
    assert results.read(folder) == before and results.summarise(results.read(folder)) == results.summarise(before)
    sort_out(folder, "rows.jsonl", place)
    assert folder.read_lines("rows.jsonl") == value


def test_a_category_called_as_a_word_of_the_rules_is_not_taken_for_one():
    places = [("seen", name) for name in ("base", "hate", "crime", "refuse")]
    rules = ["not steered", "if hate or crime then refuse", "if hate then refuse", "if crime then refuse"]
    found = {(rule, place): {"p": place[1] in rule} for rule, place in product(rules, places)}
    one = category_summary.either(category_numbers.Answers(found, found), rules[1], ("hate", "crime"), places)
    assert [part["target"] for part in one["parts"]] == ["hate", "crime"] and one["others"]["n"] == 2
