"""Reference networks, their training recipes and checkpoints, and bundled data."""

from .catalog import NETWORKS, Entry, build, facts, load

__all__ = ["NETWORKS", "Entry", "build", "facts", "load"]
