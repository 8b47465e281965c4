"""The command line of hack.engines; each command calls the API and prints a path."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from hack.engines import environments, models
from hack.engines import quantized as checkpoints
from hack.engines.errors import EngineError
from hack.models import ModelUnavailable
from hack.uv import UvMissing

app = typer.Typer(no_args_is_help=True, add_completion=False, help="Environments and models of the big engines.")


@app.command()
def env(name: Annotated[str, typer.Argument(help=", ".join(environments.ENVIRONMENTS))]) -> None:
    """Make an engine's virtual environment if it is not there; print the path of its Python."""
    print(environments.python_of(name))


@app.command()
def model(name: Annotated[str, typer.Argument(help=", ".join(models.MODELS))]) -> None:
    """Make a model in the Hugging Face form if it is not there; print the path of its folder."""
    print(models.model_folder(name))


@app.command()
def quantized(name: Annotated[str, typer.Argument(help=", ".join(checkpoints.QUANTIZED))]) -> None:
    """Make a quantized checkpoint if it is not there; print the path of its folder."""
    print(checkpoints.quantized_folder(name))


@app.command()
def clean() -> None:
    """Remove the environments that do not belong to the sources as they are."""
    for folder in environments.clean():
        print(f"removed {folder}")


def main() -> None:
    """Run the command line; what a person can act upon is printed without a traceback."""
    try:
        app()
    except (EngineError, ModelUnavailable, UvMissing) as error:
        print(error, file=sys.stderr)
        sys.exit(1)
