// Asking the server: with the key that the tab holds, and with errors as a person reads them.

let key = sessionStorage.getItem("lucidate.key") ?? "";

export class Problem extends Error {
  // status: of the answer; 0 where none came.
  constructor(message, status = 0) {
    super(message);
    this.status = status;
  }
}

export function useKey(text) {
  key = text;
  sessionStorage.setItem("lucidate.key", text);
}

export const hasKey = () => key !== "";

// The answer to a request: JSON, or a Blob where `blob` is set. Throws Problem.
export async function ask(path, { method = "GET", body, signal, blob = false } = {}) {
  const headers = body ? { "Content-Type": "application/octet-stream" } : {};
  if (key) headers["X-API-Key"] = key;
  let answer;
  try {
    answer = await fetch(path, { method, body, signal, headers });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Problem("The server does not answer. Is it still running, and are you connected?");
  }
  if (answer.ok) return blob ? answer.blob() : answer.json();
  throw await problemOf(answer);
}

async function problemOf(answer) {
  let said = "";
  try {
    said = (await answer.json()).error ?? "";
  } catch {
    // not JSON: a proxy between us, perhaps
  }
  return new Problem(kindly(answer.status, said, answer.headers.get("Retry-After")), answer.status);
}

function kindly(status, said, wait) {
  const more = said ? ` (${said})` : "";
  if (status === 401) return "This server asks for a key.";
  if (status === 413) return `That image is too large for this server${more}.`;
  if (status === 415) return "That is no image that the server can read: it takes JPEG, PNG, WebP, GIF, BMP, TIFF and PNM.";
  if (status === 429) return `Many are asking at once. Try again in ${seconds(wait)}.`;
  if (status === 503) return "The model is not ready: the server is starting, or about to stop.";
  if (status === 504 || status === 408) return "It took too long, and was given up.";
  if (status >= 500) return `Something went wrong on the server${more}.`;
  return said ? `That did not work: ${said}.` : `That did not work (status ${status}).`;
}

const seconds = wait => (Number(wait) > 1 ? `${wait} seconds` : "a second");
