// One line of the fleet. Its elements are made once; afterwards texts are exchanged where they differ.

/** Why a run is where it is, in a line or two: what it waits for, what limits it, why it ended. */
function notes(run) {
  if (run.state === "failed" || run.state === "cancelled") {
    return [run.reason || run.failure?.message || "", run.failure?.hint ? `Hint: ${run.failure.hint}` : ""];
  }
  if (run.state === "succeeded") return [proofLine(run.summary), ""];
  if (run.cancel) return ["Being cancelled", run.waits?.detail ?? run.reason];
  if (run.waits) return [`Waits for ${waitWord(run)} · ${age(waitsSince(run))}`, run.waits.detail];
  if (run.now?.limited_by && !standstill(run)) return [`Limited by ${run.now.limited_by}`, retriedLine(run)];
  return [retriedLine(run), ""];
}

function waitWord(run) {
  const words = {
    server: "its server", target: "its target", limit: "a place among the active runs", source: "its source", fabric: "its fabric",
    "back-off": "the next try", agent: "its agent", path: "a path to its target", death: "an agent’s death", person: "a person",
  };
  return words[run.waits.for] ?? run.waits.for;
}

/** Since when: that of paths is told apart, all else begins with the state. */
function waitsSince(run) {
  return (run.waits.for === "path" && run.paths?.since) || run.since || run.created;
}

/** The paths after a change, counted as the service counts them: one that has gone is lost, and one of them all the same. */
function pathsAfter(before, { live, total, state }, time) {
  const all = Math.max(before?.total ?? 0, total + (!before && state === "gone" ? 1 : 0));
  return before?.live === live && before.total === all ? before : { live, total: all, since: time };
}

function pathsLine(paths) {
  const lost = paths ? paths.total - paths.live : 0;
  if (lost <= 0) return paths ? `${paths.live} of ${paths.total} paths live` : "";
  return `${lost} of ${paths.total} paths lost${paths.since ? ` · ${age(paths.since)}` : ""}`;
}

/** Whether a run stands still until somebody does something about it. */
function needsAttention(run) {
  return run.state === "lost" || (run.state === "running" && run.waits?.for === "path");
}

/** After how long without another byte a step is said to stand still, in milliseconds. Of very many agents each reports every ten seconds. */
const STILL = 20_000;

/** When a step got on last: an agent that is stuck goes on telling of it. */
function movedAfter(before, now) {
  return before?.step === now.step && before.bytes === now.bytes ? before : { step: now.step, bytes: now.bytes, at: Date.now() };
}

/** For how long a run has stood still; nothing while it gets on. Nobody knows what happens while the connection is lost. */
function standstill(run) {
  if (run.state !== "running" || !run.now || !run.moved) return "";
  const lasted = (isLost ? lastHeard : Date.now()) - run.moved.at;
  return lasted < STILL ? "" : lasting(lasted / 1000);
}

function retriedLine(run) {
  const last = run.attempts?.filter((attempt) => attempt.outcome).at(-1);
  return last ? `Attempt ${last.attempt} ${last.outcome}${last.reason ? `: ${last.reason}` : ""}` : "";
}

function proofLine(summary) {
  if (!summary) return "";
  const proof = summary.proof?.["read-back"];
  const took = summary.total_seconds > 0 ? ` in ${duration(summary.total_seconds)}` : "";
  return proof ? `Proven: ${size(proof.bytes)} read back${took}` : `Not proven: ${summary.proof?.["not-proven"]?.reason ?? "see the run"}`;
}

function attemptLine(run) {
  const attempts = run.attempts?.length ?? 0;
  return attempts > 1 || (attempts === 1 && run.state === "queued") ? `attempt ${attempts}/${run.max_attempts}` : "";
}

/** Sets how far a bar is, for eyes and for screen readers. */
function setMeter(meter, now, label) {
  const share = now && now.total_bytes > 0 ? Math.min(1, now.bytes / now.total_bytes) : 0;
  meter.firstElementChild.style.transform = `scaleX(${share.toFixed(4)})`;
  if (!now) return;
  const value = String(percent(now.bytes, now.total_bytes));
  if (meter.ariaValueNow !== value) {
    meter.ariaValueNow = value;
    meter.ariaValueText = printable(`${label}: ${value} percent`);
  }
}

/** The groups, in the order in which an operator needs them. */
const GROUPS = [
  { key: "person", title: "Needs attention", has: needsAttention },
  { key: "failed", title: "Failed in the last 24 hours", has: (run) => run.state === "failed" && Date.now() + ahead - Date.parse(run.ended) < 86_400_000 },
  { key: "active", title: "Active", has: (run) => run.state === "running" || run.state === "launching" },
  { key: "queued", title: "Queued", has: (run) => !isOver(run.state) },
  { key: "over", title: "Over", has: () => true },
];

class Row {
  group = null;
  key = "";
  isShown = null;
  #state = null;

  constructor(name) {
    this.run = name;
    this.element = byId("row-template").content.firstElementChild.cloneNode(true);
    for (const part of ["state", "word", "since", "name", "id", "image", "target", "step", "meter", "amount", "rate", "eta", "paths", "note", "note2"]) {
      this[part] = this.element.querySelector(`.${part}`);
    }
    this.use = this.element.querySelector("use");
    this.name.href = `#run/${encodeURIComponent(name)}`;
    put(this.id, name);
  }

  paint(run) {
    if (this.#state !== run.state) {
      this.#state = run.state;
      this.state.dataset.state = run.state;
      this.element.dataset.state = run.state;
      this.use.setAttribute("href", `#s-${STATES.includes(run.state) ? run.state : "queued"}`);
      put(this.word, run.state);
      this.meter.setAttribute("aria-label", `Progress of ${run.server}`);
    }
    const attempt = attemptLine(run);
    const since = isOver(run.state) ? `${age(run.ended)} ago` : age(run.since ?? run.created);
    put(this.since, attempt ? `${since} · ${attempt}` : since);
    put(this.name, run.server);
    put(this.image, run.image);
    put(this.target, run.target);
    this.#progress(run);
    // Whatever waits for one has none.
    put(this.paths, run.waits?.for === "path" ? "" : pathsLine(run.paths));
    this.paths.classList.toggle("degraded", Boolean(run.paths && run.paths.live < run.paths.total));
    this.element.classList.toggle("attention", needsAttention(run));
    const [first, second] = notes(run);
    this.#note(this.note, first);
    this.#note(this.note2, second);
  }

  #note(element, text) {
    put(element, text);
    if (element.title !== (text ?? "")) element.title = printable(text ?? "");
  }

  #progress(run) {
    const { now } = run;
    const isRunning = run.state === "running";
    this.meter.hidden = !(isRunning && now);
    if (!isRunning) {
      for (const element of [this.step, this.amount, this.rate, this.eta]) put(element, "");
      return;
    }
    const where = run.step ?? run.phase ?? "starting";
    put(this.step, now ? `${where} ${percent(now.bytes, now.total_bytes)} %` : where);
    setMeter(this.meter, now, where);
    put(this.amount, now ? amount(now.bytes, now.total_bytes) : "");
    const still = standstill(run);
    const hasRate = now && (now.rate > 0 || where === "write" || where === "read-back");
    this.rate.classList.toggle("still", still !== "");
    put(this.rate, still ? "no progress" : hasRate ? `${size(now.rate)}/s` : "");
    put(this.eta, still ? `for ${still}` : now?.eta_seconds != null ? left(now.eta_seconds) : "");
  }
}
