"""Packs the agent into one file that any Python 3.9 with numpy and a runtime can run.

The file is a zip archive with a ``__main__`` (Python runs such files directly), holding the room
``edgekron.runtimes.agent`` under its own name. The same sources always give the same bytes.
"""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

from . import agent

_MAIN = "from edgekron.runtimes.agent.main import main\n\nmain()\n"
_EPOCH = (1980, 1, 1, 0, 0, 0)


def archive() -> bytes:
    """The archive's bytes; write them to a file and run it with ``python FILE``."""
    room = Path(agent.__file__).parent
    sources = {
        f"edgekron/runtimes/agent/{file.relative_to(room).as_posix()}": file.read_text(encoding="utf-8")
        for file in room.rglob("*.py")
    }
    sources |= {"edgekron/__init__.py": "", "edgekron/runtimes/__init__.py": "", "__main__.py": _MAIN}
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as file:
        for name in sorted(sources):
            file.writestr(zipfile.ZipInfo(name, _EPOCH), sources[name], zipfile.ZIP_DEFLATED)
    return packed.getvalue()
