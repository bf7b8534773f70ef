"""docs/configuration.md says what the schema says."""

from pathlib import Path

import pytest

from hierfl import kinds
from hierfl.config.document import document, field_docs
from hierfl.config.keys import SECTIONS, HubKeys, SiteKeys, TemplateKeys, TopKeys
from hierfl.config.schema import Training
from hierfl.config.values import Wrong, convert, keys_of

PAGE = Path(__file__).parents[3] / "docs" / "configuration.md"
SEAMS = ("task", "strategy", "topology", "policy", "attack", "fault")
KINDS = [(seam, name) for seam in SEAMS for name in kinds.names(seam)]


def test_the_page_is_current() -> None:
    assert PAGE.read_text(encoding="utf-8") == document(), (
        "write it anew: python -m hierfl.config.document > docs/configuration.md"
    )


@pytest.mark.parametrize("cls", [TopKeys, HubKeys, SiteKeys, TemplateKeys, Training, *SECTIONS.values()])
def test_every_key_has_a_meaning(cls: type) -> None:
    assert set(keys_of(cls)) == set(field_docs(cls))


@pytest.mark.parametrize(("seam", "name"), KINDS)
def test_every_kind_is_on_the_page_and_every_key_of_it_has_a_meaning(seam: str, name: str) -> None:
    cls = kinds.load(seam, name)
    assert set(keys_of(cls)) <= set(field_docs(cls))
    assert f"### `{name}`" in PAGE.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("value", "says"),
    [(1e3, "not 1000.0: write 1000"), ("1e3", "not '1e3': write 1000"), (2.5, "not 2.5"), (1e300, r"not 1e\+300")],
)
def test_a_whole_number_with_a_point_is_told_how_it_is_written(value: float | str, says: str) -> None:
    """As OmegaConf does, none is taken for a whole number; YAML reads 1e3 as 1000.0."""
    with pytest.raises(Wrong, match=f"must be a whole number, {says}$"):
        convert(value, int)
