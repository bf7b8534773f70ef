"""Configuration: one YAML, validated whole before anything starts."""

from hierfl.config.load import as_words, check, from_mapping, load
from hierfl.config.schema import RunConfig
from hierfl.config.write import write

__all__ = ["RunConfig", "as_words", "check", "from_mapping", "load", "write"]
