"""test_memory.py - the trainer's peak memory is at most what the budget said before anything was allocated, and not far below.

Synthetic rows in configurations in which different things dominate: nothing (10 MB), parameters, window, the rows to be measured, the planted
truth; with one producer and with eight. The window is filled and refilled, checkpoints are written. The peak is the kernel's (wait4's ru_maxrss
of the trainer), the budget is the line that the trainer prints at start; it must be the sum of its parts, parameters and window must be the
sizes worked out here, and summary.json must have the same figures. A run killed and resumed keeps to the same budget: reading the
checkpoint does not add to it.

The long form has runs of 100 MB to 2 GB, each with one producer and with eight, in nine minutes on two busy cores:
    LONG=1 XCTRAIN=build/xctrain ACTGEN=build/actgen tests/e2e/test_memory.py Long
"""
import os
import re
import unittest

import harness

LONG = os.environ.get("LONG")
D_MODEL, N_SITES, BATCH, BLOCK_ROWS = 1024, 8, 128, 128
PYTHON = 50e6  # more than this process had when it forked: below that, the kernel's figure may be its own


@unittest.skipIf(harness.SANITIZED, "a sanitizer's memory is its own")
class MemoryTest(harness.ProgramTest):
    def run_case(self, dict_size, window_batches, steps, dtype="bf16", d_model=D_MODEL, n_sites=N_SITES, producers=1, killed=False, scale_rows=256,
                 flags=(), source=(), truth=False, least=0.85):
        """least: the share of the budget that the peak must have, of what does not depend on how many producers there are."""
        arguments = ["--batch-size", BATCH, "--buffer-mult", window_batches, "--dict-size", dict_size, "--dtype", dtype,
                     "--num-tokens", steps * BATCH, "--model-batch-size", 2, "--eval-blocks", 1, "--scale-rows", scale_rows,
                     "--log-every", 1, "--save-every", steps // 2, "--keep", 1, *flags]
        n_blocks = 4 * window_batches * BATCH // BLOCK_ROWS + 1  # an epoch of four full windows, and the held-out block
        source = ["--source", "synthetic", "--d-model", d_model, "--n-sites", n_sites, "--latents", 64, "--seq-len", BLOCK_ROWS // 2, "--n-seq",
                  2 * n_blocks, *source]
        if truth:
            arguments += ["--truth", self.path("truth")]
            self.start(harness.ACTGEN, [*map(str, source), "--truth", self.path("truth"), "--connect", self.endpoint("nobody")], "planter")
            self.until(lambda: os.path.exists(self.path("truth")), "the truth")
        arguments = [str(a) for a in arguments]
        trainer = self.trainer(arguments)
        started = [self.producer(list(map(str, source)), name=f"p{i}") for i in range(producers)]
        if killed:
            self.until(lambda: harness.checkpoints(self.path("out")), "a checkpoint", trainer, *started)
            trainer.kill()
            self.assertLess(harness.last_step(self.path("out")), steps)
            trainer = self.trainer([*arguments, "--resume"])
        self.assertEqual(trainer.wait(1200 if LONG else harness.LIMIT), 0, trainer.stderr)

        total, parts = re.search(r"memory budget: ([0-9.]+) MB = (.*)", trainer.stderr).groups()
        budget = 1e6 * float(total)
        parts = {name: 1e6 * float(size) for size, name in re.findall(r"([0-9.]+) ([a-z -]+[a-z])", parts)}
        self.assertAlmostEqual(sum(parts.values()), budget, delta=0.06e6 * len(parts))
        n_inputs = n_sites * d_model
        n_parameters = 2 * dict_size * n_inputs + dict_size + n_inputs
        self.assertAlmostEqual(parts["parameters"], (16 if "relu" in self.activation(flags) else 12) * n_parameters, delta=0.06e6)
        row_bytes = n_inputs * (2 if dtype == "bf16" else 4)
        window = window_batches * BATCH * row_bytes
        lookahead = (4 + 2) * BLOCK_ROWS * row_bytes  # two for second answers
        measured = -(-scale_rows // BLOCK_ROWS) * BLOCK_ROWS * (4 * n_inputs + 12 + row_bytes + 4 * n_sites) + BLOCK_ROWS * row_bytes
        self.assertAlmostEqual(parts["window"], max(window + lookahead, measured), delta=0.06e6)
        block_bytes = BLOCK_ROWS * (row_bytes + 12)
        on_the_way = max(16 * block_bytes, min(8 * 64 * block_bytes, 32 << 20)) * 9 / 8
        self.assertAlmostEqual(parts["wire"], min(on_the_way, window + lookahead + parts["window index"]), delta=0.1e6)

        summary = harness.summary(self.path("out"))
        self.assertAlmostEqual(summary["budget"], budget, delta=0.06e6)
        peak = summary["peak_rss"]
        if peak > PYTHON:
            self.assertAlmostEqual(peak / trainer.peak_rss, 1, delta=0.01)
            peak = trainer.peak_rss
        self.assertGreater(summary["ledger"]["rows_this_session"], 1.5 * window / row_bytes, "the window was not refilled")
        sure = budget - parts["wire"]
        print(f"budget {budget / 1e6:.1f} MB ({parts['wire'] / 1e6:.1f} the wire), peak {peak / 1e6:.1f} MB ", end="", flush=True)
        self.assertLessEqual(peak, budget, trainer.stderr)
        self.assertGreater(peak, least * sure, trainer.stderr)

    @staticmethod
    def activation(flags):
        return flags[flags.index("--activation") + 1] if "--activation" in flags else "relu"


class Memory(MemoryTest):
    def test_nothing(self):
        """What is left is the program and its libraries."""
        self.run_case(dict_size=16, window_batches=8, steps=200, d_model=16, n_sites=1, least=0.7)

    def test_nothing_of_eight(self):
        self.run_case(dict_size=16, window_batches=8, steps=200, d_model=16, n_sites=1, producers=8, least=0.7)

    def test_both(self):
        self.run_case(dict_size=512, window_batches=40, steps=70, dtype="fp32")

    def test_window(self):
        self.run_case(dict_size=128, window_batches=120, steps=200, producers=8)

    def test_parameters(self):
        self.run_case(dict_size=1280, window_batches=5, steps=10)

    def test_raw(self):
        """The rows that the scale is measured over take more than the window does afterwards."""
        self.run_case(dict_size=128, window_batches=40, steps=70, scale_rows=40 * BATCH, least=0.75)

    def test_measured(self):
        """The rows that the median is computed over are freed before the window is full, or after: the peak is between."""
        self.run_case(dict_size=128, window_batches=120, steps=200, scale_rows=4096, least=0.6,
                      flags=["--center", "--b-dec-init", "geometric-median"])

    def test_truth(self):
        """What is recovered is measured with memory of its own."""
        self.run_case(dict_size=512, window_batches=20, steps=40, d_model=256, n_sites=4, truth=True, source=["--latents", 4096], least=0.7)

    def test_batchtopk(self):
        self.run_case(dict_size=2048, window_batches=20, steps=40, d_model=256, n_sites=4, producers=8, least=0.5,
                      flags=["--activation", "batchtopk", "--k", "32"])

    def test_resumed(self):
        self.run_case(dict_size=1280, window_batches=5, steps=40, killed=True)


@unittest.skipUnless(LONG, "LONG=1 runs it")
class Long(MemoryTest):
    def run_both(self, **sizes):
        for producers in 1, 8:
            self.run_case(**sizes, producers=producers)
            os.rename(self.path("out"), self.path(f"out{producers}"))

    def test_100_mb(self):
        self.run_both(dict_size=64, window_batches=20, steps=60, least=0.75)

    def test_300_mb(self):
        self.run_both(dict_size=512, window_batches=80, steps=160)

    def test_1_gb(self):
        self.run_both(dict_size=512, window_batches=400, steps=640)

    def test_2_gb_of_parameters(self):
        self.run_both(dict_size=7000, window_batches=8, steps=16)

    def test_2_gb_of_rows(self):
        self.run_both(dict_size=64, window_batches=900, steps=1500)


if __name__ == "__main__":
    harness.main()
