// Is a review good or bad, and how surely? A few examples stand before every review: that beginning is read once, and 32
// reviews share each step. classify [MODEL [REVIEW...]]; without reviews it takes 300 of its own.
#define LLM_IMPLEMENTATION
#include "llm.h"

#include <chrono>
#include <cmath>
#include <cstdio>

const char* const kExamples =
    "Review: I loved every minute of it.\nOpinion: good\n\nReview: A waste of time and money.\nOpinion: bad\n\n"
    "Review: We will surely come back.\nOpinion: good\n\nReview: The worst that I have ever seen.\nOpinion: bad\n\n";

std::vector<std::string> some_reviews() {
    std::vector<std::string> reviews;
    for (const char* thing : {"play", "meal", "hotel", "book", "concert", "lecture", "trip", "film", "garden", "wine"})
        for (const char* which : {"", " in our town", " that we chose", " last night", " this year"})
            for (const char* opinion : {"wonderful, we enjoyed it", "great fun", "a pleasure from beginning to end",
                                        "terrible, we left early", "dull and far too long", "a great disappointment"})
                reviews.push_back(std::string("The ") + thing + which + " was " + opinion + ".");
    return reviews;
}

// How much likelier `good` is to follow than `bad`, as a logarithm.
std::vector<double> judge(llm::Session& session, const std::vector<std::string>& reviews, bool together) {
    const llm::Tokenizer& tokenizer = session.model().tokenizer();
    const int good = tokenizer.encode(" good", llm::Special::as_text, false).at(0);
    const int bad = tokenizer.encode(" bad", llm::Special::as_text, false).at(0);
    std::vector<double> found(reviews.size());
    std::vector<llm::Request> requests;
    for (std::size_t i = 0; i < reviews.size(); ++i) {
        llm::Request& request = requests.emplace_back();
        request.prompt = "Review: " + reviews[i] + "\nOpinion:";
        request.options.max_tokens = 1;
        request.options.on_logits = [&found, good, bad, i](float* logits, int) {
            found[i] = double{logits[good]} - double{logits[bad]};
        };
    }
    if (together) return generate_many(session, requests, {}), found;
    for (const llm::Request& request : requests) {
        llm::Session one = session.fork();
        llm::generate(one, request.prompt, request.options);
    }
    return found;
}

int main(int argc, char** argv) {
    try {
        const llm::Model model = llm::Model::load(argc > 1 ? argv[1] : "models/gemma3-tiny");
        std::vector<std::string> reviews(argv + std::min(argc, 2), argv + argc);
        if (reviews.empty()) reviews = some_reviews();
        reviews.push_back("It was.");  // says nothing: what the model thinks of it is its prejudice (arXiv:2102.09690)

        llm::Session session(model, std::min(model.config().context_length, 512));
        session.forward(model.tokenizer().encode(kExamples));
        std::vector<double> found[2];
        double seconds[2];
        for (const bool together : {false, true}) {
            const auto start = std::chrono::steady_clock::now();
            found[together] = judge(session, reviews, together);
            seconds[together] = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
        }
        if (found[0] != found[1]) throw llm::Error("together the texts are judged otherwise");
        for (std::size_t i = 0; i + 1 < reviews.size(); ++i)
            std::printf("good %.3f  %s\n", 1 / (1 + std::exp(found[0].back() - found[0][i])), reviews[i].c_str());
        std::fprintf(stderr, "%zu texts: %.0f a second one at a time, %.0f together\n", reviews.size(),
                     double(reviews.size()) / seconds[0], double(reviews.size()) / seconds[1]);
    } catch (const std::exception& error) {
        std::fprintf(stderr, "%s\n", error.what());
        return 1;
    }
}
