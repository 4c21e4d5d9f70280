#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""antiphon hold: the keeper and every command that talks to it."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import time

from harness import FAILED, MISUSED, TIMEOUT, is_running, main, test, wait_until


@contextlib.contextmanager
def keeper(box, *options, **more):
    process = box.start("hold", "--log", *options, **more)
    for line in process.stderr:
        if b"serving" in line:
            break
    else:
        raise AssertionError("no keeper")
    try:
        yield process
    finally:
        box.run("hold", "stop")
        process.communicate(timeout=TIMEOUT)


def hold(box, *arguments, **options):
    return box.run("hold", *arguments, **options)


def names(box, *arguments):
    done = hold(box, "list", "--json", *arguments)
    assert done.returncode == 0, done
    return {entry["name"]: entry for entry in json.loads(done.stdout)}


@test
def descriptors_are_stored_and_given_back(box):
    file = box.write("file", b"content\n")
    with keeper(box), open(file, "rb") as f:
        done = hold(box, "store", "it", f.fileno(), pass_fds=[f.fileno()])
        assert done.returncode == 0, done
        # cat does not rewind: both share the offset, as after fork(2).
        done = hold(box, "exec", "it", "--", "sh", "-c", "cat /dev/fd/3; echo $LISTEN_FDS $LISTEN_FDNAMES $((LISTEN_PID - $$))")
        assert done.stdout == b"content\n1 it 0\n", done
        entry = names(box)["it"]
        assert entry["owner"] == os.geteuid() and entry["descriptors"] == 1 and entry["expires"] is None, entry


@test
def all_names_without_one(box):
    with keeper(box):
        assert hold(box, "store", "b", "0", "0").returncode == 0
        assert hold(box, "store", "a", "0").returncode == 0
        done = hold(box, "exec", "--", "sh", "-c", "echo $LISTEN_FDS $LISTEN_FDNAMES; ls /proc/self/fd | wc -l")
        # 0, 1, 2, the three, and that of ls
        assert done.stdout.split() == [b"3", b"a:b:b", b"7"], done
        done = hold(box, "exec", "--take", "a", "--", "true")
        assert done.returncode == 0 and set(names(box)) == {"b"}, done
        assert hold(box, "exec", "a", "--", "true").returncode == FAILED
        assert hold(box, "exec", "b", "--", "/nonexistent").returncode == 127


@test
def sockets_that_listen(box):
    path = box.path / "socket"
    with keeper(box):
        done = hold(box, "store", "--listen", path, "--listen", "127.0.0.1:0", "--listen", "0", "s")
        assert done.returncode == 0, done
        client = socket.socket(socket.AF_UNIX)
        client.connect(str(path))
        script = "import socket; c, _ = socket.socket(fileno=3).accept(); c.sendall(b'hello')"
        assert hold(box, "exec", "s", "--", "python3", "-c", script).returncode == 0
        assert client.recv(100) == b"hello"
        client.close()
        for bad in (path, "no.such.host.invalid:1", "127.0.0.1:x", "127.0.0.1:65536", "-1", ":", "/" + 200 * "x"):
            done = hold(box, "store", "--listen", bad, "t")
            assert done.returncode == FAILED and b"--listen" in done.stderr, done
    path.unlink()


@test
def what_was_kept_is_free_after_stop(box):
    for _ in range(20):
        with keeper(box), socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            listener.listen()
            assert hold(box, "store", "s", listener.fileno(), pass_fds=[listener.fileno()]).returncode == 0
            where = listener.getsockname()
            listener.close()
            assert hold(box, "stop").returncode == 0
            with socket.socket() as again:
                again.bind(where)


@test
def what_is_wrong_with_a_name_is_said(box):
    verbs = (["store", "{}", "0"], ["delete", "{}"], ["transfer", "{}"], ["accept", "{}"], ["exec", "{}", "--", "true"])
    with keeper(box):
        for verb in verbs:
            for bad in ("", "a/b", "x" * 64):
                done = hold(box, *[argument.format(bad) for argument in verb])
                assert done.returncode == MISUSED and f"'{bad}': no name".encode() in done.stderr, (verb, done)
            for bad in ("", "a/b", "x" * 200):
                done = hold(box, verb[0], "--at", bad, *[argument.format("s") for argument in verb[1:]])
                assert done.returncode == MISUSED, (verb, done)
        for verb in verbs[1:]:
            if verb[0] == "accept":
                continue
            done = hold(box, *[argument.format("s") for argument in verb])
            assert done.returncode == FAILED and b"'s': the keeper says: there is nothing under" in done.stderr, done
        assert hold(box, "store", "s", "0").returncode == 0
        done = hold(box, "store", "s", "0")
        assert done.returncode == FAILED and b"delete or replace it" in done.stderr, done


@test
def what_is_not_stored_leaves_no_path(box):
    path = box.path / "socket"
    assert hold(box, "store", "--listen", path, "s").returncode == FAILED, "there is no keeper"
    assert not path.exists()
    with keeper(box):
        assert hold(box, "store", "--listen", "0", "s").returncode == 0
        for arguments in (("--listen", path, "s"), ("--listen", path, "--listen", "no.such.host.invalid:1", "t")):
            assert hold(box, "store", *arguments).returncode == FAILED
            assert not path.exists(), arguments
        assert hold(box, "store", "--listen", path, "t").returncode == 0
        assert path.exists()
    path.unlink()


@test
def a_command_that_cannot_be_run(box):
    with keeper(box), open("/dev/full", "wb") as full:
        for options in ({}, {"stderr": full}):
            assert hold(box, "exec", "--", "/no/such/command", **options).returncode == 127
            assert hold(box, "exec", "--", "/", **options).returncode == 126


@test
def lists_and_deletes(box):
    with keeper(box):
        for name in ("web.a", "web.b", "log"):
            assert hold(box, "store", "--expire", "1000", name, "0").returncode == 0
        done = hold(box, "list")
        assert [line.split()[0] for line in done.stdout.splitlines()] == [b"NAME", b"log", b"web.a", b"web.b"], done
        assert set(names(box, "web.")) == {"web.a", "web.b"}
        assert 900 < names(box)["log"]["expires"] <= 1000.1
        assert hold(box, "store", "log", "0").returncode == FAILED
        assert hold(box, "store", "--replace", "log", "0").returncode == 0
        assert names(box)["log"]["expires"] is None
        done = hold(box, "delete", "log", "nothing", "web.a")
        assert done.returncode == FAILED and b"nothing" in done.stderr, done
        assert set(names(box)) == {"web.b"}
        assert hold(box, "store", "--expire", "0.05", "short", "0").returncode == 0
        wait_until(lambda: set(names(box)) == {"web.b"}, "it expires")


@test
def a_transfer(box):
    with keeper(box):
        assert hold(box, "store", "web", "0").returncode == 0
        done = hold(box, "transfer", "--timeout", "0.05", "web")
        assert done.returncode == FAILED, done
        old = box.start("hold", "transfer", "web")
        wait_until(lambda: names(box)["web"]["offered_to"] == os.geteuid(), "it is offered")
        done = hold(box, "accept", "web", "--", "sh", "-c", "echo $LISTEN_FDNAMES")
        assert (done.returncode, done.stdout) == (0, b"web\n"), done
        assert old.wait(timeout=TIMEOUT) == 0
        old.communicate()
        old = box.start("hold", "transfer", "web")
        assert hold(box, "accept", "web").returncode == 0
        assert old.wait(timeout=TIMEOUT) == 0
        old.communicate()
        done = hold(box, "accept", "--timeout", "0.05", "web")
        assert done.returncode == FAILED, done


@test
def killed_again_and_again(box):
    process = box.start("hold")
    assert hold(box, "store", "it", "0", "0", "0").returncode == 0
    pids = [process.pid]
    for _ in range(3):
        os.kill(pids[-1], signal.SIGKILL)
        assert names(box)["it"]["descriptors"] == 3
        pids.append(json.loads(box.run("ls", "--json", "hold").stdout)[0]["pid"])
        assert pids[-1] not in pids[:-1] and is_running(pids[-1])
    assert process.wait(timeout=TIMEOUT) == -signal.SIGKILL
    assert hold(box, "stop").returncode == 0
    # Its output was that of all who came after it.
    process.communicate(timeout=TIMEOUT)
    wait_until(lambda: not box.processes(), "they have ended")


@test
def stopped_means_gone(box):
    process = box.start("hold")
    wait_until(box.sockets, "it serves")
    assert hold(box, "stop").returncode == 0
    assert box.sockets() == [], "who comes now would wait for an answer"
    done = hold(box, "list")
    assert done.returncode == FAILED and b"no keeper" in done.stderr, done
    assert process.wait(timeout=TIMEOUT) == 0
    process.communicate()


@test
def stopped_by_a_signal(box):
    for number in (signal.SIGTERM, signal.SIGINT):
        process = box.start("hold")
        assert hold(box, "store", "it", "0").returncode == 0
        process.send_signal(number)
        assert process.wait(timeout=TIMEOUT) == 0
        process.communicate()
        wait_until(lambda: not box.processes(), "the twin has ended")
    assert hold(box, "list").returncode == FAILED


@test
def a_newer_one_takes_over(box):
    with keeper(box) as first:
        assert hold(box, "store", "it", "0").returncode == 0
        done = hold(box)
        assert done.returncode == FAILED and b"--replace" in done.stderr, done
        second = box.start("hold", "--replace")
        assert first.wait(timeout=TIMEOUT) == 0
        assert set(names(box)) == {"it"}
        assert json.loads(box.run("ls", "--json", "hold").stdout)[0]["pid"] == second.pid
        assert hold(box, "stop").returncode == 0
        second.communicate(timeout=TIMEOUT)


@test
def started_with_descriptors(box):
    listener = socket.create_server(("127.0.0.1", 0))
    fd = listener.fileno()
    script = f"exec 3<&{fd} 4<&{fd} 5<&{fd} 6<&{fd}; LISTEN_PID=$$ LISTEN_FDS=4 LISTEN_FDNAMES=web:web:a/b:x exec \"$0\" hold"
    process = subprocess.Popen(["sh", "-c", script, box.program], env=box.env, pass_fds=[fd], stdin=subprocess.DEVNULL)
    held = {name: entry["descriptors"] for name, entry in names(box).items()}
    assert held == {"web": 2, "x": 1}, held
    assert hold(box, "stop").returncode == 0
    assert process.wait(timeout=TIMEOUT) == 0
    listener.close()


@test
def another_address(box):
    with keeper(box, "--at", "caps:other"):
        assert hold(box, "list").returncode == FAILED
        assert hold(box, "store", "--at", "caps:other", "it", "0").returncode == 0
        assert set(names(box, "--at", "caps:other")) == {"it"}
        assert hold(box, "stop", "--at", "caps:other").returncode == 0


@test
def limits_and_rules_that_make_no_sense(box):
    for option, value in (("--allow", "can=store"), ("--allow", "uid=any,can=fly"), ("--limit", "x")):
        done = hold(box, option, value)
        assert done.returncode == MISUSED and done.stderr, done
    with keeper(box, "--limit", "2"):
        assert hold(box, "store", "a", "0", "0").returncode == 0
        done = hold(box, "store", "b", "0")
        assert done.returncode == FAILED and b"limit for a user" in done.stderr, done


@test
def misuse(box):
    for arguments in (
        ("store",),
        ("store", "it"),
        ("store", "--take", "it", "0"),
        ("store", "--expire", "0", "it", "0"),
        ("exec", "it"),
        ("exec", "it", "--"),
        ("list", "a", "b"),
        ("delete",),
        ("transfer",),
        ("transfer", "--to", "no.such.user", "it"),
        ("accept",),
        ("stop", "it"),
        ("stop", "--json"),
        ("list", "--", "cat"),
        ("--survive", "luck"),
        ("--timeout", "3"),
        ("unknown",),
        ("list", "--owner", "no.such.user"),
    ):
        done = hold(box, *arguments)
        assert done.returncode == MISUSED and done.stderr, (arguments, done)
    assert hold(box, "store", "it", "x").returncode == MISUSED
    assert hold(box, "store", "it", "99").returncode == FAILED
    start = time.monotonic()
    done = hold(box, "list")
    assert done.returncode == FAILED and b"there is no keeper" in done.stderr, done
    assert time.monotonic() - start < TIMEOUT / 2


main()
