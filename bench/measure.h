// What is measured of a model for the report: loading it, reading prompts, generating after each, and the parts of a step
// (Session::on_timing).

#pragma once

#include <algorithm>
#include <chrono>
#include <iterator>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "../llm.h"
#include "machine.h"
#include "models.h"
#include "options.h"
#include "output.h"
#include "statistics.h"

namespace bench {

// The parts of a step, and the step itself. `waiting` is what the calling thread waits for the others at the ends of
// parallel regions, `other` what no part accounts for.
enum Part {
    kEmbedding,
    kNorm,
    kQkv,
    kRope,
    kAttention,
    kAttnOut,
    kUp,
    kActivation,
    kDown,
    kHead,
    kSampling,
    kWaiting,
    kOther,
    kStep
};
constexpr const char* kPartNames[] = {"embedding",  "norm", "qkv",     "rope",     "attention", "attn_out", "up",
                                      "activation", "down", "lm_head", "sampling", "waiting",   "other",    "step"};
constexpr int kParts = kStep + 1;

// Sums over steps.
struct Profile {
    struct Sums {
        double seconds = 0, waited = 0, bytes = 0, operations = 0;
        double total() const { return seconds + waited; }
        void operator+=(const Sums& x) {
            seconds += x.seconds, waited += x.waited, bytes += x.bytes, operations += x.operations;
        }
    };
    Sums parts[kParts];
    int steps = 0;

    void add(const llm::Timing& t) {
        const auto p = std::find(std::begin(kPartNames), std::end(kPartNames), std::string_view(t.part)) - kPartNames;
        if (p == kParts) return;
        const double waited = p == kStep ? 0 : t.waited;
        parts[p] += {t.seconds - waited, waited, double(t.bytes), double(t.operations)};
        steps += p == kStep;
    }
    void add(const Profile& other) {
        for (int p = 0; p < kParts; ++p) parts[p] += other.parts[p];
        steps += other.steps;
    }
    // When all is added: what follows from the parts together.
    void close() {
        double known = 0;
        for (int p = 0; p < kWaiting; ++p) {
            known += parts[p].total();
            parts[kWaiting].seconds += parts[p].waited;
            parts[kStep].bytes += parts[p].bytes;
            parts[kStep].operations += parts[p].operations;
        }
        parts[kOther].seconds = parts[kStep].seconds - known;
    }
};

struct Prompt {
    int tokens = 0;
    Samples seconds{};  // to the first token, one for each round
    Samples steps{};    // seconds of the steps of generation that came after it
    Samples rates{};    // tokens/s of these, one for each round
};

struct Together {  // generation of n texts in the same steps, at depth 0
    int n = 0;
    Samples steps{};    // seconds
    Samples rates{};    // tokens/s of all, one for each round
    Profile profile{};  // of more steps
};

struct Measurement {
    std::string name, type;
    bool gpt2 = false, integers = true;  // which products take
    int context = 0, profiled_prompt = 0;
    double load_s = 0, weight_bytes = 0, session_bytes = 0, full_context_bytes = 0, profile_cost = 0;
    std::string huge_pages;
    Samples read{};  // rates of as many bytes as the weights have
    Roof roof;
    std::vector<Prompt> prompts{};
    std::vector<Profile> decode{}, prompt{};  // one for each round
    std::vector<Together> together{};

    double depth_of(const Prompt& p) const { return p.tokens == 1 ? 0 : p.tokens; }
};

// One model: load it, then go through the prompts and what follows them several times, so that what varies slowly
// shows in the spread.
class Measuring {
  public:
    Measuring(const Options& o, const Machine& machine, const std::string& name, bool is_shape)
        : name_(name), progress_(o.quiet), rounds_(o.repetitions()) {
        progress_(name + ": loading");
        const auto start = Clock::now();
        const llm::Model model = make_model(name, is_shape, o.load);
        result.load_s = seconds_since(start);
        lengths_ = lengths(o.prompts, model.config().context_length);
        result.context = std::min(model.config().context_length, std::max(lengths_.back() + kSteps, 4 * kSteps));
        llm::Session session(model, result.context, o.load.threads);
        tokens_ = random_tokens(model, lengths_.back());
        describe(model);

        ThreadPool pool(session.threads());
        result.read = machine.read_rates(pool, result.weight_bytes);
        warm_up(session);
        for (const int n : lengths_) result.prompts.push_back({n});
        for (int round = 0; round < rounds_; ++round)
            for (Prompt& p : result.prompts) {
                if (sum(p.seconds) * (round + 1) > kPatience * round && round > 0) continue;  // too slow to do it again
                progress_(format("%s: %d tokens, round %d of %d", name_.c_str(), p.tokens, round + 1, rounds_));
                measure(session, p);
            }
        for (const int n : o.parallel()) {
            progress_(format("%s: %d texts together", name_.c_str(), n));
            measure_together(session, n);
        }
        const Samples again = machine.read_rates(pool, result.weight_bytes);
        result.read.insert(result.read.end(), again.begin(), again.end());
        result.roof = machine.measured().back().roof;
        result.roof.read = median(result.read);
        for (std::vector<Profile>* profiles : {&result.decode, &result.prompt})
            for (Profile& p : *profiles) p.close();
        for (Together& t : result.together) t.profile.close();
    }
    Measurement result;
  private:
    static constexpr int kSteps = 48;        // at most, after a prompt; twice as many after the first
    static constexpr double kPatience = 15;  // seconds for the rounds of one prompt
    static constexpr double kSeconds = 1;    // for the steps after it

    // Ascending, those that fit; the longest that does where the usual ones are too long.
    static std::vector<int> lengths(const std::optional<std::vector<int>>& given, int context) {
        std::vector<int> wanted = given.value_or(std::vector<int>{1, 128, 512, 2048}), fit;
        if (!given && context - kSteps < wanted.back()) wanted.push_back(context / 8 * 7);
        std::sort(wanted.begin(), wanted.end());
        for (const int n : wanted)
            if (n <= context - kSteps && (fit.empty() || fit.back() < n)) fit.push_back(n);
        if (fit.empty())
            throw llm::Error(format("-p: no prompt fits into the context of %d before %d tokens: choose shorter ones",
                                    context, kSteps));
        return fit;
    }
    void describe(const llm::Model& model) {
        result.name = name_;
        result.type = type_of(model);
        result.gpt2 = is_gpt2(model);
        result.integers = model.dtype() != llm::DType::f32;
        result.weight_bytes = double(model.info().weight_bytes);
        result.session_bytes = double(model.session_bytes(result.context));
        result.full_context_bytes = double(model.session_bytes(model.config().context_length));
        result.huge_pages = huge_pages();
        for (const int n : lengths_)
            if (n <= 512) result.profiled_prompt = n;
        if (result.profiled_prompt <= 1) result.profiled_prompt = lengths_.back();
    }
    void warm_up(llm::Session& session) {
        const int n = std::min(64, lengths_.back());
        best_ = session.forward_best(tokens_.data(), n, most_);
        for (int i = 0; i < 8 && session.position() < session.context(); ++i) step(session, nullptr);
    }
    // Samples a token and appends it. Returns seconds.
    double step(llm::Session& session, Profile* profile) {
        const auto start = Clock::now();
        const int id = sampler_.sample(best_);
        if (profile) {
            profile->parts[kSampling].seconds += seconds_since(start);
            profile->parts[kStep].seconds += seconds_since(start);
        }
        best_ = session.forward_best(&id, 1, most_);
        return seconds_since(start);
    }
    Samples steps(llm::Session& session, int most, Profile* profile) {
        Samples seconds;
        most = std::min(most, session.context() - session.position());
        while (int(seconds.size()) < most && (seconds.size() < 8 || sum(seconds) < kSeconds))
            seconds.push_back(step(session, profile));
        return seconds;
    }
    void measure(llm::Session& session, Prompt& p) {
        Profile profile;
        const auto listen = [&](const llm::Timing& t) { profile.add(t); };
        session.rewind(0);
        if (p.tokens == result.profiled_prompt) session.on_timing(listen);
        const auto start = Clock::now();
        best_ = session.forward_best(tokens_.data(), p.tokens, most_);
        sampler_.sample(best_);
        p.seconds.push_back(seconds_since(start));
        session.on_timing(nullptr);
        if (p.tokens == result.profiled_prompt) result.prompt.push_back(std::exchange(profile, {}));

        const bool first = p.tokens == lengths_[0];
        const Samples seconds = steps(session, first ? 2 * kSteps : kSteps, nullptr);
        p.rates.push_back(1 / mean(seconds));
        p.steps.insert(p.steps.end(), seconds.begin(), seconds.end());
        if (!first) return;
        session.rewind(p.tokens);  // the same positions again, in parts
        session.on_timing(listen);
        const Samples timed = steps(session, int(seconds.size()), &profile);
        session.on_timing(nullptr);
        costs_.push_back(median(timed) / median(seconds) - 1);
        result.profile_cost = median(costs_);
        result.decode.push_back(profile);
    }

    void measure_together(llm::Session& first, int n) {
        first.rewind(0);
        std::vector<llm::Session> forks;
        for (int i = 1; i < n; ++i) forks.push_back(first.fork());
        std::vector<llm::Session*> all = {&first};
        for (llm::Session& fork : forks) all.push_back(&fork);
        Together t{n};
        const auto run = [&](int most, Samples& seconds) {
            for (llm::Session* s : all) s->rewind(0);
            for (int i = 0; i < most && (i < 8 || sum(seconds) < kSeconds); ++i) {
                const auto start = Clock::now();
                forward_together(all, std::vector<std::vector<int>>(all.size(), {tokens_[usize(i) % tokens_.size()]}));
                seconds.push_back(seconds_since(start));
            }
        };
        Samples warm, profiled;
        run(2, warm);
        for (int round = 0; round < rounds_; ++round) {
            Samples seconds;
            run(kSteps, seconds);
            t.rates.push_back(n / mean(seconds));
            t.steps.insert(t.steps.end(), seconds.begin(), seconds.end());
        }
        first.on_timing([&](const llm::Timing& timing) { t.profile.add(timing); });
        run(kSteps / 2, profiled);
        first.on_timing(nullptr);
        result.together.push_back(t);
    }

    std::string name_;
    Progress progress_;
    int rounds_;
    std::vector<int> lengths_, tokens_;
    llm::Sampler sampler_;
    const int most_ = llm::Sampling().top_k;
    std::vector<llm::Logit> best_;  // as many as generate() samples from
    Samples costs_;
};

}  // namespace bench
