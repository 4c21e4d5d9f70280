#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Runs one example service and one client of it, and checks what they say.

The two meet in a runtime directory of their own. The service counts as ready when it has written a
line that starts with "serving" to standard error; it is ended by SIGTERM after the client.
"""

import argparse
import os
import re
import signal
import subprocess
import sys
import tempfile
import time

TIMEOUT_S = 10


def fail(message, *files):
    print(f"FAILED: {message}")
    for name in files:
        with open(name, errors="replace") as f:
            print(f"--- {os.path.basename(name)}:\n{f.read()}")
    sys.exit(1)


def content(name):
    with open(name, errors="replace") as f:
        return f.read()


def wait_until(condition, what, process, *files):
    end = time.monotonic() + TIMEOUT_S
    while not condition():
        if process.poll() is not None:
            fail(f"the service ended with status {process.returncode} before {what}", *files)
        if time.monotonic() > end:
            process.kill()
            fail(f"{what} did not come within {TIMEOUT_S} s", *files)
        time.sleep(0.005)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--expect", default="", help="regular expression for the client's output")
    parser.add_argument("--expect-service", default="", help="the same for the service's output")
    parser.add_argument("--expect-pid", action="store_true", help="the output names the client's pid")
    parser.add_argument("--client-waits", action="store_true",
                        help="the client waits for the service, which says nothing when it is ready")
    parser.add_argument("--upper", type=int, metavar="BYTES",
                        help="feed the client BYTES of text and expect them back in capitals")
    parser.add_argument("service")
    parser.add_argument("client", nargs="+")
    args = parser.parse_args()
    # Both run in the directory of their own.
    args.service, args.client[0] = map(os.path.abspath, (args.service, args.client[0]))

    with tempfile.TemporaryDirectory(prefix="aph-ex.") as directory:
        out, err = f"{directory}/service.out", f"{directory}/service.err"
        os.mkdir(f"{directory}/run", 0o700)
        env = dict(os.environ, ANTIPHON_RUNTIME_DIR=f"{directory}/run")
        with open(out, "wb") as out_file, open(err, "wb") as err_file:
            # Standard input stays open and silent: some services end when it does.
            service = subprocess.Popen([args.service], env=env, cwd=directory, stdin=subprocess.PIPE,
                                       stdout=out_file, stderr=err_file)
        try:
            if not args.client_waits:
                wait_until(lambda: re.search("^serving", content(err), re.M),
                           "its line 'serving'", service, err)

            given = b""
            if args.upper is not None:
                given = (b"the quick brown fox jumps over 13 lazy dogs\n" * (args.upper // 44 + 1))
                given = given[:args.upper]
            client = subprocess.Popen(args.client, env=env, cwd=directory, stdin=subprocess.PIPE,
                                      stdout=subprocess.PIPE, stderr=subprocess.PIPE)
            try:
                got, said = client.communicate(given, timeout=TIMEOUT_S)
            except subprocess.TimeoutExpired:
                client.kill()
                fail(f"the client did not end within {TIMEOUT_S} s", out, err)

            text = got.decode(errors="replace")
            shown = text if len(text) < 2000 else f"({len(text)} characters)"
            if client.returncode != 0:
                fail(f"the client's exit status is {client.returncode}; it said: "
                     f"{said.decode(errors='replace')}{shown}", out, err)
            if not re.search(args.expect, text, re.M):
                fail(f"the client's output does not match /{args.expect}/: {shown}", out, err)
            if args.expect_pid and f"pid {client.pid}," not in text:
                fail(f"pid {client.pid} is not in the client's output: {shown}", out, err)
            if args.upper is not None and got != given.upper():
                fail(f"{len(given)} bytes went in, {len(got)} others came out", err)
            wait_until(lambda: re.search(args.expect_service, content(out), re.M),
                       f"/{args.expect_service}/ in its output", service, out, err)
        finally:
            service.stdin.close()
            if service.poll() is None:
                service.send_signal(signal.SIGTERM)
            try:
                status = service.wait(TIMEOUT_S)
            except subprocess.TimeoutExpired:
                service.kill()
                status = service.wait()
        if status not in (0, -signal.SIGTERM):
            fail(f"the service ended with status {status}", out, err)
        print(shown, end="")


main()
