"""Starts the server; see the package's own text."""

from __future__ import annotations

import asyncio
import functools
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro
from aiohttp import web

from loopback.hide import hide


@dataclass(frozen=True)
class Settings:
    """What is served, and how."""

    model: Path
    """A folder written by save_pretrained."""
    name: str | None = None
    """What clients call the model; the folder's path if not given."""
    revision: str | None = None
    mode: Literal["sandbox", "trusted", "strict"] = "sandbox"
    port: int = 0
    key: str | None = None
    """The one API key that is accepted; without it, none is asked for."""
    dtype: str = "float32"
    inline_limit: int = 8 * 2**20
    """A larger result is handed out by URL."""
    hide: tuple[str, ...] = ("nnsteer",)
    """Packages that the server is not to have."""


def key_of(name: str, revision: str | None) -> str:
    """How nnsight names a causal language model to a server."""
    facts = {"repo_id": name, "revision": revision, "task": "text-generation"}
    return f"nnsight.modeling.transformers.TransformersModel:{json.dumps(facts)}"


def executor(settings: Settings):
    """Loads the model; what runs a request on it."""
    from nnsight import TransformersModel

    from loopback import inside, strict

    model = TransformersModel(
        str(settings.model), task="text-generation", dispatch=True, dtype=settings.dtype
    )
    model._module.requires_grad_(False)
    run = functools.partial(inside.execute, model)
    if settings.mode == "strict":
        run = functools.partial(run, unpickler=strict.StrictUnpickler, builtins=strict.BUILTINS)
    elif settings.mode == "sandbox":
        from loopback import sandbox

        run = functools.partial(
            sandbox.execute, model, sandbox.start(settings.model, settings.hide)
        )

    def execute(request, blob, log):
        model._remoteable_set_env(request.env)
        return run(request, blob, log)

    return execute


async def serve(settings: Settings) -> None:
    """Listens until standard input ends."""
    from loopback.app import Routes
    from loopback.desk import Desk
    from loopback.faults import Plan

    name = settings.name or str(settings.model)
    model_key, plan = key_of(name, settings.revision), Plan()
    deployment = {
        "model_key": model_key, "repo_id": name, "revision": settings.revision, "task": "text-generation",
        "deployment_level": "HOT", "application_state": "RUNNING",
    }  # fmt: skip
    desk = Desk(executor(settings), model_key, plan, settings.inline_limit)
    routes = Routes(desk, plan, deployment, settings.key)
    runner = web.AppRunner(routes.app(), access_log=None)
    await runner.setup()
    ended = asyncio.create_task(asyncio.to_thread(sys.stdin.read))
    site = web.TCPSite(runner, "127.0.0.1", settings.port)
    await site.start()
    port = runner.addresses[0][1]
    print(json.dumps({"url": f"http://127.0.0.1:{port}", "model_key": model_key}), flush=True)
    while True:
        refusing = asyncio.create_task(routes.refusing.wait())
        await asyncio.wait([ended, refusing], return_when=asyncio.FIRST_COMPLETED)
        refusing.cancel()
        await site.stop()
        if ended.done():
            break
        await asyncio.sleep(routes.refused_for)
        routes.refusing.clear()
        site = web.TCPSite(runner, "127.0.0.1", port, reuse_address=True)
        await site.start()
    await runner.cleanup()


if __name__ == "__main__":
    settings = tyro.cli(Settings)
    hide(settings.hide)
    asyncio.run(serve(settings))
