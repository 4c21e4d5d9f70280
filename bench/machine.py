# SPDX-License-Identifier: MIT
"""The machine that is measured on, in one line, with a warning when it is not idle."""

import os
import platform
import time


def busy_percent():
    def read():
        fields = [int(x) for x in open("/proc/stat").readline().split()[1:]]
        return sum(fields), fields[3] + fields[4]

    total, idle = read()
    time.sleep(0.5)
    total2, idle2 = read()
    return 100.0 * (1 - (idle2 - idle) / max(1, total2 - total))


def describe():
    model, load = "unknown processor", open("/proc/loadavg").read().split()[0]
    with open("/proc/cpuinfo") as f:
        for line in f:
            if line.startswith(("model name", "Model")):
                model = line.split(":", 1)[1].strip()
                break
    info = "%s, %d cores, Linux %s, load %s" % (
        model, len(os.sched_getaffinity(0)), platform.release(), load)
    busy = busy_percent()
    if busy > 8:
        info += "; NOT IDLE (%.0f%% busy before the start): do not trust the figures" % busy
    return info
