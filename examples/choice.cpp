// Which answer is the likeliest? Each follows the same question, which is read once.
#define LLM_IMPLEMENTATION
#include "llm.h"

#include <cstdio>

int main(int argc, char** argv) {
    try {
        if (argc < 4) throw llm::Error("usage: choice MODEL QUESTION ANSWER ANSWER...");
        llm::Session session(llm::Model::load(argv[1]));
        session.forward(session.model().tokenizer().encode(argv[2]));
        const int question = session.position();
        for (int a = 3; a < argc; ++a) {
            session.rewind(question);
            std::printf("%8.3f  %s\n", llm::score(session, argv[a]), argv[a]);
        }
    } catch (const llm::Error& error) {
        std::fprintf(stderr, "%s\n", error.what());
        return 1;
    }
}
