"""The outcome of a check for other programs and people: JUnit XML for a CI server, Markdown for a pull request."""

from __future__ import annotations

import re
from xml.etree import ElementTree as ET

from .outcome import ModelOutcome, Outcome
from .verdict import Judgement, Verdict

#: What XML 1.0 cannot hold at all.
_NO_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_MARKS = {Verdict.PASS: "pass", Verdict.FAIL: "**FAIL**", Verdict.INCONCLUSIVE: "*inconclusive*"}


def junit(outcome: Outcome) -> str:
    """One test suite a model, one test case a limit; an inconclusive one counts as skipped, with its reason."""
    root = ET.Element("testsuites", name=_xml(f"edgekron check {outcome.budget.name}"))
    for model in outcome.models:
        verdicts = [judgement.verdict for judgement in model.judgements]
        suite = ET.SubElement(
            root,
            "testsuite",
            name=_xml(f"{model.name} on {outcome.device}"),
            tests=str(len(verdicts)),
            failures=str(verdicts.count(Verdict.FAIL)),
            errors="0",
            skipped=str(verdicts.count(Verdict.INCONCLUSIVE)),
            timestamp=outcome.date.removesuffix("Z"),
        )
        for judgement in model.judgements:
            case = ET.SubElement(suite, "testcase", classname=_xml(model.name), name=_xml(judgement.limit.key))
            text = _xml(sentence(judgement))
            if judgement.verdict is Verdict.FAIL:
                ET.SubElement(case, "failure", message=text, type="limit")
            elif judgement.verdict is Verdict.INCONCLUSIVE:
                ET.SubElement(case, "skipped", message=text)
            else:
                ET.SubElement(case, "system-out").text = text
    for element in (root, *root):
        ET.indent(element)
    return '<?xml version="1.0" encoding="utf-8"?>\n' + ET.tostring(root, encoding="unicode") + "\n"


def markdown(outcome: Outcome) -> str:
    """A table a model under one line with the verdict; short enough for a comment on a pull request."""
    machine = outcome.facts.get("board") or outcome.facts.get("processor")
    where = f"{outcome.device} ({machine})" if machine else outcome.device
    lines = [f"### EdgeKron check: {_MARKS[outcome.verdict]}", "", f"{_cell(where)}, {outcome.date}", ""]
    for model in outcome.models:
        lines += [
            f"#### {_cell(model.name)}: {_MARKS[model.verdict]}",
            "",
            "| limit | bound | measured | verdict |",
            "|---|---|---|---|",
            *(_row(judgement) for judgement in model.judgements),
            "",
            *_remarks(model),
        ]
    return "\n".join(lines).rstrip("\n") + "\n"


def sentence(judgement: Judgement) -> str:
    """A judgement in words."""
    limit = judgement.limit
    words = f"{limit.title}: {judgement.shown()}, allowed is {limit.shown()}"
    return f"{words}; {judgement.reason}" if judgement.reason else words


def _row(judgement: Judgement) -> str:
    verdict = _MARKS[judgement.verdict] + (f": {_cell(judgement.reason)}" if judgement.reason else "")
    return f"| {_cell(judgement.limit.title)} | {judgement.limit.shown()} | {judgement.shown()} | {verdict} |"


def _remarks(model: ModelOutcome) -> list[str]:
    remarks = [f"- {_cell(note)}" for note in model.notes]
    if model.blocks:
        tries = f", attempt {model.attempts}" if model.attempts > 1 else ""
        starts = f"{len(model.blocks)} start{'' if len(model.blocks) == 1 else 's'} of the model's process{tries}"
        remarks.insert(0, f"- {starts}; in brackets the 95 % interval, or the range of a figure that hardly varies")
    return [*remarks, ""] if remarks else []


def _cell(text: str) -> str:
    """Words of a user inside a table: nothing in them is markup."""
    return re.sub(r"([\\`*_\[\]<>|#~])", r"\\\1", " ".join(text.split()))


def _xml(text: str) -> str:
    return _NO_XML.sub("\N{REPLACEMENT CHARACTER}", text)
