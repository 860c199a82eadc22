// The panel of the selected task: its attempts, and of the one at this moment inputs, result and error.

function section(title, ...content) {
  return el("section", {}, el("h3", {}, title), ...content);
}

function looksLikeXml(value) {
  return typeof value === "string" && /^\s*<[A-Za-z?!]/.test(value) && value.includes(">");
}

function showValue(value) {
  if (looksLikeXml(value)) {
    const index = model.documents.findIndex((document) => model.values[document.value] === value);
    const open = index < 0 ? null : el("button", { type: "button", class: "link", onclick: () => compareDocument(index) }, "Compare");
    return el("details", {}, el("summary", {}, "XML, ", plural(value.split("\n").length, "line"), open ? " " : "", open), el("pre", { tabindex: "0" }, value));
  }
  if (value === null) return el("span", { class: "soft" }, "null");
  if (typeof value !== "object") return el("code", {}, typeof value === "string" ? value : JSON.stringify(value));
  const text = JSON.stringify(value, null, 2);
  if (text.length <= 60 || Object.keys(value).length === 0) return el("code", {}, JSON.stringify(value));
  const lines = text.split("\n").length;
  const entries = Object.keys(value).length;
  const title = Array.isArray(value) ? plural(entries, "entry", "entries") : Object.keys(value).slice(0, 4).join(", ") + (entries > 4 ? " ..." : "");
  return el("details", lines <= 12 ? { open: true } : {}, el("summary", {}, title), el("pre", { tabindex: "0" }, text));
}

function showOrigin(origin) {
  if (typeof origin === "number") {
    return el("button", { type: "button", class: "link", onclick: () => select(origin) }, model.tasks[origin].name);
  }
  return el("span", { class: "soft" }, origin);
}

function showInputs(span) {
  if (span.inputs.length === 0) return null;
  const services = span.inputs.filter(([, origin]) => origin === "service").map(([name]) => name);
  const values = span.inputs.filter(([, origin]) => origin !== "service");
  return section(span.undo ? "What the undo was given" : "Inputs", el("div", { class: "inputs" }, values.map(([name, origin, value]) => el("div", { class: "input" },
    el("div", { class: "key" }, el("b", {}, name), el("span", { class: "origin" }, typeof origin === "number" ? "from " : "", showOrigin(origin))),
    value < 0 ? null : el("div", { class: "value" }, showValue(model.values[value]))))),
  services.length ? el("p", { class: "input soft" }, "Services, made anew for each run: ", services.join(", ")) : null);
}

function showError(error) {
  return el("section", { class: "error" }, el("h3", {}, error.kind || "Error"), el("p", {}, error.text),
    error.trace ? el("details", {}, el("summary", {}, "Traceback"), el("pre", { tabindex: "0" }, error.trace)) : null);
}

function showSpans(task, current) {
  return el("div", { class: "spans", role: "group", "aria-label": "Attempts" }, task.spans.map((span, index) => el("button", {
    type: "button", class: "span", "data-state": span.state, "aria-pressed": String(index === current), title: spanTitle(task, span),
    onclick: () => go(span.last === null ? LAST : span.last + 1),
  }, sign(span.state), span.undo ? "undo" : `do ${span.attempt}`, el("small", {}, span.to === null || span.state === "cut" ? "" : duration(span.to - span.from)))));
}

function showFacts(pairs) {
  return el("dl", { class: "facts" }, pairs.filter(([, value]) => value !== null && value !== undefined && value !== "").map(([name, value]) => [el("dt", {}, name), el("dd", {}, value)]));
}

function tookText(span, over) {
  if (!over) return "until this moment " + duration(Math.max(0, timeAt(now.position) - span.from));
  if (span.state === "cut") return `nobody saw its end; gone on with ${duration(span.to - span.from)} later`;
  return duration(span.to - span.from);
}

function showSpan(task, span) {
  const failed = [...task.spans].reverse().find((other) => !other.undo && other.first < span.first)?.error;
  const begun = now.position > span.first;
  const over = span.last !== null && now.position > span.last;
  const state = over ? span.state : (begun ? (span.undo ? "undoing" : "running") : "pending");
  return [
    showFacts([
      ["State", el("span", { class: "state", "data-state": state }, sign(state), SAID[state])],
      ["Started", clock(span.from)], ["Took", tookText(span, over)],
      ["Run by", `${model.hosts[span.host] || "?"}, epoch ${span.epoch}`],
    ]),
    over && span.error ? showError(span.error) : null,
    span.undo && failed ? showError(failed) : null,
    over && span.result >= 0 ? section("Result", el("div", { class: "value" }, showValue(model.values[span.result]))) : null,
    showInputs(span),
  ];
}

function showThingsOf(task) {
  if (task.things.length === 0) return null;
  return section("Things", el("ul", { class: "plain" }, task.things.map((index) => {
    const thing = model.ledger[index];
    return el("li", {}, el("span", { class: "thing", "data-thing": thing.state }, thing.state), ` ${thing.kind} `, el("code", {}, thing.identity));
  })));
}

function showTask() {
  const panel = byId("task");
  const task = model.tasks[now.task];
  if (!task) { panel.replaceChildren(el("p", { class: "soft" }, "No task is recorded.")); return; }
  const current = spanAt(task);
  const flow = model.flows[task.flow];
  const before = current < 0 && task.spans.length > 0;
  panel.replaceChildren(
    el("div", { class: "bar" }, el("h2", {}, task.name), el("span", { class: "soft" }, task.kind === "retry" ? "retry controller · " : "", flow.name, flow.host ? ` on ${flow.host}` : "")),
    el("div", { class: "body" },
      task.spans.length ? showSpans(task, current) : el("p", { class: "soft" }, "It was never started."),
      before ? el("p", { class: "soft" }, "Not started at this moment.") : null,
      current >= 0 ? showSpan(task, task.spans[current]) : null,
      showThingsOf(task),
      showFacts([["Requires", task.requires.join(", ")], ["Provides", task.provides.join(", ")], ["Version", task.version]])));
}

let drawn = "";

// Drawn anew only when it shows something else: what the reader has unfolded stays so, and the focus where it was.
function startTask() {
  onChange((what) => {
    const task = model.tasks[now.task];
    const current = task ? spanAt(task) : -1;
    const over = current < 0 || (task.spans[current].last !== null && now.position > task.spans[current].last);
    const key = `${now.task} ${current} ${over ? "over" : now.position}`;
    if (what === "query" || key === drawn) return;
    drawn = key;
    const panel = byId("task");
    const inside = panel.contains(document.activeElement);
    showTask();
    if (inside) (panel.querySelector(".span[aria-pressed=true]") || panel).focus({ preventScroll: true });
  });
}
