"""Exporters: from the hub to files that runtimes run."""
