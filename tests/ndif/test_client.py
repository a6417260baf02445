"""nnsteer's own client: what a fault at any step ends in, and what a killed run still has."""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import signal
from dataclasses import replace

import pytest
import torch

from nnsteer import add, block_outs, of_prompts
from nnsteer.__main__ import main
from nnsteer.errors import UserError
from nnsteer.folder import Folder
from nnsteer.model import fit_there
from nnsteer.model.load import find_model
from nnsteer.model.runner import Runner
from nnsteer.ndif.journal import Journal
from nnsteer.ndif.server import Deployment, connect, find_deployment, versions
from nnsteer.program.condition import Condition
from nnsteer.program.files import load_directions, save_directions
from nnsteer.program.span import PROMPT
from serving import KEY, NAME

from conftest import HARMFUL, HARMLESS

pytest_plugins = ["loopback_fixtures"]
STEPS = ("fit", "tune", "generate")
SITES = block_outs(range(2))
DIRECTIONS, SCORES, ANSWERS = "directions.safetensors", "scores.json", "answers.json"


def run(server, folder, served, patience_s=20.0):
    """Three steps, each kept in the folder, as a recipe keeps them; every one is a request."""
    link = replace(
        connect(server.url, NAME, None),
        journal=Journal(Folder(folder)),
        wait_s=0.01,
        grace_s=0.5,
        patience_s=patience_s,
    )
    steps(Runner.connect(find_model(str(served)), link, 8), Folder(folder))


def steps(runner, folder):
    """The work itself, here or there."""
    if not folder.has(DIRECTIONS):
        found = fit_there.directions(
            runner, of_prompts(HARMFUL, HARMLESS), SITES, PROMPT, "pca_pairwise"
        )
        save_directions(folder / DIRECTIONS, found.values())
    found = load_directions(folder / DIRECTIONS)
    if not folder.has(SCORES):
        folder.write_json(
            SCORES, runner.scores(HARMFUL, [Condition(found[site], 0.0) for site in SITES]).tolist()
        )
    if not folder.has(ANSWERS):
        program = add(found, 1.0).when(Condition(found[SITES[0]], 0.1))
        folder.write_json(
            ANSWERS, [completion.text for completion in runner.generate(HARMLESS, program, 8)]
        )


def check(folder, expected):
    """The same results as an undisturbed run on this machine."""
    for site, direction in load_directions(expected / DIRECTIONS).items():
        torch.testing.assert_close(
            load_directions(folder / DIRECTIONS)[site].vector, direction.vector, atol=1e-5, rtol=0
        )
    scores = [json.loads((path / SCORES).read_text()) for path in (folder, expected)]
    torch.testing.assert_close(torch.tensor(scores[0]), torch.tensor(scores[1]), atol=1e-5, rtol=0)
    assert (folder / ANSWERS).read_text() == (expected / ANSWERS).read_text()


@pytest.fixture(scope="module")
def expected(served, tmp_path_factory):
    folder = tmp_path_factory.mktemp("local")
    steps(Runner.open(find_model(str(served)), batch_size=8), Folder(folder))
    return folder


def states(folder):
    return [row["state"] for row in Folder(folder).read_lines("requests.jsonl")]


def test_in_the_sandbox_as_here(sandbox, served, tmp_path, expected):
    run(sandbox, tmp_path, served)
    check(tmp_path, expected)
    rows = [row for row in Folder(tmp_path).read_lines("requests.jsonl") if row["state"] == "done"]
    assert [row["step"] for row in rows] == ["fitting", "scoring", "generating"] and len(
        sandbox.jobs()
    ) == 3
    assert [
        row["bytes_up"] > 0 and row["bytes_down"] > 0 and row["server"]["runtime"] > 0
        for row in rows
    ] == [True] * 3
    assert KEY not in "".join(
        path.read_text(errors="ignore") for path in tmp_path.rglob("*") if path.is_file()
    )


PASSING = [
    {"kind": "429", "seconds": 0}, {"kind": "503"}, {"kind": "500", "count": 3}, {"kind": "close"},
    {"kind": "stall", "seconds": 0.5}, {"kind": "refuse", "seconds": 0.1}, {"kind": "unknown"}, {"kind": "url"},
    {"kind": "close", "at": "response"}, {"kind": "502", "at": "response"}, {"kind": "503", "at": "status"},
    {"kind": "close", "at": "env"},
]  # fmt: skip


@pytest.mark.parametrize("step", range(3), ids=STEPS)
@pytest.mark.parametrize("fault", PASSING, ids=lambda fault: "-".join(map(str, fault.values())))
def test_what_passes_is_got_over(trusted, served, tmp_path, expected, fault, step):
    let_by = [
        {
            "kind": "pass",
            "at": "request" if fault["kind"] in ("close", "429", "503", "500") else None,
            "count": step,
        }
    ]
    trusted.plan(*[line for line in let_by if step and line["at"] and "at" not in fault], fault)
    run(trusted, tmp_path, served)
    check(tmp_path, expected)


LASTING = [
    ({"kind": "error"}, "fitting|scoring|generating"), ({"kind": "timeout", "seconds": 3}, "smaller --batch-size"),
    ({"kind": "401"}, "set NDIF_API_KEY"), ({"kind": "403"}, "another NDIF_API_KEY"), ({"kind": "422"}, "compare the versions"),
]  # fmt: skip


@pytest.mark.parametrize("step", range(3), ids=STEPS)
@pytest.mark.parametrize(("fault", "message"), LASTING, ids=[fault["kind"] for fault, _ in LASTING])
def test_what_lasts_is_one_line_and_loses_nothing(
    trusted, served, tmp_path, expected, fault, message, step
):
    stage = "job" if fault["kind"] in ("error", "timeout") else "request"
    trusted.plan(*([{"kind": "pass", "at": stage, "count": step}] if step else []), fault)
    with pytest.raises(UserError, match=message) as caught:
        run(trusted, tmp_path, served)
    assert "\n" not in str(caught.value) and KEY not in str(caught.value)
    assert states(tmp_path).count("done") == step
    run(trusted, tmp_path, served)
    check(tmp_path, expected)
    assert states(tmp_path).count("done") == 3
    assert sum(job["state"] == "COMPLETED" for job in trusted.jobs()) == 3


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("undeployed", "has no nnsteer/organism; running there: none"), ("versions", "runs nnsight 0.7.0"),
        ({"kind": "401", "at": "status"}, "NDIF_API_KEY"), ({"kind": "close", "at": "env", "count": 9}, "can't be reached"),
    ],
)  # fmt: skip
def test_preflight_sends_nothing(trusted, served, tmp_path, fault, message):
    trusted.plan(fault)
    with pytest.raises(UserError, match=message):
        run(trusted, tmp_path, served)
    assert not trusted.jobs() and not (tmp_path / "requests.jsonl").exists()


def test_another_revision_or_another_model_is_refused_before_any_request(trusted, served, tmp_path):
    with pytest.raises(
        UserError, match="has nnsteer/organism at revision None, not abc123; give --revision"
    ):
        connect(trusted.url, NAME, "abc123")
    run(trusted, tmp_path, served)
    sent = len(trusted.jobs())
    link = connect(trusted.url, NAME, None)
    runner = Runner.connect(find_model(str(served)), link, 8)
    other = replace(runner, model=replace(runner.model, weights="0" * 16))
    with pytest.raises(UserError, match="was fitted on"):
        other.generate(HARMLESS, add(load_directions(tmp_path / DIRECTIONS), 1.0), 4)
    assert len(trusted.jobs()) == sent


def test_a_server_that_never_answers_ends_in_a_line_and_is_waited_for_again(
    trusted, served, tmp_path, expected
):
    trusted.plan({"kind": "stall", "seconds": 3})
    with pytest.raises(
        UserError, match=r"not done after 1 s .*start the same command to go on waiting"
    ):
        run(trusted, tmp_path, served, patience_s=1.0)
    run(trusted, tmp_path, served)
    check(tmp_path, expected)
    assert len(trusted.jobs()) == 3


def test_the_verb_shows_the_server_and_what_a_run_would_take(trusted, served, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    main(
        [
            "ndif",
            "--remote",
            trusted.url,
            "--model",
            str(served),
            "--remote-model",
            NAME,
            "--prompts",
            "300",
        ]
    )
    said = capsys.readouterr().out
    assert all(
        part in said
        for part in (
            f"{trusted.url}, API key set",
            NAME,
            "running, hot",
            "nnsight",
            "scores of every layer",
        )
    )
    assert KEY not in said and trusted.jobs() == []


def test_the_verb_ends_in_one_line_where_nobody_listens(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["ndif", "--remote", "http://127.0.0.1:9"])
    assert (
        stop.value.code == 2 and "http://127.0.0.1:9: can't be reached" in capsys.readouterr().err
    )


def test_what_is_stored_is_not_sent_again(trusted, served, tmp_path, expected):
    run(trusted, tmp_path, served)
    for name in (DIRECTIONS, SCORES, ANSWERS):
        (tmp_path / name).unlink()
    run(trusted, tmp_path, served)
    check(tmp_path, expected)
    assert len(trusted.jobs()) == 3 and states(tmp_path).count("done") == 3


COMMIT, OTHER = "c" * 40, "d" * 40


@pytest.mark.parametrize(
    ("there", "asked", "commit", "fits"),
    [
        ("main", None, COMMIT, True), (None, None, COMMIT, True), (COMMIT, None, COMMIT, True), (OTHER, None, COMMIT, False),
        ("v1", "v1", COMMIT, True), ("main", "v1", COMMIT, False), (None, None, None, True),
    ],
)  # fmt: skip
def test_a_deployment_is_of_the_revision_that_was_asked_for(there, asked, commit, fits):
    found = [Deployment("key", "org/name", there, True, "running, hot")]
    if fits:
        assert find_deployment("http://here", found, "org/name", asked, commit) == found[0]
    else:
        with pytest.raises(
            UserError,
            match=f"has org/name at revision {there}, not {asked or commit}; give --revision {there}",
        ):
            find_deployment("http://here", found, "org/name", asked, commit)


def test_versions_are_compared(trusted):
    assert {one.package: one.agrees for one in versions(trusted.url)} == dict.fromkeys(
        ("python", "nnsight", "transformers", "torch"), True
    )


def test_killed_at_twenty_moments(trusted, served, tmp_path, expected):
    rng, context = random.Random(0), multiprocessing.get_context("fork")
    kills = 0
    while kills < 20:
        process = context.Process(target=run, args=(trusted, tmp_path, served))
        process.start()
        process.join(rng.uniform(0.05, 0.6))
        if process.exitcode is not None:  # it came to its end: begin anew
            assert process.exitcode == 0
            check(tmp_path, expected)
            for path in (*tmp_path.glob("*.*"), *tmp_path.glob("requests/*")):
                path.unlink()
            continue
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        kills += 1
    run(trusted, tmp_path, served)
    check(tmp_path, expected)
    done = [
        row["key"]
        for row in Folder(tmp_path).read_lines("requests.jsonl")
        if row["state"] == "done"
    ]
    assert len(done) == len(set(done)) <= 3 and len(list(tmp_path.glob("requests/*.pt"))) == 3
