#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""The log of antiphon serve when it cannot be written: that is said once, and calls go on."""

import fcntl
import json
import os
import resource
import signal
import time

from harness import TIMEOUT, is_running, main, test, wait_until

F_SETPIPE_SZ = 1031
MODES = ("--log", "--json")


def is_there(box, name):
    return box.run("ls", name).returncode == 0


def begin(box, *arguments, **options):
    process = box.start("serve", *arguments, "echo", "--", "cat", **options)
    wait_until(lambda: process.poll() is not None or is_there(box, "echo"), "it serves")
    return process


def finish(process):
    """Ends it; what it has said on standard error."""
    process.terminate()
    _, err = process.communicate(timeout=TIMEOUT)
    assert process.returncode == 0, (process.returncode, err)
    return err


def answers(box):
    return box.call("echo", "hello").stdout == b"hello"


@test
def a_reader_that_is_gone(box):
    for mode in MODES:
        read_end, write_end = os.pipe()
        process = begin(box, mode, stdout=write_end)
        os.close(write_end)
        assert os.read(read_end, 4096).count(b"\n") == 1
        os.close(read_end)
        assert answers(box) and answers(box)
        err = finish(process)
        assert err.count(b"\n") == 1 and b"log" in err and b"Broken pipe" in err, err


@test
def a_full_disk(box):
    for mode in MODES:
        with open("/dev/full", "wb") as full:
            process = begin(box, mode, stdout=full)
        assert answers(box) and answers(box)
        err = finish(process)
        assert err.count(b"\n") == 1 and b"log" in err and b"No space left" in err, err


@test
def without_a_log_there_is_nothing_to_say(box):
    with open("/dev/full", "wb") as full:
        process = begin(box, stdout=full)
    assert answers(box)
    assert finish(process) == b""


@test
def a_disk_that_has_room_again(box):
    """A line of which a part could be written is there in part, and none of the others is."""
    end = 64 << 20

    def limit():
        # Calls need files too, and none that is so long.
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (end, resource.RLIM_INFINITY))

    path = box.path / "log"
    with open(path, "wb") as log:
        log.seek(end - 180)
        process = begin(box, "--json", stdout=log, preexec_fn=limit)
        for _ in range(3):
            assert answers(box)
        wait_until(lambda: path.stat().st_size == end, "the disk is full")
        resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
        assert answers(box) and answers(box)
    assert finish(process).count(b"\n") == 1
    with open(path, "rb") as log:
        log.seek(end - 180)
        lines = log.read().decode().splitlines()
    assert json.loads(lines[0])["event"] == "serving", lines
    assert lines[1].startswith('{"event": "call", "number": 1'), lines
    # The third call was answered before its line was to be written.
    assert [json.loads(line)["number"] for line in lines[2:]] in ([4, 5], [3, 4, 5]), lines


def begin_blocked(box, mode, common=False):
    """A service that has answered and waits for the reader of its log; its process, and the end to read."""
    read_end, write_end = os.pipe()
    fcntl.fcntl(write_end, F_SETPIPE_SZ, 4096)
    options = {"stdout": write_end, **({"stderr": write_end} if common else {})}
    process = begin(box, mode, **options)
    os.set_blocking(write_end, False)
    try:
        while True:
            os.write(write_end, b".")
    except BlockingIOError:
        os.set_blocking(write_end, True)
    os.close(write_end)
    # It is answered before its line is written, which nobody reads.
    assert answers(box)
    wait_until(lambda: box.call("--timeout", "0.2", "echo", "x").returncode != 0, "it waits for its reader")
    assert is_running(process.pid)
    return process, read_end


@test
def a_reader_that_stands_still_does_not_keep_it_from_ending(box):
    for mode, common in (("--log", False), ("--json", False), ("--log", True)):
        process, read_end = begin_blocked(box, mode, common)
        err = finish(process) or b""
        assert common or (err.count(b"\n") == 1 and b"nobody reads" in err), err
        os.close(read_end)


@test
def a_service_that_is_to_end_waits_a_little_for_its_reader(box):
    process, read_end = begin_blocked(box, "--log")
    time.sleep(1.2)
    process.terminate()
    time.sleep(0.1)
    with os.fdopen(read_end) as log:
        assert "call 1 from" in log.read()
    assert finish(process) == b""


@test
def a_reader_that_is_slow_gets_every_line(box):
    read_end, write_end = os.pipe()
    fcntl.fcntl(write_end, F_SETPIPE_SZ, 8192)
    process = begin(box, "--json", stdout=write_end)
    os.close(write_end)
    clients = [box.start("call", "echo", "hello") for _ in range(60)]
    wait_until(lambda: sum(client.poll() is not None for client in clients) > 20, "some are answered")
    with os.fdopen(read_end) as log:
        records = [json.loads(log.readline()) for _ in range(61)]
    assert [record.get("number") for record in records] == [None, *range(1, 61)], records
    for client in clients:
        assert client.communicate(timeout=TIMEOUT)[0] == b"hello"
    assert finish(process) == b""


main()
