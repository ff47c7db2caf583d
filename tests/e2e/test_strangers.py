"""test_strangers.py - who does not belong is refused, counted, said in measure, and costs the run nothing.

A small synthetic run, with CURVE keys and without, is trained undisturbed and then among strangers; the final weights must
be the same, bit for bit. Producers that are refused must say why and exit 1. By hand, for some minutes:

    STRANGERS=long XCTRAIN=build/xctrain ACTGEN=build/actgen XCKEYS=build/xckeys /usr/bin/python3 tests/e2e/test_strangers.py Long -v

opens 10,000 connections and leaves them, sends 20,000 HELLOs, and also asserts that speed stays above 90 % of the
undisturbed run's and that memory stays bounded; and for five minutes each speaks broken ZMTP (noise.py) to a trainer. Needs Debian's python3-zmq, python3-msgpack and python3-xxhash.
"""
import contextlib
import json
import os
import random
import re
import resource
import signal
import socket
import threading
import time
import unittest

import msgpack
import xxhash
import zmq

import harness
from noise import GREETING, READY, Noise, shake_hands

XCKEYS = os.environ.get("XCKEYS", "xckeys")
LONG = os.environ.get("STRANGERS") == "long"
SOURCE = ["--source", "synthetic", "--d-model", "64", "--n-sites", "4", "--latents", "256"]
TRAINER = ["--batch-size", "128", "--buffer-mult", "64", "--dict-size", "1024", "--model-batch-size", "8", "--eval-blocks", "1",
           "--log-every", "50", "--heartbeat-ms", "200", "--timeout-ms", "3000"]


def sealed(message):
    data = msgpack.packb(message)
    return data + xxhash.xxh3_64_intdigest(data).to_bytes(8, "little")


OTHER = {"sites": ["blocks.0.hook_resid_post"], "d_model": 32, "seq_len": 8, "rows_per_seq": 8, "n_seq": 100, "vocab_size": 0, "tokens": "t", "models": []}


def hello(i, stream):
    return sealed({"type": "HELLO", "version": 1, "software": "flood", "producer": f"flood-{i}", "dtypes": ["bf16", "fp32"], "scale": None, **stream})


class Flood:
    """Strangers of all kinds at a TCP port, from a thread; what they open stays open until leave(). Their HELLOs are of the stream given."""

    def __init__(self, port, n_connections, n_hellos, pause=0.0, stream=OTHER):
        self.port, self.n_connections, self.n_hellos, self.pause, self.stream = port, n_connections, n_hellos, pause, stream
        self.sockets, self.context, self.stop, self.nearly = [], zmq.Context(), False, Noise(port, random.Random(1))
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def connect(self):
        s = socket.create_connection(("127.0.0.1", self.port), 5)
        self.sockets.append(s)
        return s

    def noise(self):
        for data in (os.urandom(5000), b"GET / HTTP/1.1\r\n\r\n", b"\0" * 100, GREETING, GREETING + READY, GREETING[:11]):
            with contextlib.suppress(OSError):
                self.connect().sendall(data)
        for data in b"\x00\x05hello", b"\x02" + (1 << 40).to_bytes(8, "big"):
            with contextlib.suppress(OSError):
                s = self.connect()
                shake_hands(s)
                s.sendall(data)
        for _ in range(20):
            with contextlib.suppress(OSError):
                self.sockets.append(self.nearly.talk())

    def hellos(self, first, n):
        """From a connection each, and some more on the same one."""
        for i in range(first, first + n, 10):
            s = self.context.socket(zmq.DEALER)
            s.linger = 100
            s.reconnect_ivl = 5000  # refused in the handshake, it would come again ten times a second
            s.connect(f"tcp://127.0.0.1:{self.port}")
            for j in range(i, min(i + 10, first + n)):
                s.send(hello(j, self.stream))
            self.sockets.append(s)
            if len(self.sockets) > 400:
                self.sockets.pop(next(k for k, x in enumerate(self.sockets) if isinstance(x, zmq.Socket))).close()

    def run(self):
        for i in range(0, self.n_connections, 100):
            if self.stop:
                return
            self.noise()
            for _ in range(100):
                with contextlib.suppress(OSError):
                    self.connect()
            self.hellos(i * self.n_hellos // self.n_connections, 100 * self.n_hellos // self.n_connections)
            time.sleep(self.pause)

    def leave(self):
        self.stop = True
        self.thread.join(30)
        for s in self.sockets:
            s.close()
        self.context.destroy(0)


class Member:
    """A producer by hand, that joins, and then does as the test says."""

    def __init__(self, endpoint, stream, name, address="127.0.0.1"):
        self.context = zmq.Context()
        self.endpoint, self.stream, self.name, self.socket = endpoint.replace("//", f"//{address}:0;"), stream, name, None

    def join(self):
        """On a new connection; the answer to its HELLO."""
        if self.socket:
            self.socket.close()
        self.socket = self.context.socket(zmq.DEALER)
        self.socket.linger, self.socket.sndhwm, self.socket.rcvhwm = 0, 0, 0
        self.socket.connect(self.endpoint)
        self.socket.send(sealed({**msgpack.unpackb(hello(0, self.stream)[:-8]), "producer": self.name}))
        return self.hear("WELCOME", "REJECT", "ERROR")

    def hear(self, *types, timeout_ms=5000):
        """The next message of one of these types; PINGs are answered meanwhile."""
        while self.socket.poll(timeout_ms):
            message = msgpack.unpackb(self.socket.recv()[:-8])
            if message["type"] == "PING":
                self.say("PONG", token=message["token"])
            if message["type"] in types:
                return message
        raise AssertionError(f"{self.name!a} heard none of {types}")

    def say(self, type, **fields):
        self.socket.send(sealed({"type": type, **fields}))

    def err(self):
        """Takes a lease and answers it with a chunk that is wrong."""
        lease = self.hear("LEASE")
        frame = sealed({"type": "BATCH", "lease": lease["lease"], "block": lease["block"], "chunk": 0, "chunks": 1, "rows": 1, "checksum": 0, "origins": bytes(12)})
        self.socket.send_multipart([frame, bytes(512)])

    def leave(self):
        self.context.destroy(0)


class HostileTrainer:
    """Shakes hands with whoever connects, and then sends parts of a message without a last one, until it is closed."""

    def __init__(self):
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.endpoint = f"tcp://127.0.0.1:{self.socket.getsockname()[1]}"
        self.n_connections, self.sent, self.stop = 0, 0, False
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def run(self):
        part = b"\x01\xff" + bytes(255)
        while not self.stop:
            s, _ = self.socket.accept()
            self.n_connections += 1
            with contextlib.suppress(OSError):
                s.settimeout(5)
                shake_hands(s, READY.replace(b"DEALER", b"ROUTER"))
                while not self.stop:
                    s.sendall(part * 1000)
                    self.sent += len(part) * 1000
            s.close()

    def leave(self):
        self.stop = True
        with contextlib.suppress(OSError):
            socket.create_connection(self.socket.getsockname(), 1).close()
        self.thread.join(10)
        self.socket.close()


class Strangers(harness.ProgramTest):
    def make_keys(self):
        os.mkdir(self.path("allowed"))
        for name in ("trainer", "allowed/one", "other"):
            self.assertEqual(self.start(XCKEYS, ["make", self.path(name)], "xckeys").wait(), 0)

    def public(self, name):
        with open(self.path(name + ".public")) as f:
            return re.search(r"public (\S{40})", f.read()).group(1)

    def keys(self, own, trainer="trainer"):
        return ["--curve-secret", self.path(own + ".secret"), "--curve-server", self.path(trainer + ".public")]

    def door(self):
        return ["--curve-secret", self.path("trainer.secret"), "--curve-allow", self.path("allowed")]

    def listening(self, args, out):
        """A trainer at a port of its own; (trainer, endpoint, port)."""
        trainer = self.trainer([*TRAINER, *args], out, "tcp://127.0.0.1:*")
        self.until(lambda: "listening at" in trainer.stderr, "listening", trainer)
        endpoint = re.search("listening at (.*)", trainer.stderr).group(1)
        return trainer, endpoint, int(endpoint.rsplit(":", 1)[1])

    def weights(self, out):
        return harness.sha256(self.path(out, "crosscoder.safetensors"))

    def stream_of(self, out):
        with open(self.path(out, "cfg.json")) as f:
            return json.load(f)["stream"]

    def check_log(self, trainer, at_most=250):
        lines = [line for line in trainer.stderr.splitlines() if re.search("refused|rejected|unknown|closed a conn", line)]
        self.assertLess(len(lines), at_most)
        self.assertGreater(len(lines), 0)

    def test_keys(self):
        self.make_keys()
        args = ["--num-tokens", "2e5"]
        trainer, endpoint, port = self.listening([*args, *self.door()], "quiet")
        producer = self.producer([*SOURCE, *self.keys("allowed/one")], endpoint)
        self.succeed(trainer, producer)
        key = self.public("allowed/one")
        self.assertRegex(trainer.stderr, rf"producer producer joins \(127\.0\.0\.1, key {re.escape(key)}\)")

        trainer, endpoint, port = self.listening([*args, *self.door(), "--listen", self.endpoint("second")], "strange")
        impatient = [*SOURCE, "--give-up-after", "4"]
        refused = [(self.producer(impatient, endpoint, "plain"), "wants CURVE keys"),
                   (self.producer([*impatient, *self.keys("other")], endpoint, "unknown"), "does not allow this producer's key"),
                   (self.producer([*impatient, *self.keys("allowed/one", "other")], endpoint, "wrong"), "another key than --curve-server"),
                   (self.producer(impatient, self.endpoint("second"), "local"), "wants CURVE keys")]
        flood = Flood(port, 300, 600)
        producer = self.producer([*SOURCE, *self.keys("allowed/one")], endpoint)
        try:
            self.succeed(trainer, producer)
        finally:
            flood.leave()
        self.assertEqual(self.weights("strange"), self.weights("quiet"))
        for p, why in refused:
            self.assertEqual(p.wait(), 1, p.stderr)
            self.assertRegex(p.stderr.splitlines()[-1], f"giving up: .*{why}")
        ledger = harness.summary(self.path("strange"))["ledger"]
        self.assertGreater(ledger["refused_key"], 0)
        self.assertGreater(ledger["refused_handshake"], 10)
        self.assertEqual((ledger["producers_seen"], ledger["producers_lost"], ledger["producers_rejected"]), (1, 0, 0))
        self.check_log(trainer)
        self.assertEqual(trainer.stderr.count(f"key {self.public('other')}: its key is not allowed"), 1)

    def test_revoked(self):
        """A key taken off the list: its producer goes and stays out, the other one goes on; nobody comes while the list cannot be read."""
        self.make_keys()
        self.assertEqual(self.start(XCKEYS, ["make", self.path("allowed/two")], "xckeys").wait(), 0)
        trainer, endpoint, port = self.listening(["--num-tokens", "1e5", *self.door()], "quiet")
        self.succeed(trainer, self.producer([*SOURCE, *self.keys("allowed/one")], endpoint))
        trainer, endpoint, port = self.listening(["--num-tokens", "1e5", "--timeout-ms", "60000", *self.door()], "revoked")
        programs = {name: self.producer([*SOURCE, "--give-up-after", "3", *self.keys("allowed/" + name)], endpoint, name)
                    for name in ("one", "two")}
        self.until_step(50, trainer, *programs.values(), out="revoked")
        os.kill(programs["one"].pid, signal.SIGSTOP)  # so that the run cannot end meanwhile
        two = self.public("allowed/two")
        os.unlink(self.path("allowed/two.public"))
        self.until(lambda: re.search("producer two .*(is gone|leased again)", trainer.stderr), "two's going", trainer, limit=20)
        self.assertRegex(trainer.stderr, "closed a connection from 127.0.0.1: it has a key that is not allowed any more|refused key")
        self.until(lambda: f"key {two}: its key is not allowed" in trainer.stderr, "its second try refused", trainer, limit=20)
        with open(self.path("allowed/bad.public"), "w") as f:
            f.write("public short\n")
        self.until(lambda: "nobody new is admitted" in trainer.stderr, "a line about the malformed file", trainer, limit=20)
        late = self.producer([*SOURCE, "--give-up-after", "2", *self.keys("allowed/one")], endpoint, "late")
        self.assertEqual(late.wait(), 1)
        self.assertRegex(late.stderr, "does not allow this producer's key")
        os.kill(programs["one"].pid, signal.SIGCONT)  # it was admitted before, and stays
        self.succeed(trainer, programs["one"])
        self.assertEqual(programs["two"].wait(), 1, programs["two"].stderr)
        self.assertEqual(self.weights("revoked"), self.weights("quiet"))
        self.assertEqual(trainer.stderr.count("nobody new is admitted"), 1)

    def train_open(self, args, n_hellos, fitting=False):
        """Without keys, undisturbed and among strangers; the latter's trainer and ledger."""
        args = ["--num-tokens", "2e5", *args]
        trainer, endpoint, port = self.listening(args, "quiet")
        self.succeed(trainer, self.producer(SOURCE, endpoint))
        trainer, endpoint, port = self.listening(args, "strange")
        producer = self.producer(SOURCE, endpoint)
        self.until_step(100, trainer, producer, out="strange")
        flood = Flood(port, 300, n_hellos, stream=self.stream_of("quiet") if fitting else OTHER)
        try:
            self.succeed(trainer, producer)
        finally:
            flood.leave()
        self.assertEqual(self.weights("strange"), self.weights("quiet"))
        return trainer, harness.summary(self.path("strange"))["ledger"]

    def test_open(self):
        """Without keys everyone gets as far as a message; the run's own producer is not among the victims."""
        trainer, ledger = self.train_open([], 2000)
        self.assertGreater(ledger["producers_rejected"], 0)
        self.assertEqual(ledger["producers_lost"], 0)
        self.check_log(trainer)

    def test_idlers(self):
        """Without keys anyone can say the HELLO that a producer of this run says, and do nothing more, on more connections than there are places."""
        trainer, ledger = self.train_open(["--timeout-ms", "60000"], 4000, fitting=True)  # or silence ends them before that
        self.assertGreater(ledger["producers_seen"], 300)
        self.assertNotRegex(trainer.stderr, "producer producer .*(gone|dropped|makes room)")
        self.assertLess(len(trainer.stderr.splitlines()), 500)

    def test_hostile_trainer(self):
        """Makes a producer keep little, and does not keep it busy; the producer goes when it is told to."""
        trainer = HostileTrainer()
        self.addCleanup(trainer.leave)
        producer = self.producer(SOURCE, trainer.endpoint)
        self.until(lambda: "connecting to" in producer.stderr, "connecting", producer)
        base, peak, end = rss(producer.pid), 0, time.monotonic() + 4
        while time.monotonic() < end:
            peak = max(peak, rss(producer.pid))
            time.sleep(0.01)
        self.assertIn("the trainer sends more at a time than the protocol allows", producer.stderr)
        print(f"{trainer.n_connections} connections, {trainer.sent / 1e6:.0f} MB sent, memory {(peak - base) / 1e6:.0f} MB above ", end="", flush=True)
        self.assertLess(trainer.n_connections, 15)
        self.assertLess(peak - base, 1e9 if harness.SANITIZED else 250e6)
        producer.kill(signal.SIGTERM)
        self.assertEqual(producer.wait(10), 0, producer.stderr)

    def test_floods(self):
        """Members and strangers that send as fast as they can and read nothing: dropped, said in measure, nothing grows, nothing is spoilt."""
        trainer, endpoint, port = self.listening(["--num-tokens", "2e5"], "quiet")
        self.succeed(trainer, self.producer(SOURCE, endpoint))
        trainer, endpoint, port = self.listening(["--num-tokens", "2e5"], "flooded")
        producer = self.producer(SOURCE, endpoint)
        self.until_step(100, trainer, producer, out="flooded")
        before, stream = rss(trainer.pid), self.stream_of("quiet")
        floods = {"error": sealed({"type": "ERROR", "lease": 0, "code": "source", "text": "x"}),
                  "ping": sealed({"type": "PING", "token": 1, "computing": 0.0, "sending": 0.0}),
                  "hello": hello(0, stream), "bye": sealed({"type": "BYE", "reason": "x"})}
        for name, frame in floods.items():
            m = Member(endpoint, stream, name)
            m.join()
            for _ in range(50000):  # after its first BYE, the last one is a stranger
                m.socket.send(frame)
            time.sleep(0.2)
            m.leave()
        self.assertLess(rss(trainer.pid) - before, 400e6 if harness.SANITIZED else 60e6)
        self.succeed(trainer, producer)
        self.assertEqual(self.weights("flooded"), self.weights("quiet"))
        self.assertIn("it floods", trainer.stderr)
        ledger = harness.summary(self.path("flooded"))["ledger"]  # too many, or too much at a time: whichever comes first
        self.assertGreaterEqual(ledger["refused_message"] + ledger["refused_memory"], len(floods))
        self.assertFalse(re.search("producer producer .*(gone|dropped)", trainer.stderr))
        self.assertLess(len(trainer.stderr), 200e3)

    def test_names_and_failures(self):
        """One takes another's name and is wrong, others fail whatever they are asked for: only they pay for that."""
        trainer, endpoint, port = self.listening(["--num-tokens", "1e5"], "quiet")
        self.succeed(trainer, self.producer(SOURCE, endpoint))
        stream = self.stream_of("quiet")
        trainer, endpoint, port = self.listening(["--num-tokens", "1e5", "--ban-minutes", "1"], "attacked")
        thief = Member(endpoint, stream, "gpu7", "127.0.0.2")
        failing = [Member(endpoint, stream, f"node{i}", f"127.0.0.{3 + i}") for i in range(3)]
        for m in [thief, *failing]:
            self.addCleanup(m.leave)
        self.assertEqual(thief.join()["type"], "WELCOME")  # before there is anybody else
        for _ in range(3):
            thief.err()
        self.assertIn("chunk 0 of 1", thief.hear("REJECT")["reason"])
        again = thief.join()
        self.assertEqual(again["code"], "not-now")
        self.assertRegex(again["text"], r"127\.0\.0\.2 was wrong too often and is not asked for [56]\d s \(--ban-minutes\)")
        for m in failing:
            m.join()
        for m in failing:  # one fault that three have
            m.say("ERROR", lease=m.hear("LEASE")["lease"], code="source", text="the file server is away")
        producer = self.producer(SOURCE, endpoint, "gpu7")
        while trainer.running():
            for m in failing:
                with contextlib.suppress(AssertionError):
                    lease = m.hear("LEASE", timeout_ms=1)
                    m.say("ERROR", lease=lease["lease"], code="source", text="the file server is away")
        self.succeed(trainer, producer)
        self.assertEqual(self.weights("attacked"), self.weights("quiet"))
        self.assertIn("producer gpu7 joins (127.0.0.1)", trainer.stderr)

    def test_text(self):
        """What others write is shown as what it is, or refused."""
        actgen = self.start(harness.ACTGEN, [*SOURCE, "--name", "M\udcfcller"], "actgen")
        self.assertEqual(actgen.wait(), 2)
        self.assertRegex(actgen.stderr, r"name 'M\\xfcller': must be UTF-8")
        trainer, endpoint, port = self.listening(["--num-tokens", "1e4"], "quiet")
        self.succeed(trainer, self.producer(SOURCE, endpoint))
        trainer, endpoint, port = self.listening(["--num-tokens", "1e9"], "out")
        producer = self.producer(SOURCE, endpoint)
        self.until_step(10, trainer, producer)
        m = Member(endpoint, self.stream_of("quiet"), "7upg\u202e\u009b31m")
        self.addCleanup(m.leave)
        self.assertEqual(m.join()["type"], "WELCOME")
        m.say("ERROR", lease=0, code="a\u2028b", text="\u2066title\u009d0;")
        shown = r"7upg\u202e\u009b31m"
        self.until(lambda: rf"producer {shown}: a\u2028b: \u2066title\u009d0;" in trainer.stderr, "its ERROR", trainer)
        self.assertIn(f"producer {shown} joins", trainer.stderr)
        self.until(lambda: m.hear("PING") and shown in [p["name"] for p in harness.read_json(self.path("out", "status.json"))["producers"]],
                   "its name in status.json", trainer)
        header = msgpack.packb({"type": "ERROR", "lease": 0, "code": "x", "text": "?"}).replace(b"\xa1?", b"\xa1\xfc")
        m.socket.send(header + xxhash.xxh3_64_intdigest(header).to_bytes(8, "little"))
        self.assertIn("string that is not UTF-8", m.hear("REJECT")["reason"])
        self.assertNotRegex(trainer.stderr, "[\u0080-\u009f\u2028-\u202e\u2066-\u2069]")
        trainer.kill(2)
        self.succeed(trainer, producer)

    def test_endless_message(self):
        """Parts without a last one: ZeroMQ would hold them all."""
        trainer, endpoint, port = self.listening(["--num-tokens", "1e9"], "out")
        producer = self.producer(SOURCE, endpoint)
        self.until_step(50, trainer, producer)
        before = rss(trainer.pid)
        s = socket.create_connection(("127.0.0.1", port), 20)
        sent, part = 0, b"\x03" + (1 << 20).to_bytes(8, "big") + bytes(1 << 20)
        with contextlib.suppress(OSError):
            shake_hands(s)
            while sent < 4000:
                s.sendall(part)
                sent += 1
        self.assertLess(sent, 1000, "MB sent")
        self.until(lambda: "sends more at a time" in trainer.stderr, "a line about it", trainer, producer)
        self.assertLess(rss(trainer.pid) - before, 1.5e9 if harness.SANITIZED else 400e6)
        print(f"closed after {sent} MB, memory {(rss(trainer.pid) - before) / 1e6:.0f} MB above ", end="", flush=True)
        s.close()
        step = harness.last_step(self.path("out"))
        self.until_step(step + 100, trainer, producer)
        self.assertNotIn("leased again", trainer.stderr)
        trainer.kill(2)
        self.succeed(trainer, producer)


def rss(pid):
    with open(f"/proc/{pid}/status") as f:
        return 1024 * int(re.search(r"VmRSS:\s+(\d+)", f.read()).group(1))


@unittest.skipUnless(LONG, "some minutes; STRANGERS=long")
class Long(Strangers):
    test_keys = test_open = test_idlers = test_endless_message = test_floods = test_hostile_trainer = test_text = test_revoked = test_names_and_failures = None

    def run_one(self, n_connections, n_hellos, door, keys, out, stream=OTHER):
        trainer, endpoint, port = self.listening(["--num-tokens", os.environ.get("TOKENS", "3e6"), "--lr", "1e-6", *door], out)  # so slow that all steps cost the same
        producer = self.producer([*SOURCE, *keys], endpoint)
        self.until_step(200, trainer, producer, out=out)
        flood = Flood(port, n_connections, n_hellos, 0.3, stream) if n_connections else None  # it shares the cores with the run
        start, step, peak = time.monotonic(), harness.last_step(self.path(out)), 0
        base = rss(trainer.pid)
        while flood and flood.thread.is_alive() and trainer.running():
            with contextlib.suppress(OSError, AttributeError):
                peak = max(peak, rss(trainer.pid))
            time.sleep(0.05)
        if flood:
            self.assertTrue(trainer.running(), "the run ended before the strangers; raise TOKENS")
            rate = (harness.last_step(self.path(out)) - step) / (time.monotonic() - start)
        trainer.wait(1000)
        self.succeed(trainer, producer)
        if flood:
            flood.leave()
            return rate, peak - base, trainer
        return (harness.last_step(self.path(out)) - step) / (time.monotonic() - start), 0, trainer

    def compare(self, door=(), keys=(), fitting=False):
        quiet, _, _ = self.run_one(0, 0, door, keys, "quiet")
        stream = self.stream_of("quiet") if fitting else OTHER
        disturbed, grown, trainer = self.run_one(10000, 20000, door, keys, "strange", stream)
        print(f"{quiet:.0f} steps/s undisturbed, {disturbed:.0f} among strangers ({100 * disturbed / quiet:.0f} %), memory grew by "
              f"{grown / 1e6:.0f} MB; refused: {harness.summary(self.path('strange'))['ledger']} ", end="", flush=True)
        self.assertEqual(self.weights("strange"), self.weights("quiet"))
        self.assertLess(grown, 300e6)
        self.check_log(trainer, 1000)
        self.assertGreater(disturbed, 0.9 * quiet)

    def test_floods_without_end(self):
        """A member that floods for as long as the run takes, and joins again whenever it is put out."""
        quiet, _, _ = self.run_one(0, 0, (), (), "quiet")
        stream, stop, joined = self.stream_of("quiet"), threading.Event(), []

        def flood():
            m, frame = Member(self.flooded, stream, "flood"), sealed({"type": "ERROR", "lease": 0, "code": "source", "text": "x" * 500})
            while not stop.is_set():
                with contextlib.suppress(AssertionError):
                    joined.append(m.join())
                    for _ in range(20000):
                        m.socket.send(frame)
            m.leave()

        def listening(args, out, listening=self.listening):
            answer = listening(args, out)
            self.flooded = answer[1]
            threading.Thread(target=flood, daemon=True).start()
            return answer

        self.listening = listening
        try:
            disturbed, _, trainer = self.run_one(0, 0, (), (), "flooded")
        finally:
            stop.set()
        print(f"{quiet:.0f} steps/s undisturbed, {disturbed:.0f} under {len(joined)} floods ({100 * disturbed / quiet:.0f} %), log {len(trainer.stderr)} bytes ",
              end="", flush=True)
        self.assertEqual(self.weights("flooded"), self.weights("quiet"))
        self.assertLess(len(trainer.stderr), 200e3)

    def noise(self, door=(), keys=()):
        """Five minutes of nearly ZMTP."""
        trainer, endpoint, port = self.listening(["--num-tokens", "1e9", *door], "out")
        producer = self.producer([*SOURCE, *keys], endpoint)
        self.until_step(50, trainer, producer)
        before, noise, n, kept = rss(trainer.pid), Noise(port, random.Random(2)), 0, []
        end = time.monotonic() + 300
        while time.monotonic() < end:
            kept.append(noise.talk())
            if len(kept) > 50:
                kept.pop(0).close()
            n += 1
        print(f"{n} connections, memory {(rss(trainer.pid) - before) / 1e6:.0f} MB above ", end="", flush=True)
        self.assertLess(rss(trainer.pid) - before, 100e6)
        for s in kept:
            s.close()
        self.until_step(harness.last_step(self.path("out")) + 100, trainer, producer)
        self.assertEqual(harness.read_json(self.path("out", "status.json"))["ledger"]["producers_lost"], 0)
        trainer.kill(2)
        self.succeed(trainer, producer)

    def test_noise_with_keys(self):
        self.make_keys()
        self.noise(self.door(), self.keys("allowed/one"))

    def test_noise_open(self):
        self.noise()

    def test_10000_with_keys(self):
        self.make_keys()
        self.compare(self.door(), self.keys("allowed/one"))

    def test_10000_open(self):
        self.compare()

    def test_10000_idlers(self):
        self.compare(fitting=True)


if __name__ == "__main__":
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    harness.main()
