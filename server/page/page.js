/**
 * The page: talks to the server that it came from.
 *
 * @module
 */
import { brightest, decodeLook, lookedFigure, within } from "./looked.js";

const $ = (id) => document.getElementById(id);
/** Turns so far, without the document. */
const messages = [];
/** The context of the document, while there is one. */
let context;
let documentText = "";
let running;

function headers() {
  const key = $("key").value;
  return { "content-type": "application/json", ...(key === "" ? {} : { authorization: `Bearer ${key}` }) };
}

async function ask(path, body, signal) {
  const response = await fetch(path, { method: "POST", headers: headers(), body: JSON.stringify(body), signal });
  if (response.ok) return response;
  const { error } = await response.json().catch(() => ({
    error: { message: `The server answered ${response.status}` },
  }));
  throw new Error(error.message);
}

/** The JSON values of an event stream. */
async function* eventsOf(response) {
  let held = "";
  for await (const piece of readText(response.body)) {
    held += piece;
    const blocks = held.split("\n\n");
    held = blocks.pop();
    for (const block of blocks) {
      if (!block.startsWith("data: ") || block === "data: [DONE]") continue;
      const value = JSON.parse(block.slice(6));
      if (value.error) throw new Error(value.error.message);
      yield value;
    }
  }
}

/** Not every browser can iterate over a stream. */
async function* readText(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  for (let next = await reader.read(); !next.done; next = await reader.read()) yield next.value;
}

function addTurn(role, text) {
  const item = document.createElement("li");
  item.className = role;
  const said = document.createElement("div");
  said.className = "said";
  said.textContent = text;
  item.append(said);
  $("log").append(item);
  item.scrollIntoView({ block: "end" });
  return { item, said };
}

function knobs() {
  const mode = $("mode").value;
  const error = Number($("error").value) / 100;
  return {
    mode,
    ...(mode === "exact" || (mode === "auto" && $("error").dataset.touched !== "yes") ? {} : { error }),
    look: 160,
    ...(context === undefined ? {} : { context }),
  };
}

async function answer(question) {
  messages.push({ role: "user", content: question });
  addTurn("user", question);
  const { item, said } = addTurn("assistant", "");
  running = new AbortController();
  setRunning(true);
  let text = "";
  let drawn = 0;
  let firstMs = 0;
  try {
    const response = await ask("/v1/chat/completions", {
      messages,
      stream: true,
      return_progress: true,
      stream_options: { include_usage: true },
      temperature: Number($("temperature").value),
      max_tokens: Number($("most").value),
      kvasir: knobs(),
    }, running.signal);
    for await (const event of eventsOf(response)) {
      if (event.prompt_progress && text === "") {
        const { processed, total } = event.prompt_progress;
        said.textContent = processed < total ? `Reading ${processed} of ${total} tokens…` : "";
      }
      const piece = event.choices[0]?.delta?.content ?? "";
      if (piece !== "") {
        if (drawn++ === 0) firstMs = performance.now();
        text += piece;
        said.textContent = text;
        if (drawn > 2) $("rate").textContent = ((drawn - 1) / (performance.now() - firstMs) * 1000).toFixed(1);
        item.scrollIntoView({ block: "end" });
      }
      if (event.kvasir) finish(item, event);
    }
    messages.push({ role: "assistant", content: text });
  } catch (error) {
    if (running.signal.aborted) {
      messages.push({ role: "assistant", content: text });
    } else {
      messages.pop();
      item.className = "failed";
      said.textContent = error.message;
    }
  } finally {
    setRunning(false);
  }
}

function finish(item, { kvasir, timings, usage }) {
  const { keys, bytes, estimate } = kvasir;
  const percent = (x) => `${(100 * x).toFixed(x < 0.1 ? 1 : 0)} %`;
  $("rate").textContent = timings.predicted_per_second.toFixed(1);
  $("keys").textContent = percent(keys.fraction);
  $("bytes").textContent = size(bytes.host);
  const about = document.createElement("p");
  about.className = "about";
  const seen = kvasir.sampled ?? (estimate === null ? undefined : { error: estimate.output_error });
  about.textContent = [
    `${usage.prompt_tokens} tokens read, ${usage.prompt_tokens_details.cached_tokens} of them before`,
    `${usage.completion_tokens} drawn`,
    `${Math.round(keys.attended)} of ${Math.round(keys.total)} keys attended`,
    ...(seen === undefined ? [] : [`error ${percent(seen.error)}`]),
    brief(kvasir.policy),
  ].join(" · ");
  about.title = kvasir.policy;
  item.append(about);
  if (!kvasir.looked || kvasir.looked.stretches < 2) return;
  const look = within(decodeLook(kvasir.looked), documentText);
  if (look.stretches < 2) return;
  item.dataset.brightest = look.texts[brightest(look)];
  item.append(lookedFigure(look));
  item.scrollIntoView({ block: "end" });
}

function size(bytes) {
  const units = ["B", "KiB", "MiB", "GiB"];
  let unit = 0;
  for (; bytes >= 1024 && unit < 3; unit++) bytes /= 1024;
  return `${bytes.toFixed(unit === 0 ? 0 : 1)} ${units[unit]}`;
}

function setRunning(is) {
  $("send").hidden = is;
  $("stop").hidden = !is;
  if (!is) $("input").focus();
}

/** Reads a document into a context. */
async function readDocument(file) {
  const progress = $("progress");
  progress.hidden = false;
  progress.removeAttribute("value");
  $("document").textContent = `Reading ${file.name}…`;
  try {
    const text = await file.text();
    const content = `Here is a document.\n\n${text}`;
    const name = `page-${crypto.randomUUID().slice(0, 8)}`;
    const response = await ask("/v1/contexts", {
      name,
      messages: [{ role: "user", content }],
      metadata: { file: file.name.slice(0, 100) },
      ttl_seconds: 86_400,
      stream: true,
    });
    for await (const event of eventsOf(response)) {
      if (event.progress) progress.value = event.progress.processed / Math.max(1, event.progress.total);
      if (event.object === "context") {
        context = name;
        documentText = text;
        $("document").textContent = `${file.name}: ${event.tokens} tokens`;
      }
    }
    messages.length = 0;
    $("log").replaceChildren();
    $("forget").hidden = false;
  } catch (error) {
    $("document").textContent = error.message;
  } finally {
    progress.hidden = true;
  }
}

$("form").addEventListener("submit", (event) => {
  event.preventDefault();
  const question = $("input").value.trim();
  if (question === "" || !$("stop").hidden) return;
  $("input").value = "";
  void answer(question);
});
$("input").addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  $("form").requestSubmit();
});
$("stop").addEventListener("click", () => running?.abort());
$("file").addEventListener("change", () => {
  const [file] = $("file").files;
  if (file) void readDocument(file);
});
$("forget").addEventListener("click", () => {
  context = undefined;
  documentText = "";
  messages.length = 0;
  $("document").textContent = "";
  $("file").value = "";
  $("forget").hidden = true;
  $("log").replaceChildren();
});
for (const type of ["dragover", "dragleave", "drop"]) {
  $("drop").addEventListener(type, (event) => {
    event.preventDefault();
    $("drop").classList.toggle("over", type === "dragover");
    const file = type === "drop" ? event.dataTransfer.files[0] : undefined;
    if (file) void readDocument(file);
  });
}
$("error").addEventListener("input", () => {
  $("error").dataset.touched = "yes";
  $("error-value").textContent = `${$("error").value} %`;
});
$("temperature").addEventListener("input", () => $("temperature-value").textContent = $("temperature").value);
if (matchMedia("(max-width: 45rem)").matches) $("settings").open = false;

async function showModel() {
  const response = await fetch("/v1/models", { headers: headers() });
  const body = await response.json();
  const [model] = body.data ?? [];
  const policy = model?.meta.policy || "full";
  $("model").textContent = model
    ? `${model.id}, ${model.max_model_len} tokens, ${brief(policy)}`
    : "The server wants an API key";
  $("model").title = model ? policy : "";
}

/** `retrieval, error 0.05`: a policy's name and goal, of a spec with all its parameters. */
function brief(policy) {
  const [, goal, value] = /[:,](error|budget)=(?!0(?:,|$))([^,]+)/.exec(policy) ?? [];
  const [name] = policy.split(":");
  return goal === undefined ? name : `${name}, ${goal} ${value}`;
}
$("key").addEventListener("change", () => void showModel());
void showModel();
$("input").focus();
