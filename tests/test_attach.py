"""A plain transformers model under `attach` gives the Runner's numbers, and is itself again
afterwards."""

from __future__ import annotations

import threading

import pytest
import torch
from transformers import pipeline

from nnsteer.errors import UserError
from nnsteer.model.attach import attach
from nnsteer.program.program import Program, add
from nnsteer.program.site import Site
from nnsteer.program.span import GENERATED
from nnsteer.texts.contrast import Text

from conftest import MIXED, tiny

NEW_TOKENS = 8


@pytest.fixture
def batch(runner):
    return runner.chat.pad(runner.chat.rows([Text(prompt) for prompt in MIXED]))


def last_logits(runner, batch):
    """As `generate` calls the model: positions count a row's real tokens."""
    positions = (batch.mask.cumsum(1) - 1).clamp(min=0)
    with torch.no_grad():
        return runner.hf(
            input_ids=batch.ids, attention_mask=batch.mask, position_ids=positions
        ).logits[:, -1]


def generate(runner, batch, **changes):
    settings = {"max_new_tokens": NEW_TOKENS, "do_sample": False} | changes
    ids = runner.hf.generate(input_ids=batch.ids, attention_mask=batch.mask, **settings)
    return ids[:, batch.ids.shape[1] :]


def texts(runner, ids):
    return runner.chat.tokenizer.batch_decode(ids, skip_special_tokens=True)


def test_attached_logits_equal_the_runners(runner, programs, batch):
    for name, program in programs.items():
        with attach(runner.hf, program):
            got = last_logits(runner, batch)
        want = torch.cat(runner.logits(MIXED, program))
        torch.testing.assert_close(
            got, want, atol=1e-4, rtol=0, msg=lambda text, name=name: f"{name}: {text}"
        )


def test_attached_generation_equals_the_runners(runner, programs, batch):
    for name, program in programs.items():
        with attach(runner.hf, program):
            got = texts(runner, generate(runner, batch))
        assert got == [c.text for c in runner.generate(MIXED, program, NEW_TOKENS)], name


def test_C8_padding_on_the_right_changes_nothing(runner, programs, batch):
    """As evaluation harnesses pad; the last real token's logits are compared."""
    program = programs["conditional"] + programs["affine on positions"]
    ids, mask = batch.ids.clone(), batch.mask.clone()
    for i, n in enumerate(batch.prompt_lengths.tolist()):
        ids[i] = batch.ids[i].roll(n)
        mask[i] = batch.mask[i].roll(n)
    with torch.no_grad(), attach(runner.hf, program):
        got = runner.hf(input_ids=ids, attention_mask=mask).logits
    rows = torch.stack(
        [row[n - 1] for row, n in zip(got, batch.prompt_lengths.tolist(), strict=True)]
    )
    torch.testing.assert_close(rows, torch.cat(runner.logits(MIXED, program)), atol=1e-4, rtol=0)


def test_beams_and_returned_sequences_keep_their_prompts_verdicts(runner, programs, batch):
    program = programs["conditional"]
    with attach(runner.hf, program):
        together = texts(runner, generate(runner, batch, num_beams=3, num_return_sequences=2))
        for i, n in enumerate(batch.prompt_lengths.tolist()):
            ids = batch.ids[i : i + 1, -n:]
            alone = runner.hf.generate(
                input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=NEW_TOKENS, do_sample=False,
                num_beams=3, num_return_sequences=2,
            )  # fmt: skip
            assert texts(runner, alone[:, n:]) == together[2 * i : 2 * i + 2]


def test_a_text_generation_pipeline_is_steered(runner, programs):
    generator = pipeline("text-generation", model=runner.hf, tokenizer=runner.chat.tokenizer)
    prompts = ["the red bicycle", "a map"]

    def answers():
        return [
            out[0]["generated_text"]
            for out in generator(prompts, max_new_tokens=6, do_sample=False)
        ]

    plain = answers()
    with attach(runner.hf, programs["everywhere"]):
        assert answers() != plain
    assert answers() == plain


def test_the_model_is_itself_again_even_after_an_exception(runner, programs, batch):
    def logits():
        with torch.no_grad():
            return runner.hf(input_ids=batch.ids, attention_mask=batch.mask).logits

    before = logits()
    with pytest.raises(KeyError), attach(runner.hf, programs["everywhere"]):
        assert not torch.equal(logits(), before)
        raise KeyError
    assert torch.equal(logits(), before)
    assert not any(
        m._forward_hooks or m._forward_pre_hooks
        for m in runner.hf.modules()
        if hasattr(m, "weight")
    )


def test_contexts_nest_like_added_programs(runner, programs, batch):
    a, b = programs["add on all"], programs["ablate on all"]
    with attach(runner.hf, a), attach(runner.hf, b):
        nested = last_logits(runner, batch)
    torch.testing.assert_close(nested, torch.cat(runner.logits(MIXED, a + b)), atol=1e-4, rtol=0)


def test_each_call_decides_anew(runner, programs, batch):
    program = programs["conditional"]
    want = runner.logits(MIXED, program)
    with torch.no_grad(), attach(runner.hf, program):
        runner.hf(input_ids=batch.ids, attention_mask=batch.mask)
        for i, row in enumerate(want):
            ids = batch.ids[i : i + 1, -batch.prompt_lengths[i] :]
            torch.testing.assert_close(
                runner.hf(input_ids=ids).logits[:, -1], row, atol=1e-4, rtol=0
            )


def test_threads_have_their_own_verdicts(runner, programs, batch):
    program = programs["conditional"]
    want = [c.text for c in runner.generate(MIXED, program, NEW_TOKENS)]
    got = {}

    def work(rows):
        n = int(batch.prompt_lengths[rows[0]])
        ids = batch.ids[rows[0] : rows[0] + 1, -n:]
        for _ in range(3):
            out = runner.hf.generate(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                max_new_tokens=NEW_TOKENS,
                do_sample=False,
            )
            got.setdefault(rows[0], []).append(texts(runner, out[:, n:])[0])

    with attach(runner.hf, program):
        threads = [threading.Thread(target=work, args=([i],)) for i in range(len(MIXED))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert got == {i: [text] * 3 for i, text in enumerate(want)}


def test_a_masks_shape_that_cannot_be_read_is_refused(runner, directions, batch):
    program = add({Site(2): directions[Site(2)]}, span=GENERATED)
    with (
        attach(runner.hf, program),
        pytest.raises(UserError, match="attention mask with 4 dimensions"),
    ):
        runner.hf(input_ids=batch.ids, attention_mask=torch.ones(len(MIXED), 1, 3, 3))


def test_a_direction_of_another_model_is_refused(runner, directions, tokenizer):
    other = tiny("gpt2" if hasattr(runner.hf, "model") else "llama", tokenizer)
    with pytest.raises(UserError, match="fitted on tiny-"), attach(other, add(directions)):
        pass


def test_the_empty_program_changes_no_bit(runner, batch):
    with torch.no_grad():
        before = runner.hf(input_ids=batch.ids, attention_mask=batch.mask).logits
        with attach(runner.hf, Program()):
            assert torch.equal(
                runner.hf(input_ids=batch.ids, attention_mask=batch.mask).logits, before
            )
