// ERRORS AND SMALL TOOLS: names in messages, files, UTF-8.

#include "support.h"

namespace tests {
namespace {

TEST_CASE("a name from a file is shown in quotes, short and without control characters") {
    CHECK(detail::shown("wte.weight") == "\"wte.weight\"");
    CHECK(detail::shown("a\x1b[2Jb\n\x7f") == "\"a?[2Jb??\"");
    CHECK(detail::shown("") == "\"\"");
    CHECK(detail::shown(std::string(80, 'x')) == "\"" + std::string(80, 'x') + "\"");
    CHECK(detail::shown(std::string(81, 'x')) == "\"" + std::string(80, 'x') + "...\"");
    CHECK(detail::shown("\xC3\xA9\xC2\x9B\xC2\xA0\xC3x") == "\"\xC3\xA9?\xC2\xA0?x\"");
    CHECK(detail::shown(std::string(79, 'x') + "\xC3\xA9") == "\"" + std::string(79, 'x') + "\xC3\xA9\"");
    CHECK_ERROR(detail::fail("what", "where", "remedy"), "what: where: remedy");
}

TEST_CASE("a file is read to its last byte and not beyond") {
    const TemporaryDirectory directory;
    const std::string path = (directory.path / "ten").string();
    write_file(path, "0123456789");
    const detail::File file(path);
    CHECK(file.size() == 10);
    const auto read = [&](std::uint64_t offset, std::size_t bytes) {
        std::string got(12, '-');
        file.read(offset, got.data(), bytes);
        return got;
    };
    CHECK(read(0, 10) == "0123456789--");
    CHECK(read(9, 1) == "9-----------");
    CHECK(read(10, 0) == "------------");
    const std::pair<std::uint64_t, std::size_t> beyond[] = {
        {10, 1}, {0, 11}, {9, 2}, {11, 0}, {UINT64_MAX, 1}, {UINT64_MAX, 2}, {2, SIZE_MAX}, {UINT64_MAX - 1, SIZE_MAX}};
    for (const auto& range : beyond)
        CHECK_ERROR(file.read(range.first, nullptr, range.second), "the file ends too early", path);
    CHECK(file.read_all(10) == "0123456789");
    CHECK_ERROR(file.read_all(9), "larger than", path);
}

TEST_CASE("what is no file is refused by its name") {
    const TemporaryDirectory directory;
    CHECK_ERROR(detail::File((directory.path / "none").string()), "no such file", "none");
    CHECK_ERROR(detail::File(directory.path.string()), "not a file", directory.path.string());
    CHECK_ERROR(detail::File("/dev/null"), "not a file", "/dev/null");
    CHECK_ERROR(detail::File(""), "no such file");
    const fs::path secret = directory.path / "secret";
    write_file(secret, "x");
    fs::permissions(secret, fs::perms::none);
    if (geteuid() != 0) CHECK_ERROR(detail::File(secret.string()), "cannot open", "permissions");
}

// ---- UTF-8

// The bytes of a character, by the table of RFC 3629.
std::string utf8(std::uint32_t c) {
    const auto tail = [&](int bits) { return static_cast<char>(0x80 | (c >> bits & 0x3F)); };
    if (c < 0x80) return {static_cast<char>(c)};
    if (c < 0x800) return {static_cast<char>(0xC0 | c >> 6), tail(0)};
    if (c < 0x10000) return {static_cast<char>(0xE0 | c >> 12), tail(6), tail(0)};
    return {static_cast<char>(0xF0 | c >> 18), tail(12), tail(6), tail(0)};
}
bool is_surrogate(std::uint32_t c) { return c >= 0xD800 && c < 0xE000; }

TEST_CASE("every character is decoded from its UTF-8 and encoded to it") {
    for (std::uint32_t c = 0; c < 0x110000; ++c) {
        if (is_surrogate(c)) continue;
        const std::string bytes = utf8(c), inside = "a" + bytes + "\xBF";
        std::string appended;
        detail::utf8_append(appended, c);
        const detail::Character got = detail::utf8_decode(inside, 1);
        if (appended != bytes || got.code_point != c || got.length != bytes.size()) FAIL("code point " << c);
    }
}

TEST_CASE("what is no UTF-8 is an invalid character of one byte") {
    const std::string_view invalid[] = {
        "\x80",
        "\xBF",  // the middle of a character
        "\xC0\x80",
        "\xC1\xBF",
        "\xE0\x80\x80",
        "\xE0\x9F\xBF",  // longer than need be
        "\xF0\x80\x80\x80",
        "\xF0\x8F\xBF\xBF",  //
        "\xED\xA0\x80",
        "\xED\xAF\xBF",
        "\xED\xB0\x80",
        "\xED\xBF\xBF",  // surrogates
        "\xF4\x90\x80\x80",
        "\xF5\x80\x80\x80",
        "\xF8\x88\x80\x80\x80",
        "\xFE",
        "\xFF",  // beyond U+10FFFF
        "\xC3",
        "\xC3"
        "A",
        "\xE6\x97",
        "\xE6"
        "A\x97",
        "\xE6\x97"
        "A",
        "\xF0\x9F\x91",
        "\xF0\x9F\x91"
        "A",  // cut off
        "\xC3\xC3\xA9",
        "\xE6\x97\xC3",
    };
    for (const std::string_view text : invalid) {
        CAPTURE(std::string(text));
        CHECK(detail::utf8_decode(text, 0).code_point == 0xFFFFFFFF);
        CHECK(detail::utf8_decode(text, 0).length == 1);
    }
    const std::string_view valid[] = {"\xC2\x80",     "\xDF\xBF",     "\xE0\xA0\x80",     "\xED\x9F\xBF",
                                      "\xEE\x80\x80", "\xEF\xBF\xBF", "\xF0\x90\x80\x80", "\xF4\x8F\xBF\xBF"};
    for (const std::string_view text : valid) CHECK(detail::utf8_decode(text, 0).length == text.size());  // their edges
}

TEST_CASE("bytes at a text's end are held back where more would complete a character") {
    std::vector<bool> begins(1 << 24);  // some character, by 1, 2 or 3 of its bytes
    for (std::uint32_t c = 0x80; c < 0x110000; ++c) {
        if (is_surrogate(c)) continue;
        const std::string bytes = utf8(c);
        std::size_t number = 0;
        for (std::size_t n = 0; n + 1 < bytes.size(); ++n)
            begins[number = number << 8 | static_cast<unsigned char>(bytes[n])] = true;
    }
    const auto check = [&](const std::string& tail) {
        std::size_t number = 0, held = 0;
        for (std::size_t n = 1; n <= tail.size(); ++n) {  // the last n bytes
            number |= std::size_t{static_cast<unsigned char>(tail[tail.size() - n])} << 8 * (n - 1);
            const bool is_first = number >> 8 * (n - 1) >= 0xC2;
            if (is_first && begins[number]) held = n;
        }
        if (detail::utf8_complete_prefix("a" + tail) != 1 + tail.size() - held) FAIL("after " << tail);
    };
    for (int a = 0; a < 256; ++a) {
        check({static_cast<char>(a)});
        for (int b = 0; b < 256; ++b) {
            check({static_cast<char>(a), static_cast<char>(b)});
            for (int c = b % 7; c < 256 && a >= 0xE0; c += 7)
                check({static_cast<char>(a), static_cast<char>(b), static_cast<char>(c)});
        }
    }
    CHECK(detail::utf8_complete_prefix("") == 0);
    CHECK(detail::utf8_complete_prefix("a\u65e5") == 4);
    CHECK(detail::utf8_complete_prefix("a\xF0\x9F\x91") == 1);
    CHECK(detail::utf8_complete_prefix("a\xED\xA0") == 3);  // would be a surrogate
}

}  // namespace
}  // namespace tests
