#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""No tracked file names a place that exists on one machine only."""

import pathlib
import re
import sys

from lintlib import Findings, tracked_files

# Composed, so that this file does not find itself.
TOPS = ("work", "farm", "root", "tmp/team")
PLACES = re.compile(rb"(?<![\w.$})*-])/(?:" + "|".join(TOPS).encode() + rb")/|(?<![\w.])/home/[a-z][\w-]*/|\.\./shared/")


def main():
    root = pathlib.Path(sys.argv[1]).resolve()
    findings = Findings("no-machine-paths", root)
    files = tracked_files(root)
    for path in files:
        for number, line in enumerate(path.read_bytes().splitlines(), 1):
            match = PLACES.search(line)
            if match:
                text = match[0].decode(errors="replace")
                findings.add(path, number, f"'{text}' is a path of one machine")
    findings.finish(f"{len(files)} files")


if __name__ == "__main__":
    main()
