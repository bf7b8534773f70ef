"""Configuration: one YAML, validated whole before anything starts."""

from hierfl.config.load import check, from_mapping, load
from hierfl.config.schema import RunConfig
from hierfl.config.write import write

__all__ = ["RunConfig", "check", "from_mapping", "load", "write"]
