// How a program asks for the same, with this server's address and the model's name.

import { hasKey } from "./api.js";

const place = id => document.getElementById(id);
let chosen = 0;
let texts = [];

function written(model) {
  const origin = location.origin;
  const query = `?model=${encodeURIComponent(model)}`;
  const key = hasKey();
  return [
    ["curl", `curl ${key ? `-H "X-API-Key: $LUCIDATE_KEY" ` : ""}--data-binary @photo.jpg \\\n  "${origin}/v1/predict${query}"`],
    [
      "Python",
      `import json\n${key ? "import os\n" : ""}import urllib.request\n\n` +
        `with open("photo.jpg", "rb") as file:\n    request = urllib.request.Request(\n        "${origin}/v1/predict${query}",\n` +
        `        data=file.read(),\n        headers={"Content-Type": "application/octet-stream"` +
        `${key ? `, "X-API-Key": os.environ["LUCIDATE_KEY"]` : ""}},\n    )\n` +
        `with urllib.request.urlopen(request) as answer:\n    prediction = json.load(answer)["predictions"][0]\n` +
        `for each in prediction["classes"]:\n    print(f"{each['label']}: {each['probability']:.1%}")\n` +
        `known = {True: "it would rather not say", False: "it is sure enough", None: "how sure it must be is not known"}\n` +
        `print(known[prediction["abstain"]])`,
    ],
    [
      "tritonclient",
      `import numpy as np\n${key ? "import os\n" : ""}import tritonclient.http as triton  # pip install "tritonclient[http]"\n\n` +
        `with open("photo.jpg", "rb") as file:\n    photo = np.array([file.read()], dtype=object)\n\n` +
        `client = triton.InferenceServerClient("${location.host}"${location.protocol === "https:" ? ", ssl=True" : ""})\n` +
        `images = triton.InferInput("images", [1], "BYTES")\nimages.set_data_from_numpy(photo)\n` +
        `output = triton.InferRequestedOutput("probabilities", class_count=3)\n` +
        `result = client.infer("${model}", [images], outputs=[output]` +
        `${key ? `, headers={"X-API-Key": os.environ["LUCIDATE_KEY"]}` : ""})\n` +
        `print(result.as_numpy("probabilities"))  # "probability:index:label", the likeliest first`,
    ],
  ];
}

export function writeSnippets(model) {
  texts = written(model);
  place("tabs").replaceChildren(...texts.map(([name], index) => tab(name, index)));
  show(chosen);
}

function tab(name, index) {
  const button = document.createElement("button");
  button.type = "button";
  button.role = "tab";
  button.id = `tab-${index}`;
  button.textContent = name;
  button.setAttribute("aria-controls", "snippet");
  button.addEventListener("click", () => show(index));
  button.addEventListener("keydown", event => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!step) return;
    show((index + step + texts.length) % texts.length);
    place(`tab-${chosen}`).focus();
  });
  return button;
}

function show(index) {
  chosen = index;
  texts.forEach((_, each) => {
    place(`tab-${each}`).setAttribute("aria-selected", String(each === index));
    place(`tab-${each}`).tabIndex = each === index ? 0 : -1;
  });
  place("snippet").setAttribute("aria-labelledby", `tab-${index}`);
  place("code").textContent = texts[index][1];
}

place("copy").addEventListener("click", async () => {
  const button = place("copy");
  try {
    await navigator.clipboard.writeText(texts[chosen][1]);
    button.textContent = "Copied";
  } catch {
    getSelection().selectAllChildren(place("code")); // where a page may not write there, it is a key press away
    button.textContent = "Selected";
  }
  setTimeout(() => (button.textContent = "Copy"), 1600);
});
