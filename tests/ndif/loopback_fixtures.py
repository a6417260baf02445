"""A loopback server per mode for the tests of this folder, and a handle on it.

A plugin that test modules name in `pytest_plugins`, and not a conftest.py: that would stand in for
tests/conftest.py wherever other tests import from it. Test modules may also import it (hence
PYTEST_DONT_REWRITE).
"""

from __future__ import annotations

from pathlib import Path

import pytest
from nnsight.modeling.huggingface import _ID_CACHE
from nnsight.schema.config import CONFIG

from nnsteer.texts import bundled
from serving import KEY, NAME, Loopback, serving

MODES = ("sandbox", "trusted", "strict")


@pytest.fixture(scope="session")
def served() -> Path:
    """The folder of the model that is served."""
    return bundled.organism()


@pytest.fixture(scope="session")
def sandbox_server(served):
    with serving(served, "sandbox") as server:
        yield server


@pytest.fixture(scope="session")
def trusted_server(served):
    with serving(served, "trusted") as server:
        yield server


@pytest.fixture(scope="session")
def strict_server(served):
    with serving(served, "strict") as server:
        yield server


@pytest.fixture
def client(monkeypatch, served):
    """nnsight's settings for a client of the loopback servers, for one test: the key, no status
    lines, no look at the hub."""
    monkeypatch.setattr(CONFIG.API, "APIKEY", KEY)
    monkeypatch.setattr(CONFIG.APP, "REMOTE_LOGGING", False)
    monkeypatch.setitem(_ID_CACHE, str(served), NAME)


@pytest.fixture(params=MODES)
def server(request, client, monkeypatch) -> Loopback:
    """Each mode's server in turn, without faults and with an empty log."""
    running = request.getfixturevalue(f"{request.param}_server")
    running.reset()
    monkeypatch.setattr(CONFIG.API, "HOST", running.url)
    return running


@pytest.fixture
def sandbox(client, monkeypatch, sandbox_server) -> Loopback:
    """The sandbox server, without faults and with an empty log."""
    sandbox_server.reset()
    monkeypatch.setattr(CONFIG.API, "HOST", sandbox_server.url)
    return sandbox_server


@pytest.fixture
def trusted(client, monkeypatch, trusted_server) -> Loopback:
    """The trusted server, without faults and with an empty log: the one for tests of the wire
    alone."""
    trusted_server.reset()
    monkeypatch.setattr(CONFIG.API, "HOST", trusted_server.url)
    return trusted_server
