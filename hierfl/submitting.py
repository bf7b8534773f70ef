"""The command that runs a configuration elsewhere: as a job on a Ray cluster."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from hierfl.console import told
from hierfl.options import Debug, Words, loaded, split

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("submit")(_submit)


def _submit(
    words: Words,
    address: Annotated[str, typer.Option(help="The Ray cluster's dashboard, http://host:8265.")],
    working_dir: Annotated[
        Path, typer.Option(help="The folder that the job gets a copy of; CONFIG is in it.")
    ] = Path(),
    wait: Annotated[bool, typer.Option(help="Show the job's log and wait for its end.")] = True,
    check: Annotated[bool, typer.Option(help="Check CONFIG here before it is sent.")] = True,
    debug: Debug = False,
) -> None:
    """Run CONFIG as a job on a Ray cluster.

    Sends the folder, shows the log and returns the job's exit code; Ctrl-C leaves the job running.
    """
    with told(False, debug):
        from hierfl.runtime.ray_submit import ON_CLUSTER, submit

        config, overrides = split(words)
        if check:
            sys.path.insert(0, str(working_dir.resolve()))
            output = loaded([*words, *ON_CLUSTER]).output.folder
            if not output.is_absolute():
                print(
                    f"note: output.dir={output} is relative: the run is written in the job's own folder on the cluster,"
                    " which Ray deletes in time; output.dir=/a/shared/folder keeps it",
                    file=sys.stderr,
                )
        code = submit(config, overrides, address=address, working_dir=working_dir, wait=wait)
        raise typer.Exit(code)
