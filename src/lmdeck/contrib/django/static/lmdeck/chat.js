// The chat: sends questions, shows answers while they stream, and stops them.

import { GrowingMarkdown } from "./markdown.js";

const ENDINGS = {
  stopped: "Stopped before the answer was complete.",
  cut: "Cut off: the connection to the model broke.",
  failed: "The answer failed.",
  length: "Cut off: the limit of tokens was reached.",
};

async function* events(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    const blocks = (rest + value).split("\n\n");
    rest = blocks.pop();
    for (const block of blocks) {
      const data = block.split("\n").filter((line) => line.startsWith("data: ")).map((line) => line.slice(6));
      if (data.length) yield JSON.parse(data.join("\n"));
    }
  }
}

function make(name, className, text) {
  const made = document.createElement(name);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
}

class Answer {
  constructor(log) {
    this.article = make("article", "lmdeck-assistant lmdeck-busy");
    this.article.setAttribute("aria-label", "Answer");
    this.cards = new Map();
    this.content = "";
    log.append(this.article);
    this.newRound();
  }

  newRound() {
    this.part?.draw();
    this.part = null;
    this.reasoning = null;
    this.indices = new Map();
  }

  show(event) {
    switch (event.type) {
      case "content": return this.addContent(event.text);
      case "reasoning": return this.addReasoning(event.text);
      case "call": return this.addCall(event);
      case "running": return this.fill(this.card(event.id, event.name), event);
      case "result": return this.addResult(event);
      case "round": return this.newRound();
      case "error": return this.fail(event.message, event.hint);
    }
  }

  addContent(text) {
    this.content += text;
    if (!this.part) {
      const place = make("div", "lmdeck-text");
      this.article.append(place);
      this.part = new GrowingMarkdown(place);
    }
    this.part.add(text);
    if (this.isDrawing) return;
    this.isDrawing = true; // at most once per frame, however fast tokens arrive
    requestAnimationFrame(() => this.draw());
  }

  draw() {
    this.isDrawing = false;
    this.part?.draw();
  }

  addReasoning(text) {
    if (!this.reasoning) {
      const details = make("details", "lmdeck-reasoning");
      this.reasoning = make("pre");
      details.append(make("summary", "", "Reasoning"), this.reasoning);
      this.article.append(details);
    }
    this.reasoning.append(text);
  }

  card(id, name) {
    let card = this.cards.get(id);
    if (!card) {
      card = make("details", "lmdeck-call");
      card.open = true;
      card.append(make("summary", "", name), make("pre", "lmdeck-arguments"), make("pre", "lmdeck-result"));
      this.article.append(card);
      this.cards.set(id, card);
    }
    return card;
  }

  addCall({ index, id, name, arguments: fragment }) {
    if (!this.indices.has(index)) this.indices.set(index, this.card(id, name));
    this.indices.get(index).querySelector(".lmdeck-arguments").append(fragment);
  }

  fill(card, { arguments: given }) {
    card.querySelector(".lmdeck-arguments").textContent = JSON.stringify(given, null, 1);
  }

  addResult(event) {
    const card = this.card(event.id, event.name);
    this.fill(card, event);
    card.classList.toggle("lmdeck-failed", Boolean(event.failed));
    card.querySelector(".lmdeck-result").textContent = event.content ?? "";
  }

  fail(message, hint) {
    const said = make("p", "lmdeck-error", hint ? `${message} ${hint}` : message);
    said.setAttribute("role", "alert");
    this.article.append(said);
    this.ended = "failed";
  }

  showEnding(ended) {
    if (ENDINGS[ended]) this.article.append(make("p", "lmdeck-ended", ENDINGS[ended]));
  }

  end() {
    this.draw();
    this.article.classList.remove("lmdeck-busy");
  }
}

class Chat {
  constructor(root) {
    this.root = root;
    this.find = (selector) => root.querySelector(selector);
    this.log = this.find(".lmdeck-log");
    this.field = this.find("textarea");
    this.messages = [];
    this.conversation = new URLSearchParams(location.search).get("conversation");
    this.find("form").addEventListener("submit", (event) => { event.preventDefault(); this.ask(); });
    this.find(".lmdeck-stop").addEventListener("click", () => this.abort?.abort());
    this.find(".lmdeck-new").addEventListener("click", () => this.open(null));
    this.field.addEventListener("keydown", (event) => {
      if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
      event.preventDefault();
      this.find("form").requestSubmit();
    });
    root.addEventListener("keydown", (event) => { if (event.key === "Escape") this.abort?.abort(); });
    this.list();
    if (this.conversation) this.load();
  }

  async ask() {
    const text = this.field.value.trim();
    if (!text || this.abort) return;
    this.field.value = "";
    this.say(text);
    const answer = new Answer(this.log);
    this.working(true);
    try {
      const response = await this.send(text);
      if (response.ok) await this.read(response, answer);
      else {
        const said = await response.json().catch(() => ({}));
        answer.fail(said.error?.message ?? `The site answered ${response.status}.`, said.error?.hint);
      }
    } catch (error) {
      if (error.name === "AbortError") {
        this.status("Stopped.");
        answer.ended = "stopped";
        answer.showEnding("stopped");
      } else answer.fail("The connection to the site broke.", "Ask again.");
    } finally {
      answer.end();
      this.messages.push({ role: "user", content: text });
      const { content, ended = "" } = answer;
      if (content) this.messages.push({ role: "assistant", content, ended });
      this.working(false);
      this.list();
    }
  }

  send(text) {
    const { ask, token } = this.root.dataset;
    const body = this.conversation ? { text, conversation: this.conversation } : { text, messages: this.messages };
    const headers = { "Content-Type": "application/json", "X-CSRFToken": token };
    return fetch(ask, { method: "POST", headers, body: JSON.stringify(body), signal: this.abort.signal });
  }

  async read(response, answer) {
    const conversation = response.headers.get("X-Conversation");
    if (conversation) this.remember(conversation);
    for await (const event of events(response.body)) {
      const isAtEnd = this.log.scrollHeight - this.log.scrollTop - this.log.clientHeight < 60;
      answer.show(event);
      if (event.type === "done") {
        this.status(this.figures(event));
        answer.showEnding(event.finish_reason);
      }
      if (isAtEnd) this.log.scrollTop = this.log.scrollHeight;
    }
  }

  figures({ model, usage, tokens_per_second: speed }) {
    const parts = [model, usage && `${usage.total_tokens} tokens`, speed && `${speed.toFixed(1)} tokens/s`];
    return parts.filter(Boolean).join(" · ");
  }

  say(text) {
    const said = make("article", "lmdeck-user", text);
    said.setAttribute("aria-label", "You");
    this.log.append(said);
    this.log.scrollTop = this.log.scrollHeight;
  }

  working(isWorking) {
    this.abort = isWorking ? new AbortController() : null;
    this.find(".lmdeck-stop").hidden = !isWorking;
    this.find(".lmdeck-send").hidden = isWorking;
    this.log.setAttribute("aria-busy", String(isWorking));
    if (isWorking) this.status("");
    else this.field.focus();
  }

  status(text) {
    this.find(".lmdeck-status").textContent = text;
  }

  remember(conversation) {
    this.conversation = conversation;
    const address = new URL(location.href);
    if (conversation) address.searchParams.set("conversation", conversation);
    else address.searchParams.delete("conversation");
    history.replaceState(null, "", address);
  }

  open(conversation) {
    this.abort?.abort();
    this.log.replaceChildren();
    this.messages = [];
    this.remember(conversation);
    if (conversation) this.load();
    this.list();
    this.field.focus();
  }

  async load() {
    const wanted = this.conversation;
    const response = await fetch(`${this.root.dataset.conversations}${encodeURIComponent(wanted)}/`);
    if (this.conversation !== wanted) return;
    if (!response.ok) return this.remember(null);
    for (const message of (await response.json()).messages) {
      if (message.role === "user") this.say(message.content);
      else this.showKept(message);
    }
    this.log.scrollTop = this.log.scrollHeight;
  }

  showKept({ content, reasoning, calls, ended }) {
    const answer = new Answer(this.log);
    if (reasoning) answer.addReasoning(reasoning);
    if (content) answer.addContent(content);
    for (const call of calls) answer.addResult(call);
    answer.end();
    answer.showEnding(ended);
  }

  async list() {
    const response = await fetch(this.root.dataset.conversations).catch(() => null);
    const rows = response?.ok ? (await response.json()).conversations : [];
    this.find("nav ul").replaceChildren(...rows.map(({ id, title }) => {
      const button = make("button", "", title);
      button.type = "button";
      if (id === this.conversation) button.setAttribute("aria-current", "true");
      button.addEventListener("click", () => this.open(id));
      const item = make("li");
      item.append(button);
      return item;
    }));
  }
}

for (const root of document.querySelectorAll(".lmdeck-chat")) new Chat(root);
