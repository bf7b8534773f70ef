"""What a member measures for its hub: a model after each round that the plan measures, and nothing else.

A measurement tells little of the model that was trained, and as much as somebody likes of one that was made up to ask.
So a member holds each against the plan, and writes down which models it has measured after which rounds before it
measures one. A hub that goes back to a checkpoint does rounds anew: mostly to the same bits, which are no other model;
where rounds hang on time (`deadline`, `buffered`, members that failed) or on noise that is drawn anew, to other ones.
"""

from __future__ import annotations

import json
from pathlib import Path

from hierfl.config.schema import RunConfig
from hierfl.errors import QUOTED, LinkError
from hierfl.link.files import append_private, whole_lines

__all__ = ["MOST_MODELS", "Measured", "check_measurement"]

MOST_MODELS = 4
"""Of one round in a run: the one that the hub went on with, and those of times that it went back before it."""

FILE = "measured.jsonl"


class Measured:
    """The models that were measured in one run, in a file of its `folder`. Errors: LinkError if it cannot be read."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / FILE
        self._known: dict[int, set[str]] = {}
        try:
            for line in whole_lines(self._file):
                said = json.loads(line)
                self._known.setdefault(int(said["round"]), set()).add(str(said["model"]))
        except FileNotFoundError:
            return
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise LinkError(
                f"what was measured for the hub cannot be read{QUOTED}{self._file}: {error}; put it back from a copy,"
                " or remove it, if as much may be measured once more"
            ) from error

    def admit(self, round_number: int, digest: bytes) -> None:
        """Note a model that is to be measured after a round. Errors: LinkError for one too many, or a full disk."""
        known, model = self._known.setdefault(round_number, set()), digest.hex()
        if model in known:
            return
        if len(known) >= MOST_MODELS:
            raise LinkError(
                f"another model is to be measured after round {round_number}, and {len(known)} were: a member answers"
                f" for no more, unless who serves it removes what it noted{QUOTED}{self._file} has them; without it,"
                " and once the member was started again, as many are measured anew"
            )
        append_private(self._file, json.dumps({"round": round_number, "model": model}) + "\n")
        known.add(model)


def check_measurement(config: RunConfig, round_number: int, *, tunes: bool) -> None:
    """Hold a measurement after a round of the root, counted from 1, against the plan; `tunes`: of sites' own models.

    Errors: LinkError for one that is not in it.
    """
    evaluation, most = config.evaluation, config.federation.root.rounds
    asked = f"a measurement after round {round_number} is asked for"
    if not evaluation.every or config.only_tells:
        why = "statistics.only" if config.only_tells else "evaluation.every: 0"
        raise LinkError(f"{asked}, and the plan has none ({why})")
    if not 1 <= round_number <= most:
        raise LinkError(f"{asked}, and the plan has {most}")
    if round_number % evaluation.every and round_number != most:
        raise LinkError(f"{asked}, and the plan has one after every {evaluation.every} and after the last, {most}")
    if not tunes:
        return
    if evaluation.fine_tune is None:
        raise LinkError(f"{asked} of models that sites make their own, and the plan has none (evaluation.fine_tune)")
    stops_early = config.stopping.metric is not None
    if evaluation.fine_tune.at != "every" and round_number != most and not stops_early:
        raise LinkError(f"{asked} of models that sites make their own, and the plan has one after the last, {most}")
