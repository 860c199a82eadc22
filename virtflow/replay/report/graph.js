// The graph: drawn once, then only the states that changed are written.

const CORNER = 6;
const SMALLEST = 0.82;
const nodes = [];
let fit = 1;

// Right-angled lines with round corners through points x1, y1, x2, y2 ...
function route(points) {
  const corners = [];
  for (let i = 0; i < points.length; i += 2) corners.push([points[i], points[i + 1]]);
  let path = `M${corners[0].join(" ")}`;
  for (let i = 1; i < corners.length - 1; i += 1) {
    const [before, here, after] = [corners[i - 1], corners[i], corners[i + 1]];
    const [start, end] = [towards(here, before), towards(here, after)];
    path += `L${start.join(" ")}Q${here.join(" ")} ${end.join(" ")}`;
  }
  return path + `L${corners[corners.length - 1].join(" ")}`;
}

function towards([x, y], [otherX, otherY]) {
  const length = Math.hypot(otherX - x, otherY - y);
  if (length === 0) return [x, y];
  const reach = Math.min(CORNER, length / 2);
  return [+(x + ((otherX - x) / length) * reach).toFixed(1), +(y + ((otherY - y) / length) * reach).toFixed(1)];
}

function clipped(name, characters) {
  const text = visible(name);
  return text.length <= characters ? text : text.slice(0, characters - 1) + "…";
}

function drawFlow(flow) {
  const { x, y, width, height } = flow.frame;
  return svg("g", { class: "frame" },
    svg("rect", { x, y, width, height, rx: 7 }),
    svg("text", { x: x + 12, y: y + 17 }, svg("tspan", { class: "name" }, clipped(flow.name, 40)),
      svg("tspan", { dx: 8 }, flow.host ? `on ${clipped(flow.host, 24)}` : "")));
}

function drawNode(task, index) {
  const { width, height } = model.graph.node;
  const state = svg("path", { class: "mark", transform: `translate(8 ${height / 2 - 6})` });
  const count = svg("text", { class: "count", x: width - 3, y: 4, "text-anchor": "end" });
  const box = svg("g", {
    class: "node", transform: `translate(${task.x} ${task.y})`, tabindex: "-1", role: "option", "data-task": index,
    "data-kind": task.kind,
  }, svg("title", {}, task.name), svg("rect", { width, height, rx: task.kind === "retry" ? height / 2 : 5 }), state,
  svg("text", { x: 25, y: height / 2 + 4 }, clipped(task.name, model.graph.letters)), count);
  nodes[index] = { box, state, count, shown: null, attempts: 0 };
  return box;
}

function drawGraph() {
  const { width, height } = model.graph;
  fit = Math.max(SMALLEST, Math.min(1, (byId("graph-scroll").clientWidth - 28) / width));
  const edges = model.edges.map(([, , points]) => svg("path", { d: route(points) }));
  const picture = svg("svg", {
    width: width * fit, height: height * fit, viewBox: `0 0 ${width} ${height}`, role: "listbox", "aria-label": "Tasks as a graph", class: "dag",
  }, model.flows.map(drawFlow), svg("g", { class: "edges", "aria-hidden": "true" }, edges), model.tasks.map(drawNode));
  picture.addEventListener("click", (event) => {
    const box = event.target.closest("[data-task]");
    if (box) select(Number(box.dataset.task), { follow: false });
  });
  byId("graph-scroll").append(picture);
  const states = new Set(model.tasks.flatMap((task) => task.moments.map(([, state]) => model.states[state])));
  states.delete("pending");
  if (states.has("undone")) states.delete("undoing");
  for (const state of model.states) if (states.has(state)) byId("legend").append(el("span", {}, sign(state), SAID[state]));
  markEdges(edges);
}

function markEdges(edges) {
  const drawn = edges.map((edge, index) => ({ edge, from: model.edges[index][0], to: model.edges[index][1], shown: "" }));
  onChange(() => {
    for (const line of drawn) {
      const passed = nodes[line.from].shown === "done" && nodes[line.to].shown !== "pending";
      const lit = line.from === now.task || line.to === now.task;
      const shown = (passed ? "passed" : "") + (lit ? " lit" : "");
      if (line.shown === shown) continue;
      line.shown = shown;
      line.edge.setAttribute("class", shown);
    }
  });
}

function showStates() {
  model.tasks.forEach((task, index) => {
    const node = nodes[index];
    const [state, attempts] = [stateOf(task), attemptsUntil(task)];
    if (node.shown === state && node.attempts === attempts) return;
    node.shown = state;
    node.attempts = attempts;
    node.box.setAttribute("data-state", state);
    node.state.setAttribute("d", SIGNS[state]);
    node.count.textContent = attempts > 1 ? `×${attempts}` : "";
    node.box.setAttribute("aria-label", `${visible(task.name)}: ${SAID[state]}${attempts > 1 ? `, attempt ${attempts}` : ""}`);
  });
}

let marked = null;

function showSelectedNode(follow) {
  const node = nodes[now.task];
  if (!node) return;
  if (marked && marked !== node) {
    marked.box.setAttribute("tabindex", "-1");
    marked.box.setAttribute("aria-selected", "false");
  }
  marked = node;
  node.box.setAttribute("tabindex", "0");
  node.box.setAttribute("aria-selected", "true");
  if (!follow) return;
  const [pane, task] = [byId("graph-scroll"), model.tasks[now.task]];
  const [left, width] = [task.x * fit, (model.graph.node.width + 28) * fit];
  bringIntoView(pane, task.y * fit, model.graph.node.height * fit);
  if (left + width > pane.scrollLeft + pane.clientWidth || left < pane.scrollLeft) pane.scrollLeft = left - 40;
}

// Scrolls the pane, and nothing around it, so that a strip of it can be seen.
function bringIntoView(pane, top, height) {
  const margin = Math.min(60, pane.clientHeight / 4);
  if (top - margin < pane.scrollTop) pane.scrollTop = top - margin;
  else if (top + height + margin > pane.scrollTop + pane.clientHeight) pane.scrollTop = top + height + margin - pane.clientHeight;
}

function startGraph() {
  onChange((what) => {
    if (what === "position" || what === "all") showStates();
    if (what !== "position") showSelectedNode(what !== "task quietly");
  });
  drawGraph();
}
