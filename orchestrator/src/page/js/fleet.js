// The fleet: what is known of each run, kept as it happens, and painted a little in each frame.

/** How long painting may take of one frame, in milliseconds. */
const FRAME = 7;
/** How many runs are asked for one by one; when more have changed, all that are not over are asked for at once. */
const FEW = 12;
/** How often what is not told by events (whose turn it is) is asked for, in milliseconds. */
const REFRESH = 15_000;
/** After how long all is asked for again when that has failed, in milliseconds. */
const AGAIN = 2000;
/** How many runs that are over are kept in the page, unless somebody asks for older ones. */
const KEPT = 2000;
/** How often ages are painted anew, in milliseconds. */
const AGES = 10_000;
const PAGE = 1000;
const ACTIVE = "lost,running,launching,queued";
const OVER = "failed,succeeded,cancelled";

class Fleet {
  /** Everything that is known, by the run's name. */
  runs = new Map();
  #rows = new Map();
  #groups = new Map();
  #dirty = new Set();
  #stale = new Set();
  #frame = 0;
  #asking = false;
  /** Counts what is asked and what is told. Clocks may be set back; this is not. */
  #turn = 0;
  #listener = null;
  #timers = [];
  #next = null;
  #early = null;
  #showing = true;
  #isOn = false;
  #isWhole = false;
  #kept = KEPT;
  #moved = false;
  filter = { text: "", states: new Set() };

  /** `on`: link(state, error), changed(run, before), pathless(run), signedOut(). */
  constructor(on) {
    this.on = on;
    for (const group of GROUPS) {
      const count = make("span", "count");
      const list = make("ul", "rows");
      list.setAttribute("role", "list");
      const title = make("h2", "", `${group.title} `, count);
      title.id = `group-${group.key}`;
      const section = make("section", `group ${group.key}`, title, list);
      section.setAttribute("aria-labelledby", title.id);
      section.hidden = true;
      byId("groups").append(section);
      this.#groups.set(group, { section, list, count, order: [] });
    }
  }

  start() {
    this.#isOn = true;
    this.#next = null;
    this.#kept = KEPT;
    this.#listener = new Listener("/v1/events", {
      open: () => this.#load(),
      heard: () => this.#isWhole && this.on.link("live"),
      lost: (error) => this.#lost(error),
      refused: (error) => {
        if (error.status === 401) this.on.signedOut();
        return error.status !== 401;
      },
      told: (name, data) => (this.#early ? this.#early.push([name, data]) : this.#told(name, data)),
    });
    this.#timers = [
      // Where that fails, the stream fails as well, and says so.
      setInterval(() => this.#isWhole && this.#askActive().catch(() => {}), REFRESH),
      setInterval(() => this.#touchAll(), AGES),
    ];
  }

  stop() {
    this.#isOn = false;
    this.#isWhole = false;
    this.#listener?.stop();
    this.#timers.forEach(clearInterval);
    clearTimeout(this.pause);
    clearTimeout(this.again);
    for (const row of this.#rows.values()) row.element.remove();
    for (const group of this.#groups.values()) group.order = [];
    this.#moved = true;
    this.runs.clear();
    this.#rows.clear();
    this.#dirty.clear();
    this.#stale.clear();
    this.#paint();
  }

  hurry() {
    this.#listener?.hurry();
  }

  /** Whether anybody sees it: what nobody sees is not painted. */
  show(isShown) {
    this.#showing = isShown;
    if (isShown) this.#touchAll();
  }

  // ---- what is known

  #lost(error) {
    this.#isWhole = false;
    this.on.link("lost", error);
  }

  /** All there is, asked for anew: when the page opens, and whenever events may have been missed. */
  async #load() {
    clearTimeout(this.again);
    this.#early = this.#early ?? [];
    try {
      const began = await this.#askList(ACTIVE);
      const page = await this.#ask(`/v1/runs?state=${OVER}&limit=${PAGE}`);
      if (this.#next === null) this.#next = page.next ?? "";
      this.#settle(began);
      if (!this.#isOn) return;
      this.#isWhole = true;
      this.on.link("live");
      this.on.loaded();
    } catch (error) {
      if (!this.#isOn) return;
      this.#lost(error);
      this.again = setTimeout(() => this.#load(), AGAIN);
    } finally {
      const early = this.#early ?? [];
      this.#early = null;
      early.forEach(([name, data]) => this.#told(name, data));
      this.#schedule();
    }
  }

  /** What was active before this turn, and of which nothing has been heard since, is asked for by name: no list has it any more. */
  #settle(began) {
    for (const run of this.runs.values()) {
      if (!isOver(run.state) && run.turn < began) this.#stale.add(run.run);
    }
    this.#askStale();
  }

  /** The next page of those that are over. */
  async older() {
    if (!this.#next) return;
    this.#kept = this.#groups.get(GROUPS.at(-1)).order.length + PAGE + KEPT;
    const page = await this.#ask(`/v1/runs?state=${OVER}&limit=${PAGE}&page=${encodeURIComponent(this.#next)}`);
    this.#next = page.next ?? "";
    this.#schedule();
  }

  get hasOlder() {
    return Boolean(this.#next);
  }

  /** Asks for runs, and takes what comes. */
  async #ask(path) {
    const turn = ++this.#turn;
    const answer = await ask("GET", path);
    (answer.runs ?? [answer]).forEach((run) => this.#take(run, turn));
    return answer;
  }

  /** All runs in these states, page by page; the turn at which that began. */
  async #askList(states) {
    const began = this.#turn + 1;
    let page = "";
    do {
      const { next } = await this.#ask(`/v1/runs?state=${states}&limit=${PAGE}${page}`);
      page = next ? `&page=${encodeURIComponent(next)}` : null;
    } while (page !== null);
    return began;
  }

  async #askActive() {
    this.#settle(await this.#askList(ACTIVE));
  }

  #take(run, turn) {
    if (!this.#isOn) return;
    const before = this.runs.get(run.run);
    // An answer is as old as its question: what was told, or asked and answered, since then is newer.
    if (before?.turn > turn) return;
    const taken = { ...run, turn };
    // An answer without progress does not take away what was told of it.
    if (run.progress) taken.now = sample(run.progress);
    else if (before?.now && run.state === "running") taken.now = before.now;
    if (taken.now) taken.moved = movedAfter(before?.moved, taken.now);
    this.runs.set(run.run, taken);
    this.#touch(run.run);
    if (before && before.state !== taken.state) this.on.changed(taken, before);
    if (before && taken.state === "running") this.#tellPathless(taken, taken.paths?.live, before.paths);
  }

  /** Once for each last path that is lost, whichever says so first: an event, or an answer to what was asked because of another one. */
  #tellPathless(run, live, before) {
    if (live === 0 && before?.live !== 0) this.on.pathless(run);
  }

  #told(name, data) {
    if (name === "fleet") return data.runs.forEach((glance) => this.#progress(glance.run, glance));
    const known = this.runs.get(data.run);
    if (data.state) this.#state(known, data);
    else if (data.agent && known) this.#agent(known, data.agent, data.time);
    return undefined;
  }

  #progress(name, progress) {
    const run = this.runs.get(name);
    if (!run || isOver(run.state)) return;
    run.now = sample(progress);
    run.moved = movedAfter(run.moved, run.now);
    run.phase = progress.phase;
    run.step = progress.step;
    this.#touch(name);
  }

  #state(known, { run: name, time, state: { state, reason } }) {
    this.#stale.add(name);
    if (known) {
      const before = { ...known };
      Object.assign(known, { state, reason, turn: ++this.#turn });
      if (before.state !== state) {
        Object.assign(known, { since: time, waits: undefined, now: undefined, moved: undefined, paths: undefined });
        if (isOver(state)) known.ended = time;
        this.on.changed(known, before);
      }
      this.#touch(name);
    }
    this.#askSoon();
  }

  #askSoon() {
    clearTimeout(this.pause);
    this.pause = setTimeout(() => this.#askStale(), 150);
  }

  #agent(run, { event }, time) {
    switch (event.kind) {
      case "step-started":
        Object.assign(run, { phase: event.phase, step: event.step, now: undefined, moved: undefined });
        break;
      case "phase-started":
        Object.assign(run, { phase: event.phase, step: undefined, now: undefined, moved: undefined });
        break;
      case "run-started":
        run.paths = undefined;
        break;
      case "path-changed":
        this.#tellPathless(run, event.live, run.paths);
        run.paths = pathsAfter(run.paths, event, time);
        // Answers to what was asked before know less.
        run.turn = ++this.#turn;
        if (run.paths.live === 0 || run.waits) {
          this.#stale.add(run.run);
          this.#askSoon();
        }
        break;
      default:
        return;
    }
    this.#touch(run.run);
  }

  /** Asks for the runs of which an event has said only that they changed. */
  async #askStale() {
    if (this.#asking || this.#stale.size === 0) return;
    this.#asking = true;
    const names = [...this.#stale];
    this.#stale.clear();
    try {
      if (names.length > FEW) {
        await this.#askList(ACTIVE);
        await this.#ask(`/v1/runs?state=${OVER}&limit=${PAGE}`);
      } else {
        await Promise.allSettled(names.map((name) => this.#ask(runPath(name))));
      }
    } catch {
      // The connection's loss is told by the stream, and everything is asked for when it is back.
    } finally {
      this.#asking = false;
      if (this.#stale.size > 0) setTimeout(() => this.#askStale(), 1000);
    }
  }

  // ---- what is shown

  counts() {
    const counts = Object.fromEntries(STATES.map((state) => [state, 0]));
    for (const run of this.runs.values()) counts[run.state] = (counts[run.state] ?? 0) + 1;
    return counts;
  }

  /** How many runs have no path to their target. */
  get pathless() {
    return [...this.runs.values()].filter((run) => run.state === "running" && run.waits?.for === "path").length;
  }

  /** How many runs match the filter. */
  get found() {
    return [...this.runs.values()].filter((run) => this.matches(run)).length;
  }

  matches(run) {
    const { text, states } = this.filter;
    if (states.size > 0 && !states.has(run.state)) return false;
    if (text === "") return true;
    const all = `${run.server}\n${run.image}\n${run.run}\n${run.target}\n${run.reason}\n${run.waits?.detail ?? ""}\n${run.failure?.message ?? ""}`;
    return all.toLowerCase().includes(text.toLowerCase());
  }

  refilter() {
    this.#touchAll();
  }

  #touch(name) {
    this.#dirty.add(name);
    this.#schedule();
  }

  #touchAll() {
    for (const name of this.runs.keys()) this.#dirty.add(name);
    this.#schedule();
  }

  #schedule() {
    if (this.#frame === 0) this.#frame = requestAnimationFrame(() => this.#paint());
  }

  #paint() {
    this.#frame = 0;
    const until = performance.now() + FRAME;
    if (this.#showing) {
      for (const name of this.#dirty) {
        this.#dirty.delete(name);
        this.#row(this.runs.get(name));
        if (performance.now() > until) break;
      }
      if (this.#dirty.size > 0) this.#schedule();
      if (this.#moved) this.#recount();
    }
    this.on.painted(this.#dirty.size === 0);
  }

  #recount() {
    this.#moved = false;
    for (const { section, order, count } of this.#groups.values()) {
      const shown = order.reduce((sum, row) => sum + (row.isShown ? 1 : 0), 0);
      section.hidden = shown === 0;
      put(count, shown);
    }
  }

  #row(run) {
    if (!run) return;
    const row = this.#rows.get(run.run) ?? new Row(run.run);
    this.#rows.set(run.run, row);
    const group = GROUPS.find((one) => one.has(run));
    if (row.group !== group) this.#move(row, run, group);
    row.paint(run);
    const isShown = this.matches(run);
    if (row.isShown !== isShown) {
      row.isShown = isShown;
      row.element.hidden = !isShown;
      this.#moved = true;
    }
  }

  /** Lets the oldest of those that are over go: a page that stays open for weeks does not grow. */
  #forget(row) {
    row.element.remove();
    this.#rows.delete(row.run);
    this.runs.delete(row.run);
  }

  /** Puts a row where it belongs; there it stays, whatever its progress. */
  #move(row, run, group) {
    this.#moved = true;
    const hadFocus = row.element.contains(document.activeElement);
    const old = this.#groups.get(row.group);
    if (old) old.order.splice(old.order.indexOf(row), 1);
    row.group = group;
    row.key = [isOver(run.state) ? run.ended ?? run.created : run.created, run.run].join(" ");
    const { list, order } = this.#groups.get(group);
    let [low, high] = [0, order.length];
    while (low < high) {
      const middle = (low + high) >> 1;
      if (order[middle].key > row.key) low = middle + 1;
      else high = middle;
    }
    list.insertBefore(row.element, order[low]?.element ?? null);
    order.splice(low, 0, row);
    if (group.key === "over" && order.length > this.#kept) this.#forget(order.pop());
    if (hadFocus) row.name.focus();
  }
}
