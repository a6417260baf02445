"""The blog's experiment: every implementation of one addition gives the same model, and leaves the
old one behind."""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import contextmanager, nullcontext
from dataclasses import replace

import pytest
import torch
from transformers import AutoTokenizer

from nnsteer import command, fit, report
from nnsteer.errors import UserError
from nnsteer.folder import Folder
from nnsteer.model.chat import Chat
from nnsteer.model.runner import Runner
from nnsteer.program.files import load_directions
from nnsteer.program.site import Site
from nnsteer.program.span import Last
from nnsteer.recipes.implementations import Config, main
from nnsteer.recipes.implementations.options import checks
from nnsteer.recipes.implementations.trials import SIGNS
from nnsteer.recipes.implementations.ways import WAYS, Subject, difference_at_input
from nnsteer.texts.contrast import of_prompts

from conftest import HARMFUL, HARMLESS, tiny

LAYER, C, NEW_TOKENS = 1, 4.0, 8
PROMPT = HARMLESS[0]
BLOCK = {name: way for name, way in WAYS["block output"].items() if name != "TransformerLens"}
HOOK = BLOCK["PyTorch hook"]
ATTENTION = WAYS["attention input"]
IN_PLACE = {name: BLOCK[name] for name in ("PyTorch hook", "module wrapper", "attach")} | {
    "bias edit": ATTENTION["bias edit"]
}


@pytest.fixture(scope="module", params=["llama", "gpt2"])
def subject(request, folder):
    tokenizer = AutoTokenizer.from_pretrained(folder)  # TransformerLens asks where it came from
    chat = Chat(tokenizer, templated=False)
    runner, model = (
        Runner.wrap(tiny(request.param, tokenizer), chat, f"tiny-{request.param}"),
        tiny(request.param, tokenizer).eval(),
    )
    d = fit.mean_difference(
        runner.record(of_prompts([HARMFUL[0]], [HARMLESS[1]]), [Site(LAYER)], Last())
    )[Site(LAYER)]
    words = [chat.prompt_ids(text) for text in (HARMFUL[0], HARMLESS[1])]
    at_input = difference_at_input(model, runner.layout.path(Site(LAYER)), *words)
    return Subject(runner, model, d.unit(), at_input / at_input.norm(), PROMPT, NEW_TOKENS)


@pytest.fixture(scope="module")
def tokens(subject):
    return subject.runner.chat.prompt_ids(" ".join((PROMPT, HARMFUL[2])))


def logits(model, tokens):
    with torch.no_grad():
        return model(torch.tensor([tokens]), use_cache=False).logits[0]


@pytest.fixture(scope="module")
def base(subject, tokens):
    return logits(subject.model, tokens)


@contextmanager
def adding(module, shift):
    handle = module.register_forward_hook(lambda _m, _args, output: output + shift)
    yield
    handle.remove()


def child(subject, *names):
    """The block, or its child of one of the names."""
    block = subject.model.get_decoder().get_submodule(
        f"{'h' if hasattr(subject.model.get_decoder(), 'h') else 'layers'}.{LAYER}"
    )
    return next((getattr(block, name) for name in names if hasattr(block, name)), block)


def close(got, want):
    torch.testing.assert_close(got, want, atol=2e-5, rtol=0)


def moved(got, base):
    return (got - base).abs().max().item()


def test_B1_five_back_ends_give_equal_logits_at_the_same_site(subject, tokens, base):
    """Each against a hook written here, and far from no steering and from the opposite."""
    assert len(BLOCK) == 5
    wanted = {}
    for c in (C, -C):
        with adding(child(subject), c * subject.direction.vector):
            wanted[c] = logits(subject.model, tokens)
    assert min(moved(wanted[C], base), moved(wanted[-C], base), moved(wanted[C], wanted[-C])) > 0.1
    answers = {}
    for name, way in BLOCK.items():
        for c in (C, -C):
            with way(subject, c) as steered:
                close(steered.logits(tokens), wanted[c])
                answers.setdefault(c, {})[name] = steered.answer()
    for own in answers.values():
        assert all(answer == own["nnsight"] for answer in own.values())
    assert answers[C]["nnsight"] != answers[-C]["nnsight"]


def test_B1_transformer_lens_gives_them_too(subject, tokens):
    pytest.importorskip("transformer_lens")
    for c in (C, 0.0, -C):
        with WAYS["block output"]["TransformerLens"](subject, c) as other, HOOK(subject, c) as one:
            close(other.logits(tokens), one.logits(tokens))
            assert other.answer() == one.answer()


def test_B2_the_bias_edit_is_a_hook_at_its_site_and_its_undoing_is_bitwise(subject, tokens, base):
    """That site is what the norm before attention gives, so a hook there does the same; one at the
    block's output does not."""
    before = [(name, p, p.detach().clone()) for name, p in subject.model.named_parameters()]
    with adding(child(subject, "ln_1", "input_layernorm"), C * subject.input_vector):
        wanted = logits(subject.model, tokens)
    for way in ATTENTION.values():
        with way(subject, C) as steered:
            close(steered.logits(tokens), wanted)
    assert moved(wanted, base) > 0.05
    with HOOK(
        replace(subject, direction=replace(subject.direction, vector=subject.input_vector)), C
    ) as elsewhere:
        assert moved(elsewhere.logits(tokens), wanted) > 0.05
    after = list(subject.model.named_parameters())
    assert [name for name, _, _ in before] == [name for name, _ in after]
    assert all(
        p is q and torch.equal(p, bits) for (_, p, bits), (_, q) in zip(before, after, strict=True)
    )


@pytest.mark.parametrize("name", [*BLOCK, *ATTENTION])
def test_B3_leaving_restores_base_logits_even_after_an_exception(subject, tokens, base, name):
    way = BLOCK.get(name) or ATTENTION[name]
    modules = [*subject.model.named_modules()]
    for trouble in (nullcontext(), pytest.raises(ZeroDivisionError)):
        with trouble, way(subject, C) as steered:
            assert moved(steered.logits(tokens), base) > 0.05
            if not isinstance(trouble, nullcontext):
                raise ZeroDivisionError
        assert torch.equal(logits(subject.model, tokens), base)
        assert modules == [*subject.model.named_modules()]
        assert not any(m._forward_hooks or m._forward_pre_hooks for _, m in modules)


@pytest.mark.parametrize("name", [*BLOCK, *ATTENTION])
def test_B4_a_zero_vector_is_the_base_model(subject, tokens, base, name):
    with (BLOCK.get(name) or ATTENTION[name])(subject, 0.0) as steered:
        close(steered.logits(tokens), base)
    with (BLOCK.get(name) or ATTENTION[name])(subject, 0.01) as steered:
        assert moved(steered.logits(tokens), base) > 2e-5


@pytest.mark.parametrize("name", IN_PLACE)
def test_B5_plus_v_then_minus_v_cancels(subject, tokens, base, name):
    """Contexts nest: the inner adds to what the outer made. Twice the same adds up."""
    way = IN_PLACE[name]
    with way(subject, C), way(subject, -C) as steered:
        close(steered.logits(tokens), base)
    with way(subject, C / 2), way(subject, C / 2) as halves:
        twice = halves.logits(tokens)
    with way(subject, C) as steered:
        close(steered.logits(tokens), twice)


def test_B5_plus_v_then_minus_v_cancels_as_a_program(subject, tokens, base):
    both = subject.program(C) + subject.program(-C)
    close(subject.runner.forward(subject.runner.chat.pad([(tokens, [])]), [both])[0], base)


def test_B6_nnsight_is_a_pytorch_hook_for_prefill_and_all_decode_steps(subject):
    """The logits that leave the unembedding at each step of cached generation."""
    heads = (subject.runner.hf.get_output_embeddings(), subject.model.get_output_embeddings())
    seen = []
    for head, way in zip(heads, (BLOCK["nnsight"], HOOK), strict=True):
        steps = []
        with way(subject, C) as steered:
            handle = head.register_forward_hook(
                lambda _m, _args, output, steps=steps: steps.append(output[0, -1].clone())
            )
            answer = steered.answer()
            handle.remove()
        seen.append((torch.stack(steps), answer))
    (one, first), (other, second) = seen
    assert len(one) == NEW_TOKENS and first == second
    close(one, other)
    with HOOK(
        subject, C
    ) as steered:  # and what a pass without a cache says of the same tokens: no step was left out
        whole = steered.logits([*subject.runner.chat.prompt_ids(PROMPT), *first])
    close(one, whole[-NEW_TOKENS - 1 : -1])


@pytest.fixture(scope="module")
def config(folder, tmp_path_factory):
    out = tmp_path_factory.mktemp("run") / "out"
    return Config(
        model=str(folder),
        words=("bicycle", "star"),
        prompt=PROMPT,
        layer=2,
        coefficient=40.0,
        max_new_tokens=6,
        repeats=2,
        out=out,
    )


@pytest.fixture(scope="module")
def table(config):
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "transformer_lens.model_bridge", None)
        main(config)
    return json.loads((config.out / "table.json").read_text())


def test_the_run_writes_its_table(config, table):
    turns = [(site, name) for site, ways in WAYS.items() for name in ways]
    assert [(row["site"], row["implementation"]) for row in table["rows"]] == turns
    for row in table["rows"]:
        if row["implementation"] == "TransformerLens":
            assert "transformer_lens" in row["skipped"]
            continue
        assert row["difference"] < 2e-5 and row["same_texts"]
        middle, fast, slow = row["ms_per_token"]
        assert 0 < fast <= middle <= slow and row["times_first"] > 0
    for site in table["sites"]:
        assert site["moved"] > 0.05 and list(site["texts"]) == list(SIGNS)
    texts = table["sites"][0]["texts"]
    assert len(set(texts.values())) == 3 and all(text.startswith(PROMPT) for text in texts.values())
    assert texts["0"] == table["sites"][1]["texts"]["0"]
    assert set(load_directions(config.out / "direction.safetensors")) == {Site(2)}
    page = (config.out / "table.md").read_text()
    assert page.count("\n| block output |") == 6 and all(
        repr(text) in page for text in texts.values()
    )


def test_the_page_is_written_and_can_be_written_again(config, table):
    written = (config.out / "report.html").read_text()
    assert all(row["implementation"] in written for row in table["rows"])
    assert (config.out / "figures" / "time.png").exists()
    (config.out / "report.html").unlink()
    assert report.write(Folder(config.out)) == json.loads((config.out / "table.json").read_text())
    assert (config.out / "report.html").read_text() == written


def test_expected_values_are_checked(config, table):
    block, attention = table["sites"]
    lengths = (round(block["length"], 2), round(attention["length"] + 1, 2))
    asked = replace(
        config, expected_lengths=lengths, expected_texts=(*list(block["texts"].values())[:2], "no")
    )
    found = {
        (check["site"], check["what"]): check["equal"] for check in checks(asked, table["sites"])
    }
    assert found == {
        ("block output", "length"): True, ("block output", "+c"): True, ("block output", "0"): True,
        ("block output", "-c"): False, ("attention input", "length"): False,
    }  # fmt: skip
    assert checks(config, table["sites"]) == []


def test_the_same_command_runs_again_and_another_one_is_refused(config, table):
    main(config)
    with pytest.raises(UserError, match=r"already holds another run \(layer differ\)"):
        main(replace(config, layer=0))


def test_the_preset_is_the_blogs_experiment(pytestconfig):
    config = command.parse(
        Config, "", ["--config", str(pytestconfig.rootpath / "recipes" / "implementations.toml")]
    )
    assert (config.model, config.layer, config.coefficient, config.max_new_tokens) == (
        "openai-community/gpt2-xl",
        5,
        10.0,
        10,
    )
    assert (config.dtype, config.prompt, config.words) == (
        "float32",
        "I think dogs are ",
        ("Love", "Hate"),
    )
    assert config.expected_lengths == (100.23, 18.80)
    assert all(
        text.startswith(config.prompt)
        for text in config.expected_texts + config.expected_bias_texts
    )


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["--layer", "9"], "layer 9: this model has 4 layers"),
        (["--coefficient", "nan"], "--coefficient nan: must be a finite number other than 0"),
        (["--coefficient", "0"], "--coefficient 0.0: must be"),
        (["--repeats", "0"], "--repeats 0: must be at least 1"),
        (["--words", "Love", "Love"], "give a prompt and two different words"),
        (["--words", "Love"], "words"),
        (["--model", "no/such/folder"], "model no/such/folder: no such folder, and not a hub id"),
    ],
)
def test_bad_input_ends_in_one_line(capsys, folder, tmp_path, args, says):
    with pytest.raises(SystemExit) as stop:
        command.run(
            Config, main, "", ["--model", str(folder), "--out", str(tmp_path / "run"), *args]
        )
    said = capsys.readouterr().err.strip().splitlines()
    assert stop.value.code == 2 and len(said) == 1 and says in said[0], said
    assert not (tmp_path / "run").exists()


def test_a_hub_id_that_cannot_be_reached_is_one_line(tmp_path):
    """In a process of its own, as a user meets it, away from the network."""
    done = subprocess.run(
        [sys.executable, "-m", "nnsteer.recipes.implementations", "--model", "org/name", "--out", str(tmp_path / "run")],
        capture_output=True, text=True, check=False, timeout=120,
        env={"HF_HUB_OFFLINE": "1", "PATH": "/usr/bin", "HOME": str(tmp_path)},
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr.strip().splitlines()[-1].startswith("error: model org/name: ")
    assert "Traceback" not in done.stderr and not (tmp_path / "run").exists()
