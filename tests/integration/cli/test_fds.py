#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Descriptors from antiphon call --fd to a command behind antiphon serve."""

import os

from harness import ANSWERED, FAILED, MISUSED, main, test


@test
def a_descriptor_arrives_as_number_three(box):
    secret = box.write("secret", b"what only the caller can open")
    box.serve("read", "--", "sh", "-c", "cat <&3")
    done = box.call("--fd", secret, "read")
    assert (done.returncode, done.stdout) == (ANSWERED, secret.read_bytes()), done


@test
def the_environment_announces_them(box):
    file = box.write("file", b"x")
    box.serve("env", "--", "sh", "-c", 'echo "$LISTEN_FDS" $((LISTEN_PID - $$)); cat')
    assert box.call("--fd", file, "--fd", file, "env", "+body").stdout == b"2 0\n+body"
    assert box.call("env").stdout.startswith(b" ")


@test
def the_order_is_kept(box):
    paths = [box.write(f"file{i}", f"{i} ") for i in range(6)]
    box.serve("order", "--", "sh", "-c", "cat <&3 <&4; cat <&5; cat /dev/fd/6 /dev/fd/7 /dev/fd/8")
    arguments = [word for path in paths for word in ("--fd", path)]
    assert box.call(*arguments, "order").stdout == b"1 2 3 4 5 "


@test
def sixty_four_are_the_most(box):
    paths = [box.write(f"file{i}", f"{i}\n") for i in range(64)]
    script = "i=3; while [ $i -lt 67 ]; do cat /dev/fd/$i; i=$((i + 1)); done"
    box.serve("many", "--", "bash", "-c", script)
    arguments = [word for path in paths for word in ("--fd", path)]
    done = box.call(*arguments, "many")
    assert done.stdout.split() == [str(i).encode() for i in range(64)], done
    done = box.call(*arguments, "--fd", paths[0], "many")
    assert done.returncode == MISUSED and b"64" in done.stderr, done


@test
def a_large_request_comes_with_them(box):
    file = box.write("file", b"from the file")
    box.serve("both", "--", "sh", "-c", "cat; cat <&3")
    data = os.urandom(3 << 20)
    assert box.call("--fd", file, "both", "-", input=data).stdout == data + b"from the file"


@test
def a_directory_can_be_sent(box):
    (box.path / "dir").mkdir()
    box.write("dir/entry", b"")
    box.serve("ls", "--", "ls", "/dev/fd/3/")
    assert box.call("--fd", box.path / "dir", "ls").stdout == b"entry\n"


@test
def a_file_that_cannot_be_opened_fails(box):
    done = box.call("--fd", box.path / "nothing", "x")
    assert done.returncode == FAILED and b"nothing" in done.stderr, done


@test
def repeated_calls_carry_them_too(box):
    service = box.serve("count", "--max", "4", "--", "sh", "-c", '[ "$LISTEN_FDS" = 2 ]')
    file = box.write("file", b"x")
    done = box.call("--fd", file, "--fd", file, "--repeat", "20", "--parallel", "4", "count")
    assert done.returncode == ANSWERED, done
    assert len(os.listdir(f"/proc/{service.pid}/fd")) < 30


@test
def more_than_can_be_under_way_at_once(box):
    box.serve("count", "--max", "4", "--", "sh", "-c", '[ "$LISTEN_FDS" = 64 ]')
    files = ["--fd", "/dev/null"] * 64
    done = box.call(*files, "--repeat", "300", "--parallel", "250", "count", "x" * 10000)
    assert done.returncode == ANSWERED, "some went without them"


@test
def none_cross_the_network(box):
    address = box.serve("rx:127.0.0.1:0/1", "--", "cat").announced["address"]
    for repeat in ([], ["--repeat", "3"], ["--repeat", "30", "--parallel", "4"]):
        done = box.call("--fd", "/dev/null", *repeat, address, "hello")
        assert done.returncode == FAILED and b"descriptors do not cross" in done.stderr, done
        assert done.stdout == b"", done


main()
