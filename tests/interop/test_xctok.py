"""test_xctok.py - xctok against the Hugging Face `tokenizers` package, on more than 5 MB of varied text.

The packages are installed from PyPI into a virtual environment in the build folder; where that cannot be done the test says so and
is skipped (exit status 77). The text is made here from what every machine of the project has: the demo's sample, this repository's
sources, the system's licences and Python library, and generated text of many scripts. Every id must be the same, with the demo's
tokenizer and with others trained here.
"""
import array
import glob
import json
import os
import random
import resource
import struct
import subprocess
import sys
import tempfile
import time
import unittest

SKIPPED = 77
PACKAGES = ["tokenizers==0.23.3", "transformers==5.23.0"]  # the second: test_xctok_folders.py
XCTOK = os.environ.get("XCTOK", "xctok")
ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../..")
DEMO = os.environ.get("DEMO", f"{ROOT}/tools/demo")
EOT = "<|endoftext|>"


def enter_venv():
    """Continues in a Python that has the packages."""
    venv = os.environ.get("VENV", "venv-tokenizers")
    python = f"{venv}/bin/python"
    if subprocess.run([python, "-c", "import tokenizers, transformers"], capture_output=True).returncode if os.path.exists(python) else True:
        for command in ([sys.executable, "-m", "venv", "--clear", venv], [python, "-m", "pip", "install", "-q", *PACKAGES]):
            made = subprocess.run(command, capture_output=True, text=True)
            if made.returncode:
                print(f"skipped: cannot install {PACKAGES} from PyPI into {venv}: {(made.stderr or made.stdout)[-500:]}")
                sys.exit(SKIPPED)
    os.execv(python, [python, *sys.argv])


try:
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
except ImportError:
    enter_venv()


def npy(path):
    """(shape, flat list) of a uint16 or int32 .npy."""
    with open(path, "rb") as f:
        data = f.read()
    header = eval(data[10:10 + struct.unpack("<H", data[8:10])[0]].decode())
    assert (10 + struct.unpack("<H", data[8:10])[0]) % 64 == 0 and not header["fortran_order"]
    flat = array.array({"<u2": "H", "<i4": "i"}[header["descr"]])
    flat.frombytes(data[10 + struct.unpack("<H", data[8:10])[0]:])
    return header["shape"], flat.tolist()


def files(pattern, most):
    text = b""
    for path in sorted(glob.glob(pattern, recursive=True)):
        if os.path.isfile(path):
            with open(path, "rb") as f:
                text += f.read()
        if len(text) >= most:
            break
    return text[:most]


def texts():
    """name -> bytes, more than 5 MB."""
    r = random.Random(5)

    def words(ranges, n, longest=9, separators=" "):
        letters = [chr(c) for a, b in ranges for c in range(a, b + 1)]
        return "".join("".join(r.choices(letters, k=r.randint(1, longest))) + r.choice(separators) for _ in range(n))

    spaces = " \t\n\r\x0b\x0c\x85\xa0\u1680\u2000\u2003\u200a\u2028\u2029\u202f\u205f\u3000"
    odd = ["\u180e", "\u200b", "\u200d", "\ufeff", "\u0301", "\u20e3", "\ufe0f", "\x00", "\x1b", "\x7f", "\xad", "\U000e0001", "'s", "'re", "'"]
    emoji = ["👩\u200d👩\u200d👧\u200d👦", "🏳\ufe0f\u200d🌈", "👍🏽", "🇬🇷", "❤\ufe0f", "1\ufe0f\u20e3", "😀", "🧑\u200d💻"]
    soup = [*"abcXYZ019 '.,!?-_\"\\/<>|{}\t\n", *spaces, *odd, *emoji, "é", "e\u0301", "ß", "Ⅷ", "½", "٣", "९", "௧", "世", "한", "ไ", "א", "ب", EOT,
            "<|im_start|>", "<|im", "<left>", "<right>", "word token", "don't", "we'll", "I'VE", "\r\n", "    ", "aaaa"]
    return {
        "demo": files(f"{DEMO}/sample.txt", 10**5),
        "english": files("/usr/share/common-licenses/*", 10**6),
        "sources": files(f"{ROOT}/*/*.[ch]", 6 * 10**5) + files(f"{ROOT}/*/*/*.[ch]", 3 * 10**5),
        "python": files("/usr/lib/python3*/*.py", 10**6),
        "changelogs": b"text: " + files("/usr/share/doc/*/changelog*.gz", 3 * 10**5),  # compressed: invalid UTF-8; not a gzip file, thanks to its start
        "greek": words([(0x370, 0x3ff), (0x1f00, 0x1fff)], 20000).encode(),
        "cyrillic": words([(0x400, 0x52f)], 20000, separators=" ,.\n").encode(),
        "arabic": words([(0x600, 0x6ff), (0x750, 0x77f)], 20000).encode(),
        "hebrew": words([(0x591, 0x5f4)], 20000).encode(),
        "devanagari": words([(0x900, 0x97f)], 20000).encode(),
        "other scripts": words([(0x530, 0x58f), (0x980, 0xdff), (0xe80, 0x109f), (0x1200, 0x137f), (0x1780, 0x17ff)], 20000).encode(),
        "cjk": words([(0x4e00, 0x9fff), (0x3001, 0x30ff), (0x20000, 0x20100)], 10000, 40, "。、\u3000\n").encode(),
        "hangul": words([(0xac00, 0xd7a3), (0x1100, 0x11ff)], 20000).encode(),
        "thai": words([(0xe01, 0xe5b)], 5000, 30).encode(),
        "digits": words([(0x30, 0x39), (0x660, 0x669), (0x966, 0x96f), (0x2160, 0x2188), (0xbc, 0xbe), (0x1d7ce, 0x1d7ff)], 20000).encode(),
        "emoji": "".join(r.choice(emoji) + r.choice(["", " ", "!", "x", "\n"]) for _ in range(10000)).encode(),
        "planes": "".join(chr(c) for c in r.sample([*range(0xd800), *range(0xe000, 0x110000)], 60000)).encode(),
        "soup": "".join(r.choices(soup, k=200000)).encode(),
        "white space": "".join(r.choice(spaces) * r.choice([1, 1, 2, 9]) + r.choice(["", "x", "7", "!"]) for _ in range(50000)).encode(),
        "empty lines": b"\n" * 50000 + b"\r\n" * 50000 + b"x\n\n\ny\n \n" * 10000,
        "controls": bytes(r.choices(range(128), k=100000)),
        "random bytes": r.randbytes(300000),
        "broken": "Ünïcödé 世界 😀 שלום".encode() * 5000 and b"".join(
            bytes(b for b in "Ünïcödé 世界 😀 שלום ".encode() if r.random() > 0.05) for _ in range(6000)),
        "surrogates": b"".join(r.choice([b"\xed\xa0\x80", b"\xc0\xaf", b"\xf4\x90\x80\x80", b"\xe2\x82", b"\xf0\x9f\x98", b"a", b" "])
                               for _ in range(50000)),
        "runs": b"a" * 200000 + b" " * 200000 + b"\n" * 100000 + b"=" * 100000 + b"0" * 100000 + "é".encode() * 50000 + b"'" * 50000,
        "json": json.dumps([{"id": i, "name": f"n{i * i}", "v": [i, i / 7, None, True]} for i in range(8000)], indent=1).encode(),
        "no space": "".join(r.choice("abcdefABC012345+/") for _ in range(600000)).encode(),
    }


def train(text, size, **byte_level):
    tok = Tokenizer(models.BPE())
    tok.pre_tokenizer = pre_tokenizers.ByteLevel(**{"add_prefix_space": False, "use_regex": True, **byte_level})
    tok.decoder = decoders.ByteLevel()
    tok.train_from_iterator([text], trainers.BpeTrainer(vocab_size=size, special_tokens=[EOT], show_progress=False,
                                                        initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
    return tok


class Xctok(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.temporary = tempfile.TemporaryDirectory()
        cls.folder = cls.temporary.name
        cls.texts = texts()
        print(f"{sum(map(len, cls.texts.values())) / 1e6:.1f} MB of text")
        assert sum(map(len, cls.texts.values())) > 5e6
        mixed = "\n".join(t[:40000].decode("utf-8", "replace") for name, t in cls.texts.items() if name != "runs")
        demo = Tokenizer.from_file(f"{DEMO}/base/tokenizer.json")
        cls.tokenizers = {f"{DEMO}/base": demo}

        tok = train(mixed, 6000)
        os.makedirs(cls.path("files"))
        tok.model.save(cls.path("files"))
        files_tok = Tokenizer(models.BPE.from_file(cls.path("files/vocab.json"), cls.path("files/merges.txt")))
        files_tok.pre_tokenizer, files_tok.decoder = tok.pre_tokenizer, tok.decoder
        files_tok.add_special_tokens([EOT])
        cls.tokenizers[cls.path("files")] = files_tok

        tok.add_special_tokens(["<|im_start|>", AddedToken("<left>", lstrip=True), AddedToken("<right>", rstrip=True)])
        tok.add_tokens(["word token", "aaaa", AddedToken("世", normalized=False), "don't"])
        tok.save(cls.path("trained.json"))
        cls.tokenizers[cls.path("trained.json")] = tok

        tok = train(mixed, 3000, add_prefix_space=True)
        tok.add_special_tokens(["<|im_start|>"])
        tok.save(cls.path("prefix.json"))
        cls.tokenizers[cls.path("prefix.json")] = tok

    @classmethod
    def tearDownClass(cls):
        cls.temporary.cleanup()

    @classmethod
    def path(cls, name):
        return os.path.join(cls.folder, name)

    def xctok(self, *args, status=0, **more):
        done = subprocess.run([XCTOK, *map(str, args)], capture_output=True, **more)
        self.assertEqual(done.returncode, status, done.stderr.decode())
        return done

    def ids(self, tokenizer, text):
        """All ids that xctok gives the text, as one document."""
        self.xctok("--tokenizer", tokenizer, "--no-bos", "--seq-len", 1, "--out", self.path("ids.npy"), input=text)
        return npy(self.path("ids.npy"))[1]

    def same(self, name, got, expected):
        if got != expected:
            i = next((i for i, (a, b) in enumerate(zip(got, expected)) if a != b), min(len(got), len(expected)))
            self.fail(f"{name}: {len(got)} ids, expected {len(expected)}; at {i}: {got[i - 3:i + 5]}, expected {expected[i - 3:i + 5]}")

    def test_ids(self):
        for path, tok in self.tokenizers.items():
            for name, text in self.texts.items():
                expected = tok.encode(text.decode("utf-8", "replace"), add_special_tokens=False).ids
                self.same(f"{os.path.basename(path)}, {name}", self.ids(path, text), expected)

    def test_one_document(self):
        text = b"".join(t[:150000] for t in self.texts.values())
        for path in (f"{DEMO}/base", self.path("trained.json")):
            self.same(path, self.ids(path, text), self.tokenizers[path].encode(text.decode("utf-8", "replace"), add_special_tokens=False).ids)

    def test_all_code_points(self):
        """A tokenizer that shows every character's class: "a", "1", "." and "\\n" join what follows in the same word."""
        alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
        first = ["a", "1", ".", "Ċ"]
        merges = [(a, b) for a in first for b in alphabet]
        vocab = {t: i for i, t in enumerate(alphabet + [a + b for a, b in merges] + [EOT])}
        tok = Tokenizer(models.BPE(vocab=vocab, merges=merges))
        tok.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
        tok.save(self.path("classes.json"))
        points = [c for c in range(0x110000) if not 0xd800 <= c < 0xe000]
        for i in range(0, len(points), 1 << 16):
            text = "".join(f"a{chr(c)}1{chr(c)}.{chr(c)}\n{chr(c)}x" for c in points[i:i + (1 << 16)])
            self.same(f"U+{points[i]:04X} on", self.ids(self.path("classes.json"), text.encode()), tok.encode(text).ids)

    def test_decode(self):
        r = random.Random(6)
        for path, tok in self.tokenizers.items():
            size = tok.get_vocab_size()
            ids = [r.randrange(size) for _ in range(30000)]
            self.write_npy("random.npy", ids, 100)
            for skip in (False, True):
                got = self.xctok("--tokenizer", path, "--decode", self.path("random.npy"), *["--skip-special"] * skip).stdout
                self.assertEqual(got.decode(), tok.decode(ids, skip_special_tokens=skip))
            got = self.xctok("--tokenizer", path, "--decode", self.path("random.npy"), "--rows", "7:9", "--separate").stdout
            self.assertEqual(got.decode(), "".join(tok.decode(ids[i:i + 100], skip_special_tokens=False) + "\n" for i in (700, 800)))
        text = self.texts["english"]
        self.xctok("--tokenizer", f"{DEMO}/base", "--seq-len", 64, "--out", self.path("t.npy"), input=text)
        got = self.xctok("--tokenizer", f"{DEMO}/base", "--decode", self.path("t.npy"), "--skip-special").stdout
        self.assertGreater(len(got), len(text) - 1000)
        self.assertTrue(text.decode("utf-8", "replace").encode().startswith(got))

    def write_npy(self, name, ids, columns):
        header = f"{{'descr': '<i4', 'fortran_order': False, 'shape': ({len(ids) // columns}, {columns}), }}".ljust(117) + "\n"
        with open(self.path(name), "wb") as f:
            f.write(b"\x93NUMPY\1\0\x76\0" + header.encode() + array.array("i", ids).tobytes())

    def test_packing(self):
        """As TransformerLens' tokenize_and_concatenate: eos.join(documents), cut into seq_len - 1, BOS before each."""
        r = random.Random(7)
        lines = self.texts["english"].decode().split("\n")
        documents = ["\n".join(lines[i:i + r.randint(0, 30)]) for i in range(0, 3000, 20)] + ["", "x"]
        with open(self.path("d.jsonl"), "w") as f:
            f.writelines(json.dumps({"n": 1, "body": d}, ensure_ascii=r.random() < 0.5) + "\n" for d in documents)
        for path in (f"{DEMO}/base", self.path("trained.json")):
            tok = self.tokenizers[path]
            eot = tok.token_to_id(EOT)
            joined = tok.encode(EOT.join(documents), add_special_tokens=False).ids
            n = len(joined) // 127
            self.xctok("--tokenizer", path, "--field", "body", "--seq-len", 128, "--out", self.path("p.npy"), self.path("d.jsonl"))
            expected = [x for i in range(n) for x in [eot, *joined[127 * i:127 * (i + 1)]]]
            self.assertEqual(npy(self.path("p.npy")), ((n, 128), expected))

            self.xctok("--tokenizer", path, "--field", "body", "--seq-len", 128, "--per-document", "--out", self.path("p.npy"),
                       self.path("d.jsonl"))
            rows = [[eot, *ids][:128] for d in documents if (ids := tok.encode(d, add_special_tokens=False).ids)]
            expected = [x for row in rows for x in row + [eot] * (128 - len(row))]
            self.assertEqual(npy(self.path("p.npy")), ((len(rows), 128), expected))
            self.assertEqual(npy(self.path("p.lengths.npy")), ((len(rows),), [len(row) for row in rows]))

            self.xctok("--tokenizer", path, "--line-documents", "--seq-len", 32, "--max-tokens", 3300, "--bos", "x", "--out",
                       self.path("l.npy"), input="\n".join(lines).encode())
            joined = tok.encode(EOT.join(lines), add_special_tokens=False).ids
            bos = tok.token_to_id("x")
            expected = [x for i in range(103) for x in [bos, *joined[31 * i:31 * (i + 1)]]]
            self.assertEqual(npy(self.path("l.npy")), ((103, 32), expected))

    def test_speed_and_memory(self):
        """One long document on standard input: at least 5 MB/s of processor time, memory that does not grow with it."""
        text = self.texts["english"] + self.texts["sources"] + self.texts["cyrillic"] + self.texts["cjk"] + self.texts["no space"]

        def run(times):
            before = resource.getrusage(resource.RUSAGE_CHILDREN)
            process = subprocess.Popen([XCTOK, "--tokenizer", self.path("trained.json"), "--out", self.path("big.npy"), "-"],
                                       stdin=subprocess.PIPE, stderr=subprocess.PIPE)
            peak = 0
            for _ in range(times):
                process.stdin.write(text)
                with open(f"/proc/{process.pid}/status") as f:
                    peak = max(peak, *(int(line.split()[1]) for line in f if line.startswith("VmHWM")))
            process.stdin.close()
            self.assertEqual(process.wait(), 0, process.stderr.read())
            process.stderr.close()
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            return peak / 1024, times * len(text) / 1e6 / (after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)

        small, _ = run(3)
        large, speed = run(30)
        print(f"{30 * len(text) / 1e6:.0f} MB: {speed:.1f} MB/s of processor time, {large:.1f} MiB; 3 pieces: {small:.1f} MiB")
        if not os.environ.get("SANITIZE"):
            self.assertGreater(speed, 5)
            self.assertLess(large, small + 4)

    def test_long_runs_are_linear(self):
        def seconds(n):
            began = time.process_time(), resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
            self.ids(f"{DEMO}/base", b"a" * n + b" " + b"ab" * (n // 2))
            return resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - began[1]
        seconds(1000)
        short, long = seconds(300000), seconds(2400000)
        print(f"runs: 0.6 MB in {short:.2f} s, 4.8 MB in {long:.2f} s")
        self.assertLess(long, 8 * 2.5 * short + 1)

    def test_errors(self):
        tokenizer = ["--tokenizer", f"{DEMO}/base"]
        for status, expected, args in [
                (2, "--tokenizer is required", ["--out", "x.npy"]),
                (2, "--out or --decode is required", tokenizer),
                (2, "go with --decode only", [*tokenizer, "--out", "x.npy", "--rows", "1:2"]),
                (2, "exclude each other", [*tokenizer, "--out", "x.npy", "--jsonl", "--line-documents"]),
                (2, "less than one sequence", [*tokenizer, "--out", "x.npy", "--max-tokens", "5"]),
                (1, "no token '<s>'", [*tokenizer, "--out", "x.npy", "--eos", "<s>"]),
                (1, "cannot open", [*tokenizer, "--out", "x.npy", "absent.txt"]),
                (1, "absent", ["--tokenizer", "absent", "--out", "x.npy"]),
                (1, "the text fills 1 positions, one sequence has 1024", [*tokenizer, "--out", "x.npy"]),
                (1, "line 1: no field 'body'", [*tokenizer, "--out", "x.npy", "--field", "body", self.path("bad.jsonl")])]:
            with open(self.path("bad.jsonl"), "w") as f:
                f.write('{"text": "a"}\n')
            with self.subTest(expected):
                done = self.xctok(*args, status=status, stdin=subprocess.DEVNULL, cwd=self.folder)
                self.assertIn(expected, done.stderr.decode())
                self.assertEqual([n for n in os.listdir(self.folder) if n.startswith("x.")], [])
        self.write_npy("bad.npy", [1, 2, 99999, 3], 2)
        done = self.xctok(*tokenizer, "--decode", self.path("bad.npy"), status=1)
        self.assertIn("row 1, position 0: id 99999", done.stderr.decode())
        done = self.xctok(*tokenizer, "--decode", self.path("bad.npy"), "--rows", "1:3", status=1)
        self.assertIn("rows 1:3, there are 2", done.stderr.decode())


if __name__ == "__main__":
    unittest.main(verbosity=2)
