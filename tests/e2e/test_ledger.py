"""test_ledger.py - every row of the epoch is trained exactly once in every epoch, and none of the held-out rows ever.

Counts the provenance (sequence, position, token of every row trained, in order) of runs over more than two epochs of a small
token tensor whose last block is short: with one producer, with three, with a producer killed with -9 on the way, and with the
trainer killed with -9 and resumed, when the provenance file is cut back to the checkpoint and continued. The token ids must
be those of the file, and the ledger in summary.json must say the same as the count.
"""
import collections
import random

import harness

N_SEQ, SEQ_LEN, BLOCK, HELD_OUT, BATCH = 322, 33, 4, 3, 96  # the last of 81 blocks has 2 sequences
STEPS = 266                                                  # 2.6 epochs of about 9900 rows; batches cross epochs
TRAINER = ["--batch-size", BATCH, "--num-tokens", STEPS * BATCH + 17, "--buffer-mult", 20, "--dict-size", 256,
           "--model-batch-size", BLOCK, "--scale-rows", 500, "--eval-blocks", HELD_OUT, "--eval-every", 100,
           "--log-every", 2, "--save-every", 25, "--heartbeat-ms", 200, "--timeout-ms", 2000]
PATIENT = ["--timeout-ms", "60000"]  # a loaded machine must not look like a dead producer


class Ledger(harness.ProgramTest):
    def setUp(self):
        super().setUp()
        r = random.Random(1)
        self.tokens = [[r.randrange(2048) for _ in range(SEQ_LEN)] for _ in range(N_SEQ)]
        harness.write_npy(self.path("tokens.npy"), self.tokens)

    def trainer(self, *more):
        return super().trainer([*map(str, TRAINER), "--provenance", self.path("provenance"), *more])

    def producer(self, *more, name="producer"):
        return super().producer(["--model", f"{harness.DEMO}/base", "--tokens", self.path("tokens.npy"),
                                 "--sites", "blocks.[135].hook_resid_mid", *more], name=name)

    def check(self, first_position=1):
        rows = harness.provenance(self.path("provenance"))
        ledger = harness.summary(self.path("out"))["ledger"]
        per_sequence = SEQ_LEN - first_position
        self.assertEqual(len(rows), STEPS * BATCH)
        for sequence, position, token in rows:
            self.assertEqual(token, self.tokens[sequence][position])

        # What is never trained is exactly HELD_OUT whole blocks.
        missing = set(range(N_SEQ)) - {sequence for sequence, _, _ in rows}
        blocks = {sequence // BLOCK for sequence in missing}
        self.assertEqual(len(blocks), HELD_OUT)
        self.assertEqual(missing, {s for s in range(N_SEQ) if s // BLOCK in blocks})

        wanted = collections.Counter((s, p) for s in range(N_SEQ) if s not in missing for p in range(first_position, SEQ_LEN))
        size = sum(wanted.values())
        self.assertEqual(size, ledger["epoch_rows"])
        self.assertGreater(len(rows), 2 * size, "less than two epochs show little")
        epochs = [[row[:2] for row in rows[i:i + size]] for i in range(0, len(rows), size)]
        for epoch in epochs[:-1]:
            self.assertEqual(collections.Counter(epoch), wanted)
        self.assertFalse(collections.Counter(epochs[-1]) - wanted, "the last epoch is a part of a whole one")
        self.assertNotEqual(epochs[0], epochs[1], "the epochs have the same order")
        together = sum(a[0] == b[0] for a, b in zip(epochs[0], epochs[0][1:]))
        self.assertLess(together, size // 4, "rows of one sequence are neighbours: hardly shuffled")

        self.assertEqual(ledger["rows_trained"], len(rows))
        self.assertEqual(ledger["rows_expected"], len(rows))
        held_out_rows = len(missing) * per_sequence
        self.assertGreaterEqual(ledger["rows_received"], ledger["rows_this_session"] + held_out_rows)
        evaluations = [line for line in harness.metrics(self.path("out")) if "eval_rows" in line]
        self.assertEqual({line["eval_rows"] for line in evaluations}, {held_out_rows})
        self.assertEqual(ledger["bad_chunks"], 0)
        return ledger

    def check_undisturbed(self, ledger):
        """Nothing was sent twice: all that was received is trained, held out or still in the window."""
        for key in ("blocks_leased_again", "producers_lost", "producers_rejected"):
            self.assertEqual(ledger[key], 0, key)
        if ledger["blocks_duplicated"] == 0:  # on a loaded machine one of several producers may be late with a block
            self.assertEqual(ledger["duplicates_dropped"], 0)
        self.assertEqual(ledger["rows_this_session"], ledger["rows_trained"])

    def test_one_producer(self):
        self.succeed(self.trainer(*PATIENT), self.producer())
        self.check_undisturbed(self.check())

    def test_bos_kept(self):
        self.succeed(self.trainer(*PATIENT), self.producer("--keep-bos"))
        self.check_undisturbed(self.check(first_position=0))

    def test_three_producers(self):
        trainer = self.trainer(*PATIENT)
        self.succeed(trainer, *[self.producer(name=f"producer{i}") for i in range(3)])
        self.check_undisturbed(self.check())

    def test_producer_killed(self):
        trainer, doomed, other = self.trainer(), self.producer(name="doomed"), self.producer(name="other")
        self.until_step(60, trainer, doomed, other)
        doomed.kill()
        self.assertLess(harness.last_step(self.path("out")), STEPS - 30, "too late to be mid-run")
        self.succeed(trainer, other)
        ledger = self.check()
        # 0: the run was over within a heartbeat of the kill, and nobody missed it
        self.assertLessEqual(ledger["producers_lost"], 1)

    def test_trainer_killed(self):
        session = [self.trainer()]
        producer = self.producer()
        for step in 60, 160:  # in the first epoch and in the second
            self.until_step(step, session[-1], producer)
            session[-1].kill()
            self.assertLess(harness.last_step(self.path("out")), step + 90, "too late")
            checkpoint = harness.checkpoints(self.path("out"))[-1]
            session.append(self.trainer("--resume"))
            self.until(lambda: "resuming from" in session[-1].stderr, "resuming", session[-1], producer)
            self.assertIn(f"step_{checkpoint:010d}", session[-1].stderr)
        self.succeed(session[-1], producer)
        ledger = self.check()
        self.assertEqual(ledger["rows_this_session"], (STEPS - checkpoint) * BATCH)


if __name__ == "__main__":
    harness.main()
