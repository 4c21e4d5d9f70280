#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Every tracked text file begins with its licence, but for those that have no place for a comment."""

import pathlib
import sys

from lintlib import Findings, tracked_files

WANTED = "SPDX-License-Identifier: MIT"
EXEMPT_NAMES = {"LICENSE"}
EXEMPT_SUFFIXES = {".json", ".csv", ".bin", ".hex", ".png"}
EXEMPT_FOLDERS = ("tests/fuzz/corpus", "tests/vectors")


def exempt(relative, data):
    return (
        relative.name in EXEMPT_NAMES
        or relative.suffix in EXEMPT_SUFFIXES
        or any(relative.is_relative_to(folder) for folder in EXEMPT_FOLDERS)
        or not data
        or b"\0" in data[:8192]
        # A manual page that only redirects must begin with the request.
        or (data.startswith(b".so ") and data.count(b"\n") <= 1)
    )


def main():
    root = pathlib.Path(sys.argv[1]).resolve()
    findings = Findings("spdx", root)
    files = tracked_files(root)
    for path in files:
        data = path.read_bytes()
        if exempt(path.relative_to(root), data):
            continue
        lines = data.decode("utf-8", errors="replace").splitlines()
        # A line that the file's format wants first may stand before it.
        first = 1 if lines[0].startswith(("#!", "<?xml", "---")) else 0
        if len(lines) <= first or WANTED not in lines[first]:
            findings.add(path, first + 1, f"this line should hold '{WANTED}'")
    findings.finish(f"{len(files)} files")


if __name__ == "__main__":
    main()
