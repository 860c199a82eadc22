"use strict";
// Making elements and texts. Whatever comes from the recording becomes text nodes, never markup.

const model = JSON.parse(document.getElementById("recording").textContent);
const byId = (id) => document.getElementById(id);

// Characters that would hide, reorder or break what stands around them are shown as their code.
const UNSEEN = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u00ad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb]/g;

function visible(value) {
  return String(value).replace(UNSEEN, (c) => "\\u" + c.charCodeAt(0).toString(16).padStart(4, "0"));
}

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes || {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else node.setAttribute(name, value === true ? "" : visible(value));
  }
  for (const child of children.flat(2)) {
    if (child === null || child === undefined || child === false) continue;
    node.append(child instanceof Node ? child : document.createTextNode(visible(child)));
  }
  return node;
}

function el(tag, attributes, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

function svg(tag, attributes, ...children) {
  return fill(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);
}

// A sign per state, drawn in a box of 12 by 12: states are told apart without colours, too.
const SIGNS = {
  pending: "M6 2.5a3.5 3.5 0 1 0 0 7a3.5 3.5 0 1 0 0-7z",
  running: "M3.5 2.2 9.8 6 3.5 9.8z",
  done: "M2.3 6.4 4.9 9 9.8 3.2",
  failed: "M2.8 2.8l6.4 6.4M9.2 2.8 2.8 9.2",
  undoing: "M9.8 9.6V7.2a2.4 2.4 0 0 0-2.4-2.4H2.6M5 2.2 2.4 4.8 5 7.4",
  undone: "M9.8 9.6V7.2a2.4 2.4 0 0 0-2.4-2.4H2.6M5 2.2 2.4 4.8 5 7.4",
  debt: "M6 1.8v5.2M6 9.4v.6",
  cut: "M1.8 4.2 4.6 7l2.6-2.6L10.2 7.6",
  skipped: "M2.5 6h7",
};
const SAID = {
  pending: "not started", running: "running", done: "done", failed: "failed", undoing: "being undone",
  undone: "undone", debt: "not undone", cut: "cut off", skipped: "skipped",
};

function sign(state) {
  const shape = svg("path", { d: SIGNS[state] || SIGNS.pending });
  return svg("svg", { class: "sign", viewBox: "0 0 12 12", "data-state": state, "aria-hidden": "true" }, shape);
}

// Microseconds as a person would say them.
function duration(us) {
  if (us === null || us === undefined) return "";
  if (us < 1000) return `${us} µs`;
  if (us < 1e6) return `${+(us / 1000).toFixed(us < 1e4 ? 1 : 0)} ms`;
  if (us < 6e7) return `${(us / 1e6).toFixed(us < 1e7 ? 2 : 1)} s`;
  const minutes = Math.floor(us / 6e7);
  if (minutes < 60) return `${minutes} min ${Math.round((us % 6e7) / 1e6)} s`;
  return `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}

// The clock of the recording, in UTC: a report is read in another time zone than it was made in.
function clock(us, fraction = 3) {
  const date = new Date((model.start + us) / 1000);
  if (Number.isNaN(date.getTime())) return "?";
  const text = date.toISOString();
  return text.slice(0, 10) + " " + text.slice(11, fraction ? 20 + fraction : 19);
}

function plural(count, one, many) {
  return `${count.toLocaleString("en")} ${count === 1 ? one : many || one + "s"}`;
}
