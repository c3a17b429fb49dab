// JSON: values, what is refused, and what is asked of a value.

#include "support.h"

namespace tests {
namespace {

JsonDocument parsed(std::string text) { return JsonDocument(std::move(text), "here"); }

TEST_CASE("JSON: values of all kinds, in the file's order") {
    const JsonDocument document =
        parsed(" { \"a\" : [ 1 , -2.5e1 ,\ttrue,false , null,\"\" ] ,\r\n\"b\":{},\"c\":[] } ");
    const Json& root = document.root();
    REQUIRE(root.members().size() == 3);
    CHECK(root.members()[0].first == "a");
    CHECK(root.members()[2].first == "c");
    const Json::Array& list = root["a"].array();
    REQUIRE(list.size() == 6);
    CHECK(list[0].number() == 1);
    CHECK(list[1].number() == -25);
    CHECK(list[2].boolean());
    CHECK(!list[3].boolean());
    CHECK(list[4].is_null());
    CHECK(list[5].string() == "");
    CHECK(root["b"].members().empty());
    CHECK(root["c"].array().empty());
    CHECK(parsed("7").root().number() == 7);
    CHECK(parsed("{\"a\":1,\"b\":2,\"a\":3}").root()["a"].number() == 3);  // the last of several
}

TEST_CASE("JSON: a document can be moved, its values stay where they are") {
    JsonDocument first = parsed("[\"text\", {\"key\": \"value\"}]");
    const JsonDocument second = std::move(first);
    CHECK(second.root().array()[1]["key"].string() == "value");
    CHECK_ERROR(second.root().array()[0].number(), "a number", "here");
}

TEST_CASE("JSON: numbers are those of strtod") {
    for (const char* text : {"0", "-0", "0.5", "1e3", "1E+3", "25e-2", "0.000001", "123456789012345", "1e-05", "1e22",
                             "9007199254740992", "-1.5e-7", "0.1", "3.14159265358979", "0e999", "1e-400"})
        CHECK(parsed(text).root().number() == std::strtod(text, nullptr));
    CHECK(parsed("1e-300").root().number() * 1e300 == doctest::Approx(1));  // beyond 10^22 the last bits may differ
    CHECK(parsed("61904847969902182").root().number() == 0x1.b7dc43323dbcdp+55);  // whatever a compiler contracts
    CHECK(std::signbit(parsed("-0.0").root().number()));
    Random random{1};
    for (int i = 0; i < 2000; ++i) {  // up to 15 digits and a power of ten that is exact
        const std::string digits = std::to_string(detail::next_random(random.state) % 1000000000000000u);
        const std::string text = digits + "e" + std::to_string(random.below(45) - 22);
        if (parsed(text).root().number() != std::strtod(text.c_str(), nullptr)) FAIL_CHECK(text);
    }
}

TEST_CASE("JSON: strings are unescaped, whatever characters they hold") {
    const std::pair<const char*, std::string> cases[] = {
        {R"("")", ""},
        {R"("plain \u00e9 日")", "plain \u00e9 \u65e5"},
        {R"("\"\\\/\b\f\n\r\t")", "\"\\/\b\f\n\r\t"},
        {R"("\u0041\u00E9\u65e5\ud83d\udc4d!")", "A\u00e9\u65e5\U0001F44D!"},
        {R"("a\u0000b")", std::string("a\0b", 3)},
        {R"("\ud7ff\ue000\uffff")", "\xED\x9F\xBF\xEE\x80\x80\xEF\xBF\xBF"},
        {R"("\uD800\uDC00\uDBFF\uDFFF")", "\xF0\x90\x80\x80\xF4\x8F\xBF\xBF"},
    };
    for (const auto& [text, expected] : cases) CHECK(parsed(text).root().string() == expected);
    const JsonDocument key = parsed(R"({"\u0061b": 1})");
    CHECK(key.root()["ab"].number() == 1);
}

TEST_CASE("JSON: what is none is refused, with the place") {
    const std::string_view cases[] = {
        "",
        " ",
        "{",
        "[",
        "}",
        "[1",
        "[1,",
        "[1,]",
        "[,1]",
        "[1 2]",
        "[1]]",
        "[1] 2",
        "{\"a\"}",
        "{\"a\" 1}",
        "{\"a\":}",
        "{\"a\":1,}",
        "{\"a\":1 \"b\":2}",
        "{a:1}",
        "{1:2}",
        "{\"a\":1]",
        "nul",
        "tru",
        "falsey",
        "True",
        "nan",
        "Infinity",
        "01",
        "-01",
        "00",
        "1.",
        ".5",
        "-",
        "+1",
        "--1",
        "1e",
        "1e+",
        "0x10",
        "1_000",
        "1e999",
        "-1e999",
        "\"",
        "\"abc",
        "\"a\nb\"",
        "\"a\x01\"",
        "\"\\\"",
        "\"\\x41\"",
        "\"\\u12\"",
        "\"\\u12g4\"",
        "\"\\u+123\"",
        "\"\\ud800\"",
        "\"\\ud800\\n\"",
        "\"\\ud800\\u0041\"",
        "\"\\udc00\"",
        "\"\\udc00\\ud800\"",
        "'a'",
        "// x\n1",
        "\xEF\xBB\xBF{}",
    };
    for (const std::string_view text : cases) {
        CAPTURE(std::string(text));
        CHECK_ERROR(parsed(std::string(text)), "not valid JSON", "here at byte");
    }
    CHECK_ERROR(parsed(std::string("[1]\0x", 5)), "something follows", "byte 3");
    CHECK_ERROR(parsed("{\"a\": 1, b}"), "a key is missing", "byte 9");
    CHECK_ERROR(parsed("[1, 2, x]"), "cannot be understood", "byte 7");
}

TEST_CASE("JSON: values nest 64 deep and no deeper") {
    const auto nested = [](std::size_t depth) { return std::string(depth, '[') + std::string(depth, ']'); };
    CHECK(parsed(nested(65)).root().array().size() == 1);
    CHECK_ERROR(parsed(nested(66)), "nested too deeply", "byte 65");
    CHECK_ERROR(parsed(std::string(5000000, '[')), "nested too deeply");
    std::string objects;
    for (int i = 0; i < 100000; ++i) objects += "{\"a\":";
    CHECK_ERROR(parsed(objects), "nested too deeply");
}

TEST_CASE("JSON: a value of another kind is refused, or reads as nothing where that is asked for") {
    const JsonDocument document = parsed(R"({"n": 1.5, "s": "x", "t": true, "l": [1], "o": {"k": 2}, "z": null})");
    const Json& root = document.root();
    CHECK_ERROR(root["s"].number(), "should be a number", "here");
    CHECK_ERROR(root["n"].string(), "should be a string", "here");
    CHECK_ERROR(root["n"].boolean(), "should be true or false", "here");
    CHECK_ERROR(root["o"].array(), "should be an array", "here");
    CHECK_ERROR(root["l"].members(), "should be an object", "here");
    CHECK_ERROR(root["z"].number(), "should be a number", "here");
    CHECK(root.find("none") == nullptr);
    CHECK(root["l"].find("k") == nullptr);
    CHECK(root["none"].is_null());
    CHECK(root["none"]["deeper"].is_null());
    CHECK(root["n"].text() == "");
    CHECK(root["s"].text() == "x");
    CHECK(root["s"].list().empty());
    CHECK(root["l"].list().size() == 1);
    CHECK(root["s"].flag(true));
    CHECK(!root["none"].flag(false));
    CHECK(root["t"].flag(false));
    for (const char* text : {"-1", "0.5", "1e300", "9007199254740994", "\"1\""})
        CHECK_ERROR(parsed(text).root().whole(), "a whole number", "here");
    CHECK(parsed("9007199254740992").root().whole() == 9007199254740992u);
    CHECK(parsed("0").root().whole() == 0);
}

}  // namespace
}  // namespace tests
