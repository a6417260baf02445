"""Look at an NDIF server before anything is sent: the key, the versions, the models, and what a run would take.

    nnsteer ndif                                                # the public server: its models
    nnsteer ndif --model meta-llama/Llama-3.3-70B-Instruct      # whether that one is running, and what a fit costs
    nnsteer ndif --remote http://localhost:5001 --model runs/mine --remote-model lab/mine

The key is the environment variable NDIF_API_KEY, or nnsight's own setting. With it, recipes, study, fit, tune and generate run on
the server: --remote ndif. Prints what it finds; sends no prompt.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Config:
    """Which server, and which model."""

    remote: str = "ndif"
    """`ndif`, or the URL of another deployment."""
    model: str | None = None
    """A hub id or a folder: whether it runs there, and what --prompts would take."""
    remote_model: str | None = None
    """The model's name there, where it is another."""
    revision: str | None = None
    """Commit, tag or branch of a hub id."""
    prompts: int = 1000
    """Prompts a side for the estimate."""
    batch_size: int = 32
    """For the estimate."""


def main(config: Config) -> None:
    """Prints the tables. Raises UserError where a run would not start."""
    from rich.console import Console
    from rich.table import Table

    from nnsteer.model.load import find_model
    from nnsteer.ndif import server
    from nnsteer.ndif.client import api_key
    from nnsteer.ndif.estimate import estimates, size

    console, host = Console(), server.url_of(config.remote)
    console.print(f"{host}, API key {'set' if api_key() else 'not set'}", highlight=False)
    versions = Table("package", "here", "there", "")
    here_and_there = server.versions(host)
    for one in here_and_there:
        versions.add_row(one.package, one.here, one.there or "?", "" if one.agrees else "differs")
    console.print(versions)
    models = Table("model", "revision", "state")
    there = server.deployments(host)
    for deployment in there:
        models.add_row(deployment.name, deployment.revision or "main", deployment.state)
    console.print(models)
    server.check(host, here_and_there)
    if config.model is not None:
        files = find_model(config.model, config.revision, templated=False)
        found = server.find_deployment(host, there, config.remote_model or files.name, config.revision, files.revision)
        costs = Table("step", "requests", "up", "down", title=f"{found.name}: {config.prompts} prompts a side, all layers")
        for estimate in estimates(files.config, config.prompts, config.batch_size):
            costs.add_row(estimate.step, f"{estimate.requests:,}", size(estimate.up), size(estimate.down))
        console.print(costs)
