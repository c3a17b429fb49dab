// A GPT-2 that writes what it is told to.

#ifndef LLM_TESTS_SCRIPTED_MODEL_H
#define LLM_TESTS_SCRIPTED_MODEL_H

#include "small_models.h"
#include "support.h"

namespace tests {

// After the token at position p comes script[p]. Its layers add nothing, the
// embedding is empty, each position is a dimension of its own, and the head turns that into the scripted token.
constexpr int kScript = 64;  // positions and dimensions

inline Gguf scripted(const std::vector<int>& script) {
    constexpr int d = kScript, vocab = 768;
    Gguf file;
    file.set("general.architecture", std::string("gpt2"));
    file.set("gpt2.context_length", d);
    file.set("gpt2.embedding_length", d);
    file.set("gpt2.block_count", 1);
    file.set("gpt2.feed_forward_length", 32);
    file.set("gpt2.attention.head_count", 2);
    add_tokenizer(file, SmallTokenizer(false), false);
    const auto add = [&](const char* name, std::vector<std::uint64_t> shape, float value) {
        std::uint64_t n = 1;
        for (const std::uint64_t extent : shape) n *= extent;
        file.tensors.push_back({name, shape, 0, encoded(std::vector<float>(usize(n), value), TensorType::f32)});
    };
    const auto set = [&](const char* name, int row, int column, float value) {
        std::memcpy(file.tensor(name).bytes.data() + usize(row * d + column) * sizeof value, &value, sizeof value);
    };
    add("token_embd.weight", {vocab, d}, 0);
    add("position_embd.weight", {d, d}, 0);
    add("output.weight", {vocab, d}, 0);
    add("output_norm.weight", {d}, 1);
    add("output_norm.bias", {d}, 0);
    for (const char* name : {"blk.0.attn_norm.weight", "blk.0.attn_norm.bias", "blk.0.ffn_norm.weight",
                             "blk.0.ffn_norm.bias", "blk.0.attn_output.bias", "blk.0.ffn_down.bias"})
        add(name, {d}, 0);
    add("blk.0.attn_qkv.weight", {3 * d, d}, 0);
    add("blk.0.attn_qkv.bias", {3 * d}, 0);
    add("blk.0.attn_output.weight", {d, d}, 0);
    add("blk.0.ffn_up.weight", {32, d}, 0);
    add("blk.0.ffn_up.bias", {32}, 0);
    add("blk.0.ffn_down.weight", {d, 32}, 0);
    for (int p = 0; p < d; ++p) {
        set("position_embd.weight", p, p, 1);
        set("output.weight", p < static_cast<int>(script.size()) ? script[usize(p)] : 0, p, 5);
    }
    return file;
}

// A model that writes these bytes after one token, byte by byte.
inline Model writer_of(const std::string& bytes) {
    static const Tokenizer tokenizer = load(tiny("gpt2-tiny")).tokenizer();
    std::vector<int> script;
    for (const char c : bytes) script.push_back(tokenizer.encode(std::string(1, c))[0]);
    const TemporaryDirectory directory;
    write_file(directory.path / "scripted.gguf", scripted(script).bytes());
    return load(directory.path / "scripted.gguf");
}

}  // namespace tests

#endif
