"""Changes to a run that is under way: they hold from the next round that begins, as if it had been taken up again.

`hierfl amend` checks them against the run as it is and leaves them in its folder. The run looks there between two
rounds, commits, and goes on under the new configuration in the same process; one that is stopped takes them in when it
is resumed. Checks are made again then, since rounds may have gone by: what has come too late is refused by name, and
the run goes on as it was.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from hierfl.errors import ConfigError
from hierfl.reopen import reopened
from hierfl.runtime.opening import store_of
from hierfl.standby import see
from tiers.lease import LEADS

__all__ = ["amend"]


def amend(
    run_dir: Path,
    overrides: Sequence[str],
    code_dir: Path | None = None,
    tell: Callable[[str], object] = lambda said: None,
) -> tuple[int, Sequence[str]]:
    """Leave overrides for a run; return how many rounds it had committed, and all that is left for it now.

    `tell` hears where no process leads the run that would take them in. Errors: ConfigError and OutputError as of
    `resume`; nothing is left where these are raised.
    """
    if not overrides:
        raise ConfigError("amend needs what is to change: KEY=VALUE, as federation.members.us.leaves_at=12")
    with reopened(run_dir, overrides, code_dir, to_train=True) as left:
        if left.folder.is_served:
            raise ConfigError(
                f"amend: other institutions serve members of {run_dir}, and all keep to the YAML on which they agreed;"
                " stop the run, agree on another YAML, and start a run of that"
            )
        store = store_of(left.config, left.folder.path)
        seen = see(store) if store is not None else None
        words = left.folder.amend(overrides)
        if seen is not None and seen.lease is not None and seen.lease.state != LEADS:
            tell(f"no process leads that run now: only `hierfl resume {run_dir}` takes it up, with what is left for it")
        return (left.saved.rounds_done if left.saved is not None else 0), words
