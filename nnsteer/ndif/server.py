"""What a server says of itself, looked at before anything is sent."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import httpx

from nnsteer.errors import UserError
from nnsteer.ndif.client import PUBLIC_HOST, Link, api_key, refusal
from nnsteer.retries import patiently

ATTEMPTS, WAIT_S = 5, 0.5
PACKAGES = ("nnsight", "transformers", "torch")
KEY_ADVICE = (
    "set NDIF_API_KEY (https://login.ndif.us gives one), or store it once with nnsight.login()"
)


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

    def get() -> httpx.Response:
        return httpx.get(f"{host}{path}", headers=headers, timeout=30.0).raise_for_status()

    try:
        return patiently(ATTEMPTS, WAIT_S)(get).json()
    except httpx.HTTPStatusError as error:
        denied = error.response.status_code in (401, 403)
        advice = KEY_ADVICE if denied else "try again later"
        raise UserError(f"{host}{path}: {refusal(error)}; {advice}") from None
    except (httpx.HTTPError, ValueError) as error:
        mistake = f"can't be reached ({str(error) or type(error).__name__})"
        raise UserError(f"{host}: {mistake}; check the address and the network") from None


def deployments(host: str) -> list[Deployment]:
    """The models on a server, each once, running ones first."""
    by_key: dict[str, Deployment] = {}
    for name, facts in ask(host, "/status").get("deployments", {}).items():
        state = facts.get("application_state", "UNKNOWN")
        level = facts.get("deployment_level", "COLD")
        deployment = Deployment(
            key=facts.get("model_key") or name,
            name=facts.get("repo_id", name),
            revision=facts.get("revision"),
            running=state == "RUNNING" and level == "HOT",
            state=f"{state}, {level}".lower(),
        )
        if deployment.key not in by_key or deployment.running:
            by_key[deployment.key] = deployment
    return sorted(by_key.values(), key=lambda model: (not model.running, model.name))


def versions(host: str) -> list[Version]:
    """Python and the packages that decide how a block runs, here and there."""
    there: Mapping[str, Any] = ask(host, "/env")
    python, packages = str(there.get("python_version", "")), there.get("packages", {})
    return [
        Version("python", platform.python_version(), python.split(" ")[0] or None),
        *(Version(name, version(name), packages.get(name)) for name in PACKAGES),
    ]


def find_deployment(
    host: str, there: Sequence[Deployment], name: str, revision: str | None, commit: str | None
) -> Deployment:
    """The running deployment of a model among those of a server: of the `revision` that was asked
    for and, where the server names a commit, of the `commit` that the config was read at. Raises
    UserError when there is none."""
    moving = (None, "main", revision)  # of which a commit can't be told

    def fits(model: Deployment) -> bool:
        as_read = commit is None or model.revision in (*moving, commit)
        return revision in (None, model.revision) and as_read

    named = [model for model in there if model.name == name]
    fitting = [model for model in named if fits(model)]
    running = [model for model in fitting if model.running]
    if running:
        return running[0]
    if fitting:
        mistake = f"{name} is there but not running ({fitting[0].state})"
        raise UserError(f"{host}: {mistake}; wait, or take one of {shown(there)}")
    if named:
        revisions = ", ".join(str(model.revision) for model in named)
        mistake = f"has {name} at revision {revisions}, not {revision or commit}"
        raise UserError(f"{host}: {mistake}; give --revision {named[0].revision}")
    mistake = f"has no {name}; running there: {shown(there)}"
    raise UserError(f"{host}: {mistake} (--remote-model NAME for another name)")


def shown(there: Sequence[Deployment]) -> str:
    """The running models' names."""
    return ", ".join(model.name for model in there if model.running) or "none"


def check(host: str, packages: Sequence[Version]) -> None:
    """Raises UserError where a key is missing or nnsight's versions don't go together."""
    if host == PUBLIC_HOST and not api_key():
        raise UserError(f"{host}: no API key; {KEY_ADVICE}")
    nnsight = next(package for package in packages if package.package == "nnsight")
    if not nnsight.agrees:
        mistake = f"runs nnsight {nnsight.there}, here is {nnsight.here}"
        raise UserError(f"{host}: {mistake}; pip install nnsight=={nnsight.there}")


def connect(remote: str, name: str, revision: str | None, commit: str | None = None) -> Link:
    """A link to the model `name` on a server, after all checks (`find_deployment`)."""
    host = url_of(remote)
    check(host, versions(host))
    return Link(host, find_deployment(host, deployments(host), name, revision, commit).key)
