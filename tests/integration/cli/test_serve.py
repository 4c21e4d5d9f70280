#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""antiphon serve with one process per call."""

import json
import os
import random
import signal
import subprocess
import threading
import time

from harness import ABORTED, ANSWERED, FAILED, LOST, REFUSED, TIMEOUT, is_running, main, test, wait_until


def rss_kib(pid):
    with open(f"/proc/{pid}/status", encoding="utf-8") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("RssAnon:"))


@test
def the_environment_tells_who_calls(box):
    box.serve("env", "--", "env")
    done = box.call("--timeout", "20", "env")
    env = dict(line.split("=", 1) for line in done.stdout.decode().splitlines() if "=" in line)
    assert env["ANTIPHON_NAME"].startswith("caps:env"), env
    assert env["ANTIPHON_CALLER_UID"] == env["ANTIPHON_CALLER_EUID"] == str(os.getuid()), env
    assert env["ANTIPHON_CALLER_GID"] == env["ANTIPHON_CALLER_EGID"] == str(os.getgid()), env
    assert 0 < int(env["ANTIPHON_TIMEOUT_MS"]) <= 20000, env
    assert "LISTEN_FDS" not in env and "LISTEN_PID" not in env, env
    done = box.call("--timeout", "forever", "env")
    assert b"ANTIPHON_TIMEOUT_MS" not in done.stdout, done

    box.serve("pid", "--", "sh", "-c", "echo $ANTIPHON_CALLER_PID")
    process = box.start("call", "pid")
    out, _ = process.communicate(timeout=TIMEOUT)
    assert int(out) == process.pid


@test
def what_was_announced_to_serve_is_not_passed_on(box):
    box.env["LISTEN_FDS"] = "1"
    box.env["LISTEN_PID"] = "1"
    box.env["ANTIPHON_CALLER_UID"] = "4711"
    box.serve("env", "--", "env")
    lines = box.call("env").stdout.decode().splitlines()
    assert not [line for line in lines if line.startswith("LISTEN_")], lines
    assert [line for line in lines if line.startswith("ANTIPHON_CALLER_UID=")] == [
        f"ANTIPHON_CALLER_UID={os.getuid()}"
    ], lines


@test
def exit_statuses_become_codes(box):
    box.serve("exit", "--", "sh", "-c", 'exit "$(cat)"')
    for status in (1, 2, 77, 255):
        done = box.call("exit", str(status))
        assert done.returncode == ABORTED and f" {status}\n".encode() in done.stderr, done
    assert box.call("exit", "0").returncode == ANSWERED


@test
def signals_become_codes(box):
    box.serve("signal", "--", "sh", "-c", 'kill -"$(cat)" $$')
    for number in (signal.SIGTERM, signal.SIGKILL, signal.SIGSEGV):
        done = box.call("signal", str(int(number)))
        assert done.returncode == ABORTED and f" {128 + number}\n".encode() in done.stderr, done


@test
def a_command_that_vanishes_is_127(box):
    path = box.write("command", "#!/bin/sh\ncat\n", 0o755)
    box.serve("vanish", "--", path)
    assert box.call("vanish", "hello").stdout == b"hello"
    path.chmod(0o644)
    if os.getuid() != 0 or not os.access(path, os.X_OK):
        assert b" 126\n" in box.call("vanish", "hello").stderr
    path.unlink()
    done = box.call("vanish", "hello")
    assert done.returncode == ABORTED and b" 127\n" in done.stderr, done


@test
def a_full_disk_does_not_change_that(box):
    command = box.write("command", "#!/bin/sh\n", 0o755)
    with open("/dev/full", "wb") as full:
        process = box.start("serve", "--json", "x", "--", command, stderr=full)
    process.stdout.readline()
    command.unlink()
    done = box.call("x")
    assert done.returncode == ABORTED and b" 127\n" in done.stderr, done
    process.terminate()
    process.communicate(timeout=TIMEOUT)


@test
def an_abort_after_part_of_the_reply(box):
    box.serve("partial", "--", "sh", "-c", "echo part; sleep 0.2; exit 3")
    done = box.call("partial")
    assert done.returncode == ABORTED and b" 3\n" in done.stderr, done
    assert done.stdout in (b"", b"part\n"), done


@test
def a_command_need_not_read_its_request(box):
    box.serve("deaf", "--", "sh", "-c", "exec <&-; sleep 0.2; echo done")
    done = box.call("deaf", "-", input=random.Random(3).randbytes(5 << 20))
    assert (done.returncode, done.stdout) == (ANSWERED, b"done\n"), done
    box.serve("head", "--", "head", "-c", "5")
    done = box.call("head", "-", input=b"hello" + bytes(5 << 20))
    assert (done.returncode, done.stdout) == (ANSWERED, b"hello"), done


@test
def the_reply_ends_when_everybody_has_closed_it(box):
    box.serve("heir", "--", "sh", "-c", "(sleep 0.3; echo second) & echo first")
    done = box.call("heir")
    assert (done.returncode, done.stdout) == (ANSWERED, b"first\nsecond\n"), done


@test
def a_command_that_closes_its_output_first(box):
    box.serve("early", "--", "sh", "-c", "echo all; exec >&-; sleep 0.3; exit 9")
    done = box.call("early")
    assert done.returncode == ABORTED and b" 9\n" in done.stderr, done


@test
def standard_error_is_inherited(box):
    service = box.serve("noisy", "--", "sh", "-c", "echo complaint >&2; echo fine")
    assert box.call("noisy").stdout == b"fine\n"
    service.end()
    assert service.err == "complaint\n", service.err


@test
def processes_at_once_are_bounded(box):
    trace, go = box.write("trace", b""), box.path / "go"
    script = f"echo + >>{trace}; while [ ! -e {go} ]; do sleep 0.05; done; echo - >>{trace}; cat"
    box.serve("busy", "--max", "3", "--", "sh", "-c", script)
    clients = [box.start("call", "busy", str(i)) for i in range(12)]
    wait_until(lambda: trace.read_text().count("+") == 3, "calls run at the same time")
    go.touch()
    for i, client in enumerate(clients):
        out, err = client.communicate(timeout=TIMEOUT)
        assert (client.returncode, out) == (ANSWERED, str(i).encode()), err
    now = peak = 0
    for line in trace.read_text().split():
        now += 1 if line == "+" else -1
        peak = max(peak, now)
    assert peak == 3 and trace.read_text().count("+") == 12, peak


@test
def a_crowd_of_one_client_does_not_hold_up_others(box):
    go = box.path / "go"
    service = box.serve("busy", "--max", "1", "--", "sh", "-c", f"while [ ! -e {go} ]; do sleep 0.05; done; cat")
    crowd = box.start("call", "--repeat", "60", "--parallel", "60", "busy", "x")
    wait_until(lambda: box.has_calls("busy", 60), "the crowd is there")
    other = box.start("call", "busy", "other")
    wait_until(lambda: box.has_calls("busy", 61), "all are there")
    go.touch()
    assert other.communicate(timeout=TIMEOUT)[0] == b"other"
    assert crowd.wait(timeout=TIMEOUT) == ANSWERED
    crowd.communicate()
    lengths = [service.log()["request_bytes"] for _ in range(61)]
    assert lengths.index(5) < 5, f"it had to wait for the crowd: {lengths}"


@test
def calls_that_wait_end_at_their_deadline(box):
    service = box.serve("busy", "--max", "1", "--", "sleep", "60")
    first = box.start("call", "busy")
    wait_until(lambda: len(box.processes()) == 3, "the command runs")
    done = box.call("--timeout", "0.3", "busy")
    assert done.returncode in (LOST, REFUSED) and b"deadline" in done.stderr, done
    assert service.log()["outcome"] == "gone"
    first.kill()
    first.communicate()
    assert service.log()["outcome"] == "gone"


@test
def a_client_that_goes_ends_the_whole_group(box):
    pids = box.path / "pids"
    script = f"sleep 60 & echo $! >{pids}; sleep 61; echo never"
    service = box.serve("family", "--", "sh", "-c", script)
    client = box.start("call", "family")
    wait_until(lambda: pids.exists() and pids.read_text().strip(), "the command runs")
    wait_until(lambda: len(box.processes()) == 5, "all run")
    client.kill()
    client.communicate()
    wait_until(lambda: box.processes() == [service.pid], "the group still runs")


@test
def a_process_that_ignores_sigterm_is_killed(box):
    ready = box.path / "ready"
    script = f'trap "" TERM; echo $$ >{ready}; while :; do sleep 0.1; done'
    service = box.serve("stubborn", "--kill-after", "2.4", "--", "sh", "-c", script)
    client = box.start("call", "stubborn")
    wait_until(lambda: ready.exists() and ready.read_text().strip(), "the command runs")
    pid = int(ready.read_text())
    went = time.monotonic()
    client.kill()
    client.communicate()
    wait_until(lambda: not is_running(pid), "it was not killed")
    # The default is 2 s.
    assert time.monotonic() - went > 2.39, "it was killed before its time"
    assert service.log()["outcome"] == "gone"


@test
def a_killed_server_takes_its_processes_along(box):
    service = box.serve("slow", "--", "sleep", "60")
    client = box.start("call", "slow")
    wait_until(lambda: len(box.processes()) == 3, "the command runs")
    service.end(signal.SIGKILL)
    assert client.wait(timeout=TIMEOUT) == LOST
    client.communicate()
    wait_until(lambda: box.processes() == [], "the command still runs")


@test
def a_stale_name_is_taken_over(box):
    box.serve("again", "--", "echo", "old").end(signal.SIGKILL)
    assert box.call("again").returncode == REFUSED
    box.serve("again", "--", "echo", "new")
    assert box.call("again").stdout == b"new\n"


@test
def sigterm_ends_everything_in_order(box):
    service = box.serve("slow", "--max", "1", "--", "sleep", "60")
    running = box.start("call", "slow")
    wait_until(lambda: len(box.processes()) == 3, "the command runs")
    waiting = box.start("call", "slow")
    wait_until(lambda: box.has_calls("slow", 2), "both are there")
    assert service.end() == 0
    assert waiting.wait(timeout=TIMEOUT) == REFUSED
    assert running.wait(timeout=TIMEOUT) == ABORTED
    assert b" 143\n" in running.communicate()[1]
    assert b"REFUSED" in waiting.communicate()[1]
    assert sorted(r["outcome"] for r in service.rest) == ["aborted", "refused"], service.rest


@test
def nohup_keeps_it_from_a_hangup(box):
    def ignore():
        signal.signal(signal.SIGHUP, signal.SIG_IGN)

    service = box.serve("kept", "--", "cat", preexec_fn=ignore)
    service.send_signal(signal.SIGHUP)
    time.sleep(0.1)
    assert box.call("kept", "here").stdout == b"here"
    other = box.serve("other", "--", "cat")
    other.send_signal(signal.SIGHUP)
    assert other.end() == 0 and box.call("kept", "here").stdout == b"here"


@test
def a_graceful_command_may_still_answer(box):
    script = 'trap "echo bye; exit 0" TERM; echo ready; while :; do sleep 0.05; done'
    service = box.serve("polite", "--", "sh", "-c", script)
    client = box.start("call", "polite")
    assert os.read(client.stdout.fileno(), 100) == b"ready\n"
    assert service.end() == 0
    out, err = client.communicate(timeout=TIMEOUT)
    assert (client.returncode, out) == (ANSWERED, b"bye\n"), err


@test
def stubborn_commands_do_not_keep_it_alive(box):
    script = 'trap "echo no" TERM; echo ready; while :; do sleep 0.1; done'
    service = box.serve("stubborn", "--kill-after", "0.3", "--", "sh", "-c", script)
    client = box.start("call", "stubborn")
    assert os.read(client.stdout.fileno(), 100) == b"ready\n"
    assert service.end() == 0
    assert client.wait(timeout=TIMEOUT) == ABORTED
    assert b" 137\n" in client.communicate()[1]

    service = box.serve("stubborn", "--kill-after", "60", "--", "sh", "-c", script)
    client = box.start("call", "stubborn")
    assert os.read(client.stdout.fileno(), 100) == b"ready\n"
    service.send_signal(signal.SIGINT)
    assert os.read(client.stdout.fileno(), 100) == b"no\n"
    began = time.monotonic()
    assert service.end(signal.SIGINT) == 0 and time.monotonic() - began < 40, "a second signal ends it at once"
    assert client.wait(timeout=TIMEOUT) == ABORTED
    client.communicate()


@test
def an_output_that_others_hold_does_not_keep_it_alive(box):
    script = '(trap "" TERM; exec sleep 600) & echo begun; exit 0'

    def begin(kill_after):
        service = box.serve("held", "--kill-after", kill_after, "--", "sh", "-c", script)
        client = box.start("call", "held")
        assert os.read(client.stdout.fileno(), 100) == b"begun\n"
        wait_until(lambda: not [p for p in children(service) if comm(p) == "sh" and is_running(p)], "it ended")
        return service, client

    def lost(client):
        out, err = client.communicate(timeout=TIMEOUT)
        return client.returncode == LOST and b"may have run" in err and out == b""

    service, client = begin("0.3")
    assert service.end() == 0
    assert lost(client), "nobody can say that the reply is whole"
    service, client = begin("60")
    service.send_signal(signal.SIGTERM)
    time.sleep(0.2)
    began = time.monotonic()
    assert service.end() == 0 and time.monotonic() - began < 40, "a second signal ends it at once"
    assert lost(client), "nobody can say that the reply is whole"


@test
def an_exclusive_name_is_served_once(box):
    box.serve("only", "--exclusive", "--", "echo", "first")
    done = box.run("serve", "--exclusive", "only", "--", "echo", "second")
    assert done.returncode == FAILED and b"only" in done.stderr, done
    assert box.call("only").stdout == b"first\n"


@test
def the_newest_of_several_is_called(box):
    box.serve("one", "--", "echo", "first")
    second = box.serve("one", "--", "echo", "second")
    assert box.call("one").stdout == b"second\n"
    assert second.end() == 0
    assert box.call("one").stdout == b"first\n"


@test
def a_record_of_every_call(box):
    service = box.serve("echo", "--", "cat")
    assert service.announced["pid"] == service.pid and service.announced["address"].startswith("caps:echo")
    box.call("echo", "hello")
    record = service.log()
    assert record["event"] == "call" and record["number"] == 1 and record["outcome"] == "answered", record
    assert record["request_bytes"] == record["reply_bytes"] == 5 and record["uid"] == os.getuid(), record
    assert record["ms"] > 0 and record["code"] == 0, record

    process = box.start("serve", "--log", "text", "--", "cat")
    assert process.stdout.readline().startswith(b"serving caps:text")
    box.call("text", "hello")
    line = process.stdout.readline().decode()
    assert "answered" in line and "5 B in, 5 B out" in line, line
    process.terminate()
    assert process.wait(timeout=TIMEOUT) == 0
    process.communicate()


@test
def a_command_that_does_not_read_holds_up_its_caller_alone(box):
    service = box.serve("wall", "--", "sh", "-c", 'read x; if [ "$x" = stop ]; then sleep 60; else echo ok; fi')
    client = box.start("call", "wall", "-", stdin=subprocess.PIPE)
    client.stdin.write(b"stop\n")
    client.stdin.flush()
    os.set_blocking(client.stdin.fileno(), False)
    sent = 0
    still = time.monotonic()
    while time.monotonic() - still < 0.5:
        try:
            sent += os.write(client.stdin.fileno(), bytes(65536))
            still = time.monotonic()
        except BlockingIOError:
            time.sleep(0.01)
        assert sent < 16 << 20, "nobody held it up"
    assert rss_kib(service.pid) < 16384 and rss_kib(client.pid) < 16384
    assert box.call("wall", "go").stdout == b"ok\n", "others have to wait"
    client.kill()
    client.communicate()


@test
def a_caller_that_does_not_read_holds_up_its_command_alone(box):
    service = box.serve("flood", "--", "sh", "-c", 'if [ "$(cat)" = more ]; then exec yes; fi; echo ok')
    client = box.start("call", "flood", "more")

    def commands():
        return [pid for pid in box.processes() if comm(pid) == "yes"]

    wait_until(commands, "it writes")
    (command,) = commands()
    wait_until(lambda: written(command) == written(command, 0.3), "it writes on and on")
    assert written(command) < 16 << 20
    assert rss_kib(service.pid) < 16384 and rss_kib(client.pid) < 16384
    assert box.call("flood", "less").stdout == b"ok\n", "others have to wait"
    client.kill()
    client.communicate()


def comm(pid):
    try:
        with open(f"/proc/{pid}/comm", encoding="utf-8") as file:
            return file.read().strip()
    except OSError:
        return None


def written(pid, after=0.0):
    time.sleep(after)
    with open(f"/proc/{pid}/io", encoding="utf-8") as io:
        return next(int(line.split()[1]) for line in io if line.startswith("wchar:"))


@test
def many_clients_at_once(box):
    box.serve("echo", "--max", "4", "--", "cat")
    wrong = []

    def client(seed):
        data = random.Random(seed).randbytes(seed * 70001 % 1000000)
        for _ in range(5):
            done = box.call("echo", "-", input=data)
            if done.returncode != ANSWERED or done.stdout != data:
                wrong.append((seed, done.returncode, done.stderr))

    threads = [threading.Thread(target=client, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong, wrong


@test
def descriptors_are_not_leaked(box):
    service = box.serve("echo", "--", "cat")
    path = box.write("file", b"x")
    box.call("echo", "warm up")
    before = os.listdir(f"/proc/{service.pid}/fd")
    for _ in range(5):
        box.call("echo", "hello")
        box.call("--fd", path, "echo", "hello")
        box.call("--timeout", "0.001", "echo", "hello")
    wait_until(lambda: len(os.listdir(f"/proc/{service.pid}/fd")) <= len(before), "descriptors are left")


@test
def commands_inherit_no_descriptors(box):
    box.serve("fds", "--", "ls", "/proc/self/fd")
    # The last one is the directory that ls looks at.
    assert box.call("fds").stdout.split() == [b"0", b"1", b"2", b"3"]
    assert box.call("--fd", "/dev/null", "fds").stdout.split() == [b"0", b"1", b"2", b"3", b"4"]


@test
def signals_are_as_they_were(box):
    box.serve("mask", "--", "grep", "-E", "Sig(Blk|Ign)", "/proc/self/status")
    lines = dict(line.split(":") for line in box.call("mask").stdout.decode().splitlines())
    assert int(lines["SigBlk"], 16) == 0, lines
    assert int(lines["SigIgn"], 16) & 1 << (signal.SIGPIPE - 1) == 0, lines


@test
def a_log_that_nobody_reads_does_not_end_it(box):
    read_end, write_end = os.pipe()
    process = box.start("serve", "--json", "echo", "--", "cat", stdout=write_end)
    os.close(write_end)
    with os.fdopen(read_end) as log:
        assert json.loads(log.readline())["event"] == "serving"
    assert box.call("echo", "one").stdout == b"one"
    assert box.call("echo", "two").stdout == b"two"
    process.terminate()
    assert process.wait(timeout=TIMEOUT) == 0
    process.communicate()


def children(service):
    with open(f"/proc/{service.pid}/task/{service.pid}/children", encoding="utf-8") as pids:
        return pids.read().split()


def ended_by_itself(service):
    return service.process.poll() is not None and service.end() == 0


@test
def a_newcomer_takes_over(box):
    """What runs is finished by the one before; who comes later, or comes again, meets the newcomer."""
    first = box.serve("--give", "name", "--", "sh", "-c", 'read -r word; [ "$word" = slow ] && cat; echo first')
    slow = box.start("call", "name", "-", stdin=subprocess.PIPE)
    slow.stdin.write(b"slow\n")
    slow.stdin.flush()
    wait_until(lambda: children(first), "the slow call has a process")
    assert box.call("name", "x\n").stdout == b"first\n"
    second = box.serve("--give", "--take", "name", "--", "sh", "-c", "cat >/dev/null; echo second")
    assert box.call("name", "x\n").stdout == b"second\n"
    assert first.process.poll() is None
    out, err = slow.communicate(b"more\n", timeout=TIMEOUT)
    assert out == b"more\nfirst\n" and slow.returncode == ANSWERED, (out, err)
    wait_until(lambda: ended_by_itself(first), "the first has nothing to do any more")
    assert len(box.sockets()) == 1
    third = box.serve("--take", "name", "--", "sh", "-c", "cat >/dev/null; echo third")
    wait_until(lambda: ended_by_itself(second), "the second has nothing to do any more")
    assert box.call("name", "x\n").stdout == b"third\n"
    # This one does not give: both serve, and the newest is found.
    box.serve("--take", "name", "--", "sh", "-c", "cat >/dev/null; echo fourth")
    assert box.call("name", "x\n").stdout == b"fourth\n"
    assert third.process.poll() is None


def has_answered(box, service):
    done = box.run("ls", "--json", "busy")
    return done.returncode == ANSWERED and any(
        entry["pid"] == service.pid and entry.get("calls", 0) > 0 for entry in json.loads(done.stdout)
    )


@test
def nobody_notices_a_newcomer(box):
    """Clients in the middle of many calls lose none of them."""
    for mode, command in (([], ["cat"]), (["--persistent"], ["cat"])):
        services = [box.serve("--give", *mode, "busy", "--", *command)]
        results = []

        def callers(results=results, services=services):
            while len(services) < 6 or not results:
                done = box.call("--repeat", "300", "--parallel", "4", "--json", "busy", "hello")
                results.append(done)
                if done.returncode != ANSWERED:
                    break

        thread = threading.Thread(target=callers)
        thread.start()
        while thread.is_alive() and len(services) < 6:
            wait_until(lambda: not thread.is_alive() or has_answered(box, services[-1]), "it answers calls")
            services.append(box.serve("--give", "--take", *mode, "busy", "--", *command))
        thread.join()
        for done in results:
            assert done.returncode == ANSWERED, done
            assert json.loads(done.stdout)["outcomes"]["answered"] == 300, done
        for service in services[:-1]:
            wait_until(lambda service=service: ended_by_itself(service), "it was relieved")
        assert services[-1].end() == 0


@test
def a_newcomer_asks_the_other_to_end(box):
    first = box.serve("name", "--", "sh", "-c", "sleep 60")
    hanging = box.start("call", "name", "x")
    wait_until(lambda: children(first), "the call has a process")
    box.serve("--terminate", "name", "--", "echo", "second")
    wait_until(lambda: ended_by_itself(first), "it was asked to end")
    assert hanging.wait(timeout=TIMEOUT) == ABORTED
    hanging.communicate()
    assert box.call("name", "x").stdout == b"second\n"
    # One that would give ends when it has answered.
    third = box.serve("--give", "slow", "--", "sh", "-c", "cat; echo third")
    call = box.start("call", "slow", "-", stdin=subprocess.PIPE)
    call.stdin.write(b"begin\n")
    call.stdin.flush()
    wait_until(lambda: children(third), "the call has a process")
    box.serve("--terminate", "slow", "--", "echo", "fourth")
    time.sleep(0.05)
    assert third.process.poll() is None
    out, err = call.communicate(b"end\n", timeout=TIMEOUT)
    assert out == b"begin\nend\nthird\n" and call.returncode == ANSWERED, (out, err)
    wait_until(lambda: ended_by_itself(third), "it has answered")


main()
