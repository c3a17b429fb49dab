/* Tries each function of llm_c.h on a model and prints what comes back; then what must fail. */
#include "llm_c.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void fail(const char* what) {
    int kind;
    const char* text = llm_last_error(&kind);
    printf("%s: %s (%d)\n", text, what, kind);
    exit(1);
}
static void must(int holds, const char* what) {
    if (!holds) fail(what);
}

static int print_text(void* user, int i, const char* text, size_t bytes) {
    must(i == 0 && strlen(text) == bytes, "a piece of text");
    for (; *text; ++text) putchar(*text == '\n' ? '|' : *text);
    ++*(int*)user;
    return 1;
}

struct buffer {
    char text[3][2000];
};
static int keep_text(void* user, int i, const char* text, size_t bytes) {
    struct buffer* all = user;
    must(i >= 0 && i < 3 && strlen(all->text[i]) + bytes < sizeof all->text[i], "a text's number");
    strcat(all->text[i], text);
    return 1;
}
static int stop_at_once(void* user, int i, const char* text, size_t bytes) {
    (void)user, (void)i, (void)text, (void)bytes;
    return 0;
}
static int free_chat(void* user, int i, const char* text, size_t bytes) {
    llm_chat** chat = user;
    (void)i, (void)text, (void)bytes;
    llm_chat_free(*chat);
    *chat = NULL;
    return 1;
}
static int count_progress(void* user, float done, const char* what) {
    must(done >= 0 && done <= 1 && what[0], "progress");
    ++*(int*)user;
    return 1;
}
static int end_progress(void* user, float done, const char* what) {
    (void)user, (void)done, (void)what;
    return 0;
}

static void refused(int result, int kind, const char* part) {
    int found;
    const char* text = llm_last_error(&found);
    if (result < 0 && found == kind && strstr(text, part)) return;
    printf("%d: %s, of kind %d, is not: %s, of kind %d\n", result, text, found, part, kind);
    exit(1);
}
#define REFUSED_NULL(call, kind, part) refused((call) ? 0 : -1, kind, part)

static void try_errors(const char* path, llm_model* model, llm_session* session, llm_chat* chat, llm_options* o) {
    llm_options other = *o;
    const char* const texts[2] = {"a", NULL};
    llm_candidate best;
    int ids[1] = {-1}, before = llm_position(session);
    REFUSED_NULL(llm_load(NULL, LLM_NATIVE, 0, NULL, NULL), 1, "path is NULL");
    REFUSED_NULL(llm_load(path, 9, 0, NULL, NULL), 1, "dtype 9");
    REFUSED_NULL(llm_load(path, -1, 0, NULL, NULL), 1, "dtype -1");
    REFUSED_NULL(llm_load(path, LLM_F32, 0, end_progress, NULL), 1, "on_progress");
    REFUSED_NULL(llm_load_bytes("GGUF", 4, LLM_NATIVE, 0, NULL, NULL), 0, "");
    REFUSED_NULL(llm_load_bytes(NULL, 4, LLM_NATIVE, 0, NULL, NULL), 1, "gguf is NULL");
    REFUSED_NULL(llm_session_new(NULL, 0, 0), 1, "model is NULL");
    REFUSED_NULL(llm_session_new(model, -5, 0), 1, "");
    REFUSED_NULL(llm_chat_new(session, NULL, "polite"), 1, "polite");
    REFUSED_NULL(llm_chat_new(NULL, NULL, NULL), 1, "session is NULL");
    refused(llm_tokenize(model, NULL, 0, 1, ids, 1), 1, "text is NULL");
    refused(llm_tokenize(model, "a", 0, 1, NULL, 1), 1, "ids is NULL");
    refused(llm_tokenize(model, "a", 0, 1, ids, -1), 1, "capacity -1");
    refused(llm_detokenize(model, ids, 1, NULL, 0), 1, "-1");
    refused(llm_detokenize(model, NULL, 1, NULL, 0), 1, "ids is NULL");
    refused(llm_rewind(session, before + 1), 1, "");
    refused(llm_position(NULL), 1, "session is NULL");
    refused(llm_generate(NULL, "a", o, NULL, NULL, NULL), 1, "session is NULL");
    refused(llm_generate(session, NULL, o, NULL, NULL, NULL), 1, "prompt is NULL");
    refused(llm_generate_many(session, texts, 2, o, 0, NULL, NULL, NULL), 1, "a text of prompts is NULL");
    refused(llm_generate_many(session, texts, -1, o, 0, NULL, NULL, NULL), 1, "n -1");
    refused(llm_generate_many(session, texts, 1, o, 999, NULL, NULL, NULL), 1, "at_once");
    refused(llm_chat_say(chat, NULL, o, NULL, NULL, NULL), 1, "text is NULL");
    refused(llm_score(session, "a", NULL), 1, "result is NULL");
    refused(llm_likeliest(session, &best, -1), 1, "k -1");
    refused(llm_likeliest(session, NULL, 1), 1, "best is NULL");
    refused(llm_options_init(&other, sizeof other - 8), 1, "bytes");
    refused(llm_options_init(NULL, sizeof other), 1, "options is NULL");
    other.size = 0;
    refused(llm_generate(session, "a", &other, NULL, NULL, NULL), 1, "llm_options_init");
    other = *o;
    other.temperature = -1;
    refused(llm_generate(session, "a", &other, NULL, NULL, NULL), 1, "temperature");
    other = *o;
    other.stop = NULL;
    refused(llm_generate(session, "a", &other, NULL, NULL, NULL), 1, "stop is NULL");
    must(llm_position(session) == before, "a refused call has changed the session");
}

int main(int argc, char** argv) {
    const char* const path = argc > 1 ? argv[1] : "models/gemma3-tiny";
    const char* const stop[2] = {"ZZZ", "QQQ"};
    const char* const prompts[3] = {"ROMEO:", "JULIET:", "To be"};
    static struct buffer many;
    llm_stats stats[3];
    llm_candidate best[3];
    llm_options options;
    char text[100];
    int ids[40], n, i, pieces = 0, progress = 0;
    double score;

    llm_model* model = llm_load(path, LLM_NATIVE, 0, count_progress, &progress);
    must(model != NULL, "llm_load");
    must(progress > 3 && llm_version()[0] && !llm_last_error(NULL)[0], "after loading");
    llm_session* session = llm_session_new(model, 0, 0);
    must(session != NULL, "llm_session_new");

    n = llm_tokenize(model, "To be, or not", 0, 1, ids, 40);
    must(n > 2 && llm_tokenize(model, "To be, or not", 0, 1, NULL, 0) == n, "llm_tokenize");
    printf("ids:");
    for (i = 0; i < n; ++i) printf(" %d", ids[i]);
    memset(text, 'x', sizeof text);
    must(llm_detokenize(model, ids, n, text, 3) == (int)strlen("<bos>To be, or not") && text[3] == 'x',
         "room for 3 bytes");
    must(llm_detokenize(model, ids, n, text, sizeof text) >= 0, "llm_detokenize");
    printf("\ntext: %s\n", text);

    must(llm_options_init(&options, sizeof options) == 0, "llm_options_init");
    options.max_tokens = 40;
    options.seed = 7;
    options.stop = stop;
    options.stop_count = 2;
    options.on_prompt = count_progress;
    options.on_prompt_user = &progress;
    printf("generate: ");
    progress = 0;
    must(llm_generate(session, "ROMEO:", &options, print_text, &pieces, stats) == 40, "llm_generate");
    must(pieces > 3 && progress == 1 && stats[0].generated == 40 && stats[0].end == LLM_END_MAX_TOKENS, "llm_stats");
    printf("\nposition: %d\ngoes on: ", llm_position(session));
    options.temperature = 0;
    must(llm_generate(session, "", &options, print_text, &pieces, NULL) >= 0, "llm_generate");
    printf("\n");

    must(llm_rewind(session, 0) == 0, "llm_rewind");
    options.temperature = 0.8f;
    must(llm_generate_many(session, prompts, 3, &options, 0, keep_text, &many, stats) > 3, "llm_generate_many");
    for (i = 0; i < 3; ++i) {
        char* c;
        for (c = many.text[i]; *c; ++c) *c = *c == '\n' ? '|' : *c;
        printf("many: %s\n", many.text[i]);
        must(stats[i].generated > 0, "the stats of many");
    }
    must(llm_generate_many(session, NULL, 0, NULL, 0, NULL, NULL, NULL) == 0, "no texts");

    llm_chat* chat = llm_chat_new(session, "Words.", "plain");
    must(chat != NULL, "llm_chat_new");
    printf("chat: ");
    must(llm_chat_say(chat, "Who is there?\n", &options, print_text, &pieces, stats) > 0, "llm_chat_say");

    must(llm_rewind(session, 0) == 0 && llm_score(session, "To be, or not to be", &score) == 0, "llm_score");
    printf("\nscore: %.4f\n", score);
    must(llm_likeliest(session, best, 3) == 3, "llm_likeliest");
    for (i = 0; i < 3; ++i) printf("likeliest: %d %.4f\n", best[i].id, best[i].log_probability);

    must(llm_generate(session, "ROMEO:", NULL, stop_at_once, NULL, stats) >= 1, "ended by on_text");
    must(stats[0].end == LLM_END_CALLBACK, "why it ended");
    try_errors(path, model, session, chat, &options);

    llm_model_free(model); /* in any order */
    llm_session_free(session);
    must(llm_chat_say(chat, "Hello", NULL, stop_at_once, NULL, NULL) > 0, "a chat outlives its session's handle");
    must(llm_chat_say(chat, "Hello", NULL, free_chat, &chat, NULL) > 0, "a chat that its callback frees goes on");
    llm_model_free(NULL);
    llm_session_free(NULL);
    llm_chat_free(NULL);
    return 0;
}
