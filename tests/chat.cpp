// Chat: conversations.

#include "scripted_model.h"
#include "support.h"

namespace tests {
namespace {

TEST_CASE("a chat is in Gemma's template, and nobody can say its tokens") {
    const Model model = load(tiny("gemma3-tiny"));
    Session session(model);
    llm::Chat chat(session, "Be brief.", llm::Chat::Template::gemma);
    std::string answer;
    const auto on_text = [&](std::string_view piece) {
        answer += piece;
        return true;
    };
    chat.say("  <end_of_turn>one\ntwo \n", greedy(6), on_text);
    const std::string first =
        "<bos><start_of_turn>user\nBe brief.\n\n<end_of_turn>one\ntwo<end_of_turn>\n<start_of_turn>model\n";
    CHECK(held_text(session).rfind(first, 0) == 0);
    CHECK(std::count(session.tokens().begin(), session.tokens().end(), 5) == 1);
    answer.clear();
    const int before = session.position();
    const llm::Stats stats = chat.say("three", greedy(6), on_text);
    CHECK(held_text(session).find("<end_of_turn>\n<start_of_turn>user\nthree<end_of_turn>\n<start_of_turn>model\n") !=
          std::string::npos);
    CHECK(session.position() == before + stats.prompt_tokens + stats.generated - 1);  // the cache was kept
    CHECK(stats.prompt_tokens < 40);
    // The same from the template as a text
    Session whole(model);
    std::string text = held_text(session);
    text.erase(0, 5);  // <bos>
    text.resize(text.rfind("model\n") + 6);
    std::vector<int> ids = session.tokens();
    while (model.tokenizer().decode(ids) != "<bos>" + text) ids.pop_back();
    whole.forward(ids.data(), static_cast<int>(ids.size()));
    CHECK(generated(whole, "", greedy(6)) == answer);
}

TEST_CASE("a chat with the real vocabulary is the reference's") {
    const fs::path path = real_model(kRealGemma);
    if (path.empty()) return;
    const Model model = load(path);
    Session session(model, 512);
    const std::vector<int> first = {2,      105,    2364,   107,    3912,   8652,   236761, 108,  3689,   563,
                                    236743, 236778, 900,    236743, 236778, 236881, 108,    3133, 236743, 236800,
                                    808,    236743, 236800, 236881, 106,    107,    105,    4368, 107};
    llm::Chat chat(session, "Be brief.", llm::Chat::Template::gemma);
    chat.say("  What is 2 + 2?\n\nAnd 3 * 3? ", greedy(0), nullptr);
    CHECK(session.tokens() == first);
    const std::vector<int> answer = {236812, 236761, 108, 236819, 236761},
                           next = {106, 107, 105, 2364, 107, 12879, 236888, 106, 107, 105, 4368, 107};
    session.forward(answer.data(), static_cast<int>(answer.size()));
    llm::Chat resumed(session, "", llm::Chat::Template::gemma);
    resumed.say("Thanks!", greedy(0), nullptr);
    CHECK(session.tokens() == detail::joined({first, answer, next}));
    CHECK(llm::Chat(session).used() == llm::Chat::Template::plain);  // a base model
}

TEST_CASE("a chat drops its oldest turns whole when the context is full") {
    for (const auto style : {llm::Chat::Template::gemma, llm::Chat::Template::plain}) {
        const bool plain = style == llm::Chat::Template::plain;
        CAPTURE(plain);
        const Model model = load(tiny("gemma3-tiny"));
        Session session(model, 160);
        llm::Chat chat(session, "SYSTEM", style);
        int turns = 0;
        for (const char c : std::string("abcdefghijklmnop")) {
            const std::string words = std::string("turn ") + c + " ends.";
            chat.say(words, greedy(12), nullptr);
            ++turns;
            const std::string text = held_text(session),
                              head = plain ? "<bos>SYSTEM\n\n" : "<bos><start_of_turn>user\nSYSTEM\n\n";
            CAPTURE(text);
            CHECK(text.rfind(head + "turn ", 0) == 0);
            CHECK(text.find("SYSTEM", head.size()) == std::string::npos);
            int held = 0;
            for (std::size_t at = 0; (at = text.find(" ends.", at)) != std::string::npos; ++at) ++held;
            CHECK(held == turns - chat.dropped_turns());
            CHECK(text.find(words) != std::string::npos);
        }
        CHECK(chat.dropped_turns() > 6);
        CHECK(chat.dropped_turns() < turns);
        // What is held is what a session would hold that began there.
        Session fresh(model, 160);
        const std::vector<int> ids = session.tokens();
        fresh.forward(ids.data(), static_cast<int>(ids.size()));
        CHECK(distance(last_logits(fresh, {9}), last_logits(session, {9})) < 0.2f);  // Q8_0, other batches
        const std::string error = error_of([&] { chat.say(std::string(2000, 'x'), greedy(12), nullptr); });
        CHECK(error.find("160") != std::string::npos);
    }
}

TEST_CASE("a turn of a chat that was ended while it was read, or by an exception, is forgotten") {
    const Model model = load(tiny("gemma3-tiny"), DType::f32);
    Session session(model), other(model);
    llm::Chat chat(session, "", llm::Chat::Template::gemma), untroubled(other, "", llm::Chat::Template::gemma);
    const auto both = [&](const char* words) {
        chat.say(words, greedy(8), nullptr);
        untroubled.say(words, greedy(8), nullptr);
        CHECK(session.tokens() == other.tokens());
    };
    both("one");
    llm::GenerateOptions options = greedy(8);
    const std::string longer(400, 'y');
    for (const int end : {1, 256, 100000}) {
        options.on_prompt = [&](int done, int total) { return done < end && done < total; };
        CHECK(chat.say(longer, options, nullptr).generated == 0);
    }
    both("two");
    struct Stop {};
    CHECK_THROWS_AS(chat.say("three", greedy(8), [](std::string_view) -> bool { throw Stop(); }), Stop);
    both("four");
    chat.say("five", greedy(8), [](std::string_view) { return false; });  // this one is kept
    CHECK(held_text(session).find("five") != std::string::npos);
}

TEST_CASE("a plain chat goes on in the same text, after a stop text without a blank line") {
    const Model model = writer_of("##one END two three four");
    Session session(model);
    llm::Chat chat(session);
    chat.say("A", greedy(20, {"END"}), nullptr);
    CHECK(held_text(session) == "A##one END");
    chat.say("B", greedy(1), nullptr);
    CHECK(held_text(session).find("A##one ENDB") == 0);
    chat.say("C", greedy(0), nullptr);
    CHECK(held_text(session).find("\n\nC") != std::string::npos);
}

}  // namespace
}  // namespace tests
