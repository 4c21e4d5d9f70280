#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""The examples of the manual pages are run: what follows a line that begins with $ is what it must print.

A block that shows a file with cat makes that file first. Lines without an expected output need only succeed.
"""

import contextlib
import os
import pathlib
import re
import subprocess

from harness import TIMEOUT, main, test

MAN = pathlib.Path(__file__).resolve().parents[3] / "man" / "man1"


def examples(page):
    """The literal blocks of the EXAMPLES section that are sessions: lists of (command, expected lines)."""
    text = (MAN / page).read_text(encoding="utf-8").split(".Sh EXAMPLES\n")[1]
    for block in re.findall(r"^\.Bd [^\n]*\n(.*?)^\.Ed", text, re.MULTILINE | re.DOTALL):
        block = block.replace("\\e\n    ", "").replace("\\e", "\\")
        if not block.startswith("$ "):
            continue
        session = []
        for line in block.splitlines():
            if line.startswith("$ "):
                session.append((line[2:], []))
            else:
                session[-1][1].append(line)
        yield session


def run(box, page, changes=()):
    bin_path = box.path / "bin"
    bin_path.mkdir()
    (bin_path / "antiphon").symlink_to(box.program)
    # A pager waits for a reader; here it is enough that it gets its input.
    box.write("bin/less", "#!/bin/sh\nexec cat >/dev/null\n", 0o755)
    env = dict(box.env, PATH=f"{bin_path}:{box.env['PATH']}")
    n_commands = 0
    for session in examples(page):
        script, expected = [], []
        for command, output in session:
            if command.startswith("cat "):
                box.write(command.split()[1], "\n".join(output) + "\n")
                continue
            n_commands += 1
            for shown, here in changes:
                command = command.replace(shown, here)
            script.append(command if command.endswith("&") else f"{command} || exit 1; echo")
            expected += output
        # The services of one session stay for the next, as they would for a reader; so do their names.
        # A file and not a pipe: services that were started inherit it and would keep a pipe open.
        with open(box.path / "out", "wb") as out:
            done = subprocess.run(
                ["bash", "-c", "\n".join(script)],
                env=env,
                cwd=box.path,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                timeout=2 * TIMEOUT,
                check=False,
            )
        lines = [line for line in (box.path / "out").read_text().splitlines() if line]
        assert done.returncode == 0, (script, lines)
        assert not expected or lines[: len(expected)] == expected, (script, expected, lines)
    assert n_commands > 0, page
    for pid in box.processes():
        # One that gave its name to the next may end by itself.
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, 15)


@test
def antiphon(box):
    run(box, "antiphon.1")


@test
def serve(box):
    run(box, "antiphon-serve.1")


@test
def call(box):
    run(box, "antiphon-call.1")


@test
def rx(box):
    """The port of the page may be somebody's: here the server takes one that is free, and writes which."""
    port = "$(sed -n 's/.*:\\([0-9]*\\)$/\\1/p' server.log)"
    changes = (("rx perf --serve ", "rx perf --serve 127.0.0.1:0 "), (" 127.0.0.1 recv ", f" 127.0.0.1:{port} recv "))
    text = (MAN / "antiphon-rx.1").read_text(encoding="utf-8")
    assert all(shown in text for shown, _ in changes)
    run(box, "antiphon-rx.1", changes)


@test
def hold(box):
    run(box, "antiphon-hold.1")


main()
