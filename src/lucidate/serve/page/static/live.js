// How the server is doing, every two seconds while somebody looks.

import { ask } from "./api.js";
import { duration, number } from "./words.js";

const EVERY = 2000; // milliseconds
const SHOWN = 0.4; // the index at which a bar of drift is full
const WATCH = 0.1; // as in lucidate.serve.drift
const DRIFTED = 0.25;
const KEPT = 60; // points of the line

const place = id => document.getElementById(id);
const rates = [];
let timer = 0;

// model(): the name of the one that is looked at.
export function watch(model) {
  const look = async () => {
    clearTimeout(timer);
    if (document.hidden) return; // it goes on when somebody looks again
    try {
      show(await ask("/v1/live"), model());
      place("live-state").textContent = "Over the last minute.";
      document.body.classList.remove("stale");
    } catch (problem) {
      place("live-state").textContent = problem.status === 401 ? "The figures need a key, too." : "No news from the server: these are its last figures.";
      document.body.classList.add("stale");
    }
    clearTimeout(timer);
    timer = setTimeout(look, EVERY);
  };
  document.addEventListener("visibilitychange", look);
  look();
  return look;
}

function show(live, name) {
  figure("rate", number(live.requests_per_second), "");
  figure("p50", ...duration(live.latency_ms.p50));
  figure("p99", ...duration(live.latency_ms.p99));
  const model = live.models.find(each => each.name === name) ?? live.models[0];
  if (model) {
    figure("queue", number(model.queue), `of ${number(model.capacity)}`);
    showDrift(model.drift);
  }
  rates.push(live.requests_per_second);
  if (rates.length > KEPT) rates.shift();
  drawLine();
}

function figure(id, value, unit) {
  const small = document.createElement("small");
  small.textContent = unit;
  place(id).replaceChildren(value, small);
}

function drawLine() {
  const top = Math.max(...rates, 1);
  const points = rates.map((rate, index) => `${(120 * (index + KEPT - rates.length)) / (KEPT - 1)},${26 - (24 * rate) / top}`);
  place("spark").firstElementChild.setAttribute("points", points.join(" "));
}

function showDrift(drift) {
  const signals = Object.entries(drift);
  place("drift").hidden = signals.length === 0;
  if (!signals.length) return;
  const [, first] = signals[0];
  place("drift-state").textContent = first.psi === null
    ? `It takes 200 images to tell; ${number(first.count)} have come.`
    : `The last ${number(first.count)} images against the validation images, by the population stability index: ` +
      "below 0.10 is stable, above 0.25 has drifted.";
  place("signals").replaceChildren(...signals.map(([name, signal]) => row(name, signal)));
}

function row(name, { psi, verdict }) {
  const made = document.createElement("li");
  const is = span(`is ${verdict}`, psi === null ? "too few yet" : `${verdict} · ${psi.toFixed(2)}`);
  const track = span("track", "");
  track.style.gridColumn = "1 / -1";
  const fill = span("fill", "");
  fill.style.width = `${100 * Math.min(1, (psi ?? 0) / SHOWN)}%`;
  track.append(fill);
  for (const at of [WATCH, DRIFTED]) {
    const mark = span("mark", "");
    mark.style.left = `${(100 * at) / SHOWN}%`;
    track.append(mark);
  }
  made.append(span("name", name === "classes" ? "predicted classes" : name), is, track);
  return made;
}

function span(name, text) {
  const made = document.createElement("span");
  made.className = name;
  made.textContent = text;
  return made;
}
