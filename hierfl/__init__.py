"""Hierarchical multi-tier federated learning on Ray: hospitals train together, hubs aggregate, the tree is one YAML."""

__all__ = ["__version__"]

__version__ = "0.1.0"
