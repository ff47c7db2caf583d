"""test_status.py - what a running trainer says of itself: status.json and the metrics endpoint, while producers come, die and err.

status.json must be whole JSON at every moment, also at the first and the last; the endpoint says the same in Prometheus' text
format; both must agree with what the test does: two producers by name, one killed, one wrong chunk.
"""
import json
import os
import re
import signal
import socket
import urllib.error
import urllib.request

import harness

TRAINER = ["--dict-size", "256", "--batch-size", "64", "--buffer-mult", "64", "--num-tokens", "1e9", "--model-batch-size", "8",
           "--scale-rows", "1000", "--log-every", "20", "--heartbeat-ms", "100", "--timeout-ms", "1500"]
SYNTHETIC = ["--source", "synthetic", "--n-seq", "512", "--seq-len", "32"]
SAMPLE = re.compile(r'(crossfeed_[a-z0-9_]+)(?:\{(.*)\})? (\S+)')


def parse(text):
    """{name: value} and {(name, producer): value} of a scrape; fails on a line that is no sample and no comment."""
    samples = {}
    for line in text.splitlines():
        if line.startswith("#"):
            continue
        name, labels, value = SAMPLE.fullmatch(line).groups()
        labels = dict(re.findall(r'([a-z]+)="((?:[^"\\]|\\.)*)"', labels or ""))
        key = (name, labels.get("name") or labels.get("phase") or labels.get("run"))
        samples[key if key[1] else name] = float(value)
    return samples


class Status(harness.ProgramTest):
    def trainer(self, *more):
        t = super().trainer([*TRAINER, "--metrics-listen", "127.0.0.1:0", *more])
        self.until(lambda: "metrics at " in t.stderr, "the endpoint", t)
        t.url = re.search(r"metrics at (\S+)", t.stderr).group(1)
        return t

    def status(self):
        self.n_read += 1
        return harness.read_json(self.path("out", "status.json"))

    def scrape(self, trainer):
        with urllib.request.urlopen(trainer.url, timeout=10) as r:
            self.assertEqual(r.headers["Content-Type"], "text/plain; version=0.0.4; charset=utf-8")
            return parse(r.read().decode())

    def setUp(self):
        super().setUp()
        self.n_read = 0

    def test_a_run(self):
        trainer = self.trainer()
        self.until(lambda: os.path.exists(self.path("out", "status.json")), "status.json", trainer)
        s = self.status()
        self.assertEqual((s["phase"], s["run"], s["loss"], s["producers"]), ("starting", None, None, []))
        self.assertEqual(self.scrape(trainer)["crossfeed_phase", "starting"], 1)

        first, doomed = [self.producer(SYNTHETIC, name=n) for n in ('"first" \\ one', "doomed")]
        self.until(lambda: len(self.status()["producers"]) == 2 and self.status()["step"] > 100, "a run with two", trainer)
        s, m = self.status(), self.scrape(trainer)
        self.assertEqual(s["phase"], "training")
        self.assertRegex(s["run"], "^[0-9a-f]{32}$")
        self.assertEqual({p["name"] for p in s["producers"]}, {'"first" \\ one', "doomed"})
        self.assertGreater(s["rows_per_s"], 0)
        self.assertGreater(s["eta_s"], 0)
        self.assertGreater(s["loss"], 0)
        self.assertIn(s["path"], ("sparse", "dense"))
        self.assertEqual(s["rows"], s["step"] * 64)
        self.assertLessEqual(s["window"]["rows"], s["window"]["slots"])
        self.assertTrue(0 <= s["waiting"]["trainer"] <= 1)
        for p in s["producers"]:
            self.assertAlmostEqual(p["computing"] + p["sending"] + p["waiting"], 1, places=5)
        self.assertEqual(s["ledger"]["rows_received"], sum(p["rows"] for p in s["producers"]))
        self.assertGreaterEqual(m["crossfeed_step"], s["step"])
        self.assertEqual(m["crossfeed_producers"], 2)
        self.assertGreater(m["crossfeed_producer_rows_total", r"\"first\" \\ one"], 0)
        self.assertEqual(m["crossfeed_phase", "training"], 1)

        doomed.kill()
        self.until(lambda: self.status()["ledger"]["producers_lost"] == 1, "the loss of one", trainer, first)
        s, m = self.status(), self.scrape(trainer)
        self.assertEqual([p["name"] for p in s["producers"]], ['"first" \\ one'])
        self.assertEqual(m["crossfeed_producers_lost_total"], 1)
        self.assertNotIn(("crossfeed_producer_leases", "doomed"), m)

        for what, code in (("/", 404), ("/metrics/x", 404)):
            with self.assertRaises(urllib.error.HTTPError) as refused:
                urllib.request.urlopen(trainer.url.replace("/metrics", what), timeout=10)
            self.assertEqual(refused.exception.code, code)
        with self.assertRaises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(trainer.url, data=b"x" * 100000, timeout=10)
        self.assertEqual(refused.exception.code, 405)

        trainer.kill(signal.SIGTERM)
        self.until(lambda: self.status() and not trainer.running(), "the end")
        self.succeed(trainer, first)
        s = self.status()
        self.assertEqual((s["phase"], s["reason"]), ("stopped", None))
        self.assertEqual(s["step"], harness.checkpoints(self.path("out"))[-1])
        self.assertGreater(self.n_read, 100)  # each of them was whole
        self.assertEqual([n for n in os.listdir(self.path("out")) if "tmp" in n], [])
        with self.assertRaises(OSError):
            urllib.request.urlopen(trainer.url, timeout=10)

    def test_done_and_failed(self):
        trainer = self.trainer("--num-tokens", "1e4")
        self.succeed(self.producer(SYNTHETIC), trainer)
        s = self.status()
        self.assertEqual((s["phase"], s["step"], s["total_steps"]), ("done", 156, 156))
        self.assertEqual(s["ledger"], {k: harness.summary(self.path("out"))["ledger"][k] for k in s["ledger"]})
        self.assertNotEqual(self.trainer_fails("--lr", "5", "--resume"), "")
        os.rename(self.path("out"), self.path("other"))
        failing = self.trainer("--eval-blocks", "64")  # all there are
        self.producer(SYNTHETIC)
        self.assertEqual(failing.wait(), 1)
        s = self.status()
        self.assertEqual(s["phase"], "failed")
        self.assertIn(s["reason"], failing.stderr)

    def trainer_fails(self, *args):
        t = super().trainer([*TRAINER, *args])
        self.assertEqual(t.wait(), 1)
        return t.stderr

    def test_addresses(self):
        """An address that cannot be had: one line, exit 1, before any producer is waited for."""
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            for address, why in ((f"127.0.0.1:{taken.getsockname()[1]}", "Address already in use"), ("0.0.0.0:0", "--insecure"),
                                 ("192.0.2.1:0", "--insecure"), ("nowhere.invalid:80", "does not resolve")):
                said = self.trainer_fails("--metrics-listen", address)
                self.assertRegex(said, rf"\Axctrain: error: --metrics-listen: (endpoint ')?{re.escape(address)}'?: .*{why}.*\n\Z")


if __name__ == "__main__":
    harness.main()
