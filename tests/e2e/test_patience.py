"""test_patience.py - waiting: for producers that do not come, for a trainer that does not come back, for a straggler.

A run without producers says so, and with --wait-timeout it saves its state and ends with status 1; resumed, it reaches the
weights of a run that never waited. A producer without a trainer gives up after --give-up-after. A producer that is stopped
(SIGSTOP) with leases in its hands does not hold up the run: another one is asked for its blocks, long before the time-out.
"""
import os
import re
import signal

import harness

STEPS, BATCH = 300, 64
TRAINER = ["--batch-size", BATCH, "--num-tokens", STEPS * BATCH, "--buffer-mult", 16, "--dict-size", 32, "--model-batch-size", 2,
           "--eval-blocks", 1, "--eval-every", 50, "--scale", "1,1", "--log-every", 1, "--save-every", 100000,
           "--heartbeat-ms", 100, "--timeout-ms", 60000]
PRODUCER = ["--source", "synthetic", "--d-model", "512", "--n-sites", "2", "--latents", "2048", "--active", "64", "--n-seq", "120",
            "--seq-len", "32"]
FIRST, LATE = 40, 260  # what is done to a run is done after FIRST steps, and came too late after LATE


class Patience(harness.ProgramTest):
    def trainer(self, *more, out="out"):
        return super().trainer([*map(str, TRAINER), *more], out=out)

    def producer(self, *more, name="producer"):
        return super().producer([*PRODUCER, "--give-up-after", "30", *more], name=name)

    def expected(self):
        self.succeed(self.trainer(out="quiet"), self.producer())
        return harness.sha256(self.path("quiet", "crosscoder.safetensors"))

    def was_mid_run(self):
        step = harness.last_step(self.path("out"))
        self.assertLess(step, LATE, "too late to be mid-run")
        return step

    def fails(self, program, pattern):
        self.assertEqual(program.wait(30), 1, program.stderr)
        errors = [line for line in program.stderr.splitlines() if "error: " in line]
        self.assertEqual(len(errors), 1, program.stderr)
        self.assertRegex(errors[0], pattern)

    def test_nobody_comes(self):
        trainer = self.trainer("--wait-timeout", "1")
        self.fails(trainer, rf"no producer at {re.escape(self.endpoint())} for 1 s \(--wait-timeout\)")
        self.assertFalse(harness.checkpoints(self.path("out")))

    def test_all_leave(self):
        expected = self.expected()
        trainer, producer = self.trainer("--wait-timeout", "1"), self.producer()
        self.until_step(FIRST, trainer, producer)
        producer.kill()
        self.fails(trainer, r"no producer at .* for 1 s \(--wait-timeout\)")
        step = self.was_mid_run()
        self.assertIn("no producer is left; waiting for one at ipc://", trainer.stderr)
        self.assertIn(f"stopped at step {step} of {STEPS}; --resume goes on", trainer.stderr)
        self.assertEqual(harness.checkpoints(self.path("out")), [step])
        self.succeed(self.trainer("--resume"), self.producer())
        self.assertEqual(harness.sha256(self.path("out", "crosscoder.safetensors")), expected)

    def test_the_trainer_does_not_come_back(self):
        trainer, producer = self.trainer(), self.producer("--give-up-after", "2")
        self.until_step(FIRST, trainer, producer)
        trainer.kill()
        self.was_mid_run()
        self.fails(producer, rf"{re.escape(self.endpoint())}: no trainer heard for 2 s, giving up")

    def test_the_wrong_one_came_first(self):
        """It settles the stream, and the right one waits for what a trainer started anew can mend; one that is told what to expect lets it join."""
        expected, wrong = self.expected(), ["--latents", "2047", "--give-up-after", "1"]
        trainer = self.trainer()
        first = self.producer(*wrong, name="wrong")
        self.until(lambda: "producer wrong joins" in trainer.stderr, "joining", trainer, first)
        right = self.producer(name="right")
        self.until(lambda: re.search("trainer: not-now: model 0 has fingerprint .*trying again", right.stderr), "being told to wait", right)
        trainer.kill()
        first.kill()
        trainer = self.trainer("--expect", self.path("quiet", "cfg.json"), out="anew")
        self.fails(self.producer(*wrong, name="wrong"), "refused this producer: model 0 has fingerprint")
        self.succeed(trainer, right)
        self.assertNotIn("producer wrong joins", trainer.stderr)
        self.assertEqual(harness.sha256(self.path("anew", "crosscoder.safetensors")), expected)

    def test_nobody_reads_standard_error(self):
        """Both programs' standard error is a pipe that is full: they do what they do, and end."""
        expected = self.expected()
        pipe = self.path("full")
        os.mkfifo(pipe)
        fd = os.open(pipe, os.O_RDWR | os.O_NONBLOCK)
        try:
            with self.assertRaises(BlockingIOError):
                while True:
                    os.write(fd, bytes(4096))
            programs = [self.start("/bin/sh", ["-c", f"exec \"$0\" \"$@\" 2>{pipe}", *command], command[0].rsplit("/")[-1]) for command in (
                [harness.XCTRAIN, "--threads", "1", "--out", self.path("out"), "--listen", self.endpoint(), *map(str, TRAINER)],
                [harness.ACTGEN, "--threads", "1", "--connect", self.endpoint(), *PRODUCER])]
            self.succeed(*programs)
        finally:
            os.close(fd)
        self.assertEqual(harness.sha256(self.path("out", "crosscoder.safetensors")), expected)

    def test_a_stopped_straggler(self):
        expected = self.expected()
        trainer, straggler = self.trainer(), self.producer(name="straggler")
        self.until_step(FIRST, trainer, straggler)
        os.kill(straggler.pid, signal.SIGSTOP)
        try:
            self.was_mid_run()
            other = self.producer(name="other")
            self.assertEqual(trainer.wait(40), 0, trainer.stderr)  # the time-out is 60 s
        finally:
            os.kill(straggler.pid, signal.SIGCONT)
        self.succeed(other, straggler)
        ledger = harness.summary(self.path("out"))["ledger"]
        self.assertGreater(ledger["blocks_duplicated"], 0, trainer.stderr)
        self.assertEqual(ledger["producers_lost"], 0)
        self.assertEqual(ledger["rows_trained"], STEPS * BATCH)
        self.assertEqual(harness.sha256(self.path("out", "crosscoder.safetensors")), expected)


if __name__ == "__main__":
    harness.main()
