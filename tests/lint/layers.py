#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Includes point downwards only.

The order is base, rx, then udp, the transports local and remote, core, facade, programs.  The one exception is core/transport.h, which a transport
fills in.  Core does not name its transports, so that another one can be added beside them.  Facades and
programs see the library as any user does: public headers, their own historical header, their own folder, and at some
facades a helper of base that is compiled into them.
"""

import pathlib
import re
import sys

from lintlib import Findings, sources

INCLUDE = re.compile(r'^\s*#\s*include\s*([<"])([^">]+)[">]')

# For each layer, the private folders it may include from, and single headers beside them.
MAY_USE = {
    "base": ({"base"}, set()),
    "rx": ({"rx", "base"}, set()),
    "udp": ({"udp", "rx", "base"}, set()),
    "remote": ({"remote", "udp", "rx", "base"}, {"core/transport.h"}),
    "local": ({"local", "base"}, {"core/transport.h"}),
    "core": ({"core", "base"}, set()),
}

# Helpers that need the C library alone and are compiled into the facades that use them.
COMPILED_IN = {
    "af_rxrpc": ("base/futex.h",),
    "afdt": ("base/close.h",),
    "caps": ("base/futex.h",),
    "hold": ("base/close.h", "base/quick.h"),
}

# The headers with historical names that belong to a facade.
OWN_COMPAT = {
    "af_rxrpc": ("linux/rxrpc.h",),
    "caps": ("sys/caps.h",),
    "afdt": ("afdt.h",),
}


def includes(path):
    text = path.read_text(encoding="utf-8", errors="replace")
    for number, line in enumerate(text.splitlines(), 1):
        match = INCLUDE.match(line)
        if match:
            yield number, match[1] == '"', match[2]


def resolve(root, path, name, quoted):
    """The file of ours that an include names, relative to root, or None for a system header."""
    places = [path.parent] if quoted else []
    places += [root / "src", root / "include", root / "include" / "compat"]
    for place in places:
        candidate = (place / name).resolve()
        if candidate.is_relative_to(root):
            for real in (candidate, candidate.with_name(candidate.name + ".in")):
                if real.is_file():
                    return candidate.relative_to(root)
    return None


def check_private(layer, target):
    """For the layers of MAY_USE: None if the include is allowed, else what is wrong with it."""
    folders, single = MAY_USE[layer]
    if target.parts[:2] == ("include", "antiphon"):
        return None
    if target.parts[:2] == ("include", "compat"):
        return f"{layer} includes the historical header {target}; those belong to facades"
    inside = target.relative_to("src") if target.parts[0] == "src" else target
    if inside.parts[0] in folders or str(inside) in single:
        return None
    return f"{layer} includes {inside}, which is not below it (allowed: {', '.join(sorted(folders | single))})"


def check_outer(path, target):
    """For facades and programs: None if the include is allowed, else what is wrong with it."""
    kind, name = path.parts[1], path.parts[2]
    if target.parts[:2] == ("include", "antiphon"):
        return None
    if target.parts[:3] == ("src", kind, name):
        return None
    if kind == "facade" and str(target) in ["src/" + header for header in COMPILED_IN.get(name, ())]:
        return None
    if target.parts[:2] == ("include", "compat"):
        header = str(target.relative_to("include/compat"))
        if kind == "facade" and header in OWN_COMPAT.get(name, ()):
            return None
        return f"{kind} {name} includes {header}, the historical header of another facade"
    return f"{kind} {name} includes the private {target}; whatever it needs must be public"


def check(root, path, findings):
    relative = path.relative_to(root)
    for number, quoted, name in includes(path):
        target = resolve(root, path, name, quoted)
        if target is None:
            if quoted:
                findings.add(path, number, f'"{name}" is not a file of this tree; use <> for system headers')
            continue
        if relative.parts[0] == "include":
            wrong = None
            if target.parts[0] != "include" or quoted:
                wrong = f"a public header includes {name} in a way that an installed one could not"
        elif relative.parts[0] == "examples":
            wrong = None if target.parts[0] in ("include", "examples") else f"an example includes the private {target}"
        elif len(relative.parts) < 3:
            wrong = "a file directly in src/ belongs to no layer"
        elif relative.parts[1] in ("facade", "programs"):
            wrong = check_outer(relative, target)
        elif relative.parts[1] in MAY_USE:
            wrong = check_private(relative.parts[1], target)
        else:
            wrong = f"src/{relative.parts[1]} is a layer that tests/lint/layers.py does not know"
        if wrong:
            findings.add(path, number, wrong)


def main():
    root = pathlib.Path(sys.argv[1]).resolve()
    findings = Findings("layers", root)
    files = sources(root, "src", "include", "examples")
    for path in files:
        check(root, path, findings)
    findings.finish(f"{len(files)} files")


if __name__ == "__main__":
    main()
