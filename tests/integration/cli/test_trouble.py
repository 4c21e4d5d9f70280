#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""No descriptors, no processes, no space, and kills at random moments: nothing is lost or left behind."""

import os
import random
import resource
import signal
import subprocess
import time

from harness import ABORTED, ANSWERED, FAILED, LOST, REFUSED, TIMEOUT, Skip, is_running, main, test, wait_until

SEED = int(os.environ.get("APH_TEST_SEED", "20261122"))


def limited(kind, value):
    return {"preexec_fn": lambda: resource.setrlimit(kind, (value, value))}


def finish(clients):
    """The exit statuses of all; what they wrote must agree with them."""
    statuses = []
    for client in clients:
        out, err = client.communicate(timeout=TIMEOUT)
        statuses.append(client.returncode)
        assert (client.returncode == ANSWERED) == (err == b""), (client.returncode, err)
        if client.returncode == ANSWERED:
            assert out == b"hello", out
    return statuses


@test
def a_service_without_descriptors_refuses(box):
    few = limited(resource.RLIMIT_NOFILE, 32)
    go = box.path / "go"
    service = box.serve("echo", "--max", "100", "--", "sh", "-c", f"while [ ! -e {go} ]; do sleep 0.1; done; cat", **few)
    clients = [box.start("call", "echo", "hello") for _ in range(30)]
    wait_until(lambda: any(client.poll() is not None for client in clients), "somebody is refused")
    go.touch()
    statuses = finish(clients)
    assert ANSWERED in statuses and REFUSED in statuses, statuses
    assert set(statuses) <= {ANSWERED, REFUSED}, statuses
    assert box.call("echo", "hello").stdout == b"hello", "it works again"
    wait_until(lambda: len(os.listdir(f"/proc/{service.pid}/fd")) < 20, "descriptors are left")


@test
def a_service_that_may_have_no_memory_to_share(box):
    service = box.serve("echo", "--", "cat", **limited(resource.RLIMIT_FSIZE, 100000))
    for _ in range(2):
        done = box.call("echo", "hello")
        assert done.returncode == REFUSED, done
    assert service.end() == 0, "a client has killed it"


@test
def a_service_without_processes_refuses(box):
    if os.getuid() != 0:
        raise Skip("only root can become a user whose processes are limited")
    box.runtime.chmod(0o1777)
    who = {"user": 65530, "group": 65530, "extra_groups": []}
    # Waits without a process: each line is for one of them.
    gate = box.path / "gate"
    os.mkfifo(gate)
    gate.chmod(0o666)
    script = f"read -r line <{gate}"
    box.serve("--allow", "world", "slow", "--", "sh", "-c", script, **who, **limited(resource.RLIMIT_NPROC, 4))
    clients = [box.start("call", "slow,uid=any") for _ in range(8)]
    wait_until(lambda: any(client.poll() is not None for client in clients), "somebody is refused")
    lines = os.open(gate, os.O_RDWR)
    os.write(lines, b"\n" * 20)
    statuses = [client.wait(timeout=TIMEOUT) for client in clients]
    for client in clients:
        client.communicate()
    assert ANSWERED in statuses and REFUSED in statuses and set(statuses) <= {ANSWERED, REFUSED}, statuses
    assert box.call("slow,uid=any").returncode == ANSWERED, "it works again"
    os.close(lines)


@test
def a_client_without_descriptors_fails(box):
    box.serve("echo", "--", "cat")
    for limit in range(6, 12):
        done = box.call("echo", "hello", **limited(resource.RLIMIT_NOFILE, limit))
        assert done.returncode in (FAILED, REFUSED, ANSWERED), done
        assert done.returncode == ANSWERED or b"ulimit -n" in done.stderr, done


@test
def a_service_that_cannot_begin_says_what_to_do(box):
    for limit in range(6, 10):
        done = box.run("serve", "echo", "--", "cat", **limited(resource.RLIMIT_NOFILE, limit))
        assert done.returncode == FAILED and b"ulimit -n" in done.stderr, done


@test
def a_runtime_directory_that_is_of_no_use(box):
    box.runtime.rmdir()
    box.runtime.write_bytes(b"not a directory")
    done = box.run("serve", "echo", "--", "cat")
    assert done.returncode == FAILED and str(box.runtime).encode() in done.stderr, done
    done = box.call("echo", "hello")
    assert done.returncode in (FAILED, REFUSED) and done.stderr, done
    box.runtime.unlink()
    box.runtime.mkdir()
    # Anybody could replace what is served there; and nobody is told of another trouble than this.
    box.runtime.chmod(0o777)
    for arguments in (["serve", "echo", "--", "cat"], ["call", "echo"], ["ls"]):
        done = box.run(*arguments)
        assert done.returncode in (FAILED, REFUSED), done
        assert b"can be changed by others" in done.stderr and b"chmod" in done.stderr, done
    box.runtime.chmod(0o755)
    box.env["ANTIPHON_RUNTIME_DIR"] = str(box.path / "missing" / "run")
    done = box.run("serve", "echo", "--", "cat")
    assert done.returncode == FAILED and b"missing/run" in done.stderr, done
    assert b"make the directory" in done.stderr, done
    box.env["ANTIPHON_RUNTIME_DIR"] = str(box.runtime)
    if os.getuid() == 0:
        done = box.run("serve", "echo", "--", "cat", user=65530, group=65530, extra_groups=[])
        assert done.returncode == FAILED and b"belongs to user" not in done.stderr, done
        assert str(box.runtime).encode() in done.stderr and b"chmod" in done.stderr, done


@test
def a_runtime_directory_that_disappears(box):
    client = box.start("call", "--wait", "--timeout", TIMEOUT, "echo", "hello")
    time.sleep(0.3)
    box.runtime.rmdir()
    time.sleep(0.1)
    box.serve("echo", "--", "cat")
    out, err = client.communicate(timeout=TIMEOUT)
    assert client.returncode == ANSWERED and out == b"hello", (client.returncode, out, err)


@test
def a_full_disk_behind_the_reply(box):
    box.serve("many", "--", "head", "-c", "1000000", "/dev/zero")
    with open("/dev/full", "wb") as full:
        done = box.call("many", stdout=full)
    assert done.returncode == FAILED and b"No space" in done.stderr, done


@test
def a_stopped_client_delays_nobody(box):
    box.serve("echo", "--", "cat")
    stopped = [box.start("call", "echo", "-", stdin=subprocess.PIPE) for _ in range(3)]
    for client in stopped:
        client.stdin.write(bytes(100000))
        client.stdin.flush()
    time.sleep(0.2)
    for client in stopped:
        client.send_signal(signal.SIGSTOP)
    began = time.monotonic()
    for _ in range(10):
        assert box.call("echo", "hello").stdout == b"hello"
    assert time.monotonic() - began < TIMEOUT / 2
    for client in stopped:
        client.send_signal(signal.SIGKILL)
        client.communicate()


@test
def kills_at_random_moments(box):
    print(f"# APH_TEST_SEED={SEED}")
    # The leak checker looks from a process of its own; killing that one makes its parent wait for ever.
    box.env["ASAN_OPTIONS"] = box.env.get("ASAN_OPTIONS", "") + ":detect_leaks=0"
    rng = random.Random(SEED)
    body = box.write("body", rng.randbytes(700000))
    script = 'cat; [ -z "$LISTEN_FDS" ] || cat <&3'
    allowed = {ANSWERED, FAILED, REFUSED, ABORTED, LOST, -signal.SIGKILL}
    seen = set()
    for round in range(25):
        mode = ["--persistent"] if round % 5 == 4 else []
        command = ["python3", "-c", FRAMES] if mode else ["sh", "-c", script]
        service = box.serve("storm", *mode, "--max", "4", "--", *command)
        clients = []
        for _ in range(6):
            fds = ["--fd", body] if rng.random() < 0.3 else []
            clients.append(box.start("call", "--in", body, *fds, "storm", stdout=subprocess.DEVNULL))
        for _ in range(3):
            time.sleep(rng.random() * 0.03)
            victims = [c.pid for c in clients if c.poll() is None] + [
                pid for pid in box.processes() if pid != service.pid
            ]
            if victims:
                try:
                    os.kill(rng.choice(victims), signal.SIGKILL)
                except ProcessLookupError:
                    pass
        if rng.random() < 0.5:
            service.end(signal.SIGKILL)
        for client in clients:
            status = client.wait(timeout=TIMEOUT)
            client.stderr.close()
            assert status in allowed, status
            seen.add(status)
        if service.status is None:
            assert service.end() == 0, service.err
        wait_until(lambda: not box.processes(), "processes are left")
        assert not is_running(service.pid)
    assert {ANSWERED, -signal.SIGKILL} <= seen, seen


# Echoes frames, as antiphon-serve(1) describes them.
FRAMES = """
import os
def read(n):
    data = b""
    while len(data) < n:
        piece = os.read(0, n - len(data))
        if not piece:
            raise SystemExit
        data += piece
    return data
while True:
    header = read(4)
    data = header + read(int.from_bytes(header, "big"))
    while data:
        data = data[os.write(1, data):]
"""


main()
