// What the page asks the service, and how it listens.

/** A refusal, in the service's words. */
class Refused extends Error {
  constructor(status, problem) {
    super(problem.detail ?? `the service answered with status ${status}`);
    this.status = status;
    this.hint = problem.hint;
    this.retryAfter = problem.retry_after;
  }

  get text() {
    return this.hint ? `${this.message}: ${this.hint}` : this.message;
  }
}

async function refusal(answer) {
  const problem = await answer.json().catch(() => ({}));
  return new Refused(answer.status, problem);
}

/** Asks, and answers with the JSON that came. */
async function ask(method, path, body, headers = {}) {
  const options = { method, headers: { ...headers }, cache: "no-store", credentials: "same-origin", redirect: "error" };
  if (body !== undefined) {
    options.headers["Content-Type"] = "application/json";
    options.body = JSON.stringify(body);
  }
  const answer = await fetch(path, options);
  const there = Date.parse(answer.headers.get("Date"));
  // The header has whole seconds.
  if (Number.isFinite(there)) ahead = Math.abs(there - Date.now()) < 2000 ? 0 : there - Date.now();
  if (!answer.ok) throw await refusal(answer);
  return answer.status === 204 ? null : answer.json();
}

/** What to say of whatever went wrong. */
function said(error) {
  return error instanceof Refused ? error.text : "The service cannot be reached.";
}

const runPath = (run) => `/v1/runs/${encodeURIComponent(run)}`;

/** How long a stream may be silent; the service sends a comment every 15 seconds. */
const SILENCE = 40_000;
const FIRST_PAUSE = 500;
const LONGEST_PAUSE = 10_000;

/** Listens to server-sent events, and comes back to them whenever the connection is lost, after the last `id` it was given. */
class Listener {
  #path;
  #to;
  #stop = new AbortController();
  #wake = () => {};
  last = null;

  /** `to`: told(name, data), open(isAgain), lost(error), refused(error) → whether to go on; and, where wanted, heard() and anew(). */
  constructor(path, to) {
    this.#path = path;
    this.#to = to;
    this.#go();
  }

  stop() {
    this.#stop.abort();
    this.#wake();
  }

  /** Tries at once. */
  hurry() {
    this.#wake();
  }

  async #go() {
    let pause = FIRST_PAUSE;
    let isAgain = false;
    while (!this.#stop.signal.aborted) {
      let error = null;
      try {
        await this.#once(() => {
          this.#to.open(isAgain);
          isAgain = true;
          pause = FIRST_PAUSE;
        });
      } catch (thrown) {
        error = thrown;
      }
      if (this.#stop.signal.aborted) return;
      // A service on another store has never told what we have heard last: from the beginning, then.
      if (error instanceof Refused && error.status === 400 && this.last !== null) {
        this.last = null;
        this.#to.anew?.();
      }
      if (error instanceof Refused && !this.#to.refused(error)) return;
      this.#to.lost(error);
      const wait = Math.max(pause * (0.75 + Math.random() / 2), (error?.retryAfter ?? 0) * 1000);
      await new Promise((done) => {
        const timer = setTimeout(done, wait);
        this.#wake = () => { clearTimeout(timer); done(); };
      });
      pause = Math.min(pause * 2, LONGEST_PAUSE);
    }
  }

  async #once(opened) {
    const silence = new AbortController();
    const cut = () => silence.abort();
    let timer = setTimeout(cut, SILENCE);
    this.#stop.signal.addEventListener("abort", cut, { once: true });
    try {
      const headers = { Accept: "text/event-stream" };
      if (this.last !== null) headers["Last-Event-ID"] = this.last;
      const answer = await fetch(this.#path, { headers, cache: "no-store", redirect: "error", signal: silence.signal });
      if (!answer.ok) throw await refusal(answer);
      opened();
      const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
      let rest = "";
      for (;;) {
        const { value, done } = await reader.read();
        if (done) return;
        clearTimeout(timer);
        timer = setTimeout(cut, SILENCE);
        const blocks = (rest + value).split("\n\n");
        rest = blocks.pop();
        for (const block of blocks) this.#block(block);
        this.#to.heard?.();
      }
    } finally {
      clearTimeout(timer);
      this.#stop.signal.removeEventListener("abort", cut);
    }
  }

  #block(block) {
    const event = { id: null, name: "message", data: "" };
    for (const line of block.split("\n")) {
      const at = line.indexOf(": ");
      const [field, value] = [line.slice(0, at), line.slice(at + 2)];
      if (field === "id") event.id = value;
      else if (field === "event") event.name = value;
      else if (field === "data") event.data += value;
    }
    if (event.data === "") return;
    let data;
    try {
      data = JSON.parse(event.data);
    } catch {
      return;
    }
    if (event.id !== null) this.last = event.id;
    this.#to.told(event.name, data, event.id);
  }
}
