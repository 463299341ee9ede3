import { drawNotes, drawProbabilities, drawSpeed, drawTimeline, moveCursor } from "./drawing.js";
import { decodedByBrowser, startRecording } from "./recording.js";

const POINTS = 600;
const $ = (id) => document.getElementById(id);
let longest_s = 300;
let recording = null;
let playing = null;

function say(text, isError = false) {
  $("status").textContent = text;
  $("status").classList.toggle("error", isError);
  // The result of an earlier recording beside an error would be taken for the answer.
  if (isError) clearResult();
}

function clearResult() {
  $("result").hidden = true;
  $("player").pause();
  $("player").removeAttribute("src");
  $("player").load();
  if (playing) URL.revokeObjectURL(playing);
  playing = null;
}

async function call(path, options = {}) {
  const token = sessionStorage.getItem("token");
  const headers = { ...(options.headers || {}), ...(token ? { Authorization: `Bearer ${token}` } : {}) };
  let response;
  try {
    response = await fetch(path, { ...options, headers });
  } catch {
    throw { status: 0, message: "The server does not answer. Is it still running?" };
  }
  const body = await response.json().catch(() => null);
  if (response.ok && body) return body;
  if (response.status === 401) {
    $("token-form").hidden = false;
    $("token").focus();
  }
  const message = body?.error?.message || `The server answered with status ${response.status}.`;
  throw { status: response.status, message };
}

async function loadModel() {
  try {
    const facts = await call("v1/model");
    longest_s = facts.max_recording_s;
    $("model").textContent = `Model ${facts.model}: ${facts.emotions.join(", ")} (${facts.device})`;
    $("token-form").hidden = true;
    say("");
  } catch (error) {
    $("model").textContent = "The model is not known yet";
    say(error.message, true);
  }
}

function query() {
  const parameters = new URLSearchParams({ waveform: POINTS });
  if ($("window").value) {
    parameters.set("window", $("window").value);
    if ($("hop").value) parameters.set("hop", $("hop").value);
  }
  return `v1/predict?${parameters}`;
}

async function predict(recorded, name) {
  say("Computing ...");
  const started = performance.now();
  const send = (blob) =>
    call(query(), { method: "POST", body: blob, headers: { "Content-Type": "application/octet-stream" } });
  try {
    let sent = recorded;
    let answer;
    try {
      answer = await send(sent);
    } catch (error) {
      if (error.status !== 415) throw error;
      // The browser may know the format, such as m4a or webm.
      const converted = await recorded.arrayBuffer().then(decodedByBrowser).catch(() => null);
      if (!converted) throw error;
      sent = converted;
      answer = await send(sent);
    }
    show(answer, sent, name, performance.now() - started);
    say("");
  } catch (error) {
    say(error.message || String(error), true);
  }
}

function show(answer, blob, name, roundTrip_ms) {
  $("result").hidden = false;
  $("name").textContent = name;
  $("note").textContent =
    answer.computed_from === "windows" ? "The recording is longer than 30 s, so this is the mean over its windows." : "";
  drawNotes(answer.notes);
  drawProbabilities(answer);
  drawTimeline(answer);
  drawSpeed(answer, roundTrip_ms);
  if (playing) URL.revokeObjectURL(playing);
  playing = URL.createObjectURL(blob);
  $("player").src = playing;
}

async function toggleRecording() {
  if (recording) {
    const { stop, timer } = recording;
    recording = null;
    clearInterval(timer);
    $("record").classList.remove("on");
    $("record-label").textContent = "Record";
    const wav = await stop();
    await predict(wav, "recording of the microphone");
    return;
  }
  try {
    const { stop } = await startRecording();
    const started = performance.now();
    const timer = setInterval(() => {
      const seconds = (performance.now() - started) / 1000;
      say(`Recording: ${seconds.toFixed(1)} s`);
      if (seconds > longest_s - 1) toggleRecording();
    }, 100);
    recording = { stop, timer };
    $("record").classList.add("on");
    $("record-label").textContent = "Stop";
  } catch (error) {
    const why = window.isSecureContext ? error.message : "browsers allow it on https and on localhost only";
    say(`The microphone cannot be used: ${why}`, true);
  }
}

$("record").addEventListener("click", toggleRecording);
$("choose").addEventListener("click", () => $("file").click());
$("file").addEventListener("change", () => {
  const [file] = $("file").files;
  if (file) predict(file, file.name);
  $("file").value = "";
});
$("token-form").addEventListener("submit", (event) => {
  event.preventDefault();
  sessionStorage.setItem("token", $("token").value.trim());
  $("token").value = "";
  loadModel();
});
// On the whole page: a file dropped beside the field would replace the page.
document.addEventListener("dragover", (event) => {
  event.preventDefault();
  $("drop").classList.add("over");
});
document.addEventListener("dragleave", () => $("drop").classList.remove("over"));
document.addEventListener("drop", (event) => {
  event.preventDefault();
  $("drop").classList.remove("over");
  const [file] = event.dataTransfer.files;
  if (file) predict(file, file.name);
});
const player = $("player");
player.addEventListener("timeupdate", () => moveCursor(player.currentTime / (player.duration || 1)));
$("wave").addEventListener("click", (event) => {
  if (!player.duration) return;
  const box = $("wave").getBoundingClientRect();
  player.currentTime = ((event.clientX - box.left) / box.width) * player.duration;
});
loadModel();
