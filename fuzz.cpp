// build/fuzz: what strangers send, read by llm.h under libFuzzer; `make fuzz` runs all targets. FUZZ_TARGET names one:
//
//     safetensors   the weights of a directory whose other files are good
//     gguf          a whole model
//     tokenizer     tokenizer.json beside good weights
//     config        config.json beside good weights
//     session       the file of a saved session, with a sum that is right
//     text          a text for both families' tokenizers, which must come back from its tokens byte by byte
//
// A directory on the command line gets the target's seeds before it is read. Models for them are made here: the shapes
// are as small as they can be, the tokenizers are cut from those of models/, the weights are random bits. The tests
// (robust_tests.cpp) use them as well, and replay what was ever found (testdata/finds).

#ifndef LLM_IMPLEMENTATION
#define LLM_IMPLEMENTATION
#endif
#include "llm.h"

#include <cassert>
#include <set>

namespace fuzz {

namespace fs = std::filesystem;
using llm::detail::Json, llm::detail::JsonDocument, llm::detail::TensorType, llm::detail::usize;

inline void write_file(const fs::path& path, std::string_view bytes) {
    std::ofstream out(path, std::ios::binary);
    out.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
    if (!out.flush()) throw std::runtime_error("cannot write " + path.string());
}

inline std::string read_file(const fs::path& path) {
    std::ifstream in(path, std::ios::binary);
    if (!in) throw std::runtime_error("cannot read " + path.string());
    return {std::istreambuf_iterator<char>(in), {}};
}

// A directory of this process's own, removed at its end.
struct Scratch {
    fs::path path;
    Scratch() {
        std::string name = (fs::temp_directory_path() / "llm-fuzz-XXXXXX").string();
        if (!mkdtemp(name.data())) throw std::runtime_error("cannot make " + name);
        path = name;
    }
    ~Scratch() {
        std::error_code ignored;
        fs::remove_all(path, ignored);
    }
    Scratch(const Scratch&) = delete;
    Scratch& operator=(const Scratch&) = delete;
};

// ---- Small models

using Files = std::map<std::string, std::string>;  // name in the directory -> bytes

struct Shape {
    bool gemma;
    int vocab = 0, context = 24, hidden = 8, heads = 2, kv_heads = 1, head_dim = 4, ffn = 16, layers = 2, window = 6;
};

// A piece of a tokenizer: the first tokens of one from models/, and the merges that lead to them.
struct SmallTokenizer {
    std::vector<std::string> tokens;
    std::vector<int> kinds;  // as GGUF numbers them: 1 normal, 3 control, 6 byte
    std::vector<std::pair<std::string, std::string>> merges;

    SmallTokenizer(const fs::path& directory, bool gemma, int count) {
        const fs::path path = directory / "tokenizer.json";
        const JsonDocument file(read_file(path), path.string());
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

template <class T> std::string raw(T value) { return {reinterpret_cast<const char*>(&value), sizeof value}; }

// n values of this type, ordinary ones: around zero, and not far from it.
inline std::string random_values(TensorType type, std::uint64_t n, std::uint64_t& state) {
    const auto& t = llm::detail::traits(type);
    std::string bytes;
    if (type == TensorType::f32 || type == TensorType::f16 || type == TensorType::bf16) {
        for (std::uint64_t i = 0; i < n; ++i) {
            const float x = static_cast<float>(llm::detail::next_uniform(state) - 0.5);
            const auto bits = llm::detail::f32_to_bits(x);
            if (type == TensorType::f32) bytes += raw(x);
            else bytes += raw(type == TensorType::f16 ? llm::detail::f32_to_f16(x) : std::uint16_t(bits >> 16));
        }
        return bytes;
    }
    for (std::uint64_t i = 0; i < n / usize(t.block) * usize(t.bytes); ++i)
        bytes += static_cast<char>(llm::detail::next_random(state) & 0x2F);  // as a scale's upper byte: below 0.1
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
        header += (header.empty() ? "{" : ",") + json_text(w.name) + ":{\"dtype\":\"" + llm::detail::traits(type).name +
                  "\",\"shape\":[" + shape + "],\"data_offsets\":[" + std::to_string(begin) + "," +
                  std::to_string(data.size()) + "]}";
    }
    header += "}";
    return raw(std::uint64_t{header.size()}) + header + data;
}

// A Hugging Face directory. `shards`: the weights in two files and an index.
inline Files directory_of(const fs::path& models, bool gemma, bool shards = false) {
    const SmallTokenizer tokenizer(models / (gemma ? "gemma3-tiny" : "gpt2-tiny"), gemma, 300);
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
inline Files directory_with_vocab_json(const fs::path& models) {
    Files files = directory_of(models, false);
    const SmallTokenizer tokenizer(models / "gpt2-tiny", false, 300);
    std::string vocab, merges = "#version: 0.2\n";
    for (std::size_t id = 0; id < tokenizer.tokens.size(); ++id)
        vocab += (id ? "," : "") + json_text(tokenizer.tokens[id]) + ":" + std::to_string(id);
    for (const auto& [left, right] : tokenizer.merges) merges.append(left).append(" ").append(right).append("\n");
    files.erase("tokenizer.json");
    files["vocab.json"] = "{" + vocab + "}";
    files["merges.txt"] = merges;
    return files;
}

// A GGUF whose matrices are of all types in turn, as far as their rows are whole blocks.
inline std::string gguf(const fs::path& models, bool gemma) {
    enum : std::uint32_t { i32 = 5, f32 = 6, string = 8, array = 9 };
    const SmallTokenizer t(models / (gemma ? "gemma3-tiny" : "gpt2-tiny"), gemma, 280);
    Shape s{gemma};
    s.vocab = static_cast<int>(t.tokens.size());
    s.hidden = 32;
    s.head_dim = 16;
    s.ffn = 256;
    std::string pairs, tensors, data;
    std::uint64_t pair_count = 0;
    const auto text = [](std::string_view x) { return raw(std::uint64_t{x.size()}).append(x); };
    const auto pair = [&](const std::string& key, std::uint32_t type, const std::string& value) {
        pairs += text(key) + raw(type) + value;
        ++pair_count;
    };
    const std::string family = gemma ? "gemma3" : "gpt2";
    const auto size = [&](const char* key, int value) { pair(family + "." + key, i32, raw(value)); };
    const auto list = [&](const char* key, std::uint32_t type, std::size_t count, const std::string& items) {
        pair(std::string("tokenizer.ggml.") + key, array, raw(type) + raw(std::uint64_t{count}) + items);
    };
    pair("general.architecture", string, text(family));
    size("context_length", s.context);
    size("embedding_length", s.hidden);
    size("block_count", s.layers);
    size("feed_forward_length", s.ffn);
    size("attention.head_count", s.heads);
    if (gemma) {
        size("attention.head_count_kv", s.kv_heads);
        size("attention.key_length", s.head_dim);
        size("attention.sliding_window", s.window);
        pair("gemma3.rope.freq_base", f32, raw(1e6f));
    }
    pair("tokenizer.ggml.model", string, text(gemma ? "llama" : "gpt2"));
    std::string tokens, kinds, scores, merges;
    for (std::size_t id = 0; id < t.tokens.size(); ++id) {
        tokens += text(t.tokens[id]);
        kinds += raw(std::int32_t{t.kinds[id]});
        scores += raw(-static_cast<float>(id));
    }
    for (const auto& [left, right] : t.merges) merges += text(std::string(left).append(" ").append(right));
    list("tokens", string, t.tokens.size(), tokens);
    list("token_type", i32, t.kinds.size(), kinds);
    if (gemma) list("scores", f32, t.tokens.size(), scores);
    else list("merges", string, t.merges.size(), merges);
    pair("tokenizer.ggml.bos_token_id", i32, raw(std::int32_t{2}));
    pair("tokenizer.ggml.eos_token_id", i32, raw(std::int32_t{1}));

    const std::vector<Weight> weights = weights_of(s, true);
    std::uint64_t state = 1;
    int next_type = static_cast<int>(TensorType::q8_0);
    for (const Weight& w : weights) {
        TensorType type = TensorType::f32;
        const int block = w.shape.back() % 256 == 0 ? 256 : 32;
        if (w.shape.size() == 2 && w.name != "position_embd.weight") do {  // the next type of such blocks
                next_type = (next_type + 1) % static_cast<int>(TensorType::other);
                type = static_cast<TensorType>(next_type);
            } while (llm::detail::traits(type).block > block);
        tensors += text(w.name) + raw(static_cast<std::uint32_t>(w.shape.size()));
        std::uint64_t n = 1;
        for (std::size_t k = w.shape.size(); k-- > 0;) {
            tensors += raw(static_cast<std::uint64_t>(w.shape[k]));
            n *= static_cast<std::uint64_t>(w.shape[k]);
        }
        tensors += raw(static_cast<std::uint32_t>(llm::detail::traits(type).gguf_id)) + raw(std::uint64_t{data.size()});
        data += random_values(type, n, state);
        data.resize((data.size() + 31) / 32 * 32);
    }
    std::string file = "GGUF" + raw(std::uint32_t{3}) + raw(std::uint64_t{weights.size()}) + raw(pair_count);
    file += pairs + tensors;
    file.resize((file.size() + 31) / 32 * 32);
    return file + data;
}

// ---- Targets

// What may happen to a model from a stranger: an Error, or it runs.
inline bool runs(const std::string& path, llm::DType dtype = llm::DType::q8_0) {
    try {
        llm::LoadOptions options;
        options.threads = 1;
        options.dtype = dtype;
        const llm::Model model = llm::Model::load(path, options);
        llm::Session session(model, std::min(16, model.config().context_length), 1);
        llm::GenerateOptions generate;
        generate.max_tokens = 4;
        generate.sampling.repeat_penalty = 1.1f;
        llm::generate(session, "To be\n", generate, nullptr);
        session.rewind(1);
        const int last = model.config().vocab_size - 1;
        session.forward(&last, 1);
        return true;
    } catch (const llm::Error&) {
        return false;
    }
}

inline void check_text(const llm::Tokenizer& tokenizer, std::string_view text, bool special, bool gemma) {
    const std::vector<int> ids = tokenizer.encode(text, special ? llm::Special::parsed : llm::Special::as_text, false);
    const std::string expected = gemma ? llm::detail::replace_all(text, "\xE2\x96\x81", " ") : std::string(text);
    if (tokenizer.decode(ids) != expected) throw std::logic_error("the text is not what its tokens decode to");
}

struct Target {
    const char* name;
    void (*run)(const fs::path& models, const std::string& bytes);
    std::vector<std::string> (*seeds)(const fs::path& models);
};

// One file of a directory is what came in, its neighbours are good; of both families.
template <bool Gemma> void run_in_directory(const fs::path& models, const std::string& file, const std::string& bytes) {
    static const Scratch scratch;
    static const Files files = directory_of(models, Gemma);
    static const bool written = [] {
        for (const auto& [name, good] : files) write_file(scratch.path / name, good);
        return true;
    }();
    (void)written;
    write_file(scratch.path / file, bytes);
    runs(scratch.path.string());
    write_file(scratch.path / file, files.at(file));
}
inline void run_in_directories(const fs::path& models, const std::string& file, const std::string& bytes) {
    run_in_directory<false>(models, file, bytes);
    run_in_directory<true>(models, file, bytes);
}
inline std::vector<std::string> both(const fs::path& models, const std::string& file) {
    return {directory_of(models, false).at(file), directory_of(models, true).at(file)};
}

inline void run_gguf(const fs::path&, const std::string& bytes) {
    static const Scratch scratch;
    const fs::path path = scratch.path / "model.gguf";
    write_file(path, bytes);
    runs(path.string(), bytes.size() % 2 ? llm::DType::f32 : llm::DType::q8_0);
}

// Makes the sum at the end of a session's file right, whatever is in it, as someone would who knows how.
inline void sign(std::string& file) {
    llm::detail::StateHeader header;
    if (file.size() < sizeof header + 8) return;
    std::memcpy(&header, file.data(), sizeof header);
    std::size_t at = 0;
    std::uint64_t sum = 0;
    const auto add = [&](std::uint64_t bytes) {  // in the pieces in which it was written
        bytes = std::min<std::uint64_t>(bytes, file.size() - 8 - at);
        sum = llm::detail::hash(sum, file.data() + at, static_cast<std::size_t>(bytes));
        at += static_cast<std::size_t>(bytes);
    };
    add(sizeof header);
    add(4 * std::uint64_t(std::uint32_t(header.held)));
    add(4 * std::uint64_t(std::uint32_t(header.pending)));
    add(file.size());
    std::memcpy(&file[file.size() - 8], &sum, sizeof sum);
}

// A small model in memory, and a session of it that holds some text.
struct Saved {
    Scratch scratch;
    llm::Model model;
    std::string bytes;

    Saved(const fs::path& models, bool gemma) {
        for (const auto& [name, file] : directory_of(models, gemma)) write_file(scratch.path / name, file);
        llm::LoadOptions options;
        options.threads = 1;
        model = llm::Model::load(scratch.path.string(), options);
        llm::Session session(model, 0, 1);
        llm::GenerateOptions generate;
        generate.max_tokens = 5;
        generate.ignore_end = true;
        llm::generate(session, "To be", generate, nullptr);
        session.save(file());
        bytes = read_file(file());
    }
    std::string file() const { return (scratch.path / "session").string(); }

    // True if the session could be loaded; it goes on in any case.
    bool load(std::string changed) const {
        sign(changed);
        write_file(file(), changed);
        llm::Session session(model, 0, 1);
        bool loaded = true;
        try {
            session.load(file());
        } catch (const llm::Error&) {
            loaded = false;
        }
        llm::GenerateOptions generate;
        generate.max_tokens = 3;
        try {
            llm::generate(session, "be", generate, nullptr);
        } catch (const llm::Error&) {  // it may be full
        }
        session.rewind(session.position() / 2);
        session.rewind(0);
        const int token = 1;
        session.forward(&token, 1);
        return loaded;
    }
};

inline const Saved& saved(const fs::path& models, bool gemma) {
    static const Saved gpt2(models, false), with_ring(models, true);
    return gemma ? with_ring : gpt2;
}

inline void run_text(const fs::path& models, const std::string& bytes) {
    static const auto load = [](const fs::path& path) { return llm::Model::load(path.string()).tokenizer(); };
    static const llm::Tokenizer gpt2 = load(models / "gpt2-tiny"), gemma = load(models / "gemma3-tiny");
    for (const bool special : {false, true}) {
        check_text(gpt2, bytes, special, false);
        check_text(gemma, bytes, special, true);
    }
}

inline const Target kTargets[] = {
    {"safetensors", [](const fs::path& m, const std::string& b) { run_in_directories(m, "model.safetensors", b); },
     [](const fs::path& m) { return both(m, "model.safetensors"); }},
    {"gguf", run_gguf,
     [](const fs::path& m) {
         return std::vector{gguf(m, false), gguf(m, true)};
     }},
    {"tokenizer", [](const fs::path& m, const std::string& b) { run_in_directories(m, "tokenizer.json", b); },
     [](const fs::path& m) { return both(m, "tokenizer.json"); }},
    {"config", [](const fs::path& m, const std::string& b) { run_in_directories(m, "config.json", b); },
     [](const fs::path& m) { return both(m, "config.json"); }},
    {"session",
     [](const fs::path& m, const std::string& b) {
         for (const bool gemma : {false, true}) saved(m, gemma).load(b);
     },
     [](const fs::path& m) {
         return std::vector{saved(m, false).bytes, saved(m, true).bytes};
     }},
    {"text", run_text,
     [](const fs::path&) {
         return std::vector<std::string>{"To be, or not to be: I'll say 'tis  nobler\n\n\t1603 \xE2\x96\x81\xC3\xA9 ",
                                         "<bos><start_of_turn>user\n<|endoftext|>\xFF\xE2\x96<0x41>"};
     }},
};

inline const Target& target(const std::string& name) {
    for (const Target& t : kTargets)
        if (name == t.name) return t;
    throw std::runtime_error("FUZZ_TARGET: '" + name +
                             "' is none of safetensors, gguf, tokenizer, config, session, text");
}

}  // namespace fuzz

#ifdef LLM_FUZZER  // `make fuzz` defines it

namespace {
const fuzz::Target& chosen() {
    static const fuzz::Target& t = fuzz::target(std::getenv("FUZZ_TARGET") ? std::getenv("FUZZ_TARGET") : "");
    return t;
}
}  // namespace

extern "C" int LLVMFuzzerInitialize(int* argc, char*** argv) {
    for (int i = 1; i < *argc; ++i)
        if (std::filesystem::is_directory((*argv)[i])) {
            int n = 0;
            for (const std::string& seed : chosen().seeds("models"))
                fuzz::write_file(fuzz::fs::path((*argv)[i]) / ("seed-" + std::to_string(n++)), seed);
        }
    return 0;
}

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    chosen().run("models", std::string(reinterpret_cast<const char*>(data), size));
    return 0;
}

#endif
