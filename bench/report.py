# SPDX-License-Identifier: MIT
"""The tables for people."""

import textwrap

from cases import CASES, FLOOR, is_ours


def number(value):
    if value is None:
        return "-"
    if abs(value) >= 1e6:
        return "%.3gM" % (value / 1e6)
    if abs(value) >= 1e4:
        return "%.3gk" % (value / 1e3)
    return "%.3g" % value


def table(head, lines):
    """Prints columns, the first two to the left and the others to the right."""
    widths = [max(len(row[i]) for row in [head] + lines) for i in range(len(head))]
    for row in [head, ["-" * w for w in widths]] + lines:
        cells = [row[i].ljust(widths[i]) if i < 2 else row[i].rjust(widths[i])
                 for i in range(len(row))]
        print("  ".join(cells).rstrip())


def metric_keys():
    return [(m.case, m.name, m.unit) for case in CASES for m in case.metrics]


def floor_of(name):
    return next(c.floor for c in CASES for m in c.metrics if m.case == name)


def print_ours(found):
    lines = []
    for case, metric, unit in metric_keys():
        row = next((r for k, r in found.items() if k[:2] == (case, metric) and is_ours(k[2])), None)
        if row is None:
            continue
        floor = found.get((case, metric, floor_of(case)), {})
        best = "-"
        if "best_peer" in row:
            best = "%s %s" % (row["best_peer"], number(row["best_peer_ratio"]))
        met = {True: "yes", False: "NO", None: "-"}[row.get("met")]
        leads = {True: "yes", False: "NO", None: "-"}[row.get("leads")]
        lines.append([case, metric, number(floor.get("value")), number(row["value"]), unit,
                      number(row["ratio"]), row.get("target", "-"), met, best, leads])
    if not lines:
        return
    print("antiphon beside the floor (medians; ratio: antiphon to floor, round by round)\n")
    table(["case", "metric", "floor", "antiphon", "unit", "ratio", "target", "met",
           "best peer, ratio", "leads"], lines)
    print()


def print_ratios(found, names, programs):
    """One column for each who: its ratio to the floor."""
    missing = {name for name, _ in programs.missing}
    shown = [n for n in names if n != FLOOR and (n in missing or any(k[2] == n for k in found))]
    lines = []
    for case, metric, _ in metric_keys():
        cells = []
        for name in shown:
            row = found.get((case, metric, name))
            if row is not None:
                cells.append(number(row["ratio"] if row["ratio"] is not None else row["value"]))
            elif name in missing:
                cells.append("missing")
            else:
                failed = (name, case) in programs.failures
                cells.append("failed" if failed else "n/a")
        if any(cell not in ("n/a", "missing") for cell in cells):
            lines.append([case, metric] + cells)
    print("everybody: ratio to the floor (n/a: not natural or not offered)\n")
    table(["case", "metric"] + [n.removeprefix("floor:") for n in shown], lines)
    print()


def print_tables(rows, programs, info, rounds, names):
    found = {(row["case"], row["metric"], row["who"]): row for row in rows}
    print("%s\n%d rounds, medians\n" % (info, rounds))
    print_ours(found)
    print_ratios(found, names, programs)
    floors = ["%s %s %s %s" % (row["case"], row["metric"], number(row["value"]), row["unit"])
              for row in rows if row["who"] == FLOOR]
    print(textwrap.fill("the floor itself: " + "; ".join(floors), 100))
    for name, package in programs.missing:
        print("not installed: %s (%s)" % (name, package))
