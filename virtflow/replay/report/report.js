// The page around the views: heading, causes, scrubber, search, keys, theme.

const TABS = ["timeline", "events", "things", "xml", "operation"];

function showHeading() {
  const operation = model.operation;
  document.title = visible(`${model.title} · ${operation.outcome || operation.state} · virtflow`);
  byId("outcome").textContent = visible(operation.outcome || operation.state);
  byId("outcome").dataset.outcome = operation.outcome || operation.state;
  byId("facts").append(...model.facts.flatMap((fact, index) => [index ? el("i", { "aria-hidden": "true" }, "·") : "", el("span", {}, fact)]));
  byId("footer").append(...model.notes.map((note) => el("span", {}, note)));
}

function showCauses() {
  const causes = byId("causes");
  const first = model.overIt ? null : model.causes[0];
  const others = model.overIt ? model.causes : model.causes.slice(1);
  causes.hidden = model.causes.length === 0 && !model.left;
  if (first) causes.append(cause(first, "first"));
  if (others.length > 0) {
    const title = model.overIt ? `It got over ${plural(others.length, "failure")}` : `${plural(others.length, "more failure")}`;
    causes.append(el("details", {}, el("summary", {}, title), others.map((other) => cause(other, "other"))));
  }
  if (model.left) causes.append(el("p", { class: "left" }, el("button", { type: "button", class: "link", onclick: () => openTab("things") }, model.left)));
}

function cause(found, kind) {
  const open = () => { select(found.task); go(found.event + 1); };
  const head = el("button", { type: "button", class: "link", onclick: open }, model.tasks[found.task].name);
  return el("div", { class: `cause ${kind}` }, sign(found.undo ? "debt" : "failed"),
    el("div", {}, el("p", {}, head, " ", el("span", { class: "soft" }, found.context)), el("p", { class: "text" }, found.text)));
}

function showMoment() {
  const event = now.position > 0 ? model.events[now.position - 1] : null;
  const said = byId("moment");
  if (event === null) { said.replaceChildren("Before the first event"); return; }
  const name = event[TASK] >= 0 ? model.tasks[event[TASK]].name : model.flows[event[FLOW]].name;
  said.replaceChildren(el("b", {}, `${now.position.toLocaleString("en")}/${LAST.toLocaleString("en")}`), el("time", {}, clock(event[AT]), " UTC"),
    el("span", { class: "soft" }, "+" + (event[AT] === 0 ? "0" : duration(event[AT]))), el("span", { class: "what" }, sign(eventState(event)), `${name} ${model.names[event[NAME]]}`));
}

let announcing = 0;

function announce() {
  window.clearTimeout(announcing);
  announcing = window.setTimeout(() => {
    byId("announce").textContent = byId("moment").textContent;
    byId("position").setAttribute("aria-valuetext", byId("moment").textContent);
  }, 250);
}

function showRibbon() {
  const hosts = [...new Set(model.owners.map((owner) => owner.host))];
  for (const owner of model.ribbon) {
    const text = `${model.hosts[owner.host]} · epoch ${owner.epoch}${owner.process ? " · " + owner.process : ""}`;
    const piece = el("i", { role: "listitem", title: text, "data-shade": hosts.indexOf(owner.host) % 4 }, text);
    placed(piece, stepFraction(owner.first), stepFraction(owner.last + 1));
    byId("ribbon").append(piece);
  }
  for (const index of model.failures) {
    const tick = el("i", {});
    tick.style.left = percent(stepFraction(index + 1));
    byId("ticks").append(tick);
  }
}

let playing = 0;

function play(wanted = !playing) {
  window.clearInterval(playing);
  playing = 0;
  if (wanted) {
    if (now.position === LAST) go(0);
    const pace = Math.max(20, Math.min(400, 20000 / Math.max(1, LAST)));
    playing = window.setInterval(() => { go(now.position + 1); if (now.position === LAST) play(false); }, pace);
  }
  byId("play").setAttribute("aria-pressed", String(Boolean(playing)));
}

const MOVES = {
  first: () => go(0), back: () => go(now.position - 1), next: () => go(now.position + 1), last: () => go(LAST), failure: () => goToFailure(1),
};

function startScrubber() {
  const slider = byId("position");
  slider.max = String(LAST);
  slider.addEventListener("input", () => { play(false); go(Number(slider.value)); });
  for (const button of document.querySelectorAll("[data-go]")) button.addEventListener("click", () => { play(false); MOVES[button.dataset.go](); });
  byId("play").addEventListener("click", () => play());
  byId("to-failure").disabled = model.failures.length === 0;
  showRibbon();
  onChange((what) => {
    if (what === "position" || what === "all") { slider.value = String(now.position); showMoment(); announce(); }
  });
}

function openTab(name, { focus = false } = {}) {
  for (const other of TABS) {
    const open = other === name;
    byId(`tab-${other}`).setAttribute("aria-selected", String(open));
    byId(`tab-${other}`).tabIndex = open ? 0 : -1;
    byId(`view-${other}`).hidden = !open;
  }
  if (focus) byId(`tab-${name}`).focus();
  if (name === "events") showEvent();
}

function startTabs() {
  TABS.forEach((name, index) => {
    const tab = byId(`tab-${name}`);
    tab.addEventListener("click", () => openTab(name));
    tab.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
      if (!step) return;
      event.preventDefault();
      event.stopPropagation();
      openTab(TABS[(index + step + TABS.length) % TABS.length], { focus: true });
    });
  });
  byId("tab-events").append(el("small", {}, LAST.toLocaleString("en")));
  byId("tab-things").append(el("small", {}, model.ledger.length.toLocaleString("en")));
  openTab("timeline");
}

function showThings() {
  const view = byId("view-things");
  if (model.left) view.append(el("p", { class: "verdict" }, model.left));
  if (model.ledger.length === 0) { view.append(el("p", { class: "empty" }, "Nothing was announced in the ledger.")); return; }
  const line = (thing) => el("tr", { "data-left": thing.left ? "yes" : "no" }, el("td", {}, el("span", { class: "thing", "data-thing": thing.state }, thing.state)), el("td", {}, thing.kind),
    el("td", {}, el("code", {}, thing.identity), thing.error ? el("p", { class: "why" }, thing.error) : null), el("td", {}, thing.host),
    el("td", {}, thing.task >= 0 ? showOrigin(thing.task) : thing.by));
  view.append(el("table", {}, el("thead", {}, el("tr", {}, ["State", "Kind", "What", "Host", "Made by"].map((name) => el("th", { scope: "col" }, name)))), el("tbody", {}, model.ledger.map(line))));
}

function showOperation() {
  byId("view-operation").append(showFacts(model.details), section("Request", el("div", { class: "value" }, el("pre", { tabindex: "0" }, JSON.stringify(model.values[model.request], null, 2)))));
}

function matching(task) {
  return `${task.name} ${model.flows[task.flow].name} ${task.errors}`.toLowerCase().includes(now.query);
}

function startSearch() {
  const field = byId("search");
  const search = () => { now.query = field.value.trim().toLowerCase(); tell("query"); };
  field.addEventListener("input", search);
  field.addEventListener("keydown", (event) => {
    event.stopPropagation();
    if (event.key === "Escape") { field.value = ""; search(); field.blur(); }
    if (event.key === "Enter") nextMatch(event.shiftKey ? -1 : 1);
  });
  onChange((what) => {
    if (what !== "query") return;
    document.body.classList.toggle("searching", now.query !== "");
    let count = 0;
    model.tasks.forEach((task, index) => {
      const found = now.query === "" || matching(task);
      count += found ? 1 : 0;
      nodes[index].box.classList.toggle("miss", !found);
      rows[index].node.classList.toggle("miss", !found);
    });
    byId("matches").textContent = now.query === "" ? "" : `${plural(count, "task")}, ${plural(listed.length, "event")}`;
    if (now.query !== "" && !matching(model.tasks[now.task])) nextMatch(1);
  });
}

function nextMatch(direction) {
  const count = model.tasks.length;
  for (let step = 1; step <= count; step += 1) {
    const place = (model.order.indexOf(now.task) + direction * step + count * step) % count;
    if (matching(model.tasks[model.order[place]])) { select(model.order[place]); return; }
  }
}

function nextTask(direction) {
  const place = model.order.indexOf(now.task) + direction;
  if (place < 0 || place >= model.order.length) return;
  const inside = document.activeElement ? document.activeElement.closest(".node, .row") : null;
  select(model.order[place]);
  if (inside) (inside.classList.contains("node") ? nodes : rows)[now.task][inside.classList.contains("node") ? "box" : "node"].focus({ preventScroll: true });
}

function startTheme() {
  const kept = () => { try { return window.localStorage.getItem("virtflow-report-theme"); } catch { return null; } };
  const keep = (theme) => { try { window.localStorage.setItem("virtflow-report-theme", theme); } catch { /* a file may have no storage */ } };
  const dark = () => (document.documentElement.dataset.theme ? document.documentElement.dataset.theme === "dark" : window.matchMedia("(prefers-color-scheme: dark)").matches);
  if (["light", "dark"].includes(kept())) document.documentElement.dataset.theme = kept();
  byId("theme").addEventListener("click", () => {
    document.documentElement.dataset.theme = dark() ? "light" : "dark";
    keep(document.documentElement.dataset.theme);
  });
}

const KEYS = {
  ArrowRight: (event) => go(now.position + (event.shiftKey ? 10 : 1)), ArrowLeft: (event) => go(now.position - (event.shiftKey ? 10 : 1)),
  Home: () => go(0), End: () => go(LAST), " ": () => play(), f: () => goToFailure(1), F: () => goToFailure(-1),
  j: () => nextTask(1), k: () => nextTask(-1), s: () => { openTab("timeline"); toggleScale(); }, d: () => byId("theme").click(),
  "/": () => { byId("search").focus(); byId("search").select(); }, "?": () => byId("help").showModal(),
};
TABS.forEach((name, index) => { KEYS[String(index + 1)] = () => openTab(name); });

function onKey(event) {
  if (event.ctrlKey || event.altKey || event.metaKey || event.defaultPrevented || byId("help").open) return;
  const inside = event.target instanceof Element ? event.target : document.body;
  if (inside.matches("select, textarea")) return;
  if (event.key === " " && inside.closest("button, summary, pre")) return;
  if (["ArrowLeft", "ArrowRight", "Home", "End"].includes(event.key) && inside.matches("pre, .difference")) return;
  const vertical = { ArrowDown: 1, ArrowUp: -1 }[event.key];
  if (vertical && inside.closest(".node, .row")) { event.preventDefault(); nextTask(vertical); return; }
  const action = KEYS[event.key];
  if (!action) return;
  event.preventDefault();
  if (event.key !== " ") play(false);
  action(event);
}

function start() {
  showHeading();
  showCauses();
  startGraph();
  startTimeline();
  startEvents();
  startDocuments();
  startTask();
  startScrubber();
  startTabs();
  showThings();
  showOperation();
  startSearch();
  startTheme();
  byId("keys").addEventListener("click", () => byId("help").showModal());
  document.addEventListener("keydown", onKey);
  tell("all");
}

start();
