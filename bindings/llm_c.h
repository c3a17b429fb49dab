/* llm_c.h - llm.h for C, and for all languages that can call C
 *
 * `make capi` builds build/libllm.so (.dylib, .dll) from llm_c.cpp; these functions are all that it shows. llm.py beside
 * this file calls it from Python. What a function does is said in full at the top of llm.h, under the name of the class
 * or function of C++ that is given here.
 *
 *     llm_model* model = llm_load("models/gemma3-tiny", LLM_NATIVE, 0, NULL, NULL);
 *     llm_session* session = model ? llm_session_new(model, 0, 0) : NULL;
 *     if (!session || llm_generate(session, "ROMEO:", NULL, show, NULL, NULL) < 0) puts(llm_last_error(NULL));
 *     llm_session_free(session);
 *     llm_model_free(model);
 *
 * A function that fails returns NULL or a negative number, and llm_last_error says why; no exception leaves the library.
 * Texts are UTF-8 and end with a zero. A NULL for a model, a session, a chat or a text is an error like others, but the
 * functions that free take it. A model may be shared by threads; a session and its chats belong to one thread at a time.
 * What is made of a model or a session may be used on after that was freed. */

#ifndef LLM_C_H
#define LLM_C_H

#include <stddef.h>
#include <stdint.h>

#ifndef LLM_C_API
#ifdef _WIN32
#define LLM_C_API
#else
#define LLM_C_API __attribute__((visibility("default")))
#endif
#endif

#ifdef __cplusplus
extern "C" {
#endif

typedef struct llm_model llm_model;     /* Model */
typedef struct llm_session llm_session; /* Session */
typedef struct llm_chat llm_chat;       /* Chat */

/* Callbacks get `user` as it was passed; 0 ends what is being done, anything else lets it go on. */
typedef int (*llm_on_progress)(void* user, float done, const char* what);      /* done: 0..1 */
typedef int (*llm_on_text)(void* user, int i, const char* text, size_t bytes); /* whole characters of text i */

/* How matrices are held: DType. */
enum { LLM_NATIVE, LLM_F32, LLM_Q8_0, LLM_Q4_0 };

/* GenerateOptions and Sampling. */
typedef struct llm_options {
    size_t size; /* of this struct, by llm_options_init */
    uint64_t seed;
    int max_tokens; /* -1: until the context is full */
    float temperature, top_p, min_p, repeat_penalty;
    int top_k, repeat_last_n;
    int ignore_end, parse_special; /* 0 or 1; the second: <end_of_turn> and the like in a prompt are tokens */
    int lookup;
    const char* const* stop; /* [stop_count]; may be NULL if that is 0 */
    size_t stop_count;
    llm_on_progress on_prompt; /* after each 256 tokens of a prompt; NULL: not called */
    void* on_prompt_user;
} llm_options;

/* Why a text ended: End. */
enum { LLM_END_TOKEN, LLM_END_STOP, LLM_END_MAX_TOKENS, LLM_END_CONTEXT, LLM_END_CALLBACK, LLM_END_INTERRUPTED };

typedef struct llm_stats {
    int prompt_tokens, generated, end;
    double prompt_s, generate_s;
} llm_stats;

typedef struct llm_candidate {
    int id;
    float log_probability; /* natural logarithm */
} llm_candidate;

LLM_C_API const char* llm_version(void); /* "0.2.0": of llm.h */

/* What the last failure on this thread was, "" if there was none; valid until its next one. kind, if not NULL: what is at
 * fault, a file (0), an argument (1), a text too long for the context (2), the system (3). */
LLM_C_API const char* llm_last_error(int* kind);

/* Fills in the usual values. size: sizeof *options, by which a version of this file that does not fit is noticed. */
LLM_C_API int llm_options_init(llm_options* options, size_t size);

/* Model::load, and Model::load_bytes of a GGUF file's bytes. threads, of the loading: 0 is all physical cores.
 * on_progress may be NULL. */
LLM_C_API llm_model* llm_load(const char* path, int dtype, int threads, llm_on_progress on_progress, void* user);
LLM_C_API llm_model* llm_load_bytes(const void* gguf, size_t bytes, int dtype, int threads, llm_on_progress on_progress,
                                    void* user);
LLM_C_API void llm_model_free(llm_model* model);

/* The ids of a text: at most `capacity` are written, the number of all is returned. special: as options.parse_special.
 * add_bos: with what the model's texts begin with. */
LLM_C_API int llm_tokenize(const llm_model* model, const char* text, int special, int add_bos, int* ids, int capacity);
/* The bytes of n ids and a zero: at most `capacity` are written; the number of all, without the zero, is returned. */
LLM_C_API int llm_detokenize(const llm_model* model, const int* ids, int n, char* text, int capacity);

/* context, threads: 0 is the model's own, all physical cores. */
LLM_C_API llm_session* llm_session_new(const llm_model* model, int context, int threads);
LLM_C_API void llm_session_free(llm_session* session);
LLM_C_API int llm_position(const llm_session* session);       /* tokens that are held */
LLM_C_API int llm_rewind(llm_session* session, int position); /* forgets all from there on; returns it */

/* Appends the prompt and what the model writes after it; returns how many tokens it wrote. on_text gets i = 0. options,
 * on_text and stats may be NULL. */
LLM_C_API int llm_generate(llm_session* session, const char* prompt, const llm_options* options, llm_on_text on_text,
                           void* user, llm_stats* stats);
/* generate_many: n texts in common steps, each after what the session holds, which is left as it is; returns how many
 * tokens they have. Text i has the seed + i. at_once: 0, as memory allows. stats: [n] or NULL. */
LLM_C_API int llm_generate_many(llm_session* session, const char* const* prompts, int n, const llm_options* options,
                                int at_once, llm_on_text on_text, void* user, llm_stats* stats);

/* A conversation in a session. system: what comes before it, or NULL. style: NULL (the model's own), or the name of a
 * Chat::Template: gemma, chatml, dialogpt, plain. */
LLM_C_API llm_chat* llm_chat_new(llm_session* session, const char* system, const char* style);
LLM_C_API void llm_chat_free(llm_chat* chat);
/* A turn of the user, and the model's; else as llm_generate. */
LLM_C_API int llm_chat_say(llm_chat* chat, const char* text, const llm_options* options, llm_on_text on_text,
                           void* user, llm_stats* stats);

/* ln p(text | what the session holds), to *result; the text is appended. Returns 0. */
LLM_C_API int llm_score(llm_session* session, const char* text, double* result);
/* The k likeliest tokens after what the session holds, likeliest first; returns how many there are, at most k. */
LLM_C_API int llm_likeliest(llm_session* session, llm_candidate* best, int k);

#ifdef __cplusplus
}
#endif
#endif
