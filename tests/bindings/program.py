"""Tries llm.py on a model and prints what comes back, as program.c does; with `interrupt`, whether Ctrl-C ends each call."""
import os
import signal
import sys
import threading

import llm


def line(name, value):
    print(f"{name}: {value}".replace("\n", "|"))


def refused(call, part):
    try:
        call()
    except llm.Error as error:
        assert part in str(error), error
    else:
        raise AssertionError(f"not refused: {part}")


def interrupted(call):
    def press(*_):
        os.kill(os.getpid(), signal.SIGINT)

    try:
        call(press)
    except KeyboardInterrupt:
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
        return
    raise AssertionError("Ctrl-C went by")


def interrupt(path):
    interrupted(lambda press: llm.Model(path, progress=press))
    model = llm.Model(path)
    session = model.session()
    interrupted(lambda press: session.generate("To be " * 100, progress=press))
    session.position = 0
    interrupted(lambda press: session.generate("ROMEO:", press, max_tokens=-1))
    assert 2 < session.position < 40
    interrupted(lambda press: session.generate_many(["ROMEO:", "JULIET:"], press, max_tokens=400))

    # Pressed at any time, where nothing of Python's is called but the library's own eyes.
    timer = threading.Timer(0.05, os.kill, [os.getpid(), signal.SIGINT])
    def write_on(_):
        timer.start()
        while True:
            session.position = 0
            session.generate("ROMEO:", max_tokens=200, ignore_end=1)
    interrupted(write_on)
    try:  # what a callback raises comes out
        session.generate("ROMEO:", lambda text: 1 // 0)
    except ZeroDivisionError:
        print("loading, prompt, text, texts: interrupted")


def main(path):
    steps = []
    model = llm.Model(path, progress=lambda done, what: steps.append(done))
    assert len(steps) > 3 and steps[-1] == 1
    session = model.session()
    ids = model.tokenize("To be, or not")
    line("ids", " ".join(map(str, ids)))
    line("text", model.detokenize(ids).decode())

    options = dict(max_tokens=40, seed=7, stop=["ZZZ", "QQQ"])
    pieces = []
    text = session.generate("ROMEO:", pieces.append, **options)
    assert "".join(pieces) == text and session.stats[0]["end"] == "max_tokens"
    line("generate", text)
    line("position", session.position)
    line("goes on", session.generate("", **options, temperature=0))

    session.position = 0
    for text in session.generate_many(["ROMEO:", "JULIET:", "To be"], **options):
        line("many", text)
    line("chat", session.chat("Words.", "plain").say("Who is there?\n", **options))
    session.position = 0
    assert session.chat(style="").say("", max_tokens=3, stop=iter(["zzz"])) is not None
    session.position = 0
    line("score", "%.4f" % session.score("To be, or not to be"))
    for id, log_probability in session.likeliest(3):
        line("likeliest", "%d %.4f" % (id, log_probability))

    session.generate("ROMEO:", lambda text: False)
    assert session.stats[0]["end"] == "callback"
    refused(lambda: session.generate("a", top_p=7), "top_p")
    refused(lambda: session.chat(style="polite"), "polite")
    refused(lambda: model.session(-1), "context")
    refused(lambda: model.detokenize([-1]), "-1")
    wrong = [(AttributeError, "a", dict(no_such_option=1)), (ValueError, "a", dict(max_tokens=2**40)),
             (ValueError, "a\0b", {}), (ValueError, "a", dict(stop="a\0b")), (ValueError, "a", dict(seed=-1))]
    for error, prompt, options in wrong:
        try:
            session.generate(prompt, **options)
        except error:
            continue
        raise AssertionError(f"not refused: {prompt!r}, {options}")
    session.position = 0
    assert "e" not in session.generate("ROMEO:", stop="e") and session.stats[0]["end"] == "stop_text"


if len(sys.argv) > 2:
    interrupt(sys.argv[1])
else:
    main(sys.argv[1])
