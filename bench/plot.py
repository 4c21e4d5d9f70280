# SPDX-License-Identifier: MIT
"""The plot: a panel for each case, a bar for each who, on a logarithmic scale of the ratio."""

import math
from xml.sax.saxutils import escape

from cases import CASES, FLOOR, is_ours

COLUMNS = 3
PANEL_W, LABEL_W, VALUE_W = 400, 96, 52
ROW_H, TITLE_H, GAP = 16, 40, 22
STYLE = """
text { font: 11px system-ui, sans-serif; fill: #333 }
.value { paint-order: stroke; stroke: #fff; stroke-width: 3px }
.head { font-size: 18px; font-weight: 600; fill: #111 }
.note { fill: #666 }
.title { font-size: 12px; font-weight: 600; fill: #111 }
.ours { fill: #0f766e } .peer { fill: #a3b8cc } .floor { fill: #dcdcd6 }
.bold { font-weight: 700; fill: #0f766e }
.one { stroke: #b45309; stroke-width: 1 }
.target { stroke: #0f766e; stroke-width: 1.5; stroke-dasharray: 3 2 }
"""


def panels(rows):
    """(title, note, rows) of each metric that has ratios, best first."""
    found = []
    for case in CASES:
        for metric in case.metrics:
            here = [row for row in rows if row["case"] == metric.case and
                    row["metric"] == metric.name and row["ratio"] and row["ratio"] > 0]
            if len(here) < 2:
                continue
            here.sort(key=lambda row: row["ratio"], reverse=metric.higher)
            better = "more is better" if metric.higher else "less is better"
            if metric.case == case.name:
                title, note = "%s: %s" % (case.name, metric.name), case.text
            else:
                title, note = metric.case, "processor time per call, both ends, two cores"
            found.append((title, "%s; %s" % (better, note), here))
    return found


def target_of(rows):
    """The ratio that this project wants to reach, where the target is one."""
    for row in rows:
        words = row.get("target", "").split()
        if is_ours(row["who"]) and len(words) == 3 and words[0] == "ratio":
            return float(words[2])
    return None


class Scale:
    def __init__(self, rows, x, width):
        values = [row["ratio"] for row in rows] + [1.0, target_of(rows) or 1.0]
        self.low = math.log10(min(values)) - 0.15
        self.high = math.log10(max(values)) + 0.05
        self.x, self.width = x, width

    def at(self, ratio):
        return self.x + self.width * (math.log10(ratio) - self.low) / (self.high - self.low)


def kind(who):
    return "ours" if is_ours(who) else "floor" if who.startswith("floor:") else "peer"


def shorten(text, limit=74):
    return text if len(text) <= limit else text[:limit - 1] + "\u2026"


def panel(x, y, title, note, rows):
    out = ['<g transform="translate(%g %g)">' % (x, y),
           '<text class="title" y="12">%s</text>' % escape(title),
           '<text class="note" y="27">%s</text>' % escape(shorten(note))]
    scale = Scale(rows, LABEL_W, PANEL_W - LABEL_W - VALUE_W)
    bottom = TITLE_H + ROW_H * len(rows)
    values = []
    for i, row in enumerate(rows):
        top = TITLE_H + ROW_H * i
        end = max(scale.at(row["ratio"]), LABEL_W + 1.5)
        bold = " bold" if is_ours(row["who"]) else ""
        out += ['<text x="%g" y="%g" text-anchor="end" class="%s">%s</text>' % (
                    LABEL_W - 6, top + 11, bold, escape(row["who"].removeprefix("floor:"))),
                '<rect class="%s" x="%g" y="%g" width="%.1f" height="%g" rx="2"/>' % (
                    kind(row["who"]), LABEL_W, top + 2, end - LABEL_W, ROW_H - 4)]
        values.append(
                '<text x="%.1f" y="%g" class="value%s">%.3g</text>' % (end + 4, top + 11, bold, row["ratio"]))
    out.append('<line class="one" x1="%.1f" x2="%.1f" y1="%g" y2="%g"/>' % (
        scale.at(1), scale.at(1), TITLE_H - 3, bottom + 1))
    target = target_of(rows)
    if target is not None:
        out.append('<line class="target" x1="%.1f" x2="%.1f" y1="%g" y2="%g"/>' % (
            scale.at(target), scale.at(target), TITLE_H - 3, bottom + 1))
    return out + values + ["</g>"], bottom


def write(path, rows, info, rounds):
    """Lays the panels out row by row."""
    y, tallest = 86.0, 0.0
    body = []
    for i, (title, note, here) in enumerate(panels(rows)):
        if i % COLUMNS == 0:
            y, tallest = y + tallest, 0.0
        lines, bottom = panel(24 + i % COLUMNS * (PANEL_W + GAP), y, title, note, here)
        body += lines
        tallest = max(tallest, bottom + GAP)
    width = 48 + COLUMNS * PANEL_W + (COLUMNS - 1) * GAP
    height = y + tallest + 8
    head = ['<svg xmlns="http://www.w3.org/2000/svg" width="%g" height="%g" viewBox="0 0 %g %g">'
            % (width, height, width, height),
            "<style>%s</style>" % STYLE,
            '<rect width="100%" height="100%" fill="#fff"/>',
            '<text class="head" x="24" y="34">Calls inside one host, as ratios to a'
            ' SOCK_SEQPACKET ping-pong</text>',
            '<text class="note" x="24" y="53">%s; medians of %d rounds; logarithmic</text>'
            % (escape(info), rounds),
            '<line class="one" x1="24" x2="24" y1="60" y2="72"/>'
            '<text class="note" x="30" y="70">the floor (%s)</text>' % FLOOR,
            '<line class="target" x1="200" x2="200" y1="60" y2="72"/>'
            '<text class="note" x="206" y="70">what antiphon wants to reach</text>']
    with open(path, "w", encoding="utf-8") as f:
        f.write("\n".join(head + body + ["</svg>"]) + "\n")
