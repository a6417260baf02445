"""One request to a server, from its block to its result: sent once, waited for, and kept."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import anyio  # noqa: F401  nnsight puts `save` on object: after it, anyio can't be imported
import httpx
from nnsight.intervention.backends.display import StatusDisplay
from nnsight.intervention.backends.remote import RemoteBackend, RemoteError
from nnsight.schema.config import CONFIG
from nnsight.schema.request import RequestModel
from nnsight.schema.response import ResponseModel, Status

from nnsteer.errors import UserError
from nnsteer.ndif.journal import Journal
from nnsteer.retries import passing, patiently

PUBLIC_HOST = "https://api.ndif.us"
TIMEOUT = httpx.Timeout(10.0, read=600.0)
SHORTEST_S, LONGEST_S = 0.05, 5.0  # between two looks at a job
SMALLER = "give a smaller --batch-size, or fewer pairs or layers"
REFUSED = {
    400: "the server does not take this client; compare the versions with `nnsteer ndif`",
    401: "set NDIF_API_KEY, or store a key with nnsight.login()",
    403: "the key is not accepted; set another NDIF_API_KEY",
    404: "the server does not know this model; see `nnsteer ndif` for those it has",
    413: f"the request is too large; {SMALLER}",
    422: "client and server don't understand each other; compare the versions with `nnsteer ndif`",
}


def silent(_: str) -> None:
    """The listener that says nothing."""


@dataclass(frozen=True)
class Link:
    """A server, the model there, and where the requests are kept (None: nowhere)."""

    host: str
    model_key: str
    journal: Journal | None = None
    attempts: int = 8
    """How often a request is sent that could not be delivered."""
    wait_s: float = 1.0
    """See `retries.patiently`."""
    grace_s: float = 10.0
    """How long the server may not know of a job that it took: it notes it when the queue does."""
    patience_s: float = 3600.0
    """How long a job may take, its time in the queue included."""
    say: Callable[[str], None] = silent
    """Told what the server says of a job."""


class Unknown(Exception):
    """The server knows nothing of the job."""


class Waiting(UserError):
    """The job goes on, but is not waited for any longer."""


class Client(RemoteBackend):
    """nnsight's backend for one block."""

    def __init__(self, link: Link, step: str, key: str, env: dict) -> None:
        super().__init__(link.model_key, host=link.host, env=env, blocking=False)
        self.display = StatusDisplay(enabled=False)
        self.meta: dict | None = None
        self.link, self.step, self.key = link, step, key
        self.retrying = patiently(link.attempts, link.wait_s)

    def __call__(self, tracer: Any = None) -> dict:
        """What nnsight calls at the end of the block; the result goes into the caller's frame."""
        journal = self.link.journal
        result = journal.stored(self.key) if journal else None
        if result is None:
            result = self.fetch(tracer)
        self._push(result, tracer)
        return result

    def fetch(self, tracer: Any) -> dict:
        """The result of the job that an earlier start sent, or of a new one."""
        start, journal = time.monotonic(), self.link.journal
        last = journal.last(self.key) if journal else None
        facts: dict[str, Any] = {"attempts": 0, "bytes_up": 0}
        if last is not None and last["state"] == "sent":
            self.job_id, facts = last["id"], {name: last[name] for name in facts}
        try:
            content, facts = self.received(tracer, facts)
        except Waiting:
            raise
        except (RemoteError, UserError) as error:
            self.write("failed", error=str(error))
            raise
        result = self.finalize(content)
        if journal is not None:
            journal.store(self.key, result)
        facts |= {"bytes_down": len(content), "seconds": round(time.monotonic() - start, 3)}
        self.write("done", id=self.job_id, **facts, server=self.meta or {})
        return result

    def received(self, tracer: Any, facts: dict) -> tuple[bytes, dict]:
        """The result's bytes, and the facts of the request that they answer."""
        for again in range(self.link.attempts):
            if self.job_id is None:
                facts = self.send(tracer)
            try:
                return self.download(self.wait()), facts
            except Unknown:  # lost with a server that was started again, or out of date
                self.job_id = None
                time.sleep(min(again, LONGEST_S) * self.link.wait_s)
        forgotten = f"{self.host}: forgets the request for {self.step}"
        raise UserError(f"{forgotten}; see `nnsteer ndif`, and start the same command")

    def write(self, state: str, **facts: Any) -> None:
        """A line in the journal."""
        if self.link.journal is not None:
            self.link.journal.note(self.key, self.step, state, **facts)

    def send(self, tracer: Any) -> dict:
        """Submits the block. Raises UserError where that cannot succeed."""
        blob = self._serialize(tracer)
        request = RequestModel(model_key=self.model_key, compress=self.compress, env=self.env)
        try:
            self.job_id = self.retrying(self.post, request, blob).id
        except httpx.HTTPStatusError as error:
            remedy = REFUSED.get(error.response.status_code, "try again later")
            raise UserError(f"{self.host}: {refusal(error)}; {remedy}") from None
        except httpx.HTTPError as error:
            raise unreachable(self.host, error) from None
        facts = {"attempts": self.retrying.statistics["attempt_number"], "bytes_up": len(blob)}
        self.write("sent", id=self.job_id, **facts)
        return facts

    def post(self, request: RequestModel, blob: bytes) -> ResponseModel:
        """One attempt, with httpx's own errors."""
        try:
            return self._post(request, blob)
        except RemoteError as error:
            raise error.__cause__ or error from None

    def wait(self) -> Any:
        """What a job that is completed carries: its result or the result's address. Raises
        UserError for one that failed."""
        start, pause, heard = time.monotonic(), SHORTEST_S, ""
        job = f"{self.host}, {self.step}"
        while True:
            response = self.look(time.monotonic() < start + self.link.grace_s)
            if response is not None:
                self.meta, status = response.meta or self.meta, response.status
                told = response.description or ""
                if status == Status.COMPLETED:
                    return response.data
                if status == Status.ERROR:
                    raise UserError(f"{job}: {reason(told or 'failed without a reason')}")
                state = f"{self.step}: {status.value.lower()} {told}".strip()
                if state != heard and status != Status.RUNNING:
                    self.link.say(state)
                    heard = state
            if time.monotonic() > start + self.link.patience_s:
                late = f"not done after {self.link.patience_s:.0f} s ({heard or 'no answer'})"
                raise Waiting(f"{job}: {late}; start the same command to go on waiting")
            time.sleep(pause)
            pause = min(pause * 1.5, LONGEST_S)

    def look(self, early: bool) -> ResponseModel | None:
        """The last state of the job; None while the server can't be asked, and while it is too
        `early` for it to know."""
        try:
            response = self.get(f"{self.host}/response/{self.job_id}")
        except httpx.HTTPStatusError as error:
            unknown = error.response.status_code == 404
            if unknown and not early:
                raise Unknown from None
            if unknown or passing(error):
                return None
            raise UserError(f"{self.host}: {refusal(error)}") from None
        except httpx.TransportError:
            return None
        return ResponseModel.model_validate_json(response.text)

    def download(self, data: Any) -> bytes:
        """The result's bytes, from the response itself or from the address in it."""
        if isinstance(data, bytes):
            return data
        try:
            return self.retrying(self.get, data).content
        except httpx.HTTPStatusError as error:
            code = error.response.status_code
            if code in (403, 404, 410):
                raise Unknown from None
            mistake = f"{code} for the result of {self.step}"
            raise UserError(f"{self.host}: {mistake}; try again later") from None
        except httpx.HTTPError as error:
            raise unreachable(self.host, error) from None

    def get(self, url: str) -> httpx.Response:
        """One attempt."""
        for_host = self.api_key and url.startswith(self.host)
        headers = {"ndif-api-key": self.api_key} if for_host else None
        return httpx.get(url, headers=headers, timeout=TIMEOUT).raise_for_status()


def api_key() -> str | None:
    """The key as nnsight finds it: NDIF_API_KEY or its own configuration. It is never written or
    shown."""
    return CONFIG.API.APIKEY or None


def unreachable(host: str, error: httpx.HTTPError) -> UserError:
    """What to say where a request gets no answer."""
    reason = error or type(error).__name__
    return UserError(f"{host}: {reason}; check the network, then start the same command")


def refusal(error: httpx.HTTPStatusError) -> str:
    """A server's status code and what it says, on one line."""
    response = error.response
    try:
        detail = response.json()["detail"]
    except (ValueError, LookupError, TypeError):
        detail = response.text or response.reason_phrase
    return f"{response.status_code} {' '.join(str(detail).split())[:200]}"


def reason(description: str) -> str:
    """The end of a remote traceback on one line: the error, and the line of code that raised it."""
    *before, last = [line.strip() for line in description.splitlines() if line.strip(" ^~")]
    code = ""
    files = [i for i, line in enumerate(before) if line.startswith("File ")]
    if files and files[-1] + 1 < len(before):
        code = f" (in `{before[files[-1] + 1]}`)"
    advice = f"; {SMALLER}" if "timeout" in last or "OutOfMemory" in last else ""
    return f"{last[:300]}{code}{advice}"
