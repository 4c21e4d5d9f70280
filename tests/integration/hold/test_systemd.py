#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""The keeper as a service of a real systemd: what it has confirmed survives its kill -9, and a restart.

test_systemd.py ANTIPHON: systemd runs as a user's manager in a control group and in namespaces of its own (mounts,
processes, control groups), with one unit. Where that cannot be had the test is skipped, and says why.
"""

import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "cli"))
from harness import TIMEOUT, Skip, main, test, wait_until  # noqa: E402

SYSTEMD = "/usr/lib/systemd/systemd"
KILLS = 10
UNIT = """
[Unit]
DefaultDependencies=no
StartLimitIntervalSec=0
[Service]
Type=notify
NotifyAccess=all
FileDescriptorStoreMax=64
Restart=always
RestartSec=0
Environment=ANTIPHON_RUNTIME_DIR=/run/keeper
ExecStart={} hold
"""


# -- inside: process 1 of the namespaces -------------------------------------------------------------------------


class Manager:
    def __init__(self, program):
        self.program = program
        for kind, where in (("tmpfs", "/run"), ("tmpfs", "/sys/fs/cgroup"), ("cgroup2", "/sys/fs/cgroup")):
            subprocess.run(["mount", "-t", kind, kind, where], check=True)
        for name in ("systemd/system", "xdg", "units", "keeper"):
            os.makedirs("/run/" + name)
        pathlib.Path("/run/units/hold.service").write_text(UNIT.format(program))
        self.env = {
            "PATH": os.environ["PATH"],
            "HOME": "/run/xdg",
            "XDG_RUNTIME_DIR": "/run/xdg",
            "SYSTEMD_UNIT_PATH": "/run/units",
            "ANTIPHON_RUNTIME_DIR": "/run/keeper",
        }
        self.process = subprocess.Popen([SYSTEMD, "--user", "--log-target=console", "--unit=hold.service"], env=self.env)

    def hold(self, *arguments):
        done = subprocess.run([self.program, "hold", *arguments], env=self.env, stdout=subprocess.PIPE, text=True,
                              timeout=TIMEOUT)
        return done.returncode, done.stdout

    def names(self):
        status, out = self.hold("list")
        return {line.split()[0]: int(line.split()[2]) for line in out.splitlines()[1:]} if status == 0 else None

    def systemctl(self, *arguments):
        return subprocess.run(["systemctl", "--user", *arguments], env=self.env, stdout=subprocess.PIPE, text=True,
                              check=True, timeout=TIMEOUT).stdout.strip()

    def pid(self):
        return int(self.systemctl("show", "-P", "MainPID", "hold.service"))


def inside(program):
    manager = Manager(program)
    wait_until(lambda: manager.names() is not None, "the keeper serves")
    assert manager.hold("store", "--listen", "127.0.0.1:0", "web")[0] == 0
    assert manager.hold("store", "--listen", "127.0.0.1:0", "gone")[0] == 0
    port = manager.hold("exec", "web", "--", "python3", "-c", PORT)[1]
    assert int(port) > 0
    assert manager.hold("delete", "gone")[0] == 0
    for i in range(KILLS):
        pid = manager.pid()
        # The manager learns of the next one when it says that it is ready.
        os.kill(pid, signal.SIGKILL)
        assert manager.hold("store", "--listen", "127.0.0.1:0", f"after{i}")[0] == 0
        wait_until(lambda: manager.pid() not in (0, pid), "the keeper was started again")
        assert manager.names() == {"web": 1, **{f"after{j}": 1 for j in range(i + 1)}}, manager.names()
        assert manager.hold("exec", "web", "--", "python3", "-c", PORT)[1] == port
    manager.systemctl("restart", "hold.service")
    assert manager.names() == {"web": 1, **{f"after{j}": 1 for j in range(KILLS)}}
    assert manager.hold("exec", "web", "--", "python3", "-c", PORT)[1] == port
    print(f"{KILLS} kills and a restart under", manager.systemctl("--version").splitlines()[0], flush=True)


PORT = "import socket; print(socket.socket(fileno=3).getsockname()[1])"


# -- outside -----------------------------------------------------------------------------------------------------


def own_group():
    """A control group to be the root of what systemd sees; it makes groups of its own."""
    for line in pathlib.Path("/proc/self/mounts").read_text().splitlines():
        words = line.split()
        if words[2] == "cgroup2":
            group = pathlib.Path(words[1]) / f"antiphon-test-{os.getpid()}"
            try:
                group.mkdir()
            except OSError as e:
                raise Skip(f"no control group can be made: {e}") from e
            return group
    raise Skip("no cgroup2 is mounted")


def remove_group(group):
    for _ in range(100):
        try:
            for path, _, _ in os.walk(group, topdown=False):
                os.rmdir(path)
            return
        except OSError:
            time.sleep(0.05)


@test
def killed_and_restarted_under_systemd(box):
    if os.geteuid() != 0:
        raise Skip("only root can make the namespaces")
    for program in (SYSTEMD, "systemctl", "unshare", "mount"):
        if not shutil.which(program):
            raise Skip(f"{program} is not installed")
    group = own_group()
    unshare = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "--cgroup"]

    def enter():
        (group / "cgroup.procs").write_text(str(os.getpid()))

    try:
        if subprocess.run([*unshare, "true"], stderr=subprocess.DEVNULL).returncode != 0:
            raise Skip("no namespaces can be made")
        done = subprocess.run(
            ["timeout", "-s", "KILL", "180", *unshare, sys.executable, __file__, box.program, "--inside"],
            preexec_fn=enter, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        print("#", "\n# ".join(done.stdout.splitlines()[-30:] if done.returncode else done.stdout.splitlines()[-1:]))
        assert done.returncode == 0
    finally:
        remove_group(group)


if sys.argv[2:] == ["--inside"]:
    inside(sys.argv[1])
else:
    main()
