"""Where the noise of a site's privacy mechanism comes from.

In a simulation it follows from the run's seed, so that bits repeat: on every runtime, resumed or unbroken. Whoever
knows the seed knows the noise then. Over links each training of a site draws a key of its own from the system, which is
kept nowhere: nobody can take the noise away again, and no two trainings share any. What a training depends on is in the
noise's purpose all the same: two trainings from other models, or under other settings, never have the same noise.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from itertools import count
from typing import TYPE_CHECKING

from hierfl.errors import ConfigError
from hierfl.learning.noise import Stream
from hierfl.learning.patients import RECORD, unit_of
from hierfl.learning.state import ModelState
from hierfl.learning.training import Private
from hierfl.runtime.jobs import WorkerSpec

if TYPE_CHECKING:
    from torch.nn import Module

__all__ = ["KEY_BYTES", "check_mechanisms", "private_passes"]

KEY_BYTES = 32


def check_mechanisms(spec: WorkerSpec, module: Module) -> None:
    """Hold the sites' privacy mechanisms against the model, and warm up. Errors: ConfigError."""
    mechanisms = {site.privacy for site in spec.sites.values() if site.privacy is not None}
    if mechanisms:
        from hierfl.learning.per_record import warm_up

        warm_up()
    for mechanism in mechanisms:
        said = mechanism.misfit(module)
        if said:
            raise ConfigError(f"privacy: {said}")


def private_passes(spec: WorkerSpec, site: str, round_number: int) -> Callable[[str, ModelState], Private] | None:
    """Give what makes the mechanism of each pass of one training of a site, by the pass's name and the model that it
    starts from; None where the site has no mechanism.
    """
    settings = spec.sites[site]
    mechanism = settings.privacy
    if mechanism is None:
        return None
    key = os.urandom(KEY_BYTES) if spec.secret else f"seed {spec.seed}".encode()
    data = settings.key, settings.part, sorted(settings.source.items())
    # By what a site is, and not where in the tree: a tree and a flat federation have the same bits.
    # A mechanism does not write its unit itself: the noise of single records is as it was before there were others.
    unit = () if unit_of(mechanism) == RECORD else (unit_of(mechanism),)
    who = repr((site.rpartition("/")[2], data, settings.training, mechanism, *unit)).encode()

    number = count()

    def of_pass(name: str, start: ModelState) -> Private:
        model = hashlib.sha256(start.floats.tobytes() + start.ints.tobytes()).digest()
        which = f"{next(number)} {name}".encode()  # a rule may take two passes of one name
        return Private(mechanism, Stream(key, who, str(round_number).encode(), which, model))

    return of_pass
