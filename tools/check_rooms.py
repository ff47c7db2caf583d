#!/usr/bin/env python3
"""Holds the include graph against the rooms of CMakeLists.txt: every #include of a project header must lead into the file's own room or
into one that room(...) lets it include, directly or through others; rooms form no circle, nor do modules (a .h and .c pair).
Prints each offence on a line and exits 1, or prints one line of counts.

    tools/check_rooms.py [--dot]        (--dot: the rooms and their arrows for graphviz, to stdout)
"""
import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
INCLUDE = re.compile(r'^\s*#\s*include\s+"([^"]+)"', re.M)


def rooms_of_cmake():
    """name -> (folder, names that follow it), from the room(...) lines, which are what the compiler gets too."""
    text = re.sub(r"#[^\n]*", "", (ROOT / "CMakeLists.txt").read_text())
    lines = re.findall(r"^\s*room\((\w+)\s+(\S+)([^)]*)\)", text, re.M)
    rooms = {name: (folder, rest.split()) for name, folder, rest in lines if name != "name"}
    for name, more in re.findall(r"target_link_libraries\((\w+)\s+(?:PUBLIC|PRIVATE)([^)]*)\)", text):
        if name in rooms:
            rooms[name][1].extend(more.split())
    return {name: (folder, [r for r in rest if r in rooms and r != name]) for name, (folder, rest) in rooms.items()}


def below(rooms, name, seen=()):
    """All rooms that `name` may include."""
    out = set()
    for other in rooms[name][1]:
        if other not in seen:
            out |= {other} | below(rooms, other, (*seen, name))
    return out


def circle(arrows):
    """One circle of a graph {node: nodes}, as a list of nodes; None if there is none."""
    state, path = {}, []

    def visit(node):
        state[node] = "open"
        path.append(node)
        for other in sorted(arrows.get(node, ())):
            if state.get(other) == "open":
                return path[path.index(other):] + [other]
            if other not in state and (found := visit(other)):
                return found
        state[node] = "done"
        path.pop()
        return None

    for node in sorted(arrows):
        if node not in state and (found := visit(node)):
            return found
    return None


def main():
    rooms = rooms_of_cmake()
    if "--dot" in sys.argv[1:]:
        print("digraph rooms {", *(f'  "{a}" -> "{b}";' for a in rooms for b in rooms[a][1]), "}", sep="\n")
        return 0
    offences = []
    if found := circle({name: rooms[name][1] for name in rooms}):
        offences.append("rooms include each other: " + " -> ".join(found))
    home, files = {}, []
    for name, (folder, _) in rooms.items():
        for path in sorted((ROOT / folder).glob("*.[chu]*")):
            if path.suffix not in (".c", ".h", ".cu", ".cuh"):
                continue
            files.append((name, path))
            if path.suffix == ".h" or path.suffix == ".cuh":
                if path.name in home:
                    offences.append(f"{path.relative_to(ROOT)}: {home[path.name]} has a header of that name too")
                home[path.name] = name
    modules = {}
    for name, path in files:
        allowed = below(rooms, name) | {name}
        for header in INCLUDE.findall(path.read_text()):
            if header not in home:
                offences.append(f"{path.relative_to(ROOT)}: no room has {header}")
            elif home[header] not in allowed:
                offences.append(f"{path.relative_to(ROOT)}: room {name} may not include {header} of room {home[header]}")
            elif pathlib.Path(header).stem != path.stem:
                modules.setdefault(path.stem, set()).add(pathlib.Path(header).stem)
    if found := circle(modules):
        offences.append("modules include each other: " + " -> ".join(found))
    for folder in ("proto", "producer", "trainer"):
        for path in sorted((ROOT / folder).rglob("*.[ch]")):
            if path.parent not in {ROOT / f for f, _ in rooms.values()} and path.name not in ("actgen.c", "xctrain.c"):
                offences.append(f"{path.relative_to(ROOT)}: is in no room")
    for line in offences:
        print(line)
    if not offences:
        print(f"{len(rooms)} rooms, {len(files)} files, {sum(map(len, modules.values()))} arrows between modules: none leads up, no circle")
    return 1 if offences else 0


if __name__ == "__main__":
    sys.exit(main())
