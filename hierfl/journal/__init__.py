"""The run's journal on disk, or wherever `pyarrow.fs` reaches: what makes any run go on where it was cut off."""

from hierfl.journal.lead import Lead, leading
from hierfl.journal.store import LocalStore, Store, open_store
from hierfl.journal.writer import Writer

__all__ = ["Lead", "LocalStore", "Store", "Writer", "leading", "open_store"]
