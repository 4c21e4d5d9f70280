#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Proves that each lint passes a clean tree and fails on each kind of violation it is there to find."""

import pathlib
import shutil
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
C = "/* SPDX-License-Identifier: MIT */\n"
HASH = "# SPDX-License-Identifier: MIT\n"
ROFF = '.\\" SPDX-License-Identifier: MIT\n'

PAGE = (
    ROFF
    + """.Dd January 1, 2024
.Dt PROG 1
.Os
.Sh NAME
.Nm prog
.Nd does a thing
.Sh SYNOPSIS
.Nm
.Op Fl -json
.Sh DESCRIPTION
The options are:
.Bl -tag -width Ds
.It Fl j , Fl -json
Print JSON.
.El
.Sh EXAMPLES
prog
"""
)
HELP = "#!/bin/sh\n" + HASH + "cat <<'X'\nUsage: prog [--json]\n\nOptions:\n%s\nX\n"
GOOD_HELP = HELP % "  -j, --json   print JSON, unlike --xml"

CLEAN = {
    "include/antiphon/a.h": C + "#ifndef A_H\n#define A_H\n#include <stddef.h>\nint aph_a(size_t n);\n#endif\n",
    "include/compat/sys/caps.h": C + "#ifndef CAPS_H\n#define CAPS_H\n#include <antiphon/a.h>\n#endif\n",
    "src/base/b.h": C + "#include <antiphon/a.h>\n",
    "src/core/transport.h": C + '#include "base/b.h"\n',
    "src/core/call.c": C + '#include "transport.h"\n#include <stdio.h>\n',
    "src/local/ring.c": C + '#include "core/transport.h"\n#include "base/b.h"\n',
    "src/facade/caps/own.h": C,
    "src/facade/caps/caps.c": C + '#include "own.h"\n#include <sys/caps.h>\n#include <antiphon/a.h>\n',
    "src/programs/prog/main.c": C + "#include <antiphon/a.h>\n",
    "man/man1/prog.1": PAGE,
    "man/man3/aph_a.3": PAGE.replace("PROG 1", "APH_A 3"),
    "man/man3/aph_b.3": ".so man3/aph_a.3\n",
    "prog": GOOD_HELP,
    "lib.sym": C + "LIB_0 {\n\tglobal:\n\t\taph_a; /* aph_c; */\n\t\taph_b;\n\tlocal: *;\n};\n",
    "lib.c": C + "int aph_a(void);\nint aph_a(void) { return 0; }\nint aph_b(void);\nint aph_b(void) { return 0; }\n",
    "engine.c": C + "#include <string.h>\nvoid z(void *p, size_t n) { memset(p, 0, n); }\n",
}

# Lint, arguments after ROOT, file to replace, new text, what the complaint must mention.
VIOLATIONS = [
    ("layers", [], "src/base/b.h", C + '#include "core/transport.h"\n', "base includes core/transport.h"),
    ("layers", [], "src/local/ring.c", C + '#include "core/call.c"\n', "local includes core/call.c"),
    ("layers", [], "src/rx/wire.c", C + '#include "core/transport.h"\n', "rx includes core/transport.h"),
    ("layers", [], "src/core/call.c", C + '#include "local/ring.c"\n', "core includes local/ring.c"),
    ("layers", [], "src/core/call.c", C + "#include <sys/caps.h>\n", "historical header"),
    ("layers", [], "src/core/call.c", C + '#include "nowhere.h"\n', "not a file of this tree"),
    ("layers", [], "src/facade/caps/caps.c", C + '#include "core/transport.h"\n', "must be public"),
    ("layers", [], "src/facade/caps/caps.c", C + '#include "../../base/b.h"\n', "must be public"),
    ("layers", [], "src/facade/other/o.c", C + "#include <sys/caps.h>\n", "another facade"),
    ("layers", [], "src/programs/prog/main.c", C + '#include "base/b.h"\n', "must be public"),
    ("layers", [], "src/programs/prog/main.c", C + '#include "src/facade/caps/own.h"\n', "not a file"),
    ("layers", [], "src/novel/x.c", C + "#include <antiphon/a.h>\n", "does not know"),
    ("layers", [], "include/antiphon/a.h", C + '#include "../../src/base/b.h"\n', "installed one could not"),
    ("sizes", [], "src/base/b.h", C + "\n" * 800, "801 lines"),
    ("spdx", [], "src/base/b.h", "int x;\n", "should hold"),
    ("spdx", [], "prog", "#!/bin/sh\necho\n", "should hold"),
    ("no_machine_paths", [], "src/base/b.h", C + "/* see /" + "work/x */\n", "path of one machine"),
    ("no_machine_paths", [], "lib.sym", HASH + "/ro" + "ot/x\n", "path of one machine"),
    ("headers", [], "include/antiphon/a.h", C + "int aph_a(size_t n);\n", "does not compile alone"),
    ("headers", [], "include/antiphon/a.h", C + "static inline int x(void) { return 1; }\n", "does not compile alone"),
    ("headers", [], "include/antiphon/a.h", C + "#ifndef A\n#define A\nint aph_a(int class);\n#endif\n", "++"),
    ("symbols", ["LIB", "SYM"], "lib.sym", C + "LIB_0 { global: aph_a; aph_b; aph_c; local: *; };\n", "does not export"),
    ("symbols", ["LIB", "SYM"], "lib.sym", C + "LIB_0 { global: aph_a; local: *; };\n", "but not listed"),
    ("pure_engine", ["ENGINE"], "engine.c", C + "#include <time.h>\nlong now(void) { return time(0); }\n", "time"),
    ("pure_engine", ["ENGINE"], "engine.c", C + "#include <stdlib.h>\nvoid *m(void) { return malloc(9); }\n", "malloc"),
    ("symbols", ["LIB", "SYM"], "man/man3/aph_b.3", None, "no page"),
    ("manuals", ["pages"], "man/man1/prog.1", PAGE.replace(".El\n", ""), "prog.1:"),
    ("manuals", ["pages"], "man/man1/prog.1", PAGE.replace(".Sh EXAMPLES\n", ".Pp\n"), "EXAMPLES"),
    ("manuals", ["pages"], "man/man3/aph_b.3", ".so man3/gone.3\n", "does not exist"),
    ("manuals", ["options", "prog", "PROG"], "prog", HELP % "  --json\n  --new  more", "--new is in --help"),
    ("manuals", ["options", "prog", "PROG"], "prog", HELP % "  --json  only", "-j is in the page"),
    ("manuals", ["options", "prog", "PROG"], "prog", GOOD_HELP + "exit 3\n", "status 3"),
    ("manuals", ["options", "prog", "PROG"], "man/man1/prog.1", None, "no manual page"),
    (
        "manuals",
        ["options", "prog", "PROG"],
        "prog",
        HELP % "  -j, --json\n\nCommands:\n  sing   make noise\n",
        "command sing is not described",
    ),
]


def write(root, name, text):
    path = root / name
    if text is None:
        path.unlink()
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    path.chmod(0o755)


def make_tree(root):
    for name, text in CLEAN.items():
        write(root, name, text)
    subprocess.run(["cc", "-shared", "-fPIC", "-o", root / "lib.so", root / "lib.c"], check=True)


def lint(root, name, args):
    subprocess.run(["cc", "-c", "-fPIC", "-o", root / "engine.o", root / "engine.c"], check=True)
    subprocess.run(["ar", "rcs", root / "libengine.a", root / "engine.o"], check=True)
    places = {"ENGINE": root / "libengine.a", "LIB": root / "lib.so", "SYM": root / "lib.sym", "PROG": root / "prog"}
    command = [sys.executable, HERE / f"{name}.py", root, *(places.get(arg, arg) for arg in args)]
    if name == "headers":
        command += ["-", "gcc", "g++"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


def main():
    if not shutil.which("g++") or not shutil.which("mandoc"):
        print("g++ or mandoc is not installed; see tools/install-deps")
        return 77
    wrong = 0
    clean_seen = set()
    for name, args, path, text, wanted in VIOLATIONS:
        with tempfile.TemporaryDirectory(prefix="aph-lint-") as folder:
            root = pathlib.Path(folder).resolve()
            make_tree(root)
            if (name, *args) not in clean_seen:
                clean_seen.add((name, *args))
                status, output = lint(root, name, args)
                if status != 0:
                    wrong += 1
                    print(f"{name} {args} complains about a clean tree:\n{output}")
            write(root, path, text)
            status, output = lint(root, name, args)
            if status != 1 or wanted not in output:
                wrong += 1
                print(f"{name} {args} with a bad {path}: status {status}, '{wanted}' expected in:\n{output}")
    print(f"{len(VIOLATIONS)} violations tried, {wrong} not reported as they should be")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
