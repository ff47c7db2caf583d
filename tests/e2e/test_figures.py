"""test_figures.py - what a run says of itself can be trusted: massive activations, latents that do nothing, clipping, collapse.

The rows are a cache of two sites in which one row of 128 is some 50 times as long as the others at site 1, always in the same direction, as
language models have it; they have nearly all of the sum of squares there. The trainer must say so, and tell FVU of the others as fvu_typical; its figures must be the same from one producer, from three,
with the scale given, and from a run that is resumed. Learning rates that are far too high must not look like success.
"""
import array
import math
import os
import random
import re
import shutil
import struct

import harness

N_SITES, D_MODEL, SEQ_LEN, N_SEQ, EVERY = 2, 16, 32, 128, 128
BATCH, STEPS, LATENTS, LONG, MAX_NORM = 64, 160, 48, 50, 6
TRAINER = [str(x) for x in ["--batch-size", BATCH, "--num-tokens", STEPS * BATCH, "--buffer-mult", 32, "--dict-size", LATENTS, "--lr", "3e-3",
                            "--dec-init-norm", "0.1", "--l1-coeff", "0.1", "--model-batch-size", 4, "--scale-rows", 1000, "--eval-blocks", 4,
                            "--eval-every", 40, "--log-every", 20, "--save-every", 40, "--dtype", "fp32",
                            "--max-grad-norm", MAX_NORM]]
COLLAPSE = ["--lr", "10", "--max-grad-norm", "0.01"]
TIMED = ("rows_per_s", "waiting")  # of a line of metrics.jsonl: all else is the same whenever and by whomever


def write_rows(path, long):
    """Sums of 3 of 24 directions, [rows, n_sites, d_model] F32; returns the median norm of each site."""
    draw = random.Random(1)
    directions = [[draw.gauss(0, 1) for _ in range(N_SITES * D_MODEL)] for _ in range(24)]
    rows, values = N_SEQ * SEQ_LEN, array.array("f")
    norms = [[] for _ in range(N_SITES)]
    for i in range(rows):
        row = [sum(x) for x in zip(*(directions[draw.randrange(24)] for _ in range(3)))]
        if i % EVERY == 5:
            row[D_MODEL:] = [long * 1.5 * x for x in directions[0][D_MODEL:]]
        for site in range(N_SITES):
            norms[site].append(math.hypot(*row[site * D_MODEL:(site + 1) * D_MODEL]))
        values.extend(row)
    header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({rows}, {N_SITES}, {D_MODEL}), }}"
    header += " " * (-(10 + len(header) + 1) % 64) + "\n"
    with open(path, "wb") as f:
        f.write(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode() + values.tobytes())
    return [sorted(x)[rows // 2] for x in norms]


class Figures(harness.ProgramTest):
    def rows(self, long=LONG):
        self.medians = write_rows(self.path("rows.npy"), long)
        return ["--source", "npy", "--input", self.path("rows.npy"), "--seq-len", str(SEQ_LEN)]

    def lines(self, out="out"):
        return [{k: v for k, v in line.items() if k not in TIMED} for line in harness.metrics(self.path(out))]

    def ends(self, status, said, *flags, out="out"):
        """A trainer that ends with that status and says so; its producer is ended."""
        trainer, producer = self.trainer([*TRAINER, *flags], out), self.producer(self.source)
        self.assertEqual(trainer.wait(), status, trainer.stderr)
        self.assertRegex(trainer.stderr, said)
        producer.kill()
        return trainer

    def test_massive_activations(self):
        source = self.rows()
        trainer, _ = self.train(TRAINER, source)
        warnings = re.findall(r"site (\d) \(([^)]*)\): the largest norm of (\d+) rows is ([0-9.]+) times their median; the (\d+) .*? have "
                              r"([0-9.]+) % of the sum of squares.*--lengths", trainer.stderr)
        self.assertEqual(len(warnings), 1, trainer.stderr)
        site, name, rows, factor, n, share = warnings[0]
        self.assertEqual((site, rows, n), ("1", "1024", "8"))
        self.assertTrue(name)
        self.assertGreater(float(factor), LONG / 2)
        self.assertGreater(float(share), 90)
        cfg = harness.read_json(self.path("out", "cfg.json"))
        for median, scale, measured in zip(self.medians, cfg["run_scale"], cfg["median_norm"]):
            self.assertAlmostEqual(measured / (scale * median), 1, delta=0.1)

        lines, summary = self.lines(), harness.summary(self.path("out"))
        held_out = [line for line in lines if "eval_fvu" in line][-1]
        self.assertLess(held_out["eval_fvu"], 0.7 * held_out["eval_fvu_typical"], "the few rows do not show")
        self.assertLess(held_out["eval_fvu_site"][1], 0.7 * held_out["eval_fvu_typical_site"][1])
        self.assertAlmostEqual(summary["fvu_typical"], held_out["eval_fvu_typical"], places=8)
        self.assertIn(f"(typical rows {held_out['eval_fvu_typical']:.4f})", trainer.stderr)
        self.assertRegex(trainer.stdout, rf"all +{summary['fvu']:.4f} +{summary['fvu_typical']:.4f} +{summary['fvu_token']:.4f}")
        training = [line for line in lines if "fvu" in line]
        self.assertTrue(any(line["fvu"] < 0.7 * line["fvu_typical"] for line in training), "of the batches that have such a row")

        # Latents that do nothing: 10,240 rows are too few for dead ones, and held-out rows say which are silent.
        self.assertEqual({line["dead"] for line in training}, {None})
        self.assertEqual((summary["dead"], summary["dead_rows"], summary["silent"]), (None, 1000000, held_out["eval_silent"]))
        self.assertIn("dead ones not measurable before 1000000 rows", trainer.stdout)
        status = harness.read_json(self.path("out", "status.json"))
        self.assertEqual((status["dead"], status["silent"], status["collapse"]), (None, summary["silent"], None))
        self.assertEqual(status["fvu_typical"], training[-1]["fvu_typical"])

        # The share of clipped steps.
        self.train([*TRAINER, "--log-every", "1"], source, "every")
        every = [line for line in self.lines("every") if "clipped" in line]
        n = 0
        for i, line in enumerate(every):
            n += line["grad_norm"] + 1e-6 > MAX_NORM
            self.assertAlmostEqual(line["clipped"], n / (i + 1), places=7)
        self.assertEqual(summary["clipped"], n / STEPS)
        self.assertTrue(0.2 * STEPS < n < 0.8 * STEPS)
        self.assertNotIn("gradient clipped", trainer.stderr)

        # The same, whoever sends and whatever happens.
        for i in range(3):
            self.producer(source, self.endpoint("three"), f"p{i}")  # one may come too late, and wait for another run
        self.succeed(self.trainer(TRAINER, "three", self.endpoint("three")))
        self.assertEqual(self.lines("three"), lines)
        scale = ",".join(f"{x:.9g}" for x in cfg["run_scale"])
        self.train([*TRAINER, "--scale", scale], source, "given")
        self.assertEqual(self.lines("given"), lines)
        for step in harness.checkpoints(self.path("given"))[1:]:
            shutil.rmtree(self.path("given", "checkpoints", f"step_{step:010d}"))
        trainer, _ = self.train(["--resume"], source, "given")
        self.assertIn(f"step 80 of {STEPS}", trainer.stderr)
        self.assertEqual(self.lines("given"), lines)
        after = harness.summary(self.path("given"))
        for key in "fvu", "fvu_typical", "fvu_token", "dead", "silent", "clipped", "collapse":
            self.assertEqual(after[key], summary[key], key)

    def test_ordinary_rows(self):
        """Nothing to warn of: all rows are typical, and both figures are one. What can be measured is."""
        trainer, _ = self.train([*TRAINER, "--center", "--dead-rows", "500", "--l1-coeff", "3", "--max-grad-norm", "1e9"], self.rows(long=1))
        self.assertNotIn("largest norm", trainer.stderr)
        self.assertNotIn("collapsed", trainer.stderr)
        self.assertNotIn("clipped", trainer.stderr)
        for line in self.lines():
            before = "eval_" if "eval_fvu" in line else ""
            self.assertEqual(line[before + "fvu"], line[before + "fvu_typical"])
        lines, summary = [line for line in self.lines() if "dead" in line], harness.summary(self.path("out"))
        self.assertEqual([line["dead"] is None for line in lines], [line["rows"] < 500 for line in lines])
        self.assertEqual(summary["dead"], lines[-1]["dead"])
        self.assertEqual(summary["clipped"], 0)
        self.assertIn(f"{summary['dead']} dead\n", trainer.stdout)

    def test_collapse(self):
        self.source = self.rows(long=1)
        trainer = self.ends(0, "the run has collapsed: .*likely cause: --lr 10", *COLLAPSE)
        self.assertEqual(trainer.stderr.count("has collapsed"), 1)
        self.assertEqual(trainer.stderr.count("steps had their gradient clipped to --max-grad-norm 0.01"), 1)
        summary, status = harness.summary(self.path("out")), harness.read_json(self.path("out", "status.json"))
        self.assertTrue(summary["l0"] == 0 or summary["fvu"] > 1)
        self.assertIn(f"at step {STEPS}", summary["collapse"])
        self.assertEqual(status["collapse"], summary["collapse"])
        self.assertIn("collapsed: ", trainer.stdout)

        # It ends with status 1 when that is asked for, has saved, and does not go on but on demand.
        self.ends(1, "error: the run has collapsed: .* at step 40", *COLLAPSE, "--fail-on-collapse", "--save-every", "1000", out="failed")
        self.assertEqual(harness.checkpoints(self.path("failed")), [40])
        status = harness.read_json(self.path("failed", "status.json"))
        self.assertEqual(status["phase"], "failed")
        self.assertIn("at step 40", status["collapse"])
        self.ends(1, r"step_0000000040: the run has collapsed: .* at step 40.*--fail-on-collapse=false", "--resume", *COLLAPSE, out="failed")
        self.ends(0, "held-out", "--resume", *COLLAPSE, "--fail-on-collapse=false", out="failed")
        self.assertEqual(self.lines("failed"), self.lines())

        # At the last step the results are written all the same.
        self.ends(1, f"error: the run has collapsed: .* at step {STEPS}", *COLLAPSE, "--fail-on-collapse", "--eval-every", "1000", out="last")
        self.assertIn(f"at step {STEPS}", harness.summary(self.path("last"))["collapse"])
        self.assertTrue(os.path.exists(self.path("last", "crosscoder.safetensors")))


if __name__ == "__main__":
    harness.main()
