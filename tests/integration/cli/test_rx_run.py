#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""antiphon rx run: the command's environment and end, and programs that know nothing of this project, in all the ways
in which servers use processes."""

import contextlib
import os
import pathlib
import random
import signal
import socket
import subprocess
import sys
import time

from harness import ANSWERED, FAILED, MISUSED, TIMEOUT, Skip, main, test, wait_until

PLAIN = sys.argv.pop(2)
PRELOAD = sys.argv.pop(2)


def run(box, *arguments, **options):
    return box.run("rx", "run", *arguments, env={**box.env, "AFRXRPC_PRELOAD": PRELOAD}, **options)


def start(box, *arguments, env=(), **options):
    return box.start("rx", "run", "--", *arguments, env={**box.env, "AFRXRPC_PRELOAD": PRELOAD, **dict(env)}, **options)


def free_port():
    """None of those that the kernel gives to sockets which want any: nobody gets it before it is bound."""
    while True:
        port = random.randrange(16384, 32768)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock, contextlib.suppress(OSError):
            sock.bind(("127.0.0.1", port))
            return str(port)


def await_free(port):
    """Until nobody is at the port any more: a daemon that was told to end is nobody's child."""
    deadline = time.monotonic() + 5
    while True:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            try:
                return sock.bind(("127.0.0.1", int(port)))
            except OSError:
                assert time.monotonic() < deadline, "the port is still taken"
        time.sleep(0.01)


def call(box, port, *texts):
    result = run(box, "--", PLAIN, "call", port, *texts)
    assert result.returncode == 0, result
    return result.stdout.decode().split("\n")[:-1]


def server(box, mode, port, **options):
    """A server that has said that it listens. It ends when it is told to by a call."""
    process = start(box, PLAIN, mode, port, **options)
    line = process.stdout.readline()
    assert line == b"listening\n", (line, process.stderr.read())
    return process


def end(box, process, port, n=1):
    for _ in range(n):
        assert call(box, port, "end") == ["END"]
    assert process.wait(TIMEOUT) == 0, process.stderr.read()
    assert process.stdout.read() == b""
    assert process.stderr.read() == b""
    process.stdout.close()
    process.stderr.close()


@test
def help_and_misuse(box):
    result = box.run("rx", "run", "--help")
    assert result.returncode == ANSWERED and result.stdout.startswith(b"usage: antiphon rx run"), result
    for arguments in ((), ("--",), ("--nonsense", "true"), ("-x", "true")):
        result = run(box, *arguments)
        assert result.returncode == MISUSED and b"--help" in result.stderr, result


@test
def the_commands_status(box):
    assert run(box, "true").returncode == 0
    assert run(box, "--", "sh", "-c", "exit 42").returncode == 42
    assert run(box, "sh", "-c", "kill -TERM $$").returncode == -signal.SIGTERM
    result = run(box, "no-such-command")
    assert result.returncode == 127 and b"no-such-command" in result.stderr, result
    script = box.write("script", "#!/bin/sh\n")
    result = run(box, script)
    assert result.returncode == 126 and b"ermission" in result.stderr, result


@test
def the_commands_options_are_its_own(box):
    assert run(box, "echo", "--help", "-h", "--").stdout == b"--help -h --\n"


@test
def the_environment(box):
    result = run(box, "sh", "-c", "echo $LD_PRELOAD; echo $HOME")
    assert result.stdout.decode().split() == [PRELOAD, str(box.path)], result
    result = box.run(
        "rx", "run", "sh", "-c", "echo $LD_PRELOAD", env={**box.env, "AFRXRPC_PRELOAD": PRELOAD, "LD_PRELOAD": "libc.so.6"}
    )
    assert result.stdout.decode().strip() == PRELOAD + ":libc.so.6", result
    result = box.run("rx", "run", "true", env={**box.env, "AFRXRPC_PRELOAD": "/nowhere.so"})
    assert result.returncode == FAILED and b"/nowhere.so" in result.stderr and b"AFRXRPC_PRELOAD" in result.stderr


@test
def the_streams_and_signals(box):
    assert run(box, "cat", input=b"through").stdout == b"through"
    process = start(box, "sh", "-c", 'trap "echo got it; exit 3" INT; echo ready; while :; do sleep 0.05; done')
    assert process.stdout.readline() == b"ready\n"
    process.send_signal(signal.SIGINT)
    assert process.wait(TIMEOUT) == 3
    assert process.stdout.read() == b"got it\n"
    process.stdout.close()
    process.stderr.close()


@test
def without_it_there_is_no_socket(box):
    """The program is really one that needs the library; unless this kernel has such sockets."""
    result = subprocess.run([PLAIN, "call", "1", "x"], capture_output=True, check=False, env=box.env)
    if b"socket" not in result.stderr:
        raise Skip("this kernel has AF_RXRPC")
    assert result.returncode == 1


@test
def one_process(box):
    port = free_port()
    process = server(box, "serve", port)
    assert call(box, port, "abc", "x" * 100000, "") == ["ABC", "X" * 100000, ""]
    end(box, process, port)


@test
def a_daemon(box):
    """It binds, forks, and its parent is gone before anybody calls; nothing is left of it in the end."""
    port = free_port()
    process = server(box, "daemon", port)
    assert process.wait(TIMEOUT) == 0
    # The daemon has closed the streams, and nobody else has them.
    assert process.stdout.read() == b""
    assert call(box, port, "abc", "def") == ["ABC", "DEF"]
    assert call(box, port, "end") == ["END"]
    process.stdout.close()
    process.stderr.close()
    # A second one of the same address: it was given free.
    await_free(port)
    end(box, server(box, "serve", port), port)


@test
def forked_workers(box):
    port = free_port()
    process = server(box, "workers", port)
    texts = [f"call {i}" for i in range(40)]
    assert call(box, port, *texts) == [t.upper() for t in texts]
    end(box, process, port, 3)


@test
def a_process_for_each_call(box):
    """The parent waits for calls, a child answers each and ends."""
    port = free_port()
    process = server(box, "each", port)
    assert call(box, port, "abc", "def", "ghi") == ["ABC", "DEF", "GHI"]
    end(box, process, port)


@test
def an_inherited_socket(box):
    for mode in ("exec", "spawn", "fork-exec"):
        port = free_port()
        process = server(box, mode, port)
        assert call(box, port, "abc") == ["ABC"], mode
        end(box, process, port)


@test
def commands_on_the_side(box):
    """system() and popen(), which know nothing of the socket."""
    port = free_port()
    process = server(box, "side", port)
    assert call(box, port, "abc") == ["ABC"]
    end(box, process, port)


@test
def a_killed_worker(box):
    port = free_port()
    process = server(box, "workers", port)
    children = pathlib.Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    assert len(children) == 3
    os.kill(int(children[0]), signal.SIGKILL)
    # Who is dying may be given a message as long as it has its descriptors.
    stat = pathlib.Path(f"/proc/{children[0]}/stat")
    wait_until(lambda: not stat.exists() or stat.read_text().split()[2] == "Z", "the worker lives on")
    assert call(box, port, "abc", "def") == ["ABC", "DEF"]
    for _ in range(2):
        assert call(box, port, "end") == ["END"]
    assert process.wait(TIMEOUT) == 1
    process.stdout.close()
    process.stderr.close()


@test
def all_are_killed(box):
    """Then the socket goes too, and its port."""
    port = free_port()
    process = server(box, "workers", port, start_new_session=True)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait(TIMEOUT)
    process.stdout.close()
    process.stderr.close()

    def is_free():
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            try:
                sock.bind(("127.0.0.1", int(port)))
            except OSError:
                return False
            return True

    wait_until(is_free, "the port is still taken")


@test
def a_tunable(box):
    port = free_port()
    process = server(box, "serve", port, env={"AFRXRPC_MAX_BACKLOG": "4"})
    assert call(box, port, "abc") == ["ABC"]
    end(box, process, port)
    result = run(box, "sh", "-c", f"AFRXRPC_MAX_BACKLOG=1000 {PLAIN} call {port} x")
    assert b"AFRXRPC_MAX_BACKLOG" in result.stderr, result


main()
