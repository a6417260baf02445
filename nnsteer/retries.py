"""Asking a server again after a while, where that can help."""

from __future__ import annotations

import httpx
from tenacity import (
    Retrying,
    retry_if_exception,
    stop_after_attempt,
    wait_exception,
    wait_random_exponential,
)

LONGEST_WAIT_S = 60.0


def patiently(attempts: int, wait_s: float) -> Retrying:
    """Calls what it is given up to `attempts` times; before the n-th repetition it waits a random
    time up to wait_s * 2^(n-1), at most a minute, and what Retry-After asks for. The last error is
    raised as it is."""
    chance = wait_random_exponential(multiplier=wait_s, max=LONGEST_WAIT_S)
    return Retrying(
        retry=retry_if_exception(passing),
        stop=stop_after_attempt(attempts),
        wait=chance + wait_exception(asked_wait),
        reraise=True,
    )


def passing(error: BaseException) -> bool:
    """Whether the same may succeed later: no connection, too many requests, the server's fault."""
    if isinstance(error, httpx.HTTPStatusError):
        return error.response.status_code == 429 or error.response.status_code >= 500
    return isinstance(error, httpx.TransportError)


def asked_wait(error: BaseException) -> float:
    """The seconds that the server asks to wait, at most a minute."""
    seconds = ""
    if isinstance(error, httpx.HTTPStatusError):
        seconds = error.response.headers.get("Retry-After", "")
    return min(float(seconds), LONGEST_WAIT_S) if seconds.isdecimal() else 0.0
