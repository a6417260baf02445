"""NDIF's routes, and the test's own."""

from __future__ import annotations

import asyncio
import time
from typing import cast, get_args
from uuid import UUID, uuid4

from aiohttp import web
from nnsight.ndif import get_local_env
from nnsight.schema.request import RequestModel
from pydantic import ValidationError

from loopback.desk import CUT, Desk
from loopback.faults import NOTHING, SCRIPT, Fault, Plan, Stage

OWN = ("/faults", "/log", "/calls")
DETAIL = {
    400: "Client nnsight version 0.0.0 is below the minimum supported 0.8.0.",
    401: "Missing or invalid API key. Please visit https://login.ndif.us/ to create a new one.",
    403: "Invalid API key.",
    503: "Service temporarily unavailable: compute backend is reconnecting. Please try again in a few minutes.",
}
OLD = {"nnsight": "0.7.0", "transformers": "4.57.0"}


def failure(status: int, detail: str | None = None, seconds: float = 0.0) -> web.Response:
    """An error as FastAPI words it."""
    headers = {"Retry-After": str(round(seconds))} if status in (429, 503) and seconds else None
    return web.json_response(
        {"detail": detail or DETAIL.get(status, "A planned fault.")}, status=status, headers=headers
    )


class Routes:
    """What answers each route."""

    def __init__(self, desk: Desk, plan: Plan, deployment: dict, key: str | None) -> None:
        self.desk, self.plan, self.deployment, self.key = desk, plan, deployment, key
        self.calls: list[dict] = []
        self.refusing = asyncio.Event()
        """Set when nobody is to listen; `refused_for` says how long."""
        self.refused_for = 0.0

    def app(self) -> web.Application:
        """The application."""

        @web.middleware
        async def around(request: web.Request, handler) -> web.StreamResponse:
            return await self.around(request, handler)

        app = web.Application(client_max_size=2**34, middlewares=[around])
        app.add_routes([
            web.post("/request", self.request), web.get("/subscribe", self.subscribe),
            web.get("/response/{id}", self.response), web.get("/result/{id}", self.result),
            web.get("/status", self.status), web.get("/env", self.env), web.get("/whoami", self.whoami),
            web.get("/ping", self.ping), web.put("/faults", self.set_faults), web.delete("/faults", self.clear_faults),
            web.get("/log", self.log), web.delete("/log", self.clear_log), web.get("/calls", self.called),
        ])  # fmt: skip
        return app

    async def around(self, request: web.Request, handler) -> web.StreamResponse:
        """Notes each call, and makes the faults that need no more than the call itself."""
        if request.path in OWN:
            answer = await handler(request)
            self.refuse_if_next()
            return answer
        call = {
            "time": time.time(),
            "method": request.method,
            "path": request.path,
            "up": request.content_length or 0,
        }
        self.calls.append(call)
        stage = request.path.split("/")[1]
        fault = self.plan.take(cast(Stage, stage)) if stage in get_args(Stage) else NOTHING
        call |= {"fault": fault.kind, "status": 0}
        self.refuse_if_next()
        request["fault"] = fault
        if fault.kind == "close":
            if request.transport is not None:
                request.transport.abort()
            raise ConnectionResetError("a planned fault")
        if fault.kind == "stall":
            await asyncio.sleep(fault.seconds)
        answer = (
            failure(int(fault.kind), seconds=fault.seconds)
            if fault.kind.isdigit()
            else await handler(request)
        )
        call["status"] = answer.status
        return answer

    def refuse_if_next(self) -> None:
        """Begins a refusal that has come first in the script."""
        seconds = self.plan.refusal()
        if seconds is not None:
            self.refused_for = seconds
            self.refusing.set()

    def key_fault(self, request: web.Request) -> web.Response | None:
        """What NDIF says of a bad key."""
        given = request.headers.get("ndif-api-key")
        if self.key is None or given == self.key:
            return None
        if not given:
            return failure(401)
        try:
            UUID(given)
        except ValueError:
            return failure(
                400,
                "Invalid API key format. You can obtain a valid API key from https://login.ndif.us",
            )
        return failure(403)

    async def request(self, request: web.Request) -> web.Response:
        """Takes a job in."""
        form = await request.post()
        if (wrong := self.key_fault(request)) is not None:
            return wrong
        try:
            envelope = RequestModel.model_validate_json(str(form["data"]))
        except (KeyError, ValidationError) as error:
            return failure(422, str(error))
        blob = cast(web.FileField, form["blob"]).file.read()
        answer = self.desk.take(envelope, blob, f"{request.scheme}://{request.host}")
        return web.Response(text=answer.model_dump_json(), content_type="application/json")

    async def subscribe(self, request: web.Request) -> web.WebSocketResponse:
        """A websocket: a session's id, then the states of its job."""
        socket, session = web.WebSocketResponse(), uuid4().hex
        await socket.prepare(request)
        frames: asyncio.Queue[str | bytes] = asyncio.Queue()
        self.desk.frames[session] = frames

        async def send() -> None:
            await socket.send_json({"session_id": session})
            while (frame := await frames.get()) != CUT:
                await (
                    socket.send_str(frame) if isinstance(frame, str) else socket.send_bytes(frame)
                )
            if request.transport is not None:
                request.transport.abort()

        sending = asyncio.create_task(send())
        try:
            async for _ in socket:  # the client says nothing; this ends when it goes
                pass
        finally:
            self.desk.frames.pop(session, None)  # a drop has taken it already
            sending.cancel()
        return socket

    async def response(self, request: web.Request) -> web.Response:
        """The last state of a job without a websocket."""
        job = request.match_info["id"]
        if request["fault"].kind == "unknown":
            self.desk.forget(job)
        if job not in self.desk.last:
            return failure(404, f"No response for request {job}.")
        return web.Response(text=self.desk.last[job], content_type="application/json")

    async def result(self, request: web.Request) -> web.Response:
        """What a job saved."""
        job = request.match_info["id"]
        if job not in self.desk.results:
            return failure(404, f"No result for request {job}.")
        if job in self.desk.jobs:
            self.desk.jobs[job].down += len(self.desk.results[job])
        return web.Response(body=self.desk.results[job])

    async def status(self, request: web.Request) -> web.Response:
        """Which models are deployed."""
        hidden = request["fault"].kind == "undeployed"
        return web.json_response(
            {"deployments": {} if hidden else {self.deployment["model_key"]: self.deployment}}
        )

    async def env(self, request: web.Request) -> web.Response:
        """Python's and the packages' versions."""
        env = get_local_env()
        packages = {
            name: version
            for name, version in env["packages"].items()
            if version != "local" and name != "nnsteer"
        }
        if request["fault"].kind == "versions":
            return web.json_response(
                {"python_version": "3.9.0 (planned)", "packages": packages | OLD}
            )
        return web.json_response(env | {"packages": packages})

    async def whoami(self, request: web.Request) -> web.Response:
        """Whose key it is."""
        known = self.key is not None and self.key_fault(request) is None
        return web.json_response({"email": "loopback@example.org" if known else None, "tags": []})

    async def ping(self, _: web.Request) -> web.Response:
        """Whether we are there."""
        return web.json_response("pong")

    async def set_faults(self, request: web.Request) -> web.Response:
        """Replaces the script of faults."""
        try:
            script: list[Fault] = SCRIPT.validate_json(await request.read())
        except ValidationError as error:
            return failure(422, str(error))
        self.plan.faults = script
        return web.json_response(len(script))

    async def clear_faults(self, _: web.Request) -> web.Response:
        """Nothing more is to go wrong."""
        self.plan.faults = []
        return web.json_response(0)

    async def log(self, _: web.Request) -> web.Response:
        """The jobs."""
        return web.json_response([job.facts() for job in self.desk.jobs.values()])

    async def clear_log(self, _: web.Request) -> web.Response:
        """Forgets jobs and calls; a job that runs goes on."""
        self.calls.clear()
        self.desk.jobs.clear()
        return web.json_response(0)

    async def called(self, _: web.Request) -> web.Response:
        """The calls."""
        return web.json_response(self.calls)
