"""The one exception of this package."""

from __future__ import annotations


class RuntimeFailure(ValueError):  # noqa: N818 - RuntimeError is Python's own
    """A file, a runtime or a device that cannot be used: one sentence that names it and says what to do."""
