"""Finds the hubs that have too few members for what their strategy promises, before anything starts."""

from __future__ import annotations

from hierfl.config.places import join
from hierfl.config.section import Report
from hierfl.config.tree import Node
from hierfl.learning.strategy import Reducer

__all__ = ["check_reducers"]


def check_reducers(root: Node, report: Report) -> None:
    """Report each hub whose strategy needs more members than it has."""
    stack = [root]
    while stack:
        node = stack.pop()
        if node.members is not None and isinstance(node.own.strategy, Reducer):
            short = node.own.strategy.shortage(len(node.members))
            if short:
                report(join(node.place, "strategy"), short)
        stack.extend(reversed(node.members or ()))
