#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""HTTP servers are restarted under load, and no request is lost.

test_http.py ANTIPHON HTTP_LOAD [HTTP_RESTART]: the example of this project, and a server that nobody here wrote,
gunicorn, which finds its socket by LISTEN_FDS. With APH_TEST_LONG, or with REQUESTS in the environment, more of
them.
"""

import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "cli"))
from harness import TIMEOUT, Skip, main, test, wait_until  # noqa: E402

LOAD, EXAMPLE = os.path.abspath(sys.argv[2]), os.path.abspath(sys.argv[3]) if len(sys.argv) > 3 else None
del sys.argv[2:]
REQUESTS = int(os.environ.get("REQUESTS", 100000 if os.environ.get("APH_TEST_LONG") else 15000))
APP = """
import os
def app(environ, start):
    start("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "3")])
    return [b"ok\\n"]
"""


def answers(port):
    with socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT) as s:
        s.sendall(b"GET / HTTP/1.0\r\n\r\n")
        return s.recv(4096).split()[1] == b"200"


class Servers:
    def __init__(self, box):
        self.box = box
        with socket.create_server(("127.0.0.1", 0)) as s:
            self.port = s.getsockname()[1]
        self.keeper = box.start("hold")
        assert box.run("hold", "store", "--listen", f"127.0.0.1:{self.port}", "web").returncode == 0
        self.load = None

    def begin(self, requests, threads):
        self.load = subprocess.Popen([LOAD, str(self.port), str(requests), str(threads)], stdout=subprocess.PIPE)

    def is_loaded(self):
        return self.load.poll() is None

    def end(self):
        out, _ = self.load.communicate(timeout=170)
        print("#", out.decode().strip())
        assert self.load.returncode == 0, out
        return json.loads(out)

    def close(self):
        assert self.box.run("hold", "stop").returncode == 0
        self.keeper.communicate(timeout=TIMEOUT)


@test
def the_example_hands_over_to_itself(box):
    if not EXAMPLE:
        raise Skip("libevent is not installed")
    servers = Servers(box)

    def start():
        # In its forty lines the example leaves it to its end to free what it has.
        env = {**box.env, "LSAN_OPTIONS": "exitcode=0"}
        return box.start("hold", "exec", "web", "--", EXAMPLE, env=env)

    process, n_restarts = start(), 0
    assert answers(servers.port)
    time.sleep(0.2)
    servers.begin(REQUESTS, 8)
    while servers.is_loaded():
        following = start()
        # It goes by itself when it has been told.
        assert process.wait(timeout=TIMEOUT) == 0
        process = following
        n_restarts += 1
    result = servers.end()
    print(f"# {n_restarts} restarts")
    assert result["answered"] == REQUESTS and n_restarts >= 1
    process.terminate()
    process.wait(TIMEOUT)
    servers.close()


@test
def a_program_that_knows_socket_activation(box):
    gunicorn = "/usr/bin/gunicorn"
    if not shutil.which(gunicorn):
        raise Skip("gunicorn is not installed")
    servers = Servers(box)
    box.write("app.py", APP)

    def start():
        before = len(log.read_text()) if log.exists() else 0
        process = box.start("hold", "exec", "web", "--", gunicorn, "--chdir", box.path, "--log-file", log,
                            "--graceful-timeout", "20", "--worker-tmp-dir", box.path, "app:app")
        wait_until(lambda: "Booting worker" in log.read_text()[before:] if log.exists() else False, "it serves", 30)
        return process

    log = box.path / "gunicorn.log"
    process, n_restarts = start(), 0
    assert answers(servers.port)
    requests = REQUESTS // 5
    servers.begin(requests, 4)
    while servers.is_loaded():
        following = start()
        # Whoever is asked to end so finishes what it has begun.
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=TIMEOUT)
        assert process.returncode == 0
        process = following
        n_restarts += 1
    result = servers.end()
    print(f"# {n_restarts} restarts")
    assert result["answered"] == requests and n_restarts >= 1
    process.terminate()
    process.communicate(timeout=TIMEOUT)
    servers.close()


main()
