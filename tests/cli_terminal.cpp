// build/llm on a terminal.

#include "programs.h"
#include "support.h"

#include <poll.h>
#include <sys/ioctl.h>
#include <sys/wait.h>

namespace tests {
namespace {

// A program on a terminal of its own.
class Terminal {
  public:
    Terminal(const std::string& name, const std::vector<std::string>& args) {
        std::vector<std::string> all = {built(name)};
        all.insert(all.end(), args.begin(), args.end());
        std::vector<char*> pointers;
        for (std::string& arg : all) pointers.push_back(arg.data());
        pointers.push_back(nullptr);
        const std::string directory = repository().string();
        master_ = posix_openpt(O_RDWR | O_NOCTTY);
        REQUIRE(master_ >= 0);
        REQUIRE(grantpt(master_) == 0);
        REQUIRE(unlockpt(master_) == 0);
        const std::string slave = ptsname(master_);
        child_ = fork();
        REQUIRE(child_ >= 0);
        if (child_ > 0) return;
        setsid();  // the terminal that is opened now becomes its own
        const int terminal = ::open(slave.c_str(), O_RDWR);
#ifdef TIOCSCTTY
        ioctl(terminal, TIOCSCTTY, 0);  // where opening is not enough
#endif
        for (const int descriptor : {0, 1, 2}) dup2(terminal, descriptor);
        if (chdir(directory.c_str()) == 0) execv(pointers[0], pointers.data());
        _exit(127);
    }
    ~Terminal() {
        if (child_ > 0) kill(child_, SIGKILL), waitpid(child_, nullptr, 0);
        close(master_);
    }
    Terminal(const Terminal&) = delete;
    Terminal& operator=(const Terminal&) = delete;

    void type(const std::string& keys) { REQUIRE(::write(master_, keys.data(), keys.size()) == ssize_t(keys.size())); }
    // Reads until what was shown since the last call holds the text, or the program's end; a minute at the most.
    std::string wait_for(const std::string& text) {
        std::string shown;
        while (text.empty() || shown.find(text) == std::string::npos) {
            pollfd ready{master_, POLLIN, 0};
            REQUIRE_MESSAGE(poll(&ready, 1, 60000) > 0, "nothing more came after: " << shown);
            char bytes[4096];
            const ssize_t n = ::read(master_, bytes, sizeof bytes);
            if (n <= 0) break;
            shown.append(bytes, usize(n));
        }
        return shown;
    }
    int status() {  // of the program, once it has ended
        wait_for("");
        int raw = 0;
        REQUIRE(waitpid(std::exchange(child_, -1), &raw, 0) > 0);
        return WIFEXITED(raw) ? WEXITSTATUS(raw) : -1;
    }
  private:
    int master_ = -1;
    pid_t child_ = -1;
};

// The small Gemma with so large a context that neither a prompt nor an answer fills it while a test waits for something.
struct Endless {
    TemporaryDirectory directory;
    std::string prompt = (directory.path / "prompt").string();
    std::vector<std::string> args = {
        "-m", directory.path.string(), "-c", "40000", "-n", "-1", "--ignore-eos", "-t", "1", "--dtype", "f32"};
    Environment slow{"LLM_SIMD", "scalar"}, kind{"TERM", "xterm"};

    Endless() {
        for (const char* file : {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"})
            write_file(directory.path / file, read_file(tiny("gemma3-tiny") + "/" + file));
        const std::string config = read_file(directory.path / "config.json"), length = "\"max_position_embeddings\": ";
        REQUIRE(config.find(length + "512") != config.npos);
        write_file(directory.path / "config.json", detail::replace_all(config, length + "512", length + "40000"));
    }
    void write_prompt(int words) const {
        std::string text = "ROMEO:";
        for (int i = 0; i < words; ++i) text += " the";
        write_file(prompt, text);
    }
    std::vector<std::string> with(const std::vector<std::string>& more) const {
        std::vector<std::string> all = args;
        all.insert(all.end(), more.begin(), more.end());
        return all;
    }
};

TEST_CASE("llm: a conversation on a terminal") {
    const Endless model;
    {
        Terminal terminal("llm", model.with({"--chat"}));
        CHECK(terminal.wait_for("> ").find("\033[32m> ") != std::string::npos);
        terminal.type("ROMEO: \\\n");
        terminal.wait_for(". ");
        terminal.type("I am\n");
        terminal.wait_for("am\r\n");
        terminal.wait_for(" ");  // the answer has begun
        terminal.type("\x03");
        terminal.wait_for("> ");  // and is ended
        terminal.type("\x04");
        CHECK(terminal.status() == 0);
    }
    {
        Terminal terminal("llm", model.with({"--chat"}));
        terminal.wait_for("> ");
        terminal.type("\x03");
        CHECK(terminal.status() == 130);
    }
    const Environment plain("NO_COLOR", "1");
    Terminal terminal("llm", model.with({"--chat"}));
    CHECK(terminal.wait_for("> ").find("\033[3") == std::string::npos);
    terminal.type("\x04");
    CHECK(terminal.status() == 0);
}

TEST_CASE("llm --chat: a first Ctrl-C ends the answer, a second one the program") {
    const Endless model;
    {
        Terminal terminal("llm", model.with({"--chat", "-p", "ROMEO:"}));
        terminal.wait_for("\n");
        terminal.type("\x03");
        const std::string shown = terminal.wait_for("> ");
        REQUIRE(shown.find("> ") != std::string::npos);
        terminal.type("JULIET:\n");  // the conversation goes on
        terminal.wait_for("\n");
        terminal.wait_for("\n");
        terminal.type("\x03");
        REQUIRE(terminal.wait_for("> ").find("> ") != std::string::npos);
        terminal.type("\x03");
        CHECK(terminal.status() == 130);
    }
    model.write_prompt(30000);
    Terminal terminal("llm", model.with({"--chat", "-f", model.prompt}));
    terminal.wait_for("] prompt");  // it is being read
    terminal.type("\x03");
    REQUIRE(terminal.wait_for("> ").find("> ") != std::string::npos);
    terminal.type("\x03");
    CHECK(terminal.status() == 130);
}

TEST_CASE("llm: Ctrl-C ends a text in good order, colours and bars are for terminals") {
    const Endless model;
    {
        Terminal terminal("llm", model.with({"ROMEO:"}));
        const std::string shown = terminal.wait_for("ROMEO:");
        CHECK(shown.find("[####") != std::string::npos);  // while loading
        CHECK(shown.find("\033[32mROMEO:") != std::string::npos);
        terminal.wait_for("\n");
        terminal.type("\x03");
        CHECK(terminal.wait_for("generated: ").find("generated: ") != std::string::npos);
        CHECK(terminal.status() == 130);
    }
    const std::vector<std::string> wrong = {"-m", "no/such/model"}, brief = {"ROMEO:", "-n", "3"};
    {
        Terminal terminal("llm", wrong);
        CHECK(terminal.wait_for("check").find("\033[31mllm:\033[0m") != std::string::npos);
        CHECK(terminal.status() == 1);
    }
    {
        const Environment no_color("NO_COLOR", "1");
        Terminal terminal("llm", brief), failing("llm", wrong);
        const std::string shown = terminal.wait_for("");
        CHECK(shown.find("\033[3") == std::string::npos);
        CHECK(shown.find("[####") != std::string::npos);  // a bar is no colour
        CHECK(failing.wait_for("").find("\033[3") == std::string::npos);
    }
    const Environment dumb("TERM", "dumb");
    Terminal simple("llm", brief);
    CHECK(simple.wait_for("seed").find('\033') == std::string::npos);
    CHECK(simple.status() == 0);
}

TEST_CASE("llm: a prompt that takes more than a second shows a bar, on a terminal only") {
    const Endless model;
    const std::vector<std::string> args = model.with({"-f", model.prompt, "-n", "1"});
    std::string shown;
    int words = 512;
    for (; words <= 32768; words *= 2) {  // however fast this machine is
        model.write_prompt(words);
        Terminal terminal("llm", args);
        shown = terminal.wait_for("");
        CHECK(terminal.status() == 0);
        if (shown.find("] prompt") != std::string::npos) break;
    }
    REQUIRE(words <= 32768);
    const std::size_t bar = shown.find("] prompt"), gone = shown.rfind("\r\033[K"), text = shown.find("ROMEO:");
    CHECK(bar < gone);  // the line is clear when the text comes
    CHECK(gone < text);
    CHECK(text != std::string::npos);
    const Outcome piped = run_llm(args);
    CHECK(piped.status == 0);
    CHECK(piped.out.find("ROMEO: the") == 0);
    CHECK(piped.err.find("prompt: ") == 0);  // the figures, in one line, are all
    CHECK(piped.err.find_first_of("[\r\033") == std::string::npos);
    CHECK(std::count(piped.err.begin(), piped.err.end(), '\n') == 1);
}

TEST_CASE("llm: Ctrl-C while the prompt is read ends the program between two chunks") {
    const Endless model;
    model.write_prompt(30000);
    Terminal terminal("llm", model.with({"-f", model.prompt}));
    terminal.wait_for("] prompt");
    terminal.type("\x03");
    const std::string shown = terminal.wait_for("");
    CHECK(shown.find("ROMEO:") == std::string::npos);  // it would be there once all was read
    CHECK(shown.find("generated: 0 tokens") != std::string::npos);
    CHECK(terminal.status() == 130);
}

}  // namespace
}  // namespace tests
