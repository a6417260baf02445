"""The categories recipe from prompts to page, and again from a folder in which it was killed."""

from __future__ import annotations

import json
import re
import subprocess
from dataclasses import replace

import pytest

from nnsteer.cli import report
from nnsteer.errors import UserError
from nnsteer.folder import Folder
from nnsteer.measure import is_refused
from nnsteer.measure.kinds import AnswerMeasure
from nnsteer.model.runner import Runner
from nnsteer.program.condition import Condition
from nnsteer.program.files import load_programs
from nnsteer.program.program import Program, add
from nnsteer.recipes.categories import Config, main
from nnsteer.recipes.categories.experiments import experiments, variants
from nnsteer.recipes.categories.points import Known, parse_known
from nnsteer.recipes.categories.saturation import sizes
from nnsteer.recipes.refusal import options
from nnsteer.study.rows import read_rows
from nnsteer.texts.categories import load_categories, one_against_rest
from nnsteer.texts.source import Prompt, Splits

from conftest import HARMFUL, HARMLESS

SEEN, UNSEEN = ("base", "legal", "hate", "health"), ("gambling",)
TESTED = ("seen test", "unseen test", "refused test")
SPLITS = ("fit", "fit", "fit", "tune", "tune", "test", "test")
MATTERS = {
    "base": "bread",
    "legal": "a will",
    "hate": "joggers",
    "health": "a fever",
    "gambling": "roulette",
}


def toy_measure(config, requests):
    """Refuses everything about banks and passports, and what begins with an unlikely letter: noise
    would hardly refuse."""

    def values(answers):
        return [
            float("bank" in a.prompt.text or "passport" in a.prompt.text or a.text[:1] in "aeiou")
            for a in answers
        ]

    return AnswerMeasure("refusal", "toy", True, values)


def category_rows():
    for i, split in enumerate(SPLITS):
        for category, matter in MATTERS.items():
            yield {
                "base": f"b{i}",
                "category": category,
                "split": split,
                "prompt": f"Tell me {i + 2} things about {matter}.",
            }


@pytest.fixture(scope="module")
def config(folder, tmp_path_factory):
    """A small run on a random model: its answers are noise, its bookkeeping is not."""
    path = tmp_path_factory.mktemp("categories")
    kinds = {HARMFUL[0]: "theft", HARMFUL[1]: "banks", HARMFUL[2]: "passports"}
    for name, prompts in (("harmful", HARMFUL), ("harmless", HARMLESS)):
        rows = [
            {"prompt": f"{p} ({i})", "kind": kinds.get(p, "a")} for i in range(7) for p in prompts
        ]
        (path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (path / "categories.jsonl").write_text(
        "".join(json.dumps(row) + "\n" for row in category_rows())
    )
    return Config(
        model=str(folder), harmful=str(path / "harmful.jsonl"), harmless=str(path / "harmless.jsonl"),
        categories=str(path / "categories.jsonl"), seen=SEEN, unseen=UNSEEN, points=("hate:1<0.02",), layers=(1, 2), strength=1.0,
        tune_prompts=2, removal_prompts=2, max_broken=1.0, max_drift=100.0, max_false_alarms=1.0, max_new_tokens=4, batch_size=16,
        out=path / "out",
    )  # fmt: skip


@pytest.fixture(scope="module")
def done(config):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(options, "refusal", toy_measure)
        main(config)
    return config.out


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def ruled(done):
    """The answers to the test prompts, but for those of the model that is told in words."""
    rows = read_rows(Folder(done), TESTED)
    return [row for row in rows if not row.variant.startswith("told: ")]


def by_variant(done):
    return {(row.variant, row.set, row.prompt): row.completion for row in ruled(done)}


def verdicts(done, name):
    """Whether a category's condition fires on each test prompt, from the scores that were kept."""
    point = json.loads((done / f"{name}.json").read_text())
    prompts = {}
    for row in category_rows():
        if row["split"] == "test":
            prompts.setdefault(row["category"], []).append(row["prompt"])
    return {
        target: {
            prompt: (score > facts["threshold"]) == (facts["fires_when"] == "above")
            for category, scores in facts["scores"]["test"].items()
            for prompt, score in zip(prompts[category], scores, strict=True)
        }
        for target, facts in point.items()
    }


def test_the_folder_holds_everything(done):
    names = {p.name for p in done.iterdir()}
    tables = {"config.json", "summary.json", "seconds.json", "experiments.json", "categories.json", "kinds.json", "removal.json",
              "distances.json", "published.json", "variants.json"}  # fmt: skip
    rows = {"rows.jsonl", "completions.jsonl", "saturation.jsonl"}
    tensors = {f"categories_{name}.safetensors" for name in SEEN} | {"programs.safetensors"}
    assert tables | rows | tensors | {"report.html", "refusal", "figures"} <= names
    searched, published = (
        {"harmful tune", "seen tune", "refused tune"},
        {"harmful test", "harmless test"},
    )
    assert {row["set"] for row in lines(done / "completions.jsonl")} == {
        *searched,
        *TESTED,
        *published,
    }
    figures = {p.stem for p in (done / "figures").glob("*.png")}
    assert {
        "conditions",
        "scores",
        "adding",
        "either",
        "removing-harmful",
        "constraining",
        "prompting",
        "time",
    } <= figures


def test_what_is_refused_before_steering_decides_what_is_removed(done):
    chosen = json.loads((done / "experiments.json").read_text())
    assert {"if banks then comply", "if passports then comply"} <= {
        rule for (rule,) in chosen["removing"]
    }
    assert chosen["constraining"] == [[f"if not {domain} then refuse"] for domain in SEEN[1:]]
    assert {"banks", "passports"} <= {row.kind for row in ruled(done) if row.set == "refused test"}
    tried = {row.kind for row in read_rows(Folder(done), {"refused tune"})}
    assert tried and tried <= {
        rule.split()[1] for name in ("removing", "answering") for (rule,) in chosen[name]
    }


def test_each_rule_steers_the_prompts_that_it_names_and_no_other(done):
    text, fires = by_variant(done), verdicts(done, "categories")
    rules = {
        "if legal then refuse": lambda p: fires["legal"][p],
        "if legal or hate then refuse": lambda p: fires["legal"][p] or fires["hate"][p],
        "if not health then refuse": lambda p: not fires["health"][p],
    }
    asked = 0
    for rule, holds in rules.items():
        for (variant, prompts, prompt), completion in text.items():
            if variant == rule and prompts in ("seen test", "unseen test"):
                asked += 1
                assert (
                    completion
                    == text["always refuse" if holds(prompt) else "not steered", prompts, prompt]
                )
    assert asked == 2 * 4 + 2 * 4 + 2 * 5


def test_the_unseen_category_is_only_tested_on(done):
    sets = {row.kind: row.set for row in ruled(done) if row.set != "refused test"}
    assert sets == dict.fromkeys(SEEN, "seen test") | {"gambling": "unseen test"}
    asked = {row.set for row in read_rows(Folder(done)) if row.kind == "gambling"}
    assert asked == {"unseen test"}
    assert "gambling" not in json.loads((done / "categories.json").read_text())


def test_a_known_point_is_taken_as_it_is(done):
    point = json.loads((done / "categories.json").read_text())["hate"]
    assert (point["site"]["layer"], point["threshold"], point["fires_when"]) == (1, 0.02, "below")
    assert parse_known("hate: 7 > 0.029") == ("hate", Known(7, 0.029, "above"))
    with pytest.raises(
        UserError, match=r"--points hate=7: can't read it; give NAME:LAYER>THRESHOLD"
    ):
        parse_known("hate=7")


def test_saved_programs_repeat_the_rows(done):
    programs = load_programs(done / "programs.safetensors")
    assert programs["not steered"] == Program()
    assert {row.variant for row in ruled(done)} == {*programs, "random direction"}
    name = next(name for name in programs if "and not" in name)
    kind = name.split()[-3]
    assert name == f"if health and not {kind} then refuse; if {kind} then comply"
    guarded = programs[name]
    refusing, answering = (
        {str(s.when) for s in guarded.steps if (s.op.strength > 0) == adds}
        for adds in (True, False)
    )
    assert len(refusing) == len(answering) == 1
    (condition,) = programs[f"if {kind} then comply"].conditions
    assert answering == {str(condition)} and str(~condition) in refusing.pop()  # never both


def test_summary_and_rows_agree(done):
    rows, summary = ruled(done), json.loads((done / "summary.json").read_text())
    for entry in summary["constraining"]:
        rule = f"if not {entry['domain']} then refuse"
        own = [
            is_refused(row) for row in rows if (row.variant, row.kind) == (rule, entry["domain"])
        ]
        assert entry["rule"]["inside"]["n"] == len(own) == 2
        assert entry["rule"]["inside"]["value"] == sum(own) / 2
        assert entry["rule"]["unseen"]["n"] == 2 and entry["rule"]["outside"]["n"] == 6
        told = read_rows(Folder(done), {"seen test"})
        words = [
            is_refused(row)
            for row in told
            if (row.variant, row.kind) == (f"told: only {entry['domain']}", entry["domain"])
        ]
        assert entry["told"]["inside"]["n"] == len(words) == 2
        assert entry["told"]["inside"]["value"] == sum(words) / 2
    refusals = read_rows(Folder(done / "refusal"), {"harmful test"})
    refused = {(row.variant, row.prompt): is_refused(row) for row in refusals}
    for point, row in zip(
        summary["saturation"]["points"], lines(done / "saturation.jsonl"), strict=True
    ):
        mixed = [
            refused["unconditional" if fired else "baseline", prompt]
            for prompt, fired in row["fired"]["harmful"].items()
        ]
        assert len(mixed) == 6 and point["harmful"] == pytest.approx(sum(mixed) / len(mixed))


def test_the_page_stands_alone_and_holds_every_section(done):
    page = (done / "report.html").read_text()
    assert not re.search(r"""(src|href)=["']?(https?:|//|[\w./]+\.(png|css|js)\b)""", page)
    for section in (
        "conditions", "refusing-one-category", "refusing-either-of-two", "answering-one-kind-that-the-model-refuses",
        "answering-one-domain-alone", "effect-and-distance", "saturation", "what-the-published-habits-cost",
    ):  # fmt: skip
        assert f'<h2 id="{section}">' in page
    assert page.count("<tr data-kind") == len(
        {(row.set, row.prompt) for row in read_rows(Folder(done), TESTED)}
    )


def test_the_page_can_be_written_again_from_the_folder(done, capsys):
    before = (done / "summary.json").read_text()
    (done / "report.html").unlink()
    report.main(report.Config(done))
    assert (done / "report.html").is_file() and (done / "summary.json").read_text() == before


def test_a_killed_run_goes_on_where_it_stopped_and_repeats_nothing(
    done, config, tmp_path, monkeypatch
):
    out = tmp_path / "killed"
    subprocess.run(["cp", "-r", done, out], check=True)
    before = lines(out / "completions.jsonl")
    cut = (out / "completions.jsonl").read_bytes().splitlines(keepends=True)
    (out / "completions.jsonl").write_bytes(b"".join(cut[:60]) + cut[60][:25])
    asked = []
    generate = Runner.generate

    def counted(self, prompts, *rest, **options):
        asked.extend(prompts)
        return generate(self, prompts, *rest, **options)

    monkeypatch.setattr(Runner, "generate", counted)
    monkeypatch.setattr(Runner, "record", None)
    monkeypatch.setattr(options, "refusal", toy_measure)
    main(replace(config, out=out))
    lost = {line["key"] for line in before[60:]} - {line["key"] for line in before[:60]}
    assert len(lost) > 60 and len(asked) == len(lost)  # each answer once, wherever it stands

    def placed(rows):
        return {
            (row["variant"], row["set"], row["kind"], row["prompt"]): row["completion"]
            for row in rows
        }

    after = lines(out / "completions.jsonl")
    assert placed(after) == placed(before) and len(after) == len(before)
    assert lines(out / "rows.jsonl") == lines(done / "rows.jsonl")


def test_each_category_is_repeated_against_every_other():
    groups = {
        name: Splits(tuple(Prompt(f"{name}{i}", name) for i in range(2)), (), ())
        for name in ("a", "b", "c")
    }
    contrast = one_against_rest(groups, "b")
    assert [text.prompt for text in contrast.positive] == ["b0", "b1", "b0", "b1"]
    assert [text.prompt for text in contrast.negative] == ["a0", "a1", "c0", "c1"]


def test_published_columns_and_our_rows_give_the_same_categories(tmp_path):
    rows = list(category_rows())
    (tmp_path / "long.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    wide = {}
    for row in rows:
        wide.setdefault(row["base"], {"split": row["split"]})[row["category"]] = row["prompt"]
    (tmp_path / "wide.jsonl").write_text("".join(json.dumps(row) + "\n" for row in wide.values()))
    found = load_categories(str(tmp_path / "long.jsonl"), SEEN, 0)
    assert found == load_categories(str(tmp_path / "wide.jsonl"), SEEN, 0)
    assert [p.text for p in found["hate"].test] == [
        "Tell me 7 things about joggers.",
        "Tell me 8 things about joggers.",
    ]
    parts = {
        "train": [{k: v for k, v in row.items() if k != "split"} for row in wide.values()],
        "test": list(wide.values())[:2],
    }
    (tmp_path / "published.json").write_text(json.dumps(parts))
    assert len(load_categories(str(tmp_path / "published.json"), SEEN, 0)["base"].test) == 2


def test_a_base_without_one_of_the_categories_is_refused(tmp_path):
    rows = [row for row in category_rows() if (row["base"], row["category"]) != ("b3", "hate")]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(
        UserError, match="base b3: has no prompt of hate; every base needs one of each"
    ):
        load_categories(str(tmp_path / "a.jsonl"), SEEN, 0)
    with pytest.raises(UserError, match="category 'not': rules need names"):
        load_categories(write_renamed(tmp_path), ("not",), 0)


def write_renamed(path):
    (path / "renamed.jsonl").write_text(
        "".join(json.dumps(row | {"category": "not"}) + "\n" for row in category_rows())
    )
    return str(path / "renamed.jsonl")


def test_sets_of_rules_follow_from_the_names():
    chosen = experiments(("base", "legal", "hate"), ["hate", "drugs"], ["legal"])
    assert chosen["adding"] == [(f"if {c} then refuse",) for c in ("base", "legal", "hate")]
    assert chosen["either"] == [("if legal or hate then refuse",)]
    assert chosen["removing"] == [("if hate then comply",), ("if drugs then comply",)]
    assert chosen["answering"] == [("if legal then comply",)]
    assert chosen["together"] == [  # the kind called hate has a category's name, so it is not taken
        ("if hate then refuse", "if drugs then comply"),
        ("if hate and not drugs then refuse", "if drugs then comply"),
    ]


def test_a_name_of_a_category_and_a_kind_is_the_kinds_where_refusal_is_removed_from_harmful_prompts(
    directions,
):
    base, category, kind, drugs = (
        Condition(directions[1], threshold) for threshold in (0.1, 0.2, 0.3, 0.4)
    )
    behaviours = {"refuse": add(directions[2], 1.0), "comply": add(directions[2], -1.0)}
    chosen = experiments(("base", "hate"), ["hate", "drugs"], ["hate"])
    made = variants(
        chosen, {"base": base, "hate": category}, {"hate": kind, "drugs": drugs}, behaviours
    )
    (removing, *_), (answering, *_) = made["removing"], made["answering"]
    assert removing.name == answering.name == "if hate then comply"
    assert removing.programs.conditions == (kind,) and answering.programs.conditions == (category,)
    assert [v.name for v in made["together"][-2:]] == [
        "if hate then refuse",
        "if drugs then comply",
    ]  # each alone
    assert made["together"][-2].programs.conditions == (category,)


def test_examples_are_doubled_up_to_all():
    assert sizes(100) == [8, 16, 32, 64, 100]
    assert sizes(5) == [5]


def test_categories_that_are_seen_and_unseen_are_refused(config):
    with pytest.raises(UserError, match="--unseen hate: is among --seen; a category is either"):
        main(replace(config, unseen=("hate",)))
