"""A study is complete, keyed, resumable and the same however it is packed."""

from __future__ import annotations

import json
import math
import os
import random
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from nnsteer.errors import UserError
from nnsteer.fit import random_like
from nnsteer.folder import open_folder
from nnsteer.measure.kinds import AnswerMeasure, ModelMeasure
from nnsteer.program.program import Program, add
from nnsteer.program.site import Site
from nnsteer.study.build import name_of
from nnsteer.study.cells import BASELINE, Variant
from nnsteer.study.spec import read_spec
from nnsteer.study.study import Study, run
from nnsteer.texts.sets import PromptSet
from nnsteer.texts.source import Prompt

from conftest import HARMFUL, MIXED

LENGTH = AnswerMeasure("length", "", False, lambda answers: [float(len(a.ids)) for a in answers])


def first_token(runner, programs, prompts):
    return [
        row[0].argmax().item() * 1.0 for row in runner.logits([p.text for p in prompts], programs)
    ]


FIRST = ModelMeasure("first token", "", False, first_token)


def study(directions, strengths=(0.5, 2.0), measures=(LENGTH, FIRST)):
    variants = [Variant(BASELINE, Program(), {})]
    for layer in (1, 2, 3):
        own = {Site(layer): directions[Site(layer)]}
        variants += [
            Variant(f"add {layer} {s}", add(own, s), {"layer": layer, "strength": s})
            for s in strengths
        ]
        variants.append(Variant(f"random {layer}", add(random_like(own, 0), 1.0), {}))
    sets = tuple(
        PromptSet(name, tuple(map(Prompt, texts)))
        for name, texts in (("harmful", HARMFUL), ("mixed", MIXED))
    )
    return Study(tuple(variants), sets, measures, {}, 6)


def lines(folder, name):
    return [json.loads(line) for line in (Path(folder.path) / name).read_text().splitlines()]


def without_scores(row):
    return {name: value for name, value in row.items() if name != "scores"}


def as_set(folder, name):
    rows = [json.dumps(without_scores(row), sort_keys=True) for row in lines(folder, name)]
    assert len(rows) == len(set(rows))
    return set(rows)


@pytest.fixture
def folder(tmp_path):
    return open_folder(tmp_path / "study", {}, {})


def test_every_cell_has_its_row_and_packed_rows_are_those_of_one_variant_at_a_time(
    runner, directions, folder
):
    whole = study(directions)
    run(whole, runner.with_batch_size(16), folder)
    rows, answers = lines(folder, "rows.jsonl"), lines(folder, "completions.jsonl")
    prompts = [(s.name, p.text) for s in whole.sets for p in s.prompts]
    assert {(r["variant"], r["set"], r["prompt"], r["measure"]) for r in rows} == {
        (v.name, *p, m) for v in whole.variants for p in prompts for m in ("length", "first token")
    }
    for variant in whole.variants:
        apart = runner.generate([p for _, p in prompts], variant.programs, 6)
        together = {
            (a["set"], a["prompt"]): a["completion"]
            for a in answers
            if a["variant"] == variant.name
        }
        assert together == {p: c.text for p, c in zip(prompts, apart, strict=True)}
        for row in (r for r in rows if r["variant"] == variant.name and r["measure"] == "length"):
            completion = next(
                c for p, c in zip(prompts, apart, strict=True) if p == (row["set"], row["prompt"])
            )
            assert row["value"] == len(completion.ids)


def test_a_second_run_does_nothing_and_a_changed_study_redoes_only_what_changed(
    runner, directions, folder, monkeypatch
):
    run(study(directions), runner, folder)
    before, answers = lines(folder, "rows.jsonl"), lines(folder, "completions.jsonl")
    generated = []
    original = type(runner).generate

    def counting(self, prompts, *args, **kwargs):
        generated.append(len(prompts))
        return original(self, prompts, *args, **kwargs)

    monkeypatch.setattr(type(runner), "generate", counting)
    run(study(directions), runner, folder)
    assert generated == [] and lines(folder, "rows.jsonl") == before

    changed = study(directions, strengths=(0.5, 3.0))
    run(changed, runner, folder)
    assert sum(generated) == 3 * len({*HARMFUL, *MIXED})  # strength 3.0 at three layers
    keys = {row["key"] for row in before}
    assert len(keys & {row["key"] for row in lines(folder, "rows.jsonl")}) == len(keys) * 7 // 10
    assert {row["variant"] for row in lines(folder, "rows.jsonl")} == {
        v.name for v in changed.variants
    }

    generated.clear()
    run(study(directions), runner, folder)  # the first version again: nothing was lost
    assert generated == []
    assert {row["key"] for row in lines(folder, "rows.jsonl")} == {row["key"] for row in before}
    assert len(lines(folder, "completions.jsonl")) == len(answers)

    run(study(directions, measures=(LENGTH,)), runner, folder)
    assert generated == [] and {row["measure"] for row in lines(folder, "rows.jsonl")} == {"length"}


def test_a_renamed_variant_set_or_kind_keeps_its_results(runner, directions, folder, monkeypatch):
    run(study(directions), runner, folder)
    before = {name: lines(folder, name) for name in ("completions.jsonl", "rows.jsonl")}
    whole = study(directions)
    variants = tuple(replace(v, name=f"new {v.name}") for v in whole.variants)
    sets = tuple(
        PromptSet(s.name.upper(), tuple(replace(p, kind="k") for p in s.prompts))
        for s in whole.sets
    )
    for verb in ("generate", "logits"):
        monkeypatch.setattr(type(runner), verb, lambda *_, **__: pytest.fail("the model was asked"))
    lengths = replace(LENGTH, values=lambda _: pytest.fail("a value was taken again"))
    run(replace(whole, variants=variants, sets=sets, measures=(lengths, FIRST)), runner, folder)
    for name, rows in before.items():
        renamed = [
            row | {"variant": f"new {row['variant']}", "set": row["set"].upper(), "kind": "k"}
            for row in rows
        ]
        assert as_set(folder, name) == {
            json.dumps(without_scores(row), sort_keys=True) for row in renamed
        }


def test_prompts_of_two_sets_are_answered_and_measured_once(
    runner, directions, folder, monkeypatch
):
    asked, original = [], type(runner).generate

    def generate(self, prompts, *a, **k):
        asked.extend(prompts)
        return original(self, prompts, *a, **k)

    monkeypatch.setattr(type(runner), "generate", generate)
    judged = []
    counting = replace(
        LENGTH, values=lambda answers: judged.extend(answers) or LENGTH.values(answers)
    )
    run(study(directions, measures=(counting,)), runner, folder)
    distinct = {*HARMFUL, *MIXED}
    assert len(asked) == 10 * len(distinct) < 10 * (len(HARMFUL) + len(MIXED))
    assert (
        len(judged)
        == len(set(judged))
        == len({(a["prompt"], *a["ids"]) for a in lines(folder, "completions.jsonl")})
    )
    assert len(lines(folder, "rows.jsonl")) == 10 * (len(HARMFUL) + len(MIXED))


def test_values_that_could_not_be_had_are_asked_for_again(runner, directions, folder):
    for value, found in ((math.nan, None), (1.0, 1.0)):
        unsure = AnswerMeasure(
            "unsure", "", True, lambda answers, value=value: [value for _ in answers]
        )
        run(study(directions, measures=(unsure,)), runner, folder)
        assert {row["value"] for row in lines(folder, "rows.jsonl")} == {found}
    assert [row["value"] for row in lines(folder, "rows.jsonl")] == [1.0] * 80


def test_out_of_memory_halves_the_batch_and_loses_nothing(runner, directions, folder, monkeypatch):
    original, sizes = type(runner).generate, []

    def small(self, prompts, *args, **kwargs):
        sizes.append(len(prompts))
        if len(prompts) > 5:
            raise torch.OutOfMemoryError("made")
        return original(self, prompts, *args, **kwargs)

    monkeypatch.setattr(type(runner), "generate", small)
    run(study(directions), runner.with_batch_size(16), folder)
    assert sizes[:3] == [16, 8, 4] and max(sizes[3:]) == 4
    assert len(as_set(folder, "completions.jsonl")) == 10 * 8
    monkeypatch.setattr(
        type(runner), "generate", lambda self, prompts, *a, **k: small(self, prompts * 9, *a, **k)
    )
    with pytest.raises(UserError, match="out of memory with a single prompt"):
        run(study(directions, strengths=(7.0,)), runner.with_batch_size(2), folder)


def test_a_second_process_is_kept_out(runner, directions, folder):
    hold = "import sys, filelock; lock = filelock.FileLock(sys.argv[1]); lock.acquire(timeout=20); print('in', flush=True); input()"
    command = [sys.executable, "-c", hold, str(folder / ".lock")]
    folder.lock.release()
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout.readline() == "in\n"
        with pytest.raises(UserError, match="another process is writing there"):
            run(study(directions), runner, folder)
        other.kill()
    run(study(directions, strengths=(1.0,)), runner, folder)  # a killed process's lock goes with it


KILLED = """
import os, sys
sys.path.insert(0, {tests!r})
from conftest import *
from test_study import study
from nnsteer.study.study import Study, run
from nnsteer.folder import open_folder
from pathlib import Path
torch.set_num_threads(1)
tokenizer = build_tokenizer([*HARMFUL, *HARMLESS, *MIXED] * 3, 400)
runner = Runner.wrap(tiny("llama", tokenizer), Chat(tokenizer), "tiny-llama", batch_size=4)
directions = fit.mean_difference(runner.record(of_prompts(HARMFUL, HARMLESS), block_outs(range(4))))
for folder in sys.stdin:
    child = os.fork()
    if not child:
        run(study(directions), runner, open_folder(Path(folder.strip()), {{}}, {{}}))
        os._exit(0)
    print(child, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


@pytest.mark.slow
def test_kill_9_at_random_moments_loses_repeats_and_tears_nothing(tmp_path):
    """The processes that are killed are forks of one that has the model."""
    script = tmp_path / "killed.py"
    script.write_text(KILLED.format(tests=str(Path(__file__).parent)))
    command, pipe = [sys.executable, str(script)], subprocess.PIPE
    environment = os.environ | {"TOKENIZERS_PARALLELISM": "false"}
    with subprocess.Popen(
        command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, text=True, env=environment
    ) as parent:

        def start(name):
            parent.stdin.write(f"{tmp_path / name}\n")
            parent.stdin.flush()
            return int(parent.stdout.readline())

        def ended():
            return int(parent.stdout.readline())

        start("calm")
        began = time.monotonic()
        assert ended() == 0
        seconds = time.monotonic() - began
        rng, kills = random.Random(0), 0
        while kills < 30:
            child = start("killed")
            time.sleep(rng.uniform(0, seconds / 12))
            with suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
            killed = ended() == -signal.SIGKILL
            kills += killed
            if not killed:
                (
                    tmp_path / "killed" / "rows.jsonl"
                ).unlink()  # it was finished: measure it all again
        start("killed")
        assert ended() == 0
        parent.stdin.close()
    a, b = (open_folder(tmp_path / name, {}, {}) for name in ("calm", "killed"))
    for name in ("completions.jsonl", "rows.jsonl"):
        assert as_set(a, name) == as_set(b, name)


SPEC = """
measures = ["length"]
[sets.harmful]
source = "nnsteer:harmful.jsonl"
first = 4
[directions.refusal]
prompts = "nnsteer:harmless.jsonl"
positive = "nnsteer:refusals.jsonl"
negative = "nnsteer:compliances.jsonl"
read = "last"
[[variants]]
direction = "refusal"
layer = [0, [1, 2]]
strength = [0.5, 1.0]
"""


def test_a_file_is_a_grid_of_named_cells(tmp_path):
    file = tmp_path / "s.toml"
    file.write_text(SPEC)
    spec = read_spec(file)
    assert [name_of(cell, spec) for cell in spec.cells] == [
        "add layer=0 strength=0.5", "add layer=0 strength=1.0", "add layer=1-2 strength=0.5", "add layer=1-2 strength=1.0",
    ]  # fmt: skip
    assert replace(spec.cells[0], layers=(1, 2), strength=1.0) == spec.cells[3]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("measures", "measure"), "no such entry: measure; known: model, sets"),
        (('layer = [0, [1, 2]]', 'layr = 1'), r"\[\[variants\]\]: no such entry: layr"),
        (('layer = [0, [1, 2]]', ''), r"\[\[variants\]\]: needs `layer`"),
        (('direction = "refusal"', 'direction = "refusl"'), r"direction 'refusl': expected one of refusal"),
        (('strength = [0.5, 1.0]', 'strength = "much"'), "expected numbers"),
        (('read = "last"', 'read = "lst"'), r"\[directions.refusal\] read 'lst': expected one of prompt"),
        (('first = 4', 'frist = 4'), r"\[sets.harmful\]: no such entry: frist"),
        (('source = "nnsteer:harmful.jsonl"', ''), r"\[sets.harmful\]: missing 1 required positional argument: 'source'"),
        (("[[variants]]", "[[variants]"), "not TOML"),
        (("[[variants]]", '[recommend]\non = "harmful"\n[[variants]]'), "on 'harmful': its split is test, to report on"),
        (("[[variants]]", '[recommend]\non = "hamful"\n[[variants]]'), "on 'hamful': expected one of harmful"),
    ],
)  # fmt: skip
def test_mistakes_in_the_file_are_named(tmp_path, change, message):
    file = tmp_path / "s.toml"
    file.write_text(SPEC.replace(*change))
    with pytest.raises(UserError, match=message) as caught:
        read_spec(file)
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UserError, match="no such file; give a study like"):
        read_spec(tmp_path / "none.toml")
