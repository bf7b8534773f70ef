"""A Ray cluster as far as the shared scheduler uses one: slots as far as there is room, and the scheduler's own end."""

from __future__ import annotations

import pytest

from hierfl.runtime import ray_service

__all__ = ["Cluster", "Group"]


class Cluster:
    """What the service uses of Ray: slots as far as there is room, and its own end."""

    def __init__(self, patch: pytest.MonkeyPatch, room: int) -> None:
        self.room = room
        self.groups: list[Group] = []
        self.current_actor = "the service"
        self.table: dict[str, dict[str, str]] = {}
        self.killed: list[str] = []
        patch.setattr(ray_service, "ray", self)
        patch.setattr(ray_service, "placement_group", self.make)
        patch.setattr(ray_service, "remove_placement_group", self.remove)
        patch.setattr(ray_service, "placement_group_table", self.look)
        patch.setattr(ray_service, "num_that_fit", lambda bundles: min(len(bundles), self.room))
        patch.setattr(ray_service, "POLL_S", 0.05)
        patch.setattr(ray_service, "ANSWER_S", 0.0)

    def make(self, bundles: list[dict[str, float]], name: str, lifetime: str) -> Group:
        assert lifetime == "detached"
        self.room -= 1
        self.groups.append(Group(name))
        return self.groups[-1]

    def look(self) -> dict[str, dict[str, str]]:
        return self.table

    def remove(self, group: Group) -> None:
        self.groups.remove(group)
        self.room += 1

    def get_runtime_context(self) -> Cluster:
        return self

    def kill(self, actor: str) -> None:
        self.killed.append(actor)


class Group:
    def __init__(self, name: str) -> None:
        self.name = name
        self.id = self

    def hex(self) -> str:
        return self.name

    def wait(self, timeout_s: float) -> bool:
        return True
