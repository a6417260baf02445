"""Each row counts once, and what a row is stands in the row, whatever it is called."""

from __future__ import annotations

from itertools import product

import pytest

from nnsteer.errors import UserError
from nnsteer.folder import Folder
from nnsteer.recipes.behaviours import Config
from nnsteer.recipes.behaviours.options import check_behaviours
from nnsteer.report import (
    affine,
    behaviour_summary,
    category_numbers,
    category_summary,
    refusal,
    results,
)
from nnsteer.study.rows import Place, read_rows, set_aside


def behaviours_run(path, name):
    """The folder of a run of one behaviour that steering moves, with its random controls."""
    folder, other = Folder(path), "other"
    ways = [*(f"{b} {sign}" for b, sign in product((name, other), "+-")), "sum +", "simultaneous +"]
    folder.write_json("config.json", {"settings": {"max_faulty": 0.05}})
    alone = {way: {"behaviour": way[:-2], "layer": 0, "coefficient": 1.0} for way in ways[:4]}
    controls = {f"random {way}": axes | {"control": 1} for way, axes in alone.items()}
    folder.write_json(
        "chosen.json", {"alone": alone, "layer": 0, "layers": {name: 0, other: 0}, "scalars": {}}
    )
    folder.write_json(
        "variants.json",
        alone | {"sum +": {"layer": 0}, "simultaneous +": {"scalar": 1.0}} | controls,
    )
    folder.write_json("cosines.json", {"block_out[0]": [[1.0, 0.1], [0.1, 1.0]]})
    folder.write_json("seconds.json", {})
    folder.write_json("texts.json", [f"t{i}" for i in range(9)])
    asked = list(product(("baseline", *ways), (name, other)))
    asked += [(variant, axes["behaviour"]) for variant, axes in controls.items()]
    rows = []
    for (variant, behaviour), i in product(asked, range(30)):
        said = "A" if variant.endswith("+") and variant not in controls else "AB"[i % 2]
        value = {"said": said, "matching": "A", "other": "B", "margin": float(i)}
        rows.append(line(variant, f"{behaviour} test", f"q{i}", "choice", value))
    for variant, i in product(("baseline", *ways), range(9)):
        rows.append(
            line(variant, "text", f"t{i}", "hits", {"tokens": 5 + i, "top1": i, "top10": i})
        )
    folder.append("rows.jsonl", rows)
    return folder


def line(variant, prompts, prompt, measure, value):
    place = {"key": f"{variant} {prompts} {prompt}", "variant": variant, "set": prompts, "kind": ""}
    return place | {"prompt": prompt, "sample": 0, "measure": measure, "value": value}


def double(folder, name):
    """As two processes that wrote at once left it."""
    lines = (folder / name).read_text().splitlines(keepends=True)
    (folder / name).write_text("".join(line + line for line in lines))


@pytest.mark.parametrize("name", ["randomness", "random", "baseline", "permuted", "unsteered"])
def test_a_behaviour_keeps_its_p_value_whatever_it_is_called(tmp_path, name):
    (tmp_path / "wealth").mkdir()
    (tmp_path / name).mkdir()
    plain, named = (
        behaviour_summary.summarise(behaviours_run(tmp_path / n, n)) for n in ("wealth", name)
    )
    assert named["alone"][name] == plain["alone"]["wealth"] and list(named["together"]) == list(
        plain["together"]
    )
    for way in ("+", "-"):
        assert named["alone"][name][way]["test"]["against_baseline"]["p_holm"] is not None
        assert named["alone"][name][way]["random"]["against_baseline"]["p_holm"] is None


@pytest.mark.parametrize("names", [["simultaneous", "a"], ["weighted sum"], ["a", "random a"]])
def test_a_behaviour_is_not_called_what_a_way_to_steer_is(names):
    with pytest.raises(
        UserError,
        match=f"--behaviours: {max(names, key=len)} is the name of a way to steer; give another",
    ):
        check_behaviours(Config(), names)


def test_a_behaviours_run_whose_rows_are_doubled_has_the_same_summary(tmp_path):
    folder = behaviours_run(tmp_path, "wealth")
    before = behaviour_summary.summarise(folder)
    double(folder, "rows.jsonl")
    assert behaviour_summary.summarise(folder) == before


def answered(folder, rows):
    """Lines of both files, of (variant, set, prompt, refused, broken)."""
    for variant, prompts, prompt, refused, broken in rows:
        place = {
            "key": f"{variant} {prompts} {prompt}",
            "variant": variant,
            "set": prompts,
            "kind": "",
        }
        place |= {"prompt": prompt, "sample": 0}
        folder.append(
            "completions.jsonl",
            [place | {"completion": "no", "ids": [], "scores": [], "fired": []}],
        )
        values = {"refusal": float(refused), "broken": float(broken)}
        folder.append("rows.jsonl", [place | {"measure": m, "value": v} for m, v in values.items()])


def refusal_rows():
    some = product(refusal.LABELS, refusal.SETS, range(12))
    return [(variant, name, f"{name} {i}", i % 3 == 0, i % 5 == 1) for variant, name, i in some]


def test_a_refusal_runs_doubled_rows_count_once(tmp_path):
    folder = Folder(tmp_path)
    quality = {"test": {"f1": 1.0, "precision": 1.0, "recall": 1.0}}
    facts = {"site": {"layer": 0}, "threshold": 0.0, "fires_when": "above", "quality": quality}
    folder.write_json("condition.json", facts)
    folder.write_json("dose.json", {"chosen": "one"})
    folder.write_json("seconds.json", {})
    answered(folder, refusal_rows())
    before = (
        refusal.summarise(folder, read_rows(folder, refusal.SETS)),
        category_numbers.read_answers(folder, refusal.SETS),
        read_rows(folder),
    )
    for name in ("completions.jsonl", "rows.jsonl"):
        double(folder, name)
    later = [(*row[:3], not row[3], False) for row in refusal_rows()]  # the later ones are ignored
    answered(folder, later)
    after = (
        refusal.summarise(folder, read_rows(folder, refusal.SETS)),
        category_numbers.read_answers(folder, refusal.SETS),
        read_rows(folder),
    )
    assert after == before


def test_an_affine_and_a_skills_runs_rows_count_once(tmp_path):
    folder = Folder(tmp_path)
    prompts = {"harmful test": [f"p{i}" for i in range(5)]}
    folder.write_json("prompts.json", prompts)
    axes = {
        "ace 0.0": {"method": "ace", "alpha": 0.0},
        "unsteered": {"method": "unsteered", "alpha": 0.0},
    }
    axes |= {"layer 1 1": {"place": "layer 1", "coefficient": 1.0}}
    folder.write_json("variants.json", axes)
    answered(
        folder,
        [
            (v, "harmful test", p, True, False)
            for v in ("ace 0.0", "unsteered")
            for p in prompts["harmful test"]
        ],
    )
    before = affine.read(folder)
    hits = {"tokens": 5, "top1": 3, "top10": 4}
    ways = product(("unsteered", "layer 1 1"), ("skill test", "retained test"), range(2))
    folder.append("rows.jsonl", [line(v, s, f"d{i}", "hits", hits) for v, s, i in ways])
    rows = read_rows(folder)
    for name in ("completions.jsonl", "rows.jsonl"):
        double(folder, name)
    assert affine.read(folder) == before and read_rows(folder) == rows


def test_a_studys_doubled_rows_count_once_and_the_next_start_leaves_each_once(tmp_path):
    folder = Folder(tmp_path)
    names = [{"name": "baseline", "axes": {}}, {"name": "random", "axes": {"layer": 1}}]
    about = {
        "baseline": "baseline",
        "variants": names,
        "controls": {},
        "sets": [{"name": "s", "n": 9}],
    }
    measure = {"name": "length", "settings": "", "binary": False}
    folder.write_json(
        "study.json", about | {"measures": [measure], "recommend": None, "planes": {}, "scores": {}}
    )
    place = [
        Place(f"{v['name']} {i}", v["name"], "s", "", str(i), 0)
        for v, i in product(names, range(9))
    ]
    answer = [p._asdict() | {"completion": "a"} for p in place]
    value = [p._asdict() | {"measure": "length", "value": float(i)} for i, p in enumerate(place)]
    folder.append("completions.jsonl", answer)
    folder.append("rows.jsonl", value)
    before = results.read(folder)
    for name in ("completions.jsonl", "rows.jsonl"):
        double(folder, name)
    assert results.read(folder) == before and results.summarise(
        results.read(folder)
    ) == results.summarise(before)
    set_aside(folder, "rows.jsonl", place)
    assert folder.read_lines("rows.jsonl") == value


def test_a_category_called_as_a_word_of_the_rules_is_not_taken_for_one():
    places = [("seen", name) for name in ("base", "hate", "crime", "refuse")]
    rules = [
        "not steered",
        "if hate or crime then refuse",
        "if hate then refuse",
        "if crime then refuse",
    ]
    found = {(rule, place): {"p": place[1] in rule} for rule, place in product(rules, places)}
    one = category_summary.either(
        category_numbers.Answers(found, found), rules[1], ("hate", "crime"), places
    )
    assert [part["target"] for part in one["parts"]] == ["hate", "crime"] and one["others"][
        "n"
    ] == 2
