#!/usr/bin/env python3
"""What tools/bench times, in PyTorch on the same cores and weights; prints the ratio.

    tools/bench_torch.py --bench build/bench --threads 2 -- step --d-sae 16384 --l0 128
    tools/bench_torch.py --bench build/bench --threads 2 -- forward --sequences 8
    tools/bench_torch.py --bench build/bench --threads 2 --seed-config      # the reference's sizes, as far as memory allows

step: matrix products by autograd with one row a latent (the layout that suits its sgemm), gradients kept between steps,
clip_grad_norm_, and Adam in its fastest form (fused). forward: GPT-2 by torch.nn.functional (scaled_dot_product_attention,
causal), without gradients, in fp32 and under bf16 autocast. The results of both are compared, so both did the same work.
Medians of --reps; the two programs run one after the other: leave the cores to them.

--seed-config is a step of 12 sites of 768, d_sae 65536, batch 2048. PyTorch holds 16 bytes a parameter (parameters, gradients,
both moments) and the batch's activations several times over, ours 12 a parameter: where d_sae 65536 does not fit both ways,
the largest of 49152, 32768, ... that fits is compared, and said.
"""
import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time


def median_seconds(reps, run):
    """Of run(), which is not timed the first time."""
    seconds = []
    for i in range(reps + 1):
        start = time.perf_counter()
        run()
        if i:
            seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


def torch_step(path, n_sites, reps, l1_coeff=2.0):
    import torch
    from safetensors.torch import load_file

    data = load_file(path)
    x = data["x"]
    w_enc, w_dec, b_enc, b_dec = (torch.nn.Parameter(data[k]) for k in ("W_enc", "W_dec", "b_enc", "b_dec"))
    params = [w_enc, w_dec, b_enc, b_dec]
    adam = torch.optim.Adam(params, lr=1e-7, betas=(0.9, 0.999), fused=True)
    result = {}

    def step():
        f = torch.relu(torch.nn.functional.linear(x, w_enc, b_enc))
        out = f @ w_dec + b_dec
        l2 = (out - x).square().sum(-1).mean()
        norms = w_dec.view(w_dec.shape[0], n_sites, -1).norm(dim=-1).sum(-1)
        loss = l2 + l1_coeff * (f * norms).sum(-1).mean()
        adam.zero_grad(set_to_none=False)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(params, 1.0)
        adam.step()
        if not result:
            # The first step is not timed but compared. Norm of the clipped gradients, in double: PyTorch's own, in float, is
            # off by half a percent at such sizes.
            clipped = sum(p.grad.double().square().sum().item() for p in params) ** 0.5
            norm = clipped / min(1.0, 1.0 / (norm.item() + 1e-6))
            result.update(loss=loss.item(), grad_norm=norm, l0=(f > 0).sum().item() / x.shape[0])

    result["step_s"] = median_seconds(reps, step)
    return result


def torch_forward(folder, sequences, seq_len, reps):
    import torch
    import torch.nn.functional as F
    from safetensors.torch import load_file

    config = json.load(open(os.path.join(folder, "config.json")))
    weights = load_file(os.path.join(folder, "model.safetensors"))
    d, heads, layers = config["n_embd"], config["n_head"], config["n_layer"]
    # Linear's layout, [out, in], once: Conv1D's is [in, out].
    linear = {k: v.T.contiguous() for k, v in weights.items() if v.dim() == 2 and k.startswith("h.")}
    n = sequences * seq_len
    tokens = (torch.arange(n) * 7919 % config["vocab_size"]).view(sequences, seq_len)
    result = {}

    def layer(x, i):
        def apply(name, v):
            return F.linear(v, linear[f"h.{i}.{name}.weight"], weights[f"h.{i}.{name}.bias"])

        def norm(name, v):
            return F.layer_norm(v, (d,), weights[f"h.{i}.{name}.weight"], weights[f"h.{i}.{name}.bias"], 1e-5)

        qkv = apply("attn.c_attn", norm("ln_1", x)).view(sequences, seq_len, 3, heads, d // heads).permute(2, 0, 3, 1, 4)
        z = F.scaled_dot_product_attention(qkv[0], qkv[1], qkv[2], is_causal=True)
        x = x + apply("attn.c_proj", z.transpose(1, 2).reshape(sequences, seq_len, d))
        return x + apply("mlp.c_proj", F.gelu(apply("mlp.c_fc", norm("ln_2", x)), approximate="tanh"))

    def forward():
        x = weights["wte.weight"][tokens] + weights["wpe.weight"][:seq_len]
        for i in range(layers):
            x = layer(x, i)
        result["mean_square"] = x.float().square().double().mean().item()

    with torch.no_grad():
        with torch.autocast("cpu", dtype=torch.bfloat16):
            result["bf16_s"] = median_seconds(reps, forward)
        result["fp32_s"] = median_seconds(reps, forward)
    return result


def run_bench(a, extra):
    command = [a.bench, *a.options, "--threads", str(a.threads), "--reps", str(a.reps), "--json", *extra]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        sys.exit(done.returncode)
    return json.loads(done.stdout)


def same(ours, theirs, names, tolerance):
    for name in names:
        if abs(ours[name] / theirs[name] - 1) > tolerance:
            sys.exit(f"not the same work: {name} {ours[name]} here, {theirs[name]} in PyTorch")


def line(what, ours, theirs, a):
    import torch

    print(f"{what}: crossfeed {ours:.3f} s, PyTorch {torch.__version__} {theirs:.3f} s: {theirs / ours:.2f} times, "
          f"{a.threads} threads", flush=True)


def compare_step(a, folder):
    path = os.path.join(folder, "step.safetensors")
    ours = run_bench(a, ["--sites", str(a.sites), "--write", path])
    theirs = torch_step(path, a.sites, a.reps)
    same(ours, theirs, ("loss", "grad_norm", "l0"), 1e-3)
    line(f"a step ({ours['path']}, L0 {ours['l0']:.1f})", ours["step_s"], theirs["step_s"], a)


def compare_forward(a, folder):
    model = os.path.join(folder, "gpt2")
    ours = run_bench(a, ["--model", model, "--sequences", str(a.sequences), "--seq-len", str(a.seq_len)])
    theirs = torch_forward(model, a.sequences, a.seq_len, a.reps)
    same(ours, theirs, ("mean_square",), 1e-4)
    line(f"GPT-2 forward, {a.sequences} x {a.seq_len} tokens, fp32", ours["fp32_s"], theirs["fp32_s"], a)
    if "bf16_s" in ours:
        line("the same in bf16", ours["bf16_s"], theirs["bf16_s"], a)


def compare_seed_config(a, folder):
    """d_sae 65536 of 9216 inputs is 1.2e9 parameters: PyTorch needs 19 GB for them and some 4 GB for a batch."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for d_sae in (65536, 49152, 32768, 24576, 16384):
        # f, its gradient and the products of the loss: four [batch, d_sae]; x and the output's: six [batch, 9216]
        if 16 * 2 * 9216 * d_sae + 4 * 2048 * (4 * d_sae + 6 * 9216) < 0.85 * memory:
            break
    if d_sae < 65536:
        print(f"d_sae 65536 does not fit into {memory / 1e9:.0f} GB in PyTorch; compared at {d_sae}")
    a.options, a.sites = ["step", "--d-sae", str(d_sae), "--batch", "2048", "--l0", "128"], 12
    compare_step(a, folder)
    if d_sae < 65536:
        a.options = ["step", "--d-sae", "65536", "--batch", "2048", "--l0", "128", "--recompute"]
        ours = run_bench(a, [])
        print(f"d_sae 65536: crossfeed alone {ours['step_s']:.3f} s a step ({ours['path']}, L0 {ours['l0']:.1f})")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bench", required=True, help="the program built from tools/bench")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--reps", type=int, default=5)
    parser.add_argument("--sites", type=int, default=12)
    parser.add_argument("--sequences", type=int, default=8)
    parser.add_argument("--seq-len", type=int, default=1024)
    parser.add_argument("--tmp", default=None, help="folder for the weights and the batch")
    parser.add_argument("--seed-config", action="store_true", help="a step at the reference's own sizes")
    parser.add_argument("options", nargs="*", help="step or forward, and more options of bench, after --")
    a = parser.parse_args()
    import torch

    torch.set_num_threads(a.threads)
    with tempfile.TemporaryDirectory(dir=a.tmp) as folder:
        if a.seed_config:
            compare_seed_config(a, folder)
        elif "forward" in a.options:
            compare_forward(a, folder)
        else:
            a.options = a.options if "step" in a.options else ["step", *a.options]
            compare_step(a, folder)


if __name__ == "__main__":
    main()
