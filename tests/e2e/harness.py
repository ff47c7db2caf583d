"""harness.py - runs xctrain and actgen in a temporary folder for the whole-program tests; Python's standard library only.

Every program started is killed at the end of its test, whatever happens, and dies with this process (PDEATHSIG), so that a
failing or timed-out test leaves nothing behind. Waits have a limit and fail with what the program printed. The programs and
the demo pair come from the environment, as tests/CMakeLists.txt sets it: XCTRAIN, ACTGEN, DEMO.
"""
import ctypes
import hashlib
import json
import os
import shutil
import signal
import struct
import tempfile
import time
import unittest

XCTRAIN = os.environ.get("XCTRAIN", "xctrain")
ACTGEN = os.environ.get("ACTGEN", "actgen")
DEMO = os.environ.get("DEMO", os.path.join(os.path.dirname(__file__), "../../tools/demo"))
SANITIZED = bool(os.environ.get("SANITIZE"))
LIMIT = 120  # seconds that a program may take before the test fails

PR_SET_PDEATHSIG = 1
libc = ctypes.CDLL(None)

DEMO_SOURCE = ["--model", f"{DEMO}/base", "--model", f"{DEMO}/chat", "--tokens", f"{DEMO}/tokens.npy"]


class Program:
    """A started program; its stdout and stderr go to files."""

    def __init__(self, path, args, folder, name):
        self.name = name
        self.out_path, self.err_path = os.path.join(folder, name + ".out"), os.path.join(folder, name + ".err")
        self.status = self.peak_rss = None
        with open(os.devnull) as nothing, open(self.out_path, "w") as out, open(self.err_path, "w") as err:
            self.pid = os.fork()  # not subprocess: wait4 gives this one child's peak memory
            if self.pid == 0:
                try:
                    libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
                    for number, f in enumerate([nothing, out, err]):
                        os.dup2(f.fileno(), number)
                    os.execvpe(path, [path, *args], dict(os.environ, OMP_WAIT_POLICY="passive"))
                finally:
                    os._exit(127)

    @property
    def stdout(self):
        with open(self.out_path, errors="replace") as f:
            return f.read()

    @property
    def stderr(self):
        with open(self.err_path, errors="replace") as f:
            return f.read()

    def running(self):
        if self.status is None:
            pid, status, usage = os.wait4(self.pid, os.WNOHANG)
            if pid:
                self.status, self.peak_rss = os.waitstatus_to_exitcode(status), usage.ru_maxrss * 1024
        return self.status is None

    def wait(self, limit=LIMIT):
        """Its exit status; negative: the signal that ended it. peak_rss is in bytes then."""
        end = time.monotonic() + limit
        while self.running():
            if time.monotonic() > end:
                raise AssertionError(f"{self.name} still runs after {limit} s; it printed:\n{self.stderr}")
            time.sleep(0.005)
        return self.status

    def kill(self, number=signal.SIGKILL):
        if self.running():
            os.kill(self.pid, number)
            if number == signal.SIGKILL:
                self.wait()


class ProgramTest(unittest.TestCase):
    """Has a folder of its own (self.folder) and starts programs in it."""

    def setUp(self):
        self.folder = tempfile.mkdtemp(prefix="crossfeed-e2e-")
        self.addCleanup(shutil.rmtree, self.folder, ignore_errors=True)
        self.n_started = 0

    def path(self, *names):
        return os.path.join(self.folder, *names)

    def start(self, program, args, name):
        self.n_started += 1
        p = Program(program, args, self.folder, f"{self.n_started}-{name}")
        self.addCleanup(p.kill)
        return p

    def endpoint(self, name="run"):
        return f"ipc://{self.folder}/{name}.ipc"

    def trainer(self, args, out="out", endpoint=None):
        return self.start(XCTRAIN, ["--threads", "1", "--out", self.path(out), "--listen", endpoint or self.endpoint(), *args],
                          "trainer")

    def producer(self, args, endpoint=None, name="producer"):
        return self.start(ACTGEN, ["--threads", "1", "--name", name, "--connect", endpoint or self.endpoint(), *args], name)

    def until(self, condition, what, *programs, limit=LIMIT):
        """Waits until condition() is true; fails if one of the programs ends before that."""
        end = time.monotonic() + limit
        while not condition():
            ended = [p for p in programs if not p.running()]
            if (ended and not condition()) or time.monotonic() > end:
                said = "".join(f"\n{p.name}: {p.status}: {p.stderr}" for p in programs)
                self.fail(f"{'a program ended' if ended else f'{limit} s passed'} before {what}{said}")
            time.sleep(0.005)

    def until_step(self, step, *programs, out="out"):
        self.until(lambda: last_step(self.path(out)) >= step, f"step {step}", *programs)

    def succeed(self, *programs):
        for p in programs:
            status = p.wait()
            self.assertEqual(status, 0, f"{p.name} printed:\n{p.stderr}")

    def train(self, trainer_args, producer_args, out="out"):
        """A whole run with one producer; returns both programs, ended."""
        trainer, producer = self.trainer(trainer_args, out), self.producer(producer_args)
        self.succeed(trainer, producer)
        return trainer, producer


def last_step(out):
    """The last step in metrics.jsonl, 0 if there is none yet."""
    lines = metrics(out)
    return lines[-1]["step"] if lines else 0


def metrics(out):
    """The complete lines of metrics.jsonl."""
    try:
        with open(os.path.join(out, "metrics.jsonl")) as f:
            return [json.loads(line) for line in f.read().splitlines(keepends=True) if line.endswith("\n")]
    except FileNotFoundError:
        return []


def read_json(path):
    with open(path) as f:
        return json.load(f)


def summary(out):
    return read_json(os.path.join(out, "summary.json"))


def checkpoints(out):
    """Steps of the finished checkpoints, ascending."""
    try:
        return sorted(int(name[5:]) for name in os.listdir(os.path.join(out, "checkpoints")) if name.startswith("step_"))
    except FileNotFoundError:
        return []


def write_old_manifest(folder, manifest):
    """A recording's manifest as it was before it had a checksum of itself, so that it may say anything."""
    manifest = {key: value for key, value in manifest.items() if key != "checksum"}
    with open(os.path.join(folder, "manifest.json"), "w") as f:
        json.dump({**manifest, "version": 1}, f)


def sha256(path):
    with open(path, "rb") as f:
        return hashlib.sha256(f.read()).hexdigest()


def provenance(path):
    """[(sequence, position, token)] of every row trained, in order."""
    with open(path, "rb") as f:
        data = f.read()
    if len(data) % 12:
        raise AssertionError(f"{path}: {len(data)} bytes are not whole rows")
    return list(struct.iter_unpack("<III", data))


def write_npy(path, rows, dtype="<u2"):
    """A token tensor: rows is a list of equally long lists."""
    header = f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': ({len(rows)}, {len(rows[0])}), }}"
    header += " " * (-(10 + len(header) + 1) % 64) + "\n"
    code = {"<u2": "H", "<i4": "i", "<i8": "q"}[dtype]
    with open(path, "wb") as f:
        f.write(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode())
        for row in rows:
            f.write(struct.pack(f"<{len(row)}{code}", *row))


def write_npy_vector(path, values):
    """int32 [n]."""
    header = f"{{'descr': '<i4', 'fortran_order': False, 'shape': ({len(values)},), }}"
    header += " " * (-(10 + len(header) + 1) % 64) + "\n"
    with open(path, "wb") as f:
        f.write(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode() + struct.pack(f"<{len(values)}i", *values))


def read_safetensors(path):
    """(header, data): header maps names to {dtype, shape, data_offsets} into the bytearray data."""
    with open(path, "rb") as f:
        n, = struct.unpack("<Q", f.read(8))
        return json.loads(f.read(n)), bytearray(f.read())


def write_safetensors(path, header, data):
    text = json.dumps(header).encode()
    with open(path, "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text + data)


def main():
    unittest.main(verbosity=2)
