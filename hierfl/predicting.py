"""The command that uses an exported model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hierfl.console import aside, told
from hierfl.monitor.words import few, metric
from hierfl.options import Debug, Json

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("predict")(_predict)


def _predict(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="What `hierfl export` has written.")],
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The records: a file, or a folder of files.")],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Where to write them with what is predicted.")],
    source: Annotated[
        list[str] | None,
        typer.Argument(metavar="KEY=VALUE", help="How they are written, as under data: delimiter=';' decimal=','."),
    ] = None,
    site: Annotated[str, typer.Option(metavar="NAME", help="Whose records they are, by its key.")] = "",
    data: Annotated[str, typer.Option(metavar="PATH", help="That site's own data, which fill gaps.")] = "",
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Use an exported model on records that nobody has labelled."""
    with told(as_json, debug), aside(as_json) as answer:
        from hierfl.predict import predict

        said, num_records = predict(model, file, out, site, data, source or [])
        cuts = {"class 1": said.threshold} if said.threshold is not None else said.thresholds
        at = f", {few([f'{label} from {metric(at)}' for label, at in cuts.items()])} on" if cuts else ""
        answer.update(file=str(out), num_records=num_records, model_digest=said.digest)
        answer.update(threshold=said.threshold, thresholds=said.thresholds)
        answer.update({"site": said.site} if said.site else {})
        whose = f"the model that {said.site} uses itself in {said.run}" if said.site else f"the model of {said.run}"
        print(f"{out}: {num_records} records, by {whose} after {said.rounds} rounds{at}")
