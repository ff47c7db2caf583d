"""churn.py - 16 producers join and leave at random, and the trainer's memory stays flat.

Synthetic rows; each producer stays for a few seconds, then leaves politely (SIGTERM) or dies (kill -9), and another one comes.
Time counts from the first step with all producers there. The trainer's resident memory at the end must be within 2 % of that
at one tenth of the time, and so must be the number of its descriptors, but for the connections of who is there.

  tests/faults/churn.py --seconds 600         # the long form: some 4,000 joins
  tests/faults/churn.py --seconds 20          # as the ordinary tests do
  tests/faults/churn.py --keys                # with CURVE keys
"""
import argparse
import os
import random
import shutil
import signal
import sys
import tempfile

import cluster
import harness

N, WITHIN = 16, 0.02
D_MODEL, N_SITES, SEQ_LEN, BLOCK, BATCH, WINDOW_BATCHES = 256, 8, 64, 2, 256, 128  # rows of 4 KB, blocks of half a MB, window of 134 MB
TRAINER = ["--threads", 1, "--batch-size", BATCH, "--buffer-mult", WINDOW_BATCHES, "--dict-size", 128, "--num-tokens", "1e9",
           "--model-batch-size", BLOCK, "--scale-rows", 1000, "--eval-blocks", 2, "--eval-every", 100000, "--log-every", 1,
           "--save-every", 100000, "--heartbeat-ms", 200, "--timeout-ms", 3000]
PRODUCER = ["--threads", 1, "--source", "synthetic", "--d-model", D_MODEL, "--n-sites", N_SITES, "--latents", 64, "--seq-len",
            SEQ_LEN, "--n-seq", 8192]


class Churn:
    def __init__(self, c, seed):
        self.c, self.rng = c, random.Random(seed)
        self.n_polite = self.n_killed = 0
        for slot in c.slots:
            self.next(slot)

    def next(self, slot):
        self.c.later(self.rng.uniform(0.5, 4), self.leave, slot)

    def leave(self, slot):
        if slot.program:
            polite = self.rng.random() < 0.5
            self.c.end_producer(slot, signal.SIGTERM if polite else signal.SIGKILL)
            self.n_polite += polite
            self.n_killed += not polite
        self.next(slot)


def run(c, args):
    """(memory, descriptors) at one tenth of the time and at the end, the most of them on the way, and the steps."""
    c.start_trainer()
    for slot in c.slots:
        c.start_producer(slot)
    while c.step == 0 or c.trainer.stderr.count(" joins") < N:
        if c.tick() or c.now > 120:
            raise cluster.Failure(f"no start:\n{c.trainer and c.trainer.stderr}")
    churn, begin, early, most = Churn(c, args.seed), c.now, None, 0
    line = begin
    while c.now < begin + args.seconds:
        c.tick()
        if not early and c.now >= begin + args.seconds / 10:
            early = cluster.rss(c.trainer), cluster.fds(c.trainer)
        most = max(most, cluster.rss(c.trainer))
        if c.now - line >= 10:
            line = c.now
            print(f"{c.now - begin:6.0f} s  step {c.step}  {churn.n_polite} left, {churn.n_killed} killed  "
                  f"{cluster.rss(c.trainer) / 1e6:.2f} MB, {cluster.fds(c.trainer)} descriptors", flush=True)
    late = cluster.rss(c.trainer), cluster.fds(c.trainer)
    joins = harness.read_json(os.path.join(c.out, "status.json"))["ledger"]["producers_seen"]  # the log does not name each of them
    c.stop_trainer()
    c.finish()
    print(f"{args.seconds:.0f} s, {c.step} steps, {joins} joins: {churn.n_polite} left politely, {churn.n_killed} were killed; resident memory "
          f"{early[0] / 1e6:.2f} MB at one tenth, {late[0] / 1e6:.2f} MB at the end ({100 * (late[0] / early[0] - 1):+.2f} %), at most "
          f"{most / 1e6:.2f} MB; descriptors {early[1]} and {late[1]}")
    return early, late


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--keys", action="store_true", help="trainer and producers with CURVE keys")
    args = parser.parse_args()
    folder = tempfile.mkdtemp(prefix="crossfeed-churn-")
    c, problems = None, []
    try:
        c = cluster.Cluster(folder, TRAINER, PRODUCER, N, args.seed, proxied=False, keys=args.keys)
        early, late = run(c, args)
        if not harness.SANITIZED and abs(late[0] / early[0] - 1) > WITHIN:
            problems.append(f"the trainer's memory changed by more than {100 * WITHIN:.0f} %")
        if abs(late[1] - early[1]) > N:
            problems.append("the number of its descriptors changed by more than the producers' connections")
        problems += c.leaks()
    except (cluster.Failure, AssertionError) as e:
        problems.append(f"FAILED: {e}")
    finally:
        if c:
            c.kill_all()
        shutil.rmtree(folder, ignore_errors=True)
    for line in problems:
        print(line)
    return bool(problems)


if __name__ == "__main__":
    sys.exit(main())
