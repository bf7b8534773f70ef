"""Who agreed to a plan: kept beside the kit, for whoever asks later how a member came to take part."""

from __future__ import annotations

import json
import os
import pwd
import socket
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from datetime import datetime
from pathlib import Path
from typing import Any

from hierfl import __version__
from hierfl.errors import LinkError
from hierfl.link.approval import Plan
from hierfl.link.files import write_public

__all__ = ["OPTION", "TYPED", "Agreement", "agree", "agreed", "agreement_here"]

APPROVED = "approved.json"

TYPED, OPTION = "typed at the terminal", "given with --approve"
"""How somebody agrees."""


@dataclass(frozen=True, slots=True)
class Agreement:
    """One person's, or one service's: the account by its process, not by what its environment says.

    `login`: whose terminal it was, where that is known, as of somebody who took on the account with sudo. `hierfl`: its
    version.
    """

    at: str
    user: str
    login: str
    host: str
    how: str
    hierfl: str

    def line(self) -> str:
        """Say it to a person."""
        login = f" (logged in as {self.login})" if self.login not in ("", self.user) else ""
        return f"agreed         by {self.user}{login} at {self.host}, {self.at}, {self.how}, hierfl {self.hierfl}"


def agreement_here(how: str, now: datetime) -> Agreement:
    """Give the agreement of who runs this process."""
    return Agreement(now.isoformat(timespec="seconds"), _user(), _login(), socket.gethostname(), how, __version__)


def agreed(plan: Plan, folder: Path) -> Agreement | None:
    """Give the agreement to a plan; None if there is none. Errors: LinkError if the list cannot be read."""
    found = _approved(folder).get(plan.digest)
    if not isinstance(found, Mapping):
        return None
    return Agreement(*(str(found.get(one.name, "unknown")) for one in fields(Agreement)))


def agree(plan: Plan, folder: Path, agreement: Agreement, shown: Sequence[str]) -> None:
    """Note that a plan is agreed to, with what was shown of it. Errors: LinkError."""
    found = {**_approved(folder), plan.digest: {**asdict(agreement), "shown": [*shown]}}
    write_public(folder / APPROVED, (json.dumps(found, indent=2) + "\n").encode())


def _user() -> str:
    """Name the account of this process; in a container it may have a number only."""
    number = os.getuid()
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return f"uid {number}"


def _login() -> str:
    try:
        return os.getlogin()
    except OSError:  # no terminal
        return ""


def _approved(folder: Path) -> Mapping[str, Any]:
    """Read the list of agreements."""
    try:
        found = json.loads((folder / APPROVED).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise LinkError(f"{folder / APPROVED} cannot be read: {error}; delete it to approve anew") from error
    return found if isinstance(found, dict) else {}
