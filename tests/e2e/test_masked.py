"""test_masked.py - padding is never trained on, everything else once an epoch, also across a kill and --resume.

Documents of different lengths, padded (`xctok --per-document` writes such a tensor and its lengths); the run's scale is
measured without the padding, and a recording carries the mask.
"""
import collections
import os
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
        self.source = ["--model", f"{harness.DEMO}/base", "--tokens", self.path("tokens.npy"), "--sites", "blocks.[13].hook_resid_post"]

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

        os.rename(self.path("tokens.lengths.npy"), self.path("elsewhere.npy"))
        trainer, producer = self.trainer("killed"), self.producer([*self.source, "--lengths", self.path("elsewhere.npy")])
        self.until_step(70, trainer, producer, out="killed")
        trainer.kill()
        self.succeed(self.trainer("killed", "--resume"), producer)
        self.check("killed")
        for out in "replayed", "killed":
            self.assertEqual(harness.sha256(self.path(out, "crosscoder.safetensors")),
                             harness.sha256(self.path("live", "crosscoder.safetensors")), out)

    def test_xctok_says_it(self):
        """What xctok writes is named together with the flag, and found by actgen."""
        xctok = os.path.join(os.path.dirname(harness.ACTGEN), "xctok")
        if not os.path.exists(xctok):
            self.skipTest("xctok is not built")
        with open(self.path("text"), "w") as f:
            f.write("one\ntwo and three\n")
        p = self.start(xctok, ["--tokenizer", f"{harness.DEMO}/base", "--seq-len", "8", "--line-documents", "--per-document", "--out",
                               self.path("text.npy"), self.path("text")], "xctok")
        self.succeed(p)
        self.assertRegex(p.stderr, r"text\.lengths\.npy: .* actgen --tokens .*/text\.npy finds it .*--lengths")
        p = self.producer(["--model", f"{harness.DEMO}/base", "--tokens", self.path("text.npy"), "--give-up-after", "1"])
        self.assertEqual(p.wait(), 1)
        self.assertIn("text.lengths.npy lies beside the tokens", p.stderr)

    def test_declined(self):
        """The lengths beside the tokens are used, or declined, with a line that says so."""
        self.succeed(self.trainer("declined"), declining := self.producer([*self.source, "--no-lengths"]))
        self.assertEqual(harness.summary(self.path("declined"))["ledger"]["rows_masked"], 0)
        self.assertIn("tokens.lengths.npy is not used", declining.stderr)
        p = self.producer([*self.source, "--give-up-after", "1"])
        self.assertEqual(p.wait(), 1)
        self.assertIn("tokens.lengths.npy lies beside the tokens", p.stderr)
        p = self.producer([*self.source, "--no-lengths", "--lengths", "x"])
        self.assertEqual(p.wait(), 2)
        self.assertIn("--lengths and --no-lengths exclude each other", p.stderr)

    def test_imported(self):
        """Of imports too: the same rows as live, and what lies behind the lengths is not looked at."""
        self.succeed(self.trainer("live"), self.producer(self.source))
        self.succeed(self.start(harness.ACTGEN, ["--threads", "1", *self.source, "--record", self.path("raw"), "--dtype", "fp32", "--scale",
                                                 "1,1", "--shard-seqs", str(N_SEQ)], "record"))
        header, data = harness.read_safetensors(self.path("raw", "shard_00000000.safetensors"))
        n_rows, n_sites, d_model = header["acts"]["shape"]
        begin, end = header["acts"]["data_offsets"]
        acts = bytearray(data[begin:end])
        width = 4 * n_sites * d_model
        for s, length in enumerate(self.lengths):  # a row less a sequence: BOS has none
            for row in range(s * (SEQ_LEN - 1) + length - 1, (s + 1) * (SEQ_LEN - 1)):
                acts[row * width:row * width + 4] = b"\0\0\xc0\x7f"  # NaN
        harness.write_safetensors(self.path("acts.safetensors"), {
            f"blocks.{layer}.hook_resid_post": {"dtype": "F32", "shape": [n_rows, d_model], "data_offsets": [i * len(acts) // 2, (i + 1) * len(acts) // 2]}
            for i, layer in enumerate((1, 3))}, b"".join(bytes(acts[at:at + width // 2]) for half in (0, width // 2)
                                                         for at in range(half, len(acts), width)))
        harness.write_npy_vector(self.path("rows.npy"), [length - 1 for length in self.lengths])
        source = ["--source", "safetensors", "--input", self.path("acts.safetensors"), "--seq-len", str(SEQ_LEN - 1)]
        self.succeed(self.trainer("imported"), self.producer([*source, "--lengths", self.path("rows.npy")]))
        self.assertEqual(*[harness.sha256(self.path(out, "crosscoder.safetensors")) for out in ("live", "imported")])
        self.assertEqual(*[harness.summary(self.path(out))["ledger"]["rows_masked"] for out in ("live", "imported")])
        p = self.producer([*source, "--lengths", self.path("tokens.lengths.npy")])
        self.assertEqual(p.wait(), 1)
        self.assertRegex(p.stderr, r"length of sequence \d+ is 33, the sequences of .*acts.safetensors have 32")

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
        self.assertIn("length of sequence 0 is 34, the sequences of " + self.path("tokens.npy") + " have 33", p.stderr)


if __name__ == "__main__":
    harness.main()
