"""What can go wrong, as one small tree.

HierflError                 everything a user may meet; the command line prints it without a traceback, and ends with 1,
|                           or with 2 where the command itself is the mistake, as one that names what is not there
|                           (`misnamed`)
|- ConfigError              the YAML or an override; lists every mistake with its path           (exit code 2)
|- DataError                a site's data are missing, corrupt or not what the task needs
|- UpdateRefused            an update is not finite, over the clip, or of another shape
|- UpdateDamaged            an update has other bytes than were sent
|- SiteFailed               the user's code raised at a site; carries the traceback
|- StrategyFailed           a strategy, or another kind of the user's own, raised or gave what cannot be carried out
|- RoundFailed              a round could not be closed: too few members reported
|- RuntimeUnavailable       the runtime (Ray) cannot be reached or cannot hold the run
|- OutputError              the run directory cannot be written or read
|  |- Fenced                another process leads the run now; what this one does counts no more     (exit code 3)
|  `- Overtaken             the run has gone on while it was being taken up
`- LinkError                the other side of a link cannot be reached, is not who it should be, or says what it may not
   `- PeerUnreached         a member cannot have from another one what lies there
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

__all__ = [
    "GOES_ON",
    "QUOTED",
    "ConfigError",
    "DataError",
    "Fenced",
    "HierflError",
    "LinkError",
    "OutputError",
    "Overtaken",
    "PeerUnreached",
    "Problem",
    "RoundFailed",
    "RuntimeUnavailable",
    "SiteFailed",
    "StrategyFailed",
    "UpdateDamaged",
    "UpdateRefused",
    "told_above",
]


QUOTED = "\n  in detail: "
"""Before what an error quotes of a site's records or of its update: for that site to read, it goes up no link."""

GOES_ON = "\n(on_failure: continue goes on without such a site)"
"""The way out that stands behind a site's error."""


_FOLDERS = re.compile(
    r"(?<=': )~?/[^:'\"\n]+/(?=[^/:'\"\n]+: )"  # site 'north': /mnt/our records/north.csv: has no column
    r"|(?<=')~?/[^'\n]+/(?=[^/'\n]+')"  # No such file or directory: '/mnt/our records/north.csv'
    r"|(?<![^\s'\"(\[{=,;])~?/(?:[^\s/'\"]+/)+(?=[^\s/])"
)
"""Of a path from a disk's root on, all but its last part: how an institution calls its folders is its affair."""


def told_above(text: str) -> str | None:
    """Give what of an error may go up a link: a line of ours, without what it quotes, files by their last part. None
    where there is more, which is what a task's own code says.
    """
    ours, is_quoting, quoted = text.strip().removesuffix(GOES_ON).partition(QUOTED)
    if "\n" in ours or "\n" in quoted:
        return None
    return _FOLDERS.sub("", ours) + ("; what is wrong there is in the log of that site" if is_quoting else "")


class HierflError(Exception):
    """A failure that a user can understand and mend; `exit_code` is the command line's.

    `run_dir`: for callers in Python, the folder of the run that it has ended, if that had begun.
    """

    exit_code = 1
    run_dir: Path | None = None

    def misnamed(self, found: Exception | None = None) -> Self:
        """Give it as a mistake of the command, such as one that names what is not there: exit code 2. `found`: what the
        system said, which may be something else.
        """
        if found is None or isinstance(found, FileNotFoundError | NotADirectoryError):
            self.exit_code = 2
        return self


@dataclass(frozen=True, slots=True)
class Problem:
    """One mistake: `path` in the YAML (dotted, `federation.members.us.rounds`), what to do about it, and its line in
    the file where it stands there.
    """

    path: str
    message: str
    line: int | None = None

    def __str__(self) -> str:
        at = f" (line {self.line})" if self.line is not None else ""
        return f"{self.path}{at}: {self.message}" if self.path else self.message


class ConfigError(HierflError):
    """The configuration is wrong; `problems` holds every mistake found, not only the first."""

    exit_code = 2

    def __init__(self, problems: Sequence[Problem] | str) -> None:
        self.problems = (Problem("", problems),) if isinstance(problems, str) else tuple(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))

    def __reduce__(self) -> tuple[type[ConfigError], tuple[tuple[Problem, ...]]]:
        return type(self), (self.problems,)


class DataError(HierflError):
    """A site's data are missing, corrupt, or not what the task needs."""


class UpdateRefused(HierflError):
    """An update was refused before it touched any sum; the message names the tensor and the value."""


class UpdateDamaged(HierflError):
    """An update has other bytes than were sent: it is in no sum, and is sent again."""


class SiteFailed(HierflError):
    """The user's code raised at a site; the message names the site and ends with the traceback."""


class StrategyFailed(HierflError):
    """A strategy, or another kind of the user's own, raised or gave what cannot be carried out.

    The message names it, its method and, where a hub asked, the hub.
    """


class RoundFailed(HierflError):
    """A round could not be closed: fewer members reported than its quorum asks for."""


class RuntimeUnavailable(HierflError):
    """The runtime cannot be reached, or has not the devices that the configuration asks for."""


class OutputError(HierflError):
    """A run directory, a checkpoint or a report cannot be written or read."""


class Fenced(OutputError):
    """Another process has taken the run up: this one publishes nothing more, and leaves the run's folder alone."""

    exit_code = 3


class Overtaken(OutputError):
    """The process that led the run went on while it was being taken up: take it up from where it is now."""

    exit_code = 3


class LinkError(HierflError):
    """The other side of a link cannot be reached, is not who it should be, or says what it may not."""


class PeerUnreached(LinkError):
    """A member cannot have from another one, at the place of `holder`, what lies there."""

    def __init__(self, holder: str, message: str) -> None:
        self.holder = holder
        super().__init__(message)

    def __reduce__(self) -> tuple[type[PeerUnreached], tuple[str, str]]:
        return type(self), (self.holder, str(self))
