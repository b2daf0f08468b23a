// Ways for an image to come: chosen, dropped, pasted, photographed.

const LARGEST = { bytes: 8e6, pixels: 12e6, side: 2048 }; // beyond, an image is made smaller before it is sent

// Calls `take(blob, name)` for each image that comes.
export function listen(take) {
  for (const id of ["file", "snap"]) {
    const input = document.getElementById(id);
    input.addEventListener("change", () => {
      if (input.files[0]) take(input.files[0], input.files[0].name);
      input.value = ""; // the same file may be chosen again
    });
  }
  listenForDrops(take);
  document.addEventListener("paste", event => {
    const file = imageIn(event.clipboardData);
    if (file) take(file, "pasted image");
  });
  listenForCamera(take);
}

function listenForDrops(take) {
  let depth = 0; // dragenter and dragleave also come from every element inside
  const mark = change => {
    depth = Math.max(0, depth + change);
    document.body.classList.toggle("dragging", depth > 0);
  };
  document.addEventListener("dragenter", () => mark(1));
  document.addEventListener("dragleave", () => mark(-1));
  document.addEventListener("dragover", event => event.preventDefault());
  document.addEventListener("drop", event => {
    event.preventDefault();
    mark(-Infinity);
    const file = imageIn(event.dataTransfer) ?? event.dataTransfer.files[0];
    if (file) take(file, file.name);
  });
}

const imageIn = data => [...(data?.files ?? [])].find(file => file.type.startsWith("image/"));

function listenForCamera(take) {
  const button = document.getElementById("camera");
  const dialog = document.getElementById("viewfinder");
  const video = document.getElementById("video");
  const live = window.isSecureContext && navigator.mediaDevices?.getUserMedia;
  // Without a secure context a phone's own camera still works, by way of a file.
  document.getElementById("snap-label").hidden = live || !matchMedia("(pointer: coarse)").matches;
  button.hidden = !live;
  if (!live) return;
  const stop = () => {
    video.srcObject?.getTracks().forEach(track => track.stop());
    video.srcObject = null;
  };
  button.addEventListener("click", async () => {
    try {
      video.srcObject = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment" } });
      dialog.showModal();
    } catch {
      document.getElementById("snap").click(); // refused, or there is none: the chooser may know another way
    }
  });
  dialog.addEventListener("close", stop);
  document.getElementById("close").addEventListener("click", () => dialog.close());
  document.getElementById("take").addEventListener("click", async () => {
    if (!video.videoWidth) return;
    const side = Math.min(video.videoWidth, video.videoHeight);
    const blob = await drawn(video, (video.videoWidth - side) / 2, (video.videoHeight - side) / 2, side, side, 1);
    dialog.close();
    take(blob, "camera");
  });
}

// The image as it is sent: itself, or a smaller copy of one that is larger than a server may take.
export async function sized(blob) {
  let image;
  try {
    image = await createImageBitmap(blob);
  } catch {
    return { blob, shrunk: false }; // the browser cannot read it; the server may, or says why not
  }
  const { width, height } = image;
  if (blob.size <= LARGEST.bytes && width * height <= LARGEST.pixels) return { blob, shrunk: false };
  const scale = Math.min(1, LARGEST.side / Math.max(width, height));
  return { blob: await drawn(image, 0, 0, width, height, scale), shrunk: true };
}

function drawn(source, left, top, width, height, scale) {
  const canvas = document.createElement("canvas");
  canvas.width = Math.max(1, Math.round(width * scale));
  canvas.height = Math.max(1, Math.round(height * scale));
  const context = canvas.getContext("2d");
  context.fillStyle = "#ffffff"; // what the server lays behind transparent pixels
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.drawImage(source, left, top, width, height, 0, 0, canvas.width, canvas.height);
  return new Promise(done => canvas.toBlob(done, "image/jpeg", 0.95));
}
