"""Takes jobs in, runs them one after the other, and tells their clients what NDIF would."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from uuid import uuid4

import zstandard
from nnsight.schema.request import RequestModel
from nnsight.schema.response import ResponseModel, Status

from loopback.faults import Fault, Plan
from loopback.inside import Log, described

Execute = Callable[[RequestModel, bytes, Log], bytes]
"""Runs a block on the model; the values it saved, packed."""
EXCEPTION = """Traceback (most recent call last):
  File "<loopback>", line 1, in <module>
torch.OutOfMemoryError: CUDA out of memory (a planned fault)"""
UNDEPLOYED = "Error provisioning model. Please try again later. Sorry for the inconvenience."
NOTED_S = 0.02
"""How long NDIF's queue takes to note a job; until then GET /response answers 404."""
CUT = b""
"""Put in a session's frames: cut the websocket."""


@dataclass(eq=False)
class Job:
    """One request, and all that became of it."""

    request: RequestModel
    address: str
    """Where the client reached us."""
    payload: str
    """The payload's digest: the same work sent twice has it twice."""
    up: int
    id: str = field(default_factory=lambda: uuid4().hex)
    down: int = 0
    """Bytes of result handed out, over all deliveries."""
    executions: int = 0
    states: list[tuple[str, float]] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)

    def facts(self) -> dict:
        """What the log says."""
        return {
            "id": self.id, "payload": self.payload, "blocking": bool(self.request.session_id), "up": self.up, "down": self.down,
            "state": self.states[-1][0], "states": self.states, "executions": self.executions, "faults": self.faults,
        }  # fmt: skip


class Desk:
    """The jobs of one server. A websocket's client hears each state as it comes; others fetch the
    last one, and their results wait for them. As on NDIF, what was meant for a websocket that is
    gone is lost."""

    def __init__(self, execute: Execute, model_key: str, plan: Plan, inline_limit: int) -> None:
        self.execute, self.model_key, self.plan, self.inline_limit = (
            execute,
            model_key,
            plan,
            inline_limit,
        )
        self.jobs: dict[str, Job] = {}
        self.frames: dict[str, asyncio.Queue[str | bytes]] = {}
        """What each websocket is still to be sent, by session."""
        self.last: dict[str, str] = {}
        """The last state of each job without a websocket, as JSON."""
        self.results: dict[str, bytes] = {}
        self.turn = asyncio.Lock()
        self.waiting = 0
        self.worker = ThreadPoolExecutor(1)  # nnsight's greenlets stay on one thread
        self.tasks: set[asyncio.Task] = set()

    def take(self, request: RequestModel, blob: bytes, address: str) -> ResponseModel:
        """Accepts a job; the first answer."""
        job = Job(request, address, hashlib.sha256(blob).hexdigest()[:16], len(blob))
        self.jobs[job.id] = job
        first = self.tell(
            job,
            Status.RECEIVED,
            "Your job has been received and is waiting to be queued.",
            sent=False,
        )
        task = asyncio.get_running_loop().create_task(self.serve(job, blob))
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
        return first

    async def serve(self, job: Job, blob: bytes) -> None:
        """Runs a job when its turn comes."""
        await asyncio.sleep(max(NOTED_S, self.plan.take("queue").seconds))
        self.waiting += 1
        self.tell(job, Status.QUEUED, f"Added to Queue at position {self.waiting}.")
        async with self.turn:
            self.waiting -= 1
            fault = self.plan.take("job")
            job.faults += [] if fault.kind == "pass" else [fault.kind]
            if job.request.model_key != self.model_key or fault.kind == "undeployed":
                self.tell(job, Status.ERROR, UNDEPLOYED)
                return
            self.tell(job, Status.DISPATCHED, "Your job has been sent to the model deployment.")
            self.tell(job, Status.RUNNING, "Your job has started running.")
            if fault.kind == "drop" and job.request.session_id in self.frames:
                self.frames.pop(job.request.session_id).put_nowait(
                    CUT
                )  # whatever comes later has nowhere to go
            if fault.kind in ("stall", "timeout"):
                await asyncio.sleep(fault.seconds)
            if fault.kind == "timeout":
                self.tell(
                    job,
                    Status.ERROR,
                    f"Your job exceeded the execution timeout of {fault.seconds}s.",
                )
            elif fault.kind == "error":
                self.tell(job, Status.ERROR, EXCEPTION)
            else:
                await self.run(job, blob, fault)

    async def run(self, job: Job, blob: bytes, fault: Fault) -> None:
        """Executes a job and hands out what it saved."""
        loop = asyncio.get_running_loop()

        def log(line: str) -> None:
            loop.call_soon_threadsafe(self.tell, job, Status.LOG, line)

        job.executions += 1
        start = time.monotonic()
        try:
            result = await loop.run_in_executor(self.worker, self.execute, job.request, blob, log)
        except Exception as error:  # the client's block failed, or what it sent
            self.tell(
                job, Status.ERROR, described(error), meta={"runtime": time.monotonic() - start}
            )
            return
        if job.request.compress:
            result = zstandard.ZstdCompressor(level=3).compress(result)
        data: str | bytes = result
        if not job.request.session_id or len(result) > self.inline_limit or fault.kind == "url":
            self.results[job.id] = result
            data = f"{job.address}/result/{job.id}"
        meta = {"runtime": time.monotonic() - start}
        self.tell(job, Status.COMPLETED, "Your job has been completed.", data, meta)

    def tell(
        self,
        job: Job,
        status: Status,
        text: str,
        data: str | bytes | None = None,
        meta: dict | None = None,
        sent: bool = True,
    ) -> ResponseModel:
        """Notes a job's new state, and (`sent`) lets its client know."""
        response = ResponseModel(id=job.id, status=status, description=text, data=data, meta=meta)
        if status != Status.LOG:
            job.states.append((status.value, time.time()))
        if not job.request.session_id:
            if sent and status != Status.LOG:
                self.last[job.id] = response.model_dump_json()
        elif sent and job.request.session_id in self.frames:
            inline = isinstance(data, bytes)
            job.down += len(data) if inline else 0
            self.frames[job.request.session_id].put_nowait(
                response.pickle() if inline else response.model_dump_json()
            )
        return response

    def forget(self, job_id: str) -> None:
        """As if there had never been such a job; the log still has it."""
        self.last.pop(job_id, None)
        self.results.pop(job_id, None)
