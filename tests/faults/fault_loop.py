"""fault_loop.py - one run of the demo under N random faults comes out as the undisturbed one, bit for bit, and leaves nothing behind.

Four producers, each behind a TCP proxy (proxy.py), serve one trainer that trains on the bundled base/chat pair for several
epochs. Faults come by progress, in bursts, from a seed: kill -9 of producers and of the trainer (resumed; half of them while
it is saving; and before it resumes, a file of its newest checkpoint is damaged), SIGSTOP of either, connections cut and reset, and bytes delayed, stalled, truncated and with bits flipped, both
ways. A second run without any says what must come out: crosscoder.safetensors, the last checkpoint's state and the provenance
are the same, every row was trained exactly once an epoch, and no process, file or temporary is left. With --keys the run
under fire has CURVE keys: a flipped bit then ends the connection, or its handshake, instead of being found in a message.

  tests/faults/fault_loop.py                                 # 1,000 faults: about half an hour on two cores
  tests/faults/fault_loop.py --faults 20 --max-pause 2       # as the ordinary tests do, and some with --keys
"""
import argparse
import collections
import os
import random
import shutil
import signal
import struct
import sys
import tempfile
import time

import cluster
import corruption
import harness
from proxy import TO_PRODUCER, TO_TRAINER

BATCH, BLOCK, HELD_OUT, SAVE_EVERY = 128, 4, 2, 20
TRAINER = ["--threads", 1, "--batch-size", BATCH, "--buffer-mult", 32, "--dict-size", 256, "--lr", "1e-3", "--model-batch-size",
           BLOCK, "--scale-rows", 1000, "--eval-blocks", HELD_OUT, "--eval-every", 500, "--log-every", 1, "--save-every", SAVE_EVERY,
           "--keep", 2, "--heartbeat-ms", 200, "--timeout-ms", 1500]
STUCK = 120  # seconds without progress, with nobody paused, that are taken for a hang
MAX_FDS = 64

# Weights of the kinds, and how long the kinds that last do so.
KINDS = {"kill-producer": 14, "kill-trainer": 6, "corrupt-checkpoint": 4, "pause-producer": 10, "pause-trainer": 4, "reset": 11, "cut": 9, "stall": 8,
         "delay": 10, "truncate": 12, "flip": 16}


def write_tokens(path, n_seq):
    """The first sequences of the demo's tokens."""
    with open(f"{harness.DEMO}/tokens.npy", "rb") as f:
        data = f.read()
    begin = 10 + struct.unpack("<H", data[8:10])[0]
    seq_len = int(data[10:begin].split(b"(")[1].split(b")")[0].split(b",")[1])
    tokens = struct.unpack(f"<{n_seq * seq_len}H", data[begin:begin + 2 * n_seq * seq_len])
    harness.write_npy(path, [tokens[i:i + seq_len] for i in range(0, len(tokens), seq_len)])


class Faults:
    """The faults to come, and how many of each kind have been."""

    def __init__(self, c, args):
        self.c, self.rng, self.max_pause = c, random.Random(args.seed), args.max_pause
        kinds = args.kinds.split(",")
        self.plan = kinds[:args.faults]  # each kind at least once
        self.plan += self.rng.choices(kinds, [KINDS[k] for k in kinds], k=args.faults - len(self.plan))
        self.rng.shuffle(self.plan)
        self.done = collections.Counter()
        self.damaged = set()  # inodes of the checkpoints that were; they are set aside when the trainer resumes
        self.n = 0

    def pause(self):
        """Mostly short; one in ten may be long."""
        longest = self.max_pause if self.rng.random() < 0.1 else min(self.max_pause, 3)
        return self.rng.uniform(min(1, longest / 2), longest)

    def possible(self):
        """Whether there is whom the next fault could hit."""
        kind = self.plan[self.n]
        if kind == "corrupt-checkpoint" and len(self.sound_steps()) < 2:
            return False
        if kind.endswith(("-trainer", "-checkpoint")):
            return self.c.trainer and self.c.trainer.running() and not self.c.trainer_paused
        return self.slots_for(kind)

    def folder(self, step):
        return corruption.step_folder(self.c.out, step)

    def sound_steps(self):
        return [s for s in harness.checkpoints(self.c.out) if os.stat(self.folder(s)).st_ino not in self.damaged]

    def corrupt(self):
        """Kills the trainer and damages its newest checkpoint, if there is another one to go on from."""
        self.c.end_trainer(signal.SIGKILL)
        steps = self.sound_steps()
        if len(steps) > 1:
            self.damaged.add(os.stat(self.folder(steps[-1])).st_ino)
            corruption.damage(self.rng, self.c.out, steps[-1])

    def slots_for(self, kind):
        if kind.endswith("-producer"):
            return [s for s in self.c.slots if s.program and s.program.running() and not s.paused]
        return self.c.slots

    def one(self):
        kind = self.plan[self.n]
        slot = self.rng.choice(self.slots_for(kind) or self.c.slots)
        way = self.rng.choice([TO_TRAINER, TO_TRAINER, TO_PRODUCER])
        if kind == "kill-producer":
            self.c.end_producer(slot, signal.SIGKILL)
        elif kind == "kill-trainer":
            if self.rng.random() < 0.5:
                self.await_saving()
            self.c.end_trainer(signal.SIGKILL)
        elif kind == "corrupt-checkpoint":
            self.corrupt()
        elif kind == "pause-producer":
            self.c.pause_producer(slot, self.pause())
        elif kind == "pause-trainer":
            self.c.pause_trainer(self.pause())
        elif kind == "reset":
            slot.way.reset()
        elif kind == "cut":
            slot.way.cut()
        elif kind == "stall":
            slot.way.stall(self.pause())
        elif kind == "delay":
            slot.way.delay(self.rng.uniform(0.01, 0.3), self.rng.uniform(0.5, 3))
        elif kind == "truncate":
            slot.way.truncate(way, self.rng.random())
        elif kind == "flip":
            shares = [self.rng.random() for _ in range(self.rng.choice([1, 1, 1, 2, 8]))]
            if self.rng.random() < 0.6:  # wherever it hits: mostly in activations
                slot.way.flip(way, shares)
            else:  # in the beginning of a new connection: greeting, handshake, HELLO, WELCOME, the first leases
                slot.way.cut()
                slot.way.flip(way, shares, pass_before=self.rng.randrange(4))
        self.done[kind] += 1
        self.n += 1

    def await_saving(self):
        """Until the trainer writes a checkpoint, for a while."""
        end = time.monotonic() + 2
        while time.monotonic() < end and not os.path.exists(f"{self.c.out}/checkpoints/tmp"):
            time.sleep(0.0005)
        time.sleep(self.rng.uniform(0, 0.01))


def tail(said):
    return "\n".join(said.splitlines()[-20:])


def disturb(c, faults, n_faults, steps):
    """Runs the cluster to its end with all the faults on the way."""
    reached, reached_at, most_fds, line = 0, 0, collections.Counter(), 0
    burst_end = 0
    while not c.tick():
        for program, name in [(c.trainer, "xctrain"), *[(s.program, "actgen") for s in c.slots]]:
            if program and c.rng.random() < 0.02:
                most_fds[name] = max(most_fds[name], cluster.fds(program))
        if c.step > reached or c.trainer_paused:
            reached, reached_at = max(reached, c.step), c.now
        if c.now - reached_at > STUCK:
            raise cluster.Failure(f"stuck at step {reached} for {STUCK} s: the trainer says\n{c.trainer and tail(c.trainer.stderr)}")
        if c.now - line > 10:
            line = c.now
            print(f"{c.now:6.0f} s  step {c.step} of {steps}  {faults.n} faults  {c.n_resumed} resumes", flush=True)
        if faults.n < n_faults and reached >= burst_end and faults.possible():
            for _ in range(faults.rng.choice([1, 1, 2, 3, 5])):
                if faults.n < n_faults and faults.possible():
                    faults.one()
            burst_end = 5 + int(0.94 * steps * faults.n / n_faults)
            if faults.n == n_faults:
                for slot in c.slots:
                    slot.way.calm()
    if faults.n < n_faults:
        raise cluster.Failure(f"the run was over after {faults.n} of {n_faults} faults")
    return most_fds


def check_epochs(path, rows_expected, epoch_rows):
    """Every row exactly once an epoch: the epochs are permutations of each other, the last may be a part."""
    rows = harness.provenance(path)
    problems = [] if len(rows) == rows_expected else [f"provenance has {len(rows)} rows, {rows_expected} were to be trained"]
    first = None
    for i in range(0, len(rows), epoch_rows):
        epoch = rows[i:i + epoch_rows]
        seen = set(epoch)
        first = first or seen
        if len(seen) != len(epoch) or not seen <= first:
            problems.append(f"epoch {i // epoch_rows}: {len(epoch) - len(seen)} rows twice, {len(seen - first)} not of the first epoch")
    return problems


def results(out, provenance, steps):
    return {"crosscoder.safetensors": harness.sha256(f"{out}/crosscoder.safetensors"),
            "state.safetensors": harness.sha256(f"{out}/checkpoints/step_{steps:010d}/state.safetensors"),
            "provenance": harness.sha256(provenance)}


def undisturbed(folder, trainer_args, producer_args, steps):
    """One producer, no proxy, no fault."""
    c = cluster.Cluster(folder, [*trainer_args, "--provenance", f"{folder}/provenance"], producer_args, 1, 0, proxied=False)
    try:
        c.start_trainer()
        c.start_producer(c.slots[0])
        while not c.tick():
            pass
        c.finish()
        return results(c.out, f"{folder}/provenance", steps)
    finally:
        c.kill_all()


def check(c, expected, provenance, steps, most_fds):
    problems = c.leaks()
    ledger = harness.summary(c.out)["ledger"]
    rows = steps * BATCH
    for key in "rows_expected", "rows_trained":
        if ledger[key] != rows:
            problems.append(f"ledger: {key} is {ledger[key]}, must be {rows}")
    if ledger["rows_masked"]:
        problems.append(f"ledger: {ledger['rows_masked']} rows masked")
    problems += check_epochs(provenance, rows, ledger["epoch_rows"])
    for name, value in results(c.out, provenance, steps).items():
        if value != expected[name]:
            problems.append(f"{name} differs from the undisturbed run's")
    problems += [f"{name} had {n} descriptors open" for name, n in most_fds.items() if n > MAX_FDS]
    return problems, rows / ledger["epoch_rows"]


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0],
                                     epilog="The programs: XCTRAIN, ACTGEN, XCKEYS, or build/.")
    parser.add_argument("--faults", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--kinds", default=",".join(KINDS), help="comma-separated, of %(default)s")
    parser.add_argument("--producers", type=int, default=4)
    parser.add_argument("--max-pause", type=float, default=30, help="seconds of the longest SIGSTOP")
    parser.add_argument("--steps-per-fault", type=float, default=25)
    parser.add_argument("--keys", action="store_true", help="trainer and producers with CURVE keys")
    parser.add_argument("--keep", action="store_true", help="keep the folder when it fails")
    args = parser.parse_args()
    if unknown := set(args.kinds.split(",")) - set(KINDS):
        parser.error(f"no kind {', '.join(unknown)}; there are {', '.join(KINDS)}")
    steps = int(args.steps_per_fault * args.faults)
    folder = tempfile.mkdtemp(prefix="crossfeed-faults-")
    c, failed = None, True
    try:
        write_tokens(f"{folder}/tokens.npy", 512 if args.faults < 200 else 5120)
        trainer_args = [*TRAINER, "--num-tokens", steps * BATCH]
        producer_args = ["--threads", "1", "--model", f"{harness.DEMO}/base", "--model", f"{harness.DEMO}/chat", "--tokens",
                         f"{folder}/tokens.npy", "--sites", "blocks.[024].hook_resid_post"]
        os.mkdir(f"{folder}/quiet")
        began = time.monotonic()
        expected = undisturbed(f"{folder}/quiet", trainer_args, producer_args, steps)
        quiet_s = time.monotonic() - began
        os.mkdir(f"{folder}/loud")
        provenance = f"{folder}/loud/provenance"
        c = cluster.Cluster(f"{folder}/loud", [*trainer_args, "--provenance", provenance], producer_args, args.producers,
                            args.seed, keys=args.keys)
        faults = Faults(c, args)
        c.start_trainer()
        for slot in c.slots:
            c.start_producer(slot)
        began = time.monotonic()
        most_fds = disturb(c, faults, args.faults, steps)
        loud_s = time.monotonic() - began
        c.finish()
        problems, epochs = check(c, expected, provenance, steps, most_fds)
        print(f"seed {args.seed}: {faults.n} faults in {loud_s:.0f} s (undisturbed {quiet_s:.0f} s), {steps} steps, {epochs:.1f} epochs; trainer "
              f"resumed {c.n_resumed} times and started anew {c.n_from_start} times; {sum(s.way.connections for s in c.slots)} "
              f"connections, {sum(s.way.bytes for s in c.slots) / 1e6:.0f} MB; at most {dict(most_fds)} descriptors")
        for kind, n in faults.done.most_common():
            print(f"  {n:5}  {kind}")
        print(f"  {sum(len(a) for s in c.slots for a in s.way.armed):5}  of them (truncate, flip) met no bytes before the end")
        print("producers ended:")
        for why, n in c.ends.most_common():
            print(f"  {n:5}  {why}")
        print("\n".join(problems) or "bit-identical to the undisturbed run; ledger exact; nothing left behind")
        failed = bool(problems)
    except (cluster.Failure, AssertionError) as e:
        print(f"seed {args.seed}: FAILED: {e}")
    finally:
        if c:
            c.kill_all()
        if failed and args.keep:
            print("kept:", folder)
        else:
            shutil.rmtree(folder, ignore_errors=True)
    return failed


if __name__ == "__main__":
    sys.exit(main())
