"""A tree in limited space: the first members of each hub, and "so many more" in place of the rest.

The terminal and the pictures draw the same outline. It works on paths alone (`world/us/cleveland`), so that it serves
a `Federation` and the paths found in a log alike.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

__all__ = ["Row", "members_by_hub", "outline", "sites_below"]


@dataclass(frozen=True, slots=True)
class Row:
    """One line of an outline: the node at `path`, or the members `hidden` of the hub at `path`.

    `depth` counts from the root's 0; `guide` is what stands before the name: "│  ├─ ".
    """

    path: str
    depth: int
    guide: str = ""
    hidden: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The last part of the path."""
        return self.path.rpartition("/")[2]


def members_by_hub(paths: Iterable[str]) -> dict[str, list[str]]:
    """Group paths by the hub that they belong to, in their order; a path without members is a site."""
    members: dict[str, list[str]] = {}
    for path in paths:
        hub = path.rpartition("/")[0]
        if hub:
            members.setdefault(hub, []).append(path)
    return members


def sites_below(members: Mapping[str, Sequence[str]], paths: Iterable[str]) -> list[str]:
    """List the sites at and below `paths`."""
    found, stack = [], list(paths)
    while stack:
        path = stack.pop()
        below = members.get(path)
        if below:
            stack.extend(below)
        else:
            found.append(path)
    return found


def outline(
    members: Mapping[str, Sequence[str]], root: str, *, rows: int = 40, siblings: int = 12, depth: int | None = None
) -> list[Row]:
    """Draw the tree below `root` in at most `rows` rows, at most `siblings` members a hub, `depth` tiers below it.

    Gives up width before depth: siblings are cut until the tree fits, and only then its lower tiers.
    """
    limit = rows if depth is None else min(depth, rows)
    for width in range(siblings, 0, -1):
        found = _rows(members, root, rows, width, limit)
        if found is not None:
            return found
    for shallower in range(limit - 1, -1, -1):
        found = _rows(members, root, rows, 1, shallower)
        if found is not None:
            return found
    return [Row(root, 0)]


def _rows(members: Mapping[str, Sequence[str]], root: str, rows: int, width: int, depth: int) -> list[Row] | None:
    """Walk the tree in order without recursion; None as soon as it needs more than `rows`."""
    found: list[Row] = []
    stack = [(Row(root, 0), "")]
    while stack:
        row, below = stack.pop()
        found.append(row)
        if len(found) > rows:
            return None
        if not row.hidden:
            stack.extend(reversed(_below(members.get(row.path, ()), row, below, width, depth)))
    return found


def _below(paths: Sequence[str], row: Row, indent: str, width: int, depth: int) -> list[tuple[Row, str]]:
    """Make the rows of one hub's members, each with the indent of what will stand below it."""
    fit = width + 1 if len(paths) == width + 1 else width  # "1 more" takes no less room than the one
    shown = fit if row.depth < depth else 0
    rest = tuple(paths[shown:])
    made = []
    for place, path in enumerate(paths[:shown], start=1):
        last = place == len(paths)
        guide = indent + ("└─ " if last else "├─ ")
        made.append((Row(path, row.depth + 1, guide), indent + ("   " if last else "│  ")))
    if rest:
        made.append((Row(row.path, row.depth + 1, indent + "└─ ", rest), ""))
    return made
