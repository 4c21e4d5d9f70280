# SPDX-License-Identifier: MIT
"""What the tests of the command line share.

A test is a function marked with @test. It gets a Box: a runtime directory of its own, the program, and the
services it starts. After each test the box checks that nothing was left behind: no process that was started in
it, no socket file, no service that ended otherwise than it should. Results are printed as TAP.
"""

import contextlib
import json
import os
import pathlib
import queue
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import threading
import time
import traceback

# For what takes a moment: only a hang meets it.
TIMEOUT = 60

ANSWERED, FAILED, MISUSED, REFUSED, ABORTED, LOST = range(6)

_tests = []


class Skip(Exception):
    """Raised with the reason why a test cannot run here."""


def test(function):
    _tests.append(function)
    return function


def wait_until(condition, what, seconds=40):
    """Waits for something that cannot tell by itself. Only what never comes, not a slow machine, meets the limit."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise AssertionError(f"waited {seconds} s in vain: {what}")
        time.sleep(0.01)


def is_running(pid):
    """Whether the process exists and is no zombie."""
    try:
        state = pathlib.Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
    return state.rpartition(")")[2].split()[0] not in "ZX"


class Service:
    """One `antiphon serve`. Its log is read as JSON, all the time: it would wait for a reader."""

    def __init__(self, box, arguments, **options):
        self.box = box
        self.process = subprocess.Popen(
            [box.program, "serve", "--json", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=box.env,
            text=True,
            **options,
        )
        self.pid = self.process.pid
        self.status = None
        self.err = ""
        self.records = queue.SimpleQueue()
        self.readers = [threading.Thread(target=r, daemon=True) for r in (self.read_log, self.read_errors)]
        for reader in self.readers:
            reader.start()
        self.announced = self.log()
        if self.announced is None:
            self.records.put(None)  # for end(), which reads up to it
            self.end()
            raise AssertionError(f"no service: {self.err}")
        assert self.announced["event"] == "serving", self.announced

    def read_log(self):
        for line in self.process.stdout:
            self.records.put(json.loads(line))
        self.records.put(None)

    def read_errors(self):
        self.err = self.process.stderr.read()

    def log(self):
        """The next call that has ended; None after the last."""
        return self.records.get(timeout=TIMEOUT)

    def send_signal(self, number):
        self.process.send_signal(number)

    def end(self, number=signal.SIGTERM):
        """Ends it, reads what it still says, and returns its exit status."""
        if self.status is None:
            if self.process.poll() is None:
                self.process.send_signal(number)
            self.status = self.process.wait(timeout=TIMEOUT)
            for reader in self.readers:
                reader.join(TIMEOUT)
            self.process.stdout.close()
            self.process.stderr.close()
            self.rest = list(iter(self.records.get, None))
        return self.status


class Box:
    def __init__(self, program):
        self.program = program
        self.path = pathlib.Path(tempfile.mkdtemp(prefix="antiphon-cli."))
        self.runtime = self.path / "run"
        self.runtime.mkdir(mode=0o755)
        self.path.chmod(0o755)
        self.env = {
            "PATH": os.environ.get("PATH", "/usr/bin:/bin"),
            "HOME": str(self.path),
            "TMPDIR": str(self.path),
            "ANTIPHON_RUNTIME_DIR": str(self.runtime),
        }
        # What makes a sanitizer or a profiler write where the caller wants it.
        for name in ("ASAN_OPTIONS", "UBSAN_OPTIONS", "LSAN_OPTIONS", "TSAN_OPTIONS", "LD_LIBRARY_PATH"):
            if name in os.environ:
                self.env[name] = os.environ[name]
        self.services = []

    def run(self, *arguments, input=b"", **options):
        """Runs the program to its end; input and output are bytes."""
        options.setdefault("env", self.env)
        options.setdefault("timeout", TIMEOUT)
        if "stdin" not in options:
            options["input"] = input
        options.setdefault("stdout", subprocess.PIPE)
        options.setdefault("stderr", subprocess.PIPE)
        return subprocess.run([self.program, *map(str, arguments)], check=False, **options)

    def call(self, *arguments, **options):
        return self.run("call", *arguments, **options)

    def start(self, *arguments, **options):
        """Starts the program and returns at once."""
        options.setdefault("env", self.env)
        options.setdefault("stdin", subprocess.DEVNULL)
        options.setdefault("stdout", subprocess.PIPE)
        options.setdefault("stderr", subprocess.PIPE)
        return subprocess.Popen([self.program, *map(str, arguments)], **options)

    def serve(self, *arguments, **options):
        service = Service(self, [str(a) for a in arguments], **options)
        self.services.append(service)
        return service

    def has_calls(self, name, n):
        """Whether that many calls are open at the service: received, and not answered."""
        done = self.run("ls", "--json", name)
        return done.returncode == ANSWERED and json.loads(done.stdout)[0].get("calls_open") == n

    def write(self, name, content, mode=0o644):
        path = self.path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        path.chmod(mode)
        return path

    def processes(self):
        """The processes that were started in this box and still run."""
        mark = f"ANTIPHON_RUNTIME_DIR={self.runtime}".encode()
        found = []
        for entry in pathlib.Path("/proc").iterdir():
            if not entry.name.isdigit() or int(entry.name) == os.getpid():
                continue
            with contextlib.suppress(OSError):
                if mark in (entry / "environ").read_bytes().split(b"\0") and is_running(int(entry.name)):
                    found.append(int(entry.name))
        return found

    def sockets(self):
        return [p for p in self.runtime.rglob("*") if stat.S_ISSOCK(p.lstat().st_mode)]

    def check(self):
        for service in self.services:
            expected = service.status
            status = service.end()
            assert expected is not None or status == 0, f"serve ended with {status}: {service.err}"
        wait_until(lambda: not self.processes(), "processes are left")
        left = self.sockets()
        killed = any(s.status == -signal.SIGKILL for s in self.services)
        assert killed or not left, f"socket files are left: {left}"

    def close(self):
        # Some of them make others when they see one die.
        while pids := self.processes():
            for pid in pids:
                with contextlib.suppress(OSError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.01)
        for service in self.services:
            if service.process.poll() is None:
                service.process.kill()
                service.process.wait()
        shutil.rmtree(self.path, ignore_errors=True)


def descriptors():
    return len(os.listdir("/proc/self/fd"))


def run_one(number, function, program):
    name = function.__name__.replace("_", " ")
    box = Box(program)
    try:
        function(box)
        box.check()
    except Skip as reason:
        print(f"ok {number} - {name} # SKIP {reason}")
        return True
    except Exception:
        print(f"not ok {number} - {name}")
        for line in traceback.format_exc().splitlines():
            print(f"# {line}")
        return False
    finally:
        box.close()
    print(f"ok {number} - {name}")
    return True


def main():
    """For each test script: SCRIPT PROGRAM [WORD-IN-NAME]"""
    # A shell that starts us in the background ignores it, and so would all that we start.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    # So does nohup(1) with this.
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    program = os.path.abspath(sys.argv[1])
    wanted = [f for f in _tests if len(sys.argv) < 3 or sys.argv[2] in f.__name__]
    good = True
    print(f"1..{len(wanted)}", flush=True)
    for number, function in enumerate(wanted, 1):
        good &= run_one(number, function, program)
        sys.stdout.flush()
    sys.exit(0 if good else 1)
