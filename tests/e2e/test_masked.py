"""test_masked.py - padding is never trained on, everything else once an epoch, also across a kill and --resume.

Documents of different lengths, padded (`xctok --per-document` writes such a tensor and its lengths); the run's scale is
measured without the padding, and a recording carries the mask.
"""
import collections
import random

import harness

N_SEQ, SEQ_LEN, BLOCK, BATCH, STEPS = 200, 33, 4, 64, 120
TRAINER = ["--batch-size", BATCH, "--num-tokens", STEPS * BATCH, "--buffer-mult", 20, "--dict-size", 128, "--model-batch-size",
           BLOCK, "--scale-rows", 500, "--eval-blocks", 2, "--eval-every", 50, "--log-every", 1, "--save-every", 20]


class Masked(harness.ProgramTest):
    def setUp(self):
        super().setUp()
        r = random.Random(2)
        self.lengths = [r.randrange(2, SEQ_LEN + 1) for _ in range(N_SEQ)]
        self.tokens = [[r.randrange(1, 2048) for _ in range(n)] + [0] * (SEQ_LEN - n) for n in self.lengths]
        harness.write_npy(self.path("tokens.npy"), self.tokens)
        harness.write_npy_vector(self.path("tokens.lengths.npy"), self.lengths)
        self.source = ["--model", f"{harness.DEMO}/base", "--tokens", self.path("tokens.npy"), "--lengths",
                       self.path("tokens.lengths.npy"), "--sites", "blocks.[13].hook_resid_post"]

    def trainer(self, out, *more):
        return super().trainer([*map(str, TRAINER), "--provenance", self.path(out + ".rows"), *map(str, more)], out)

    def check(self, out):
        rows = harness.provenance(self.path(out + ".rows"))
        self.assertEqual(len(rows), STEPS * BATCH)
        blocks = {s // BLOCK for s in range(N_SEQ)} - {s // BLOCK for s, _, _ in rows}
        self.assertEqual(len(blocks), 2)
        wanted = collections.Counter((s, p) for s in range(N_SEQ) if s // BLOCK not in blocks for p in range(1, self.lengths[s]))
        size = sum(wanted.values())
        self.assertGreater(len(rows), 2 * size, "less than two epochs show little")
        for i in range(0, len(rows) - size, size):
            self.assertEqual(collections.Counter(row[:2] for row in rows[i:i + size]), wanted)
        for s, p, token in rows:
            self.assertEqual(token, self.tokens[s][p])
        ledger = harness.summary(self.path(out))["ledger"]
        self.assertEqual(ledger["epoch_rows"], size, "masked rows count")
        self.assertAlmostEqual(ledger["epochs"], len(rows) / size)
        held_out = sum(self.lengths[s] - 1 for s in range(N_SEQ) if s // BLOCK in blocks)
        self.assertEqual({line["eval_rows"] for line in harness.metrics(self.path(out)) if "eval_rows" in line}, {held_out})
        return size

    def test_live_recorded_and_resumed(self):
        trainer = self.trainer("live")
        self.succeed(trainer, self.producer([*self.source, "--record", self.path("recording")]))
        size = self.check("live")
        ledger = harness.summary(self.path("live"))["ledger"]
        self.assertGreater(ledger["rows_masked"], 0)
        self.assertIn(f"{STEPS * BATCH / size:.3f} epochs of {size})", trainer.stdout)

        trainer, producer = self.trainer("replayed", "--scale", self.scale()), self.producer(
            ["--source", "recording", "--input", self.path("recording")])
        self.succeed(trainer, producer)

        trainer, producer = self.trainer("killed"), self.producer(self.source)
        self.until_step(70, trainer, producer, out="killed")
        trainer.kill()
        self.succeed(self.trainer("killed", "--resume"), producer)
        self.check("killed")
        for out in "replayed", "killed":
            self.assertEqual(harness.sha256(self.path(out, "crosscoder.safetensors")),
                             harness.sha256(self.path("live", "crosscoder.safetensors")), out)

    def scale(self):
        return ",".join(map(repr, harness.read_json(self.path("live", "cfg.json"))["run_scale"]))

    def test_all_masked(self):
        harness.write_npy_vector(self.path("tokens.lengths.npy"), [1] * N_SEQ)
        for out, flags in ("norm", []), ("std", ["--scale-mode", "total-std"]):
            trainer, producer = self.trainer(out, *flags), self.producer(self.source)
            self.assertEqual(trainer.wait(), 1)
            self.assertIn("error: the scale cannot be measured: all rows that it is to be measured over are masked", trainer.stderr)
            self.assertEqual(producer.wait(), 1)
        trainer, producer = self.trainer("given", "--scale", "1,1"), self.producer(self.source)
        self.assertEqual(trainer.wait(), 1)
        self.assertIn("error: all rows of an epoch are masked", trainer.stderr)
        producer.wait()

    def test_said_at_the_start(self):
        """A run that goes over its rows many times, or uses a small part of each sequence, says so; others do not."""
        harness.write_npy_vector(self.path("tokens.lengths.npy"), [3] * N_SEQ)
        trainer, producer = self.trainer("few"), self.producer([*self.source, "--seq-len", "17"])
        self.until(lambda: " the same 384 rows 20.0 times" in trainer.stderr, "the line", trainer, producer)  # 192 sequences of 2 rows
        self.assertIn("the first 17 of 33 tokens are used (51.5 %)", producer.stderr)
        self.assertEqual(trainer.stderr.count("times"), 1)
        trainer.kill()
        producer.kill()
        trainer, producer = self.trainer("many", "--num-tokens", 640), self.producer(self.source)
        self.succeed(trainer, producer)
        self.assertNotIn("times", trainer.stderr)
        self.assertNotIn("tokens are used", producer.stderr)

    def test_wrong_lengths(self):
        harness.write_npy_vector(self.path("tokens.lengths.npy"), self.lengths[:-1])
        p = self.producer(self.source)
        self.assertEqual(p.wait(), 1)
        self.assertIn("199 lengths", p.stderr)
        self.assertIn("200 sequences", p.stderr)
        harness.write_npy_vector(self.path("tokens.lengths.npy"), [34] * N_SEQ)
        p = self.producer(self.source)
        self.assertEqual(p.wait(), 1)
        self.assertIn("length of sequence 0 is 34, the sequences have 33", p.stderr)


if __name__ == "__main__":
    harness.main()
