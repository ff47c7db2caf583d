#!/usr/bin/env python3
"""The step that tools/bench times, in PyTorch on the same cores, weights and batch; prints the ratio.

    tools/bench_torch.py --bench build/bench --threads 2 -- --d-sae 16384 --l0 128

PyTorch's step: matrix products by autograd with one row a latent (the layout that suits its sgemm), gradients kept
between steps, clip_grad_norm_, and Adam in its fastest form (fused). The losses of both are compared, so both did the
same work. Medians of --reps; the two programs run one after the other: leave the cores to them.
"""
import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time


def torch_steps(path, n_sites, threads, reps, l1_coeff=2.0):
    import torch
    from safetensors.torch import load_file

    torch.set_num_threads(threads)
    data = load_file(path)
    x = data["x"]
    w_enc, w_dec, b_enc, b_dec = (torch.nn.Parameter(data[k]) for k in ("W_enc", "W_dec", "b_enc", "b_dec"))
    params = [w_enc, w_dec, b_enc, b_dec]
    adam = torch.optim.Adam(params, lr=1e-7, betas=(0.9, 0.999), fused=True)
    seconds = []
    for i in range(reps + 1):
        start = time.perf_counter()
        f = torch.relu(torch.nn.functional.linear(x, w_enc, b_enc))
        out = f @ w_dec + b_dec
        l2 = (out - x).square().sum(-1).mean()
        norms = w_dec.view(w_dec.shape[0], n_sites, -1).norm(dim=-1).sum(-1)
        loss = l2 + l1_coeff * (f * norms).sum(-1).mean()
        adam.zero_grad(set_to_none=False)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(params, 1.0)
        adam.step()
        if i:
            seconds.append(time.perf_counter() - start)
            continue
        # The first step is not timed but compared. Norm of the clipped gradients, in double: PyTorch's own, in float, is off
        # by half a percent at such sizes.
        clipped = sum(p.grad.double().square().sum().item() for p in params) ** 0.5
        norm = clipped / min(1.0, 1.0 / (norm.item() + 1e-6))
        result = {"loss": loss.item(), "grad_norm": norm, "l0": (f > 0).sum().item() / x.shape[0]}
    result["step_s"] = statistics.median(seconds)
    result["version"] = torch.__version__
    return result


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bench", required=True, help="the program built from tools/bench")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--reps", type=int, default=5)
    parser.add_argument("--sites", type=int, default=12)
    parser.add_argument("--tmp", default=None, help="folder for the weights and the batch")
    parser.add_argument("options", nargs="*", help="options of bench, after --")
    a = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=a.tmp) as folder:
        path = os.path.join(folder, "step.safetensors")
        command = [a.bench, "--threads", str(a.threads), "--reps", str(a.reps), "--sites", str(a.sites), "--json",
                   "--write", path, *a.options]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
        if done.returncode:
            sys.exit(done.returncode)
        ours = json.loads(done.stdout)
        theirs = torch_steps(path, a.sites, a.threads, a.reps)
    for name in ("loss", "grad_norm", "l0"):
        if abs(ours[name] / theirs[name] - 1) > 1e-3:
            sys.exit(f"not the same step: {name} {ours[name]} here, {theirs[name]} in PyTorch")
    print(f"crossfeed {ours['step_s']:.3f} s a step ({ours['path']}, L0 {ours['l0']:.1f}), "
          f"PyTorch {theirs['version']} {theirs['step_s']:.3f} s: {theirs['step_s'] / ours['step_s']:.2f} times, "
          f"{a.threads} threads")


if __name__ == "__main__":
    main()
