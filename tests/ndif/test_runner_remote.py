"""nnsteer's Runner on a server, in NDIF's own sandbox: the local numbers for whatever the library
can do, and what it sends."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
import torch
from nnsight.intervention.backends.remote import RemoteBackend

import payload
from nnsteer import fit
from nnsteer.errors import UserError
from nnsteer.folder import Folder
from nnsteer.measure.choice import margin
from nnsteer.measure.divergence import kl
from nnsteer.measure.skill import text_loss, top_k
from nnsteer.model import fit_there
from nnsteer.model.load import find_model
from nnsteer.model.runner import Runner
from nnsteer.ndif.client import Link
from nnsteer.ndif.journal import Journal
from nnsteer.program.condition import Condition
from nnsteer.program.program import Program, places_of
from nnsteer.program.site import Site, block_outs
from nnsteer.program.span import PROMPT, Last
from nnsteer.texts.contrast import of_prompts
from nnsteer.texts.source import Prompt
from serving import Loopback

import catalogue
from conftest import HARMFUL, HARMLESS, MIXED

pytest_plugins = ["loopback_fixtures"]
RESPONSES = ["I can't help", "Sure", "", "Here is a long answer about it", "No"]
ROOTS = {
    "torch",
    "nnsight",
    "transformers",
    "collections",
    "builtins",
    "typing",
    "operator",
    "math",
    "cloudpickle",
}
NEW_TOKENS = 8
NOBODY = Loopback("http://127.0.0.1:9", "a model")


@pytest.fixture(scope="module")
def local(served):
    return Runner.open(find_model(str(served)), batch_size=8)


@pytest.fixture
def far(local, sandbox):
    """The same runner on the server."""
    return there(local, sandbox)


def there(runner: Runner, server: Loopback) -> Runner:
    return Runner.connect(
        find_model(runner.model.name),
        Link(server.url, server.model_key, wait_s=0.05),
        runner.batch_size,
    )


@pytest.fixture(scope="module")
def activations(local):
    return catalogue.fitted(local)


@pytest.fixture(scope="module")
def everything(local, activations):
    """The catalogue's programs by name."""
    return catalogue.everything(local, activations)


def enters(program) -> bool:
    """Whether a program touches what enters a block."""
    return any(
        getattr(place, "stream", "") == "block_in"
        for place in (step.site for step in program.steps)
    )


def equal(got, want):
    """Sums of squares and norms are large: to 1e-5 of them."""
    torch.testing.assert_close(got, want, atol=1e-5, rtol=1e-5)


def test_states_means_and_scatters(local, far):
    contrast = of_prompts(HARMFUL * 4, HARMLESS * 4)
    for span in (PROMPT, Last(2)):
        got, want = (
            far.record(contrast, catalogue.READ, span),
            local.record(contrast, catalogue.READ, span),
        )
        equal(got.positive, want.positive)
        equal(got.negative, want.negative)
        equal(got.norms, want.norms)
    got, want = (
        runner.moments(contrast, catalogue.READ, covariance=True) for runner in (far, local)
    )
    for site in catalogue.READ:
        for mine, theirs in (
            (got.positive[site], want.positive[site]),
            (got.negative[site], want.negative[site]),
        ):
            assert mine.count == theirs.count and mine.norm == pytest.approx(theirs.norm, rel=1e-5)
            equal([mine.mean, mine.scatter], [theirs.mean, theirs.scatter])


def test_reading_batch_by_batch(local, far):
    texts, sites = (
        of_prompts(HARMFUL * 4, HARMLESS * 4).positive,
        sorted(catalogue.READ, key=lambda site: site.order),
    )
    seen: list[int] = []
    got = list(far.read(texts, sites, PROMPT, seen.append))
    equal(got, list(local.read(texts, sites, PROMPT, seen.append)))
    assert seen == [8, 4, 8, 4]


def test_scores_and_losses(local, far, everything):
    conditions = everything["and"].conditions + everything["condition on a head"].conditions
    equal(far.scores(MIXED, conditions), local.scores(MIXED, conditions))
    completions = [(9, 8, 7), (5,), (), (6, 6), (1, 2, 3, 4)]
    equal(far.losses(MIXED, completions), local.losses(MIXED, completions))


def test_logits_of_every_program(local, far, everything):
    """Alone in a request for some, and for all a program per row."""
    want = {name: local.logits(MIXED, program, RESPONSES) for name, program in everything.items()}
    for name in list(everything)[::8]:
        equal(far.logits(MIXED, everything[name], RESPONSES), want[name])
    rows = [(name, *text) for name in everything for text in zip(MIXED, RESPONSES, strict=True)]
    names, prompts, responses = zip(*rows, strict=True)
    got = far.with_batch_size(40).logits(prompts, [everything[name] for name in names], responses)
    for name, mine, theirs in zip(
        names, got, itertools.chain.from_iterable(want.values()), strict=True
    ):
        torch.testing.assert_close(
            mine, theirs, atol=1e-5, rtol=1e-6, msg=lambda text, name=name: f"{name}: {text}"
        )


def test_greedy_answers_under_every_program(local, far, everything):
    """As a sweep's variants share a batch: a program per row, and the answers that each gives alone
    here."""
    chosen = {name: program for name, program in everything.items() if not enters(program)}
    rows = [(name, prompt) for name in chosen for prompt in MIXED]
    got = far.with_batch_size(40).generate(
        [prompt for _, prompt in rows], [chosen[name] for name, _ in rows], NEW_TOKENS
    )
    want = [completion for program in chosen.values() for completion in answers(local, program)]
    for (name, prompt), mine, theirs in zip(rows, map(rounded, got), want, strict=True):
        assert mine == theirs, (name, prompt)


@pytest.mark.parametrize("name", ["add at block_in[2]", "affine at block_in[2]"])
def test_greedy_answers_with_edits_of_what_enters_a_block(local, far, everything, name):
    assert answers(far, everything[name]) == answers(local, everything[name])


def test_generating_with_edits_of_what_enters_the_first_block_is_refused(sandbox, far, everything):
    with pytest.raises(UserError, match=r"block_in\[0\]: NDIF's sandbox would lose the cache"):
        answers(far, everything["add at block_in[0]"])
    assert sandbox.jobs() == []


def answers(runner, program):
    return [rounded(completion) for completion in runner.generate(MIXED, program, NEW_TOKENS)]


def rounded(completion):
    """Tokens, verdicts, and scores to four places."""
    return (
        completion.ids,
        completion.ended,
        completion.fired,
        [round(score, 4) for score in completion.scores],
    )


def test_nothing_is_sent_twice(far, sandbox, everything):
    sandbox.plan(
        {"kind": "stall", "seconds": 0.5, "at": "queue"}
    )  # as long the server does not know the job that it took
    far.scores(MIXED, everything["and"].conditions)
    far.logits(MIXED, everything["edit before its condition"])
    jobs = sandbox.jobs()
    assert [job["executions"] for job in jobs] == [1] * 3
    assert len({job["payload"] for job in jobs}) == 3


def test_what_logits_come_to_is_the_local_and_a_few_numbers_a_token(
    local, sandbox, everything, tmp_path
):
    far = replace(
        there(local, sandbox),
        remote=Link(sandbox.url, sandbox.model_key, Journal(Folder(tmp_path))),
    )
    prompts, programs = [Prompt(text) for text in MIXED], [everything["conditional"]] * len(MIXED)
    pairs = {text: ("(A", "(B") for text in MIXED}
    for measure in (top_k(3), text_loss(), margin(pairs), kl()):
        equal(*(torch.tensor(measure.values(runner, programs, prompts)) for runner in (far, local)))
    done = [
        row["bytes_down"]
        for row in Folder(tmp_path).read_lines("requests.jsonl")
        if row["state"] == "done"
    ]
    assert len(done) == 4 and max(done) < 1500


def test_samples_and_answers_that_end_early(local, far, everything):
    program = everything["conditional"]
    got, want = (
        runner.generate(MIXED, program, NEW_TOKENS, temperature=1.0, seed=5)
        for runner in (far, local)
    )
    assert [c.ids for c in got] == [c.ids for c in want]
    assert [c.ids for c in got] != [c.ids for c in local.generate(MIXED, program, NEW_TOKENS)]
    got, want = far.generate(MIXED, max_new_tokens=200), local.generate(MIXED, max_new_tokens=200)
    assert got == want and all(c.ended for c in want)


def test_a_direction_fitted_there_is_the_one_fitted_here(far, activations):
    there = fit.mean_difference(far.record(of_prompts(HARMFUL * 4, HARMLESS * 4), catalogue.READ))
    for site, direction in fit.mean_difference(activations).items():
        equal(there[site].vector, direction.vector)
        assert there[site].model == direction.model


class Sent(Exception):
    """Stands for the server's answer where only the request matters."""


@pytest.fixture
def sent(local, client, monkeypatch):
    """The payload of the first request that a call on a runner would send."""

    def capture(self, tracer):
        raise Sent(serialize(self, tracer))

    serialize, runner = RemoteBackend._serialize, there(local, NOBODY)
    monkeypatch.setattr(RemoteBackend, "_serialize", capture)

    def payload_of(call) -> bytes:
        with pytest.raises(Sent) as caught:
            call(runner)
        return caught.value.args[0]

    return payload_of


def test_what_is_sent_names_only_what_every_server_has(sent, everything):
    calls = {"record": lambda runner: runner.record(of_prompts(HARMFUL, HARMLESS), catalogue.READ)}
    calls["scores"] = lambda runner: runner.scores(MIXED, everything["and"].conditions)
    calls["losses"] = lambda runner: runner.losses(MIXED, [(5, 6)] * len(MIXED))
    calls["sample"] = lambda runner: runner.generate(MIXED, max_new_tokens=3, temperature=1.0)
    pairs = {text: ("(A", "(B") for text in MIXED}
    for measure in (top_k(3), margin(pairs), kl()):
        calls[measure.name] = lambda runner, measure=measure: measure.values(
            runner, [Program()] * 5, [Prompt(p) for p in MIXED]
        )
    for name, program in everything.items():
        calls[f"logits, {name}"] = lambda runner, program=program: runner.logits(MIXED, program)
        if Site(0, "block_in") not in places_of([program]):  # is refused
            calls[f"generate, {name}"] = lambda runner, program=program: runner.generate(
                MIXED, program, 3
            )
    for method in fit_there.KERNELS:
        calls[f"fit, {method}"] = lambda runner, method=method: fit_there.directions(
            runner, of_prompts(HARMFUL, HARMLESS), catalogue.READ, PROMPT, method
        )
    for name, call in calls.items():
        foreign = {
            found for found in payload.names(sent(call)) if found.partition(".")[0] not in ROOTS
        }
        assert foreign == set(), name


def test_the_reader_of_payloads_sees_foreign_names(local, sent):
    """Of a function that another package lends to the block, and of a module named in it."""
    from fractions import Fraction

    half, prompt = Fraction(1, 2), torch.tensor([[5, 6, 7]])

    def call(runner):
        with runner.envoy.trace(prompt, remote=NOBODY.url):
            print(pytest.__version__, half)

    assert {"pytest", "fractions.Fraction"} <= payload.names(sent(call))


def test_the_strict_server_gives_the_local_numbers(local, client, strict_server, everything):
    far = there(local, strict_server)
    allowed = [
        name
        for name, program in everything.items()
        if Site(0, "block_in") not in places_of([program])
    ]
    for name in allowed[::5]:
        equal(
            far.logits(MIXED, everything[name], RESPONSES),
            local.logits(MIXED, everything[name], RESPONSES),
        )
        assert answers(far, everything[name]) == answers(local, everything[name]), name


@pytest.mark.parametrize("method", list(fit_there.KERNELS))
def test_directions_fitted_there_are_the_local_ones(local, far, method):
    contrast = of_prompts(HARMFUL, HARMLESS)
    got, want = (
        fit_there.directions(runner, contrast, catalogue.READ, PROMPT, method)
        for runner in (far, local)
    )
    for site, direction in want.items():
        equal([got[site].vector, got[site].origin], [direction.vector, direction.origin])


def test_fitting_brings_home_little_more_than_directions(local, sandbox, tmp_path):
    far = replace(
        there(local, sandbox),
        remote=Link(sandbox.url, sandbox.model_key, Journal(Folder(tmp_path))),
    )
    sites = block_outs(range(4))
    contrast = of_prompts(
        *([f"{p} ({i})" for p in side for i in range(50)] for side in (HARMFUL, HARMLESS))
    )
    found = fit_there.directions(far, contrast, sites, PROMPT, "pca_pairwise")
    prompts = [text.prompt for text in (*contrast.positive, *contrast.negative)]
    far.scores(prompts, [Condition(direction, 0.0) for direction in found.values()])
    down = sum(
        row["bytes_down"]
        for row in Folder(tmp_path).read_lines("requests.jsonl")
        if row["state"] == "done"
    )
    numbers = sum(len(d.vector) + len(d.origin) for d in found.values()) + len(prompts) * len(sites)
    assert down <= 1.1 * 4 * numbers
