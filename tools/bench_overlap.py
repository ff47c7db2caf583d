#!/usr/bin/env python3
"""How long each side waits for the other: actgen and xctrain as two processes on one core each.

    tools/bench_overlap.py --build build [--cores 0 1]

Two sources (synthetic rows; a GPT-2-small-shaped model with random weights, made once by bench), each with a small crosscoder, so
that the trainer is the faster side, and with a large one, so that the producer is. In each run the slower side should never
wait: its share is what the wire, the window and the leases cost. Measured after the first window, when both are at work: the
trainer's from metrics.jsonl, the producer's from status.json. The faster side waits for the slower one; its share is printed,
too.
"""
import argparse
import json
import os
import subprocess
import sys
import tempfile
import time

# source, its options, and a small and a large d_sae
CASES = [
    ("synthetic", ["--source", "synthetic", "--d-model", "768", "--n-sites", "6", "--latents", "4096", "--active", "128"], 256, 4096),
    ("GPT-2", None, 256, 8192),
]


def make_model(a, folder):
    """A random GPT-2 small (bench forward leaves it there) and tokens."""
    model, tokens = os.path.join(folder, "gpt2"), os.path.join(folder, "tokens.npy")
    subprocess.run([f"{a.build}/bench", "forward", "--model", model, "--reps", "1", "--sequences", "1", "--json"], check=True,
                   stdout=subprocess.DEVNULL)
    n_seq, seq_len = 512, 512
    header = f"{{'descr': '<u2', 'fortran_order': False, 'shape': ({n_seq}, {seq_len}), }}"
    header += " " * (-(len(header) + 11) % 64) + "\n"
    with open(tokens, "wb") as f:
        f.write(b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode())
        f.write(b"".join((i * 7919 % 50257).to_bytes(2, "little") for i in range(n_seq * seq_len)))
    return ["--model", model, "--tokens", tokens, "--sites", "blocks.[2-4].hook_resid_post"]


def read_status(out):
    try:
        with open(os.path.join(out, "status.json")) as f:
            return json.load(f)
    except (OSError, ValueError):
        return None


def run(a, folder, options, d_sae):
    """Shares of the time that trainer and producer waited once the first window was full."""
    out = tempfile.mkdtemp(dir=folder)
    endpoint = f"ipc://{out}/socket"
    environment = dict(os.environ, OMP_WAIT_POLICY="passive")
    producer = subprocess.Popen(["taskset", "-c", str(a.cores[0]), f"{a.build}/actgen", "--connect", endpoint, "--threads", "1",
                                 *options], env=environment, stderr=subprocess.DEVNULL)
    trainer = subprocess.Popen(
        ["taskset", "-c", str(a.cores[1]), f"{a.build}/xctrain", "--listen", endpoint, "--threads", "1", "--out", f"{out}/run",
         "--dict-size", str(d_sae), "--num-tokens", "1e8", "--batch-size", "512", "--buffer-mult", "16",
         "--model-batch-size", "2" if "--model" in options else "16", "--log-every", "4", "--eval-blocks", "0",
         "--save-every", "1000000", "--scale-rows", "2048", "--l1-coeff", "5", "--lr", "1e-3"],
        env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    waiting = []
    deadline = time.monotonic() + a.seconds
    while trainer.poll() is None:
        time.sleep(1)
        status = read_status(f"{out}/run")
        if status and status["step"] > 8 and status["producers"]:
            share = status["producers"][0]["waiting"]
            if share is not None:
                waiting.append(share)
        if time.monotonic() > deadline:
            trainer.terminate()
            trainer.wait()
    producer.wait()
    with open(f"{out}/run/metrics.jsonl") as f:
        lines = [json.loads(line) for line in f]
    late = [line for line in lines if "waiting" in line and line["step"] > 8]
    if not late or not waiting:
        sys.exit(f"{options}: no step after the first window within {a.seconds} s")
    elapsed = [1 / line["rows_per_s"] for line in late]
    trained = sum(line["waiting"] * t for line, t in zip(late, elapsed)) / sum(elapsed)
    return trained, sum(waiting) / len(waiting), len(late) * 4 * 512 / (sum(elapsed) * 4 * 512)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", required=True, help="folder of actgen, xctrain and bench")
    parser.add_argument("--cores", type=int, nargs=2, default=[0, 1], help="the producer's and the trainer's")
    parser.add_argument("--seconds", type=float, default=30, help="of each run")
    a = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        for name, options, small, large in CASES:
            options = options or make_model(a, folder)
            for d_sae in (small, large):
                trainer, producer, rate = run(a, folder, options, d_sae)
                slower = "trainer" if producer > trainer else "producer"
                print(f"{name}, d_sae {d_sae}: {rate:.0f} rows/s, the {slower} is the slower side and waits "
                      f"{100 * min(trainer, producer):.1f} % of its time; the other {100 * max(trainer, producer):.1f} %",
                      flush=True)


if __name__ == "__main__":
    main()
