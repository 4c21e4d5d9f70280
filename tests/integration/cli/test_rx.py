#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""antiphon rx: questions to an endpoint that this test plays itself, so that it can also be an odd one; load tests."""

import contextlib
import json
import re
import signal
import socket
import struct
import threading
import time

from harness import ANSWERED, FAILED, MISUSED, TIMEOUT, main, test

HEADER = struct.Struct(">IIIIIBBBBHH")
DEBUG, VERSION = 8, 13


def stats(letter=b"S"):
    return struct.pack(">iii??cxiiii24x", 11, 12, 13, False, True, letter, 14, 15, 16, 17)


def connection(host, port, cid, numbers=(7, 0, 0, 0)):
    secret = struct.pack(">BB10xIIIIII40x", 1, 0, 2, 0, 1, 2, 3, 4)
    return (
        struct.pack(">4sIIIIIIiHBBB3x", socket.inet_aton(host), cid, 5, *numbers, 0, port, 8, 1, 0)
        + bytes([2, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0])
        + secret
        + struct.pack(">Ii36x", 0x80000001, 1444)
    )


def peer(host, port):
    head = struct.pack(">4sHHIHBBiiiiii", socket.inet_aton(host), port, 1444, 0, 3, 0, 0, 0, 0, 80, 8, 0, 350000)
    return head + struct.pack(">iiiii8HQQ40x", 100, 2, 0, 0, 0, 1444, 5692, 4, 1, 1444, 32, 1, 0, 1 << 33, 9)


class Endpoint:
    """Answers each query with what `bodies` says: a list of bodies by index, or one body, or None for silence."""

    def __init__(self, bodies):
        self.bodies = bodies
        self.seen = []
        self.sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.sock.bind(("127.0.0.1", 0))
        self.address = "127.0.0.1:%d" % self.sock.getsockname()[1]
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def run(self):
        while True:
            packet, sender = self.sock.recvfrom(2000)
            if not packet:
                return
            header = HEADER.unpack(packet[:28])
            epoch, cid, number, _, _, kind, flags, _, _, _, service = header
            if kind not in (DEBUG, VERSION):
                continue
            assert flags == 5 and cid == 0 and service == 0 and epoch == 999
            query, index = (0, 0) if kind == VERSION else struct.unpack(">II", packet[28:])
            self.seen.append((query, index))
            body = self.bodies.get(query, b"\xff\xff\xff\xf8" * 2)
            if isinstance(body, list):
                end = b"\xff" * 8 + bytes(168 if query != 5 else 124)
                body = body[index] if index < len(body) else end
            if callable(body):
                body = body(len(self.seen))
            if body is not None:
                answer = HEADER.pack(epoch, cid, number, 0, 0, kind, 4, 0, 0, 0, 0) + body
                self.sock.sendto(HEADER.pack(epoch, cid, number ^ 1, 0, 0, kind, 4, 0, 0, 0, 0) + body, sender)
                self.sock.sendto(answer, sender)

    def close(self):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as poke:
            poke.sendto(b"", self.sock.getsockname())
        self.thread.join(TIMEOUT)
        self.sock.close()


@contextlib.contextmanager
def endpoint(bodies):
    it = Endpoint(bodies)
    try:
        yield it
    finally:
        it.close()


@test
def version(box):
    with endpoint({0: b"a version of ours\0".ljust(65, b"\0")}) as it:
        done = box.run("rx", "version", it.address)
        assert (done.returncode, done.stdout) == (ANSWERED, b"a version of ours\n"), done
        done = box.run("rx", "version", "--json", it.address)
        assert json.loads(done.stdout) == {"address": it.address, "version": "a version of ours"}


@test
def version_of_a_joker(box):
    with endpoint({0: b"\x1b]0;got you\x07" + b"\x9b" * 300}) as it:
        done = box.run("rx", "version", it.address)
        assert done.returncode == ANSWERED
        assert re.fullmatch(rb"\?\]0;got you\?+\n", done.stdout), done.stdout


@test
def asked_again_until_answered(box):
    with endpoint({0: lambda n: b"late" if n == 2 else None}) as it:
        done = box.run("rx", "version", it.address)
        assert (done.returncode, done.stdout) == (ANSWERED, b"late\n")
        assert len(it.seen) >= 2


@test
def nobody_answers(box):
    with endpoint({0: None}) as it:
        done = box.run("rx", "version", "--timeout", "0.2", it.address)
        assert done.returncode == FAILED and b"no answer" in done.stderr, done
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    done = box.run("rx", "version", f"127.0.0.1:{port}")
    assert done.returncode == FAILED and b"nothing listens" in done.stderr, done


@test
def debug_by_default(box):
    with endpoint({1: stats(), 2: [connection("192.0.2.7", 7001, 0x1230)]}) as it:
        done = box.run("rx", "debug", it.address)
        text = done.stdout.decode()
        assert done.returncode == ANSWERED, done
        assert re.search(r"^version +S$", text, re.M) and re.search(r"^calls_executed +13$", text, re.M), text
        assert re.search(
            r"^192\.0\.2\.7:7001 +server +80000001/00001230 +null +0:7 +active +sending +out$", text, re.M
        ), text
        # What is not answered soon is asked again.
        assert list(dict.fromkeys(it.seen)) == [(1, 0), (2, 0), (2, 1)]


@test
def debug_everything_as_json(box):
    counters = struct.pack(">71i", *range(71))
    with endpoint(
        {
            1: stats(),
            3: [connection("192.0.2.7", 7001, 0x1230), connection("127.0.0.1", 7001, 4)],
            4: counters,
            5: [peer("192.0.2.7", 7001)],
        }
    ) as it:
        done = box.run("rx", "debug", "--stats", "--all", "--peers", "--rxstats", "--json", it.address)
        assert done.returncode == ANSWERED, done
        told = json.loads(done.stdout)
        assert told["stats"]["n_packets"] == 17
        assert [c["cid"] for c in told["connections"]] == [0x1230, 4]
        assert told["connections"][0]["calls"][0] == {
            "number": 7, "state": "active", "mode": "sending", "flags": 0, "queued_in": False, "queued_out": True,
        }
        assert told["connections"][0]["security"]["bytes_sent"] == 4
        assert told["peers"][0]["rtt_ms"] == 10 and told["peers"][0]["bytes_sent"] == 1 << 33
        assert told["counters"]["packets_read"]["data"] == 11 and told["counters"]["n_busies"] == 66
        done = box.run("rx", "debug", "--peers", "--rxstats", it.address)
        assert re.search(rb"^192\.0\.2\.7:7001 +10\.0 ms +350 ms +1444 +32 +100 +2 +3$", done.stdout, re.M), done
        assert re.search(rb"^packets version +23 read, 40 sent$", done.stdout, re.M), done


@test
def debug_of_one_who_knows_little(box):
    with endpoint({1: stats(b"L"), 2: []}) as it:
        done = box.run("rx", "debug", "--stats", "--connections", "--peers", "--rxstats", it.address)
        assert done.returncode == ANSWERED, done
        assert b"no connections" in done.stdout and b"no peers" in done.stdout
        assert b"it has no counters" in done.stdout
        done = box.run("rx", "debug", "--rxstats", "--json", it.address)
        assert json.loads(done.stdout)["counters"] is None


@test
def ping(box):
    # On a slow machine more may be lost, of those that are answered.
    for seconds in (0.1, 1, 10):
        with endpoint({0: lambda n: None if n == 2 else b"here"}) as it:
            done = box.run("rx", "ping", "--count", 3, "--interval", "0.01", "--timeout", seconds, it.address)
        lines = done.stdout.decode().splitlines()
        assert [line.split()[:2] for line in lines[:3]] == [[it.address, str(n)] for n in (1, 2, 3)], lines
        assert lines[1].endswith("no answer"), lines
        if "no answer" not in lines[0] + lines[2]:
            break
    assert done.returncode == ANSWERED, done
    assert lines[3] == "3 asked, 1 lost" and lines[4].startswith("p50 "), lines
    with endpoint({0: b"here"}) as it:
        done = box.run("rx", "ping", "--count", "2", "--interval", "0.01", "--json", it.address)
        told = json.loads(done.stdout)
        assert told["asked"] == 2 and told["lost"] == 0 and 0 < told["rtt_us"]["p50"] <= told["rtt_us"]["max"]
    with endpoint({0: None}) as it:
        done = box.run("rx", "ping", "--count", "1", "--timeout", "0.05", "--json", it.address)
        told = json.loads(done.stdout)
        assert done.returncode == FAILED and told["lost"] == 1 and told["rtt_us"] is None, done


@test
def ping_makes_up_for_nothing(box):
    with endpoint({0: lambda n: None if n == 1 else b"here"}) as it:
        began = time.monotonic()
        done = box.run("rx", "ping", "--count", "4", "--interval", "0.4", "--timeout", "1.5", it.address)
        # The second is due as soon as the first is lost; the interval is between the others.
        assert time.monotonic() - began > 1.5 + 2 * 0.4 - 0.05, done


@test
def ping_until_interrupted(box):
    with endpoint({0: b"here"}) as it:
        process = box.start("rx", "ping", "--count", "0", "--interval", "0.05", it.address)
        assert process.stdout.readline().split()[1] == b"1"
        process.send_signal(signal.SIGINT)
        text = process.stdout.read()
        assert process.wait(TIMEOUT) == ANSWERED
        assert b" asked, 0 lost" in text, text


@contextlib.contextmanager
def perf_server(box, *options):
    process = box.start("rx", "perf", "--serve", *options, "127.0.0.1:0")
    try:
        words = process.stdout.readline().decode().split()
        assert words[0] == "service" and words[2] == "at", words
        yield words[3]
        process.send_signal(signal.SIGTERM)
        assert process.wait(TIMEOUT) == ANSWERED, process.stderr.read()
    finally:
        process.kill()
        process.wait()


@test
def perf_each_test(box):
    with perf_server(box) as address:
        for words, sent, received in (
            (("rpc",), 4, 4),
            (("rpc", "--request", "100K", "--reply", "3"), 102400, 3),
            (("send", "--parallel", "3"), 1 << 20, 0),
            (("recv", "--reply", "2M", "--window", "1000"), 0, 2 << 20),
            (("file", "--request", "40K", "--reply", "80K"), 40960, 81920),
            (("rpc", "--request", "1", "--reply", "1", "--parallel", "50"), 1, 1),
        ):
            done = box.run("rx", "perf", "--count", "60", "--json", *words[1:], address, words[0])
            assert done.returncode == ANSWERED, (words, done)
            told = json.loads(done.stdout)
            assert told["command"] == words[0] and told["calls"] == 60 and told["failed"] == 0, told
            assert (told["request"], told["reply"]) == (sent, received), told
            assert told["packets"] >= 60 * max(1, sent // 1412), told
            assert 0 < told["latency_us"]["p50"] <= told["latency_us"]["max"]
        done = box.run("rx", "perf", "--seconds", "0.2", address, "rpc")
        assert done.returncode == ANSWERED and re.match(rb"rpc: \d+ calls in ", done.stdout), done
        done = box.run("rx", "debug", "--rxstats", "--stats", "--all", "--json", address)
        told = json.loads(done.stdout)
        assert told["stats"]["calls_executed"] > 360 and len(told["connections"]) > 6, told
        assert told["counters"]["packets_read"]["data"] > 60 * 29


@test
def perf_server_is_told_to_end_again_and_again(box):
    process = box.start("rx", "perf", "--serve", "127.0.0.1:0")
    assert process.stdout.readline().startswith(b"service")
    end = time.monotonic() + TIMEOUT
    while process.poll() is None and time.monotonic() < end:
        process.send_signal(signal.SIGTERM)
        time.sleep(0.0005)
    err = process.communicate(timeout=TIMEOUT)[1]
    assert (process.returncode, err) == (ANSWERED, b""), err


@test
def perf_of_another_service(box):
    with perf_server(box, "--service", "9") as address:
        done = box.run("rx", "perf", "--count", "2", "--service", "9", address, "rpc")
        assert done.returncode == ANSWERED, done
        done = box.run("rx", "perf", "--count", "2", address, "rpc")
        assert done.returncode == FAILED and b"aborted by the server, code -2" in done.stderr, done


@test
def perf_of_nobody(box):
    with endpoint({}) as it:
        done = box.run("rx", "perf", "--count", "1", "--timeout", "0.3", it.address, "rpc")
        assert done.returncode == FAILED and b"timed out" in done.stderr, done


@test
def perf_server_for_others_is_on_request(box):
    done = box.run("rx", "perf", "--serve", "0.0.0.0:0")
    assert done.returncode == FAILED and b"--allow-anonymous" in done.stderr, done
    process = box.start("rx", "perf", "--serve", "--allow-anonymous", "0.0.0.0:0")
    try:
        assert process.stdout.readline().startswith(b"service 147 at 0.0.0.0:")
        process.send_signal(signal.SIGINT)
        assert process.wait(TIMEOUT) == ANSWERED
    finally:
        process.kill()
        process.wait()


@test
def perf_server_says_where_in_json(box):
    process = box.start("rx", "perf", "--serve", "--json", "--service", "9", "127.0.0.1:0")
    try:
        told = json.loads(process.stdout.readline())
        assert told["service"] == 9, told
        done = box.run("rx", "perf", "--service", "9", "--count", "1", told["address"], "rpc")
        assert done.returncode == ANSWERED, done
    finally:
        process.kill()
        process.wait()


def one_call(sock, address, number, body):
    """A request of one packet; what the reply says, or the code that it was aborted with."""
    host, port = address.split(":")
    request = HEADER.pack(0x80000123, 0x4440, number, 1, number, 1, 5, 0, 0, 0, 147) + body
    sock.sendto(request, (host, int(port)))
    while True:
        packet = sock.recv(2000)
        _, _, about, _, _, kind, *_ = HEADER.unpack(packet[:28])
        if kind == 1 and about == number:
            return packet[28:]
        if kind == 4:
            return struct.unpack(">i", packet[28:32])[0]


@test
def perf_by_hand(box):
    with perf_server(box) as address, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(20)
        cookie = b"\0\0\x47\x11"
        cases = (
            ((3, 0, 1, 1, 3), b"abc", cookie),
            ((3, 1, 1, 1, 3), b"", b"\0\0\0" + cookie),
            ((3, 3, 1, 1, 2, 1), b"ab", b"\0" + cookie),
            ((3, 4, 1, 1, 3, 1, 0, 2), b"abcd", bytes(8)),
            ((3, 4, 1, 1, 1, 1), b"abcd", b""),
            ((3, 0, 1, 1, 3), b"ab", -5),  # less data than said
            ((3, 0, 1, 1, 3), b"abcd", -5),  # more
            ((2, 0, 1, 1, 3), b"abc", -5),  # another version
            ((3, 2, 1, 1, 3), b"abc", -5),  # no such command
            ((3, 0, 1), b"", -5),  # a head cut short
            ((3, 4, 1, 1, 1 << 30), b"", -5),  # a list without end
            ((3, 4, 1, 1, 3, 0, 0, 1), b"", -5),  # back to a direction that is over
            ((3, 4, 1, 1, 2, 0xFFFFFFFF, 0xFFFFFFFF), b"", -5),
        )
        for number, (words, data, wanted) in enumerate(cases, 1):
            told = one_call(sock, address, number, struct.pack(f">{len(words)}I", *words) + data)
            assert told == wanted, (words, data, told)


@test
def addresses(box):
    for wrong in ("", ":7000", "host:", "[::1", "[::1]x", "x" * 400):
        done = box.run("rx", "version", wrong)
        assert done.returncode == MISUSED and done.stderr, (wrong, done)
    # One that getaddrinfo(3) would cut off, or read around what it does not know.
    for port in ("65536", "99999", "-1", "+7000", " 7000", "4294974296"):
        for words in (["version"], ["debug"], ["ping", "--count", "1"], ["perf", "--count", "1"], ["perf", "--serve"]):
            more = ["rpc"] if "--count" in words and "perf" in words else []
            done = box.run("rx", *words, f"127.0.0.1:{port}", *more)
            assert done.returncode == MISUSED and b"is no port" in done.stderr, (words, port, done)
    done = box.run("rx", "version", "127.0.0.1:notaport")
    assert done.returncode == FAILED and b"notaport" in done.stderr


@test
def misuse(box):
    for words in (
        ("rx",),
        ("rx", "sing"),
        ("rx", "version"),
        ("rx", "debug", "a", "b"),
        ("rx", "ping", "--count", "x", "a"),
        ("rx", "version", "--timeout", "0", "a"),
        ("rx", "ping", "--no-such-option"),
        ("rx", "perf", "127.0.0.1"),
        ("rx", "perf", "127.0.0.1", "sing"),
        ("rx", "perf", "--reply", "4", "127.0.0.1", "send"),
        ("rx", "perf", "--request", "5", "127.0.0.1", "file"),
        ("rx", "perf", "--window", "8193", "127.0.0.1", "rpc"),
        ("rx", "perf", "--serve", "a", "b"),
    ):
        done = box.run(*words)
        assert done.returncode == MISUSED and b"--help" in done.stderr, (words, done)
    for command in ("version", "debug", "ping", "perf"):
        text = box.run("rx", command, "--help").stdout
        assert text.startswith(b"usage: antiphon rx " + command.encode()), text
        assert text in box.run("rx", "--help").stdout


main()
