// The functions of llm_c.h on the API of llm.h. Each checks what it got, calls one function of C++, and makes of what that
// throws a text for llm_last_error.

#ifdef _WIN32
#define LLM_C_API __declspec(dllexport)
#endif
#include "llm_c.h"

#define LLM_STATIC  // nothing of llm.h is seen outside
#include "../llm.h"

struct llm_model {
    llm::Model model;
};
struct llm_session {
    std::shared_ptr<llm::Session> session;
};
struct llm_chat {
    std::shared_ptr<llm::Session> session;  // which outlives the chat
    std::shared_ptr<llm::Chat> chat;
};

namespace {

// The last failure of a thread. Its text is kept where there is memory for it.
struct Failure {
    std::string text;
    const char* shown = "";
    int kind = 0;

    void set(const char* what, llm::Error::Kind k) noexcept {
        kind = int(k);
        try {
            shown = (text = what).c_str();
        } catch (...) {
            shown = "there is not enough memory";
        }
    }
};
thread_local Failure failure;

// What the call returns, or `otherwise` if it throws.
template <class Result, class Call> Result guarded(Result otherwise, const Call& call) noexcept {
    using Kind = llm::Error::Kind;
    try {
        return call();
    } catch (const llm::Error& e) {
        failure.set(e.what(), e.kind);
    } catch (const std::bad_alloc&) {
        failure.set("there is not enough memory: use a smaller model or context", Kind::system);
    } catch (const std::exception& e) {
        failure.set(e.what(), Kind::system);
    } catch (...) {
        failure.set("a callback threw what is no std::exception", Kind::argument);
    }
    return otherwise;
}

[[noreturn]] void refuse(const std::string& what, const std::string& where, const std::string& remedy) {
    throw llm::Error(what + ": " + where + ": " + remedy);
}
template <class T> T& given(T* pointer, const char* name) {
    if (!pointer) refuse("nothing is there", std::string(name) + " is NULL", "see whether the call before failed");
    return *pointer;
}
int at_least_0(int n, const char* name) {
    if (n < 0) refuse("a number below 0", name + (" " + std::to_string(n)), "use 0 or more");
    return n;
}
int clamped(std::size_t n) { return n < INT_MAX ? int(n) : INT_MAX; }

llm::LoadOptions load_options(int dtype, int threads, llm_on_progress on_progress, void* user) {
    using llm::DType;
    constexpr DType kDTypes[] = {DType::native, DType::f32, DType::q8_0, DType::q4_0};  // in the order of llm_c.h
    if (dtype < 0 || dtype > LLM_Q4_0) refuse("no such type", "dtype " + std::to_string(dtype), "use LLM_NATIVE");
    llm::LoadOptions options;
    options.dtype = kDTypes[dtype];
    options.threads = threads;
    if (on_progress)
        options.progress = [=](float done, const char* what) {
            if (!on_progress(user, done, what)) refuse("the loading was ended", "on_progress", "let it return 1");
        };
    return options;
}

llm::GenerateOptions generate_options(const llm_options* given_options) {
    llm::GenerateOptions options;
    if (!given_options) return options;
    const llm_options& o = *given_options;
    if (o.size != sizeof o)
        refuse("options of another size", std::to_string(o.size) + " bytes, not " + std::to_string(sizeof o),
               "call llm_options_init first, with the llm_c.h of this library");
    options.max_tokens = o.max_tokens;
    options.sampling = {o.temperature, o.top_p, o.min_p, o.repeat_penalty, o.top_k, o.repeat_last_n, o.seed};
    options.ignore_end = o.ignore_end;
    if (o.parse_special) options.special = llm::Special::parsed;
    options.lookup = o.lookup;
    for (std::size_t i = 0; i < o.stop_count; ++i)
        options.stop.emplace_back(&given((&given(o.stop, "stop"))[i], "a text of stop"));
    if (o.on_prompt)
        options.on_prompt = [&o](int done, int total) {
            return o.on_prompt(o.on_prompt_user, float(done) / float(total), "prompt") != 0;
        };
    return options;
}

llm::OnTexts texts_to(llm_on_text on_text, void* user) {
    if (!on_text) return {};
    return [=](int i, std::string_view text) {
        return on_text(user, i, std::string(text).c_str(), text.size()) != 0;  // with a zero behind it
    };
}
llm::OnText text_to(llm_on_text on_text, void* user) {
    if (!on_text) return {};
    return [on = texts_to(on_text, user)](std::string_view text) { return on(0, text); };
}

int report(const llm::Stats& from, llm_stats* to) {
    if (to) *to = {from.prompt_tokens, from.generated, int(from.end), from.prompt_s, from.generate_s};
    return from.generated;
}

llm::Chat::Template style_of(const char* name) {
    using Template = llm::Chat::Template;
    if (!name) return Template::automatic;
    for (const Template t :
         {Template::automatic, Template::gemma, Template::chatml, Template::dialogpt, Template::plain})
        if (std::string_view(name) == llm::Chat::name(t)) return t;
    refuse("no such template", llm::detail::shown(name), "use gemma, chatml, dialogpt, plain or NULL");
}

}  // namespace

const char* llm_version(void) { return LLM_VERSION; }

const char* llm_last_error(int* kind) {
    if (kind) *kind = failure.kind;
    return failure.shown;
}

int llm_options_init(llm_options* options, size_t size) {
    return guarded(-1, [&] {
        llm_options& o = given(options, "options");
        if (size != sizeof o)
            refuse("options of another size", std::to_string(size) + " bytes, not " + std::to_string(sizeof o),
                   "use the llm_c.h of this library");
        const llm::Sampling s;
        o = {};
        o.size = size;
        o.max_tokens = llm::GenerateOptions().max_tokens;
        o.seed = s.seed;
        o.temperature = s.temperature, o.top_p = s.top_p, o.min_p = s.min_p, o.repeat_penalty = s.repeat_penalty;
        o.top_k = s.top_k, o.repeat_last_n = s.repeat_last_n;
        return 0;
    });
}

llm_model* llm_load(const char* path, int dtype, int threads, llm_on_progress on_progress, void* user) {
    return guarded<llm_model*>(nullptr, [&] {
        const auto options = load_options(dtype, threads, on_progress, user);
        return new llm_model{llm::Model::load(&given(path, "path"), options)};
    });
}

llm_model* llm_load_bytes(const void* gguf, size_t bytes, int dtype, int threads, llm_on_progress on_progress,
                          void* user) {
    return guarded<llm_model*>(nullptr, [&] {
        const char* const begin = &given(static_cast<const char*>(gguf), "gguf");
        const auto options = load_options(dtype, threads, on_progress, user);
        return new llm_model{llm::Model::load_bytes({begin, bytes}, options)};
    });
}

void llm_model_free(llm_model* model) { delete model; }

int llm_tokenize(const llm_model* model, const char* text, int special, int add_bos, int* ids, int capacity) {
    return guarded(-1, [&] {
        const auto kind = special ? llm::Special::parsed : llm::Special::as_text;
        const auto found = given(model, "model").model.tokenizer().encode(&given(text, "text"), kind, add_bos != 0);
        const int n = std::min(at_least_0(capacity, "capacity"), clamped(found.size()));
        if (n > 0) std::copy_n(found.begin(), n, &given(ids, "ids"));
        return clamped(found.size());
    });
}

int llm_detokenize(const llm_model* model, const int* ids, int n, char* text, int capacity) {
    return guarded(-1, [&] {
        std::vector<int> all;
        if (at_least_0(n, "n") > 0) all.assign(&given(ids, "ids"), ids + n);
        const std::string found = given(model, "model").model.tokenizer().decode(all);
        const auto bytes = std::min(std::size_t(at_least_0(capacity, "capacity")), found.size() + 1);
        if (bytes > 0) std::memcpy(&given(text, "text"), found.c_str(), bytes);
        return clamped(found.size());
    });
}

llm_session* llm_session_new(const llm_model* model, int context, int threads) {
    return guarded<llm_session*>(nullptr, [&] {
        const llm::Model& made = given(model, "model").model;
        return new llm_session{std::make_shared<llm::Session>(made, context, threads)};
    });
}

void llm_session_free(llm_session* session) { delete session; }

int llm_position(const llm_session* session) {
    return guarded(-1, [&] { return given(session, "session").session->position(); });
}

int llm_rewind(llm_session* session, int position) {
    return guarded(-1, [&] { return given(session, "session").session->rewind(position), position; });
}

int llm_generate(llm_session* session, const char* prompt, const llm_options* options, llm_on_text on_text, void* user,
                 llm_stats* stats) {
    return guarded(-1, [&] {
        llm::Session& s = *given(session, "session").session;
        const std::string_view text = &given(prompt, "prompt");
        return report(llm::generate(s, text, generate_options(options), text_to(on_text, user)), stats);
    });
}

int llm_generate_many(llm_session* session, const char* const* prompts, int n, const llm_options* options, int at_once,
                      llm_on_text on_text, void* user, llm_stats* stats) {
    return guarded(-1, [&] {
        llm::Session& s = *given(session, "session").session;
        std::vector<std::string> texts;
        for (int i = 0; i < at_least_0(n, "n"); ++i)
            texts.emplace_back(&given((&given(prompts, "prompts"))[i], "a text of prompts"));
        std::size_t tokens = 0;
        const auto all = llm::generate_many(s, texts, generate_options(options), texts_to(on_text, user), at_once);
        for (const llm::Completion& one : all) tokens += std::size_t(report(one.stats, stats ? stats++ : nullptr));
        return clamped(tokens);
    });
}

llm_chat* llm_chat_new(llm_session* session, const char* system, const char* style) {
    return guarded<llm_chat*>(nullptr, [&] {
        const auto& s = given(session, "session").session;
        return new llm_chat{s, std::make_shared<llm::Chat>(*s, system ? system : "", style_of(style))};
    });
}

void llm_chat_free(llm_chat* chat) { delete chat; }

int llm_chat_say(llm_chat* chat, const char* text, const llm_options* options, llm_on_text on_text, void* user,
                 llm_stats* stats) {
    return guarded(-1, [&] {
        const llm_chat c = given(chat, "chat");  // kept, if a callback frees it
        return report(c.chat->say(&given(text, "text"), generate_options(options), text_to(on_text, user)), stats);
    });
}

int llm_score(llm_session* session, const char* text, double* result) {
    return guarded(-1, [&] {
        double& found = given(result, "result");
        found = llm::score(*given(session, "session").session, &given(text, "text"));
        return 0;
    });
}

int llm_likeliest(llm_session* session, llm_candidate* best, int k) {
    return guarded(-1, [&] {
        llm::Session& s = *given(session, "session").session;
        const llm::Model& model = s.model();
        k = std::min(at_least_0(k, "k"), model.sampleable());
        if (k == 0) return 0;
        llm_candidate* to = &given(best, "best");
        const std::vector<llm::Logit> found = s.best(k);
        const int first = found.at(0).id;
        const float* const logits = s.logits();
        const double zero = llm::log_probability(logits, model.config().vocab_size, first) - double{logits[first]};
        for (const llm::Logit& one : found) *to++ = {one.id, float(zero + double{one.value})};
        return clamped(found.size());
    });
}
