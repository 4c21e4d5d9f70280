#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""antiphon ls and antiphon top."""

import fcntl
import json
import os
import pty
import pwd
import signal
import struct
import termios
import time

from harness import ANSWERED, FAILED, TIMEOUT, main, test, wait_until


def listed(box, *arguments):
    done = box.run("ls", "--json", *arguments)
    assert done.returncode == ANSWERED and done.stderr == b"", done
    return json.loads(done.stdout)


@test
def nothing_is_served(box):
    assert listed(box) == []
    done = box.run("ls")
    assert (done.returncode, done.stdout, done.stderr) == (ANSWERED, b"", b""), done
    box.runtime.rmdir()
    assert listed(box) == []
    box.runtime.mkdir()


@test
def a_service_with_all_its_figures(box):
    service = box.serve("echo", "--", "cat")
    for _ in range(3):
        box.call("echo", "hello")
    (entry,) = listed(box)
    assert entry["name"] == "echo" and entry["uid"] == entry["owner"] == os.getuid(), entry
    assert entry["gid"] is None and entry["pid"] == service.pid and entry["program"] == "antiphon", entry
    assert entry["calls"] == 3 and entry["calls_open"] == 0 and entry["violations"] == 0, entry

    user = pwd.getpwuid(os.getuid()).pw_name
    heading, row = box.run("ls").stdout.decode().splitlines()
    assert heading.split() == ["NAME", "USER", "GROUP", "PID", "PROGRAM", "CHANNELS", "CALLS"], heading
    assert row.split()[:5] == ["echo", user, "-", str(service.pid), "antiphon"], row
    assert row.split()[6] == "3", row


@test
def open_channels_and_calls(box):
    box.serve("slow", "--", "sleep", "60")
    clients = [box.start("call", "slow") for _ in range(3)]
    wait_until(lambda: listed(box)[0]["calls_open"] == 3, "three calls are open")
    assert listed(box)[0]["channels"] >= 3
    for client in clients:
        client.kill()
        client.communicate()
    wait_until(lambda: listed(box)[0]["gone"] == 3, "three callers are gone")
    assert listed(box)[0]["calls_open"] == 0


@test
def names_are_patterns(box):
    for name in ("alpha", "beta", "alphabet"):
        box.serve(name, "--", "cat")
    assert {e["name"] for e in listed(box)} == {"alpha", "beta", "alphabet"}
    assert {e["name"] for e in listed(box, "alpha*")} == {"alpha", "alphabet"}
    assert {e["name"] for e in listed(box, "bet?", "alpha")} == {"alpha", "beta"}
    done = box.run("ls", "gamma")
    assert done.returncode == FAILED and done.stderr, done


@test
def the_newest_comes_first(box):
    first = box.serve("echo", "--", "cat")
    second = box.serve("echo", "--", "cat")
    assert [e["pid"] for e in listed(box)] == [second.pid, first.pid]


@test
def a_stopped_service_is_listed_without_figures(box):
    service = box.serve("echo", "--", "cat")
    service.send_signal(signal.SIGSTOP)
    began = time.monotonic()
    (entry,) = listed(box, "--timeout", "0.2")
    assert time.monotonic() - began < TIMEOUT / 2
    service.send_signal(signal.SIGCONT)
    assert entry["name"] == "echo" and "calls" not in entry, entry


@test
def a_killed_service_is_not_listed(box):
    box.serve("echo", "--", "cat").end(signal.SIGKILL)
    assert listed(box) == []


@test
def rates_of_an_interval(box):
    service = box.serve("echo", "--", "cat")
    client = box.start("call", "--repeat", "1000000", "echo", "hello")

    def top():
        done = box.run("top", "--once", "--interval", "0.5", "--json")
        assert done.returncode == ANSWERED, done
        report = json.loads(done.stdout)
        assert 0.45 < report["seconds"], report
        (entry,) = report["services"]
        assert entry["name"] == "echo" and entry["pid"] == service.pid, entry
        return report["seconds"], entry

    _, before = top()
    wait_until(lambda: top()[1]["calls"] > before["calls"] > 0, "calls are made")
    seconds, entry = top()
    client.kill()
    client.communicate()
    # It is a whole number of calls, of this interval, and there are as many in all.
    assert 0 < entry["calls_per_s"] * seconds < entry["calls"] + 0.1, (seconds, entry)
    latency = entry["latency_us"]
    assert 0 < latency["p50"] <= latency["p99"] and latency["mean"] > 0, latency


@test
def a_refresh_a_line(box):
    box.serve("idle", "--", "cat")
    done = box.run("top", "--json", "-n", "3", "--interval", "0.1")
    reports = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == ANSWERED and len(reports) == 3, done
    assert all(r["services"][0]["calls_per_s"] == 0 for r in reports), reports
    done = box.run("top", "--interval", "0.1")
    assert done.returncode == ANSWERED and b"\033" not in done.stdout, done
    assert done.stdout.decode().splitlines()[0].split()[:4] == ["NAME", "USER", "PID", "CALLS/S"], done
    assert done.stdout.decode().splitlines()[1].startswith("idle"), done


@test
def the_busiest_comes_first(box):
    box.serve("busy", "--", "true")
    box.serve("alone", "--", "true")
    client = box.start("call", "--repeat", "1000000", "busy")

    def order():
        done = box.run("top", "--once", "--interval", "0.5", "--json")
        return [s["name"] for s in json.loads(done.stdout)["services"]]

    # By name it would be the last, and is so until there was a call within the interval.
    wait_until(lambda: order() == ["busy", "alone"], "the busiest is the first")
    client.kill()
    client.communicate()


@test
def a_terminal_is_redrawn_until_interrupted(box):
    box.serve("idle", "--", "cat")
    ours, theirs = pty.openpty()
    process = box.start("top", "--interval", "0.1", stdout=theirs)
    os.close(theirs)
    shown = b""
    while shown.count(b"\033[H") < 3:
        shown += os.read(ours, 65536)
    assert b"idle" in shown, shown
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=TIMEOUT) == ANSWERED
    os.close(ours)
    process.stderr.close()


@test
def top_on_a_narrow_terminal(box):
    box.serve("name", "--", "cat")
    user = pwd.getpwuid(os.getuid()).pw_name.encode()
    for columns, wanted in ((1, b"n"), (4, b"name"), (5, b"name"), (6, b"name"), (7, b"name  " + user[:1])):
        ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("4H", 24, columns, 0, 0))
        process = box.start("top", "--count", "2", "--interval", "0.01", stdout=theirs)
        os.close(theirs)
        assert process.wait(timeout=TIMEOUT) == ANSWERED
        lines = os.read(ours, 65536).splitlines()
        assert lines[1] == wanted, (columns, lines)
        os.close(ours)
        process.stderr.close()


main()
