"""test_identity.py - the result does not depend on who computed it, or when, or on what died on the way.

On the demo pair: crosscoder.safetensors, the last checkpoint's state, the losses of every logged step and the provenance are
bit-identical from one producer; three producers; a producer killed with -9 mid-run and replaced; the trainer killed with -9
mid-run and resumed from its last checkpoint, its producer surviving or a fresh one; the trainer stopped by SIGTERM and
resumed. Each run measures its scale itself. The window is refilled several times in a run, and each test checks that what it
did happened in the middle of the run.
"""
import os
import signal

import harness

STEPS, BATCH, SAVE_EVERY = 240, 128, 30
TRAINER = ["--batch-size", BATCH, "--num-tokens", STEPS * BATCH, "--buffer-mult", 32, "--dict-size", 256, "--lr", "1e-3",
           "--model-batch-size", 4, "--scale-rows", 1000, "--eval-blocks", 2, "--eval-every", 80, "--log-every", 5,
           "--save-every", SAVE_EVERY, "--heartbeat-ms", 200, "--timeout-ms", 2000]
PRODUCER = harness.DEMO_SOURCE + ["--sites", "blocks.[024].hook_resid_post"]
FIRST, LATE = 70, 200  # a kill comes after FIRST steps, and was too late if LATE have been logged by then


class Identity(harness.ProgramTest):
    expected = None  # result of the undisturbed run

    def trainer(self, *more):
        return super().trainer([*map(str, TRAINER), "--provenance", self.path("provenance"), *more])

    def producer(self, name="producer"):
        return super().producer(PRODUCER, name=name)

    def result(self):
        out = self.path("out")
        losses = [[line[key] for key in ("step", "loss", "l2", "l1", "l0", "grad_norm", "fvu", "fvu_token")]
                  for line in harness.metrics(out) if "loss" in line]
        held_out = [[line[key] for key in ("step", "eval_loss", "eval_fvu")]
                    for line in harness.metrics(out) if "eval_loss" in line]
        return {
            "crosscoder": harness.sha256(f"{out}/crosscoder.safetensors"),
            "state": harness.sha256(f"{out}/checkpoints/step_{STEPS:010d}/state.safetensors"),
            "provenance": harness.sha256(self.path("provenance")),
            "losses": losses,
            "held out": held_out,
        }

    def check(self):
        if Identity.expected is None:
            Identity.expected = self.undisturbed()
        result = self.result()
        for key, value in Identity.expected.items():
            self.assertEqual(result[key], value, key)

    def undisturbed(self):
        test = Identity("run_once")
        try:
            test.setUp()
            test.run_once()
            return test.result()
        finally:
            test.doCleanups()

    def run_once(self):
        trainer, producer = self.trainer(), self.producer()
        self.succeed(trainer, producer)

    def was_mid_run(self, trainer):
        step = harness.last_step(self.path("out"))
        self.assertLess(step, LATE, f"too late to be mid-run:\n{trainer.stderr}")
        return step

    def went_on(self, checkpoint):
        ledger = harness.summary(self.path("out"))["ledger"]
        self.assertEqual(ledger["rows_trained"], STEPS * BATCH)
        self.assertEqual(ledger["rows_this_session"], (STEPS - checkpoint) * BATCH)

    def test_one_producer(self):
        self.run_once()
        result = self.result()
        self.assertEqual([line[0] for line in result["losses"]], list(range(5, STEPS + 1, 5)))
        self.assertLess(result["held out"][-1][2], 0.6 * result["losses"][0][6], "FVU: it did not learn")
        self.check()  # against a second run, in another folder

    def test_three_producers(self):
        trainer = self.trainer()
        producers = [self.producer(f"producer{i}") for i in range(3)]
        self.succeed(trainer, *producers)
        for p in producers:
            self.assertNotIn("sent 0 rows", p.stderr)
        self.check()

    def test_producer_killed_and_replaced(self):
        trainer, early = self.trainer(), self.producer("early")
        self.until(lambda: "producer early joins" in trainer.stderr, "joining", trainer, early)
        early.kill()  # while the scale is being measured
        first = self.producer("first")
        self.until_step(FIRST, trainer, first)
        first.kill()
        self.was_mid_run(trainer)
        second = self.producer("second")
        self.succeed(trainer, second)
        ledger = harness.summary(self.path("out"))["ledger"]
        self.assertGreaterEqual(ledger["producers_lost"], 2)
        self.assertGreater(ledger["blocks_leased_again"], 0)
        self.check()

    def kill_trainer(self):
        trainer, producer = self.trainer(), self.producer("survivor")
        self.until_step(FIRST, trainer, producer)
        trainer.kill()
        self.was_mid_run(trainer)
        checkpoint = harness.checkpoints(self.path("out"))[-1]
        self.assertGreaterEqual(checkpoint, FIRST // SAVE_EVERY * SAVE_EVERY)
        return trainer, producer, checkpoint

    def test_trainer_killed_producer_survives(self):
        trainer, producer, checkpoint = self.kill_trainer()
        again = self.trainer("--resume")
        self.succeed(again, producer)
        self.assertIn(f"step_{checkpoint:010d}", again.stderr)
        self.assertIn("joined again", producer.stderr)
        self.went_on(checkpoint)
        self.check()

    def test_trainer_killed_fresh_producer(self):
        trainer, producer, checkpoint = self.kill_trainer()
        producer.kill()
        again, fresh = self.trainer("--resume"), self.producer("fresh")
        self.succeed(again, fresh)
        self.assertIn(f"step_{checkpoint:010d}", again.stderr)
        self.went_on(checkpoint)
        self.check()

    def test_trainer_stopped_by_signal(self):
        trainer, producer = self.trainer(), self.producer()
        self.until_step(FIRST, trainer, producer)
        trainer.kill(signal.SIGTERM)
        self.succeed(trainer, producer)  # the producer is told: it exits 0 too
        self.was_mid_run(trainer)
        self.assertIn("stopped by a signal", producer.stderr)
        self.assertFalse(os.path.exists(self.path("out", "crosscoder.safetensors")), "only a finished run has it")
        checkpoint = harness.checkpoints(self.path("out"))[-1]
        self.assertGreaterEqual(checkpoint, harness.last_step(self.path("out")))  # nothing is trained again
        again, fresh = self.trainer("--resume"), self.producer()
        self.succeed(again, fresh)
        self.went_on(checkpoint)
        self.check()


if __name__ == "__main__":
    harness.main()
