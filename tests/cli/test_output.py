"""What is printed is what was meant: names of files and words of devices are no markup."""

from __future__ import annotations

import io

import pytest
from rich.console import Console
from rich.progress import Progress

from edgekron.cli.shared import output as _output


@pytest.mark.parametrize("name", ["a[/b].onnx", "[red]a[/red].onnx", "[link=http://x]a.onnx", "a\\[b].onnx"])
def test_names_are_printed_as_they_are(
    name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    _output.print_table(f"of {name}", ["<file"], [[name]], f"about {name}")
    assert capsys.readouterr().out.count(name) == 3
    file = io.StringIO()
    console = Console(file=file, force_terminal=True, width=200, color_system=None)
    monkeypatch.setattr(_output, "Console", lambda **_: console)
    with _output.progress_bars() as bars:
        assert isinstance(bars._progress, Progress)
        bars(name, 1, 2, note=name)
    assert file.getvalue().count(name) >= 2
