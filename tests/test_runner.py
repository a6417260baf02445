"""Every program equals the oracle, whatever the batch, the padding and the cache."""

from __future__ import annotations

from dataclasses import replace
from importlib import import_module

import pytest
import torch

from nnsteer import fit
from nnsteer.errors import UserError
from nnsteer.model import traces
from nnsteer.model.chat import Chat
from nnsteer.model.lower import lower
from nnsteer.model.runner import WINDOW, Runner
from nnsteer.program.condition import Condition
from nnsteer.program.program import Program, ablate, add, affine
from nnsteer.program.site import Site
from nnsteer.program.span import ALL, GENERATED, LAST_PROMPT, PROMPT, Last, Positions, Span
from nnsteer.texts.contrast import ContrastSet, Text, of_prompts

import oracle
from catalogue import condition
from conftest import HARMFUL, HARMLESS, MIXED, tiny

RESPONSES = ["I can't help", "Sure", "", "Here is a long answer about it", "No"]
NEW_TOKENS = 8


@pytest.fixture(scope="module")
def expected(runner, programs):
    """The oracle's logits of every program, [prompt, [token, vocab]]."""

    def rows(program):
        texts = zip(MIXED, RESPONSES, strict=True)
        ids = [(runner.chat.prompt_ids(p), runner.chat.response_ids(r)) for p, r in texts]
        return [oracle.logits(runner.hf, prompt, response, program) for prompt, response in ids]

    return {name: rows(program) for name, program in programs.items()}


def test_logits_of_every_program_equal_the_oracle(runner, programs, expected):
    for name, program in programs.items():
        for row, want in zip(runner.logits(MIXED, program, RESPONSES), expected[name], strict=True):
            assert row.shape == want.shape, name
            torch.testing.assert_close(
                row, want, atol=1e-4, rtol=0, msg=lambda text, name=name: f"{name}: {text}"
            )


def test_G2_batched_cached_generation_equals_the_oracle_without_a_cache(runner, programs):
    for name, program in programs.items():
        got = [completion.ids for completion in runner.generate(MIXED, program, NEW_TOKENS)]
        eos = runner.chat.tokenizer.eos_token_id
        want = [
            tuple(oracle.generate(runner.hf, runner.chat.prompt_ids(p), program, NEW_TOKENS, eos))
            for p in MIXED
        ]
        assert got == want, name


def test_all_programs_differ_from_one_another(expected):
    seen = {name: torch.cat(rows) for name, rows in expected.items()}
    names = list(seen)
    for i, a in enumerate(names):
        for b in names[:i]:
            assert (seen[a] - seen[b]).abs().max() > 1e-3, (a, b)


def test_C8_one_program_per_row_equals_running_them_apart(runner, programs):
    chosen = list(programs.values())[::7]
    together = runner.generate([p for p in MIXED for _ in chosen], chosen * len(MIXED), NEW_TOKENS)
    apart = [
        runner.generate([prompt], program, NEW_TOKENS)[0] for prompt in MIXED for program in chosen
    ]
    assert [c.text for c in together] == [c.text for c in apart]
    assert [c.fired for c in together] == [c.fired for c in apart]


def test_additions_of_many_programs_are_one_edit_and_keep_each_rows_bits(runner, directions):
    one, both = (
        {Site(1): directions[Site(1)]},
        {site: directions[site] for site in (Site(1), Site(2))},
    )
    when = Condition(directions[Site(0)], 0.0)
    twice = Program((*add(one, 1.0).steps, *ablate(one).steps, *add(one, 2.0).steps))
    programs = [
        add(one, 0.5),
        add(one, 2.0),
        twice,
        add(one, 1.0, PROMPT),
        add(one, 1.0).when(when),
        add(one, -1.0).when(when),
    ]
    programs += [add(both, 1.5), Program()]
    order = [5, 0, 7, 2, 4, 1, 3, 6]
    plan = lower([programs[i] for i in order], runner.layout)
    packed = [
        edit for visit in plan["visits"] for edit in visit["edits"] if edit["shift_of"] is not None
    ]
    assert sorted((len(edit["rows"]), len(edit["shift"])) for edit in packed) == [(2, 2), (4, 4)]
    assert [len(v["edits"]) for v in plan["visits"] if v["edits"]] == [5, 1]
    prompts = [MIXED[4]] * len(order)
    together = runner.logits(prompts, [programs[i] for i in order])
    for row, i in enumerate(order):
        alone = runner.logits(prompts, programs[i])[row]
        if (
            programs[i] is twice
        ):  # an ablation of one row is another matrix product than one of eight
            torch.testing.assert_close(together[row], alone, atol=1e-5, rtol=0)
        else:
            assert torch.equal(together[row], alone)


def test_additions_of_every_row_need_no_row_numbers(runner, directions):
    programs = [add({Site(1): directions[Site(1)]}, strength) for strength in (1.0, 2.0, 3.0)]
    (visit,) = lower([programs[i] for i in (2, 0, 1, 0)], runner.layout)["visits"]
    (edit,) = visit["edits"]
    assert edit["rows"] is None
    got = edit["shift"][edit["shift_of"]]
    torch.testing.assert_close(
        got, torch.tensor([3.0, 1.0, 2.0, 1.0])[:, None] * directions[Site(1)].vector
    )


def test_C8_left_padding_changes_nothing(runner, programs):
    """The first prompt alone, and beside one three times as long."""
    program = programs["conditional"]
    alone = runner.logits([MIXED[0]], program)[0]
    padded = runner.logits([MIXED[0], " ".join([MIXED[4]] * 3)], program)[0]
    torch.testing.assert_close(padded, alone, atol=1e-4, rtol=0)
    when = program.steps[0].when
    torch.testing.assert_close(
        runner.scores(MIXED, [when])[0, :1], runner.scores(MIXED[:1], [when])[0], atol=1e-6, rtol=0
    )


def test_G1_recorded_states_do_not_depend_on_the_batch_and_equal_the_oracles_means(runner):
    texts = tuple(Text(p, r) for p, r in zip(MIXED, RESPONSES, strict=True))
    for span in (PROMPT, LAST_PROMPT, ALL, Span(-3, 0), Last(1), Last(3), Positions((0, -1))):
        got = runner.record(ContrastSet(texts, texts[:1]), [Site(3), Site(1)], span)
        for layer in (1, 3):
            for text, row in zip(texts, got.positive[Site(layer)], strict=True):
                prompt, response = (
                    runner.chat.prompt_ids(text.prompt),
                    runner.chat.response_ids(text.response),
                )
                h = oracle.states(runner.hf, [*prompt, *response], Site(layer))
                kept = (
                    h[-span.k :]
                    if isinstance(span, Last)
                    else [h[t] for t in range(len(h)) if oracle.meant(t, len(prompt), span)]
                )
                torch.testing.assert_close(
                    row, torch.stack(list(kept)).mean(0).float(), atol=1e-4, rtol=0
                )


def test_windows_of_texts_keep_every_texts_place(runner, monkeypatch):
    sizes: list[int] = []
    rows = Chat.rows
    monkeypatch.setattr(
        Chat, "rows", lambda chat, texts: sizes.append(len(texts)) or rows(chat, texts)
    )
    words = [chr(ord("a") + i) * 3 for i in range(16)]
    texts = tuple(Text(" ".join(words[i % 5 : i % 13 + 3])) for i in range(2 * WINDOW + 3))
    done: list[int] = []
    apart = runner.with_batch_size(1).record(
        ContrastSet(texts, texts[:1]), [Site(2)], PROMPT, done.append
    )
    together = runner.with_batch_size(64).record(ContrastSet(texts, texts[:1]), [Site(2)])
    torch.testing.assert_close(
        apart.positive[Site(2)], together.positive[Site(2)], atol=1e-4, rtol=0
    )
    assert apart.positive[Site(2)].std(0).min() > 1e-2  # the texts differ
    assert sum(done) == len(texts) + 1
    assert sizes[:3] == [WINDOW, WINDOW, 3]  # no more texts are held as tokens at a time


def test_the_last_block_is_read_before_the_final_norm(runner):
    got = runner.record(of_prompts(HARMFUL[:1], HARMLESS[:1]), [Site(3)], LAST_PROMPT).positive[
        Site(3)
    ][0]
    with torch.no_grad():
        out = runner.hf(
            torch.tensor([runner.chat.prompt_ids(HARMFUL[0])]), output_hidden_states=True
        )
    assert (got - out.hidden_states[-1][0, -1]).abs().max() > 0.1
    norm = runner.hf.model.norm if hasattr(runner.hf, "model") else runner.hf.transformer.ln_f
    torch.testing.assert_close(norm(got).detach(), out.hidden_states[-1][0, -1], atol=1e-4, rtol=0)


def test_reading_a_response_that_is_too_short_is_refused(runner):
    with pytest.raises(UserError, match="some text has none there"):
        runner.record(of_prompts(HARMFUL, HARMLESS), [Site(0)], GENERATED)


def test_C6_G3_a_false_condition_leaves_logits_bitwise_equal_and_a_true_one_changes_nothing(
    runner, directions
):
    never = Condition(directions[Site(1)], 2.0)  # a cosine is at most 1
    base = runner.logits(MIXED, Program(), RESPONSES)
    for program in (add(directions, 5.0), ablate(directions), affine(directions, 3.0)):
        for row, plain in zip(
            runner.logits(MIXED, program.when(never), RESPONSES), base, strict=True
        ):
            assert torch.equal(row, plain)
        for row, steered in zip(
            runner.logits(MIXED, program.when(~never)), runner.logits(MIXED, program), strict=True
        ):
            assert torch.equal(row, steered)


def test_C5_a_condition_and_its_complement_part_the_rows(runner, directions):
    when = condition(runner, directions, 1)
    fired = [c.fired[0] for c in runner.generate(MIXED, add(directions).when(when), 1)]
    not_fired = [c.fired[0] for c in runner.generate(MIXED, add(directions).when(~when), 1)]
    assert fired == [not f for f in not_fired]
    assert len(set(fired)) == 2


def test_C5_the_complement_is_exact_at_the_threshold_itself(runner, directions):
    free = Condition(directions[Site(1)], 0.0)
    at = replace(free, threshold=runner.scores(MIXED[:1], [free])[0, 0].item())
    assert runner.generate(MIXED[:1], add(directions).when(at), 1)[0].fired == (False,)
    assert runner.generate(MIXED[:1], add(directions).when(~at), 1)[0].fired == (True,)


def test_C7_a_verdict_is_taken_once_and_not_carried_into_the_next_call(runner, directions):
    """The edit pushes every generated token far along the condition's direction; the verdict stays
    the prompt's, and the next call starts anew."""
    when = condition(runner, directions, 1)
    program = add({s: d for s, d in directions.items() if s.layer > 0}, 20.0, GENERATED).when(when)
    yes = [p for p, c in zip(MIXED, runner.generate(MIXED, program, 1), strict=True) if c.fired[0]]
    no = [p for p in MIXED if p not in yes]
    plain = [c.ids for c in runner.generate(no, Program(), NEW_TOKENS)]
    assert [c.ids for c in runner.generate(yes, program, NEW_TOKENS)] != [
        c.ids for c in runner.generate(yes, Program(), NEW_TOKENS)
    ]
    assert [c.ids for c in runner.generate(no, program, NEW_TOKENS)] == plain
    assert [c.ids for c in runner.generate(no, Program(), NEW_TOKENS)] == plain


def test_the_score_of_a_completion_is_the_score_of_its_prompt_unsteered(runner, directions):
    when = condition(runner, directions, 2)
    early = add({Site(0): directions[Site(0)]}, 3.0).when(when)
    late = add({Site(3): directions[Site(3)]}, 3.0).when(when)
    scores = runner.scores(MIXED, [when])[0]
    for program in (early, late):
        got = torch.tensor([c.scores[0] for c in runner.generate(MIXED, program, 1)])
        torch.testing.assert_close(got, scores, atol=1e-6, rtol=0)
    want = [oracle.score(runner.hf, runner.chat.prompt_ids(p), when) for p in MIXED]
    torch.testing.assert_close(scores, torch.tensor(want), atol=1e-5, rtol=0)


def test_losses_are_those_of_a_plain_pass_and_end_where_the_completion_ends(runner):
    completions = [c.ids for c in runner.generate(MIXED, Program(), NEW_TOKENS)] + [()]
    got = runner.losses([*MIXED, "Hi"], completions)
    for prompt, ids, losses in zip([*MIXED, "Hi"], completions, got, strict=True):
        assert len(losses) == len(ids)
        logits = oracle.logits(runner.hf, runner.chat.prompt_ids(prompt), ids, Program())
        want = [-logits[t].log_softmax(-1)[token].item() for t, token in enumerate(ids)]
        torch.testing.assert_close(losses, torch.tensor(want), atol=1e-4, rtol=1e-4)


def test_samples_depend_on_seed_and_row_alone_and_follow_the_model(runner):
    def sample(prompts, seed, size=8):
        return [
            c.ids
            for c in runner.with_batch_size(size).generate(
                prompts, Program(), 4, temperature=1.0, seed=seed
            )
        ]

    assert sample(MIXED, 3) == sample(MIXED, 3, size=1) == sample(MIXED, 3, size=2)
    assert sample(MIXED, 3) != sample(MIXED, 4)
    first = [
        ids[0] if ids else runner.chat.tokenizer.eos_token_id
        for ids in sample([MIXED[0]] * 600, 5, size=300)
    ]
    probabilities = runner.logits(MIXED[:1])[0][0].softmax(-1)
    top = probabilities.argmax().item()
    seen, p = first.count(top) / 600, probabilities[top].item()
    assert abs(seen - p) < 5 * (p * (1 - p) / 600) ** 0.5  # passes by chance but once in 10^6


def test_rows_end_on_their_own(runner, directions):
    """Pushed along the end token's unembedding at the last block, every row ends at once; a row
    beside them does not."""
    end = runner.hf.get_output_embeddings().weight[runner.chat.tokenizer.eos_token_id].detach()
    site = Site(3)
    stop = add({site: replace(directions[site], vector=end * 1000)})
    got = runner.generate(MIXED[:3], [stop, Program(), stop], NEW_TOKENS)
    assert [c.ended for c in got[::2]] == [True, True] and [c.ids for c in got[::2]] == [(), ()]
    assert got[1].ids == runner.generate([MIXED[1]], Program(), NEW_TOKENS)[0].ids


def test_a_direction_of_another_model_is_refused(runner, directions, tokenizer):
    arch = "gpt2" if hasattr(runner.hf, "model") else "llama"
    other = Runner.wrap(tiny(arch, tokenizer), Chat(tokenizer), "another")
    for use in (
        lambda: other.generate(MIXED, add(directions)),
        lambda: other.scores(MIXED, [Condition(directions[Site(0)], 0.0)]),
    ):
        with pytest.raises(UserError, match=r"fitted on tiny-.* not on another"):
            use()


def test_a_run_leaves_nothing_on_the_model(runner, directions):
    before = runner.hf(torch.tensor([[5, 6, 7]])).logits.detach()
    with pytest.raises(UserError):
        runner.generate(MIXED, add({Site(9): replace(directions[Site(3)], site=Site(9))}))
    runner.generate(MIXED, add(directions, 9.0), 2)
    assert torch.equal(runner.hf(torch.tensor([[5, 6, 7]])).logits.detach(), before)


def test_random_controls_have_the_directions_lengths_and_not_their_heading(directions):
    controls = fit.random_like(directions, 0)
    again, other = fit.random_like(directions, 0), fit.random_like(directions, 1)
    for site, d in directions.items():
        assert controls[site].vector.norm().item() == pytest.approx(
            d.vector.norm().item(), rel=1e-5
        )
        assert (
            abs(torch.cosine_similarity(controls[site].vector, d.vector, dim=0)) < 0.6
        )  # 32 dimensions
        assert controls[site] == again[site] and controls[site] != other[site]


def test_simulated_execution_equals_local_execution(runner, programs):
    """What nnsight would send to a server, unpacked and run here."""
    simulated = runner.simulated()
    for name in list(programs)[::5]:
        program = programs[name]
        for a, b in zip(
            simulated.logits(MIXED, program, RESPONSES),
            runner.logits(MIXED, program, RESPONSES),
            strict=True,
        ):
            torch.testing.assert_close(
                a, b, atol=1e-4, rtol=0, msg=lambda text, name=name: f"{name}: {text}"
            )
        here, there = runner.generate(MIXED, program, 4), simulated.generate(MIXED, program, 4)
        assert [c.text for c in there] == [c.text for c in here], name
    here, there = (
        r.record(of_prompts(HARMFUL, HARMLESS), [Site(1)]).positive[Site(1)]
        for r in (runner, simulated)
    )
    assert torch.equal(here, there)


def test_a_thread_that_draws_a_bar_finds_its_modules_during_simulated_execution(
    runner, monkeypatch
):
    """nnsight's simulation takes installed modules away while it unpacks a block."""
    backend, drawn = traces.simulation.LocalSimulationBackend, []
    restore = backend._restore

    def draw_and_restore(*args):
        drawn.append(import_module("rich.markup"))
        restore(*args)

    before = import_module("rich.markup")
    monkeypatch.setattr(backend, "_restore", draw_and_restore)
    runner.simulated().logits(MIXED)
    assert drawn == [before]
