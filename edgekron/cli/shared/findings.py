"""The findings of a report page as tables, for ``demo`` and ``report``."""

from __future__ import annotations

from edgekron.report import Findings
from edgekron.report.gather import RUNTIMES


def show(findings: Findings) -> None:
    """Prints one row for each file, then the checks that did not hold, and the notes."""
    from edgekron.cli.shared.output import print_table, say
    from edgekron.report.page import milliseconds

    rows = []
    for runtime in findings.runtimes:
        for measured, ratios, speed in (
            (runtime.dense, ("", ""), None),
            (runtime.compressed, (f" ({runtime.mac_ratio:.2f}x)", f" ({runtime.file_ratio:.2f}x)"), runtime.speedup),
        ):
            rows.append(
                [
                    measured.file,
                    RUNTIMES[runtime.key][1],
                    f"{measured.macs / 1e6:.2f} M{ratios[0]}",
                    f"{measured.bytes / 1e3:,.0f} kB{ratios[1]}",
                    "" if measured.latency is None else milliseconds(measured.latency["median"]),
                    "" if speed is None else f"{speed['value']:.2f} ({speed['low']:.2f} to {speed['high']:.2f})",
                    "" if measured.top1 is None else f"{measured.top1:.2f}",
                    "" if measured.relative is None else f"{measured.relative:.1g}",
                ]
            )
    of = f"; top-1 on {findings.images:,} images of {findings.data}" if findings.data else ""
    print_table(
        f"{findings.model}, dense and compressed, {findings.threads} thread{'' if findings.threads == 1 else 's'}",
        ["<file", "<runtime", "MACs", "file size", "latency", "times as fast", "top-1 %", "error"],
        rows,
        caption="latency: median; times as fast: with its 95 % interval; error: the largest relative one against "
        f"the network the file was exported from{of}",
    )
    for what, held in findings.checks:
        if not held:
            say(f"NOT HELD: {what}")
    for note in findings.notes:
        say(f"note: {note}")
