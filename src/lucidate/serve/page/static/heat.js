// A heatmap over the image, on a canvas of its own, so that it can be faded.

// As in lucidate.analyze.heat_colors: lighter at every step.
const RAMP = [[24, 15, 62], [114, 31, 129], [205, 64, 91], [251, 135, 97], [252, 253, 191]];

const canvas = document.getElementById("heat");
const fade = document.getElementById("fade");

fade.addEventListener("input", () => apply());

function apply() {
  canvas.style.opacity = fade.value / 100;
}

// map: rows of numbers; below 0 and 0 show the image as it is. Gives its largest value.
export function drawHeat(map) {
  const height = map.length;
  const width = map[0].length;
  const peak = Math.max(...map.map(row => Math.max(...row.map(Math.abs))));
  canvas.width = width;
  canvas.height = height;
  const context = canvas.getContext("2d");
  const pixels = context.createImageData(width, height);
  map.flat().forEach((value, place) => {
    const share = peak > 0 ? Math.min(1, Math.max(0, value / peak)) : 0;
    pixels.data.set([...color(share), Math.round(255 * share)], 4 * place);
  });
  context.putImageData(pixels, 0, 0);
  canvas.hidden = false;
  apply();
  return peak;
}

export function hideHeat() {
  canvas.hidden = true;
}

function color(share) {
  const place = share * (RAMP.length - 1);
  const below = Math.min(Math.floor(place), RAMP.length - 2);
  return RAMP[below].map((from, channel) => Math.round(from + (place - below) * (RAMP[below + 1][channel] - from)));
}
