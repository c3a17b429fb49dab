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

TEST_CASE("Gemma's template needs its tokens, and is taken where a model was trained for it") {
    Session plain(load(tiny("gpt2-tiny")));
    CHECK_ERROR(llm::Chat(plain, "", llm::Chat::Template::gemma), "no turn tokens", "plain template");
    const TemporaryDirectory directory;
    Files files = files_of(tiny("gemma3-tiny"));
    files["generation_config.json"] = R"({"eos_token_id": [1, 5]})";
    write_files(directory.path, files);
    Session trained(load(directory.path)), base(load(tiny("gemma3-tiny")));
    llm::Chat(trained).say("hello", greedy(0), nullptr);
    llm::Chat(base).say("hello", greedy(0), nullptr);
    CHECK(held_text(trained) == "<bos><start_of_turn>user\nhello<end_of_turn>\n<start_of_turn>model\n");
    CHECK(held_text(base) == "<bos>hello");
}

TEST_CASE("a chat with the real vocabulary is the reference's" * needs(kRealGemma)) {
    const Model model = load(real_model(kRealGemma));
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

// gemma3-tiny with a chat template in a file of this name.
Model with_template(const fs::path& directory, const std::string& file, const std::string& content) {
    fs::remove_all(directory / "model");
    fs::copy(tiny("gemma3-tiny"), directory / "model");
    fs::remove(directory / "model/tokenizer_config.json");
    write_file(directory / "model" / file, content);
    return load(directory / "model");
}

// What a session holds after two turns that were said and one that is.
std::string conversation(const Model& model, const std::string& system, llm::Chat::Template& used) {
    Session session(model);
    llm::Chat chat(session, system);
    used = chat.used();
    chat.add(llm::Chat::Role::user, " one ");
    chat.add(llm::Chat::Role::model, "two.");
    chat.say("three <eos>", greedy(0), nullptr);
    return held_text(session);
}

TEST_CASE("a chat is in the template of the model's files") {
    using Template = llm::Chat::Template;
    const std::string any_role =
                          "{{ '<start_of_turn>' + role }} {{ content | trim }} {{ '<end_of_turn>' }} "
                          "{{ '<start_of_turn>model' }}",
                      gemma = "{% if role == 'system' %}" + any_role,
                      chatml = "{{ '<|im_start|>' + role }} assistant {{ content }} {{ '<|im_end|>' }}",
                      helpful = "'<|im_start|>system\\nYou help.<|im_end|>\\n'" + chatml,
                      dialogpt = "{%- for m in messages -%}\n  {{ m[\"content\"] + eos_token }}\n{%- endfor -%}",
                      quoted = "\"" + detail::replace_all(chatml, "'", "\\u0027") + "\"";
    const std::string in_gemma =
        "<bos><start_of_turn>user\nBe.\n\none<end_of_turn>\n<start_of_turn>model\ntwo.<end_of_turn>\n"
        "<start_of_turn>user\nthree <eos><end_of_turn>\n<start_of_turn>model\n";
    const std::string in_chatml =
        "<bos><|im_start|>system\nBe.<|im_end|>\n<|im_start|>user\n one "
        "<|im_end|>\n<|im_start|>assistant\ntwo.<|im_end|>\n"
        "<|im_start|>user\nthree <eos><|im_end|>\n<|im_start|>assistant\n";
    struct {
        const char* file;
        std::string content;
        Template used;
        std::string text;
    } const cases[] = {
        {"chat_template.jinja", gemma, Template::gemma, in_gemma},
        {"chat_template.jinja", chatml, Template::chatml, in_chatml},
        {"chat_template.json", "{\"chat_template\":" + quoted + "}", Template::chatml, in_chatml},
        {"tokenizer_config.json", "{\"chat_template\":" + quoted + "}", Template::chatml, in_chatml},
        {"tokenizer_config.json",
         "{\"chat_template\":[{\"name\":\"tools\",\"template\":\"x\"},{\"name\":\"default\",\"template\":" + quoted +
             "}]}",
         Template::chatml, in_chatml},
        {"chat_template.jinja", dialogpt, Template::dialogpt, "<bos>Be.<eos> one <eos>two.<eos>three <eos><eos>"},
        {"chat_template.jinja", "{{ '[INST]' + content }}", Template::plain, "<bos>Be.\n\n one two.\n\nthree <eos>"},
        {"chat_template.jinja", "{% for m in messages %}{{ m.content }} {{ eos_token }}{% endfor %}", Template::plain,
         "<bos>Be.\n\n one two.\n\nthree <eos>"},
        {"chat_template.jinja", "{% for m in messages %}{{ m.content + eos_token }} {% endfor %}", Template::plain,
         "<bos>Be.\n\n one two.\n\nthree <eos>"},
        {"generation_config.json", "{\"eos_token_id\":[1,5]}", Template::gemma, in_gemma},
        {"generation_config.json", "{\"eos_token_id\":1}", Template::plain, "<bos>Be.\n\n one two.\n\nthree <eos>"}};
    const TemporaryDirectory directory;
    Template used = Template::automatic;
    for (const auto& one : cases) {
        CAPTURE(one.file);
        CAPTURE(one.content);
        const Model model = with_template(directory.path, one.file, one.content);
        CHECK(conversation(model, "Be.", used) == one.text);
        CHECK(used == one.used);
    }
    const Model model = with_template(directory.path, "chat_template.jinja", helpful);
    CHECK(model.tokenizer().chat_template() == helpful);
    CHECK(conversation(model, "", used).rfind("<bos><|im_start|>system\nYou help.<|im_end|>\n<|im_start|>user\n", 0) ==
          0);
    CHECK(std::string(llm::Chat::name(used)) == "chatml");

    // A turn for the system's words, in a template of Gemma's kind.
    const std::string developer = "{{ '<start_of_turn>developer\\n' + system }}" + gemma,
                      own = "<start_of_turn>system\nYou help.<end_of_turn>\n";
    const std::string head = "<bos><start_of_turn>developer\nBe.<end_of_turn>\n<start_of_turn>user\none<end_of_turn>";
    CHECK(conversation(with_template(directory.path, "chat_template.jinja", developer), "Be.", used).rfind(head, 0) ==
          0);
    CHECK(used == Template::gemma);
    CHECK(conversation(with_template(directory.path, "chat_template.jinja", own + gemma), "", used)
              .rfind("<bos>" + own, 0) == 0);
    const auto begins = [&](const std::string& jinja, const std::string& system) {
        const std::string text =
            conversation(with_template(directory.path, "chat_template.jinja", jinja), system, used);
        return text.substr(0, text.find("one"));
    };
    CHECK(begins(any_role, "Be.\n") == "<bos><start_of_turn>system\nBe.<end_of_turn>\n<start_of_turn>user\n");
    CHECK(begins(gemma + "first_user_prefix '<start_of_turn>system'", "Be.") == "<bos><start_of_turn>user\nBe.\n\n");
    CHECK(begins("{# model #} '<start_of_turn>' '<start_of_turn>assistant' '<end_of_turn>'", "Be.") == "<bos>Be.\n\n ");
    CHECK(used == Template::plain);
}

TEST_CASE("words and what stands around them are encoded together, and lose the white space that Jinja strips") {
    const Model model = load(tiny("gemma3-tiny"));
    for (const char* words : {"Be.\n", "Be.\n\n", "\u3000Be\u00A0\f"}) {
        Session session(model);
        llm::Chat chat(session, words, llm::Chat::Template::gemma);
        chat.say("\u3000hello\f \u00A0", greedy(0), nullptr);
        const std::string text =
            std::string("<bos><start_of_turn>user\n") + words + "\n\nhello<end_of_turn>\n<start_of_turn>model\n";
        CHECK(session.tokens() == model.tokenizer().encode(text, llm::Special::parsed, false));
    }
}

TEST_CASE("turns are added one after the other") {
    const Model model = load(tiny("gemma3-tiny"));
    Session session(model);
    llm::Chat chat(session);
    CHECK(error_of([&] { chat.add(llm::Chat::Role::model, "x"); }).find("take turns") != std::string::npos);
    chat.add(llm::Chat::Role::user, "x");
    CHECK(error_of([&] { chat.add(llm::Chat::Role::user, "x"); }).find("take turns") != std::string::npos);
    CHECK(error_of([&] { chat.say("x", greedy(1), nullptr); }).find("answer") != std::string::npos);

    llm::Chat plain(session, "", llm::Chat::Template::plain);
    plain.add(llm::Chat::Role::user, "");  // no tokens, but a turn
    CHECK_ERROR(plain.add(llm::Chat::Role::user, "x"), "take turns");
    plain.add(llm::Chat::Role::model, "x");
    CHECK(plain.say("x", greedy(1), nullptr).generated == 1);
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

TEST_CASE("a turn that is forgotten drops no others") {
    Session session(load(tiny("gemma3-tiny")), 100, 1);
    llm::Chat chat(session, "", llm::Chat::Template::gemma);
    for (const char* words : {"one", "two", "three"}) chat.say(words, greedy(3), nullptr);
    REQUIRE(chat.dropped_turns() == 0);
    const std::string before = held_text(session), longer(50, 'y');
    llm::GenerateOptions options = greedy(20);
    options.on_prompt = [](int, int) { return false; };
    CHECK(chat.say(longer, options, nullptr).end == llm::End::interrupted);
    CHECK(chat.dropped_turns() == 0);
    options = greedy(20);
    options.lookup = 12;
    CHECK_ERROR(chat.say(longer, options, nullptr), "lookup");
    CHECK(chat.dropped_turns() == 0);
    chat.say("4", greedy(1), nullptr);
    CHECK(held_text(session).rfind(before, 0) == 0);
    chat.say(longer, greedy(20), nullptr);
    CHECK(chat.dropped_turns() > 0);
}

// A model that writes dots, and turns of known lengths: what is dropped can be counted.
TEST_CASE("turns are dropped when the next one and its answer do not fit, as many as leave half of the context") {
    const Model model = writer_of(std::string(kScript, '.'));
    const auto size = [&](const std::string& words) {
        return static_cast<int>(model.tokenizer().encode(words).size());
    };
    const int context = kScript, head = size("S\n\n"), between = size("\n\n");
    for (const int answer : {0, 1, 5, 16, 30}) {
        CAPTURE(answer);
        const int room = std::min(std::max(answer, 1), context / 4);  // a longer answer may find less
        Session session(model, context);
        llm::Chat chat(session, "S", llm::Chat::Template::plain);
        std::vector<int> turns;  // the sizes of those that are held
        int dropped = 0, most_at_once = 0;
        for (const char* words :
             {"a", "bb", "ccc", "dddd", "e", "f", "ggggg", "h", "ii", "j", "k", "lllll", "m", "n"}) {
            CAPTURE(std::string(words));
            const auto held = [&] { return std::accumulate(turns.begin(), turns.end(), head); };
            const int wanted = size(words) + room;
            int at_once = 0;
            if (held() + wanted > context)
                while (!turns.empty() && (held() > context / 2 || held() + wanted > context))
                    turns.erase(turns.begin()), ++at_once;
            const llm::Stats stats = chat.say(words, greedy(answer), nullptr);
            dropped += at_once;
            most_at_once = std::max(most_at_once, at_once);
            CHECK(chat.dropped_turns() == dropped);
            CHECK(stats.generated >= std::min(answer, room));
            CHECK(stats.generated == std::min(answer, context - held() - size(words)));
            const std::string text = held_text(session);
            CHECK(text.rfind("S\n\n", 0) == 0);
            CHECK(session.position() == held() + size(words) + stats.generated);
            turns.push_back(size(words) + stats.generated + between);
        }
        CHECK(dropped >= (answer > 0 ? 3 : 0));
        if (answer == 1) CHECK(most_at_once > 1);
    }
}

TEST_CASE("a chat that goes on with a session gets its own beginning when turns are dropped") {
    const Model model = load(tiny("gemma3-tiny"));
    for (const auto style : {llm::Chat::Template::gemma, llm::Chat::Template::plain}) {
        const bool plain = style == llm::Chat::Template::plain;
        CAPTURE(plain);
        Session session(model, 120);
        llm::Chat before(session, "OLD", style);
        before.say("first words", greedy(3), nullptr);
        CHECK(held_text(session).find("OLD\n\nfirst") != std::string::npos);
        llm::Chat chat(session, "NEW", style);
        chat.say("second words", greedy(3), nullptr);
        CHECK(held_text(session).find("OLD\n\nfirst") != std::string::npos);
        CHECK(held_text(session).find("second") != std::string::npos);
        CHECK(held_text(session).find("NEW") == std::string::npos);
        while (chat.dropped_turns() == 0) chat.say("and then some more words", greedy(3), nullptr);
        const std::string head = plain ? "<bos>NEW\n\n" : "<bos><start_of_turn>user\nNEW\n\n";
        CHECK(held_text(session).rfind(head, 0) == 0);
        CHECK(held_text(session).find("OLD") == std::string::npos);
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

TEST_CASE("a chat's first turn may be empty, and a turn that is said again is read again") {
    const Model model = load(tiny("gpt2-tiny"));
    Session session(model), other(model);
    llm::Chat chat(session);
    CHECK(chat.say("", greedy(5), nullptr).generated == 5);
    llm::generate(other, "", greedy(5));
    CHECK(session.tokens() == other.tokens());

    Session again(model);
    llm::Chat unfinished(again);
    std::string first, second;
    CHECK_THROWS_AS(
        unfinished.say("\xC3", greedy(5), [&](std::string_view text) -> bool { throw std::string(first = text); }),
        std::string);
    unfinished.say("\xC3", greedy(5), [&](std::string_view text) { return (second += text, true); });
    CHECK(second.rfind(first, 0) == 0);
}

TEST_CASE("a callback may give a chat's session another content") {
    const Model model = load(tiny("gemma3-tiny"));
    Session session(model, 0, 1);
    llm::Chat chat(session, "", llm::Chat::Template::plain);
    const auto replace = [&](std::string_view) {
        session = Session(model, 0, 1);
        return true;
    };
    CHECK(chat.say("Hello", greedy(8), replace).generated == 8);
    CHECK(session.position() == 0);
    CHECK(chat.say("Hello", greedy(8), nullptr).generated == 8);
    CHECK(session.position() > 16);
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

TEST_CASE("a chat that was moved from is an error, and goes on as what it became") {
    Session session(load(tiny("gemma3-tiny")));
    llm::Chat chat(session), other = std::move(chat);
    CHECK_ERROR(chat.say("a", greedy(1), nullptr), "moved-from");
    CHECK_ERROR(chat.add(llm::Chat::Role::user, "a"), "moved-from");
    CHECK(other.say("a", greedy(1), nullptr).generated == 1);
}

}  // namespace
}  // namespace tests
