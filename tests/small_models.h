// Models to test with. Very small ones are made here: the shapes are as small as they can be, the tokenizers are cut from
// those of models/, the weights are random bits. And the models of models/ themselves as GGUF files.

#ifndef LLM_TESTS_SMALL_MODELS_H
#define LLM_TESTS_SMALL_MODELS_H

#include "gguf_writer.h"

namespace tests {

// The number that a GGUF has for a type.
inline std::uint32_t gguf_id(TensorType type) {
    std::uint32_t id = 0;
    while (detail::gguf_type_name(id) != detail::traits(type).name) ++id;
    return id;
}

struct Shape {
    bool gemma;
    int vocab = 0, context = 24, hidden = 8, heads = 2, kv_heads = 1, head_dim = 4, ffn = 16, layers = 2, window = 6;
};

// A tokenizer of models/, or a piece of it: the first tokens, and the merges that lead to them.
struct SmallTokenizer {
    std::vector<std::string> tokens;
    std::vector<std::int32_t>
        kinds;  // as GGUF numbers them: 1 normal, 3 control, 4 of the user (a run of spaces), 6 byte
    std::vector<std::pair<std::string, std::string>> merges;

    explicit SmallTokenizer(bool gemma, int count = INT_MAX) {
        const JsonDocument file = read_json(tiny(gemma ? "gemma3-tiny/tokenizer.json" : "gpt2-tiny/tokenizer.json"));
        const Json& model = *file.root().find("model");
        std::map<std::uint64_t, std::string> by_id;
        for (const auto& [spelling, id] : model.find("vocab")->members()) by_id[id.whole()] = spelling;
        std::set<std::string> special, kept;
        for (const Json& token : file.root().find("added_tokens")->array()) {
            special.emplace(token.find("content")->string());
            by_id[token.find("id")->whole()] = token.find("content")->string();
        }
        for (const auto& [id, spelling] : by_id) {
            if (static_cast<int>(tokens.size()) >= count && !special.count(spelling)) continue;
            const bool byte = gemma && spelling.size() == 6 && spelling.compare(0, 3, "<0x") == 0;
            tokens.push_back(spelling);
            kinds.push_back(special.count(spelling) ? 3 : byte ? 6 : 1);
            kept.insert(spelling);
        }
        for (const Json& merge : model.find("merges")->array()) {
            const std::string left(merge.array()[0].string()), right(merge.array()[1].string());
            if (kept.count(left) && kept.count(right) && kept.count(left + right)) merges.emplace_back(left, right);
        }
    }
};

inline std::string json_text(std::string_view text) {
    std::string out = "\"";
    for (const char c : text) {
        if (c == '"' || c == '\\') out += '\\';
        if (c == '\n' || c == '\t' || c == '\r') (out += '\\') += c == '\n' ? 'n' : c == '\t' ? 't' : 'r';
        else out += c;
    }
    return out + '"';
}

inline std::string tokenizer_json(const SmallTokenizer& t, bool gemma) {
    std::string added, vocab, merges;
    const auto comma = [](std::string& list) { list += list.empty() ? "" : ","; };
    for (std::size_t id = 0; id < t.tokens.size(); ++id) {
        std::string& list = t.kinds[id] == 3 ? added : vocab;
        comma(list);
        if (t.kinds[id] == 3)
            list += "{\"id\":" + std::to_string(id) + ",\"content\":" + json_text(t.tokens[id]) + ",\"special\":true}";
        else list += json_text(t.tokens[id]) + ":" + std::to_string(id);
    }
    for (const auto& [left, right] : t.merges) {
        comma(merges);
        merges += "[" + json_text(left) + "," + json_text(right) + "]";
    }
    const std::string rules =
        gemma ? R"("normalizer":{"type":"Replace","pattern":{"String":" "},"content":"▁"},"post_processor":)"
                R"({"type":"TemplateProcessing","single":[{"SpecialToken":{"id":"<bos>"}},{"Sequence":{"id":"A"}}]},)"
              : R"("pre_tokenizer":{"type":"ByteLevel","add_prefix_space":false},)";
    return "{\"added_tokens\":[" + added + "]," + rules +
           "\"model\":{\"type\":\"BPE\",\"byte_fallback\":" + (gemma ? "true" : "false") + ",\"vocab\":{" + vocab +
           "},\"merges\":[" + merges + "]}}";
}

// A GGUF of Gemma has scores in place of merges; runs of spaces are listed as they are, and without one.
inline void add_tokenizer(Gguf& out, const SmallTokenizer& t, bool gemma) {
    std::vector<std::string> tokens = t.tokens, merges;
    std::map<std::string, float> ranks;
    for (const auto& [left, right] : t.merges) {
        ranks.emplace(left + right, -static_cast<float>(merges.size()));
        merges.push_back(left + " " + right);
    }
    std::vector<float> scores;
    int bos = -1, eos = -1;
    for (std::size_t id = 0; id < tokens.size(); ++id) {
        if (t.kinds[id] == 4) tokens[id] = detail::replace_all(tokens[id], detail::kSpaceMark, " ");
        scores.push_back(t.kinds[id] == 4 ? -1000 : ranks.count(tokens[id]) ? ranks[tokens[id]] : -1e6f);
        if (tokens[id] == (gemma ? "<bos>" : "<|endoftext|>")) bos = static_cast<int>(id);
        if (tokens[id] == (gemma ? "<eos>" : "<|endoftext|>")) eos = static_cast<int>(id);
    }
    out.set("tokenizer.ggml.model", std::string(gemma ? "llama" : "gpt2"));
    out.set_list("tokenizer.ggml.tokens", Gguf::string, tokens);
    out.set_list("tokenizer.ggml.token_type", Gguf::i32, t.kinds);
    if (gemma) out.set_list("tokenizer.ggml.scores", Gguf::f32, scores);
    else out.set_list("tokenizer.ggml.merges", Gguf::string, merges);
    out.set("tokenizer.ggml.bos_token_id", bos);
    out.set("tokenizer.ggml.eos_token_id", eos);
}

inline std::string config_json(const Shape& s) {
    const auto field = [](const char* name, int value) {
        return std::string("\"") + name + "\":" + std::to_string(value) + ",";
    };
    if (!s.gemma)
        return "{\"model_type\":\"gpt2\"," + field("n_positions", s.context) + field("n_embd", s.hidden) +
               field("n_layer", s.layers) + field("n_head", s.heads) + field("n_inner", s.ffn) +
               "\"activation_function\":\"gelu_new\",\"layer_norm_epsilon\":1e-05,\"tie_word_embeddings\":true,"
               "\"eos_token_id\":[1,2],\"bos_token_id\":1}";
    return "{\"model_type\":\"gemma3_text\"," + field("max_position_embeddings", s.context) +
           field("hidden_size", s.hidden) + field("intermediate_size", s.ffn) + field("num_hidden_layers", s.layers) +
           field("num_attention_heads", s.heads) + field("num_key_value_heads", s.kv_heads) +
           field("head_dim", s.head_dim) + field("sliding_window", s.window) + field("query_pre_attn_scalar", 4) +
           "\"layer_types\":[\"sliding_attention\",\"full_attention\"],\"rms_norm_eps\":1e-06,\"rope_theta\":1e6,"
           "\"rope_parameters\":{\"full_attention\":{\"rope_type\":\"linear\",\"factor\":8.0,\"rope_theta\":1e6},"
           "\"sliding_attention\":{\"rope_type\":\"default\",\"rope_theta\":1e4}}}";
}

struct Weight {
    std::string name;
    std::vector<int> shape;
};

// Every tensor by its name in both formats; `gguf` also turns GPT-2's matrices around.
inline std::vector<Weight> weights_of(const Shape& s, bool gguf) {
    std::vector<Weight> all;
    std::string prefix;
    const auto add = [&](const char* hf, const char* name, std::vector<int> shape) {
        all.push_back({prefix + (gguf ? name : hf), std::move(shape)});
    };
    const auto conv1d = [&](int rows, int cols) {
        return gguf ? std::vector<int>{rows, cols} : std::vector<int>{cols, rows};
    };
    const int d = s.hidden, q = s.heads * s.head_dim, kv = s.kv_heads * s.head_dim;
    const std::string root = gguf ? "" : s.gemma ? "model." : "transformer.";
    prefix = root;
    if (s.gemma) {
        add("embed_tokens.weight", "token_embd.weight", {s.vocab, d});
        add("norm.weight", "output_norm.weight", {d});
    } else {
        add("wte.weight", "token_embd.weight", {s.vocab, d});
        add("wpe.weight", "position_embd.weight", {s.context, d});
        add("ln_f.weight", "output_norm.weight", {d});
        add("ln_f.bias", "output_norm.bias", {d});
    }
    for (int i = 0; i < s.layers; ++i) {
        prefix = (gguf ? "blk." : root + (s.gemma ? "layers." : "h.")) + std::to_string(i) + ".";
        if (s.gemma) {
            add("input_layernorm.weight", "attn_norm.weight", {d});
            add("self_attn.q_proj.weight", "attn_q.weight", {q, d});
            add("self_attn.k_proj.weight", "attn_k.weight", {kv, d});
            add("self_attn.v_proj.weight", "attn_v.weight", {kv, d});
            add("self_attn.q_norm.weight", "attn_q_norm.weight", {s.head_dim});
            add("self_attn.k_norm.weight", "attn_k_norm.weight", {s.head_dim});
            add("self_attn.o_proj.weight", "attn_output.weight", {d, q});
            add("post_attention_layernorm.weight", "post_attention_norm.weight", {d});
            add("pre_feedforward_layernorm.weight", "ffn_norm.weight", {d});
            add("mlp.gate_proj.weight", "ffn_gate.weight", {s.ffn, d});
            add("mlp.up_proj.weight", "ffn_up.weight", {s.ffn, d});
            add("mlp.down_proj.weight", "ffn_down.weight", {d, s.ffn});
            add("post_feedforward_layernorm.weight", "post_ffw_norm.weight", {d});
        } else {
            for (const auto& [hf, name] : {std::pair("ln_1", "attn_norm"), std::pair("ln_2", "ffn_norm")}) {
                add((std::string(hf) + ".weight").c_str(), (std::string(name) + ".weight").c_str(), {d});
                add((std::string(hf) + ".bias").c_str(), (std::string(name) + ".bias").c_str(), {d});
            }
            add("attn.c_attn.weight", "attn_qkv.weight", conv1d(3 * d, d));
            add("attn.c_attn.bias", "attn_qkv.bias", {3 * d});
            add("attn.c_proj.weight", "attn_output.weight", conv1d(d, d));
            add("attn.c_proj.bias", "attn_output.bias", {d});
            add("mlp.c_fc.weight", "ffn_up.weight", conv1d(s.ffn, d));
            add("mlp.c_fc.bias", "ffn_up.bias", {s.ffn});
            add("mlp.c_proj.weight", "ffn_down.weight", conv1d(d, s.ffn));
            add("mlp.c_proj.bias", "ffn_down.bias", {d});
        }
    }
    return all;
}

// n values of this type, ordinary ones: around zero, and not far from it.
inline std::string random_values(TensorType type, std::uint64_t n, std::uint64_t& state) {
    const auto& t = detail::traits(type);
    std::string bytes;
    if (type == TensorType::f32 || type == TensorType::f16 || type == TensorType::bf16) {
        for (std::uint64_t i = 0; i < n; ++i) {
            const float x = static_cast<float>(detail::next_uniform(state) - 0.5);
            const auto bits = detail::f32_to_bits(x);
            if (type == TensorType::f32) bytes += raw(x);
            else bytes += raw(type == TensorType::f16 ? detail::f32_to_f16(x) : std::uint16_t(bits >> 16));
        }
        return bytes;
    }
    for (std::uint64_t i = 0; i < n / usize(t.block) * usize(t.bytes); ++i)
        bytes += static_cast<char>(detail::next_random(state) & 0x2F);  // as a scale's upper byte: below 0.1
    return bytes;
}

inline std::string safetensors(const std::vector<Weight>& weights, TensorType type) {
    std::string header, data;
    std::uint64_t state = 1;
    for (const Weight& w : weights) {
        std::string shape;
        std::uint64_t n = 1;
        for (const int size : w.shape) {
            shape += (shape.empty() ? "" : ",") + std::to_string(size);
            n *= static_cast<std::uint64_t>(size);
        }
        const std::size_t begin = data.size();
        data += random_values(type, n, state);
        header += (header.empty() ? "{" : ",") + json_text(w.name) + ":{\"dtype\":\"" + detail::traits(type).name +
                  "\",\"shape\":[" + shape + "],\"data_offsets\":[" + std::to_string(begin) + "," +
                  std::to_string(data.size()) + "]}";
    }
    header += "}";
    return raw(std::uint64_t{header.size()}) + header + data;
}

// A Hugging Face directory. `shards`: the weights in two files and an index.
inline Files directory_of(bool gemma, bool shards = false) {
    const SmallTokenizer tokenizer(gemma, 300);
    Shape s{gemma};
    s.vocab = static_cast<int>(tokenizer.tokens.size());
    const std::vector<Weight> all = weights_of(s, false);
    const TensorType type = gemma ? TensorType::bf16 : TensorType::f16;
    Files files = {{"config.json", config_json(s)}, {"tokenizer.json", tokenizer_json(tokenizer, gemma)}};
    if (!shards) {
        files["model.safetensors"] = safetensors(all, type);
        return files;
    }
    std::vector<Weight> parts[2];
    std::string map;
    for (std::size_t i = 0; i < all.size(); ++i) {
        parts[i % 2].push_back(all[i]);
        map += (i ? "," : "") + json_text(all[i].name) + ":\"part-" + std::to_string(i % 2) + ".safetensors\"";
    }
    files["part-0.safetensors"] = safetensors(parts[0], type);
    files["part-1.safetensors"] = safetensors(parts[1], TensorType::f32);
    files["model.safetensors.index.json"] = "{\"metadata\":{},\"weight_map\":{" + map + "}}";
    return files;
}

// GPT-2's older layout of a tokenizer.
inline Files directory_with_vocab_json() {
    Files files = directory_of(false);
    const SmallTokenizer tokenizer(false, 300);
    std::string vocab, merges = "#version: 0.2\n";
    for (std::size_t id = 0; id < tokenizer.tokens.size(); ++id)
        vocab += (id ? "," : "") + json_text(tokenizer.tokens[id]) + ":" + std::to_string(id);
    for (const auto& [left, right] : tokenizer.merges) merges.append(left).append(" ").append(right).append("\n");
    files.erase("tokenizer.json");
    files["vocab.json"] = "{" + vocab + "}";
    files["merges.txt"] = merges;
    return files;
}

// Of a GGUF, whose rows are blocks of 32 or 256.
inline Shape gguf_shape(bool gemma) {
    Shape s{gemma};
    s.hidden = 32;
    s.head_dim = 16;
    s.ffn = 256;
    return s;
}

// A GGUF whose matrices are of all types in turn, as far as their rows are whole blocks.
inline Gguf small_gguf(Shape s) {
    const bool gemma = s.gemma;
    const SmallTokenizer t(gemma, 280);
    s.vocab = static_cast<int>(t.tokens.size());
    Gguf file;
    const std::string family = gemma ? "gemma3" : "gpt2";
    file.set("general.architecture", family);
    file.set(family + ".context_length", s.context);
    file.set(family + ".embedding_length", s.hidden);
    file.set(family + ".block_count", s.layers);
    file.set(family + ".feed_forward_length", s.ffn);
    file.set(family + ".attention.head_count", s.heads);
    if (gemma) {
        file.set("gemma3.attention.head_count_kv", s.kv_heads);
        file.set("gemma3.attention.key_length", s.head_dim);
        file.set("gemma3.attention.sliding_window", s.window);
        file.set("gemma3.rope.freq_base", 1e6f);
    }
    add_tokenizer(file, t, gemma);

    std::uint64_t state = 1;
    int next_type = static_cast<int>(TensorType::q8_0);
    for (const Weight& w : weights_of(s, true)) {
        TensorType type = TensorType::f32;
        const int block = w.shape.back() % 256 == 0 ? 256 : 32;
        if (w.shape.size() == 2 && w.name != "position_embd.weight") do {  // the next type of such blocks
                next_type = (next_type + 1) % static_cast<int>(TensorType::other);
                type = static_cast<TensorType>(next_type);
            } while (detail::traits(type).block > block);
        std::uint64_t n = 1;
        for (const int size : w.shape) n *= static_cast<std::uint64_t>(size);
        file.tensors.push_back(
            {w.name, {w.shape.begin(), w.shape.end()}, gguf_id(type), random_values(type, n, state)});
    }
    return file;
}
inline Gguf small_gguf(bool gemma) { return small_gguf(gguf_shape(gemma)); }

// ---- the models of models/ as GGUF

inline std::vector<float> values_of(const detail::Tensor& t) {
    const detail::TypeTraits& type = detail::traits(t.type);
    std::vector<std::uint8_t> raw(usize(t.bytes));
    t.file->read(t.offset, raw.data(), raw.size());
    std::vector<float> out(usize(t.elements()));
    type.to_f32(raw.data(), out.data(), static_cast<std::int64_t>(t.elements()) / type.block);
    return out;
}

inline std::string encoded(const std::vector<float>& values, TensorType type) {
    std::string bytes;
    for (const float v : values) {
        if (type == TensorType::f32) bytes += Gguf::raw(v);
        if (type == TensorType::f16) bytes += Gguf::raw(detail::f32_to_f16(v));
        if (type == TensorType::bf16) bytes += Gguf::raw(static_cast<std::uint16_t>(detail::f32_to_bits(v) >> 16));
    }
    return bytes;
}

// Names of tensors in Hugging Face's files, without what stands before all of them, and in a GGUF.
inline std::map<std::string, std::string> gguf_names(bool gemma, int layers) {
    Shape shape{gemma};
    shape.layers = layers;
    std::map<std::string, std::string> names;
    const std::vector<Weight> hf = weights_of(shape, false), gguf = weights_of(shape, true);
    for (std::size_t i = 0; i < hf.size(); ++i) names[hf[i].name.substr(hf[i].name.find('.') + 1)] = gguf[i].name;
    return names;
}

inline std::string transposed(const std::string& in, std::size_t rows, std::size_t cols, std::size_t bytes) {
    std::string out(in.size(), 0);
    for (std::size_t r = 0; r < rows; ++r)
        for (std::size_t c = 0; c < cols; ++c)
            std::copy_n(&in[(r * cols + c) * bytes], bytes, &out[(c * rows + r) * bytes]);
    return out;
}

// One of the two tiny models as a GGUF whose matrices have this type.
inline Gguf as_gguf(const std::string& directory, TensorType type) {
    const detail::Checkpoint file = detail::open_checkpoint(directory);
    const llm::Config c = detail::read_config(file);
    const bool gpt2 = c.architecture == "gpt2";
    const std::string family = gpt2 ? "gpt2" : "gemma3";
    Gguf out;
    out.set("general.architecture", family);
    out.set(family + ".context_length", c.context_length);
    out.set(family + ".embedding_length", c.hidden_size);
    out.set(family + ".block_count", c.num_layers);
    out.set(family + ".feed_forward_length", c.intermediate_size);
    out.set(family + ".attention.head_count", c.num_heads);
    if (!gpt2) {
        out.set(family + ".attention.head_count_kv", c.num_kv_heads);
        out.set(family + ".attention.key_length", c.head_dim);
        out.set(family + ".attention.value_length", c.head_dim);
        out.set(family + ".attention.sliding_window", c.sliding_window);
        out.set(family + ".attention.layer_norm_rms_epsilon", c.norm_eps);
        out.set(family + ".rope.freq_base", c.rope_theta);
    }
    add_tokenizer(out, SmallTokenizer(!gpt2), !gpt2);
    const auto names = gguf_names(!gpt2, c.num_layers);
    for (const auto& [name, tensor] : file.tensors) {
        std::vector<float> values = values_of(tensor);
        const bool is_matrix = tensor.shape.size() == 2, is_norm = name.find("norm") != std::string::npos;
        for (float& v : values) v += is_norm ? 1.0f : 0.0f;  // Gemma's norms alone are named so
        const TensorType held = is_matrix ? type : TensorType::f32;
        Gguf::Tensor t{names.at(gpt2 ? name : name.substr(name.find('.') + 1)), tensor.shape, gguf_id(held),
                       encoded(values, held)};
        if (gpt2 && is_matrix && t.name.rfind("blk.", 0) == 0) {  // Conv1D
            t.bytes = transposed(t.bytes, usize(t.shape[0]), usize(t.shape[1]), usize(detail::traits(held).bytes));
            std::swap(t.shape[0], t.shape[1]);
        }
        out.tensors.push_back(std::move(t));
    }
    return out;
}

}  // namespace tests

#endif
