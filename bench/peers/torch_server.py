#!/usr/bin/env python3
"""PyTorch's side of the benchmark: the same training step and matrix products, run on request.

Reads one JSON request a line from standard input and answers each with one JSON text, led by the
record separator character, on standard output (see bench/driver/protocol.ts). Needs torch only.
The model is written as a PyTorch user would: F.linear, F.rms_norm, fused attention, F.cross_entropy.
"""

import json
import os
import re
import sys
import time

import torch
import torch.nn.functional as F
from torch.profiler import ProfilerActivity, profile
from torch.utils.checkpoint import checkpoint

LAYER_WEIGHTS = (
    "input_layernorm",
    "self_attn.q_proj",
    "self_attn.k_proj",
    "self_attn.v_proj",
    "self_attn.o_proj",
    "post_attention_layernorm",
    "mlp.gate_proj",
    "mlp.up_proj",
    "mlp.down_proj",
)


class Training:
    """A model, its optimizer, one fixed batch, and a step for every variant of execution."""

    def __init__(self, config, materials, fused_optimizer):
        self.config = config
        self.fused_optimizer = fused_optimizer
        self.stored = stored_weights(materials)
        self.params = {name: torch.nn.Parameter(w.clone()) for name, w in self.stored.items()}
        batch, seq = config["batch"], config["sequence"]
        tokens = torch.from_file(
            materials["tokensFile"], shared=False, size=batch * (seq + 1), dtype=torch.int32
        ).reshape(batch, seq + 1)
        self.inputs = tokens[:, :-1].to(torch.int64).contiguous()
        self.targets = tokens[:, 1:].to(torch.int64).contiguous()
        self.cos, self.sin = rope_tables(seq, config["headDim"], config["ropeTheta"])
        self.losses = {}
        self.reset()

    def reset(self):
        """Back to the stored weights, with an optimizer that has seen no step."""
        with torch.no_grad():
            for name, parameter in self.params.items():
                parameter.copy_(self.stored[name])
                parameter.grad = None
        self.optimizer = torch.optim.AdamW(
            self.params.values(),
            lr=1e-3,
            betas=(0.9, 0.999),
            eps=1e-8,
            weight_decay=0.01,
            fused=True if self.fused_optimizer else None,
        )

    def step(self, variant):
        """One step; gradients are freed at its end, so that all a step allocates is its own."""
        loss = self.loss_function(variant)()
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return loss.item()

    def loss_function(self, variant):
        key = (variant["compiled"], variant["checkpointing"])
        if key not in self.losses:
            function = self.make_loss(checkpointed=variant["checkpointing"] == "full")
            self.losses[key] = torch.compile(function) if variant["compiled"] else function
        return self.losses[key]

    def make_loss(self, checkpointed):
        weights = self.params
        config = self.config
        count = config["layers"]
        eps = config["normEps"]
        layers = [
            [weights[f"model.layers.{i}.{name}.weight"] for name in LAYER_WEIGHTS]
            for i in range(count)
        ]
        embedding = weights["model.embed_tokens.weight"]
        head = embedding if config["tied"] else weights["lm_head.weight"]
        last_norm = weights["model.norm.weight"]

        def loss():
            hidden = F.embedding(self.inputs, embedding)
            for parts in layers:
                if checkpointed:
                    hidden = checkpoint(self.layer, hidden, *parts, use_reentrant=False)
                else:
                    hidden = self.layer(hidden, *parts)
            hidden = F.rms_norm(hidden, (config["hidden"],), last_norm, eps)
            logits = F.linear(hidden, head)
            return F.cross_entropy(logits.reshape(-1, config["vocab"]), self.targets.reshape(-1))

        return loss

    def layer(self, hidden, norm1, wq, wk, wv, wo, norm2, gate, up, down):
        config = self.config
        shape = (config["batch"], config["sequence"], -1, config["headDim"])
        x = F.rms_norm(hidden, (config["hidden"],), norm1, config["normEps"])
        q = self.rotate(F.linear(x, wq).view(shape).transpose(1, 2))
        k = self.rotate(F.linear(x, wk).view(shape).transpose(1, 2))
        v = F.linear(x, wv).view(shape).transpose(1, 2)
        grouped = config["kvHeads"] != config["heads"]
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=grouped)
        hidden = hidden + F.linear(mixed.transpose(1, 2).flatten(2), wo)
        x = F.rms_norm(hidden, (config["hidden"],), norm2, config["normEps"])
        return hidden + F.linear(F.silu(F.linear(x, gate)) * F.linear(x, up), down)

    def rotate(self, x):
        first, second = x.chunk(2, -1)
        return x * self.cos + torch.cat([-second, first], -1) * self.sin

    def step_memory(self, variant):
        """Peak, in bytes, of what one step allocates, from the profiler's memory events in time order."""
        with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as record:
            self.step(variant)
        events = [e for e in record.profiler.kineto_results.events() if e.name() == "[memory]"]
        held = highest = 0
        for event in sorted(events, key=lambda e: e.start_ns()):
            held += event.nbytes()
            highest = max(highest, held)
        return highest


def stored_weights(materials):
    total = materials["elements"]
    flat = torch.from_file(materials["weightsFile"], shared=False, size=total, dtype=torch.float32)
    tensors = {}
    for entry in materials["tensors"]:
        size = 1
        for dim in entry["shape"]:
            size *= dim
        start = entry["start"]
        tensors[entry["name"]] = flat[start : start + size].reshape(entry["shape"])
    return tensors


def rope_tables(seq, head_dim, theta):
    """Cosines and sines [seq, head_dim] for the half-rotating form of rotary positions."""
    pairs = torch.arange(0, head_dim, 2, dtype=torch.float64)
    angles = torch.arange(seq, dtype=torch.float64)[:, None] * theta ** (-pairs / head_dim)
    angles = torch.cat([angles, angles], -1)
    return angles.cos().float(), angles.sin().float()


def blas_name():
    """The BLAS that this build of torch was linked with, as its own description names it."""
    found = re.search(r"Math Kernel Library Version ([\d.]+)", torch.__config__.show())
    if found:
        return f"MKL {found.group(1)}"
    found = re.search(r"BLAS_INFO=(\w+)", torch.__config__.show())
    return found.group(1) if found else "BLAS of this build"


class Server:
    def __init__(self, out):
        self.out = out
        self.training = None

    def answer(self, value):
        self.out.write("\x1e" + json.dumps(value) + "\n")
        self.out.flush()

    def serve(self):
        for line in sys.stdin:
            request = json.loads(line)
            command = request["command"]
            if command == "quit":
                return
            try:
                self.answer({"ok": True, **getattr(self, command)(request)})
            except Exception as error:  # a failed variant is a row of the report, not the end
                text = f"{type(error).__name__}: {error}"
                self.answer({"ok": False, "error": text.strip().splitlines()[0][:300]})

    def facts(self, request):
        torch.set_num_threads(request["threads"])
        return {
            "name": "PyTorch",
            "version": torch.__version__,
            "python": ".".join(map(str, sys.version_info[:3])),
            "matmul": blas_name(),
            "vectors": torch.backends.cpu.get_cpu_capability(),
            "threads": str(torch.get_num_threads()),
        }

    def load(self, request):
        fused = request.get("fusedOptimizer", False)
        self.training = Training(request["config"], request["materials"], fused)
        return {"parameters": sum(p.numel() for p in self.training.params.values())}

    def start(self, request):
        began = time.perf_counter()
        self.training.reset()
        losses = [self.training.step(request["variant"])]
        first = time.perf_counter() - began
        losses += [self.training.step(request["variant"]) for _ in range(request["steps"] - 1)]
        return {"losses": losses, "firstStepSeconds": first}

    def steps(self, request):
        cpu = time.process_time()
        for _ in range(request["warm"]):
            self.training.step(request["variant"])
        ms = []
        for _ in range(request["steps"]):
            began = time.perf_counter()
            self.training.step(request["variant"])
            ms.append((time.perf_counter() - began) * 1e3)
        return {"ms": ms, "cpuSeconds": time.process_time() - cpu}

    def memory(self, request):
        return {"peakBytes": self.training.step_memory(request["variant"])}

    def matmul(self, request):
        torch.set_num_threads(request["threads"])
        n = request["size"]
        generator = torch.Generator().manual_seed(1)
        a, b = (torch.rand(n, n, generator=generator) - 0.5 for _ in range(2))
        left = a.t() if request["transposeA"] else a
        right = b.t() if request["transposeB"] else b
        out = torch.empty(n, n)
        cpu = time.process_time()
        for _ in range(request["warm"]):
            torch.mm(left, right, out=out)
        ms = []
        for _ in range(request["steps"]):
            began = time.perf_counter()
            torch.mm(left, right, out=out)
            ms.append((time.perf_counter() - began) * 1e3)
        return {"ms": ms, "cpuSeconds": time.process_time() - cpu}


if __name__ == "__main__":
    # Whatever else prints goes to standard error: standard output is for answers.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    Server(answers).serve()
