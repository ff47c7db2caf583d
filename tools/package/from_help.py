#!/usr/bin/env python3
"""Makes a program's man page and shell completions from what the program itself says: PROGRAM --help.

    tools/package/from_help.py man|bash|zsh PROGRAM VERSION OUT [FILE]

FILE is for the man page: what --help does not say. Its part [NAME] is the line of the page's name; parts named as a section of the page
(DESCRIPTION) come at that section's end, and all others follow the options in the order of the file, as man(7) source; EXAMPLES and SEE
ALSO take the place of what --help says in short.
A --help without options, or with a line that fits nowhere, is an error: a page that lacks a flag is worse
than none.
"""
import os
import re
import subprocess
import sys

OPTION = re.compile(r" {2,6}(?:-(\S), )?(?:-{2})([a-zA-Z][\w-]*)(?:(\[?=)(\S+?)\]?)?(?:\s+(.*))?$")
DOC_COLUMN = 20  # a line that begins further right goes on with the option above it


class Help:
    """usage: [line]; about, notes: [[paragraph, line that stands as it is...]] before and after the options; groups: [(heading, [option])],
    where an option is (letter or None, name, argument or None, whether the argument may be left out, text)."""

    def __init__(self, text):
        self.usage, self.about, self.notes, self.groups = [], [], [], []
        lines = [line.rstrip() for line in text.splitlines()]
        paragraph = None  # that the next line goes on with
        for i, line in enumerate(lines):
            indent = len(line) - len(line.lstrip())
            if not line:
                paragraph = None
            elif m := OPTION.match(line):
                if not self.groups or (not paragraph and lines[i - 1] == ""):
                    self.groups.append(("", []))
                letter, name, sign, argument, doc = m.groups()
                self.groups[-1][1].append([letter, name, argument, sign == "[=", doc or ""])
                paragraph = self.groups[-1][1][-1]
            elif re.match("Usage: |  or:  ", line):
                self.usage.append(line.split(":", 1)[1].strip())
            elif indent >= DOC_COLUMN and isinstance(paragraph, list) and self.groups:
                paragraph[4] = f"{paragraph[4]} {line.strip()}".strip()
            elif indent <= 1 and i + 1 < len(lines) and OPTION.match(lines[i + 1]):
                self.groups.append((line.strip().rstrip(":"), []))
                paragraph = "heading"
            elif indent == 0:
                into = self.notes if self.groups else self.about
                if paragraph == "text":
                    into[-1][0] += " " + line
                else:
                    into.append([line])
                    paragraph = "text"
            elif paragraph in ("text", "lines"):
                (self.notes if self.groups else self.about)[-1].append(line.strip())
                paragraph = "lines"
            else:
                sys.exit(f"from_help: cannot place the line {line!r}")
        self.groups = [("Help" if not heading and any(o[1] == "help" for o in options) and len(self.groups) > 1 else heading, options)
                       for heading, options in self.groups]
        if not self.usage or not self.options():
            sys.exit("from_help: no usage or no options")

    def options(self):
        return [option for _, options in self.groups for option in options]


def choices_of(argument):
    """The words of fp32|bf16; of one word in small letters, that word."""
    return argument.split("|") if argument and re.fullmatch(r"[a-z][a-z0-9_.-]*(\|[a-z][a-z0-9_.-]*)*", argument) else []


def kind_of(argument):
    """What a shell can complete: dir, file, choice, or nothing."""
    if argument is None:
        return None
    if choices_of(argument):
        return "choice"
    return {"DIR": "dir", "FOLDER": "dir", "FILE": "file", "PATH": "file", "KEY": "file"}.get(argument, "other")


# ---- the man page ----

def roff(text):
    """Text as roff takes it; flags that it mentions are bold."""
    text = text.replace("\\", r"\e").replace("-", r"\-")
    text = re.sub(r"(?<![\w-])((?:\\-){2}[a-z][a-z0-9]*(?:\\-[a-z0-9]+)*)", r"\\fB\1\\fR", text)
    return r"\&" + text if text[:1] in (".", "'") else text


def man_option(option):
    letter, name, argument, optional, text = option
    flags = (fr"\fB\-{letter}\fR, " if letter else "") + r"\fB\-\-" + name.replace("-", r"\-") + r"\fR"
    if argument:
        flags += ("[" if optional else "") + fr"=\fI{roff(argument)}\fR" + ("]" if optional else "")
    return [".TP", flags, roff(text) if text else r"\&"]


def man_lines(lines):
    return [".PP", ".in +4n", ".EX", *map(roff, lines), ".EE", ".in"] if lines else []


def man_synopsis(usage):
    out = []
    for line in usage:
        program, _, rest = line.partition(" ")
        out += [".br"] * bool(out) + [fr"\fB{roff(program)}\fR " + re.sub(r"\b([A-Z]{2,})\b", r"\\fI\1\\fR", roff(rest))]
    return out


def parts_of(path):
    """[(section, lines)] of the file of what --help lacks."""
    parts = []
    with open(path) as f:
        for line in f.read().splitlines():
            if m := re.fullmatch(r"\[([A-Z ]+)\]", line):
                parts.append((m[1], []))
            elif parts:
                parts[-1][1].append(line)
    return [(name, "\n".join(lines).strip("\n").split("\n")) for name, lines in parts]


def man(program, h, version, path):
    parts = parts_of(path) if path else []
    more = dict(parts)
    out = [fr'.\" Made from {program} --help by tools/package/from_help.py.', f'.TH {program.upper()} 1 "" "crossfeed {version}" "Crossfeed"',
           ".SH NAME", *more.pop("NAME", [program]), ".SH SYNOPSIS", *man_synopsis(h.usage), ".SH DESCRIPTION"]
    paragraphs = []
    for text, *lines in h.about + h.notes:
        text = re.sub(r"\s*See README\.md\.", "", text)  # the page says what there is besides
        if m := re.match(r"Examples?:|See also ", text):
            name = "SEE ALSO" if m[0] == "See also " else "EXAMPLES"
            if name not in more:
                more[name] = [roff(text[len(m[0]):])] * (text != m[0]) + man_lines(lines)
                parts.append((name, more[name]))
        elif text:
            paragraphs.append([roff(text), *man_lines(lines)])
    for i, paragraph in enumerate(paragraphs):
        out += [".PP"] * (i > 0) + paragraph
    if "DESCRIPTION" in more:
        out += [".PP", *more.pop("DESCRIPTION")]
    out.append(".SH OPTIONS")
    for heading, options in h.groups:
        if heading:
            out.append(f".SS {roff(heading)}")
        for option in options:
            out += man_option(option)
    for name, lines in parts:
        if name in more:
            out += [f".SH {name}", *lines]
    return out


# ---- completions ----

def bash(program, h):
    """Plain bash, so that it works without the bash-completion package's functions. The shell cuts words at '='."""
    offer = "mapfile -t COMPREPLY < <(compgen {} -- \"$cur\")\n        "
    cases = {}  # what is done after a flag: the flags
    for _, name, argument, optional, _ in h.options():
        if argument and not optional:
            action = {"dir": offer.format("-d") + "compopt -o filenames\n        ", "file": offer.format("-f") + "compopt -o filenames\n        ",
                      "choice": offer.format(f'-W "{" ".join(choices_of(argument))}"'), "other": ""}[kind_of(argument)]
            cases.setdefault(action, []).append("--" + name)
    words = " ".join("--" + o[1] + ("=" if o[2] and not o[3] else "") for o in h.options())
    function = "_" + program.replace("-", "_")
    arms = [f"    {' | '.join(flags)})\n        {action}return\n        ;;\n" for action, flags in cases.items()]
    choose = f'    case $prev in\n{"".join(arms)}    esac\n' if arms else ""
    return f"""# Made from {program} --help by tools/package/from_help.py.
{function}()
{{
    local cur=${{COMP_WORDS[COMP_CWORD]}} prev=${{COMP_WORDS[COMP_CWORD - 1]}}
    if [[ $cur == "=" ]]; then
        cur=
    elif [[ $prev == "=" ]]; then
        prev=${{COMP_WORDS[COMP_CWORD - 2]}}
    fi
    COMPREPLY=()
{choose}    if [[ $cur == -* ]]; then
        mapfile -t COMPREPLY < <(compgen -W "{words}" -- "$cur")
        if [[ ${{#COMPREPLY[@]}} -eq 1 && ${{COMPREPLY[0]}} == *= ]]; then
            compopt -o nospace
        fi
    else
        mapfile -t COMPREPLY < <(compgen -f -- "$cur")
        compopt -o filenames
    fi
}}
complete -F {function} {program}""".split("\n")


def zsh(program, h):
    """Each flag may be given again: some are meant to be."""
    action = {"dir": "_files -/", "file": "_files", "other": " "}  # and of choices the words, in brackets
    lines = []
    for _, name, argument, optional, text in h.options():
        text = re.sub(r"([\[\]:\\])", r"\\\1", text).replace("'", r"'\''")
        value = ""
        if argument:
            value = ("::" if optional else ":") + argument.replace(":", r"\:") + ":"
            value += f"({' '.join(choices_of(argument))})" if choices_of(argument) else action[kind_of(argument)]
        lines.append(f"    '*--{name}{'=' if argument else ''}[{text}]{value}' \\")
    return [f"#compdef {program}", f"# Made from {program} --help by tools/package/from_help.py.", "_arguments -S \\", *lines,
            "    '*:file:_files'"]


def main():
    what, path, version, out = sys.argv[1:5]
    program = os.path.basename(path)
    h = Help(subprocess.run([path, "--help"], capture_output=True, text=True, check=True).stdout)
    lines = {"man": lambda: man(program, h, version, sys.argv[5] if sys.argv[5:] else None), "bash": lambda: bash(program, h),
             "zsh": lambda: zsh(program, h)}[what]()
    with open(out, "w") as f:
        f.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
