"""Asking an OpenAI-compatible endpoint: several questions at once, and again after a while where it
is out of breath."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field

import httpx
from tenacity import Retrying

from nnsteer.errors import UserError
from nnsteer.retries import patiently

MEND = {
    401: "check the key",
    402: "check the account's credit",
    404: "check `url` and `model`",
}  # no question can succeed


@dataclass(frozen=True)
class Endpoint:
    """A model behind `url`/chat/completions."""

    url: str
    """E.g. http://localhost:8000/v1."""
    model: str
    key: str | None = None
    """The environment variable with the API key. The key itself is never written anywhere."""
    options: Mapping[str, object] = field(
        default_factory=lambda: {"temperature": 0, "max_tokens": 16}
    )
    """Sent with every question. A model that thinks before it answers needs more tokens."""
    concurrency: int = 8
    """Questions that are under way at once, at most."""
    timeout_s: float = 60.0
    """Silence after which a question is given up and asked again."""
    attempts: int = 6
    """How often a question is asked, at most."""
    wait_s: float = 1.0
    """Before the n-th repetition: a random time up to wait_s * 2^(n-1), at most a minute, and what
    Retry-After asks for."""


@dataclass(frozen=True)
class Reply:
    """What came of one question: a text, or the last error."""

    reply: str | None
    error: str | None
    retries: int
    prompt_tokens: int = 0
    completion_tokens: int = 0


def check(endpoint: Endpoint) -> str | None:
    """The API key. Raises UserError for a variable that is not set or a URL that is none."""
    if not endpoint.url.startswith(("http://", "https://")):
        raise UserError(
            f"judge url {endpoint.url}: not a URL; give one like http://localhost:8000/v1"
        )
    if endpoint.key is not None and not os.environ.get(endpoint.key):
        raise UserError(
            f"judge {endpoint.url}: no API key in the environment variable {endpoint.key}; set it"
        )
    return None if endpoint.key is None else os.environ[endpoint.key]


def ask(endpoint: Endpoint, questions: Sequence[str]) -> Iterator[tuple[int, Reply]]:
    """Each question's number and reply, as they come. Raises UserError where no question can
    succeed."""
    key = check(endpoint)
    headers = {} if key is None else {"Authorization": f"Bearer {key}"}
    with (
        httpx.Client(headers=headers, timeout=endpoint.timeout_s) as client,
        ThreadPoolExecutor(endpoint.concurrency) as pool,
    ):
        numbers = {
            pool.submit(one, client, endpoint, question): number
            for number, question in enumerate(questions)
        }
        try:
            for future in as_completed(numbers):
                yield numbers[future], future.result()
        finally:  # after an error or Ctrl-C, no further question
            for future in numbers:
                future.cancel()


def one(client: httpx.Client, endpoint: Endpoint, question: str) -> Reply:
    """One question, asked until there is an answer or no more attempt."""
    retrying = patiently(endpoint.attempts, endpoint.wait_s)
    body = {
        "model": endpoint.model,
        "messages": [{"role": "user", "content": question}],
        **endpoint.options,
    }
    try:
        response = retrying(post, client, f"{endpoint.url.rstrip('/')}/chat/completions", body)
    except (httpx.ConnectError, httpx.ConnectTimeout) as error:
        raise UserError(
            f"judge {endpoint.url}: can't be reached ({error}); start it or mend `url`"
        ) from error
    except httpx.HTTPStatusError as error:
        said = f"{error.response.status_code} {' '.join(error.response.text.split())[:200]}"
        if error.response.status_code in MEND:
            raise UserError(
                f"judge {endpoint.url}: answers {said}; {MEND[error.response.status_code]}"
            ) from error
        return Reply(None, said, repeated(retrying))
    except httpx.HTTPError as error:
        return Reply(None, f"{type(error).__name__} {error}".strip(), repeated(retrying))
    return read(response, repeated(retrying))


def post(client: httpx.Client, url: str, body: Mapping[str, object]) -> httpx.Response:
    """One attempt. Raises httpx.HTTPError for all but a success."""
    return client.post(url, json=body).raise_for_status()


def read(response: httpx.Response, retries: int) -> Reply:
    """The text and the cost in a successful response; a body that is none is an error too."""
    try:
        body = response.json()
        text = body["choices"][0]["message"]["content"] or ""
        usage = body.get("usage") or {}
        return Reply(
            str(text),
            None,
            retries,
            usage.get("prompt_tokens") or 0,
            usage.get("completion_tokens") or 0,
        )
    except (ValueError, LookupError, TypeError, AttributeError):
        return Reply(
            None, f"not a chat completion: {' '.join(response.text.split())[:200]}", retries
        )


def repeated(retrying: Retrying) -> int:
    """How often the question was asked again."""
    return retrying.statistics["attempt_number"] - 1
