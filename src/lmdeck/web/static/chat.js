// The chat: sends questions, shows answers while they stream, stops, repeats and edits them, and remembers the conversation.

import { Answer } from "./answer.js";
import { Composer } from "./composer.js";
import { copyButton, icon, iconButton, make } from "./elements.js";
import { Sidebar } from "./sidebar.js";
import { Site, events } from "./site.js";

const NEAR_END = 60; // pixels
const MOST_IMAGE_CHARACTERS = 1_500_000; // of the images before a question, together
const STATES = {
  ready: (model) => `${model} is ready.`,
  idle: (model) => `${model} will be loaded with your first question.`,
};

class Chat {
  constructor(root) {
    this.root = root;
    this.find = (selector) => root.querySelector(selector);
    this.log = this.find(".lmdeck-log");
    this.site = new Site(root.dataset);
    this.questions = []; // { text, images, isStored, article }
    this.messages = []; // for a site that does not store the conversation
    this.conversation = new URLSearchParams(location.search).get("conversation");
    this.composer = new Composer(root, {
      onSend: () => this.send(),
      onStop: () => this.abort?.abort(),
      onNotice: (text) => this.status(text),
      onEditLast: () => this.edit(this.questions.at(-1)),
    });
    this.sidebar = new Sidebar(root, {
      onOpen: (id) => this.open(id),
      onRename: (id, title) => this.change(() => this.site.rename(id, title)),
      onRemove: (id) => this.remove(id),
    });
    this.listen(root);
    this.list();
    this.showState();
    this.showStart();
    if (this.conversation) this.load();
  }

  listen(root) {
    const toEnd = this.find(".lmdeck-to-end");
    toEnd.append(icon("end"));
    toEnd.addEventListener("click", () => this.scrollToEnd());
    this.log.addEventListener("scroll", () => this.noteScroll(), { passive: true });
    this.root.addEventListener("keydown", (event) => { if (event.key === "Escape") this.abort?.abort(); });
    for (const button of root.querySelectorAll(".lmdeck-examples button")) {
      button.addEventListener("click", () => this.ask({ text: button.textContent, images: [] }));
    }
  }

  send() {
    const { question, editing } = this.composer;
    if (!question.text || this.abort) return;
    this.composer.clear();
    if (editing) this.forget(editing);
    this.ask(question, editing);
  }

  // Ask a question; `replaced` is the question that it replaces.
  async ask(question, replaced = null) {
    if (this.abort) return;
    const asked = this.showQuestion(question);
    const body = this.body(question, replaced);
    const answer = new Answer(this.log, () => this.follow());
    await this.run(body, answer, asked);
    if (answer.isShown) this.note(question, answer);
  }

  // Resume a run after the visitor has decided on its calls.
  async decide(run, decisions, answer) {
    if (this.abort) return;
    this.log.lastChild.remove(); // the actions of the answer
    answer.begin();
    await this.run({ conversation: this.conversation, run, decisions }, answer, this.questions.at(-1));
  }

  async run(body, answer, asked) {
    this.work(true);
    try {
      const response = await this.site.ask(body, this.abort.signal);
      asked.isStored = true;
      await this.read(response, answer);
    } catch (error) {
      if (error.name === "AbortError") this.stopped(asked, answer);
      else answer.fail({ message: error.message, hint: error.hint, request_id: error.requestId });
    } finally {
      this.finish(answer);
    }
  }

  body({ text, images }, replaced) {
    if (!this.conversation) return { text, images, messages: withNewestImages(this.messages) };
    const index = replaced?.isStored ? this.questions.filter((one) => one.isStored).length : null;
    const place = index === null ? {} : { replaces: index };
    return { text, images, conversation: this.conversation, ...place };
  }

  stopped(asked, answer) {
    asked.isStored = true;
    if (answer.isShown) this.status("Stopped.");
    answer.showEnding("stopped");
  }

  async read(response, answer) {
    const conversation = response.headers.get("X-Conversation");
    if (conversation) this.remember(conversation);
    let isComplete = false;
    try {
      for await (const event of events(response.body)) {
        answer.show(event);
        if (event.type === "approval") this.askApproval(event.run, event.calls.map(({ id }) => id), answer);
        isComplete ||= event.type === "done" || event.type === "error";
        if (event.type === "done") this.status(figures(event));
        this.follow();
      }
    } catch (error) {
      if (error.name === "AbortError") throw error;
    }
    if (!isComplete) answer.fail({ message: "The connection to the site broke.", hint: "Try again." });
  }

  askApproval(run, ids, answer) {
    answer.askApproval(ids, (decisions) => this.decide(run, decisions, answer));
  }

  finish(answer) {
    answer.end();
    if (answer.isShown) this.addActions(answer); // otherwise another conversation has been opened
    this.work(false);
    this.list();
    if (answer.ended === "failed") this.showState();
  }

  // Remember a turn, for a site that does not store it.
  note({ text, images }, { content, ended = "" }) {
    this.messages.push({ role: "user", content: text, images });
    if (content) this.messages.push({ role: "assistant", content, ended: ended === "length" ? "" : ended });
  }

  // Show a question; it is stored once the site has accepted it.
  showQuestion({ text, images }) {
    const article = make("article", "lmdeck-user");
    article.setAttribute("aria-label", "You");
    for (const source of images) {
      const shown = make("img");
      shown.src = source;
      shown.alt = "Attached image";
      article.append(shown);
    }
    article.append(make("div", "lmdeck-said", text));
    const asked = { text, images, article, isStored: false, at: this.messages.length };
    this.questions.push(asked);
    const actions = make("div", "lmdeck-actions lmdeck-of-user");
    actions.append(
      iconButton("edit", "Edit", () => this.edit(asked)),
      copyButton("Copy question", () => text),
    );
    this.log.append(article, actions);
    this.showStart();
    this.scrollToEnd();
    return asked;
  }

  addActions(answer) {
    const asked = this.questions.at(-1);
    const actions = make("div", "lmdeck-actions");
    if (answer.content) actions.append(copyButton("Copy answer", () => answer.content));
    if (asked) actions.append(iconButton("retry", "Try again", () => this.retry(asked)));
    this.log.append(actions);
    this.follow();
  }

  edit(asked) {
    if (asked && !this.abort) this.composer.fill(asked, asked);
  }

  retry(asked) {
    if (this.abort) return;
    this.forget(asked);
    this.ask(asked, asked);
  }

  // Remove a question and everything after it.
  forget(asked) {
    this.questions.length = this.questions.indexOf(asked);
    this.messages.length = asked.at;
    while (this.log.lastChild !== asked.article) this.log.lastChild.remove();
    asked.article.remove();
  }

  work(isWorking) {
    this.abort = isWorking ? new AbortController() : null;
    this.log.setAttribute("aria-busy", String(isWorking));
    this.root.classList.toggle("lmdeck-working", isWorking);
    if (isWorking) this.status("");
    this.composer.work(isWorking);
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
    this.questions = [];
    this.messages = [];
    this.composer.clear();
    this.status("");
    this.remember(conversation);
    if (conversation) this.load();
    this.list();
    this.showStart();
  }

  async load() {
    const wanted = this.conversation;
    let messages;
    let paused;
    try {
      ({ messages, paused } = await this.site.conversation(wanted));
    } catch (error) {
      if (this.conversation === wanted) this.remember(null);
      return this.status(`${error.message} ${error.hint}`);
    }
    if (this.conversation !== wanted) return;
    let answer = null;
    const close = () => {
      answer?.end();
      if (answer) this.addActions(answer);
      answer = null;
    };
    for (const message of messages) {
      if (message.role === "user") {
        close();
        this.showQuestion({ text: message.content, images: message.images ?? [] }).isStored = true;
      } else (answer ??= new Answer(this.log, () => this.follow())).showStored(message);
    }
    if (paused && answer) this.askApproval(paused.run, paused.calls, answer);
    close();
    this.scrollToEnd();
  }

  async list() {
    const rows = await this.site.conversations().catch(() => null);
    if (rows) this.sidebar.list(rows, this.conversation);
  }

  async remove(id) {
    await this.change(() => this.site.remove(id));
    if (id === this.conversation) this.open(null);
  }

  async change(action) {
    try {
      await action();
    } catch (error) {
      this.status(`${error.message} ${error.hint}`);
    }
    await this.list();
  }

  async showState() {
    const found = await this.site.state().catch((error) => ({ state: "unavailable", message: error.message, hint: error.hint }));
    const { state, model, images, message, hint } = found;
    this.root.dataset.server = state;
    this.find(".lmdeck-model").textContent = model ?? "not available";
    this.find(".lmdeck-state").textContent = STATES[state]?.(model) ?? `${message} ${hint}`;
    this.composer.acceptImages(images !== false);
  }

  showStart() {
    this.root.classList.toggle("lmdeck-empty", !this.log.hasChildNodes() && !this.conversation);
  }

  noteScroll() {
    const distance = this.log.scrollHeight - this.log.scrollTop - this.log.clientHeight;
    const isUp = this.log.scrollTop < (this.lastTop ?? 0);
    this.lastTop = this.log.scrollTop;
    if (distance < NEAR_END) this.isFollowing = true;
    else if (isUp) this.isFollowing = false;
    this.find(".lmdeck-to-end").hidden = distance < NEAR_END;
  }

  follow() {
    if (this.isFollowing) this.log.scrollTop = this.log.scrollHeight;
  }

  scrollToEnd() {
    this.isFollowing = true;
    this.follow();
  }
}

// A site that stores nothing gets all messages with each question: of their images, only the newest.
function withNewestImages(messages) {
  let rest = MOST_IMAGE_CHARACTERS;
  return messages.toReversed().map((message) => {
    rest -= (message.images ?? []).join("").length;
    return rest < 0 ? { ...message, images: [] } : message;
  }).reverse();
}

function figures({ model, usage, tokens_per_second: speed }) {
  const parts = [model, usage && `${usage.completion_tokens} tokens`, speed && `${speed.toFixed(speed < 100 ? 1 : 0)} tokens/s`];
  return parts.filter(Boolean).join(" · ");
}

for (const root of document.querySelectorAll(".lmdeck-chat")) new Chat(root);
