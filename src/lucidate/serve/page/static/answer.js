// The answer: a headline, a sentence, bars, doubt.

import { doubtOf, percent, verdictOf } from "./words.js";

const place = id => document.getElementById(id);

// label: what the image is known to show, if it is. choose(index): somebody wants to know what speaks for a class.
export function showAnswer(answer, { count, label, choose }) {
  const prediction = answer.predictions[0];
  const { state, verdict, words } = verdictOf(prediction, answer);
  place("answer").dataset.state = state;
  place("verdict").textContent = verdict;
  const known = label === undefined
    ? ""
    : label === prediction.classes[0].label ? " Its label says so too." : ` Its label says ${label}.`;
  place("words").textContent = words + known;
  place("bars").replaceChildren(...prediction.classes.map((each, row) => bar(each, row === 0 ? answer.threshold : null, choose)));
  place("doubt").hidden = false;
  const legend = answer.threshold > 0 ? "The mark is where it begins to answer. " : "";
  place("doubt").textContent = legend + doubtOf(prediction.entropy, count);
  place("trust").hidden = true;
}

export function markClass(index) {
  for (const button of place("bars").querySelectorAll("button")) {
    button.setAttribute("aria-pressed", String(Number(button.dataset.index) === index));
  }
}

export function showTrust(text) {
  place("trust").hidden = !text;
  place("trust").textContent = text;
}

export function clearAnswer() {
  place("answer").dataset.state = "waiting";
  place("verdict").textContent = "No answer";
  place("words").textContent = "";
  place("bars").replaceChildren();
  place("doubt").hidden = place("trust").hidden = true;
}

function bar({ label, index, probability }, threshold, choose) {
  const row = document.createElement("li");
  const button = document.createElement("button");
  button.type = "button";
  button.dataset.index = index;
  button.title = `What speaks for ${label}?`;
  const name = span("label", label);
  const share = span("share", percent(probability));
  const track = span("track", "");
  const fill = span("fill", "");
  fill.style.width = `${100 * probability}%`;
  track.append(fill);
  if (threshold > 0) {
    const mark = span("mark", "");
    mark.style.left = `${100 * threshold}%`;
    mark.title = `It answers from ${percent(threshold)}`;
    track.append(mark);
  }
  button.append(name, share, track);
  button.addEventListener("click", () => choose(index));
  row.append(button);
  return row;
}

function span(name, text) {
  const made = document.createElement("span");
  made.className = name;
  made.textContent = text;
  return made;
}
