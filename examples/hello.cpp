#define LLM_IMPLEMENTATION  // in one file of the program
#include "llm.h"

#include <iostream>

int main(int argc, char** argv) {
    try {
        llm::Model model = llm::Model::load(argc > 1 ? argv[1] : "models/gemma3-tiny");
        llm::Session session(model);
        llm::GenerateOptions options;
        options.max_tokens = 60;
        llm::generate(session, "ROMEO:", options, [](std::string_view text) {
            std::cout << text << std::flush;
            return true;
        });
    } catch (const llm::Error& error) {
        std::cerr << error.what() << "\n";
        return 1;
    }
}
