"""test_outlier.py - one finite value that no step can take is refused where it is made or received, and named; where it is let in, the
batches that it spoils are named, and passed over if that is asked for, also across a kill and --resume.

Rows of a cache in which some have a value of 2^100 (--max-abs lets them pass): their sequence, position, site and value must be in the
message, whoever refuses them.
"""
import random
import re
import re
import struct

import harness

N_SEQ, SEQ_LEN, N_SITES, D_MODEL, BATCH = 64, 16, 2, 16, 32
HUGE = "3e38"
TRAINER = ["--batch-size", BATCH, "--buffer-mult", 8, "--dict-size", 64, "--model-batch-size", 2, "--eval-blocks", 2, "--eval-every", 10,
           "--scale", "1,1", "--lr", "1e-3", "--num-tokens", 40 * BATCH, "--save-every", 5, "--log-every", 1]


class Outlier(harness.ProgramTest):
    def cache(self, *outliers):
        """An .npy [rows, n_sites, d_model]; outliers: (sequence, position, site, element, value)."""
        r = random.Random(1)
        x = [r.gauss(0, 1) for _ in range(N_SEQ * SEQ_LEN * N_SITES * D_MODEL)]
        for sequence, position, site, element, value in outliers:
            x[((sequence * SEQ_LEN + position) * N_SITES + site) * D_MODEL + element] = value
        header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({N_SEQ * SEQ_LEN}, {N_SITES}, {D_MODEL}), }}"
        header += " " * (-(10 + len(header) + 1) % 64) + "\n"
        with open(self.path("x.npy"), "wb") as f:
            f.write(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode() + struct.pack(f"<{len(x)}f", *x))
        return ["--source", "npy", "--input", self.path("x.npy"), "--seq-len", str(SEQ_LEN)]

    def trainer(self, *more, out="out"):
        return super().trainer([*map(str, TRAINER), *map(str, more)], out)

    def refused(self, program, *says):
        self.assertEqual(program.wait(), 1, program.stderr)
        error = [line for line in program.stderr.splitlines() if " error: " in line]
        self.assertEqual(len(error), 1, program.stderr)
        for part in says:
            self.assertIn(part, error[0])

    def test_refused_where_it_is_made(self):
        source = self.cache((5, 3, 1, 7, 2.0**100))
        says = "sequence 5, position 3, site site.1: value 7 is 1.26765e+30, must be at most 1e+15 in size (--max-abs)"
        trainer, producer = self.trainer("--buffer-mult", 32, "--source-retries", 1), self.producer(source)
        self.refused(trainer, "failed 2 times by all 1 producers here", says)
        self.refused(producer, says)
        alone = self.start(harness.ACTGEN, [*source, "--record", self.path("refused"), "--scale", "1,1"], "record")
        self.refused(alone, says)
        # The scale, too, is not measured over it.
        self.refused(self.start(harness.ACTGEN, [*source, "--record", self.path("unscaled")], "record"), says)
        self.succeed(self.start(harness.ACTGEN, [*source, "--record", self.path("recorded"), "--scale", "1,1", "--max-abs", HUGE],
                                "record"))
        trainer = self.trainer("--buffer-mult", 32, out="replayed")
        producer = self.producer(["--source", "recording", "--input", self.path("recorded")])
        self.refused(trainer, says)
        self.refused(producer, says)

    def test_refused_where_it_is_received(self):
        """By a trainer whose producers let it pass."""
        source = [*self.cache((5, 3, 1, 7, 1000)), "--max-abs", HUGE]
        trainer, producer = self.trainer("--buffer-mult", 32, "--max-abs", 999), self.producer(source)
        self.refused(trainer, "failed", "sequence 5, position 3, site site.1: value 7 is 1000, must be at most 999 in size")
        self.assertEqual(producer.wait(), 1, producer.stderr)

    def test_what_is_let_pass_can_be_trained_on(self):
        """Values just below the default bound, in a row each and a whole row: every square of the step stays finite."""
        source = self.cache(*((s, 2, s % 2, 3, 9.9e14) for s in range(N_SEQ)), *((7, 5, i % 2, i // 2, 9.9e14) for i in range(32)))
        trainer, producer = self.trainer(), self.producer(source)
        self.succeed(trainer, producer)
        self.assertTrue(all(line["grad_norm"] > 0 for line in harness.metrics(self.path("out")) if "grad_norm" in line))

    def test_bad_batches(self):
        source = [*self.cache((5, 3, 1, 7, 2.0**100), (40, 9, 0, 2, -2.0**101)), "--max-abs", HUGE]
        first = ["--max-abs", HUGE]

        def run(out, *more):
            trainer, producer = self.trainer(*first, *more, out=out), self.producer(source)
            return trainer, producer

        # Without being asked to, none is passed over: the row is named, and so it is when the run is resumed.
        trainer, producer = run("stopped")
        pattern = (r"step \d+: (loss|gradient norm) \S+ .*rows that stand out: sequence (5, position 3, site site.1: 1.26765e\+30|"
                   r"40, position 9, site site.0: -2.5353e\+30); skip_bad_batches is {}")
        self.assertEqual(trainer.wait(), 1)
        error = trainer.stderr.splitlines()[-1]
        self.assertRegex(error, pattern.format(0))
        producer.wait()
        self.assertEqual(harness.checkpoints(self.path("stopped"))[-1], int(re.search(r"step (\d+):", error).group(1)), "steps are lost")
        trainer, producer = run("stopped", "--resume")
        self.assertEqual(trainer.wait(), 1)
        self.assertEqual(trainer.stderr.splitlines()[-1], error)
        producer.wait()

        # Passed over from the start: two batches an epoch, and some more than one epoch is trained on.
        trainer, producer = run("whole", "--skip-bad-batches", 4)
        self.succeed(trainer, producer)
        said = [line for line in trainer.stderr.splitlines() if "passed over" in line]
        summary = harness.summary(self.path("whole"))
        n = summary["ledger"]["batches_skipped"]
        self.assertGreaterEqual(n, 2)
        self.assertEqual(len(said), n)
        for i, line in enumerate(said):
            self.assertRegex(line, pattern.format(4) + f": passed over, number {i + 1}$")
        self.assertIn(f"{n} of 40 batches passed over", trainer.stdout)
        self.assertEqual(harness.read_json(self.path("whole", "status.json"))["ledger"]["batches_skipped"], n)
        lines = [line for line in harness.metrics(self.path("whole")) if "loss" in line]
        self.assertEqual(lines[-1]["batches_skipped"], n)
        self.assertEqual(sum(line["loss"] is None for line in lines), n)
        self.assertEqual(summary["ledger"]["rows_trained"], 40 * BATCH)

        # One fewer than there are is not enough.
        trainer, producer = run("few", "--skip-bad-batches", n - 1)
        self.assertEqual(trainer.wait(), 1)
        self.assertRegex(trainer.stderr.splitlines()[-1], pattern.format(n - 1))
        producer.wait()

        # The run that ended goes on with the flag, and a killed one without a word more: to the same bits.
        trainer, producer = run("stopped", "--resume", "--skip-bad-batches", 4)
        self.succeed(trainer, producer)
        bad = [line["step"] for line in lines if line["loss"] is None]
        trainer, producer = run("killed", "--skip-bad-batches", 4)
        self.until_step(bad[0] + 5, trainer, producer, out="killed")
        trainer.kill()
        self.assertLess(harness.last_step(self.path("killed")), 40)
        self.succeed(self.trainer("--resume", out="killed"), producer)
        for out in "stopped", "killed":
            self.assertEqual(harness.summary(self.path(out))["ledger"]["batches_skipped"], n, out)
            self.assertEqual(harness.sha256(self.path(out, "crosscoder.safetensors")),
                             harness.sha256(self.path("whole", "crosscoder.safetensors")), out)

    def test_diverged(self):
        """If no row is to blame the message says so."""
        source = self.cache()
        self.succeed(self.trainer("--num-tokens", BATCH), self.producer(source))
        header, data = harness.read_safetensors(self.path("out", "crosscoder.safetensors"))
        for name in "W_dec", "b_dec":
            begin, end = header[name]["data_offsets"]
            data[begin:end] = struct.pack("<f", 1e20) * ((end - begin) // 4)
        harness.write_safetensors(self.path("huge.safetensors"), header, data)
        trainer, producer = self.trainer("--init", self.path("huge.safetensors"), out="diverged"), self.producer(source)
        self.refused(trainer, "step 0: ", "no row stands out, the weights have diverged; greatest value: sequence ", "skip_bad_batches is 0")
        producer.wait()


if __name__ == "__main__":
    harness.main()
