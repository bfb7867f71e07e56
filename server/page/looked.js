/**
 * The picture of where the model looked: a strip of the whole, and a row a layer, over the document.
 *
 * @module
 */

/** Pixels of one layer's row, and of the strip above them. */
const ROW = 4;
const STRIP = 22;

/**
 * How much each stretch was looked at, in one layer or in all. Heads that look at one place count for more than many that look
 * everywhere; every layer counts alike, or the lowest, which rest on early tokens, would drown the others.
 */
function weights(look, layer) {
  const { heads, stretches, mass } = look;
  const out = new Float32Array(stretches);
  if (layer === undefined) {
    for (let l = 0; l < look.layers; l++) {
      const own = weights(look, l);
      const most = Math.max(...own, 1e-9);
      own.forEach((weight, i) => out[i] += weight / most / look.layers);
    }
    return out;
  }
  for (let head = 0; head < heads; head++) {
    for (let i = 0; i < stretches; i++) out[i] += mass[(layer * heads + head) * stretches + i] ** 2;
  }
  return out.map((sum) => Math.sqrt(sum / heads));
}

/** The server's `looked` with its bytes as shares from 0 to 1. */
export function decodeLook(looked) {
  const bytes = Uint8Array.from(atob(looked.mass), (c) => c.charCodeAt(0));
  return { ...looked, mass: Float32Array.from(bytes, (byte) => (byte / 255) ** 2) };
}

/**
 * The part of `look` that lies within `document`: templates and questions are left out, and with them the first tokens of all,
 * where heads that look for nothing rest.
 */
export function within(look, document) {
  const text = look.texts.join("");
  const at = text.indexOf(document.trim().slice(0, 200));
  const from = at < 0 ? 0 : at;
  const to = at < 0 ? text.length : at + document.trim().length;
  let offset = 0;
  const kept = [];
  look.texts.forEach((piece, i) => {
    if (i > 0 && offset >= from && offset + piece.length <= to) kept.push(i);
    offset += piece.length;
  });
  const mass = new Float32Array(look.layers * look.heads * kept.length);
  for (let row = 0; row < look.layers * look.heads; row++) {
    kept.forEach((i, k) => mass[row * kept.length + k] = look.mass[row * look.stretches + i]);
  }
  return { ...look, stretches: kept.length, mass, texts: kept.map((i) => look.texts[i]) };
}

/** The stretch that was looked at most. */
export function brightest(look) {
  const all = weights(look);
  return all.indexOf(Math.max(...all));
}

/** A figure to put below an answer. Arrow keys or a pointer move over the document; the text there is shown. */
export function lookedFigure(look) {
  const figure = document.createElement("figure");
  figure.className = "looked";
  const canvas = document.createElement("canvas");
  canvas.tabIndex = 0;
  canvas.setAttribute("role", "slider");
  canvas.setAttribute("aria-label", "Where the model looked, from the document's start to its end");
  canvas.setAttribute("aria-valuemin", "0");
  canvas.setAttribute("aria-valuemax", String(look.stretches - 1));
  canvas.width = look.stretches;
  canvas.height = STRIP + 2 + look.layers * ROW;
  canvas.style.height = `${canvas.height}px`;
  const caption = document.createElement("figcaption");
  caption.className = "about";
  caption.textContent = `Where it looked: ${look.stretches} stretches of ${look.stretch_tokens} tokens; ` +
    `above all heads together, below a row for each of ${look.layers} layers`;
  const quote = document.createElement("blockquote");
  let at = brightest(look);
  const show = (i) => {
    at = Math.min(look.stretches - 1, Math.max(0, i));
    draw(canvas, look, at);
    quote.textContent = look.texts[at];
    canvas.setAttribute("aria-valuenow", String(at));
    canvas.setAttribute("aria-valuetext", look.texts[at].slice(0, 200));
  };
  canvas.addEventListener("pointermove", (event) => {
    const box = canvas.getBoundingClientRect();
    show(Math.floor((event.clientX - box.left) / box.width * look.stretches));
  });
  const moves = { ArrowLeft: -1, ArrowRight: 1, PageUp: -10, PageDown: 10, Home: -Infinity, End: Infinity };
  canvas.addEventListener("keydown", (event) => {
    if (!(event.key in moves)) return;
    event.preventDefault();
    show(at + moves[event.key]);
  });
  figure.append(canvas, caption, quote);
  show(at);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => show(at));
  return figure;
}

function draw(canvas, look, cursor) {
  const context = canvas.getContext("2d");
  const image = context.createImageData(canvas.width, canvas.height);
  const dark = matchMedia("(prefers-color-scheme: dark)").matches;
  const ground = dark ? [31, 29, 26] : [255, 255, 255];
  const ink = dark ? [255, 200, 110] : [140, 60, 0];
  const paint = (from, to, values) => {
    const most = Math.max(...values, 1e-9);
    for (let x = 0; x < look.stretches; x++) {
      const share = Math.sqrt(values[x] / most);
      for (let y = from; y < to; y++) {
        const p = 4 * (y * canvas.width + x);
        for (let c = 0; c < 3; c++) image.data[p + c] = ground[c] + share * (ink[c] - ground[c]);
        image.data[p + 3] = 255;
      }
    }
  };
  paint(0, STRIP, weights(look));
  for (let layer = 0; layer < look.layers; layer++) {
    const top = STRIP + 2 + layer * ROW;
    paint(top, top + ROW, weights(look, layer));
  }
  // The cursor is a gap between strip and rows, pointing at what is read out below.
  const p = 4 * (STRIP * canvas.width + cursor);
  for (const row of [0, 1]) image.data.set([...(dark ? [255, 255, 255] : [0, 0, 0]), 255], p + row * 4 * canvas.width);
  context.putImageData(image, 0, 0);
}
