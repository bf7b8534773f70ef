"""What several laws share."""

from __future__ import annotations

import pytest

from hierfl.learning import native


@pytest.fixture
def anew():
    """Make machine code as in a fresh process, and leave none that was made under a patch."""
    native._loops.cache_clear()
    yield
    native._loops.cache_clear()
