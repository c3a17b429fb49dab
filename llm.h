// llm.h - GPT-2 and Gemma 3 on the CPU in one C++17 header
//
// A language model reads a text as a list of numbers (tokens) and says for each possible next token how likely it is.
// This header loads such a model, runs it, and writes text with it. It needs the C++17 standard library and POSIX or
// Windows, nothing else. Copyright (c) 2026 The llm.h authors, MIT License (at the end).
//
// HOW TO USE IT
//
//       #define LLM_IMPLEMENTATION                                   // in one .cpp file of your program, not in others
//       #include "llm.h"
//
//       llm::Model model = llm::Model::load("models/gemma3-tiny");   // or a .gguf file, or a .safetensors file
//       llm::Session session(model);
//       llm::GenerateOptions options;
//       options.max_tokens = 100;
//       llm::generate(session, "ROMEO:", options, [](std::string_view text) {
//           std::cout << text << std::flush;
//           return true;                                             // false ends it
//       });
//
//   Compile with -std=c++17 -O2 -pthread, and exceptions. g++ and clang++ need no -mavx2 or the like: kernels for AVX2,
//   AVX-512 and NEON are compiled in and chosen when the program runs. Other compilers get plain C++, many times slower.
//   Kernels are compiled once per instruction set: give the bodies a .cpp file that seldom changes. The file must keep
//   its name, as it includes itself.
//
//   One level below generate: Tokenizer::encode gives ids, Session::forward takes ids and gives logits (a number for
//   each possible next token: the larger, the likelier), Sampler::sample chooses the next id from them,
//   Tokenizer::piece gives its text. One level above it: Chat is a conversation. examples/ holds short programs with
//   all of them.
//
// WHAT IT RUNS
//
//   GPT-2 of all sizes (also distilgpt2) and Gemma 3 text models of all sizes (also the text part of a multimodal
//   checkpoint), from Hugging Face directories (config.json, tokenizer.json or vocab.json + merges.txt, safetensors in
//   one file or in shards; F32, F16, BF16) or GGUF files (v2, v3, whole or split; F32, F16, BF16, Q8_0, Q4_0, Q4_1,
//   Q5_0, Q5_1, Q2_K to Q6_K, IQ4_NL, IQ4_XS). In memory matrices are nearly as small as in the file, or Q8_0, Q4_0 or
//   F32 if you ask for it (LoadOptions::dtype). What a file says that changes the result is applied, or refused by
//   name.
//
// WHAT TO KNOW
//
//   - Every failure is an llm::Error whose text names the file or value and the remedy, and whose kind says what is at
//     fault. Besides, only std::bad_alloc and what your callbacks throw come out. The library prints nothing, never
//     exits, and has no mutable globals; no thread and no memory is left behind.
//   - A Model is immutable: share it between threads. A Session belongs to one thread at a time; it has helper threads
//     of its own (its forks share them), which sleep when it has nothing to do. By default each Session takes all cores
//     that it may use: where several sessions run at once, divide the cores among them.
//   - The same bits everywhere: for a model file and a dtype, every logit, and every text of a seed, is the same on
//     every processor, with every set of kernels, compiler, optimization and number of threads, for a prompt in one
//     piece or in many, token by token or tried out by lookup, after rewinding, saving and loading. Exempt are floats
//     that are not IEEE's single and double (the x87 of 32-bit x86). -ffast-math, -ffinite-math-only and, by g++,
//     -funsafe-math-optimizations and its parts are refused; clang++ does not tell the header of the last.
//   - Model files are read, not mapped, and nothing in them is trusted.
//   - The environment variable LLM_SIMD=scalar|avx2|avx512|neon|neon_dot forces a set of kernels.
//   - Defines, wherever the header is included:
//       LLM_IMPLEMENTATION   the functions' bodies too; in one .cpp file
//       LLM_STATIC           the same in any number of .cpp files: each gets its own copy, nothing of it is visible to
//                            the linker, so that a library may hide one llm.h inside and its user have another
//       LLM_NO_THREADS       no threads: <thread> and the like are not included, nor -pthread needed
//       LLM_NO_SIMD          no vector kernels: plain C++ for any processor and compiler, many times slower
//
// HOW TO READ IT
//
//   From top to bottom: the public API, then (LLM_IMPLEMENTATION) one room after the other, each using only those above
//   it. To learn how a model works begin at FORWARD, and go up and down from there as you need.
//
//     ERRORS AND SMALL TOOLS, JSON, NUMBERS (F16, Q8_0, Q4_K, ...), MEMORY AND THREADS    the ground
//     KERNELS (scalar, and in vectors), MATRICES (y = W x for any number of tokens)       the arithmetic
//     MODEL FILES (safetensors, GGUF), TOKENIZER (text to ids and back), MODEL            what is loaded
//     ATTENTION (softmax(q K^T) V), PROFILING, LIKELIEST TOKENS (the best logits),        what is computed
//     FORWARD (the layers), SAVED SESSIONS
//     SAMPLING (logits to a token), GENERATION (tokens to a text), CHAT                   what is written
//
//   How the file is built. The vector kernels are one text, which is compiled once per instruction set: in the middle
//   the file includes itself, each time with LLM_KERNEL_PASS defined, and such a pass reads only them.
//
//     #ifndef LLM_H               the public API
//     #if LLM_IMPLEMENTATION      ERRORS AND SMALL TOOLS to KERNELS; then #include "llm.h", once per set of kernels
//     #ifdef LLM_KERNEL_PASS      KERNELS, IN VECTORS
//     #elif LLM_IMPLEMENTATION    MATRICES to CHAT

#ifndef LLM_H
#define LLM_H

#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

// Until 1.0 a new second number may change the API: CHANGES.md says how.
#define LLM_VERSION "0.2.0"
#define LLM_VERSION_NUMBER 200  // 10000 * major + 100 * minor + patch

#ifdef LLM_STATIC  // what is in an unnamed namespace belongs to its .cpp file alone
#undef LLM_IMPLEMENTATION
#define LLM_IMPLEMENTATION
// clang-format off
#define LLM_BEGIN namespace llm { namespace {
#define LLM_END }}
// clang-format on
#else
#define LLM_BEGIN namespace llm {
#define LLM_END }
#endif

LLM_BEGIN

namespace detail {  // what the classes below hold; the rooms define it
struct Checkpoint;
struct TokenizerData;
struct ModelData;
struct SessionData;
}  // namespace detail

// Every failure of this library. what() reads "what is wrong: which file or value: what to do". Functions that cannot
// fail say so below; all others may throw it.
struct Error : std::runtime_error {
    // What is at fault: a file; a value that was passed, or a call at a wrong time; a text that the context is too
    // small for; or the system (threads, memory for the program, a disk that cannot be written, the environment).
    enum class Kind { file, argument, context, system } kind;
    explicit Error(const std::string& text, Kind k = Kind::argument) : std::runtime_error(text), kind(k) {}
};

// How matrices are held at run time: all as F32 or Q8_0; with the 4 bits of Q4_0, but the embedding (the first matrix:
// a row for each token) and the head (the last one, which gives the logits) in Q8_0; or, `native`, in the file's bits or
// a few more (Model::info says how), and in Q8_0 where it has 16 or 32 bits. Norms and biases are always F32.
enum class DType { f32, q8_0, q4_0, native };

struct LoadOptions {
    DType dtype = DType::native;
    int threads = 0;  // how many load; 0: one for each physical core; at most 1024

    // Called on the loading thread with done in 0..1; `what` names what is being read and is valid during the call.
    // What it throws ends the loading. Null: not called.
    std::function<void(float done, const char* what)> progress;
};

// What a model is, in the terms of its paper and of Hugging Face's config.json. Model::load reads and checks it; for
// Model::random you fill it in.
struct Config {
    std::string architecture = "gpt2";  // or "gemma3": what a GGUF calls it
    int vocab_size = 0;                 // rows of the embedding; the tokenizer may know fewer ids, or a few more
    int context_length = 0;             // n_positions, max_position_embeddings

    // Floats of a token's vector between the layers (n_embd), and inside of a feed-forward network (n_inner).
    int hidden_size = 0, intermediate_size = 0;

    // Heads of queries share heads of keys and values: query head h reads number h * num_kv_heads / num_heads.
    // head_dim: floats of a head.
    int num_layers = 0, num_heads = 0, num_kv_heads = 0, head_dim = 0;

    float norm_eps = 1e-5f;
    float attention_scale = 0;  // q.k is multiplied by it before the softmax

    // RoPE (Gemma), of the global and of the local layers: its base frequency, and what they divide the position by
    // (linear scaling).
    float rope_theta = 0, rope_local_theta = 0;
    float rope_scaling = 1, rope_local_scaling = 1;

    float final_logit_softcapping = 0;  // c: logits become c tanh(logits / c); 0: they stay
    int sliding_window = 0;             // a local layer sees this many positions, its own included
    std::vector<bool> is_local;         // [num_layers]; false: a global layer, which sees all positions
    bool tied_head = true;              // the head is the embedding
};

// What becomes of special tokens, such as <end_of_turn>, that are spelled out in a text: they stay the text that
// someone wrote, or become the tokens. Added tokens that a tokenizer does not call special become tokens in any case.
enum class Special { as_text, parsed };

// Text to token ids and back. Immutable; copies share the data and may be used by several threads. One that no model
// gave (default-constructed, or of Model::random) has no tokens: encode and piece throw. Where the embedding has more
// rows than there are tokens, forward takes the ids in between, generate never chooses them, and piece throws.
class Tokenizer {
  public:
    // add_bos: adds what the tokenizer puts before and after a text, which is mostly the bos token or nothing.
    std::vector<int> encode(std::string_view text, Special = Special::as_text, bool add_bos = true) const;
    std::string decode(const std::vector<int>& ids) const;  // bytes; may end inside a UTF-8 character
    std::string piece(int id) const;                        // the bytes of one token, 0 <= id < vocab_size()

    // These never throw.
    int vocab_size() const;
    int bos() const;                               // -1: the model has none
    bool is_eos(int id) const;                     // end of text or of a turn; any id may be asked for
    int special_id(std::string_view piece) const;  // the id of an added token such as <start_of_turn>, or -1
    const std::string& chat_template() const;      // the file's, in Jinja; empty: none. Valid as long as this object
  private:
    std::shared_ptr<const detail::TokenizerData> data_;
    friend class Model;
    friend class Chat;
};

// What was in the file and what it became, for people to read.
struct ModelInfo {
    std::string format;                  // "safetensors, 2 shards", "GGUF v3"
    std::uint64_t parameters = 0;        // tied matrices counted once
    std::map<std::string, int> tensors;  // how many of each type the file holds, by the type's name
    // Matrices that were rounded to fewer bits while loading, and those whose values are the file's own (K types,
    // IQ4_XS: with scales of 16 bits).
    int quantized = 0, exact = 0;

    struct Held {
        int matrices = 0;
        std::size_t bytes = 0;
    };
    std::map<std::string, Held> formats;  // what the file's matrices are in memory: f32, q8_0, q4_0, q4_1 and so on

    int fused = 0;                       // matrices that were joined with others (q+k+v, gate+up)
    int ignored = 0;                     // tensors of the file that were not read
    std::map<std::string, int> outside;  // these by kind, such as "vision_tower": they are not the text model's
    std::size_t weight_bytes = 0;        // memory of all weights
};

// A loaded checkpoint. Immutable after loading: share it between sessions and threads. Copies share the data, which
// lives as long as a copy or a Session of it. A default-constructed or moved-from Model throws when it is used.
class Model {
  public:
    // path: a Hugging Face directory, a .safetensors file beside its config.json, or a .gguf file; in UTF-8.
    static Model load(const std::string& path, const LoadOptions& = {});

    // The same from a GGUF in memory, such as a resource of the program. Nothing points to the bytes afterwards.
    static Model load_bytes(std::string_view gguf, const LoadOptions& = {});

    // A model of this shape with random matrices (norms, biases and positions are 1) and no tokenizer, to measure speed
    // without a download.
    static Model random(const Config&, const LoadOptions& = {}, std::uint64_t seed = 0);

    const Config& config() const;  // these references are valid as long as the data
    const Tokenizer& tokenizer() const;
    const ModelInfo& info() const;
    DType dtype() const;

    // Ids from 0 to below this have both an embedding and a text, so they can be generated; 0: there is no tokenizer.
    int sampleable() const;

    // Bytes that a Session with this context (0: as in Session) allocates, or so many that share threads: KV caches
    // and, for prompts, scratch. What is not used yet takes address space only. forward_each, score and
    // GenerateOptions::lookup take up to 15 times vocab_size floats more.
    std::size_t session_bytes(int context, int sessions = 1) const;

    const detail::ModelData& data() const;  // for the library itself
  private:
    static Model load(const detail::Checkpoint&, const LoadOptions&);
    std::shared_ptr<const detail::ModelData> data_;
};

// An operation of a step as Session::on_timing reports it: a matrix product, a norm, a stage of attention. Its texts
// are literals.
struct Timing {
    const char* part = "";         // embedding, norm, qkv, rope, attention, attn_out, up, activation, down, lm_head,
                                   // sampling, or step: the whole, reported at its end. generate samples between
                                   // two steps: it comes with the second, and is no part of its seconds
    const char* operation = "";    // of the part: attention's are kv_store, qk, softmax, av, merge, pack
    std::uint64_t bytes = 0;       // of weights or cache that were read, each counted once
    std::uint64_t operations = 0;  // multiplications and additions
    int layer = -1;                // -1: outside of the layers
    int tokens = 0;                // that went through it together
    // From the end of the operation before to its own, on the calling thread; of these, until the other threads were
    // done too.
    double seconds = 0, waited = 0;
};

struct Logit {
    int id;
    float value;
};

// A text on its way through a model: KV cache, scratch memory, position, threads. It keeps its Model's data alive. Not
// to be used by two threads at once. What it calls back may ask it (functions that are const, but save and fork; and
// on_timing), and gets an Error for all else. After an exception, a callback's own too, it holds the tokens that
// position() counts, and can go on. A moved-from Session throws when it is used.
class Session {
  public:
    // context: positions that can be held, at most the model's own; 0: the model's own, at most 8192.
    // threads: at most 1024; 0: all physical cores.
    explicit Session(const Model&, int context = 0, int threads = 0);
    Session(Session&&) = default;
    Session& operator=(Session&&) = default;

    // Appends n >= 1 tokens and returns the logits after the last one, [vocab_size]; valid until the next call of a
    // function that is not const.
    const float* forward(const int* tokens, int n);
    const float* forward(const std::vector<int>& tokens);

    // The same, handing out the logits after each token: on_logits(i, logits) for i = 0 .. n-1, [vocab_size], valid
    // during the call.
    void forward_each(const int* tokens, int n, const std::function<void(int i, const float* logits)>& on_logits);
    // The same with the hidden states [hidden_size] that the logits would be made of, after the last norm.
    void forward_hidden(const int* tokens, int n, const std::function<void(int i, const float* hidden)>& on_hidden);

    // The logits after the last token that is held, as forward returns them. Where they are not there (after generate,
    // rewind, load, forward_hidden), that token goes through the layers for them.
    const float* logits();

    // The k largest of these logits, largest first, of ids with a text (Model::sampleable); forward_best appends n >= 1
    // tokens before. Where the head is in Q8_0 and k at most a 16th of the ids, what cannot be among them is not
    // computed, see LIKELIEST TOKENS.
    std::vector<Logit> best(int k);
    std::vector<Logit> forward_best(const int* tokens, int n, int k);

    // The tokens that are held, also the last one that generate has shown; valid as long as the session, and changed by
    // its calls. And their number.
    const std::vector<int>& tokens() const;
    int position() const;
    int context() const;  // tokens that can be held
    int threads() const;
    const Model& model() const;
    void rewind(int position);  // forgets everything from `position` (0 .. position()) on

    // A session that holds the same and goes on alone, without callbacks. Takes memory for what is held; the rest of
    // its context takes some when it is used. It shares threads and scratch with this session and its other forks: they
    // may be used by several threads, but take turns, and what one of them calls back cannot call another one.
    Session fork() const;

    // Saves what the session holds, as bytes or in a file (which is written whole or not at all), and loads it, into a
    // session of the same model and dtype whose context is large enough. After an Error of a load the session is as
    // before.
    std::string save_bytes() const;
    void load_bytes(std::string_view bytes);
    void save(const std::string& path) const;
    void load(const std::string& path);

    // Calls hook(layer, position, n, x) after each layer, 0 .. num_layers-1, on the calling thread: x [n, hidden_size]
    // is the residual stream of the tokens from `position` on, to be read or changed. The guesses of
    // GenerateOptions::lookup come by too, tokens that are read again, and each text of generate_many in its turn. Null
    // ends it.
    using OnLayer = std::function<void(int layer, int position, int n, float* x)>;
    void on_layer(OnLayer hook);

    // Has every operation of every step timed from now on, and reported on the calling thread when the step is done;
    // the operations' seconds but generate's sampling add up to the step's (less what callbacks took). Null ends it.
    // May be called by callbacks.
    void on_timing(std::function<void(const Timing&)> report);

    const std::shared_ptr<detail::SessionData>& data() const;  // for the library itself
  private:
    explicit Session(std::shared_ptr<detail::SessionData> data) : data_(std::move(data)) {}
    std::shared_ptr<detail::SessionData> data_;  // its own; a unique_ptr cannot destroy what is not known here
};

// Appends tokens[i] (one or more) to sessions[i], all in the same steps, so that the weights are read once for all of
// them; logits() of each is then what forward would have given, to the bit. Sessions of one model, each once; the
// threads, the scratch and on_timing are the first one's. After an exception, a hook's too, each holds the tokens that
// position() counts.
void forward_together(const std::vector<Session*>& sessions, const std::vector<std::vector<int>>& tokens);

// ln p(id) = logits[id] - ln(sum of all exp(logits)), of n logits.
double log_probability(const float* logits, int n, int id);

// ln p(text | what the session holds): how likely the model finds it. The text is appended, encoded as by generate. A
// session that holds nothing says nothing about the first token, so that one is not counted.
double score(Session&, std::string_view text);
double score(Session&, const std::vector<int>& tokens);

// How the next token is chosen. The filters apply in this order: repeat penalty, top_k, top_p, min_p, temperature.
struct Sampling {
    float temperature = 0.8f;     // 0: always the likeliest
    float top_p = 0.95f;          // keep the likeliest tokens that together reach this probability; 1: all
    float min_p = 0.05f;          // drop tokens less likely than this share of the likeliest; 0: none
    float repeat_penalty = 1.0f;  // divides positive and multiplies negative logits of recent tokens; 1: off
    int top_k = 40;               // keep this many; 0: all
    int repeat_last_n = 64;       // how many tokens are recent
    std::uint64_t seed = 0;       // the same seed gives the same text
};

class Sampler {
  public:
    explicit Sampler(const Sampling& = {});  // throws where an option is out of range
    // An id in 0 .. n-1 from n logits. Ids beyond Tokenizer::vocab_size() have no text: leave their logits out.
    int sample(const float* logits, int n);

    // The same from logits of some ids, in any order: as if all others were minus infinity.
    int sample(std::vector<Logit> candidates);

    void accept(int id);  // tells the repeat penalty that id is now part of the text
    // Of how many of the best logits it chooses; 0: of all.
    int draws_from() const { return options_.temperature == 0 ? 1 : options_.top_k; }
    std::vector<int> penalized() const;  // the ids whose logits it changes, ascending
  private:
    int draw(std::vector<Logit> best);

    Sampling options_;
    std::uint64_t state_;     // of the random number generator
    std::deque<int> recent_;  // the last repeat_last_n ids
};

// A token that was generated, and what the model thought of it.
struct TokenInfo {
    int id = 0;
    std::string text = {};       // its bytes; may be a part of a character
    double log_probability = 0;  // natural logarithm, of the model's own logits: before on_logits and filters
    std::vector<TokenInfo> likeliest = {};  // the best of all tokens at this place, if they are wanted
};

struct GenerateOptions {
    int max_tokens = 256;  // -1: until the context is full
    Sampling sampling;
    std::vector<std::string> stop;       // generation ends before the first of these texts
    bool ignore_end = false;             // end-of-text tokens do not stop
    Special special = Special::as_text;  // in a prompt that is a text

    // Null: a new Sampler(sampling) chooses the tokens, after it was told all that the session holds. Or one of yours,
    // which must outlive the call: it keeps its random numbers and recent tokens from call to call, and is told only
    // the prompt and what is generated.
    Sampler* sampler = nullptr;

    // Guess up to this many tokens (0 to 11) from what followed earlier in the text, and check them together: the
    // text is the same as without, and comes faster where it repeats itself. 0: off.
    int lookup = 0;

    // Compute the whole head for each token, not only what may be among the best of it; on_logits and on_token need it.
    bool all_logits = false;

    // Called after each 256 tokens of the prompt (generate_many: after each piece of it) and at its end; false ends
    // generation there. Null: not called.
    std::function<bool(int done, int total)> on_prompt;

    // Called before each draw with the logits of the ids 0 .. n-1 (n is Model::sampleable()), a copy that it may
    // change: add to favour, -INFINITY forbids. Null: not called.
    std::function<void(float* logits, int n)> on_logits;

    // Called with each token, before its text is shown; false ends generation. Null: not called.
    std::function<bool(const TokenInfo&)> on_token;
    int likeliest = 0;  // how many TokenInfo::likeliest for it
};

// Why a text ended: with an end token, which is not appended to the session; before a stop text, whose tokens are
// appended; at max_tokens; with a full context; because on_text or on_token returned false; because on_prompt did.
enum class End { end_token, stop_text, max_tokens, context, callback, interrupted };

struct Stats {
    int prompt_tokens = 0, generated = 0;  // that were read (after an empty prompt the last one again), and appended
    double prompt_s = 0, generate_s = 0;   // seconds
    End end = End::max_tokens;
    int guessed = 0, guessed_right = 0;  // tokens, by GenerateOptions::lookup
};

// Gets the text as it comes, in whole UTF-8 characters; the view is valid during the call. False ends generation. Null:
// nobody is told.
using OnText = std::function<bool(std::string_view text)>;

// Appends the prompt to the session (encoded with add_bos only at position 0), then samples until an end token, a stop
// text, max_tokens, the context's end, or a callback returning false. An empty prompt goes on from what is held, also
// inside a character.
Stats generate(Session&, std::string_view prompt, const GenerateOptions& = {}, const OnText& on_text = {});

// The same after a prompt of tokens, which are appended as they are.
Stats generate(Session&, const std::vector<int>& prompt, const GenerateOptions& = {}, const OnText& on_text = {});

// What generate_many writes after a prompt.
struct Completion {
    std::string text;
    std::vector<int> tokens;  // without the prompt's and without an end token
    Stats stats;
};

// A prompt with options of its own: GenerateOptions::sampler cannot be used, and lookup is not.
struct Request {
    std::string prompt;
    GenerateOptions options;
};

using OnTexts = std::function<bool(int i, std::string_view text)>;  // as OnText; false ends text i
using OnEnd = std::function<bool(int i, const Completion&)>;        // false: no other text begins

// Writes a text for each prompt, up to `at_once` (at most 256; 0: up to 32, as memory allows) in the same steps, so
// that the weights are read once for all of them. All texts follow what the session holds, and the session stays as it
// is. Text i is the same, to the byte, as generate() alone would write with the seed + i. When a text ends another one
// takes its place. Prompts are read in pieces beside the texts, their common beginning once. Callbacks come on the
// calling thread; an exception ends all. A text that never began, because on_end returned false, has End::interrupted.
// An Error (Kind::system) if session_bytes(context, at_once + 2) exceeds the memory.
std::vector<Completion> generate_many(Session&, const std::vector<std::string>& prompts, const GenerateOptions& = {},
                                      const OnTexts& on_text = {}, int at_once = 0, const OnEnd& on_end = {});

// The same in a new session of a model.
inline std::vector<Completion> generate_many(const Model& model, const std::vector<std::string>& prompts,
                                             const GenerateOptions& options = {}, const OnTexts& on_text = {},
                                             int at_once = 0, const OnEnd& on_end = {}) {
    Session session(model);
    return generate_many(session, prompts, options, on_text, at_once, on_end);
}

// The same of prompts with options of their own, also their seeds.
std::vector<Completion> generate_many(Session&, const std::vector<Request>&, const OnTexts& on_text, int at_once = 0,
                                      const OnEnd& on_end = {});

// A conversation: what is said in turn by the user and the model. It stays in the session from turn to turn; when it
// outgrows the context, its oldest turns are dropped. The Chat keeps a reference: the session must outlive it, and stay
// where it is.
class Chat {
  public:
    // What stands around the words of each turn. automatic: as the model's own chat template has it, if that is of a
    // kind which is known here, or else plain, which continues what the user writes (end it by GenerateOptions::stop).
    enum class Template { automatic, gemma, chatml, dialogpt, plain };
    enum class Role { user, model };

    // A session that holds something goes on from there. `system` is what comes before the first turn.
    explicit Chat(Session&, const std::string& system = {}, Template = Template::automatic);

    // Appends a turn that was already said; those of the user and the model alternate.
    void add(Role, std::string_view text);

    // Appends a turn of the user and writes the model's. A turn that options.on_prompt or an exception ends is
    // forgotten. No special tokens are looked for in what is said.
    Stats say(std::string_view text, const GenerateOptions&, const OnText& on_text);

    Template used() const { return template_; }  // never automatic
    static const char* name(Template);           // "gemma"
    int dropped_turns() const { return dropped_; }
  private:
    std::vector<int> turn(std::string_view words, std::string_view after) const;
    std::vector<std::vector<int>> with_room(std::size_t wanted) const;

    Session& session_;
    Template template_;
    bool trims_ = false;                  // words lose the white space around them
    std::vector<int> head_;               // tokens before the words of the first turn
    std::vector<int> asked_;              // the user's last turn
    bool is_asked_ = false;               // it has no answer yet
    std::vector<std::vector<int>> text_;  // what comes before the first turn, and the turns, each with its end
    int dropped_ = 0;
};

LLM_END
#endif  // LLM_H

#if defined(LLM_IMPLEMENTATION) && !defined(LLM_IMPLEMENTATION_INCLUDED) && !defined(LLM_KERNEL_PASS)

#if defined(__FAST_MATH__) || defined(_M_FP_FAST) || defined(__ASSOCIATIVE_MATH__) || defined(__RECIPROCAL_MATH__) || \
    (defined(__FINITE_MATH_ONLY__) && __FINITE_MATH_ONLY__)
#error "llm.h gives the same bits everywhere, so floats must be IEEE's: compile it without -ffast-math and its parts"
#endif

#pragma push_macro("min")  // <windows.h> has them as macros; they come back at the end
#pragma push_macro("max")
#undef min
#undef max
#if defined(LLM_STATIC) && defined(__GNUC__)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wunused-function"  // a .cpp file may leave out what others need
#endif

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <cfenv>
#include <charconv>
#include <chrono>
#include <climits>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <filesystem>
#include <fstream>
#include <new>
#include <numeric>
#include <optional>
#include <queue>
#include <system_error>
#include <unordered_map>
#include <unordered_set>
#include <utility>
#include <variant>
#ifndef LLM_NO_THREADS
#include <condition_variable>
#include <mutex>
#include <thread>
#endif
#if defined(__unix__) || defined(__APPLE__)
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>
#endif
#ifdef __linux__
#include <sched.h>
#include <sys/auxv.h>
#endif
#if defined(__x86_64__)
#pragma GCC diagnostic push
#ifndef __clang__  // GCC 12 takes the undefined registers in its own header for a mistake (bug 105593)
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
#include <immintrin.h>
#pragma GCC diagnostic pop
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

LLM_BEGIN
namespace detail {

// ==== ERRORS AND SMALL TOOLS =========================================================================================
//
// Every failure is an Error of three parts: what is wrong, in which file or value, and what to do about it. `fail` is
// for files, `misuse` for what callers do. A model file comes from the internet, so nothing in it is believed: sizes,
// offsets and counts are checked before use, and text from it is cleaned before it gets into a message.

using std::to_string;

using Kind = Error::Kind;

[[noreturn]] inline void fail(const std::string& what, const std::string& where, const std::string& remedy,
                              Kind kind = Kind::file) {
    throw Error(what + ": " + where + ": " + remedy, kind);
}

[[noreturn]] inline void misuse(const std::string& what, const std::string& where, const std::string& remedy) {
    fail(what, where, remedy, Kind::argument);
}

struct Character {
    std::uint32_t code_point;
    std::size_t length;  // in bytes
};

// The character at text[i] (RFC 3629). A byte that starts no valid one counts as a character 0xFFFFFFFF.
inline Character utf8_decode(std::string_view text, std::size_t i) {
    const std::uint32_t first = std::uint8_t(text[i]);
    if (first < 0x80) return {first, 1};

    const std::size_t length = first >= 0xF0 ? 4 : first >= 0xE0 ? 3 : 2;
    bool valid = first >= 0xC2 && first <= 0xF4 && text.size() - i >= length;
    std::uint32_t value = first & (0x7Fu >> length);
    for (const char next : text.substr(i + 1, length - 1)) {
        valid = valid && (next & 0xC0) == 0x80;
        value = value << 6 | std::uint32_t(next & 0x3F);
    }

    const std::uint32_t least = length == 4 ? 0x10000 : length == 3 ? 0x800 : 0x80;  // a longer form is not allowed
    valid = valid && value >= least && value <= 0x10FFFF && value >> 11 != 0xD800 >> 11;  // nor are surrogates
    return valid ? Character{value, length} : Character{0xFFFFFFFF, 1};
}

inline void utf8_append(std::string& out, std::uint32_t code_point) {
    const int tail = code_point < 0x80 ? 0 : code_point < 0x800 ? 1 : code_point < 0x10000 ? 2 : 3;
    constexpr std::uint32_t kFirst[] = {0, 0xC0, 0xE0, 0xF0};
    out += char(kFirst[tail] | code_point >> 6 * tail);
    for (int k = tail - 1; k >= 0; --k) out += char(0x80 | (code_point >> 6 * k & 0x3F));
}

// How many bytes of `text` can be shown now: all but a last character that more bytes could complete. Whether they
// could is tried out, with the smallest and the largest byte that may follow.
inline std::size_t utf8_complete_prefix(std::string_view text) {
    for (std::size_t tail = 1; tail <= std::min<std::size_t>(text.size(), 3); ++tail)
        for (const char filler : {'\x80', '\xBF'}) {
            const std::string longer = std::string(text.substr(text.size() - tail)).append(3, filler);
            if (utf8_decode(longer, 0).length > tail) return text.size() - tail;
        }
    return text.size();
}

inline bool is_control(char c) { return std::uint8_t(c) < ' ' || c == 127; }

// A name out of a file as a message shows it: in quotes, not too long, without control characters and broken ones.
inline std::string shown(std::string_view name) {
    std::string out = "\"";
    std::size_t i = 0;
    while (i < name.size() && i < 80) {
        const auto [c, length] = utf8_decode(name, i);
        const bool is_shown = c >= ' ' && (c < 127 || c >= 160) && c != 0xFFFFFFFF;
        out += is_shown ? name.substr(i, length) : "?";
        i += length;
    }
    return out + (i < name.size() ? "...\"" : "\"");
}

// Whether it is like the names that models have: messages and ModelInfo show them as they are.
inline bool is_name(std::string_view s) { return s.size() <= 1000 && std::none_of(s.begin(), s.end(), is_control); }

#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "llm.h reads model files as they are, and they are little-endian"
#endif

// A value at an address that need not be aligned.
template <class T> T load_as(const void* p) {
    T value;
    std::memcpy(&value, p, sizeof value);
    return value;
}

// Paths are UTF-8 everywhere, also where the system's own are UTF-16.
inline std::filesystem::path to_path(const std::string& path) try {
    if (path.find('\0') != path.npos) fail("not a path (it holds a NUL)", shown(path), "leave the NUL out");
#ifdef __cpp_char8_t
    return std::u8string(path.begin(), path.end());
#else
    return std::filesystem::u8path(path);
#endif
} catch (const std::system_error& e) {
    fail(std::string("not a path (") + e.what() + ")", shown(path), "paths are UTF-8");
}

inline std::filesystem::file_status status_of(const std::string& path) {
    std::error_code ignored;
    return std::filesystem::status(to_path(path), ignored);
}

inline bool ends_with(std::string_view text, std::string_view end) {
    return text.size() >= end.size() && text.substr(text.size() - end.size()) == end;
}

// Calls visit(part) for the parts of "a|b|c".
template <class Visit> void for_parts(std::string_view text, const Visit& visit, char separator = '|') {
    for (std::size_t end; !text.empty(); text.remove_prefix(std::min(text.size(), end + 1))) {
        end = std::min(text.find(separator), text.size());
        visit(text.substr(0, end));
    }
}
inline bool is_any(std::string_view text, std::string_view choices) {
    bool found = false;
    for_parts(choices, [&](std::string_view one) { found = found || text == one; });
    return found;
}

// What cannot be used: the marks by which it is known, "a|b", what it is, and what to do about it. A mark's first
// character says where it is looked for; in a file's beginning, ? is any byte.
struct Foreign {
    enum In : char { beginning = '^', file_name = '*', tensor_name = '#', kind = '=' };  // file_name: its end
    std::string_view marks;
    const char *what, *remedy;
};
constexpr char kGetModel[] = "get the model as safetensors or as a GGUF file";
constexpr char kGetWhole[] = "get the model unquantized (F16 or BF16), or as a GGUF file";
constexpr char kMerge[] = "merge it into its model (merge_and_unload of PEFT) and save that";
constexpr char kIsEmbedding[] = "an embedding model, such as EmbeddingGemma, writes no text: get one that does";
// clang-format off
constexpr Foreign kForeign[] = {
    {"^version https://git-lfs", "a pointer of Git LFS, not the file itself", "run git lfs pull, or download it"},
    {"^<!DOCTYPE|^<!doctype|^<html|^<HTML|^<head|^<?xml", "a web page, not the file itself", "download it from a link to the file (.../resolve/main/...)"},
    {"^\x1F\x8B", "a gzip archive", "unpack it"},
    {"^PK\3\4", "a zip archive, as PyTorch's checkpoints (pytorch_model.bin, .pt) and .task files are", kGetModel},
    {"^lmgg|^tjgg|^fmgg", "a GGML file, older than GGUF", kGetModel},
    {"*adapter_config.json|*adapter_model.safetensors|=adapter|=controlvector", "an adapter (PEFT, LoRA), not a whole model", kMerge},
    {"^\x80|*.bin|*.pt|*.pth|*.ckpt", "a PyTorch checkpoint (a pickle, which may run code when it is loaded)", kGetModel},
    {"^\x08?\x12|*.onnx", "an ONNX model", kGetModel},
    {"^\x89HDF|^????TFL3|*.h5|*.msgpack|*.tflite", "a model of TensorFlow or Flax", kGetModel},
    {"#.base_layer.|#.modules_to_save.|#lora_", "a checkpoint with adapters (PEFT, LoRA) that were not merged", kMerge},
    {"#.g_idx|#.qweight|#.qzeros", "weights that were quantized by GPTQ or AWQ", kGetWhole},
    {"#.quant_state.|#.absmax|#.SCB", "weights that were quantized by bitsandbytes", kGetWhole},
    {"#weight_scale|#.weight_packed", "weights that were quantized to FP8 or by compressed-tensors", kGetWhole},
    {"#.scales", "weights that were quantized by MLX", kGetWhole},
    {"=clip|=mmproj", "a vision projector, not a language model", "name the GGUF of the text model"},
    {"=imatrix|=vocab", "a GGUF without a model's weights", "name the GGUF of the model"},
    {"=gemma-embedding|=bert|=nomic-bert|=t5encoder", "a GGUF of another kind", kIsEmbedding},
};
// clang-format on

// Refuses what has one of these marks; find(mark) says where one is, or nothing.
template <class Find> void refuse_foreign(Foreign::In in, const Find& find) {
    for (const Foreign& foreign : kForeign)
        for_parts(foreign.marks, [&](std::string_view mark) {
            const std::string where = mark[0] == in ? find(mark.substr(1)) : "";
            if (!where.empty()) fail(foreign.what, where, foreign.remedy);
        });
}

// A file, read by position and never mapped: a mapped file that shrinks kills the program that reads it (SIGBUS). Or
// one in memory, which its owner keeps alive.
class File {
  public:
    File(std::string_view bytes, const std::string& name) : path_(name), memory_(bytes.data()), size_(bytes.size()) {}
    explicit File(const std::string& path) : path_(path) {
        std::error_code error;
        const auto status = std::filesystem::status(to_path(path), error);

        if (status.type() == std::filesystem::file_type::not_found) fail("no such file", path, "check the path");
        if (!error && !is_regular_file(status)) fail("not a file", path, "name a model file or directory");
        if (!error) size_ = std::filesystem::file_size(to_path(path), error);
        if (!error && !open()) error.assign(errno ? errno : EIO, std::generic_category());
        if (error) fail("cannot open (" + error.message() + ")", path, "check its permissions");
    }

    File& operator=(File&&) = delete;  // nor is it copied
    const std::string& path() const { return path_; }
    std::uint64_t size() const { return size_; }

    // Threads may read at the same time.
    void read(std::uint64_t offset, void* destination, std::size_t bytes) const {
        if (offset > size_ || bytes > size_ - offset)
            fail("the file ends too early", path_, "it is damaged or incomplete: download it again");
        if (memory_) std::memcpy(destination, memory_ + offset, bytes);
        else if (!read_at(offset, static_cast<char*>(destination), bytes))
            fail("the file became shorter or cannot be read", path_, "leave it alone while it is loaded");
    }

    // Says what a file is that is no model, by its first bytes (? is any byte) or else by its name.
    void refuse_if_foreign() const {
        if (size_ == 0) fail("an empty file", path_, "download it again");
        std::string start = text(0, std::min<std::uint64_t>(size_, 64));
        start.erase(0, start.find_first_not_of(" \t\r\n\xEF\xBB\xBF"));  // a text may begin with a byte order mark

        refuse_foreign(Foreign::beginning, [&](std::string_view mark) {
            const auto same = [](char wanted, char c) { return wanted == '?' || wanted == c; };
            const auto differ = std::mismatch(mark.begin(), mark.end(), start.begin(), start.end(), same);
            return differ.first == mark.end() ? path_ : "";
        });
        refuse_foreign(Foreign::file_name, [&](auto mark) { return ends_with(path_, mark) ? path_ : ""; });
    }

    std::string read_all(std::uint64_t limit) const {
        refuse_if_foreign();
        if (size_ > limit)
            fail("the file is larger than " + to_string(limit >> 20) + " MB", path_, "is it the right one?");
        return text(0, size_);
    }

    std::string text(std::uint64_t offset, std::uint64_t bytes) const {
        std::string out(std::size_t(bytes), '\0');
        read(offset, out.data(), out.size());
        return out;
    }

#if defined(__unix__) || defined(__APPLE__)
    ~File() {
        if (descriptor_ >= 0) ::close(descriptor_);
    }
  private:
    bool open() { return (descriptor_ = ::open(path_.c_str(), O_RDONLY | O_CLOEXEC)) >= 0; }
    bool read_at(std::uint64_t offset, char* out, std::size_t bytes) const {
        for (std::size_t done = 0; done < bytes;) {
            const std::size_t part = std::min<std::size_t>(bytes - done, 1 << 30);
            const auto got = ::pread(descriptor_, out + done, part, off_t(offset + done));
            if (got > 0) done += std::size_t(got);
            else if (got == 0 || errno != EINTR) return false;
        }
        return true;
    }
    int descriptor_ = -1;
#else
  private:
    bool open() { return std::ifstream(to_path(path_)).is_open(); }
    bool read_at(std::uint64_t offset, char* out, std::size_t bytes) const {
        std::ifstream stream(to_path(path_), std::ios::binary);  // its own, as each thread has its position
        return stream.seekg(std::streamoff(offset)) && stream.read(out, std::streamsize(bytes));
    }
#endif
    std::string path_;
    const char* memory_ = nullptr;
    std::uint64_t size_ = 0;
};

using Clock = std::chrono::steady_clock;
inline double seconds_since(Clock::time_point start) {
    return std::chrono::duration<double>(Clock::now() - start).count();
}

// splitmix64 (Steele et al. 2014), and 53 bits of it as a number in [0, 1)
inline std::uint64_t next_random(std::uint64_t& state) {
    std::uint64_t z = state += 0x9E3779B97F4A7C15u;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return z ^ (z >> 31);
}
inline double next_uniform(std::uint64_t& state) { return double(next_random(state) >> 11) * 0x1p-53; }

// a * b + c, rounded once.
#ifndef _WIN32
template <class T> T fused(T a, T b, T c) { return std::fma(a, b, c); }
#else  // whose C library may round twice
// x + y, and what its rounding left out (Knuth).
inline std::pair<double, double> two_sum(double x, double y) {
    const double sum = x + y, part = sum - x;
    return {sum, (x - (sum - part)) + (y - part)};
}
// x + y rounded to odd, which may be rounded again to fewer bits, or added to what is much larger (Boldo, Melquiond
// 2008).
inline double sum_to_odd(double x, double y) {
    const auto [sum, error] = two_sum(x, y);
    const auto bits = load_as<std::uint64_t>(&sum);
    const auto odd = std::fabs(error) > 0 && bits % 2 == 0 ? bits + ((error > 0) == (sum > 0) ? 1 : UINT64_MAX) : bits;
    return load_as<double>(&odd);
}
inline float fused(float a, float b, float c) { return float(sum_to_odd(double(a) * double(b), double(c))); }
inline double fused(double a, double b, double c) {
    const auto high = [](double x) { return 134217729.0 * x - (134217729.0 * x - x); };  // the upper 26 bits
    const double ah = high(a), al = a - ah, bh = high(b), bl = b - bh, product = a * b;
    const double rest = ((ah * bh - product) + ah * bl + al * bh) + al * bl;
    const auto [low, low_rest] = two_sum(c, rest);
    const auto [sum, sum_rest] = two_sum(product, low);
    return sum + sum_to_odd(low_rest, sum_rest);
}
#endif

// e^x, log x and x^y in double by their series, as C libraries differ in the last bits. Every sum of a product is
// fused.
constexpr double kLn2 = 0x1.62e42fefa3800p-1, kLn2Rest = 0x1.ef35793c76730p-45;  // the first ends in 11 zero bits

inline double exponential(double x) {
    if (!(x > -700)) return 0;
    x = std::min(x, 700.0);
    const double n = std::nearbyint(x * 1.4426950408889634);
    const double r = fused(n, -kLn2Rest, fused(n, -kLn2, x));  // |r| <= ln(2) / 2

    double e = 1.0 / 87178291200;  // 14!
    for (const double factorial : {6227020800.0, 479001600.0, 39916800.0, 3628800.0, 362880.0, 40320.0, 5040.0, 720.0,
                                   120.0, 24.0, 6.0, 2.0, 1.0, 1.0})
        e = fused(e, r, 1 / factorial);
    return std::ldexp(e, int(n));
}

inline double logarithm(double x) {
    int n = 0;
    double m = std::frexp(x, &n);
    if (m < 0.70710678) m *= 2, --n;
    const double z = (m - 1) / (m + 1), square = z * z;  // log m = 2 artanh z
    double sum = 0;
    for (int k = 25; k > 0; k -= 2) sum = fused(sum, square, 1.0 / k);
    return fused(double(n), kLn2, fused(double(n), kLn2Rest, 2 * z * sum));
}

inline double power(double x, double y) { return exponential(y * logarithm(x)); }

// ==== JSON ===========================================================================================================
//
// JSON (RFC 8259) describes Hugging Face's models. A document owns its text, and strings are views into it: they are
// unescaped in place, as an escape is never shorter than what it stands for. So a tokenizer.json of 33 MB and two
// million values, half of them in pairs of strings, takes a tenth of a second.

class Json {
  public:
    using Array = std::vector<Json>;
    using Object = std::vector<std::pair<std::string_view, Json>>;  // in the file's order

    Json() = default;  // null
    Json(Json&&) = default;
    Json& operator=(Json&&) = default;

    // document: its name, for messages.
    template <class T> Json(T value, const std::string& document)
        : value_(std::in_place_type<T>, std::move(value)), document_(&document) {}

    // A value of another type is an error.
    template <class T> bool is() const { return std::holds_alternative<T>(value_); }
    bool is_null() const { return is<std::monostate>(); }
    bool boolean() const { return as<bool>(); }
    double number() const { return as<double>(); }
    std::string_view string() const { return as<std::string_view>(); }
    const Array& array() const { return as<Array>(); }
    const Object& members() const { return as<Object>(); }

    std::uint64_t whole() const {  // a count, a size or an id
        const double value = is<double>() ? number() : -1;
        if (!(value >= 0 && value <= 9007199254740992.0) || value != std::floor(value)) wrong("a whole number");
        return std::uint64_t(value);
    }

    const Json* find(std::string_view key) const {  // nullptr: no object or no such member; the last of several
        const Object& all = lenient<Object>();
        const auto found = std::find_if(all.rbegin(), all.rend(), [&](const auto& one) { return one.first == key; });
        return found == all.rend() ? nullptr : &found->second;
    }

    const Json& at(const std::string& key) const {  // a member that must be there
        if (const Json* found = find(key)) return *found;
        fail(key + " is missing", document_ ? *document_ : "JSON", "get the file again");
    }

    // What is not there reads as `otherwise`.
    template <class T> T value(T otherwise) const { return is_null() ? otherwise : as<T>(); }
    std::uint64_t whole(std::uint64_t otherwise) const { return is_null() ? otherwise : whole(); }

    // Lenient getters, for what may be there: a missing member reads as null, a value of another type as empty.
    const Json& operator[](std::string_view key) const { return or_empty(find(key)); }
    template <class T> const T& lenient() const { return or_empty(std::get_if<T>(&value_)); }
    bool flag(bool otherwise) const { return is<bool>() ? boolean() : otherwise; }
    std::string_view text() const { return lenient<std::string_view>(); }
    const Array& list() const { return lenient<Array>(); }
  private:
    template <class T> static const T& or_empty(const T* found) {
        static const T empty = {};
        return found ? *found : empty;
    }
    template <class T> const T& as() const {
        if (const T* value = std::get_if<T>(&value_)) return *value;
        constexpr const char* kKinds[] = {"null", "true or false", "a number", "a string", "an array", "an object"};
        wrong(kKinds[decltype(value_)(std::in_place_type<T>).index()]);
    }
    [[noreturn]] void wrong(const char* expected) const {
        fail(std::string("a value should be ") + expected, document_ ? *document_ : "JSON", "get the file again");
    }

    std::variant<std::monostate, bool, double, std::string_view, Array, Object> value_;
    const std::string* document_ = nullptr;  // its name, for messages
};

struct JsonParser {
    std::string& text;  // ends in a 0, so that no end needs to be watched
    const std::string& name;
    char* at = text.data();
    const char* const end = at + text.size();
    std::size_t values = 0;

    [[noreturn]] void error(const char* what) const {
        fail(std::string("not valid JSON, ") + what, name + " at byte " + to_string(at - text.data()),
             "it is damaged or incomplete: get it again");
    }

    // The next character that is no white space.
    char peek() {
        while (*at == ' ' || *at == '\n' || *at == '\t' || *at == '\r') ++at;
        return *at;
    }

    Json value(int level) {
        if (level > 64) error("it is nested too deeply");
        if (++values > 1 << 23) error("it holds too many values");

        const char c = peek();
        if (c == '{') return {list<Json::Object>("}", level), name};
        if (c == '[') return {list<Json::Array>("]", level), name};
        if (c == '"') return {string(), name};
        if (skip("true")) return {true, name};
        if (skip("false")) return {false, name};
        if (skip("null")) return {std::monostate(), name};
        return {number(), name};
    }

    bool skip(std::string_view word) {
        if (std::strncmp(at, word.data(), word.size()) != 0) return false;
        at += word.size();
        return true;
    }
    bool next(std::string_view word) { return peek() != 0 && skip(word); }  // the same after white space

    template <class List> List list(const char* close, int level) {
        List items;
        ++at;
        if (peek() != *close) items.reserve(2);  // most lists are pairs: a tokenizer's merges

        for (bool more = peek() != *close; more; more = next(",")) add(items, level);
        if (!skip(close)) error("a comma or the closing bracket is missing");
        return items;
    }
    void add(Json::Array& items, int level) { items.push_back(value(level + 1)); }
    void add(Json::Object& items, int level) {
        if (peek() != '"') error("a key is missing");
        const std::string_view key = string();
        if (!next(":")) error("a colon is missing");
        items.emplace_back(key, value(level + 1));
        ++values;
    }

    std::string_view string() {
        char* const start = ++at;
        while (std::uint8_t(*at) >= ' ' && *at != '"' && *at != '\\') ++at;

        char* out = at;  // after an escape, what follows moves forward
        while (*at != '"') {
            if (std::uint8_t(*at) < ' ') error("a string has no end");
            if (*at == '\\') out = escape(out);
            else *out++ = *at++;
        }

        ++at;
        return {start, std::size_t(out - start)};
    }

    char* escape(char* out) {
        static constexpr std::string_view kNames = "\"\\/bfnrt", kMeanings = "\"\\/\b\f\n\r\t";
        const std::size_t k = kNames.find(at[1]);
        std::uint32_t code_point = k < kNames.size() ? std::uint32_t(kMeanings[k]) : hex4();
        if (k < kNames.size()) at += 2;

        if (code_point >> 11 == 0xD800 >> 11) {  // above 0xFFFF: 10 bits each of a pair of surrogates
            const std::uint32_t low = code_point < 0xDC00 ? hex4() : 0;
            if (low >> 10 != 0xDC00 >> 10) error("half of a surrogate pair is missing");
            code_point = 0x10000 + ((code_point & 0x3FF) << 10 | (low & 0x3FF));
        }

        std::string bytes;
        utf8_append(bytes, code_point);
        return std::copy(bytes.begin(), bytes.end(), out);
    }

    std::uint32_t hex4() {  // of \uXXXX
        std::uint32_t value = 0;
        if (!skip("\\u") || std::from_chars(at, at + std::min<std::ptrdiff_t>(4, end - at), value, 16).ptr - at != 4)
            error("an escape is not known");
        at += 4;
        return value;
    }

    // Not strtod, which reads "0.5" as 0 where the program's locale writes a comma. Exact up to 15 digits and 10^22,
    // more than people write; beyond, the last bits may be others than the value's, but the same everywhere.
    double number() {
        const auto digits = [this](double& number) {
            const char* const first = at;
            for (; *at >= '0' && *at <= '9'; ++at) number = fused(number, 10.0, double(*at - '0'));
            if (at == first) error("a value cannot be understood");
            return double(at - first);
        };

        // The digits, as a whole number times a power of ten.
        const bool negative = skip("-"), zero = *at == '0';
        double value = 0, exponent = 0, power = 0;
        if (digits(value) > 1 && zero) error("a number starts with 0");
        if (skip(".")) exponent -= digits(value);
        if (skip("e") || skip("E")) {
            const double sign = skip("+") || !skip("-") ? 1 : -1;
            digits(power);
            exponent += sign * power;
        }

        double scale = 1;  // exact up to 10^22, as promised
        for (double k = std::min(std::fabs(exponent), 400.0); k > 0; --k) scale *= 10;
        if (value != 0) value = exponent < 0 ? value / scale : value * scale;
        if (!std::isfinite(value)) error("a number is too large");
        return negative ? -value : value;
    }
};

// A value, and the strings that it points to: its name is the first of them.
class JsonDocument {
  public:
    JsonDocument(std::string text, std::string name) {
        strings_.push_back(std::move(name));
        strings_.push_back(std::move(text));
        JsonParser parser{strings_[1], strings_[0]};
        root_ = parser.value(0);
        if (parser.peek() != 0 || parser.at != parser.end) parser.error("something follows its end");
    }

    JsonDocument(Json root, std::deque<std::string> strings) : strings_(std::move(strings)), root_(std::move(root)) {}
    const Json& root() const { return root_; }
    const std::string& name() const { return strings_[0]; }
  private:
    std::deque<std::string> strings_;  // they stay where they are when it is moved
    Json root_;
};

// ==== NUMBERS ========================================================================================================
//
// How weights are written down. F16 and BF16 are floats of 16 bits: F16 has 5 bits of exponent and 10 of fraction,
// BF16 is the upper half of an F32. The other types store blocks of neighbours as small integers that share a scale:
//
//     Q8_0  32 values: scale d (f16), 32 int8                           x = d * q
//     Q4_0  32 values: d, 16 bytes of two 4-bit integers                x = d * (q - 8)       Q5_0: a fifth bit apart
//     Q4_1  32 values: d, minimum m (f16), 16 bytes                     x = d * q + m         Q5_1: a fifth bit apart
//     Q*_K  256 values: d (and dmin) for all, a small integer scale     x = d * s * (q - offset)    Q3_K, Q6_K
//           s (and m) for each 16 or 32 of them                         x = d * s * q - dmin * m    Q2_K, Q4_K, Q5_K
//     IQ4   like Q4_0 (IQ4_NL) and Q*_K (IQ4_XS), but the 4 bits        x = d * s * codebook[q]
//           choose one of 16 integers, closer to each other near 0
//
// All products d * s * q are exact in F32, so every machine and compiler gives the same values.
//
// The integers are packed like this one, Q4_K, whose block of 256 values takes 144 bytes:
//
//     byte    0    2     4                       16                                                          144
//             | d  | dmin | scales and minimums  | 4 runs of 32 bytes, each with 64 values:                    |
//             | f16| f16  | 8 + 8 of 6 bits each |   the low 4 bits of its bytes are values 0..31 of the run,  |
//             |    |      | in 12 bytes          |   the high 4 bits are values 32..63                         |
//
//     x[64 k + i] = d * scale[2 k] * low(run k, byte i) - dmin * minimum[2 k]        and for i = 32..63 the same with
//     the high bits, scale[2 k + 1] and minimum[2 k + 1]

inline float bits_to_f32(std::uint32_t bits) { return load_as<float>(&bits); }
inline std::uint32_t f32_to_bits(float value) { return load_as<std::uint32_t>(&value); }
inline float bf16_to_f32(std::uint16_t value) { return bits_to_f32(std::uint32_t{value} << 16); }

inline float f16_to_f32(std::uint16_t value) {
    const std::uint32_t magnitude = (value & 0x7FFFu) << 13;  // exponent and fraction where an F32 has them
    const float scaled = bits_to_f32(magnitude) * 0x1p112f;   // exponents are written + 15 there and + 127 here
    const std::uint32_t inf_or_nan = magnitude >= 31u << 23 ? 0x7F800000 : 0;  // keeps the fraction, which tells which
    return bits_to_f32(f32_to_bits(scaled) | inf_or_nan | (value & 0x8000u) << 16);
}

inline std::uint16_t f32_to_f16(float value) {
    const std::uint32_t bits = f32_to_bits(value), magnitude = bits & 0x7FFFFFFF;
    // To nearest, ties to even.
    std::uint32_t half = (magnitude + 0xFFF + (magnitude >> 13 & 1) - (112u << 23)) >> 13;
    if (magnitude > 0x7F800000) half = 0x7E00;        // nan
    else if (magnitude >= 0x477FF000) half = 0x7C00;  // rounds to 2^16, which is infinite here
    else if (magnitude < 0x38800000)                  // small: the sum rounds to units of 2^-24
        half = f32_to_bits(bits_to_f32(magnitude) + 0.5f) - f32_to_bits(0.5f);
    return std::uint16_t(half | (bits >> 16 & 0x8000));
}

// 32 neighbours of a row on their way from a file's blocks into a matrix: integers, and a scale and a minimum (f16) for
// each half of them. x = scale * (q - offset), where the matrix's format has an offset, or else scale * q + minimum.
struct Quants {
    std::uint8_t q[32];
    std::uint16_t scale[2], minimum[2];
};

// `other` is in the file but not readable (integers, newer formats): an error only if it is used.
// clang-format off
enum class TensorType {
    f32, f16, bf16, q4_0, q4_1, q5_0, q5_1, q8_0, q2_k, q3_k, q4_k, q5_k, q6_k, iq4_nl, iq4_xs, other
};
// clang-format on

struct TypeTraits {
    const char* name;
    int block;  // values
    int bytes;  // of a block
    void (*to_f32)(const std::uint8_t* blocks, float* out, std::int64_t n_blocks);
    TensorType kept_as;  // what a matrix is in memory
    // Values v to v + 31 of a block for the format that it is kept as; null: it is made of floats.
    void (*quants)(const std::uint8_t* block, int v, Quants& out);
};

// n <= 32 values to 8 bits, q + 128: the scale d = max|x| / 127 in F16, q = round(x / d) by the scale as it will be
// read. If a value is not finite, so is the scale.
inline void quantize_q8_0(const float* x, int n, Quants& out) {
    float values[32] = {};
    std::copy_n(x, n, values);

    std::int32_t largest = 0;  // magnitudes of floats sort like their bits; nan comes last
    for (const float& v : values) largest = std::max(largest, load_as<std::int32_t>(&v) & 0x7FFFFFFF);
    out.scale[0] = out.scale[1] = f32_to_f16(bits_to_f32(std::uint32_t(largest)) / 127.0f);
    const float d = f16_to_f32(out.scale[0]), inverse = d > 0 && std::isfinite(d) ? 1.0f / d : 0.0f;

    for (int i = 0; i < 32; ++i) {
        const float v = inverse > 0 ? std::min(std::max(values[i] * inverse, -127.0f), 127.0f) : 0.0f;
        // Halves go away from zero. Adding the float below 0.5, not 0.5 itself, keeps 0.49999997 from becoming 1.
        out.q[i] = std::uint8_t(int(v + std::copysign(0.49999997f, v)) + 128);
    }
}

// n <= 32 values to 4 bits, q + 8: of some scales near -x / 8 of the largest x, the one with the least squared error,
// which is the one with the largest sum(x q)^2 / sum(q q). Products are exact in double: nothing depends on the
// compiler.
inline void quantize_q4_0(const float* x, int n, Quants& out) {
    double values[32] = {}, largest = 0, best = 0, scale = 0;
    std::copy_n(x, n, values);
    const bool finite = std::all_of(values, values + 32, [](double v) { return std::isfinite(v); });
    for (const double v : values)
        if (std::fabs(v) > std::fabs(largest)) largest = v;

    std::memset(out.q, 8, sizeof out.q);
    for (int step = 0; step < 6 && finite && std::fabs(largest) > 1e-37; ++step) {
        const double to_int = float((-9 + 0.5 * step) / largest);
        std::uint8_t q[32];
        double xq = 0, qq = 0;
        for (int i = 0; i < 32; ++i) {
            const int v = std::clamp(int(values[i] * to_int + 8.5), 0, 15);
            q[i] = std::uint8_t(v);
            xq += values[i] * (v - 8);
            qq += (v - 8) * (v - 8);
        }

        if (qq == 0 || xq * xq / qq <= best) continue;
        best = xq * xq / qq;
        scale = xq / qq;
        std::memcpy(out.q, q, sizeof q);
    }
    out.scale[0] = out.scale[1] = f32_to_f16(finite ? float(scale) : INFINITY);
}

// The readers below take n blocks to floats. Their inner loops have fixed lengths and `out` overlaps nothing
// (__restrict), so that compilers turn them into SIMD code.

template <class T, float (*F32)(T)> void values_to_f32(const std::uint8_t* in, float* __restrict out, std::int64_t n) {
    constexpr int kStep = 16, kSize = sizeof(T);
    for (; n >= kStep; n -= kStep, in += kStep * kSize, out += kStep)
        for (int i = 0; i < kStep; ++i) out[i] = F32(load_as<T>(in + i * kSize));
    for (; n > 0; --n, in += kSize) *out++ = F32(load_as<T>(in));
}

inline float f16_at(const std::uint8_t* p) { return f16_to_f32(load_as<std::uint16_t>(p)); }

// Q8_0's integers as they are kept, q + 128. Most files hold it, so the scale is not taken to a float and back.
inline void q8_0_quants(const std::uint8_t* block, int, Quants& out) {
    for (int i = 0; i < 32; ++i) out.q[i] = block[2 + i] ^ 128;
    out.scale[0] = out.scale[1] = load_as<std::uint16_t>(block);
}

// What the 4 bits of IQ4_NL and IQ4_XS stand for, + 128.
constexpr int kCodebookOffset = 128;
constexpr std::uint8_t kCodebook[] = {1, 24, 45, 63, 79, 93, 106, 118, 129, 141, 153, 166, 181, 197, 217, 241};

// The formats of blocks. Their integers q have an offset, x = d * scale * (q - Offset), or, where Offset is 0, a
// minimum, x = d * scale * q + dmin * minimum.
//
// A block has so many Values and Bytes; d stands at byte D of it, and dmin behind d. `Shared` neighbours have one scale
// and one minimum, Of(block, v) for value v and those that follow. Ints(block, v)(i) is the q of value v + i.
using Factors = std::pair<int, int>;  // scale, minimum
template <int Values, int Bytes, int D, int Offset, int Shared, Factors (*Of)(const std::uint8_t*, int), auto Ints>
struct Blocks {
    static constexpr bool kHasCodebook = Offset == kCodebookOffset && Bytes < Values;  // Q8_0 has this offset, too
    static constexpr TypeTraits row(const char* name, TensorType t) { return {name, Values, Bytes, to_f32, t, quants}; }

    static void to_f32(const std::uint8_t* in, float* __restrict out, std::int64_t n) {
        for (; n > 0; --n, in += Bytes)
            for (int v = 0; v < Values; v += Shared, out += Shared) {
                const auto [scale, minimum] = factors(in, v);
                const auto q = Ints(in, v);
                for (int i = 0; i < Shared; ++i)
                    out[i] = scale * float((kHasCodebook ? kCodebook[q(i)] : q(i)) - Offset) + minimum;
            }
    }

    // Values v to v + 31 of a block. An offset is also given as a minimum: Q3_K has the one and is kept with the other.
    static void quants(const std::uint8_t* block, int v, Quants& out) {
        for (int half = 0; half < 2; ++half, v += 16) {
            const auto [scale, minimum] = factors(block, v);
            out.scale[half] = f32_to_f16(scale);
            out.minimum[half] = f32_to_f16(Offset == 0 ? minimum : float(-Offset) * f16_to_f32(out.scale[half]));
            const auto q = Ints(block, v);
            for (int i = 0; i < 16; ++i) out.q[16 * half + i] = std::uint8_t(q(i));
        }
    }

    static std::array<float, 2> factors(const std::uint8_t* block, int v) {
        const auto [scale, minimum] = Of(block, v);
        return {f16_at(block + D) * float(scale), Offset == 0 ? f16_at(block + D + 2) * float(minimum) : 0.0f};
    }
};

// Integers of `Bits` bits in a block, from byte `At` on: of each `Run` bytes the lowest bits hold the first `Run`
// integers, the bits above them the next ones, and so on; with Run 1 they come one after another. Returns a function of
// i that gives the integer v + i. It adds up the places of v and of i, which is right where v is the first
// integer of `Run` bytes, or v + i lies in the same bits of them as v. `Flip`: the bits that are turned over, as the
// sign bit of Q8_0.
template <int At, int Bits, int Run = 32, int Flip = 0> auto packed(const std::uint8_t* block, int v) {
    constexpr int kOfRun = Run * 8 / Bits;
    const auto byte = [](int k) { return k / kOfRun * Run + k % Run; };
    const auto shift = [](int k) { return k % kOfRun / Run * Bits; };

    return [bytes = block + At + byte(v), up = shift(v), byte, shift](int i) {
        return (bytes[byte(i)] >> (up + shift(i)) & ((1 << Bits) - 1)) ^ Flip;
    };
}

// Integers whose upper bits lie apart from their `Bits` lower ones.
template <auto Low, int Bits, auto High> auto split(const std::uint8_t* block, int v) {
    return [low = Low(block, v), high = High(block, v)](int i) { return low(i) | high(i) << Bits; };
}

inline Factors no_factors(const std::uint8_t*, int) { return {1, 1}; }
// The K types subtract their minimums.
inline Factors q2_k_factors(const std::uint8_t* block, int v) { return {block[v / 16] & 15, -(block[v / 16] >> 4)}; }
inline Factors q6_k_factors(const std::uint8_t* block, int v) { return {std::int8_t(block[192 + v / 16]), 0}; }

// Scales of 6 bits, packed like q: the low 4 bits in 8 bytes (IQ4_XS: 4), the upper 2 in 4 bytes (2).
inline Factors q3_k_factors(const std::uint8_t* block, int v) {
    return {split<packed<96, 4, 8>, 4, packed<104, 2, 4>>(block, v / 16)(0) - 32, 0};
}
inline Factors iq4_xs_factors(const std::uint8_t* block, int v) {
    return {split<packed<4, 4, 1>, 4, packed<2, 2, 1>>(block, v / 32)(0) - 32, 0};
}

// The first four scales and minimums are the low 6 bits of 8 bytes, whose upper 2 bits belong on top of the other four,
// which are the 4-bit halves of 4 bytes.
inline Factors q45_k_factors(const std::uint8_t* block, int v) {
    const int g = v / 32;
    const std::uint8_t *first = block + 4 + g % 4, *halves = block + 12 + g % 4;
    if (g < 4) return {first[0] & 63, -(first[4] & 63)};
    return {(halves[0] & 15) | first[0] >> 6 << 4, -(halves[0] >> 4 | first[4] >> 6 << 4)};
}

inline const TypeTraits& traits(TensorType type) {
    using T = TensorType;
    // clang-format off
    // So Q4_0 has 32 values in 18 bytes, d at byte 0, the offset 8, and at least 16 neighbours share a scale; its
    // integers of 4 bits begin at byte 2, in runs of 16 bytes.
    static constexpr TypeTraits kTable[] = {
        {"F32",   1,   4,  values_to_f32<std::uint32_t, bits_to_f32>, T::q8_0, nullptr},
        {"F16",   1,   2,  values_to_f32<std::uint16_t, f16_to_f32>, T::q8_0, nullptr},
        {"BF16",  1,   2,  values_to_f32<std::uint16_t, bf16_to_f32>, T::q8_0, nullptr},
        Blocks<32, 18, 0, 8, 16, no_factors, packed<2, 4, 16>>::row("Q4_0", T::q4_0),
        Blocks<32, 20, 0, 0, 16, no_factors, packed<4, 4, 16>>::row("Q4_1", T::q4_1),
        Blocks<32, 22, 0, 16, 16, no_factors, split<packed<6, 4, 16>, 4, packed<2, 1, 1>>>::row("Q5_0", T::q5_0),
        Blocks<32, 24, 0, 0, 16, no_factors, split<packed<8, 4, 16>, 4, packed<4, 1, 1>>>::row("Q5_1", T::q5_1),
        {"Q8_0", 32, 34, Blocks<32, 34, 0, 128, 32, no_factors, packed<2, 8, 32, 128>>::to_f32, T::q8_0, q8_0_quants},
        Blocks<256, 84, 80, 0, 16, q2_k_factors, packed<16, 2>>::row("Q2_K", T::q2_k),
        Blocks<256, 110, 108, 4, 16, q3_k_factors, split<packed<32, 2>, 2, packed<0, 1>>>::row("Q3_K", T::q2_k),
        Blocks<256, 144, 0, 0, 32, q45_k_factors, packed<16, 4>>::row("Q4_K", T::q4_1),
        Blocks<256, 176, 0, 0, 32, q45_k_factors, split<packed<48, 4>, 4, packed<16, 1>>>::row("Q5_K", T::q5_1),
        Blocks<256, 210, 208, 32, 16, q6_k_factors, split<packed<0, 4, 64>, 4, packed<128, 2>>>::row("Q6_K", T::q6_k),
        Blocks<32, 18, 0, 128, 16, no_factors, packed<2, 4, 16>>::row("IQ4_NL", T::iq4_nl),
        Blocks<256, 136, 0, 128, 16, iq4_xs_factors, packed<8, 4, 16>>::row("IQ4_XS", T::iq4_nl),
        {"other", 1,   0,  nullptr, T::other, nullptr},
    };
    // clang-format on
    return kTable[std::size_t(type)];
}

inline TensorType find_type(std::string_view name) {
    int t = 0;
    while (t < int(TensorType::other) && name != traits(static_cast<TensorType>(t)).name) ++t;
    return static_cast<TensorType>(t);
}

// Every type that a GGUF may have, by number: GGML's, some of which it has given up again.
constexpr const char* kGgufTypes[] = {
    "F32",        "F16",        "Q4_0",       "Q4_1",  "Q4_2",     "Q4_3",     "Q5_0",     "Q5_1",    "Q8_0",
    "Q8_1",       "Q2_K",       "Q3_K",       "Q4_K",  "Q5_K",     "Q6_K",     "Q8_K",     "IQ2_XXS", "IQ2_XS",
    "IQ3_XXS",    "IQ1_S",      "IQ4_NL",     "IQ3_S", "IQ2_S",    "IQ4_XS",   "I8",       "I16",     "I32",
    "I64",        "F64",        "IQ1_M",      "BF16",  "Q4_0_4_4", "Q4_0_4_8", "Q4_0_8_8", "TQ1_0",   "TQ2_0",
    "IQ4_NL_4_4", "IQ4_NL_4_8", "IQ4_NL_8_8", "MXFP4", "NVFP4",    "Q1_0",     "Q2_0"};
inline std::string gguf_type_name(std::uint32_t id) {
    return id < std::size(kGgufTypes) ? kGgufTypes[id] : "type " + to_string(id) + ", perhaps of ik_llama.cpp";
}

// Whether n floats are all of a magnitude below `limit`, which infinity and NaN are not. Magnitudes sort like their
// bits: from `limit` on, adding to_highest sets the highest bit.
inline bool all_below(const float* x, std::size_t n, float limit) {
    const std::uint32_t to_highest = 0x80000000 - f32_to_bits(limit);
    std::uint32_t sums = 0;
    const auto add = [&](const float* v) { sums |= (f32_to_bits(*v) & 0x7FFFFFFF) + to_highest; };
    for (; n >= 16; n -= 16, x += 16)
        for (int i = 0; i < 16; ++i) add(x + i);
    for (; n > 0; --n) add(x++);
    return sums >> 31 == 0;
}

// ==== MEMORY AND THREADS =============================================================================================
//
// Memory: weights and caches live in Buffers, whole pages from the system in huge pages where it has them: a model is
// read from end to end for every token, and with 4 KB pages the address translation alone costs a sixth of that.
//
// Threads: a token takes about a hundred parallel regions (loops whose items the threads share) of some 10 to 1000
// microseconds, so what counts is how fast threads meet. Helpers spin on one word, the gate, and fall asleep only when
// nothing came for a while. A region's items are dealt out in equal contiguous shares, so that a thread reads the same
// rows of a matrix every time. A thread that has finished its own share steals from the others' shares. The caller
// waits only for helpers that entered the region: a helper that the system has not scheduled (a busy neighbour) is not
// waited for, as the others do its share.

// A size or an index that is known not to be negative.
template <class Int> constexpr std::size_t usize(Int n) { return std::size_t(n); }

// Zeroed memory, in huge pages where it is large. Copies share it.
class Buffer {
  public:
    Buffer() = default;
    explicit Buffer(std::uint64_t bytes) : bytes_(std::size_t(bytes)) {
        if (bytes > SIZE_MAX - 2 * kHugePage) throw std::bad_alloc();
        const std::size_t alignment = bytes < kHugePage ? 64 : kHugePage;
        std::size_t reserved = bytes_ + alignment;  // what is never touched costs address space only

#if defined(__unix__) || defined(__APPLE__)
        void* p = mmap(nullptr, reserved, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (p == MAP_FAILED) throw std::bad_alloc();
        memory_.reset(p, [reserved](void* mapped) { munmap(mapped, reserved); });
#else
        void* p = std::calloc(reserved, 1);
        if (!p) throw std::bad_alloc();
        memory_.reset(p, std::free);
#endif

        memory_ = std::shared_ptr<void>(memory_, std::align(alignment, bytes_, p, reserved));  // owns the whole of it
#ifdef MADV_HUGEPAGE
        if (bytes >= kHugePage) madvise(memory_.get(), bytes_, MADV_HUGEPAGE);
#endif
    }

    // Makes it at least so large. If it has to grow, what it held is lost.
    void grow(std::size_t bytes) {
        if (bytes > bytes_) *this = Buffer(bytes);
    }

    std::size_t bytes() const { return bytes_; }
    template <class T> T* as() const { return static_cast<T*>(memory_.get()); }
  private:
    static constexpr std::size_t kHugePage = std::size_t{2} << 20;
    std::shared_ptr<void> memory_;
    std::size_t bytes_ = 0;
};

// Hands out pieces of large Buffers, so that small matrices share huge pages too. Pieces live as long as the Arena.
class Arena {
  public:
    std::uint8_t* allocate(std::size_t bytes) {
        bytes = (bytes + 63) / 64 * 64;
        if (chunks_.empty() || chunks_.back().bytes() - used_ < bytes) {
            chunks_.emplace_back(std::max(bytes, kChunk));  // what is never touched costs address space only
            used_ = 0;
        }

        total_ += bytes;
        return chunks_.back().as<std::uint8_t>() + std::exchange(used_, used_ + bytes);
    }
    std::size_t bytes() const { return total_; }
  private:
    static constexpr std::size_t kChunk = std::size_t{64} << 20;
    std::vector<Buffer> chunks_;
    std::size_t used_ = 0, total_ = 0;
};

#ifdef __linux__
// A small file of the system's, "" if there is none. Not by a stream, which acts as if the file were at its end when it
// gets no memory.
inline std::string system_text(const std::string& path) {
    char text[4096];
    const int file = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
    const ssize_t bytes = file < 0 ? 0 : ::read(file, text, sizeof text);
    if (file >= 0) ::close(file);
    return std::string(text, usize(std::max<ssize_t>(bytes, 0)));
}

// What a controller ("cpu", "memory") allows this process by its control groups (a container), each up to the root: the
// least limit in whole processors or bytes, infinity if there is none. A limit is an amount, or a time and the period
// that it is for. Version 2 has one tree for all controllers, with a cpu.max and a memory.max in it; version 1 has a
// tree for each, with the other files. As a file that is not there reads as "", nobody asks which version it is.
inline double group_quota(const std::string& controller, const std::string& list = "/proc/self/cgroup",
                          const std::string& root = "/sys/fs/cgroup") {
    double least = INFINITY;
    const std::string text = system_text(list);
    for (std::size_t at = 0, end; (end = text.find('\n', at)) != text.npos; at = end + 1) {
        const std::string line = text.substr(at, end - at);  // "4:cpu,cpuacct:/path", or in version 2 "0::/path"
        const std::size_t first = line.find(':'), second = line.find(':', first + 1);
        const std::string controllers = line.substr(first + 1, second - first - 1);
        const bool is_its = controllers.empty() || ("," + controllers + ",").find("," + controller + ",") != line.npos;
        if (second == line.npos || !is_its) continue;

        const std::string tree = root + (controllers.empty() ? "" : "/" + controller);  // a link, if not a directory
        for (std::size_t last = line.size(); last != line.npos && last > second; last = line.rfind('/', last - 1)) {
            const std::string group = tree + line.substr(second + 1, last - second - 1) + "/" + controller;

            std::string limit;  // "3000000" or "50000 100000"; "max" and "-1" are none
            for (const char* file : {".max", ".cfs_quota_us", ".cfs_period_us", ".limit_in_bytes"})
                limit += system_text(group + file);

            char* rest = nullptr;
            const double amount = std::strtod(limit.c_str(), &rest), period = std::strtod(rest, nullptr);
            const double quota = std::ceil(amount / std::max(1.0, period));
            if (quota > 0) least = std::min(least, quota);
        }
    }
    return least;
}
#endif

// How many cores this process may use. Hardware threads do not count: two of one core share the units and the caches
// that a product keeps busy.
inline int physical_cores() {
#ifdef LLM_NO_THREADS
    return 1;
#else
#ifdef __linux__
    cpu_set_t allowed = {};  // none where it is not known
    sched_getaffinity(0, sizeof allowed, &allowed);
    std::unordered_set<std::string> cores;  // by the list of their hardware threads
    for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
        if (!CPU_ISSET(cpu, &allowed)) continue;
        const std::string siblings =
            system_text("/sys/devices/system/cpu/cpu" + to_string(cpu) + "/topology/thread_siblings_list");
        cores.insert(siblings.empty() ? to_string(cpu) : siblings);
    }

    if (!cores.empty()) return int(std::min(double(cores.size()), group_quota("cpu")));
#endif
    return std::max(1, int(std::thread::hardware_concurrency()));
#endif
}

// Bytes of the machine, or that a container may have; where that is not known, all that can be addressed.
inline std::uint64_t physical_memory() {
    std::uint64_t bytes = SIZE_MAX;

#ifdef _SC_PHYS_PAGES
    const long pages = sysconf(_SC_PHYS_PAGES), size = sysconf(_SC_PAGESIZE);
    if (pages > 0 && size > 0) bytes = std::uint64_t(pages) * std::uint64_t(size);
#endif
#ifdef __linux__
    const double quota = group_quota("memory");
    if (quota < double(bytes)) bytes = std::uint64_t(quota);
#endif

    return bytes;
}

inline void cpu_relax() {
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ __volatile__("yield");
#endif
}

// While in scope, the thread's floats are rounded to nearest and denormals are kept, whatever the host program has set.
struct IeeeFloats {
#if defined(__x86_64__)  // as FE_DFL_ENV has it, but without what the C library does besides, which takes longer
    const unsigned before = _mm_getcsr();
    IeeeFloats() { _mm_setcsr(0x1F80); }
    ~IeeeFloats() { _mm_setcsr(before); }
#else
    std::fenv_t before;
    IeeeFloats() { std::fegetenv(&before), std::fesetenv(FE_DFL_ENV); }
    ~IeeeFloats() { std::fesetenv(&before); }
#endif
};

// A thread's stopwatch. A profiled region may hold several stages (q K^T, softmax and p V; a product and its
// activation): every thread sums up the time of each, and PROFILING divides the region's time in the ratio of these
// sums. As only the ratio is used, only every fourth piece of work is timed: a look at the clock takes as long as a few
// rows of a product.
struct alignas(64) Laps {
    bool running = false, timing = false;  // the region is profiled; this piece of work is timed
    std::uint32_t pieces = 0;
    Clock::time_point last{};
    std::array<double, 4> ticks{};  // of each stage

    void start() {
        if (running && (timing = pieces++ % 4 == 0)) last = Clock::now();
    }

    void lap(int stage) {
        if (!timing) return;
        const auto start_of_stage = std::exchange(last, Clock::now());
        ticks[usize(stage)] += double((last - start_of_stage).count());
    }
};

class ThreadPool {
  public:
#ifdef LLM_NO_THREADS
    explicit ThreadPool(int) : laps(1), scratch(1) {}
#else
    // Once the private constructor has ended, an exception runs the destructor, and that ends the helpers.
    explicit ThreadPool(int threads) : ThreadPool(usize(threads)) {
        try {
            for (int t = 1; t < threads; ++t) helpers_.emplace_back([this, t] { help(t); });
        } catch (const std::system_error& e) {
            const std::string number = to_string(helpers_.size() + 1);
            fail("cannot start a thread", "thread " + number + " of " + to_string(threads) + " (" + e.what() + ")",
                 "use fewer threads", Kind::system);
        }
    }

    ~ThreadPool() {
        std::unique_lock<std::mutex> lock(mutex_);
        stopping_ = true;
        lock.unlock();
        wake_.notify_all();
        for (std::thread& helper : helpers_) helper.join();
    }
#endif

    int size() const { return int(laps.size()); }

    // Seconds that callers have waited for helpers at the ends of regions; counted while `timed` is set.
    bool timed = false;
    double waited = 0;
    std::vector<Laps> laps;       // [threads]
    std::vector<Buffer> scratch;  // [threads]: what a body needs for a moment

    // Calls body(begin, end, thread) for ranges of at most `grain` items that cover 0 .. count-1 once, and returns when
    // all are done. An exception of a body is thrown here, once no thread is inside any more.
    template <class Body> void for_ranges(int count, int grain, const Body& body) {
        grain = std::max(1, grain);
        const IeeeFloats rounding;
        if (size() == 1 || count <= grain) {
            for (int i = 0; i < count; i += grain) body(i, std::min(i + grain, count), 0);
            return;
        }

#ifndef LLM_NO_THREADS
        body_ = std::cref(body);
        grain_ = grain;
        run(count);
#endif
    }

    // Calls body(i) for each of 0 .. count-1.
    template <class Body> void for_each(int count, const Body& body) {
        for_ranges(count, 1, [&](int i, int, int) { body(i); });
    }

#ifndef LLM_NO_THREADS
  private:
    struct alignas(64) Share {
        std::atomic<int> next{0};
        int end = 0;
    };

    // The gate: a region's number in the upper half, whether it is open, and how many helpers are inside.
    static constexpr std::uint64_t kOpen = 1u << 31, kRegion = std::uint64_t{1} << 32, kInside = kOpen - 1;

    explicit ThreadPool(std::size_t threads) : laps(threads), scratch(threads), shares_(threads) {}

    void run(int count) {
        const int n = size();
        for (int t = 0; t < n; ++t) {
            Share& share = shares_[usize(t)];
            share.next.store(int(std::int64_t{count} * t / n), std::memory_order_relaxed);
            share.end = int(std::int64_t{count} * (t + 1) / n);
        }

        // Sequentially consistent, as the sleepers' count is: either run() sees the sleeper, or it sees the new gate.
        gate_ += kRegion | kOpen;    // before: the last region, closed, nobody inside; now: the next one, open
        if (sleepers_.load() > 0) {  // who holds the mutex is about to sleep: then notify reaches it
            std::unique_lock<std::mutex>(mutex_).unlock();
            wake_.notify_all();
        }
        work(0);

        gate_.fetch_and(~kOpen, std::memory_order_acq_rel);
        const auto start = timed ? Clock::now() : Clock::time_point();
        for (int spins = 1; gate_.load(std::memory_order_acquire) & kInside; ++spins) {
            if (spins % 1024 == 0) std::this_thread::yield();  // the helper may need this very core
            cpu_relax();
        }
        if (timed) waited += seconds_since(start);
        if (error_) std::rethrow_exception(std::exchange(error_, nullptr));
    }

    // A thread's own share, and then what is left of the others'.
    void work(int self) {
        for (int k = 0, n = size(); k < n; ++k) {
            Share& share = shares_[usize((self + k) % n)];
            while (share.next.load(std::memory_order_relaxed) < share.end) {
                const int begin = share.next.fetch_add(grain_, std::memory_order_relaxed);
                if (begin >= share.end) break;

                try {
                    body_(begin, std::min(begin + grain_, share.end), self);
                } catch (...) {
                    std::lock_guard<std::mutex> lock(mutex_);
                    if (!error_) error_ = std::current_exception();
                }
            }
        }
    }

    // A helper's life: it waits for a region, spinning and then asleep, and enters it unless that has closed meanwhile.
    void help(int self) {
        constexpr std::chrono::microseconds kSpin{300};  // longer than anything between two regions of a step
        const IeeeFloats rounding;
        std::uint64_t gate = 0, done = 0;  // as it was seen last; the last region that this helper was in
        const auto is_new = [&] {
            gate = gate_.load();
            return (gate & kOpen) && (gate & ~(kRegion - 1)) != done;
        };

        for (;;) {
            auto start = Clock::now();
            for (int spins = 1; !is_new(); ++spins) {
                cpu_relax();
                if (spins % 256 != 0 || Clock::now() - start < kSpin) continue;

                std::unique_lock<std::mutex> lock(mutex_);
                ++sleepers_;
                wake_.wait(lock, [&] { return stopping_ || is_new(); });
                --sleepers_;
                if (stopping_) return;
                start = Clock::now();
            }

            if (!gate_.compare_exchange_strong(gate, gate + 1, std::memory_order_acq_rel)) continue;
            done = gate & ~(kRegion - 1);
            work(self);
            gate_.fetch_sub(1, std::memory_order_release);
        }
    }

    std::vector<Share> shares_;  // [threads]
    std::function<void(int begin, int end, int thread)> body_;
    int grain_ = 1;

    alignas(64) std::atomic<std::uint64_t> gate_{0};
    alignas(64) std::atomic<int> sleepers_{0};
    bool stopping_ = false;
    std::mutex mutex_;
    std::condition_variable wake_;
    std::exception_ptr error_;
    std::vector<std::thread> helpers_;
#endif
};

// ==== KERNELS ========================================================================================================
//
// Nearly all of a model's time goes into y = W x. A weight is read from memory once per token and used once, so W lies
// in the order in which it is read: groups of 16 rows, whose values of a column sit side by side. A processor's vector
// register holds 4 to 16 numbers, its lanes, and one instruction works on all of them. Here each lane is a row of W, so
// no sum is ever taken across lanes.
//
// In F32 a group is [cols][16] floats. In Q8_0 it is a block of 544 bytes for every 32 columns: 16 scales, and then 8
// times the 64 bytes that one AVX-512 register holds (two of AVX2, four of NEON), 4 neighbouring columns of 16 rows:
//
//     W[r][c] lies in group r / 16, block c / 32, at w[c % 32 / 4][r % 16][c % 4]
//
//                 | row 0           | row 1           | row 2           |     | row 15          |   64 bytes: one load
//     w[0] =      | c0  c1  c2  c3  | c0  c1  c2  c3  | c0  c1  c2  c3  | ... | c0  c1  c2  c3  |
//     times       | x0  x1  x2  x3  | x0  x1  x2  x3  | x0  x1  x2  x3  | ... | x0  x1  x2  x3  |   one broadcast
//     adds to     | sum of row 0    | sum of row 1    | sum of row 2    |     | sum of row 15   |   16 i32: one register
//
// One instruction does that (vpdpbusd), for unsigned weights: they are stored as w + 128, and the offset is undone for
// free, as the sum starts at -128 * sum(x). The product's other side, x, is quantized per 32 columns like the weights
// (ActivationBlock), and its tokens are interleaved in tiles of up to 12, so that all addresses are constants from one
// pointer.
//
// Formats of 4 to 6 bits have the same blocks with less in them, so that a token reads little more than the file has.
// The low halves of the 64 bytes i are columns 8 i to 8 i + 3, the high halves the next four; a mask and a shift make
// two registers like w[0] of them. Fifth and sixth bits lie in 64 bytes more, for 32 or 16 columns:
//
//     Q4_0   | 16 scales | 4 x 64: columns 0..3 and 4..7 | 8..11 and 12..15 | ...           288 bytes for 16 x 32 weights
//     Q4_1   | 16 scales | 16 minimums | 4 x 64                                             320; Q4_K too
//     Q5_0   | 16 scales | 4 x 64 | 64: bit i of a byte's low half belongs to i's low half  352; Q5_1, Q5_K: 384
//     Q6_K   | 2 x 16 scales | 4 x 64 | 2 x 64: two bits for each                           448
//
// A minimum costs one fma (a * b + c, rounded once) a block, with the sum of x. IQ4_NL's bits go through a table of 16
// on their way. Up to 8 tokens meet a weight when it comes from memory. A product of more takes its weights from the
// cache many times, so their integers are put into bytes first. There loads are what limits: a register of weights
// meets several tokens, and a value of x several registers of weights.
//
// One arithmetic. The kernels are one text in terms of a vector type, and every set of them (plain C++, AVX2, AVX-512,
// NEON) is that text with its own vectors. The text says which operations happen in which order, so that all sets give
// the same bits:
//
//   - A lane of a product is a row; its sum runs over the columns in order.
//   - A sum over a row of values runs in 16 lanes, value i in lane i % 16, whatever the vector's width, and then joins
//     lane i with i + 8, the result's lane i with i + 4, + 2, + 1.
//   - Every multiply-add that is meant to be rounded once is an explicit fma. No product is added otherwise, or it is
//     exact, so nothing is left for a compiler to contract.
//   - exp, sine and cosine are the series below, not the C library's.

constexpr int kGroup = 16;   // rows of a matrix that lie side by side
constexpr int kTile = 12;    // most tokens per call of a product
constexpr int kFew = 8;      // most tokens for which weights are unpacked on their way from memory
constexpr int kHelped = 48;  // products of kFew + 1 to so many tokens ask ahead for the weights that follow
constexpr int kScreen = 4;   // most tokens at once for which LIKELIEST TOKENS leaves out parts of the head
constexpr int kBlock = 32;   // columns that share a scale
constexpr int kSpan = 64;    // columns of float activations that lie side by side

// 32 quantized values x ~ scale * q; `offset` is -128 * sum(q), of all and of the first 16 of them.
struct ActivationBlock {
    float scale;
    std::int32_t offset, first_offset;
    std::int8_t q[kBlock];
};

// A group's block of 32 columns, by what the formats of weights differ in: x = scale * (q - Offset), or + minimum.
//
//     Bits      of q: 8, or 4 to 6
//     Parts     each 32 / Parts columns of a row have a scale, and a minimum
//     InBytes   each q is in a byte, or else they are packed: their lower halves, and their upper bits apart
//     Cached    products take it mostly from the cache, so they do not prefetch it
template <int Bits, int Parts, bool Minimum, int Offset, bool InBytes = Bits == 8, bool Cached = false> struct BlockOf {
    static constexpr int kParts = Parts, kOffset = Offset;
    static constexpr bool kCached = Cached;
    static constexpr bool kHasMinimum = Minimum, kHasCodebook = Bits == 4 && Offset == kCodebookOffset;
    static constexpr bool kInBytes = InBytes, kIsSmall = Bits < 8 && !kHasCodebook;  // q < 64
    static constexpr bool kInPlanes = Bits == 8 && !InBytes;                         // lower halves: LIKELIEST TOKENS
    static constexpr bool kIsUpper = Bits == 4 && !Minimum && Offset == 0;           // see BlockQ8Upper

    // Bytes: scales f16 [Parts][16], minimums the same, the integers as drawn above.
    static constexpr int kMinimums = 2 * kGroup * Parts, kIntegers = kMinimums * (Minimum ? 2 : 1);
    static constexpr int kHalves = kGroup * kBlock / 2, kLower = kInPlanes ? kHalves : 0;
    static constexpr int kUpper = kIntegers + kHalves * (InBytes ? 2 : 1) - kLower;
    static constexpr int kUpperBits = InBytes ? 0 : Bits - 4, kBytes = kUpper + kHalves * kUpperBits / 4;

    // Where the upper bits of columns 8 i to 8 i + 7 are: in which 64 bytes, and how far up in a half of each.
    static constexpr int upper(int i) { return kUpper + i * kUpperBits / 4 * 4 * kGroup; }
    static constexpr int upper_shift(int i) { return i * kUpperBits % 4; }
    static constexpr std::uint32_t kUpperMask = 0x10101010 * ((1u << kUpperBits) - 1);

    // For small q, after how many eights of columns sums of two columns have to leave 16 bits: 127 times 4 * 63, 8 * 31
    // or 16 * 15 is less than 2^15.
    static constexpr int kEightsInPairs = kIsSmall ? 1 << (6 - Bits) : 0;

    // The same with each q in a byte, for products of more than kFew tokens.
    using Unpacked = BlockOf<kIsSmall ? Bits : 8, Parts, Minimum, Offset, true, true>;
};

using BlockQ8_0 = BlockOf<8, 1, false, 128>;
using BlockQ8Planes = BlockOf<8, 1, false, 128, false>;  // see LIKELIEST TOKENS
using BlockQ8Upper = BlockOf<4, 1, false, 0>;            // the upper plane alone: sums of 16 * q - 120.5, not of q
using BlockQ4_0 = BlockOf<4, 1, false, 8>;
using BlockQ4_1 = BlockOf<4, 1, true, 0>;  // Q4_K too, whose scales and minimums of 32 columns are made f16
using BlockQ5_0 = BlockOf<5, 1, false, 16>;
using BlockQ5_1 = BlockOf<5, 1, true, 0>;  // Q5_K
using BlockQ6_K = BlockOf<6, 2, false, 32>;
using BlockQ2_K = BlockOf<4, 2, true, 0>;                   // Q3_K
using BlockIQ4_NL = BlockOf<4, 1, false, kCodebookOffset>;  // IQ4_XS
static_assert(BlockQ8_0::kBytes == 544 && BlockQ4_0::kBytes == 288 && BlockQ6_K::kBytes == 448, "as drawn above");

// Weights that are read after a product, which asks the memory for them meanwhile.
struct Following {
    const std::uint8_t* begin = nullptr;
    std::size_t bytes = 0;
};

// Groups of rows times m <= kTile tokens: y[t * stride + r] = sum over c of W[r][c] * x[c][t].
struct ProductBlocks {
    const std::uint8_t *w, *lower;  // [groups][blocks], and of those in planes the low halves
    int groups, blocks;
    const ActivationBlock* x;  // [blocks][m]
    int m;
    float* y;
    std::size_t stride;
    Following following{};

    // Of BlockQ8Upper, where y gets estimates of the sums, and `most` for each group the largest that one of its sums
    // may be: the estimate + sqrt(sum over blocks of scale^2 * squares).
    const float* squares = nullptr;  // [blocks][m]
    float* most = nullptr;           // [m][stride / kGroup]
};

struct ProductFloat {  // of F32 or F16
    const void* w;     // column c of group g is the 16 values from number g * next + c * pitch on
    int groups, columns;
    std::size_t pitch, next;
    const float* x;  // [columns / kSpan][m][kSpan]
    int m;
    float* y;
    std::size_t stride;
    bool add;  // to what y holds
};

// The kernels that each format of weights has of its own.
struct ForFormat {
    void (*product)(const ProductBlocks&);  // of at most kFew tokens

    // Of more tokens: its weights have each integer in a byte. to_bytes writes such blocks to `out`, and returns their
    // end.
    void (*product_bytes)(const ProductBlocks&);
    std::uint8_t* (*to_bytes)(const std::uint8_t* in, const std::uint8_t* lower, int blocks, std::uint8_t* out);
};

struct Kernels {
    const char* name;     // as LLM_SIMD takes it
    bool (*runs_here)();  // whether this processor has the instructions

    ForFormat q8_0, q8_planes, q4_0, q4_1, q5_0, q5_1, q6_k, q2_k, iq4_nl;
    void (*screen)(const ProductBlocks&);  // of BlockQ8Upper, and at most kScreen tokens
    void (*product_f32)(const ProductFloat&);
    void (*product_f16)(const ProductFloat&);

    // x[n] in blocks of 32, the last one filled up with zeros: out[b * step] for block b.
    void (*quantize)(const float* x, int n, ActivationBlock* out, int step);
    // y = x / sqrt(mean(x^2) + eps) * w  (Zhang and Sennrich 2019)
    void (*rms_norm)(const float* x, const float* w, float eps, int n, float* y);
    // y = x - mean(x)
    void (*center)(const float* x, int n, float* y);
    // y = gelu(x) * up, or gelu(x) where up is null; the tanh form (Hendrycks and Gimpel 2016)
    void (*gelu)(const float* x, const float* up, int n, float* y);

    // cos and sin [n] of position * frequencies[i]
    void (*angles)(float position, const float* frequencies, int n, float* cos, float* sin);
    // (x[i], x[i + half]) turns by the angle whose cosine and sine are given  (RoPE, Su et al. 2021)
    void (*rotate)(float* x, const float* cos, const float* sin, int half);

    // A step of an online softmax: max includes x, x = exp(x - max), sum includes x. Returns exp(old max - new max):
    // sum is already scaled by it, scale your other sums too.
    float (*softmax)(float* x, int n, float& max, float& sum);
    // Joins two online softmaxes with their sums out [n]: the first becomes both.
    void (*join)(float* out, float& max, float& sum, const float* out2, float max2, float sum2, int n);
    // y += a * x
    void (*axpy)(float a, const float* x, int n, float* y);
    // y *= a
    void (*scale)(float a, int n, float* y);
    // to f16, numbers beyond its range become its largest
    void (*to_f16)(const float* x, int n, std::uint16_t* y);
};

// A product asks for weights ahead of what it reads: far ahead into the second-level cache, which can wait for more
// lines at once, and from there into the first. One of floats does so only for tiles of at most kPrefetchTokens tokens.
constexpr int kPrefetchFar = 6144, kPrefetchNear = 512, kPrefetchTokens = 11;  // the first two are bytes

// Where exponents and angles are split into a whole number and a rest: x + kRound - kRound is x rounded to the nearest
// whole number (ties to even), as floats of this size have no fraction, and the last bits of x + kRound are that
// number.
constexpr float kRound = 12582912.0f;  // 1.5 * 2^23

// What the text of the kernels is written with. Each set says what LLM_TARGET is.
#ifndef __GNUC__
#define LLM_OP inline
#define LLM_UNROLL
#else
#define LLM_OP LLM_TARGET inline __attribute__((always_inline))
#ifdef __clang__
#define LLM_UNROLL _Pragma("unroll")
#else
#define LLM_UNROLL _Pragma("GCC unroll 16")
#endif
#endif
#define LLM_TEXT_OF(name) #name
#define LLM_TEXT(name) LLM_TEXT_OF(name)

// The sets of kernels, from the worst to the best. Each is the text below this, read in a pass of its own, which has
// the set's name; its block at the beginning of that text says all that it needs: compiler target, test at run time,
// operations. They are read here, inside of this namespace. The numbers are for #if, which cannot compare names.
#define LLM_KERNELS_scalar 1
#define LLM_KERNELS_avx2 2
#define LLM_KERNELS_avx512 3
#define LLM_KERNELS_neon 4
#define LLM_KERNELS_neon_dot 5
#define LLM_NUMBER_OF(set) LLM_KERNELS_##set
#define LLM_NUMBER(set) LLM_NUMBER_OF(set)

#define LLM_KERNEL_PASS scalar
#include "llm.h"

#if defined(LLM_NO_SIMD) || !defined(__GNUC__) || !(defined(__x86_64__) || defined(__aarch64__))
#define LLM_KERNEL_SETS &scalar::kernels
#elif defined(__x86_64__)
#define LLM_KERNEL_SETS &scalar::kernels, &avx2::kernels, &avx512::kernels
#define LLM_KERNEL_PASS avx2
#include "llm.h"
#define LLM_KERNEL_PASS avx512
#include "llm.h"
#else
#define LLM_KERNEL_PASS neon
#include "llm.h"
// Clang before 16 has the dot product only where the whole program may use it.
#if (defined(__linux__) && (!defined(__clang__) || __clang_major__ >= 16)) || defined(__ARM_FEATURE_DOTPROD)
#define LLM_KERNEL_SETS &scalar::kernels, &neon::kernels, &neon_dot::kernels
#define LLM_KERNEL_PASS neon_dot
#include "llm.h"
#else
#define LLM_KERNEL_SETS &scalar::kernels, &neon::kernels
#endif
#endif
#endif  // LLM_IMPLEMENTATION

// ==== KERNELS, IN VECTORS ============================================================================================
//
// Read once per set of kernels, each time into a namespace of its own: `Floats` is a vector of kLanes f32, `Ints` of
// as many i32, with C++'s operators. First what differs between the sets, then the kernels, which differ in nothing.
//
// A block like those below is all that a new set needs (and a place in LLM_KERNEL_SETS): the compiler's target, whether
// the processor at hand has it, how many tokens times how many vectors of rows a product keeps in registers (few tokens,
// weights in bytes, floats), whether its dot product takes unsigned weights, whether it has a faster one for small ones
// (dot_pairs), the operations. To read them, begin with the first, which is plain C++.

#ifdef LLM_KERNEL_PASS

namespace LLM_KERNEL_PASS {

#if LLM_NUMBER(LLM_KERNEL_PASS) == LLM_KERNELS_scalar

#define LLM_TARGET
inline bool runs_here() { return true; }
constexpr int kFewTokens = 1, kFewVectors = 1, kByteTokens = 1, kByteVectors = 1, kFloatTokens = 1, kFloatVectors = 1;
constexpr bool kUnsignedDot = true, kPairs = false;

template <class T> struct Lanes {
    T lane[kGroup];
    LLM_OP T operator[](int i) const { return lane[i]; }
};

using Floats = Lanes<float>;
using Ints = Lanes<std::int32_t>;

// op(a[i], b[i], ...) in lane i, of vectors or of what lies in memory.
template <class Op, class... From> LLM_OP auto each(const Op& op, const From&... from) {
    Lanes<decltype(op(from[0]...))> out;
    for (int i = 0; i < kGroup; ++i) out.lane[i] = op(from[i]...);
    return out;
}
// clang-format off
template <class T> LLM_OP Lanes<T> operator+(const Lanes<T>& a, const Lanes<T>& b) { return each(std::plus<>(), a, b); }
template <class T> LLM_OP Lanes<T> operator-(const Lanes<T>& a, const Lanes<T>& b) { return each(std::minus<>(), a, b); }
LLM_OP Floats operator*(const Floats& a, const Floats& b) { return each(std::multiplies<>(), a, b); }
LLM_OP Floats operator/(const Floats& a, const Floats& b) { return each(std::divides<>(), a, b); }
LLM_OP Floats operator-(const Floats& a) { return each(std::negate<>(), a); }
LLM_OP Floats sqrt(const Floats& a) { return each([](float x) { return std::sqrt(x); }, a); }
template <class T> LLM_OP Lanes<T> set(T x) { return each([&] { return x; }); }
LLM_OP Floats load(const float* p) { return each([](float x) { return x; }, p); }
LLM_OP Floats load(const std::uint16_t* p) { return each([](std::uint16_t x) { return f16_to_f32(x); }, p); }
LLM_OP void store(float* p, const Floats& x) { std::copy_n(x.lane, kGroup, p); }
LLM_OP void store(std::uint16_t* p, const Floats& x) { std::transform(x.lane, x.lane + kGroup, p, f32_to_f16); }
LLM_OP void store(std::int8_t* p, const Ints& a) { std::copy_n(a.lane, kGroup, p); }
LLM_OP Floats fma(const Floats& a, const Floats& b, const Floats& c) {
    return each([](float x, float y, float z) { return fused(x, y, z); }, a, b, c);
}

// Where one is a NaN, both give b, as x86 has it.
LLM_OP Floats min(const Floats& a, const Floats& b) { return each([](auto x, auto y) { return x < y ? x : y; }, a, b); }
LLM_OP Floats max(const Floats& a, const Floats& b) { return each([](auto x, auto y) { return x > y ? x : y; }, a, b); }
LLM_OP float largest(const Floats& a) { return *std::max_element(a.lane, a.lane + kGroup); }
LLM_OP float sum(Floats a) {
    for (int half = kGroup / 2; half > 0; half /= 2)
        for (int i = 0; i < half; ++i) a.lane[i] += a.lane[i + half];
    return a.lane[0];
}

LLM_OP Floats to_floats(const Ints& a) { return each([](int x) { return float(x); }, a); }
LLM_OP Ints operator&(const Ints& a, const Ints& b) { return each(std::bit_and<>(), a, b); }
LLM_OP Ints operator|(const Ints& a, const Ints& b) { return each(std::bit_or<>(), a, b); }
LLM_OP Ints operator^(const Ints& a, const Ints& b) { return each(std::bit_xor<>(), a, b); }
LLM_OP Ints operator>>(const Ints& a, int n) { return each([&](int x) { return x >> n; }, a); }
LLM_OP Ints operator<<(const Ints& a, int n) { return each([&](int x) { return int(unsigned(x) << n); }, a); }
LLM_OP Ints in_codebook(Ints a) {
    const auto q = reinterpret_cast<std::uint8_t*>(&a);
    std::transform(q, q + sizeof a, q, [](std::uint8_t one) { return kCodebook[one & 15]; });
    return a;
}
LLM_OP Ints dot(const Ints& acc, const Ints& w, const Ints& x) {  // u8 times i8, 4 of them to each lane
    const auto add_four = [](int total, int a, int b) {
        for (int k = 0; k < 32; k += 8) total += (a >> k & 255) * std::int8_t(b >> k);
        return total;
    };
    return each(add_four, acc, w, x);
}
// clang-format on

#elif LLM_NUMBER(LLM_KERNEL_PASS) == LLM_KERNELS_avx512

#define LLM_TARGET __attribute__((target("avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")))
#define LLM_MM(name) _mm512_##name
inline bool runs_here() {
    return __builtin_cpu_supports("avx512vnni") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
}

using Floats = float __attribute__((vector_size(64)));
using Ints = std::int32_t __attribute__((vector_size(64)));
using Raw = __m512i;  // Ints, as intrinsics take them
using Halves = __m256i_u;
constexpr int kFewTokens = 8, kFewVectors = 2, kByteTokens = 6, kByteVectors = 2, kFloatTokens = 12, kFloatVectors = 2;
constexpr bool kUnsignedDot = true, kPairs = false;

LLM_OP void store(std::int8_t* p, Ints a) {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm512_cvtepi32_epi8(Raw(a)));
}
LLM_OP __mmask16 first(int n) { return __mmask16((1 << n) - 1); }
LLM_OP void store(float* p, Floats x, int n) { _mm512_mask_storeu_ps(p, first(n), x); }
LLM_OP Floats load(const float* p, int n, Floats rest) { return _mm512_mask_loadu_ps(rest, first(n), p); }
LLM_OP Raw codebook() { return _mm512_broadcast_i32x4(*reinterpret_cast<const __m128i_u*>(kCodebook)); }
LLM_OP Ints dot(Ints acc, Ints w, Ints x) { return Ints(_mm512_dpbusd_epi32(Raw(acc), Raw(w), Raw(x))); }

#elif LLM_NUMBER(LLM_KERNEL_PASS) == LLM_KERNELS_avx2

#define LLM_TARGET __attribute__((target("avx2,fma,f16c")))
#define LLM_MM(name) _mm256_##name
inline bool runs_here() { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"); }

using Floats = float __attribute__((vector_size(32)));
using Ints = std::int32_t __attribute__((vector_size(32)));
using Raw = __m256i;  // Ints, as intrinsics take them
using Halves = __m128i_u;
constexpr int kFewTokens = 8, kFewVectors = 1, kByteTokens = 4, kByteVectors = 2, kFloatTokens = 6, kFloatVectors = 2;
constexpr bool kUnsignedDot = false, kPairs = true;

LLM_OP void store(std::int8_t* p, Ints a) {
    const __m128i words = _mm_packs_epi32(_mm256_castsi256_si128(Raw(a)), _mm256_extracti128_si256(Raw(a), 1));
    _mm_storel_epi64(reinterpret_cast<__m128i*>(p), _mm_packs_epi16(words, words));
}
LLM_OP Raw codebook() { return _mm256_broadcastsi128_si256(*reinterpret_cast<const __m128i_u*>(kCodebook)); }

// maddubs multiplies unsigned bytes with signed ones. Its 16-bit sums of two saturate where an unsigned byte exceeds
// 128, so |w| is multiplied with x that has w's sign. Weights below 64 are safe as they are, even if some results are
// added (see kEightsInPairs). Compilers would add many results apart from each other, in more registers than there are:
// in_place keeps them from it.
LLM_OP Ints in_place(Ints sum) {
    __asm__("" : "+x"(sum));
    return sum;
}
LLM_OP Ints add_pairs(Ints acc, Ints pairs) { return acc + Ints(_mm256_madd_epi16(Raw(pairs), _mm256_set1_epi16(1))); }
LLM_OP Ints dot(Ints acc, Ints w, Ints x) {
    const Raw pairs = _mm256_maddubs_epi16(_mm256_abs_epi8(Raw(w)), _mm256_sign_epi8(Raw(x), Raw(w)));
    return in_place(add_pairs(acc, Ints(pairs)));
}
LLM_OP Ints dot_pairs(Ints pairs, Ints w, Ints x, bool is_one_of_many) {
    pairs = Ints(_mm256_add_epi16(Raw(pairs), _mm256_maddubs_epi16(Raw(w), Raw(x))));
    return is_one_of_many ? in_place(pairs) : pairs;
}

#else  // NEON, without and with the dot product of Armv8.2

// With __ARM_FEATURE_DOTPROD the whole program may use it, as on every Apple processor that runs macOS. Elsewhere Linux
// says whether this processor has it.
#if LLM_NUMBER(LLM_KERNEL_PASS) == LLM_KERNELS_neon || defined(__ARM_FEATURE_DOTPROD)
#define LLM_TARGET
inline bool runs_here() { return true; }
#else
#define LLM_TARGET __attribute__((target("arch=armv8.2-a+dotprod")))
inline bool runs_here() { return (getauxval(AT_HWCAP) & (1u << 20)) != 0; }  // HWCAP_ASIMDDP
#endif

using Floats = float32x4_t;
using Ints = int32x4_t;
constexpr int kFewTokens = 8, kFewVectors = 2, kByteTokens = 4, kByteVectors = 2, kFloatTokens = 6, kFloatVectors = 4;
constexpr bool kUnsignedDot = false, kPairs = false;

LLM_OP Floats set(float x) { return vdupq_n_f32(x); }
LLM_OP Floats load(const float* p) { return vld1q_f32(p); }
LLM_OP void store(float* p, Floats x) { vst1q_f32(p, x); }
LLM_OP Floats load(const std::uint16_t* p) { return vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(p))); }
LLM_OP void store(std::uint16_t* p, Floats x) { vst1_u16(p, vreinterpret_u16_f16(vcvt_f16_f32(x))); }
LLM_OP Floats fma(Floats a, Floats b, Floats c) { return vfmaq_f32(c, a, b); }
LLM_OP Floats sqrt(Floats a) { return vsqrtq_f32(a); }
LLM_OP Floats min(Floats a, Floats b) { return vbslq_f32(vcltq_f32(a, b), a, b); }
LLM_OP Floats max(Floats a, Floats b) { return vbslq_f32(vcgtq_f32(a, b), a, b); }
LLM_OP float sum(Floats a) { return vaddv_f32(vadd_f32(vget_low_f32(a), vget_high_f32(a))); }
LLM_OP float largest(Floats a) { return vmaxvq_f32(a); }

LLM_OP Ints set(std::int32_t x) { return vdupq_n_s32(x); }
LLM_OP Floats to_floats(Ints a) { return vcvtq_f32_s32(a); }
LLM_OP void store(std::int8_t* p, Ints a) {
    const int16x4_t words = vqmovn_s32(a);
    vst1_lane_s32(reinterpret_cast<std::int32_t*>(p), vreinterpret_s32_s8(vqmovn_s16(vcombine_s16(words, words))), 0);
}
LLM_OP Ints in_codebook(Ints a) { return Ints(vqtbl1q_u8(vld1q_u8(kCodebook), uint8x16_t(a))); }
LLM_OP Ints dot(Ints acc, Ints w, Ints x) {
    const int8x16_t a = int8x16_t(w), b = int8x16_t(x);
#if LLM_NUMBER(LLM_KERNEL_PASS) == LLM_KERNELS_neon_dot
    return vdotq_s32(acc, a, b);
#else
    const int16x8_t low = vmull_s8(vget_low_s8(a), vget_low_s8(b)), high = vmull_high_s8(a, b);
    return vaddq_s32(acc, vpaddq_s32(vpaddlq_s16(low), vpaddlq_s16(high)));
#endif
}

#endif

#ifdef LLM_MM  // both of x86: the names differ in their beginning only
LLM_OP Floats set(float x) { return LLM_MM(set1_ps)(x); }
LLM_OP Floats load(const float* p) { return LLM_MM(loadu_ps)(p); }
LLM_OP void store(float* p, Floats x) { LLM_MM(storeu_ps)(p, x); }
LLM_OP Floats load(const std::uint16_t* p) { return LLM_MM(cvtph_ps)(*reinterpret_cast<const Halves*>(p)); }
LLM_OP void store(std::uint16_t* p, Floats x) {
    *reinterpret_cast<Halves*>(p) = LLM_MM(cvtps_ph)(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}
LLM_OP Floats fma(Floats a, Floats b, Floats c) { return LLM_MM(fmadd_ps)(a, b, c); }
LLM_OP Floats sqrt(Floats a) { return LLM_MM(sqrt_ps)(a); }
LLM_OP Floats min(Floats a, Floats b) { return LLM_MM(min_ps)(a, b); }
LLM_OP Floats max(Floats a, Floats b) { return LLM_MM(max_ps)(a, b); }

LLM_OP float sum(__m256 a) {
    const __m128 four = _mm256_castps256_ps128(a) + _mm256_extractf128_ps(a, 1), two = four + _mm_movehl_ps(four, four);
    return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
}
LLM_OP float largest(__m256 a) {
    const __m128 four = _mm_max_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    const __m128 two = _mm_max_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_max_ss(two, _mm_movehdup_ps(two)));
}
#if LLM_NUMBER(LLM_KERNEL_PASS) == LLM_KERNELS_avx512
LLM_OP float sum(Floats a) { return sum(_mm512_castps512_ps256(a) + _mm512_extractf32x8_ps(a, 1)); }
LLM_OP float largest(Floats a) { return _mm512_reduce_max_ps(a); }
#endif

LLM_OP Ints set(std::int32_t x) { return Ints(LLM_MM(set1_epi32)(x)); }
LLM_OP Floats to_floats(Ints a) { return LLM_MM(cvtepi32_ps)(Raw(a)); }
LLM_OP Ints in_codebook(Ints a) { return Ints(LLM_MM(shuffle_epi8)(codebook(), Raw(a))); }
#undef LLM_MM
#endif

// ---- what is the same in all sets

template <class Vector> LLM_OP Vector load_bits(const void* p) {
    Vector out;
    std::memcpy(&out, p, sizeof out);
    return out;
}

constexpr int kLanes = sizeof(Floats) / sizeof(float);
constexpr int kWide = 16 / kLanes;  // vectors that are 16 values wide, as a group of rows is

// The whole number in x + kRound.
LLM_OP Ints whole(const Floats& x) { return load_bits<Ints>(&x) - set(load_as<std::int32_t>(&kRound)); }

// ---- products: M tokens, V vectors of rows; all of them stay in registers while the columns go by

#ifdef __GNUC__
// Asks the memory for a line, into the second-level cache; prefetch() for the lines that follow p, see kPrefetchFar.
LLM_OP void ask(const void* p) { __builtin_prefetch(p, 0, 2); }
LLM_OP void prefetch(const void* p, std::ptrdiff_t distance = kPrefetchFar) {
    ask(static_cast<const char*>(p) + distance);
    __builtin_prefetch(static_cast<const char*>(p) + kPrefetchNear, 0, 3);
    __asm__ __volatile__("" ::: "memory");  // g++ -O2 would move the prefetches of a block together, far from here
}
#else
LLM_OP void ask(const void*) {}
LLM_OP void prefetch(const void*, std::ptrdiff_t = 0) {}
#endif

// Columns 8 i to 8 i + 7 of a block: the first four, the next four.
template <class Block>
LLM_OP void load_columns(const std::uint8_t* block, const std::uint8_t* lower, int i, int lane, Ints (&eight)[2]) {
    const std::uint8_t* integers = Block::kInPlanes ? lower : block + Block::kIntegers;
    integers += i * kGroup * (Block::kInBytes ? 8 : 4) + 4 * lane;
    const Ints first = load_bits<Ints>(integers), halves = set(0x0F0F0F0F);
    eight[0] = Block::kInBytes ? first : first & halves;
    eight[1] = Block::kInBytes ? load_bits<Ints>(integers + 4 * kGroup) : first >> 4 & halves;

    if constexpr (Block::kHasCodebook)
        for (Ints& four : eight) four = in_codebook(four);
    if constexpr (Block::kUpperBits > 0) {
        const Ints mask = set(std::int32_t(Block::kUpperMask));
        const Ints upper = load_bits<Ints>(block + Block::upper(i) + 4 * lane);
        eight[0] = eight[0] | (upper << (4 - Block::upper_shift(i)) & mask);
        eight[1] = eight[1] | (upper >> Block::upper_shift(i) & mask);
    }
}

template <class Block>
LLM_TARGET std::uint8_t* to_bytes(const std::uint8_t* in, const std::uint8_t* lower, int blocks, std::uint8_t* out) {
    using Unpacked = typename Block::Unpacked;
    for (int b = 0; b < blocks; ++b, in += Block::kBytes, lower += Block::kLower, out += Unpacked::kBytes) {
        std::memcpy(out, in, Block::kIntegers);
        LLM_UNROLL for (int line = 0; line < (Block::kBytes + 63) / 64; ++line) prefetch(in + 64 * line);
        LLM_UNROLL for (int i = 0; i < kBlock / 8; ++i) {
            if (Block::kInPlanes) prefetch(lower + 64 * i);
            for (int lane = 0; lane < kGroup; lane += kLanes) {
                Ints eight[2];
                load_columns<Block>(in, lower, i, lane, eight);
                std::uint8_t* const to = out + Unpacked::kIntegers + i * 8 * kGroup + 4 * lane;
                for (int k = 0; k < 2; ++k) std::memcpy(to + k * 4 * kGroup, &eight[k], sizeof eight[k]);
            }
        }
    }
    return out;
}

// Adds the products of the columns 8 i to 8 i + 7 to the sum of a row and a token. `pairs`: what of it is still in 16 bits.
template <class Block, class Vector>
LLM_OP void add_eight(const Vector (&eight)[2], const Vector& x, const Vector& x2, int i, Vector& sum, Vector& pairs) {
    if constexpr (kPairs && Block::kIsSmall) {
        constexpr int kAtOnce = std::min(kBlock / 8 / Block::kParts, Block::kEightsInPairs);
        pairs = dot_pairs(pairs, eight[0], x, kAtOnce > 1);
        pairs = dot_pairs(pairs, eight[1], x2, kAtOnce > 1);
        if ((i + 1) % kAtOnce != 0) return;
        sum = add_pairs(sum, pairs);
        pairs = set(0);
    } else {
        sum = dot(dot(sum, eight[0], x), eight[1], x2);
    }
}

// Adds to `total` what one part (see Parts) of a block gives, for M tokens and V vectors of rows. w and lower: the
// block in each vector's group. lane: the first vector's first row in its group. a: the block's values of the M tokens.
// distance, distance_lower: how many bytes ahead to ask for weights.
template <class Block, int M, int V> LLM_OP void add_part(const std::uint8_t* const (&w)[V],
                                                          const std::uint8_t* const (&lower)[V], int lane, int part,
                                                          const ActivationBlock* a, Floats (&total)[M][V],
                                                          std::ptrdiff_t distance, std::ptrdiff_t distance_lower) {
    constexpr int kEights = kBlock / 8 / Block::kParts, kLines = (Block::kBytes + 63) / 64;
    Ints acc[M][V], pairs[M][V];
    std::int32_t offset[M];  // of this part: -128 * sum(q). Sums start at -Offset * sum(q)
    LLM_UNROLL for (int t = 0; t < M; ++t) {
        offset[t] = Block::kParts == 1 ? a[t].offset : a[t].first_offset;
        if (part == 1) offset[t] = a[t].offset - offset[t];
        std::int32_t start = kUnsignedDot ? offset[t] : 0;
        if (Block::kIsSmall) start = offset[t] / 128 * Block::kOffset;
        LLM_UNROLL for (int v = 0; v < V; ++v) acc[t][v] = set(start), pairs[t][v] = set(0);
    }

    // Integers only: 8 columns of the rows, times the same 8 of every token.
    LLM_UNROLL for (int i = part * kEights; i < (part + 1) * kEights; ++i) {
        Ints eight[V][2];
        LLM_UNROLL for (int v = 0; v < V; ++v) {
            for (int line = kLines * i / 4; line < kLines * (i + 1) / 4; ++line)
                if (!Block::kCached && v * kLanes % kGroup == 0) prefetch(w[v] + 64 * line, distance);
            if (Block::kInPlanes && v * kLanes % kGroup == 0) prefetch(lower[v] + 64 * i, distance_lower);
            load_columns<Block>(w[v], lower[v], i, (lane + v * kLanes) % kGroup, eight[v]);
            if constexpr (!Block::kIsSmall && !kUnsignedDot)  // takes the 128 off each byte: such a sum starts at 0
                for (Ints& four : eight[v]) four = four ^ set(std::int32_t(0x80808080));
        }
        LLM_UNROLL for (int t = 0; t < M; ++t) {
            const Ints x = set(load_as<std::int32_t>(a[t].q + 8 * i));
            const Ints x2 = set(load_as<std::int32_t>(a[t].q + 8 * i + 4));
            LLM_UNROLL for (int v = 0; v < V; ++v) add_eight<Block>(eight[v], x, x2, i, acc[t][v], pairs[t][v]);
        }
    }

    // The sums become floats: times the scales of both sides, and the minimum's share.
    LLM_UNROLL for (int v = 0; v < V; ++v) {
        const auto factors =
            reinterpret_cast<const std::uint16_t*>(w[v]) + part * kGroup + (lane + v * kLanes) % kGroup;
        const Floats scale = load(factors);
        LLM_UNROLL for (int t = 0; t < M; ++t) {
            Floats products = to_floats(acc[t][v]);
            if constexpr (Block::kIsUpper) products = fma(products, set(16.0f), set(float(offset[t]) * (120.5f / 128)));
            total[t][v] = fma(products, scale * set(a[t].scale), total[t][v]);
            if constexpr (Block::kHasMinimum)
                total[t][v] = fma(load(factors + Block::kMinimums / 2),
                                  set(a[t].scale * (float(offset[t]) * (-1.0f / 128))), total[t][v]);
        }
    }
}

// M tokens from `first` on times V vectors of rows from `row` on: block after block into `total`, and from there to y.
// BlockQ8Upper, whose vectors are those of one group, also sums up the variance of what the lower halves add.
template <class Block, int M, int V> LLM_TARGET void tile(const ProductBlocks& p, int first, int row) {
    const int lane = V * kLanes % kGroup ? row % kGroup : 0;
    const std::uint8_t *w[V], *lower[V];
    Floats total[M][V], variance[M][V];
    LLM_UNROLL for (int v = 0; v < V; ++v) {
        const std::size_t blocks_before = usize((row + v * kLanes) / kGroup) * usize(p.blocks);
        w[v] = p.w + blocks_before * Block::kBytes;
        lower[v] = p.lower + blocks_before * Block::kLower;
        LLM_UNROLL for (int t = 0; t < M; ++t) total[t][v] = variance[t][v] = set(0.0f);
    }
    // Each tile asks for its share of what follows, some lines with each block.
    const int across = (p.m - 1) / M + 1, tiles = across * ((p.groups * kGroup - 1) / (V * kLanes) + 1);
    const std::size_t lines = p.following.bytes ? p.following.bytes / 64 / usize(tiles * p.blocks) + 1 : 0;
    const std::uint8_t* next = p.following.begin;
    next += 64 * lines * usize(p.blocks * (row / (V * kLanes) * across + first / M));

    // How far ahead to ask. Behind the end of a group lies the next one, which this tile reads itself, as it reads its
    // groups side by side: beyond that end, what to ask for is further on by the tile's other groups.
    const auto ahead = [&](int b, int bytes) {
        constexpr int kOthers = std::max(V * kLanes / kGroup - 1, 0);
        return std::ptrdiff_t{kPrefetchFar} + ((p.blocks - b) * bytes > kPrefetchFar ? 0 : kOthers * p.blocks * bytes);
    };

    const ActivationBlock* a = p.x + first;
    for (int b = 0; b < p.blocks; ++b, a += p.m) {
        if constexpr (M > 1)
            for (std::size_t i = 0; i < lines; ++i, next += 64) ask(next);
        const std::ptrdiff_t distance = ahead(b, Block::kBytes), distance_lower = ahead(b, Block::kLower);
        LLM_UNROLL for (int part = 0; part < Block::kParts; ++part)
            add_part<Block, M, V>(w, lower, lane, part, a, total, distance, distance_lower);
        LLM_UNROLL for (int v = 0; v < V; ++v) {
            if constexpr (Block::kIsUpper) {
                const Floats scale = load(reinterpret_cast<const std::uint16_t*>(w[v]) + v * kLanes);
                LLM_UNROLL for (int t = 0; t < M; ++t) variance[t][v] =
                    fma(scale * scale, set(p.squares[b * p.m + first + t]), variance[t][v]);
            }
            w[v] += Block::kBytes, lower[v] += Block::kLower;
        }
    }
    LLM_UNROLL for (int t = 0; t < M; ++t) {
        if (first + t >= p.m) continue;
        float* out = p.y + usize(first + t) * p.stride + row;
        LLM_UNROLL for (int v = 0; v < V; ++v) store(out + v * kLanes, total[t][v]);
        if constexpr (Block::kIsUpper) {
            Floats most = set(-INFINITY);
            LLM_UNROLL for (int v = 0; v < V; ++v) most = max(total[t][v] + sqrt(variance[t][v]), most);
            p.most[(out - p.y) / kGroup] = largest(most);
        }
    }
}

// The same in floats, column after column.
template <class Weight, int M, int V> LLM_TARGET void tile(const ProductFloat& p, int first, int row) {
    const Weight* w[V];
    Floats total[M][V];
    float* out = p.y + usize(first) * p.stride + row;
    LLM_UNROLL for (int v = 0; v < V; ++v) {
        const int r = row + v * kLanes;
        w[v] = static_cast<const Weight*>(p.w) + usize(r / kGroup) * p.next + r % kGroup;
        LLM_UNROLL for (int t = 0; t < M; ++t) total[t][v] =
            p.add ? load(out + usize(t) * p.stride + v * kLanes) : set(0.0f);
    }
    for (int span = 0; span < p.columns; span += kSpan) {
        const float *a = p.x + span * p.m + first * kSpan, *end = a + std::min(kSpan, p.columns - span);
        for (; a < end; ++a) {
            Floats column[V];
            LLM_UNROLL for (int v = 0; v < V; ++v) {
                if (M <= kPrefetchTokens && v * kLanes % kGroup == 0) prefetch(w[v]);
                column[v] = load(w[v]);
                w[v] += p.pitch;
            }
            LLM_UNROLL for (int t = 0; t < M; ++t) {
                const Floats value = set(a[t * kSpan]);
                LLM_UNROLL for (int v = 0; v < V; ++v) total[t][v] = fma(column[v], value, total[t][v]);
            }
        }
    }
    LLM_UNROLL for (int t = 0; t < M; ++t) {
        LLM_UNROLL for (int v = 0; v < V; ++v) store(out + usize(t) * p.stride + v * kLanes, total[t][v]);
    }
}

// V vectors of rows times all tokens, M at a time and the last ones by fewer: the rows stay in the first-level cache.
// Floats have a tile of every size. Integers halve it (8, 4, 2 or 6, 3), and the last tile may compute more tokens than
// there are, of whatever lies behind them.
template <class Weight, int M, int V, class Product>
LLM_TARGET void cover_tokens(const Product& p, int row, int first = 0) {
    constexpr int kFewer = std::is_same_v<Product, ProductFloat> ? M - 1 : M < 4 ? 0 : M / 2;
    for (; p.m - first > kFewer; first += M) tile<Weight, M, V>(p, first, row);
    if constexpr (kFewer > 0)
        if (first < p.m) cover_tokens<Weight, kFewer, V>(p, row, first);
}

// Covers all tokens and rows, V vectors of rows at a time, and the groups that are left one by one.
template <class Weight, int M, int V, class Product> LLM_TARGET void cover(const Product& p) {
    const int rows = p.groups * kGroup;
    int row = 0;
    for (; row + V * kLanes <= rows; row += V * kLanes) cover_tokens<Weight, M, V>(p, row);
    if constexpr (V * kLanes > kGroup)
        for (; row < rows; row += kGroup) cover_tokens<Weight, M, kWide>(p, row);
}

// A single token goes with `One` vectors of rows at a time: those of a group are one stream of weights, and in floats
// the four sums of four groups hide the latency of fma.
template <class Weight, int One, int M, int V, class Product> LLM_TARGET void product(const Product& p) {
    if (p.m == 1) cover<Weight, 1, One>(p);
    else cover<Weight, M, V>(p);
}

template <class Block> inline constexpr ForFormat kFor = {product<Block, kWide, kFewTokens, kFewVectors>,
                                                          cover<typename Block::Unpacked, kByteTokens, kByteVectors>,
                                                          to_bytes<Block>};

// ---- along one row: kWide vectors are 16 lanes, value i in lane i % 16

// The first n lanes; AVX-512 has instructions for it.
template <class Vector> LLM_OP Vector load(const float* p, int n, Vector rest) {
    std::memcpy(&rest, p, usize(n) * sizeof(float));
    return rest;
}
template <class T> LLM_OP void store(T* p, const Floats& x, int n) {
    T part[kLanes];
    store(part, x);
    std::copy_n(part, n, p);
}

// What is beyond the n values that are left reads as `fill`, and is not written.
LLM_OP Floats load_some(const float* p, int n, float fill = 0) {
    return n >= kLanes ? load(p) : load(p, std::max(n, 0), set(fill));
}
template <class T> LLM_OP void store_some(T* p, const Floats& x, int n) {
    n >= kLanes ? store(p, x) : store(p, x, std::max(n, 0));
}

// exp(x) = 2^n * e^r with n = round(x / ln 2) and |r| <= ln(2) / 2, e^r by its Taylor polynomial of degree 7: within
// a unit in the last place. Below -87.3 it stays at e^-87.3, about 1e-38, and above 88 at e^88: it is never 0,
// infinite or denormal, so the product with 2^n is exact.
LLM_OP Floats exp(Floats x) {
    x = max(min(x, set(88.0f)), set(-87.3f));
    const Floats shifted = fma(x, set(1.44269504f), set(kRound)), n = shifted - set(kRound);
    Floats r = fma(n, set(-0.693359375f), x);  // ln 2 in two parts, the first of them exact
    r = fma(n, set(2.12194440e-4f), r);
    static constexpr float kTerms[] = {1.0f / 720, 1.0f / 120, 1.0f / 24, 1.0f / 6, 0.5f, 1.0f, 1.0f};
    Floats e = set(1.0f / 5040);
    LLM_UNROLL for (int k = 0; k < 7; ++k) e = fma(e, r, set(kTerms[k]));
    const Ints power = (whole(shifted) + set(127)) << 23;  // 2^n
    return e * load_bits<Floats>(&power);
}
LLM_OP float exp(float x) { return exp(set(x))[0]; }

// The sum over a row of its values, of their squares, or of what takes their place: exp(x - top).
enum class Sum { values, squares, exps };
template <Sum Of, class T> LLM_OP float sum_row(T* x, int n, [[maybe_unused]] float top = 0) {
    Floats total[kWide] = {};
    for (int i = 0; i < n; i += 16) {
        LLM_UNROLL for (int k = 0; k < kWide; ++k) {
            T* const at = x + i + k * kLanes;
            const int left = n - i - k * kLanes;
            Floats a = load_some(at, left);
            if constexpr (Of == Sum::exps) {
                store_some(at, a = exp(a - set(top)), left);
                if (left < kLanes) a = load_some(at, left);  // 0 where there is nothing
            }
            total[k] = Of == Sum::squares ? fma(a, a, total[k]) : total[k] + a;
        }
    }
    LLM_UNROLL for (int half = kWide / 2; half > 0; half /= 2) {
        LLM_UNROLL for (int k = 0; k < half; ++k) total[k] = total[k] + total[k + half];
    }
    return sum(total[0]);
}

LLM_TARGET inline void quantize(const float* x, int n, ActivationBlock* out, int step) {
    for (int i = 0; i < n; i += kBlock, out += step) {
        Floats part[kBlock / kLanes], top = set(0.0f);
        LLM_UNROLL for (int k = 0; k < kBlock / kLanes; ++k) {
            part[k] = load_some(x + i + k * kLanes, n - i - k * kLanes);
            top = max(max(part[k], -part[k]), top);
        }
        const float largest_x = largest(top);
        const Floats to_int = set(largest_x > 0 ? 127.0f / largest_x : 0.0f);
        Floats total[2] = {set(0.0f), set(0.0f)};  // of each half; of whole numbers: exact in any order
        LLM_UNROLL for (int k = 0; k < kBlock / kLanes; ++k) {
            const Floats rounded = fma(part[k], to_int, set(kRound));
            const Ints q = whole(max(min(rounded, set(kRound + 127)), set(kRound - 127)));
            store(out->q + k * kLanes, q);
            total[k * kLanes / 16] = total[k * kLanes / 16] + to_floats(q);
        }
        out->scale = largest_x / 127.0f;
        out->first_offset = -128 * int(sum(total[0]));
        out->offset = out->first_offset - 128 * int(sum(total[1]));
    }
}

LLM_TARGET inline void rms_norm(const float* x, const float* w, float eps, int n, float* y) {
    const Floats scale = set(1.0f / std::sqrt(sum_row<Sum::squares>(x, n) / float(n) + eps));
    for (int i = 0; i < n; i += kLanes)
        store_some(y + i, load_some(x + i, n - i) * scale * load_some(w + i, n - i), n - i);
}

LLM_TARGET inline void center(const float* x, int n, float* y) {
    const Floats mean = set(sum_row<Sum::values>(x, n) / float(n));
    for (int i = 0; i < n; i += kLanes) store_some(y + i, load_some(x + i, n - i) - mean, n - i);
}

LLM_TARGET inline void gelu(const float* x, const float* up, int n, float* y) {
    for (int i = 0; i < n; i += kLanes) {
        const Floats a = load_some(x + i, n - i);
        const Floats inner = a * fma(a * a, set(0.7978845608f * 0.044715f), set(0.7978845608f));
        // 0.5 (1 + tanh(inner)) = 1 / (1 + e^(-2 inner)); inner = sqrt(2 / pi) (a + 0.044715 a^3)
        Floats g = a / (set(1.0f) + exp(inner * set(-2.0f)));
        if (up) g = g * load_some(up + i, n - i);
        store_some(y + i, g, n - i);
    }
}

// An angle is n half turns and a rest, |r| <= pi / 2: its sine and cosine are those of r, with the other sign if n is
// odd. Both by their Taylor polynomials, within 1.5e-7 for angles up to 2^20.
LLM_TARGET inline void angles(float position, const float* frequencies, int n, float* cos, float* sin) {
    for (int i = 0; i < n; i += kLanes) {
        const Floats angle = set(position) * load_some(frequencies + i, n - i);
        const Floats half_turns = fma(angle, set(0.318309886f), set(kRound)) - set(kRound);
        Floats r = fma(half_turns, set(-3.14159274f), angle);  // pi in three parts
        r = fma(half_turns, set(8.74227766e-8f), r);
        r = fma(half_turns, set(3.43024902e-15f), r);

        // 1 or -1: half_turns less the nearest even number is 0, 1 or -1.
        const Floats even = fma(half_turns, set(0.5f), set(kRound)) - set(kRound);
        const Floats odd = fma(even, set(-2.0f), half_turns), sign = fma(odd * odd, set(-2.0f), set(1.0f));

        const Floats square = r * r;
        Floats s = set(1.0f / 6227020800.0f), c = set(-1.0f / 87178291200.0f);
        for (const float term : {-1.0f / 39916800, 1.0f / 362880, -1.0f / 5040, 1.0f / 120, -1.0f / 6})
            s = fma(s, square, set(term));
        for (const float term : {1.0f / 479001600, -1.0f / 3628800, 1.0f / 40320, -1.0f / 720, 1.0f / 24, -0.5f, 1.0f})
            c = fma(c, square, set(term));
        s = fma(s * square, r, r);
        store_some(sin + i, s * sign, n - i);
        store_some(cos + i, c * sign, n - i);
    }
}

LLM_TARGET inline void rotate(float* x, const float* cos, const float* sin, int half) {
    for (int i = 0; i < half; i += kLanes) {
        const int n = half - i;
        const Floats a = load_some(x + i, n), b = load_some(x + i + half, n);
        const Floats c = load_some(cos + i, n), s = load_some(sin + i, n);
        store_some(x + i, fma(a, c, -(b * s)), n);
        store_some(x + i + half, fma(b, c, a * s), n);
    }
}

LLM_TARGET inline float softmax(float* x, int n, float& max_x, float& sum_x) {
    const float before = max_x;
    Floats top = set(before);
    for (int i = 0; i < n; i += kLanes) top = max(load_some(x + i, n - i, before), top);
    max_x = largest(top);
    const float total = sum_row<Sum::exps>(x, n, max_x), shrink = before == max_x ? 1 : exp(before - max_x);
    sum_x = fused(sum_x, shrink, total);
    return shrink;
}

LLM_TARGET inline void join(float* out, float& max_x, float& sum_x, const float* out2, float max2, float sum2, int n) {
    const float top = std::max(max_x, max2), shrink = exp(max_x - top), shrink2 = exp(max2 - top);
    for (int i = 0; i < n; i += kLanes)
        store_some(out + i, fma(set(shrink2), load_some(out2 + i, n - i), set(shrink) * load_some(out + i, n - i)),
                   n - i);
    sum_x = fused(shrink2, sum2, shrink * sum_x);
    max_x = top;
}

LLM_TARGET inline void axpy(float a, const float* x, int n, float* y) {
    for (int i = 0; i < n; i += kLanes)
        store_some(y + i, fma(set(a), load_some(x + i, n - i), load_some(y + i, n - i)), n - i);
}

LLM_TARGET inline void scale(float a, int n, float* y) {
    for (int i = 0; i < n; i += kLanes) store_some(y + i, set(a) * load_some(y + i, n - i), n - i);
}

LLM_TARGET inline void to_f16(const float* x, int n, std::uint16_t* y) {
    for (int i = 0; i < n; i += kLanes)
        store_some(y + i, max(min(load_some(x + i, n - i), set(65504.0f)), set(-65504.0f)), n - i);
}

// clang-format off
inline constexpr Kernels kernels = {
    LLM_TEXT(LLM_KERNEL_PASS), runs_here, kFor<BlockQ8_0>, kFor<BlockQ8Planes>, kFor<BlockQ4_0>, kFor<BlockQ4_1>,
    kFor<BlockQ5_0>, kFor<BlockQ5_1>, kFor<BlockQ6_K>, kFor<BlockQ2_K>, kFor<BlockIQ4_NL>,
    product<BlockQ8Upper, kWide, kScreen, kWide>, product<float, 4 * kWide, kFloatTokens, kFloatVectors>,
    product<std::uint16_t, 4 * kWide, kFloatTokens, kFloatVectors>, quantize, rms_norm, center, gelu, angles, rotate,
    softmax, join, axpy, scale, to_f16};
// clang-format on

#ifdef LLM_KERNEL_PROBE  // a file that measures what these instructions can do at most: the bench has one
#include LLM_KERNEL_PROBE
#endif

}  // namespace LLM_KERNEL_PASS

#undef LLM_KERNEL_PASS
#undef LLM_TARGET
#elif defined(LLM_IMPLEMENTATION) && !defined(LLM_IMPLEMENTATION_INCLUDED)
#define LLM_IMPLEMENTATION_INCLUDED

// ==== MATRICES =======================================================================================================
//
// The choice of the kernels, and y = W x on top of them for any number of tokens: `Matrix` is W in groups of 16 rows,
// `Activations` is x as the kernels want it, and `multiply` shares the groups between the threads.

// Every set of kernels that this program holds and this processor can run, the best one last.
inline std::vector<const Kernels*> available_kernels() {
    std::vector<const Kernels*> sets;
    for (const Kernels* set : {LLM_KERNEL_SETS})
        if (set->runs_here()) sets.push_back(set);
    return sets;
}

// The best set, or the one that LLM_SIMD names.
inline const Kernels& choose_kernels() {
    const auto sets = available_kernels();
    const char* wanted = std::getenv("LLM_SIMD");
    if (!wanted || !*wanted) return *sets.back();

    std::string names;
    for (const Kernels* set : sets) {
        if (std::string_view(set->name) == wanted) return *set;
        names += std::string(names.empty() ? "" : ", ") + set->name;
    }
    fail("LLM_SIMD names kernels that are not available here", wanted, "choose one of " + names, Kind::system);
}

using KernelsOf = ForFormat Kernels::*;

// How matrices lie in memory: one row of the table for each format of weights, and everything else follows from it.
// What products take on their other side is a property of the format; the KV cache has a format of its own.
struct WeightFormat {
    const char* name;
    std::size_t bytes, lower;  // of a block of a group; of its low halves elsewhere
    bool in_bytes;             // each value has bytes of its own, so that products of many tokens take it as it is
    KernelsOf kernels;         // of products with integers, ActivationBlocks; null: they take floats
    // Row `lane` of a group, as floats.
    void (*unpack)(const std::uint8_t* group, const std::uint8_t* lower, int lane, int cols, float* out);
    // Sets 32 columns of a row. False if a scale or minimum is not finite.
    bool (*pack)(std::uint8_t* block, std::uint8_t* lower, int lane, const Quants& in);
    // Of n <= 32 values; null: matrices of this format come from files that have it.
    void (*quantize)(const float* x, int n, Quants& out);

    int columns() const { return kernels ? kBlock : 1; }  // of a block
};

inline void unpack_f32(const std::uint8_t* group, const std::uint8_t*, int lane, int cols, float* out) {
    for (int c = 0; c < cols; ++c) out[c] = reinterpret_cast<const float*>(group)[c * kGroup + lane];
}

// As the kernels read it: 8 columns of all 16 rows, of which this is one.
template <class Block>
void unpack_block(const std::uint8_t* group, const std::uint8_t* lower, int lane, int cols, float* out) {
    for (int c = 0; c < cols; c += 8) {
        const std::uint8_t* block = group + usize(c / kBlock) * Block::kBytes;
        const std::uint8_t* factors = block + 2 * kGroup * (c % kBlock * Block::kParts / kBlock) + 2 * lane;
        const float scale = f16_at(factors), minimum = Block::kHasMinimum ? f16_at(factors + Block::kMinimums) : 0;
        scalar::Ints eight[2];
        scalar::load_columns<Block>(block, lower + usize(c / kBlock) * Block::kLower, c % kBlock / 8, 0, eight);
        for (int k = 0; k < std::min(8, cols - c); ++k)
            out[c + k] = scale * float((eight[k / 4][lane] >> 8 * (k % 4) & 255) - Block::kOffset) + minimum;
    }
}

// Into memory that is still zero. Four neighbouring integers go together through this, as one u32.
template <class Block> bool pack_block(std::uint8_t* block, std::uint8_t* lower, int lane, const Quants& in) {
    bool good = true;
    for (int part = 0; part < Block::kParts; ++part)
        for (int minimum = 0; minimum <= int(Block::kHasMinimum); ++minimum) {
            const std::uint16_t& factor = minimum ? in.minimum[part] : in.scale[part];
            good &= (factor & 0x7C00) != 0x7C00;
            std::memcpy(block + minimum * Block::kMinimums + 2 * kGroup * part + 2 * lane, &factor, sizeof factor);
        }
    for (int i = 0; i < kBlock / 8; ++i) {
        const auto low = load_as<std::uint32_t>(in.q + 8 * i), high = load_as<std::uint32_t>(in.q + 8 * i + 4);
        const std::uint32_t low_halves = (low & 0x0F0F0F0F) | (high & 0x0F0F0F0F) << 4;
        const std::uint32_t high_halves = (low >> 4 & 0x0F0F0F0F) | (high & 0xF0F0F0F0);
        std::uint8_t* const to = block + Block::kIntegers + i * kGroup * (Block::kInBytes ? 8 : 4) + 4 * lane;
        std::memcpy(to, Block::kInBytes ? &low : Block::kInPlanes ? &high_halves : &low_halves, 4);
        if (Block::kInBytes) std::memcpy(to + 4 * kGroup, &high, 4);
        if (Block::kInPlanes) std::memcpy(lower + i * 4 * kGroup + 4 * lane, &low_halves, 4);
        if constexpr (Block::kUpperBits > 0) {
            std::uint8_t* const upper = block + Block::upper(i) + 4 * lane;
            const std::uint32_t word = load_as<std::uint32_t>(upper) | high_halves << Block::upper_shift(i);
            std::memcpy(upper, &word, 4);
        }
    }
    return good;
}

template <class Block> constexpr WeightFormat block_format(const char* name, KernelsOf k,
                                                           void (*quantize)(const float*, int, Quants&) = nullptr) {
    return {name, Block::kBytes, Block::kLower, Block::kInBytes, k, unpack_block<Block>, pack_block<Block>, quantize};
}

// How a head in Q8_0 lies in memory: as two planes, see LIKELIEST TOKENS.
inline constexpr WeightFormat kQ8InPlanes = block_format<BlockQ8Planes>("q8_0", &Kernels::q8_planes, quantize_q8_0);

// Of a lower half that is as good as random: (16^2 - 1) / 12.
constexpr float kHalfVariance = 21.25f;

// The format in memory that has a file type's name. Only f32 and the types that a TypeTraits::kept_as says have one.
inline const WeightFormat& format_of(TensorType type) {
    using T = TensorType;
    static constexpr std::pair<T, WeightFormat> kFormats[] = {
        {T::f32, {"f32", kGroup * sizeof(float), 0, true, nullptr, unpack_f32, nullptr, nullptr}},
        {T::q8_0, block_format<BlockQ8_0>("q8_0", &Kernels::q8_0, quantize_q8_0)},
        {T::q4_0, block_format<BlockQ4_0>("q4_0", &Kernels::q4_0, quantize_q4_0)},
        {T::q4_1, block_format<BlockQ4_1>("q4_1", &Kernels::q4_1)},
        {T::q5_0, block_format<BlockQ5_0>("q5_0", &Kernels::q5_0)},
        {T::q5_1, block_format<BlockQ5_1>("q5_1", &Kernels::q5_1)},
        {T::q6_k, block_format<BlockQ6_K>("q6_k", &Kernels::q6_k)},
        {T::q2_k, block_format<BlockQ2_K>("q2_k", &Kernels::q2_k)},
        {T::iq4_nl, block_format<BlockIQ4_NL>("iq4_nl", &Kernels::iq4_nl)},
    };
    return std::find_if(std::begin(kFormats), std::end(kFormats), [&](auto& f) { return f.first == type; })->second;
}

// W [rows, cols] in groups of 16 rows; rows that fill up the last group are zero. Neighbouring groups of one format are
// a section; one that was joined of a file's tensors of several types has several. The memory is an Arena's.
struct Matrix {
    struct Section {
        const WeightFormat* format;
        int begin, end;  // groups
        std::size_t group_bytes, group_lower;
        std::uint8_t* data;  // [groups], and then of those in planes the low halves
        // Of one group.
        std::uint8_t* group(int g) const { return data + usize(g - begin) * group_bytes; }
        std::uint8_t* lower_of(int g) const { return group(end) + usize(g - begin) * group_lower; }
    };
    int rows = 0, cols = 0;
    std::vector<Section> sections;
    std::uint8_t* data = nullptr;
    std::size_t bytes = 0;

    Matrix() = default;
    // formats: of each group
    Matrix(Arena& arena, int r, int c, const std::vector<const WeightFormat*>& formats) : rows(r), cols(c) {
        for (int g = 0; g < groups(); ++g) {
            const WeightFormat* f = formats[usize(g)];
            const std::size_t blocks = usize((cols - 1) / f->columns() + 1), all = blocks * (f->bytes + f->lower);
            if (bytes > SIZE_MAX / 2 - all) throw std::bad_alloc();
            if (g == 0 || f != sections.back().format)
                sections.push_back({f, g, g, blocks * f->bytes, blocks * f->lower, nullptr});
            ++sections.back().end;
            bytes += all;
        }
        std::uint8_t* at = data = arena.allocate(bytes);
        for (Section& s : sections) {
            s.data = at;
            at = s.lower_of(s.end);
        }
    }

    int groups() const { return (rows - 1) / kGroup + 1; }
    bool takes_integers() const { return sections[0].format->kernels != nullptr; }
    const Section& section(int group) const {
        return *std::partition_point(sections.begin(), sections.end(), [&](const auto& s) { return s.end <= group; });
    }

    // One row as F32: how an embedding is looked up.
    void row(int r, float* out) const {
        const Section& s = section(r / kGroup);
        s.format->unpack(s.group(r / kGroup), s.lower_of(r / kGroup), r % kGroup, cols, out);
    }
    // Sets n <= 32 columns of a row from column c on, a multiple of 32: to x, or to a file's own values where there are
    // some. False if the format cannot hold a value.
    bool set(int r, int c, int n, const float* x, const Quants* file) const {
        const int g = r / kGroup;
        const Section& s = section(g);
        const WeightFormat& f = *s.format;
        const std::size_t before = usize(c / f.columns());
        std::uint8_t* const block = s.group(g) + before * f.bytes;
        Quants quantized;
        if (f.pack && !file) f.quantize(x, n, quantized);
        if (f.pack) return f.pack(block, s.lower_of(g) + before * f.lower, r % kGroup, file ? *file : quantized);
        for (int i = 0; i < n; ++i) reinterpret_cast<float*>(block)[i * kGroup + r % kGroup] = x[i];
        return true;
    }
};

// x [tokens, cols], the other side of a product: tiles of up to 12 tokens, within a tile [cols / 32][tokens] blocks of
// integers, or [cols / 64][tokens][64] floats.
class Activations {
  public:
    // For a product with matrices like w.
    void resize(const Matrix& w, int tokens) {
        integers_ = w.takes_integers();
        tokens_ = tokens;
        cols_ = w.cols;
        data_.grow(usize(tokens) * row_bytes(integers_, cols_) + kFew * sizeof(ActivationBlock));  // read, not used
    }
    int tokens() const { return tokens_; }
    int tile_size(int first) const { return std::min(kTile, tokens_ - first); }

    // The tile that begins with token `first`, a multiple of 12.
    template <class T> T* tile(int first) const {
        return reinterpret_cast<T*>(data_.as<std::uint8_t>() + usize(first) * row_bytes(integers_, cols_));
    }
    // Sets columns begin .. begin + n - 1 of one token; begin is a multiple of 32.
    void set(const Kernels& k, int token, int begin, const float* x, int n) {
        const int first = token / kTile * kTile, m = tile_size(first);
        n = std::min(n, cols_ - begin);  // a product's last group may be filled up with rows that nobody wants
        if (integers_) return k.quantize(x, n, tile<ActivationBlock>(first) + begin / kBlock * m + (token - first), m);
        for (int c = begin, count; c < begin + n; c += count, x += count) {
            count = std::min(kSpan - c % kSpan, begin + n - c);
            std::copy_n(x, count, tile<float>(first) + (c / kSpan * m + token - first) * kSpan + c % kSpan);
        }
    }
    static std::size_t row_bytes(bool integers, int cols) {  // whole blocks or spans
        return integers ? usize((cols - 1) / kBlock + 1) * sizeof(ActivationBlock)
                        : usize((cols - 1) / kSpan + 1) * kSpan * sizeof(float);
    }
  private:
    bool integers_ = false;
    int tokens_ = 0, cols_ = 0;
    Buffer data_;
};

// Some groups of W as products read them: for many tokens, whose products take their weights mostly from the cache,
// integers are put into bytes once, in a thread's scratch.
class Operand {
  public:
    static constexpr int kMost = 4;  // groups

    Operand(const Kernels& k, const Matrix& w, int g, int count, int tokens, Buffer& scratch)
        : k_(k), w_(w), product_(tokens > kFew ? &ForFormat::product_bytes : &ForFormat::product) {
        // Q2_K's blocks are the largest.
        if (tokens > kFew && w.takes_integers()) scratch.grow(usize(blocks() * kMost) * BlockQ2_K::Unpacked::kBytes);
        std::uint8_t* out = scratch.as<std::uint8_t>();

        for (int n; count > 0; g += n, count -= n) {
            const Matrix::Section& s = w.section(g);
            n = std::min(count, s.end - g);
            Run& run = runs_[size_++] = {&s, s.group(g), g, n};
            if (tokens <= kFew || s.format->in_bytes) continue;
            run.w = out;
            out = (k.*s.format->kernels).to_bytes(s.group(g), s.lower_of(g), n * blocks(), out);
        }
    }
    // With the tile of x that begins with token `first`, to y[t * stride + row].
    void product(const Activations& x, int first, float* y, std::size_t stride) const {
        const int m = x.tile_size(first);
        for (int i = 0; i < size_; y += runs_[i++].groups * kGroup) {
            const Run& r = runs_[i];
            if (const auto own = r.section->format->kernels)
                (k_.*own.*product_)({r.w, r.section->lower_of(r.begin), r.groups, blocks(),
                                     x.tile<ActivationBlock>(first), m, y, stride, following(r, x, first)});
            else
                k_.product_f32({r.w, r.groups, w_.cols, kGroup, usize(w_.cols) * kGroup, x.tile<float>(first), m, y,
                                stride, false});
        }
    }
  private:
    struct Run {
        const Matrix::Section* section;
        const std::uint8_t* w;
        int begin, groups;
    };
    // What a tile's product asks for: its share of as many groups as these, after them. Few tokens ask for what they
    // read themselves, and many need no help.
    static Following following(const Run& r, const Activations& x, int first) {
        if (x.tokens() <= kFew || x.tokens() > kHelped) return {};
        const Matrix::Section& s = *r.section;
        const int end = r.begin + r.groups;
        const std::size_t tiles = usize((x.tokens() - 1) / kTile + 1), upper = usize(r.groups) * s.group_bytes;
        const std::size_t all = upper + usize(r.groups) * s.group_lower, at = all * usize(first / kTile) / tiles;
        return {at < upper ? s.group(end) + at : s.lower_of(end) + (at - upper), all / tiles};
    }
    int blocks() const { return (w_.cols - 1) / kBlock + 1; }

    const Kernels& k_;
    const Matrix& w_;
    Run runs_[kMost];
    int size_ = 0;
    void (*ForFormat::*product_)(const ProductBlocks&);
};

// y = W x, some rows at a time: epilogue(t, row, y, n) gets the n <= 64 values of token t from y[row] on, in the thread
// that made them, while they are in its first-level cache.
//
// The threads share steps: `least` (1, 2 or 4) groups, which the epilogue needs together, or 4 where there are several
// tokens. A work item is `grain` neighbouring steps. GPT-2's qkv, one token, two threads: 2304 rows are 144 steps of
// one group, and 4 steps a work item. Of many tokens each thread has a part of its own: cores that share no cache take
// 0.15 microseconds to hand over a line, so what one thread writes, the same should read in the operations that follow.
// Not where weights are put into bytes first, as each thread would do that for itself.
template <class Epilogue> void multiply(ThreadPool& pool, const Kernels& k, const Matrix& w, const Activations& x,
                                        int least, const Epilogue& epilogue) {
    constexpr int kMost = Operand::kMost;
    const bool several = x.tokens() > 1;
    const int step = several ? kMost : least;
    const int groups = w.groups(), steps = (groups - 1) / step + 1, tiles = (x.tokens() - 1) / kTile + 1;
    const bool in_bytes = w.sections[0].format->in_bytes;
    const int parts = in_bytes ? std::max(1, std::min(pool.size(), tiles / 8)) : 1;  // of the tokens

    constexpr std::size_t kGrain = std::size_t{1} << 18;  // bytes x tokens: some microseconds, so that none waits long
    const std::size_t step_cost = w.bytes / usize(groups) * usize(step * x.tokens() / parts);
    const int grain = std::min(parts * steps / (pool.size() * 16), int(kGrain / step_cost));

    pool.for_ranges(parts * steps, grain, [&](int begin, int end, int thread) {
        alignas(64) float rows[kTile][kMost * kGroup];
        Laps& laps = pool.laps[usize(thread)];
        laps.start();
        for (int i = begin; i < end; ++i) {
            const int g = i % steps * step, count = std::min(step, groups - g), part = i / steps;
            const int n = std::min(count * kGroup, w.rows - g * kGroup);
            const Operand operand(k, w, g, count, x.tokens(), pool.scratch[usize(thread)]);
            for (int tile = tiles * part / parts; tile < tiles * (part + 1) / parts; ++tile) {
                const int first = tile * kTile;
                operand.product(x, first, rows[0], kMost * kGroup);
                laps.lap(0);
                for (int t = 0; t < x.tile_size(first); ++t) epilogue(first + t, g * kGroup, rows[t], n);
                laps.lap(1);
            }
        }
    });
}

// ==== MODEL FILES ====================================================================================================
//
// Two formats, one result: a Checkpoint, which is named tensors (where they lie, not their data) and a description.
//
//     safetensors   8 bytes: length of the header | header, JSON: name -> dtype, shape, data_offsets | data
//                   one file or several (shards, listed in model.safetensors.index.json), with config.json beside them
//     GGUF          "GGUF", version, counts | key-value pairs | names, shapes, types, offsets of tensors | data
//                   all in one file: config and tokenizer are key-value pairs
//
// The header alone is read here. Shapes are [rows, columns], a row's values side by side (GGUF writes [columns, rows]).

// What something is called by Hugging Face, and in a GGUF. Names of fields may be several, "a|b": b is what older files
// or other tools say.
struct Name {
    std::string_view hf, gguf = {};
};

struct Tensor {
    std::string name;
    TensorType type = TensorType::other;
    std::string type_name;  // as the file calls it
    std::vector<std::uint64_t> shape;
    const File* file = nullptr;
    std::uint64_t offset = 0;  // in the file
    std::uint64_t bytes = 0;   // 0 in a GGUF where the type is `other`

    std::uint64_t elements() const { return std::accumulate(shape.begin(), shape.end(), 1ull, std::multiplies<>()); }
    // Whether it lies before another one.
    bool operator<(const Tensor& t) const { return std::pair(offset, bytes) < std::pair(t.offset, t.bytes); }
};

[[noreturn]] inline void damaged(const std::string& what, const File& file) {
    fail(what, file.path(), "the file is damaged or incomplete: download it again");
}

struct Checkpoint {
    std::string path, directory;
    std::string format = "safetensors";  // or "safetensors, 2 shards", "GGUF v3"
    bool is_gguf = false;
    std::unordered_map<std::string, Tensor> tensors;
    JsonDocument config = {"{}", "config.json"};  // or a GGUF's metadata: an object whose members' names have dots

    std::deque<File> files;  // what tensors point to

    std::string_view name_of(const Name& name) const { return is_gguf ? name.gguf : name.hf; }
    const Tensor* find(const std::string& name) const {
        const auto it = tensors.find(name);
        return it == tensors.end() ? nullptr : &it->second;
    }
};

constexpr std::size_t kMostTensors = 65536;  // of a file; the largest models have two thousand

inline void check(bool good, const Tensor& tensor, const char* problem) {
    if (!good) damaged("tensor " + shown(tensor.name) + " " + problem, *tensor.file);
}

// Sets its type, by the file's name for it. Returns the bytes that the shape takes in this type.
inline std::uint64_t set_type(Tensor& tensor, std::string_view name) {
    check(is_name(name), tensor, "has an impossible type");
    tensor.type_name = name;
    tensor.type = find_type(name);
    const TypeTraits& type = traits(tensor.type);
    // As a double, which holds any shape's number where 64 bits would overflow.
    const double elements = std::accumulate(tensor.shape.begin(), tensor.shape.end(), 1.0, std::multiplies<double>());
    check(elements < 0x1p56 && tensor.shape.size() <= 8, tensor, "has an impossible shape");  // a block is < 256 bytes

    const std::uint64_t block = std::uint64_t(type.block), row = tensor.shape.empty() ? 1 : tensor.shape.back();
    check(row % block == 0, tensor, "has rows that are no whole number of blocks");
    return tensor.elements() / block * std::uint64_t(type.bytes);
}

// Adds a file's tensors, whose offsets count from `data` on. They lie inside, do not share a byte or a name, and no
// other tool has packed them or taken them apart, which their names would tell.
inline void add_tensors(Checkpoint& checkpoint, std::vector<Tensor> tensors, const File& file, std::uint64_t data) {
    refuse_foreign(Foreign::tensor_name, [&](auto mark) -> std::string {
        for (const Tensor& tensor : tensors)
            if (tensor.name.find(mark) != tensor.name.npos) return file.path() + ": " + shown(tensor.name);
        return "";
    });

    std::sort(tensors.begin(), tensors.end());
    const std::uint64_t room = file.size() - std::min(data, file.size());
    std::uint64_t end = 0;
    for (Tensor& tensor : tensors) {
        check(is_name(tensor.name), tensor, "has an impossible name");
        check(tensor.offset <= room && tensor.bytes <= room - tensor.offset, tensor, "lies outside of the file");
        check(tensor.offset >= end, tensor, "overlaps another one");
        end = tensor.offset + tensor.bytes;
        tensor.offset += data;
        if (!checkpoint.tensors.try_emplace(tensor.name, std::move(tensor)).second)
            damaged("two tensors are named " + shown(tensor.name), file);
    }
}

// ---- safetensors

inline void read_safetensors(Checkpoint& checkpoint, const File& file) {
    std::uint64_t length = 0;
    if (file.size() >= sizeof length) file.read(0, &length, sizeof length);
    if (length < 2 || length > 100000000 || length > file.size() - sizeof length) {
        file.refuse_if_foreign();
        damaged("no safetensors header", file);
    }

    const JsonDocument header(file.text(sizeof length, length), "the header of " + file.path());
    std::vector<Tensor> tensors;
    for (const auto& [name, entry] : header.root().members()) {
        if (name == "__metadata__") continue;
        Tensor& tensor = tensors.emplace_back(Tensor{std::string(name), TensorType::other, "", {}, &file});
        const Json *dtype = entry.find("dtype"), *shape = entry.find("shape"), *range = entry.find("data_offsets");
        check(dtype && shape && range && range->array().size() == 2, tensor, "lacks dtype, shape or data_offsets");

        for (const Json& n : shape->array()) tensor.shape.push_back(n.whole());
        const std::uint64_t size = set_type(tensor, dtype->string()), end = range->array()[1].whole();
        tensor.offset = range->array()[0].whole();
        check(tensor.offset <= end, tensor, "lies outside of the file");
        tensor.bytes = end - tensor.offset;
        check(tensor.type == TensorType::other || size == tensor.bytes, tensor, "has a size that is not its shape's");
    }
    if (tensors.size() > kMostTensors) damaged("an impossible number of tensors", file);
    add_tensors(checkpoint, std::move(tensors), file, sizeof length + length);
}

inline void read_shards(Checkpoint& checkpoint, const File& index) {
    const JsonDocument document(index.read_all(100000000), index.path());
    std::unordered_set<std::string> shards;
    for (const auto& [name, value] : document.root().at("weight_map").members()) {
        const std::string shard(value.string()), path = checkpoint.directory + "/" + shard;
        if (shards.insert(shard).second) {
            // A name from the internet must not lead out of the directory.
            if (!is_name(shard) || shard.find_first_not_of('.') == shard.npos ||
                shard.find_first_of("/\\:") != shard.npos)
                fail("a shard is not a file of the model's directory", index.path() + " names " + shown(shard),
                     "do not trust this model");
            if (!exists(status_of(path)))
                fail("a part of the model is missing", path, "download all files that " + index.path() + " names");
            read_safetensors(checkpoint, checkpoint.files.emplace_back(path));
        }

        // A tied head need not be there: some tools list it all the same.
        const Tensor* tensor = checkpoint.find(std::string(name));
        if (tensor ? tensor->file->path() != path : !ends_with(name, "lm_head.weight"))
            fail("tensor " + shown(name) + " is not in its shard", path, "download all shards of one model again");
    }
    checkpoint.format = "safetensors, " + to_string(shards.size()) + (shards.size() == 1 ? " shard" : " shards");
}

// ---- GGUF

// Reads a header from front to back. Its pieces stay in memory, where texts point to them.
struct GgufReader {
    static constexpr std::uint64_t kMostBytes = 1 << 28, kMostItems = 1 << 23, kPiece = 1 << 20, kList = 9;
    const File& file;
    std::deque<std::string> strings{file.path()};  // of a JsonDocument: names of values, and the pieces
    std::string_view rest = {};                    // of the last piece
    std::uint64_t position = 0, items = 0;         // in the file; of all lists

    // The next n bytes, one after another. What the current piece does not hold whole starts a new one.
    std::string_view take(std::uint64_t n) {
        const std::uint64_t left = file.size() - position;
        if (n > left) damaged("the header ends too early", file);
        if (n > kMostBytes || position > kMostBytes) damaged("the header is too large", file);
        if (n > rest.size()) rest = strings.emplace_back(file.text(position, std::min(std::max(n, kPiece), left)));

        const std::string_view taken = rest.substr(0, usize(n));
        rest.remove_prefix(usize(n));
        position += n;
        return taken;
    }
    template <class T> T number() { return load_as<T>(take(sizeof(T)).data()); }
    std::string_view string() { return take(number<std::uint64_t>()); }

    // How many items follow, each at least `bytes` long, at most so many; checked before anything is allocated for
    // them.
    std::size_t count(std::uint64_t bytes, std::uint64_t most = kMostItems) {
        const auto n = number<std::uint64_t>();
        const std::uint64_t room = (file.size() - position) / bytes;
        if (n > std::min({room, kMostItems - items, most})) damaged("an impossible count in the header", file);
        items += n;
        return usize(n);
    }

    // A value of the type that has this number in a GGUF. `name`: what messages call it.
    Json value(std::uint32_t type, const std::string& name) {
        using R = GgufReader;
        // clang-format off
        static constexpr std::array<Json (R::*)(const std::string&), 13> kTypes = {
            &R::real<std::uint8_t>, &R::real<std::int8_t>, &R::real<std::uint16_t>, &R::real<std::int16_t>,
            &R::real<std::uint32_t>, &R::real<std::int32_t>, &R::real<float>, &R::flag, &R::text, &R::list,
            &R::real<std::uint64_t>, &R::real<std::int64_t>, &R::real<double>,
        };
        // clang-format on
        if (type >= kTypes.size()) damaged("a value of an unknown type in the header", file);
        return (this->*kTypes[type])(name);
    }
    template <class T> Json real(const std::string& name) { return {double(number<T>()), name}; }
    Json flag(const std::string& name) { return {number<std::uint8_t>() != 0, name}; }
    Json text(const std::string& name) { return {string(), name}; }
    Json list(const std::string& name) {
        const auto type = number<std::uint32_t>();
        if (type == kList) damaged("a list of lists, an unknown type in the header", file);
        Json::Array values(count(1));
        for (Json& one : values) one = value(type, name);
        return {std::move(values), name};
    }
};

// Adds a file's tensors, and returns its metadata.
inline JsonDocument read_gguf(Checkpoint& checkpoint, const File& file) {
    GgufReader reader{file};

    // Is it one, and of which kind?
    const std::string_view magic = reader.take(4);
    if (magic != "GGUF" && magic != "FUGG") fail("not a GGUF", file.path(), "pass all bytes of a .gguf file");
    const auto version = reader.number<std::uint32_t>();
    if (magic == "FUGG" || (version & 0xFFFF) == 0)
        fail("a GGUF file for big-endian machines", file.path(), "get the little-endian one");
    if (version != 2 && version != 3)
        fail("GGUF version " + to_string(version), file.path(), "get or make one of version 3");
    checkpoint.is_gguf = true;
    checkpoint.format = "GGUF v" + to_string(version);

    // Key-value pairs. The shortest tensor takes 32 bytes, the shortest pair 13.
    const std::size_t count = reader.count(32, kMostTensors), pairs = reader.count(13, kMostTensors);
    Json::Object members;
    std::unordered_set<std::string_view> keys;
    for (std::size_t k = 0; k < pairs; ++k) {
        const std::string_view key = reader.string();
        if (!is_name(key)) damaged("an impossible key, " + shown(key), file);
        if (!keys.insert(key).second) damaged("two values of " + shown(key), file);
        const std::string& name = reader.strings.emplace_back(file.path() + ": " + shown(key));
        members.emplace_back(key, reader.value(reader.number<std::uint32_t>(), name));
    }
    Json metadata(std::move(members), file.path());

    // Tensors. Their data begins where the header ends.
    const std::uint64_t alignment = metadata["general.alignment"].whole(32);
    if (alignment == 0 || 65536 % alignment != 0) damaged("an impossible general.alignment", file);
    std::vector<Tensor> tensors;
    for (std::size_t k = 0; k < count; ++k) {
        Tensor& tensor = tensors.emplace_back(Tensor{std::string(reader.string()), TensorType::other, "", {}, &file});
        const auto dimensions = reader.number<std::uint32_t>();
        check(dimensions >= 1 && dimensions <= 4, tensor, "has an impossible number of dimensions");
        tensor.shape.resize(dimensions);
        std::generate(tensor.shape.rbegin(), tensor.shape.rend(), [&] { return reader.number<std::uint64_t>(); });
        tensor.bytes = set_type(tensor, gguf_type_name(reader.number<std::uint32_t>()));
        tensor.offset = reader.number<std::uint64_t>();
        check(tensor.offset % alignment == 0, tensor, "lies outside of the file's alignment");
    }
    add_tensors(checkpoint, std::move(tensors), file, (reader.position + alignment - 1) / alignment * alignment);

    return {std::move(metadata), std::move(reader.strings)};
}

// The other parts of a GGUF that was split into NAME-00001-of-00003.gguf and so on; the first has the metadata.
inline void read_other_parts(Checkpoint& checkpoint, const std::string& path) {
    const Json& own = checkpoint.config.root();
    const std::uint64_t count = own["split.count"].whole(0), named = own["split.no"].whole(0);
    const std::uint64_t all = own["split.tensors.count"].whole(0);
    if (count <= 1) return;

    const std::string remedy = "put all " + to_string(count) + " parts into one directory, under their own names";
    const auto digits = [](std::uint64_t n) { return to_string(100000 + n).substr(1); };  // five
    const auto name_end = [&](std::uint64_t part) { return "-" + digits(part + 1) + "-of-" + digits(count) + ".gguf"; };
    if (count > 1000 || named >= count || !ends_with(path, name_end(named)))
        fail("a part of a model has another's name", path + " does not end with " + name_end(named), remedy);

    for (std::uint64_t part = 0; part < count; ++part) {
        if (part == named) continue;
        const std::string other = path.substr(0, path.size() - name_end(0).size()) + name_end(part);
        if (!exists(status_of(other))) fail("a part of the model is missing", other, remedy);
        JsonDocument metadata = read_gguf(checkpoint, checkpoint.files.emplace_back(other));
        if (metadata.root()["split.count"].whole(0) != count || metadata.root()["split.no"].whole(0) != part)
            fail("this is not part " + to_string(part + 1) + " of " + to_string(count), other, remedy);
        if (part == 0) checkpoint.config = std::move(metadata);
    }

    if (checkpoint.tensors.size() != all)
        fail("the parts do not hold " + to_string(all) + " tensors", path, "download all parts of one model again");
    checkpoint.format += ", " + to_string(count) + " parts";
}

// ---- both

// Says what a directory without model.safetensors has instead.
[[noreturn]] inline void refuse_directory(const std::string& path) try {
    const auto find_file = [&](std::string_view end) -> std::string {
        for (const auto& entry : std::filesystem::directory_iterator(to_path(path))) {
            const auto utf8 = entry.path().u8string();
            if (std::string name(utf8.begin(), utf8.end()); ends_with(name, end)) return name;
        }
        return "";
    };

    std::string other = find_file(".gguf");
    if (other.empty()) refuse_foreign(Foreign::file_name, find_file);
    for (const char* end : {".safetensors", "snapshots"})  // the latter in Hugging Face's cache
        if (other.empty()) other = find_file(end);
    const char* const what = ends_with(other, "snapshots") ? "name the directory in " : "name the file, such as ";
    fail("no model.safetensors, nor an index of its parts, in this directory", path,
         other.empty() ? "name a .gguf file, or get the model as safetensors" : what + other);
} catch (const std::filesystem::filesystem_error& e) {
    fail("cannot open (" + e.code().message() + ")", path, "check its permissions");
}

// A .gguf file, a .safetensors file beside its config.json, or a directory with these.
inline Checkpoint open_checkpoint(const std::string& path) {
    Checkpoint checkpoint;
    checkpoint.path = path;

    // Where the weights are.
    std::string weights = path;
    if (is_directory(status_of(path))) {
        checkpoint.directory = path;
        weights += "/model.safetensors";
        if (!exists(status_of(weights))) weights += ".index.json";
        if (!exists(status_of(weights))) refuse_directory(path);
    } else {
        const auto parent = to_path(path).parent_path().u8string();
        checkpoint.directory = parent.empty() ? "." : std::string(parent.begin(), parent.end());
    }

    // What they are.
    const File& file = checkpoint.files.emplace_back(weights);
    const std::string magic = file.text(0, std::min<std::uint64_t>(file.size(), 4));
    if (magic == "GGUF" || magic == "FUGG") {
        checkpoint.config = read_gguf(checkpoint, file);
        read_other_parts(checkpoint, path);
        return checkpoint;
    }
    const bool is_single = to_path(weights).extension() == ".safetensors";
    if (!is_single && weights == path) {
        file.refuse_if_foreign();
        fail("not a model", path, "name a .gguf file, a .safetensors file or a Hugging Face model directory");
    }
    is_single ? read_safetensors(checkpoint, file) : read_shards(checkpoint, file);

    // What lies beside them.
    const std::string config = checkpoint.directory + "/config.json";
    if (!exists(status_of(config)))
        fail("the model's description is missing", config, "put config.json beside the weights");
    checkpoint.config = {File(config).read_all(1 << 24), config};
    for (const char* name : {"/adapter_config.json", "/adapter_model.safetensors"})
        if (const std::string adapter = checkpoint.directory + name; exists(status_of(adapter)))
            fail("an adapter (PEFT, LoRA) lies beside the model", adapter, kMerge);
    return checkpoint;
}

// ==== TOKENIZER ======================================================================================================
//
// A model reads and writes token ids; the tokenizer turns text into ids and back. Both families use byte-pair encoding
// (arXiv:1508.07909): text starts as a row of small symbols, and the two neighbours whose merge ranks best become one
// symbol, again and again, until no neighbours merge. What differs is the start:
//
//   GPT-2  cuts the text into words by a regular expression and starts from the bytes of each word. Its vocabulary
//          spells every byte as a printable character: " the" is listed as "Ġthe".
//   Gemma  takes the text whole, spells a space as "▁", and starts from characters. A character that has no token
//          becomes the tokens of its UTF-8 bytes: "<0xE2><0x9C>...". Nothing is ever unknown.
//
// Added tokens (<start_of_turn>, in Gemma also a run of newlines) are found before all that and never cut. Some of them
// are looked for in the text as it is, the others in what is left after its spaces have become "▁".
//
// The data: the tokens, with a hash table of their spellings; and what merges into what: a hash table of pairs of ids,
// or, in a GGUF of Gemma, a rank for each token, where two tokens merge if their joined spelling is one.

// ---- GPT-2's words and spelling, Gemma's spelling

// The class of the character at text[i], and its length in bytes. An invalid byte is `other`. The table is below.
enum class CharClass : std::uint32_t { other, letter, number, space };
inline CharClass class_at(std::string_view text, std::size_t i, std::size_t& length);

// The end of the word that begins at text[begin], by GPT-2's pattern
//     's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+
inline std::size_t word_end(std::string_view text, std::size_t begin) {
    for (const std::string_view suffix : {"'s", "'t", "'re", "'ve", "'m", "'ll", "'d"})
        if (text.substr(begin, suffix.size()) == suffix) return begin + suffix.size();

    std::size_t length, end = begin + 1 < text.size() && text[begin] == ' ' ? begin + 1 : begin;
    const CharClass kind = class_at(text, end, length);
    if (kind == CharClass::space) end = begin;
    std::size_t last = end;  // where the last character of the run begins
    for (; end < text.size() && class_at(text, end, length) == kind; end += length) last = end;

    // White space leaves its last character to the word that follows, unless it has no other.
    return kind == CharClass::space && end < text.size() && last > begin ? last : end;
}

// The character that spells a byte: its own in Latin-1 if that can be printed, otherwise one from U+0100 on.
inline std::uint32_t character_of_byte(std::uint32_t byte) {
    return byte <= 32 ? byte + 256 : byte >= 127 && byte <= 160 ? byte + 162 : byte == 173 ? 323 : byte;
}

inline std::string bytes_spelled(std::string_view spelling) {
    std::string bytes;
    while (!spelling.empty()) {
        const auto [c, length] = utf8_decode(spelling, 0);
        const std::uint32_t byte = c < 256 ? c : c <= 256 + 32 ? c - 256 : c <= 162 + 160 ? c - 162 : 173;
        if (character_of_byte(byte) == c) bytes += char(byte);
        else bytes += spelling.substr(0, length);  // no spelling of bytes
        spelling.remove_prefix(length);
    }
    return bytes;
}

inline constexpr std::string_view kSpaceMark = "\xE2\x96\x81";  // U+2581, Gemma's space

inline std::string replace_all(std::string_view text, std::string_view from, std::string_view to) {
    std::string result;
    for (std::size_t at; (at = text.find(from)) != text.npos; text.remove_prefix(at + from.size()))
        result.append(text.substr(0, at)).append(to);
    return result.append(text);
}

// ---- vocabulary

// What two symbols become, and when: the smallest rank goes first. It is also a place of a HashTable; those of a
// vocabulary have no rank.
struct Merge {
    static constexpr std::uint32_t kNever = 0xFFFFFFFF;
    std::uint64_t key = 0;  // in a HashTable
    int id = -1;            // -1: nothing; a free place
    std::uint32_t rank = kNever;
};

// Places by a 64-bit key: open addressing, at most half full.
struct HashTable {
    int bits = 1;
    std::vector<Merge> places;  // [2^bits + 1]

    explicit HashTable(std::size_t entries = 0) {
        while ((std::size_t{1} << bits) / 2 < entries) ++bits;
        places.resize((std::size_t{1} << bits) + 1);
    }

    // The index of the place with this key, or else of a free one: where it belongs, or the last, which stays free.
    std::size_t find(std::uint64_t key) const {
        const auto first = std::size_t(key >> (64 - bits));
        for (std::size_t n = 0; n < 512; ++n) {
            const std::size_t i = (first + n) & (places.size() - 2);
            if (places[i].id < 0 || places[i].key == key) return i;
        }
        return places.size() - 1;
    }

    Merge& place(std::uint64_t key) {  // to enter it, or what has been entered
        const std::size_t i = find(key);
        if (i + 1 < places.size()) return places[i];
        // Chance fills no row of places that long: someone chose the entries to make every search take for ever.
        fail("the tokenizer is damaged, too many of its tokens look alike", "hash table", "get the file again");
    }
};

// The numbers are those of GGUF's tokenizer.ggml.token_type.
enum class TokenKind : std::uint8_t { absent, normal, unknown, control, user_defined, unused, byte };

struct Token {
    std::string spelling;
    TokenKind kind = TokenKind::absent;
    bool lstrip = false, rstrip = false, normalized = false;  // added tokens: take the white space before, behind them;
                                                              // are looked for in the normalized text
    std::uint32_t rank = Merge::kNever;                       // GGUF of Gemma: of merging into it

    bool is_added() const { return kind >= TokenKind::unknown && kind <= TokenKind::user_defined; }
};

// Special tokens that begin and end turns and texts, by whatever kind a file gives them.
constexpr std::string_view kStarts[] = {"<start_of_turn>", "<|im_start|>"};
constexpr std::string_view kEnds[] = {"<end_of_turn>", "<|im_end|>", "<eos>", "<|endoftext|>"};

template <class List, class T> bool is_in(const List& list, const T& value) {
    return std::find(std::begin(list), std::end(list), value) != std::end(list);
}

// Token ids to spellings and back.
struct Vocabulary {
    int size() const { return int(tokens.size()); }
    const Token& operator[](int id) const { return tokens[std::size_t(id)]; }
    // The token that is spelled like a and b joined, or -1.
    int find(std::string_view a, std::string_view b = {}) const {
        const int id = table.places[table.find(hash(b, hash(a)))].id;
        if (id < 0) return -1;
        const std::string_view found = (*this)[id].spelling;
        return found.substr(0, a.size()) == a && found.substr(a.size()) == b ? id : -1;
    }

    // Makes the table of all tokens. `where`: the file, for messages.
    void index(const std::string& where) {
        table = HashTable(tokens.size());
        for (int id = 0; id < size(); ++id) insert(id, where);
    }
    // Enters one more, which is in `tokens` already.
    void insert(int id, const std::string& where) {
        if (table.places.size() / 2 < tokens.size()) return index(where);
        const std::string& spelling = (*this)[id].spelling;
        const std::uint64_t key = hash(spelling);
        Merge& free = table.place(key);
        if (free.id >= 0) fail("two tokens are spelled " + shown(spelling), where, "get the file again");
        if (!spelling.empty()) free = {key, id};
    }
    static std::uint64_t hash(std::string_view text, std::uint64_t h = 0) {
        for (const char c : text) h = (h ^ std::uint8_t(c)) * 0x9E3779B97F4A7C15u + 0x632BE59B;
        return h;
    }

    std::vector<Token> tokens;
    HashTable table;  // by hash
};

// ---- text to ids and back

// Added tokens by their spelling, sorted.
using AddedTokens = std::vector<std::pair<std::string, int>>;

// The longest one that the text begins with; end(): there is none. Those that begin alike are neighbours.
inline AddedTokens::const_iterator longest(const AddedTokens& tokens, std::string_view text) {
    auto first = tokens.begin(), last = tokens.end(), match = last;
    for (std::size_t n = 0; n < text.size() && first != last; ++n) {  // keep those that go on like the text
        const auto order = [&](const auto& token) { return token.first.compare(n, 1, text, n, 1); };
        if (order(*first) != 0 || order(last[-1]) != 0) {
            first = std::partition_point(first, last, [&](const auto& token) { return order(token) < 0; });
            last = std::partition_point(first, last, [&](const auto& token) { return order(token) == 0; });
        }
        if (first != last && first->first.size() == n + 1) match = first;
    }
    return match;
}

struct TokenizerData {
    bool byte_level = true;                // GPT-2's kind; false: Gemma's
    bool by_rank = false;                  // tokens have ranks, and `merges` is empty
    bool prefix_space = false;             // a space is put before each text
    std::vector<int> before, after, ends;  // put before a text, after it; what ends a text or a turn (-1 is no token)
    int bos = -1, eos = -1;
    bool ends_turns = false;  // <end_of_turn> is an end by the files' own account
    std::string chat_template;
    Vocabulary vocabulary;
    AddedTokens added[2];                // in the text as it is; in the normalized one
    std::array<int, 256> byte_tokens{};  // the token of each byte; -1: it is left out
    HashTable merges;                    // by pair_key

    static std::uint64_t pair_key(int left, int right) {  // no two pairs have the same, as the factor is odd
        return (std::uint64_t(left) << 32 | std::uint32_t(right)) * 0x9E3779B97F4A7C15u;
    }
    Merge merge(int left, int right) const {
        if (!by_rank) return merges.places[merges.find(pair_key(left, right))];
        const int id = vocabulary.find(vocabulary[left].spelling, vocabulary[right].spelling);
        return id < 0 ? Merge() : Merge{0, id, vocabulary[id].rank};
    }
};

// Encodes a text: cuts it at added tokens, and merges what lies between them. Symbols are a linked list, and what
// merges next comes from a queue: a long text takes little more than linear time. "the", where the merges are 0: t h,
// 1: h e, 2: th e:
//
//     symbols           queue: rank, index of the left symbol
//     0:t   1:h   2:e   (0, 0) (1, 1)    t h and h e merge; each waits in the queue
//     0:th        2:e   (1, 1) (2, 0)    (0, 0) was the best: symbol 0 takes in 1, and merges with its new neighbour
//     0:th        2:e   (2, 0)           (1, 1) is out of date, as symbol 1 is no more
//     0:the                              (2, 0); nothing is left to do
//
// An entry is out of date where its rank is no longer that of its symbol's merge: nothing has to be taken out of the
// queue's middle.
struct Encoder {
    // Pass 0 looks for tokenizer.added[0] in the text. What lies between these goes to pass 1, which normalizes it
    // (Gemma) and looks for added[1], and what lies between those is cut into words.
    void encode(std::string_view text, Special special, std::size_t pass = 0) {
        if (pass == std::size(tokenizer.added)) return encode_words(text);
        const AddedTokens& added = tokenizer.added[pass];
        std::string normalized;
        if (pass == 1 && !tokenizer.byte_level) text = normalized = replace_all(text, " ", kSpaceMark);

        std::size_t begin = 0, white = 0, length = 0;  // white: the end of white space that was looked through
        for (std::size_t at = 0, end = 0; at < text.size(); at = end) {  // text[begin .. at) holds no such token
            const auto match = longest(added, text.substr(at));
            end = at + (match == added.end() ? 1 : match->first.size());
            if (match == added.end()) continue;
            const Token& token = tokenizer.vocabulary[match->second];
            if (special == Special::as_text && token.kind != TokenKind::user_defined) continue;
            if (token.lstrip && end <= begin) continue;  // it is white space that the token before took

            std::size_t last = token.lstrip ? begin : std::max(at, begin);  // where the text before it ends
            for (std::size_t i = last; i < at; i += length)
                if (class_at(text, i, length) != CharClass::space) last = i + length;
            encode(text.substr(begin, last - begin), special, pass + 1);
            ids.push_back(match->second);

            // The white space that it takes may hold further tokens: those of Gemma are runs of newlines.
            for (white = std::max(white, end); token.rstrip && white < text.size(); white += length)
                if (class_at(text, white, length) != CharClass::space) break;
            begin = token.rstrip ? white : end;
        }
        encode(text.substr(begin), special, pass + 1);
    }

    // A text without added tokens.
    void encode_words(std::string_view text) {
        if (text.empty()) return;
        std::string prefixed;
        const bool byte_level = tokenizer.byte_level, has_space = byte_level && text[0] == ' ';
        if (tokenizer.prefix_space && !has_space) text = prefixed.append(byte_level ? " " : kSpaceMark).append(text);

        for (std::size_t i = 0, length; i < text.size();) {
            for (const std::size_t end = byte_level ? word_end(text, i) : text.size(); i < end; i += length) {
                length = byte_level ? 1 : utf8_decode(text, i).length;
                const int id = byte_level ? -1 : tokenizer.vocabulary.find(text.substr(i, length));

                if (id >= 0 && tokenizer.vocabulary[id].kind != TokenKind::control) symbols.push_back({id});
                else
                    for (const char byte : text.substr(i, length))
                        if (const int b = tokenizer.byte_tokens[std::uint8_t(byte)]; b >= 0) symbols.push_back({b});
            }
            merge_symbols();
        }
    }

    // Merges the row of symbols as far as it goes, and moves it to ids.
    void merge_symbols() {
        // Neighbours, and what merges of them.
        for (std::uint32_t i = 0; i < symbols.size(); ++i) {
            symbols[i] = {symbols[i].id, i - 1, i + 1};
            propose(i);
        }

        // The best merge, until there is none.
        while (!queue.empty()) {
            const std::uint64_t best = queue.top();
            const auto i = std::uint32_t(best);
            queue.pop();
            Symbol& left = symbols[i];
            if (left.merge.rank != best >> 32) continue;  // out of date

            left.id = left.merge.id;
            left.next = std::exchange(symbols[left.next], {}).next;  // the right one is no more
            if (left.next < symbols.size()) symbols[left.next].previous = i;
            propose(left.previous);
            propose(i);
        }

        for (std::size_t i = 0; i < symbols.size(); i = symbols[i].next) ids.push_back(symbols[i].id);
        symbols.clear();
    }
    // Looks up what a symbol and the next one become. If something, it waits in the queue.
    void propose(std::uint32_t i) {
        if (i >= symbols.size()) return;
        auto& [id, previous, next, merge] = symbols[i];
        merge = next < symbols.size() ? tokenizer.merge(id, symbols[next].id) : Merge();
        if (merge.rank != Merge::kNever) queue.push(std::uint64_t{merge.rank} << 32 | i);
    }

    struct Symbol {
        int id;
        std::uint32_t previous = 0, next = 0;  // neighbours; beyond the end of symbols if there is none
        Merge merge = {};                      // with the next one
    };
    const TokenizerData& tokenizer;
    std::vector<int>& ids;
    std::vector<Symbol> symbols = {};
    // Merges, each as its rank above its symbol's index: the best first, of equal rank the leftmost.
    std::priority_queue<std::uint64_t, std::vector<std::uint64_t>, std::greater<>> queue = {};
};

}  // namespace detail

std::vector<int> Tokenizer::encode(std::string_view text, Special special, bool add_bos) const {
    if (vocab_size() == 0) detail::misuse("there is no tokenizer", "encode", "load a model from a file");
    if (text.size() >= INT_MAX) detail::misuse("the text is too long", "encode", "pass it in parts");
    std::vector<int> ids = add_bos ? data_->before : std::vector<int>();
    detail::Encoder{*data_, ids}.encode(text, special);
    if (add_bos) ids.insert(ids.end(), data_->after.begin(), data_->after.end());
    return ids;
}

std::string Tokenizer::piece(int id) const {
    if (id < 0 || id >= vocab_size())
        detail::misuse("there is no token " + std::to_string(id), "of " + std::to_string(vocab_size()) + " tokens",
                       "pass ids of this model");
    const detail::Token& token = data_->vocabulary[id];
    const auto& bytes = data_->byte_tokens;
    const auto byte = std::find(bytes.begin(), bytes.end(), id);
    if (byte != bytes.end()) return std::string(1, char(byte - bytes.begin()));
    if (!data_->byte_level) return detail::replace_all(token.spelling, detail::kSpaceMark, " ");
    return token.kind == detail::TokenKind::normal ? detail::bytes_spelled(token.spelling) : token.spelling;
}

std::string Tokenizer::decode(const std::vector<int>& ids) const {
    std::string text;
    for (const int id : ids) text += piece(id);
    return text;
}

int Tokenizer::vocab_size() const { return data_ ? data_->vocabulary.size() : 0; }
int Tokenizer::bos() const { return data_ ? data_->bos : -1; }
bool Tokenizer::is_eos(int id) const { return id >= 0 && data_ && detail::is_in(data_->ends, id); }
int Tokenizer::special_id(std::string_view piece) const {
    const int id = data_ ? data_->vocabulary.find(piece) : -1;
    return id >= 0 && data_->vocabulary[id].is_added() ? id : -1;
}
const std::string& Tokenizer::chat_template() const {
    static const std::string none;
    return data_ ? data_->chat_template : none;
}

// ---- loading

namespace detail {

// Reads a tokenizer from whatever describes it, and refuses one of other rules, which would give wrong ids silently.
struct TokenizerLoader : TokenizerData {
    explicit TokenizerLoader(const Checkpoint& checkpoint) : file(checkpoint), where(checkpoint.path) {}

    // For an embedding of so many rows. Few of them may be without a token, and ids beyond them are of added tokens
    // only (Gemma's <image_soft_token>).
    std::shared_ptr<const TokenizerData> load(int rows) {
        file.is_gguf ? read_metadata() : read_directory(rows);

        // Added tokens, those that end a text, and whether each has its row.
        bool fits = vocabulary.size() >= rows - std::max(64, rows / 16);
        for (int id = 0; id < vocabulary.size(); ++id) {
            const Token& token = vocabulary[id];
            fits = fits && (token.is_added() || id < rows);
            if (!token.is_added()) continue;

            if (token.spelling.size() > 1000) damaged("too long a token to look for, " + shown(token.spelling));
            const std::string_view space = token.normalized && !byte_level ? kSpaceMark : " ";
            added[token.normalized].emplace_back(replace_all(token.spelling, " ", space), id);
            if (token.spelling == "<end_of_turn>") ends_turns = is_in(ends, id);
            if (is_in(kEnds, token.spelling)) ends.push_back(id);
        }

        const std::string sizes = file.path + ": " + to_string(vocabulary.size()) + " tokens, but " + to_string(rows) +
                                  " rows in the embedding";
        if (!fits) fail("the tokenizer does not fit the model", sizes, "use the tokenizer that came with the model");

        for (AddedTokens& tokens : added) std::sort(tokens.begin(), tokens.end());
        return std::make_shared<TokenizerData>(std::move(*this));
    }
    [[noreturn]] void unsupported(const std::string& what) const {
        fail("the tokenizer is of an unsupported kind, " + what, where, "use a model with GPT-2's or Gemma's");
    }
    [[noreturn]] void damaged(const std::string& what) const {
        fail("the tokenizer is damaged, " + what, where, "get the file again");
    }

    // The tables of vocabulary.tokens: where each spelling and each byte is.
    void index_vocabulary() {
        vocabulary.index(where);
        for (std::uint32_t byte = 0; byte < 256; ++byte) {
            std::string spelling;
            const char* const digits = "0123456789ABCDEF";
            if (byte_level) utf8_append(spelling, character_of_byte(byte));
            else spelling = {'<', '0', 'x', digits[byte / 16], digits[byte % 16], '>'};
            const int id = byte_tokens[byte] = vocabulary.find(spelling);
            if (id < 0 && !byte_level) damaged("byte " + to_string(byte) + " has no token " + shown(spelling));
            if (!byte_level) vocabulary.tokens[usize(id)] = {spelling, TokenKind::byte};
        }
        if (std::count(byte_tokens.begin(), byte_tokens.end(), -1) == 256) damaged("no byte has a token");
    }

    void set_merges(const Json::Array& list) {
        merges = HashTable(list.size());
        std::uint32_t rank = 0;
        for (const Json& pair : list) {  // "left right", or, since 2024, ["left", "right"]
            const Json::Array& two = pair.list();
            const std::string_view text = pair.text();
            const std::size_t space = text.find(' ');
            if (two.size() != 2 && space == text.npos) damaged("a merge is not of two tokens, " + shown(text));
            const std::string_view left = two.size() == 2 ? two[0].string() : text.substr(0, space);
            const std::string_view right = two.size() == 2 ? two[1].string() : text.substr(space + 1);

            const int a = vocabulary.find(left), b = vocabulary.find(right), id = vocabulary.find(left, right);
            if (a < 0 || b < 0 || id < 0) damaged("a merge of unknown tokens, " + shown(left) + " and " + shown(right));
            merges.place(pair_key(a, b)) = {pair_key(a, b), id, rank++};
        }
    }

    // -- Hugging Face: tokenizer.json, or vocab.json and merges.txt, and files beside them that add to it. As
    //    transformers 5 does it: its GPT2Tokenizer and GemmaTokenizer take only vocabulary, merges and post-processor
    //    from a tokenizer.json, and tokens from tokenizer_config.json if that lists any; PreTrainedTokenizerFast takes
    //    all from tokenizer.json.

    bool has(const char* name) const { return exists(status_of(file.directory + "/" + name)); }
    std::string read(const char* name) {
        where = file.directory + "/" + name;
        return File(where).read_all(std::uint64_t{1} << 30);
    }
    JsonDocument read_json(const char* name, bool wanted = true) {  // an empty object if there is none
        return {wanted && has(name) ? read(name) : "{}", where};    // in this order: reading sets `where`
    }

    void read_directory(int rows) {
        // What there is.
        const bool is_json = has("tokenizer.json");
        if (!is_json && !(has("vocab.json") && has("merges.txt")))
            fail("there is no tokenizer", file.directory,
                 "add tokenizer.json, or vocab.json and merges.txt (tokenizer.model is not read)");

        const JsonDocument config_file = read_json("tokenizer_config.json");
        const Json &config = config_file.root(), &decoder = config["added_tokens_decoder"];
        refuse(config, {"split_special_tokens"});
        read_template(config);
        const JsonDocument map = read_json("special_tokens_map.json", decoder.is_null());
        const JsonDocument older = read_json("added_tokens.json", decoder.is_null());
        const JsonDocument document = read_json(is_json ? "tokenizer.json" : "vocab.json");
        // In a vocab.json these are tokens like any, whose values are their ids.
        const Json &root = document.root(), &model = root["model"], &own = root["added_tokens"], none;

        // Whose rules apply: tokenizer.json's own (as_it_is), or those of transformers' class for GPT-2 or Gemma.
        std::string_view kind = config["tokenizer_class"].text();
        if (kind.empty()) kind = file.config.root()["tokenizer_class"].text();
        const bool as_it_is = is_json && is_any(kind, "PreTrainedTokenizer|PreTrainedTokenizerFast|TokenizersBackend");
        if (is_json) check_rules(root["normalizer"], root["pre_tokenizer"], model);
        prefix_space = byte_level && (as_it_is ? root["pre_tokenizer"] : config)["add_prefix_space"].flag(as_it_is);

        const char* const usual = byte_level ? "GPT2Tokenizer|GPT2TokenizerFast" : "GemmaTokenizer|GemmaTokenizerFast";
        if (!as_it_is && !kind.empty() && !is_any(kind, usual)) unsupported("tokenizer_class " + shown(kind));

        // Tokens.
        read_vocabulary(is_json ? model.at("vocab") : root);
        if (is_in(byte_tokens, -1) && as_it_is) refuse(model, {"unk_token"});
        if (as_it_is) add_by_id(own, none, none);
        where = file.directory;
        add_by_id(decoder.is_null() ? own : none, decoder, older.root());
        add_by_name(config, map.root(), as_it_is, rows);
        add_by_other_names(config, map.root());
        add_listed(config, map.root());

        // Merges, and what texts begin and end with.
        if (is_json) {
            read_processor(root["post_processor"]);
            set_merges(model["merges"].array());
        } else read_older(config);
        read_ends(file.config.root());
    }

    // What a tokenizer.json would say besides the vocabulary. merges.txt has a line for each merge.
    void read_older(const Json& config) {
        if (bos >= 0 && config["add_bos_token"].flag(false)) before = {bos};
        if (eos >= 0 && config["add_eos_token"].flag(false)) after = {eos};

        const std::string text = read("merges.txt");
        Json::Array lines;
        const auto add_line = [&](std::string_view line) {
            if (ends_with(line, "\r")) line.remove_suffix(1);
            if (!line.empty() && line.substr(0, 8) != "#version") lines.emplace_back(line, where);
        };
        for_parts(text, add_line, '\n');
        set_merges(lines);
    }

    // What is done to the text first tells the two kinds of tokenizer apart.
    void check_rules(const Json& normalizer, const Json& splitter, const Json& model) {
        const std::string_view first = normalizer["type"].text(), second = splitter["type"].text();
        byte_level = normalizer.is_null() && second == "ByteLevel" && splitter["use_regex"].flag(true);
        // Gemma's: a space becomes the mark. Cutting at spaces is idle then, as none is left.
        const auto blank = [](const Json& rule) { return rule["pattern"]["String"].text() == " "; };
        const bool idle = splitter.is_null() || (second == "Split" && blank(splitter));
        const bool mark = idle && first == "Replace" && blank(normalizer) && normalizer["content"].text() == kSpaceMark;
        if (!byte_level && !mark) unsupported("normalizer " + shown(first) + ", pre-tokenizer " + shown(second));

        const std::string_view type = model["type"].is_null() ? "BPE" : model["type"].text();
        if (type != "BPE" || !model["merges"].is<Json::Array>()) unsupported("model " + shown(type));
        if (model["byte_fallback"].flag(false) == byte_level) unsupported("byte_fallback");
        refuse(model, {"dropout", "ignore_merges", "continuing_subword_prefix", "end_of_word_suffix"});
    }
    // Options that have to be off: not there, null, false, empty, or 0 (which as a token's id counts, too).
    void refuse(const Json& object, std::initializer_list<std::string> options, bool zero_counts = false) const {
        for (const std::string& one : options) {
            const Json& value = object[one];
            const bool counts = zero_counts ? value.is<double>() : value.lenient<double>() != 0;
            const bool holds = !value.list().empty() || !value.lenient<Json::Object>().empty();
            if (counts || holds || value.flag(false) || !value.text().empty()) unsupported("with " + one);
        }
    }

    // Tokens come in any order. There may be holes between the ids, but hardly more than there are tokens.
    void read_vocabulary(const Json& listed) {
        std::vector<Token>& tokens = vocabulary.tokens;
        for (const auto& [spelling, id] : listed.members()) {
            const std::uint64_t at = id.whole();
            if (at >= 2 * listed.members().size() + 1024) damaged("the id of " + shown(spelling) + " is out of range");

            if (at >= tokens.size()) tokens.resize(usize(at) + 1);
            Token& place = tokens[usize(at)];
            if (place.kind == TokenKind::absent) place = {std::string(spelling), TokenKind::normal};
            else damaged(shown(place.spelling) + " and " + shown(spelling) + " have the same id");
        }
        index_vocabulary();
    }

    // - Added tokens, in the order of transformers, as those that the vocabulary lacks get the next ids.

    // Adds one. said: its id by the file, or -1. rows: one that would get an id from `rows` on is left out (the usual
    // tokens, which no file names, where the embedding has no row for them).
    void add(const Token& token, std::int64_t said = -1, int rows = INT_MAX) {
        const int known = vocabulary.find(token.spelling), next = vocabulary.size();
        const bool in_hole = said >= 0 && said < next && vocabulary[int(said)].kind == TokenKind::absent;
        const int id = known >= 0 ? known : in_hole ? int(said) : next;
        if (token.spelling.empty() || (known < 0 && next >= rows)) return;

        if (said >= 0 && said != id)
            unsupported("with the id " + to_string(said) + " for " + shown(token.spelling) +
                        ", to which transformers gives " + to_string(id));

        if (id == next) vocabulary.tokens.emplace_back();
        Token& place = vocabulary.tokens[usize(id)];
        if (said >= 0) has_own_id.insert(id);
        if (said < 0 && has_own_id.count(id)) place.kind = TokenKind::control;  // what describes it by its id is kept
        else place = token;
        if (known < 0) vocabulary.insert(id, where);
    }

    // An object that describes one, or its spelling alone.
    Token added_token(const Json& token, bool special = false) const {
        special = token["special"].flag(special);
        refuse(token, {"single_word"});
        return {std::string((token.is<std::string_view>() ? token : token.at("content")).string()),
                special ? TokenKind::control : TokenKind::user_defined, token["lstrip"].flag(false),
                token["rstrip"].flag(false), token["normalized"].flag(!special)};
    }

    // own: a list of objects that hold their ids; decoder: objects by their ids; older: ids by their spellings.
    void add_by_id(const Json& own, const Json& decoder, const Json& older) {
        std::map<std::uint64_t, Token> all;
        for (const auto& [spelling, id] : older.lenient<Json::Object>())
            all[id.whole()] = {std::string(spelling), TokenKind::user_defined, false, false, true};
        for (const Json& token : own.list()) all[token.at("id").whole()] = added_token(token);
        for (const auto& [key, token] : decoder.lenient<Json::Object>())
            all[JsonDocument(std::string(key), where + ": the id " + shown(key)).root().whole()] = added_token(token);
        for (const auto& [id, token] : all) add(token, std::int64_t(id));
    }

    static constexpr std::string_view kNames[] = {"bos_token", "eos_token", "unk_token", "sep_token",
                                                  "pad_token", "cls_token", "mask_token"};

    // bos_token and the like. What `map` says goes before the configuration.
    void add_by_name(const Json& config, const Json& map, bool as_it_is, int rows) {
        static constexpr const char* kUsual[] = {"<bos>", "<eos>", "<unk>", "", "<pad>", "", "<mask>"};
        for (std::size_t i = 0; i < std::size(kNames); ++i) {
            const Json* said = (map.find(kNames[i]) ? map : config).find(kNames[i]);
            const char* usual = said || as_it_is ? "" : !byte_level ? kUsual[i] : i < 3 ? "<|endoftext|>" : "";
            const Token token = said && !said->is_null() ? added_token(*said, true) : Token{usual, TokenKind::control};
            add(token, -1, *usual ? rows : INT_MAX);
            if (i < 2) (i ? eos : bos) = vocabulary.find(token.spelling);
        }
    }

    // Those of other names: objects of the configuration, and what `map` says; then texts of the configuration and its
    // extra_special_tokens, or, where it has neither, model_specific_special_tokens. One that is named twice keeps its
    // place, and is what was said last.
    void add_by_other_names(const Json& config, const Json& map) {
        std::vector<const Json*> all;
        std::unordered_map<std::string_view, std::size_t> places;
        const auto take = [&](const Json& from, bool objects, bool texts, std::string_view name_end = "_token") {
            for (const auto& [name, token] : from.lenient<Json::Object>()) {
                const bool wanted = (objects && token.find("content")) || (texts && !token.text().empty());
                if (!wanted || !ends_with(name, name_end) || is_in(kNames, name)) continue;
                const std::size_t place = places.try_emplace(name, all.size()).first->second;
                if (place == all.size()) all.push_back(nullptr);
                all[place] = &token;
            }
        };
        take(config, true, false);
        take(map, true, true);
        const std::size_t before_texts = all.size();
        take(config, false, true);
        take(config["extra_special_tokens"], true, true, "");
        if (all.size() == before_texts) take(config["model_specific_special_tokens"], true, true, "");
        for (const Json* token : all) add(added_token(*token, true));
    }

    // Those without names: the first list of the first file that has one.
    void add_listed(const Json& config, const Json& map) {
        const Json none, *chosen = &none;
        for (const Json* source : {&config, &map}) {
            if (chosen != &none) break;
            for (const char* name : {"extra_special_tokens", "additional_special_tokens"}) {
                const Json* found = source->find(name);
                if (found && !found->is<Json::Object>() && chosen->list().empty()) chosen = found;
            }
        }
        for (const Json& token : chosen->list()) add(added_token(token, true));
    }

    // - The rest

    static constexpr std::size_t kMostAround = 64;

    // What is put around a text. Each part of a Sequence adds to what the ones before made.
    void read_processor(const Json& processor) {
        const std::string_view type = processor["type"].text();
        std::ptrdiff_t texts = 0, first = 0;  // that came by; tokens that were put before
        const auto put = [&](std::uint64_t id, std::string_view name) {
            if (id >= vocabulary.tokens.size()) damaged("texts begin or end with an unknown token, " + shown(name));
            if (before.size() + after.size() >= kMostAround) damaged("texts begin or end with too many tokens");
            if (texts > 0) after.push_back(int(id));
            else before.insert(before.begin() + first++, int(id));
        };

        if (type == "Sequence") {
            for (const Json& part : processor.at("processors").array()) read_processor(part);
        } else if (type == "RobertaProcessing" || type == "BertProcessing") {
            for (const char* name : {"cls", "sep"}) {
                if (processor.at(name).array().size() != 2) damaged(std::string(name) + " is no token and id");
                put(processor[name].array()[1].whole(), name);
                ++texts;
            }
        } else if (type == "TemplateProcessing") {
            const Json::Array& steps = processor.at("single").array();
            if (steps.size() > 2 * kMostAround) damaged("a template of too many parts");
            for (const Json& step : steps) {
                const std::string_view name = step["SpecialToken"]["id"].text();
                const Json* ids = processor["special_tokens"][name].find("ids");
                if (step.find("Sequence") && texts++ > 0) unsupported("with a template that holds the text twice");
                if (ids)
                    for (const Json& id : ids->array()) put(id.whole(), name);
                else if (!step.find("Sequence")) put(std::uint64_t(vocabulary.find(name)), name);
            }
            if (texts == 0) unsupported("with a template that does not hold the text");
        } else if (!processor.is_null() && type != "ByteLevel") unsupported("post-processor " + shown(type));
    }

    void read_ends(const Json& config) {
        const auto token_id = [this](const Json& id) {  // or -1
            return id.is<double>() && id.number() >= 0 && id.number() < vocabulary.size() ? int(id.whole()) : -1;
        };
        const JsonDocument document = read_json("generation_config.json");
        const Json& generation = document.root();
        refuse(has("generation_config.json") ? generation : config,  // as transformers
               {"suppress_tokens", "begin_suppress_tokens", "bad_words_ids", "sequence_bias", "forced_bos_token_id",
                "forced_eos_token_id"},
               /*zero_counts*/ true);

        const bool is_said = !generation["eos_token_id"].is_null();  // then what config.json says does not count
        const Json& who = is_said ? generation : config;
        for (const Json* said : {&who, &who["text_config"]}) {
            const Json& found = (*said)["eos_token_id"];  // a number or an array of them
            ends.push_back(token_id(found));
            for (const Json& id : found.list()) ends.push_back(token_id(id));
        }
        ends.push_back(eos);
        if (bos < 0) bos = token_id(config["bos_token_id"]);
    }

    // A file of its own goes before tokenizer_config.json, which may hold several, by name.
    void read_template(const Json& config) {
        const auto take = [this](const Json& found) {
            chat_template = found.text();
            for (const Json& one : found.list())
                if (chat_template.empty() || one["name"].text() == "default") chat_template = one["template"].text();
        };
        take(config["chat_template"]);
        if (has("chat_template.jinja")) chat_template = read("chat_template.jinja");
        else if (chat_template.empty()) take(read_json("chat_template.json").root()["chat_template"]);
    }

    // -- GGUF

    void read_metadata() {
        const Json& metadata = file.config.root();
        const std::string_view model = metadata.at("tokenizer.ggml.model").string();
        if (model != "gpt2" && model != "llama") unsupported("tokenizer.ggml.model " + shown(model));

        // Without tokenizer.model, converters call Gemma's vocabulary gpt2; no word of GPT-2's is spelled with the
        // mark.
        const Json::Array& spellings = metadata.at("tokenizer.ggml.tokens").array();
        const auto is_mark = [](const Json& spelling) { return spelling.string() == kSpaceMark; };
        byte_level = model == "gpt2" && std::none_of(spellings.begin(), spellings.end(), is_mark);

        // How it merges, and cuts words.
        const Json& pairs = metadata["tokenizer.ggml.merges"];
        by_rank = !byte_level && (pairs.is_null() || pairs.array().empty());
        const auto splitter = metadata["tokenizer.ggml.pre"].value(std::string_view("default"));
        if (byte_level && !is_any(splitter, "gpt-2|gpt2|default")) unsupported("pre-tokenizer " + shown(splitter));

        // Tokens.
        const auto token_id = [&](const std::string& key) {  // or -1
            const double id = metadata[key].value(-1.0);
            if (!(id >= -1 && id == std::floor(id))) damaged(key + " is out of range");
            return id < double(spellings.size()) ? int(id) : -1;  // converters copy config.json's, also 50256 of fewer
        };
        bos = token_id("tokenizer.ggml.bos_token_id");
        eos = token_id("tokenizer.ggml.eos_token_id");
        ends = {eos, token_id("tokenizer.ggml.eot_token_id"), token_id("tokenizer.ggml.eom_token_id")};
        for (const Json& id : metadata["tokenizer.ggml.eos_token_ids"].list())
            ends.push_back(int(std::min<std::uint64_t>(id.whole(), INT_MAX)));  // one beyond the tokens ends nothing
        refuse(metadata, {"tokenizer.ggml.suppress_tokens"});
        read_listed_tokens(spellings);
        if (!by_rank) set_merges(metadata.at("tokenizer.ggml.merges").array());

        // What texts begin and end with.
        prefix_space = metadata["tokenizer.ggml.add_space_prefix"].value(false);
        if (metadata["tokenizer.ggml.add_bos_token"].value(!byte_level)) before = {bos};
        if (is_in(before, -1)) damaged("tokenizer.ggml.bos_token_id is missing");
        if (metadata["tokenizer.ggml.add_eos_token"].value(false)) after = {eos};
        if (is_in(after, -1)) damaged("tokenizer.ggml.eos_token_id is missing");

        // The chat template, or the first of several.
        const Json::Array& templates = metadata["tokenizer.chat_templates"].list();
        std::string key = "tokenizer.chat_template";
        if (!templates.empty() && !metadata.find(key)) key.append(".").append(templates[0].string());
        chat_template = metadata[key].value(std::string_view());
    }

    // Gemma's: the better a token's score, the earlier the merge. Runs of spaces, which are listed as they are and have
    // no score, come before all others, the longest first, as in tokenizer.json. Nothing merges into a control token.
    void read_listed_tokens(const Json::Array& spellings) {
        const Json& metadata = file.config.root();
        const Json* const types = metadata.find("tokenizer.ggml.token_type");
        const Json::Array& kinds = types ? types->array() : spellings;
        const Json::Array& scores = by_rank ? metadata.at("tokenizer.ggml.scores").array() : spellings;
        if (kinds.size() != spellings.size() || scores.size() != spellings.size())
            damaged("not every token has a type and a score");

        vocabulary.tokens.resize(spellings.size());
        for (std::size_t i = 0; i < spellings.size(); ++i) {
            const double number = types ? kinds[i].number() : 1;
            Token& token = vocabulary.tokens[i];
            token.kind = number >= 2 && number <= 5 ? static_cast<TokenKind>(int(number)) : TokenKind::normal;
            token.spelling = spellings[i].string();
            // Its merges look at whole spellings. Gemma's longest has 93 bytes.
            if (by_rank && token.spelling.size() > 250) damaged("too long a token, " + shown(token.spelling));

            // Google's QAT files call the tokens around a turn normal.
            const bool is_side = is_in(kStarts, token.spelling) || is_in(kEnds, token.spelling) || int(i) == bos;
            if (token.kind == TokenKind::normal && (is_side || is_in(ends, int(i)))) token.kind = TokenKind::control;
            // Runs of spaces become what they are in the text that they are looked for in.
            const bool is_run = !byte_level && token.spelling.find_first_not_of(' ') == token.spelling.npos;
            if (is_run && token.spelling.size() > 1) token.kind = TokenKind::user_defined;
            const bool is_users = token.kind == TokenKind::user_defined;
            if (is_users && is_run) token.spelling = replace_all(token.spelling, " ", kSpaceMark);

            if (!by_rank) continue;
            const double score = scores[i].number();
            if (!(std::fabs(score) < 1e30)) damaged("a score is not a number");
            if (!is_users && token.kind != TokenKind::normal) continue;
            const float cost = is_users ? -1e30f * float(token.spelling.size()) : 0 - float(score);
            const std::uint32_t bits = f32_to_bits(cost);
            token.rank = bits >> 31 ? ~bits : bits | 0x80000000u;  // integers in the order of the floats
        }
        index_vocabulary();
    }

    const Checkpoint& file;
    std::string where;                   // what is being read
    std::unordered_set<int> has_own_id;  // added tokens that some file describes by their ids
};

// ---- Unicode

// The runs of letters, numbers and white space: \p{L}, \p{N} and White_Space of Unicode 16.0, as in the reference, the
// `tokenizers` library; tests/data/make_unicode.py prints them. Each is its distance from the run before and its
// length. A run is of white space after ' ', of numbers after '!', otherwise of letters. A number ends in a digit of
// base 57, '#' to '['; digits of base 34, ']' to '~', may come before. The first run, " ,(", is white space from 9 on,
// 5 long: U+0009 to U+000D.
inline constexpr std::string_view kRuns =
    " ,( 5$!2-*=)= -$ =$,$!*%$$!&$#$!$&$:$B$e%'/1(*$$$_2($%%'$$)$$&$$$7$^=$_<+_W$I%$)L^1>''PN!8-'%$^M$$2%*%!#-#&%$3$$A@"
    "^C.$!1-#D,%'$(9'$,$&$:<*.(;$)4M^$Y&$5$*-!'-$3'+%%%9$*$$&'&$3$0%$&!'-#%!%)%$+)'%%9$*$%$%$%B'$$!*-%&3,$&$9$*$%$(&$5$"
    "2%!'-,$.+%%%9$*$%$(&$A%$&!'-$$!#).$$)&&$'&%$$$%&%&&&/9$!805+$&$:$3&$=&%$%%!'-!+*$$'+$&$:$-$(&$B%$%!'-$%4,$&$L%$3$("
    "&!$*#&!'6$)(5&;$,$$%*!B-4S$%/*!,-J%$$$($;$$$-$%,$%($$!,-%'C$!B7/+$G>(_$N7$!#-))''&$&%*&'0/$!$-)I$$($%N$bS$'%*$$$'%"
    "L$'%D$'%*$$$'%2$^#$'%^-!17&33^@%)&gU%4 #$#=(^5!&&#+*5061510$&2WF$'$!&-!)-!9-)^C*(%E$$(^0-B!J-#A%(.O'=!).H:,X!N-!)-"
    "0$^GR4+!&-LA0%!#-#O=G!?-&&!#-#G%.(N%&L'$)$%&$(`8^*aU%)%I%)%+$$$$$$$B%X$*$$&&$*&'%)'0(&$* &. @% ($ R$!3$#$!%)($!#-)"
    "0^O$'$%-$$&()$$$$$$'$.%'(('$!$V#%!#(!iM^&!^89!h&ApTa$)'&%!,$%I$$($%[*$3:,*$*$*$*$*$*$*$*^:$ e+$'%!#$!<,*(!%&#%'^@)"
    "&$^D$'(N$^H!&'-CS3!C-!A+!$2!C-!J2bF`jH^*hkL^-Q%aL&3!#-#%7R3B%^0!#-J,%^Q%^-%%$$$+83$&$'$:!0)-W1U!?-;)&$$%!$-#?-:<@*"
    "R?$!#-)($-!#-#($L:&$+!'-):&$&U$$&%%(%$$$;&%.*&/)%)%),*$*$N$1)_$!0-)bw#/:'Tai3c;%^TI*/(($$-$0$($$$%$%$^VDc85^*%YK/_"
    "%($_8!6-*=)=.^C&)%)%)%&F/$=$6$%$2%1E_,!/P!/^#!4%a3@&T!3>'C!#',7!#$#+!#$(I-A%G'+!$(M_O!%-)G'G'K+W/.$2$*$%$.$2$*$%&W"
    "/b=,9-+;)$M$,^/)%$$O$%&$%:!%+#:!%*#B!+,S6$%!((#9!#)'=^0[!'%#%!#3!%Q#$2'$&$@!-,:@!#%$@!#&C+$?!)(3Y-9!%+#6!(+#5!:*^:"
    "^3ZV0V!*)#G!/-!)-#?,:!`RB$M)%3&^%@!#-#$+9!.'>5Q8!#*7:/X!=A$%%$0PC<!*-,G!2-'$%$+F&$/S1'!.-#$$$!'7.5$<6%^)*$$$'$2$-*"
    "R!4-.+%%%9$*$%$(&$5$/(A-$$%$$I$$<$$$OX5'!(-(&AS7%$$!+-_WRL'GS7$!.-IN0$!*-!)7?>!8/'*`1O_%^*!#6/+%$%+$%$;2$$$!1-^0+%"
    "J3$$$?$-K*$8$.Q6$5^3`?D!2-),$H4$!2@(A^Z*$%$I8$!,-))$%$C1$!*-b<62$$0$E!?-^@$!28Nm-!^P^Y4`<^i1^K2oQ4)<__((g0`o$A!5-{"
    ";f[*B!$-)^9!$-)A5S3'!/-!$*$8(6dDP!&-`>^*!#:^S^5($^,0^*%$$?`bH+rLL-aqN'$*$%$b)2$@&%$1'+cY^c?^U(0&,*-!_b8-!vX7!/7!^V"
    "<_8^?$^1$%%$%%%'$/$$$*$^+$'%+$*$?$'$($$&*$bZ%<$<$B$<$B$<$B$<$B$<$+!%U|<B))aD^(_CP-*!%-'$bGA5O!'-e1?!'-`NA%$!#-e@*$"
    "'$%$2$`=!%,S^.*$!'-!jU^%!$&!$'!^6P!$2`:'$>$%$$%$$-$'$$$$)$'$$$$$$&$%$$%$$$$$$$$$$%$$%'$*$'$'$$$-$4(&$($4!g-0!^kV-o"
    "'s^>C_aU)`V%_~(1`z)2gW^f2f@w;_oH(_bB";

inline CharClass class_at(std::string_view text, std::size_t i, std::size_t& length) {
    static constexpr auto kEdges = [] {  // where a class begins, as 4 * code point + class
        std::array<std::uint32_t, kRuns.size()> edges{};
        std::uint32_t code_point = 0, number = 0, kind = 1;
        std::size_t count = 1;
        for (const char c : kRuns)
            if (c < '#') kind = c == '!' ? 2 : 3;
            else if (c > '[') number = number * 34 + std::uint32_t(c - ']');
            else {
                code_point += number * 57 + std::uint32_t(c - '#');
                edges[count++] = 4 * code_point + kind;
                kind = count % 2;  // `other` from the end of a run on, then letters
                number = 0;
            }
        while (count < edges.size()) edges[count++] = 0xFFFFFFFC;  // beyond all characters
        return edges;
    }();
    const Character c = utf8_decode(text, i);
    length = c.length;
    return static_cast<CharClass>(*(std::upper_bound(kEdges.begin(), kEdges.end(), 4 * c.code_point + 3) - 1) % 4);
}

// ==== MODEL ==========================================================================================================
//
// From a checkpoint to what the forward pass reads: Config says the sizes, Weights holds the matrices, and Loader turns
// the file's tensors into them: it checks their shapes, joins those that are multiplied with the same input (q, k and
// v; gate and up), and packs groups of 16 rows, all threads at once. Rows are read from the file as they are needed, so
// that loading takes no more memory than the result.
//
// All that GPT-2 and Gemma 3 do differently stands in one place, their rows of kArchitectures: FORWARD reads from
// there, and from which weights a layer has, what to do.

struct Norm {
    std::vector<float> w, b;  // [n]; b is LayerNorm's, empty for RMSNorm; both empty: there is no norm
};

struct Linear {
    Matrix w;
    std::vector<float> b;  // [rows]; empty: none
};

struct Layer {
    Norm attn_norm, ffn_norm;            // [hidden_size]: before attention, before the feed-forward network
    Norm post_attn_norm, post_ffn_norm;  // [hidden_size]: after them (Gemma 3)
    Norm q_norm, k_norm;                 // [head_dim]: of each head's q and k (Gemma 3)
    // qkv   [(num_heads + 2 num_kv_heads) * head_dim, hidden_size]
    // out   [hidden_size, num_heads * head_dim]
    // up    GPT-2's c_fc [intermediate_size, hidden_size], or gate and up in turn, by kGateRows rows
    // down  [hidden_size, intermediate_size]
    Linear qkv, out, up, down;
};

struct Weights {
    Arena memory;
    Matrix embedding;                // [vocab_size, hidden_size]
    Linear head;                     // [vocab_size, hidden_size]; where it is tied, the embedding
    bool has_random_halves = false;  // the head, in its lower bits: see LIKELIEST TOKENS
    std::vector<float> positions;    // [context_length, hidden_size]: GPT-2
    std::vector<Layer> layers;
    Norm final_norm;
};

struct ModelData {
    Config config;
    const struct Architecture* architecture = nullptr;
    ModelInfo info;
    Tokenizer tokenizer;
    DType dtype = DType::q8_0;
    const Kernels* kernels = &choose_kernels();
    Weights weights;
    std::vector<float> rope_global, rope_local;         // [head_dim / 2]: radians per position; empty: no RoPE
    mutable std::atomic<std::uint64_t> fingerprint{0};  // 0: nobody has asked yet, see SAVED SESSIONS
};

constexpr int kGateRows = 32;  // of gate, then as many of up: one step of a product holds both
static_assert(kGateRows % kBlock == 0 && kGateRows % kGroup == 0, "whole blocks of the next product");

inline int round_up(int n, int multiple) { return (n + multiple - 1) / multiple * multiple; }

// ---- config: Hugging Face's config.json, or a GGUF's metadata
//
// What a file says that changes the result is applied or refused, never passed over. read_config and the architectures'
// own functions ask for what is applied; kKnownKeys says what else may be there.

constexpr char kCompare[] = "compare it with a published GPT-2's or Gemma 3's";
constexpr char kIncomplete[] = "it is incomplete, one of several parts (name their directory), or of another model";
constexpr char kNotBuilt[] = "this variant of the model is not supported: get a checkpoint without it";

// where: a file, and what it says; "" or "architecture" of a Config that the caller made, for Model::random.
[[noreturn]] inline void refuse_config(const std::string& where, const std::string& problem, const char* remedy) {
    const bool is_callers = where.empty() || where == "architecture";
    fail("this configuration cannot be used", where + problem, remedy, is_callers ? Kind::argument : Kind::file);
}

// Fields that are not applied: if they are there they must have one of these values, "a|b", with which the result is
// what is computed here.
struct KnownKey {
    Name field;
    std::string_view values;
    const char* remedy;
};
// clang-format off
constexpr KnownKey kKnownKeys[] = {  // 4.29497e+09, 2^32 - 1: not set
    {{"use_bidirectional_attention"}, "false", kIsEmbedding},
    {{"is_causal", "attention.causal"}, "true", kIsEmbedding},
    {{"", "pooling_type|dense_2_feat_in|dense_2_feat_out|dense_3_feat_in|dense_3_feat_out"}, "0|4.29497e+09", kIsEmbedding},
    {{"attention_bias|mlp_bias|add_cross_attention|is_encoder_decoder|scale_attn_by_inverse_layer_idx|enable_moe_block|"
      "attn_logit_softcapping|clip_qkv|alibi|num_experts|num_local_experts|n_routed_experts|num_kv_shared_layers|"
      "hidden_size_per_layer_input", "use_parallel_residual|attention.clamp_kqv|expert_count|"
      "attention.max_alibi_bias|expert_used_count|attention.shared_kv_layers|rope.scaling.alpha"}, "0|false", kNotBuilt},
    {{"partial_rotary_factor|rotary_pct|attention_multiplier|embedding_multiplier|residual_multiplier|logits_scaling|"
      "logit_scale|embedding_scale", "rope.scaling.attn_factor"}, "1", kNotBuilt},
    {{"", "embedding_scale|residual_scale|logit_scale"}, "0|1", kNotBuilt},
    {{"pruned_heads|per_layer_config"}, "{}", kNotBuilt},
    {{"quantization_config|quantization"}, "{}", kGetWhole},
};
// clang-format on

// Keys of a GGUF that change nothing; with a dot at its end, all keys that begin so.
constexpr std::string_view kHarmless =
    "vocab_size|tensor_data_layout|rope.scaling.original_context_length|rope.scaling.finetuned|vision.|mm.";

// A value as messages and choices have it.
inline std::string text_of(double value) {
    char text[32];  // not a stream: the program's locale may group digits there
    std::snprintf(text, sizeof text, "%g", value);
    return text;
}
inline std::string text_of(const Json& value) {
    if (value.is<bool>()) return value.boolean() ? "true" : "false";
    if (value.is<Json::Array>()) return "a list";
    if (!value.is<Json::Object>()) return value.is<double>() ? text_of(value.number()) : std::string(value.text());
    std::string out = "{";
    for (const auto& [key, member] : value.members()) out.append(key).append(": " + text_of(member) + "; ");
    return out + "}";
}

// The fields of a configuration, by their names in its format. In config.json a field of an object inside of another is
// named by its path, "rope_scaling.factor"; in a GGUF all fields are side by side, and dots are part of their names.
struct Fields {
    const Checkpoint& file;
    std::string prefix;  // before every name: "text_config.", a GGUF's "gemma3."
    std::shared_ptr<std::unordered_set<std::string>> asked = std::make_shared<std::unordered_set<std::string>>();

    // Those of an object inside, which a GGUF has not.
    Fields inside(const std::string& name) const { return {file, file.is_gguf ? prefix : prefix + name + ".", asked}; }

    std::string key(std::string_view name) const { return prefix + std::string(name); }

    // The value of this name, which may be null; nullptr: there is none.
    const Json* find(std::string_view name) const {
        const Json* at = &file.config.root();
        const auto enter = [&](std::string_view part) { at = at ? at->find(part) : nullptr; };
        for_parts(key(name), enter, file.is_gguf ? '\0' : '.');
        return at;
    }
    bool has(std::string_view name) const { return find(name) && !find(name)->is_null(); }

    // The first of a field's names that is there; null: none.
    const Json& value(const Name& field) const {
        static const Json none;
        const Json* found = &none;
        for_parts(file.name_of(field), [&](std::string_view name) {
            asked->insert(key(name));  // its other names are known as well
            if (found->is_null() && has(name)) found = find(name);
        });
        return *found;
    }

    static constexpr double kRequired = HUGE_VAL;  // as a fallback: there is none, the field must be there
    double number(const Name& field, double fallback) const {
        const Json& all = value(field);
        const Json& v = all.list().empty() ? all : all.list()[0];  // of a list, one for each layer
        for (const Json& one : all.list())
            if (text_of(one) != text_of(v) || one.lenient<double>() != v.lenient<double>())
                refuse(field, "differs from layer to layer", kNotBuilt);

        if (v.is_null() && fallback < kRequired) return fallback;
        if (v.is_null()) refuse(field, "is missing");
        if (v.is<double>() && std::fabs(v.number()) < 1e30) return v.number();
        refuse(field, "is " + (v.is<double>() ? text_of(v) : shown(text_of(v))) + ", no number or out of range");
    }
    float real(const Name& field, double fallback) const { return float(number(field, fallback)); }

    // `least` to `most`
    int integer(const Name& field, int least, int most, double fallback) const {
        const double n = number(field, fallback);
        if (n >= least && n <= most && n == std::floor(n)) return int(n);
        refuse(field, "is " + text_of(n) + ", not a whole number from " + to_string(least) + " to " + to_string(most));
    }

    // Refuses what is none of the choices, "a|b".
    std::string choice(const Name& field, const char* fallback, std::string_view choices,
                       const char* remedy = kNotBuilt) const {
        const Json& v = value(field);
        const std::string text = v.is_null() ? fallback : text_of(v);
        if (is_any(text, choices)) return text;
        refuse(field, "is " + shown(text) + ", not " + std::string(choices), remedy);
    }
    // The same for each name of the field on its own. Names that were asked for are applied, and are not looked at.
    void require(const Name& field, std::string_view choices, const char* remedy = kNotBuilt) const {
        for_parts(file.name_of(field), [&](std::string_view name) {
            if (has(name) && !asked->count(key(name))) choice({name, name}, "", choices, remedy);
        });
    }

    // When everything that is applied has been asked for.
    void require_known() const {
        for (const KnownKey& known : kKnownKeys) require(known.field, known.values, known.remedy);
        // What llama.cpp itself saves (llama-finetune) has the fields of all its architectures, which it does not read
        // for this one: RWKV's tells.
        if (!file.is_gguf || has("wkv.head_size")) return;
        for (const auto& [name, value] : file.config.root().members()) {
            if (name.substr(0, prefix.size()) != prefix || asked->count(std::string(name))) continue;
            const std::string_view rest = name.substr(prefix.size()), family = rest.substr(0, rest.find('.') + 1);
            if (!is_any(rest, kHarmless) && !is_any(family, kHarmless)) refuse({"", rest}, "is not known", kNotBuilt);
        }
    }

    [[noreturn]] void refuse(const Name& field, const std::string& problem, const char* remedy = kCompare) const {
        std::string_view name = field.hf;
        for_parts(file.name_of(field), [&](std::string_view one) { name = has(name) ? name : one; });
        refuse_config(file.config.name() + ": " + key(name) + " ", problem, remedy);
    }
};

constexpr int kMostRows = 1 << 24;   // of anything: the largest vocabularies have a 64th of it
constexpr int kMostWidth = 1 << 18;  // of a token's vectors: what a session allocates for them stays below 2 GB
constexpr int kMostHeadDim = 1024;

// A size of a Config: its name here, the most it may be, and its name in a GGUF, which must have it unless it is
// optional.
struct Size {
    decltype(&Config::num_layers) member;
    const char* name;
    int most;
    const char* gguf;
    bool optional = false;
};
constexpr Size kSizes[] = {
    {&Config::context_length, "context_length", kMostRows, "context_length"},
    {&Config::hidden_size, "hidden_size", kMostWidth, "embedding_length"},
    {&Config::intermediate_size, "intermediate_size", kMostWidth, "feed_forward_length", true},
    {&Config::num_layers, "num_layers", 1000, "block_count"},
    {&Config::num_heads, "num_heads", 4096, "attention.head_count"},
    {&Config::num_kv_heads, "num_kv_heads", 4096, "attention.head_count_kv", true},
    {&Config::head_dim, "head_dim", kMostHeadDim, "attention.key_length", true},
};

// Which layers see only a window: `layer_types`, or a list of true and false, or all but every sixth (or whatever the
// pattern's length is).
inline std::vector<bool> local_layers(const Fields& f, int layers) {
    const Name field = {"layer_types|sliding_window_pattern", "attention.sliding_window_pattern"};
    const Json& value = f.value(field);
    std::vector<bool> local;
    if (value.is_null() || value.is<double>()) {
        const int every = f.integer(field, f.file.is_gguf ? 0 : 1, kMostRows, 6);
        for (int i = 1; i <= layers; ++i) local.push_back(every == 0 || i % every != 0);
        f.require({"_sliding_window_pattern"}, to_string(every), "write layer_types, which says it for each layer");
        return local;
    }

    for (const Json& one : value.array()) {
        const std::string kind = text_of(one);
        local.push_back(is_any(kind, "sliding_attention|true|1"));
        if (!local.back() && !is_any(kind, "full_attention|false|0")) f.refuse(field, "holds " + shown(kind));
    }
    return local;
}

// ---- the architectures: what their rows refer to, and then a table with a row for each

// All that one architecture does in its own way. What has no name is not there.
struct Architecture {
    Name type;  // model_type in config.json, general.architecture
    // Names in config.json and what leaving one out means there (transformers' defaults; -4: 4 hidden_size), in the
    // order of kSizes. Null: read_config sets it.
    std::array<std::pair<const char*, int>, std::size(kSizes)> sizes;
    void (*read_config)(const Fields&, Config&);  // what is no size; sizes are set

    bool is_transposed;     // safetensors hold a layer's matrices as [cols, rows]
    bool has_biases;        // all products do, and the norms: LayerNorm, or else RMSNorm,
    float norm_offset;      // whose scale is this much more than what safetensors hold
    bool scales_embedding;  // by sqrt(hidden_size)
    bool has_rope;
    bool is_gated;  // activation(gate) * up
    void (*Kernels::*activation)(const float* x, const float* up, int n, float* y);

    // Tensors without ".weight", those of a layer after "blk.0." or what a Hugging Face checkpoint calls it, "h.0."
    Name embedding, positions, final_norm;
    const char* layers;
    Name attn_norm, qkv, out, ffn_norm, up, down;
    Name q = {}, k = {}, v = {}, gate = {}, q_norm = {}, k_norm = {}, post_attn_norm = {}, post_ffn_norm = {};
};

// The names of gelu in its tanh form.
constexpr std::string_view kTanhGelu = "gelu_new|gelu_fast|gelu_pytorch_tanh|gelu_python_tanh|gelu_accurate";

// GPT-2 (Radford et al. 2019): learned positions, LayerNorm before each block, biases everywhere.

inline void read_gpt2_config(const Fields& f, Config& c) {
    c.num_kv_heads = f.integer({"", "attention.head_count_kv"}, c.num_heads, c.num_heads, c.num_heads);
    c.head_dim = c.hidden_size / c.num_heads;
    if (c.hidden_size % c.num_heads) f.refuse({"n_embd", "embedding_length"}, "is no multiple of the number of heads");

    c.norm_eps = f.real({"layer_norm_epsilon", "attention.layer_norm_epsilon"}, 1e-5);
    const bool scaled = f.choice({"scale_attn_weights"}, "true", "true|false") == "true";
    c.attention_scale = scaled ? 1.0f / std::sqrt(float(c.head_dim)) : 1.0f;
    c.is_local.assign(usize(c.num_layers), false);
    f.choice({"activation_function|hidden_act", "hidden_activation"}, "gelu_new", kTanhGelu);
}

// Gemma 3 (Gemma Team 2025, arXiv:2503.19786): RMSNorm before and after each block, RoPE on normed q and k, five local
// layers to a global one, a gated feed-forward network.

// By how much the layers of a kind divide positions. left_out: what it is in a GGUF that says nothing.
inline float rope_scaling_of(const Fields& rope, float left_out = 1) {
    const bool gguf = rope.file.is_gguf;
    const Name kind = {"rope_type|type", "rope.scaling.type"};
    const Name factor = {"factor", "rope.scaling.factor|rope.scale_linear"};
    if (gguf && rope.value(kind).is_null() && rope.value(factor).is_null()) return left_out;
    const std::string type = rope.choice(kind, gguf ? "linear" : "default", gguf ? "linear|none" : "linear|default");
    // A linear one must say by how much, and a config.json that says it must say that it is one.
    const float scaling = rope.real(factor, !gguf && type == "linear" ? Fields::kRequired : 1);
    if (!gguf && scaling != 1 && rope.value(kind).is_null())
        rope.refuse(factor, "is given without a rope_type, and tools disagree on what that means",
                    "write \"rope_type\": \"linear\" beside it, or take it out");
    return type != "linear" || (gguf && scaling == 0) ? 1 : scaling;
}

inline void read_gemma3_config(const Fields& f, Config& c) {
    c.norm_eps = f.real({"rms_norm_eps", "attention.layer_norm_rms_epsilon"}, 1e-6);
    c.is_local = local_layers(f, c.num_layers);

    // Null says that there is none, and so does a GGUF that does not speak of it.
    const Name window = {"sliding_window", "attention.sliding_window"};
    const bool gguf = f.file.is_gguf;
    c.sliding_window = f.integer(window, 0, kMostRows, gguf || f.find(window.hf) ? 0 : 4096);
    if (c.sliding_window == 0 && gguf) c.is_local.assign(usize(c.num_layers), false);
    if (c.sliding_window == 0 && std::count(c.is_local.begin(), c.is_local.end(), true))
        f.refuse(window, "is null or 0, but there are layers with a window",
                 "write layer_types that are all full_attention, or a window");

    // GGUF has no query_pre_attn_scalar; it is head_dim but for the 27B model, known by its 62 layers.
    const int implied = c.num_layers == 62 ? c.hidden_size / c.num_heads : c.head_dim;
    const double scalar = f.number({"query_pre_attn_scalar"}, gguf ? implied : 256);
    if (!(scalar > 0)) f.refuse({"query_pre_attn_scalar"}, "is not positive");
    c.attention_scale = float(1 / std::sqrt(scalar));

    f.choice({"hidden_activation|hidden_act", "hidden_activation"}, "gelu_pytorch_tanh", kTanhGelu);
    c.final_logit_softcapping = f.real({"final_logit_softcapping", "final_logit_softcapping"}, 0);
    // Ollama's converter wrote Gemma 2's 30 into models of text. Ollama does not apply it, and the models have none.
    const bool is_ollamas = f.has("rope.global.freq_base") || f.has("rope.local.freq_base");
    if (is_ollamas && c.final_logit_softcapping == 30) c.final_logit_softcapping = 0;

    // RoPE is in rope_theta, rope_local_base_freq and rope_scaling, or (transformers 5) all in rope_parameters.
    c.rope_theta = f.real({"rope_scaling.rope_theta|rope_parameters.full_attention.rope_theta|rope_theta",
                           "rope.freq_base|rope.global.freq_base"},
                          1e6);
    c.rope_local_theta = f.real({"rope_parameters.sliding_attention.rope_theta|rope_local_base_freq",
                                 "rope.freq_base_swa|rope.local.freq_base"},
                                1e4);
    const bool nested = f.value({"rope_scaling.rope_type|rope_scaling.type|rope_scaling.factor"}).is_null();
    // Ollama's leaves the factor out, which is 8 for large models and those of pictures; older ones norm_eps, too.
    const bool is_older = gguf && !f.has("attention.layer_norm_rms_epsilon");
    const bool divides = c.context_length >= 131072 || (is_older && f.has("vision.block_count"));
    const float left_out = divides && (is_older || is_ollamas) ? 8.0f : 1.0f;
    c.rope_scaling = rope_scaling_of(f.inside(nested ? "rope_parameters.full_attention" : "rope_scaling"), left_out);
    if (!gguf) c.rope_local_scaling = rope_scaling_of(f.inside("rope_parameters.sliding_attention"));

    // What is said in another place than there.
    const char* const nest = "write it into rope_parameters, into full_attention and sliding_attention there";
    const Name kinds = {"rope_scaling.full_attention|rope_scaling.sliding_attention"};
    f.require({"rope_parameters.rope_type|rope_parameters.type"}, "default", nest);
    f.require({"rope_parameters.rope_theta"}, text_of(c.rope_theta), nest);
    if (!f.value(kinds).is_null()) f.refuse(kinds, "stands for one kind of layer", nest);
    f.require({"rope_parameters.partial_rotary_factor|rope_parameters.full_attention.partial_rotary_factor|"
               "rope_parameters.sliding_attention.partial_rotary_factor|rope_scaling.partial_rotary_factor"},
              "1");
}

// clang-format off
// In the order of Architecture's members: the sizes are context_length, hidden_size, intermediate_size, num_layers,
// num_heads, num_kv_heads, head_dim.
inline constexpr Architecture kArchitectures[] = {
    {{"gpt2", "gpt2"},
     {{{"max_position_embeddings|n_positions", 1024}, {"hidden_size|n_embd", 768}, {"n_inner", -4},
       {"num_hidden_layers|n_layer", 12}, {"num_attention_heads|n_head", 12}, {}, {}}}, read_gpt2_config,
     /*is_transposed*/ true, /*has_biases*/ true, /*norm_offset*/ 0,
     /*scales_embedding*/ false, /*has_rope*/ false, /*is_gated*/ false, &Kernels::gelu,
     {"wte", "token_embd"}, {"wpe", "position_embd"}, {"ln_f", "output_norm"}, "h.",
     {"ln_1", "attn_norm"}, {"attn.c_attn", "attn_qkv"}, {"attn.c_proj", "attn_output"},
     {"ln_2", "ffn_norm"}, {"mlp.c_fc", "ffn_up"}, {"mlp.c_proj", "ffn_down"}},
    {{"gemma3|gemma3_text", "gemma3"},
     {{{"max_position_embeddings", 131072}, {"hidden_size", 2304}, {"intermediate_size", 9216}, {"num_hidden_layers", 26},
       {"num_attention_heads", 8}, {"num_key_value_heads", 4}, {"head_dim", 256}}}, read_gemma3_config,
     /*is_transposed*/ false, /*has_biases*/ false, /*norm_offset*/ 1,
     /*scales_embedding*/ true, /*has_rope*/ true, /*is_gated*/ true, &Kernels::gelu,
     {"embed_tokens", "token_embd"}, {}, {"norm", "output_norm"}, "layers.",
     {"input_layernorm", "attn_norm"}, {"self_attn.qkv_proj", "attn_qkv"}, {"self_attn.o_proj", "attn_output"},
     {"pre_feedforward_layernorm", "ffn_norm"}, {"mlp.up_proj", "ffn_up"}, {"mlp.down_proj", "ffn_down"},
     {"self_attn.q_proj", "attn_q"}, {"self_attn.k_proj", "attn_k"}, {"self_attn.v_proj", "attn_v"},
     {"mlp.gate_proj", "ffn_gate"}, {"self_attn.q_norm", "attn_q_norm"}, {"self_attn.k_norm", "attn_k_norm"},
     {"post_attention_layernorm", "post_attention_norm"}, {"post_feedforward_layernorm", "post_ffw_norm"}},
};
// clang-format on

// The architecture that goes by this name in a GGUF (and in Config), or in config.json.
inline const Architecture& find_architecture(std::string_view name, bool json, const std::string& where) {
    std::string known;
    for (const Architecture& a : kArchitectures) {
        if (is_any(name, json ? a.type.hf : a.type.gguf)) return a;
        known += (known.empty() ? "" : " or ") + std::string(a.type.gguf);
    }
    refuse_config(where, " is " + shown(name) + ", not " + known, "get a model of one of these");
}

// ---- a whole configuration

// What must hold for every configuration, a file's or the caller's own.
inline void check_config(const Config& c, const std::string& where) {
    const Architecture& a = find_architecture(c.architecture, false, "architecture");
    const auto require = [&](bool good, const std::string& problem) {
        if (!good) refuse_config(where, problem, kCompare);
    };
    const auto at_most = [&](int size, int most, const char* name) {
        require(size >= 1 && size <= most, std::string(name) + " is missing or too large");
    };
    at_most(c.vocab_size, kMostRows, "vocab_size");
    for (const Size& size : kSizes) at_most(c.*size.member, size.most, size.name);
    if (std::count(c.is_local.begin(), c.is_local.end(), true)) at_most(c.sliding_window, kMostRows, "sliding_window");

    require(c.num_heads % c.num_kv_heads == 0, "num_heads is no multiple of num_kv_heads");
    require((c.num_heads + 2 * c.num_kv_heads) * c.head_dim <= kMostWidth, "heads x head_dim is too large");
    require(c.is_local.size() == usize(c.num_layers), "is_local (layer_types) has another length than num_layers");
    require(c.norm_eps >= 0 && std::isfinite(c.norm_eps), "norm_eps is negative or infinite");
    require(c.attention_scale > 0 && std::isfinite(c.attention_scale), "attention_scale is not positive");
    const bool square = c.num_heads * c.head_dim == c.hidden_size && c.num_kv_heads == c.num_heads;
    if (!a.has_rope) return require(square, "hidden_size is not num_heads x head_dim, as it is in GPT-2");

    require(c.head_dim % 2 == 0, "head_dim is odd");
    for (const float rope : {c.rope_theta, c.rope_local_theta, c.rope_scaling, c.rope_local_scaling})
        require(rope > 1e-6f && std::isfinite(rope), "rope: a number is not positive, too small or infinite");
    require(c.final_logit_softcapping >= 0 && std::isfinite(c.final_logit_softcapping),
            "final_logit_softcapping is negative or infinite");
}

// A tensor of this name, before which a Hugging Face checkpoint may have anything ("model.", "_orig_mod.transformer."),
// and what stands there. nullptr: there is none.
inline std::pair<const Tensor*, std::string> find_wrapped(const Checkpoint& file, const Name& called) {
    const std::string name = std::string(file.name_of(called)) + ".weight";
    const Tensor* found = file.find(name);
    for (const auto& [other, tensor] : file.tensors) {
        if (file.is_gguf || !ends_with(other, "." + name)) continue;
        if (const Tensor* before = std::exchange(found, &tensor))
            fail("two tensors could be " + name, file.path + ": " + shown(before->name) + " and " + shown(other),
                 "leave only the text model in the checkpoint");
    }
    return {found, found ? found->name.substr(0, found->name.size() - name.size()) : ""};
}

constexpr Name kHead = {"lm_head", "output"};

// Whether two tensors hold the same bytes.
inline bool same_data(const Tensor& a, const Tensor& b) {
    bool same = a.type_name == b.type_name && a.shape == b.shape && a.bytes == b.bytes;
    for (std::uint64_t at = 0, n; same && at < a.bytes; at += n) {
        n = std::min<std::uint64_t>(1 << 18, a.bytes - at);
        same = a.file->text(a.offset + at, n) == b.file->text(b.offset + at, n);
    }
    return same;
}

inline const Architecture& architecture_of(const Checkpoint& file) {
    const Json &root = file.config.root(), &inner = root["text_config"]["model_type"];
    const std::string_view kind = root["general.type"].text(), name = root["general.architecture"].text();
    refuse_foreign(Foreign::kind, [&](auto mark) { return name == mark || kind == mark ? file.path : ""; });
    if (file.is_gguf) return find_architecture(name, false, file.path + ": general.architecture");
    return find_architecture((inner.is_null() ? root["model_type"] : inner).text(), true, file.path + ": model_type");
}

inline Config read_config(const Checkpoint& file) {
    const Architecture& a = architecture_of(file);
    const Json& root = file.config.root();
    const Fields whole{file, file.is_gguf ? std::string(a.type.gguf) + "." : ""};
    const Fields f = whole.has("text_config") ? whole.inside("text_config") : whole;

    Config c;
    c.architecture = a.type.gguf;
    for (std::size_t i = 0; i < std::size(kSizes); ++i) {
        const auto& [name, usual] = a.sizes[i];
        const Size& size = kSizes[i];
        double fallback = usual < 0 ? -usual * c.hidden_size : usual;
        if (file.is_gguf && !size.optional) fallback = Fields::kRequired;
        if (file.is_gguf && size.member == &Config::num_kv_heads) fallback = c.num_heads;
        if (name) c.*size.member = f.integer({name, size.gguf}, 1, size.most, fallback);
    }

    a.read_config(f, c);
    const float scale = f.real({"", "attention.scale"}, 0);
    if (scale != 0) c.attention_scale = scale;

    // The vocabulary's size is the embedding's, which may be larger than what config.json or the tokenizer say.
    const Tensor *embedding = find_wrapped(file, a.embedding).first, *head = find_wrapped(file, kHead).first;
    if (!embedding || embedding->shape.size() != 2)
        fail("the embedding is missing", file.path + ": " + std::string(file.name_of(a.embedding)), kIncomplete);
    c.vocab_size = int(std::min<std::uint64_t>(embedding->shape[0], kMostRows + 1));
    c.tied_head = !head || same_data(*head, *embedding);

    if (!head && !root["tie_word_embeddings"].flag(true))
        fail("a tensor is missing", file.path + ": lm_head.weight", "tie_word_embeddings is false: it must be there");
    check_config(c, file.path + ": ");

    // Other fields say the same, or nothing that would change the result.
    f.require({"head_dim|v_head_dim",
               "attention.key_length|attention.value_length|attention.key_length_swa|"
               "attention.value_length_swa|rope.dimension_count|rope.dimension_count_swa"},
              to_string(c.head_dim));
    f.require({"num_key_value_heads", "attention.head_count_kv"}, to_string(c.num_kv_heads));
    f.require({"rms_norm_eps|layer_norm_epsilon|layer_norm_eps|norm_eps"}, text_of(c.norm_eps));
    f.require_known();
    whole.require_known();  // of a multimodal model, around text_config
    return c;
}

// ---- loading

// Rows of a tensor on their way into a matrix: as they are in the file, and as floats.
struct Rows {
    std::vector<std::uint8_t> raw;
    std::vector<float> floats;

    void read(const Tensor& t, std::uint64_t first, std::uint64_t count, bool convert = true) {
        const TypeTraits& type = traits(t.type);
        const auto block = std::uint64_t(type.block), bytes = std::uint64_t(type.bytes);
        const std::uint64_t cols = t.elements() / t.shape[0];
        if (convert) floats.resize(usize(count * cols));

        if (!t.file) {  // random weights of the size that keeps activations as they are in trained models
            const float largest = std::sqrt(3.0f / float(cols));
            std::uint64_t state = (t.offset + first) * 0xD1342543DE82EF95u;
            for (float& weight : floats) weight = largest * float(2 * next_uniform(state) - 1);
            return;
        }

        raw.resize(usize(count * cols / block * bytes));
        t.file->read(t.offset + first * cols / block * bytes, raw.data(), raw.size());
        if (!convert) return;
        type.to_f32(raw.data(), floats.data(), std::int64_t(count * cols / block));
        if (!all_below(floats.data(), floats.size(), INFINITY))
            damaged("a weight of " + shown(t.name) + " is infinite or no number", *t.file);
    }
};

inline int checked_threads(int threads) {
    if (threads < 0 || threads > 1024)
        misuse("the number of threads is out of range", to_string(threads), "use 1 to 1024, or 0 for all cores");
    return threads ? threads : physical_cores();
}

// Whether the lower halves of a head in planes are spread over 0..15 as random numbers are. Those of weights that had 4
// bits once are not.
inline bool has_random_halves(const Matrix& head) {
    const Matrix::Section& s = head.sections[0];
    if (s.format != &kQ8InPlanes) return false;
    std::int64_t n = 0, sum = 0, squares = 0;
    const std::size_t whole_blocks = usize(head.cols / kBlock) * s.format->lower;
    for (int g = 0; g < head.rows / kGroup; g += s.end / 256 + 1)  // a sample
        for (std::size_t i = 0; i < whole_blocks; ++i)
            for (const int half : {s.lower_of(g)[i] & 15, s.lower_of(g)[i] >> 4})
                ++n, sum += half, squares += half * half;
    const double mean = double(sum) / double(n), variance = double(squares) / double(n) - mean * mean;
    return std::fabs(mean - 7.5) < 0.5 && std::fabs(variance - kHalfVariance) < 3;
}

// theta^(-2i/d) / scaling [head_dim / 2]: the angle of pair i from one position to the next.
inline std::vector<float> rope_frequencies(int head_dim, float theta, float scaling) {
    std::vector<float> out;
    for (int i = 0; i < head_dim / 2; ++i)
        out.push_back(1.0f / float(power(theta, float(2 * i) / float(head_dim))) / scaling);
    return out;
}

// Makes a model's weights of a checkpoint's tensors, or random ones.
struct Loader {
    using Part = std::pair<Name, int>;  // a tensor that becomes part of a matrix, and how many rows it gives
    // A tensor's place in a matrix. Its row r becomes row to(r) there; a transposed tensor's row r becomes column r.
    struct Place {
        const Tensor* tensor;
        const WeightFormat* format;
        int rows, first, stride;  // first: to(0); stride: from 32 of its rows to the next 32, in rows of the matrix
        int to(int r) const { return first + r / kGateRows * stride + r % kGateRows; }
    };

    // What a matrix is for: inside of a layer, to look tokens up, or to give the logits (a tied head is the embedding,
    // too). A head in Q8_0 lies in planes, see LIKELIEST TOKENS. Embedding and head have 8 bits also where the layers
    // have 4.
    enum class Role { inside, embedding, head };

    ModelData& model;
    const Checkpoint& file;
    const LoadOptions& options;
    std::uint64_t seed = 0;  // of random weights: each tensor has its own

    const Config& c = model.config;
    const Architecture& a = find_architecture(c.architecture, false, "architecture");
    // What stands before all names of the model, as the embedding's tells; and before those that are asked for now:
    // "model.layers.3."
    std::string root = find_wrapped(file, a.embedding).second, prefix = root;

    // Whether the layers' matrices are [in, out]. In MLX's GPT-2 they are not, as the one that is never square tells.
    const Tensor* const qkv = file.find(root + a.layers + "0." + std::string(a.qkv.hf) + ".weight");
    const bool is_mlx = qkv && qkv->shape.size() == 2 && qkv->shape[1] == std::uint64_t(c.hidden_size);
    const bool is_transposed = a.is_transposed && !file.is_gguf && !is_mlx;

    double bytes_done = 0, bytes_total = 1;
    ThreadPool pool{checked_threads(options.threads)};
    std::vector<Rows> scratch = std::vector<Rows>(usize(pool.size()));
    std::unordered_set<const Tensor*> used = {};
    std::deque<Tensor> random = {};  // where there is no file: their offset is their seed

    std::vector<float> floats(const Name& name, const char* suffix, const std::vector<int>& shape) {
        const Tensor& t = find_tensor(name, suffix, shape);
        Rows rows;
        if (t.file) rows.read(t, 0, t.shape[0]);
        else rows.floats.assign(usize(t.elements()), 1.0f);
        model.info.weight_bytes += rows.floats.size() * sizeof(float);
        return std::move(rows.floats);
    }

    // RMSNorm's scale, or LayerNorm's scale and bias.
    Norm norm(const Name& name, int n) {
        if (name.hf.empty()) return {};
        Norm out{floats(name, ".weight", {n}), {}};
        if (a.has_biases) out.b = floats(name, ".bias", {n});
        if (!file.is_gguf)  // a GGUF has the offset already in it
            for (float& w : out.w) w += a.norm_offset;
        return out;
    }

    const WeightFormat& format_for(const Tensor& t, Role role) const {
        TensorType type = options.dtype == DType::native ? traits(t.type).kept_as : TensorType::q8_0;
        if (options.dtype == DType::f32) type = TensorType::f32;
        if (options.dtype == DType::q4_0 && role == Role::inside) type = TensorType::q4_0;
        return role == Role::head && type == TensorType::q8_0 ? kQ8InPlanes : format_of(type);
    }

    // W, and the bias b: where an architecture has biases, its matrices are one tensor each. in_turn: kGateRows rows of
    // the first part, as many of the second, and so on.
    Linear linear(const std::vector<Part>& parts, int cols, bool in_turn = false, Role role = Role::inside) {
        const bool transposed = is_transposed && role == Role::inside;
        const int stride = in_turn ? kGateRows * int(parts.size()) : kGateRows;

        // All tensors are found before memory is asked for.
        std::vector<Place> places;
        int rows = 0;
        bool mixed = false;  // parts that share a group of 16 rows differ in their formats: then it is Q8_0 for all
        for (const auto& [name, n] : parts) {
            const Tensor& t = find_tensor(name, ".weight", {transposed ? cols : n, transposed ? n : cols});
            const WeightFormat* const format = &format_for(t, role);
            mixed = mixed || (rows % kGroup != 0 && format != places.back().format);
            places.push_back({&t, format, n, in_turn ? kGateRows * int(places.size()) : rows, stride});
            rows += in_turn ? round_up(n, kGateRows) : n;
        }

        // Of each group: that of the part to which its rows belong. Where there is only filling, the first part's.
        std::vector<const WeightFormat*> formats(usize((rows - 1) / kGroup + 1),
                                                 mixed ? &format_of(TensorType::q8_0) : places[0].format);
        for (const Place& place : places)
            for (int r = 0; r < place.rows && !mixed; ++r) formats[usize(place.to(r) / kGroup)] = place.format;

        // They become one matrix.
        Linear out{Matrix(model.weights.memory, rows, cols, formats), {}};
        bool exact = true;
        for (const Place& place : places) exact &= fill(out.w, place, transposed);
        for (const auto& s : out.w.sections)
            model.info.formats[s.format->name].bytes += (s.group_bytes + s.group_lower) * usize(s.end - s.begin);
        ++(exact ? model.info.exact : model.info.quantized);
        if (parts.size() > 1) model.info.fused += int(parts.size());
        if (options.progress) options.progress(float(bytes_done / bytes_total), parts[0].first.hf.data());

        if (a.has_biases && role == Role::inside) out.b = floats(parts[0].first, ".bias", {rows});
        return out;
    }

    // Returns whether the matrix has the file's own values.
    bool fill(const Matrix& m, const Place& place, bool transposed) {
        const Tensor& t = *place.tensor;
        const TypeTraits& type = traits(t.type);
        const WeightFormat& format = *m.section(place.first / kGroup).format;
        const bool as_it_is = type.quants && std::string_view(format.name) == format_of(type.kept_as).name;
        const int rows = int(t.shape[0]);
        ++model.info.formats[format.name].matrices;

        pool.for_ranges((rows - 1) / kGateRows + 1, 1, [&](int i, int, int thread) {
            Rows& in = scratch[usize(thread)];
            const int first = i * kGateRows, n = std::min(kGateRows, rows - first);
            in.read(t, usize(first), usize(n), !as_it_is);

            bool good = true;
            for (int r = 0; !transposed && r < n; ++r)
                for (int column = 0; column < m.cols; column += kBlock) {
                    const int at = r * m.cols + column, width = std::min(kBlock, m.cols - column);
                    const float* const x = as_it_is ? nullptr : &in.floats[usize(at)];
                    Quants own;
                    if (as_it_is) type.quants(&in.raw[usize(at / type.block * type.bytes)], at % type.block, own);
                    good &= m.set(place.to(first + r), column, width, x, as_it_is ? &own : nullptr);
                }
            for (int r = 0; transposed && r < m.rows; ++r) {
                float x[kGateRows];
                for (int k = 0; k < n; ++k) x[k] = in.floats[usize(k) * usize(m.rows) + usize(r)];
                good &= m.set(r, first, n, x, nullptr);
            }

            if (good) return;
            in.read(t, usize(first), usize(n));  // refuses what is damaged
            fail("a weight is too large for scales of 16 bits", t.file->path() + ": " + shown(t.name),
                 "use DType::f32 (--dtype f32)");
        });
        return as_it_is || &format == &format_of(TensorType::f32);
    }

    // In the order in which the random weights of Model::random are drawn.
    Layer layer() {
        const int d = c.hidden_size, ffn = c.intermediate_size;
        const int q = c.num_heads * c.head_dim, kv = c.num_kv_heads * c.head_dim;
        const bool joined = a.q.hf.empty() || file.find(prefix + std::string(file.name_of(a.qkv)) + ".weight");

        Layer l;
        l.attn_norm = norm(a.attn_norm, d);
        l.qkv = joined ? linear({{a.qkv, q + 2 * kv}}, d) : linear({{a.q, q}, {a.k, kv}, {a.v, kv}}, d);
        l.q_norm = norm(a.q_norm, c.head_dim);
        l.k_norm = norm(a.k_norm, c.head_dim);
        l.out = linear({{a.out, d}}, q);
        l.post_attn_norm = norm(a.post_attn_norm, d);

        l.ffn_norm = norm(a.ffn_norm, d);
        l.up = a.is_gated ? linear({{a.gate, ffn}, {a.up, ffn}}, d, true) : linear({{a.up, ffn}}, d);
        l.down = linear({{a.down, d}}, ffn);
        l.post_ffn_norm = norm(a.post_ffn_norm, d);
        return l;
    }

    const Tensor& find_tensor(const Name& part, const char* suffix, const std::vector<int>& shape) {
        const std::string name = prefix + std::string(file.name_of(part)) + suffix, where = file.path + ": " + name;
        const Tensor* t = file.find(name);
        seed += std::uint64_t{1} << 40;
        if (file.files.empty())
            t = &random.emplace_back(Tensor{name, TensorType::f32, "", {shape.begin(), shape.end()}, nullptr, seed});

        if (!t) fail("a tensor is missing", where, kIncomplete);
        // Types of blocks are a GGUF's: safetensors, which name types freely, may hold a matrix transposed.
        if (t->type == TensorType::other || (!file.is_gguf && traits(t->type).block > 1))
            fail("a tensor has a type that cannot be read, " + shown(t->type_name), where,
                 "use F32, F16, BF16, Q8_0, Q4_0, Q4_1, Q5_0, Q5_1, Q2_K to Q6_K, IQ4_NL or IQ4_XS");

        const auto text = [](const auto& sizes) {
            std::string out;
            for (const auto n : sizes) out += (out.empty() ? "[" : ", ") + to_string(n);
            return out + "]";
        };
        if (text(t->shape) != text(shape))
            fail("a tensor has the wrong shape", where + " is " + text(t->shape) + ", not " + text(shape),
                 "the configuration and the weights are of different models");

        model.info.parameters += t->elements();
        used.insert(t);
        bytes_done += double(t->bytes);
        return *t;
    }

    // Of which kind a tensor is, by its name, if it lies outside of the text model; or else nothing.
    std::string kind_outside(const std::string& name) const {
        // The first part of its name that is not the root's.
        const auto common = std::mismatch(name.begin(), name.end(), root.begin(), root.end()).first - name.begin();
        const std::size_t begin = common ? name.rfind('.', usize(common - 1)) + 1 : 0;
        const std::string kind = name.substr(begin, name.find('.', begin) - begin), layers = root + a.layers;

        // Vision, its projector, a tied head.
        if (file.is_gguf) return kind == "v" || kind == "mm" || name == "output.weight" ? kind : "";
        if (ends_with(name, ".attn.bias") || ends_with(name, ".attn.masked_bias")) return "mask buffers";
        if (ends_with(name, "rotary_emb.inv_freq")) return "RoPE buffers";
        if (name.compare(0, layers.size(), layers) == 0)
            return std::strtol(&name[layers.size()], nullptr, 10) < c.num_layers ? "" : "layers beyond the last";

        const bool is_own = kind == a.embedding.hf || kind == a.positions.hf || kind == a.final_norm.hf;
        return is_own || ends_with(name, "lm_head.bias") ? "" : kind;
    }

    // Fills in the model, whose config is set and checked.
    void load() {
        model.architecture = &a;
        model.dtype = options.dtype;
        model.info.format = file.format;

        double bytes = 0;  // of all tensors in memory
        for (const auto& [name, tensor] : file.tensors) {
            ++model.info.tensors[tensor.type_name];
            bytes_total += double(tensor.bytes);
            bytes += double(tensor.elements()) * (model.dtype == DType::f32 ? 4.0 : 34.0 / 32.0);
        }
        if (bytes > double(SIZE_MAX) * 0.75)
            fail("the model is too large for a program of " + to_string(8 * sizeof(void*)) + " bits",
                 file.path + ", " + to_string(std::uint64_t(bytes / 1e6)) + " MB", "use one of 64 bits", Kind::system);

        // In the order in which the random weights of Model::random are drawn.
        Weights& w = model.weights;
        const auto role = c.tied_head ? Role::head : Role::embedding;
        w.embedding = linear({{a.embedding, c.vocab_size}}, c.hidden_size, false, role).w;
        if (!a.positions.hf.empty()) w.positions = floats(a.positions, ".weight", {c.context_length, c.hidden_size});
        w.final_norm = norm(a.final_norm, c.hidden_size);
        for (int i = 0; i < c.num_layers; ++i) {
            prefix = (file.is_gguf ? "blk." : root + a.layers) + to_string(i) + ".";
            w.layers.push_back(layer());
        }

        prefix = find_wrapped(file, kHead).second;
        if (c.tied_head) w.head.w = w.embedding;
        else w.head = linear({{kHead, c.vocab_size}}, c.hidden_size, false, Role::head);
        w.has_random_halves = has_random_halves(w.head.w);
        model.info.weight_bytes += w.memory.bytes();

        // Tensors that were not used must lie outside of the text model: one of its own would change what it computes.
        for (const auto& [name, tensor] : file.tensors) {
            if (used.count(&tensor)) continue;
            const std::string kind = kind_outside(name), where = file.path + ": " + shown(name);
            if (kind.empty()) fail("a tensor of the model is not used, and would change the result", where, kNotBuilt);
            ++model.info.ignored, ++model.info.outside[kind];
        }

        if (a.has_rope) {
            model.rope_global = rope_frequencies(c.head_dim, c.rope_theta, c.rope_scaling);
            model.rope_local = rope_frequencies(c.head_dim, c.rope_local_theta, c.rope_local_scaling);
        }
        if (options.progress) options.progress(1.0f, "ready");
    }
};

}  // namespace detail

Model Model::load(const std::string& path, const LoadOptions& options) {
    const detail::IeeeFloats rounding;
    if (options.progress) options.progress(0.0f, "opening");
    return load(detail::open_checkpoint(path), options);
}
Model Model::load_bytes(std::string_view gguf, const LoadOptions& options) {
    const detail::IeeeFloats rounding;
    detail::Checkpoint file;
    file.path = "a GGUF in memory";
    file.config = read_gguf(file, file.files.emplace_back(gguf, file.path));
    return load(file, options);
}

Model Model::load(const detail::Checkpoint& file, const LoadOptions& options) {
    using namespace detail;
    auto data = std::make_shared<ModelData>();
    data->config = read_config(file);
    if (options.progress) options.progress(0.0f, "tokenizer");
    data->tokenizer.data_ = TokenizerLoader(file).load(data->config.vocab_size);
    Loader{*data, file, options}.load();

    Model model;
    model.data_ = std::move(data);
    return model;
}

Model Model::random(const Config& config, const LoadOptions& options, std::uint64_t seed) {
    using namespace detail;
    const IeeeFloats rounding;
    auto data = std::make_shared<ModelData>();
    data->config = config;
    check_config(config, "");

    Checkpoint nothing;
    nothing.format = "random weights";
    nothing.is_gguf = true;
    Loader{*data, nothing, options, seed}.load();

    Model model;
    model.data_ = std::move(data);
    return model;
}

const detail::ModelData& Model::data() const {
    if (!data_) detail::misuse("there is no model", "an llm::Model that nothing was loaded into", "use Model::load");
    return *data_;
}

const Config& Model::config() const { return data().config; }
const Tokenizer& Model::tokenizer() const { return data().tokenizer; }
const ModelInfo& Model::info() const { return data().info; }
DType Model::dtype() const { return data().dtype; }
int Model::sampleable() const { return std::min(config().vocab_size, tokenizer().vocab_size()); }

namespace detail {

// ==== ATTENTION ======================================================================================================
//
//     out = softmax(scale * q K^T) V     for every query head; num_heads / num_kv_heads of them share one K and V
//
// A token's query q asks each position that the token may see: q K^T says how well the position's key fits. softmax
// makes positive weights with the sum 1 of these scores, and the result is the sum of the values V with these weights:
//
//     for each position p that it sees:  score[p] = scale * dot(q, K[p])
//     weight[p] = exp(score[p] - max(score)) / sum over p of the same
//     out = sum over p of weight[p] * V[p]
//
// It takes one pass over the cache: positions come by in chunks of 64, each chunk's scores are turned into weights
// relative to the largest score so far, and what was summed up before is scaled down when a larger one appears (online
// softmax, Milakov and Gimelshein 2018; FlashAttention, Dao et al. 2022). No position x position matrix ever exists.
//
// The cache is laid out for the product kernels, whose "16 rows" are 16 positions in q K^T and 16 dimensions in p V:
//
//     [slots / 64][layers][num_kv_heads]  of  K [64 / 16][head_dim][16], V [64][head_dim, rounded up to 16]
//
// so that a text lies in few pages, huge ones, and takes more as it grows. Position p is in slot p % slots: its K[d] is
// in chunk p % slots / 64, group p % 64 / 16 of it, element 16 * d + p % 16. A global layer has a slot for each
// position of the context. A local layer has slots only for its window and the tokens that are being added, and rolls
// over them: so its memory and its time stop growing with the context.

// Most tokens of a sequence that go through the layers together; and how many of prompts go into a step beside texts
// that are written, which wait for them: with more, a prompt is read hardly faster.
constexpr int kBatch = 256, kBeside = 64;
constexpr int kChunk = kSpan;  // positions per softmax step
constexpr int kPart = 256;     // positions whose result is found on its own

inline void convert(const Kernels&, const float* x, int n, float* y) { std::copy_n(x, n, y); }
inline void convert(const Kernels& k, const float* x, int n, std::uint16_t* y) { k.to_f16(x, n, y); }

enum class CacheFormat { f16, f32 };

// K and V of one layer. All layers of a kind (global, local) share the memory.
struct KvCache {
    CacheFormat format;
    int num_slots, num_kv_heads, head_dim, pitch = round_up(head_dim, kGroup);
    std::uint64_t begin = 0, stride;  // where the layer's first chunk lies, and from chunk to chunk; bytes
    Buffer memory;

    KvCache(const Config& c, bool local, int context, CacheFormat f)
        : format(f), num_slots(slots_for(c, local, context)), num_kv_heads(c.num_kv_heads), head_dim(c.head_dim),
          stride(std::uint64_t(std::count(c.is_local.begin(), c.is_local.end(), local)) * chunk_bytes()) {}

    std::size_t value_bytes() const { return format == CacheFormat::f16 ? 2 : 4; }
    static int slots_for(const Config& c, bool local, int context) {
        return round_up(local ? std::min(context, c.sliding_window + kBatch) : context, kChunk);
    }
    std::size_t bytes_per_slot(int dims) const { return usize(num_kv_heads * dims) * value_bytes(); }
    std::size_t chunk_bytes() const { return kChunk * bytes_per_slot(head_dim + pitch); }
    std::uint64_t bytes() const { return stride * usize(num_slots / kChunk); }  // of all layers of this kind

    template <class T> T* keys(int head, int slot) const { return at<T>(head, slot, 0, head_dim); }
    template <class T> T* values(int head, int slot) const { return at<T>(head, slot, kChunk * head_dim, pitch); }
    template <class T> T* at(int head, int slot, int first, int width) const {
        std::uint8_t* const chunk = memory.as<std::uint8_t>() + begin + stride * usize(slot / kChunk);
        const int value = head * kChunk * (head_dim + pitch) + first + slot % kChunk * width;
        return static_cast<T*>(static_cast<void*>(chunk + usize(value) * value_bytes()));
    }

    // Puts one head's key and value of one position into the cache; false: they are too large for its format.
    template <class Value>
    bool store(const Kernels& kernels, int head, int position, const float* key, const float* value) const {
        const int slot = position % num_slots;
        Value row[kMostHeadDim], *lane = keys<Value>(head, slot / kGroup * kGroup) + slot % kGroup;
        convert(kernels, key, head_dim, row);
        for (int d = 0; d < head_dim; ++d) lane[d * kGroup] = row[d];
        convert(kernels, value, head_dim, values<Value>(head, slot));
        constexpr float kEnd = sizeof(Value) == 4 ? INFINITY : 65520;  // from there on F16 would round to infinity
        return all_below(key, usize(head_dim), kEnd) && all_below(value, usize(head_dim), kEnd);
    }
};

// The tokens of one sequence that a call of attention works on.
struct AttentionInput {
    const KvCache* cache;
    const float* q;  // [tokens, q_stride], num_heads x head_dim in a row
    std::size_t q_stride;
    int tokens, position;  // the first token's position
    int window;            // 0: all positions
    float* out;            // [tokens, num_heads * head_dim]

    int low() const { return window ? std::max(0, position - window + 1) : 0; }  // what they see: from here
    int high() const { return position + tokens; }                               // to before here
};

// What up to 12 queries have found at the positions that they have looked at. `out` is allocated as far as it is used.
struct alignas(64) Found {
    float max[kTile], sum[kTile];     // the largest score; the sum of exp(score - max)
    float out[kTile * kMostHeadDim];  // [m][head_dim rounded up to 16]: sum of exp(score - max) * v
};

// Up to 12 queries of one K/V head. Query r sees lowest[r] .. highest[r].
struct alignas(64) QueryTile {
    float queries[kTile * kMostHeadDim];  // [head_dim / kSpan][m][kSpan]
    int lowest[kTile], highest[kTile];
    float* out[kTile];  // where its result goes, [head_dim]
    int head, m;        // the K/V head; how many queries of it
};

// All queries of all tokens. Each tile of queries goes over the positions in fixed parts of 256: what it finds in each
// is found on its own, and then joined in the parts' order. So the result is the same whoever does the parts: a thread
// does all of a tile, one after the other, unless that is so much of the whole that others would wait for it: of a
// single token, or of a long text among short ones. The parts of such a tile are divided among the threads.
struct Attention {
    ThreadPool& pool;
    const Kernels& kernels;
    const Config& config;
    Buffer tile_memory{}, found_memory{};
    const int kv_heads = config.num_kv_heads, sharing = config.num_heads / kv_heads;  // query heads of one K/V head
    const int head_dim = config.head_dim, pitch = round_up(head_dim, kGroup);

    // A work item: `parts` parts of a tile, from `part` on. Their result goes to the Found with the number `found`.
    // Where found is 0, these are all parts of the tile: the thread uses Founds of its own, and writes the output.
    struct Item {
        const AttentionInput* in;
        int tile, part, parts, found;
    };
    std::vector<Item> items{}, divided{};  // divided: the tiles whose parts are items, from `found` on

    std::size_t found_bytes() const { return sizeof(Found) - usize(kTile * (kMostHeadDim - pitch)) * sizeof(float); }
    Found& found_at(int i) const {
        return *reinterpret_cast<Found*>(found_memory.as<char>() + usize(i) * found_bytes());
    }
    int tiles_of(const AttentionInput& in) const { return (in.tokens * sharing - 1) / kTile + 1; }  // of a K/V head

    void run(const std::vector<AttentionInput>& inputs) {
        found_memory.grow(usize(deal(inputs)) * found_bytes());
        tile_memory.grow(usize(pool.size()) * sizeof(QueryTile));

        // First all items: a thread finds what is in each, and joins its parts. Then the divided tiles, whose parts
        // were items: they are only joined.
        for (const bool joins : {false, true}) {
            const std::vector<Item>& all = joins ? divided : items;
            pool.for_ranges(int(all.size()), 1, [&](int i, int, int thread) {
                const Item& p = all[usize(i)];
                QueryTile& tile = tile_memory.as<QueryTile>()[thread];
                const int first = p.found ? p.found : 2 * thread;
                Found& sum = found_at(first);
                Laps& laps = pool.laps[usize(thread)];
                laps.start();
                start(tile, *p.in, p.tile);

                if (!joins) find(*p.in->cache, tile, p.part, sum, laps);
                for (int part = 1; part < p.parts; ++part) {
                    Found& next = found_at(first + (joins ? part : 1));
                    if (joins || find(*p.in->cache, tile, p.part + part, next, laps)) join(tile.m, sum, next);
                }
                if (joins || !p.found) finish(tile, sum);
                laps.lap(3);
            });
        }
    }

    // Makes the items of all inputs; returns how many Founds they need, the two of each thread included.
    int deal(const std::vector<AttentionInput>& inputs) {
        int founds = 2 * pool.size();
        std::int64_t total = 0;  // parts
        const auto parts_of = [](const AttentionInput& in) { return (in.high() - 1) / kPart + 1 - in.low() / kPart; };
        for (const AttentionInput& in : inputs) total += std::int64_t{parts_of(in)} * tiles_of(in) * kv_heads;
        items.clear(), divided.clear();
        for (const AttentionInput& in : inputs) {
            const int first = in.low() / kPart, parts = parts_of(in);
            const bool apart = parts > 1 && pool.size() > 1 && total < std::int64_t{parts} * 2 * pool.size();
            for (int tile = 0; tile < tiles_of(in) * kv_heads; ++tile) {
                (apart ? divided : items).push_back({&in, tile, first, parts, apart ? founds : 0});
                for (int p = first; apart && p < first + parts; ++p) items.push_back({&in, tile, p, 1, founds++});
            }
        }
        return founds;
    }

    // A tile's queries: those of one token that share the K/V head, then the next token's.
    void start(QueryTile& tile, const AttentionInput& in, int number) const {
        const int tiles = tiles_of(in), first = number % tiles * kTile;
        const int m = tile.m = std::min(kTile, in.tokens * sharing - first);
        tile.head = number / tiles;
        for (int r = 0; r < m; ++r) {
            const int token = (first + r) / sharing, h = tile.head * sharing + (first + r) % sharing;
            tile.highest[r] = in.position + token;
            tile.lowest[r] = in.window ? std::max(0, tile.highest[r] - in.window + 1) : 0;
            tile.out[r] = in.out + usize(token * config.num_heads + h) * usize(head_dim);

            const float* q = in.q + usize(token) * in.q_stride + h * head_dim;
            for (int d = 0; d < head_dim; d += kSpan) {
                float* span = tile.queries + d * m + r * kSpan;
                std::copy_n(q + d, std::min(kSpan, head_dim - d), span);
                kernels.scale(config.attention_scale, std::min(kSpan, head_dim - d), span);
            }
        }
    }

    // What a tile finds in one part. False: it sees nothing of it.
    bool find(const KvCache& cache, const QueryTile& tile, int part, Found& found, Laps& laps) const {
        const auto product = cache.format == CacheFormat::f16 ? kernels.product_f16 : kernels.product_f32;
        const int m = tile.m;
        std::fill_n(found.max, m, -1e30f);
        std::fill_n(found.sum, m, 0.0f);
        std::fill_n(found.out, m * pitch, 0.0f);

        // Chunk by chunk: scores of all queries, their softmax weights, and the weighted values.
        alignas(64) float scores[kTile][kChunk];  // of aligned positions, from `base` on; then the softmax weights
        const int low = std::max(part * kPart, tile.lowest[0]);
        const int high = std::min((part + 1) * kPart, tile.highest[m - 1] + 1);
        for (int begin = low, end; begin < high; begin = end) {
            const int base = begin / kChunk * kChunk, slot = base % cache.num_slots;
            end = std::min(base + kChunk, high);
            const int skipped = (begin - base) / kGroup * kGroup, groups = (end - base - skipped - 1) / kGroup + 1;
            product({cache.keys<void>(tile.head, slot + skipped), groups, head_dim, kGroup, usize(head_dim) * kGroup,
                     tile.queries, m, scores[0] + skipped, kChunk, false});
            laps.lap(0);

            for (int r = 0; r < m; ++r) {
                // Positions that it does not see have the weight 0.
                const int from = std::clamp(tile.lowest[r], begin, end);
                const int to = std::clamp(tile.highest[r] + 1, from, end);
                std::fill_n(scores[r] + (begin - base), from - begin, 0.0f);
                std::fill_n(scores[r] + (to - base), end - to, 0.0f);
                if (from == to) continue;
                const float shrink = kernels.softmax(scores[r] + (from - base), to - from, found.max[r], found.sum[r]);
                if (shrink != 1) kernels.scale(shrink, pitch, found.out + r * pitch);
            }
            laps.lap(1);

            product({cache.values<void>(tile.head, slot + (begin - base)), pitch / kGroup, end - begin, usize(pitch),
                     kGroup, scores[0] + (begin - base), m, found.out, usize(pitch), true});
            laps.lap(2);
        }
        return low < high;
    }

    void join(int m, Found& all, const Found& next) const {
        for (int r = 0; r < m; ++r)
            kernels.join(all.out + r * pitch, all.max[r], all.sum[r], next.out + r * pitch, next.max[r], next.sum[r],
                         head_dim);
    }
    void finish(const QueryTile& tile, const Found& all) const {
        for (int r = 0; r < tile.m; ++r) {
            std::fill_n(tile.out[r], head_dim, 0.0f);
            kernels.axpy(1.0f / all.sum[r], all.out + r * pitch, head_dim, tile.out[r]);
        }
    }
};

// ==== PROFILING ======================================================================================================
//
// Where does a step's time go? The forward pass does an operation inside of Profiler::time, which takes for its time
// what has passed since the end of the one before, so that the operations add up to the step. Those that are fused into
// one parallel region (q K^T, softmax and p V; a product and the activation at its end) are the stages of one call,
// whose time is divided among them as the threads' Laps say. Nothing is reported inside a step, so a listener may
// print, and throw. When nobody listens, all this costs one comparison.

struct Profiler {
    ThreadPool& pool;
    std::function<void(const Timing&)> report{};
    std::vector<Timing> done{};  // not yet reported
    Clock::time_point last{};    // the end of the operation before

    // What has passed since the last operation is nobody's.
    void restart() { last = report ? Clock::now() : last; }
    void listen(std::function<void(const Timing&)> to) {
        pool.timed = static_cast<bool>(to);
        report = std::move(to);
        done.clear();
    }

    // Runs body(), an operation in its stages, or a step of operations.
    template <class Body> void time(std::initializer_list<Timing> stages, int layer, int tokens, const Body& body) {
        if (!report) return body();
        if (stages.size() > 1) pool.laps.assign(pool.laps.size(), {true, false, 0, {}, {}});
        const auto start = last;
        const double before = pool.waited;
        body();
        last = Clock::now();
        const double seconds = std::chrono::duration<double>(last - start).count(), idle = pool.waited - before;

        std::array<double, 4> ticks{1e-9, 0, 0, 0};  // a single stage has all
        for (Laps& laps : pool.laps) {
            for (std::size_t s = 0; s < stages.size(); ++s) ticks[s] += laps.ticks[s];
            laps = {};
        }
        const double total = std::accumulate(ticks.begin(), ticks.end(), 0.0), *tick = ticks.data();
        for (const Timing& s : stages) {
            const double share = *tick++ / total;
            done.push_back({s.part, s.operation, s.bytes, s.operations, layer, tokens, share * seconds, share * idle});
        }
    }

    // Runs body(), a step of so many tokens, and reports its operations. Those of one that throws are not reported:
    // what is done next begins with listen().
    template <class Body> void step(int tokens, const Body& body) {
        const bool from_start = bool(report);  // not set by a callback meanwhile
        restart();
        time({{"step", "step"}}, -1, tokens, body);
        if (!from_start || !report) return done.clear();
        const auto to = report;  // which may call on_timing
        for (const Timing& timing : std::exchange(done, {}))
            if (report) to(timing);
    }
};

// ==== LIKELIEST TOKENS ===============================================================================================
//
// Sampling needs the k best of up to 262144 logits, and the head that they come from is most of what a token of a
// small model reads. So its 8 bits lie in two planes: the upper halves of all rows with the scales, then the lower
// halves. From the upper plane alone a logit is known up to a rest,
//
//     logit = sum of scale * x * (16 * upper - 120.5)  +  sum of scale * x * e        e = lower - 7.5, in -7.5 .. 7.5
//
// which is a sum of hidden_size small terms. Where the lower bits are as good as random it has the mean 0 and the
// variance 21.25 * sum of (scale * x)^2, which is known for each row: a sum over blocks. (Where most are not, which
// loading finds out by a sample, the head is computed whole.) A row whose estimate is more than 8 standard deviations
// below the k-th best logit that is known is taken to be none of the k best. If the sum is distributed normally, that
// is wrong for one row in 10^15; as e is bounded, for 6 in 10^6 at most (Hoeffding 1963). The rows that may be among
// the best, in a few hundred groups of 16, are computed from both planes: the same bits as in the whole product.

// Whether `a` comes before `b` among the best: of two with one logit the lower id.
inline bool better(const Logit& a, const Logit& b) { return a.value != b.value ? a.value > b.value : a.id < b.id; }

template <int N> bool any_above(float bar, const float* x) {  // without a branch: in vectors
    int above = 0;
    for (int i = 0; i < N; ++i) above |= x[i] > bar;
    return above != 0;
}

// The k best of n logits, sorted. One pass with a heap of k: nearly all fail at its top, and so whole strides do. A NaN
// is none of the best.
inline std::vector<Logit> take_best(const float* logits, int n, int k) {
    constexpr int kStride = 64;
    std::vector<Logit> best(usize(k));
    for (int id = 0; id < k; ++id) best[usize(id)] = {id, std::isnan(logits[id]) ? -INFINITY : logits[id]};
    if (k < n) std::make_heap(best.begin(), best.end(), better);
    for (int begin = k; begin < n; begin += kStride) {
        const int end = std::min(begin + kStride, n);
        if (end - begin == kStride && !any_above<kStride>(best.front().value, logits + begin)) continue;
        for (int id = begin; id < end; ++id) {
            if (!(logits[id] > best.front().value)) continue;
            std::pop_heap(best.begin(), best.end(), better);
            best.back() = {id, logits[id]};
            std::push_heap(best.begin(), best.end(), better);
        }
    }
    std::sort(best.begin(), best.end(), better);
    return best;
}

// The logits that a sampler draws from: of the ids 0 .. n - 1 the k best, and those of `also`.
struct Wanted {
    int n = 0, k = 0;  // k = 0: all
    std::vector<int> also{};
};

struct Likeliest {
    static constexpr float kDeviations = 8;
    ThreadPool& pool;
    const Kernels& kernels;
    Profiler& profiler;
    Buffer memory{};                          // of the following
    float* logits = nullptr;                  // [tokens][rows]: estimates, or where they are known, logits
    float* most = nullptr;                    // [tokens][groups]: see ProductBlocks
    std::vector<int> groups{};                // that are computed
    std::vector<std::vector<Logit>> found{};  // [tokens]
    // Steps to do the plain way after too many candidates (random tokens, not a text), and how many these were at first:
    // 8, then twice as many each time, until there are few candidates again.
    int resting = 0, rest = 0;

    // What the estimates take.
    static std::size_t bytes(const Matrix& head, int tokens) {
        return usize(tokens) * usize(head.groups()) * (kGroup + 1) * sizeof(float);
    }
    // Finds all that are wanted, and maybe a few more, for each token of x, with a head in planes whose lower halves are
    // random ones. False: all rows are to be computed, as that takes less.
    bool find(const Matrix& head, const Activations& x, Wanted wanted) {
        const int m = x.tokens();
        const bool few = 16 * (usize(wanted.k) + wanted.also.size()) <= usize(wanted.n) && m <= kScreen;
        if (wanted.k == 0 || !few) return false;
        if (std::exchange(resting, std::max(resting - 1, 0)) > 0 || !screen(head, x)) return false;

        const auto unknown = [&](int id) { return id < 0 || id >= wanted.n; };
        wanted.also.erase(std::remove_if(wanted.also.begin(), wanted.also.end(), unknown), wanted.also.end());
        found.assign(usize(m), {});
        std::size_t computed = 0;
        profiler.time({{"lm_head", "rows"}}, -1, m, [&] {
            for (int t = 0; t < m; ++t) computed += select(head, x, t, wanted);
        });
        if (profiler.report) {
            Timing& rows = profiler.done.back();
            rows.bytes = head.bytes / usize(head.groups()) * computed;
            rows.operations = 2 * computed * kGroup * usize(head.cols * m);
        }
        const bool too_many = 2 * computed > usize(head.groups() * m);
        resting = rest = too_many ? std::clamp(2 * rest, 8, 64) : 0;
        return true;
    }
  private:
    // Estimates of all rows. False where numbers are too large for the statistics.
    bool screen(const Matrix& head, const Activations& x) {
        const Matrix::Section& s = head.sections[0];
        const int blocks = (head.cols - 1) / kBlock + 1, m = x.tokens();
        const ActivationBlock* const a = x.tile<ActivationBlock>(0);
        std::vector<float> squares;
        for (int b = 0; b < blocks * m; ++b) {
            const int sum = std::inner_product(a[b].q, a[b].q + kBlock, a[b].q, 0);
            squares.push_back(kDeviations * kDeviations * kHalfVariance * a[b].scale * a[b].scale * float(sum));
        }
        if (!all_below(squares.data(), squares.size(), 1e30f)) return false;
        squares.resize(squares.size() + kScreen);  // read, not used
        const std::size_t rows = usize(s.end * kGroup);
        memory.grow(bytes(head, m));
        logits = memory.as<float>();
        most = logits + usize(m) * rows;
        const std::size_t operations = 2 * rows * usize(head.cols * m);
        profiler.time({{"lm_head", "screen", s.group_bytes * usize(s.end), operations}}, -1, m, [&] {
            pool.for_ranges(s.end, s.end / (pool.size() * 16), [&](int begin, int end, int) {
                kernels.screen({s.group(begin), nullptr, end - begin, blocks, a, m, logits + begin * kGroup, rows,
                                Following{}, squares.data(), most + begin});
            });
        });
        return true;
    }
    // Computes what may reach the k-th best of a token's logits that are known: first those with the best estimates.
    // Returns how many groups.
    std::size_t select(const Matrix& head, const Activations& x, int t, const Wanted& wanted) {
        float* const own = logits + usize(t) * usize(head.groups() * kGroup);
        float* const own_most = most + usize(t) * usize(head.groups());
        for (const int id : wanted.also) own[id] = -INFINITY;  // they do not set the bar
        const std::vector<Logit> best = take_best(own, wanted.n, wanted.k);
        groups.clear();
        for (const Logit& one : best) groups.push_back(one.id / kGroup);
        for (const int id : wanted.also) groups.push_back(id / kGroup);
        compute(head, x, own_most, 0);
        float bar = INFINITY;
        for (const Logit& one : best) bar = std::min(bar, own[one.id]);

        const std::size_t known = groups.size();
        for (int g = 0; g * kGroup < wanted.n; ++g)
            if (own_most[g] >= bar) groups.push_back(g);
        compute(head, x, own_most, known);

        for (const int g : groups)
            for (int id = g * kGroup; id < std::min((g + 1) * kGroup, wanted.n); ++id)
                if (own[id] >= bar || std::count(wanted.also.begin(), wanted.also.end(), id))
                    found[usize(t)].push_back({id, own[id]});
        return groups.size();
    }
    // The logits of groups[first] and the following, each once; of all tokens, as they are there.
    void compute(const Matrix& head, const Activations& x, float* own_most, std::size_t first) {
        std::sort(groups.begin() + std::ptrdiff_t(first), groups.end());
        groups.erase(std::unique(groups.begin() + std::ptrdiff_t(first), groups.end()), groups.end());
        pool.for_ranges(int(groups.size() - first), 4, [&](int begin, int end, int thread) {
            for (int i = begin; i < end; ++i) {
                const int g = groups[first + usize(i)];
                const Operand group(kernels, head, g, 1, x.tokens(), pool.scratch[usize(thread)]);
                group.product(x, 0, logits + g * kGroup, usize(head.groups() * kGroup));
                own_most[g] = -INFINITY;
            }
        });
    }
};

// ==== FORWARD ========================================================================================================
//
// A token's way through the layers. x [tokens, hidden_size] is the residual stream: every layer reads it through a
// norm, and adds to it what attention and the feed-forward network make of that:
//
//     GPT-2      x += out(attention(qkv(norm(x))))               x += down(gelu(up(norm(x))))
//     Gemma 3    x += norm(out(attention(rope(norm(q, k)), v)))  x += norm(down(gelu(gate(norm(x))) * up(norm(x))))
//     both       logits = head(norm(x))
//
// A Sequence is what belongs to a text, a Transformer is what runs it: threads and scratch. To follow a token begin at
// Transformer::run_layers. To follow a product down to its instructions: project, then multiply and Operand (MATRICES),
// then cover, tile and add_part (KERNELS, IN VECTORS).

// The value, or an Error "WHAT is out of range: VALUE: USE 1 to 8".
inline int in_range(int value, int least, int most, const char* what, const char* use, const char* unit = "") {
    if (value >= least && value <= most) return value;
    misuse(what, to_string(value), use + to_string(least) + " to " + to_string(most) + unit);
}

inline int checked_context(const Config& c, int context) {
    if (context == 0) return std::min(c.context_length, 8192);
    return in_range(context, 1, c.context_length, "the context size is out of range", "this model takes ",
                    " positions");
}

// [count, width] floats
struct Vectors {
    std::size_t width;
    Buffer memory{};

    void resize(int count) { memory.grow(usize(count) * width * sizeof(float)); }
    float* operator[](int i) const { return memory.as<float>() + usize(i) * width; }
};

// A text: its tokens, and what the layers remember of them. Those at its end may be pending: the one that generate()
// has shown last, and those that a local layer has forgotten. They go through the layers first in whatever comes next;
// the tokens that a call appends follow them, and are held once they went through.
struct Sequence {
    const Config& config;
    int context;
    std::vector<KvCache> caches;  // [num_layers]

    std::vector<int> tokens;    // that are held
    std::vector<int> coming{};  // to be appended; empty between calls
    int processed = 0;          // how many went through the layers; the others are pending
    int written = 0;            // one more than the largest position ever stored in the caches

    Vectors logits{usize(config.vocab_size)};  // [up to 12, vocab_size]
    const float* current = nullptr;            // of these, the ones after the last token; null: they are not there
    Session::OnLayer on_layer{};

    Sequence(const ModelData& model, int context_length)
        : config(model.config), context(checked_context(config, context_length)) {
        std::array<KvCache, 2> kinds = kv_caches(model, context);
        for (KvCache& kind : kinds) kind.memory = Buffer(kind.bytes());
        for (const bool local : config.is_local) kinds[local].begin += caches.emplace_back(kinds[local]).chunk_bytes();
        tokens.reserve(usize(context));
    }
    Sequence(Sequence&&) = default;  // and no copies, which would share the caches' memory

    int position() const { return int(tokens.size()); }
    int pending() const { return position() + int(coming.size()) - processed; }
    int id(int p) const { return p < position() ? tokens[usize(p)] : coming[usize(p - position())]; }

    // Holds what another one does, of the same model and context. Takes memory for what is copied.
    void copy(const Sequence& other) {
        for (std::size_t i = 0; i < caches.size(); ++i) {
            const KvCache &from = other.caches[i], &to = caches[i];
            const int chunks = round_up(std::min(other.written, from.num_slots), kChunk) / kChunk;
            if (from.begin == 0)  // the first layer of its kind: the others' chunks follow each of its own
                std::copy_n(from.memory.as<std::uint8_t>(), from.stride * usize(chunks), to.memory.as<std::uint8_t>());
        }
        tokens = other.tokens;
        processed = other.processed, written = other.written;
    }

    void check(const int* ids, int count) const {
        if (count < 1 || !ids) misuse("there are no tokens to process", to_string(count), "pass at least one");
        if (count > context - position())
            fail("the context is too small",
                 to_string(count) + " tokens after " + to_string(position()) + " do not fit into " + to_string(context),
                 "use a larger context or a shorter text", Kind::context);
        for (int i = 0; i < count; ++i)
            in_range(ids[i], 0, config.vocab_size - 1, "a token id is out of range", "this model has ids ");
    }
    // The next ones went through the layers.
    void accept(int count) {
        processed += count;
        const auto end = coming.begin() + std::max(0, processed - position());
        tokens.insert(tokens.end(), coming.begin(), end);
        coming.erase(coming.begin(), end);
    }

    // The tokens from `to` on are pending again. A local layer's cache rolls over its window and little more: from
    // further back, all are.
    void forget(int to) {
        const bool intact = std::all_of(caches.begin(), caches.end(), [&](const KvCache& cache) {
            return written <= cache.num_slots || written - to <= cache.num_slots - config.sliding_window;
        });
        processed = std::min(processed, to);
        if (!intact) processed = written = 0;
        current = nullptr;
    }
    void rewind(int to) {
        in_range(to, 0, position(), "cannot rewind to this position", "choose ");
        if (to < position()) forget(to);
        tokens.resize(usize(to));
    }

    // Makes the last token pending, so that there are logits after it soon.
    void reread() {
        if (pending() == 0) forget(position() - 1);
    }

    // The caches of the global and of the local layers, without memory.
    static std::array<KvCache, 2> kv_caches(const ModelData& model, int context) {
        const CacheFormat format = model.dtype == DType::f32 ? CacheFormat::f32 : CacheFormat::f16;
        return {KvCache(model.config, false, context, format), KvCache(model.config, true, context, format)};
    }
};

// What x, y, qkv, attended and angles below refer to. Model loading has made sure that their widths are moderate.
inline std::array<Vectors, 5> scratch_for(const Config& c) {
    const std::size_t hidden = usize(c.hidden_size), head = usize(c.head_dim);
    const std::size_t q = usize(c.num_heads) * head, kv = usize(c.num_kv_heads) * head;
    return {{{hidden}, {hidden}, {q + 2 * kv}, {q}, {2 * head}}};
}

// Tokens of a sequence that go through the layers together with those of others.
struct Span {
    Sequence* sequence;
    int count, first = 0, position = 0;  // which of all tokens is its first, and where in the text that is
};

struct Transformer {
    const ModelData& model;
    const Config& config = model.config;
    const Kernels& kernels = *model.kernels;
    ThreadPool pool;
    Profiler profiler{pool};
    Attention attention{pool, kernels, config};
    Likeliest likeliest{pool, kernels, profiler};

    bool busy = false;  // a call is going on, whose InUse holds the mutex
#ifndef LLM_NO_THREADS
    std::recursive_mutex mutex;
#endif

    std::array<Vectors, 5> scratch = scratch_for(config);
    Vectors &x = scratch[0], &y = scratch[1];  // [n, hidden_size]: the residual stream; a layer's addition to it
    Vectors& qkv = scratch[2];                 // [n, (num_heads + 2 num_kv_heads) * head_dim]
    Vectors& attended = scratch[3];            // [n, num_heads * head_dim]
    Vectors& angles = scratch[4];              // [n, 2 (global, local), 2 (cos, sin), head_dim / 2]

    // What products read: norm(x) for qkv, up and head; what attention found for out; what was activated for down.
    Activations normed, mixed, activated;

    // The chunk that is being processed: n tokens, and whose they are.
    std::vector<Span> spans, neighbours;  // neighbours: parts of spans that share a group of 16 positions of a cache
    int n = 0, layer = -1;
    std::vector<int> ids, positions;     // [n]
    std::vector<AttentionInput> inputs;  // of each span

    Transformer(const ModelData& m, int context, int threads) : model(m), pool(checked_threads(threads)) {
        for (Vectors& vectors : scratch) vectors.resize(std::min(context, kBatch));
        for (Buffer& row : pool.scratch) row.grow(usize(config.hidden_size) * sizeof(float));
    }

    // Takes the next tokens of any sequences through all layers, at most 256 of each: afterwards x holds what they have
    // become, and the sequences hold them. Positions, caches and attention alone know whose they are.
    void run_layers(std::vector<Span> chunk) {
        begin(std::move(chunk));
        embed();
        if (model.architecture->has_rope) prepare_angles();
        // normalize, attend and activate are also told which product reads their result, to pack it for that one.
        for (layer = 0; layer < config.num_layers; ++layer) {
            const Layer& l = model.weights.layers[usize(layer)];

            normalize("attn_norm", l.attn_norm, l.qkv);                                   // normed = norm(x)
            project("qkv", l.qkv, normed, qkv);                                           // qkv = W normed + b
            if (model.architecture->has_rope) norm_and_rotate(l);                         // q and k, in place
            attend(l.out);                                                                // mixed = softmax(q K^T) V
            add_projected("attn_out", l.out, mixed, "post_attn_norm", l.post_attn_norm);  // x += out(mixed)

            normalize("ffn_norm", l.ffn_norm, l.up);                                     // normed = norm(x)
            activate(l.up, l.down);                                                      // activated = gelu(up(normed))
            add_projected("down", l.down, activated, "post_ffn_norm", l.post_ffn_norm);  // x += down(activated)

            for (const Span& s : spans)
                if (s.sequence->on_layer) s.sequence->on_layer(layer, s.position, s.count, x[s.first]);
            profiler.restart();  // what the hooks took is nobody's
        }
        layer = -1;
        for (const Span& s : spans) s.sequence->accept(s.count);
    }

    // A step of pending tokens: one of each sequence at least, and at most `most` in all, those of the first sequences
    // first. A sequence that has none left gets its logits.
    void step(const std::vector<Sequence*>& sequences, int most) {
        std::vector<Span> chunk;
        int total = 0, others = int(sequences.size());
        for (Sequence* s : sequences) {
            const int count = std::min({s->pending(), kBatch, most - total - --others});  // one is left for each other
            chunk.push_back({s, count});
            total += count;
        }

        profiler.step(total, [&] {
            run_layers(std::move(chunk));
            std::vector<Span> outputs;
            for (const Span& s : spans)
                if (s.sequence->pending() == 0) outputs.push_back({s.sequence, 1, s.first + s.count - 1});
            if (!outputs.empty()) compute_logits(outputs);
        });
    }

    // ---- the steps that it is made of

    void begin(std::vector<Span> chunk) {
        spans = std::move(chunk);
        layer = -1;
        ids.clear(), positions.clear(), neighbours.clear();
        for (Span& s : spans) {
            s.first = int(ids.size());
            s.position = s.sequence->processed;
            s.sequence->current = nullptr;
            s.sequence->written = std::max(s.sequence->written, s.position + s.count);  // also if an exception ends it

            for (int p = s.position; p < s.position + s.count; ++p) {
                if (p == s.position || p % kGroup == 0) neighbours.push_back({s.sequence, 0, int(ids.size()), p});
                ++neighbours.back().count;
                ids.push_back(s.sequence->id(p));
                positions.push_back(p);
            }
        }
        n = int(ids.size());
        for (Vectors& vectors : scratch) vectors.resize(n);
    }

    // An operation on so many tokens in so many items: body(i, row) for each; row is the scratch of its thread.
    template <class Body> void each_item(const Timing& operation, int tokens, int items, const Body& body) {
        profiler.time({operation}, layer, tokens, [&] {
            pool.for_ranges(items, (items - 1) / (4 * pool.size()) + 1, [&](int begin, int end, int thread) {
                for (int i = begin; i < end; ++i) body(i, pool.scratch[usize(thread)].as<float>());
            });
        });
    }
    template <class Body> void each_token(const Timing& operation, int tokens, const Body& body) {
        each_item(operation, tokens, tokens, body);
    }

    // x = rows of the embedding, scaled (Gemma) or with the position's vector added (GPT-2)
    void embed() {
        const Matrix& w = model.weights.embedding;
        const std::vector<float>& learnt = model.weights.positions;
        const int d = config.hidden_size;
        each_token({"embedding", "embedding", usize(n) * (w.bytes / usize(w.groups()))}, n, [&](int t, float*) {
            w.row(ids[usize(t)], x[t]);
            if (model.architecture->scales_embedding) kernels.scale(std::sqrt(float(d)), d, x[t]);
            if (!learnt.empty()) kernels.axpy(1.0f, learnt.data() + usize(positions[usize(t)]) * usize(d), d, x[t]);
        });
    }

    // RMSNorm, or LayerNorm (Ba et al. 2016), which is RMSNorm of what deviates from the mean, and a bias. Returns
    // `to`.
    float* norm(const Norm& w, const float* from, float* to) const {
        const int d = int(w.w.size());
        if (!w.b.empty()) kernels.center(std::exchange(from, to), d, to);
        kernels.rms_norm(from, w.w.data(), config.norm_eps, d, to);
        if (!w.b.empty()) kernels.axpy(1.0f, w.b.data(), d, to);
        return to;
    }
    static Timing norm_timing(const char* name, const Norm& w, int count) {
        return {"norm", name, (w.w.size() + w.b.size()) * sizeof(float), 4 * w.w.size() * usize(count)};
    }

    // normed = norm(x), as the product that comes next takes it; of all tokens of the chunk, or of some
    void normalize(const char* name, const Norm& w, const Linear& next, const std::vector<int>& some = {}) {
        const int count = some.empty() ? n : int(some.size());
        normed.resize(next.w, count);
        each_token(norm_timing(name, w, count), count, [&](int t, float* row) {
            normed.set(kernels, t, 0, norm(w, x[some.empty() ? t : some[usize(t)]], row), config.hidden_size);
        });
    }

    // epilogue(t, row, y, count) for y = W from + b, with so many groups together: see multiply. An epilogue that is an
    // activation is timed by its name.
    template <class Epilogue> void project(const char* name, const Linear& l, const Activations& from,
                                           const Epilogue& epilogue, int groups = 1, const char* activation = nullptr) {
        const int m = from.tokens();
        const Timing product{name, name, l.w.bytes, 2ull * usize(l.w.rows) * usize(l.w.cols) * usize(m)};

        const auto run = [&] {
            multiply(pool, kernels, l.w, from, groups, [&](int t, int row, float* values, int count) {
                if (!l.b.empty()) kernels.axpy(1.0f, l.b.data() + row, count, values);
                epilogue(t, row, values, count);
            });
        };

        if (!activation) profiler.time({product}, layer, m, run);
        else profiler.time({product, {"activation", activation}}, layer, m, run);
    }
    // to = W from + b
    void project(const char* name, const Linear& l, const Activations& from, Vectors& to) {
        project(name, l, from, [&](int t, int row, float* v, int count) { std::copy_n(v, count, to[t] + row); });
    }

    // x += W from + b, or x += norm(W from + b)
    void add_projected(const char* name, const Linear& l, const Activations& from, const char* norm_name,
                       const Norm& w) {
        const auto add = [&](int t, int row, float* v, int count) { kernels.axpy(1, v, count, x[t] + row); };
        if (w.w.empty()) return project(name, l, from, add);
        project(name, l, from, y);
        each_token(norm_timing(norm_name, w, n), n,
                   [&](int t, float* row) { kernels.axpy(1.0f, norm(w, y[t], row), config.hidden_size, x[t]); });
    }

    // activated = activation(W normed + b), or activation(gate) * up, whose rows alternate in W; in whole blocks of 32
    void activate(const Linear& l, const Linear& next) {
        const bool gated = model.architecture->is_gated;
        const auto activation = kernels.*(model.architecture->activation);
        activated.resize(next.w, n);
        const auto apply = [&](int t, int row, float* v, int count) {
            if (gated) count = kGateRows;
            activation(v, gated ? v + kGateRows : nullptr, count, v);
            activated.set(kernels, t, gated ? row / 2 : row, v, count);
        };
        project("up", l, normed, apply, (gated ? 2 * kGateRows : kBlock) / kGroup, "gelu");
    }

    // RoPE's cosines and sines for the chunk's positions, which all layers share.
    void prepare_angles() {
        const int half = config.head_dim / 2;
        each_token({"rope", "angles"}, n, [&](int t, float*) {
            float *const out = angles[t], p = float(positions[usize(t)]);
            kernels.angles(p, model.rope_global.data(), half, out, out + half);
            kernels.angles(p, model.rope_local.data(), half, out + 2 * half, out + 3 * half);
        });
    }

    // RMSNorm where there is one, then RoPE, of each query head and of the key heads, which follow in a token's row of
    // qkv.
    void norm_and_rotate(const Layer& l) {
        const int d = config.head_dim;
        each_token({"rope", "norm_rotate"}, n, [&](int t, float*) {
            const float* cos = angles[t] + (config.is_local[usize(layer)] ? d : 0);
            for (int h = 0; h < config.num_heads + config.num_kv_heads; ++h) {
                float* head = qkv[t] + h * d;
                const Norm& w = h < config.num_heads ? l.q_norm : l.k_norm;
                if (!w.w.empty()) norm(w, head, head);
                kernels.rotate(head, cos, cos + d / 2, d / 2);
            }
        });
    }

    // mixed = attention of the chunk's queries over the caches, to which the chunk's keys and values are added first
    void attend(const Linear& out) {
        store_keys_and_values();

        // What the queries see of the caches: the positions that any of them does, and the sum over all.
        const int window = config.is_local[usize(layer)] ? config.sliding_window : 0;
        std::size_t seen = 0, pairs = 0;
        inputs.clear();
        for (const Span& s : spans) {
            const KvCache& cache = s.sequence->caches[usize(layer)];
            inputs.push_back({&cache, qkv[s.first], qkv.width, s.count, s.position, window, attended[s.first]});
            seen += usize(inputs.back().high() - inputs.back().low()) * cache.bytes_per_slot(config.head_dim);
        }
        for (const int p : positions) pairs += usize(window ? std::min(window, p + 1) : p + 1);
        const std::size_t operations = 2 * pairs * attended.width;
        const Timing qk = {"attention", "qk", seen, operations}, av = {"attention", "av", seen, operations};
        profiler.time({qk, {"attention", "softmax"}, av, {"attention", "merge"}}, layer, n,
                      [&] { attention.run(inputs); });

        mixed.resize(out.w, n);
        each_token({"attention", "pack"}, n, [&](int t, float*) { mixed.set(kernels, t, 0, attended[t], out.w.cols); });
    }

    // An item is a head of tokens that share their lines of K.
    void store_keys_and_values() {
        const int d = config.head_dim, heads = config.num_kv_heads, items = int(neighbours.size()) * heads;
        const KvCache& any = spans[0].sequence->caches[usize(layer)];
        const bool in_f16 = any.value_bytes() == 2;
        const auto store = in_f16 ? &KvCache::store<std::uint16_t> : &KvCache::store<float>;

        each_item({"attention", "kv_store", 2 * usize(n) * any.bytes_per_slot(d)}, n, items, [&](int i, float*) {
            const Span& some = neighbours[usize(i / heads)];
            const int h = i % heads;
            for (int t = 0; t < some.count; ++t) {
                const float *key = qkv[some.first + t] + (config.num_heads + h) * d, *value = key + heads * d;
                if (!(some.sequence->caches[usize(layer)].*store)(kernels, h, some.position + t, key, value))
                    fail(std::string("keys or values of this text are ") +
                             (in_f16 ? "beyond the KV cache's F16, 65504" : "infinite or no numbers"),
                         "layer " + to_string(layer),
                         in_f16 ? "run the model in F32: --dtype f32, or DType::f32" : "check the model");
            }
        });
    }

    // ---- after the last layer

    // The last norm of a token of the chunk, [hidden_size]; valid until the next call.
    const float* final_hidden(int t) const {
        const IeeeFloats rounding;
        return norm(model.weights.final_norm, x[t], pool.scratch[0].as<float>());
    }

    // The logits after these tokens of the chunk, which their sequences hold then; returns the first one's. Null:
    // instead, all that are wanted are in likeliest.found.
    const float* compute_logits(const std::vector<Span>& after, const Wanted& wanted = {}) {
        const Linear& head = model.weights.head;
        const float cap = config.final_logit_softcapping;

        std::vector<int> tokens;
        std::vector<float*> logits;  // of each of them
        for (const Span& s : after) {
            s.sequence->logits.resize(s.count);
            for (int i = 0; i < s.count; ++i) tokens.push_back(s.first + i), logits.push_back(s.sequence->logits[i]);
        }

        normalize("final_norm", model.weights.final_norm, head, tokens);
        if (!(cap > 0) && model.weights.has_random_halves && likeliest.find(head.w, normed, wanted)) return nullptr;
        project("lm_head", head, normed, [&](int t, int row, float* v, int rows) {
            for (int i = 0; cap > 0 && i < rows; ++i)  // tanh(z) = 1 - 2 / (1 + e^2z)
                v[i] = cap * float(1 - 2 / (1 + exponential(2 * double(v[i] / cap))));
            std::copy_n(v, rows, logits[usize(t)] + row);
        });
        return logits[0];
    }
};

// What a Session holds. Its functions are the session's, without the frame that the profiler puts around a step.
struct SessionData {
    Model owner;  // keeps the weights alive
    Sequence sequence;
    std::shared_ptr<Transformer> runner;  // forks share it
    Transformer& transformer = *runner;

    bool busy = false, runs = false;  // a call is going on; it has the Transformer for itself
    std::function<void(const Timing&)> on_timing{};

    SessionData(const Model& m, int context, int threads)
        : owner(m), sequence(m.data(), context),
          runner(std::make_shared<Transformer>(m.data(), sequence.context, threads)) {}
    explicit SessionData(const SessionData& other)  // a fork
        : owner(other.owner), sequence(owner.data(), other.sequence.context), runner(other.runner) {
        sequence.copy(other.sequence);
    }

    // Takes what is pending and then all ids, which were checked, through the layers, a batch at a time; after each,
    // on_batch(tokens done, of all), unless it is null. False ends it.
    bool run_batches(const int* ids, int count, const std::function<bool(int, int)>& on_batch) {
        sequence.coming.assign(ids, ids + count);

        const int all = sequence.pending();
        while (sequence.pending() > 0) {
            transformer.run_layers({{&sequence, std::min(kBatch, sequence.pending())}});
            if (on_batch && !on_batch(all - sequence.pending(), all)) return false;
            transformer.profiler.restart();
        }
        return true;
    }

    // The logits after the last token. Null if on_batch ends it, or if all that are wanted are in
    // transformer.likeliest.
    const float* forward(const int* ids, int count, const std::function<bool(int, int)>& on_batch = {},
                         const Wanted& wanted = {}) {
        if (!run_batches(ids, count, on_batch)) return nullptr;
        return sequence.current = transformer.compute_logits({{&sequence, 1, transformer.n - 1}}, wanted);
    }

    // Hands out the logits after each token, or the hidden states that they would be made of.
    void forward_each(const int* ids, int count, bool hidden, const std::function<void(int, const float*)>& on_output) {
        sequence.check(ids, count);
        if (!on_output) misuse("there is no callback", "null", "pass a function");
        const int pending = sequence.pending();
        run_batches(ids, count, [&](int done, int) {
            // Which of the ids is the batch's first; below 0 are those that were pending.
            const int n = transformer.n, begin = done - n - pending, first = std::max(0, -begin);
            for (int t = first; t < n; ++t) {
                const int row = (t - first) % kTile;
                if (!hidden && row == 0) transformer.compute_logits({{&sequence, std::min(kTile, n - t), t}});
                on_output(begin + t, hidden ? transformer.final_hidden(t) : sequence.logits[row]);
                if (!hidden && t == n - 1) sequence.current = sequence.logits[row];
                transformer.profiler.restart();
            }
            return true;
        });
    }

    // Logits after the pending token and up to 11 guesses that may follow it. The caches hold the guesses too: one that
    // is appended then need only be counted as processed. Null: all that is wanted is in transformer.likeliest.
    const float* try_out(const std::vector<int>& guesses, const Wanted& wanted) {
        sequence.coming = guesses;
        transformer.run_layers({{&sequence, sequence.pending()}});
        sequence.tokens.resize(sequence.tokens.size() - guesses.size());
        sequence.processed = sequence.position();
        return transformer.compute_logits({{&sequence, transformer.n}}, wanted);
    }

    // The logits after the last token that is held, or null as from forward.
    const float* logits(const Wanted& wanted = {}) {
        if (sequence.current && sequence.pending() == 0) return sequence.current;
        if (sequence.position() == 0) misuse("there are no logits", "the session holds nothing", "call forward first");
        sequence.reread();
        return forward(nullptr, 0, {}, wanted);
    }
};

// So many ids, as an int: too many for one are too many for every context.
inline int count_of(const std::vector<int>& ids) { return int(std::min<std::size_t>(ids.size(), INT_MAX)); }

// A session while one of its functions runs. What is called back meanwhile cannot call another one. Forks share a
// Transformer, so those of several threads take turns.
struct InUse {
    const std::shared_ptr<SessionData> kept;  // whatever a callback does to the session
    SessionData& data = *kept;
    bool runs;  // it has the Transformer for itself
#ifndef LLM_NO_THREADS
    std::unique_lock<std::recursive_mutex> turn = runs ? std::unique_lock(data.transformer.mutex) : decltype(turn)();
#endif

    explicit InUse(const Session& session, bool takes = true) : kept(session.data()), runs(takes) {
        if (data.busy || (runs && data.transformer.busy))
            misuse("the session is in use", "a callback calls its own session or a fork of it, or it is named twice",
                   "call it afterwards");
        if (runs) data.transformer.profiler.listen(data.on_timing);  // may throw: nothing is busy yet
        data.busy = true;
        if (runs) data.transformer.busy = data.runs = true;
    }
    ~InUse() {
        data.busy = data.runs = false;
        data.sequence.coming.clear();  // what an exception or a callback left over
        if (runs) data.transformer.busy = false;
    }

    InUse(const InUse&) = delete;
    SessionData* operator->() const { return &data; }
    // Runs body(data), a step of n tokens, and returns the logits after the last one.
    template <class Body> const float* step(int n, const Body& body) const {
        data.transformer.profiler.step(n, [&] { body(data); });
        return data.sequence.current;
    }
};

}  // namespace detail

Session::Session(const Model& model, int context, int threads)
    : data_(std::make_shared<detail::SessionData>(model, context, threads)) {}
const std::shared_ptr<detail::SessionData>& Session::data() const {
    if (!data_) detail::misuse("there is no session", "a moved-from llm::Session", "use the one it became");
    return data_;
}
const float* Session::forward(const int* ids, int n) {
    return detail::InUse(*this).step(n, [&](auto& data) { data.sequence.check(ids, n), data.forward(ids, n); });
}
const float* Session::forward(const std::vector<int>& ids) { return forward(ids.data(), detail::count_of(ids)); }

void Session::forward_each(const int* ids, int n, const std::function<void(int i, const float* logits)>& on_logits) {
    detail::InUse(*this).step(n, [&](auto& data) { data.forward_each(ids, n, false, on_logits); });
}
void Session::forward_hidden(const int* ids, int n, const std::function<void(int i, const float*)>& on_hidden) {
    detail::InUse(*this).step(n, [&](auto& data) { data.forward_each(ids, n, true, on_hidden); });
}
const float* Session::logits() {
    return detail::InUse(*this).step(1, [](auto& data) { data.logits(); });
}
std::vector<Logit> Session::best(int k) { return forward_best(nullptr, 0, k); }
std::vector<Logit> Session::forward_best(const int* ids, int n, int k) {
    using namespace detail;
    std::vector<Logit> best;
    InUse(*this).step(std::max(n, 1), [&](SessionData& data) {
        const int texts = model().sampleable(), choices = texts ? texts : model().config().vocab_size;
        if (ids || n != 0) data.sequence.check(ids, n);
        in_range(k, 1, choices, "the number of logits is out of range", "use ");
        const float* const all = n > 0 ? data.forward(ids, n, {}, {choices, k}) : data.logits({choices, k});

        data.transformer.profiler.time({{"sampling", "best"}}, -1, 1, [&] {
            best = all ? take_best(all, choices, k) : data.transformer.likeliest.found[0];
            std::sort(best.begin(), best.end(), better);
            best.resize(usize(k));
        });
    });
    return best;
}

const std::vector<int>& Session::tokens() const { return data()->sequence.tokens; }
int Session::position() const { return data()->sequence.position(); }
int Session::context() const { return data()->sequence.context; }
int Session::threads() const { return data()->transformer.pool.size(); }
const Model& Session::model() const { return data()->owner; }

void Session::rewind(int position) { detail::InUse(*this)->sequence.rewind(position); }
void Session::on_layer(OnLayer hook) { detail::InUse(*this)->sequence.on_layer = std::move(hook); }
void Session::on_timing(std::function<void(const Timing&)> report) {
    data()->on_timing = std::move(report);
    if (data()->runs) data()->transformer.profiler.listen(data()->on_timing);
}
Session Session::fork() const {
    return Session(std::make_shared<detail::SessionData>(detail::InUse(*this, false).data));
}

void forward_together(const std::vector<Session*>& sessions, const std::vector<std::vector<int>>& tokens) {
    using namespace detail;
    if (sessions.empty() || sessions.size() != tokens.size())
        misuse("each session needs its tokens", to_string(sessions.size()) + " and " + to_string(tokens.size()),
               "pass as many of both, and at least one");

    std::deque<InUse> uses;
    std::vector<Sequence*> all;
    for (std::size_t i = 0; i < sessions.size(); ++i) {
        if (!sessions[i]) misuse("there is no session", "a null pointer", "pass sessions");
        const InUse& use = uses.emplace_back(*sessions[i], i == 0);
        if (&use->owner.data() != &uses[0]->owner.data())
            misuse("the sessions are of several models", "forward_together", "pass sessions of one");
        use->sequence.check(tokens[i].data(), count_of(tokens[i]));
        use->sequence.coming = tokens[i];
        all.push_back(&use->sequence);
    }

    for (std::vector<Sequence*> rest = all; !rest.empty();) {
        uses[0]->transformer.step(rest, std::max(kBatch, int(rest.size())));
        rest.erase(std::remove_if(rest.begin(), rest.end(), [](auto* s) { return s->pending() == 0; }), rest.end());
    }
    for (Sequence* s : all) s->current = s->logits[0];
}

std::size_t Model::session_bytes(int context, int sessions) const {
    using namespace detail;
    const Config& c = config();
    const Weights& w = data().weights;
    context = checked_context(c, context);
    if (sessions < 1 || sessions > 1 << 30)
        misuse("the number of sessions is out of range", to_string(sessions), "ask for 1 to 2^30");

    std::size_t batched = 0;  // of a token in a batch
    for (const Vectors& vectors : scratch_for(c)) batched += vectors.width * sizeof(float);
    for (const Matrix* m : {&w.head.w, &w.layers[0].out.w, &w.layers[0].down.w})
        batched += Activations::row_bytes(m->takes_integers(), m->cols);

    std::size_t each = usize(c.vocab_size) * sizeof(float) + usize(context) * sizeof(int);  // logits; ids
    for (const KvCache& cache : Sequence::kv_caches(data(), context)) each += usize(cache.bytes());
    const int together = sessions > 1 ? std::max(kBatch, sessions + kBeside) : std::min(context, kBatch);
    if (each > SIZE_MAX / 2 / usize(sessions)) throw std::bad_alloc();
    const std::size_t estimates = w.has_random_halves ? Likeliest::bytes(w.head.w, 1) : 0;
    return usize(together) * batched + estimates + usize(sessions) * each;
}

namespace detail {

// ==== SAVED SESSIONS =================================================================================================
//
// A session as bytes: a header, the tokens, what the caches hold of them, and a hash of all that. The caches are saved
// position by position, not as they lie in memory, so a session goes on in another one with another context.

struct StateHeader {
    char magic[8] = {'l', 'l', 'm', 's', 't', 'a', 't', 'e'};
    std::uint32_t version = 2;
    std::int32_t held = 0, processed = 0, written = 0;  // as in Sequence; held: all tokens
    std::uint64_t model = 0;                            // fingerprint
};
static_assert(sizeof(StateHeader) == 32, "it is written as it is");

// Tells apart any two that differ in one word of 8 bytes, at the memory's speed: only one of the four multiplications
// has to wait for the words before.
inline std::uint64_t hash(std::uint64_t h, const void* data, std::size_t bytes) {
    constexpr std::uint64_t kOdd[] = {0x9E3779B97F4A7C15u, 0xBF58476D1CE4E5B9u, 0x94D049BB133111EBu};
    for (std::size_t i = 0; i < bytes; i += 32) {
        std::uint64_t words[4] = {};
        const char* const from = static_cast<const char*>(data) + i;
        bytes - i < 32 ? std::memcpy(words, from, bytes - i) : std::memcpy(words, from, 32);
        h = (h ^ (words[0] + words[1] * kOdd[0] + words[2] * kOdd[1] + words[3] * kOdd[2])) * kOdd[0];
        h ^= h >> 32;
    }
    return h;
}

// Of all that decides what a model says: its configuration and every weight. It is made once.
inline std::uint64_t fingerprint(const ModelData& model) {
    if (model.fingerprint) return model.fingerprint;
    const Config& c = model.config;
    std::vector<float> numbers = {
        c.final_logit_softcapping, float(int(model.dtype)), float(c.vocab_size), float(c.sliding_window), c.norm_eps,
        c.attention_scale};
    for (const Size& size : kSizes) numbers.push_back(float(c.*size.member));  // exact: sizes are at most 2^24
    numbers.insert(numbers.end(), c.is_local.begin(), c.is_local.end());

    const Weights& w = model.weights;
    std::uint64_t h = 0;
    const auto add = [&h](const auto&... x) { ((h = hash(h, x.data(), x.size() * sizeof x[0])), ...); };
    add(c.architecture, numbers, model.rope_global, model.rope_local, w.positions, w.final_norm.w, w.final_norm.b);
    for (const Matrix* m : {&w.embedding, &w.head.w}) h = hash(h, m->data, m->bytes);
    for (const Layer& l : w.layers) {
        for (const Linear* m : {&l.qkv, &l.out, &l.up, &l.down}) h = hash(h, m->w.data, m->w.bytes), add(m->b);
        for (const Norm* n : {&l.attn_norm, &l.ffn_norm, &l.post_attn_norm, &l.post_ffn_norm, &l.q_norm, &l.k_norm})
            add(n->w, n->b);
    }
    return model.fingerprint = h | 1;
}

// transfer(memory, bytes) for all that a state has between its header and its sum: the tokens, and what the caches hold
// of those processed, by groups of 16 positions; for local layers, the window that a session with the model's whole
// context keeps. So a state fits into a session of another context.
template <class Transfer> void each_part(Sequence& q, const StateHeader& header, const Transfer& transfer) {
    transfer(q.tokens.data(), usize(header.held) * sizeof(int));
    for (std::size_t layer = 0; layer < q.caches.size(); ++layer) {
        const KvCache& cache = q.caches[layer];
        const int kept = KvCache::slots_for(q.config, q.config.is_local[layer], q.config.context_length);
        for (int head = 0; head < cache.num_kv_heads; ++head)
            for (int p = std::max(0, header.processed - kept) / kGroup * kGroup; p < header.processed; p += kGroup) {
                transfer(cache.keys<void>(head, p % cache.num_slots),
                         usize(kGroup * cache.head_dim) * cache.value_bytes());
                transfer(cache.values<void>(head, p % cache.num_slots),
                         usize(kGroup * cache.pitch) * cache.value_bytes());
            }
    }
}

inline std::string save_state(SessionData& s) {
    Sequence& q = s.sequence;
    StateHeader header;
    header.held = q.position(), header.processed = q.processed, header.written = q.written;
    header.model = fingerprint(s.owner.data());

    std::string bytes;
    const auto put = [&](const void* data, std::size_t n) { bytes.append(static_cast<const char*>(data), n); };
    put(&header, sizeof header);
    each_part(q, header, put);
    const std::uint64_t sum = hash(0, bytes.data(), bytes.size());
    put(&sum, sizeof sum);
    return bytes;
}

// Writes a file under another name until it is complete. What stands there and is no file (a device) stays.
inline void write_file(const std::string& path, const std::string& bytes) {
    const auto status = status_of(path);
    if (exists(status) && !is_regular_file(status)) fail("not a file", path, "name another one", Kind::system);
    std::error_code error, ignored;
    std::filesystem::path target = weakly_canonical(to_path(path), ignored);  // where a link leads
    if (target.empty()) target = to_path(path);                               // the system cannot say it

    std::filesystem::path part = target;
    part += ".part";
    errno = 0;
    std::ofstream file(part, std::ios::binary | std::ios::trunc);
    file.write(bytes.data(), std::streamsize(bytes.size()));
    if (!file.flush()) error.assign(errno ? errno : EIO, std::generic_category());
    file.close();  // Windows neither renames nor removes what is open

    if (!error) std::filesystem::rename(part, target, error);
    if (!error) return;
    std::filesystem::remove(part, ignored);
    fail("cannot write the session (" + error.message() + ")", path, "check the directory and the space that is left",
         Kind::system);
}

// Nothing of s is changed before all is known to be good.
inline void load_state(SessionData& s, const File& file) {
    Sequence& q = s.sequence;
    const auto require = [&](bool good, const std::string& what, const std::string& remedy, Kind kind = Kind::file) {
        if (!good) fail(what, file.path(), remedy, kind);
    };
    const auto intact = [&](bool good) { require(good, "the saved session is damaged", "save it again"); };

    // The header: is it one, of this version and model, and does it fit?
    StateHeader header{""}, expected;  // what is too short has no magic
    if (file.size() >= sizeof header) file.read(0, &header, sizeof header);
    require(std::memcmp(header.magic, expected.magic, 8) == 0, "not a saved session", "name a file that save() wrote");
    require(header.version == expected.version, "a saved session of version " + to_string(header.version),
            "save it again with this version");
    require(header.model == fingerprint(s.owner.data()), "the session is of another model",
            "load it with the model and dtype that it was saved from");
    intact(header.processed >= 0 && header.processed <= std::min(header.held, header.written) &&
           header.written <= q.config.context_length);
    require(header.held <= q.context, "the saved session is too long: " + to_string(header.held) + " tokens",
            "use a context of as many or more", Kind::context);

    // The rest: its size, its sum, its tokens.
    std::uint64_t size = sizeof header + sizeof(std::uint64_t);
    each_part(q, header, [&](const void*, std::size_t bytes) { size += bytes; });
    intact(file.size() == size);
    const std::string saved = file.text(0, size);
    const char *at = saved.data() + sizeof header, *const sum = saved.data() + saved.size() - sizeof(std::uint64_t);
    intact(hash(0, saved.data(), usize(sum - saved.data())) == load_as<std::uint64_t>(sum));
    for (std::size_t i = 0; i < usize(header.held); ++i)
        intact(load_as<std::uint32_t>(at + i * sizeof(int)) < std::uint32_t(q.config.vocab_size));

    q.rewind(0);
    q.tokens.resize(usize(header.held));
    each_part(q, header, [&](void* p, std::size_t n) { std::memcpy(p, std::exchange(at, at + n), n); });
    q.processed = header.processed;
    q.written = header.written;
}

}  // namespace detail

std::string Session::save_bytes() const { return save_state(detail::InUse(*this).data); }
void Session::load_bytes(std::string_view b) { load_state(detail::InUse(*this).data, {b, "the session in memory"}); }
void Session::save(const std::string& path) const { detail::write_file(path, save_bytes()); }
void Session::load(const std::string& path) { load_state(detail::InUse(*this).data, detail::File(path)); }

// ==== SAMPLING =======================================================================================================
//
// From logits to a token. It is drawn with the probability softmax(logits / temperature), from the candidates that the
// filters leave: the k likeliest, of these the ones that together have probability p (nucleus sampling,
// arXiv:1904.09751), of these the ones not much less likely than the first (min-p, arXiv:2407.01082). Candidates are
// sorted, best first; the vocabulary may have 262144 of them, so only as many are sorted as the filters need.

namespace detail {

inline void check_option(const char* name, double x, double least, double most, const char* remedy) {
    if (!(x >= least && x <= most)) misuse(std::string(name) + " is out of range", to_string(x), remedy);
}

inline float with_penalty(float logit, float penalty) { return logit > 0 ? logit / penalty : logit * penalty; }

}  // namespace detail

Sampler::Sampler(const Sampling& options) : options_(options), state_(options.seed) {
    const auto check = detail::check_option;
    check("temperature", options.temperature, 0, 1e6, "use 0 (the likeliest token) or more");
    check("top_p", options.top_p, 0, 1, "use 0 to 1");
    check("min_p", options.min_p, 0, 1, "use 0 to 1");
    check("repeat_penalty", options.repeat_penalty, 1e-45, 1e6, "use a positive number, 1 for none");
    check("top_k", options.top_k, 0, INT_MAX, "use 0 (all tokens) or more");
    check("repeat_last_n", options.repeat_last_n, 0, 1 << 24, "use 0 to 16777216");
}

void Sampler::accept(int id) {
    recent_.push_back(id);
    if (recent_.size() > detail::usize(options_.repeat_last_n)) recent_.pop_front();
}

std::vector<int> Sampler::penalized() const {
    if (options_.repeat_penalty == 1.0f) return {};
    std::vector<int> ids(recent_.begin(), recent_.end());
    std::sort(ids.begin(), ids.end());
    ids.erase(std::unique(ids.begin(), ids.end()), ids.end());
    return ids;
}

int Sampler::sample(const float* logits, int n) {
    using namespace detail;
    if (n < 1 || !logits) misuse("there are no logits to sample from", std::to_string(n), "pass a vocabulary's");
    const IeeeFloats rounding;
    const std::vector<int> ids = penalized();
    std::vector<float> changed(logits, ids.empty() ? logits : logits + n);
    for (const int id : ids)
        if (id >= 0 && id < n) changed[usize(id)] = with_penalty(logits[id], options_.repeat_penalty);
    return draw(take_best(ids.empty() ? logits : changed.data(), n, draws_from() ? std::min(draws_from(), n) : n));
}

int Sampler::sample(std::vector<Logit> candidates) {
    using namespace detail;
    if (candidates.empty()) misuse("there are no logits to sample from", "0", "pass one or more");
    const IeeeFloats rounding;
    const std::vector<int> ids = penalized();
    for (Logit& c : candidates) {
        if (std::binary_search(ids.begin(), ids.end(), c.id)) c.value = with_penalty(c.value, options_.repeat_penalty);
        if (std::isnan(c.value)) c.value = -INFINITY;  // none of the best
    }
    std::sort(candidates.begin(), candidates.end(), better);
    if (draws_from()) candidates.resize(std::min(candidates.size(), usize(draws_from())));
    return draw(std::move(candidates));
}

int Sampler::draw(std::vector<Logit> c) {
    using namespace detail;
    const float best = c[0].value;
    if (c.size() == 1 || !std::isfinite(best)) return c[0].id;

    // The first candidates whose probabilities at this temperature add up to `share`: the index of their last. With a
    // random share that is a draw: it hits each candidate as often as its probability says.
    const auto reach = [&](double share, float temperature) {
        std::vector<double> weights;  // relative to the best's
        for (const Logit& x : c) weights.push_back(exponential((double(x.value) - best) / temperature));
        const double wanted = share * std::accumulate(weights.begin(), weights.end(), 0.0);
        std::size_t last = 0;
        for (double sum = weights[0]; sum < wanted; sum += weights[last]) ++last;
        return last;
    };
    if (options_.top_p < 1) c.resize(reach(options_.top_p, 1) + 1);
    const auto likely = [&](const Logit& x) { return exponential(double(x.value) - best) >= options_.min_p; };
    c.erase(std::partition_point(c.begin(), c.end(), likely), c.end());
    return c[reach(next_uniform(state_), options_.temperature)].id;
}

double log_probability(const float* logits, int n, int id) {
    if (!logits || id < 0 || id >= n)
        detail::misuse("there is no logit of this token", std::to_string(id), "pass an id of 0 to n - 1");
    constexpr int kStep = 4096;  // so many are summed up as floats
    const detail::Kernels& kernels = detail::choose_kernels();
    const detail::IeeeFloats rounding;
    float best = *std::max_element(logits, logits + n), x[kStep];
    double total = 0;
    for (int i = 0; i < n; i += kStep) {
        const int m = std::min(kStep, n - i);
        float sum = 0;
        std::copy_n(logits + i, m, x);
        kernels.softmax(x, m, best, sum);
        total += double(sum);
    }
    return double(logits[id]) - double(best) - detail::logarithm(total);
}

// ==== GENERATION =====================================================================================================
//
// From a prompt to a text: the prompt goes through the layers, then tokens are sampled one by one and sent after it.
// The text comes out in whole characters, and never a part of a stop text.

namespace detail {

inline std::vector<int> joined(const std::vector<std::vector<int>>& parts) {
    std::vector<int> all;
    for (const std::vector<int>& part : parts) all.insert(all.end(), part.begin(), part.end());
    return all;
}

// Appends sampled tokens to a session. A batch of a few tokens costs little more than one token, so the tokens that may
// follow are guessed and tried out together; those that are sampled indeed are there already (speculative decoding,
// arXiv:2211.17192). Guesses are what followed the longest earlier copy of the text's end (prompt lookup, Saxena 2023).
// With a guess right at the rate r and costing the share c of a token, the k-th guess in a row pays if r^k > c: r is
// learnt for each length of the copy, c is measured.
struct Lookup {
    // The rates before anything is learnt, by the length of the copy: n / (n + 2).
    static constexpr std::array kFirstRates = {0.0, 1 / 3., 2 / 4., 3 / 5., 4 / 6., 5 / 7., 6 / 8., 7 / 9., 8 / 10.};
    static constexpr std::size_t kLongest = kFirstRates.size() - 1;  // tokens of a copy that are compared

    SessionData& session;
    int most;  // guesses at a time
    Stats& stats;

    // What was tried out, and what its logits are: null where those that are wanted are in transformer.likeliest.
    std::vector<int> guesses{};
    std::size_t tried = 0, copied = 0;  // guesses that were compared; length of the copy that they come from
    const float* logits = nullptr;

    // What was learnt.
    std::array<double, kLongest + 1> rates = kFirstRates;  // of right guesses, by copied
    double single = 0, cost = 0.1;                         // seconds of a single token; what a guess costs, in these

    // The logits after the pending token. Null: those that are wanted are in found().
    const float* next(const Wanted& wanted) {
        if (!was_guessed()) try_out(wanted);
        return logits ? session.sequence.logits[int(tried)] : nullptr;
    }
    const std::vector<Logit>& found() const { return session.transformer.likeliest.found[tried]; }

    // Whether the pending token is the next guess, so that it went through the layers already.
    bool was_guessed() {
        if (tried == guesses.size()) return false;
        const bool is_right = guesses[tried++] == session.sequence.tokens.back();
        rates[copied] += 0.2 * (is_right - rates[copied]);
        stats.guessed_right += is_right;
        session.sequence.processed += is_right;
        return is_right;
    }

    // Takes the pending token and new guesses through the layers.
    void try_out(Wanted wanted) {
        if (most > 0) guess();
        const int n = 1 + int(guesses.size());
        stats.guessed += n - 1;
        // Guesses that are right become recent tokens, whose logits the repeat penalty changes.
        if (!wanted.also.empty()) wanted.also = joined({wanted.also, guesses});

        const auto start = Clock::now();
        session.transformer.profiler.step(n, [&] { logits = session.try_out(guesses, wanted); });
        const double seconds = seconds_since(start);
        if (n == 1) single += (single > 0 ? 0.1 : 1.0) * (seconds - single);
        else if (single > 0) cost += 0.1 * (std::clamp((seconds / single - 1) / (n - 1), 0.01, 1.0) - cost);
    }

    void guess() {
        const std::vector<int>& text = session.sequence.tokens;
        const std::size_t n = text.size(), room = usize(session.sequence.context) - n;
        guesses.clear();
        tried = copied = 0;

        // The longest earlier copy of the text's end, the latest of these.
        std::size_t from = 0;  // what followed it
        for (std::size_t end = n - 1; end > 0 && copied < kLongest; --end) {
            std::size_t same = 0;
            while (same < std::min(kLongest, end) && text[end - 1 - same] == text[n - 1 - same]) ++same;
            if (same > copied) copied = same, from = end;
        }

        double& rate = rates[copied];
        for (double all = rate; all > cost && guesses.size() < std::min(usize(most), room); all *= rate) {
            const std::size_t at = from + guesses.size();  // beyond the end are the guesses themselves
            guesses.push_back(at < n ? text[at] : guesses[at - n]);
        }
        if (guesses.empty()) rate += 0.005 * (kFirstRates[copied] - rate);  // to try again some time
    }
};

// What on_token gets of a token that was drawn after these logits.
inline TokenInfo describe(const Model& model, const float* logits, int id, int likeliest) {
    const IeeeFloats rounding;
    const double zero = log_probability(logits, model.config().vocab_size, id) - logits[id];  // of a logit of 0
    const auto info = [&](int i) { return TokenInfo{i, model.tokenizer().piece(i), zero + logits[i]}; };
    TokenInfo token = info(id);
    const int n = likeliest > 0 ? model.sampleable() : 0;
    for (const Logit& c : take_best(logits, n, std::min(likeliest, n))) token.likeliest.push_back(info(c.id));
    return token;
}

inline void check_options(const GenerateOptions& options, const Model& model) {
    check_option("max_tokens", options.max_tokens, -1, INT_MAX, "use -1 (fill the context) or more");
    check_option("lookup", options.lookup, 0, kTile - 1, "use 0 to 11");
    check_option("likeliest", options.likeliest, 0, INT_MAX, "use 0 or more");
    if (model.sampleable() == 0) misuse("there is no tokenizer", "generate", "load a model from a file");
}

inline std::vector<int> encode_prompt(const SessionData& session, std::string_view text, Special special) {
    const Tokenizer& tokenizer = session.owner.tokenizer();
    const bool first = session.sequence.position() == 0;
    std::vector<int> ids = tokenizer.encode(text, special, first);
    if (ids.empty() && first && tokenizer.bos() >= 0) ids = {tokenizer.bos()};  // GPT-2's encode adds none
    return ids;
}

// A text that is being written after what a sequence holds. Where a function says that it does not go on, stats.end
// tells why.
struct Writer {
    const Model& model;
    Sequence& sequence;
    const GenerateOptions& options;
    const OnText& on_text;

    Sampler own{options.sampling};
    int held = sequence.position();  // tokens before the prompt; a sampler that was there before knows them
    Stats stats{};
    std::string text{};                      // that is not shown yet
    bool listens = true;                     // on_text has not said false, after which it is not called
    Clock::time_point start = Clock::now();  // of the prompt, then of the text

    // ---- the prompt

    // Where there is none, the last token is read again. What bytes at the text's end may be the beginning of a
    // character were not shown yet.
    void begin(const std::vector<int>& prompt) {
        if (!prompt.empty() || held == 0) return sequence.check(prompt.data(), count_of(prompt));
        for (const int id : std::vector<int>(sequence.tokens.end() - std::min(held, 3), sequence.tokens.end()))
            if (id < model.sampleable()) text += model.tokenizer().piece(id);
        text.erase(0, utf8_complete_prefix(text));
        sequence.reread();
    }

    // After so many tokens of the prompt; more: whether a text may follow it.
    bool end_prompt(int tokens, bool more) {
        const auto unknown = sequence.tokens.begin() + (options.sampler ? held : 0);
        std::for_each(unknown, sequence.tokens.end(), [&](int id) { sampler().accept(id); });
        stats.prompt_tokens = tokens;
        stats.prompt_s = seconds_since(std::exchange(start, Clock::now()));
        stats.end = End::interrupted;
        return more && has_room();
    }
    // Whether another token may follow; sets stats.end to why not.
    bool has_room() {
        stats.end = stats.generated == options.max_tokens ? End::max_tokens : End::context;
        return stats.end == End::context && sequence.position() < sequence.context;
    }

    // ---- a token

    Sampler& sampler() { return options.sampler ? *options.sampler : own; }

    // The logits that the next draw needs.
    Wanted wanted() {
        const bool all = options.all_logits || options.on_logits || options.on_token;
        return {model.sampleable(), all ? 0 : sampler().draws_from(), sampler().penalized()};
    }

    // Draws from what on_logits leaves.
    int draw(const float* logits) {
        const int n = model.sampleable();
        if (!options.on_logits) return sampler().sample(logits, n);
        std::vector<float> copy(logits, logits + n);
        options.on_logits(copy.data(), n);
        const int id = sampler().sample(copy.data(), n);
        if (!(copy[usize(id)] > -INFINITY)) misuse("no token is left", "on_logits", "leave one above minus infinity");
        return id;
    }

    // Appends what was drawn, unless it ends the text. Whether the text goes on.
    bool take(const float* logits, int id) {
        stats.end = End::end_token;
        if (!options.ignore_end && model.tokenizer().is_eos(id)) return false;
        sampler().accept(id);
        sequence.tokens.push_back(id);
        ++stats.generated;

        stats.end = End::callback;
        const bool wanted = !options.on_token || options.on_token(describe(model, logits, id, options.likeliest));
        const bool shown = write(model.tokenizer().piece(id));
        return wanted && shown && has_room();
    }

    // ---- its text

    // Adds bytes to the text and shows it, but for an end that may be part of a character or of a stop text. False: the
    // text ends here.
    bool write(std::string_view bytes) {
        text += bytes;
        std::size_t first = std::string::npos, open = 0;  // open: bytes at the end that may be a stop text's beginning
        for (const std::string& s : options.stop) {
            if (!s.empty()) first = std::min(first, text.find(s));
            for (std::size_t n = std::min(s.size(), text.size()); n > open; --n)
                if (text.compare(text.size() - n, n, s, 0, n) == 0) open = n;
        }
        if (first == std::string::npos) return show(text.size() - open);
        stats.end = End::stop_text;
        text.resize(first);
        return false;
    }

    // Shows what is ready of the first `bytes`. At the end that is all but an unfinished character.
    bool show(std::size_t bytes) {
        const std::string ready = text.substr(0, utf8_complete_prefix(std::string_view(text).substr(0, bytes)));
        text.erase(0, ready.size());
        listens = listens && (ready.empty() || !on_text || on_text(ready));
        return listens;
    }

    // Shows what is left.
    Stats finish() {
        show(std::string::npos);
        stats.generate_s = seconds_since(start);
        return stats;
    }
};

// generate_many at work: some slots, each a sequence with a text that is being written.
struct Many {
    struct Slot {
        Sequence sequence;
        OnText on_text{};
        std::optional<Writer> writer{};  // none: the slot is free
        // The text's number; its prompt's tokens, those of the common beginning too; the token that was drawn.
        int index = 0, prompt = 0, id = 0;
    };

    const InUse& use;
    const std::vector<Request>& requests;
    const OnTexts& on_text;
    const OnEnd& on_end;

    Sequence base{use->owner.data(), use->sequence.context};                  // what all texts begin with
    std::vector<std::vector<int>> prompts{};                                  // [texts]: what comes after that
    std::vector<Completion> done = std::vector<Completion>(requests.size());  // [texts]
    std::size_t begun = 0;                                                    // texts
    std::vector<Slot> running{};  // stay where they are once texts have begun

    std::vector<Completion> run(int at_once) {
        at_once = choose_at_once(at_once);
        base.copy(use->sequence);
        base.on_layer = use->sequence.on_layer;
        for (const Request& request : requests) prompts.push_back(checked_prompt(request));
        read_common_beginning();

        while (running.size() < std::min(usize(at_once), requests.size()))
            running.push_back({Sequence(use->owner.data(), base.context)});
        do {
            for (Slot& slot : running)
                if (!slot.writer && begun < requests.size()) begin(slot, begun++);
        } while (step());
        return std::move(done);
    }

    // ---- before the texts

    int choose_at_once(int wanted) const {
        check_option("at_once", wanted, 0, kBatch, "use 0 (as memory allows) to 256");
        const std::uint64_t memory = physical_memory();
        const auto bytes = [&](int n) { return use->owner.session_bytes(base.context, n + 2); };
        int n = wanted ? wanted : 32;
        while (!wanted && n > 1 && bytes(n) > memory / 4) n /= 2;
        if (bytes(n) <= memory) return n;
        fail("there is not enough memory for " + to_string(n) + " texts at once",
             to_string(bytes(n) >> 20) + " MB, of " + to_string(memory >> 20), "use a smaller at_once or context",
             Kind::system);
    }

    std::vector<int> checked_prompt(const Request& request) const try {
        check_options(request.options, use->owner);
        (void)Sampler(request.options.sampling);
        if (request.options.sampler)
            misuse("texts cannot share a sampler", "GenerateOptions::sampler", "set their seeds");
        std::vector<int> prompt = encode_prompt(use.data, request.prompt, request.options.special);
        if (!prompt.empty() || base.position() == 0) base.check(prompt.data(), count_of(prompt));
        return prompt;
    } catch (const Error& e) {
        throw Error("prompt " + to_string(prompts.size()) + ": " + e.what(), e.kind);
    }

    // What all prompts begin with goes through the layers once, if that saves more than it costs; each then begins with
    // a copy. It is what the first and the last of them in order have in common. What comes after it gives the logits.
    void read_common_beginning() {
        if (prompts.size() < 2) return;
        const auto [least, most] = std::minmax_element(prompts.begin(), prompts.end());
        const auto differ = std::mismatch(least->begin(), least->end(), most->begin(), most->end()).first;
        const auto same = differ - least->begin() - (differ == least->end() && !least->empty());
        if ((base.pending() + same) * std::ptrdiff_t(prompts.size()) < kBeside) return;

        base.tokens.insert(base.tokens.end(), least->begin(), least->begin() + same);
        while (base.pending() > 0) use->transformer.step({&base}, kBatch);
        for (std::vector<int>& p : prompts) p.erase(p.begin(), p.begin() + same);
    }

    // ---- the texts

    void begin(Slot& slot, std::size_t i) {
        // What the slot's caches hold of the beginning stays.
        Sequence& s = slot.sequence;
        s.on_layer = base.on_layer;
        s.rewind(std::min(s.position(), base.processed));
        if (s.processed < base.processed) s.copy(base);
        s.tokens = base.tokens;

        slot.index = int(i);
        slot.on_text = [this, i](std::string_view text) {
            done[i].text += text;
            return !on_text || on_text(int(i), text);
        };
        slot.writer.emplace(Writer{use->owner, s, requests[i].options, slot.on_text});
        slot.writer->begin(prompts[i]);
        s.tokens.insert(s.tokens.end(), prompts[i].begin(), prompts[i].end());
        slot.prompt = std::max(1, s.position() - use->sequence.processed);
    }

    // All texts go a token further, prompts by what fits beside them. False: there are none.
    bool step() {
        std::vector<Sequence*> sequences;
        for (Slot& slot : running)
            if (slot.writer) sequences.push_back(&slot.sequence);
        if (sequences.empty()) return false;
        const int texts = int(std::count_if(running.begin(), running.end(), is_read));
        use->transformer.step(sequences, std::max(int(sequences.size()), texts ? texts + kBeside : kBatch));

        std::vector<Slot*> ready;
        for (Slot& slot : running)
            if (slot.writer && is_ready(slot)) ready.push_back(&slot);
        if (!ready.empty()) draw(ready);
        return true;
    }

    // Whether the prompt was read: in the same step the first token was drawn.
    static bool is_read(const Slot& slot) { return slot.writer && slot.writer->stats.generated > 0; }
    // Whether the next token can be drawn: not before the prompt is read. Calls on_prompt, and ends the text if that
    // says so or there is no room.
    bool is_ready(Slot& slot) {
        if (is_read(slot)) return true;
        const int read = slot.prompt - slot.sequence.pending();
        const auto& on_prompt = slot.writer->options.on_prompt;
        const bool more = !on_prompt || on_prompt(read, slot.prompt);
        return (!more || read == slot.prompt) && goes_on(slot, slot.writer->end_prompt(read, more));
    }

    // Each text draws from its own logits, which takes a core some time: all at once, but those with an on_logits,
    // which is called on this thread, one after the other.
    void draw(const std::vector<Slot*>& ready) {
        const int n = int(ready.size());
        use->transformer.profiler.restart();
        use->transformer.profiler.time({{"sampling", "sample"}}, -1, n, [&] {
            const auto draw_one = [&](int i, bool asks) {
                Slot& slot = *ready[usize(i)];
                if (bool(slot.writer->options.on_logits) == asks) slot.id = slot.writer->draw(slot.sequence.logits[0]);
            };
            use->transformer.pool.for_each(n, [&](int i) { draw_one(i, false); });
            for (int i = 0; i < n; ++i) draw_one(i, true);
        });
        for (Slot* slot : ready) goes_on(*slot, slot->writer->take(slot->sequence.logits[0], slot->id));
    }

    // Where a text does not go on, it is done, and its slot free.
    bool goes_on(Slot& slot, bool more) {
        if (more) return true;
        Completion& text = done[usize(slot.index)];
        text.stats = slot.writer->finish();
        text.tokens.assign(slot.sequence.tokens.end() - text.stats.generated, slot.sequence.tokens.end());
        slot.writer.reset();
        if (on_end && !on_end(slot.index, text))
            for (; begun < done.size(); ++begun) done[begun].stats.end = End::interrupted;
        return false;
    }
};

}  // namespace detail

Stats generate(Session& session, const std::vector<int>& prompt, const GenerateOptions& options,
               const OnText& on_text) {
    using namespace detail;
    check_options(options, session.model());
    const InUse use(session);
    Writer writer{use->owner, use->sequence, options, on_text};
    writer.begin(prompt);
    const int before = use->sequence.processed, n = count_of(prompt);
    const auto read = [&](SessionData& data) { data.forward(prompt.data(), n, options.on_prompt); };
    const float* logits = use.step(use->sequence.pending() + n, read);

    Lookup lookup{use.data, options.lookup, writer.stats};
    int id = 0;
    bool more = writer.end_prompt(use->sequence.processed - before, logits);
    for (; more; more = writer.take(logits, id)) {
        if (writer.stats.generated > 0) logits = lookup.next(writer.wanted());  // the first come from the prompt
        use->transformer.profiler.restart();
        use->transformer.profiler.time({{"sampling", "sample"}}, -1, 1, [&] {
            id = logits ? writer.draw(logits) : writer.sampler().sample(lookup.found());
        });
    }
    return writer.finish();
}

Stats generate(Session& session, std::string_view prompt, const GenerateOptions& options, const OnText& on_text) {
    return generate(session, detail::encode_prompt(*session.data(), prompt, options.special), options, on_text);
}

std::vector<Completion> generate_many(Session& session, const std::vector<Request>& requests, const OnTexts& on_text,
                                      int at_once, const OnEnd& on_end) {
    const detail::InUse use(session);
    return detail::Many{use, requests, on_text, on_end}.run(at_once);
}

std::vector<Completion> generate_many(Session& session, const std::vector<std::string>& prompts,
                                      const GenerateOptions& options, const OnTexts& on_text, int at_once,
                                      const OnEnd& on_end) {
    std::vector<Request> requests;
    for (const std::string& prompt : prompts) {
        requests.push_back({prompt, options});
        requests.back().options.sampling.seed += requests.size() - 1;
    }
    return generate_many(session, requests, on_text, at_once, on_end);
}

double score(Session& session, const std::vector<int>& ids) {
    const detail::IeeeFloats rounding;
    const int n = detail::count_of(ids), vocab = session.model().config().vocab_size;
    double sum = 0;
    detail::InUse(session).step(n, [&](auto& data) {
        if (n > 0 && session.position() > 0) sum = log_probability(data.logits(), vocab, ids[0]);
        data.forward_each(ids.data(), n, false, [&](int i, const float* logits) {
            if (i + 1 < n) sum += log_probability(logits, vocab, ids[detail::usize(i) + 1]);
        });
    });
    return sum;
}
double score(Session& session, std::string_view text) {
    return score(session, session.model().tokenizer().encode(text, Special::as_text, session.position() == 0));
}

// ==== CHAT ===========================================================================================================
//
// Turns of a user and a model, in the template that the model was trained with. Gemma's, with the system's words in the
// first turn, is
//
//     <bos><start_of_turn>user\n{system}\n\n{user}<end_of_turn>\n<start_of_turn>model\n{model}<end_of_turn>\n ...
//
// A model's template is a program in the language Jinja. It is not run: the few kinds there are can be told apart by
// what they hold, and a row of a table says what each of them writes. What people say is never parsed for special
// tokens.

namespace detail {

struct TurnTemplate {
    const char* name;
    std::array<std::string_view, 3> marks;  // what a model's template of this kind holds
    // Before and after the system's words. They come before the user's turn, or where nothing begins them, in it.
    std::string_view system, after_system;
    std::string_view user, model;   // before the user's words; between them and the model's
    std::string_view end, between;  // after the model's words, and then before the user's next. {eos}: a token
    bool trims;                     // words lose the white space around them
};

// In the order of Chat::Template.
// clang-format off
constexpr TurnTemplate kTurnTemplates[] = {
    {"automatic", {}, "", "", "", "", "", "", false},
    {"gemma", {"<start_of_turn>", "<end_of_turn>", "<start_of_turn>model"}, "", "\n\n",
     "<start_of_turn>user\n", "<end_of_turn>\n<start_of_turn>model\n", "<end_of_turn>", "\n<start_of_turn>user\n", true},
    {"chatml", {"<|im_start|>", "<|im_end|>", "assistant"}, "<|im_start|>system\n", "<|im_end|>\n",
     "<|im_start|>user\n", "<|im_end|>\n<|im_start|>assistant\n", "<|im_end|>", "\n<|im_start|>user\n", false},
    {"dialogpt", {}, "", "{eos}", "", "{eos}", "{eos}", "", false},
    {"plain", {}, "", "\n\n", "", "", "", "\n\n", false},
};
// clang-format on
inline const TurnTemplate& row_of(Chat::Template style) { return kTurnTemplates[int(style)]; }

// The kind of a template. DialoGPT's writes each turn's words and the end of text, and nothing else; Jinja removes
// white space beside a '-' and the end of a line after {% %}.
inline Chat::Template recognize(std::string_view jinja) {
    const auto holds = [&](std::string_view text) { return jinja.find(text) != jinja.npos; };
    for (const Chat::Template style : {Chat::Template::gemma, Chat::Template::chatml})
        if (std::all_of(row_of(style).marks.begin(), row_of(style).marks.end(), holds)) return style;
    const bool writes_space = holds("}} {{") || (!holds("-") && (holds("}} ") || holds("}}\n") || holds("\n ")));

    // The template without what makes no difference, and what can be said in two ways in one of them.
    std::string all = replace_all(jinja, "\"", "'");
    for (const std::string_view space : {" ", "\n", "-"}) all = replace_all(all, space, "");
    all = replace_all(replace_all(all, "['content']", ".content"), "}}{{", "+");
    for (const std::string_view trim : {".strip()", "|trim"}) all = replace_all(all, trim, "");

    const std::string loop = "inmessages%}{{", name = all.substr(0, all.find(loop));
    const bool is_dialogpt = !writes_space && name.substr(0, 5) == "{%for" &&
                             all == name + loop + name.substr(5) + ".content+eos_token}}{%endfor%}";
    return is_dialogpt ? Chat::Template::dialogpt : Chat::Template::plain;
}

// The system's words that a template brings along, for conversations that have none of their own. begin, end: the lines
// around them, whose ends a template may write as "\n".
inline std::string usual_system(std::string_view jinja, std::string_view begin, std::string_view end) {
    begin.remove_suffix(1), end.remove_suffix(1);
    for (std::size_t at; (at = jinja.find(begin)) != jinja.npos;) {
        jinja.remove_prefix(at + begin.size());
        const std::string words = replace_all(jinja.substr(0, jinja.find(end)), "\\n", "\n");
        // They begin after the end of the marks' line.
        if (words.size() > 1 && words.find_first_of("'\"{}") == words.npos) return words.substr(1);
    }
    return {};
}

// The words without the white space around them.
inline std::string_view stripped(std::string_view words) {
    std::size_t first = words.size(), last = first, length;
    for (std::size_t i = 0; i < words.size(); i += length)
        if (class_at(words, i, length) != CharClass::space) first = std::min(first, i), last = i + length;
    return words.substr(first, last - first);
}

}  // namespace detail

const char* Chat::name(Template style) { return detail::row_of(style).name; }

Chat::Chat(Session& session, const std::string& system, Template style) : session_(session), template_(style) {
    using namespace detail;
    const Tokenizer& tokenizer = session.model().tokenizer();
    const std::string& own = tokenizer.chat_template();
    if (tokenizer.vocab_size() == 0) misuse("there is no tokenizer", "Chat", "load a model from a file");

    // The template, and whether the vocabulary has its tokens.
    const TokenizerData& data = *tokenizer.data_;
    if (style == Template::automatic) template_ = own.empty() && data.ends_turns ? Template::gemma : recognize(own);
    const std::string_view end = row_of(template_).end;
    const bool is_token = end == "{eos}" ? data.eos >= 0 : end.empty() || tokenizer.special_id(end) >= 0;
    if (!is_token && style != Template::automatic)
        misuse("the vocabulary has no turn tokens", std::string("Chat, template ") + name(style),
               "use the plain template");
    if (!is_token && end == "{eos}") template_ = Template::plain;
    const TurnTemplate& row = row_of(template_);

    // What comes before the user's words.
    head_ = data.before;
    if (head_.empty() && data.bos >= 0 && own.find("bos_token") != own.npos) head_ = {data.bos};
    std::string_view begin = row.system, behind = row.after_system;
    // Some templates of Gemma's kind have a turn for the system's words, or take any role as it is.
    const bool any_role = !own.empty() && own.find("system") == own.npos;
    for (const std::string_view line : {"<start_of_turn>developer\n", "<start_of_turn>system\n"})
        if (template_ == Template::gemma && own.find("first_user_prefix") == own.npos &&
            (any_role || own.find(line.substr(0, line.size() - 1)) != own.npos))
            begin = line, behind = "<end_of_turn>\n";
    const std::string words = system.empty() && !begin.empty() ? usual_system(own, begin, behind) : system;
    const std::vector<int> user = turn({}, row.user);
    const bool trims = own.empty() || style != Template::automatic ? row.trims : own.find("trim") != own.npos;
    const bool trims_first = trims && template_ == Template::gemma && !begin.empty();  // where they have a turn
    std::vector<int> first;
    if (!words.empty()) first = joined({turn({}, begin), turn(trims_first ? stripped(words) : words, behind)});
    head_ = begin.empty() ? joined({head_, user, first}) : joined({head_, first, user});
    trims_ = trims;

    // A session's text is cut into turns where the user's begin.
    const std::vector<int>& held = session.tokens();
    auto from = held.begin(), to = from;
    while (!user.empty() && (to = std::search(from, held.end(), user.begin(), user.end())) != held.end()) {
        to += std::ptrdiff_t(user.size());
        text_.emplace_back(std::exchange(from, to), to);
    }
    if (text_.empty()) text_.push_back(held.empty() ? head_ : std::vector<int>());
    if (!held.empty()) text_.push_back(joined({{from, held.end()}, turn({}, row.end), turn({}, row.between)}));
}

// Words as they are, and what the template writes after them. Where its tokens are in the vocabulary, they part the
// two; where they are not, they are text like the words.
std::vector<int> Chat::turn(std::string_view words, std::string_view after) const {
    using namespace detail;
    const Tokenizer& tokenizer = session_.model().tokenizer();
    const TokenizerData& data = *tokenizer.data_;
    if (trims_) words = stripped(words);
    const std::string behind = replace_all(after, "{eos}", data.eos < 0 ? "" : data.vocabulary[data.eos].spelling);
    const std::vector<int> end = tokenizer.encode(behind, Special::parsed, false);
    const bool is_apart = !end.empty() && data.vocabulary[end[0]].kind == TokenKind::control;
    if (!words.empty() && !is_apart) return tokenizer.encode(std::string(words) + behind, Special::as_text, false);
    return joined({tokenizer.encode(words, Special::as_text, false), end});
}

void Chat::add(Role role, std::string_view text) {
    const detail::TurnTemplate& row = detail::row_of(template_);
    if (text_.empty()) detail::misuse("there is no chat", "a moved-from llm::Chat", "use the one it became");
    if ((role == Role::user) == is_asked_)
        detail::misuse("two turns of one side in a row", "Chat::add", "let user and model take turns");
    if (role == Role::user) asked_ = turn(text, row.model);
    else text_.push_back(detail::joined({asked_, turn(text, row.end), turn({}, row.between)}));
    is_asked_ = role == Role::user;
}

Stats Chat::say(std::string_view words, const GenerateOptions& options, const OnText& on_text) {
    using namespace detail;
    const TurnTemplate& row = row_of(template_);
    const Tokenizer& tokenizer = session_.model().tokenizer();
    if (text_.empty()) misuse("there is no chat", "a moved-from llm::Chat", "use the one it became");
    if (is_asked_) misuse("the user's last turn has no answer yet", "Chat::say", "add one of the model");

    // The user's turn, and room for it.
    const std::vector<int> said = turn(words, row.model);
    const int context = session_.context(), answer = options.max_tokens < 0 ? context : std::max(options.max_tokens, 1);
    if (head_.size() + said.size() >= usize(context))
        fail("the text is too long for the context",
             std::to_string(said.size()) + " tokens after " + std::to_string(head_.size()) +
                 " that begin the chat, context of " + std::to_string(context),
             "shorten it or what the system says, or use a larger context", Kind::context);
    std::vector<std::vector<int>> text = with_room(said.size() + usize(std::min(answer, context / 4)));

    // What the session lacks of all that, and the answer.
    const auto kept = session_.data();  // whatever a callback does to the session
    const std::vector<int> all = joined({joined(text), said}), &held = kept->sequence.tokens;
    const auto last = all.end() - !all.empty();  // is read in any case, so that the answer begins a character
    const auto known = std::mismatch(all.begin(), last, held.begin(), held.end()).first - all.begin();
    const bool end_is_text = row.end != "{eos}" && !row.end.empty() && tokenizer.special_id(row.end) < 0;
    GenerateOptions asked = options;
    if (end_is_text) asked.stop.emplace_back(row.end);
    session_.rewind(int(known));
    const std::vector<int> lacking(all.begin() + known, all.end());
    const Stats stats =
        all.empty() ? generate(session_, "", asked, on_text) : generate(session_, lacking, asked, on_text);
    if (stats.end == End::interrupted) return stats;  // the chat is as it was, as after an exception

    // The turn's end, as far as the model has not written it as text. Where there is none, a stop text ends it as well.
    const std::vector<int> answered(held.begin() + std::ptrdiff_t(all.size()), held.end());
    const bool wrote_end = end_is_text && tokenizer.decode(answered).find(row.end) != std::string::npos;
    std::vector<int> after = joined({turn({}, wrote_end ? "" : row.end), turn({}, row.between)});
    if (row.end.empty() && stats.end == End::stop_text) after.clear();
    text.push_back(joined({said, answered, after}));
    dropped_ += int(text_.size() + 1 - text.size());
    text_ = std::move(text);
    return stats;
}

// The text without its oldest turns if `wanted` more tokens do not fit: then as many are dropped as leave half of the
// context.
std::vector<std::vector<int>> Chat::with_room(std::size_t wanted) const {
    const std::size_t context = detail::usize(session_.context());
    std::vector<std::vector<int>> text = text_;
    const auto size = [&] { return detail::joined(text).size(); };
    if (size() + wanted <= context) return text;
    text[0] = head_;
    while (text.size() > 1 && (size() > context / 2 || size() + wanted > context)) text.erase(text.begin() + 1);
    return text;
}

LLM_END

#if defined(LLM_STATIC) && defined(__GNUC__)
#pragma GCC diagnostic pop
#endif
#pragma pop_macro("max")
#pragma pop_macro("min")
#endif  // LLM_KERNEL_PASS or LLM_IMPLEMENTATION

// MIT License
//
// Copyright (c) 2026 The llm.h authors
//
// Permission is hereby granted, free of charge, to any person obtaining a copy of this software and associated
// documentation files (the "Software"), to deal in the Software without restriction, including without limitation the
// rights to use, copy, modify, merge, publish, distribute, sublicense, and/or sell copies of the Software, and to permit
// persons to whom the Software is furnished to do so, subject to the following conditions:
//
// The above copyright notice and this permission notice shall be included in all copies or substantial portions of the
// Software.
//
// THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR IMPLIED, INCLUDING BUT NOT LIMITED TO THE
// WARRANTIES OF MERCHANTABILITY, FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE AUTHORS OR
// COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR
// OTHERWISE, ARISING FROM, OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE SOFTWARE.
