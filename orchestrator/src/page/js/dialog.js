// What changes something is asked first, by name.

/** Asks for a confirmation, and does it. While that lasts the dialog stays, and says what went wrong. */
class Question {
  #asked = null;
  #from = null;

  constructor() {
    this.dialog = byId("ask");
    byId("ask-no").addEventListener("click", () => this.dialog.close());
    byId("ask-input").addEventListener("input", () => this.#mayGo());
    byId("ask-form").addEventListener("submit", (event) => {
      event.preventDefault();
      this.#go();
    });
    this.dialog.addEventListener("close", () => {
      // The event comes later than the end that it tells: the next question may have been opened meanwhile.
      if (this.dialog.open) return;
      this.#asked = null;
      // The button that opened it may have been painted anew meanwhile.
      const back = this.#from && (this.#from.isConnected ? this.#from : document.querySelector(`[data-act="${this.#from.dataset.act}"]`));
      (back ?? byId("main")).focus();
    });
  }

  /** `asked`: title, what, warning, label, must (a text that has to be typed), yes, no, act(text). */
  open(asked) {
    this.#asked = asked;
    this.#from = document.activeElement;
    put(byId("ask-title"), asked.title);
    put(byId("ask-what"), asked.what);
    put(byId("ask-warning"), asked.warning);
    byId("ask-warning").hidden = !asked.warning;
    byId("ask-field").hidden = !asked.label;
    put(byId("ask-label"), asked.label);
    const input = byId("ask-input");
    input.value = "";
    input.maxLength = asked.must ? 128 : 250;
    put(byId("ask-problem"), "");
    put(byId("ask-yes"), asked.yes);
    put(byId("ask-no"), asked.no);
    this.#mayGo();
    this.dialog.showModal();
    (asked.label ? input : byId("ask-no")).focus();
  }

  #mayGo() {
    const { must } = this.#asked ?? {};
    byId("ask-yes").disabled = must !== undefined && byId("ask-input").value.trim() !== must;
  }

  async #go() {
    const asked = this.#asked;
    const yes = byId("ask-yes");
    if (!asked || yes.disabled) return;
    yes.disabled = true;
    put(byId("ask-problem"), "");
    try {
      await asked.act(byId("ask-input").value.trim());
      if (this.#asked === asked) this.dialog.close();
    } catch (error) {
      put(byId("ask-problem"), said(error));
    } finally {
      yes.disabled = false;
      if (this.#asked) this.#mayGo();
    }
  }
}

/** What an operator can do to a run in its state. */
function actions(run) {
  const found = [];
  if (!isOver(run.state) && !run.cancel) found.push("cancel");
  if (run.state === "failed" || run.state === "cancelled") found.push("retry");
  if (silentAttempt(run)) found.push("confirm-death");
  return found;
}

const ACTION_WORDS = { cancel: "Cancel run", retry: "Retry run", "confirm-death": "Confirm death" };

/** The attempt whose agent's death is waited for. It may have its outcome, and may not be the last one. */
function silentAttempt(run) {
  const isWaitedFor = run.waits?.for === "person" || run.waits?.for === "death";
  return isWaitedFor ? run.silent?.at(-1) : undefined;
}

/** What becomes of the key of a run's disk when the run is called off: the service forgets it with the order, not when the agent obeys. */
function keyLoss({ key }) {
  if (key?.source !== "service" || key.destroyed) return "";
  const rest = key.shown ? "only whoever was shown it can still read what is on the disk." : "what is on the disk under it can never be read again.";
  return `The key of its disk is destroyed at once and for good: ${rest}`;
}

function questionFor(action, run) {
  const here = runPath(run.run);
  if (action === "cancel") {
    return {
      title: `Cancel the run of ${run.server}?`,
      what: `Run ${run.run}, which puts ${run.image} onto ${run.target}, is called off. ${run.state === "running" ? "Its agent is told to stop; what it has written does not boot." : run.state === "lost" ? "It ends when its agent is known to be dead." : "No agent writes now."}`,
      warning: keyLoss(run),
      label: "Reason (optional)", yes: "Cancel the run", no: "Keep it",
      act: (reason) => ask("POST", `${here}/cancel`, reason ? { reason } : {}),
    };
  }
  if (action === "retry") {
    return {
      title: `Retry the run of ${run.server}?`,
      what: `Run ${run.run} is queued again, with as many attempts as before. It writes ${run.image} onto ${run.target}.`,
      yes: "Retry the run", no: "Leave it", act: () => ask("POST", `${here}/retry`, {}),
    };
  }
  const attempt = silentAttempt(run);
  return {
    title: `Is the agent on ${run.server} dead?`,
    what: `You vouch that the agent of attempt ${attempt} of run ${run.run} can write no more: its partition is deactivated, or it is cut off from ${run.target}.`,
    warning: "If it lives after all, two agents write to one disk, and its content is lost. Look before you say so.",
    label: `To confirm, type the server’s name: ${run.server}`, must: run.server, yes: "It is dead", no: "Not sure",
    act: () => ask("POST", `${here}/confirm-death`, { attempt }),
  };
}
