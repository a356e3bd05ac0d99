// Markdown as DOM elements, never as HTML, so that model output stays text. Each text is read once, from left to right.

const MARK = /[`*[]/g;
const ADDRESS = /https?:\/\//y;

function element(name, ...children) {
  const made = document.createElement(name);
  made.append(...children);
  return made;
}

// Finds the next match at or after a position; for increasing positions, it reads the text once.
function finder(search) {
  let at = -2;
  return (from) => {
    if (at !== -1 && at < from) at = search(from);
    return at;
  };
}

class Inline {
  constructor(text) {
    this.text = text;
    this.bracket = finder((from) => text.indexOf("]", from));
    this.end = finder((from) => {
      const pattern = /[\s)]/g;
      pattern.lastIndex = from;
      return pattern.exec(text)?.index ?? -1;
    });
  }

  parts() {
    const { text } = this;
    const parts = [];
    let plain = 0;
    for (let at = 0; at < text.length; ) {
      MARK.lastIndex = at;
      const mark = MARK.exec(text);
      if (!mark) break;
      const found = this.read(mark[0], mark.index);
      if (found.made) {
        if (plain < mark.index) parts.push(text.slice(plain, mark.index));
        parts.push(found.made);
        plain = found.end;
      }
      at = found.end;
    }
    if (plain < text.length) parts.push(text.slice(plain));
    return parts;
  }

  read(mark, at) {
    if (mark === "`") return this.code(at);
    return mark === "*" ? this.emphasis(at) : this.link(at);
  }

  code(at) {
    let begin = at;
    while (this.text[begin] === "`") begin += 1;
    const fence = this.text.slice(at, begin);
    const end = this.text.indexOf("`", begin);
    if (end === -1 || !this.text.startsWith(fence, end)) return { end: begin };
    return { made: element("code", this.text.slice(begin, end)), end: end + fence.length };
  }

  emphasis(at) {
    const isStrong = this.text[at + 1] === "*";
    const begin = at + (isStrong ? 2 : 1);
    const end = this.text.indexOf("*", begin);
    const isClosed = end > begin && (isStrong ? this.text[end + 1] === "*" : !/\s/.test(this.text[begin]));
    if (!isClosed) return { end: begin };
    return { made: element(isStrong ? "strong" : "em", this.text.slice(begin, end)), end: end + (isStrong ? 2 : 1) };
  }

  link(at) {
    const end = this.bracket(at + 1);
    const address = end + 2;
    ADDRESS.lastIndex = address;
    if (end <= at + 1 || this.text[end + 1] !== "(" || !ADDRESS.test(this.text)) return { end: at + 1 };
    const close = this.end(address);
    if (this.text[close] !== ")") return { end: at + 1 };
    const made = element("a", this.text.slice(at + 1, end));
    const href = this.text.slice(address, close);
    Object.assign(made, { href, rel: "noopener noreferrer nofollow", target: "_blank" });
    return { made, end: close + 1 };
  }
}

function fill(made, text) {
  for (const part of new Inline(text).parts()) made.append(part);
  return made;
}

function block(lines) {
  const heading = /^(#{1,6})\s+(.*)$/.exec(lines[0]);
  if (heading && lines.length === 1) return fill(element(`h${Math.min(heading[1].length + 2, 6)}`), heading[2]);
  for (const [pattern, name] of [[/^\s*[-*+]\s+/, "ul"], [/^\s*\d+[.)]\s+/, "ol"]]) {
    if (lines.every((line) => pattern.test(line))) {
      const made = element(name);
      for (const line of lines) made.append(fill(element("li"), line.replace(pattern, "")));
      return made;
    }
  }
  const made = element("p");
  lines.forEach((line, at) => {
    if (at) made.append(element("br"));
    fill(made, line);
  });
  return made;
}

export function markdown(text) {
  const made = document.createDocumentFragment();
  let lines = [];
  let fence = null;
  const flush = () => {
    if (lines.length) made.append(block(lines));
    lines = [];
  };
  for (const line of text.split("\n")) {
    if (fence !== null) {
      if (/^\s*```\s*$/.test(line)) {
        made.append(element("pre", element("code", fence.join("\n"))));
        fence = null;
      } else fence.push(line);
    } else if (/^\s*```/.test(line)) {
      flush();
      fence = [];
    } else if (line.trim() === "") flush();
    else lines.push(line);
  }
  if (fence !== null) made.append(element("pre", element("code", fence.join("\n"))));
  flush();
  return made;
}

// Draws a growing text: the part before its last blank line outside a fence is drawn only once.
export class GrowingMarkdown {
  constructor(place) {
    this.place = place;
    this.drawn = [];
    this.rest = "";
    this.read = 0;
    this.finished = 0;
    this.isFence = false;
  }

  add(text) {
    this.rest += text;
  }

  draw() {
    this.readLines();
    for (const node of this.drawn) node.remove();
    if (this.finished) {
      this.place.append(markdown(this.rest.slice(0, this.finished)));
      this.rest = this.rest.slice(this.finished);
      this.read -= this.finished;
      this.finished = 0;
    }
    const made = markdown(this.rest);
    this.drawn = [...made.childNodes];
    this.place.append(made);
  }

  readLines() {
    for (let end; (end = this.rest.indexOf("\n", this.read)) !== -1; this.read = end + 1) {
      const line = this.rest.slice(this.read, end);
      if (this.isFence ? /^\s*```\s*$/.test(line) : /^\s*```/.test(line)) this.isFence = !this.isFence;
      else if (!this.isFence && line.trim() === "") this.finished = end + 1;
    }
  }
}
