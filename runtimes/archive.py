"""Packs the agent into one file that any Python 3.9 with numpy and a runtime can run.

The file is a zip archive with a ``__main__`` (Python runs such files directly), holding the modules of this package
that work on the device, under their own names. The same sources always give the same bytes.
"""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

#: Modules of this package that run on the device; nothing else of the project does.
MODULES = (
    "agent.py",
    "arena.py",
    "connection.py",
    "environment.py",
    "errors.py",
    "memory.py",
    "profile.py",
    "proof.py",
    "requests.py",
    "rounds.py",
    "store.py",
    "worker.py",
    "backends/__init__.py",
    "backends/litert.py",
    "backends/onnxruntime.py",
    "backends/session.py",
)
_MAIN = "from edgekron.runtimes.agent import main\n\nmain()\n"
_EPOCH = (1980, 1, 1, 0, 0, 0)


def archive() -> bytes:
    """The archive's bytes; write them to a file and run it with ``python FILE``."""
    here = Path(__file__).parent
    sources = {f"edgekron/runtimes/{name}": (here / name).read_text(encoding="utf-8") for name in MODULES}
    sources |= {"edgekron/__init__.py": "", "edgekron/runtimes/__init__.py": "", "__main__.py": _MAIN}
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as file:
        for name in sorted(sources):
            file.writestr(zipfile.ZipInfo(name, _EPOCH), sources[name], zipfile.ZIP_DEFLATED)
    return packed.getvalue()
