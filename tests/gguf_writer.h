// Writes GGUF files: whole models, and damaged ones.

#ifndef LLM_TESTS_GGUF_WRITER_H
#define LLM_TESTS_GGUF_WRITER_H

#include "files.h"

namespace tests {

struct Gguf {
    enum Type : std::uint32_t { u8, i8, u16, i16, u32, i32, f32, boolean, string, array, u64, i64, f64 };
    struct Pair {
        std::string key;
        std::uint32_t type;
        std::string bytes;
    };
    struct Tensor {
        std::string name;
        std::vector<std::uint64_t> shape;  // outermost first
        std::uint32_t type;
        std::string bytes;
        std::uint64_t shift = 0;  // added to the right offset
    };
    std::uint32_t version = 3;
    std::vector<Pair> pairs;
    std::vector<Tensor> tensors;
    std::uint64_t extra_tensors = 0, extra_pairs = 0;  // counted, but not there

    template <class T> static std::string raw(T value) { return tests::raw(value); }
    static std::string raw(const std::string& s) { return raw(std::uint64_t{s.size()}) + s; }
    template <class T> static std::string raw_array(std::uint32_t type, const std::vector<T>& items) {
        std::string bytes = raw(type) + raw(std::uint64_t{items.size()});
        for (const T& item : items) bytes += raw(item);
        return bytes;
    }
    Pair& pair(const std::string& key) {
        for (Pair& p : pairs)
            if (p.key == key) return p;
        return pairs.emplace_back(Pair{key, u32, ""});
    }
    Tensor& tensor(const std::string& name) {
        for (Tensor& t : tensors)
            if (t.name == name) return t;
        throw std::logic_error("no tensor " + name);
    }
    void set(const std::string& key, std::uint32_t type, std::string bytes) { pair(key) = {key, type, bytes}; }
    void set(const std::string& key, int value) { set(key, u32, raw(static_cast<std::uint32_t>(value))); }
    void set(const std::string& key, float value) { set(key, f32, raw(value)); }
    void set(const std::string& key, const std::string& value) { set(key, string, raw(value)); }
    void set(const std::string& key, bool value) { set(key, boolean, raw(std::uint8_t{value})); }
    template <class T> void set_list(const std::string& key, std::uint32_t type, const std::vector<T>& items) {
        set(key, array, raw_array(type, items));
    }
    void remove(const std::string& key) {
        pairs.erase(std::remove_if(pairs.begin(), pairs.end(), [&](const Pair& p) { return p.key == key; }),
                    pairs.end());
    }

    std::string bytes() const {
        constexpr std::size_t kAlignment = 32;
        const auto pad = [](std::string& s) { s.resize((s.size() + kAlignment - 1) / kAlignment * kAlignment); };
        std::string head = "GGUF" + raw(version) + raw(tensors.size() + extra_tensors), data;
        head += raw(pairs.size() + extra_pairs);
        for (const Pair& p : pairs) head += raw(p.key) + raw(p.type) + p.bytes;
        for (const Tensor& t : tensors) {
            head += raw(t.name) + raw(static_cast<std::uint32_t>(t.shape.size()));
            for (std::size_t i = t.shape.size(); i-- > 0;) head += raw(t.shape[i]);
            head += raw(t.type) + raw(data.size() + t.shift);
            data += t.bytes;
            pad(data);
        }
        pad(head);
        return head + data;
    }
};

}  // namespace tests

#endif
