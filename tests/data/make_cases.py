#!/usr/bin/env python3
"""Makes tests/data/variants.json and the blocks of IQ4 types. Needs transformers, torch and gguf; run it from the repository.

variants.json: the models of models/ with other values in config.json, and the logits that transformers gives then after
these tokens, the three largest; or a word that the refusal says.
"""

import json
import os
import shutil
import sys
import tempfile

import gguf
import numpy as np
import torch
from transformers import AutoModelForCausalLM

HERE = os.path.dirname(os.path.abspath(__file__))
MODELS = os.path.join(HERE, "..", "..", "models")

LINEAR = {"rope_type": "linear", "factor": 8.0}
DEFAULT = {"rope_type": "default", "rope_theta": 10000.0}
NO_ROPE = {"rope_theta": None, "rope_local_base_freq": None, "rope_scaling": None}  # None: the key is taken out


def nested(full, local):
    return {**NO_ROPE, "rope_parameters": {"full_attention": full, "sliding_attention": local}}


APPLIED = {
    "gemma3-tiny": {
        "as it is": {},
        "softcapping 2": {"final_logit_softcapping": 2.0},
        "linear RoPE scaling 8": {"rope_scaling": LINEAR},
        "nested linear RoPE scaling 8": nested({**LINEAR, "rope_theta": 1e6}, DEFAULT),
        "nested RoPE type under its older name": nested({"type": "linear", "factor": 8.0, "rope_theta": 1e6}, DEFAULT),
        "local RoPE scaling 2": nested({"rope_type": "default", "rope_theta": 1e6},
                                       {"rope_type": "linear", "factor": 2.0, "rope_theta": 1e4}),
        "only global RoPE parameters": {**NO_ROPE, "rope_parameters": {"full_attention": {**LINEAR, "rope_theta": 5e5}}},
        "rope_theta beside nested parameters": {**nested({"rope_type": "default"}, {"rope_type": "default"}),
                                                "rope_theta": 5e5, "rope_local_base_freq": 2e4},
        "window 2": {"sliding_window": 2},
        "no word of the window": {"sliding_window": None},
        "pattern 2": {"layer_types": None, "sliding_window_pattern": 2},
        "pattern 1": {"layer_types": None, "sliding_window_pattern": 1},
        "all global": {"layer_types": ["full_attention"] * 6},
        "query_pre_attn_scalar 100": {"query_pre_attn_scalar": 100},
        "rms_norm_eps 0.01": {"rms_norm_eps": 0.01},
        "another name of gelu": {"hidden_activation": "gelu_new"},
        "hidden_act beside hidden_activation": {"hidden_act": "gelu"},
        "default RoPE with a factor": {"rope_scaling": {"rope_type": "default", "factor": 8.0}},
    },
    "gpt2-tiny": {
        "as it is": {},
        "unscaled attention": {"scale_attn_weights": False},
        "layer_norm_epsilon 0.01": {"layer_norm_epsilon": 0.01},
        "sizes under their common names": {"n_embd": None, "hidden_size": 128, "n_head": None, "num_attention_heads": 4,
                                           "n_layer": None, "num_hidden_layers": 3, "n_positions": None,
                                           "max_position_embeddings": 256},
        "more heads": {"n_head": 8},
        "upcast attention": {"reorder_and_upcast_attn": True},
    },
}

REFUSED = {
    "gemma3-tiny": {
        "rope_type": {"rope_scaling": {"factor": 8.0}},
        "yarn": {"rope_scaling": {"rope_type": "yarn", "factor": 8.0}},
        "llama3": {"rope_scaling": {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1, "high_freq_factor": 4}},
        "dynamic": nested({"rope_type": "dynamic", "factor": 2.0}, DEFAULT),
        "longrope": nested({"rope_type": "default"}, {"rope_type": "longrope"}),
        "rope_parameters.rope_type": {**NO_ROPE, "rope_parameters": {**LINEAR, "rope_theta": 1e6}},
        "rope_parameters.rope_theta": {**NO_ROPE, "rope_parameters": {"rope_type": "default", "rope_theta": 5e5}},
        "rope_scaling.full_attention": {"rope_scaling": {"full_attention": LINEAR}},
        "partial_rotary_factor": {"partial_rotary_factor": 0.5},
        "rope_parameters.full_attention.partial_rotary_factor": nested({"partial_rotary_factor": 0.5}, DEFAULT),
        "sliding_window is null": {"sliding_window": "null"},
        "sliding_window": {"sliding_window": 0},
        "_sliding_window_pattern": {"layer_types": None, "_sliding_window_pattern": 2},
        "sliding_window_pattern is 0": {"layer_types": None, "sliding_window_pattern": 0},
        "chunked_attention": {"layer_types": ["chunked_attention"] * 6},
        "attn_logit_softcapping": {"attn_logit_softcapping": 50.0},
        "final_logit_softcapping is negative": {"final_logit_softcapping": -1.0},
        "use_bidirectional_attention": {"use_bidirectional_attention": True},
        "is_causal": {"is_causal": False},
        "attention_bias": {"attention_bias": True},
        "hidden_activation": {"hidden_activation": "gelu"},
        "hidden_act": {"hidden_activation": None, "hidden_act": "silu"},
        "num_experts": {"num_experts": 8},
        "num_kv_shared_layers": {"num_kv_shared_layers": 2},
        "hidden_size_per_layer_input": {"hidden_size_per_layer_input": 256},
        "attention_multiplier": {"attention_multiplier": 0.5},
        "layer_norm_eps": {"layer_norm_eps": 0.01},
        "v_head_dim": {"v_head_dim": 32},
        "lm_head.weight": {"tie_word_embeddings": False},
        "bitsandbytes": {"quantization_config": {"load_in_4bit": True, "quant_method": "bitsandbytes"}},
        "by gptq": {"quantization_config": {"quant_method": "gptq", "bits": 4}},
        "by awq": {"quantization_config": {"quant_method": "awq", "bits": 4}},
        "by fp8": {"quantization_config": {"quant_method": "fp8"}},
        "MLX": {"quantization": {"group_size": 64, "bits": 4}},
    },
    "gpt2-tiny": {
        "activation_function": {"activation_function": "relu"},
        "scale_attn_by_inverse_layer_idx": {"scale_attn_by_inverse_layer_idx": True},
        "add_cross_attention": {"add_cross_attention": True},
        "pruned_heads": {"pruned_heads": {"0": [1]}},
        "num_key_value_heads": {"num_key_value_heads": 1},
        "head_dim": {"head_dim": 64},
    },
}

IDS = {"gemma3-tiny": [2] + [361, 557, 643, 274, 755, 712, 1020, 567, 593, 1012, 1015, 293, 386, 273, 794, 1022] * 3,
       "gpt2-tiny": list(range(30, 60))}


def changed(model, values):
    with open(os.path.join(MODELS, model, "config.json")) as file:
        config = json.load(file)
    for key, value in values.items():
        if value is None:
            config.pop(key, None)
        else:
            config[key] = None if value == "null" else value
    return config


def reference(model, config):
    with tempfile.TemporaryDirectory() as directory:
        for name in os.listdir(os.path.join(MODELS, model)):
            shutil.copy(os.path.join(MODELS, model, name), directory)
        with open(os.path.join(directory, "config.json"), "w") as file:
            json.dump(config, file)
        run = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32, attn_implementation="eager").eval()
        with torch.no_grad():
            top = run(torch.tensor([IDS[model]])).logits[0, -1].topk(3)
    return [[int(i), round(float(v), 5)] for i, v in zip(top.indices, top.values)]


def variants():
    lines = []
    for model in IDS:
        for name, values in APPLIED[model].items():
            config = changed(model, values)
            lines.append({"model": model, "name": name, "config": json.dumps(config), "top": reference(model, config)})
        for word, values in REFUSED[model].items():
            lines.append({"model": model, "name": word, "config": json.dumps(changed(model, values)), "refused": word})
    with open(os.path.join(HERE, "variants.json"), "w") as file:
        rows = ",\n  ".join(json.dumps(line) for line in lines)
        file.write('{"ids": ' + json.dumps(IDS) + ',\n "variants": [\n  ' + rows + "\n ]\n}\n")


def blocks():
    """5 blocks (of random bytes, of zeros, of ones; large, small and negative scales), then what gguf reads from them."""
    for kind in (gguf.GGMLQuantizationType.IQ4_NL, gguf.GGMLQuantizationType.IQ4_XS):
        size = gguf.GGML_QUANT_SIZES[kind][1]
        data = np.random.default_rng(4).integers(0, 256, (5, size), dtype=np.uint8)
        data[1, 2:], data[2, 2:] = 0, 255
        data[:, :2] = np.array([0.01, 3.0, -0.5, 6e-5, 900.0], dtype=np.float16).view(np.uint8).reshape(5, 2)
        values = gguf.quants.dequantize(data, kind).astype(np.float32)
        with open(os.path.join(HERE, "blocks", kind.name + ".bin"), "wb") as file:
            file.write(data.tobytes() + values.tobytes())


if __name__ == "__main__":
    blocks()
    variants()
    sys.exit(0)
