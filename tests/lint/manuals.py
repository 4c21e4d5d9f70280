#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Manual pages are well formed, and programs and their pages agree on the options.

manuals.py ROOT pages                 mandoc is quiet at its warning level; redirects lead somewhere, others have examples
manuals.py ROOT options NAME PROGRAM  the options in --help and in man1/NAME.1 (or man8) are the same set

An option counts as documented in --help when a line starts with it, and in a page when it stands after
.Fl.  The commands of a program are the words that start the indented lines of the part of --help headed
"Commands:".  A command with a page of its own, NAME-COMMAND, is compared with that; the options of the
others must be in the program's page.
"""

import pathlib
import re
import shutil
import subprocess
import sys

from lintlib import Findings, skip, tracked_files

PAGE = re.compile(r"^.*\.[1-8]$")
OPTION = re.compile(r"(?<![\w-])(--[a-z0-9][a-z0-9-]*|-[A-Za-z0-9])(?![\w-])")
MACROS = {"Fl", "Ar", "Op", "Oo", "Oc", "It", "Nm", "Cm", "Ns", "No", "Xo", "Xc", "Pq", "Sq", "Dq", "Ql", "Li"}


def redirect(path):
    """What a page that is only a redirect points to, else None."""
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    code = [line for line in lines if not line.startswith('.\\"') and line.strip()]
    if len(code) == 1 and code[0].startswith(".so "):
        return code[0][4:].strip()
    return None


def check_pages(root, findings):
    pages = [p for p in tracked_files(root) if p.relative_to(root).parts[0] == "man" and PAGE.match(p.name)]
    if pages and not shutil.which("mandoc"):
        skip("mandoc is not installed")
    for page in pages:
        target = redirect(page)
        if target is not None:
            if not (root / "man" / target).is_file():
                findings.add(page, 1, f"redirects to man/{target}, which does not exist")
            elif redirect(root / "man" / target) is not None:
                findings.add(page, 1, f"redirects to man/{target}, itself a redirect")
            continue
        if not re.search(r"^\.Sh EXAMPLES$", page.read_text(encoding="utf-8"), re.M):
            findings.add(page, 1, "has no section EXAMPLES")
        done = subprocess.run(
            ["mandoc", "-T", "lint", "-W", "warning", page], capture_output=True, text=True, check=False
        )
        for line in (done.stdout + done.stderr).splitlines():
            match = re.match(r"mandoc: [^:]*:(\d+):\d+: (.*)", line)
            findings.add(page, int(match[1]) if match else 0, match[2] if match else line)
    findings.finish(f"{len(pages)} pages")


def page_options(path):
    """Every option that follows .Fl in an mdoc page."""
    options = set()
    for line in path.read_text(encoding="utf-8").splitlines():
        if not line.startswith(".") or line.startswith('.\\"'):
            continue
        words = [word.lstrip(".") if i == 0 else word for i, word in enumerate(line.split())]
        after_flag = False
        for word in words:
            if word == "Fl":
                after_flag = True
            elif word in MACROS:
                after_flag = False
            elif after_flag:
                option = "-" + word.rstrip(",.;:|)")
                if OPTION.fullmatch(option):
                    options.add(option)
                # .Fl a b names two options; a punctuation word does not end the list.
    return options


def help_text(program, words, findings, page):
    done = subprocess.run(
        [*program, *words, "--help"], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=20
    )
    if done.returncode != 0:
        findings.add(page, 0, f"'{' '.join([*words, '--help'])}' ends with status {done.returncode}")
    if done.stderr:
        findings.add(page, 0, f"'{' '.join([*words, '--help'])}' writes to standard error: {done.stderr.strip()}")
    return done.stdout


def help_options(text):
    """The options that start a line: "  -j, --json  what it does"."""
    options = set()
    for line in text.splitlines():
        if line.lstrip().startswith("-"):
            definition = re.split(r"\s{2,}|\t", line.strip(), maxsplit=1)[0]
            options.update(OPTION.findall(definition))
    return options


def help_commands(text):
    commands = []
    inside = False
    for line in text.splitlines():
        if re.match(r"^(sub)?commands:", line.strip(), re.IGNORECASE):
            inside = True
        elif inside and line.strip() and not line[0].isspace():
            inside = False
        elif inside:
            match = re.match(r"^\s{1,8}([a-z][a-z0-9-]*)\b", line)
            if match:
                commands.append(match[1])
    return commands


def compare(page, shown, documented, findings):
    for option in sorted(shown - documented):
        findings.add(page, 0, f"{option} is in --help but not in the page")
    for option in sorted(documented - shown):
        findings.add(page, 0, f"{option} is in the page but not in --help")


def check_options(root, name, program, findings):
    main_page = next((p for s in (1, 8) if (p := root / "man" / f"man{s}" / f"{name}.{s}").is_file()), None)
    if main_page is None:
        findings.add(root / "man" / "man1" / f"{name}.1", 0, f"{name} has no manual page")
        findings.finish(f"program {name}")
    text = help_text(program, [], findings, main_page)
    shown = help_options(text)
    commands = help_commands(text)
    for command in commands:
        options = help_options(help_text(program, [command], findings, main_page))
        page = root / "man" / main_page.parent.name / f"{name}-{command}{main_page.suffix}"
        if page.is_file() and redirect(page) is None:
            compare(page, options, page_options(page), findings)
        else:
            shown |= options
            if not re.search(rf"^\.(It|Ss|Op|Nm|Cm).*\b{re.escape(command)}\b", main_page.read_text(), re.MULTILINE):
                findings.add(main_page, 0, f"the command {command} is not described")
    compare(main_page, shown, page_options(main_page), findings)
    findings.finish(f"program {name} with {len(commands)} commands")


def main():
    root = pathlib.Path(sys.argv[1]).resolve()
    findings = Findings("manuals", root)
    if sys.argv[2] == "pages":
        check_pages(root, findings)
    else:
        check_options(root, sys.argv[3], sys.argv[4:], findings)


if __name__ == "__main__":
    main()
