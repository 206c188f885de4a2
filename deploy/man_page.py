#!/usr/bin/env python3
"""Writes atoll(1) to stdout, from what the program says of itself: `python3 man_page.py ATOLL`.

Every command's --help becomes a section, so that there is one source. Options become tagged paragraphs; the rest is plain text.
"""

import re
import subprocess
import sys

FRONT = r"""\fBatoll\fR trains one large language model on machines that have only the internet in common. Each machine is a
\fInode\fR (\fBatoll train\fR); a \fIcoordinator\fR (\fBatoll coordinate\fR) is where they meet. Config keys are listed by
\fBatoll inspect keys\fR."""

BACK = r"""
.SH EXIT STATUS
.TP
.B 0
Done, or stopped by a signal with the state saved.
.TP
.B 1
A bug of Atoll.
.TP
.B 2
Bad input or configuration: a restart would end in the same way.
.TP
.B 3
A resource was lost, and a restart makes sense.
.SH ENVIRONMENT
.TP
.B ATOLL_RUN_SECRET
The run's secret; goes before node.run_secret_file.
.TP
.B RUNPOD_PUBLIC_IP, RUNPOD_TCP_PORT_\fIn\fP, PUBLIC_IPADDR, VAST_TCP_PORT_\fIn\fP
Where others can dial this machine, with node.advertise "auto".
.TP
.B NOTIFY_SOCKET, WATCHDOG_USEC
As systemd sets them: train and coordinate say READY, STATUS, STOPPING and WATCHDOG.
.TP
.B XDG_CACHE_HOME
Timed plans of matrix products are kept below it.
.SH FILES
.TP
.I /etc/atoll/RUN.json, /etc/atoll/RUN.env
Of the services atoll@RUN and atoll-coordinator@RUN.
"""


def escape(text):
    """Of roff: backslashes, dashes that shall stay dashes, and lines that would be requests."""
    text = text.replace("\\", r"\e").replace("-", r"\-")
    return r"\&" + text if text[:1] in ".'" else text


def help_of(atoll, command):
    return subprocess.run([atoll, *command, "--help"], capture_output=True, text=True, check=True).stdout


def subcommands(text):
    """Names below "Subcommands:", in order."""
    _, _, rest = text.partition("\nSubcommands:\n")
    return re.findall(r"^  (\S+)  ", rest, re.M)


def body(text):
    """The lines of a help text as roff; without the usage line and the list of subcommands, which are sections."""
    text, _, _ = text.partition("\nSubcommands:\n")
    lines = []
    for line in text.splitlines():
        option = re.match(r"^  (\S.*?)(?:  +(.*))?$", line)
        continued = re.match(r"^ {10,}(\S.*)$", line)
        if continued:
            lines.append(escape(continued[1]))
        elif option:
            lines += [".TP", r"\fB" + escape(option[1]) + r"\fR"] + ([escape(option[2])] if option[2] else [])
        elif line.startswith("Usage:"):
            lines += [".P", r"\fB" + escape(re.sub(r"^\S*/", "", line[7:].strip())) + r"\fR"]
        elif line.endswith(":"):
            lines += [".P", r"\fI" + escape(line) + r"\fR"]
        elif line.strip():
            lines += [".P", escape(line.strip())]
    return "\n".join(lines)


def sections(atoll, command):
    text = help_of(atoll, command)
    names = subcommands(text)
    if command:
        yield ".SS " + escape("atoll " + " ".join(command)) + "\n" + body(text)
    for name in names:
        yield from sections(atoll, [*command, name])


def main():
    atoll = sys.argv[1]
    version = subprocess.run([atoll, "--version"], capture_output=True, text=True, check=True).stdout.strip()
    print(f'.TH ATOLL 1 "" "Atoll {version}" "User Commands"')
    print(".SH NAME\natoll \\- train large language models over the internet")
    print(".SH SYNOPSIS\n.B atoll\n.I COMMAND\n[\\fIOPTIONS\\fR]")
    print(".SH DESCRIPTION\n" + FRONT)
    print(".SH COMMANDS")
    print("\n".join(sections(atoll, [])), end="")
    print(BACK, end="")


if __name__ == "__main__":
    main()
