// Files and directories of tests and of fuzzing: llm.h whole, but nothing of doctest.

#ifndef LLM_TESTS_FILES_H
#define LLM_TESTS_FILES_H

#ifndef LLM_IMPLEMENTATION
#define LLM_IMPLEMENTATION
#endif
#include "../llm.h"

#include <cstdlib>
#include <set>
#ifdef __APPLE__
#include <mach-o/dyld.h>
#endif
#ifdef _WIN32
#include <direct.h>
#include <io.h>
#endif

namespace tests {

namespace fs = std::filesystem;
namespace detail = llm::detail;
using detail::Json, detail::JsonDocument, detail::TensorType, detail::usize;

// This program's own path.
inline fs::path program() {
#ifdef __APPLE__
    char path[PATH_MAX];
    std::uint32_t size = sizeof path;
    return _NSGetExecutablePath(path, &size) == 0 ? fs::canonical(path) : fs::path();
#elif defined(_WIN32)
    return fs::canonical(_pgmptr);
#else
    return fs::read_symlink("/proc/self/exe");
#endif
}

// The repository lies above the program.
inline const fs::path& repository() {
    static const fs::path found = [] {
        for (fs::path p = program().parent_path(); p != p.parent_path(); p = p.parent_path())
            if (fs::exists(p / "llm.h") && fs::exists(p / "tests")) return p;
        return fs::current_path();
    }();
    return found;
}
inline fs::path test_data() { return repository() / "tests" / "data"; }
inline std::string tiny(const std::string& name) { return (repository() / "models" / name).string(); }

inline std::string environment(const char* name, const std::string& otherwise = "") {
    const char* value = std::getenv(name);
    return value && *value ? value : otherwise;
}

inline std::string read_file(const fs::path& path) {
    std::ifstream in(path, std::ios::binary);
    if (!in) throw std::runtime_error("cannot read " + path.string());
    return {std::istreambuf_iterator<char>(in), {}};
}
inline void write_file(const fs::path& path, std::string_view bytes) {
    std::ofstream out(path, std::ios::binary);
    out.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
    if (!out.flush()) throw std::runtime_error("cannot write " + path.string());
}
inline JsonDocument read_json(const fs::path& path) { return JsonDocument(read_file(path), path.string()); }
inline std::string text(const Json& object, const char* key) { return std::string(object[key].string()); }

// A directory of its own, removed at the end of the scope.
struct TemporaryDirectory {
    fs::path path;
    TemporaryDirectory() {
        std::string name = (fs::temp_directory_path() / "llm-test-XXXXXX").string();
#ifdef _WIN32
        const bool made = _mktemp_s(name.data(), name.size() + 1) == 0 && _mkdir(name.c_str()) == 0;
#else
        const bool made = mkdtemp(name.data());
#endif
        if (!made) throw std::runtime_error("cannot make " + name);
        path = name;
    }
    ~TemporaryDirectory() {
        std::error_code ignored;
        fs::remove_all(path, ignored);
    }
    TemporaryDirectory(const TemporaryDirectory&) = delete;
    TemporaryDirectory& operator=(const TemporaryDirectory&) = delete;
};

using Files = std::map<std::string, std::string>;  // name in a directory -> bytes

inline Files files_of(const fs::path& directory) {
    Files files;
    for (const auto& entry : fs::directory_iterator(directory))
        files[entry.path().filename().string()] = read_file(entry.path());
    return files;
}
inline void write_files(const fs::path& directory, const Files& files) {
    for (const auto& [name, bytes] : files) write_file(directory / name, bytes);
}

template <class T> std::string raw(T value) { return {reinterpret_cast<const char*>(&value), sizeof value}; }

}  // namespace tests

#endif
