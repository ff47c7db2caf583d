#!/usr/bin/env python3
"""Goldens for the GPT-2 producer: activations at every hook point of every layer, by Hugging Face's GPT2Model in fp32.

    gpt2_reference.py --write            random checkpoints, their goldens and the demo models' goldens
    gpt2_reference.py --write demo       only the demo models' (after they were trained anew)
    gpt2_reference.py --check            recomputes all and compares with the files

Checkpoints (folders) and goldens (<name>.safetensors) lie in tests/data/gpt2. A golden holds tokens [n_seq, seq_len] and
positions [n_pos] (i32) and, for each hook point, fp32 [n_seq, n_pos, d_model] under its TransformerLens name; where the
model has been centred (see center), under "centered:" and that name; of the random checkpoints also logits [n_seq, n_pos, vocab].
Needs torch, transformers, safetensors and numpy.
"""
import argparse
import json
import pathlib
import shutil
import sys

import numpy as np
import torch
import transformers
from safetensors.torch import load_file, save_file
from transformers import GPT2Config, GPT2Model

ROOT = pathlib.Path(__file__).resolve().parents[2]
DATA = ROOT / "tests/data/gpt2"
DEMO = ROOT / "tools/demo"

# name: configuration, stored dtype, options of the container. Each covers what a loader or a forward pass can get wrong.
RANDOM = {
    "odd_heads": (dict(vocab_size=211, n_positions=40, n_embd=96, n_layer=5, n_head=3), torch.bfloat16, {}),
    "sharded": (dict(vocab_size=130, n_positions=37, n_embd=48, n_layer=3, n_head=4, n_inner=100,
                     activation_function="gelu", layer_norm_epsilon=1e-6), torch.float16, {"prefix": True, "shards": 3}),
    "unscaled": (dict(vocab_size=64, n_positions=24, n_embd=32, n_layer=3, n_head=2, activation_function="relu",
                      scale_attn_weights=False, scale_attn_by_inverse_layer_idx=True), torch.float32,
                 {"prefix": True, "buffers": True}),
}
SEQ_LEN = {"odd_heads": 37, "sharded": 37, "unscaled": 19}


def random_weights(c, generator):
    """Nothing at its usual start: biases and layer norms are random too, and weights large enough to matter."""
    def normal(*shape, mean=0.0, std=0.2):
        return mean + std * torch.randn(*shape, generator=generator)

    d, inner = c.n_embd, c.n_inner or 4 * c.n_embd
    w = {"wte.weight": normal(c.vocab_size, d), "wpe.weight": normal(c.n_positions, d)}
    for i in range(c.n_layer):
        h = f"h.{i}."
        for name, n_in, n_out in (("attn.c_attn", d, 3 * d), ("attn.c_proj", d, d), ("mlp.c_fc", d, inner),
                                  ("mlp.c_proj", inner, d)):
            w[h + name + ".weight"] = normal(n_in, n_out)
            w[h + name + ".bias"] = normal(n_out)
        for name in ("ln_1", "ln_2"):
            w[h + name + ".weight"] = normal(d, mean=1.0)
            w[h + name + ".bias"] = normal(d)
    w["ln_f.weight"], w["ln_f.bias"] = normal(d, mean=1.0), normal(d)
    return w


def write_checkpoint(name):
    config, dtype, options = RANDOM[name]
    c = GPT2Config(bos_token_id=0, eos_token_id=0, **config)
    w = random_weights(c, torch.Generator().manual_seed(sum(name.encode())))
    if options.get("buffers"):  # as in OpenAI's own upload, and an untied head: all to be ignored
        for i in range(c.n_layer):
            w[f"h.{i}.attn.bias"] = torch.ones(c.n_positions, c.n_positions).tril()[None, None]
            w[f"h.{i}.attn.masked_bias"] = torch.tensor(-1e4)
    prefix = "transformer." if options.get("prefix") else ""
    w = {prefix + k: v.to(dtype).contiguous() for k, v in w.items()}
    if options.get("buffers"):
        w["lm_head.weight"] = torch.zeros(c.vocab_size, c.n_embd, dtype=dtype)

    folder = DATA / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    keep = ("n_inner", "activation_function", "layer_norm_epsilon", "scale_attn_weights", "scale_attn_by_inverse_layer_idx")
    keep = ({"model_type": "gpt2", "architectures": ["GPT2LMHeadModel"], "bos_token_id": 0, "eos_token_id": 0} | config |
            {k: getattr(c, k) for k in keep})
    (folder / "config.json").write_text(json.dumps(keep, indent=2) + "\n")
    n_shards = options.get("shards", 1)
    if n_shards == 1:
        save_file(w, folder / "model.safetensors", metadata={"format": "pt"})
        return
    index = {}
    for s in range(n_shards):
        file = f"model-{s + 1:05}-of-{n_shards:05}.safetensors"
        names = sorted(w)[s::n_shards]
        save_file({k: w[k] for k in names}, folder / file, metadata={"format": "pt"})
        index |= {k: file for k in names}
    total = sum(v.numel() * v.element_size() for v in w.values())
    (folder / "model.safetensors.index.json").write_text(
        json.dumps({"metadata": {"total_size": total}, "weight_map": dict(sorted(index.items()))}, indent=1) + "\n")


def center(model):
    """TransformerLens's center_writing_weights: what writes to the residual stream loses its mean over d_model."""
    with torch.no_grad():
        for p in [model.wte.weight, model.wpe.weight] + [
                p for h in model.h for m in (h.attn.c_proj, h.mlp.c_proj) for p in (m.weight, m.bias)]:
            p -= p.double().mean(-1, keepdim=True).float()


def activations(model, tokens):
    """{hook point: [n_seq, seq_len, d_model]} by hooks on the modules, checked against the model's own hidden states."""
    acts, handles = {}, []

    def first(x):
        return x[0] if isinstance(x, tuple) else x

    def before(name):
        return lambda module, args: acts.__setitem__(name, first(args).detach().clone())

    def after(name):
        return lambda module, args, out: acts.__setitem__(name, first(out).detach().clone())

    for i, h in enumerate(model.h):
        b = f"blocks.{i}.hook_"
        handles += [h.register_forward_pre_hook(before(b + "resid_pre")), h.attn.register_forward_hook(after(b + "attn_out")),
                    h.ln_2.register_forward_pre_hook(before(b + "resid_mid")),
                    h.mlp.register_forward_hook(after(b + "mlp_out")), h.register_forward_hook(after(b + "resid_post"))]
    with torch.no_grad():
        out = model(tokens.long(), output_hidden_states=True, use_cache=False)
        for i in range(len(model.h)):
            assert torch.equal(out.hidden_states[i], acts[f"blocks.{i}.hook_resid_pre"])
        last = acts[f"blocks.{len(model.h) - 1}.hook_resid_post"]
        assert torch.equal(out.hidden_states[-1], model.ln_f(last))  # HF's last hidden state is after ln_f, ours before
    for handle in handles:
        handle.remove()
    return acts


def logits(model, tokens):
    """[n_seq, seq_len, vocab] by GPT2LMHeadModel with its head tied, as the configurations say (transformers 5 by itself would
    take a lm_head.weight that lies in the file all the same)."""
    whole = transformers.GPT2LMHeadModel(model.config).eval()
    whole.transformer, whole.lm_head.weight = model, model.wte.weight
    with torch.no_grad():
        return whole(tokens.long(), use_cache=False).logits


def load(folder):
    model, info = GPT2Model.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager",
                                            output_loading_info=True)
    assert not info["missing_keys"] and not info["mismatched_keys"], info
    return model.eval()


def golden(folder, tokens, positions, centered_positions=None):
    out = {"tokens": tokens.int().contiguous(), "positions": torch.tensor(positions, dtype=torch.int32)}
    model = load(folder)
    out |= {k: v[:, positions].contiguous() for k, v in activations(model, tokens).items()}
    if centered_positions:
        out["logits"] = logits(model, tokens)[:, positions].contiguous()
        center(model)
        out["centered:positions"] = torch.tensor(centered_positions, dtype=torch.int32)
        out |= {"centered:" + k: v[:, centered_positions].contiguous() for k, v in activations(model, tokens).items()}
    return out


def goldens(which, write):
    """Yields (name, golden)."""
    if which in ("all", "random"):
        for name in RANDOM:
            if write:
                write_checkpoint(name)
            config, n = RANDOM[name][0], SEQ_LEN[name]
            tokens = torch.randint(config["vocab_size"], (2, n), generator=torch.Generator().manual_seed(1))
            positions = sorted({0, 1, 2, 3, 5, 8, 13, n - 6, n - 2, n - 1})
            yield name, golden(DATA / name, tokens, positions, [0, 1, 11, n - 1])
    if which in ("all", "demo"):
        tokens = torch.from_numpy(np.load(DEMO / "tokens.npy")[:2].astype(np.int64))
        n = tokens.shape[1]
        for name in ("base", "chat"):
            yield "demo_" + name, golden(DEMO / name, tokens, sorted({0, 1, 2, 7, n // 2, n - 1}))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    mode = parser.add_mutually_exclusive_group(required=True)
    mode.add_argument("--write", nargs="?", const="all", choices=["all", "random", "demo"])
    mode.add_argument("--check", nargs="?", const="all", choices=["all", "random", "demo"])
    args = parser.parse_args()
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    worst = 0.0
    for name, new in goldens(args.write or args.check, bool(args.write)):
        file = DATA / (name + ".safetensors")
        if args.write:
            save_file(new, file)
            print(f"{file.relative_to(ROOT)}: {len(new)} tensors, {file.stat().st_size} bytes")
            continue
        old = load_file(file)
        if old.keys() != new.keys() or not torch.equal(old["tokens"], new["tokens"]):
            sys.exit(f"{file}: other tensors or tokens than computed now; write it again")
        error = max(((old[k] - new[k]).double().norm() / new[k].double().norm()).item() for k in new
                    if "blocks." in k or k == "logits")
        worst = max(worst, error)
        print(f"{name}: largest relative difference {error:.2e}")
    if worst > 1e-5:
        sys.exit(f"largest relative difference {worst:.2e}, must be at most 1e-5")


if __name__ == "__main__":
    main()
