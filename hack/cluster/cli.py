"""The command line of hack.cluster; each command calls the API and prints."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from hack.cluster import api, doctor
from hack.cluster.errors import ClusterError
from hack.cluster.host.layout import Layout
from hack.cluster.options import DEFAULT_NAME, ClusterOptions
from hack.cluster.progress import say
from hack.cluster.providers import provider_for

app = typer.Typer(no_args_is_help=True, add_completion=False, help="Starts and ends local Kubernetes clusters.")

Name = Annotated[str, typer.Option(help="The cluster's name.")]
ControlPlaneOnly = Annotated[bool, typer.Option("--control-plane-only", help="An API without a node; needs no root.")]
ProviderName = Annotated[str, typer.Option("--provider", help="auto, host or kind.")]


@app.command()
def up(
    name: Name = DEFAULT_NAME,
    gpus: Annotated[int, typer.Option(help="GPUs on fake nodes, eight on each.")] = 0,
    control_plane_only: ControlPlaneOnly = False,
    provider: ProviderName = "auto",
) -> None:
    """Start a cluster, or find it running; print the path of its kubeconfig."""
    cluster = api.up(ClusterOptions(name, control_plane_only, gpus, provider))
    print(cluster.kubeconfig)


@app.command()
def down(name: Name = DEFAULT_NAME) -> None:
    """End a cluster and remove everything of it."""
    api.down(name)
    say(f"  cluster {name} is gone")


@app.command()
def status(name: Name = DEFAULT_NAME) -> None:
    """Show the components; fail when one of them, or the cluster, is not there."""
    components = api.status(name)
    for component in components:
        print(f"{component.component:<28}{'running' if component.alive else 'ended':<10}{component.pid}")
    if not components:
        print(f"There is no cluster {name}.")
    if not components or not all(component.alive for component in components):
        raise typer.Exit(1)


@app.command()
def kubeconfig(name: Name = DEFAULT_NAME) -> None:
    """Print the path of a cluster's kubeconfig."""
    path = Layout.of(name).kubeconfig
    if not path.exists():
        raise ClusterError(f"There is no cluster {name}.")
    print(path)


@app.command()
def load_image(archives: list[Path], name: Name = DEFAULT_NAME) -> None:
    """Put OCI image archives into a cluster's node."""
    api.load_images(name, archives)


@app.command()
def build(control_plane_only: ControlPlaneOnly = False, provider: ProviderName = "auto") -> None:
    """Build the binaries that the cache lacks, and start nothing."""
    api.build(ClusterOptions(control_plane_only=control_plane_only, provider=provider))


@app.command(name="doctor")
def examine(control_plane_only: ControlPlaneOnly = False, provider: ProviderName = "auto") -> None:
    """Say what this machine lacks for a cluster; fail when it is anything."""
    chosen = provider_for(provider)
    missing = chosen.missing(ClusterOptions(control_plane_only=control_plane_only, provider=provider))
    doctor.require(missing)
    print(f"Nothing is missing for provider {chosen.name}.")


def main(run: Callable[[], None] = app) -> None:
    """Run the command line; errors of ours are a message, not a traceback."""
    try:
        run()
    except ClusterError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
