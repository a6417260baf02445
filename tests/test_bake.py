"""Baked weights give the Runner's numbers after save and reload in a new process, or are refused
with the reason."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import torch
from transformers import AutoModelForCausalLM

from nnsteer.errors import UserError
from nnsteer.fit import mean_difference
from nnsteer.model.bake import bake
from nnsteer.program.op import Ablate, Add
from nnsteer.program.program import Program, Step, ablate, add, affine
from nnsteer.program.site import Head, Site
from nnsteer.program.span import PROMPT

import catalogue
from conftest import MIXED, tiny

RELOAD = """
import json, sys, torch
from transformers import AutoModelForCausalLM
model = AutoModelForCausalLM.from_pretrained(sys.argv[1])
out = []
for ids in json.loads(sys.stdin.read()):
    ids = torch.tensor([ids])
    with torch.no_grad():
        logits = model(ids).logits[0, -1].tolist()
    new = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=8, do_sample=False)[0, ids.shape[1]:].tolist()
    out.append([logits, new])
print(json.dumps(out))
"""


def at(d, *sites):
    return {site: d[site] for site in sites}


def bakeable(d):
    halves = at(d, Site(1, "attn_out"), Site(1, "mlp_out"))
    return {
        "add": add(at(d, Site(2), Site(3)), 0.7)
        + add(at(d, Site(1, "attn_out"), Site(2, "block_in")), 0.5),
        "ablate": ablate(halves) + ablate(at(d, Site(0, "block_in"))),
        "affine": affine(halves, 1.5),
    }


@pytest.mark.parametrize("name", ["add", "ablate", "affine"])
def test_a_baked_model_equals_the_runner_after_save_and_reload_in_a_new_process(
    runner, d, tmp_path, name
):
    program = bakeable(d)[name]
    bake(runner.hf, program, untie=True).save_pretrained(tmp_path)
    prompts = [runner.chat.prompt_ids(prompt) for prompt in MIXED]
    out = subprocess.run(
        [sys.executable, "-c", RELOAD, str(tmp_path)],
        input=json.dumps(prompts),
        capture_output=True,
        text=True,
        check=True,
    )
    reloaded = json.loads(out.stdout)
    completions = runner.generate(MIXED, program, 8)
    for (logits, new), want, completion in zip(
        reloaded, runner.logits(MIXED, program), completions, strict=True
    ):
        torch.testing.assert_close(torch.tensor(logits), want[0], atol=1e-4, rtol=0)
        assert runner.chat.tokenizer.decode(new, skip_special_tokens=True) == completion.text


def test_ablation_of_everything_that_writes_is_orthogonalised_weights(runner, d):
    """Where the embedding is the model's own, hooks and weights agree; the direction is gone from
    every stream."""
    r = d[Site(2)]
    writers = [
        Site(0, "block_in"),
        *(Site(layer, half) for layer in range(4) for half in ("attn_out", "mlp_out")),
    ]
    program = Program(tuple(Step(Ablate(r), site) for site in writers))
    baked = bake(runner.hf, program, untie=True)
    ids = torch.tensor([runner.chat.prompt_ids(MIXED[0])])
    states = baked(ids, output_hidden_states=True).hidden_states[:-1]
    assert max(((h @ r.vector).abs() / r.vector.norm()).max().item() for h in states) < 1e-4


def test_baking_leaves_the_model_alone(runner, d):
    before = {name: value.clone() for name, value in runner.hf.state_dict().items()}
    bake(runner.hf, bakeable(d)["add"])
    assert all(torch.equal(value, before[name]) for name, value in runner.hf.state_dict().items())


def test_what_weights_cannot_hold_is_refused_with_the_step_and_the_reason(runner, d):
    fitted = catalogue.fitted(runner)
    when = catalogue.condition(runner, mean_difference(fitted), 1)
    halves = at(d, Site(1, "mlp_out"))
    for program, reason in (
        (add(halves).when(when), "weights can't decide a condition"),
        (add(halves, span=PROMPT), "this one edits prompt"),
        (ablate(at(d, Site(2))), "the residual stream is a sum"),
        (add(at(d, Head(1, 2))), "a head's output is made by several maps"),
        (Program((Step(catalogue.ops(fitted, Site(2))["rotate"], Site(2)),)), "no affine map"),
        (
            Program((Step(catalogue.ops(fitted, Site(2))["quadratic-lda"], Site(2)),)),
            "no affine map",
        ),
    ):
        with pytest.raises(UserError, match=f"can't bake `.*: .*{reason}"):
            bake(runner.hf, program)


def test_tied_embeddings_are_refused_unless_untied(tokenizer, runner, d):
    model = tiny("gpt2" if not hasattr(runner.hf, "model") else "llama", tokenizer)
    model.config.tie_word_embeddings = True
    model.tie_weights()
    program = Program((Step(Add(d[Site(0, "block_in")]), Site(0, "block_in")),))
    if model.get_output_embeddings().weight is not model.get_input_embeddings().weight:
        model.get_output_embeddings().weight = model.get_input_embeddings().weight
    with pytest.raises(UserError, match="tied to the unembedding") as caught:
        from nnsteer.model.bake import affine_edit, edit_embedding

        edit_embedding(model, program.steps[0], affine_edit(program.steps[0]), untie=False)
    assert "untie=True" in str(caught.value)


def test_reloaded_biases_are_those_that_were_added(runner, d, tmp_path):
    bake(runner.hf, bakeable(d)["add"]).save_pretrained(tmp_path)
    again = AutoModelForCausalLM.from_pretrained(tmp_path)
    names = dict(again.named_parameters())
    assert any(name.endswith("bias") and value.abs().max() > 0 for name, value in names.items())
