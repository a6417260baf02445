"""What `explain` says is what happened."""

from __future__ import annotations

import pytest

from nnsteer.errors import UserError
from nnsteer.model.explain import explain, figure, ranges
from nnsteer.program.program import Program, add
from nnsteer.program.site import Site
from nnsteer.program.span import GENERATED, LAST_PROMPT, Positions

import catalogue
from conftest import MIXED, tiny


def test_it_lists_exactly_the_tokens_that_each_pass_changes(runner, directions):
    d = {Site(2): directions[Site(2)]}
    program = add(d, 1.0, Positions((0, -1))) + add({Site(3): directions[Site(3)]}, 1.0, GENERATED)
    found = explain(runner, program, MIXED[:2], 3)
    lengths = [len(runner.chat.prompt_ids(prompt)) for prompt in MIXED[:2]]
    prefill = {(c.row, c.site, c.tokens) for c in found.changes if c.step == 0}
    assert prefill == {(row, "block_out[2]", (-n, -1)) for row, n in enumerate(lengths)}
    decode = {(c.step, c.row, c.site, c.tokens) for c in found.changes if c.step > 0}
    assert decode == {(step, row, "block_out[3]", (step - 1,)) for step in (1, 2) for row in (0, 1)}


def test_shares_are_the_change_over_the_states_norm(runner, directions):
    d = directions[Site(2)]
    found = explain(runner, add({Site(2): d}, 2.0, LAST_PROMPT), MIXED[:1], 1)
    state = runner.record(
        catalogue.of_prompts(MIXED[:1], MIXED[:1]), [Site(2)], LAST_PROMPT
    ).positive[Site(2)][0]
    assert found.changes[0].shares[0] == pytest.approx(
        ((2 * d.vector).norm() / state.norm()).item(), rel=1e-4
    )


def test_rows_whose_condition_does_not_hold_are_not_listed(runner, directions):
    when = catalogue.condition(runner, directions, 1)
    found = explain(runner, add({Site(3): directions[Site(3)]}).when(when), MIXED)
    fired = {row for row, verdicts in enumerate(found.fired) if verdicts[0]}
    assert 0 < len(fired) < len(MIXED)
    assert {c.row for c in found.changes} == fired
    assert [s[0] for s in found.scores] == runner.scores(MIXED, [when])[0].tolist()


def test_it_can_be_read_and_drawn(runner, directions, tmp_path):
    found = explain(
        runner, add(directions).when(catalogue.condition(runner, directions, 1)), MIXED, 2
    )
    assert MIXED[0] in str(found) and "holds" in str(found) and "block_out[3]" in str(found)
    figure(found, tmp_path / "explain.png")
    assert (tmp_path / "explain.png").read_bytes().startswith(b"\x89PNG")
    assert "nothing changes" in str(explain(runner, Program(), MIXED[:1]))


def test_consecutive_tokens_are_one_range():
    assert ranges((-3, -2, -1, 4, 7, 8)) == "-3..-1, 4, 7..8"


def test_a_direction_of_another_model_is_refused(runner, directions, tokenizer):
    from nnsteer.model.chat import Chat
    from nnsteer.model.runner import Runner

    other = Runner.wrap(
        tiny("gpt2" if hasattr(runner.hf, "model") else "llama", tokenizer),
        Chat(tokenizer),
        "another",
    )
    with pytest.raises(UserError, match="fitted on tiny-"):
        explain(other, add(directions), MIXED[:1])
