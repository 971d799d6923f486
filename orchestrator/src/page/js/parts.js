// The parts of a story that stand still: the failure, the summary with its proof, the attempts, the order.

const LEFT_ON_TARGET = {
  untouched: "It holds what it held before.",
  "not-bootable": "It holds part of the image and does not boot. Retry the run to finish it.",
  uncertain: "Uncertain: do not boot from it before a run has succeeded.",
  proven: "It holds the image, proven. What failed came after.",
};

const TAILS = {
  "zeroed-by-device": "zeroed by the device", "zeroed-by-writing": "zeroed by writing", "was-zero": "zero already", kept: "kept as it was",
  discarded: "discarded, not zeroed", "noise-under-fresh-key": "noise under the fresh key, left alone",
};

function resultOf(run) {
  const found = [];
  if (run.failure && run.state !== "succeeded") found.push(failureOf(run, run.failure));
  if (run.summary) found.push(summaryOf(run.summary));
  return found;
}

/** Texts below each other. */
function lines(texts) {
  if (!texts?.length) return null;
  const list = make("ul", "lines", ...texts.map((text) => make("li", "data", text)));
  list.setAttribute("role", "list");
  return list;
}

function failureOf(run, failure) {
  const title = run.state === "failed" || run.state === "cancelled" ? "Failure" : "Last failure";
  return panel(title, "failure",
    make("p", "message data", failure.message),
    failure.hint ? make("p", "hint", make("strong", "", "What to do: "), make("span", "data", failure.hint)) : null,
    facts([
      ["Causes", lines(failure.causes)],
      ["Phase", failure.phase],
      ["Kind", `${failure.error}, exit code ${failure.exit_code}`],
      ["Target", LEFT_ON_TARGET[failure.target] ?? failure.target],
      ["Again", failure.retryable ? "The same run can succeed later." : "Trying again does not help before somebody changes something."],
      ["Closed", failure.torn_down?.undone?.join("; ")],
      ["Left open", failure.torn_down?.left?.join("; "), "bad-text"],
      ["Why it ended", run.reason === failure.message ? "" : run.reason],
    ]));
}

function proofOf(proof) {
  if (proof?.["read-back"]) return `${size(proof["read-back"].bytes)} read back from the media, equal to the signed image`;
  if (proof?.["not-proven"]) return `Not proven: ${proof["not-proven"].reason}`;
  return JSON.stringify(proof ?? null);
}

function reservationOf(reservation) {
  const held = reservation?.held;
  if (held) return `key ${held.key}${held.preempted?.length ? `; shut out: ${held.preempted.join(", ")}` : ""}`;
  return reservation === "unsupported" ? "none: the storage knows none" : reservation && JSON.stringify(reservation);
}

function summaryOf(summary) {
  const { image, target, phases } = summary;
  const proven = summary.proof?.["read-back"];
  const rate = summary.write_seconds > 0 ? `, ${size(summary.raw_bytes / summary.write_seconds)}/s` : "";
  return panel("Result", proven ? "good" : "failure",
    make("p", "message", proven ? "The target holds the image." : "The target was written, and not proven."),
    facts([
      ["Proof", proofOf(summary.proof)],
      ["Image", `${image.name} version ${image.version}, ${image.architecture}`],
      ["Digest", image.digest, "mono"],
      ["Signed by", lines(image.signers), "mono"],
      ["Target", `${target.device}, ${size(target.size)}${target.layout ? `, ${target.layout}` : ""}`],
      ["Paths", target.paths && `${target.paths.live} of ${target.paths.total} live when it was taken`],
      ["Reservation", reservationOf(target.reservation)],
      ["LUKS2", target.containers?.map((one) => `${one.region}: ${one.uuid}, ${one.cipher}${one.kept ? ", kept" : ""}`).join("; ")],
      ["Wiped", target.wiped?.join(", ")],
      ["Bytes", `${size(summary.raw_bytes)}; ${size(summary.fetched_bytes)} fetched${summary.kept_bytes ? `, ${size(summary.kept_bytes)} were there already` : ""}`],
      ["Beyond it", summary.tail && `${size(summary.tail.bytes)} ${TAILS[summary.tail.how] ?? summary.tail.how}`],
      ["IPsec", summary.ipsec],
      ["Engine", `${summary.engine}${summary.fallback ? ` (${summary.fallback})` : ""}${summary.limited_by ? `, limited by ${summary.limited_by}` : ""}`],
      ["Retries", summary.retries ? String(summary.retries) : ""],
      ["Boots", summary.ipl && `${summary.ipl.record}, from ${summary.ipl.from}`],
      ["Took", `${duration(summary.total_seconds)}: written in ${duration(summary.write_seconds)}${rate}, read back in ${duration(summary.read_back_seconds)}`],
      ["Left open", summary.torn_down?.left?.join("; "), "bad-text"],
    ]),
    phases?.length ? phaseBar(phases) : null);
}

/** How long each phase took, as lengths beside each other. */
function phaseBar(phases) {
  const most = Math.max(0.001, ...phases.map((phase) => phase.seconds));
  const list = make("dl", "stages phases");
  for (const { phase, seconds } of phases) {
    const fill = make("div", "fill");
    fill.style.transform = `scaleX(${(seconds / most).toFixed(4)})`;
    list.append(make("div", "stage", make("dt", "", phase), make("dd", "", make("div", "meter", fill), make("span", "", short(seconds)))));
  }
  return list;
}

function attemptsOf(run) {
  const { attempts = [] } = run;
  if (attempts.length === 0) return panel("Attempts", "", make("p", "help", `None yet; at most ${run.max_attempts}.`));
  const head = make("tr", "", ...["#", "Started (UTC)", "Lasted", "Outcome", "Agent"].map((title) => {
    const cell = make("th", "", title);
    cell.scope = "col";
    return cell;
  }));
  const rows = attempts.flatMap((attempt) => {
    const lasted = attempt.ended ? duration((Date.parse(attempt.ended) - Date.parse(attempt.started)) / 1000) : `${age(attempt.started)} so far`;
    const agent = make("td", "data", attempt.agent ?? "not enrolled", attempt.handle ? make("span", "sub mono", attempt.handle) : null);
    const isSilent = run.silent?.includes(attempt.attempt);
    const outcome = make("td", "data", attempt.outcome ?? (isSilent ? "silent" : "under way"), isSilent ? make("span", "sub", "not known to be dead") : null, attempt.reason ? make("span", "sub", attempt.reason) : null);
    if (isSilent || (attempt.outcome && attempt.outcome !== "succeeded" && attempt.outcome !== "cancelled")) outcome.classList.add("bad-text");
    return [make("tr", "", make("td", "", String(attempt.attempt)), make("td", "", moment(attempt.started)), make("td", "", lasted), outcome, agent)];
  });
  const table = make("table", "attempts", make("thead", "", head), make("tbody", "", ...rows));
  return panel("Attempts", "", make("p", "help", `${attempts.length} of at most ${run.max_attempts}`), table);
}

/** What has become of the key of the run's disk; the key itself is never shown here. */
function keyOf(key) {
  if (!key) return "";
  const deed = (what, done) => done && `${what} ${day(done.at)} ${clock(done.at)} by ${done.by}${done.reason ? ` (${done.reason})` : ""}`;
  const released = key.released?.length ? `released to attempt ${key.released.join(", ")}` : "";
  return [`of the ${key.source}`, key.made && `made ${day(key.made)} ${clock(key.made)}`, released, deed("shown", key.shown), deed("destroyed", key.destroyed)]
    .filter(Boolean).join("; ");
}

function orderOf(run) {
  const { order } = run;
  const rows = [
    ["Server", run.server],
    ["Image", run.image],
    ["Version floor", order?.image?.min_version ? String(order.image.min_version) : ""],
    ["Digest", order?.image?.digest, "mono"],
    ["Sources", lines(order?.image?.sources), "mono"],
    ["Trusted keys", lines(order?.image?.trust?.map((key) => `${String(key).slice(0, 16)}…`)), "mono"],
    ["Target", run.target, "mono"],
    ["Layout", order?.target?.layout && (typeof order.target.layout === "string" ? order.target.layout : JSON.stringify(order.target.layout))],
    ["Reservation", order?.target?.reservation],
    ["IPsec", order?.ipsec],
    ["Hand over", order?.hand_over && (typeof order.hand_over === "string" ? order.hand_over : JSON.stringify(order.hand_over))],
    ["Key", keyOf(run.key)],
    ["Launcher", run.launcher],
    ["Fabric", run.fabric],
    ["Priority", String(run.priority)],
    ["Attempts", `at most ${run.max_attempts}`],
    ["Created", moment(run.created)],
    ["Deadline", run.deadline && moment(run.deadline)],
    ["Ended", run.ended && moment(run.ended)],
  ];
  return panel("Order", "", facts(rows));
}
