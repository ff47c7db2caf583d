"""test_docs.py - what the project's .md files say of files, flags, tests and rooms is so.

Links lead to files and headings that exist; names of source files are those of files; a flag beside a program's or a script's name is one
that it takes; the proofs in ARCHITECTURE.md are tests; its picture of the rooms has the arrows of CMakeLists.txt. Whether what
is said of them is true, no program can tell.

    BUILD=build python3 tests/test_docs.py
"""
import fnmatch
import os
import pathlib
import re
import shlex
import subprocess
import unittest

ROOT = pathlib.Path(__file__).resolve().parent.parent
BUILD = pathlib.Path(os.environ.get("BUILD", ROOT / "build"))
PROGRAMS = ["xctrain", "actgen", "xctok", "xckeys", "xcverify", "actcat", "bench", "bench_replay"]
SOURCE = re.compile(r"^[\w./*@-]+\.(c|h|py|sh|pml|svg|service|sbatch|txt|md)$")
INLINE = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")
FENCED = re.compile(r"^```(\w*)\n(.*?)^```", re.M | re.S)


def repository_files():
    """Of a checkout or an unpacked archive, without what was built in it."""
    for folder, folders, names in os.walk(ROOT):
        folders[:] = [f for f in folders if f != ".git" and f != "__pycache__" and not (folder == str(ROOT) and f.startswith("build"))]
        yield from (pathlib.Path(folder, name).relative_to(ROOT) for name in names)


FILES = sorted(repository_files())
PAGES = {path: (ROOT / path).read_text() for path in FILES if path.suffix == ".md"}


def headings(text):
    """The anchors that GitHub gives them."""
    return {re.sub(r"[^\w\- ]", "", line).strip().lower().replace(" ", "-")
            for line in re.findall(r"^#+ (.*)$", FENCED.sub("", text), re.M)}


def exists(name, page):
    """A path from the top or from the page's folder, or the name of a file somewhere; capitals stand for any word."""
    for pattern in (name, re.sub(r"[A-Z]{3,}", "*", name)):
        for path in FILES:
            if path.name == pattern or any(fnmatch.fnmatch(str(path), os.path.normpath(base / pattern)) for base in (pathlib.Path(), page.parent)):
                return True
            if "/" not in pattern and fnmatch.fnmatch(path.name, pattern):
                return True
    return False


def commands(text):
    """The commands of a page as lists of words: lines of its shell blocks, and code within its lines."""
    lines = [line for kind, block in FENCED.findall(text) if kind in ("sh", "") for line in block.replace("\\\n", " ").splitlines()]
    for line in lines + INLINE.findall(FENCED.sub("", text)):
        for part in re.split(r"&&|\|\||[;&|]", re.sub(r"(^|\s)#.*", "", line)):
            try:
                words = shlex.split(part)
            except ValueError:
                continue
            while words and (re.match(r"\w+=", words[0]) or words[0] in ("python", "python3", "(")):
                words = words[1:]
            if words:
                yield words


def flags_of(words):
    return [m.group(1) for word in words if (m := re.match(r"(--[a-z][\w-]*)", word))]


class Docs(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.flags = {}
        for program in PROGRAMS:
            if (BUILD / program).exists():
                said = subprocess.run([BUILD / program, "--help"], capture_output=True, text=True, check=True).stdout
                cls.flags[program] = set(re.findall(r"--[a-z][\w-]*", said))
        cls.scripts = {path.name: set(re.findall(r"--[a-z][\w-]*", (ROOT / path).read_text()))
                       for path in FILES if path.suffix in (".py", ".sh") and path.name != "test_docs.py"}
        cls.scripts["crossfeed-trainer"] = cls.flags.get("xctrain", set())

    def setUp(self):
        self.wrong = []

    def tearDown(self):
        self.assertEqual(self.wrong, [], "\n" + "\n".join(self.wrong))

    def test_links(self):
        n = 0
        for page, text in PAGES.items():
            for target in re.findall(r"\]\(([^)\s]+)\)", FENCED.sub("", text)):
                if re.match(r"\w+:", target):
                    continue
                n += 1
                path, _, anchor = target.partition("#")
                file = (ROOT / page.parent / path).resolve() if path else ROOT / page
                if not file.exists():
                    self.wrong.append(f"{page}: no file {target}")
                elif anchor and anchor not in headings(file.read_text()):
                    self.wrong.append(f"{page}: no heading {target}")
        self.assertGreater(n, 10)

    def test_names_of_files(self):
        n = 0
        for page, text in PAGES.items():
            for name in INLINE.findall(FENCED.sub("", text)):
                if SOURCE.match(name) and not name.startswith(("shard_", "/")):
                    n += 1
                    if not exists(name, page):
                        self.wrong.append(f"{page}: no file {name}")
        self.assertGreater(n, 50)

    def test_flags(self):
        self.assertLessEqual({"xctrain", "actgen"}, set(self.flags), f"{BUILD} lacks programs")
        known = set().union(*self.flags.values(), *self.scripts.values())
        n = 0
        for page, text in PAGES.items():
            for words in commands(text):
                name = pathlib.Path(words[0]).name
                rest = words[words.index("--") + 1:] if "--" in words else []
                words = words[:len(words) - len(rest)]
                if name in PROGRAMS and name not in self.flags:
                    continue  # not built here
                takes = self.flags.get(name) or self.scripts.get(name)
                if words[0].startswith("--"):
                    takes = known
                if takes is None:
                    continue
                n += 1
                self.wrong += [f"{page}: {'no program has' if takes is known else name + ' has no'} {flag}" for flag in flags_of(words) if flag not in takes]
                if rest and "bench" in self.flags:
                    self.wrong += [f"{page}: bench has no {flag}" for flag in flags_of(rest) if flag not in self.flags["bench"]]
        self.assertGreater(n, 50)

    def test_scripts_exist(self):
        for page, text in PAGES.items():
            for words in commands(text):
                if re.match(r"(tools|tests|proto)/[\w/.-]+$", words[0]) and not (ROOT / words[0]).exists() and not exists(words[0], page):
                    self.wrong.append(f"{page}: no {words[0]}")

    def test_proofs(self):
        """In ARCHITECTURE.md, what stands as proof of a promise is a test of ctest, or a function of a unit test."""
        listed = subprocess.run([os.environ.get("CTEST", "ctest"), "--test-dir", BUILD, "-N"], capture_output=True, text=True,
                                check=True).stdout
        tests = set(re.findall(r"Test +#\d+: (\w+)", listed))
        functions = {name for path in FILES if path.parts[:2] == ("tests", "unit") and path.suffix == ".c"
                     for name in re.findall(r"^static void (\w+)\(void \*\*state\)", (ROOT / path).read_text(), re.M)}
        text = PAGES[pathlib.Path("proto/ARCHITECTURE.md")]
        section = re.search(r"^## Promises\n(.*?)^## ", text, re.M | re.S).group(1)
        names = [name for row in section.splitlines()[2:] if row.startswith("|") for name in INLINE.findall(row) if re.fullmatch(r"\w+", name)]
        self.assertGreater(len(names), 15)
        self.wrong += [f"ARCHITECTURE.md: no test {name}" for name in names if name not in tests | functions]

    def test_rooms(self):
        cmake = re.sub(r"#[^\n]*", "", (ROOT / "CMakeLists.txt").read_text())
        rooms = {name: may.split() for name, folder, may in re.findall(r"^room\((\w+)\s+([\w/]+)([^)]*)\)", cmake, re.M)}
        folders = dict(re.findall(r"^room\((\w+)\s+([\w/]+)", cmake, re.M))
        arrows = {(a, b) for a in rooms for b in rooms[a] if b in rooms}
        text = PAGES[pathlib.Path("proto/ARCHITECTURE.md")]
        picture = next(block for kind, block in FENCED.findall(text) if kind == "mermaid")
        drawn = set(re.findall(r"(\w+) --> (\w+)", picture))
        self.wrong += [f"the picture lacks {a} --> {b}" for a, b in sorted(arrows - drawn)]
        self.wrong += [f"CMakeLists.txt has no {a} --> {b}" for a, b in sorted(drawn - arrows)]
        for folder in folders.values():
            if not re.search(rf"^\| \[?`{folder}`", text, re.M):
                self.wrong.append(f"ARCHITECTURE.md's table of rooms lacks {folder}")
            if (ROOT / folder / "README.md").exists() and f"](../{folder}/README.md)" not in text:
                self.wrong.append(f"ARCHITECTURE.md has no link to {folder}/README.md")


if __name__ == "__main__":
    unittest.main()
