#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""antiphon bench: that it measures everything and tidies up, not how fast it is."""

import json
import signal
import time

from harness import ANSWERED, FAILED, TIMEOUT, main, test, wait_until


def is_tidy(box):
    return not [p for p in box.path.iterdir() if p.name.startswith("antiphon-bench")] and not box.processes()


@test
def every_figure_as_json(box):
    done = box.run("bench", "--rounds", "2", "--seconds", "0.01", "--json")
    assert done.returncode == ANSWERED, done
    figures = [json.loads(line) for line in done.stdout.splitlines()]
    ours = {(f["case"], f["metric"]) for f in figures if f["who"] == "antiphon"}
    assert ours == {
        ("4 bytes and back", "p50"),
        ("4 bytes and back", "p99"),
        ("8 under way", "rate"),
        ("64 under way", "rate"),
        ("8 clients", "rate"),
        ("stream one way", "throughput"),
    }, ours
    for figure in figures:
        assert figure["value"] > 0 and figure["ratio"] > 0 and figure["rounds"] == 2, figure
        assert figure["who"] == "antiphon" or figure["ratio"] == 1, figure
    assert is_tidy(box)


@test
def a_table_for_people(box):
    done = box.run("bench", "--rounds", "1", "--seconds", "0.01")
    lines = done.stdout.decode().splitlines()
    assert done.returncode == ANSWERED and lines[0].split() == ["CASE", "METRIC", "SEQPACKET", "ANTIPHON", "RATIO"]
    assert len(lines) == 9 and "medians of 1 rounds" in lines[-1], lines


@test
def an_interrupt_leaves_nothing(box):
    process = box.start("bench", "--rounds", "99", "--seconds", "0.05")
    wait_until(lambda: len(box.processes()) > 1, "it has begun to measure")
    time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=TIMEOUT)
    assert process.returncode == FAILED and b"interrupted" in err, err
    assert is_tidy(box)


@test
def an_interrupt_in_a_long_case_too(box):
    for number, delay in ((signal.SIGTERM, 0.1), (signal.SIGHUP, 0.3), (signal.SIGINT, 0.6)):
        process = box.start("bench", "--rounds", "1", "--seconds", "1000")
        wait_until(lambda: len(box.processes()) > 2, "it has begun to measure")
        time.sleep(delay)
        process.send_signal(number)
        _, err = process.communicate(timeout=TIMEOUT)
        assert process.returncode == FAILED and b"interrupted" in err, err
        assert is_tidy(box)
    # Other cases than the first.
    for delay in (0.3, 0.7, 1.2):
        process = box.start("bench", "--rounds", "1", "--seconds", "0.2")
        time.sleep(delay)
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=TIMEOUT)
        assert is_tidy(box)


@test
def a_directory_that_cannot_be_made(box):
    box.env["TMPDIR"] = str(box.path / "nowhere")
    done = box.run("bench", "--rounds", "1", "--seconds", "0.01")
    assert done.returncode == FAILED and b"TMPDIR" in done.stderr, done


main()
