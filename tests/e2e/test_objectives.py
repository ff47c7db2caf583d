"""test_objectives.py - every activation on the demo pair: it learns, its run is the same bits from three producers and killed and
resumed, and what it takes to encode single rows is in its files.

The undisturbed run of each has one producer and one thread; the disturbed one three producers and two threads, and its trainer is killed
with -9 in the middle and resumed. Dead latents, AuxK, annealing and the threshold are active at that place.
"""
import os

import harness

STEPS, BATCH, SAVE_EVERY, KILL_AT = 120, 128, 20, 50
TRAINER = ["--batch-size", BATCH, "--num-tokens", STEPS * BATCH, "--buffer-mult", 32, "--dict-size", 512, "--lr", "1e-3",
           "--model-batch-size", 4, "--scale-rows", 1000, "--eval-blocks", 2, "--eval-every", 40, "--log-every", 5,
           "--save-every", SAVE_EVERY, "--heartbeat-ms", 200, "--timeout-ms", 2000, "--dead-rows", 2000]
PRODUCER = harness.DEMO_SOURCE + ["--sites", "blocks.[04].hook_resid_post"]
K = ["--k", 12, "--k-start", 30, "--k-anneal-steps", 70, "--threshold-start", 30, "--threshold-beta", 0.8]


class Objectives(harness.ProgramTest):
    def trainer(self, out, flags, *more):
        return super().trainer([*map(str, TRAINER + flags), *more], out=out)

    def files(self, out):
        return {name: harness.sha256(self.path(out, name)) for name in
                ("crosscoder.safetensors", f"checkpoints/step_{STEPS:010d}/state.safetensors")}

    def lines(self, out, key):
        return [line for line in harness.metrics(self.path(out)) if key in line]

    def check(self, *flags):
        flags = list(flags)
        self.succeed(self.trainer("once", [*flags, "--threads", "1"]), self.producer(PRODUCER, name="only"))
        trainer = self.trainer("disturbed", [*flags, "--threads", "2"])
        producers = [self.producer(PRODUCER, name=f"producer{i}") for i in range(3)]
        self.until(lambda: harness.last_step(self.path("disturbed")) >= KILL_AT, "training", trainer, *producers)
        trainer.kill()
        self.assertLess(harness.last_step(self.path("disturbed")), STEPS)
        self.succeed(self.trainer("disturbed", flags, "--resume"), *producers)
        self.assertEqual(self.files("once"), self.files("disturbed"))
        losses = [[{key: value for key, value in line.items() if key not in ("rows_per_s", "waiting")}
                   for line in harness.metrics(self.path(out))] for out in ("once", "disturbed")]
        self.assertEqual(*losses)
        steps = self.lines("once", "loss")
        self.assertLess(self.lines("once", "eval_fvu")[-1]["eval_fvu"], 0.6 * steps[0]["fvu"], "it did not learn")
        self.assertEqual(len(steps[-1]["model_share"]), 2)
        return steps, harness.read_safetensors(self.path("once", "crosscoder.safetensors"))[0]

    def test_batchtopk(self):
        steps, header = self.check("--activation", "batchtopk", "--reconstruction", "norm", "--aux-k", 20, *K)
        self.assertEqual([line["k"] for line in steps[-5:]], [12] * 5)
        self.assertEqual([line["l0"] for line in steps], [line["k"] for line in steps])
        self.assertIsNone(steps[4]["threshold"])  # step 25
        self.assertGreater(steps[-1]["threshold"], 0)
        self.assertGreater(max(line["dead"] or 0 for line in steps), 0)
        self.assertGreater(max(line["aux"] for line in steps), 0)
        last = self.lines("once", "eval_fvu")[-1]
        self.assertGreater(last["eval_threshold_l0"], 0)
        self.assertLess(last["eval_threshold_fvu"], 1)
        self.assertAlmostEqual(harness.summary(self.path("once"))["threshold_l0"], last["eval_threshold_l0"], 5)
        self.assertEqual(header["threshold"]["shape"], [1])
        self.assertEqual(header["__metadata__"], header["__metadata__"] | {
            "activation": "batchtopk", "score": "norm-sum", "reconstruction": "norm"})

    def test_finished_run_resumed(self):
        """Where summary.json was lost, it is evaluated again: by the k of its last step and not by the one that it started from."""
        flags = ["--activation", "batchtopk", *K]
        said = []
        for more in ([], ["--resume"]):
            self.succeed(self.trainer("run", flags, *more), self.producer(PRODUCER, name="only"))
            summary = harness.summary(self.path("run"))
            said.append([summary[name] for name in ("l0", "fvu", "fvu_token", "threshold_l0", "threshold_fvu")])
            os.remove(self.path("run", "summary.json"))
        self.assertEqual(*said)
        self.assertEqual(len(self.lines("run", "eval_fvu")), STEPS // 40)

    def test_topk(self):
        steps, header = self.check("--activation", "topk", *K)
        self.assertLessEqual(max(line["l0"] - line["k"] for line in steps), 0)
        self.assertEqual(header["__metadata__"]["score"], "none")

    def test_jumprelu(self):
        steps, header = self.check("--activation", "jumprelu", "--l0-coeff", 1, "--ste-to-input")
        self.assertGreater(steps[-1]["tanh_coeff"], steps[0]["tanh_coeff"])
        self.assertEqual(header["log_threshold"]["shape"], [512])

    def test_relu_resampled(self):
        steps, header = self.check("--l1-coeff", 4, "--l1-norm", "l2-of-norms", "--resample-steps", "45,90")
        self.assertNotIn("threshold", header)
        self.assertNotIn("activation", header.get("__metadata__", {}))

    def test_partition(self):
        self.check("--activation", "batchtopk", "--shared-latents", 60, "--exclusive-latents", "50,40", *K)
        header, data = harness.read_safetensors(self.path("once", "crosscoder.safetensors"))
        begin = header["W_dec"]["data_offsets"][0]  # [512, 4, d_model]: two sites of model 0, then two of model 1
        site = 4 * header["W_dec"]["shape"][2]
        for latent in range(512):
            row = data[begin + 4 * site * latent:begin + 4 * site * (latent + 1)]
            first, second = row[:2 * site], row[2 * site:]
            self.assertEqual(first == second, latent < 60, latent)
            self.assertEqual(not any(second), 512 - 90 <= latent < 512 - 40, latent)
            self.assertEqual(not any(first), latent >= 512 - 40, latent)

    def test_refused(self):
        for flags, status, words in ((["--activation", "batchtopk", "--l1-coeff", 2], 1, ("l1_coeff", "batchtopk")),
                                     (["--activation", "topk", "--k", 513], 1, ("513", "512")),
                                     (["--activation", "topk", "--k", 0], 2, ("k", "0")),
                                     (["--activation", "gelu"], 2, ("gelu", "batchtopk"))):
            trainer = self.trainer("refused" + words[0], flags)
            producer = self.producer(PRODUCER)
            self.assertEqual(trainer.wait(30), status, trainer.stderr)
            for word in words:
                self.assertIn(word, trainer.stderr)
            producer.kill()
        one_model = ["--model", f"{harness.DEMO}/base", "--tokens", f"{harness.DEMO}/tokens.npy", *PRODUCER[-2:]]
        trainer, producer = self.trainer("one", ["--shared-latents", 5]), self.producer(one_model)
        self.assertEqual(trainer.wait(30), 1, trainer.stderr)
        self.assertIn("shared_latents", trainer.stderr)
        producer.kill()

    def test_another_activation_resumed(self):
        self.succeed(self.trainer("run", ["--activation", "topk", "--num-tokens", 20 * BATCH]), self.producer(PRODUCER))
        again = self.trainer("run", ["--activation", "batchtopk"], "--resume")
        self.assertEqual(again.wait(30), 1, again.stderr)
        self.assertRegex(again.stderr, "activation is .*batchtopk.* has .*topk")


if __name__ == "__main__":
    harness.main()
