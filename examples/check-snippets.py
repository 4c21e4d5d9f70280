#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Compiles what the documents show: check-snippets.py SOURCE_ROOT COMPILER...

Takes the literal displays of the EXAMPLES sections of man3 and man7 and the C blocks of the Markdown
pages. One that includes headers is compiled as it stands; one that defines a function gets the usual
headers; the rest becomes the body of a function, where the variables in PREAMBLE are known. Also holds
the examples to their forty lines.
"""

import glob
import os
import re
import subprocess
import sys

LINES_MAX = 40

HEADERS = """
#include <afdt.h>
#include <antiphon/af_rxrpc.h>
#include <antiphon/afdt.h>
#include <antiphon/antiphon.h>
#include <antiphon/hold.h>
#include <antiphon/rx.h>
#include <antiphon/rxdebug.h>
#include <arpa/inet.h>
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/rxrpc.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>
#if __has_include(<sys/caps.h>)
#include <sys/caps.h>
#endif
"""

PREAMBLE = HEADERS + """
extern struct aph_endpoint *ep;
extern struct aph_service *service;
extern struct aph_channel *channel;
extern struct aph_hold *hold;
extern struct aph_call *call;
extern struct aph_event ev;
extern struct aph_result result;
extern char buf[4096];
extern size_t len;
extern ssize_t n;
extern int fd, r;
void handle(struct aph_event *event);
int snippet(void);
"""

# The same for pages of the RxRPC engine and its driver, whose events are others.
RX_PREAMBLE = HEADERS + """
extern struct aph_rx_udp *udp;
extern struct aph_rx *rx;
extern struct aph_rx_event event;
extern struct aph_rx_service *service;
extern struct aph_rx_answer answer;
extern uint8_t packet[2048];
extern uint32_t id;
extern char buf[4096];
extern size_t len;
extern ssize_t n;
extern int fd, r;
void handle(struct aph_rx_event *event);
int snippet(void);
"""


def from_manual(text):
    """The literal displays of the EXAMPLES section, with mdoc's escapes undone."""
    section = re.search(r"^\.Sh EXAMPLES\n(.*?)(?=^\.Sh |\Z)", text, re.M | re.S)
    if not section:
        return
    for block in re.finditer(r"^\.Bd -literal.*?\n(.*?)^\.Ed", section[1], re.M | re.S):
        if not block[1].startswith(("$ ", "# ")):  # a shell session
            yield block[1].replace("\\&", "").replace("\\e", "\\").replace("\\-", "-")


def from_markdown(text):
    for block in re.finditer(r"^```c\n(.*?)^```", text, re.M | re.S):
        yield block[1]


def unit(code, name):
    if re.search(r"^#include", code, re.M):
        return code
    if re.search(r"^\w[^\n;]*\)\n\{", code, re.M):
        return HEADERS + code
    preamble = RX_PREAMBLE if "/aph_rx_" in name else PREAMBLE
    return f"{preamble}int snippet(void)\n{{\n{code}\nreturn 0;\n}}\n"


def main():
    root, compiler = sys.argv[1], sys.argv[2:]
    flags = ["-std=c17", "-D_GNU_SOURCE", f"-I{root}/include", f"-I{root}/include/compat", "-Wall",
             "-Wextra", "-Werror", "-Wno-unused", "-Wno-unused-parameter", "-fsyntax-only", "-x", "c", "-"]
    bad = compiled = 0

    manuals = glob.glob(f"{root}/man/man[37]/*.[37]")
    markdown = glob.glob(f"{root}/*.md") + glob.glob(f"{root}/docs/**/*.md", recursive=True)
    for name in sorted(manuals + markdown):
        with open(name) as f:
            text = f.read()
        for code in from_markdown(text) if name.endswith(".md") else from_manual(text):
            done = subprocess.run(compiler + flags, input=unit(code, name), text=True,
                                  stderr=subprocess.PIPE)
            compiled += 1
            if done.returncode != 0:
                bad += 1
                print(f"{os.path.relpath(name, root)}: does not compile:\n{code}\n{done.stderr}")

    for name in sorted(glob.glob(f"{root}/examples/*.c")):
        with open(name) as f:
            lines = len(f.readlines())
        if lines > LINES_MAX:
            bad += 1
            print(f"{os.path.relpath(name, root)}: {lines} lines, at most {LINES_MAX} are allowed")

    print(f"{compiled} snippets compiled, {bad} complaints")
    if compiled == 0:
        print("nothing was found to compile: the patterns no longer fit the documents")
    sys.exit(1 if bad or compiled == 0 else 0)


main()
