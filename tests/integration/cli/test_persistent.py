#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""antiphon serve --persistent: frames, order, deaths and pauses."""

import fcntl
import os
import random
import re
import signal
import struct
import subprocess
import sys
import termios
import time

from harness import ABORTED, ANSWERED, LOST, REFUSED, TIMEOUT, is_running, main, test, wait_until

# A process that obeys requests: what it is told is the request itself.
WORKER = r"""
import os, struct, sys, time

def read(n):
    data = b""
    while len(data) < n:
        piece = os.read(0, n - len(data))
        if not piece:
            sys.exit(0)
        data += piece
    return data

def write(data):
    while data:
        data = data[os.write(1, data):]

trace = sys.argv[1]
count = 0
with open(trace, "a") as file:
    file.write("start %d\n" % os.getpid())
while True:
    (length,) = struct.unpack(">I", read(4))
    body = read(length)
    count += 1
    word, _, rest = body.partition(b" ")
    with open(trace, "ab") as file:
        file.write(b"call " + body[:40] + b"\n")
    if word == b"exit":
        os._exit(int(rest))
    if word == b"kill":
        os.kill(os.getpid(), int(rest))
        time.sleep(10)
    if word == b"sleep":
        time.sleep(float(rest))
    if word == b"await":
        while not os.path.exists(rest):
            time.sleep(0.02)
    if word == b"half":
        write(struct.pack(">I", 1000) + b"x" * 500)
        os._exit(3)
    if word == b"chatter":
        write(struct.pack(">I", 2) + b"okSURPRISE")
        continue
    if word == b"close":
        os.close(1)
        time.sleep(600)
    if word == b"many":
        body = b"y" * int(rest)
    if word == b"count":
        body = str(count).encode()
    write(struct.pack(">I", len(body)) + body)
"""


def worker(box, *arguments):
    script = box.write("worker.py", WORKER)
    trace = box.write("trace", b"")
    service = box.serve(*arguments, "--persistent", "work", "--", sys.executable, script, trace)
    service.trace = trace
    return service


def unread(pipe, after=0.0):
    time.sleep(after)
    return struct.unpack("i", fcntl.ioctl(pipe, termios.FIONREAD, bytes(4)))[0]


def starts(service):
    return [int(line.split()[1]) for line in service.trace.read_text().splitlines() if line.startswith("start")]


@test
def one_process_answers_all(box):
    service = worker(box)
    for i in range(1, 6):
        assert box.call("work", "count").stdout == str(i).encode()
    assert len(starts(service)) == 1


@test
def bodies_of_every_length(box):
    worker(box)
    data = random.Random(4).randbytes(6 << 20)
    for n in (0, 1, 3, 4, 5, 39, 40, 4096, 65536, 262143, 262144, 262145, 1 << 20, 6 << 20):
        done = box.call("work", "-", input=data[:n])
        assert done.returncode == ANSWERED and done.stdout == data[:n], (n, len(done.stdout), done.stderr)
    assert box.call("work", "many 50000000").stdout == b"y" * 50000000


@test
def many_callers_are_answered_one_by_one(box):
    service = worker(box)
    clients = [box.start("call", "work", "sleep 0.02") for _ in range(10)]
    for client in clients:
        out, err = client.communicate(timeout=TIMEOUT)
        assert (client.returncode, out) == (ANSWERED, b"sleep 0.02"), err
    done = box.call("--repeat", "200", "--parallel", "20", "work", "hello")
    assert done.returncode == ANSWERED, done
    assert len(starts(service)) == 1


@test
def a_death_aborts_the_call_with_the_status(box):
    service = worker(box)
    done = box.call("work", "exit 7")
    assert done.returncode == ABORTED and b" 7\n" in done.stderr, done
    done = box.call("work", "kill 9")
    assert done.returncode == ABORTED and b" 137\n" in done.stderr, done
    assert box.call("work", "count").stdout == b"1"
    assert len(starts(service)) == 3
    service.end()
    assert "started again" in service.err, service.err


@test
def an_end_without_an_answer_loses_the_call(box):
    worker(box)
    done = box.call("work", "exit 0")
    assert done.returncode == LOST, done
    assert box.call("work", "hello").stdout == b"hello"


@test
def a_death_in_the_middle_of_a_reply(box):
    worker(box)
    done = box.call("work", "half")
    assert done.returncode == ABORTED and b" 3\n" in done.stderr, done
    assert box.call("work", "hello").stdout == b"hello"


@test
def calls_that_wait_survive_a_death(box):
    service = worker(box)
    first = box.start("call", "work", "sleep 600")
    wait_until(lambda: "sleep" in service.trace.read_text(), "it sleeps")
    waiting = [box.start("call", "work", f"hello {i}") for i in range(5)]
    wait_until(lambda: box.has_calls("work", 6), "all are there")
    os.kill(starts(service)[0], signal.SIGKILL)
    assert first.wait(timeout=TIMEOUT) == ABORTED
    first.communicate()
    for i, client in enumerate(waiting):
        out, err = client.communicate(timeout=TIMEOUT)
        assert (client.returncode, out) == (ANSWERED, f"hello {i}".encode()), err
    # A request was handed to one process only.
    calls = [line for line in service.trace.read_text().splitlines() if line.startswith("call hello")]
    assert sorted(calls) == [f"call hello {i}" for i in range(5)], calls


@test
def pauses_double_while_nothing_is_answered(box):
    times = box.write("times", b"")
    service = box.serve("--persistent", "broken", "--", "sh", "-c", f"date +%s.%N >>{times}; exit 1")
    wait_until(lambda: len(times.read_text().split()) == 4, "it is started four times")
    at = [float(t) for t in times.read_text().split()]
    pauses = [b - a for a, b in zip(at, at[1:])]
    # They are never shorter; how much longer is the machine's affair.
    assert 0.09 < pauses[0] and 0.19 < pauses[1] and 0.38 < pauses[2], pauses
    done = box.call("--timeout", "0.1", "broken", "x")
    assert done.returncode in (LOST, REFUSED), done
    assert service.end() == 0
    said = re.findall(r"started again in (\S+ \S+)", service.err)
    assert said[:3] == ["100 ms", "200 ms", "400 ms"], service.err


@test
def a_process_that_speaks_unasked_is_started_anew(box):
    service = worker(box)
    assert box.call("work", "chatter").stdout == b"ok"
    wait_until(lambda: len(starts(service)) == 2, "it is started again")
    assert box.call("work", "count").stdout == b"1"
    service.end()
    assert "before it was asked" in service.err, service.err


@test
def a_process_that_closes_its_output_is_ended(box):
    service = worker(box, "--kill-after", "30")
    done = box.call("work", "close")
    assert done.returncode == ABORTED and b" 143\n" in done.stderr, done
    assert box.call("work", "hello").stdout == b"hello"
    assert len(starts(service)) == 2


@test
def a_caller_that_goes_does_not_disturb_the_next(box):
    service = worker(box)
    go = box.path / "go"
    # How long a call needs to get to the process is the machine's affair.
    for seconds in (0.2, 2, 20):
        done = box.call("--timeout", seconds, "work", f"await {go}")
        assert done.returncode in (LOST, REFUSED), done
        if "await" in service.trace.read_text():
            break
    assert done.returncode == LOST, done
    go.touch()
    assert box.call("work", "hello").stdout == b"hello"
    client = box.start("call", "work", "many 100000000")
    os.read(client.stdout.fileno(), 1000)
    client.kill()
    client.communicate()
    assert box.call("work", "hello").stdout == b"hello"
    assert len(starts(service)) == 1


@test
def a_caller_that_waits_and_goes(box):
    service = worker(box)
    go = box.path / "go"
    first = box.start("call", "work", f"await {go}")
    wait_until(lambda: "await" in service.trace.read_text(), "it waits")
    done = box.call("--timeout", "0.1", "work", "never")
    assert done.returncode in (LOST, REFUSED), done
    go.touch()
    assert first.wait(timeout=TIMEOUT) == ANSWERED
    first.communicate()
    assert box.call("work", "hello").stdout == b"hello"
    assert "never" not in service.trace.read_text()


@test
def slow_senders_hold_up_nobody(box):
    service = worker(box)
    slow = [box.start("call", "work", "-", stdin=subprocess.PIPE) for _ in range(20)]
    for client in slow:
        client.stdin.write(b"first ")
        client.stdin.flush()
    wait_until(lambda: box.has_calls("work", 20), "all are there")
    assert box.call("work", "hello").stdout == b"hello"
    for client in slow[:10]:
        client.stdin.write(b"last")
        assert client.communicate(timeout=TIMEOUT)[0] == b"first last"
    for client in slow[10:]:
        client.kill()
        client.communicate()
    assert box.call("work", "hello").stdout == b"hello"
    assert len(starts(service)) == 1


@test
def requests_have_a_limit(box):
    worker(box, "--request-max", "1M")
    data = bytes(1 << 20)
    assert box.call("work", "-", input=data).stdout == data
    done = box.call("work", "-", input=data + b"x")
    assert done.returncode == REFUSED and b"policy" in done.stderr, done
    done = box.call("work", "-", input=bytes(20 << 20))
    assert done.returncode == REFUSED, done
    assert box.call("work", "hello").stdout == b"hello"


@test
def a_small_limit_holds_for_small_requests(box):
    worker(box, "--request-max", "10")
    assert box.call("work", "0123456789").stdout == b"0123456789"
    assert box.call("work", "0123456789a").returncode == REFUSED


@test
def descriptors_are_refused(box):
    service = worker(box)
    done = box.call("--fd", "/dev/null", "work", "hello")
    assert done.returncode == REFUSED and b"policy" in done.stderr, done
    assert box.call("work", "hello").stdout == b"hello"
    assert "hello" in service.trace.read_text() and service.trace.read_text().count("hello") == 1


@test
def the_end_is_orderly(box):
    service = worker(box)
    client = box.start("call", "work", "sleep 600")
    wait_until(lambda: "sleep" in service.trace.read_text(), "it sleeps")
    waiting = box.start("call", "work", "hello")
    wait_until(lambda: box.has_calls("work", 2), "both are there")
    (pid,) = starts(service)
    assert service.end() == 0
    assert client.wait(timeout=TIMEOUT) == ABORTED and waiting.wait(timeout=TIMEOUT) == REFUSED
    client.communicate()
    waiting.communicate()
    assert not is_running(pid)


@test
def a_caller_that_does_not_read_does_not_keep_it_alive(box):
    def begin(kill_after):
        service = worker(box, "--kill-after", kill_after)
        client = box.start("call", "--timeout", "forever", "work", "many 3000000")
        wait_until(lambda: 0 < unread(client.stdout) == unread(client.stdout, 0.3), "the reply is held up")
        return service, client

    def end(client):
        client.communicate(timeout=TIMEOUT)
        return client.returncode

    service, client = begin("0.3")
    assert service.end() == 0
    assert end(client) == ABORTED
    service, client = begin("60")
    service.send_signal(signal.SIGTERM)
    began = time.monotonic()
    time.sleep(0.2)
    assert service.end() == 0 and time.monotonic() - began < 40, "a second signal ends it at once"
    assert end(client) == ABORTED


@test
def a_killed_server_takes_its_process_along(box):
    service = worker(box)
    assert box.call("work", "hello").stdout == b"hello"
    (pid,) = starts(service)
    service.end(signal.SIGKILL)
    wait_until(lambda: not is_running(pid), "it still runs")


main()
