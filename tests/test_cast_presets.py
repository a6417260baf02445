"""CAST's own settings: presets, the published way of reading, data in the published formats."""

from __future__ import annotations

import json
from dataclasses import replace

import datasets
import pytest
import torch

from nnsteer import command
from nnsteer.errors import UserError
from nnsteer.folder import Folder
from nnsteer.program.files import load_programs
from nnsteer.program.site import Site, block_outs
from nnsteer.program.span import GENERATED, PROMPT
from nnsteer.recipes import refusal
from nnsteer.recipes.categories import Config as CategoriesConfig
from nnsteer.recipes.categories import main as categories_main
from nnsteer.recipes.published import BATCH, directions, record_with_pads, without_header
from nnsteer.recipes.refusal import plan
from nnsteer.study.run import Run
from nnsteer.texts.contrast import ContrastSet, Text, of_prompts
from nnsteer.texts.source import load_openers, load_prompts

from conftest import HARMFUL, HARMLESS

PRESETS = ("danube3-4b", "hermes-2-pro-8b", "neuraldaredevil-8b", "olmo-7b-sft", "quickstart", "qwen1.5-1.8b", "qwen1.5-32b",
           "zephyr-7b-beta")  # fmt: skip
CATEGORY_PRESETS = (
    "categories-qwen1.5-1.8b",
    "categories-llama-3.1-8b",
    "categories-hermes-2-pro-8b",
)
COLUMNS = (
    "base",
    "sexual_content",
    "legal_opinion",
    "hate_speech",
    "crime_planning",
    "health_consultation",
)


@pytest.fixture
def published(tmp_path, monkeypatch):
    """A working folder with data in the formats in which CAST's authors publish them, and hub sets
    with the hub's columns."""
    (tmp_path / "cast").mkdir()
    pairs = {
        "train": [{"harmful": f"harm {i}", "harmless": f"calm {i}"} for i in range(20)],
        "test": [{"harmful": "h", "harmless": "c"}],
    }
    rows = {
        part: [{name: f"{part} {name} {i}" for name in COLUMNS} for i in range(10)]
        for part in ("train", "test")
    }
    openers = {
        "compliant_responses": ["Certainly! I'd be happy"],
        "non_compliant_responses": ["I'm afraid I can't", "No."],
    }
    for name, value in (
        ("condition_harmful", pairs),
        ("condition_multiple", rows),
        ("behavior_refusal", openers),
    ):
        (tmp_path / "cast" / f"{name}.json").write_text(json.dumps(value))

    def load_dataset(name, revision, split):
        assert len(revision) == 40 and split == "train"
        if name.startswith("sorry-bench"):
            return [
                {"turns": [f"bad {style} {i}"], "prompt_style": style}
                for i in range(450)
                for style in ("base", "morse")
            ]
        return [
            {"instruction": f"do {i}", "input": "" if i % 3 else "this", "output": "done"}
            for i in range(9000)
        ]

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def no_hub(source, revision):
    raise UserError(f"model {source}: no network")


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_parses_and_its_plan_has_the_papers_test_prompts(
    name, pytestconfig, published, monkeypatch, capsys
):
    monkeypatch.setattr(plan, "find_model", no_hub)
    preset = pytestconfig.rootpath / "recipes" / "cast" / f"{name}.toml"
    command.run(refusal.Config, refusal.main, "", ["--config", str(preset), "--dry-run"])
    said = capsys.readouterr().out
    assert said.count("not to be had") == 1 and "no network" in said
    assert "450 test" in said and "500 test" in said and "2 openers" in said
    config = command.parse(refusal.Config, "", ["--config", str(preset)])
    assert len(config.revision) == 40 and config.as_published and config.judged_by == "cast"
    assert f"cast at layer {config.condition_layers[0]}" in said


@pytest.mark.parametrize("name", CATEGORY_PRESETS)
def test_a_categories_preset_parses_and_has_a_plan(
    name, pytestconfig, published, monkeypatch, capsys
):
    monkeypatch.setattr(plan, "find_model", no_hub)
    preset = pytestconfig.rootpath / "recipes" / "cast" / f"{name}.toml"
    command.run(CategoriesConfig, categories_main, "", ["--config", str(preset), "--dry-run"])
    said = capsys.readouterr().out
    assert said.count("not to be had") == 1 and "10 test bases" in said
    config = command.parse(CategoriesConfig, "", ["--config", str(preset)])
    assert (
        config.unseen == ()
        and len(config.points) == 5
        and {p.split(":")[0] for p in config.points} <= set(config.seen)
    )


def test_a_gated_set_says_how_to_get_access(monkeypatch):
    def load_dataset(*_, **__):
        raise ValueError(
            "Dataset 'a/b' is a gated dataset on the Hub. You must be authenticated to access it."
        )

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    with pytest.raises(
        UserError,
        match=r"ask for access on its page, https://huggingface.co/datasets/a/b, then log in",
    ) as error:
        load_prompts("a/b@1234567", 0)
    assert "\n" not in str(error.value)


def test_published_splits_are_kept(published):
    splits = load_prompts("cast/condition_harmful.json,column=harmful", 0)
    assert [p.text for p in splits.test] == ["h"]
    assert len(splits.fit) == 14 and len(splits.tune) == 6  # 5 to 2, as test has its own
    assert load_openers("cast/behavior_refusal.json,column=non_compliant_responses") == [
        "I'm afraid I can't",
        "No.",
    ]
    with pytest.raises(
        UserError, match="of texts by column with ,column=NAME; it has compliant_responses"
    ):
        load_openers("cast/behavior_refusal.json,column=refusals")


def test_a_response_is_read_over_as_many_last_columns_as_the_first_one_has(runner):
    """By hand: positive and negative in turn, padded with token 0 on the tokenizer's side, means
    over every column."""
    contrast = ContrastSet(
        (Text(HARMFUL[0], "No, sorry."), Text(HARMFUL[2], "No.")),
        (Text(HARMFUL[0], "Sure, here it is, at once."), Text("Hi", "Yes.")),
    )
    found = record_with_pads(runner, contrast, [Site(1)], GENERATED)
    left = runner.chat.tokenizer.padding_side == "left"
    texts = [contrast.positive[0], contrast.negative[0], contrast.positive[1], contrast.negative[1]]
    rows = [runner.chat.prompt_ids(t.prompt) + runner.chat.response_ids(t.response) for t in texts]
    width, last = max(map(len, rows)), len(runner.chat.response_ids("No, sorry."))
    for i, row in enumerate(rows):
        gap = [0] * (width - len(row))
        ids = torch.tensor([gap + row if left else row + gap])
        mask = torch.tensor(
            [[0] * len(gap) + [1] * len(row) if left else [1] * len(row) + [0] * len(gap)]
        )
        with torch.no_grad():
            states = runner.hf(ids, attention_mask=mask, output_hidden_states=True).hidden_states[
                2
            ][0]
        side = found.positive if i % 2 == 0 else found.negative
        assert torch.allclose(side[Site(1)][i // 2], states[-last:].mean(0), atol=1e-4)


def test_pads_are_pooled_only_where_there_are_some(runner):
    alike = of_prompts([HARMFUL[0]] * 3, [HARMFUL[0]] * 3)
    ours, theirs = (
        runner.record(alike, [Site(1)], PROMPT),
        record_with_pads(runner, alike, [Site(1)], PROMPT),
    )
    assert torch.allclose(ours.positive[Site(1)], theirs.positive[Site(1)], atol=1e-4)
    mixed = of_prompts([HARMFUL[1]], [HARMFUL[2]])
    ours, theirs = (
        runner.record(mixed, [Site(1)], PROMPT),
        record_with_pads(runner, mixed, [Site(1)], PROMPT),
    )
    assert not torch.allclose(ours.positive[Site(1)], theirs.positive[Site(1)], atol=1e-2)
    assert torch.allclose(
        ours.negative[Site(1)], theirs.negative[Site(1)], atol=1e-4
    )  # the longest has no pads
    assert BATCH == 32


def test_published_directions_have_length_one_and_lie_before_their_blocks(runner, tmp_path):
    pairs = of_prompts(HARMFUL, HARMLESS)
    run = Run(Folder(tmp_path), runner)
    found = run.fit("it", pairs, block_outs([1, 2]), PROMPT, "pca_pairwise", directions)
    assert set(found) == {Site(1, "block_in"), Site(2, "block_in")}
    assert all(direction.vector.norm().item() == pytest.approx(1) for direction in found.values())
    short, long = (
        len(without_header(runner).chat.prompt_ids("Hi")),
        len(runner.chat.prompt_ids("Hi")),
    )
    assert short < long
    assert without_header(runner).chat.fingerprint() != runner.chat.fingerprint()


def test_a_run_as_published_steers_before_the_block_at_the_known_point(folder, tmp_path):
    for name, prompts in (("harmful", HARMFUL), ("harmless", HARMLESS)):
        rows = [{"prompt": f"{p} ({i})", "kind": "a"} for i in range(7) for p in prompts]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = refusal.Config(
        model=str(folder), harmful=str(tmp_path / "harmful.jsonl"), harmless=str(tmp_path / "harmless.jsonl"), as_published=True,
        condition_method="pca_pairwise", score="cast", condition_layers=(1,), threshold=0.03, fires_when="below", layers=(2, 3),
        strength=2.0, tune_prompts=2, max_broken=1.0, max_drift=100.0, max_new_tokens=4, out=tmp_path / "out",
    )  # fmt: skip
    refusal.main(config)
    program = load_programs(tmp_path / "out" / "programs.safetensors")["conditional"]
    assert [step.site for step in program.steps] == [Site(2, "block_in"), Site(3, "block_in")]
    assert all(
        step.op.strength == 2.0 and step.op.direction.vector.norm().item() == pytest.approx(1)
        for step in program.steps
    )
    (condition,) = program.conditions
    assert (condition.site, condition.threshold, condition.fires_when) == (
        Site(1, "block_in"),
        0.03,
        "below",
    )
    with pytest.raises(
        UserError, match=r"--threshold 0.03: is for one layer; give it with --condition-layers"
    ):
        refusal.main(replace(config, condition_layers=None))
