#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""antiphon serve and call at addresses of RxRPC, and the packets of a call as ANTIPHON_RX_TRACE shows them."""

import json
import os
import re
import resource
import shutil
import signal
import struct
import subprocess

from harness import ANSWERED, FAILED, REFUSED, TIMEOUT, main, test

DATA, ACK, ACKALL = 1, 2, 5


def words_of(packet):
    """The sum of its 16-bit words as RFC 1071 has it: 0xffff when a checksum in it is right."""
    packet += b"\0" * (len(packet) % 2)
    total = sum(struct.unpack(f">{len(packet) // 2}H", packet))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total


def captured(path):
    """(source port, destination port, payload) of each packet of a file, whose headers must be right."""
    content = path.read_bytes()
    magic, major, minor, _, _, _, link = struct.unpack_from("=IHHIIII", content)
    assert (magic, major, minor, link) == (0xA1B23C4D, 2, 4, 101)
    at, found, before = 24, [], 0
    while at < len(content):
        seconds, ns, kept, length = struct.unpack_from("=IIII", content, at)
        packet = content[at + 16 : at + 16 + kept]
        at += 16 + kept
        assert kept == length == len(packet)
        assert before <= seconds * 10**9 + ns and ns < 10**9
        before = seconds * 10**9 + ns
        if packet[0] >> 4 == 4:
            assert words_of(packet[:20]) == 0xFFFF and struct.unpack_from(">H", packet, 2)[0] == length
            addresses, udp = packet[12:20], packet[20:]
        else:
            assert packet[0] >> 4 == 6 and struct.unpack_from(">H", packet, 4)[0] == length - 40
            addresses, udp = packet[8:40], packet[40:]
        assert words_of(addresses + struct.pack(">HH", 17, len(udp)) + udp) == 0xFFFF
        source, destination, udp_length, _ = struct.unpack_from(">HHHH", udp)
        assert udp_length == len(udp)
        found.append((source, destination, udp[8:]))
    return found


def kinds(packets, port):
    """The types of the packets to the port, and of those from it."""
    return (
        [payload[20] for _, destination, payload in packets if destination == port],
        [payload[20] for source, _, payload in packets if source == port],
    )


@test
def a_call_at_a_port_of_the_system(box):
    for host in "127.0.0.1", "[::1]":
        service = box.serve(f"rx:{host}:0/147", "--", "tr", "a-z", "A-Z")
        address = service.announced["address"]
        assert re.fullmatch(re.escape(f"rx:{host}:") + r"[1-9]\d*/147", address), address
        done = box.run("call", address, "hello")
        assert (done.returncode, done.stdout) == (ANSWERED, b"HELLO"), done
        done = box.run("call", address.replace("/147", "/148"), "hello")
        assert done.returncode == REFUSED, done
        service.end()


@test
def others_only_on_request(box):
    done = box.run("serve", "rx:*:0/147", "--", "cat")
    assert done.returncode == FAILED and b"allow anonymous" in done.stderr, done
    done = box.run("serve", "--allow", "user", "rx:127.0.0.1:0/147", "--", "cat")
    assert done.returncode == FAILED and b"to some users" in done.stderr, done
    service = box.serve("--allow-anonymous", "rx:*:0/147", "--", "cat")
    port = service.announced["address"].rsplit(":", 1)[1]
    for host in "127.0.0.1", "[::1]":
        done = box.run("call", f"rx:{host}:{port}", "hello")
        assert (done.returncode, done.stdout) == (ANSWERED, b"hello"), done
    service.end()


def listed(box):
    return {entry["name"]: entry for entry in json.loads(box.run("ls", "--json").stdout)}


@test
def they_are_listed(box):
    service = box.serve("rx:127.0.0.1:0/147", "--", "cat")
    other = box.serve("rx:[::1]:0/148", "--", "cat")
    box.serve("nearby", "--", "cat")
    address = service.announced["address"]
    for _ in range(3):
        assert box.run("call", address, "hello").returncode == ANSWERED
    seen = listed(box)
    assert sorted(seen) == sorted([address, other.announced["address"], "nearby"]), seen
    entry = seen[address]
    assert entry["pid"] == service.pid and entry["program"] == "antiphon" and entry["uid"] == os.geteuid(), entry
    assert entry["calls"] == 3 and entry["calls_open"] == 0 and entry["channels"] >= 1, entry
    done = box.run("ls", "rx:*")
    assert done.stdout.count(b"rx:") == 2 and b"nearby" not in done.stdout, done
    done = box.run("top", "--count", "1", "--json")
    assert address.encode() in done.stdout, done
    # What a dead process leaves is not shown, and goes.
    service.end(signal.SIGKILL)
    assert sorted(listed(box)) == sorted([other.announced["address"], "nearby"])
    other.end(signal.SIGTERM)
    assert list(listed(box)) == ["nearby"]
    assert not [name for name in os.listdir(box.runtime) if name.startswith("rx:")]


@test
def what_cannot_be_listed_is_served_and_said(box):
    nowhere = str(box.path / "nowhere" / "at all")
    for env, options, why in (
        ({**box.env, "ANTIPHON_RUNTIME_DIR": nowhere}, {}, nowhere),
        (box.env, {"preexec_fn": lambda: no_more_than(100)}, f"{box.runtime}: File too large"),
    ):
        process = box.start("serve", "--json", "rx:127.0.0.1:0/147", "--", "cat", env=env, **options)
        address = json.loads(process.stdout.readline())["address"]
        assert box.run("call", address, "hello").stdout == b"hello"
        assert listed(box) == {}
        process.terminate()
        _, err = process.communicate(timeout=TIMEOUT)
        assert process.returncode == 0, (process.returncode, err)
        assert err.count(b"\n") == 1 and b"antiphon ls" in err and why.encode() in err, err
    assert os.listdir(box.runtime) == []


@test
def packets_as_text(box):
    service = box.serve("rx:127.0.0.1:0/147", "--", "cat")
    address = service.announced["address"]
    done = box.run("call", address, "hello", env={**box.env, "ANTIPHON_RX_TRACE": "1"})
    assert (done.returncode, done.stdout) == (ANSWERED, b"hello"), done
    lines = done.stderr.decode().splitlines()
    peer = re.escape(address[3:].split("/")[0])
    assert re.fullmatch(
        rf"\d+\.\d{{6}} -> {peer} DATA connection [0-9a-f]{{8}}:[0-9a-f]{{8}} call 1 seq 1 serial 1 service 147 "
        "CLIENT_INITIATED REQUEST_ACK LAST_PACKET, 5 bytes",
        lines[0],
    ), lines
    assert any(re.search(rf" <- {peer} DATA .* LAST_PACKET", line) for line in lines), lines
    done = box.run("call", address, "hello", env={**box.env, "ANTIPHON_RX_TRACE": "0"})
    assert (done.returncode, done.stderr) == (ANSWERED, b""), done
    service.end()


@test
def packets_in_a_file(box):
    for host in "127.0.0.1", "[::1]":
        service = box.serve(f"rx:{host}:0/147", "--", "cat")
        address = service.announced["address"]
        port = int(address[:-4].rsplit(":", 1)[1])
        path = box.path / f"{len(host)}.pcap"
        env = {**box.env, "ANTIPHON_RX_TRACE": str(path)}
        done = box.run("call", address, "hello", env=env)
        assert (done.returncode, done.stdout, done.stderr) == (ANSWERED, b"hello", b""), done
        assert path.stat().st_mode & 0o077 == 0
        packets = captured(path)
        to, back = kinds(packets, port)
        assert to[0] == DATA and DATA in back and to[-1] in (ACK, ACKALL), packets
        assert packets[0][2][28:] == b"hello" and all(port in packet[:2] for packet in packets)
        # A second call is added; what was sent is there in whole.
        body = os.urandom(100_000)
        done = box.run("call", address, "-", input=body, env=env)
        assert done.stdout == body, len(done.stdout)
        added = captured(path)
        assert added[: len(packets)] == packets
        sent = {}
        for _, destination, payload in added[len(packets) :]:
            if destination == port and payload[20] == DATA:
                sent[struct.unpack_from(">I", payload, 12)[0]] = payload[28:]
        assert b"".join(sent[seq] for seq in sorted(sent)) == body
        if shutil.which("tshark"):
            shown = subprocess.run(
                ["tshark", "-r", path, "-d", f"udp.port=={port},rx", "-T", "fields", "-e", "rx.type", "-e", "rx.seq",
                 "-e", "_ws.malformed"],
                capture_output=True, text=True, check=True,
            ).stdout.splitlines()
            wanted = [(p[20], struct.unpack_from(">I", p, 12)[0]) for _, _, p in added]
            assert [tuple(map(int, line.split())) for line in shown] == wanted, shown[:9]
        service.end()


def no_more_than(size):
    """For the files that this process writes; it goes on."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


@test
def files_that_cannot_be(box):
    service = box.serve("rx:127.0.0.1:0/147", "--", "cat")
    address = service.announced["address"]
    precious = box.write("precious.pcap", "not packets at all, but longer than a header")
    folder = box.path / "folder.pcap"
    folder.mkdir()
    for path, why, options in (
        (precious, b"something else in it", {}),
        (box.path / "nowhere" / "x.pcap", b"No such file", {}),
        (folder, b"Is a directory", {}),
        (box.path / "full.pcap", b"cut off", {"preexec_fn": lambda: no_more_than(100)}),
    ):
        done = box.run("call", address, "hello", env={**box.env, "ANTIPHON_RX_TRACE": str(path)}, **options)
        assert (done.returncode, done.stdout) == (ANSWERED, b"hello"), done
        assert why in done.stderr and done.stderr.count(b"\n") == 1, done
    assert precious.read_text() == "not packets at all, but longer than a header"
    service.end()


if __name__ == "__main__":
    main()
