"use strict";

// The page of `llm-sse serve`. Model text goes into the page as text only: the site's policy
// (Trusted Types) allows nothing else.

const $ = (id) => document.getElementById(id);
const SVG = "http://www.w3.org/2000/svg";
const WIDTH = 800;
const HEIGHT = 140;
const MOST_BARS = 400;
// The pauses before the connection is tried again; the last one repeats.
const RECONNECT_MS = [250, 500, 1000, 2000];
// How long the headers of an answer may take that has to begin; the site gives up after 10 s.
const HEADERS_MS = 15000;
const TOKEN = "llm-sse-token";
const THEME = "llm-sse-theme";

// --- dark mode ---

const prefersDark = matchMedia("(prefers-color-scheme: dark)");

function showTheme() {
  const chosen = localStorage.getItem(THEME);
  const dark = chosen ? chosen === "dark" : prefersDark.matches;
  document.documentElement.dataset.theme = dark ? "dark" : "light";
  $("theme").setAttribute("aria-pressed", String(dark));
}

$("theme").addEventListener("click", () => {
  const dark = document.documentElement.dataset.theme === "dark";
  localStorage.setItem(THEME, dark ? "light" : "dark");
  showTheme();
});
prefersDark.addEventListener("change", showTheme);
showTheme();

// --- the token: from the address's fragment, which no server sees, or from the form ---

function takeFragment() {
  const given = new URLSearchParams(location.hash.slice(1)).get("token");
  if (!given) return;
  sessionStorage.setItem(TOKEN, given);
  history.replaceState(null, "", location.pathname);
}
takeFragment();

function headers() {
  const token = sessionStorage.getItem(TOKEN);
  return token ? { Authorization: `Bearer ${token}` } : {};
}

function showLogin(wrong) {
  sessionStorage.removeItem(TOKEN);
  $("login").hidden = false;
  $("ask").hidden = true;
  if (wrong) show("The token is wrong.", false);
  $("token").focus();
}

$("login").addEventListener("submit", (event) => {
  event.preventDefault();
  sessionStorage.setItem(TOKEN, $("token").value.trim());
  $("token").value = "";
  start();
});

// --- what can be asked ---

let providers = [];
let site = { heartbeat_s: 2, grace_s: 15 };
let running = null;

async function start() {
  const hadToken = sessionStorage.getItem(TOKEN) !== null;
  let response;
  try {
    response = await fetch("api/providers", { headers: headers() });
  } catch {
    show("The site cannot be reached.", false);
    return;
  }
  if (response.status === 401) return showLogin(hadToken);
  if (!response.ok) return show("The site does not answer as it should.", false);
  site = await response.json();
  providers = site.providers;
  $("login").hidden = true;
  $("ask").hidden = false;
  $("trouble").hidden = true;
  $("fake").hidden = !site.fake;
  $("who").textContent = `v${site.version}`;
  $("who").hidden = false;
  $("provider").replaceChildren(...providers.map(({ name }) => new Option(name, name)));
  showModels();
  $("prompt").focus();
  document.body.dataset.state = "ready";
}

function showModels() {
  const chosen = providers.find(({ name }) => name === $("provider").value);
  $("model").value = "";
  $("model").placeholder = chosen ? chosen.model : "";
  $("models").replaceChildren(...(chosen ? [new Option(chosen.model, chosen.model)] : []));
}
$("provider").addEventListener("change", showModels);

// --- server-sent events from a fetch ---

// `cursor.id` is the id of the last event that came whole; `heard` is told of every sign of life.
async function* events(body, cursor, heard) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  let name = "";
  let data = [];
  let id = cursor.id;
  try {
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      heard();
      const lines = (rest + value).split("\n");
      rest = lines.pop();
      for (const line of lines) {
        if (line === "") {
          cursor.id = id;
          if (data.length) yield { name, data: data.join("\n") };
          name = "";
          data = [];
        } else if (line.startsWith("data:")) {
          data.push(line.slice(5).replace(/^ /, ""));
        } else if (line.startsWith("event:")) {
          name = line.slice(6).trim();
        } else if (line.startsWith("id:")) {
          id = line.slice(3).trim();
        }
      }
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}

// --- the pace ---

class Pace {
  constructor() {
    this.began = performance.now();
    this.last = this.began;
    this.waits = [];
    this.first = null;
    this.outputTokens = null;
    this.drawn = false;
  }

  token() {
    const now = performance.now();
    if (this.first === null) this.first = now;
    this.waits.push(now - this.last);
    this.last = now;
    if (!this.drawn) {
      this.drawn = true;
      requestAnimationFrame(() => {
        this.drawn = false;
        this.show();
        followEnd();
      });
    }
  }

  show() {
    const count = this.waits.length;
    const spread = (this.last - this.first) / 1000;
    $("ttft").textContent = this.first === null ? "–" : `${Math.round(this.first - this.began)} ms`;
    // A provider may send several tokens in a chunk, and count those that it only thinks.
    $("count").textContent = count || "–";
    $("tokens").textContent = this.outputTokens ?? "–";
    $("rate").textContent = count > 1 && spread > 0 ? ((count - 1) / spread).toFixed(1) : "–";
    $("total").textContent = `${((this.last - this.began) / 1000).toFixed(1)} s`;
    this.plot();
  }

  plot() {
    const waits = this.waits.slice(-MOST_BARS);
    // The first wait is the model's thinking; the scale is that of the others.
    const later = this.waits.length > 1 ? this.waits.slice(1) : waits;
    const sorted = [...later].sort((a, b) => a - b);
    const middle = sorted[Math.floor(sorted.length / 2)] ?? 0;
    const top = Math.max(10, (sorted[sorted.length - 1] ?? 0) * 1.1);
    const step = WIDTH / Math.max(40, waits.length);
    const bars = waits.map((wait, index) => {
      const height = Math.max(2, (Math.min(wait, top) / top) * HEIGHT);
      const first = index === 0 && waits.length === this.waits.length;
      return shape("rect", {
        x: index * step,
        y: HEIGHT - height,
        width: Math.max(1, step * 0.7),
        height,
        rx: Math.min(2, step * 0.3),
        class: first ? "first" : "",
      });
    });
    const level = HEIGHT - (middle / top) * HEIGHT;
    const line = shape("line", { x1: 0, x2: WIDTH, y1: level, y2: level });
    const title = $("plot-title");
    const worst = sorted[sorted.length - 1] ?? 0;
    title.textContent =
      `${this.waits.length} chunks; half of them within ${middle.toFixed(0)} ms ` +
      `of the one before, the last after ${worst.toFixed(0)} ms at most`;
    $("plot").replaceChildren(title, line, ...bars);
    $("scale").textContent = `median ${middle.toFixed(0)} ms, longest ${worst.toFixed(0)} ms`;
  }
}

function shape(name, attributes) {
  const element = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  return element;
}

// --- the answer is followed to its end, until the reader looks back ---

let following = true;
let seenTop = 0;

function followEnd() {
  if (following) $("answer").scrollTop = $("answer").scrollHeight;
}

$("answer").addEventListener("scroll", () => {
  const { scrollHeight, scrollTop, clientHeight } = $("answer");
  if (scrollTop < seenTop) following = false; // not our own doing: that goes down only
  if (scrollHeight - scrollTop - clientHeight < 8) following = true;
  seenTop = scrollTop;
});

// --- a screen reader hears whole sentences, not tokens ---

// How long a sentence stays: once it was heard, the answer should not be there a second time.
let spokenMs = 10000;

class Voice {
  constructor() {
    this.pending = "";
    $("spoken").replaceChildren();
  }

  add(text) {
    this.pending += text;
    const end = Math.max(...[". ", "! ", "? ", "\n"].map((mark) => this.pending.lastIndexOf(mark)));
    if (end >= 0) this.say(end + 1);
  }

  say(length = this.pending.length) {
    const sentence = this.pending.slice(0, length).trim();
    this.pending = this.pending.slice(length);
    if (!sentence) return;
    const line = document.createElement("p");
    line.textContent = sentence;
    $("spoken").append(line);
    setTimeout(() => line.remove(), spokenMs);
  }
}

// --- asking ---

function state(name, text) {
  document.body.dataset.state = name;
  $("status").textContent = text;
  const busy = name === "waiting" || name === "streaming" || name === "reconnecting";
  // A button that is disabled would lose the focus.
  $("send").setAttribute("aria-disabled", String(busy));
  $("stop").setAttribute("aria-disabled", String(!busy));
  $("answer").setAttribute("aria-busy", String(busy));
}

function show(problem, retryable = true) {
  $("what").textContent = problem;
  $("again").hidden = !retryable;
  $("trouble").hidden = false;
}

const LOST =
  "The rest of the answer is lost: the connection broke off, and the site does not keep it any longer.";

class Trouble extends Error {
  constructor(detail, retryable, { retryAfterS, status } = {}) {
    super(detail);
    this.retryable = retryable;
    this.retryAfterS = retryAfterS;
    this.status = status;
  }
}

async function problemOf(response) {
  try {
    const problem = await response.json();
    if (problem.code === "gone") return new Trouble(LOST, true);
    const known = { retryAfterS: problem.retry_after_s, status: response.status };
    return new Trouble(problem.detail, problem.retryable === true, known);
  } catch {
    const known = { status: response.status };
    return new Trouble(`The site answered with status ${response.status}.`, true, known);
  }
}

function rest(ms, signal) {
  return new Promise((resolve, reject) => {
    if (signal.aborted) return reject(signal.reason);
    const done = () => {
      signal.removeEventListener("abort", stopped);
      resolve();
    };
    const timer = setTimeout(done, ms);
    const stopped = () => {
      clearTimeout(timer);
      reject(signal.reason);
    };
    signal.addEventListener("abort", stopped, { once: true });
  });
}

// Aborts `controller` when nothing is heard for a while: a network that has gone says nothing.
class Watchdog {
  constructor(controller) {
    this.controller = controller;
  }

  wait(ms) {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.controller.abort(), ms);
  }

  heard() {
    this.wait(4000 * site.heartbeat_s);
  }

  end() {
    clearTimeout(this.timer);
  }
}

// One connection: the answer from where `cursor` stands, as far as it comes.
async function read(question, cursor, signal, { connected, take }) {
  const controller = new AbortController();
  const stopped = () => controller.abort();
  signal.addEventListener("abort", stopped);
  const watchdog = new Watchdog(controller);
  if (cursor.id) watchdog.heard();
  else watchdog.wait(HEADERS_MS);
  try {
    const response = await fetch("stream", {
      method: "POST",
      cache: "no-store", // this, and what is accepted, is what the site knows an EventSource by
      headers: {
        "Accept": "text/event-stream",
        "Content-Type": "application/json",
        ...(cursor.id && { "Last-Event-ID": cursor.id }),
        ...headers(),
      },
      body: JSON.stringify(question),
      signal: controller.signal,
    });
    watchdog.heard();
    if (response.status === 401) {
      showLogin(true);
      throw new Trouble("The token is wrong.", false);
    }
    if (!response.ok) throw await problemOf(response);
    connected();
    for await (const event of events(response.body, cursor, () => watchdog.heard())) {
      if (event.data === "[DONE]") return true;
      take(event);
    }
    return response.status === 204; // everything had come
  } catch (error) {
    // What is no trouble of ours is the browser's: the network.
    if (signal.aborted || error instanceof Trouble) throw error;
    return false;
  } finally {
    watchdog.end();
    signal.removeEventListener("abort", stopped);
  }
}

// The whole answer, over as many connections as it takes. The question has a name, so that it is
// not asked twice: the site goes on with the answer, as long as it keeps it. One that a site's end
// took away before anything of its answer came is asked anew: there is no other way to an answer.
async function readAll(question, signal, { connected, take, broken }) {
  const cursor = { id: "" };
  let attempt = 0;
  let since = 0;
  const told = {
    connected,
    take(event) {
      attempt = 0;
      try {
        take(event);
      } catch (error) {
        if (error instanceof Trouble) throw error;
        throw new Trouble("The page does not understand what the site sends.", false);
      }
    },
  };
  while (!(await read(question, cursor, signal, told).catch(wait))) {
    if (attempt === 0) since = performance.now();
    if (performance.now() - since > 1000 * site.grace_s) {
      throw new Trouble("The connection broke off, and the site cannot be reached.", true);
    }
    broken();
    await rest(RECONNECT_MS[Math.min(attempt, RECONNECT_MS.length - 1)], signal);
    attempt += 1;
  }

  // A site that is busy, or goes down, while an answer is fetched again may soon be back.
  function wait(error) {
    if (attempt > 0 && cursor.id && error instanceof Trouble && error.status >= 429) return false;
    throw error;
  }
}

function newName() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

// The site goes on with an answer whose reader has gone, for a while; so it is told.
function stop() {
  if (!running) return;
  const { controller, name } = running;
  controller.abort();
  fetch("stop", {
    method: "POST",
    headers: { "Content-Type": "application/json", ...headers() },
    body: JSON.stringify({ name }),
    keepalive: true,
  }).catch(() => {});
}

function showEvent({ name, data }, pace, voice) {
  const event = JSON.parse(data);
  if (name === "error") throw new Trouble(event.detail, event.retryable);
  if (name === "text_delta" || name === "refusal_delta") {
    if (pace.first === null) state("streaming", "Answering");
    $("answer").append(event.text);
    pace.token();
    voice.add(event.text);
  } else if (name === "reasoning_delta" && event.text) {
    $("thinking").hidden = false;
    $("reasoning").append(event.text);
    $("status").textContent = "Thinking";
  } else if (name === "retrying") {
    $("status").textContent = "Trying again";
  } else if (name === "usage") {
    pace.outputTokens = event.output_tokens ?? null;
  } else if (name === "finish" && event.reason === "length") {
    show("The answer was cut off at its greatest length.", false);
  }
}

async function ask() {
  const prompt = $("prompt").value;
  if (!prompt.trim() || running) return;
  const controller = new AbortController();
  const name = newName();
  running = { controller, name };
  if (document.activeElement === $("again")) $("stop").focus(); // it is about to be hidden
  following = true;
  seenTop = 0;
  $("answer").replaceChildren();
  $("reasoning").replaceChildren();
  $("thinking").hidden = true;
  $("trouble").hidden = true;
  for (const id of ["ttft", "rate", "count", "tokens", "total"]) $(id).textContent = "–";
  const pace = new Pace();
  const voice = new Voice();
  const wait = () => state("waiting", "Waiting for the first token");
  const goOn = () => {
    if (pace.first !== null) state("streaming", "Answering");
    else wait();
  };
  wait();
  const question = { prompt, provider: $("provider").value, format: "events", name };
  if ($("model").value.trim()) question.model = $("model").value.trim();
  const told = {
    connected: () => document.body.dataset.state === "reconnecting" && goOn(),
    take: (event) => showEvent(event, pace, voice),
    broken: () => state("reconnecting", "Connection lost: reconnecting"),
  };
  try {
    await readAll(question, controller.signal, told);
    state("done", "Complete");
  } catch (error) {
    if (controller.signal.aborted) {
      state("stopped", "Stopped");
    } else {
      state("failed", "Failed");
      const known = error instanceof Trouble;
      const wait = known && error.retryAfterS ? ` Try again in ${error.retryAfterS} s.` : "";
      show(known ? error.message + wait : "The page has failed.", !known || error.retryable);
    }
  } finally {
    running = null;
    if (pace.first !== null) pace.show();
    followEnd();
    voice.say();
  }
}

$("ask").addEventListener("submit", (event) => {
  event.preventDefault();
  ask();
});
$("again").addEventListener("click", ask);
$("stop").addEventListener("click", stop);
addEventListener("pagehide", stop);
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") stop();
  else if (event.key === "Enter" && (event.ctrlKey || event.metaKey) && !$("ask").hidden) {
    event.preventDefault();
    $("ask").requestSubmit();
  }
});

start();
