#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Help, versions, wrong usage: exit statuses and where the words go."""

import os
import subprocess

from harness import ANSWERED, FAILED, MISUSED, TIMEOUT, main, test

COMMANDS = ("serve", "call", "ls", "top", "bench")


def misused(box, *arguments):
    done = box.run(*arguments)
    assert done.returncode == MISUSED, (arguments, done)
    assert done.stdout == b"", (arguments, done)
    assert done.stderr.startswith(b"antiphon"), (arguments, done)
    assert done.stderr.endswith(b"\n"), (arguments, done)
    return done.stderr.decode()


@test
def help_goes_to_standard_output(box):
    for arguments in ([], *([c] for c in COMMANDS)):
        done = box.run(*arguments, "--help")
        assert done.returncode == ANSWERED and done.stderr == b"", done
        assert done.stdout.startswith(b"usage: antiphon"), done
        assert all(len(line) <= 100 for line in done.stdout.decode().splitlines()), done


@test
def the_version_has_three_numbers(box):
    done = box.run("--version")
    assert done.returncode == ANSWERED, done
    name, version = done.stdout.decode().split()
    assert name == "antiphon" and len([int(n) for n in version.split(".")]) == 3, done


@test
def no_command_and_a_wrong_one_are_misuse(box):
    assert "--help" in misused(box)
    assert "frobnicate" in misused(box, "frobnicate")


@test
def every_command_refuses_an_unknown_option(box):
    for command in COMMANDS:
        message = misused(box, command, "--frobnicate")
        assert f"antiphon {command}" in message and "frobnicate" in message, message


@test
def numbers_out_of_range_are_misuse(box):
    for arguments in (
        ("call", "--timeout", "0", "x"),
        ("call", "--timeout", "-1", "x"),
        ("call", "--timeout", "nan", "x"),
        ("call", "--timeout", "1x", "x"),
        ("call", "--timeout", "", "x"),
        ("call", "--repeat", "0", "x"),
        ("call", "--repeat", "99999999999999999999999", "x"),
        ("call", "--repeat", "10", "--parallel", "0", "x"),
        ("call", "--repeat", "10", "--parallel", "4097", "x"),
        ("call", "--parallel", "2", "x"),
        ("serve", "--max", "0", "x", "--", "cat"),
        ("serve", "--max", "-3", "x", "--", "cat"),
        ("serve", "--kill-after", "forever", "x", "--", "cat"),
        ("serve", "--request-max", "1T", "x", "--", "cat"),
        ("serve", "--allow", "nobody", "x", "--", "cat"),
        ("serve", "--allow", "user,", "x", "--", "cat"),
        ("ls", "--timeout", "forever"),
        ("top", "--interval", "0"),
        ("top", "-n", "0"),
        ("bench", "--rounds", "0"),
        ("bench", "--rounds", "100"),
        ("bench", "--seconds", "x"),
    ):
        misused(box, *arguments)


@test
def missing_and_superfluous_operands_are_misuse(box):
    misused(box, "call")
    misused(box, "call", "x", "two", "words")
    misused(box, "call", "--in", "/dev/null", "x", "text")
    misused(box, "serve")
    misused(box, "serve", "x")
    misused(box, "serve", "x", "--")
    misused(box, "top", "x")
    misused(box, "bench", "x")


@test
def addresses_that_are_not_well_formed_are_misuse(box):
    for address in ("a/b", "", "x" * 64, "caps:", "caps:x,uid=", "caps:x,frob=1", "x y", "nosuchscheme:x"):
        misused(box, "call", address, "hello")
        misused(box, "serve", address, "--", "cat")
    for address in ("rx:", "rx:127.0.0.1:7000", "rx:127.0.0.1:70000/1", "rx:127.0.0.1:7000/x"):
        misused(box, "call", address, "hello")
        misused(box, "serve", address, "--", "cat")


@test
def a_port_that_has_no_such_name_is_said(box):
    keeper = box.start("hold")
    for arguments in (("rx", "version", "127.0.0.1:nowhere"), ("hold", "store", "--listen", "nowhere", "x")):
        done = box.run(*arguments)
        assert done.returncode == FAILED and b"nowhere" in done.stderr, done
        assert b"no service of that name" in done.stderr, done
    assert box.run("hold", "stop").returncode == ANSWERED
    keeper.communicate(timeout=TIMEOUT)


@test
def a_group_that_nobody_is_in_is_misuse(box):
    for allow in ("group", "user,group"):
        for address in ("x", "caps:x", "x,gid=any"):
            message = misused(box, "serve", "--allow", allow, address, "--", "cat")
            assert "gid=" in message, message
    box.serve("--allow", "group", f"x,gid={os.getgid()}", "--", "cat")
    box.serve("--allow", "group,world", "y", "--", "cat")


@test
def options_may_have_to_come_first(box):
    box.env["POSIXLY_CORRECT"] = "1"
    box.serve("upper", "--", "tr", "a-z", "A-Z")
    assert box.call("upper", "hello").stdout == b"HELLO"
    misused(box, "serve", "x", "--")


@test
def a_command_that_is_not_there_is_said_at_once(box):
    done = box.run("serve", "x", "--", "no-such-command-here")
    assert done.returncode == FAILED and b"no-such-command-here" in done.stderr, done
    done = box.run("serve", "x", "--", "/")
    assert done.returncode == FAILED, done
    assert box.sockets() == []


@test
def output_that_cannot_be_written_is_failure(box):
    with open("/dev/full", "wb") as full:
        for arguments in (
            ("--help",),
            ("ls", "--json"),
            ("top", "--once", "--interval", "0.01", "--json"),
            # It would serve where nobody knows.
            ("rx", "perf", "--serve", "127.0.0.1:0"),
        ):
            done = box.run(*arguments, stdout=full)
            assert done.returncode == FAILED and b"standard output: No space" in done.stderr, (arguments, done)


@test
def output_that_is_closed_is_failure(box):
    box.serve("echo", "--", "cat")
    for command in ("--version", "call echo hello", "ls --json", "call echo hello 1</dev/null"):
        done = subprocess.run(
            ["sh", "-c", f'exec "$0" {command} {"" if "1<" in command else ">&-"}', box.program],
            env=box.env,
            stderr=subprocess.PIPE,
            check=False,
            timeout=TIMEOUT,
        )
        assert done.returncode == FAILED and b"Bad file descriptor" in done.stderr, (command, done)


@test
def input_that_is_closed_is_failure(box):
    box.serve("echo", "--", "cat")
    for command in ("call echo -", "call --in - echo", "call --repeat 2 echo -"):
        done = subprocess.run(
            ["sh", "-c", f'exec "$0" {command} <&-', box.program],
            env=box.env,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            check=False,
            timeout=TIMEOUT,
        )
        assert done.returncode == FAILED and b"Bad file descriptor" in done.stderr, (command, done)


@test
def standard_descriptors_may_be_closed(box):
    done = subprocess.run(
        ["sh", "-c", 'exec "$0" call nobody hello <&- >&-', box.program],
        env=box.env,
        stderr=subprocess.PIPE,
        check=False,
        timeout=20,
    )
    assert done.returncode == 3, done


main()
