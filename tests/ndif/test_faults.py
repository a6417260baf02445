"""Every planned fault, as nnsight's own client meets it."""

from __future__ import annotations

import time

import httpx
import nnsight
import pytest
import torch
from nnsight import TransformersModel, save
from nnsight.intervention.backends.remote import AsyncRemoteBackend, RemoteBackend, RemoteError
from nnsight.schema.config import CONFIG
from transformers import AutoTokenizer
from websocket import WebSocketBadStatusException, WebSocketConnectionClosedException

pytest_plugins = ["loopback_fixtures"]
THREE = torch.tensor([[5, 6, 7]])


@pytest.fixture(scope="module")
def skeleton(served):
    return TransformersModel(
        str(served), task="text-generation", tokenizer=AutoTokenizer.from_pretrained(served)
    )


def ask(model, url):
    """One job: the number of tokens."""
    with model.trace(THREE, remote=url, use_cache=False):
        out = save({"tokens": model.model.layers[0].output.shape[1]})
    return out["tokens"]


def submit(model, url):
    """The same without a socket."""
    with model.trace(THREE, remote=url, use_cache=False, blocking=False) as tracer:
        out = save({"tokens": model.model.layers[0].output.shape[1]})  # noqa: F841
    return tracer.backend


def polled(backend, seconds=10.0):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if (result := backend()) is not None:
            return result["out"]["tokens"]
        time.sleep(0.05)
    return None


@pytest.mark.parametrize(
    ("status", "message"),
    [
        ("401", "Missing or invalid API key"),
        ("429", "A planned fault"),
        ("503", "backend is reconnecting"),
    ],
)
def test_an_answer_of_that_status_comes_once_and_nothing_runs(trusted, skeleton, status, message):
    trusted.plan({"kind": status, "seconds": 7})
    with pytest.raises(RemoteError, match=f"Failed to send request: .*{message}") as caught:
        ask(skeleton, trusted.url)
    assert caught.value.__cause__.response.headers.get("Retry-After") == (
        None if status == "401" else "7"
    )
    assert trusted.jobs() == []
    assert ask(skeleton, trusted.url) == 3


def test_a_key_is_checked(trusted, skeleton, monkeypatch):
    assert nnsight.ndif.whoami()["email"]
    for key, message in (
        (None, "Missing"),
        ("secret", "format"),
        ("5ca1ab1e-0000-4000-8000-000000000bad", "Invalid API key"),
    ):
        monkeypatch.setattr(CONFIG.API, "APIKEY", key)
        assert nnsight.ndif.whoami()["email"] is None
        with pytest.raises(RemoteError, match=message):
            ask(skeleton, trusted.url)
    assert trusted.jobs() == []


def test_a_cut_connection(trusted, skeleton):
    trusted.plan("close", {"kind": "close", "at": "response"}, {"kind": "close", "at": "subscribe"})
    with pytest.raises(RemoteError, match="Failed to send request") as caught:
        submit(skeleton, trusted.url)
    assert isinstance(caught.value.__cause__, httpx.TransportError)
    backend = submit(skeleton, trusted.url)
    with pytest.raises(httpx.TransportError):
        backend()
    assert polled(backend) == 3
    with pytest.raises((ConnectionError, WebSocketConnectionClosedException)):
        ask(skeleton, trusted.url)
    assert len(trusted.jobs()) == 1


def test_a_websocket_that_is_not_granted(trusted, skeleton):
    trusted.plan({"kind": "503", "at": "subscribe"})
    with pytest.raises(WebSocketBadStatusException, match="503"):
        ask(skeleton, trusted.url)


def test_nobody_listens_for_a_while(trusted, skeleton):
    trusted.plan("pass", {"kind": "refuse", "seconds": 1.0})
    backend = submit(skeleton, trusted.url)
    with pytest.raises(httpx.ConnectError):
        backend()
    with pytest.raises(ConnectionRefusedError):
        ask(skeleton, trusted.url)
    time.sleep(1.2)
    assert polled(backend) == 3  # the job was not lost
    assert [job["executions"] for job in trusted.jobs()] == [1]


def test_a_websocket_dropped_mid_job_loses_the_result_as_on_ndif(server, skeleton):
    server.plan("drop")
    with pytest.raises((ConnectionError, WebSocketConnectionClosedException)):
        ask(skeleton, server.url)
    assert ask(skeleton, server.url) == 3
    first, second = server.jobs()
    assert (first["state"], first["executions"], first["down"]) == ("COMPLETED", 1, 0)
    assert (
        first["payload"] == second["payload"]
    )  # the same work, so a test can see that it was done twice
    assert httpx.get(f"{server.url}/response/{first['id']}").status_code == 404


def test_a_client_that_is_gone_leaves_the_server_working(server, skeleton):
    server.plan({"kind": "stall", "seconds": 0.5})
    backend = AsyncRemoteBackend(skeleton.to_model_key(), host=server.url)
    with skeleton.trace(THREE, backend=backend, use_cache=False):
        out = save({"tokens": skeleton.model.layers[0].output.shape[1]})  # noqa: F841
    backend.connection.shutdown()
    assert ask(skeleton, server.url) == 3
    assert [(job["state"], job["down"] > 0) for job in server.jobs()] == [
        ("COMPLETED", False),
        ("COMPLETED", True),
    ]


def test_a_stall_takes_its_time(trusted, skeleton):
    for fault in (
        {"kind": "stall", "seconds": 0.6},
        {"kind": "stall", "seconds": 0.6, "at": "request"},
    ):
        trusted.plan(fault)
        start = time.monotonic()
        assert ask(skeleton, trusted.url) == 3
        assert 0.6 < time.monotonic() - start < 30


def test_an_exception_of_the_server_and_its_limit(trusted, skeleton):
    trusted.plan(
        "error",
        {"kind": "timeout", "seconds": 0.2},
        "undeployed",
        {"kind": "undeployed", "at": "job"},
    )
    with pytest.raises(RemoteError, match=r"torch\.OutOfMemoryError"):
        ask(skeleton, trusted.url)
    with pytest.raises(RemoteError, match=r"Your job exceeded the execution timeout of 0\.2s\."):
        ask(skeleton, trusted.url)
    with pytest.raises(RemoteError, match="Error provisioning model"):
        ask(skeleton, trusted.url)
    assert ask(skeleton, trusted.url) == 3
    assert [job["executions"] for job in trusted.jobs()] == [0, 0, 0, 1]
    assert trusted.jobs()[0]["faults"] == ["error"]


def test_other_versions(trusted, monkeypatch):
    monkeypatch.setattr(nnsight.ndif, "_REMOTE_ENV", None)
    assert nnsight.compare().critical_mismatches == {}
    trusted.plan("versions")
    monkeypatch.setattr(nnsight.ndif, "_REMOTE_ENV", None)
    compared = nnsight.compare()
    assert (
        set(compared.critical_mismatches) == {"nnsight", "transformers"}
        and not compared.python_matches
    )


def test_a_model_that_is_not_deployed(trusted, skeleton):
    trusted.plan("undeployed")
    assert list(nnsight.status()) == []
    listed = nnsight.status()
    assert listed.status == "UP" and listed[trusted.name]["state"] == "RUNNING"
    (deployment,) = nnsight.status(raw=True)["deployments"].values()
    assert deployment["model_key"] == skeleton.to_model_key()


def test_a_job_that_is_not_known(trusted, skeleton):
    never = RemoteBackend(
        skeleton.to_model_key(), host=trusted.url, blocking=False, job_id="0" * 32
    )
    assert polled(never, 0.3) is None
    trusted.plan({"kind": "pass", "at": "response"}, "unknown")
    backend = submit(skeleton, trusted.url)
    time.sleep(0.5)
    assert backend()["out"]["tokens"] == 3
    assert polled(backend, 0.5) is None  # forgotten for good, not for one call
    assert httpx.get(f"{trusted.url}/result/{backend.job_id}").status_code == 404


def test_a_job_that_is_not_known_yet(trusted, skeleton):
    """On NDIF a 404 may mean no more than that the queue has not come to it."""
    trusted.plan(
        {"kind": "stall", "seconds": 1.5, "at": "queue"},
        {"kind": "pass", "count": 2, "at": "response"},
        {"kind": "404", "at": "response"},
    )
    backend = submit(skeleton, trusted.url)
    assert httpx.get(f"{trusted.url}/response/{backend.job_id}").status_code == 404
    assert polled(backend) == 3
    assert [call["status"] for call in trusted.calls("/response")][:3] == [404, 404, 404]
    assert [job["executions"] for job in trusted.jobs()] == [1]


def test_a_script_runs_in_order_at_each_stage(trusted, skeleton):
    trusted.plan("pass", {"kind": "429", "count": 2}, {"kind": "500", "at": "ping"}, "503")
    statuses = []
    for _ in range(5):
        try:
            ask(skeleton, trusted.url)
        except RemoteError as error:
            statuses.append(error.__cause__.response.status_code)
        else:
            statuses.append(200)
    assert statuses == [200, 429, 429, 503, 200]
    assert [httpx.get(f"{trusted.url}/ping").status_code for _ in range(2)] == [500, 200]
    assert [call["status"] for call in trusted.calls("/request")] == statuses
    with pytest.raises(httpx.HTTPStatusError):
        trusted.plan("no such fault")


def test_what_a_block_prints_is_a_log_message(server, skeleton):
    backend = AsyncRemoteBackend(skeleton.to_model_key(), host=server.url)
    with torch.no_grad(), skeleton.trace(THREE, backend=backend, use_cache=False):
        print("first", 2)
        out = save({"tokens": skeleton.model.layers[0].output.shape[1]})  # noqa: F841
    seen = []
    while not seen or seen[-1].status != "COMPLETED":
        seen.append(backend.parse(backend.connection.recv()))
    backend.close()
    assert [update.description for update in seen if update.status == "LOG"] == ["first 2"]
    assert seen[0].description == "Added to Queue at position 1."
