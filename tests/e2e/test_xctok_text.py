"""test_xctok_text.py - the texts that xctok takes from files: JSON lines as Python's json reads them.

Needs Python's standard library only; ids are compared elsewhere (interop/test_xctok.py), here the text is decoded again.
"""
import json
import os
import random
import re
import subprocess
import unittest

import harness

XCTOK = os.environ["XCTOK"]
EOT = "<|endoftext|>"


def python_reads(line):
    """The text of the line's field `text` for Python's json, or None."""
    try:
        value = json.loads(line)
    except ValueError:
        return None
    text = value.get("text") if isinstance(value, dict) else None
    return text if isinstance(text, str) else None


class Text(harness.ProgramTest):
    def xctok(self, args, status=0, **more):
        done = subprocess.run([XCTOK, "--tokenizer", f"{harness.DEMO}/base", *map(str, args)], capture_output=True, timeout=harness.LIMIT, **more)
        self.assertEqual(done.returncode, status, done.stderr.decode())
        return done.stderr.decode() if "--out" in args else done.stdout

    def texts(self, args, **more):
        """The documents, and what was said on stderr."""
        out = self.path("t.npy")
        said = self.xctok(["--no-bos", "--seq-len", 1, "--out", out, *args], **more)
        return self.xctok(["--decode", out]).decode().split(EOT), said

    def write(self, name, data):
        with open(self.path(name), "wb") as f:
            f.write(data)
        return self.path(name)


class Json(Text):
    def test_as_python(self):
        """Lines that are JSON, nearly JSON or nothing like it are read or left out as Python would."""
        r = random.Random(1)
        values = ["1", "-0", "01", "1.", "1.5e+7", "1e", "-", "NaN", "-NaN", "Infinity", "-Infinity", "10014255632117358197", "9" * 400, "1e999", "null",
                  "true", "nul", "{}", "[]", "[1,]", "[[], {}]", '{"text": "inner"}', '""', '"\\u00e9"', "'a'", "", "[1 2]", '{"a":1,}', "[{]}"]
        texts = ['"a"', '"\\ud83d"', '"\\ud83d\\ude00"', '"\\ude00 \\ud83d"', '"\\"\\\\\\/\\b\\f\\n\\r\\t"', '"\t"', '"\\u12g4"', '"\\x"', '"é世😀"', "null", "7",
                 '"open', '"\\u00E9\\u4e16"', '"two words"', "[]"]
        keys = ['"text"', '"text"', '"t\\u0065xt"', '"texts"', '"id"', "text", '"text\\u0000"']
        lines = []
        for _ in range(8000):
            members = [f"{r.choice(['', ' '])}{r.choice(keys)}{r.choice([':', ': ', ' :', ''] if r.random() < 0.1 else [':'])}"
                       f"{r.choice(texts if r.random() < 0.6 else values)}" for _ in range(r.randint(0, 3))]
            line = "{" + r.choice([",", ", "]).join(members) + "}" * r.choice([1] * 20 + [0, 2]) + r.choice([""] * 20 + [" ", "\r", "x"])
            if r.random() < 0.05:
                at = r.randrange(len(line) + 1)
                line = line[:at] + r.choice('{}[],:"\\ x') + line[at:]
            lines.append(line)
        path = self.write("lines", "\n".join(lines).encode())
        expected = [t for t in map(python_reads, lines) if t is not None]
        self.assertGreater(len(expected), 300)
        n_bad = sum(python_reads(line) is None and line.strip(" \t\r") != "" for line in lines)
        self.assertGreater(n_bad, 1000)
        texts, said = self.texts(["--jsonl", "--skip-bad-lines", path])
        self.assertEqual(texts, [re.sub("[\ud800-\udfff]", "\ufffd", t) for t in expected])
        self.assertIn(f"{n_bad} bad lines left out, the first: {path}: line ", said)
        n_lone = sum(len(re.findall("[\ud800-\udfff]", t)) for t in expected)
        self.assertIn(f"{n_lone} invalid UTF-8 sequences became U+FFFD", said)

    def test_bad_line(self):
        path = self.write("lines", b'{"text": "a"}\n{"text": null}\n')
        said = self.xctok(["--jsonl", "--out", self.path("o.npy"), path], status=1)
        self.assertIn(f"{path}: line 2: no text in field 'text' (--skip-bad-lines leaves such lines out)", said)
        self.assertIn("--skip-bad-lines goes with --jsonl", self.xctok(["--skip-bad-lines", "--out", self.path("o.npy"), path], status=2))

    def test_invalid_utf8(self):
        texts, said = self.texts([self.write("text", b"a\xff\xfe\xe4\xb8 b")])
        self.assertEqual(texts, ["a\ufffd\ufffd\ufffd b"])
        self.assertIn("3 invalid UTF-8 sequences became U+FFFD", said)
        self.assertNotIn("invalid", self.texts([self.write("text", "é世".encode())])[1])


if __name__ == "__main__":
    unittest.main(verbosity=2)
