// Values in words, as the command line says them, and the one way in which text comes into the page.

/** What a terminal is not shown either: control characters, and those that turn the direction of writing. */
const HARMFUL = /[\p{Cc}\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069]/gu;
const MAX_TEXT = 4096;

/** Text that comes from outside, as it may be shown. */
function printable(text) {
  const shown = String(text);
  return (shown.length > MAX_TEXT ? `${shown.slice(0, MAX_TEXT)}…` : shown).replace(HARMFUL, "\ufffd");
}

/** Puts text into an element. Nothing that anybody says is ever markup. */
function put(element, text) {
  const shown = printable(text ?? "");
  if (element.firstChild === null) {
    if (shown !== "") element.append(document.createTextNode(shown));
  } else if (element.firstChild.data !== shown) {
    element.firstChild.data = shown;
  }
}

/** An element with classes, texts and elements in it. */
function make(tag, classes, ...inside) {
  const element = document.createElement(tag);
  if (classes) element.className = classes;
  element.append(...inside.filter((one) => one != null).map((one) => (one instanceof Node ? one : printable(one))));
  return element;
}

const byId = (id) => document.getElementById(id);

function size(bytes) {
  const units = [["TiB", 2 ** 40], ["GiB", 2 ** 30], ["MiB", 2 ** 20], ["KiB", 2 ** 10]];
  const found = units.find(([, unit]) => bytes >= unit);
  if (!found) return `${bytes} B`;
  const value = bytes / found[1];
  return `${value >= 100 ? value.toFixed(0) : value.toFixed(1)} ${found[0]}`;
}

/** How much of how much, with one unit where it is the same. */
function amount(bytes, total) {
  const [part, whole] = [size(bytes), size(total)];
  const [number, unit] = part.split(" ");
  return whole.endsWith(` ${unit}`) ? `${number} of ${whole}` : `${part} of ${whole}`;
}

/** Whole percent, 100 only when all is done. */
function percent(part, whole) {
  return whole > 0 ? Math.floor((Math.min(part, whole) * 100) / whole) : 100;
}

/** The time that is left: nobody needs its seconds when it is long, and a column has no room for them. */
const left = (seconds) => `${seconds >= 600 && seconds < 3600 ? `${Math.floor(seconds / 60)} min` : duration(seconds)} left`;

function duration(seconds) {
  const s = Math.max(0, Math.floor(seconds));
  if (s < 60) return `${s} s`;
  if (s < 3600) return `${Math.floor(s / 60)} min ${s % 60} s`;
  if (s < 86400) return `${Math.floor(s / 3600)} h ${Math.floor(s / 60) % 60} min`;
  return `${Math.floor(s / 86400)} d ${Math.floor(s / 3600) % 24} h`;
}

/** How far the service's clock is ahead of this machine's, in milliseconds: ages are told by the clock that the moments are of. */
let ahead = 0;

/** How long something has lasted, coarser the longer it is. */
function age(since) {
  const s = Math.max(0, (Date.now() + ahead - Date.parse(since)) / 1000);
  return Number.isFinite(s) ? lasting(s) : "";
}

function lasting(s) {
  if (s < 10) return "a moment";
  if (s < 120) return `${Math.floor(s / 10) * 10} s`;
  if (s < 7200) return `${Math.floor(s / 60)} min`;
  if (s < 172800) return `${Math.floor(s / 3600)} h`;
  return `${Math.floor(s / 86400)} d`;
}

const short = (seconds) => (seconds < 60 ? `${seconds.toFixed(1)} s` : duration(seconds));
const day = (time) => String(time).slice(0, 10);
const clock = (time) => String(time).slice(11, 19);

/** A moment, for people and for machines. */
function moment(time, withDay = true) {
  const element = make("time", "", withDay ? `${day(time)} ${clock(time)}` : clock(time));
  element.dateTime = printable(time);
  return element;
}

/** The states, those first that an operator looks for first. */
const STATES = ["lost", "running", "launching", "queued", "failed", "succeeded", "cancelled"];
const isOver = (state) => state === "succeeded" || state === "failed" || state === "cancelled";

/** The mark and the word of a state: it is told by shape and word, colour only helps. */
function stateMark(state) {
  const known = STATES.includes(state);
  const mark = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  mark.setAttribute("class", "mark");
  mark.setAttribute("aria-hidden", "true");
  const use = document.createElementNS("http://www.w3.org/2000/svg", "use");
  use.setAttribute("href", `#s-${known ? state : "queued"}`);
  mark.append(use);
  const word = make("span", "word", state);
  const element = make("span", "state", mark, word);
  if (known) element.dataset.state = state;
  return element;
}

/** Progress with the rate that its step is about. At a glance at the fleet it is there already. */
function sample(progress) {
  const { rates, step } = progress;
  return { ...progress, rate: progress.rate ?? (step === "read-back" ? rates.read_back : rates.write) };
}
