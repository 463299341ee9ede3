// Draws a prediction. Colours are classes of the style sheet, one per emotion in the model's order.

const COLOURS = 8;
const $ = (id) => document.getElementById(id);

export function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

function shape(name, attributes) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
}

// A warning above the emotion. A recording without any signal gets an error instead of an emotion.
export function drawNotes(notes) {
  $("warning").hidden = notes.length === 0;
  $("warning").replaceChildren(
    "This recording is unlike what models are trained on, so trust the result less.",
    element("ul", {}, ...notes.map((note) => element("li", {}, note.message))),
  );
}

export function drawProbabilities(answer) {
  const emotions = Object.keys(answer.probabilities);
  $("emotion").textContent = answer.emotion;
  $("confidence").textContent = percent(answer.probabilities[answer.emotion]);
  $("bars").replaceChildren();
  emotions.forEach((emotion, i) => {
    const fill = element("div", { class: `fill f${i % COLOURS}` });
    fill.style.width = `${100 * answer.probabilities[emotion]}%`;
    $("bars").append(
      element("span", {}, emotion),
      element("div", { class: "track" }, fill),
      element("span", { class: "number" }, percent(answer.probabilities[emotion])),
    );
  });
}

export function drawTimeline(answer) {
  drawWave(answer.waveform || []);
  const emotions = Object.keys(answer.probabilities);
  const length = answer.duration_s;
  const whole = { start_s: 0, end_s: length, emotion: answer.emotion, probabilities: answer.probabilities };
  const windows = answer.windows.length ? answer.windows : [whole];
  const middles = windows.map((window) => (window.start_s + window.end_s) / 2);
  // Each window stands for the time that is nearest to its middle.
  const edges = middles.map((middle, i) => (i ? (middles[i - 1] + middle) / 2 : 0)).concat(length);

  const band = $("band");
  band.setAttribute("viewBox", `0 0 ${length} 1`);
  band.replaceChildren();
  windows.forEach((window, i) => {
    const rect = shape("rect", {
      x: edges[i], y: 0, width: edges[i + 1] - edges[i], height: 1,
      class: `f${emotions.indexOf(window.emotion) % COLOURS}`,
    });
    const title = shape("title", {});
    title.textContent = `${window.start_s.toFixed(1)} to ${window.end_s.toFixed(1)} s: ${window.emotion}`;
    rect.append(title);
    band.append(rect);
  });

  const curves = $("curves");
  curves.setAttribute("viewBox", `0 0 ${length} 1`);
  curves.replaceChildren(shape("line", { x1: 0, x2: length, y1: 0.5, y2: 0.5, class: "grid" }));
  emotions.forEach((emotion, i) => {
    const height = (window) => 1 - window.probabilities[emotion];
    const points = windows.map((window, j) => `${middles[j]},${height(window)}`);
    points.unshift(`0,${height(windows[0])}`);
    points.push(`${length},${height(windows[windows.length - 1])}`);
    curves.append(shape("polyline", { points: points.join(" "), class: `s${i % COLOURS}` }));
  });

  $("ticks").replaceChildren(
    ...ticksOf(length).map(([seconds, text]) => {
      const tick = element("span", {}, text);
      tick.style.left = `${(100 * seconds) / length}%`;
      return tick;
    }),
  );
  $("legend").replaceChildren(
    ...emotions.map((emotion, i) => element("li", {}, element("span", { class: `f${i % COLOURS}` }), emotion)),
  );
}

// Times and texts, at most 7: the step is 1, 2 or 5 times a power of ten.
function ticksOf(length) {
  const power = 10 ** Math.floor(Math.log10(length / 6));
  const step = [1, 2, 5, 10].map((factor) => factor * power).find((one) => length / one <= 6);
  const decimals = Math.max(0, -Math.floor(Math.log10(step) + 1e-9));
  const count = Math.floor(length / step + 1e-9) + 1;
  return Array.from({ length: count }, (_, i) => [i * step, `${(i * step).toFixed(decimals)} s`]);
}

function drawWave(points) {
  const wave = $("wave");
  wave.setAttribute("viewBox", `0 -1 ${Math.max(1, points.length)} 2`);
  const highest = Math.max(0.05, ...points.map(([low, high]) => Math.max(-low, high)));
  const top = points.map(([, high], i) => `${i + 0.5},${(-high / highest).toFixed(4)}`);
  const bottom = points.map(([low], i) => `${i + 0.5},${(-low / highest + 0.008).toFixed(4)}`).reverse();
  const path = shape("path", { d: points.length ? `M${top.join("L")}L${bottom.join("L")}Z` : "" });
  const cursor = shape("line", { x1: 0, x2: 0, y1: -1, y2: 1, id: "cursor" });
  wave.replaceChildren(path, cursor);
}

export function moveCursor(share) {
  const cursor = $("cursor");
  if (!cursor) return;
  const x = share * Math.max(1, $("wave").viewBox.baseVal.width);
  cursor.setAttribute("x1", x);
  cursor.setAttribute("x2", x);
}

export function drawSpeed(answer, roundTrip_ms) {
  const timing = answer.timing;
  const rows = [
    ["Recording", `${answer.duration_s.toFixed(2)} s`],
    ["Answer, with transfer", `${Math.round(roundTrip_ms)} ms`],
    ["Decoding", `${timing.decode_ms.toFixed(0)} ms`],
    ["Model", `${timing.compute_ms.toFixed(0)} ms`],
    ["Waiting", `${timing.wait_ms.toFixed(0)} ms`],
    ["Real-time factor", timing.real_time_factor.toFixed(3)],
  ];
  $("speed").replaceChildren(
    ...rows.map(([name, value]) => element("div", {}, element("dt", {}, name), element("dd", {}, value))),
  );
}

function percent(share) {
  return `${(100 * share).toFixed(1)} %`;
}
