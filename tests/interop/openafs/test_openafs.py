#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Calls between this project and OpenAFS, both ways, and every packet of ours as Wireshark reads it.

test_openafs.py PROGRAM CROWDED, run by `cell`, which has started the servers. Prints TAP.
"""

import os
import pathlib
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time

PROGRAM, CROWDED = sys.argv[1:]
ANSWERED, FAILED, MISUSED, REFUSED, ABORTED, LOST = range(6)

# Operations of the services, as their interface definitions number them.
VL_PROBE, PR_NAME_TO_ID, PR_ID_TO_NAME = 514, 504, 505
VL, PR, VOL, BOS, UBIK = "rx:127.0.0.1:7003/52", "rx:127.0.0.1:7002/73", 4, 1, 50
# An address that vos does not take for a mistake, as it does 127.0.0.1.
OURS = "127.3.0.1"
CAPTURE = os.path.join(tempfile.mkdtemp(), "capture.pcapng")

tests = []


def test(function):
    tests.append(function)
    return function


def run(*command, data=b"", seconds=30):
    return subprocess.run(command, input=data, capture_output=True, timeout=seconds, check=False)


def call(address, *words, extra=b""):
    request = struct.pack(f">{len(words)}I", *words) + extra
    return run(PROGRAM, "call", "--timeout", "10", address, "-", data=request)


class Serving:
    """`antiphon serve`, ended by its own signal."""

    def __init__(self, *arguments):
        self.process = subprocess.Popen(
            [PROGRAM, "serve", "--json", *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        line = self.process.stdout.readline()
        assert b"address" in line or line, self.process.stderr.read()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.send_signal(signal.SIGTERM)
        self.process.communicate(timeout=10)


def check(done, status, out=None):
    assert done.returncode == status, f"status {done.returncode}, not {status}: {done.stderr!r}"
    if out is not None:
        assert done.stdout == out, f"{done.stdout!r}, not {out!r}"


def name(text):
    """A name as the protection service sends it: 64 characters, four bytes each."""
    return b"".join(struct.pack(">I", c) for c in text.encode().ljust(64, b"\0"))


@test
def an_empty_reply_of_the_volume_location_server():
    check(call(VL, VL_PROBE), ANSWERED, b"")


@test
def a_user_is_known_to_the_protection_server_by_name():
    check(call(PR, PR_NAME_TO_ID, 1, extra=name("admin")), ANSWERED, struct.pack(">2I", 1, 1))


@test
def two_users_are_known_by_number():
    check(call(PR, PR_ID_TO_NAME, 2, 1, 100), ANSWERED,
          struct.pack(">I", 2) + name("admin") + name("user1"))


@test
def a_thousand_names_in_one_request_of_many_packets():
    done = call(PR, PR_NAME_TO_ID, 1000, extra=name("user1") * 1000)
    check(done, ANSWERED, struct.pack(">I", 1000) + struct.pack(">I", 100) * 1000)


@test
def a_thousand_names_in_one_reply_of_many_packets():
    done = call(PR, PR_ID_TO_NAME, 1000, *[100] * 1000)
    check(done, ANSWERED, struct.pack(">I", 1000) + name("user1") * 1000)


@test
def an_operation_that_does_not_exist_is_aborted_with_its_code():
    done = call(VL, 99999)
    check(done, ABORTED)
    assert b"-455" in done.stderr, done.stderr


@test
def many_calls_at_once():
    done = run(PROGRAM, "call", "--timeout", "20", "--repeat", "2000", "--parallel", "16", "--json", VL, "-",
               data=struct.pack(">I", VL_PROBE))
    check(done, ANSWERED)


@test
def a_port_that_nobody_listens_at_refuses():
    check(call("rx:127.0.0.1:7077/1", 1), REFUSED)


@test
def version_and_debug_of_openafs():
    done = run(PROGRAM, "rx", "version", "127.0.0.1:7003")
    check(done, 0)
    assert b"OpenAFS" in done.stdout
    done = run(PROGRAM, "rx", "debug", "--json", "127.1.0.1:7000")
    check(done, 0)


@test
def rxdebug_reads_our_server():
    with Serving(f"rx:{OURS}:7005/{VOL}", "--", "head", "-c", "4", "/dev/zero"):
        check(call(f"rx:{OURS}:7005/{VOL}", 1), ANSWERED, bytes(4))
        done = run("rxdebug", OURS, "7005", "-version")
        check(done, 0)
        assert b"antiphon" in done.stdout, done.stdout
        for option in ("-rxstats", "-allconnections", "-peers"):
            done = run("rxdebug", OURS, "7005", option)
            check(done, 0)
            assert b"failed" not in done.stdout + done.stderr, (option, done.stdout, done.stderr)


@test
def vos_is_content_with_our_answer():
    # No transactions: the count, and nothing behind it.
    with Serving(f"rx:{OURS}:7005/{VOL}", "--", "head", "-c", "4", "/dev/zero"):
        done = run("vos", "status", OURS, "-noauth")
        check(done, 0)
        assert b"No active transactions" in done.stdout, done.stdout + done.stderr


@test
def vos_is_told_the_code_of_our_abort():
    with Serving(f"rx:{OURS}:7005/{VOL}", "--", "sh", "-c", "exit 5"):
        done = run("vos", "status", OURS, "-noauth")
        assert done.returncode != 0, done.stdout
        assert b"5" in done.stdout + done.stderr or b"Input/output" in done.stderr, done.stderr


@test
def bos_is_told_the_code_of_our_abort():
    with Serving(f"rx:{OURS}:7007/{BOS}", "--", "sh", "-c", "exit 5"):
        done = run("bos", "status", OURS, "-noauth")
        assert b"Input/output error" in done.stdout + done.stderr, (done.stdout, done.stderr)


class Silent:
    """Sixty-four hosts that call a server that has room for as many: each makes a request, and never says more."""

    HEADER = struct.Struct(">IIIIIBBBBHH")
    DATA, ACK, CLIENT_AND_LAST, PING, SERVICE = 1, 2, 5, 6, 147

    def __init__(self, port):
        self.server = subprocess.Popen([CROWDED, str(port), str(VOL), str(UBIK), str(self.SERVICE)],
                                       stdout=subprocess.PIPE)
        assert self.server.stdout.readline() == b"ready\n"
        self.callers = []
        for n in range(64):
            self.callers.append(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
            self.callers[n].bind((f"127.4.0.{n + 1}", 0))
            self.ask(self.callers[n], port, n + 1)

    def ask(self, caller, port, n):
        header = (0x80000000 + n, 4 * n, 1, 1, 1, self.DATA, self.CLIENT_AND_LAST, 0, 0, 0, self.SERVICE)
        caller.sendto(self.HEADER.pack(*header) + b"data", (OURS, port))

    def asks(self, port):
        """Whether one more caller is asked to prove its address."""
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as caller:
            caller.settimeout(20)
            self.ask(caller, port, 1000)
            answer = caller.recv(2000)
        return self.HEADER.unpack(answer[:28])[5] == self.ACK and answer[28 + 16] == self.PING

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.server.kill()
        self.answered = self.server.communicate()[0].split()
        for caller in self.callers:
            caller.close()


@test
def clients_of_a_crowded_server_of_ours_prove_their_addresses():
    # They try again after some seconds; so all at once.
    with Silent(7005) as crowd:
        assert crowd.asks(7005), "no question"
        commands = (["vos", "status", OURS, "-noauth"], ["udebug", OURS, "7005"], ["rxdebug", OURS, "7005", "-version"])
        running = [subprocess.Popen(c, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) for c in commands]
        vos, udebug, rxdebug = (r.communicate(timeout=60)[0] for r in running)
        assert b"No active transactions" in vos, vos
        assert b"antiphon" in rxdebug, rxdebug
        # It finds four bytes only where there should be more.
        assert b"-451" in udebug, udebug
    assert crowd.answered.count(b"4") == 1 and b"50" in crowd.answered, crowd.answered


def start_capture():
    if not shutil.which("tshark"):
        return None
    process = subprocess.Popen(["tshark", "-q", "-i", "lo", "-f", "udp", "-w", CAPTURE],
                               stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    for _ in range(100):
        if os.path.exists(CAPTURE) and os.path.getsize(CAPTURE) > 0:
            break
        time.sleep(0.05)
    return process


def dissect(*arguments):
    decode = [x for port in (7000, 7002, 7003, 7005, 7007) for x in ("-d", f"udp.port=={port},rx")]
    return subprocess.run(["tshark", "-r", CAPTURE, *decode, *arguments], capture_output=True, check=True,
                          text=True, timeout=120).stdout


def wireshark_has_no_complaint():
    n = len(dissect("-Y", "rx", "-T", "fields", "-e", "rx.serial").splitlines())
    assert n > 1000, f"only {n} packets were seen"
    # What the dissector of a service says about requests that are made up is not about the packets.
    wrong = dissect("-Y", 'rx && _ws.malformed && !afs')
    assert not wrong, wrong[:2000]


def main():
    capture = start_capture()
    failed = 0
    n = 0
    for n, function in enumerate(tests, 1):
        title = function.__name__.replace("_", " ")
        try:
            function()
            print(f"ok {n} - {title}", flush=True)
        except Exception as error:  # pylint: disable=broad-except
            failed += 1
            print(f"not ok {n} - {title}\n# " + str(error).replace("\n", "\n# "), flush=True)
    n += 1
    if not capture:
        print(f"ok {n} - wireshark has no complaint # SKIP there is no tshark: install it")
    else:
        time.sleep(0.5)
        capture.send_signal(signal.SIGINT)
        capture.communicate(timeout=20)
        try:
            wireshark_has_no_complaint()
            print(f"ok {n} - wireshark has no complaint")
        except AssertionError as error:
            failed += 1
            print(f"not ok {n} - wireshark has no complaint\n# " + str(error).replace("\n", "\n# "))
        pathlib.Path(CAPTURE).unlink(missing_ok=True)
    print(f"1..{n}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
