#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""The engine is sans-I/O: its static library needs no socket, clock, thread, random, stdio or malloc.

pure_engine.py ROOT LIBRARY.  Rather than to list what is forbidden, this lists what is allowed: whatever else
its objects leave undefined, and do not define for each other, is a finding.
"""

import pathlib
import re
import subprocess
import sys

from lintlib import Findings

# Memory and text that is passed in; nothing that keeps state or asks the system.
ALLOWED = re.compile(
    r"^_*(mem(cpy|move|set|cmp|chr)|str(len|nlen|cmp|ncmp)|bcmp)(_chk)?$"
    # Invariants: assert(), the stack protector, and what position-independent code brings.
    r"|^__assert_fail$|^abort$|^__stack_chk_fail(_local)?$|^_GLOBAL_OFFSET_TABLE_$|^__(memcpy|memset|memmove)_chk$"
    # Sanitizers, coverage and the fuzzer's instrumentation.
    r"|^__(asan|ubsan|tsan|sanitizer|sancov|gcov|llvm|start___|stop___)_?\w*$"
    # Types that hardware lacks: compiler support for 128-bit division and the like.
    r"|^__u?(div|mod)ti3$|^__popcountdi2$"
)


def symbols(library):
    """Names that objects need, with the object that does, and names that some object defines."""
    out = subprocess.run(["nm", "--format=posix", library], check=True, capture_output=True, text=True).stdout
    needed, defined, member = {}, set(), ""
    for line in out.splitlines():
        words = line.split()
        if len(words) == 1 and line.endswith(":"):
            member = pathlib.PurePath(line.split("[")[-1].rstrip("]:")).name
        elif len(words) >= 2 and words[1] in "Uw":
            needed.setdefault(words[0], member)
        elif len(words) >= 2 and words[1].isupper():
            defined.add(words[0])
    return needed, defined


def main():
    root, library = (pathlib.Path(arg).resolve() for arg in sys.argv[1:3])
    findings = Findings("pure-engine", root)
    needed, defined = symbols(library)
    if not defined:
        findings.add(library, 0, "defines nothing at all")
    for name, member in sorted(needed.items()):
        if name not in defined and not ALLOWED.match(name):
            findings.add(library, 0, f"{member} needs {name}: the engine does no I/O of any kind")
    findings.finish(f"{len(defined)} symbols of {library.name}")


if __name__ == "__main__":
    main()
