"""nnsight's own client against the loopback server: the modes, the wire, the log."""

from __future__ import annotations

import textwrap
import time
from fractions import Fraction

import pytest
import torch
from nnsight import TransformersModel, save
from nnsight.intervention.backends.remote import RemoteBackend, RemoteError
from nnsight.schema.config import CONFIG
from transformers import AutoModelForCausalLM, AutoTokenizer

pytest_plugins = ["loopback_fixtures"]
PROMPTS = ["How do I bake bread?", "Hi"]


@pytest.fixture(scope="module")
def inputs(served):
    tokenizer = AutoTokenizer.from_pretrained(served)
    return dict(tokenizer(PROMPTS, return_tensors="pt", padding=True))


@pytest.fixture(scope="module")
def skeleton(served):
    """The model as a laptop has it: no weights."""
    return TransformersModel(
        str(served), task="text-generation", tokenizer=AutoTokenizer.from_pretrained(served)
    )


@pytest.fixture(scope="module")
def whole(served):
    """The same with its weights."""
    model = AutoModelForCausalLM.from_pretrained(served, dtype=torch.float32)
    return TransformersModel(model, tokenizer=AutoTokenizer.from_pretrained(served))


def traced(model, inputs, remote=None):
    shift = torch.linspace(-1, 1, 128)
    with torch.no_grad(), model.trace(inputs, remote=remote, use_cache=False):
        model.model.layers[1].output = model.model.layers[1].output + shift
        out = save({"state": model.model.layers[2].output, "logits": model.lm_head.output})
    return out


def in_a_session(model, inputs, remote=None):
    with torch.no_grad(), model.session(remote=remote):
        means = []
        for layer in (0, 3):
            with model.trace(inputs, use_cache=False):
                means.append(model.model.layers[layer].output.mean((0, 1)).save())
        out = save({"means": means})
    return out


def generated(model, inputs, remote=None):
    shift = torch.linspace(-2, 2, 128)
    with model.generate(
        remote=remote, max_new_tokens=6, min_new_tokens=6, do_sample=False
    ) as tracer:
        with tracer.invoke(inputs):
            for _ in tracer.iter[:6]:
                model.model.layers[2].output = model.model.layers[2].output + shift
        with tracer.invoke():
            out = save({"ids": tracer.result})
    return out


@pytest.mark.parametrize("run", [traced, in_a_session, generated])
def test_every_mode_gives_the_local_numbers_to_a_client_without_weights(
    server, skeleton, whole, inputs, run
):
    want, got = run(whole, inputs), run(skeleton, inputs, server.url)
    assert want.keys() == got.keys()
    torch.testing.assert_close(got, want, atol=1e-5, rtol=0)
    assert not skeleton.dispatched
    (job,) = server.jobs()
    assert (job["state"], job["executions"]) == ("COMPLETED", 1)
    assert [state for state, _ in job["states"]] == [
        "RECEIVED",
        "QUEUED",
        "DISPATCHED",
        "RUNNING",
        "COMPLETED",
    ]


def test_two_blocks_of_one_place_in_a_file_are_not_confused(server, skeleton, whole, inputs):
    """nnsight remembers blocks by file and line; a server that kept them would run the first
    again."""
    for factor in (1.0, 3.0):

        def scaled(remote, model, factor=factor):
            with torch.no_grad(), model.trace(inputs, remote=remote, use_cache=False):
                out = save({"scaled": model.model.layers[0].output * factor})
            return out["scaled"]

        torch.testing.assert_close(
            scaled(server.url, skeleton), scaled(None, whole), atol=1e-5, rtol=0
        )


@pytest.mark.parametrize("mode", ["sandbox", "trusted"])
def test_the_server_has_no_nnsteer(request, client, skeleton, inputs, mode):
    server = request.getfixturevalue(mode)
    with (
        pytest.raises(RemoteError, match="ModuleNotFoundError: No module named 'nnsteer'"),
        skeleton.trace(inputs, remote=server.url),
    ):
        import nnsteer.kernels.edits

        out = save({"file": nnsteer.kernels.edits.__file__})  # noqa: F841


def test_each_sandboxed_request_has_a_process_of_its_own_and_no_weights(sandbox, skeleton, inputs):
    def look():
        with skeleton.trace(inputs, remote=sandbox.url):
            import os
            import sys

            seen = getattr(sys, "seen", 0)
            sys.seen = seen + 1
            out = save(
                {
                    "pid": os.getpid(),
                    "seen": seen,
                    "device": str(skeleton.lm_head._module.weight.device),
                }
            )
        return out

    first, second = look(), look()
    assert (first["seen"], second["seen"], first["device"]) == (0, 0, "meta")
    assert first["pid"] != second["pid"]


def test_the_strict_mode_names_what_it_rejects(request, client, skeleton, inputs):
    strict, half = request.getfixturevalue("strict_server"), Fraction(1, 2)
    with (
        pytest.raises(RemoteError, match=r"strict: the payload names textwrap\)"),
        skeleton.trace(inputs, remote=strict.url),
    ):
        out = save({"text": textwrap.dedent(" a")})
    with (
        pytest.raises(RemoteError, match=r"strict: the payload names fractions\.Fraction\)"),
        skeleton.trace(inputs, remote=strict.url),
    ):
        out = save({"half": float(half)})
    with (
        pytest.raises(RemoteError, match="strict: the code imports socket"),
        skeleton.trace(inputs, remote=strict.url),
    ):
        import socket

        out = save({"name": socket.gethostname()})
    with (
        pytest.raises(RemoteError, match="name 'open' is not defined"),
        skeleton.trace(inputs, remote=strict.url),
    ):
        out = save({"text": open("/etc/hostname").read()})  # noqa: F841, SIM115


def test_an_exception_of_the_block_comes_back_with_its_name_and_line(server, skeleton, inputs):
    with (
        pytest.raises(
            RemoteError, match=r"test_loopback\.py(.|\n)*ZeroDivisionError: division by zero"
        ),
        skeleton.trace(inputs, remote=server.url),
    ):
        out = save({"never": 1 / 0})  # noqa: F841
    assert server.jobs()[0]["state"] == "ERROR"


def test_a_model_that_is_not_there_is_said_so(trusted, skeleton, inputs, monkeypatch):
    monkeypatch.setattr(skeleton, "revision", "another")
    with pytest.raises(RemoteError, match="Error provisioning model"):
        traced(skeleton, inputs, trusted.url)
    assert trusted.jobs()[0]["executions"] == 0


@pytest.mark.parametrize("compress", [True, False])
@pytest.mark.parametrize("by_url", [True, False])
def test_results_come_inline_and_by_url_compressed_and_not(
    trusted, skeleton, whole, inputs, monkeypatch, compress, by_url
):
    monkeypatch.setattr(CONFIG.API, "COMPRESS", compress)
    trusted.plan("url" if by_url else "pass")
    torch.testing.assert_close(
        traced(skeleton, inputs, trusted.url), traced(whole, inputs), atol=1e-5, rtol=0
    )
    (job,) = trusted.jobs()
    assert len(trusted.calls(f"/result/{job['id']}")) == by_url
    saved = inputs["input_ids"].numel() * (128 + 8192) * 4
    assert (saved / 2 < job["down"] < saved) if compress else (saved < job["down"] < saved + 5000)


def test_bytes_up_are_counted(trusted, skeleton, inputs, monkeypatch):
    monkeypatch.setattr(CONFIG.API, "COMPRESS", False)
    big = torch.ones(100_000)
    with skeleton.trace(inputs, remote=trusted.url):
        out = save({"sum": big.sum()})
    assert out["sum"] == 100_000
    (job,) = trusted.jobs()
    (call,) = trusted.calls("/request")
    assert 400_000 < job["up"] < 420_000 < call["up"] + 20_000


def test_a_job_without_a_socket_is_polled_and_its_result_waits(server, skeleton, whole, inputs):
    server.plan({"kind": "stall", "seconds": 0.3})
    with (
        torch.no_grad(),
        skeleton.trace(inputs, remote=server.url, blocking=False, use_cache=False) as tracer,
    ):
        out = save({"state": skeleton.model.layers[2].output})  # noqa: F841
    job_id = tracer.backend.job_id
    assert tracer.backend() is None and tracer.backend.status in (
        "RECEIVED",
        "QUEUED",
        "DISPATCHED",
        "RUNNING",
    )
    later = RemoteBackend(
        skeleton.to_model_key(), host=server.url, blocking=False, job_id=job_id
    )  # as another process would
    results = [wait_for(later), wait_for(later)]
    with torch.no_grad(), whole.trace(inputs, use_cache=False):
        want = save(whole.model.layers[2].output)
    for result in results:
        torch.testing.assert_close(result["out"]["state"], want, atol=1e-5, rtol=0)
    (job,) = server.jobs()
    assert (job["id"], job["executions"], job["blocking"]) == (job_id, 1, False)
    assert later.meta["runtime"] > 0


def wait_for(backend):
    for _ in range(200):
        if (result := backend()) is not None:
            return result
        time.sleep(0.05)
    raise AssertionError(f"still {backend.status}")
