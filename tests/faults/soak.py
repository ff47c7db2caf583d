"""soak.py - training after training under the address sanitizer, with producers and trainers that come and go: nothing leaks.

For as long as asked, runs of the demo pair and of synthetic rows follow each other. Three producers behind proxies leave politely,
are killed, or lose their connections; the trainer is stopped and resumed, sometimes killed. Every program that ends by itself is
checked for leaks as it exits (the leak sanitizer's part of address sanitizer), every one for what the sanitizers say before.

  cmake -S . -B build-asan -G Ninja -DCROSSFEED_SANITIZE=address,undefined && cmake --build build-asan
  tests/faults/soak.py --build build-asan --minutes 60
"""
import argparse
import collections
import os
import random
import shutil
import signal
import sys
import tempfile

PARSER = argparse.ArgumentParser(description=__doc__.split("\n")[0])
PARSER.add_argument("--build", default=os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../build-asan"))
PARSER.add_argument("--minutes", type=float, default=60)
PARSER.add_argument("--seed", type=int, default=1)
PARSER.add_argument("--keys", action="store_true", help="trainer and producers with CURVE keys")
ARGS = PARSER.parse_args()
for variable, program in ("XCTRAIN", "xctrain"), ("ACTGEN", "actgen"), ("XCKEYS", "xckeys"):
    os.environ[variable] = os.path.abspath(os.path.join(ARGS.build, program))
os.environ["OMP_NUM_THREADS"] = "1"

import cluster  # noqa: E402
import harness  # noqa: E402
from proxy import TO_PRODUCER, TO_TRAINER  # noqa: E402

STUCK = 180  # seconds without progress
TRAINER = ["--threads", 1, "--batch-size", 128, "--buffer-mult", 32, "--dict-size", 256, "--lr", "1e-3", "--model-batch-size", 4,
           "--scale-rows", 1000, "--eval-blocks", 2, "--eval-every", 100, "--log-every", 1, "--save-every", 50, "--keep", 2,
           "--heartbeat-ms", 500, "--timeout-ms", 4000]
SOURCES = [  # rows, and where they come from
           (200000, ["--model", f"{harness.DEMO}/base", "--model", f"{harness.DEMO}/chat", "--tokens", f"{harness.DEMO}/tokens.npy", "--sites",
            "blocks.[024].hook_resid_post"]),
           (2000000, ["--source", "synthetic", "--d-model", 64, "--n-sites", 4, "--latents", 64, "--n-seq", 2048])]
KINDS = {"leave": 8, "kill-producer": 2, "stop-trainer": 3, "kill-trainer": 1, "cut": 2, "reset": 2, "truncate": 2, "flip": 4}


class Soak:
    def __init__(self):
        self.rng = random.Random(ARGS.seed)
        self.done = collections.Counter()
        self.seconds = 0.0
        self.checked = self.killed = self.resumed = self.runs = 0

    def disturb(self, c):
        kind = self.rng.choices(list(KINDS), KINDS.values())[0]
        slot = self.rng.choice(c.slots)
        way = self.rng.choice([TO_TRAINER, TO_PRODUCER])
        if kind in ("leave", "kill-producer"):
            c.end_producer(slot, signal.SIGTERM if kind == "leave" else signal.SIGKILL)
        elif kind in ("stop-trainer", "kill-trainer"):
            c.end_trainer(signal.SIGTERM if kind == "stop-trainer" else signal.SIGKILL)
        elif kind == "truncate":
            slot.way.truncate(way, self.rng.random())
        elif kind == "flip":
            slot.way.flip(way, [self.rng.random()])
        else:
            getattr(slot.way, kind)()
        self.done[kind] += 1
        c.later(self.rng.uniform(1, 4), self.disturb, c)

    def run(self, folder):
        """One training from its start to its end, or till time is up."""
        os.mkdir(folder)
        n_rows, source = SOURCES[self.runs % len(SOURCES)]
        c = cluster.Cluster(folder, [*TRAINER, "--num-tokens", n_rows], ["--threads", 1, *source], 3, self.rng.random(),
                            keys=ARGS.keys)
        reached, reached_at = 0, 0
        try:
            c.start_trainer()
            for slot in c.slots:
                c.start_producer(slot)
            c.later(2, self.disturb, c)
            while not c.tick() and self.seconds + c.now < 60 * ARGS.minutes:
                if c.step > reached:
                    reached, reached_at = c.step, c.now
                if c.now - reached_at > STUCK:
                    raise cluster.Failure(f"stuck at step {reached}:\n{c.trainer and c.trainer.stderr[-3000:]}")
            if c.trainer:
                c.stop_trainer()
            c.finish()
            if found := c.leaks():
                raise cluster.Failure("left behind: " + ", ".join(found))
        finally:
            self.runs += 1
            self.seconds += c.now
            self.checked += c.checked - c.killed
            self.killed += c.killed
            self.resumed += c.n_resumed
            c.kill_all()


def main():
    soak = Soak()
    folder = tempfile.mkdtemp(prefix="crossfeed-soak-")
    failed = False
    try:
        while soak.seconds < 60 * ARGS.minutes and not failed:
            soak.run(f"{folder}/{soak.runs}")
            shutil.rmtree(f"{folder}/{soak.runs - 1}")
            print(f"{soak.seconds / 60:5.1f} min: {soak.runs} trainings, {soak.resumed} resumes, {soak.checked} programs ended clean under the "
                  f"sanitizers, {soak.killed} killed; {dict(soak.done)}", flush=True)
    except (cluster.Failure, AssertionError) as e:
        print(f"seed {ARGS.seed}: FAILED: {e}")
        failed = True
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    print("FAILED" if failed else f"no leak and no finding in {soak.seconds / 60:.1f} minutes")
    return failed


if __name__ == "__main__":
    sys.exit(main())
