#!/usr/bin/env python3
"""Sees to it that all heap memory goes through proto/base/mem.h: no other file of the programs calls malloc and its kin, nor free, nor
what returns memory that free must release; but for the places that ALLOWED names, each with its reason.
Prints each offence on a line and exits 1, or prints one line of counts.

    tools/check_allocations.py
"""
import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
CALL = re.compile(r"\b(malloc|calloc|realloc|reallocarray|free|aligned_alloc|posix_memalign|memalign|valloc|strdup|strndup|asprintf|"
                  r"vasprintf|getline|getdelim|open_memstream|scandir|realpath|json_dumps|XXH3_createState|XXH3_freeState)\s*\(")
NO_CODE = re.compile(r"/\*.*?\*/|//[^\n]*|\"(?:\\.|[^\"\\\n])*\"|'(?:\\.|[^'\\\n])*'", re.S)

# (file, function): why
ALLOWED = {
    ("trainer/telemetry/metrics.c", "getline"): "reads lines of any length",
    ("trainer/telemetry/metrics.c", "free"): "what getline returns",
    ("trainer/telemetry/status_text.c", "open_memstream"): "a text of any length, which libmicrohttpd releases with free",
    ("trainer/telemetry/status_text.c", "free"): "what open_memstream returns",
    ("trainer/telemetry/metrics_endpoint.c", "free"): "what open_memstream returned, where libmicrohttpd does not take it",
    ("trainer/run/checkpoint_folder.c", "scandir"): "names in order",
    ("trainer/run/checkpoint_folder.c", "free"): "what scandir returns",
}


def main():
    offences, used, n_files = [], set(), 0
    for folder in ("proto", "producer", "trainer", "tools"):
        for path in sorted((ROOT / folder).rglob("*.[ch]")):
            name = str(path.relative_to(ROOT))
            if name == "proto/base/mem.c":
                continue
            n_files += 1
            code = NO_CODE.sub(lambda m: "\n" * m.group().count("\n"), path.read_text())  # lines keep their numbers
            for m in CALL.finditer(code):
                if (name, m.group(1)) in ALLOWED:
                    used.add((name, m.group(1)))
                else:
                    line = code.count("\n", 0, m.start()) + 1
                    offences.append(f"{name}:{line}: {m.group(1)}: memory goes through proto/base/mem.h")
    offences += [f"{name}: does not call {call} any more: take it out of ALLOWED" for name, call in sorted(set(ALLOWED) - used)]
    for line in offences:
        print(line)
    if not offences:
        print(f"{n_files} files, {len(used)} allowed calls: all other memory goes through mem.h")
    return 1 if offences else 0


if __name__ == "__main__":
    sys.exit(main())
