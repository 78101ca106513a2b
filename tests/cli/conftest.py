"""Runs commands in this process, as a shell would."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from edgekron.cli.main import main


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """``run(*words)``: the exit code, what was printed, and what was said to standard error."""

    def run(*words: object) -> tuple[int, str, str]:
        code = main([str(word) for word in words])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run
