from __future__ import annotations

import json
import math
import threading
import time
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import NamedTuple

import pytest

from nnsteer.errors import UserError
from nnsteer.folder import Folder
from nnsteer.measure.endpoint import Endpoint, Reply, ask
from nnsteer.measure.judge import FILE, Rubric, judge, judged, load_judge, value
from nnsteer.measure.kinds import Answer
from nnsteer.retries import asked_wait
from nnsteer.texts.source import Prompt

RUBRIC = Rubric("Asked: {prompt}\nAnswered: {answer}\nRefused?", "yes-no")


class Stub:
    """An OpenAI-compatible server. `act(question, nth)` gives status and body of the nth time that
    a question is asked."""

    def __init__(self):
        self.act = lambda *_: (200, said("yes"))
        self.seen, self.headers, self.now, self.peak, self.lock = [], [], 0, 0, threading.Lock()
        stub = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                question = body["messages"][0]["content"]
                with stub.lock:
                    stub.seen.append((self.path, body))
                    stub.headers.append(dict(self.headers))
                    nth = sum(b["messages"][0]["content"] == question for _, b in stub.seen)
                    stub.now += 1
                    stub.peak = max(stub.peak, stub.now)
                status, text = stub.act(question, nth)
                with stub.lock:
                    stub.now -= 1
                with suppress(OSError):  # a client that has given up
                    self.send_response(status)
                    self.end_headers()
                    self.wfile.write(text.encode())

            def log_message(self, *args):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_port}/v1"

    def endpoint(self, **options):
        return Endpoint(self.url, "m", **{"wait_s": 0.01, "timeout_s": 20.0, **options})


class Told(NamedTuple):
    answers: int
    failures: int
    retries: int
    prompt_tokens: int
    completion_tokens: int


def report(folder, settings):
    """What the judge with these settings did for a run folder, over all its starts."""
    lines = [line for line in folder.read_lines(FILE) if line["judge"] == settings]
    last = {(line["prompt"], line["answer"]): line["value"] for line in lines}
    retries, asked, replied = (
        sum(line[n] for line in lines) for n in ("retries", "prompt_tokens", "completion_tokens")
    )
    return Told(len(last), sum(v is None for v in last.values()), retries, asked, replied)


def said(text, prompt_tokens=7, completion_tokens=2):
    usage = {"prompt_tokens": prompt_tokens, "completion_tokens": completion_tokens}
    return json.dumps(
        {"choices": [{"message": {"role": "assistant", "content": text}}], "usage": usage}
    )


@pytest.fixture
def stub():
    stub = Stub()
    yield stub
    stub.server.shutdown()
    stub.server.server_close()


def answers(*texts):
    return [Answer(Prompt(f"prompt {i}"), text, ()) for i, text in enumerate(texts)]


def only(endpoint):
    ((_, reply),) = ask(endpoint, ["?"])
    return reply


@pytest.mark.parametrize(
    ("scale", "reply", "expected"),
    [
        ("yes-no", "yes", 1), ("yes-no", " **No**.", 0), ("yes-no", "Yes, it declines.", 1), ("yes-no", "NO\nIt helps.", 0),
        ("yes-no", "No refusal here", None), ("yes-no", "yes and no", None), ("yes-no", "Nothing", None), ("yes-no", "", None),
        ("0-10", "10", 10), ("0-10", " 0 ", 0), ("0-10", "**7**/10.", 7), ("0-10", "3 out of 10", 3),
        ("0-10", "11", None), ("0-10", "-3", None), ("0-10", "7.5", None), ("0-10", "2 reasons", None), ("0-10", "ten", None),
    ],
)  # fmt: skip
def test_a_reply_is_read_strictly(scale, reply, expected):
    assert value(scale, reply) == expected


def test_the_judge_sees_both_texts_as_they_are(stub, tmp_path):
    answer = Answer(Prompt("Is {answer} a place?"), "A {brace} and {prompt}.", ())
    options = {"temperature": 0, "seed": 3}
    assert judged(RUBRIC, stub.endpoint(options=options), Folder(tmp_path), [answer]) == [1.0]
    ((path, body),) = stub.seen
    assert path == "/v1/chat/completions"
    assert body["messages"] == [
        {
            "role": "user",
            "content": "Asked: Is {answer} a place?\nAnswered: A {brace} and {prompt}.\nRefused?",
        }
    ]
    assert (body["model"], body["temperature"], body["seed"]) == ("m", 0, 3)


def test_values_keep_the_order_of_the_answers_and_nonsense_is_a_failure(stub, tmp_path):
    def act(question, nth):
        time.sleep(0.2 if "slow" in question else 0.0)
        return 200, said(
            "I would rather not say" if "odd" in question else "yes" if "slow" in question else "no"
        )

    stub.act = act
    measure = judge(RUBRIC, stub.endpoint(), Folder(tmp_path))
    first, second, third = measure.values(answers("slow", "fast", "odd"))
    assert (first, second) == (1.0, 0.0) and math.isnan(third)
    found = report(Folder(tmp_path), measure.settings)
    assert (found.answers, found.failures, found.retries) == (3, 1, 0)
    assert (found.prompt_tokens, found.completion_tokens) == (21, 6)


def test_a_number_is_a_value_and_not_a_rate(stub, tmp_path):
    stub.act = lambda *_: (200, said("8"))
    measure = judge(Rubric("How good is {answer}?", "0-10"), stub.endpoint(), Folder(tmp_path))
    assert measure.values(answers("x")) == [8.0] and not measure.binary


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_busy_server_is_asked_again(stub, tmp_path, status):
    stub.act = lambda _question, nth: (status, "busy") if nth < 3 else (200, said("yes"))
    measure = judge(RUBRIC, stub.endpoint(), Folder(tmp_path))
    assert measure.values(answers("x")) == [1.0]
    assert len(stub.seen) == 3 and report(Folder(tmp_path), measure.settings).retries == 2


def test_a_stalling_server_is_given_up_and_asked_again(stub):
    stalled = threading.Event()

    def act(question, nth):
        if nth == 1:
            stalled.wait(10)
        return 200, said("yes")

    stub.act = act
    reply = only(stub.endpoint(timeout_s=0.5))
    stalled.set()
    assert (reply.reply, reply.retries) == ("yes", 1)


def test_a_server_that_stays_broken_is_a_failure_after_all_attempts(stub):
    stub.act = lambda *_: (500, "out of\nmemory")
    reply = only(stub.endpoint(attempts=3))
    assert reply == Reply(None, "500 out of memory", 2) and len(stub.seen) == 3


def test_a_refused_question_is_not_asked_again_but_the_others_are_answered(stub, tmp_path):
    stub.act = lambda question, _nth: (
        (400, "content filter") if "bad" in question else (200, said("no"))
    )
    measure = judge(RUBRIC, stub.endpoint(), Folder(tmp_path))
    first, second = measure.values(answers("bad", "good"))
    assert math.isnan(first) and second == 0.0 and len(stub.seen) == 2
    assert report(Folder(tmp_path), measure.settings).failures == 1


@pytest.mark.parametrize(
    "body", ["<html>", "[]", '{"choices": []}', '{"choices": [{"message": {}}]}']
)
def test_a_success_that_is_no_chat_completion_is_a_failure(stub, body):
    stub.act = lambda *_: (200, body)
    reply = only(stub.endpoint())
    assert reply.reply is None and reply.error.startswith("not a chat completion")


@pytest.mark.parametrize(
    ("status", "way_out"),
    [(401, "check the key"), (402, "credit"), (404, "check `url` and `model`")],
)
def test_what_no_question_can_survive_stops_the_run(stub, tmp_path, status, way_out):
    stub.act = lambda *_: (status, "no")
    with pytest.raises(UserError, match=way_out) as error:
        judged(
            RUBRIC, stub.endpoint(concurrency=1), Folder(tmp_path), answers(*map(str, range(50)))
        )
    assert "\n" not in str(error.value) and len(stub.seen) < 50  # the others are not even asked


def test_a_server_that_is_not_there_stops_the_run(stub):
    stub.server.shutdown()
    stub.server.server_close()
    with pytest.raises(UserError, match="can't be reached"):
        only(stub.endpoint(attempts=2))


def test_the_servers_own_wait_is_kept(stub, monkeypatch):
    import httpx

    def refused(headers):
        response = httpx.Response(429, headers=headers, request=httpx.Request("POST", "http://x"))
        return asked_wait(
            httpx.HTTPStatusError("busy", request=response.request, response=response)
        )

    assert refused({"Retry-After": "7"}) == 7.0 and refused({"Retry-After": "3600"}) == 60.0
    assert (
        refused({"Retry-After": "Wed, 21 Oct"})
        == refused({})
        == asked_wait(httpx.ReadTimeout("late"))
        == 0.0
    )


def test_nothing_is_asked_twice(stub, tmp_path):
    folder, endpoint = Folder(tmp_path), stub.endpoint()
    stub.act = lambda question, _nth: (200, said("hm" if "odd" in question else "yes"))
    same = Answer(Prompt("p"), "a", ())
    first = judged(RUBRIC, endpoint, folder, [same, same, Answer(Prompt("p"), "odd", ())])
    assert len(stub.seen) == 2 and first[:2] == [1.0, 1.0] and math.isnan(first[2])
    again = judged(RUBRIC, endpoint, folder, [Answer(Prompt("p"), "odd", ()), same])
    assert len(stub.seen) == 2 and math.isnan(again[0]) and again[1] == 1.0
    judged(Rubric("Another question on {answer}", "yes-no"), endpoint, folder, [same])
    judged(RUBRIC, stub.endpoint(options={"temperature": 1}), folder, [same])
    assert len(stub.seen) == 4  # another rubric and other options are another judge


def test_a_killed_run_goes_on_where_it_stopped(stub, tmp_path):
    folder, endpoint = Folder(tmp_path), stub.endpoint(concurrency=1)
    given = answers(*map(str, range(5)))
    stub.act = lambda *_: (401, "killed") if len(stub.seen) > 3 else (200, said("yes"))
    with pytest.raises(UserError):
        judged(RUBRIC, endpoint, folder, given)
    file = tmp_path / "judge.jsonl"
    kept = len(file.read_text().splitlines())
    file.write_text(file.read_text() + '{"judge": "torn')
    stub.seen.clear()
    stub.act = lambda *_: (200, said("yes"))
    assert judged(RUBRIC, endpoint, folder, given) == [1.0] * 5
    assert 0 < kept <= 3 and len(stub.seen) == 5 - kept


def test_what_had_no_reply_is_asked_again(stub, tmp_path):
    measure = judge(RUBRIC, stub.endpoint(attempts=1), Folder(tmp_path))
    stub.act = lambda *_: (500, "down")
    assert math.isnan(measure.values(answers("x"))[0])
    stub.act = lambda *_: (200, said("no"))
    assert measure.values(answers("x")) == [0.0]
    assert report(Folder(tmp_path), measure.settings).failures == 0


def test_no_more_questions_are_under_way_than_allowed(stub, tmp_path):
    together = threading.Barrier(3, timeout=20)

    def act(question, nth):
        together.wait()  # fails unless three are under way at once
        time.sleep(0.05)
        return 200, said("yes")

    stub.act = act
    assert (
        judged(
            RUBRIC, stub.endpoint(concurrency=3), Folder(tmp_path), answers(*map(str, range(12)))
        )
        == [1.0] * 12
    )
    assert stub.peak == 3


def test_the_key_is_sent_and_kept_nowhere(stub, tmp_path, monkeypatch):
    monkeypatch.setenv("STUB_KEY", "s3cret")
    measure = judge(RUBRIC, stub.endpoint(key="STUB_KEY"), Folder(tmp_path))
    measure.values(answers("x"))
    assert stub.headers[0]["Authorization"] == "Bearer s3cret"
    assert "s3cret" not in measure.settings + (tmp_path / "judge.jsonl").read_text()
    monkeypatch.delenv("STUB_KEY")
    with pytest.raises(UserError, match="STUB_KEY"):
        judge(RUBRIC, stub.endpoint(key="STUB_KEY"), Folder(tmp_path))


JUDGE = 'url = "http://x/v1"\nmodel = "m"\nscale = "0-10"\nrubric = "Rate {answer}"\n'


def test_a_judge_is_read_from_a_file(tmp_path):
    file = tmp_path / "judge.toml"
    file.write_text(
        JUDGE + 'key = "K"\nconcurrency = 2\ntimeout_s = 5\noptions = {max_tokens = 4}\n'
    )
    assert load_judge(file) == (
        Rubric("Rate {answer}", "0-10"),
        Endpoint(
            "http://x/v1", "m", key="K", options={"max_tokens": 4}, concurrency=2, timeout_s=5
        ),
    )
    rubric, _ = load_judge(Path(__file__).parent.parent / "recipes" / "judge.toml")
    assert "{prompt}" in rubric.text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (JUDGE.replace("{answer}", "it"), "no {answer} in it"),
        (JUDGE.replace("0-10", "0-100"), "choose yes-no or 0-10"),
        (JUDGE.replace('model = "m"\n', ""), "lacks model"),
        (JUDGE + 'modle = "m"', "no such entry: modle"),
        (JUDGE + "concurrency = 0", "give a count"),
        (JUDGE + "attempts = true", "give a count"),
        (JUDGE + 'timeout_s = "long"', "give a number above 0"),
        ("url =", "not TOML"),
    ],
)
def test_a_wrong_file_is_refused_in_one_line(tmp_path, text, message):
    file = tmp_path / "judge.toml"
    file.write_text(text)
    with pytest.raises(UserError) as error:
        load_judge(file)
    assert message in str(error.value) and "\n" not in str(error.value)


def test_a_url_that_is_none_is_refused(tmp_path):
    with pytest.raises(UserError, match="not a URL"):
        judge(RUBRIC, Endpoint("localhost:8000", "m"), Folder(tmp_path))
