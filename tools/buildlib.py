# SPDX-License-Identifier: MIT
"""What the test tools share: a build directory for each configuration, and counting of results.

Only the standard library is used.  Commands run without a terminal and without standard input; their
output goes to a log file, and the tools show it when something fails.
"""

import dataclasses
import json
import os
import pathlib
import re
import resource
import shlex
import shutil
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
JOBS = len(os.sched_getaffinity(0))


def build_root():
    """Where the test builds live: APH_TEST_BUILD, or build-test in the tree."""
    return pathlib.Path(os.environ.get("APH_TEST_BUILD") or ROOT / "build-test").resolve()


@dataclasses.dataclass
class Config:
    """One way to build the tree, and which of its tests to run there."""

    name: str
    cc: str
    options: list
    suites: list = dataclasses.field(default_factory=list)  # none: all of them
    without: list = dataclasses.field(default_factory=list)
    env: dict = dataclasses.field(default_factory=dict)
    wrapper: list = dataclasses.field(default_factory=list)
    timeout_multiplier: int = 1

    @property
    def dir(self):
        return build_root() / self.name

    @property
    def select(self):
        """What tells `meson test` which suites to run."""
        return [word for name in self.suites for word in ("--suite", name)] + [
            word for name in self.without for word in ("--no-suite", name)
        ]

    @property
    def log(self):
        return build_root() / f"{self.name}.log"


@dataclasses.dataclass
class Tally:
    """Counts, with a text for each case that was skipped and each that failed."""

    passed: int = 0
    failed: int = 0
    skipped: int = 0
    skips: list = dataclasses.field(default_factory=list)
    failures: list = dataclasses.field(default_factory=list)

    def add(self, other):
        self.passed += other.passed
        self.failed += other.failed
        self.skipped += other.skipped
        self.skips += other.skips
        self.failures += other.failures

    def __str__(self):
        return f"{self.passed} passed, {self.failed} failed, {self.skipped} skipped"


def say(text):
    print(text, flush=True)


def clean_env(extra):
    """The caller's environment without what would change what the tests see."""
    env = {k: v for k, v in os.environ.items() if not k.startswith("ANTIPHON_")}
    for name in ("CC", "CFLAGS", "LDFLAGS", "CPPFLAGS", "LD_PRELOAD", "MESON_TESTTHREADS", "MAKEFLAGS"):
        env.pop(name, None)
    env["LANG"] = "C.UTF-8"
    env.update(extra)
    return env


def run(command, config, check_env=None):
    """Runs a command with its output appended to the log of the configuration; returns its status."""
    with open(config.log, "a", encoding="utf-8") as log:
        log.write(f"\n$ {shlex.join(map(str, command))}\n")
        log.flush()
        return subprocess.run(
            [str(word) for word in command],
            cwd=ROOT,
            env=clean_env({"CC": config.cc, **config.env, **(check_env or {})}),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            check=False,
            # A test that is meant to crash should not leave a core file behind.
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_CORE, (0, 0)),
        ).returncode


def tail(path, lines=60):
    try:
        text = pathlib.Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    return "\n".join(text.splitlines()[-lines:])


def introspect(config, what):
    """What the build of a configuration says of itself."""
    command = ["meson", "introspect", what, config.dir]
    return json.loads(subprocess.run(command, check=True, capture_output=True).stdout)


def needed(config):
    """The files to build: what is installed, and what the tests of the chosen suites run; none: all."""
    if not config.suites:
        return []
    tested = {
        target
        for test in introspect(config, "--tests")
        for target in test["depends"]
        if set(config.suites) & {name.split(":")[-1] for name in test["suite"]}
    }
    return [
        name
        for target in introspect(config, "--targets")
        if target["id"] in tested or target["installed"]
        for name in target["filename"]
    ]


def build(config, files=needed):
    """Configures (when needed) and builds some files; returns True, or False after showing the log."""
    config.dir.parent.mkdir(parents=True, exist_ok=True)
    config.log.write_text("", encoding="utf-8")
    wanted = shlex.join([config.cc, *config.options])
    stamp = config.dir / "options-of-this-build"
    start = time.monotonic()
    if not stamp.exists() or stamp.read_text(encoding="utf-8") != wanted:
        shutil.rmtree(config.dir, ignore_errors=True)
        if run(["meson", "setup", config.dir, *config.options], config) != 0:
            return broken(config, "configuring")
        stamp.write_text(wanted, encoding="utf-8")
    names = [os.path.relpath(name, config.dir) for name in files(config)]
    if run(["ninja", "-C", config.dir, "-j", JOBS, *names], config) != 0:
        return broken(config, "building")
    say(f"{config.name}: built in {time.monotonic() - start:.0f} s")
    return True


def broken(config, what):
    say(f"{config.name}: {what} failed; the end of {config.log}:")
    say(tail(config.log))
    return False


TAP_PLAN = re.compile(r"^1\.\.\d+", re.MULTILINE)
TAP_LINE = re.compile(r"^(not )?ok\b\s*\d*\s*-?\s*(.*)$")
TAP_SKIP = re.compile(r"#\s*skip\b\s*(.*)", re.IGNORECASE)
CMOCKA_LINE = re.compile(r"^\[\s*(RUN|OK|FAILED|SKIPPED)\s*\] (\S.*)$")


def count_tap(name, output):
    tally = Tally()
    for line in output.splitlines():
        match = TAP_LINE.match(line)
        if not match:
            continue
        skip = TAP_SKIP.search(match[2])
        if skip:
            tally.skipped += 1
            what = match[2][: skip.start()].strip()
            tally.skips.append(f"{name} {what}".strip() + f": {skip[1] or 'no reason given'}")
        elif match[1]:
            tally.failed += 1
            tally.failures.append(f"{name}: {match[2]}")
        else:
            tally.passed += 1
    return tally


def count_cmocka(name, output):
    """Counts the cases of a cmocka program; what a case prints before it skips is its reason."""
    tally = Tally()
    said = []
    for line in output.splitlines():
        match = CMOCKA_LINE.match(line)
        if not match:
            if line.strip():
                said.append(line.strip())
        elif match[1] == "RUN":
            said = []
        elif match[1] == "OK":
            tally.passed += 1
        elif match[1] == "SKIPPED":
            tally.skipped += 1
            tally.skips.append(f"{name} {match[2]}: {said[-1] if said else 'no reason given'}")
        else:
            tally.failed += 1
            tally.failures.append(f"{name}: {match[2]}")
    return tally


def output_of(entry):
    return (entry.get("stdout") or "") + (entry.get("stderr") or "")


def count_test(entry):
    """What one entry of Meson's testlog.json adds: its cases where it names them, else one."""
    name = entry["name"].split(" / ", 1)[-1]
    output = entry.get("stdout") or ""
    result = entry["result"]
    if result == "SKIP":
        lines = [line for line in output_of(entry).splitlines() if line.strip()]
        reason = TAP_SKIP.search(lines[-1]) if lines else None
        why = (reason[1] if reason else lines[-1].strip()) if lines else "no reason given"
        return Tally(skipped=1, skips=[f"{name}: {why}"])
    if TAP_PLAN.search(output):
        tally = count_tap(name, output)
    elif "[ RUN " in output:
        tally = count_cmocka(name, output)
    else:
        tally = Tally()
    good = result in ("OK", "EXPECTEDFAIL")
    if good and not (tally.passed or tally.failed or tally.skipped):
        tally.passed = 1
    if not good and not tally.failed:
        # It crashed, hung, leaked or wrote nonsense: that is a failure beside the cases it counted.
        tally.failed = 1
        tally.failures.append(f"{name}: {result.lower()}, exit status {entry.get('returncode')}")
    if good and tally.failed:
        tally.failures.append(f"{name}: reported failed cases but exited with status 0")
    return tally


def read_testlog(config):
    """The entries of the last `meson test` of a configuration."""
    path = config.dir / "meson-logs" / "testlog.json"
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8", errors="replace").splitlines()]


def count_tests(entries):
    """All their results, with the output of what failed."""
    total = Tally()
    for entry in entries:
        tally = count_test(entry)
        if tally.failed:
            tally.failures[-1] += "\n" + "\n".join(output_of(entry).splitlines()[-60:])
        total.add(tally)
    return total


def finish(total):
    """Prints the line that everybody waits for, and exits."""
    say(str(total))
    sys.exit(1 if total.failed else 0)
