// One run's whole story: where it is, what came of it, each attempt, and everything that was told of it.

/** Entries of the time line that are kept in the page. */
const ENTRIES = 2000;
const STAGES = [["source", "Source"], ["decode", "Decode"], ["write", "Write"], ["read_back", "Read back"]];

/** A titled part of the page. */
function panel(title, classes, ...inside) {
  const heading = make("h2", "", title);
  heading.id = `panel-${title.toLowerCase().replaceAll(" ", "-")}`;
  const section = make("section", `panel ${classes}`, heading, ...inside);
  section.setAttribute("aria-labelledby", heading.id);
  return section;
}

/** Names and values; those without a value are left out. */
function facts(rows) {
  const list = make("dl", "facts");
  for (const [name, value, classes] of rows) {
    if (value == null || value === "") continue;
    list.append(make("dt", "", name), make("dd", `data ${classes ?? ""}`, value));
  }
  return list;
}

class Story {
  #listener = null;
  #frame = 0;
  #entries = [];
  #shown = {};
  #asked = 0;
  #taken = 0;
  /** Whether the service has said all there is to say. What the fleet knows of the run is less. */
  isWhole = false;
  /** The paths that are lost, by their names. */
  ways = new Map();

  /** `on`: known(), role(), act(action, run), gone(error), signedOut(). */
  constructor(name, on) {
    this.name = name;
    this.on = on;
    const known = on.known();
    this.run = known ? { ...known } : null;
    this.head = make("div", "story-head");
    this.now = make("div", "now");
    this.result = make("div", "");
    this.attempts = make("div", "");
    this.list = make("ol", "timeline");
    this.list.setAttribute("role", "list");
    this.list.id = "timeline";
    this.earlier = make("p", "help", "Earlier entries are left out here; z-orchestrator run watch shows them all.");
    this.earlier.hidden = true;
    this.order = make("div", "");
    const left = make("div", "story-main", this.now, this.result, this.attempts, panel("Time line", "", make("p", "help", "Times are UTC."), this.earlier, this.list));
    const body = byId("story-body");
    this.parts = [this.head, make("div", "story-columns", left, make("div", "story-side", this.order))];
    body.replaceChildren(...this.parts);
    this.ages = setInterval(() => this.#paintLater(), AGES);
    this.#paintLater();
    this.ready = this.refresh();
    this.#listener = new Listener(`${runPath(name)}/events`, {
      open: (isAgain) => isAgain && this.refresh(),
      // The fleet's stream says so.
      lost: () => {},
      anew: () => { this.#entries = []; this.day = null; this.list.replaceChildren(); },
      refused: (error) => error.status !== 404 && error.status !== 401,
      told: (kind, data) => this.#told(kind, data),
    });
  }

  stop() {
    this.isOver = true;
    this.#listener.stop();
    clearInterval(this.ages);
    clearTimeout(this.pause);
    clearTimeout(this.again);
    cancelAnimationFrame(this.#frame);
  }

  async refresh() {
    const asked = ++this.#asked;
    try {
      const run = await ask("GET", runPath(this.name));
      // The answer to a later question may have overtaken it.
      if (this.isOver || asked < this.#taken) return;
      this.#taken = asked;
      const now = run.progress ? sample(run.progress) : undefined;
      this.run = { ...run, now, moved: now ? movedAfter(this.run?.moved, now) : this.run?.moved };
      if (this.isGone) byId("story-body").replaceChildren(...this.parts);
      [this.isWhole, this.isGone] = [true, false];
      this.#paintLater();
    } catch (error) {
      if (this.isOver) return;
      if (error instanceof Refused && error.status === 401) this.on.signedOut();
      else if (!this.isWhole) {
        const isNowhere = error.status === 404;
        this.isGone = isNowhere || !this.run;
        if (this.isGone) this.on.gone(error);
        // The stream tells of a connection that is back only where there was one before.
        if (!isNowhere) this.again = setTimeout(() => this.refresh(), AGAIN);
      }
    }
  }

  #told(kind, data) {
    if (kind === "progress") {
      if (this.run && !isOver(this.run.state)) {
        this.run.now = sample(data.progress);
        this.run.moved = movedAfter(this.run.moved, this.run.now);
      }
    } else {
      this.#entries.push([kind, data]);
      const event = data.agent?.event;
      // Of an earlier attempt, they say nothing any more.
      if (event?.kind === "run-started") {
        [this.paths, this.ways] = [undefined, new Map()];
        if (this.run) this.run.paths = undefined;
      }
      if (event?.kind === "path-changed") this.#path(event, data.time);
      if (this.run && (event?.kind === "step-started" || event?.kind === "phase-started")) {
        Object.assign(this.run, { phase: event.phase, step: event.step, now: undefined, moved: undefined });
      }
      // What an event says of the run is little: the rest is asked for, once for all that came together.
      if (kind !== "agent" || event?.kind === "run-failed" || event?.kind === "run-finished" || (event?.kind === "path-changed" && (event.live === 0 || this.run?.waits))) {
        clearTimeout(this.pause);
        this.pause = setTimeout(() => this.refresh(), 200);
      }
    }
    this.#paintLater();
  }

  /** Which paths are lost. One that has gone is known by its name alone; one that comes back may have another. */
  #path({ path, way, state, ...counts }, time) {
    const before = this.ways.get(path);
    if (state === "up") {
      for (const [name, lost] of this.ways) if (name === path || lost.way === way) this.ways.delete(name);
    } else {
      this.ways.set(path, { way: way === path ? before?.way ?? way : way, state, since: before?.since ?? time });
    }
    this.paths = pathsAfter(this.paths, { ...counts, state }, time);
  }

  #paintLater() {
    if (this.#frame === 0) this.#frame = requestAnimationFrame(() => this.#paint());
  }

  #paint() {
    this.#frame = 0;
    const some = this.#entries.splice(0, 200);
    for (const [kind, data] of some) this.#entry(kind, data);
    if (this.#entries.length > 0) this.#paintLater();
    const { run } = this;
    if (!run) return;
    this.#paintNow(run);
    if (this.lasted) this.#paintLasted(run);
    // All else changes seldom, and is made anew only then: focus and selections stay, and no button goes from under a finger.
    const { now, moved, progress, phase, step, paths, order, turn, ...rest } = run;
    if (this.#isNew("head", [rest, this.on.role()])) this.#paintHead(run);
    if (!this.#isNew("rest", [rest, order])) return;
    this.result.replaceChildren(...resultOf(run));
    this.attempts.replaceChildren(attemptsOf(run));
    this.order.replaceChildren(orderOf(run));
  }

  #isNew(part, value) {
    const text = JSON.stringify(value);
    const isNew = this.#shown[part] !== text;
    this.#shown[part] = text;
    return isNew;
  }

  #paintHead(run) {
    const act = document.activeElement?.dataset?.act;
    const title = make("h1", "data", run.server);
    title.id = "story-title";
    const buttons = make("div", "actions");
    if (this.on.role() === "operator") {
      for (const action of actions(run)) {
        const button = make("button", action === "retry" ? "quiet" : "quiet danger-text", ACTION_WORDS[action]);
        button.type = "button";
        button.dataset.act = action;
        button.addEventListener("click", () => this.on.act(action, this.run));
        buttons.append(button);
      }
    } else if (actions(run).length > 0) {
      buttons.append(make("p", "help", "You are signed in as a viewer: only operators cancel and retry runs."));
    }
    const reason = run.reason && !run.failure ? make("p", "reason data", run.reason) : null;
    const since = isOver(run.state) ? run.ended : run.since;
    this.lasted = make("span", "");
    const line = make("p", "story-state", stateMark(run.state), since ? make("span", "sub", isOver(run.state) ? " at " : " since ", moment(since), " UTC", this.lasted) : null,
      run.cancel && !isOver(run.state) ? make("span", "badge", "being cancelled") : null);
    this.head.replaceChildren(make("div", "", title, line, make("p", "sub mono", run.run), ...(reason ? [reason] : [])), buttons);
    this.#paintLasted(run);
    if (act) this.head.querySelector(`[data-act="${act}"]`)?.focus();
  }

  #paintLasted(run) {
    const lasted = age(isOver(run.state) ? run.ended : run.since);
    put(this.lasted, lasted && `, ${isOver(run.state) ? `${lasted} ago` : `for ${lasted}`}`);
  }

  /** What changes each second: it is made once for each step, and then only its texts. */
  #paintNow(run) {
    const isLive = run.state === "running" || run.waits;
    const paths = (run.paths = this.paths ?? run.paths);
    const key = isLive ? `${run.state} ${run.phase} ${run.step} ${run.waits?.for} ${run.waits?.detail} ${run.waits ? age(waitsSince(run)) : ""} ${Boolean(run.now)} ${Boolean(run.now?.rates)} ${Boolean(paths)} ${this.on.role()}` : "";
    if (this.nowKey !== key) {
      this.nowKey = key;
      this.now.replaceChildren(...(isLive ? [this.#nowPanel(run)] : []));
    }
    if (!isLive) return;
    this.#paintPaths(run);
    if (!run.now || !this.meter) return;
    const { now } = run;
    setMeter(this.meter, now, now.step);
    put(this.share, `${percent(now.bytes, now.total_bytes)} %`);
    const still = standstill(run);
    const rest = still ? `no progress for ${still}` : now.eta_seconds != null ? `${duration(now.eta_seconds)} left` : "";
    put(this.amount, [amount(now.bytes, now.total_bytes), rest].filter(Boolean).join(", "));
    this.amount.classList.toggle("still", still !== "");
    const most = Math.max(1, ...STAGES.map(([stage]) => now.rates?.[stage] ?? 0));
    for (const [stage] of this.stages ? STAGES : []) {
      const { fill, text, row } = this.stages[stage];
      const rate = now.rates?.[stage] ?? 0;
      fill.style.transform = `scaleX(${(rate / most).toFixed(4)})`;
      row.classList.toggle("limits", now.limited_by === stage);
      put(text, `${size(rate)}/s${now.limited_by === stage ? " · limits" : ""}`);
    }
  }

  #paintPaths({ paths, state }) {
    if (!paths || !this.pathsText || state !== "running") return;
    put(this.pathsText, pathsLine(paths));
    this.pathsText.classList.toggle("degraded", paths.live < paths.total);
    const lost = [...this.ways].map(([path, { way, state: how, since }]) => `${path} is ${how} · ${age(since)}${way === path ? "" : `: ${way}`}`);
    if (this.waysShown === lost.join("\n")) return;
    this.waysShown = lost.join("\n");
    this.pathsList.replaceChildren(...lost.map((text) => make("li", "data", text)));
  }

  #nowPanel(run) {
    this.meter = null;
    const inside = [];
    if (run.waits) {
      inside.push(make("p", "waits", make("strong", "", `Waits for ${waitWord(run)}`), make("span", "sub", ` for ${age(waitsSince(run))}`)), make("p", "data", run.waits.detail));
      if (silentAttempt(run) && this.on.role() === "operator") inside.push(make("p", "help", `The button “${ACTION_WORDS["confirm-death"]}” on this page does the same as that command.`));
    }
    if (run.state === "running") {
      inside.push(make("p", "step-line", make("strong", "", run.step ?? run.phase ?? "starting"), run.phase ? make("span", "sub", ` phase ${run.phase}`) : null, (this.share = make("span", "share"))));
    }
    if (run.now) {
      this.meter = make("div", "meter big", make("div", "fill"));
      this.meter.role = "progressbar";
      this.meter.ariaValueMin = "0";
      this.meter.ariaValueMax = "100";
      this.meter.setAttribute("aria-label", `Progress of ${run.server}`);
      this.amount = make("p", "sub amount");
      // What the fleet is told of a run has no rates of its stages.
      this.stages = run.now.rates ? {} : null;
      const list = make("dl", "stages");
      for (const [stage, title] of this.stages ? STAGES : []) {
        const [fill, text] = [make("div", "fill"), make("span", "")];
        const row = make("div", "stage", make("dt", "", title), make("dd", "", make("div", "meter", fill), text));
        this.stages[stage] = { fill, text, row };
        list.append(row);
      }
      inside.push(this.meter, this.amount, this.stages && list);
    }
    this.pathsText = null;
    if (run.paths && run.state === "running") {
      [this.pathsText, this.pathsList, this.waysShown] = [make("span", ""), make("ul", "lines mono"), null];
      this.pathsList.setAttribute("role", "list");
      inside.push(make("dl", "facts", make("dt", "", "Paths"), make("dd", "", this.pathsText, this.pathsList)));
    }
    return panel("Now", needsAttention(run) ? "live attention" : "live", ...inside);
  }

  #entry(kind, data) {
    const entry = entryOf(kind, data);
    if (!entry) return;
    const [classes, title, detail] = entry;
    const attempt = data.state?.attempt ?? data.agent?.attempt ?? data.key?.attempt;
    const today = day(data.time);
    if (this.day !== today) {
      this.day = today;
      this.list.append(make("li", "day", today));
    }
    const text = make("div", "", make("span", "data title", title), detail ? make("span", "data detail", detail) : null);
    this.list.append(make("li", classes, moment(data.time, false), make("span", "attempt", attempt ? `#${attempt}` : ""), text));
    if (this.list.childElementCount > ENTRIES) {
      this.list.firstElementChild.remove();
      this.earlier.hidden = false;
    }
  }
}

/** An event in words: classes, what happened, and more about it; nothing for what is only for machines. */
function entryOf(kind, data) {
  if (data.state) {
    const { state, reason } = data.state;
    return [`state-${STATES.includes(state) ? state : "other"}`, state, reason];
  }
  if (data.key) {
    const { action, by, reason } = data.key;
    return ["key", `Key ${action}`, `${by}${reason ? `: ${reason}` : ""}`];
  }
  const event = data.agent?.event;
  if (!event) {
    const { run, time, ...rest } = data;
    return ["other", kind, Object.entries(Object.values(rest)[0] ?? {}).map(([name, value]) => `${name}: ${typeof value === "string" ? value : JSON.stringify(value)}`).join(", ")];
  }
  switch (event.kind) {
    case "run-started": return ["agent", `${event.agent} begins`, `${event.image} → ${event.target}`];
    case "phase-started": return ["phase", `Phase ${event.phase}`, ""];
    case "step-started": return ["step", event.step, ""];
    case "progress": return null;
    case "retry": return ["retry", "Retry", `${event.source}: ${event.message}`];
    case "warning": return ["warn", "Warning", event.message];
    case "path-changed":
      return [event.state === "up" ? "path-up" : "path-down", `Path ${event.path} is ${event.state}`, `${event.live} of ${event.total} live; ${event.way}`];
    case "phase-finished": return ["phase-end", `${event.phase} took ${short(event.seconds)}`, event.detail];
    case "run-finished": return ["good", "The agent reached its goal", proofLine(event)];
    case "run-failed": return ["bad", "The agent failed", event.message];
    default: {
      const { kind: name, ...rest } = event;
      return ["other", name, JSON.stringify(rest)];
    }
  }
}
