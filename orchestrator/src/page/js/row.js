// One line of the fleet. Its elements are made once; afterwards texts are exchanged where they differ.

/** Why a run is where it is, in a line or two: what it waits for, what limits it, why it ended. */
function notes(run) {
  if (run.state === "failed" || run.state === "cancelled") {
    return [run.reason || run.failure?.message || "", run.failure?.hint ? `Hint: ${run.failure.hint}` : ""];
  }
  if (run.state === "succeeded") return [proofLine(run.summary), ""];
  if (run.cancel) return ["Being cancelled", run.waits?.detail ?? run.reason];
  if (run.waits) return [`Waits for ${waitWord(run)}`, run.waits.detail];
  if (run.now?.limited_by) return [`Limited by ${run.now.limited_by}`, retriedLine(run)];
  return [retriedLine(run), ""];
}

function waitWord(run) {
  const words = {
    server: "its server", target: "its target", limit: "a place among the active runs", source: "its source", fabric: "its fabric",
    "back-off": "the next try", agent: "its agent", death: "an agent’s death", person: "a person",
  };
  return words[run.waits.for] ?? run.waits.for;
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
    this.#paths(run.paths);
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
    put(this.rate, now?.rate ? `${size(now.rate)}/s` : "");
    put(this.eta, now?.eta_seconds != null ? `${duration(now.eta_seconds)} left` : "");
  }

  #paths(paths) {
    put(this.paths, paths ? `${paths.live} of ${paths.total} paths live` : "");
    this.paths.classList.toggle("degraded", Boolean(paths && paths.live < paths.total));
  }
}
