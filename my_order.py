"""One hub's sites first; among equals who was asked for first."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Favoured:
    hub: str = ""

    def priority(self, job, num_eligible):
        return (0 if job.name.startswith(f"{self.hub}/") else 1, job.order)

    def reason(self, job):
        return f"{self.hub} goes first" if job.name.startswith(f"{self.hub}/") else "in order"
