// An answer: its text, its reasoning, the tool calls, and how it ended.

import { make } from "./elements.js";
import { GrowingMarkdown } from "./markdown.js";

const ENDINGS = {
  stopped: "Stopped before the answer was complete.",
  cut: "Cut off: the connection to the model broke.",
  failed: "The answer failed.",
  length: "Cut off: the token limit was reached.",
  paused: "Waiting for your decision.",
};

export class Answer {
  constructor(log, onDraw) {
    this.article = make("article", "lmdeck-assistant");
    this.article.setAttribute("aria-label", "Answer");
    this.onDraw = onDraw;
    this.cards = new Map();
    this.content = "";
    log.append(this.article);
    this.begin();
  }

  get isShown() {
    return this.article.isConnected;
  }

  begin() {
    this.newRound();
    this.ended = undefined;
    this.article.querySelector(".lmdeck-ended")?.remove();
    this.article.classList.add("lmdeck-busy");
    this.started = performance.now();
    this.timer = setInterval(() => this.showWaiting(), 1000);
  }

  // Only a style shows the seconds, so that a screen reader does not read them.
  showWaiting() {
    const seconds = Math.round((performance.now() - this.started) / 1000);
    if (seconds > 1) this.article.dataset.waiting = `${seconds} s`;
  }

  stopWaiting() {
    clearInterval(this.timer);
    delete this.article.dataset.waiting;
  }

  newRound() {
    this.part?.end();
    this.part = null;
    this.reasoning = null;
    this.indices = new Map();
  }

  show(event) {
    this.stopWaiting();
    switch (event.type) {
      case "content": return this.addContent(event.text);
      case "reasoning": return this.addReasoning(event.text);
      case "call": return this.addCall(event);
      case "running": return this.fill(this.card(event.id, event.name), event);
      case "result": return this.addResult(event);
      case "round": return this.newRound();
      case "error": return this.fail(event);
      case "done": return this.showEnding(event.finish_reason);
    }
  }

  showStored({ content, reasoning, calls, ended }) {
    if (reasoning) this.addReasoning(reasoning);
    if (content) this.addContent(content);
    for (const call of calls) this.addResult(call);
    this.newRound();
    this.showEnding(ended);
  }

  addContent(text) {
    this.content += text;
    if (!this.part) {
      const place = make("div", "lmdeck-text");
      this.article.append(place);
      this.part = new GrowingMarkdown(place, this.onDraw);
    }
    this.part.add(text);
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

  fill(card, { arguments: values }) {
    card.querySelector(".lmdeck-arguments").textContent = JSON.stringify(values, null, 1);
  }

  addResult(event) {
    const card = this.card(event.id, event.name);
    this.fill(card, event);
    card.classList.toggle("lmdeck-failed", Boolean(event.failed));
    card.querySelector(".lmdeck-result").textContent = event.content ?? "";
  }

  // Let the visitor decide on calls; `decide` gets all decisions once the last one is made.
  askApproval(ids, decide) {
    const decisions = {};
    for (const id of ids) {
      const question = make("p", "lmdeck-approval", "May this be run?");
      for (const [label, isAllowed] of [["Allow", true], ["Refuse", false]]) {
        const button = make("button", "", label);
        button.type = "button";
        button.addEventListener("click", () => {
          question.remove();
          decisions[id] = isAllowed;
          if (Object.keys(decisions).length === ids.length) decide(decisions);
        });
        question.append(button);
      }
      this.cards.get(id)?.append(question);
    }
    this.showEnding("paused");
  }

  fail({ message, hint, request_id: requestId }) {
    const notice = make("div", "lmdeck-error");
    notice.setAttribute("role", "alert");
    notice.append(make("p", "", message), make("p", "", hint));
    if (requestId && !hint?.includes(requestId)) notice.append(make("p", "lmdeck-request", `Request ${requestId}`));
    this.article.append(notice);
    this.ended = "failed";
  }

  showEnding(ended) {
    if (!ENDINGS[ended] || this.ended === ended) return;
    this.ended = ended;
    this.article.append(make("p", "lmdeck-ended", ENDINGS[ended]));
  }

  end() {
    this.stopWaiting();
    this.part?.end();
    this.article.classList.remove("lmdeck-busy");
  }
}
