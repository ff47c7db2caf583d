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
