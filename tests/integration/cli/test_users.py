#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Who may call whom: two real users. Needs root to become the other one."""

import json
import os

from harness import ANSWERED, REFUSED, Skip, main, test

OTHER_UID = 65533
OTHER_GID = 65532
SHARED_GID = 65531


def as_other(groups=()):
    """Options for the harness to run a program as the other user."""
    if os.getuid() != 0:
        raise Skip("only root can become another user")
    return {"user": OTHER_UID, "group": OTHER_GID, "extra_groups": list(groups)}


def open_runtime(box):
    # As the administrator makes it: everybody may register, nobody may touch what belongs to others.
    box.runtime.chmod(0o1777)


@test
def a_user_is_kept_out_by_default(box):
    other = as_other()
    open_runtime(box)
    box.serve("private", "--", "cat")
    assert box.call("private", "hello").returncode == ANSWERED
    done = box.call("private,uid=0", "hello", **other)
    assert done.returncode == REFUSED and done.stdout == b"" and done.stderr, done


@test
def the_world_may_be_let_in(box):
    other = as_other()
    open_runtime(box)
    script = "echo $ANTIPHON_CALLER_UID $ANTIPHON_CALLER_EUID $ANTIPHON_CALLER_GID $ANTIPHON_CALLER_EGID"
    box.serve("--allow", "world", "who", "--", "sh", "-c", script)
    for address in ("who", "who,uid=0", "who,uid=root", "who,uid=any"):
        done = box.call(address, **other)
        assert done.returncode == ANSWERED, done
        assert done.stdout.split() == [b"65533", b"65533", b"65532", b"65532"], done


@test
def a_group_may_be_let_in(box):
    as_other()
    open_runtime(box)
    done = box.run("serve", f"team,gid={SHARED_GID}", "--", "true", **as_other())
    assert done.returncode == 1, "only members register a group"
    box.serve("--allow", "group", f"team,gid={SHARED_GID}", "--", "cat")
    done = box.call("team,uid=0", "hello", **as_other())
    assert done.returncode == REFUSED, done
    done = box.call("team,uid=0", "hello", **as_other([SHARED_GID]))
    assert (done.returncode, done.stdout) == (ANSWERED, b"hello"), done


@test
def a_name_cannot_be_squatted(box):
    other = as_other()
    open_runtime(box)
    box.serve("--allow", "world", "bank", "--", "echo", "false", **other)
    assert box.call("bank,uid=0").returncode == REFUSED
    assert box.call("bank").returncode == REFUSED
    assert box.call("bank,uid=any").stdout == b"false\n"
    box.serve("--allow", "world", "bank", "--", "echo", "true")
    assert box.call("bank").stdout == b"true\n"
    assert box.call("bank,uid=0", **other).stdout == b"true\n"
    assert box.call("bank", **other).stdout == b"false\n", "the own user comes first"
    done = box.run("serve", "bank,uid=0", "--", "true", **other)
    assert done.returncode == 1 and done.stderr, done


@test
def a_descriptor_gives_what_the_service_could_not_open(box):
    other = as_other()
    open_runtime(box)
    secret = box.write("secret", b"for root alone", 0o600)
    box.serve("--allow", "world", "read", "--", "sh", "-c", f"cat {secret} 2>&1; cat <&3", **other)
    done = box.call("--fd", secret, "read,uid=any")
    assert done.returncode == ANSWERED and done.stdout.endswith(b"for root alone"), done
    assert b"denied" in done.stdout, done


@test
def the_list_tells_others_no_secrets(box):
    other = as_other()
    open_runtime(box)
    box.serve("private", "--", "cat")
    box.serve("--allow", "world", "public", "--", "cat")
    done = box.run("ls", "--json", **other)
    assert done.returncode == ANSWERED, done
    entries = {e["name"]: e for e in json.loads(done.stdout)}
    assert "calls" not in entries.get("private", {}), entries
    assert entries["public"]["owner"] == 0, entries


main()
