"""A dry run tells what a study then takes; pages, comparisons and judgements are made from what
lies in a run's folder."""

from __future__ import annotations

import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from nnsteer.__main__ import main
from nnsteer.model import traces

from conftest import HARMFUL, HARMLESS


def nnsteer(*args):
    main([str(arg) for arg in args])


STUDY = """
model = {model!r}
max_new_tokens = 3
measures = ["length", "kl", "drift"]
[sets.harmful]
source = {harmful!r}
first = 3
[sets.harmless]
source = {harmless!r}
[directions.d]
positive = {harmful!r}
negative = {harmless!r}
[conditions.harmful]
direction = "d"
layer = 2
[[variants]]
direction = "d"
layer = [1, [2, 3]]
method = ["mean_difference", "pca_center"]
strength = [1.0]
when = ["harmful", "not harmful"]
"""


@pytest.fixture
def study(folder, tmp_path):
    sources = {name: str(tmp_path / f"{name}.jsonl") for name in ("harmful", "harmless")}
    for name, prompts in (("harmful", HARMFUL), ("harmless", HARMLESS)):
        rows = [{"prompt": f"{p} ({i})"} for i in range(7) for p in prompts]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "s.toml").write_text(STUDY.format(model=str(folder), **sources))
    return tmp_path / "s.toml"


@pytest.fixture
def counted(monkeypatch):
    """How often each trace is run."""
    calls = dict.fromkeys(("read_means", "read_scores", "steered_pass", "generate"), 0)

    def counting(name, original):
        def call(*args, **kwargs):
            calls[name] += 1
            return original(*args, **kwargs)

        return call

    for name in calls:
        monkeypatch.setattr(traces, name, counting(name, getattr(traces, name)))
    return calls


def plan(capsys, study, *options):
    """The lines of a dry run: there, missing, requests, passes, tokens read, tokens written."""
    capsys.readouterr()
    nnsteer("study", study, "--out", study.parent / "run", "--batch-size", 4, "--dry-run", *options)
    heading, *rows = capsys.readouterr().out.splitlines()
    table = {}
    for row in rows:
        found = re.fullmatch(r"  (.+?)((?: +[\d,]+){4,6}) *", row)
        if found:
            table[found[1]] = [int(n.replace(",", "")) for n in found[2].split()]
    return heading, table


def test_a_dry_run_says_what_a_study_then_takes(study, capsys, counted):
    before = sorted(study.parent.rglob("*"))
    heading, planned = plan(capsys, study)
    assert "8 cells; with the baseline and the controls 17 variants, on 9 prompts each" in heading
    assert sorted(study.parent.rglob("*")) == before and not any(counted.values())
    answers = 17 * (3 + 6)
    assert all(row[0] == 0 for name, row in planned.items() if name != "in all")
    assert planned["answers"][1] == answers and planned["answers"][-1] == answers * 3

    nnsteer("study", study, "--out", study.parent / "run", "--batch-size", 4)
    assert counted["generate"] == -(-answers // 4)
    assert sum(counted.values()) == planned["in all"][0] > 100
    lines = (study.parent / "run" / "rows.jsonl").read_text().splitlines()
    assert len(lines) == 3 * answers

    _, done = plan(capsys, study)
    assert done.pop("in all") == [0] * 4
    assert all(row[1:] == [0] * 5 for row in done.values()) and done["answers"][0] == answers
    study.write_text(study.read_text().replace("[1.0]", "[1.0, 2.0]"))
    study.write_text(study.read_text().replace('["harmful", "not harmful"]', '"harmful"'))
    _, changed = plan(capsys, study)
    assert changed["direction d"][1] == changed["condition harmful"][1] == 0
    assert 0 < changed["answers"][0] < changed["answers"][1] + changed["answers"][0]


def test_a_page_is_rebuilt_from_its_folder(study, capsys):
    out = study.parent / "run"
    nnsteer("study", study, "--out", out)
    made = {name: (out / name).read_text() for name in ("summary.json", "report.html")}
    for name in made:
        (out / name).unlink()
    nnsteer("report", out)
    assert (out / "summary.json").read_text() == made["summary.json"]
    assert "<html" in (out / "report.html").read_text()


def test_two_studies_are_compared(study, capsys):
    nnsteer("study", study, "--out", study.parent / "a")
    study.write_text(study.read_text().replace("max_new_tokens = 3", "max_new_tokens = 5"))
    nnsteer("study", study, "--out", study.parent / "b")
    capsys.readouterr()
    nnsteer("compare", study.parent / "a", study.parent / "b", "--page", study.parent / "c.html")
    assert "length" in capsys.readouterr().out and "<html" in (study.parent / "c.html").read_text()


@pytest.mark.slow
def test_a_refusal_run_can_be_used_by_the_other_verbs(study, folder, tmp_path):
    small = [
        "--tune-prompts",
        1,
        "--max-broken",
        1,
        "--max-drift",
        100,
        "--max-new-tokens",
        3,
        "--out",
        tmp_path / "run",
    ]
    prompts = ["--harmful", tmp_path / "harmful.jsonl", "--harmless", tmp_path / "harmless.jsonl"]
    nnsteer("recipe", "refusal", "--model", folder, *prompts, *small)
    (tmp_path / "run" / "report.html").unlink()
    nnsteer("report", tmp_path / "run")
    assert (tmp_path / "run" / "report.html").exists()
    rows = [
        json.loads(line)
        for line in (tmp_path / "run" / "completions.jsonl").read_text().splitlines()
    ]
    own = [row for row in rows if row["variant"] == "conditional"]
    programs = ["--programs", tmp_path / "run", "--variant", "conditional", "--model", folder]
    nnsteer(
        "generate",
        *(row["prompt"] for row in own),
        *programs,
        "--max-new-tokens",
        3,
        "--out",
        tmp_path / "again.jsonl",
    )
    again = [json.loads(line) for line in (tmp_path / "again.jsonl").read_text().splitlines()]
    assert [row["steered"] for row in again] == [row["completion"] for row in own]


@pytest.fixture
def endpoint():
    """A judge that says yes to long answers."""
    asked = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            question = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["messages"][
                0
            ]["content"]
            asked.append(question)
            reply = {
                "choices": [
                    {
                        "message": {
                            "role": "assistant",
                            "content": "yes" if len(question) > 12 else "no",
                        }
                    }
                ]
            }
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps(reply).encode())

        def log_message(self, *args):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/v1", asked
    server.shutdown()
    server.server_close()


def test_a_judge_judges_the_answers_of_a_run_once(endpoint, tmp_path, capsys):
    url, asked = endpoint
    (tmp_path / "judge.toml").write_text(
        f'url = "{url}"\nmodel = "m"\nscale = "yes-no"\nrubric = "Q: {{answer}}"\n'
    )
    texts = ["a long answer", "short", "short", "another long one"]
    place = {"variant": "v", "set": "harmful test", "kind": "", "sample": 0}
    rows = [
        place | {"key": f"k{i}", "prompt": f"p{i}", "completion": text}
        for i, text in enumerate(texts)
    ]
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "completions.jsonl").write_text(
        "".join(json.dumps(row) + "\n" for row in rows)
    )
    for _ in range(2):
        nnsteer("judge", tmp_path / "run", "--judge", tmp_path / "judge.toml")
        assert re.search(
            r"v +harmful test +50\.0 % +\[15\.0, 85\.0\] +4 +0", capsys.readouterr().out
        )
        assert len(asked) == 4
