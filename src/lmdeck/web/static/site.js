// The site's routes: questions, conversations and the state of the model.

export class SiteError extends Error {
  constructor({ message, hint, request_id: requestId }) {
    super(message);
    this.hint = hint;
    this.requestId = requestId;
  }
}

const SENTENCES = {
  401: ["You are not logged in.", "Log in, then reload this page."],
  403: ["The site refused the request.", "Reload this page: your session may have ended."],
  404: ["This conversation no longer exists.", "Start a new one."],
  413: ["This is too large.", "Make it shorter, or remove an image."],
  429: ["You have sent too many questions.", "Wait a moment and try again."],
  502: ["The site is not reachable right now.", "Try again in a moment."],
  503: ["The site is busy right now.", "Try again in a moment."],
  504: ["The site took too long to answer.", "Try again."],
};

export class Site {
  constructor({ ask, conversations, state, token }) {
    this.urls = { ask, conversations, state };
    this.headers = { "Content-Type": "application/json", "X-CSRFToken": token };
  }

  async ask(question, signal) {
    return this.fetch(this.urls.ask, { method: "POST", body: JSON.stringify(question), signal });
  }

  async conversations() {
    return (await (await this.fetch(this.urls.conversations)).json()).conversations;
  }

  async conversation(id) {
    return (await this.fetch(this.url(id))).json();
  }

  async rename(id, title) {
    await this.fetch(this.url(id), { method: "PATCH", body: JSON.stringify({ title }) });
  }

  async remove(id) {
    await this.fetch(this.url(id), { method: "DELETE" });
  }

  async state() {
    return (await this.fetch(this.urls.state)).json();
  }

  url(id) {
    return `${this.urls.conversations}${encodeURIComponent(id)}/`;
  }

  async fetch(url, options = {}) {
    let response;
    try {
      response = await fetch(url, { headers: this.headers, ...options });
    } catch (error) {
      if (error.name === "AbortError") throw error;
      throw new SiteError({ message: "The site cannot be reached.", hint: "Check your connection and try again." });
    }
    if (response.ok) return response;
    throw new SiteError(await refusal(response));
  }
}

async function refusal(response) {
  const body = await response.json().catch(() => null);
  if (body?.error?.message) return body.error;
  const [message, hint] = SENTENCES[response.status] ?? [`The site answered with an error (${response.status}).`, "Try again."];
  return { message, hint };
}

export async function* events(body) {
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
