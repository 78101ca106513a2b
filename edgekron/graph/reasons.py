"""Reasons why layers stay as they are: verb phrases behind "it ...", and how many layers have which kind of reason.

The kind of a reason is its beginning, up to a punctuation mark or to what names one layer's own matters: all of
"has float16 weights, not float32", "shares its weights with conv3" down to "has float16 weights" and "shares its
weights".
"""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

_KIND = re.compile(r"[:;,(]| with | at ")


def kinds_of(reasons: Iterable[str]) -> str:
    """The number of layers of each kind: "12 layers have float16 weights, 1 is depthwise"; empty for no reasons."""
    counts = Counter(_KIND.split(reason)[0].strip() for reason in reasons)
    parts = [f"{count} {kind if count == 1 else _plural(kind)}" for kind, count in counts.most_common()]
    if not parts:
        return ""
    number, _, rest = parts[0].partition(" ")
    return ", ".join([f"{number} layer{'' if number == '1' else 's'} {rest}", *parts[1:]])


def _plural(kind: str) -> str:
    """A verb phrase for several layers: "is a Conv" as "are Convs", "shares its weights" as "share their weights"."""
    verb, _, rest = kind.partition(" ")
    if verb == "is" and rest.startswith(("a ", "an ")):
        return f"are {rest.partition(' ')[2]}s"
    many = {"is": "are", "has": "have"}.get(verb) or verb.removesuffix("s")
    theirs = " ".join("their" if word == "its" else word for word in rest.split(" "))
    return f"{many} {theirs}".strip()
