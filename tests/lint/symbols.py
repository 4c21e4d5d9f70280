#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""A shared library exports exactly what its .sym file lists, and each symbol has a manual page.

symbols.py ROOT LIBRARY SYM-FILE.  A page is man/man3/SYMBOL.3, which may be a one-line ".so" redirect. What is
in a node whose name ends in _PRIVATE needs none: it is for our own libraries.
"""

import pathlib
import re
import subprocess
import sys

from lintlib import Findings

NAME = re.compile(r"^[A-Za-z_]\w*$")


def listed(path):
    """The names in the global: sections of a linker version script, with the line of each, and the private ones."""
    text = path.read_text(encoding="utf-8")
    blank = lambda match: re.sub(r"[^\n]", " ", match[0])
    text = re.sub(r"/\*.*?\*/", blank, text, flags=re.DOTALL)
    text = re.sub(r"#[^\n]*", blank, text)
    names = {}
    private = set()
    visible = True
    node = ""
    for number, line in enumerate(text.splitlines(), 1):
        for word in re.findall(r"\w+:|[{};]|[^\s{};]+", line):
            if is_node(text, word):
                node = word
            if word == "{":
                visible = True
            elif word in ("global:", "local:"):
                visible = word == "global:"
            elif visible and NAME.match(word) and not is_node(text, word):
                names[word] = number
                if node.endswith("_PRIVATE"):
                    private.add(word)
    return names, private


def is_node(text, word):
    """Whether a word names a version node: NODE { ... } or } NODE;"""
    word = re.escape(word)
    return bool(re.search(rf"\b{word}\s*\{{|\}}\s*{word}\s*;", text))


def exported(library):
    out = subprocess.run(
        ["nm", "--dynamic", "--defined-only", library], check=True, capture_output=True, text=True
    ).stdout
    names = set()
    for line in out.splitlines():
        kind, name = line.split()[-2:]
        # An absolute symbol is the name of a version node.
        if kind != "A":
            names.add(name.split("@")[0])
    return names


def main():
    root, library, sym = (pathlib.Path(arg).resolve() for arg in sys.argv[1:4])
    findings = Findings("symbols", root)
    wanted, private = listed(sym)
    actual = exported(library)
    if not wanted:
        findings.add(sym, 0, "lists no symbol at all")
    for name in sorted(wanted.keys() - actual):
        findings.add(sym, wanted[name], f"{name} is listed but {library.name} does not export it")
    for name in sorted(actual - wanted.keys()):
        findings.add(sym, 0, f"{name} is exported by {library.name} but not listed")
    for name in sorted(wanted.keys() - private):
        if not (root / "man" / "man3" / f"{name}.3").is_file():
            findings.add(sym, wanted[name], f"{name} has no page man/man3/{name}.3")
    findings.finish(f"{len(wanted)} symbols of {library.name}")


if __name__ == "__main__":
    main()
