// XML that tasks made, and what is different between two of them.

const CONTEXT = 3;
let pickers = null;

// Lines of two texts side by side: ["=" | "-" | "+", line]. Longest common subsequence between common ends.
function difference(before, after) {
  const [a, b] = [before.split("\n"), after.split("\n")];
  let head = 0;
  while (head < a.length && head < b.length && a[head] === b[head]) head += 1;
  let tail = 0;
  while (tail < a.length - head && tail < b.length - head && a[a.length - 1 - tail] === b[b.length - 1 - tail]) tail += 1;
  const middle = between(a.slice(head, a.length - tail), b.slice(head, b.length - tail));
  const same = (text) => ["=", text];
  return [...a.slice(0, head).map(same), ...middle, ...a.slice(a.length - tail).map(same)];
}

function between(a, b) {
  if (a.length * b.length > 4e6) return [...a.map((text) => ["-", text]), ...b.map((text) => ["+", text])];
  const width = b.length + 1;
  const length = new Uint16Array((a.length + 1) * width);
  for (let i = a.length - 1; i >= 0; i -= 1) {
    for (let j = b.length - 1; j >= 0; j -= 1) {
      length[i * width + j] = a[i] === b[j] ? length[(i + 1) * width + j + 1] + 1 : Math.max(length[(i + 1) * width + j], length[i * width + j + 1]);
    }
  }
  const lines = [];
  let [i, j] = [0, 0];
  while (i < a.length || j < b.length) {
    if (i < a.length && j < b.length && a[i] === b[j]) { lines.push(["=", a[i]]); i += 1; j += 1; }
    else if (j >= b.length || (i < a.length && length[(i + 1) * width + j] >= length[i * width + j + 1])) { lines.push(["-", a[i]]); i += 1; }
    else { lines.push(["+", b[j]]); j += 1; }
  }
  return lines;
}

// Long stretches without a difference are folded.
function folded(lines) {
  const near = new Uint8Array(lines.length);
  lines.forEach(([kind], index) => {
    if (kind !== "=") near.fill(1, Math.max(0, index - CONTEXT), index + CONTEXT + 1);
  });
  const shown = [];
  let skipped = [];
  const flush = () => {
    if (skipped.length > 0) shown.push(el("details", { class: "same" }, el("summary", {}, plural(skipped.length, "line"), " alike"), skipped.map(lineOf)));
    skipped = [];
  };
  lines.forEach((line, index) => {
    if (!near[index]) { skipped.push(line); return; }
    flush();
    shown.push(lineOf(line));
  });
  flush();
  return shown;
}

function lineOf([kind, text]) {
  const sort = { "-": "del", "+": "ins", "=": "line" }[kind];
  return el(sort === "line" ? "div" : sort, { class: "line" }, kind === "=" ? " " : kind, " ", text);
}

function showDifference() {
  const [left, right] = pickers.map((picker) => model.documents[Number(picker.value)]);
  const [before, after] = [model.values[left.value], model.values[right.value]];
  const lines = difference(before, after);
  const changed = lines.filter(([kind]) => kind !== "=").length;
  byId("difference").replaceChildren(...(changed ? folded(lines) : lines.map(lineOf)));
  const same = left === right ? "" : "no difference";
  byId("changed").textContent = changed ? `${plural(changed, "line")} ${changed === 1 ? "differs" : "differ"}` : same;
}

function compareDocument(index) {
  const others = model.documents.map((document, place) => place).filter((place) => model.documents[place].name === model.documents[index].name && place < index);
  pickers[0].value = String(others.length ? others[others.length - 1] : index);
  pickers[1].value = String(index);
  showDifference();
  openTab("xml");
}

function picker(label, initial) {
  const choices = model.documents.map((document, index) => el("option", { value: index }, document.label));
  const node = el("select", { "aria-label": label, onchange: showDifference }, choices);
  node.value = String(initial);
  return node;
}

function startDocuments() {
  const view = byId("view-xml");
  if (model.documents.length === 0) {
    view.append(el("p", { class: "empty" }, "No task's result or input holds XML."));
    return;
  }
  pickers = [picker("Before", Math.max(0, model.documents.length - 2)), picker("After", model.documents.length - 1)];
  view.append(el("div", { class: "pickers" }, pickers[0], el("span", { "aria-hidden": "true" }, "→"), pickers[1], el("span", { id: "changed", class: "soft", role: "status" })),
    el("div", { id: "difference", class: "difference", tabindex: "0", role: "region", "aria-label": "What is different" }));
  showDifference();
}
