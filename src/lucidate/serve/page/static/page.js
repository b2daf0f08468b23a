// The page of a served model: what comes, what is asked, what is shown.

import { showExamples, showModel } from "./about.js";
import { clearAnswer, markClass, showAnswer, showTrust } from "./answer.js";
import { Problem, ask, useKey } from "./api.js";
import { drawHeat, hideHeat } from "./heat.js";
import { listen, sized } from "./input.js";
import { watch } from "./live.js";
import { writeSnippets } from "./snippets.js";

const TOP = 5;
const FINEST = 64; // rows of a heatmap; more would be sent and not seen

const place = id => document.getElementById(id);
let models = [];
let model = null; // as /v1/models tells of it
let image = null; // {blob, label}: the one that is shown; label: what it is known to show, if it is
let target = null; // index of the class that the heatmap is to explain; null: the predicted one
let asking = null; // AbortController of the request for an answer
let heating = null; // and of that for a heatmap
let retry = () => {};
let look = () => {};

async function begin() {
  try {
    const found = await ask("/v1/models");
    models = found.models ?? found;
    if (!models.length) throw new Problem("No model is loaded.");
    place("model").replaceChildren(...models.map(each => new Option(each.name)));
    place("picker").hidden = models.length < 2;
    place("model-name").hidden = models.length > 1;
    choose(models.find(each => each.name === model?.name) ?? models[0]);
    look();
    solved();
  } catch (problem) {
    complain(problem, begin);
  }
}

function choose(chosen) {
  model = chosen;
  target = null;
  showModel(model);
  writeSnippets(model.name);
  showExamples(model.name, take);
  if (image) predict();
  look();
}

async function take(blob, name, { label, tile } = {}) {
  for (const each of place("tiles").querySelectorAll("[aria-pressed]")) each.removeAttribute("aria-pressed");
  tile?.setAttribute("aria-pressed", "true");
  const ready = await sized(blob);
  image = { blob: ready.blob, label };
  target = null;
  URL.revokeObjectURL(place("picture").src);
  place("picture").src = URL.createObjectURL(ready.blob);
  place("picture").alt = `The image to be classified: ${name}`;
  place("picture").hidden = false;
  place("stage").dataset.state = "shown";
  place("another").hidden = false;
  place("seen").hidden = false;
  place("seen").textContent =
    `The model sees the middle square of it, at ${model?.image_size}\u00a0×\u00a0${model?.image_size} pixels.` +
    (ready.shrunk ? " It was made smaller before it was sent." : "");
  hideHeat();
  await predict();
  bringIntoView(place("answer"), place("work"));
}

// Scrolls to `whole` where `part` of it cannot be seen.
function bringIntoView(part, whole) {
  const { top, bottom } = part.getBoundingClientRect();
  if (top < 0 || Math.min(bottom, top + 160) > innerHeight) {
    const calm = matchMedia("(prefers-reduced-motion: reduce)").matches;
    whole.scrollIntoView({ behavior: calm ? "auto" : "smooth", block: "start" });
  }
}

async function predict() {
  if (!model) return;
  asking?.abort();
  heating?.abort();
  hideHeat();
  asking = new AbortController();
  const mine = asking;
  place("working").hidden = false;
  place("working").textContent = "Looking …";
  try {
    const query = new URLSearchParams({ model: model.name, top: TOP });
    const answer = await ask(`/v1/predict?${query}`, { method: "POST", body: image.blob, signal: mine.signal });
    showAnswer(answer, { count: model.classes.length, label: image.label, choose: explainClass });
    place("why").disabled = false;
    solved();
    if (wanted()) await explain();
  } catch (problem) {
    if (problem.name === "AbortError") return;
    clearAnswer();
    place("why").disabled = true;
    if (problem.status === 413 || problem.status === 415 || problem.status === 400) forget();
    complain(problem, image ? predict : () => place("file").click());
  } finally {
    if (mine === asking) place("working").hidden = true;
  }
}

// The image is of no use: the stage waits for another.
function forget() {
  image = null;
  for (const id of ["picture", "another", "seen", "heating"]) place(id).hidden = true;
  place("stage").dataset.state = "empty";
}

const wanted = () => place("why").getAttribute("aria-pressed") === "true";

function explainClass(index) {
  target = index;
  place("why").setAttribute("aria-pressed", "true");
  explain();
}

async function explain() {
  heating?.abort();
  heating = new AbortController();
  const mine = heating;
  place("heating").hidden = false;
  place("working").hidden = false;
  place("working").textContent = "Asking why …";
  try {
    const query = new URLSearchParams({
      model: model.name,
      method: place("method").value,
      target: target ?? "predicted",
      side: Math.min(model.image_size, FINEST),
    });
    const found = await ask(`/v1/explain?${query}`, { method: "POST", body: image.blob, signal: mine.signal });
    const peak = drawHeat(found.map);
    markClass(found.target.index);
    showTrust(trustIn(found, peak));
    solved();
  } catch (problem) {
    if (problem.name === "AbortError") return;
    hideHeat();
    complain(problem, explain);
  } finally {
    if (mine === heating) place("working").hidden = true;
  }
}

function trustIn({ target: asked, trust }, peak) {
  if (!(peak > 0)) return "The heatmap is empty: nothing in the image speaks for it by this method.";
  const verdict = trust?.verdict;
  const says = `Bright is what spoke for ${asked.label}.`;
  return verdict ? `${says} How far to trust such a map: ${verdict}.` : says;
}

function toggleHeat() {
  const on = !wanted();
  place("why").setAttribute("aria-pressed", String(on));
  place("heating").hidden = !on;
  if (on) return explain();
  heating?.abort();
  hideHeat();
  showTrust("");
  markClass(-1);
}

function complain(problem, again) {
  retry = again;
  place("problem").hidden = false;
  place("problem").firstElementChild.textContent = problem instanceof Problem ? problem.message : `Something went wrong in this page: ${problem.message}.`;
  bringIntoView(place("problem"), place("problem"));
  if (problem.status === 401) {
    place("key-form").hidden = false;
    place("key").focus();
  }
}

function solved() {
  place("problem").hidden = true;
  place("key-form").hidden = true;
}

place("again").addEventListener("click", () => retry());
place("why").addEventListener("click", toggleHeat);
place("method").addEventListener("change", () => explain());
place("model").addEventListener("change", () => choose(models[place("model").selectedIndex]));
place("key-form").addEventListener("submit", event => {
  event.preventDefault();
  useKey(place("key").value);
  place("key").value = "";
  retry();
});

listen(take);
look = watch(() => model?.name);
begin();
