"""llm.h from Python, by the library that `make capi` builds; LLM_LIBRARY names it where it is not in ../build.

    session = llm.Model("models/gemma3-tiny", progress=llm.bar).session()
    session.generate("ROMEO:", llm.show, max_tokens=60, temperature=0.5)   # llm.show writes it as it comes

Failures are llm.Error. Ctrl-C ends a call by KeyboardInterrupt; the session holds what was written until then."""
import ctypes as c, functools, os, signal, sys, threading, weakref
NAME = {"darwin": "libllm.dylib", "win32": "llm.dll"}.get(sys.platform, "libllm.so")
lib = c.CDLL(os.environ.get("LLM_LIBRARY") or os.path.join(os.path.dirname(__file__), "..", "build", NAME))
lib.llm_load.restype = lib.llm_session_new.restype = lib.llm_chat_new.restype = c.c_void_p
lib.llm_last_error.restype = lib.llm_version.restype = c.c_char_p
OnProgress = c.CFUNCTYPE(c.c_int, c.c_void_p, c.c_float, c.c_char_p)
OnText = c.CFUNCTYPE(c.c_int, c.c_void_p, c.c_int, c.c_void_p, c.c_size_t)
DTYPES, ENDS = "native f32 q8_0 q4_0".split(), "end_token stop_text max_tokens context callback interrupted".split()
Error, show = type("Error", (Exception,), {}), functools.partial(print, end="", flush=True)
array = lambda texts: (c.c_char_p * len(texts))(*map(encoded, texts))
def encoded(text):  # C's texts end at a NUL
    if "\0" in text: raise ValueError("a text holds a NUL character: leave it out")
    return text.encode()
whole = lambda n: n.to_bytes(4, sys.byteorder, signed=True) and n  # or an exception: C would cut it to 32 bits
def bar(done, what):
    print(f"\r{100 * done:3.0f} % {what:60.60}" if done < 1 else f"\r{'':68}\r", end="", file=sys.stderr, flush=True)
struct = lambda name, *of: type(name, (c.Structure,), {"_fields_": [(f, k) for k, all in of for f in all.split()]})
Options = struct("Options", (c.c_size_t, "size"), (c.c_uint64, "seed"), (c.c_int, "max_tokens"),
                 (c.c_float, "temperature top_p min_p repeat_penalty"),
                 (c.c_int, "top_k repeat_last_n ignore_end parse_special lookup"), (c.POINTER(c.c_char_p), "stop"),
                 (c.c_size_t, "stop_count"), (OnProgress, "on_prompt"), (c.c_void_p, "on_prompt_user"))
Stats = struct("Stats", (c.c_int, "prompt_tokens generated end"), (c.c_double, "prompt_s generate_s"))

def call(function, *args, raised=None):  # raised: what callbacks raised, or Ctrl-C, either of which ends the call
    ours = raised is not None and threading.current_thread() is threading.main_thread()
    ours = ours and signal.getsignal(signal.SIGINT) is signal.default_int_handler
    ours and signal.signal(signal.SIGINT, lambda *_: raised.append(KeyboardInterrupt()))
    try:
        result = function(*[whole(a) if isinstance(a, (int, str)) else a for a in args])
    finally:
        ours and signal.signal(signal.SIGINT, signal.default_int_handler)
    if raised: raise raised[0]
    if result is None or result < 0: raise Error(lib.llm_last_error(None).decode())
    return result
def callback(kind, raised, function):
    def guarded(*args):
        try:
            return function(*args) is not False and not raised
        except BaseException as error:
            return raised.append(error) or False
    return kind(guarded)
progress_to = lambda f, raised: callback(OnProgress, raised, lambda _, done, what: f and f(done, what.decode()))

class Handle:  # of the library, freed with its object
    def __init__(self, free, function, *args, raised=None):
        self._as_parameter_ = c.c_void_p(call(function, *args, raised=raised))
        self._freed = weakref.finalize(self, free, self._as_parameter_)
    def write(self, function, texts, many, on_text, progress=None, stop=(), **options):
        o, raised, written, stats = Options(), [], [b""] * len(texts), (Stats * len(texts))()
        call(lib.llm_options_init, c.byref(o), c.c_size_t(c.sizeof(o)))
        stops = [stop] if isinstance(stop, str) else list(stop)
        options = dict(on_prompt=progress_to(progress, raised), stop=array(stops), stop_count=len(stops), **options)
        for name, value in options.items():
            kind, _ = type(getattr(o, name)), setattr(o, name, value)  # there must be such an option
            if kind is int and getattr(o, name) != value: raise ValueError(f"{name} is out of range: {value}")
        def take(_, i, text, size):
            written[i] += c.string_at(text, size)
            return not on_text or on_text(*[i] * len(many), c.string_at(text, size).decode(errors="replace"))
        sent = [array(texts), len(texts)] if many else array(texts)
        call(function, self, *sent, c.byref(o), *many, callback(OnText, raised, take), None, stats, raised=raised)
        self.stats = [dict({name: getattr(s, name) for name, _ in s._fields_}, end=ENDS[s.end]) for s in stats]
        return [text.decode(errors="replace") for text in written]

class Model(Handle):
    def __init__(self, path, dtype="native", threads=0, progress=None):
        super().__init__(lib.llm_model_free, lib.llm_load, encoded(os.fspath(path)), DTYPES.index(dtype), threads,
                         progress_to(progress, raised := []), None, raised=raised)
    def session(self, context=0, threads=0):
        return Session(lib.llm_session_free, lib.llm_session_new, self, context, threads)
    def tokenize(self, text, special=False, add_bos=True):
        count = lambda ids: call(lib.llm_tokenize, self, encoded(text), special, add_bos, ids, ids and len(ids) or 0)
        return (ids := (c.c_int * count(None))())[:count(ids)]
    def detokenize(self, ids):  # bytes
        write = lambda *to: call(lib.llm_detokenize, self, (c.c_int * len(ids))(*map(whole, ids)), len(ids), *to)
        return c.string_at(text := c.create_string_buffer(write(None, 0) + 1), write(text, len(text)))

class Session(Handle):  # options: those of llm_options, but progress for on_prompt, and stop; on_text: False ends it
    position = property(lambda self: call(lib.llm_position, self), lambda self, p: call(lib.llm_rewind, self, whole(p)))
    def generate(self, prompt, on_text=None, **options):
        return self.write(lib.llm_generate, [prompt], [], on_text, **options)[0]
    def generate_many(self, prompts, on_text=None, at_once=0, **options):  # on_text(i, text)
        return self.write(lib.llm_generate_many, prompts, [at_once], on_text, **options)
    def score(self, text):
        return call(lib.llm_score, self, encoded(text), c.byref(result := c.c_double())) or result.value
    def likeliest(self, k):  # [(id, log-probability)]
        best = (struct("Candidate", (c.c_int, "id"), (c.c_float, "log_probability")) * k)()
        return [(one.id, one.log_probability) for one in best[:call(lib.llm_likeliest, self, best, k)]]
    def chat(self, system="", style=None):
        return Chat(lib.llm_chat_free, lib.llm_chat_new, self, encoded(system), style and encoded(style) or None)

class Chat(Handle):
    def say(self, text, on_text=None, **options):
        return self.write(lib.llm_chat_say, [text], [], on_text, **options)[0]
