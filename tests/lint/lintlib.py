# SPDX-License-Identifier: MIT
"""What the lint tests share: the list of files they look at, and how they complain.

Each lint is a program: `LINT.py ROOT [more]`.  It prints one line a finding, "path:line: what is wrong",
and its exit status is 0 (nothing found), 1 (something found) or 77 (it could not look, and says why).
"""

import os
import pathlib
import subprocess
import sys

SKIP = 77
NOT_OURS = {".git", "__pycache__", ".cache"}


def tracked_files(root):
    """Every file that git tracks under root; every file at all if this is not a git checkout."""
    root = pathlib.Path(root)
    if (root / ".git").exists():
        # The checkout may belong to another user than the one who runs the tests.
        git = ["git", "-c", f"safe.directory={root.resolve()}", "-C", str(root), "ls-files", "-z"]
        try:
            out = subprocess.run(git, check=True, capture_output=True).stdout
            names = [os.fsdecode(name) for name in out.split(b"\0") if name]
            return [root / name for name in names if (root / name).is_file()]
        except (OSError, subprocess.CalledProcessError):
            pass
    return walk(root)


def walk(root):
    found = []
    for folder, folders, files in os.walk(root):
        folders[:] = sorted(
            name
            for name in folders
            if name not in NOT_OURS
            and not (pathlib.Path(folder) == root and name.startswith("build"))
        )
        found += [pathlib.Path(folder) / name for name in sorted(files)]
    return found


def sources(root, *tops, suffixes=(".c", ".h")):
    """Tracked C files under the given top directories."""
    root = pathlib.Path(root)
    return [
        path
        for path in tracked_files(root)
        if path.suffix in suffixes and path.relative_to(root).parts[0] in tops
    ]


class Findings:
    """Collects complaints; finish() prints them and ends the program."""

    def __init__(self, name, root):
        self.name = name
        self.root = pathlib.Path(root)
        self.lines = []

    def add(self, path, line, text):
        path = pathlib.Path(path)
        if path.is_relative_to(self.root):
            path = path.relative_to(self.root)
        self.lines.append(f"{path}:{line}: {text}" if line else f"{path}: {text}")

    def finish(self, looked_at):
        for line in self.lines:
            print(line)
        print(f"{self.name}: {looked_at}, {len(self.lines)} found")
        sys.exit(1 if self.lines else 0)


def skip(reason):
    print(reason)
    sys.exit(SKIP)
