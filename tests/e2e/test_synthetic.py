"""test_synthetic.py - training recovers a planted dictionary.

Rows are sparse combinations of 256 planted latents over 4 sites of d_model 64 (a fifth live on one site only, a fifth on half
of the sites). With three different seeds, each planting another dictionary, at least 90 % of the latents must have a learned
latent with cosine above 0.9 over the stacked vector, as the run's last table and summary.json say. The figure is worked out
again here from crosscoder.safetensors and the truth file, by kind; of the untrained weights it must be near 0. Of two models, the
latents that are in one alone must be told from those that are in both.
"""
import math
import operator
import re
import struct

import harness

TRAINER = ["--batch-size", "128", "--buffer-mult", "128", "--dict-size", "512", "--num-tokens", "2e5", "--lr", "3e-3",
           "--l1-coeff", "0.5", "--dec-init-norm", "0.1", "--model-batch-size", "8", "--eval-blocks", "2",
           "--log-every", "100"]
TWO_MODELS = ["--source", "synthetic", "--d-model", "64", "--n-sites", "2", "--n-models", "2", "--latents", "128", "--active", "4",
              "--local", "0", "--exclusive", "0.6", "--aligned", "--rate-spread", "10"]
BATCHTOPK = ["--activation", "batchtopk", "--k", "4", "--k-start", "32", "--k-anneal-steps", "1000", "--threshold-start", "300",
             "--dict-size", "256", "--batch-size", "256", "--buffer-mult", "32", "--model-batch-size", "8", "--num-tokens", "6e5",
             "--lr", "3e-3", "--dec-init-norm", "0.1", "--dead-rows", "3e4", "--eval-blocks", "2"]
KINDS = ["shared", "local", "exclusive"]


def vectors(header, data, name, scale=None):
    """The tensor [n, n_sites, d_model] as n unit vectors, each site multiplied by its scale before."""
    n, n_sites, d_model = header[name]["shape"]
    begin, end = header[name]["data_offsets"]
    values = struct.unpack(f"<{n * n_sites * d_model}f", data[begin:end])
    width, result = n_sites * d_model, []
    for i in range(n):
        v = values[i * width:(i + 1) * width]
        if scale:
            v = [x * scale[j // d_model] for j, x in enumerate(v)]
        norm = math.sqrt(sum(x * x for x in v))
        result.append([x / norm if norm else 0.0 for x in v])
    return result


class Synthetic(harness.ProgramTest):
    def run_seed(self, seed, *more):
        truth = self.path("truth.safetensors")
        trainer, _ = self.train([*TRAINER, "--seed", str(seed), "--truth", truth, *more],
                                ["--source", "synthetic", "--d-model", "64", "--n-sites", "4", "--latents", "256",
                                 "--seed", str(seed), "--truth", truth])
        summary = harness.summary(self.path("out"))
        header, data = harness.read_safetensors(truth)
        weights = harness.read_safetensors(self.path("out", "crosscoder.safetensors"))
        begin, end = weights[0]["scale"]["data_offsets"]
        scale = struct.unpack("<4f", weights[1][begin:end])
        begin, end = header["kind"]["data_offsets"]
        kinds = struct.unpack("<256i", data[begin:end])

        learned = vectors(*weights, "W_dec")
        self.assertEqual((len(learned), len(learned[0])), (512, 256))
        best = [max(sum(map(operator.mul, p, w)) for w in learned) for p in vectors(header, data, "directions", scale)]
        found = [sum(c > 0.9 for c, k in zip(best, kinds) if k == kind) for kind in range(3)]
        fraction = sum(found) / 256
        self.assertAlmostEqual(summary["recovered"], fraction, delta=1.5 / 256)  # one may lie on the threshold
        line = re.search(r"planted latents recovered .*: ([0-9.]+) %.*", trainer.stdout)
        self.assertAlmostEqual(float(line.group(1)), 100 * summary["recovered"], delta=0.06)
        for kind, name in enumerate(KINDS):
            n, of = map(int, re.search(rf"(\d+) of (\d+) {name}", line.group(0)).groups())
            self.assertEqual(of, kinds.count(kind))
            self.assertAlmostEqual(n, found[kind], delta=1)
            self.assertGreaterEqual(of, 50, f"few {name} latents are planted")
        print(f"{100 * fraction:.1f} % {[f'{name} {n}' for name, n in zip(KINDS, found)]} ", end="", flush=True)
        return summary["recovered"], summary

    def check(self, seed):
        recovered, summary = self.run_seed(seed)
        self.assertGreaterEqual(recovered, 0.9)
        self.assertLess(summary["l0"], 32, "not sparse: 8 latents are active in a row")

    def test_seed_1(self):
        self.check(1)

    def test_seed_2(self):
        self.check(2)

    def test_seed_3(self):
        self.check(3)

    def test_exclusive(self):
        """BatchTopK tells which latents are in one model alone (tools/bench/README.md has other recipes and seeds)."""
        truth = self.path("truth.safetensors")
        trainer, _ = self.train([*BATCHTOPK, "--seed", "1", "--truth", truth], [*TWO_MODELS, "--seed", "1", "--truth", truth])
        summary = harness.summary(self.path("out"))
        recovery, exclusive = summary["recovery"], summary["recovery"]["exclusive"]
        self.assertGreaterEqual(summary["recovered"], 0.9)
        self.assertGreaterEqual(exclusive["precision"], 0.9)
        self.assertGreaterEqual(exclusive["recall"], 0.9)
        self.assertEqual(exclusive["planted"], 77)
        self.assertLess(recovery["spurious"] + recovery["duplicates"], 20)
        self.assertEqual(recovery["planted_l0"], 4)
        self.assertIn(f"of {recovery['live']} live latents {recovery['spurious']} match no planted one", trainer.stdout)
        self.assertIn(f"{exclusive['called']} live latents are called so, {exclusive['called_rightly']} rightly", trainer.stdout)

    def test_untrained(self):
        recovered, _ = self.run_seed(1, "--num-tokens", "128", "--lr", "0")
        self.assertLess(recovered, 0.01)


if __name__ == "__main__":
    harness.main()
