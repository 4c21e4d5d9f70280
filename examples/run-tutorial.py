#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Does what docs/tutorial.md tells its reader to do, and compares what it shows.

run-tutorial.py TUTORIAL BUILD_ROOT ANTIPHON

C blocks that begin with /* NAME */ become files. In console blocks, a line that begins with "$ " is run
in one long-lived shell, and the lines up to the next one are what it must print on standard output and
standard error together; "..." stands for any text. The programs are those of the build, and pkg-config
finds its uninstalled library.
"""

import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time

TIMEOUT_S = 60
MARK = "--tutorial-command-done--"

# After a command in the background, go on when one more service is there: a reader types slower.
SETUP = """
sockets() { find "$ANTIPHON_RUNTIME_DIR" -type s 2>/dev/null | wc -l; }
wait_for_more_than() { for i in $(seq 200); do [ "$(sockets)" -gt "$1" ] && return; sleep 0.05; done
    echo "no service appeared"; }
set -m
exec 2>&1
"""


def steps(text):
    """Yields ("file", name, content) and ("run", command, expected output)."""
    for block in re.finditer(r"^```(c|console)\n(.*?)^```", text, re.M | re.S):
        if block[1] == "c":
            name = re.match(r"/\* (\S+\.c) \*/\n", block[2])
            if name:
                yield "file", name[1], block[2]
            continue
        for part in re.split(r"^\$ ", block[2], flags=re.M)[1:]:
            command, _, expected = part.partition("\n")
            yield "run", command, expected


def matches(expected, got):
    """Columns may be wider elsewhere: any run of blanks is as good as another."""
    expected, got = (re.sub(r"[ \t]+", " ", text.rstrip("\n")) for text in (expected, got))
    pattern = ".*".join(re.escape(part) for part in expected.split("..."))
    return re.fullmatch(pattern, got, re.S) is not None


def run_in(shell, command):
    serves = re.search(r"(serve .*|\./\w+) &$", command)
    lines = ["before=$(sockets)" if serves else "", command,
             "wait_for_more_than $before" if serves else "", f"echo {MARK}"]
    try:
        shell.stdin.write("\n".join(lines) + "\n")
        shell.stdin.flush()
    except BrokenPipeError:
        pass  # told by what follows
    got = ""
    for line in shell.stdout:
        if line.rstrip("\n").endswith(MARK):
            return got + line.rstrip("\n")[:-len(MARK)]
        # What a shell says about its jobs is not the command's output.
        if not re.match(r"\[\d+\]|.*: line \d+: +\d+ (Killed|Terminated)", line):
            got += line
    return got + "(the shell has ended)"


def end_session(shell):
    """Ends the shell and everything that it started: they all are in its session."""
    shell.stdin.close()
    sent = True
    while sent:
        sent = False
        for pid in filter(str.isdigit, os.listdir("/proc")):
            try:
                if os.getsid(int(pid)) == shell.pid and int(pid) != shell.pid:
                    os.kill(int(pid), signal.SIGKILL)
                    sent = True
            except (ProcessLookupError, PermissionError):
                pass
        time.sleep(0.02)
    shell.kill()
    shell.wait()


def main():
    tutorial, build, antiphon = (os.path.abspath(arg) for arg in sys.argv[1:4])
    with open(tutorial) as f:
        todo = list(steps(f.read()))
    bad = done = 0
    with tempfile.TemporaryDirectory(prefix="aph-tut.") as directory:
        os.mkdir(f"{directory}/run", 0o700)
        libraries = f"{build}/src"
        env = dict(os.environ, ANTIPHON_RUNTIME_DIR=f"{directory}/run", LC_ALL="C.UTF-8",
                   PATH=f"{os.path.dirname(antiphon)}:{os.environ['PATH']}",
                   PKG_CONFIG_PATH=f"{build}/meson-uninstalled", LD_LIBRARY_PATH=libraries)
        shell = subprocess.Popen(["bash", "--norc", "-c", SETUP + "while read -r line; do eval "
                                  '"$line"; done'], cwd=directory, env=env, text=True,
                                 stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                 start_new_session=True)
        try:
            for kind, first, second in todo:
                if kind == "file":
                    with open(f"{directory}/{first}", "w") as f:
                        f.write(second)
                    continue
                # A command that hangs ends with the shell, and shows as one that printed too little.
                watchdog = threading.Timer(TIMEOUT_S, shell.kill)
                watchdog.start()
                got = run_in(shell, first)
                watchdog.cancel()
                done += 1
                if not matches(second, got):
                    bad += 1
                    print(f"$ {first}\n--- should print:\n{second}--- but printed:\n{got}")
                if shell.poll() is not None:
                    break
        finally:
            end_session(shell)
    print(f"{done} commands run, {bad} printed something else")
    sys.exit(1 if bad or done == 0 else 0)


main()
