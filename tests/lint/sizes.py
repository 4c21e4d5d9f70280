#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""No file of the library or the programs grows past 800 lines: by then it has two reasons to change."""

import pathlib
import sys

from lintlib import Findings, sources

LINES_MAX = 800


def main():
    root = pathlib.Path(sys.argv[1]).resolve()
    findings = Findings("sizes", root)
    files = sources(root, "src", "include")
    for path in files:
        lines = path.read_bytes().count(b"\n")
        if lines > LINES_MAX:
            findings.add(path, 0, f"{lines} lines, more than {LINES_MAX}: split it by what it is about")
    findings.finish(f"{len(files)} files")


if __name__ == "__main__":
    main()
