#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Completion in bash: it offers exactly the options of --help, and the names that are served."""

import os
import pathlib
import re
import shutil
import subprocess

from harness import TIMEOUT, Skip, main, test

SCRIPT = pathlib.Path(__file__).resolve().parents[3] / "packaging" / "completion" / "antiphon"
ASK = """
source "$0"
COMP_WORDS=("$@")
COMP_CWORD=$(($# - 1))
compopt() { :; }
_antiphon
printf "%s\\n" "${COMPREPLY[@]}"
"""


def complete(box, *words):
    if not shutil.which("bash"):
        raise Skip("bash is not installed")
    env = dict(box.env, PATH=f"{os.path.dirname(box.program)}:{box.env['PATH']}")
    command = ["bash", "-c", ASK, SCRIPT, *words]
    done = subprocess.run(command, env=env, cwd=box.path, capture_output=True, text=True, timeout=TIMEOUT, check=False)
    assert done.returncode == 0 and done.stderr == "", done
    return set(done.stdout.split())


def options_of(box, *command):
    text = box.run(*command, "--help").stdout.decode()
    return {o for line in text.splitlines() for o in re.findall(r"^  (-[\w-]+)(?:, (--[\w-]+))?", line) for o in o if o}


@test
def commands_and_options(box):
    assert complete(box, "antiphon", "") == {"serve", "call", "ls", "top", "hold", "rx", "bench", "--help", "--version"}
    assert complete(box, "antiphon", "s") == {"serve"}
    for command in ("serve", "call", "ls", "top", "hold", "bench"):
        assert complete(box, "antiphon", command, "-") - {"--"} == options_of(box, command), command
    assert complete(box, "antiphon", "rx", "") == {"version", "debug", "ping", "perf", "run", "--help"}
    for command in ("version", "debug", "ping", "perf", "run"):
        assert complete(box, "antiphon", "rx", command, "-") == options_of(box, "rx", command), command


@test
def names_that_are_served(box):
    box.serve("echo", "--", "cat")
    box.serve("other", "--", "cat")
    assert complete(box, "antiphon", "call", "") == {"echo", "other"}
    assert complete(box, "antiphon", "ls", "ec") == {"echo"}
    assert complete(box, "antiphon", "top", "") == set()


@test
def addresses_with_colons(box):
    """For bash a colon is a word by itself; what is offered takes the place of what stands behind the last one."""
    addresses = [box.serve("rx:127.0.0.1:0/147", "--", "cat").announced["address"] for _ in range(2)]
    box.serve("echo", "--", "cat")
    assert complete(box, "antiphon", "call", "rx") == set(addresses)
    for command in (["antiphon", "call"], ["antiphon", "ls", "--json"]):
        line = " ".join([*command, "rx:127.0.0.1:"])
        box.env.update(COMP_LINE=line, COMP_POINT=str(len(line)))
        ends = {address.rsplit(":", 1)[1] for address in addresses}
        assert complete(box, *command, "rx", ":", "127.0.0.1", ":") == ends
        line += min(ends)[:-1]
        box.env.update(COMP_LINE=line, COMP_POINT=str(len(line)))
        assert min(ends) in complete(box, *command, "rx", ":", "127.0.0.1", ":", min(ends)[:-1]) <= ends


@test
def names_that_are_held(box):
    assert "store" in complete(box, "antiphon", "hold", "")
    keeper = box.start("hold")
    assert box.run("hold", "store", "web.socket", "0").returncode == 0
    assert complete(box, "antiphon", "hold", "exec", "") == {"web.socket"}
    assert complete(box, "antiphon", "hold", "delete", "we") == {"web.socket"}
    assert "cat" in complete(box, "antiphon", "hold", "exec", "web.socket", "--", "ca")
    assert complete(box, "antiphon", "hold", "--survive", "t") == {"twin"}
    assert box.run("hold", "stop").returncode == 0
    keeper.communicate(timeout=TIMEOUT)


@test
def values_of_options(box):
    box.write("somefile", b"")
    assert complete(box, "antiphon", "call", "--in", "some") == {"somefile"}
    assert complete(box, "antiphon", "call", "--timeout", "") == {"forever"}
    assert complete(box, "antiphon", "serve", "--allow", "w") == {"world"}
    assert complete(box, "antiphon", "rx", "perf", "127.0.0.1", "") == {"rpc", "send", "recv", "file"}
    assert "somefile" in complete(box, "antiphon", "serve", "x", "--", "cat", "some")
    assert "cat" in complete(box, "antiphon", "serve", "x", "--", "ca")
    assert "cat" in complete(box, "antiphon", "rx", "run", "ca")
    assert "cat" in complete(box, "antiphon", "rx", "run", "--", "ca")
    assert complete(box, "antiphon", "rx", "run", "cat", "-") == set()
    assert "somefile" in complete(box, "antiphon", "rx", "run", "cat", "some")


main()
