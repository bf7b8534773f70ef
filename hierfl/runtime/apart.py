"""What each member makes of the federation's model: a site by its next local training, a hub by its next rounds.

A round's models of sites and hubs are gone once they are in the sum. Each is made once more here, by itself and as it
would be in the round that comes: from the same model and states, on the same random numbers, over the same arithmetic.
Nothing of it counts, and the run stays as it was.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

from hierfl.checkpoint import Checkpoint
from hierfl.config.schema import RunConfig
from hierfl.errors import HierflError
from hierfl.learning.compression import as_sum
from hierfl.learning.local import State
from hierfl.learning.ring import decode
from hierfl.learning.state import Layout, ModelState
from hierfl.learning.stepping import first_state, sent_down
from hierfl.runtime.engine import Engine
from hierfl.runtime.hub import grid_of
from hierfl.runtime.jobs import Order
from hierfl.runtime.remembered import Remembered
from hierfl.runtime.specs import hub_layouts, is_carrier, member_weights
from hierfl.runtime.survey import samples_of
from tiers.federation import parent, rounds_per_round
from tiers.messages import Opening

__all__ = ["MOST_SITES", "models_apart"]

MOST_SITES = 100
"""Sites whose models are made at most: each is measured at every site."""


def models_apart(
    config: RunConfig, engine: Engine, saved: Checkpoint, known: Collection[str] = ()
) -> Iterator[tuple[str, ModelState]]:
    """Yield each inner hub's model and each site's by path, in the order of the tree; sites only if they are few.

    `saved`: what the run has come to; `known`: nodes whose models are known already.
    Who has nothing to train on has no model; one that fails is left out by name where its hub goes on without it.
    Errors: SiteFailed, RoundFailed.
    """
    layout, model = saved.layout, saved.model
    remembered = Remembered.of(saved, config, engine.driver)
    there = samples_of(config, engine.inventories)
    steps = {path: site.training.num_steps(there[path]) for path, site in config.sites.items()}
    tree = config.federation
    too_many = sum(bool(there[site]) for site in tree.sites) > MOST_SITES
    for path in tree.nodes:
        hub = parent(path)
        if hub is None or path in known or not there[path] or (too_many and path in tree.sites):
            continue
        engine.set_up(layout, there, steps, remembered)
        number = saved.rounds_done * rounds_per_round(tree, hub)
        name = path.rpartition("/")[2]
        weight = member_weights(config, hub, there)[name]
        arithmetic, strategy = config.arithmetic, config.hubs[hub].strategy
        opening = Opening(hub, number, arithmetic.width, arithmetic.clip, weight, str(layout.float_dtype))
        order = Order(hub, number, ((name, weight),), opening, strategy.objective())
        sent = _sent(config, hub, model, layout, saved.states)
        try:
            _, part = engine.branch(path, order, engine.driver.put(sent))
        except HierflError as error:
            if not tree.hubs[hub].keep_going:
                raise
            engine.say(path, f"has no model of its own: {error}")
            continue
        grid = grid_of(opening)
        delta, counted = decode(as_sum(engine.driver.get(part), grid), grid)
        yield path, ModelState(model.floats + delta[: model.floats.size], model.ints + counted)


def _sent(config: RunConfig, hub: str, model: ModelState, layout: Layout, states: Mapping[str, State]) -> ModelState:
    """Give what a hub's members are sent: the model, and behind it what its strategy, or one above, sends."""
    strategy, above = config.hubs[hub].strategy, parent(hub)
    if not strategy.objective().channels(1):
        return model
    if above is not None and is_carrier(config, hub):
        return _sent(config, above, model, layout, states)
    state = states.get(hub) or first_state(hub, strategy, model.floats)
    size = hub_layouts(config, hub, layout)[1].num_floats
    return ModelState(sent_down(hub, strategy, model.floats, state, size), model.ints)
