#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""antiphon hold under a service manager: a small one that stores descriptors as systemd does.

It takes the datagrams of sd_notify(3), keeps what FDSTORE=1 brings, drops a descriptor that it has already,
forgets a letter whose sender has died, and starts the keeper again with all it has.
"""

import array
import json
import os
import select
import signal
import socket
import subprocess
import threading
import time

from harness import FAILED, TIMEOUT, main, test, wait_until


class Manager:
    def __init__(self, box, *options, fdstore=None):
        self.box = box
        self.options = options
        self.store = {}
        self.said = []
        # Cleared, it takes no letter.
        self.takes = threading.Event()
        self.takes.set()
        self.is_held_up = False
        path = str(box.path / "notify")
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(path)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        self.env = dict(box.env, NOTIFY_SOCKET=path)
        if fdstore is not None:
            self.env["FDSTORE"] = str(fdstore)
        self.process = None
        self.ending = False
        self.thread = threading.Thread(target=self.listen, daemon=True)
        self.thread.start()

    def listen(self):
        while not self.ending:
            if not select.select([self.socket], [], [], 0.05)[0]:
                continue
            self.is_held_up = not self.takes.is_set()
            self.takes.wait()
            data, control, _, _ = self.socket.recvmsg(4096, 4096)
            fds, sender = array.array("i"), 0
            for level, kind, content in control:
                if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                    fds.frombytes(content[: len(content) - len(content) % fds.itemsize])
                elif (level, kind) == (socket.SOL_SOCKET, socket.SCM_CREDENTIALS):
                    sender = array.array("i", content)[0]
            self.take(data.decode().splitlines(), list(fds), sender)

    def take(self, lines, fds, sender):
        message = dict(line.split("=", 1) for line in lines)
        self.said.append(message)
        alive = self.process is not None and self.process.poll() is None and sender == self.process.pid
        if "FDSTORE" in message and alive:
            assert len(fds) == 1 and message["FDPOLL"] == "0" and ":" not in message["FDNAME"]
            have = [os.fstat(fd).st_ino for _, fd in self.all()]
            if os.fstat(fds[0]).st_ino not in have:
                self.store.setdefault(message["FDNAME"], []).append(fds.pop())
        elif "FDSTOREREMOVE" in message and alive:
            for fd in self.store.pop(message["FDNAME"], []):
                os.close(fd)
        # A barrier too is passed by closing what came with it.
        for fd in fds:
            os.close(fd)

    def all(self):
        return [(name, fd) for name, fds in self.store.items() for fd in fds]

    def start(self, plain=()):
        """With the descriptors of the unit's socket, and with those that are stored."""
        pairs = [*plain, *self.all()]
        numbers = [fd for _, fd in pairs]
        high = [os.dup2(fd, 300 + i) for i, fd in enumerate(numbers)]
        moves = " ".join(f"{3 + i}<&{fd}" for i, fd in enumerate(high))
        # sh knows no descriptors beyond 9; bash does.
        script = f'exec {moves}; for fd in {{300..340}}; do eval "exec $fd<&-"; done; LISTEN_PID=$$ exec "$0" "$@"'
        env = dict(self.env, LISTEN_FDS=str(len(pairs)), LISTEN_FDNAMES=":".join(name for name, _ in pairs))
        before = sum("READY" in message for message in self.said)
        self.process = subprocess.Popen(
            ["bash", "-c", script, self.box.program, "hold", *self.options],
            env=env, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, pass_fds=high)
        for fd in high:
            os.close(fd)
        wait_until(lambda: sum("READY" in message for message in self.said) > before, "it is ready")

    def kill(self):
        self.process.kill()
        self.process.communicate(timeout=TIMEOUT)

    def end(self):
        self.process.send_signal(signal.SIGTERM)
        self.process.communicate(timeout=TIMEOUT)
        self.ending = True
        self.thread.join(TIMEOUT)
        assert not self.thread.is_alive()
        for _, fd in self.all():
            os.close(fd)
        self.socket.close()


def hold(box, *arguments, **options):
    return box.run("hold", *arguments, **options)


def held(box):
    done = hold(box, "list", "--json", "--all")
    assert done.returncode == 0, done
    return {entry["name"]: entry for entry in json.loads(done.stdout)}


def content(box, name):
    return hold(box, "exec", name, "--", "python3", "-c",
                "import os; [print(os.pread(3 + i, 99, 0).decode()) for i in range(int(os.environ['LISTEN_FDS']))]").stdout


def store(box, name, *texts, options=()):
    files = [open(box.write(f"{name}{i}", text), "rb") for i, text in enumerate(texts)]
    numbers = [f.fileno() for f in files]
    done = hold(box, "store", *options, name, *numbers, pass_fds=numbers)
    for f in files:
        f.close()
    return done.returncode


@test
def killed_and_started_again(box):
    manager = Manager(box)
    manager.start()
    assert any(message.get("MAINPID") == str(manager.process.pid) for message in manager.said)
    for i in range(5):
        assert store(box, f"n{i}", f"first {i}", f"second {i}") == 0
    assert store(box, "brief", "x", options=("--expire", "1000")) == 0
    assert hold(box, "delete", "n4").returncode == 0
    assert store(box, "n3", "replaced", options=("--replace",)) == 0
    assert len(manager.store) == 5
    # What is peeked at is there the next time too.
    for _ in range(3):
        manager.kill()
        manager.start()
        entries = held(box)
        assert set(entries) == {"n0", "n1", "n2", "n3", "brief"}, entries
        assert 900 < entries["brief"]["expires"] <= 1000
        assert content(box, "n2") == b"first 2\nsecond 2\n"
        assert content(box, "n3") == b"replaced\n"
    assert hold(box, "delete", "n0", "n1", "n2", "n3", "brief").returncode == 0
    assert not manager.store
    manager.end()


@test
def two_names_for_one_descriptor(box):
    manager = Manager(box)
    manager.start()
    with open(box.write("file", b"shared"), "rb") as f:
        for name in ("one", "two"):
            assert hold(box, "store", name, f.fileno(), f.fileno(), pass_fds=[f.fileno()]).returncode == 0
    manager.kill()
    manager.start()
    assert held(box)["two"]["descriptors"] == 2
    assert content(box, "one") == content(box, "two") == b"shared\nshared\n"
    manager.end()


@test
def a_transfer_is_stored(box):
    manager = Manager(box)
    manager.start()
    assert store(box, "web", "x") == 0
    old = box.start("hold", "transfer", "web")
    assert hold(box, "accept", "web").returncode == 0
    assert old.wait(timeout=TIMEOUT) == 0
    old.communicate()
    assert len(manager.store) == 1
    manager.kill()
    manager.start()
    assert content(box, "web") == b"x\n"
    manager.end()


@test
def nothing_is_confirmed_before_it_is_stored(box):
    manager = Manager(box)
    manager.start()
    manager.takes.clear()
    storing = box.start("hold", "store", "late", "0")
    wait_until(lambda: manager.is_held_up, "the manager is asked to store it")
    # A keeper that did not wait would have said so by then.
    time.sleep(0.15)
    assert storing.poll() is None and not manager.store
    manager.takes.set()
    assert storing.wait(timeout=TIMEOUT) == 0
    storing.communicate()
    assert len(manager.store) == 1
    manager.end()


@test
def descriptors_of_the_unit(box):
    listener = socket.create_server(("127.0.0.1", 0))
    manager = Manager(box)
    manager.start(plain=[("web", listener.fileno())])
    assert set(held(box)) == {"web"}
    assert store(box, "other", "x") == 0
    # What is stored under the name of a unit's socket counts, also the next time.
    assert store(box, "web", "mine", options=("--replace",)) == 0
    manager.kill()
    manager.start(plain=[("web", listener.fileno())])
    assert set(held(box)) == {"web", "other"}
    assert content(box, "web") == b"mine\n"
    listener.close()
    manager.end()


@test
def a_store_that_is_none(box):
    env = dict(box.env, NOTIFY_SOCKET=str(box.path / "nobody"))
    done = hold(box, env=env)
    assert done.returncode == FAILED and b"service manager" in done.stderr, done
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as deaf:
        deaf.bind(str(box.path / "deaf"))
        env = dict(box.env, NOTIFY_SOCKET=str(box.path / "deaf"), FDSTORE="0")
        done = hold(box, env=env)
        assert done.returncode != 0 and b"FileDescriptorStoreMax" in done.stderr, done
    for path in ("relative", "/" + 200 * "x"):
        assert hold(box, env=dict(box.env, NOTIFY_SOCKET=path)).returncode != 0
    manager = Manager(box, fdstore=1)
    manager.start()
    assert store(box, "one", "x") == 0
    assert store(box, "two", "x") == FAILED
    manager.end()


main()
