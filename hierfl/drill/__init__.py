"""`hierfl drill`: faults on the user's own federation, one by one, each held against the run without any."""

from hierfl.drill.cases import Case, cases
from hierfl.drill.judge import Seen, absolute, by_round, recoveries, seen
from hierfl.drill.run import Row, drill

__all__ = ["Case", "Row", "Seen", "absolute", "by_round", "cases", "drill", "recoveries", "seen"]
