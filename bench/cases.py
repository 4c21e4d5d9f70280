# SPDX-License-Identifier: MIT
"""The cases: what is measured, which figures come of it, and what this project wants to reach."""

OURS = "antiphon"
FLOOR = "floor:seqpacket"
HANDOVER = "floor:handover"
AFDT = OURS + ":afdt"
HOLD = OURS + ":hold"


class Target:
    def __init__(self, text, met):
        self.text = text
        self.met = met


def ratio_at_most(limit):
    return Target("ratio <= %g" % limit, lambda value, ratio: ratio <= limit)


def ratio_at_least(limit):
    return Target("ratio >= %g" % limit, lambda value, ratio: ratio >= limit)


def value_at_most(limit, unit):
    return Target("value <= %g %s" % (limit, unit), lambda value, ratio: value <= limit)


def value_at_least(limit, unit):
    return Target("value >= %g %s" % (limit, unit), lambda value, ratio: value >= limit)


class Metric:
    """A figure of a run. Its ratio is to the floor's figure `base_key`, or none at all."""

    def __init__(self, name, key, unit, target=None, higher=False, case=None, scale=1.0,
                 per=None, base_key=""):
        self.name = name
        self.key = key
        self.unit = unit
        self.target = target
        self.higher = higher    # more is better
        self.case = case        # under which name it is reported, if not its own case's
        self.scale = scale
        self.per = per          # a second figure of the run that the first is divided by
        self.base_key = key if base_key == "" else base_key

    def value(self, result):
        value = result[self.key] * self.scale
        return value / result[self.per] if self.per else value

    def ratio(self, result, value, base):
        if self.per:
            return value
        if self.base_key is None or not base.get(self.base_key):
            return None
        return result[self.key] * self.scale / base[self.base_key]


class Case:
    def __init__(self, name, text, metrics, base=None, alias=None, only=None,
                 times=1, floor=FLOOR):
        self.name = name
        self.text = text
        self.metrics = metrics
        self.base = base or name    # the floor's case that ratios are to
        self.floor = floor          # who that floor is
        self.alias = alias or {}    # who runs another case in place of this one
        self.only = only            # nobody else is measured
        self.times = times          # how much longer than others it is measured
        for metric in metrics:
            metric.case = metric.case or name

    def source(self, who):
        return self.alias.get(who, self.name)

    def wants(self, who):
        return self.only is None or who in self.only


def p50(target=None):
    return Metric("p50", "p50_us", "us", target)


def rate(target=None):
    return Metric("calls", "calls_s", "calls/s", target, higher=True)


def cpu(target=None, **more):
    return Metric("cpu", "cpu_us", "s/Mcall", target, **more)


def body(name, text, copy, target):
    return Case(name, text, [p50(ratio_at_most(target))], alias={"floor:memcpy": copy})


def hog(name, text, everybody=False):
    """A processor hog on the service's core; compared is the rate."""
    return Case("hog_" + name, text + ", beside a processor hog",
                [rate(ratio_at_least(0.5))], only=None if everybody else (FLOOR, OURS),
                # The scheduler's slices are milliseconds long, so it takes more of them.
                times=2)


def fds16():
    return Metric("descriptors", "calls_s", "fds/s", value_at_least(1e6, "fds/s"), higher=True, scale=16.0)


def hold(name, text, metric):
    """The keeper, compared with a plain program that hands over a descriptor on a new connection."""
    return Case(name, text, [metric], base="handover", floor=HANDOVER, only=(HOLD,))


PLAIN = "call4_2core"

CASES = [
    Case(PLAIN, "4 bytes each way, the ends pinned to two cores",
         [p50(ratio_at_most(0.045)),
          Metric("p99", "p99_us", "us", ratio_at_most(0.06)),
          cpu(ratio_at_most(0.12), case="cpu")]),
    Case("call4_1core", "the same, both ends pinned to one core", [p50(ratio_at_most(0.65))]),
    Case("paced_200us", "the same on two cores, one call every 200 us",
         [p50(ratio_at_most(1.0)), cpu(ratio_at_most(1.0))]),
    Case("clients8", "8 client processes of one service, not pinned",
         [rate(ratio_at_least(4)),
          Metric("fairness", "fairness", "slowest/fastest", value_at_least(0.85, "slowest/fastest"),
                 higher=True)]),
    Case("depth8", "8 calls in flight on one channel; the floor has one",
         [rate(Target("value >= 5e+06 calls/s or ratio >= 75",
                      lambda value, ratio: value >= 5e6 or ratio >= 75))], base=PLAIN),
    body("body_64k_req", "64 KiB request, 4 bytes back", "copy_64k", 0.4),
    body("body_64k_rep", "64 KiB reply", "copy_64k", 0.4),
    body("body_1m_req", "1 MiB request, 4 bytes back", "copy_1m", 0.65),
    body("body_1m_rep", "1 MiB reply", "copy_1m", 0.65),
    Case("fd1", "a descriptor with each request; the floor carries none",
         [p50(ratio_at_most(0.4))], base=PLAIN),
    Case("fd16", "16 descriptors with each request; the floor carries none",
         [Metric("descriptors", "calls_s", "fds/s", value_at_least(1.4e6, "fds/s"), higher=True,
                 scale=16.0)], base=PLAIN),
    Case("idle10k", "10,000 idle channels beside the active one",
         [Metric("p50_vs_alone", "p50_us", "times", value_at_most(1.1, "times"),
                 per="alone_p50_us"),
          Metric("resident", "idle_kib", "KiB/channel", value_at_most(8, "KiB/channel"),
                 base_key=None)]),
    hog("call4_2core", "4 bytes, two cores", True),
    hog("call4_1core", "4 bytes, one core", True),
    hog("call4_free", "4 bytes, nothing pinned"),
    hog("clients8", "8 clients"),
    hog("depth8", "8 in flight"),
    hog("body_64k_req", "64 KiB request"),
    hog("body_1m_rep", "1 MiB reply"),
    Case("death_blocked", "kill -9 of the service: until the blocked client is told",
         [Metric("told_max", "told_max_us", "us", value_at_most(1000, "us"))]),
    Case("death_busy", "the same with a processor hog on every core",
         [Metric("told_max", "told_max_us", "us", value_at_most(10000, "us"))]),
    Case("death_client", "kill -9 of a client in a call: until the waiting service is told",
         [Metric("told_max", "told_max_us", "us", value_at_most(1000, "us"))], only=(FLOOR, OURS)),
    Case("death_client_busy", "the same with a processor hog on every core",
         [Metric("told_max", "told_max_us", "us", value_at_most(10000, "us"))],
         only=(FLOOR, OURS)),
    Case("handover", "libafdt: connect, request, answer with a descriptor, close, on two cores",
         [rate(ratio_at_least(0.95)), p50()], floor=HANDOVER, only=(HANDOVER, AFDT)),
    Case("handover8", "the same with 8 clients at once, not pinned",
         [rate(ratio_at_least(0.95)),
          Metric("fairness", "fairness", "slowest/fastest", ratio_at_least(0.9),
                 higher=True)],
         # Who comes late once comes late for slices of the scheduler, which are milliseconds long.
         floor=HANDOVER, only=(HANDOVER, AFDT), times=2),
    hold("hold_store", "antiphon hold with its twin: a descriptor stored by name; the floor hands one over",
         rate(ratio_at_least(3))),
    hold("hold_retrieve", "the same, retrieved", rate(ratio_at_least(3))),
    hold("hold_store16", "16 descriptors stored by one call", fds16()),
    hold("hold_retrieve16", "16 descriptors retrieved by one call", fds16()),
]


def is_ours(who):
    return who == OURS or who.startswith(OURS + ":")


def find_case(name):
    return next((case for case in CASES if case.name == name), None)


def metrics_of(case):
    return case.metrics
