"""Opens a model where the options say: here, here through nnsight's simulation of a server, or on a
server."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from nnsteer.folder import Folder
from nnsteer.model.load import ModelFiles
from nnsteer.model.options import ModelOptions
from nnsteer.model.runner import Runner
from nnsteer.ndif.estimate import estimates
from nnsteer.ndif.journal import Journal
from nnsteer.ndif.server import connect
from nnsteer.progress import STDERR


def open_runner(
    files: ModelFiles, options: ModelOptions, batch_size: int, out: Path | None = None
) -> Runner:
    """The model, here or on a server; what a server was asked is kept in the run folder `out`."""
    if options.remote is None or options.remote == "local":
        runner = Runner.open(files, options.dtype, options.device_map, batch_size)
        return runner if options.remote is None else runner.simulated()
    name = options.remote_model or files.name
    link = connect(options.remote, name, options.revision, files.revision)
    costs = "; ".join(map(str, estimates(files.config, 1000, batch_size)))
    STDERR.print(
        f"{link.host}: {name} is running. For 1,000 prompts a side: {costs}.", highlight=False
    )
    journal = None if out is None else Journal(Folder(out.expanduser()))
    return Runner.connect(files, replace(link, journal=journal, say=STDERR.print), batch_size)
