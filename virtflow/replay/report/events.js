// The list of events. Only those that can be seen are in the page, so ten thousand are no burden.

const HEIGHT = 24;
let listed = [];
let list = null, pane = null;

function eventState(event) {
  return model.eventStates[event[NAME]] || "pending";
}

function eventText(event) {
  const task = event[TASK] >= 0 ? model.tasks[event[TASK]].name : model.flows[event[FLOW]].name;
  return `${task} ${model.names[event[NAME]]} ${model.hosts[event[HOST]] || ""} ${event[ERROR] || ""}`.toLowerCase();
}

function drawEvent(place) {
  const index = listed[place];
  const event = model.events[index];
  const task = event[TASK] >= 0;
  const row = el("div", {
    class: "event", role: "option", id: `event-${index}`, "data-event": index, "data-state": eventState(event), "aria-posinset": place + 1,
    "aria-setsize": listed.length, "aria-selected": String(index === now.position - 1),
  },
  el("span", { class: "number" }, index + 1), el("span", { class: "time" }, clock(event[AT]).slice(11)),
  el("span", { class: "what" }, sign(eventState(event)), model.names[event[NAME]]),
  el("span", { class: "who" }, task ? model.tasks[event[TASK]].name : model.flows[event[FLOW]].name,
    event[ATTEMPT] > 1 ? el("small", {}, ` ×${event[ATTEMPT]}`) : "", event[ERROR] ? el("span", { class: "why" }, event[ERROR]) : ""),
  el("span", { class: "where" }, `${model.hosts[event[HOST]] || ""} e${event[EPOCH]}`));
  row.style.top = `${place * HEIGHT}px`;
  return row;
}

function drawEvents() {
  if (byId("view-events").hidden) return;
  const first = Math.max(0, Math.floor(pane.scrollTop / HEIGHT) - 8);
  const count = Math.ceil(pane.clientHeight / HEIGHT) + 16;
  const places = Array.from({ length: Math.max(0, Math.min(count, listed.length - first)) }, (_, i) => first + i);
  list.style.height = `${listed.length * HEIGHT}px`;
  list.replaceChildren(...places.map(drawEvent));
  if (now.position > 0) list.setAttribute("aria-activedescendant", `event-${now.position - 1}`);
}

function showEvent() {
  if (byId("view-events").hidden) return;
  const place = listed.findLastIndex((index) => index < now.position);
  list.style.height = `${listed.length * HEIGHT}px`;
  bringIntoView(pane, Math.max(0, place) * HEIGHT, HEIGHT);
  drawEvents();
}

function listEvents() {
  const query = now.query;
  listed = [];
  model.events.forEach((event, index) => { if (!query || eventText(event).includes(query)) listed.push(index); });
}

function stepListed(direction) {
  if (direction > 0) {
    const next = listed.find((index) => index + 1 > now.position);
    if (next !== undefined) go(next + 1);
    return;
  }
  const before = [...listed].reverse().find((index) => index + 1 < now.position);
  go(before === undefined ? 0 : before + 1);
}

function startEvents() {
  pane = byId("view-events");
  list = el("div", { class: "events", role: "listbox", tabindex: "0", "aria-label": "Events" });
  pane.append(list);
  pane.addEventListener("scroll", drawEvents, { passive: true });
  new ResizeObserver(drawEvents).observe(pane);
  list.addEventListener("click", (event) => {
    const row = event.target.closest("[data-event]");
    if (!row) return;
    const index = Number(row.dataset.event);
    if (model.events[index][TASK] >= 0) select(model.events[index][TASK]);
    go(index + 1);
  });
  list.addEventListener("keydown", (event) => {
    if (event.key !== "ArrowDown" && event.key !== "ArrowUp") return;
    event.preventDefault();
    stepListed(event.key === "ArrowDown" ? 1 : -1);
  });
  onChange((what) => {
    if (what === "query" || what === "all") listEvents();
    if (what === "position" || what === "query" || what === "all") showEvent();
  });
}
