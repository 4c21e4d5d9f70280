#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""antiphon call: where the request comes from, where the reply goes, and what the exit status says."""

import contextlib
import hashlib
import json
import os
import pty
import random
import signal
import subprocess
import time

from harness import ABORTED, ANSWERED, FAILED, LOST, REFUSED, TIMEOUT, is_running, main, test, wait_until

EVERY_BYTE = bytes(range(256)) * 3


@test
def a_text_comes_back(box):
    box.serve("echo", "--", "cat")
    done = box.call("echo", "hello")
    assert (done.returncode, done.stdout, done.stderr) == (ANSWERED, b"hello", b""), done


@test
def a_text_may_look_like_an_option(box):
    box.serve("echo", "--", "cat")
    assert box.call("echo", "--", "--help").stdout == b"--help"
    assert box.call("caps:echo", "").stdout == b""


@test
def without_a_request_it_is_empty(box):
    box.serve("count", "--", "wc", "-c")
    done = box.call("count", input=b"not this")
    assert done.stdout.strip() == b"0", done


@test
def files_and_standard_input_keep_every_byte(box):
    box.serve("echo", "--", "cat")
    path = box.write("bytes", EVERY_BYTE)
    assert box.call("--in", path, "echo").stdout == EVERY_BYTE
    assert box.call("echo", "-", input=EVERY_BYTE).stdout == EVERY_BYTE
    assert box.call("--in", "-", "echo", input=EVERY_BYTE).stdout == EVERY_BYTE
    assert box.call("echo", "-", input=b"").stdout == b""
    assert box.call("--in", "/dev/null", "echo").stdout == b""


@test
def a_fifo_is_waited_for_until_the_deadline(box):
    box.serve("echo", "--", "cat")
    fifo = box.path / "fifo"
    os.mkfifo(fifo)
    done = box.call("--timeout", "0.2", "--in", fifo, "echo")
    assert done.returncode == REFUSED and b"deadline" in done.stderr, done
    process = box.start("call", "--in", fifo, "echo")
    with open(fifo, "wb") as file:
        file.write(EVERY_BYTE)
    assert process.communicate(timeout=TIMEOUT) == (EVERY_BYTE, b"")
    assert process.returncode == ANSWERED


@test
def lengths_around_every_boundary(box):
    box.serve("echo", "--", "cat")
    data = random.Random(1).randbytes(300000)
    for n in (1, 23, 39, 40, 41, 63, 64, 65, 4095, 4096, 4097, 16384, 65535, 65536, 65537, 262144, 262145, 300000):
        done = box.call("echo", "-", input=data[:n])
        assert done.returncode == ANSWERED and done.stdout == data[:n], (n, len(done.stdout), done.stderr)


@test
def large_bodies_both_ways_at_once(box):
    box.serve("echo", "--", "cat")
    data = random.Random(2).randbytes(64 << 20)
    path = box.write("large", data)
    out = box.path / "out"
    with open(out, "wb") as file:
        done = box.call("--in", path, "echo", stdout=file)
    assert done.returncode == ANSWERED, done
    assert hashlib.sha256(out.read_bytes()).digest() == hashlib.sha256(data).digest()
    done = box.call("echo", "-", input=data)
    assert done.returncode == ANSWERED and done.stdout == data, done.stderr


@test
def a_reply_that_is_larger_than_its_request(box):
    box.serve("many", "--", "sh", "-c", "head -c 20000000 /dev/zero")
    done = box.call("many")
    assert done.returncode == ANSWERED and done.stdout == bytes(20000000), done.stderr


@test
def a_slow_reader_gets_everything(box):
    box.serve("many", "--", "sh", "-c", "seq 1 200000")
    process = box.start("call", "many")
    out = b""
    while True:
        piece = os.read(process.stdout.fileno(), 30000)
        if not piece:
            break
        out += piece
        time.sleep(0.005)
    assert process.wait() == ANSWERED and process.stderr.read() == b""
    process.stdout.close()
    process.stderr.close()
    assert out == b"".join(b"%d\n" % i for i in range(1, 200001))


@test
def the_reply_flows_before_the_request_has_ended(box):
    box.serve("echo", "--", "cat")
    process = box.start("call", "echo", "-", stdin=subprocess.PIPE)
    for word in (b"one", b"two", b"three"):
        process.stdin.write(word)
        process.stdin.flush()
        assert os.read(process.stdout.fileno(), 100) == word
    out, err = process.communicate(timeout=TIMEOUT)
    assert (process.returncode, out, err) == (ANSWERED, b"", b"")


@test
def nobody_serves(box):
    done = box.call("nobody", "hello")
    assert done.returncode == REFUSED and done.stdout == b"", done
    assert b"REFUSED" in done.stderr and b"nobody" in done.stderr, done


@test
def waiting_for_a_service(box):
    process = box.start("call", "--wait", "late", "hello")
    time.sleep(0.3)
    assert process.poll() is None
    box.serve("late", "--", "cat")
    out, err = process.communicate(timeout=TIMEOUT)
    assert (process.returncode, out, err) == (ANSWERED, b"hello", b"")


@test
def waiting_in_vain_is_refused(box):
    began = time.monotonic()
    done = box.call("--wait", "--timeout", "0.3", "never", "hello")
    assert done.returncode == REFUSED and 0.25 < time.monotonic() - began < TIMEOUT / 2, done


@test
def an_abort_tells_its_code(box):
    box.serve("picky", "--", "sh", "-c", "cat >/dev/null; exit 7")
    done = box.call("picky", "hello")
    assert done.returncode == ABORTED and b"ABORTED" in done.stderr and b" 7\n" in done.stderr, done
    done = box.call("--json", "picky", "hello")
    assert done.returncode == ABORTED and done.stdout == b"", done
    result = json.loads(done.stderr)
    assert (result["outcome"], result["code"]) == ("ABORTED", 7), result


@test
def a_deadline_passes(box):
    ran = box.path / "ran"
    service = box.serve("slow", "--", "sh", "-c", f"echo >{ran}; exec sleep 600")
    # How long a call needs to get to the command is the machine's affair; before that it is refused, or lost.
    for seconds in (0.3, 3, 30):
        began = time.monotonic()
        done = box.call("--timeout", seconds, "slow", "hello")
        assert time.monotonic() - began > seconds * 0.8
        assert done.returncode in (LOST, REFUSED) and b"deadline" in done.stderr, done
        wait_until(lambda: box.processes() == [service.pid], "the command still runs")
        if ran.exists():
            break
    assert ran.exists(), "nothing ran in time"
    assert done.returncode == LOST and b"LOST" in done.stderr, done


@test
def a_deadline_passes_while_the_request_is_typed(box):
    box.serve("echo", "--", "cat")


    def call(seconds, typed):
        process = box.start("call", "--timeout", str(seconds), "echo", "-", stdin=subprocess.PIPE)
        with contextlib.suppress(BrokenPipeError):
            process.stdin.write(typed)
            process.stdin.flush()
        status = process.wait(timeout=TIMEOUT)
        assert b"deadline" in process.stderr.read()
        out = process.stdout.read()
        with contextlib.suppress(BrokenPipeError):
            process.stdin.close()
        process.stdout.close()
        process.stderr.close()
        return status, out

    # Nobody has received anything of this one.
    assert call(0.4, b"") == (REFUSED, b"")
    # And this is lost if there was time to receive what was typed.
    for seconds in (0.4, 4, 40):
        status, out = call(seconds, b"something")
        if out:
            break
        assert status in (LOST, REFUSED), status
    assert (status, out) == (LOST, b"something")


@test
def for_ever_is_a_choice(box):
    box.serve("slow", "--", "sh", "-c", "sleep 0.5; echo done")
    done = box.call("--timeout", "forever", "slow")
    assert (done.returncode, done.stdout) == (ANSWERED, b"done\n"), done


@test
def a_killed_service_loses_the_call_at_once(box):
    service = box.serve("slow", "--", "sleep", "60")
    process = box.start("call", "--timeout", "60", "slow", "hello")
    wait_until(lambda: len(box.processes()) == 3, "the command runs")
    began = time.monotonic()
    service.end(signal.SIGKILL)
    out, err = process.communicate(timeout=TIMEOUT)
    assert process.returncode == LOST and out == b"" and b"closed" in err, err
    assert time.monotonic() - began < 30, "it waited for its deadline"


@test
def one_call_reports_as_json(box):
    box.serve("echo", "--", "cat")
    done = box.call("--json", "echo", "hello")
    assert (done.returncode, done.stdout) == (ANSWERED, b"hello"), done
    result = json.loads(done.stderr)
    assert result["outcome"] == "ANSWERED" and result["code"] == 0, result
    assert result["request_bytes"] == 5 and result["reply_bytes"] == 5, result
    assert 0 < result["seconds"] < 30, result
    done = box.call("--json", "nobody", "hello")
    assert done.returncode == REFUSED and json.loads(done.stderr)["outcome"] == "REFUSED", done


@test
def a_request_that_cannot_be_read_fails(box):
    box.serve("echo", "--", "cat")
    done = box.call("--in", box.path / "no-such-file", "echo")
    assert done.returncode == FAILED and b"no-such-file" in done.stderr, done
    done = box.call("--in", box.path, "echo")
    assert done.returncode == FAILED and done.stdout == b"", done


@test
def a_reply_that_cannot_be_written_fails(box):
    box.serve("echo", "--", "cat")
    with open("/dev/full", "wb") as full:
        done = box.call("echo", "hello", stdout=full)
    assert done.returncode == FAILED and b"cannot write" in done.stderr, done


@test
def a_reader_that_leaves_ends_call_and_command(box):
    service = box.serve("endless", "--", "yes")
    command = f'"{box.program}" call endless | head -c 10'
    done = subprocess.run(command, shell=True, env=box.env, capture_output=True, timeout=TIMEOUT, check=False)
    assert done.stdout == b"y\ny\ny\ny\ny\n", done
    assert service.log()["outcome"] == "gone"
    wait_until(lambda: box.processes() == [service.pid], "yes is still there")


@test
def standard_output_keeps_its_blocking_mode(box):
    box.serve("many", "--", "sh", "-c", "seq 1 100000")
    read_end, write_end = os.pipe()
    process = box.start("call", "many", stdout=write_end)
    # The flag belongs to the open file description, which this process shares with the program.
    for _ in range(20):
        assert os.get_blocking(write_end)
        os.read(read_end, 20000)
        time.sleep(0.002)
    os.close(write_end)
    while os.read(read_end, 65536):
        pass
    os.close(read_end)
    out, err = process.communicate(timeout=TIMEOUT)
    assert process.returncode == ANSWERED, err


@test
def sockets_and_append_files_as_output(box):
    import socket

    box.serve("many", "--", "sh", "-c", "seq 1 20000")
    expected = b"".join(b"%d\n" % i for i in range(1, 20001))
    ours, theirs = socket.socketpair()
    process = box.start("call", "many", stdout=theirs.fileno())
    theirs.close()
    out = b""
    while piece := ours.recv(65536):
        out += piece
    ours.close()
    assert process.wait(timeout=TIMEOUT) == ANSWERED and out == expected, process.stderr.read()
    process.stderr.close()

    path = box.write("log", b"before\n")
    with open(path, "ab") as file:
        assert box.call("many", stdout=file).returncode == ANSWERED
    assert path.read_bytes() == b"before\n" + expected


@test
def a_progress_bar_only_where_it_helps(box):
    box.serve("slow", "--", "sh", "-c", "cat >/dev/null; sleep 1")
    path = box.write("body", bytes(5 << 20))
    assert box.call("--in", path, "slow").stderr == b""
    bar = box.call("--in", path, "--progress", "slow").stderr
    assert b"5.00 MiB" in bar and b"100%" in bar and bar.endswith(b"\r\033[K"), bar

    ours, theirs = pty.openpty()
    done = box.call("--in", path, "slow", stderr=theirs)
    shown = os.read(ours, 65536)
    assert done.returncode == ANSWERED and b"100%" in shown, shown
    done = box.call("--in", path, "--quiet", "slow", stderr=theirs)
    os.write(theirs, b"end")
    assert os.read(ours, 65536) == b"end"
    os.close(ours)
    os.close(theirs)


@test
def a_killed_client_leaves_nothing_behind(box):
    service = box.serve("slow", "--", "sleep", "60")
    process = box.start("call", "slow")
    wait_until(lambda: len(box.processes()) == 3, "the command runs")
    (command,) = set(box.processes()) - {service.pid, process.pid}
    process.kill()
    process.communicate()
    wait_until(lambda: not is_running(command), "the command still runs")
    assert service.log()["outcome"] == "gone"


main()
