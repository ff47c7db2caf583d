"""test_measure.py - what is measured over the first rows beside the scale: the mean, the initial b_dec; and tied initial decoders.

On the demo pair, with --center and --b-dec-init geometric-median: the weights, the last state, the held-out losses and the
provenance are bit-identical from one producer, from three, from a trainer killed with -9 and resumed, and when the scale that
the run would have measured is given (then the first blocks come scaled and not raw). A model against itself whose decoders
start tied keeps them equal to the bit for 1,000 steps.
"""
import struct

import harness

STEPS, BATCH, SAVE_EVERY = 120, 64, 20
TRAINER = ["--batch-size", BATCH, "--num-tokens", STEPS * BATCH, "--buffer-mult", 16, "--dict-size", 96, "--lr", "1e-3", "--model-batch-size", 2,
           "--scale-rows", 700, "--eval-blocks", 2, "--eval-every", 40, "--log-every", 5, "--save-every", SAVE_EVERY]
MEASURED = ["--center", "--b-dec-init", "geometric-median"]
PRODUCER = harness.DEMO_SOURCE + ["--sites", "blocks.[024].hook_resid_post"]


class Measure(harness.ProgramTest):
    expected = None  # result of one producer

    def run_of(self, *flags, out="out", n_producers=1):
        trainer = self.trainer([*map(str, TRAINER), *flags], out)
        return trainer, [self.producer(PRODUCER, name=f"producer{i}") for i in range(n_producers)]

    def tensor(self, name, out="out"):
        header, data = harness.read_safetensors(self.path(out, "crosscoder.safetensors"))
        t = header[name]
        first, end = t["data_offsets"]
        return t["shape"], struct.unpack(f"<{(end - first) // 4}f", data[first:end])

    def result(self, out="out"):
        losses = [[line[key] for key in ("step", "loss", "grad_norm")] for line in harness.metrics(self.path(out)) if "loss" in line]
        held_out = [[line[key] for key in ("step", "eval_loss", "eval_fvu")] for line in harness.metrics(self.path(out)) if "eval_loss" in line]
        return {"crosscoder": harness.sha256(self.path(out, "crosscoder.safetensors")),
                "state": harness.sha256(self.path(out, "checkpoints", f"step_{STEPS:010d}", "state.safetensors")),
                "losses": losses, "held out": held_out}

    def check(self, out="out"):
        if Measure.expected is None:
            trainer, producers = self.run_of(*MEASURED, out="one")
            self.succeed(trainer, *producers)
            self.assertIn("geometric median", trainer.stderr)
            Measure.expected = self.result("one")
        self.assertEqual(self.result(out), Measure.expected)

    def refused(self, *flags, said, producer=PRODUCER):
        trainer, producer = self.trainer([*map(str, TRAINER), *flags], "refused"), self.producer(producer)
        self.assertEqual(trainer.wait(), 1)
        self.assertIn(said, trainer.stderr)
        producer.kill()  # where the trainer refused before it listened, it would wait

    def test_three_producers(self):
        trainer, producers = self.run_of(*MEASURED, n_producers=3)
        self.succeed(trainer, *producers)
        shape, mean = self.tensor("mean")
        self.assertEqual(len(mean), shape[0] * shape[1])
        self.assertGreater(max(map(abs, mean)), 0.1)
        _, bias = self.tensor("b_dec")
        self.assertEqual(len(bias), len(mean))
        self.check()

    def test_killed_and_resumed(self):
        trainer, producers = self.run_of(*MEASURED)
        self.until_step(STEPS // 3, trainer, *producers)
        trainer.kill()
        self.assertLess(harness.last_step(self.path("out")), STEPS)
        again = self.trainer(["--resume"])
        self.succeed(again, *producers)
        self.check()

    def test_given_scale(self):
        trainer, producers = self.run_of(*MEASURED, out="measured")
        self.succeed(trainer, *producers)
        scale = ",".join(f"{x:.9g}" for x in self.tensor("scale", "measured")[1])
        trainer, producers = self.run_of(*MEASURED, "--scale", scale)
        self.succeed(trainer, *producers)
        self.check("measured")
        self.check()

    def test_off(self):
        """Runs that measure nothing else have the tensors that they always had, and another mode of scale is another scale."""
        trainer, producers = self.run_of()
        self.succeed(trainer, *producers)
        names = harness.read_safetensors(self.path("out", "crosscoder.safetensors"))[0].keys() - {"__metadata__"}
        self.assertEqual(names, {"W_enc", "W_dec", "b_enc", "b_dec", "scale"})
        trainer, producers = self.run_of("--scale-mode", "total-std", "--scale-target", "3", out="std")
        self.succeed(trainer, *producers)
        _, norm = self.tensor("scale")
        _, std = self.tensor("scale", "std")
        self.assertEqual(len(std), 6)
        for a, b in zip(norm, std):  # mean norm sqrt(d_model), standard deviation 3: within what a mean can make of it
            self.assertGreater(b, 3 * a / 16)
            self.assertNotEqual(a, b)
        self.check_init()

    def check_init(self):
        """Weights to start from must be of centred rows exactly if the run's are."""
        path = self.path("out", "crosscoder.safetensors")
        self.refused("--init", path, "--center", said="the run has center true")

    def test_refused(self):
        self.refused("--scale", "1,1,1,1,1,1", "--scale-mode", "total-std", said="scale_mode total-std")
        self.refused("--scale", "1,1,1,1,1,1", "--scale-target", "2", said="scale_target 2")

    def test_one_model_is_not_tied(self):
        self.refused("--init-tied-models", said="init_tied_models: ",
                     producer=["--model", f"{harness.DEMO}/base", "--tokens", f"{harness.DEMO}/tokens.npy", "--sites", "blocks.[024].hook_resid_post"])

    def test_model_against_itself(self):
        source = ["--model", f"{harness.DEMO}/base", "--model", f"{harness.DEMO}/base", "--tokens", f"{harness.DEMO}/tokens.npy",
                  "--sites", "blocks.[24].hook_resid_post"]
        flags = ["--batch-size", "32", "--num-tokens", str(1000 * 32), "--buffer-mult", "64", "--dict-size", "64", "--lr", "1e-3",
                 "--dec-init-norm", "0.1", "--eval-blocks", "1", "--init-tied-models", *MEASURED]
        for name, objective in [("relu", ["--l1-coeff", "0.5"]), ("batchtopk", ["--activation", "batchtopk", "--k", "8", "--dead-rows", "2000"])]:
            self.train(flags + objective, source, out=name)
            (d_sae, n_sites, d_model), w = self.tensor("W_dec", name)
            half = n_sites // 2 * d_model
            for j in range(d_sae):
                latent = w[j * 2 * half:(j + 1) * 2 * half]
                self.assertEqual(latent[:half], latent[half:], f"{name}: latent {j}")
            self.assertLess(harness.summary(self.path(name))["fvu"], 0.9)
            self.assertEqual(harness.summary(self.path(name))["steps"], 1000)

    def test_jumprelu_begins_with_the_rows(self):
        """b_enc is such that a latent fires in 10000 / d_sae of the rows: of 20,000 latents half are active in the first batch."""
        flags = ["--activation", "jumprelu", "--batch-size", "64", "--num-tokens", "64", "--buffer-mult", "32", "--dict-size", "20000",
                 "--model-batch-size", "2", "--scale-rows", "700", "--eval-blocks", "1", "--log-every", "1", "--center"]
        self.train(flags, PRODUCER)
        self.assertAlmostEqual(harness.metrics(self.path("out"))[0]["l0"], 10000, delta=700)


if __name__ == "__main__":
    harness.main()
