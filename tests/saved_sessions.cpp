// Sessions in files.

#include "programs.h"
#include "small_models.h"
#include "support.h"

#include <sys/resource.h>
#include <sys/stat.h>

#include <csignal>
#include <set>

namespace tests {
namespace {

TEST_CASE("a saved session goes on where it was, in any context it fits into") {
    for (const std::string& name : kTinyModels)
        for (const DType dtype : {DType::f32, DType::q8_0}) {
            CAPTURE(name + " " + name_of(dtype));
            const Model model = load(tiny(name), dtype);
            const int most = model.config().context_length;
            const TemporaryDirectory directory;
            const std::string file = (directory.path / "session").string();
            const std::vector<int> ids = Random{6}.tokens(most, model.config().vocab_size);
            // Tokens held, how many more came and were taken back, contexts of the writer and the reader
            struct Case {
                int held, more, context, readers;
            };
            const Case cases[] = {{0, 0, most, most},
                                  {1, 0, 16, most},
                                  {15, 0, most, 16},
                                  {16, 0, most, 17},
                                  {64, 3, 80, most},
                                  {100, 0, most, 101},
                                  {most - 60, 59, most, most - 58},
                                  {most - 60, 59, most, most},
                                  {most - 130, 129, most, most - 100},
                                  {most, 0, most, most}};
            for (const Case& one : cases) {  // not taken apart: CAPTURE could not see the parts
                const int held = one.held, more = one.more, context = one.context, readers = one.readers;
                CAPTURE(held);
                Session session(model, context);
                if (held + more > 0) session.forward(ids.data(), held + more);
                session.rewind(held);
                session.save(file);
                Session reader(model, readers);
                reader.forward(ids.data() + 3, 5);
                reader.load(file);
                CHECK(reader.tokens() == session.tokens());
                for (int to : {held, held - 1, held - 40, held - 200}) {
                    if (to < 0 || to >= std::min(context, readers)) continue;
                    session.rewind(to);
                    reader.rewind(to);
                    const int n = std::min({3, context - to, readers - to});
                    CHECK(logits_of(reader, {ids.begin(), ids.begin() + n}, 1) ==
                          logits_of(session, {ids.begin(), ids.begin() + n}, 1));
                    session.rewind(to);
                    reader.rewind(to);
                }
            }
            // A token that was shown and not yet read
            Session whole(model), first(model), second(model);
            const std::string expected = generated(whole, "To be", greedy(40));
            const std::string begun = generated(first, "To be", greedy(17));
            first.save(file);
            second.load(file);
            CHECK(begun + generated(second, "", greedy(23)) == expected);
        }
}

TEST_CASE("a saved session that is damaged or of another model is refused, and nothing changes") {
    const Model model = load(tiny("gemma3-tiny"));
    Session session(model), writer(model);
    generated(writer, "ROMEO:", greedy(45));
    const TemporaryDirectory directory;
    const std::string file = (directory.path / "session").string();
    writer.save(file);
    const std::string good = read_file(file);
    const std::string before = generated(session, "JULIET:", greedy(5));
    const std::vector<int> held = session.tokens();
    const auto refused = [&](const std::string& bytes) {
        write_file(file, bytes);
        const std::string error = error_of([&] { session.load(file); });
        CHECK(session.tokens() == held);
        return error;
    };
    for (std::size_t i = 0; i < good.size(); i += i < 300 ? 1 : 997) {
        std::string bad = good;
        bad[i] = static_cast<char>(bad[i] ^ (1 << i % 8));
        CAPTURE(i);
        CHECK(refused(bad).find(file) != std::string::npos);
        CHECK(refused(good.substr(0, i)).find(file) != std::string::npos);
    }
    CHECK(refused(good + "x").find("damaged") != std::string::npos);
    CHECK(refused("").find("not a saved session") != std::string::npos);
    // Tokens and counts that are wrong, under a checksum that is right
    const auto signed_again = [&](std::size_t at, int value) {
        std::string bytes = good.substr(0, good.size() - 8);
        std::memcpy(&bytes[at], &value, sizeof value);
        return bytes + Gguf::raw(detail::hash(0, bytes.data(), bytes.size()));
    };
    CHECK(signed_again(32, writer.tokens()[0]) == good);
    for (const int id : {-1, 1024, INT_MAX}) CHECK(refused(signed_again(32, id)).find("damaged") != std::string::npos);
    for (const std::size_t at : {12u, 16u, 20u})  // held, processed, written
        for (const int count : {-1, 2, 600, INT_MAX})
            CHECK(refused(signed_again(at, count)).find(file) != std::string::npos);
    CHECK(refused(signed_again(8, 3)).find("version 3") != std::string::npos);
    CHECK(generated(session, "", greedy(20)) == [&] {
        Session fresh(model);
        return generated(fresh, "JULIET:", greedy(25)).substr(before.size());
    }());

    write_file(file, good);
    const auto load_into = [&](const Model& other, int context) {
        Session reader(other, context);
        return error_of([&] { reader.load(file); });
    };
    CHECK(load_into(load(tiny("gpt2-tiny")), 0).find("another model") != std::string::npos);
    CHECK(load_into(load(tiny("gemma3-tiny"), DType::f32), 0).find("another model") != std::string::npos);
    CHECK(load_into(Model::random(model.config()), 0).find("another model") != std::string::npos);
    CHECK(load_into(model, 20).find("use a context of as many") != std::string::npos);
    CHECK(load_into(model, writer.position()) == "");
    CHECK(error_of([&] { session.load("no/such/file"); }).find("no/such/file") != std::string::npos);
    // What cannot be written leaves nothing behind.
    const fs::path taken = directory.path / "taken";
    fs::create_directories(taken / "inside");
    for (const std::string& target : {taken.string(), (taken / "no" / "session").string()})
        CHECK(error_of([&] { writer.save(target); }).find(target) != std::string::npos);
    CHECK(std::distance(fs::directory_iterator(directory.path), fs::directory_iterator()) == 2);
}

TEST_CASE("a session of a model that differs in one norm or one matrix is refused") {
    const std::vector<std::string> names[] = {
        {"wte", "h.1.ln_1", "h.0.ln_2", "h.1.attn.c_attn", "h.0.attn.c_proj", "h.1.mlp.c_fc", "h.0.mlp.c_proj"},
        {"embed_tokens", "layers.0.input_layernorm", "layers.1.self_attn.q_norm", "layers.0.post_attention_layernorm",
         "layers.1.pre_feedforward_layernorm", "layers.0.post_feedforward_layernorm", "layers.1.self_attn.q_proj",
         "layers.0.self_attn.o_proj", "layers.1.mlp.gate_proj", "layers.0.mlp.down_proj"}};
    for (const bool gemma : {false, true})
        for (const DType dtype : {DType::f32, DType::q8_0}) {
            const TemporaryDirectory directory;
            const Files files = directory_of(gemma);
            write_files(directory.path, files);
            const std::string saved = (directory.path / "session").string();
            Session writer(load(directory.path, dtype));
            writer.forward(std::vector<int>{5, 6, 7}.data(), 3);
            writer.save(saved);
            Session same(load(directory.path, dtype));
            same.load(saved);
            CHECK(same.tokens() == writer.tokens());
            for (const std::string& name : names[gemma]) {
                CAPTURE(name);
                std::string weights = files.at("model.safetensors");
                const std::string full = (gemma ? "model." : "transformer.") + name + ".weight";
                const auto checkpoint = detail::open_checkpoint(directory.path.string());
                weights[usize(checkpoint.tensors.at(full).offset + 1)] =
                    0x41;  // of the first value, which becomes 2 or more
                write_file(directory.path / "model.safetensors", weights);
                Session other(load(directory.path, dtype));
                CHECK_ERROR(other.load(saved), "another model", saved);
                CHECK(other.position() == 0);
                write_file(directory.path / "model.safetensors", files.at("model.safetensors"));
            }
        }
}

TEST_CASE("a session that cannot be written whole leaves the file before it as it was") {
    const TemporaryDirectory directory;
    const std::string file = (directory.path / "session").string();
    Session session(load(tiny("gpt2-tiny")), 0, 1);
    generated(session, "To be", greedy(10));
    session.save(file);
    const std::string before = read_file(file);
    generated(session, "", greedy(10));
    CHECK(in_child([&] {
              std::signal(SIGXFSZ, SIG_IGN);
              const rlimit limit = {before.size() / 2, before.size() / 2};  // of a file, in bytes
              if (setrlimit(RLIMIT_FSIZE, &limit) != 0) return 2;
              const std::string error = error_of([&] { session.save(file); });
              return error.find("cannot write the session") != error.npos && error.find(file) != error.npos ? 0 : 1;
          }) == 0);
    CHECK(read_file(file) == before);
    CHECK(std::distance(fs::directory_iterator(directory.path), fs::directory_iterator()) == 1);
    session.save(file);
    CHECK(read_file(file) != before);
    CHECK(std::distance(fs::directory_iterator(directory.path), fs::directory_iterator()) == 1);
}

TEST_CASE("a hash tells words apart, and the same words in another order") {
    std::set<std::uint64_t> all;
    std::vector<std::uint64_t> words = {0, 1, 2, 3, 4};
    int orders = 0;
    do {
        all.insert(detail::hash(7, words.data(), words.size() * sizeof words[0]));
        ++orders;
    } while (std::next_permutation(words.begin(), words.end()));
    CHECK(all.size() == usize(orders));
}

TEST_CASE("a session goes where a link leads, and never in the place of what is no file") {
    const TemporaryDirectory directory;
    const fs::path file = directory.path / "session", link = directory.path / "link", pipe = directory.path / "pipe";
    Session session(load(tiny("gpt2-tiny")), 0, 1);
    generated(session, "To be", greedy(5));
    session.save(file.string());
    fs::create_symlink("session", link);
    generated(session, "", greedy(5));
    session.save(link.string());
    CHECK(fs::is_symlink(link));
    Session other(session.model(), 0, 1);
    other.load(file.string());
    CHECK(other.tokens() == session.tokens());

    REQUIRE(mkfifo(pipe.c_str(), 0600) == 0);
    CHECK_ERROR(session.save(pipe.string()), "not a file", pipe.string());
    CHECK(fs::is_fifo(pipe));
    CHECK_ERROR(session.save(directory.path.string()), "not a file", directory.path.string());
    CHECK(std::distance(fs::directory_iterator(directory.path), fs::directory_iterator()) == 3);
}

}  // namespace
}  // namespace tests
