"""What a server says of itself, looked at before anything is sent."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import httpx

from nnsteer.errors import UserError
from nnsteer.ndif.client import PUBLIC_HOST, Link, api_key, said
from nnsteer.retries import patiently

ATTEMPTS, WAIT_S = 5, 0.5
PACKAGES = ("nnsight", "transformers", "torch")
KEY_ADVICE = "set NDIF_API_KEY (https://login.ndif.us gives one), or store it once with nnsight.login()"


@dataclass(frozen=True)
class Deployment:
    """A model on a server."""

    key: str
    """What nnsight calls it."""
    name: str
    """A hub id, or the name of a folder."""
    revision: str | None
    running: bool
    state: str


@dataclass(frozen=True)
class Version:
    """A package here and there (None: not there)."""

    package: str
    here: str
    there: str | None

    @property
    def agrees(self) -> bool:
        """Whether major and minor version are the same."""
        return self.there is not None and self.here.split(".")[:2] == self.there.split(".")[:2]


def url_of(remote: str) -> str:
    """The server that `--remote` names: "ndif" is the public one."""
    url = PUBLIC_HOST if remote == "ndif" else remote.rstrip("/")
    if not url.startswith(("http://", "https://")):
        raise UserError(f"--remote {remote}: give ndif, local, or a URL like http://localhost:5001")
    return url


def ask(host: str, path: str) -> Any:
    """The JSON of one of the server's pages. Raises UserError where it can't be had."""
    key = api_key()
    headers = {} if key is None else {"ndif-api-key": key}
    retrying = patiently(ATTEMPTS, WAIT_S)
    try:
        return retrying(lambda: httpx.get(f"{host}{path}", headers=headers, timeout=30.0).raise_for_status()).json()
    except httpx.HTTPStatusError as error:
        code = error.response.status_code
        advice = KEY_ADVICE if code in (401, 403) else "try again later"
        raise UserError(f"{host}{path}: {code} {said(error.response)}; {advice}") from None
    except (httpx.HTTPError, ValueError) as error:
        reason = str(error) or type(error).__name__
        raise UserError(f"{host}: can't be reached ({reason}); check the address and the network") from None


def deployments(host: str) -> list[Deployment]:
    """The models on a server, each once, running ones first."""
    found: dict[str, Deployment] = {}
    for name, facts in ask(host, "/status").get("deployments", {}).items():
        state, level = facts.get("application_state", "UNKNOWN"), facts.get("deployment_level", "COLD")
        one = Deployment(
            facts.get("model_key") or name, facts.get("repo_id", name), facts.get("revision"),
            state == "RUNNING" and level == "HOT", f"{state}, {level}".lower(),
        )  # fmt: skip
        if one.key not in found or one.running:
            found[one.key] = one
    return sorted(found.values(), key=lambda one: (not one.running, one.name))


def versions(host: str) -> list[Version]:
    """Python and the packages that decide how a block runs, here and there."""
    there: Mapping[str, Any] = ask(host, "/env")
    packages = there.get("packages", {})
    found = [Version("python", platform.python_version(), str(there.get("python_version", "")).split(" ")[0] or None)]
    return found + [Version(name, version(name), packages.get(name)) for name in PACKAGES]


def find_deployment(host: str, there: Sequence[Deployment], name: str, revision: str | None, commit: str | None) -> Deployment:
    """The running deployment of a model among those of a server: of the `revision` that was asked for and, where the server names
    a commit, of the `commit` that the config was read at. Raises UserError when there is none."""
    named = [one for one in there if one.name == name]
    moving = (None, "main", revision)  # of which a commit can't be told
    fits = [one for one in named if revision in (None, one.revision) and (commit is None or one.revision in (*moving, commit))]
    running = [one for one in fits if one.running]
    if running:
        return running[0]
    if fits:
        raise UserError(f"{host}: {name} is there but not running ({fits[0].state}); wait, or take one of {shown(there)}")
    if named:
        have = ", ".join(str(one.revision) for one in named)
        raise UserError(f"{host}: has {name} at revision {have}, not {revision or commit}; give --revision {named[0].revision}")
    raise UserError(f"{host}: has no {name}; running there: {shown(there)} (--remote-model NAME for another name)")


def shown(there: Sequence[Deployment]) -> str:
    """The running models' names."""
    return ", ".join(one.name for one in there if one.running) or "none"


def check(host: str, found: Sequence[Version]) -> None:
    """Raises UserError where a key is missing or nnsight's versions don't go together."""
    if host == PUBLIC_HOST and not api_key():
        raise UserError(f"{host}: no API key; {KEY_ADVICE}")
    nnsight = next(one for one in found if one.package == "nnsight")
    if not nnsight.agrees:
        raise UserError(f"{host}: runs nnsight {nnsight.there}, here is {nnsight.here}; pip install nnsight=={nnsight.there}")


def connect(remote: str, name: str, revision: str | None, commit: str | None = None) -> Link:
    """A link to the model `name` on a server, after all checks (`find_deployment`)."""
    host = url_of(remote)
    check(host, versions(host))
    return Link(host, find_deployment(host, deployments(host), name, revision, commit).key)
