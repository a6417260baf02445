"""Every verb does what the same calls in Python do, and a mistake is one line and writes
nothing."""

from __future__ import annotations

import io
import json
import re

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from nnsteer import find_model, fit, load_directions, load_gguf, load_programs, load_svec
from nnsteer.__main__ import VERBS, main
from nnsteer.fit import threshold
from nnsteer.model.explain import explain
from nnsteer.model.runner import Runner
from nnsteer.program.condition import Condition
from nnsteer.program.files import load_conditions
from nnsteer.program.program import OPS, Program, add
from nnsteer.program.site import Site, block_outs
from nnsteer.program.span import LAST_PROMPT, PROMPT, Last
from nnsteer.texts.refusal import load_contrast
from nnsteer.texts.source import load_prompts

from conftest import HARMFUL, HARMLESS, MIXED

LIGHT = [verb.module for verb in VERBS.values() if verb.module.startswith("nnsteer.cli")]


def nnsteer(*args):
    main([str(arg) for arg in args])


def mistake(capsys, *args):
    """Gives the command, expects it to end at once, and returns what it said."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as stop:
        nnsteer(*args)
    said = capsys.readouterr().err.strip().splitlines()
    assert stop.value.code == 2
    assert len(said) == 1 and said[0].startswith("error: "), said
    return said[0]


@pytest.fixture(scope="module")
def work(folder, tmp_path_factory):
    """What a user has after fitting and tuning on the tiny model."""
    path = tmp_path_factory.mktemp("work")
    for name, prompts in (("harmful", HARMFUL), ("harmless", HARMLESS)):
        rows = [{"prompt": f"{p} ({i})"} for i in range(7) for p in prompts]
        (path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    sides = [
        "--positive",
        path / "harmful.jsonl",
        "--negative",
        path / "harmless.jsonl",
        "--model",
        folder,
    ]
    nnsteer("fit", *sides, "--method", "lda", "--out", path / "concept.safetensors")
    openers = [
        "--positive",
        "nnsteer:refusals.jsonl",
        "--negative",
        "nnsteer:compliances.jsonl",
        "--read",
        "last",
    ]
    out = ["--model", folder, "--out", path / "refusal.safetensors"]
    nnsteer("fit", "--prompts", path / "harmless.jsonl", *openers, *out)
    steer = [
        "--directions",
        path / "refusal.safetensors",
        "--layers",
        1,
        2,
        "--strength",
        0.5,
        "--span",
        "prompt",
    ]
    written = ["--out", path / "harmful.safetensors", "--program", path / "cast.safetensors"]
    nnsteer("tune", path / "concept.safetensors", *sides, *steer, *written)
    return path


@pytest.fixture(scope="module")
def tiny(folder):
    return Runner.open(find_model(str(folder)))


@pytest.fixture(scope="module")
def steer(work):
    """The addition that `work` steers by."""
    own = load_directions(work / "refusal.safetensors")
    return add({site: own[site] for site in block_outs([1, 2])}, 0.5, PROMPT)


def test_fit_writes_the_directions_that_python_fits(work, tiny):
    sides = (str(work / "harmful.jsonl"), str(work / "harmless.jsonl"))
    concept = fit.lda(tiny.record(load_contrast(*sides, None, 1000, 0), block_outs(range(4))))
    assert load_directions(work / "concept.safetensors") == concept
    openers = load_contrast(
        "nnsteer:refusals.jsonl", "nnsteer:compliances.jsonl", sides[1], 1000, 0
    )
    refusal = fit.mean_difference(tiny.record(openers, block_outs(range(4)), Last()))
    assert load_directions(work / "refusal.safetensors") == refusal


def test_fit_prints_lengths_and_the_tokens_that_it_reads(work, folder, tmp_path, capsys):
    sides = [
        "--positive",
        work / "harmful.jsonl",
        "--negative",
        work / "harmless.jsonl",
        "--model",
        folder,
    ]
    nnsteer(
        "fit",
        *sides,
        "--read",
        "last_prompt",
        "--layers",
        2,
        "--preview",
        "--out",
        tmp_path / "d.safetensors",
    )
    said = capsys.readouterr().out
    direction = load_directions(tmp_path / "d.safetensors")[Site(2)]
    assert direction.span == LAST_PROMPT
    assert re.search(rf"block_out\[2\] +{direction.vector.norm():.3g} +{direction.norm:.3g} ", said)
    shown = [line for line in said.splitlines() if "<|assistant|>" in line]
    assert len(shown) == 4 and all(
        line.endswith("[<|assistant|>]") and line.count("[") == 1 for line in shown
    )


def test_fit_exports_for_other_projects(work, folder, tmp_path, tiny):
    sides = [
        "--positive",
        work / "harmful.jsonl",
        "--negative",
        work / "harmless.jsonl",
        "--model",
        folder,
        "--method",
        "lda",
    ]
    wanted = load_directions(work / "concept.safetensors")
    for name, load, layers in (("d.svec", load_svec, range(4)), ("d.gguf", load_gguf, range(1, 4))):
        nnsteer("fit", *sides, "--out", tmp_path / name)
        found = load(tmp_path / name, tiny.model)
        assert tuple(found) == block_outs(layers)
        # CAST's vectors come back with length 1
        assert all(
            torch.allclose(d.unit().vector, wanted[site].unit().vector, atol=1e-6)
            for site, d in found.items()
        )


def test_tune_finds_the_point_of_the_sweep(work, tiny, folder, capsys):
    sides = [load_prompts(str(work / f"{name}.jsonl"), 0) for name in ("harmful", "harmless")]
    free = [Condition(d, 0.0) for d in load_directions(work / "concept.safetensors").values()]
    scores = {
        s: [tiny.scores([p.text for p in getattr(side, s)], free) for side in sides]
        for s in ("tune", "test")
    }
    point = threshold.condition_point(
        {
            c.site: threshold.sweep(scores["tune"][0][i], scores["tune"][1][i])
            for i, c in enumerate(free)
        }
    )
    found = load_conditions(work / "harmful.safetensors")["harmful"]
    assert (found.site, found.threshold, found.fires_when) == (
        point.site,
        point.threshold,
        point.fires_when,
    )
    given = [
        "--positive",
        work / "harmful.jsonl",
        "--negative",
        work / "harmless.jsonl",
        "--model",
        folder,
    ]
    nnsteer("tune", work / "concept.safetensors", *given)
    said = capsys.readouterr().out
    number = [c.site for c in free].index(point.site)
    for split, own in scores.items():
        quality = threshold.quality(
            *([found.holds(s) for s in side[number].tolist()] for side in own)
        )
        assert re.search(
            rf"{split} +{quality.f1:.3f} +{quality.precision:.3f} +{quality.recall:.3f}", said
        )


def test_tune_writes_programs_with_the_condition(work, steer):
    condition = load_conditions(work / "harmful.safetensors")["harmful"]
    variants = {"baseline": Program(), "unconditional": steer, "conditional": steer.when(condition)}
    assert load_programs(work / "cast.safetensors") == {
        **variants,
        "complement": steer.when(~condition),
    }


def test_generate_answers_as_the_runner_does(work, tiny, folder, steer, tmp_path, capsys):
    condition = load_conditions(work / "harmful.safetensors")["harmful"]
    saved = ["--programs", work / "cast.safetensors", "--variant", "conditional"]
    built = [
        "--directions",
        work / "refusal.safetensors",
        "--layers",
        1,
        2,
        "--strength",
        0.5,
        "--span",
        "prompt",
    ]
    ruled = [*built, "--conditions", work / "harmful.safetensors", "--when", "not harmful"]
    for i, (options, program) in enumerate(
        ((saved, steer.when(condition)), (built, steer), (ruled, steer.when(~condition)))
    ):
        out = tmp_path / f"{i}.jsonl"
        sampled = ["--max-new-tokens", 5, "--temperature", 0.8, "--seed", 3]
        nnsteer("generate", *MIXED, "--model", folder, *options, *sampled, "--out", out)
        rows = [json.loads(line) for line in out.read_text().splitlines()]
        for name, steps in (("unsteered", Program()), ("steered", program)):
            wanted = tiny.generate(MIXED, steps, 5, 0.8, 3)
            assert [row[name] for row in rows] == [c.text for c in wanted]
        assert [row["fired"] for row in rows] == [list(c.fired) for c in wanted]
    assert all(prompt[:40] in capsys.readouterr().out for prompt in MIXED[2:3])


def test_generate_takes_units_ops_and_prompts_from_files(work, tiny, folder, tmp_path):
    own = {site: d.relative() for site, d in load_directions(work / "refusal.safetensors").items()}
    (tmp_path / "more.csv").write_text("text,split\nHi there,a\nBye,b\nAnd now?,a\nNo more,a\n")
    for op in OPS:
        options = [
            "--directions",
            work / "refusal.safetensors",
            "--op",
            op,
            "--unit",
            "norm",
            "--strength",
            0.3,
        ]
        asked = ["Hi", "--file", f"{tmp_path / 'more.csv'},column=text,split=a", "--first", 2]
        nnsteer(
            "generate",
            *asked,
            "--model",
            folder,
            *options,
            "--max-new-tokens",
            3,
            "--out",
            tmp_path / f"{op}.jsonl",
        )
        rows = [json.loads(line) for line in (tmp_path / f"{op}.jsonl").read_text().splitlines()]
        prompts = ["Hi", "Hi there", "And now?"]
        assert [row["prompt"] for row in rows] == prompts
        assert [row["steered"] for row in rows] == [
            c.text for c in tiny.generate(prompts, OPS[op](own, 0.3), 3)
        ]


def test_generate_chats_line_by_line_until_the_input_ends(
    work, tiny, folder, steer, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{HARMFUL[0]}\n\nWhat [b]is[/b] a star?\n"))
    program = ["--programs", work / "cast.safetensors", "--variant", "unconditional"]
    nnsteer(
        "generate",
        "--model",
        folder,
        *program,
        "--max-new-tokens",
        4,
        "--out",
        tmp_path / "turns.jsonl",
    )
    rows = [json.loads(line) for line in (tmp_path / "turns.jsonl").read_text().splitlines()]
    prompts = [HARMFUL[0], "What [b]is[/b] a star?"]
    assert [row["prompt"] for row in rows] == prompts
    assert [row["steered"] for row in rows] == [
        tiny.generate([p], steer, 4)[0].text for p in prompts
    ]
    said = capsys.readouterr().out
    assert said.index(HARMFUL[0]) < said.index("unsteered") < said.index("What [b]is[/b] a star?")


def test_explain_prints_and_draws_what_explain_finds(work, tiny, folder, tmp_path, capsys):
    saved = ["--programs", work / "cast.safetensors", "--variant", "conditional"]
    nnsteer(
        "explain",
        *MIXED[:2],
        "--model",
        folder,
        *saved,
        "--new-tokens",
        2,
        "--figure",
        tmp_path / "e.png",
    )
    program = load_programs(work / "cast.safetensors")["conditional"]
    assert capsys.readouterr().out.startswith(str(explain(tiny, program, MIXED[:2], 2)))
    assert (tmp_path / "e.png").read_bytes().startswith(b"\x89PNG")


def test_a_baked_folder_is_loaded_by_plain_transformers_and_steers_the_same(
    work, tiny, folder, tmp_path
):
    nnsteer(
        "bake",
        "--model",
        folder,
        "--directions",
        work / "refusal.safetensors",
        "--layers",
        1,
        "--out",
        tmp_path / "steered",
    )
    model, tokenizer = (
        kind.from_pretrained(tmp_path / "steered") for kind in (AutoModelForCausalLM, AutoTokenizer)
    )
    program = add({Site(1): load_directions(work / "refusal.safetensors")[Site(1)]})
    for prompt in MIXED:
        turn = [{"role": "user", "content": prompt}]
        ids = tokenizer(
            tokenizer.apply_chat_template(turn, add_generation_prompt=True, tokenize=False),
            add_special_tokens=False,
        )
        with torch.no_grad():
            logits = model(torch.tensor([ids["input_ids"]])).logits[0, -1]
        assert (logits - tiny.logits([prompt], program)[0][-1]).abs().max() < 1e-3
        assert (logits - tiny.logits([prompt])[0][-1]).abs().max() > 0.1
    assert [p.name for p in tmp_path.iterdir()] == ["steered"]


def test_a_recipe_and_the_trainer_get_their_options(monkeypatch, tmp_path):
    seen = []
    for module in ("recipes.refusal", "recipes.implementations", "organism.__main__"):
        monkeypatch.setattr(f"nnsteer.{module}.main", seen.append)
    nnsteer("recipe", "refusal", "--strength", 1.5, "--layers", 1, 2, "--out", tmp_path)
    nnsteer("recipe", "implementations", "--coefficient", 2)
    nnsteer("organism", "train", "--arch", "gpt2")
    refusal, implementations, organism = seen
    assert (refusal.strength, refusal.layers, refusal.out) == (1.5, (1, 2), tmp_path)
    assert implementations.coefficient == 2 and organism.arch == "gpt2"


BAD_STUDY = """
model = {model!r}
measures = ["length"]
[sets.harmful]
source = "harmful.jsonl"
[directions.d]
positive = "harmful.jsonl"
negative = "harmless.jsonl"
[[variants]]
direction = "d"
layer = 9
"""
RULE = ["--directions", "refusal.safetensors", "--conditions", "harmful.safetensors"]
SIDES = ["--positive", "harmful.jsonl", "--negative", "harmless.jsonl"]
STEER = ["--directions", "refusal.safetensors"]


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["fti"], "fti: no such verb; did you mean fit?"),
        (["recipe", "refusl"], "recipe refusl: no such verb; did you mean recipe refusal?"),
        (["fit", "--positive", "nowhere.jsonl", "--negative", "harmless.jsonl"], "data nowhere.jsonl: no such file"),
        (["fit", "--positive", "harmful.jsonl"], "--negative"),
        (["fit", *SIDES, "--method", "magic"], "method"),
        (["fit", *SIDES, "--out", "d.json"], "d.json: unknown kind of file; give a name that ends in .safetensors or .svec"),
        (["fit", *SIDES, "--out", "cast.safetensors"], "cast.safetensors: is there already"),
        (["fit", *SIDES, "--out", "no/d.safetensors"], "no/d.safetensors: there is no folder no"),
        (["fit", *SIDES, "--layers", "4"], "layer 4: this model has 4 layers"),
        (["fit", *SIDES, "--layers", "0", "--out", "d.gguf"], "--layers 0: a .gguf holds none for block 0"),
        (["fit", *SIDES, "--stream", "mlp_out", "--out", "d.svec"], "--stream mlp_out: a .svec holds directions at"),
        (["fit", *SIDES, "--read", "response"], "tokens generated: some text has none there"),
        (["fit", *SIDES, "--pairs", "0"], "--pairs 0: must be at least 1"),
        (["tune", "nowhere.safetensors", *SIDES], "nowhere.safetensors: can't be read as safetensors"),
        (["tune", "cast.safetensors", *SIDES], "cast.safetensors: expected directions saved by nnsteer, found programs"),
        (["tune", "concept.safetensors", *SIDES, "--condition-layers", "7"], "no direction for layer 7; there is one for 0, 1"),
        (["tune", "concept.safetensors", *SIDES, "--out", "not.safetensors"], "rules know the condition by it; give one word"),
        (["tune", "concept.safetensors", *SIDES, "--max-false-alarms", "5"], "--max-false-alarms 5.0: give a share"),
        (["tune", "concept.safetensors", *SIDES, *STEER], "--directions: steer in the programs that --program FILE writes"),
        (["tune", "concept.safetensors", *SIDES, "--program", "p.safetensors"], "--directions: give a file that"),
        (["generate", "Hi"], "give either --programs FILE or --directions FILE"),
        (["generate", "Hi", *STEER, "--programs", "cast.safetensors"], "give either --programs FILE or --directions FILE"),
        (["generate", "Hi", "--programs", "cast.safetensors"], "holds several programs; give one with --variant, of baseline, "),
        (["generate", "Hi", "--programs", "cast.safetensors", "--variant", "x"], "has no variant x; give one with --variant"),
        (["generate", "Hi", "--programs", "cast.safetensors", "--strength", "2"], "--programs: brings its own directions"),
        (["generate", "Hi", "--programs", "."], "programs.safetensors: can't be read as safetensors"),
        (["generate", "Hi", *STEER, "--variant", "x"], "--variant x: names one of the --programs"),
        (["generate", "Hi", *STEER, "--when", "harmful"], "--when harmful: give the files of its conditions"),
        (["generate", "Hi", *RULE, "--when", "harmful and"], "rule 'if harmful and then"),
        (["generate", "Hi", *RULE, "--when", "legal"], "no condition 'legal', there is harmful"),
        (["generate", "Hi", *RULE, "harmful.safetensors"], "another file has harmful too"),
        (["generate", "Hi", *STEER, "--strength", "nan"], "--strength nan: must be a finite number"),
        (["generate", "Hi", *STEER, "--temperature", "-1"], "--temperature -1.0: must be 0"),
        (["generate", "Hi", *STEER, "--max-new-tokens", "0"], "--max-new-tokens 0: must be at least 1"),
        (["generate", "Hi", *STEER, "--model", "nnsteer:organism"], "is 32 wide, and nnsteer:organism 128; fit it on this model"),
        (["generate", "--file", "nowhere.csv", *STEER], "data nowhere.csv: no such file"),
        (["explain", *STEER], "no prompts: give some, or --file SOURCE"),
        (["explain", "Hi", *STEER, "--figure", "e.docx"], "e.docx: unknown kind of file"),
        (["bake", *STEER, "--span", "prompt"], "weights treat all tokens alike"),
        (["bake", *STEER, "--conditions", "harmful.safetensors"], "weights can't decide a condition"),
        (["bake", *STEER, "--op", "ablate"], "the residual stream is a sum"),
        (["bake", *STEER, "--out", "cast.safetensors"], "is there already"),
        (["study", "nowhere.toml"], "nowhere.toml: no such file; give a study"),
        (["study", "bad.toml", "--dry-run"], "[[variants]] layer 9: this model has 4 layers"),
        (["study", "bad.toml"], "[[variants]] layer 9: this model has 4 layers"),
        (["report", "."], "no study and no finished run in it; give the folder of a study"),
        (["compare", ".", "."], "holds no study.json"),
        (["judge", ".", "--judge", "nowhere.toml"], "holds no answers"),
        (["organism", "train", "--epochs", "0"], "--epochs 0: must be at least 1"),
        (["recipe", "refusal", "--layers", "9"], "layer 9: this model has 4 layers"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_line_and_writes_nothing(capsys, monkeypatch, work, folder, args, says):
    monkeypatch.chdir(work)
    if not (work / "bad.toml").exists():
        (work / "bad.toml").write_text(BAD_STUDY.format(model=str(folder)))
    monkeypatch.setattr(
        "nnsteer.model.load.AutoModelForCausalLM.from_pretrained",
        lambda *_, **__: pytest.fail("weights were loaded"),
    )
    before = sorted(work.rglob("*"))
    takes_a_model = (
        args[0] in ("fit", "tune", "generate", "explain", "bake") and "--model" not in args
    )
    assert says in mistake(capsys, *args, *(["--model", folder] if takes_a_model else []))
    assert sorted(work.rglob("*")) == before


def test_directions_of_other_weights_of_the_same_shape_are_refused(work, folder, tmp_path, capsys):
    other = tmp_path / "other"
    model = AutoModelForCausalLM.from_pretrained(folder)
    with torch.no_grad():
        model.get_input_embeddings().weight.mul_(1.5)
    model.save_pretrained(other)
    AutoTokenizer.from_pretrained(folder).save_pretrained(other)
    for verb in (["generate", "Hi"], ["explain", "Hi"], ["bake", "--out", tmp_path / "steered"]):
        capsys.readouterr()
        with pytest.raises(SystemExit) as stop:
            nnsteer(*verb, "--directions", work / "refusal.safetensors", "--model", other)
        assert stop.value.code == 2 and capsys.readouterr().err.rstrip().endswith(
            "fit it again on this model"
        )
    assert not (tmp_path / "steered").exists()
