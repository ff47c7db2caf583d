#!/usr/bin/env python3
"""How a step's cost grows: a table over d_sae, L0 and batch, one varied at a time, from tools/bench.

    tools/bench_table.py --bench build/bench --threads 2 [--reps 5] [--n-inputs 9216 --sites 12]

Beside each time stands the sgemm of the encoder's shape, measured in the same run: the encoder grows with batch x d_sae, the
rest with batch x L0 and (Adam, reading the weights) with d_sae. `per entry` is the rest's time for one active entry.
"""
import argparse
import json
import os
import subprocess
import sys

DEFAULT = {"d-sae": 16384, "l0": 128, "batch": 2048}
VARIED = {"d-sae": [4096, 8192, 16384, 32768, 65536], "l0": [32, 64, 128, 256, 512], "batch": [512, 1024, 2048, 4096]}


def measure(a, shape):
    command = [a.bench, "step", "--json", "--recompute", "--threads", str(a.threads), "--reps", str(a.reps),
               "--n-inputs", str(a.n_inputs), "--sites", str(a.sites)]
    for name, value in shape.items():
        command += [f"--{name}", str(value)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        sys.exit(done.returncode)
    return json.loads(done.stdout)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bench", required=True)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--reps", type=int, default=5)
    parser.add_argument("--n-inputs", type=int, default=9216)
    parser.add_argument("--sites", type=int, default=12)
    parser.add_argument("--vary", choices=list(VARIED), nargs="*", default=list(VARIED))
    a = parser.parse_args()
    print(f"{a.n_inputs} inputs ({a.sites} sites), {a.threads} threads, medians of {a.reps}; else {DEFAULT}\n")
    print("| varied | L0 | path | step, s | sgemm, s | encoder / sgemm | the rest, s | rest per entry, us | rows/s |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    for name in a.vary:
        for value in VARIED[name]:
            shape = dict(DEFAULT, **{name: value})
            r = measure(a, shape)
            rest = r["step_s"] - r["encode_s"]
            print(f"| {name} {value} | {r['l0']:.0f} | {r['path']} | {r['step_s']:.3f} | {r['sgemm_s']:.3f} | "
                  f"{r['encode_s'] / r['sgemm_s']:.2f} | {rest:.3f} | {1e6 * rest / (r['l0'] * shape['batch']):.2f} | "
                  f"{shape['batch'] / r['step_s']:.0f} |", flush=True)


if __name__ == "__main__":
    main()
