"""test_xctok_text.py - the texts that xctok takes from files: JSON lines as Python's json reads them, and packed files as plain ones.

Needs Python's standard library only; ids are compared elsewhere (interop/test_xctok.py), here the text is decoded again.
"""
import bz2
import gzip
import json
import lzma
import os
import random
import re
import struct
import subprocess
import unittest

import harness

XCTOK = os.environ["XCTOK"]
PACKED = os.environ.get("PACKED", "gzip zstd xz").split()  # the formats that the build has
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


def zstd(data):
    """Frames of raw blocks, 250 bytes each: Python's library cannot pack zstd."""
    frames = b""
    for i in range(0, max(len(data), 1), 250):
        piece = data[i:i + 250]
        frames += b"\x28\xb5\x2f\xfd\x20" + bytes([len(piece)]) + struct.pack("<I", len(piece) << 3 | 1)[:3] + piece
    return frames


class Packed(Text):
    FORMATS = {name: pack for name, pack in (("gzip", gzip.compress), ("xz", lzma.compress), ("zstd", zstd)) if name in PACKED}

    def setUp(self):
        super().setUp()
        r = random.Random(2)
        self.words = " ".join(r.choice(["the", "cat", "世界", "sat", "é"]) for _ in range(20000)).encode()

    def test_as_plain(self):
        expected, _ = self.texts([self.write("plain", self.words)])
        for name, pack in self.FORMATS.items():
            with self.subTest(name):
                half = len(self.words) // 2
                for packed in (pack(self.words), pack(self.words[:half]) + pack(self.words[half:]), pack(self.words) + bytes(512)):
                    path = self.write("packed", packed)
                    self.assertEqual(self.texts([path])[0], expected)
                with open(path, "rb") as f:
                    self.assertEqual(self.texts(["-"], stdin=f)[0], expected)
                said = self.xctok(["--out", self.path("o.npy"), self.write("empty", pack(b""))], status=1)
                self.assertIn("the text fills 1 positions", said)

    def test_json(self):
        lines = b'{"text": "one"}\n{"text": "two"}\n'
        for name, pack in self.FORMATS.items():
            self.assertEqual(self.texts(["--jsonl", self.write(name, pack(lines))])[0], ["one", "two"])

    def test_damaged(self):
        for name, pack in self.FORMATS.items():
            packed = pack(self.words)
            for data, message in ((packed[:-3], f"the {name} is cut short"), (packed + b"x", name), (packed[:7], name)):
                with self.subTest(f"{name}: {message}"):
                    said = self.xctok(["--out", self.path("o.npy"), "--seq-len", 8, self.write("packed", data)], status=1)
                    self.assertIn(message, said)
                    self.assertFalse(os.path.exists(self.path("o.npy")))
            if name == "zstd":  # no checksum in these
                continue
            middle = len(packed) // 2
            data = packed[:middle] + bytes([packed[middle] ^ 0x55]) + packed[middle + 1:]
            self.assertIn(f"damaged {name}", self.xctok(["--out", self.path("o.npy"), self.write("packed", data)], status=1))

    def test_refused(self):
        tar = b"name".ljust(257, b"\0") + b"ustar".ljust(255, b"\0") + b"text".ljust(512, b"\0")
        for data, message in ((bz2.compress(b"text"), "is bzip2, not text"), (b"PK\3\4" + bytes(40), "is a zip archive, not text"),
                              (b"PAR1\x15\4" + bytes(40), "is Parquet, not text"), (tar, "is a tar archive, not text"),
                              (b"\x93NUMPY\1\0", "is NumPy's .npy, not text")):
            with self.subTest(message):
                self.assertIn(message, self.xctok(["--out", self.path("o.npy"), self.write("packed", data)], status=1))
        for name, pack in self.FORMATS.items():
            said = self.xctok(["--out", self.path("o.npy"), self.write("packed", pack(tar[:262]))], status=1)
            self.assertIn(f"in the {name} is a tar archive, not text", said)


if __name__ == "__main__":
    unittest.main(verbosity=2)
