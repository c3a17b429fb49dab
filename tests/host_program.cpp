// The host program is safe: no memory, no threads, files that change, callbacks that throw, wrong calls.

#include "heap.h"
#include "small_models.h"
#include "support.h"

#include <sys/resource.h>
#include <sys/wait.h>

namespace tests {
namespace {

int threads_running() {
#if LLM_TSAN  // it adds one of its own to a program's first
    static const bool added = (std::thread([] {}).join(), true);
    (void)added;
#endif
    int n = 0;
    for (const auto& task : fs::directory_iterator("/proc/self/task")) n += !task.path().empty();
    return n;
}
// The system lists a thread for a moment after it was joined.
bool threads_are(int expected) {
    for (int i = 0; i < 2000 && threads_running() != expected; ++i)
        std::this_thread::sleep_for(std::chrono::milliseconds(1));
    return threads_running() == expected;
}

// Runs the call in a process of its own; what it returns comes back.
template <class Call> int in_child(const Call& call) {
    const pid_t child = fork();
    REQUIRE(child >= 0);
    if (child == 0) {
        int code = 100;
        try {
            code = call();
        } catch (...) {
        }
        _exit(code);
    }
    int status = 0;
    REQUIRE(waitpid(child, &status, 0) == child);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

// The small models in a directory, and what a program does with them.
struct Small {
    TemporaryDirectory directory;
    explicit Small(bool gemma) { write_files(directory.path, directory_of(gemma)); }
    Model model(int threads = 2) const { return load(directory.path, DType::q8_0, threads); }
    void use(int threads) const {
        const Model m = model(threads);
        Session session(m, 0, threads);
        generated(session, "To be", greedy(3));
        session.rewind(1);
        Session moved = std::move(session);
        moved.forward_each(std::vector<int>{1, 2, 3}.data(), 3, [](int, const float*) {});
        Session fork = moved.fork();
        llm::forward_together({&moved, &fork}, {{1, 2}, {3}});
        llm::generate_many(fork, {"To be or", "To be not"}, greedy(2));
    }
};

TEST_CASE("when memory runs out at any allocation, bad_alloc comes out and nothing stays behind" *
          doctest::skip(!LLM_COUNTED_HEAP)) {
    for (const bool gemma : {false, true})
        for (const int threads : {1, 3}) {
            const Small small(gemma);
            small.use(threads);
            const long long before = Heap::live;
            const int running = threads_running();
            long long failures = 0;
            bool finished = false;
            for (long long n = 0; !finished; n += n < 400 ? 1 : n / (LLM_ASAN ? 60 : 300)) {
                Heap::failed = false;
                Heap::until_failure = n;
                bool thrown = false;
                try {
                    small.use(threads);
                } catch (const std::bad_alloc&) {
                    thrown = true;
                } catch (const llm::Error&) {  // a system call that reports its own lack of memory
                    thrown = true;
                }
                Heap::until_failure = -1;
                finished = !Heap::failed;
                failures += Heap::failed;
                if (thrown == finished || Heap::live != before || !threads_are(running)) {
                    CAPTURE(n);
                    CHECK(thrown != finished);
                    CHECK(Heap::live == before);
                    CHECK(threads_are(running));
                    break;
                }
            }
            CHECK(failures > 150);
        }
}

TEST_CASE("a session that ran out of memory half-way can go on") {
    for (const bool gemma : {false, true}) {
        const Small small(gemma);
        const Model model = small.model();
        const std::vector<int> ids = {5, 6, 7, 8, 9, 10, 11, 12};
        Session expected(model, 0, 2);
        const float* logits = expected.forward(ids.data(), 8);
        const std::vector<float> good(logits, logits + model.config().vocab_size);
        for (int n = 0; n < 40; ++n) {
            Session session(model, 0, 2);
            session.forward(ids.data(), 3);
            Heap::until_failure = n;
            int done = 3;
            try {
                session.forward(ids.data() + 3, 5);
                done = 8;
            } catch (const std::bad_alloc&) {
                done = session.position();
            }
            Heap::until_failure = -1;
            CHECK((done == 3 || done == 8));
            session.rewind(std::min(done, 5));
            done = session.position();
            logits = session.forward(ids.data() + done, 8 - done);
            for (std::size_t i = 0; i < good.size(); ++i) CHECK(logits[i] == doctest::Approx(good[i]).epsilon(1e-3));
        }
    }
}

struct Stop {};  // no std::exception

TEST_CASE("what a callback throws comes out, and the session can go on") {
    Small(true);  // what is kept from a first use on
    const long long before = Heap::live;
    const int running = threads_running();
    {
        const Small small(true);
        for (int n = 0; n < 30; ++n) {
            llm::LoadOptions options;
            options.threads = 2;
            int calls = 0;
            options.progress = [&](float, const char*) {
                if (calls++ == n) throw Stop();
            };
            if (n < 8) CHECK_THROWS_AS(Model::load(small.directory.path.string(), options), Stop);
        }
        const Model model = small.model();
        Session session(model, 0, 2), other(model, 0, 2);
        llm::GenerateOptions options;
        options.sampling.temperature = 0;
        options.max_tokens = 4;
        options.ignore_end = true;
        const std::string whole = generated(other, "To", options);
        other.rewind(0);
        std::string shown;
        const auto stop = [&](std::string_view piece) -> bool {
            shown += piece;
            throw Stop();
        };
        CHECK_THROWS_AS(llm::generate(session, "To", options, stop), Stop);
        CHECK(shown + generated(session, "", greedy(3)) == whole);
        CHECK_THROWS_AS(session.forward_each(std::vector<int>{1, 2, 3}.data(), 3,
                                             [](int i, const float*) {
                                                 if (i == 1) throw Stop();
                                             }),
                        Stop);
        const int held = session.position();
        session.on_timing([](const llm::Timing&) { throw Stop(); });
        CHECK_THROWS_AS(session.forward(std::vector<int>{4}.data(), 1), Stop);
        session.on_timing(nullptr);
        CHECK(session.position() == held + 1);  // reports come when a step is done
        session.rewind(0);
        CHECK(generated(session, "To be", greedy(6)) == generated(other, "To be", greedy(6)));
        // A callback that ends a generation: what it saw last is part of the conversation.
        session.rewind(0);
        other.rewind(0);
        llm::generate(session, "To be", options, [](std::string_view) { return false; });
        session.rewind(0);
        CHECK(generated(session, "To be", greedy(6)) == generated(other, "To be", greedy(6)));
    }
    CHECK(Heap::live == before);
    CHECK(threads_are(running));
}

TEST_CASE("a callback may replace its session, and what runs ends as before") {
    const Small small(true);
    const Model model = small.model();
    Session session(model, 0, 1), other(model, 0, 1);
    const std::string whole = generated(other, "To", greedy(4));
    std::string shown;
    llm::generate(session, "To", greedy(4), [&](std::string_view text) {
        if (session.position() > 0) session = Session(model, 0, 1);
        shown += text;
        return true;
    });
    CHECK(shown == whole);
    CHECK(session.position() == 0);
    session.on_layer([&](int, int, int, float*) { session = Session(model, 0, 1); });
    CHECK_NOTHROW(session.forward({1, 2, 3}));
    CHECK(session.position() == 0);
}

// A file that becomes shorter while it is loaded is an Error, as nothing is mapped; one that vanishes is still there
// for those who opened it.
TEST_CASE("a file may shrink or vanish while it is read") {
    const int running = threads_running();
    for (const bool vanish : {false, true})
        for (int step = 0; step < 12; ++step) {
            const Small small(true);
            const fs::path path = small.directory.path / "model.safetensors";
            llm::LoadOptions options;
            options.threads = 2;
            int calls = 0;
            bool opened = false;
            options.progress = [&](float, const char* what) {
                opened = opened || std::string(what) == "tokenizer";  // the weights' file is open by then
                if (calls++ != step) return;
                if (vanish) fs::remove(path);
                else fs::resize_file(path, fs::file_size(path) / 3);
            };
            CAPTURE(step);
            const std::string error = error_of([&] { Model::load(small.directory.path.string(), options); });
            if (vanish && step > 0) CHECK(error == "");
            if (!vanish && step < 4) CHECK_MESSAGE(error.find(step ? "became shorter" : "") != error.npos, error);
        }
    CHECK(threads_are(running));
}

TEST_CASE("a thread that cannot be created is an Error, and the others end") {
    const Small small(false);
    fs::permissions(small.directory.path, fs::perms::all);
    const Model model = small.model();
    const int code = in_child([&] {
        // The limit binds an ordinary user; nobody has no other processes here.
        if (getuid() == 0 && setuid(65534) != 0) return 2;
        const int running = threads_running();
        for (const rlim_t processes : {rlim_t{1}, rlim_t{3}}) {
            const rlimit limit = {processes, 100};
            if (setrlimit(RLIMIT_NPROC, &limit) != 0) return 3;
            const std::string error = error_of([&] { Session(model, 0, 8); });
            if (error.find("cannot start a thread") == error.npos || error.find("of 8") == error.npos) return 4;
            if (error_of([&] { load(small.directory.path, DType::q8_0, 8); }).find("cannot start a thread") ==
                error.npos)
                return 5;
            if (!threads_are(running)) return 6;
        }
        Session session(model, 0, 1);
        return generated(session, "To be", greedy(3)).empty() ? 7 : 0;
    });
    if (code == 2 || code == 3) MESSAGE("skipped, this system's limits cannot be set");
    else CHECK(code == 0);
}

TEST_CASE("when the system has no memory, bad_alloc comes out" * not_sanitized()) {
    llm::Config config = load(tiny("gemma3-tiny")).config();
    config.context_length = 1 << 20;
    const Model model = Model::random(config);
    config.intermediate_size = 1 << 18;
    const int code = in_child([&] {
        std::ifstream statm("/proc/self/statm");
        rlim_t pages = 0;
        statm >> pages;
        const rlimit limit = {pages * 4096 + (80 << 20), RLIM_INFINITY};
        if (setrlimit(RLIMIT_AS, &limit) != 0) return 2;
        const auto refused = [](const auto& call) {
            try {
                call();
            } catch (const std::bad_alloc&) {
                return true;
            }
            return false;
        };
        for (int i = 0; i < 20; ++i) {  // were anything left behind, the last call would find no memory
            if (!refused([&] { Model::random(config); })) return 3;
            if (!refused([&] { Session(model, 1 << 20, 1); })) return 4;
        }
        const int ids[] = {1, 2, 3};
        return Session(model, 64, 1).forward(ids, 3) ? 0 : 5;
    });
    CHECK(code == 0);
}

TEST_CASE("loading and failing again and again leaves no memory behind") {
    const auto address_space = [] {  // in pages
        std::ifstream statm("/proc/self/statm");
        long long pages = 0;
        statm >> pages;
        return pages;
    };
    Files files = directory_of(true);
    std::string& weights = files.at("model.safetensors");
    const std::size_t last = weights.rfind("post_feedforward");
    weights[last] = 'P';  // the last tensor is missing
    const TemporaryDirectory directory;
    write_files(directory.path, files);
    long long before = 0;
    for (int i = 0; i < 60; ++i) {
        CHECK_ERROR(load(directory.path), "a tensor is missing");
        if (i == 9) before = address_space();
    }
    CHECK((address_space() - before) * 4096 < 50ll * 64 << 20);  // a chunk of weights takes 64 MB of addresses
}

TEST_CASE("a wrong call is an Error that says what was asked and what is possible") {
    const Model model = load(tiny("gpt2-tiny"));
    Session session(model, 16);
    const int ids[20] = {1, 2, 3}, low = -1, high = 768;
    const auto nothing = [](int, const float*) {};

    CHECK_ERROR(session.forward(ids, 0), "no tokens", "0", "at least one");
    CHECK_ERROR(session.forward(ids, -5), "no tokens", "-5", "at least one");
    CHECK_ERROR(session.forward(nullptr, 3), "no tokens");
    CHECK_ERROR(session.forward_each(ids, 0, nothing), "no tokens", "at least one");
    CHECK_ERROR(session.forward(ids, 17), "17 tokens after 0", "16", "larger context");
    CHECK_ERROR(session.forward(ids, INT_MAX), std::to_string(INT_MAX), "16");
    CHECK_ERROR(session.forward_each(ids, 17, nothing), "17 tokens after 0", "16");
    CHECK_ERROR(session.forward(&low, 1), "token id", "-1", "0 to 767");
    CHECK_ERROR(session.forward(&high, 1), "token id", "768", "0 to 767");
    CHECK(session.position() == 0);
    session.forward(ids, 3);
    CHECK_ERROR(session.rewind(4), "rewind", "4", "0 to 3");
    CHECK_ERROR(session.rewind(-1), "rewind", "-1", "0 to 3");
    CHECK_ERROR(session.forward(ids, 14), "14 tokens after 3", "16");
    CHECK(session.position() == 3);

    CHECK_ERROR(Session(model, -1), "context size", "-1", "1 to 256");
    CHECK_ERROR(Session(model, 257), "context size", "257", "1 to 256");
    CHECK_ERROR(Session(model, 0, -2), "threads", "-2", "1 to 1024");
    CHECK_ERROR(Session(model, 0, 1025), "threads", "1025", "1 to 1024");
    CHECK_ERROR(model.session_bytes(-1), "context size", "-1");
    CHECK_ERROR(load(tiny("gpt2-tiny"), DType::q8_0, -1), "threads", "-1");
    CHECK_ERROR(Session(Model()), "no model", "Model::load");
    CHECK_ERROR(session.save(std::string("a\0b", 3)), "NUL");
    CHECK_ERROR(Model().config(), "no model", "Model::load");

    const llm::Tokenizer& tokenizer = model.tokenizer();
    CHECK_ERROR(tokenizer.piece(-1), "no token -1", "768");
    CHECK_ERROR(tokenizer.piece(768), "no token 768", "768");
    CHECK_ERROR(tokenizer.decode({1, INT_MAX}), std::to_string(INT_MAX));
    CHECK(tokenizer.decode({}) == "");
    CHECK(!tokenizer.is_eos(-1));
    CHECK_ERROR(llm::Tokenizer().encode("x"), "no tokenizer");
    CHECK_ERROR(llm::Tokenizer().piece(0), "no token 0");
    CHECK(llm::Tokenizer().vocab_size() == 0);
    CHECK(llm::Tokenizer().bos() == -1);
    CHECK(llm::Tokenizer().special_id("x") == -1);
    CHECK(!llm::Tokenizer().is_eos(0));

    llm::GenerateOptions options;
    options.max_tokens = -2;
    CHECK_ERROR(llm::generate(session, "a", options, nullptr), "max_tokens", "-2", "-1");
    options.max_tokens = 1;
    options.lookup = -1;
    CHECK_ERROR(llm::generate(session, "a", options, nullptr), "lookup", "-1", "0 to 11");
    options.lookup = 0;
    CHECK_ERROR(llm::generate(session, std::string(5000, 'a'), options, nullptr), "16", "larger context");
    Session random(Model::random(model.config()), 16);
    CHECK_ERROR(llm::generate(random, "a", options, nullptr), "no tokenizer");

    const auto sampler = [](auto set) {
        llm::Sampling s;
        set(s);
        llm::Sampler(s).accept(0);
    };
    CHECK_ERROR(sampler([](auto& s) { s.temperature = -1; }), "temperature", "-1");
    CHECK_ERROR(sampler([](auto& s) { s.temperature = NAN; }), "temperature", "nan");
    CHECK_ERROR(sampler([](auto& s) { s.top_p = 1.5f; }), "top_p", "1.5", "0 to 1");
    CHECK_ERROR(sampler([](auto& s) { s.min_p = -0.5f; }), "min_p", "0 to 1");
    CHECK_ERROR(sampler([](auto& s) { s.top_k = -1; }), "top_k", "-1");
    CHECK_ERROR(sampler([](auto& s) { s.repeat_penalty = 0; }), "repeat_penalty");
    CHECK_ERROR(sampler([](auto& s) { s.repeat_last_n = -1; }), "repeat_last_n", "-1");
    CHECK_ERROR(llm::Sampler().sample(nullptr, 5), "no logits");
    const float one = 1;
    CHECK_ERROR(llm::Sampler().sample(&one, 0), "no logits", "0");
    CHECK_ERROR(llm::Sampler().sample(&one, -3), "no logits", "-3");
}

TEST_CASE("a shape that cannot be is refused") {
    const llm::Config good = load(tiny("gemma3-tiny")).config();
    const auto refused = [&](auto change) {
        llm::Config c = good;
        change(c);
        return error_of([&] { Model::random(c, {}, 1); }) != "";
    };
    CHECK(!refused([](llm::Config&) {}));
    CHECK(refused([](llm::Config& c) { c.num_heads = 0; }));
    CHECK(refused([](llm::Config& c) { c.num_kv_heads = 3; }));
    CHECK(refused([](llm::Config& c) { c.head_dim = 7; }));
    CHECK(refused([](llm::Config& c) { c.head_dim = 1 << 20; }));
    CHECK(refused([](llm::Config& c) { c.hidden_size = -1; }));
    CHECK(refused([](llm::Config& c) { c.hidden_size = INT_MAX; }));
    CHECK(refused([](llm::Config& c) { c.intermediate_size = 1 << 24; }));
    CHECK(refused([](llm::Config& c) { c.vocab_size = INT_MAX; }));
    CHECK(refused([](llm::Config& c) { c.is_local.clear(); }));
    CHECK(refused([](llm::Config& c) { c.num_layers = INT_MAX; }));
}

// A program of 32 bits says that it is too small, before it reads for minutes.
TEST_CASE("a model larger than the address space is refused") {
    const bool is_small = sizeof(void*) == 4;
    detail::Checkpoint file;
    detail::Tensor tensor;
    tensor.shape = {1u << 20, std::uint64_t{1} << (is_small ? 12 : 43)};
    file.path = "huge";
    file.tensors.emplace("wte", tensor);
    llm::LoadOptions options;
    options.dtype = DType::f32;
    detail::ModelData model;
    detail::Loader loader{model, file, options};
    CHECK_ERROR(loader.load(), "too large for a program of",
                is_small ? "32 bits: huge, 17179 MB" : "64 bits: huge, 36893488147419 MB");
}

TEST_CASE("a call that cannot work says what was asked and what is possible") {
    const Model model = load(tiny("gpt2-tiny"));
    Session session(model, 16);
    const std::vector<int> ids(20, 5);
    session.forward(ids.data(), 10);
    const std::vector<int> bad_second = {1, 768};
    const auto with_ids = [&](std::vector<int> bad) { session.forward(bad.data(), static_cast<int>(bad.size())); };
    const auto with_shape = [](void (*change)(llm::Config&)) {
        llm::Config c = shape("gemma3", 32, 4, 2, 16, 64);
        change(c);
        Model::random(c);
    };
    const std::pair<std::function<void()>, std::vector<std::string>> cases[] = {
        {[&] { session.forward(ids.data(), 0); }, {"0"}},
        {[&] { session.forward(ids.data(), -1); }, {"-1"}},
        {[&] { session.forward(nullptr, 1); }, {"token"}},
        {[&] { session.forward(ids.data(), 7); }, {"7", "10", "16"}},
        {[&] { with_ids(bad_second); }, {"768", "767"}},
        {[&] { with_ids({-1}); }, {"-1", "767"}},
        {[&] { session.forward_each(ids.data(), 7, [](int, const float*) {}); }, {"7", "10", "16"}},
        {[&] { session.rewind(-1); }, {"-1", "10"}},
        {[&] { session.rewind(11); }, {"11", "10"}},
        {[&] { Session other(model, 257); }, {"257", "256"}},
        {[&] { Session other(model, -1); }, {"-1", "256"}},
        {[&] { Session other(model, 16, -1); }, {"-1", "threads"}},
        {[&] { Session other(model, 16, 100000); }, {"100000", "threads"}},
        {[&] { load(tiny("gpt2-tiny"), DType::q8_0, -5); }, {"-5", "threads"}},
        {[&] { Model::load("no/such/model"); }, {"no/such/model"}},
        {[&] { Model::load(""); }, {"no such file"}},
        {[&] { Model::load("/dev/null"); }, {"/dev/null"}},
        {[&] { with_shape([](llm::Config& c) { c.vocab_size = 0; }); }, {"size"}},
        {[&] { with_shape([](llm::Config& c) { c.hidden_size = INT_MAX; }); }, {"size"}},
        {[&] { with_shape([](llm::Config& c) { c.head_dim = 15; }); }, {"head_dim"}},
        {[&] { with_shape([](llm::Config& c) { c.num_kv_heads = 3; }); }, {"num_kv_heads"}},
        {[&] { with_shape([](llm::Config& c) { c.is_local.pop_back(); }); }, {"is_local"}},
        {[&] { with_shape([](llm::Config& c) { c.sliding_window = 0; }); }, {"sliding_window"}},
        {[&] { with_shape([](llm::Config& c) { c.architecture = "gpt2"; }); }, {"heads"}},
    };
    for (std::size_t i = 0; i < std::size(cases); ++i) {
        CAPTURE(i);
        const std::string message = error_of(cases[i].first);
        CAPTURE(message);
        CHECK(message != "");
        for (const std::string& part : cases[i].second) CHECK(message.find(part) != std::string::npos);
    }
    CHECK(session.position() == 10);  // none of them did anything
    Session fresh(model, 16);
    fresh.forward(ids.data(), 10);
    CHECK(distance(last_logits(session, {7}), last_logits(fresh, {7})) == 0);

    Session untrained(Model::random(shape("gemma3", 32, 4, 2, 16, 64)));
    CHECK_THROWS_AS(llm::generate(untrained, "text", {}, nullptr), llm::Error);  // it has no tokenizer
}

}  // namespace
}  // namespace tests
