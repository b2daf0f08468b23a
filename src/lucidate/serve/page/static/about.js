// Who the model is, and images to try it on.

import { ask } from "./api.js";
import { classesInWords, number, percent, plainPercent, viewsInWords } from "./words.js";

const place = id => document.getElementById(id);
let shown = 0; // which call for examples was the last: another model may be chosen while images come

export function showModel(model) {
  place("model-name").textContent = model.name;
  document.title = `${model.name} · lucidate`;
  // Of the graph that is served: the run may have been judged with more views of each image, or before it was int8.
  const { test, validation, views_averaged: count } = model.accuracy ?? {};
  const judged = accuracy => accuracy && `${percent(accuracy)}, by ${viewsInWords(count)}, as it is served`;
  place("lead").textContent =
    `It tells apart ${classesInWords(model.classes)}.` +
    (test ? ` Of test images that it had never seen, it names ${percent(test)} right, by ${viewsInWords(count)}.` : "");
  const facts = [
    ["Architecture", model.architecture],
    ["Parameters", model.parameters && number(model.parameters)],
    ["Data", model.dataset],
    ["It sees", `${model.image_size} × ${model.image_size} pixels, the middle of the image`],
    ["Test accuracy", judged(test)],
    ["Validation accuracy", judged(validation)],
    ["It answers from", answersFrom(model)],
    ["Probabilities", model.calibrated ? `calibrated: logits are divided by ${model.temperature.toFixed(2)}` : "not calibrated: as the model gives them"],
    ["Precision", model.precision],
    ["Views of each image", model.views],
    ["Version", model.version],
  ];
  place("facts").replaceChildren(...facts.filter(([, value]) => value).map(([name, value]) => fact(name, value)));
  place("notes").replaceChildren(...(model.notes ?? []).map(note));
}

function answersFrom({ threshold, risk, coverage }) {
  if (threshold === null || threshold === undefined) return "no threshold is known: it answers everything";
  if (threshold === 0) return `any confidence: at most ${plainPercent(risk)} of the answers are wrong`;
  return `${percent(threshold)} confidence, which ${percent(coverage)} of images reach; at most ${plainPercent(risk)} of these are wrong`;
}

function fact(name, value) {
  const made = document.createElement("div");
  const term = document.createElement("dt");
  const is = document.createElement("dd");
  term.textContent = name;
  is.textContent = value;
  made.append(term, is);
  return made;
}

function note(text) {
  const made = document.createElement("p");
  made.className = "note";
  made.textContent = `${text[0].toUpperCase()}${text.slice(1)}${text.endsWith(".") ? "" : "."}`;
  return made;
}

// A handful of validation images, where the server has them at hand. take(blob, name, {label, tile})
export async function showExamples(model, take) {
  const mine = ++shown;
  place("examples").hidden = true;
  let examples = [];
  try {
    ({ examples } = await ask(`/v1/examples?model=${encodeURIComponent(model)}`));
  } catch {
    return; // they are an offer, not a promise
  }
  const tiles = await Promise.all(examples.map(example => tile(example, take).catch(() => null)));
  if (mine !== shown) return;
  place("tiles").replaceChildren(...tiles.filter(Boolean));
  place("examples").hidden = place("tiles").childElementCount === 0;
}

async function tile({ url, id, label }, take) {
  const blob = await ask(url, { blob: true }); // an <img> of its own could not show the key
  const row = document.createElement("li");
  const button = document.createElement("button");
  const image = document.createElement("img");
  const name = document.createElement("span");
  button.type = "button";
  image.src = URL.createObjectURL(blob);
  image.alt = "";
  name.textContent = label;
  button.append(image, name);
  button.addEventListener("click", () => {
    take(blob, id, { label, tile: button });
  });
  row.append(button);
  return row;
}
