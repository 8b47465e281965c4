"""The command line of hack.images; each command calls the API and prints."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from hack.docker import docker_answers
from hack.engines.errors import EngineError
from hack.images import api
from hack.images.errors import ImageError
from hack.models import ModelUnavailable
from hack.uv import UvMissing

app = typer.Typer(no_args_is_help=True, add_completion=False, help="Builds the images that a local cluster runs.")


@app.command()
def build(
    names: Annotated[
        list[str] | None, typer.Argument(help=f"{', '.join(api.SPECS)}, or all that a demo needs.")
    ] = None,
) -> None:
    """Build what has changed; print each image's name, reference and archive."""
    wanted = api.NAMES if not names or names == ["all"] else names
    for name, image in api.build_all(wanted).items():
        print(name, image.reference, image.archive)


@app.command()
def archives() -> None:
    """Print the paths of the archives that belong to the sources as they are; fail if one is not built."""
    images = api.plan(docker=docker_answers()).values()
    for image in images:
        print(image.archive)
    if not all(image.archive.exists() for image in images):
        raise ImageError("Not all of them are built.", hint="Run `make images`.")


@app.command()
def clean() -> None:
    """Remove all archives, the base image and what the engine keeps."""
    api.clean()


def main() -> None:
    """Run the command line; what a person can act upon is printed without a traceback."""
    try:
        app()
    except (EngineError, ImageError, ModelUnavailable, UvMissing) as error:
        print(error, file=sys.stderr)
        sys.exit(1)
