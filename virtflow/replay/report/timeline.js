// The gantt: a row per task, do above, undo below. By time (long pauses are folded) or by steps (events evenly spaced).

const LETTER = 6.6;  // pixels, about
let bySteps = false;
const rows = [];
let line = null, veil = null, scale = null;

function timeFraction(us) {
  const knots = model.axis.knots;
  const i = lastBefore(knots, us);
  if (i < 0) return knots.length ? knots[0][1] : 0;
  if (i === knots.length - 1) return knots[i][1];
  const [[t0, x0], [t1, x1]] = [knots[i], knots[i + 1]];
  return t1 === t0 ? x1 : x0 + ((x1 - x0) * (us - t0)) / (t1 - t0);
}

const stepFraction = (position) => (LAST === 0 ? 0 : position / LAST);
const percent = (fraction) => `${(fraction * 100).toFixed(3)}%`;

function placed(node, from, to) {
  node.style.left = percent(from);
  node.style.width = percent(Math.max(0, to - from));
}

function spanEnds(span) {
  if (bySteps) return [stepFraction(span.first), stepFraction(span.last === null ? LAST : span.last)];
  return [timeFraction(span.from), timeFraction(span.to === null ? model.end : span.to)];
}

function spanTitle(task, span) {
  const length = span.to === null ? "never ended" : (span.state === "cut" ? "nobody saw its end" : duration(span.to - span.from));
  return `${task.name}: ${span.undo ? "undo" : "do"}, attempt ${span.attempt}, ${SAID[span.state]}, ${length}`;
}

function drawBar(task, index, span) {
  const bar = el("i", { class: span.undo ? "bar undo" : "bar", "data-state": span.state, title: spanTitle(task, span) });
  bar.addEventListener("click", (event) => {
    event.stopPropagation();
    select(index, { follow: false });
    go(span.last === null ? LAST : span.last + 1);
  });
  return { bar, span };
}

function drawRow(task, index) {
  const bars = task.spans.map((span) => drawBar(task, index, span));
  const total = task.spans.reduce((sum, span) => sum + (span.to === null || span.state === "cut" ? 0 : span.to - span.from), 0);
  const state = svg("path");
  const label = el("span", { class: "label" }, svg("svg", { class: "sign", viewBox: "0 0 12 12", "aria-hidden": "true" }, state),
    el("span", { class: "name" }, task.name), el("span", { class: "took" }, task.spans.length ? duration(total) : ""));
  const node = el("div", { class: "row", role: "option", tabindex: "-1", "data-task": index }, label,
    el("span", { class: "lane" }, bars.map(({ bar }) => bar)));
  rows[index] = { node, bars, state, shown: null };
  return node;
}

function drawRibbonLane(host) {
  const spans = model.owners.filter((owner) => owner.host === host).map((owner) => {
    const text = `epoch ${owner.epoch}${owner.process ? " · " + owner.process : ""}`;
    const piece = el("i", { class: "owner", title: `${model.hosts[host]}: ${text}` }, text);
    return { piece, owner };
  });
  ribbons.push(...spans);
  return el("div", { class: "owners" }, el("span", { class: "label" }, el("span", { class: "name" }, model.hosts[host])),
    el("span", { class: "lane" }, spans.map(({ piece }) => piece)));
}

const ribbons = [];

function drawTimeline() {
  const mode = el("button", { type: "button", class: "mode", title: "By time or by steps (s)" });
  mode.addEventListener("click", toggleScale);
  scale = el("span", { class: "lane scale" });
  const head = el("div", { class: "axis" }, el("span", { class: "label" }, mode), scale);
  const hosts = [...new Set(model.owners.map((owner) => owner.host))];
  const body = el("div", { class: "rows", role: "listbox", "aria-label": "Tasks in time" });
  for (const block of model.rows) {
    if (block.flow !== undefined) body.append(flowTitle(model.flows[block.flow]));
    else body.append(drawRow(model.tasks[block.task], block.task));
  }
  body.addEventListener("click", (event) => {
    const row = event.target.closest("[data-task]");
    if (row) select(Number(row.dataset.task), { follow: false });
  });
  line = el("i", { class: "playhead" });
  veil = el("i", { class: "veil" });
  const over = el("div", { class: "over", "aria-hidden": "true" }, el("span", { class: "lane" }, veil, line));
  byId("view-timeline").append(head, el("div", { class: "plot" }, hosts.map(drawRibbonLane), body, over));
  scale.addEventListener("pointerdown", (event) => { scale.setPointerCapture(event.pointerId); scrubTo(event); });
  scale.addEventListener("pointermove", (event) => { if (event.buttons) scrubTo(event); });
  placeBars();
  new ResizeObserver(() => scale.replaceChildren(...(bySteps ? stepMarks() : timeMarks()))).observe(scale);
}

function flowTitle(flow) {
  return el("div", { class: "flow", role: "presentation" }, el("b", {}, flow.name), flow.host ? ` on ${flow.host}` : "", flow.state ? el("span", { class: "soft" }, ` ${flow.state}`) : "");
}

function scrubTo(event) {
  const box = scale.getBoundingClientRect();
  const wanted = (event.clientX - box.left) / box.width;
  if (bySteps) { go(Math.round(wanted * LAST)); return; }
  let low = 0, high = LAST;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (timeFraction(timeAt(middle + 1)) <= wanted) low = middle + 1;
    else high = middle;
  }
  go(low);
}

function toggleScale() {
  bySteps = !bySteps;
  placeBars();
  placeLine();
}

function placeBars() {
  for (const row of rows) for (const { bar, span } of row.bars) placed(bar, ...spanEnds(span));
  for (const { piece, owner } of ribbons) {
    if (bySteps) placed(piece, stepFraction(owner.first), stepFraction(owner.last + 1));
    else placed(piece, timeFraction(owner.from), timeFraction(owner.to));
  }
  const mode = byId("view-timeline").querySelector(".mode");
  mode.textContent = bySteps ? "by steps" : "by time";
  scale.replaceChildren(...(bySteps ? stepMarks() : timeMarks()));
}

// A tick, with its text where that has room before the next thing on the axis.
function mark(fraction, next, text) {
  const room = (Math.min(next, 1) - fraction) * scale.clientWidth;
  const node = el("i", { class: "tick" }, room < text.length * LETTER + 8 ? "" : text);
  node.style.left = percent(fraction);
  return node;
}

function marks(places) {
  const gaps = bySteps ? [] : model.axis.gaps.map(([from]) => timeFraction(from));
  let free = 0;
  return places.map(([fraction, text]) => {
    const end = Math.min(...gaps.filter((gap) => gap >= fraction), 1);
    const node = mark(fraction, fraction < free ? fraction : end, text);
    if (node.textContent) free = fraction + (text.length * LETTER + 8) / Math.max(1, scale.clientWidth);
    return node;
  });
}

// After hours, how long it has been says nothing any more: the clock does.
function tickText(us) {
  if (model.end >= 6e8) return clock(us, 0).slice(11);
  return us === 0 ? "0" : duration(us).replace(/(\.\d*?)0+ /, "$1 ").replace(". ", " ");
}

function timeMarks() {
  const nodes = marks(model.axis.ticks.map((us) => [timeFraction(us), tickText(us)]));
  for (const [from, to] of model.axis.gaps) {
    const gap = el("i", { class: "gap", title: `nothing ran for ${duration(to - from)}` });
    placed(gap, timeFraction(from), timeFraction(to));
    nodes.push(gap);
  }
  return nodes;
}

function stepMarks() {
  const step = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000].find((size) => LAST / size <= 8) || LAST;
  return marks(Array.from({ length: Math.floor(LAST / step) + 1 }, (_, i) => [stepFraction(i * step), String(i * step)]));
}

function placeLine() {
  const at = bySteps ? stepFraction(now.position) : (now.position === 0 ? 0 : timeFraction(timeAt(now.position)));
  line.style.left = percent(at);
  veil.style.left = percent(at);
}

function showRowStates() {
  model.tasks.forEach((task, index) => {
    const row = rows[index];
    const state = stateOf(task);
    if (!row || row.shown === state) return;
    row.shown = state;
    row.node.setAttribute("data-state", state);
    row.state.setAttribute("d", SIGNS[state]);
    row.state.parentNode.setAttribute("data-state", state);
    row.node.setAttribute("aria-label", `${visible(task.name)}: ${SAID[state]}`);
  });
}

let chosen = null;

function showSelectedRow(follow) {
  const row = rows[now.task];
  if (!row) return;
  if (chosen && chosen !== row) {
    chosen.node.setAttribute("tabindex", "-1");
    chosen.node.setAttribute("aria-selected", "false");
  }
  chosen = row;
  row.node.setAttribute("tabindex", "0");
  row.node.setAttribute("aria-selected", "true");
  if (follow) bringIntoView(byId("view-timeline"), row.node.offsetTop, row.node.offsetHeight);
}

function startTimeline() {
  drawTimeline();
  onChange((what) => {
    if (what === "position" || what === "all") { placeLine(); showRowStates(); }
    if (what !== "position") showSelectedRow(what !== "task quietly");
  });
}
