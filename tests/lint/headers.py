#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Every public header compiles alone, as C11 and as C++17, with all warnings.

headers.py ROOT [BUILD] [COMPILER...]: BUILD is searched for generated headers; the compilers are gcc, g++,
clang and clang++ unless named.
"""

import pathlib
import shutil
import subprocess
import sys

from lintlib import Findings, skip

COMMON = ["-Wall", "-Wextra", "-Wpedantic", "-Wconversion", "-Wundef", "-Werror", "-fsyntax-only"]
# In C++ -Wshadow also means a function with the name of a struct, which C allows and aph_call() is.
ONLY_C = ["-std=c11", "-Wshadow", "-Wstrict-prototypes", "-Wmissing-prototypes", "-Wvla", "-Wwrite-strings"]
ONLY_CXX = ["-std=c++17"]
COMPILERS = ["gcc", "g++", "clang", "clang++"]


def public_headers(root, build):
    """Names as users include them."""
    names = {}
    for top in (root, build):
        if top is None:
            continue
        for base in (top / "include" / "compat", top / "include"):
            for path in sorted(base.rglob("*.h")):
                if base.name == "include" and "compat" in path.relative_to(base).parts:
                    continue
                names.setdefault(str(path.relative_to(base)), path)
    return names


def compile_alone(compiler, name, dirs):
    is_cxx = compiler.endswith("++")
    flags = COMMON + (ONLY_CXX if is_cxx else ONLY_C)
    command = [compiler, "-x", "c++" if is_cxx else "c", *flags, *(f"-I{d}" for d in dirs), "-"]
    # Twice, so that a missing include guard shows.
    text = f"#include <{name}>\n#include <{name}>\nint lint_headers_unused;\n"
    done = subprocess.run(command, input=text.encode(), capture_output=True, check=False)
    return None if done.returncode == 0 else done.stderr.decode(errors="replace").strip()


def main():
    root = pathlib.Path(sys.argv[1]).resolve()
    build = pathlib.Path(sys.argv[2]).resolve() if len(sys.argv) > 2 and sys.argv[2] != "-" else None
    compilers = sys.argv[3:] or [name for name in COMPILERS if shutil.which(name)]
    if not any(name.endswith("++") for name in compilers):
        skip("no C++ compiler: install g++ or clang")
    findings = Findings("headers", root)
    dirs = [root / "include", root / "include" / "compat"]
    if build:
        dirs += [build / "include"]
    headers = public_headers(root, build)
    for name, path in headers.items():
        for compiler in compilers:
            wrong = compile_alone(compiler, name, dirs)
            if wrong:
                findings.add(path, 0, f"does not compile alone with {compiler}:\n{wrong}")
    findings.finish(f"{len(headers)} headers with {', '.join(compilers)}")


if __name__ == "__main__":
    main()
