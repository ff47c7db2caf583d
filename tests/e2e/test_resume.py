"""test_resume.py - --resume where there is nothing to resume, or nothing left to do; and a terminal that is closed loses nothing.

A service manager starts a finished run again after a reboot: that costs nothing, needs no producer and changes no file.
"""
import os
import re
import shutil
import signal
import time
import unittest

import harness

TRAINER = ["--batch-size", "64", "--num-tokens", "6400", "--buffer-mult", "8", "--dict-size", "64", "--model-batch-size", "4", "--eval-blocks", "2",
           "--scale-rows", "128", "--lr", "1e-3", "--log-every", "10"]
ENDLESS = [*TRAINER, "--num-tokens", "1e9"]
SYNTHETIC = ["--source", "synthetic", "--d-model", "16", "--n-sites", "2", "--latents", "32", "--n-seq", "256", "--seq-len", "32"]


def contents(folder):
    """The bytes of all files below a folder, and its empty folders."""
    found = {}
    for path, _, names in os.walk(folder):
        found[path] = None
        for name in names:
            with open(os.path.join(path, name), "rb") as f:
                found[os.path.join(path, name)] = f.read()
    return found


class Finished(harness.ProgramTest):
    def resume(self, *args):
        """Resumes the run, which needs no producer for it; returns what it says."""
        begin = time.monotonic()
        trainer = self.trainer(["--resume", *args])
        self.succeed(trainer)
        self.assertLess(time.monotonic() - begin, 5)
        return trainer.stderr

    def test_run(self):
        self.train(TRAINER, SYNTHETIC)
        before = contents(self.path("out"))
        said = rf"\Axctrain: {re.escape(self.path('out'))}: the run is finished, all its 100 steps are done: nothing to do\n\Z"
        self.assertRegex(self.resume(), said)
        self.assertRegex(self.resume("--metrics-listen", "127.0.0.1:0", "--save-every", "7"), said)
        self.assertEqual(contents(self.path("out")), before)
        refused = self.trainer(["--resume", "--lr", "5"])  # what would be another run is refused as ever
        self.assertEqual(refused.wait(), 1)
        self.assertIn("cannot resume", refused.stderr)
        for name in "crosscoder.safetensors", "cfg.json":  # results that are in the checkpoint too are put back
            os.remove(self.path("out", name))
        self.assertRegex(self.resume(), said)
        self.assertEqual(contents(self.path("out")), before)

    def test_run_that_did_not_say_how_it_went(self):
        """Killed before its summary.json, which needs the held-out rows; or asked for more than it says."""
        truth = self.path("truth")
        self.train(TRAINER, [*SYNTHETIC, "--truth", truth])
        before, lines = harness.summary(self.path("out")), harness.metrics(self.path("out"))
        os.remove(self.path("out", "summary.json"))
        for more in [], ["--truth", truth]:
            trainer, _ = self.train([*TRAINER, "--resume", *more], SYNTHETIC)
            self.assertIn("resuming from", trainer.stderr)
            self.assertEqual(harness.metrics(self.path("out")), lines)
            after = harness.summary(self.path("out"))
            self.assertEqual("recovered" in after, bool(more))
            self.assertEqual((after["rows_per_s"], after["waiting"]), (None, None))
            self.assertEqual(after["ledger"]["rows_this_session"], 0)
            for key in "steps", "loss", "l0", "fvu", "fvu_token", "dead":
                self.assertEqual(after[key], before[key], key)
            self.assertNotIn("nan", trainer.stdout)
            self.assertIn("nothing to do", self.resume(*more))


class NoCheckpoint(harness.ProgramTest):
    def refused(self, args, *patterns):
        trainer = self.trainer(args)
        self.assertEqual(trainer.wait(), 1)
        for pattern in patterns:
            self.assertRegex(trainer.stderr, pattern)
        self.assertEqual(trainer.stderr.count("\n"), 1)

    def test_no_run(self):
        self.refused([*TRAINER, "--resume"], "/out: no checkpoint to resume from, nor a run", "without --resume")
        self.assertFalse(os.path.exists(self.path("out")))

    def test_run_that_died_before_its_first_checkpoint(self):
        trainer, producer = self.trainer(ENDLESS), self.producer(SYNTHETIC)
        self.until_step(20, trainer, producer)
        trainer.kill()
        producer.kill()
        os.makedirs(self.path("out", "checkpoints", "tmp"), exist_ok=True)  # of one killed in its first save
        before = contents(self.path("out"))
        self.refused([*ENDLESS, "--resume"], "/out: no checkpoint to resume from: the run ended before its first", "Remove the folder", "without --resume")
        self.refused(ENDLESS, "/out holds a run that ended before its first checkpoint", "remove the folder, or choose another --out")
        self.assertEqual(contents(self.path("out")), before)

    def test_run_that_lost_its_metrics(self):
        """Its checkpoints are what there is to lose."""
        self.train(TRAINER, SYNTHETIC)
        os.remove(self.path("out", "metrics.jsonl"))
        self.refused(TRAINER, "/out holds a run already", "--resume")
        self.assertEqual(harness.checkpoints(self.path("out")), [100])


class Hangup(harness.ProgramTest):
    """SIGHUP, which comes when a terminal or its ssh is closed, is as SIGTERM."""

    def test_run(self):
        trainer, producer = self.trainer(ENDLESS), self.producer(SYNTHETIC)
        self.until_step(20, trainer, producer)
        trainer.kill(signal.SIGHUP)
        self.succeed(trainer, producer)
        step = harness.checkpoints(self.path("out"))[-1]
        self.assertIn(f"stopped at step {step} of ", trainer.stderr)
        self.assertGreaterEqual(step, 20)

    def test_producer(self):
        trainer, producer = self.trainer(ENDLESS), self.producer(SYNTHETIC)
        self.until_step(20, trainer, producer)
        producer.kill(signal.SIGHUP)
        self.succeed(producer)
        self.until(lambda: "producer producer leaves" in trainer.stderr, "leaving", trainer)

    def test_recording(self):
        record = [*SYNTHETIC, "--n-seq", "65536", "--seq-len", "256", "--threads", "1", "--record", self.path("acts")]
        first = self.start(harness.ACTGEN, record, "record")
        self.until(lambda: os.path.exists(self.path("acts", "shard_00000001.safetensors")), "two shards", first)
        first.kill(signal.SIGHUP)
        self.succeed(first)
        self.assertRegex(first.stderr, r"acts: \d+ of 4096 shards recorded; --resume goes on\n\Z")
        shards = [name for name in os.listdir(self.path("acts")) if name.startswith("shard")]
        self.assertEqual(len(harness.read_json(self.path("acts", "manifest.json"))["shards"]), len(shards))

    @unittest.skipUnless(shutil.which("nohup"), "no nohup here")
    def test_nohup(self):
        args = ["--threads", "1", "--out", self.path("out"), "--listen", self.endpoint(), *TRAINER]
        trainer = self.start("nohup", [harness.XCTRAIN, *args], "nohup")
        self.until(lambda: "listening at" in trainer.stderr, "listening", trainer)
        trainer.kill(signal.SIGHUP)
        self.succeed(trainer, self.producer(SYNTHETIC))
        self.assertEqual(harness.summary(self.path("out"))["steps"], 100)


if __name__ == "__main__":
    harness.main()
