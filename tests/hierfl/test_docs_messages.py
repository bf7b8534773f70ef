"""docs/messages.md: what it quotes is what the code says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "messages.md").read_text(encoding="utf-8")
QUOTED = re.findall(r"^\| `(.*?)` \|", PAGE, flags=re.MULTILINE)
FILES = [path for package in ("hierfl", "tiers") for path in (ROOT / package).rglob("*.py")]
SOURCE = re.sub(r'"\s*\n\s*f?"', "", "\n".join(path.read_text(encoding="utf-8") for path in FILES))
"""With strings that stand on several lines in one."""


@pytest.mark.parametrize("message", QUOTED)
def test_a_quoted_message_is_one_of_the_code(message: str) -> None:
    pieces = re.split(r"\.\.\.|(?<=believed): ", message)
    assert all(piece.strip() in SOURCE for piece in pieces), pieces


def test_all_rows_quote_one() -> None:
    rows = [line for line in PAGE.splitlines() if line.startswith("| ") and not line.startswith(("| ---", "| message"))]
    assert len(QUOTED) == len(rows) > 10
