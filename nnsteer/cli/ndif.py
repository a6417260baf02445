"""Look at an NDIF server before anything is sent: key, versions, models, and what a run would take.

    nnsteer ndif                                            # the public server: its models
    nnsteer ndif --model meta-llama/Llama-3.3-70B-Instruct  # whether it runs, and what a fit costs
    nnsteer ndif --remote http://localhost:5001 --model runs/mine --remote-model lab/mine

The key is the environment variable NDIF_API_KEY, or nnsight's own setting. With it, recipes, study,
fit, tune and generate run on the server: --remote ndif. Prints what it finds; sends no prompt.
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
    packages = server.versions(host)
    for package in packages:
        differs = "" if package.agrees else "differs"
        versions.add_row(package.package, package.here, package.there or "?", differs)
    console.print(versions)
    models = Table("model", "revision", "state")
    running = server.deployments(host)
    for deployment in running:
        models.add_row(deployment.name, deployment.revision or "main", deployment.state)
    console.print(models)
    server.check(host, packages)
    if config.model is not None:
        files = find_model(config.model, config.revision, templated=False)
        model = (config.remote_model or files.name, config.revision, files.revision)
        name = server.find_deployment(host, running, *model).name
        title = f"{name}: {config.prompts} prompts a side, all layers"
        costs = Table("step", "requests", "up", "down", title=title)
        for step in estimates(files.config, config.prompts, config.batch_size):
            costs.add_row(step.step, f"{step.requests:,}", size(step.up), size(step.down))
        console.print(costs)
