// The page: who is signed in, which view the address names, and what becomes of the connection.

let who = null;
let story = null;
let lastHeard = Date.now();
let isLost = false;
const question = new Question();

const fleet = new Fleet({
  link: (state, error) => setLink(state, error),
  changed: (run, before) => announce(run, before),
  pathless: (run) => later(run.server, "without a path"),
  signedOut: () => signedOut("Your session has ended. Sign in again."),
  loaded: () => { byId("older").hidden = !fleet.hasOlder; document.body.dataset.loaded = "yes"; },
  painted: (isAll) => isAll && paintCounts(),
});

// ---- the connection

function setLink(state, error) {
  if (state === "live") {
    lastHeard = Date.now();
    if (isLost) byId("away").hidden = true;
    isLost = false;
  } else {
    if (!isLost) put(byId("away"), `The connection to the service is lost. What is shown is as it was at ${clock(new Date(lastHeard).toISOString())} UTC.`);
    isLost = true;
    byId("away").hidden = false;
    byId("away").title = said(error);
  }
  paintLink();
}

function paintLink() {
  byId("link").hidden = who === null;
  byId("link").dataset.state = isLost ? "lost" : "live";
  put(byId("link-text"), isLost ? `Connection lost; ${duration((Date.now() - lastHeard) / 1000)} old` : "Live");
}

setInterval(paintLink, 1000);
window.addEventListener("online", () => fleet.hurry());
document.addEventListener("visibilitychange", () => { if (!document.hidden) fleet.hurry(); });

// ---- what a screen reader is told: changes of state, the last path's loss, what a filter finds; and never progress

let news = [];
function announce(run, before) {
  if (before.state !== run.state) later(run.server, run.state);
}

function later(server, state) {
  if (news.length === 0) setTimeout(tell, 1500);
  news.push([server, state]);
}

function tell() {
  const told = news;
  news = [];
  if (told.length <= 3) return put(byId("told"), told.map(([server, state]) => `${server} is ${state}.`).join(" "));
  const counts = new Map();
  for (const [, state] of told) counts.set(state, (counts.get(state) ?? 0) + 1);
  return put(byId("told"), `${told.length} runs changed: ${[...counts].map(([state, count]) => `${count} ${state}`).join(", ")}.`);
}

// ---- counts, filter, the address

const chips = new Map(STATES.map((state) => {
  const count = make("span", "count", "0");
  const chip = make("button", "chip", stateMark(state), count);
  chip.type = "button";
  chip.setAttribute("aria-pressed", "false");
  chip.addEventListener("click", () => {
    const { states } = fleet.filter;
    if (!states.delete(state)) states.add(state);
    filterChanged();
    sayFound();
  });
  byId("chips").append(chip);
  return [state, { chip, count }];
}));

function paintCounts() {
  const counts = fleet.counts();
  for (const [state, { chip, count }] of chips) {
    put(count, `${counts[state]}${isOver(state) && fleet.hasOlder ? "+" : ""}`);
    chip.classList.toggle("none", counts[state] === 0);
  }
  const shown = document.querySelector("#groups > section:not([hidden])");
  byId("empty").hidden = shown !== null || document.body.dataset.loaded !== "yes";
  put(byId("empty-text"), fleet.runs.size === 0 ? "There are no runs yet. z-orchestrator run create makes one." : `No run matches this filter${fleet.hasOlder ? ", of those that are shown here" : ""}.`);
  byId("all").hidden = fleet.runs.size === 0;
  byId("fleet").classList.toggle("nothing", shown === null);
  const attention = [["lost", counts.lost], ["without a path", fleet.pathless]].filter(([, count]) => count > 0).map(([what, count]) => `${count} ${what} · `).join("");
  document.title = story?.run ? `${printable(story.run.server)} – z-provisioner` : `${attention}${counts.running} running – z-provisioner`;
}

/** What stands behind `#`: a run, or a filter. */
function readAddress() {
  const text = location.hash.slice(1);
  if (text.startsWith("run/")) {
    try {
      return { run: decodeURIComponent(text.slice(4)) };
    } catch {
      return {};
    }
  }
  const asked = new URLSearchParams(text);
  return { text: asked.get("q") ?? "", states: (asked.get("state") ?? "").split(",").filter((state) => STATES.includes(state)) };
}

function filterAddress() {
  const asked = new URLSearchParams();
  if (fleet.filter.text) asked.set("q", fleet.filter.text);
  if (fleet.filter.states.size > 0) asked.set("state", [...fleet.filter.states].join(","));
  return asked.size > 0 ? `#${asked}` : "#";
}

function filterChanged() {
  for (const [state, { chip }] of chips) chip.setAttribute("aria-pressed", String(fleet.filter.states.has(state)));
  const back = filterAddress();
  byId("back").href = back;
  if (!story) history.replaceState(null, "", back === "#" ? location.pathname : back);
  fleet.refilter();
}

byId("filter").addEventListener("input", (event) => {
  fleet.filter.text = event.target.value.trim();
  filterChanged();
  clearTimeout(sayFound.pause);
  sayFound.pause = setTimeout(sayFound, 700);
});
byId("all").addEventListener("click", () => {
  fleet.filter = { text: "", states: new Set() };
  byId("filter").value = "";
  filterChanged();
  sayFound();
  byId("filter").focus();
});

function sayFound() {
  const { found } = fleet;
  put(byId("told"), found === 1 ? "1 run is shown." : `${found} runs are shown.`);
}

byId("filters").addEventListener("submit", (event) => event.preventDefault());
byId("older").addEventListener("click", async () => {
  await fleet.older().catch((error) => setLink("lost", error));
  byId("older").hidden = !fleet.hasOlder;
});
byId("skip").addEventListener("click", (event) => { event.preventDefault(); byId("main").focus(); });

let returnTo = null;
function route() {
  if (who === null) return;
  const address = readAddress();
  story?.stop();
  story = null;
  byId("fleet").hidden = Boolean(address.run);
  byId("story").hidden = !address.run;
  fleet.show(!address.run);
  if (address.run) {
    returnTo = address.run;
    story = new Story(address.run, {
      known: () => fleet.runs.get(address.run),
      role: () => who?.role,
      act: (action, run) => question.open(questionFor(action, run)),
      gone: (error) => byId("story-body").replaceChildren(make("h1", "data", address.run), make("p", "problem", `${said(error)}${error.status === 404 ? "" : " It is asked again every few seconds."}`)),
      signedOut: () => signedOut("Your session has ended. Sign in again."),
    });
    window.scrollTo(0, 0);
    byId("main").focus({ preventScroll: true });
    story.ready.then(paintCounts);
  } else {
    fleet.filter = { text: address.text ?? "", states: new Set(address.states ?? []) };
    if (byId("filter").value.trim() !== fleet.filter.text) byId("filter").value = fleet.filter.text;
    filterChanged();
    // Whoever comes back from a run finds the place where it left.
    const row = returnTo && document.querySelector(`a[href="#run/${CSS.escape(encodeURIComponent(returnTo))}"]`);
    if (row) row.focus();
    returnTo = null;
  }
}
window.addEventListener("hashchange", route);

// ---- who is signed in

function signedIn(known) {
  who = known;
  byId("sign-in").hidden = true;
  byId("who").hidden = false;
  put(byId("who-name"), known.name);
  byId("who").title = `Signed in as ${printable(known.role)}`;
  byId("viewer-note").hidden = known.role !== "viewer";
  lastHeard = Date.now();
  fleet.start();
  route();
  paintLink();
}

function signedOut(why = "") {
  fleet.stop();
  story?.stop();
  story = null;
  who = null;
  isLost = false;
  delete document.body.dataset.loaded;
  byId("story-body").replaceChildren();
  for (const id of ["fleet", "story", "who", "away"]) byId(id).hidden = true;
  if (question.dialog.open) question.dialog.close();
  paintLink();
  document.title = "Sign in – z-provisioner";
  byId("sign-in").hidden = false;
  put(byId("sign-in-problem"), why);
  byId("token").focus();
}

byId("sign-in-form").addEventListener("submit", async (event) => {
  event.preventDefault();
  const button = event.submitter ?? byId("sign-in-form").querySelector("button");
  button.disabled = true;
  put(byId("sign-in-problem"), "");
  try {
    const known = await ask("POST", "/v1/session", {}, { Authorization: `Bearer ${byId("token").value.trim()}` });
    byId("token").value = "";
    signedIn(known);
  } catch (error) {
    put(byId("sign-in-problem"), error instanceof Refused && error.status === 401 ? "This token is not known. Check that it was copied whole." : said(error));
    byId("token").focus();
  } finally {
    button.disabled = false;
  }
});

byId("sign-out").addEventListener("click", async () => {
  try {
    await ask("DELETE", "/v1/session");
    signedOut();
  } catch (error) {
    setLink("lost", error);
  }
});

async function begin() {
  try {
    signedIn(await ask("GET", "/v1/session"));
  } catch (error) {
    if (error instanceof Refused && error.status === 401) return signedOut();
    signedOut(said(error));
  }
}
begin();
