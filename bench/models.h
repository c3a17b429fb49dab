// What is measured: a model's file, or a published model's exact shape with random weights, as speed depends on the
// weights' number alone.

#pragma once

#include <algorithm>
#include <cmath>
#include <random>
#include <string>
#include <vector>

#include "../llm.h"
#include "system.h"

namespace bench {

struct Shape {
    const char* name;
    int vocab, context, hidden, intermediate, layers, heads, kv_heads, head_dim, window;  // window 0: GPT-2
    float rope_scaling;
};

constexpr Shape kShapes[] = {
    {"gpt2-124m", 50257, 1024, 768, 3072, 12, 12, 12, 64, 0, 1},
    {"gpt2-medium", 50257, 1024, 1024, 4096, 24, 16, 16, 64, 0, 1},
    {"gpt2-large", 50257, 1024, 1280, 5120, 36, 20, 20, 64, 0, 1},
    {"gpt2-xl", 50257, 1024, 1600, 6400, 48, 25, 25, 64, 0, 1},
    {"gemma3-270m", 262144, 32768, 640, 2048, 18, 4, 1, 256, 512, 1},
    {"gemma3-1b", 262144, 32768, 1152, 6912, 26, 4, 1, 256, 512, 1},
    {"gemma3-4b", 262208, 131072, 2560, 10240, 34, 8, 4, 256, 1024, 8},
};

inline llm::Config config_of(const Shape& s) {
    llm::Config c;
    const bool gpt2 = s.window == 0;
    c.architecture = gpt2 ? "gpt2" : "gemma3";
    c.vocab_size = s.vocab;
    c.context_length = s.context;
    c.hidden_size = s.hidden;
    c.intermediate_size = s.intermediate;
    c.num_layers = s.layers;
    c.num_heads = s.heads;
    c.num_kv_heads = s.kv_heads;
    c.head_dim = s.head_dim;
    c.norm_eps = gpt2 ? 1e-5f : 1e-6f;
    c.attention_scale = 1 / std::sqrt(float(s.head_dim));
    c.rope_theta = gpt2 ? 0.0f : 1e6f;
    c.rope_local_theta = gpt2 ? 0.0f : 1e4f;
    c.rope_scaling = s.rope_scaling;
    c.sliding_window = s.window;
    for (int i = 0; i < s.layers; ++i) c.is_local.push_back(!gpt2 && i % 6 != 5);
    return c;
}

inline double weight_bytes(const Shape& s, llm::DType dtype) {
    const double attention = double(s.hidden) * s.head_dim * (2 * s.heads + 2 * s.kv_heads);
    const double ffn = double(s.hidden) * s.intermediate * (s.window ? 3 : 2);
    const double q8 = dtype == llm::DType::f32 ? 4 : 34.0 / 32, layers = dtype == llm::DType::q4_0 ? 18.0 / 32 : q8;
    return s.layers * (attention + ffn) * layers + double(s.vocab) * s.hidden * q8;
}

inline const Shape& shape_of(const std::string& name) {
    std::string names;
    for (const Shape& s : kShapes) {
        if (s.name == name) return s;
        names += std::string(names.empty() ? "" : ", ") + s.name;
    }
    throw llm::Error("--shape: '" + name + "' is none of " + names);
}

// The same, if there is memory for its weights.
inline const Shape& find_shape(const std::string& name, llm::DType dtype) {
    const Shape& s = shape_of(name);
    if (weight_bytes(s, dtype) * 1.1 > available_memory())
        throw llm::Error(format("--shape: %s needs %.1f GB of memory, %.1f GB are available: choose a smaller one",
                                s.name, weight_bytes(s, dtype) / 1e9, available_memory() / 1e9));
    return s;
}

// A shape's name makes a random model, anything else is a path.
inline llm::Model make_model(const std::string& name, bool is_shape, const llm::LoadOptions& load) {
    if (!is_shape) return llm::Model::load(name, load);
    return llm::Model::random(config_of(find_shape(name, load.dtype)), load);
}

inline bool is_gpt2(const llm::Model& m) { return m.config().architecture == "gpt2"; }

// The formats of its matrices, that of most bytes first: "q4_0+q6_k".
inline std::string formats_of(const llm::Model& m) {
    std::vector<std::pair<std::size_t, std::string>> formats;
    for (const auto& [name, held] : m.info().formats) formats.emplace_back(held.bytes, name);
    std::sort(formats.rbegin(), formats.rend());
    std::string text;
    for (const auto& [bytes, name] : formats) text += (text.empty() ? "" : "+") + name;
    return text;
}

inline std::string type_of(const llm::Model& m) {
    return (is_gpt2(m) ? "gpt2 " : "gemma3 ") + std::to_string((m.info().parameters + 500000) / 1000000) + "M " +
           formats_of(m);
}

// As llama-bench has them: a text begins with <bos> where the model has one.
inline std::vector<int> random_tokens(const llm::Model& model, int count) {
    std::vector<int> tokens;
    if (model.tokenizer().bos() >= 0) tokens.push_back(model.tokenizer().bos());
    std::minstd_rand random(1);
    while (int(tokens.size()) < count) tokens.push_back(int(random() % unsigned(model.config().vocab_size)));
    return tokens;
}

}  // namespace bench
