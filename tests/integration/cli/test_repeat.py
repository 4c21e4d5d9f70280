#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""antiphon call --repeat and --parallel."""

import fcntl
import json
import os
import pty
import signal
import struct
import termios

from harness import ABORTED, ANSWERED, LOST, REFUSED, TIMEOUT, main, test


def summary(box, *arguments, expected=ANSWERED, **options):
    done = box.call("--json", "--repeat", *arguments, **options)
    assert done.returncode == expected, done
    return json.loads(done.stdout), done.stderr.decode()


@test
def calls_are_counted_and_timed(box):
    box.serve("echo", "--", "cat")
    for parallel in (1, 4):
        report, _ = summary(box, 20, "--parallel", parallel, "echo", "hello")
        assert report["calls"] == 20 and report["parallel"] == parallel, report
        assert report["outcomes"] == {"answered": 20, "refused": 0, "aborted": 0, "lost": 0}, report
        latency = report["latency_us"]
        assert 0 < latency["p50"] <= latency["p90"] <= latency["p99"] <= latency["p99.9"] <= latency["max"]
        assert latency["max"] < report["seconds"] * 1e6 * 1.1, report
        assert abs(report["calls_per_s"] * report["seconds"] - 20) < 0.1, report


@test
def parallel_calls_run_at_the_same_time(box):
    # Each ends when there are eight of them.
    trace = box.write("trace", b"")
    script = f"echo >>{trace}; while [ $(wc -l <{trace}) -lt 8 ]; do sleep 0.05; done"
    box.serve("eight", "--max", "8", "--", "sh", "-c", script)
    report, _ = summary(box, 8, "--parallel", 8, "eight")
    assert report["outcomes"]["answered"] == 8, report
    box.serve("slow", "--max", "8", "--", "sleep", "0.3")
    report, _ = summary(box, 3, "slow")
    assert report["seconds"] > 0.85, report


@test
def more_at_once_than_calls(box):
    box.serve("echo", "--", "cat")
    report, _ = summary(box, 3, "--parallel", 64, "echo", "x")
    assert report["calls"] == 3, report


@test
def more_at_once_than_the_service_takes(box):
    box.serve("quick", "--max", "2", "--", "true")
    report, _ = summary(box, 300, "--parallel", 1000, "quick")
    assert report["outcomes"]["answered"] == 300, report
    assert report["parallel"] == 1000 and 2 <= report["at_once"] < 300, report


@test
def text_for_people(box):
    box.serve("echo", "--", "cat")
    done = box.call("--repeat", 5, "echo", "hello")
    first, second = done.stdout.decode().splitlines()
    assert first.startswith("5 calls, 1 at once, in ") and first.endswith(" calls/s"), done
    assert all(word in second for word in ("latency", "p50", "p90", "p99", "p99.9", "max")), done


@test
def large_requests_are_repeated_whole(box):
    box.serve("check", "--", "sh", "-c", 'test "$(wc -c)" -eq 3000000')
    path = box.write("body", os.urandom(3000000))
    for parallel in (1, 3):
        report, _ = summary(box, 6, "--parallel", parallel, "--in", path, "check")
        assert report["request_bytes"] == 3000000 and report["outcomes"]["answered"] == 6, report
    report, _ = summary(box, 2, "check", "-", input=bytes(3000000))
    assert report["outcomes"]["answered"] == 2, report


@test
def large_replies_are_dropped(box):
    box.serve("many", "--", "head", "-c", "3000000", "/dev/zero")
    for parallel in (1, 3):
        report, _ = summary(box, 6, "--parallel", parallel, "many")
        assert report["outcomes"]["answered"] == 6, report


@test
def the_first_bad_outcome_is_the_exit_status(box):
    state = box.write("state", b"")
    box.serve("third", "--", "sh", "-c", f"echo >>{state}; test $(wc -l <{state}) -ne 3 || exit 5")
    report, message = summary(box, 6, "third", expected=ABORTED)
    assert report["outcomes"]["aborted"] == 1 and report["outcomes"]["answered"] == 5, report
    assert "code 5" in message, message
    done = box.call("--repeat", 2, "nobody")
    assert done.returncode == REFUSED, done


@test
def every_call_has_its_own_deadline(box):
    box.serve("slow", "--", "sleep", "0.3")
    report, _ = summary(box, 8, "--timeout", "2", "slow")
    assert report["outcomes"]["answered"] == 8, report
    # What gets to the service before its deadline is lost; when that is is the machine's affair.
    box.serve("hanging", "--", "sleep", "600")
    for seconds in (0.05, 0.5, 5, 20):
        done = box.call("--json", "--repeat", 2, "--timeout", seconds, "hanging")
        outcomes = json.loads(done.stdout)["outcomes"]
        assert done.returncode in (LOST, REFUSED) and outcomes["lost"] + outcomes["refused"] == 2, done
        assert b"deadline" in done.stderr, done
        if outcomes["lost"] == 2:
            break
    assert done.returncode == LOST and outcomes["lost"] == 2, done


@test
def a_service_that_dies_in_between(box):
    for parallel in (1, 5):
        service = box.serve("slow", "--", "sleep", "0.1")
        client = box.start("call", "--json", "--repeat", "1000", "--parallel", str(parallel), "slow")
        assert service.log()["outcome"] == "answered"
        service.end(signal.SIGKILL)
        out, err = client.communicate(timeout=TIMEOUT)
        report = json.loads(out)
        assert client.returncode in (LOST, REFUSED), err
        assert report["outcomes"]["answered"] > 0 and report["calls"] < 1000, report
        assert sum(report["outcomes"].values()) == report["calls"], report
        assert b"channel closed after" in err, err


@test
def progress_is_shown_on_a_terminal(box):
    box.serve("slow", "--", "sleep", "0.1")
    ours, theirs = pty.openpty()
    done = box.call("--repeat", 12, "slow", stderr=theirs)
    shown = os.read(ours, 65536)
    os.close(ours)
    os.close(theirs)
    assert done.returncode == ANSWERED and b"calls/s" in shown, shown


@test
def progress_stays_on_its_line(box):
    box.serve("slow", "--", "sleep", "0.1")
    for columns in (1, 2, 20, 32):
        ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("4H", 24, columns, 0, 0))
        done = box.call("--repeat", 12, "slow", stderr=theirs)
        drawn = os.read(ours, 65536).split(b"\r\033[K")
        os.close(ours)
        os.close(theirs)
        assert done.returncode == ANSWERED and len(drawn) > 2, (done, drawn)
        assert max(map(len, drawn)) == columns - 1, (columns, drawn)


main()
