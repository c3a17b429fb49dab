// A conversation: each line of the input is a turn. Gemma's instruction-tuned models answer; others go on writing.
#define LLM_IMPLEMENTATION
#include "llm.h"

#include <iostream>

int main(int argc, char** argv) {
    try {
        llm::Session session(llm::Model::load(argc > 1 ? argv[1] : "models/gemma3-tiny"));
        llm::Chat chat(session, "Answer in one sentence.");
        llm::Sampler sampler;  // whose random numbers go on: equal questions get different answers
        llm::GenerateOptions options;
        options.max_tokens = 100;
        options.sampler = &sampler;
        for (std::string line; std::cout << "> " && std::getline(std::cin, line);) {
            chat.say(line, options, [](std::string_view text) {
                std::cout << text << std::flush;
                return true;
            });
            std::cout << "\n";
        }
    } catch (const llm::Error& error) {
        std::cerr << error.what() << "\n";
        return 1;
    }
}
