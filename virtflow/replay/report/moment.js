// What is shown: a position between events (0 is before the first one) and a selected task. Views listen.

const LAST = model.events.length;
const AT = 0, FLOW = 1, TASK = 2, NAME = 3, ATTEMPT = 4, EPOCH = 5, HOST = 6, DATA = 7, ERROR = 8;
const now = { position: model.opening, task: model.first, query: "" };
const listeners = [];

function onChange(listener) {
  listeners.push(listener);
}

function tell(what) {
  for (const listener of listeners) listener(what);
}

function go(position) {
  const wanted = Math.max(0, Math.min(LAST, position));
  if (wanted === now.position) return;
  now.position = wanted;
  tell("position");
}

function select(task, { follow = true } = {}) {
  if (task === now.task || !model.tasks[task]) return;
  now.task = task;
  tell(follow ? "task" : "task quietly");
}

// Index of the last entry whose first element is less than the limit, or -1.
function lastBefore(rows, limit) {
  let low = 0, high = rows.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (rows[middle][0] < limit) low = middle + 1;
    else high = middle;
  }
  return low - 1;
}

function stateOf(task, position = now.position) {
  const found = lastBefore(task.moments, position);
  return found < 0 ? "pending" : model.states[task.moments[found][1]];
}

// The attempt, do or undo, that was begun last at a position.
function spanAt(task, position = now.position) {
  let found = -1;
  task.spans.forEach((span, index) => { if (span.first < position) found = index; });
  return found;
}

function attemptsUntil(task, position = now.position) {
  return task.spans.filter((span) => !span.undo && span.first < position).length;
}

function timeAt(position) {
  return LAST === 0 ? 0 : model.events[Math.max(0, position - 1)][AT];
}

function nextFailure(direction) {
  const list = model.failures;
  if (direction > 0) return list.find((index) => index + 1 > now.position);
  return [...list].reverse().find((index) => index + 1 < now.position);
}

function goToFailure(direction = 1) {
  const index = nextFailure(direction);
  if (index === undefined) return;
  if (model.events[index][TASK] >= 0) select(model.events[index][TASK]);
  go(index + 1);
}
