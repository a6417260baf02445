"""What is to go wrong, and when: a script that a test sends. A fault strikes at its stage, `count`
times, in the order given."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Literal

from pydantic import Field, TypeAdapter
from pydantic.dataclasses import dataclass

Kind = Literal[
    "pass",  # nothing: lets `count` of its stage go by
    "close",  # the connection is cut before an answer
    "400", "401", "403", "404", "422", "429", "500", "502", "503", "504",  # this answer; 429 and 503 say Retry-After `seconds`
    "stall",  # `seconds` go by first
    "drop",  # the websocket is cut when the job runs; the job goes on
    "error",  # the job ends with a server's exception
    "timeout",  # the job ends with NDIF's message about its limit, `seconds`
    "url",  # the result comes by URL, however small
    "versions",  # /env tells of other versions
    "undeployed",  # /status does not list the model; a job is told so
    "unknown",  # /response/{id} forgets the job, for good
    "refuse",  # nobody listens for `seconds`, from when this comes first in the script
]  # fmt: skip
Stage = Literal[
    "request",
    "queue",
    "job",
    "subscribe",
    "response",
    "result",
    "status",
    "env",
    "whoami",
    "ping",
    "listen",
]

STAGE: dict[str, Stage] = {
    "stall": "job", "drop": "job", "error": "job", "timeout": "job", "url": "job",
    "versions": "env", "undeployed": "status", "unknown": "response", "refuse": "listen",
}  # fmt: skip


@dataclass(frozen=True)
class Fault:
    """One line of the script."""

    kind: Kind
    at: Stage | None = None
    """Where it strikes, if not where its kind does by itself: `request` (the POST) for answers,
    else as in STAGE. `queue` is the time until the server knows of the job that it took, and stalls
    alone."""
    count: Annotated[int, Field(ge=1)] = 1
    seconds: Annotated[float, Field(ge=0)] = 0.0

    @property
    def stage(self) -> Stage:
        """Where it strikes."""
        return self.at or STAGE.get(self.kind, "request")


NOTHING = Fault("pass")
SCRIPT = TypeAdapter(list[Fault])


class Plan:
    """The faults that are still to come."""

    def __init__(self) -> None:
        self.faults: list[Fault] = []

    def take(self, stage: Stage) -> Fault:
        """The next fault of a stage, used up once; NOTHING when there is none. A fault waits for
        those before it at its own stage alone."""
        for i, fault in enumerate(self.faults):
            if fault.stage == stage:
                self.faults[i : i + 1] = (
                    [replace(fault, count=fault.count - 1)] if fault.count > 1 else []
                )
                return fault
        return NOTHING

    def refusal(self) -> float | None:
        """For how long nobody is to listen from now on, if that comes first in the script."""
        return (
            self.take("listen").seconds
            if self.faults and self.faults[0].stage == "listen"
            else None
        )
