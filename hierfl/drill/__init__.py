"""`hierfl drill`: faults on the user's own federation, one by one, each held against the run without any."""

from hierfl.drill.cases import Case, cases
from hierfl.drill.judge import Seen, recoveries, seen
from hierfl.drill.run import Row, drill

__all__ = ["Case", "Row", "Seen", "cases", "drill", "recoveries", "seen"]
