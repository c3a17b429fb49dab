// What files say of a model is applied, or refused by name: keys, weights, files that are no model at all.

#include "small_models.h"
#include "support.h"

namespace tests {
namespace {

using Top = std::vector<std::pair<int, float>>;  // the largest logits

JsonDocument variants() { return read_json(test_data() / "variants.json"); }

// The numbers that transformers gives for a variant, and the tokens before them.
struct Reference {
    std::vector<int> ids;
    Top top;
};
Reference reference(const std::string& model, const std::string& name) {
    const JsonDocument all = variants();
    Reference out{ints(*all.root().find("ids")->find(model)), {}};
    for (const Json& one : all.root().find("variants")->array())
        if (text(one, "model") == model && text(one, "name") == name)
            for (const Json& pair : one.find("top")->array())
                out.top.emplace_back(int(pair.array()[0].whole()), float(pair.array()[1].number()));
    REQUIRE(out.top.size() == 3);
    return out;
}

void check_logits(const Model& model, const Reference& expected) {
    Session session(model);
    const std::vector<float> logits = last_logits(session, expected.ids);
    for (const auto& one : expected.top) {
        const auto [id, logit] = one;
        CAPTURE(one.first);
        CHECK(std::fabs(logits[usize(id)] - logit) < 3e-4f);
    }
    CHECK(argmax(logits) == expected.top[0].first);
}

TEST_CASE("every key of config.json that changes the numbers is applied as transformers does it, or refused by name") {
    const JsonDocument all = variants();
    int applied = 0, refused = 0;
    for (const Json& one : all.root().find("variants")->array()) {
        const std::string model = text(one, "model"), name = text(one, "name");
        CAPTURE(model);
        CAPTURE(name);
        const TemporaryDirectory directory;
        fs::copy(tiny(model), directory.path);
        write_file((directory.path / "config.json").string(), text(one, "config"));
        if (!one.find("refused")) {
            check_logits(load(directory.path, DType::f32), reference(model, name));
            ++applied;
            continue;
        }
        const std::string error = error_of([&] { load(directory.path); });
        CAPTURE(error);
        CHECK(error.find(text(one, "refused")) != std::string::npos);
        CHECK(error.find(directory.path.string()) != std::string::npos);
        ++refused;
    }
    CHECK(applied == 24);
    CHECK(refused == 40);
}

// A GGUF of a model of models/ with some keys changed.
struct Changed {
    TemporaryDirectory directory;
    std::string path = (directory.path / "model.gguf").string();
    explicit Changed(const std::function<void(Gguf&)>& change, const std::string& model = "gemma3-tiny") {
        Gguf file = as_gguf(tiny(model), TensorType::f32);
        change(file);
        write_file(path, file.bytes());
    }
    std::string error(DType dtype = DType::q8_0) const {
        return error_of([&] { load(path, dtype); });
    }
};

TEST_CASE("every key of a GGUF that changes the numbers is applied as llama.cpp does it") {
    const auto key = [](const char* name, auto value) {
        return [name, value](Gguf& g) { g.set(std::string("gemma3.") + name, value); };
    };
    const auto list = [](std::uint32_t type, const auto& items) {
        return [type, items](Gguf& g) { g.set_list("gemma3.attention.sliding_window_pattern", type, items); };
    };
    const std::vector<std::uint8_t> every_other = {1, 0, 1, 0, 1, 0};
    const struct {
        const char* name;  // of variants.json
        std::function<void(Gguf&)> change;
    } cases[] = {
        {"as it is", [](Gguf&) {}},
        {"softcapping 2", key("final_logit_softcapping", 2.0f)},
        {"as it is", key("final_logit_softcapping", 0.0f)},
        {"linear RoPE scaling 8", key("rope.scaling.factor", 8.0f)},
        {"linear RoPE scaling 8", key("rope.scale_linear", 8.0f)},
        {"as it is", key("rope.scaling.factor", 0.0f)},
        {"as it is",
         [&](Gguf& g) { key("rope.scaling.factor", 8.0f)(g), key("rope.scaling.type", std::string("none"))(g); }},
        {"all global", key("attention.sliding_window", 0)},
        {"all global", [](Gguf& g) { g.remove("gemma3.attention.sliding_window"); }},
        {"window 2", key("attention.sliding_window", 2)},
        {"pattern 2", key("attention.sliding_window_pattern", 2)},
        {"pattern 2", list(Gguf::boolean, every_other)},
        {"pattern 1", list(Gguf::boolean, std::vector<std::uint8_t>(6))},
        {"query_pre_attn_scalar 100", key("attention.scale", 0.1f)},
        {"as it is", [&](Gguf& g) { g.remove("gemma3.rope.freq_base"), key("rope.global.freq_base", 1e6f)(g); }},
        {"as it is",
         [](Gguf& g) { g.set_list("gemma3.attention.head_count_kv", Gguf::u32, std::vector<std::uint32_t>(6, 2)); }},
        {"as it is",
         [&](Gguf& g) {
             key("rope.dimension_count", 64)(g), key("attention.causal", true)(g), key("pooling_type", 0)(g),
                 key("vision.block_count", 27)(g), key("mm.tokens_per_image", 256)(g);
         }},
        {"as it is",  // as llama.cpp saves a model
         [&](Gguf& g) {
             key("wkv.head_size", 0)(g), key("pooling_type", -1)(g), key("attn_logit_softcapping", 50.0f)(g),
                 key("router_logit_softcapping", 30.0f)(g), key("logit_scale", 0.0f)(g);
         }},
    };
    for (const auto& one : cases) {
        CAPTURE(&one - cases);
        CAPTURE(one.name);
        check_logits(load(Changed(one.change).path, DType::f32), reference("gemma3-tiny", one.name));
    }
    const Changed gpt2([](Gguf& g) { g.set("gpt2.attention.scale", 1.0f); }, "gpt2-tiny");
    check_logits(load(gpt2.path, DType::f32), reference("gpt2-tiny", "unscaled attention"));
    const Changed list_of_heads(
        [](Gguf& g) { g.set_list("gpt2.attention.head_count_kv", Gguf::u32, std::vector<std::uint32_t>(4, 4)); },
        "gpt2-tiny");
    check_logits(load(list_of_heads.path, DType::f32), reference("gpt2-tiny", "as it is"));
}

TEST_CASE("a GGUF's other keys are refused by name") {
    const auto refuses = [](const std::string& key, auto value, const char* also = "") {
        CAPTURE(key);
        const std::string error = Changed([&](Gguf& g) { g.set("gemma3." + key, value); }).error();
        CAPTURE(error);
        CHECK(error.find("gemma3." + key) != std::string::npos);
        CHECK(error.find(also) != std::string::npos);
    };
    refuses("attention.causal", false, "embedding");
    refuses("pooling_type", 1, "embedding");
    refuses("dense_2_feat_out", 3072, "embedding");
    refuses("expert_count", 8);
    refuses("attn_logit_softcapping", 50.0f);
    refuses("rope.scaling.type", std::string("yarn"), "yarn");
    refuses("rope.dimension_count", 32);
    refuses("attention.value_length", 32);
    refuses("attention.key_length_swa", 32);
    refuses("attention.layer_norm_epsilon", 1e-5f, "not known");
    refuses("logit_scale", 0.5f);
    refuses("made_up.key", 1, "not known");
    const auto saved = [](Gguf& g) { g.set("gemma3.wkv.head_size", 0), g.set("gemma3.expert_count", 4); };
    CHECK(Changed(saved).error().find("expert_count") != std::string::npos);
    const auto heads = [](Gguf& g) {
        g.set_list("gemma3.attention.head_count_kv", Gguf::u32, std::vector<std::uint32_t>{2, 2, 1, 2, 2, 2});
    };
    CHECK(Changed(heads).error().find("differs from layer to layer") != std::string::npos);

    const auto called = [](const char* key, const char* value) {
        return Changed([&](Gguf& g) { g.set(key, std::string(value)); }).error();
    };
    CHECK(called("general.architecture", "clip").find("vision projector") != std::string::npos);
    CHECK(called("general.type", "mmproj").find("vision projector") != std::string::npos);
    CHECK(called("general.type", "adapter").find("adapter") != std::string::npos);
    CHECK(called("general.architecture", "gemma-embedding").find("embedding model") != std::string::npos);
}

// ---- weights

TEST_CASE("a tensor that is not used is refused if it is the model's, and counted if it lies outside") {
    const auto with = [](const char* name, std::uint32_t type = 0) {
        return [name, type](Gguf& g) { g.tensors.push_back({name, {32}, type, std::string(128, '\0')}); };
    };
    for (const char* name : {"blk.0.attn_q.bias", "blk.3.ffn_gate_inp.weight", "output_norm.bias", "rope_freqs.weight",
                             "blk.6.attn_q.weight", "dense_2.weight"})
        CHECK(Changed(with(name)).error().find(name) != std::string::npos);
    const Changed vision([&](Gguf& g) {
        with("v.blk.0.attn_q.weight")(g), with("v.patch_embd.weight")(g), with("mm.input_projection.weight")(g);
    });
    const std::map<std::string, int> outside = load(vision.path).info().outside;
    CHECK(outside == std::map<std::string, int>{{"v", 2}, {"mm", 1}});
    CHECK(load(vision.path).info().ignored == 3);

    // A type is named only if its tensor is needed.
    const auto retyped = [](std::uint32_t id) {
        return Changed([&](Gguf& g) { g.tensor("blk.0.attn_q.weight").type = id; }).error();
    };
    const std::pair<std::uint32_t, const char*> types[] = {
        {18, "IQ3_XXS"}, {39, "MXFP4"}, {34, "TQ1_0"}, {16, "IQ2_XXS"}, {31, "Q4_0_4_4"}, {28, "F64"}, {139, "139"}};
    for (const auto& [id, name] : types) CHECK(retyped(id).find(name) != std::string::npos);
}

TEST_CASE("q, k and v in one tensor of a GGUF are the same model") {
    const Changed fused([](Gguf& g) {
        for (int layer = 0; layer < 6; ++layer) {
            const std::string prefix = "blk." + std::to_string(layer) + ".attn_";
            Gguf::Tensor qkv{prefix + "qkv.weight", {0, 128}, 0, ""};
            for (const char* part : {"q", "k", "v"}) {
                const Gguf::Tensor one = g.tensor(prefix + part + ".weight");
                qkv.shape[0] += one.shape[0];
                qkv.bytes += one.bytes;
                g.tensors.erase(std::find_if(g.tensors.begin(), g.tensors.end(),
                                             [&](const Gguf::Tensor& t) { return t.name == one.name; }));
            }
            g.tensors.push_back(qkv);
        }
    });
    check_logits(load(fused.path, DType::f32), reference("gemma3-tiny", "as it is"));
}

TEST_CASE("a weight that is infinite or no number is an error that names its tensor") {
    const float bad[] = {INFINITY, -INFINITY, NAN};
    for (const char* name :
         {"blk.2.ffn_down.weight", "token_embd.weight", "blk.1.attn_norm.weight", "output_norm.weight"})
        for (const float value : bad) {
            const Changed file([&](Gguf& g) { std::memcpy(&g.tensor(name).bytes[32], &value, sizeof value); });
            for (const DType dtype : kDTypes) {
                CHECK(file.error(dtype).find(name) != std::string::npos);
                CHECK(file.error(dtype).find("infinite") != std::string::npos);
            }
        }
    const float large = 1e7f;
    const Changed file(
        [&](Gguf& g) { std::memcpy(&g.tensor("blk.2.ffn_down.weight").bytes[32], &large, sizeof large); });
    CHECK(file.error(DType::q8_0).find("--dtype f32") != std::string::npos);
    CHECK(file.error(DType::f32) == "");
}

TEST_CASE("a Q8_0 block whose scale is infinite is found") {
    const TemporaryDirectory directory;
    const std::string path = (directory.path / "model.gguf").string();
    Gguf file = small_gguf(true);
    for (Gguf::Tensor& t : file.tensors)
        if (t.type == 8) {
            t.bytes[1] = '\x7C';
            write_file(path, file.bytes());
            CHECK(error_of([&] { load(path); }).find(t.name) != std::string::npos);
            return;
        }
    FAIL("there is no Q8_0 tensor");
}

TEST_CASE("keys and values beyond F16 are an error that says what to do, and run in F32") {
    const Changed file([](Gguf& g) {
        for (int i = 0; i < 64; ++i) {
            const float huge = 1e5f;
            std::memcpy(&g.tensor("blk.0.attn_k_norm.weight").bytes[usize(4 * i)], &huge, sizeof huge);
        }
    });
    Session exact(load(file.path, DType::f32)), rounded(load(file.path, DType::q8_0));
    CHECK(std::isfinite(last_logits(exact, {2, 5, 6})[0]));
    const std::string error = error_of([&] { last_logits(rounded, {2, 5, 6}); });
    CHECK(error.find("--dtype f32") != std::string::npos);
    CHECK(rounded.position() == 0);

    // Zero times infinity would reach tokens before the one that it belongs to.
    const Changed infinite([](Gguf& g) {
        for (int i = 0; i < 64; ++i) {
            const float huge = 3e38f;
            std::memcpy(&g.tensor("blk.0.attn_k_norm.weight").bytes[usize(4 * i)], &huge, sizeof huge);
        }
    });
    Session beyond(load(infinite.path, DType::f32));
    CHECK_ERROR(last_logits(beyond, {2, 5, 6}), "infinite", "layer 0");
}

// ---- Hugging Face checkpoints

// Replaces a text everywhere in the header of a safetensors file.
std::string with_header(const std::string& bytes, const std::string& from, const std::string& to) {
    const auto length = usize(detail::load_as<std::uint64_t>(bytes.data()));
    std::string header = bytes.substr(8, length);
    for (std::size_t at = 0; (at = header.find(from, at)) != std::string::npos; at += to.size())
        header.replace(at, from.size(), to);
    return raw(std::uint64_t{header.size()}) + header + bytes.substr(8 + length);
}

struct Directory {
    TemporaryDirectory directory;
    fs::path path = directory.path;
    std::string weights = read_file(fs::path(tiny(name)) / "model.safetensors");
    static constexpr const char* name = "gemma3-tiny";
    explicit Directory(const std::string& from = "", const std::string& to = "") {
        fs::copy(tiny(name), path);
        if (!from.empty()) weights = with_header(weights, from, to);
        write_file((path / "model.safetensors").string(), weights);
    }
    std::string error() const {
        return error_of([&] { load(path); });
    }
};

TEST_CASE("what two objects of config.json say together is what transformers makes of them") {
    const TemporaryDirectory directory;
    fs::copy(tiny("gemma3-tiny"), directory.path);
    const std::string config = read_file(directory.path / "config.json");
    const auto with = [&](const std::string& text) {
        write_file(directory.path / "config.json", text);
        return load(directory.path, DType::f32);
    };

    // The type of RoPE stands in rope_parameters, though rope_scaling is there, too.
    const auto rope = [&](const std::string& type) {
        return replaced(config, "\"rope_scaling\": null",
                        "\"rope_scaling\": {\"rope_theta\": 1000000}, \"rope_parameters\": {\"full_attention\": "
                        "{\"rope_type\": \"" +
                            type + "\", \"factor\": 8}}");
    };
    CHECK_ERROR(with(rope("yarn")), "yarn");
    check_logits(with(rope("linear")), reference("gemma3-tiny", "linear RoPE scaling 8"));

    // Of a multimodal model the outer object says whether the head is tied.
    const std::string inner = replaced(config, "\"head_dim\"", "\"tie_word_embeddings\": false, \"head_dim\"");
    const auto outer = [&](const char* tied) {
        return std::string("{\"model_type\": \"gemma3\", ") + tied + "\"text_config\": " + inner + "}";
    };
    check_logits(with(outer("\"tie_word_embeddings\": true, ")), reference("gemma3-tiny", "as it is"));
    check_logits(with(outer("")), reference("gemma3-tiny", "as it is"));
    CHECK_ERROR(with(inner), "lm_head.weight");
}

TEST_CASE("whatever stands before the names of a checkpoint's tensors") {
    for (const char* prefix : {"_orig_mod.model.", "module.", "", "model.language_model.", "a.b.c."}) {
        CAPTURE(prefix);
        check_logits(load(Directory("\"model.", std::string("\"") + prefix).path, DType::f32),
                     reference("gemma3-tiny", "as it is"));
    }
}

TEST_CASE("checkpoints that other tools made are told apart") {
    const auto renamed = [](const char* to) { return Directory("self_attn.q_proj.weight", to).error(); };
    CHECK(renamed("self_attn.q_proj.base_layer.weight").find("merge_and_unload") != std::string::npos);
    CHECK(renamed("self_attn.q_proj.lora_A.weight").find("merge_and_unload") != std::string::npos);
    CHECK(renamed("self_attn.q_proj.qweight").find("GPTQ") != std::string::npos);
    CHECK(renamed("self_attn.q_proj.weight.absmax").find("bitsandbytes") != std::string::npos);
    CHECK(renamed("self_attn.q_proj.weight_scale_inv").find("FP8") != std::string::npos);
    CHECK(renamed("self_attn.q_proj.scales").find("MLX") != std::string::npos);
    CHECK(renamed("self_attn.q_proj.bias").find("q_proj") != std::string::npos);

    const Directory adapter;
    fs::copy(adapter.path / "model.safetensors", adapter.path / "adapter_model.safetensors");
    CHECK(adapter.error().find("adapter") != std::string::npos);
    fs::rename(adapter.path / "adapter_model.safetensors", adapter.path / "adapter_config.json");
    CHECK(adapter.error().find("adapter_config.json") != std::string::npos);
}

TEST_CASE("a file or directory that is no model says what it is") {
    const struct {
        std::string file, bytes, says, remedy;
    } cases[] = {
        {"m.gguf", "version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "Git LFS", "git lfs pull"},
        {"model.safetensors", "version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "Git LFS", "git lfs pull"},
        {"config.json", "version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "Git LFS", "git lfs pull"},
        {"tokenizer.json", "version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "Git LFS", "git lfs pull"},
        {"model.safetensors", "\n<!DOCTYPE html><html></html>", "web page", "download"},
        {"m.gguf", "<html></html>", "web page", "download"},
        {"m.gguf", "<hi>", "not a model", ".gguf"},
        {"pytorch_model.bin", std::string("PK\3\4\0\0", 6), "zip", "safetensors"},
        {"model.pt", "\x80\x02}q", "pickle", "safetensors"},
        {"model.onnx", "\x08\x07\x12\x07pytorch", "ONNX", "safetensors"},
        {"m.gguf", "lmgg", "GGML", "GGUF"},
        {"m.gguf", "", "empty", "download"},
    };
    for (const auto& one : cases) {
        CAPTURE(one.file);
        CAPTURE(one.bytes);
        const Directory directory;
        const bool part = one.file == "config.json" || one.file == "tokenizer.json" || one.file == "model.safetensors";
        write_file((directory.path / one.file).string(), one.bytes);
        const std::string error = error_of([&] { load(part ? directory.path : directory.path / one.file); });
        CAPTURE(error);
        CHECK(error.find(one.says) != std::string::npos);
        CHECK(error.find(one.remedy) != std::string::npos);
        CHECK(error.find(one.file) != std::string::npos);
    }
    const std::pair<const char*, const char*> lonely[] = {{"pytorch_model.bin", "pickle"},
                                                          {"adapter_model.safetensors", "merge_and_unload"},
                                                          {"some.gguf", "name the file"},
                                                          {"model.onnx", "ONNX"},
                                                          {"flax_model.msgpack", "Flax"}};
    for (const auto& [file, says] : lonely) {
        const TemporaryDirectory directory;
        write_file((directory.path / file).string(), "x");
        const std::string error = error_of([&] { load(directory.path); });
        CAPTURE(error);
        CHECK(error.find(says) != std::string::npos);
        CHECK(error.find(directory.path.string()) != std::string::npos);
    }
    const TemporaryDirectory directory;  // what is no model beside one, and a model's place in Hugging Face's cache
    write_file(directory.path / "training_args.bin", "x");
    write_file(directory.path / "some.gguf", "x");
    CHECK_ERROR(load(directory.path), "some.gguf");
    fs::create_directories(directory.path / "models--a--b" / "snapshots" / "1234");
    CHECK_ERROR(load(directory.path / "models--a--b"), "name the directory in", "snapshots");
}

TEST_CASE("GPT-2 as MLX saves it, with matrices as [out, in], is the same model") {
    const std::string weights = read_file(fs::path(tiny("gpt2-tiny")) / "model.safetensors");
    const auto length = usize(detail::load_as<std::uint64_t>(weights.data()));
    const JsonDocument header(weights.substr(8, length), "header");
    std::string text, data = weights.substr(8 + length);
    for (const auto& [name, tensor] : header.root().members()) {
        if (!tensor.find("shape")) continue;
        std::vector<std::size_t> shape;
        for (const Json& n : tensor["shape"].array()) shape.push_back(usize(n.whole()));
        const auto begin = usize(tensor["data_offsets"].array()[0].whole());
        if (shape.size() == 2 && name.find("c_") != name.npos) {
            const std::string old = data.substr(begin, 2 * shape[0] * shape[1]);  // F16
            for (std::size_t r = 0; r < shape[0]; ++r)
                for (std::size_t c = 0; c < shape[1]; ++c)
                    std::copy_n(&old[2 * (r * shape[1] + c)], 2, &data[begin + 2 * (c * shape[0] + r)]);
            std::swap(shape[0], shape[1]);
        }
        std::string sizes;
        for (const std::size_t n : shape) sizes += (sizes.empty() ? "" : ",") + std::to_string(n);
        text += (text.empty() ? "{\"" : ",\"") + std::string(name) + "\":{\"dtype\":\"F16\",\"shape\":[" + sizes +
                "],\"data_offsets\":[" + std::to_string(begin) + "," +
                std::to_string(tensor["data_offsets"].array()[1].whole()) + "]}";
    }
    text += "}";
    const TemporaryDirectory directory;
    fs::copy(tiny("gpt2-tiny"), directory.path);
    write_file(directory.path / "model.safetensors", raw(std::uint64_t{text.size()}) + text + data);
    Session turned(load(directory.path)), plain(load(tiny("gpt2-tiny")));
    CHECK(last_logits(turned, {30, 31, 32}) == last_logits(plain, {30, 31, 32}));
}

TEST_CASE("a head in the file is used where it differs from the embedding") {
    // gpt2-tiny's third matrix of this size is none; so the embedding under two names, and then with one value changed.
    const std::string weights = read_file(fs::path(tiny("gpt2-tiny")) / "model.safetensors");
    const auto length = usize(detail::load_as<std::uint64_t>(weights.data()));
    const JsonDocument header(weights.substr(8, length), "header");
    const Json& range = *header.root().find("wte.weight")->find("data_offsets");
    const auto begin = usize(range.array()[0].whole()), end = usize(range.array()[1].whole());
    const std::string entry = ",\"lm_head.weight\":{\"dtype\":\"F16\",\"shape\":[768,128],\"data_offsets\":[" +
                              std::to_string(weights.size() - 8 - length) + "," +
                              std::to_string(weights.size() - 8 - length + end - begin) + "]}}";
    std::string text = weights.substr(8, length);
    text.erase(text.rfind('}'));
    const std::string head = weights.substr(8 + length + begin, end - begin);
    for (const bool differs : {false, true}) {
        const TemporaryDirectory directory;
        fs::copy(tiny("gpt2-tiny"), directory.path);
        std::string other = head;
        if (differs) std::swap_ranges(other.begin(), other.begin() + 256, other.begin() + 256);  // rows 0 and 1
        write_file((directory.path / "model.safetensors").string(),
                   raw(std::uint64_t{(text + entry).size()}) + text + entry + weights.substr(8 + length) + other);
        const Model model = load(directory.path, DType::f32), plain = load(tiny("gpt2-tiny"), DType::f32);
        CHECK(model.config().tied_head == !differs);
        Session a(model), b(plain);
        const std::vector<int> ids = {30, 31, 32};
        std::vector<float> got = last_logits(a, ids), expected = last_logits(b, ids);
        if (differs) std::swap(expected[0], expected[1]);
        CHECK(got == expected);
    }
}

TEST_CASE("an index may name a tied head that is not there") {
    Files files = directory_of(true, true);
    std::string& index = files["model.safetensors.index.json"];
    index = replaced(index, "\"weight_map\":{", "\"weight_map\":{\"lm_head.weight\":\"part-0.safetensors\",");
    const TemporaryDirectory directory;
    write_files(directory.path, files);
    CHECK(load(directory.path).config().tied_head);

    index = replaced(index, "lm_head.weight", "lm_head.other");
    write_files(directory.path, files);
    CHECK(error_of([&] { load(directory.path); }).find("lm_head.other") != std::string::npos);
}

// ---- GGUF in parts

struct Parts {
    TemporaryDirectory directory;
    std::vector<std::string> paths;
    explicit Parts(int count) {
        const Gguf whole = as_gguf(tiny("gemma3-tiny"), TensorType::f32);
        for (int part = 0; part < count; ++part) {
            Gguf file;
            if (part == 0) file.pairs = whole.pairs;
            file.set("split.no", Gguf::u16, raw(std::uint16_t(part)));
            file.set("split.count", Gguf::u16, raw(std::uint16_t(count)));
            file.set("split.tensors.count", int(whole.tensors.size()));
            for (std::size_t i = usize(part); i < whole.tensors.size(); i += usize(count))
                file.tensors.push_back(whole.tensors[i]);
            paths.push_back(
                (directory.path / ("m-0000" + std::to_string(part + 1) + "-of-0000" + std::to_string(count) + ".gguf"))
                    .string());
            write_file(paths.back(), file.bytes());
        }
    }
    std::string error() const {
        return error_of([&] { load(paths[0]); });
    }
};

TEST_CASE("a GGUF in several parts is loaded by the name of any of them") {
    const Parts parts(3);
    for (const std::string& path : parts.paths)
        check_logits(load(path, DType::f32), reference("gemma3-tiny", "as it is"));

    write_file(parts.paths[1], read_file(parts.paths[2]));
    CHECK(parts.error().find("part 2 of 3") != std::string::npos);
    fs::remove(parts.paths[1]);
    CHECK(parts.error().find(parts.paths[1]) != std::string::npos);

    const Parts renamed(2);
    const std::string other = (renamed.directory.path / "model.gguf").string();
    fs::copy(renamed.paths[0], other);
    CHECK(error_of([&] { load(other); }).find("-00001-of-00002.gguf") != std::string::npos);
}

#ifdef __linux__
TEST_CASE("the processor time that control groups allow") {
    const TemporaryDirectory directory;
    const auto quota = [&](const std::string& list) {
        write_file((directory.path / "list").string(), list);
        return detail::group_quota("cpu", (directory.path / "list").string(), directory.path.string());
    };
    const auto write = [&](const fs::path& path, const std::string& text) {
        fs::create_directories((directory.path / path).parent_path());
        write_file((directory.path / path).string(), text);
    };
    CHECK(quota("0::/a/b\n") == INFINITY);
    write("a/cpu.max", "150000 100000\n");
    write("a/b/cpu.max", "max 100000\n");
    CHECK(quota("0::/a/b\n") == 2);
    write("a/b/cpu.max", "50000 100000\n");
    CHECK(quota("0::/a/b\n") == 1);
    CHECK(quota("0::/\n") == INFINITY);
    write("cpu.max", "400000 100000");
    CHECK(quota("0::/\n") == 4);
    CHECK(quota("0::/elsewhere\n") == 4);

    write("cpu/docker/cpu.cfs_quota_us", "250000\n");
    write("cpu/docker/cpu.cfs_period_us", "100000\n");
    write("cpu/free/cpu.cfs_quota_us", "-1\n");
    write("cpu/free/cpu.cfs_period_us", "100000\n");
    CHECK(quota("4:memory:/docker\n3:cpu,cpuacct:/docker\n") == 3);
    CHECK(quota("3:cpuacct,cpu:/free\n") == INFINITY);
    CHECK(quota("3:cpuset:/docker\n") == INFINITY);
    CHECK(quota("no line of this kind\n:\n") == INFINITY);
}

TEST_CASE("the memory that control groups allow") {
    const TemporaryDirectory directory;
    const auto quota = [&](const std::string& list) {
        write_file((directory.path / "list").string(), list);
        return detail::group_quota("memory", (directory.path / "list").string(), directory.path.string());
    };
    for (const char* group : {"a/b", "memory/docker"}) fs::create_directories(directory.path / group);
    CHECK(quota("0::/a/b\n") == INFINITY);
    write_file((directory.path / "a" / "memory.max").string(), "3000000\n");
    write_file((directory.path / "a" / "b" / "memory.max").string(), "max\n");
    CHECK(quota("0::/a/b\n") == 3000000);
    CHECK(quota("0::/\n") == INFINITY);
    write_file((directory.path / "memory" / "docker" / "memory.limit_in_bytes").string(), "2000000\n");
    CHECK(quota("4:memory:/docker\n3:cpu:/docker\n") == 2000000);
    CHECK(quota("3:cpu:/docker\n") == INFINITY);
}
#endif

}  // namespace
}  // namespace tests
