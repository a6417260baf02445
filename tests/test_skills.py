"""The skills recipe: places, presets, and runs from documents to page."""

from __future__ import annotations

import json
import random
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from nnsteer import command, find_model, fit
from nnsteer.cli import report
from nnsteer.errors import UserError
from nnsteer.measure import skill
from nnsteer.measure.skill import hits
from nnsteer.measure.tradeoff import CHOSEN, DRAWS, MATCHED, UNSTEERED
from nnsteer.model.runner import Runner
from nnsteer.organism.build import build_tokenizer
from nnsteer.program.files import load, load_directions, load_programs, save_directions
from nnsteer.program.program import Program
from nnsteer.program.site import Site
from nnsteer.recipes.skills import Config, main
from nnsteer.recipes.skills.options import read_places
from nnsteer.texts import documents
from nnsteer.texts.skills import load_documents

PRESETS = sorted(Path(__file__).parent.parent.glob("recipes/skills*.toml"))


def test_places():
    assert read_places(["3", "2+1"], 4) == {"layer 3": (3,), "layers 1+2": (1, 2)}
    assert list(read_places(None, 4)) == ["layer 0", "layer 1", "layer 2", "layer 3", "layers 1+2"]
    assert read_places(None, 1) == {"layer 0": (0,)}


@pytest.mark.parametrize("preset", PRESETS, ids=lambda path: path.stem)
def test_presets_are_read(preset):
    config = command.parse(Config, "", ["--config", str(preset)])
    assert config.coefficients[0] == 0 and config.skill and config.retained
    if preset.stem == "skills":
        assert config == Config()


# runs


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A very small model that was shown some code and some prose, on disk: it predicts both a
    little."""
    torch.manual_seed(0)
    draw = random.Random(0)
    texts = [
        *draw.sample(documents.code("train"), 200),
        *draw.sample(documents.prose("train"), 200),
    ]
    tokenizer = build_tokenizer(texts, 400)
    hf = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer), hidden_size=32, intermediate_size=64, num_hidden_layers=3, num_attention_heads=4,
            num_key_value_heads=2, max_position_embeddings=64, tie_word_embeddings=True, bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
        )
    )  # fmt: skip
    rows = torch.tensor([row[:32] for row in tokenizer(texts)["input_ids"] if len(row) >= 32])
    optimiser = torch.optim.AdamW(hf.parameters(), lr=1e-2)
    for _ in range(80):
        batch = rows[torch.randint(len(rows), (16,))]
        optimiser.zero_grad()
        hf(batch, labels=batch).loss.backward()
        optimiser.step()
    path = tmp_path_factory.mktemp("models") / "coder"
    hf.save_pretrained(path)
    tokenizer.save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def config(model, tmp_path_factory):
    return Config(
        model=str(model), fit_documents=40, tune_documents=12, test_documents=20, max_tokens=24, layers=("0", "1", "0+1"),
        coefficients=(0.0, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0), out=tmp_path_factory.mktemp("run") / "out",
    )  # fmt: skip


@pytest.fixture(scope="module")
def done(config):
    main(config)
    return config.out


def jsonl(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def steps(out):
    """The rows of each domain's documents under a variant, in the order of the documents, by split,
    place, coefficient and domain."""
    axes, found = json.loads((out / "variants.json").read_text()), {}
    for row in sorted(lines(out / "rows.jsonl"), key=lambda row: int(row["kind"])):
        domain, split = row["set"].split()
        found.setdefault((split, *axes[row["variant"]].values(), domain), []).append(row)
    return found


def counts(rows):
    """Of each document, what was counted."""
    return [row["value"] for row in rows]


def test_the_folder_holds_everything(done):
    names = {str(p.relative_to(done)) for p in done.rglob("*") if p.is_file() and p.name != ".lock"}
    pictures = ["trade-off-top-1", "trade-off-top-10", "kept", "gap", "coefficients"]
    tables = [
        "config.json",
        "choice.json",
        "seconds.json",
        "summary.json",
        "variants.json",
        "rows.jsonl",
        "report.html",
    ]
    tensors = [f"{name}.safetensors" for name in ("direction", "permuted", "programs")]
    assert names == {
        *tables,
        *tensors,
        *(f"figures/{p}.{ending}" for p in pictures for ending in ("png", "pdf")),
    }
    facts = json.loads((done / "config.json").read_text())
    assert set(facts["data"]) == {"skill", "retained"} and facts["model"]["weights"]


def test_rows_choice_and_summary_agree(done, config):
    rows, summary = lines(done / "rows.jsonl"), json.loads((done / "summary.json").read_text())
    choice, asked = json.loads((done / "choice.json").read_text()), steps(done)
    share = {
        at: sum(c["top1"] for c in counts(found)) / sum(c["tokens"] for c in counts(found))
        for at, found in asked.items()
    }
    assert all(
        len(found) == {"tune": 12, "test": 20}[split] for (split, *_), found in asked.items()
    )
    assert len({row["key"] for row in rows}) == len(
        rows
    )  # nothing twice, the unsteered model included
    assert {variant for split, variant, *_ in share if split == "tune"} == {
        UNSTEERED,
        "layer 0",
        "layer 1",
        "layers 0+1",
    }
    for split in ("tune", "test"):
        base = [share[split, UNSTEERED, 0.0, domain] for domain in ("skill", "retained")]
        for variant in {v for s, v, *_ in share if s == split} - {UNSTEERED, CHOSEN}:
            tried = sorted({c for s, v, c, _ in share if (s, v) == (split, variant)})
            skill, retained = (
                [1.0, *(share[split, variant, c, d] / base[i] for c in tried)]
                for i, d in enumerate(("skill", "retained"))
            )
            assert skill[-1] < 0.05 or tried[-1] == 64.0 or skill[-1] < 0.15
            at = next(i for i, value in enumerate(skill) if value <= 0.9)
            kept = np.interp(0.9, [skill[at], skill[at - 1]], [retained[at], retained[at - 1]])
            if split == "tune":
                assert choice["kept"][variant] == pytest.approx(kept)
            else:
                cell = summary["variants"][variant]
                assert cell["kept"]["0.9"]["value"] == pytest.approx(kept)
                assert cell["gap"]["value"] == pytest.approx(
                    max(r - s for s, r in zip(skill, retained, strict=True))
                )
                assert [step["coefficient"] for step in cell["curve"]] == [0.0, *tried]
    kept = choice["kept"]
    assert kept[choice["best"]] == max(kept.values()) and kept[choice["worst"]] == min(
        kept.values()
    )
    best, worst, matched = (
        summary["variants"][name]["kept"]["0.9"]["value"]
        for name in (choice["best"], choice["worst"], MATCHED)
    )
    assert summary["comparisons"][choice["worst"]]["T@0.9"]["value"] == pytest.approx(best - worst)
    assert summary["comparisons"][MATCHED]["T@0.9"]["value"] == pytest.approx(best - matched)
    dosed = (
        share["test", CHOSEN, choice["coefficient"], "skill"]
        / share["test", UNSTEERED, 0.0, "skill"]
    )
    assert summary["chosen"]["skill"]["value"] == pytest.approx(dosed)
    assert all(
        0 < summary["baseline"][d]["top1"] < summary["baseline"][d]["top10"] < 1
        for d in ("skill", "retained")
    )
    assert set(summary["seconds"]) == {"direction", "tune", "test"}


def test_the_direction_is_the_mean_over_last_tokens_and_no_tested_document_is_fitted_on(
    done, config
):
    files = find_model(config.model, templated=False)
    domains = [load_documents(s, (40, 12, 20), 0) for s in (config.skill, config.retained)]
    hf = Runner.open(files).hf
    means = []
    for splits in domains:
        with torch.no_grad():
            states = [
                hf(
                    torch.tensor([files.chat.prompt_ids(d.text)[:24]]), output_hidden_states=True
                ).hidden_states[2][0, -1]
                for d in splits.fit
            ]
        means.append(torch.stack(states).mean(0))
        assert not {d.text for d in splits.fit} & {d.text for d in (*splits.tune, *splits.test)}
    found = load_directions(done / "direction.safetensors")[Site(1)]
    assert torch.allclose(found.vector, means[1] - means[0], atol=1e-4)


def test_V9_permuted_controls_keep_the_entries_of_each_mean(done):
    directions, draws = (
        load_directions(done / "direction.safetensors"),
        load(done / "permuted.safetensors", "directions"),
    )
    assert len(draws) == DRAWS * len(directions) and len({d.fingerprint for d in draws}) == len(
        draws
    )
    for d in draws:
        own = directions[d.site]
        assert torch.equal(d.origin.sort().values, own.origin.sort().values)
        assert torch.allclose(
            (d.vector + d.origin).sort().values, (own.vector + own.origin).sort().values, atol=1e-5
        )
        matched = fit.norm_matched({d.site: d}, directions)[d.site]
        assert matched.vector.norm().item() == pytest.approx(own.vector.norm().item(), rel=1e-5)


def test_the_saved_program_is_what_the_chosen_row_was_measured_with(done, config):
    programs = load_programs(done / "programs.safetensors")
    assert programs["unsteered"] == Program()
    rows = next(
        rows
        for (_, place, _, domain), rows in steps(done).items()
        if (place, domain) == (CHOSEN, "skill")
    )
    own = load_documents(config.skill, (40, 12, 20), 0).test
    runner = Runner.open(find_model(config.model, templated=False), batch_size=3)
    assert hits(24).values(runner, [programs["steered"]] * len(own), own) == counts(rows)


def test_the_page_stands_alone_and_marks_the_papers_figures(done):
    page = (done / "report.html").read_text()
    assert page.count("data:image/png;base64,") == 5 and "not measured here" in page
    assert not re.search(r"""(src|href)=["']?(https?:|//|[\w./]+\.(png|css|js)\b)""", page)


def test_a_killed_run_goes_on_and_measures_nothing_twice(done, config, tmp_path, monkeypatch):
    out = tmp_path / "killed"
    shutil.copytree(done, out)
    before = lines(out / "rows.jsonl")
    cut = (out / "rows.jsonl").read_bytes().splitlines(keepends=True)
    (out / "rows.jsonl").write_bytes(b"".join(cut[:30]) + cut[30][:25])
    (out / "summary.json").unlink()
    asked, of_tokens = [], skill.of_tokens
    monkeypatch.setattr(skill, "of_tokens", lambda *a: asked.extend(a[-1]) or of_tokens(*a))
    monkeypatch.setattr(Runner, "moments", None)  # the direction is there
    main(replace(config, out=out, batch_size=7))
    assert len(asked) == len(before) - 30 and lines(out / "rows.jsonl") == before
    summaries = [json.loads((path / "summary.json").read_text()) for path in (out, done)]
    assert all(
        summaries[0][key] == summaries[1][key]
        for key in ("variants", "comparisons", "chosen", "choice")
    )
    report.main(report.Config(out))
    assert json.loads((out / "summary.json").read_text()) == summaries[0]


def test_the_simulated_server_gives_the_same_rows(done, config, tmp_path):
    main(replace(config, out=tmp_path / "there", remote="local"))
    assert lines(tmp_path / "there" / "rows.jsonl") == lines(done / "rows.jsonl")


def test_drifting_reads_on_through_the_documents(config, tmp_path):
    main(replace(config, drifting=True, layers=("1",), test_documents=5, out=tmp_path / "drift"))
    own = {
        coefficient: rows
        for (split, place, coefficient, domain), rows in steps(tmp_path / "drift").items()
        if (split, domain) == ("test", "skill") and place in (UNSTEERED, "layer 1")
    }
    numbers = [[int(row["kind"]) for row in own[coefficient]] for coefficient in sorted(own)]
    assert numbers == [list(range(5 * n, 5 * n + 5)) for n in range(len(own))]
    assert len(own) > 3 and len(
        {row["prompt"] for rows in own.values() for row in rows}
    ) == 5 * len(own)  # none twice


@pytest.mark.parametrize(
    "changes, said",
    [
        ({"layers": ("1", "7")}, r"layer 7: this model has 3 layers; give layers from 0 to 2"),
        (
            {"layers": ("1-2",)},
            r"--layers 1-2: not a layer; give layers such as 10 or, to steer several together, 10\+15",
        ),
        ({"coefficients": (0.5, 1.0)}, r"--coefficients 0\.5 1: must rise from 0"),
        ({"coefficients": (0.0, 2.0, 1.0)}, r"--coefficients 0 2 1: must rise from 0"),
        ({"coefficients": (0.0, float("inf"))}, r"must rise from 0"),
        ({"max_tokens": 1}, r"--max-tokens 1: must be at least 2"),
        ({"test_documents": 0}, r"--test-documents 0: must be at least 1"),
        (
            {"skill": ("a.jsonl", "b.jsonl", "c.jsonl")},
            r"\(a.jsonl, b.jsonl, c.jsonl\): give one, or one to fit on and one to tune and test on",
        ),
        ({"skill": ()}, r"sources of documents \(none\): give one, or"),
        ({"layers": ()}, r"--layers: names none; give layers such as 10"),
        ({"skill": ("nowhere.jsonl",)}, r"data nowhere\.jsonl: no such file"),
        ({"retained": ("org/name,column=text",)}, r"needs a pinned revision"),
        ({"seed": 5}, r"already holds another run \(seed differ\)"),
    ],
)
def test_mistakes_are_said_before_any_weights_are_loaded(done, config, changes, said, monkeypatch):
    monkeypatch.setattr("nnsteer.study.run.open_runner", None)
    with pytest.raises(UserError, match=said):
        main(replace(config, **changes))


def test_a_model_without_the_skill_and_coefficients_that_are_too_small_are_refused(
    config, folder, tmp_path
):
    with pytest.raises(
        UserError,
        match="takes a tenth of the skill away at no layer of the tune split; give larger --coeff",
    ):
        main(replace(config, coefficients=(0.0, 1e-6), out=tmp_path / "small"))
    blank = jsonl(
        tmp_path / "blank.jsonl", [{"prompt": f"\u4e00{chr(0x4E01 + i)}\u4e02"} for i in range(40)]
    )
    with pytest.raises(
        UserError, match="skill: the unsteered model predicts no token of its tune documents"
    ):
        main(
            replace(
                config, model=str(folder), skill=(blank,), layers=("1",), out=tmp_path / "blank"
            )
        )


def test_a_direction_of_another_model_is_refused(done, config, tmp_path):
    out = tmp_path / "copy"
    shutil.copytree(done, out)
    foreign = [
        replace(d, model=replace(d.model, name="elsewhere", weights="0"))
        for d in load_directions(out / "direction.safetensors").values()
    ]
    save_directions(out / "direction.safetensors", foreign)
    with pytest.raises(UserError, match=r"direction\.safetensors was fitted on elsewhere"):
        main(replace(config, out=out))
