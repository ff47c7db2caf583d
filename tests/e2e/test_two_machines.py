"""test_two_machines.py - a trainer on one machine and two producers on another: two network namespaces with a cable between them.

The short form, in the ordinary run: over a quick cable that is pulled for some seconds in the middle, longer than the time-out,
the run ends with the bits of an undisturbed one. With keys (CURVE) where this build has them, else --insecure. And of two
producers, one 50 ms away and one beside the trainer, the far one is hardly less busy.

The long form, LONG=1 in the environment: a link of 100 Mbit/s that takes 50 ms each way and drops 1 % of the packets each way.
What the link allows is measured first, with as many plain TCP connections as there are producers; the rows must come at 70 % of
that or more: large rows and small ones, with BBR and with Reno, which 1 % of loss slows down by a factor of thirty.

Skipped (exit 77) where namespaces cannot be made. The relay of network.py stands for netem; see there.
"""
import os
import re
import signal
import subprocess
import sys
import time
import unittest

import harness
import network

XCKEYS = os.environ.get("XCKEYS", "")
LONG = bool(os.environ.get("LONG"))
TRAINER = ["--dict-size", "256", "--batch-size", "64", "--buffer-mult", "64", "--num-tokens", "4e5", "--model-batch-size", "8",
           "--scale-rows", "1000", "--log-every", "20", "--heartbeat-ms", "100", "--timeout-ms", "1000", "--save-every", "1000000"]
SYNTHETIC = ["--source", "synthetic", "--n-seq", "512", "--seq-len", "32"]
PORT = 5555

SINK = """
import selectors, socket, sys, time
server, s = socket.create_server((sys.argv[1], int(sys.argv[2]))), selectors.DefaultSelector()
for _ in range(int(sys.argv[3])):
    s.register(server.accept()[0], selectors.EVENT_READ)
warm, end, got = time.monotonic() + float(sys.argv[4]), None, 0
while end is None or time.monotonic() < end:
    for key, _ in s.select(1):
        got += len(key.fileobj.recv(1 << 20))
    if end is None and time.monotonic() >= warm:
        begin, end, got = time.monotonic(), time.monotonic() + float(sys.argv[5]), 0
print(got / (time.monotonic() - begin))
"""
SPRING = """
import socket, sys, time
for _ in range(50):
    try:
        s = socket.create_connection((sys.argv[1], int(sys.argv[2])))
        break
    except OSError:
        time.sleep(0.1)
try:
    while True:
        s.sendall(bytes(1 << 20))
except OSError:
    pass
"""


class Machines(harness.ProgramTest):
    def setUp(self):
        super().setUp()
        self.net = network.TwoMachines(f"crossfeed-{os.getpid()}")
        self.addCleanup(self.net.remove)

    def on(self, end, program, args, name):
        command = self.net.command(end, program, *map(str, args))
        return self.start(command[0], command[1:], name)

    def trainer_there(self, *args, keys=True):
        return self.on("a", harness.XCTRAIN, ["--threads", 1, "--out", self.path("out"), "--listen",
                                              f"tcp://{self.net.ADDRESS['a']}:{PORT}",
                                              *(self.trainer_keys() if keys else ["--insecure"]), *args], "trainer")

    def producer_there(self, *args, name, keys=True, end="b"):
        return self.on(end, harness.ACTGEN, ["--threads", 1, "--name", name, "--connect", f"tcp://{self.net.ADDRESS['a']}:{PORT}",
                                             *(self.producer_keys() if keys else []), *args], name)

    def key(self, name, half):
        """The path of a key, "secret" or "public", made if need be."""
        if not os.path.exists(self.path(name + ".secret")):
            subprocess.run([XCKEYS, "make", self.path(name)], check=True, capture_output=True)
        return self.path(f"{name}.{half}")

    def trainer_keys(self):
        if not os.path.exists(XCKEYS):
            return ["--insecure"]
        return ["--curve-secret", self.key("trainer", "secret"), "--curve-allow", self.key("producer", "public")]

    def producer_keys(self):
        if not os.path.exists(XCKEYS):
            return []
        return ["--curve-secret", self.key("producer", "secret"), "--curve-server", self.key("trainer", "public")]


class Cable(Machines):
    def test_cable_pulled(self):
        self.train(TRAINER, SYNTHETIC, out="quiet")
        self.net.cable()
        trainer = self.trainer_there(*TRAINER)
        producers = [self.producer_there(*SYNTHETIC, name=f"p{i}") for i in range(2)]
        self.until_step(1000, trainer, *producers)
        self.net.pull(True)
        self.until(lambda: trainer.stderr.count("fell silent") >= 2, "silence", trainer, *producers)
        self.net.pull(False)
        self.succeed(trainer, *producers)
        self.assertGreater(len(re.findall("producer p. joins", trainer.stderr)), 2)
        ledger = harness.summary(self.path("out"))["ledger"]
        self.assertEqual(ledger["rows_trained"], ledger["rows_expected"])
        self.assertGreaterEqual(ledger["producers_lost"], 2)
        weights = [harness.sha256(self.path(out, "crosscoder.safetensors")) for out in ("quiet", "out")]
        self.assertEqual(*weights)


class Link(Machines):
    """With a relay as the cable."""

    RATE, DELAY, LOSS = 100e6 / 8, 0.05, 0.01

    def link(self, congestion=None):
        if not os.path.exists("/dev/net/tun"):
            self.skipTest("no /dev/net/tun")
        fds = [self.net.tun("a"), self.net.tun("b")]
        pid = os.fork()
        if pid == 0:
            try:
                harness.libc.prctl(harness.PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
                network.relay(fds, self.DELAY, self.LOSS, self.RATE, self.RATE * 2 * self.DELAY)
            finally:
                os._exit(1)
        self.addCleanup(lambda: (os.kill(pid, signal.SIGKILL), os.waitpid(pid, 0)))
        for fd in fds:
            os.close(fd)
        for end in "ab" if congestion else "":
            try:
                subprocess.run(self.net.command(end, "sysctl", "-qw", "net.ipv4.tcp_congestion_control=" + congestion), check=True)
            except subprocess.CalledProcessError:
                self.skipTest(f"no {congestion} here")

    def received(self):
        s = harness.read_json(self.path("out", "status.json"))
        return s["up_s"], s["ledger"]["rows_received"], s


class NearAndFar(Link):
    RATE, LOSS = 1e9 / 8, 0

    def test_near_and_far(self):
        """The far one is as busy as the near one, with more leases in its hands. With two, as a near one has, it would do a tenth."""
        self.link()
        busy = ["--source", "synthetic", "--d-model", "256", "--n-sites", "1", "--latents", "8192", "--active", "256", "--n-seq", "8192",
                "--seq-len", "32"]
        trainer = self.trainer_there("--dict-size", 16, "--batch-size", 64, "--buffer-mult", 512, "--num-tokens", "1e9", "--model-batch-size",
                                     16, "--eval-blocks", 1, "--scale", 1, "--heartbeat-ms", 250, "--lookahead-blocks", 32)
        far = self.producer_there(*busy, name="far")
        near = self.producer_there(*busy, name="near", end="a")
        rows = {}
        for seconds, sign in (4, -1), (8, 1):
            time.sleep(seconds)
            for p in self.received()[2]["producers"]:
                rows[p["name"]] = rows.get(p["name"], 0) + sign * p["rows"]
        print(f"far {rows['far']} rows, near {rows['near']} ", end="", flush=True)
        self.assertGreater(rows["far"], 0.4 * rows["near"])
        trainer.kill(signal.SIGTERM)
        self.succeed(trainer, far, near)


@unittest.skipUnless(LONG, "LONG=1 runs it (7 minutes)")
class LongLink(Link):
    def plain_tcp(self, connections, warm, seconds):
        """Bytes a second."""
        there = [self.net.ADDRESS["a"], 7000]
        sink = self.on("a", sys.executable, ["-c", SINK, *there, connections, warm, seconds], "sink")
        springs = [self.on("b", sys.executable, ["-c", SPRING, *there], f"spring{i}") for i in range(connections)]
        self.succeed(sink)
        for s in springs:
            s.kill()
        return float(sink.stdout)

    def measure(self, congestion, n_producers, source, trainer, row_bytes, warm, seconds):
        self.link(congestion)
        allowed = self.plain_tcp(n_producers, warm, seconds)
        scale = ",".join(["1"] * int(source[source.index("--n-sites") + 1]))  # measuring it is another matter: fp32, one block
        t = self.trainer_there("--dict-size", 64, "--num-tokens", "1e9", "--log-every", 1000000, "--eval-blocks", 1, "--scale", scale,
                               *trainer)
        producers = [self.producer_there("--source", "synthetic", *source, name=f"p{i}") for i in range(n_producers)]
        self.until(lambda: os.path.exists(self.path("out", "status.json")) and self.received()[1] > 0, "rows", t, *producers)
        time.sleep(warm)
        begin, rows, _ = self.received()
        time.sleep(seconds)
        end, more, s = self.received()
        rate = (more - rows) * row_bytes / (end - begin)
        print(f"\n{congestion}, {n_producers} connections, rows of {row_bytes} bytes: plain TCP {allowed / 1e6:.2f} MB/s, "
              f"rows {rate / 1e6:.2f} MB/s: {100 * rate / allowed:.0f} %; producers sending "
              f"{100 * s['waiting']['producers_sending']:.0f} %, trainer waiting {100 * s['waiting']['trainer']:.0f} %",
              flush=True)
        self.assertEqual(s["ledger"]["producers_lost"], 0)
        self.assertGreater(rate, 0.7 * allowed)
        t.kill(signal.SIGTERM)
        self.succeed(t)

    LARGE = ["--n-sites", "12", "--d-model", "768", "--n-seq", "4096"]
    SMALL = ["--n-sites", "2", "--d-model", "128", "--n-seq", "65536"]

    def test_large_rows(self):
        self.measure("bbr", 2, self.LARGE, ["--batch-size", 128, "--buffer-mult", 16], 12 * 768 * 2, 10, 30)

    def test_small_rows(self):
        self.measure("bbr", 1, self.SMALL, ["--batch-size", 128, "--buffer-mult", 128], 2 * 128 * 2, 20, 30)

    def test_reno(self):
        self.measure("reno", 2, self.LARGE, ["--batch-size", 128, "--buffer-mult", 16], 12 * 768 * 2, 10, 90)


if __name__ == "__main__":
    why_not = network.possible()
    if why_not:
        print(why_not)
        sys.exit(77)
    harness.main()
