// Numbers and answers as sentences.

// A share of 1 as a percentage. Only all is "100 %" and only none is "0 %": 0.9996 is "> 99.9 %", 0.0002 "< 0.1 %".
// Throws for what is no number: an answer of NaN, which JSON has as null, must not be read as one.
export function percent(share, digits = 1) {
  if (!Number.isFinite(share)) throw new RangeError(`expected a share as a number, received ${share}`);
  const shown = (100 * share).toFixed(digits);
  const least = (10 ** -digits).toFixed(digits);
  if (share > 0 && Number(shown) === 0) return `< ${least}\u00a0%`;
  if (share < 1 && Number(shown) === 100) return `> ${(100 - 10 ** -digits).toFixed(digits)}\u00a0%`;
  return `${shown}\u00a0%`;
}

export const plainPercent = share => `${+(100 * share).toPrecision(3)}\u00a0%`;

export function number(value) {
  return new Intl.NumberFormat("en", { maximumFractionDigits: value < 10 ? 1 : 0 }).format(value);
}

// What a prediction says. threshold: of confidence, null where none is known. risk: share of answers that may be wrong.
// calibrated: whether logits were divided by a temperature, which says how.
export function verdictOf(prediction, { threshold, risk, calibrated, temperature }) {
  const [best] = prediction.classes;
  const sure = percent(best.probability);
  const how = calibrated ? ` (calibrated, by a temperature of ${temperature.toFixed(2)})` : " (not calibrated)";
  if (prediction.abstain) {
    return {
      state: "abstained",
      verdict: "I’d rather not say",
      words: `My best guess is ${best.label}, at ${sure}${how}. I answer from ${percent(threshold)} on, so that at most ` +
        `${plainPercent(risk)} of my answers are wrong.`,
    };
  }
  const promise = threshold === null || threshold === undefined
    ? "How often such an answer is wrong has not been measured for this model."
    : threshold === 0
      ? `It answers everything: of images like those it was judged on, it gets at most ${plainPercent(risk)} wrong.`
      : `It answers from ${percent(threshold)} on: of images like those it was judged on, it gets at most ${plainPercent(risk)} of these wrong.`;
  return { state: "answered", verdict: best.label, words: `${sure} sure${how}. ${promise}` };
}

// Entropy in nats, as a number of classes that one could mean.
export function doubtOf(entropy, count) {
  const among = Math.exp(entropy);
  const doubt = among < 1.05 ? "In next to no doubt" : `As much in doubt as between ${among.toFixed(1)} equally likely classes`;
  return `${doubt} (entropy ${entropy.toFixed(2)} of ${Math.log(count).toFixed(2)} nats). It knows ${count} classes: ` +
    "whatever else an image shows gets one of their names, too.";
}

export const viewsInWords = count => (count === 1 ? "one view of each image" : `the mean of ${count} views of each image`);

export function classesInWords(classes) {
  if (classes.length <= 3) return `${classes.slice(0, -1).join(", ")} and ${classes.at(-1)}`;
  return `${classes.length} classes, from ${classes[0]} to ${classes.at(-1)}`;
}

// Milliseconds as people say them: 3.4 ms, 1.2 s.
export function duration(ms) {
  if (ms === null || ms === undefined) return ["–", ""];
  return ms < 1000 ? [number(ms), "ms"] : [number(ms / 1000), "s"];
}
